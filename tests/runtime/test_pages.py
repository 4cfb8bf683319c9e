import gc
import mmap
import weakref
from pathlib import Path

import numpy as np
import pytest

from tensorwright.base.errors import RunError
from tensorwright.runtime import pages
from tensorwright.runtime.artifact import load
from tensorwright.runtime.buffer import address
from tests.runtime.native import program
from tests.runtime.test_program import STATIC

F32 = np.dtype(np.float32)
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SMALL = np.array([10, 20, 30], np.float32)

needs_large_pages = pytest.mark.skipif(
    not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="the system has no large pages"
)


def large_bytes(start: int) -> int:
    """Bytes on large pages in the mapping around an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            low, high = (int(x, 16) for x in first.split("-"))
            inside = low <= start < high
        elif inside and first == "AnonHugePages:":
            return int(rest[0]) * 1024
    raise LookupError(start)


@needs_large_pages
def test_large_arrays_have_large_pages():
    a = pages.constant_empty((2048, 2048), F32)
    a[...] = 1
    assert large_bytes(address(a)) >= a.nbytes - pages.PAGE


@needs_large_pages
def test_weights_of_programs_have_large_pages(tmp_path):
    big = np.arange(4 << 20, dtype=np.int32)
    p = program(STATIC, "x: f32[2, 3]", "y: f32[3], s: i64[]", weights=[SMALL, big])
    p.save(tmp_path / "p.tw")
    for made in (p, load(tmp_path / "p.tw")):
        assert large_bytes(address(made._weights[1])) >= big.nbytes - pages.PAGE
        assert (made._weights[1].view(np.int32) == big).all()
    mapped = load(tmp_path / "p.tw", mapped=True)
    assert large_bytes(address(mapped._weights[1])) == 0
    x = np.zeros((2, 3), np.float32)
    assert mapped(x)[0].tolist() == p(x)[0].tolist() == SMALL.tolist()


def test_arrays_share_regions_on_cache_lines():
    pool = pages.Pool()
    cuts = [pool.cut(n) for n in (pages.LARGE + 1, pages.LARGE + 7, 3 * pages.LARGE)]
    assert address(cuts[0]) % pages.PAGE == 0
    assert all(address(c) % 64 == 0 for c in cuts)
    for k, c in enumerate(cuts):
        c[:] = k
    assert [set(c.tolist()) for c in cuts] == [{0}, {1}, {2}]
    assert address(cuts[2]) - address(cuts[0]) < pages.REGION
    assert pool.cut(pages.REGION).nbytes == pages.REGION  # goes to a region of its own


def test_a_region_goes_with_its_last_array():
    pool = pages.Pool()
    one, two = pool.cut(1000), pool.cut(1000)
    gone = weakref.ref(one.base.base.obj)
    assert isinstance(gone(), mmap.mmap)
    del one
    gc.collect()
    assert gone() is not None
    del two
    gc.collect()
    assert gone() is None
    assert pool.cut(1000).nbytes == 1000


def test_only_large_arrays_are_copied_and_only_once():
    small, large = pages.constant_empty((10,), F32), pages.constant_empty((1 << 18,), F32)
    assert not pages.is_pooled(small) and pages.is_pooled(large) and pages.is_pooled(large[5:])
    outside = np.ones(1 << 20, np.uint8)
    a, b, copy = pages.constants([large, small, outside])
    assert address(a) == address(large) and address(b) == address(small)
    assert pages.is_pooled(copy) and (copy == 1).all()


def test_too_much_is_an_error():
    with pytest.raises(RunError, match="out of memory"):
        pages.constant_empty((1 << 60,), F32)
