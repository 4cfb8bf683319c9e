"""Memory of large results: waits for the next result once nobody looks at it any more."""

import gc
import threading

import numpy as np
import pytest

from tensorwright.runtime import results
from tensorwright.runtime.buffer import ALIGNMENT, address

F32 = np.dtype(np.float32)
COUNT = results.LARGE // 4


@pytest.fixture(autouse=True)
def nothing_waits():
    results.forget()
    yield
    results.forget()


def large(count: int = COUNT) -> np.ndarray:
    array, start = results.result_empty((count,), F32, count * 4)
    assert address(array) == start and start % ALIGNMENT == 0
    assert array.flags.writeable and array.flags.c_contiguous
    return array


def test_a_dropped_block_is_used_again():
    first = large()
    place = address(first)
    first[:] = 1
    del first
    assert len(results._waiting) == 1
    second = large()
    assert address(second) == place
    second[:] = np.arange(COUNT)
    assert second[-1] == COUNT - 1


def test_results_of_pages_begin_with_one():
    sizes = results.MIDDLE // 4, results.MIDDLE, COUNT - 1, COUNT
    assert [address(large(n)) % results.SMALL_PAGE for n in sizes] == [0, 0, 0, 0]


def test_a_view_keeps_its_block():
    whole = large()
    whole[:] = 7
    part = whole[10:20].reshape(2, 5)
    del whole
    gc.collect()
    assert not results._waiting
    other = large()
    other[:] = 8
    assert (part == 7).all()
    del part, other
    assert len(results._waiting) == 2


def test_much_larger_blocks_are_left_for_what_needs_them():
    held = large(4 * COUNT)
    place = address(held)
    del held
    assert address(large()) != place
    assert address(large(4 * COUNT - 16)) == place


def test_few_blocks_wait():
    held = [large() for _ in range(results.MOST + 3)]
    del held
    assert len(results._waiting) == results.MOST


def test_small_results_are_ordinary():
    array, start = results.result_empty((3, 4), F32, 48)
    assert array.shape == (3, 4) and start % ALIGNMENT == 0
    del array
    assert not results._waiting


def test_memory_that_waits_is_given_back_before_there_is_none(monkeypatch):
    del (held := [large()])[:]
    assert results._waiting and not held
    made = iter([results.RunError("out of memory"), None])
    block = results.Block

    def scarce(nbytes):
        trouble = next(made)
        if trouble is not None:
            raise trouble
        assert not results._waiting
        return block(nbytes)

    monkeypatch.setattr(results, "Block", scarce)
    assert large(8 * COUNT).size == 8 * COUNT


def test_threads_take_blocks_of_their_own():
    wrong = []

    def work(mark: float) -> None:
        for _ in range(50):
            array = large()
            array[::4096] = mark
            wrong.extend(array[::4096][array[::4096] != mark])

    threads = [threading.Thread(target=work, args=(float(k),)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and len(results._waiting) <= results.MOST


def middle(count: int) -> np.ndarray:
    return results.result_empty((count,), F32, count * 4)[0]


def test_smaller_blocks_wait_for_results_of_their_size():
    count = results.MIDDLE // 4
    several = [middle(count) for _ in range(24)]
    places = {address(a) for a in several}
    assert len(places) == 24
    assert all(p % ALIGNMENT == 0 for p in places)
    other = several[3][5:]
    kept = places - {address(several[3])}
    del several
    assert address(middle(count + 16)) not in kept
    again = [middle(count) for _ in range(23)]
    assert {address(a) for a in again} == kept
    other[:] = 1
    assert address(middle(count)) not in places


def test_smaller_blocks_that_wait_are_bounded():
    count = results.LARGE // 4 - 16
    held = [middle(count) for _ in range(4)]
    del held
    waiting = sum(n * len(shelf) for n, shelf in results._shelves.items())
    assert waiting <= results.MOST_BYTES
    several = [middle(count) for _ in range(3)]
    places = {address(a) for a in several}
    del several
    assert len(places) == 3


def test_threads_share_smaller_blocks():
    wrong = []

    def work() -> None:
        for k in range(200):
            a, b = middle(results.MIDDLE // 4), middle(results.MIDDLE // 4)
            a[:], b[:] = k, k + 1
            if a[0] != k or a[-1] != k:
                wrong.append(k)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert len(results._shelves[results.MIDDLE]) <= 4 * 4  # two of each thread, two to be
