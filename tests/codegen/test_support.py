import ctypes
import threading
import time

import pytest

from tensorwright.base.errors import CompileError
from tensorwright.codegen.support import support_ir
from tensorwright.runtime.loader import load_objects
from tests.runtime.native import DECLARATIONS, HOST, assemble, support

P, I, I32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32

KERNELS = """
; env: base of bytes, one per index; each index adds one to its byte.
define void @touch(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
  %go = icmp ult i64 %begin, %end
  br i1 %go, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %0 ], [ %i1, %loop ]
  %p = getelementptr i8, ptr %env, i64 %i
  %v = load i8, ptr %p
  %w = add i8 %v, 1
  store i8 %w, ptr %p
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}
define void @run(ptr %ctx, ptr %env, i64 %n, i64 %times) {
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %i1, %loop ]
  call void @tw_parallel(ptr %ctx, ptr @touch, ptr %env, i64 %n)
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %times
  br i1 %more, label %loop, label %out
out:
  ret void
}
; Each chunk writes at its first index how many it has.
define void @measure(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
  %length = sub i64 %end, %begin
  %byte = trunc i64 %length to i8
  %p = getelementptr i8, ptr %env, i64 %begin
  store i8 %byte, ptr %p
  ret void
}
define void @chunks(ptr %ctx, ptr %env, i64 %n) {
  call void @tw_parallel(ptr %ctx, ptr @measure, ptr %env, i64 %n)
  ret void
}
define void @outer(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
  %n = sub i64 %end, %begin
  %p = getelementptr i8, ptr %env, i64 %begin
  call void @tw_parallel(ptr %ctx, ptr @touch, ptr %p, i64 %n)
  ret void
}
define void @nested(ptr %ctx, ptr %env, i64 %n) {
  call void @tw_parallel(ptr %ctx, ptr @outer, ptr %env, i64 %n)
  ret void
}
define void @fail_all(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
  %code = trunc i64 %begin to i32
  %code1 = add i32 %code, 1
  call void @tw_fail(ptr %ctx, i32 %code1, i64 %begin, i64 %end, i64 7)
  ret void
}
define void @fail_parallel(ptr %ctx, i64 %n) {
  call void @tw_parallel(ptr %ctx, ptr @fail_all, ptr null, i64 %n)
  ret void
}
"""


class Native:
    def __init__(self) -> None:
        self.image = image = load_objects([support(), assemble(DECLARATIONS + KERNELS)])
        f = image.function
        self.pool_create, self.pool_destroy = (
            f("tw_pool_create", P, I32),
            f("tw_pool_destroy", None, P),
        )
        self.create, self.destroy = (
            f("tw_context_create", P, P, P),
            f("tw_context_destroy", None, P),
        )
        self.run, self.nested = f("run", None, P, P, I, I), f("nested", None, P, P, I)
        self.chunks = f("chunks", None, P, P, I)
        self.push, self.pop = f("tw_frame_push", P, P, I), f("tw_frame_pop", None, P)
        self.alloc, self.free = f("tw_alloc", P, I), f("tw_free", None, P)
        self.fail = f("tw_fail", None, P, I32, I, I, I)
        self.fail_parallel = f("fail_parallel", None, P, I)
        self.mark = f("tw_profile_mark", None, P, I32)


@pytest.fixture(scope="module")
def native() -> Native:
    return Native()


@pytest.fixture
def context(native):
    ctx = native.create(None, None)
    yield ctx
    native.destroy(ctx)


@pytest.mark.parametrize("threads", [0, 1, 2, 3, 8])
def test_every_index_runs_exactly_once(native, threads):
    pool = native.pool_create(threads)
    ctx = native.create(pool, None)
    for n in [0, 1, 2, 3, 7, 8, 9, 16, 17, 31, 32, 33, 100, 4095, 5000]:
        data = (ctypes.c_uint8 * (n + 1))()
        native.run(ctx, data, n, 50)
        assert bytes(data) == bytes([50] * n + [0]), n
    native.destroy(ctx)
    native.pool_destroy(pool)


@pytest.mark.parametrize("threads, n, lengths", [
    (2, 3, [1, 1, 1]), (2, 9, [3, 1, 1, 2, 1, 1]), (2, 32, [8, 2, 2, 2, 2] * 2),
    (2, 63, [16, 4, 4, 4, 4, 16, 4, 4, 4, 3]), (3, 2, [1, 1]),
    (3, 16, [3, 1, 1, 1, 3, 1, 1, 3, 1, 1]),
])  # fmt: skip
def test_each_thread_has_a_range_in_ever_shorter_chunks(native, threads, n, lengths):
    """Ranges differ by one index at most; what is claimed last of each is short."""
    pool = native.pool_create(threads)
    ctx = native.create(pool, None)
    data = (ctypes.c_uint8 * n)()
    native.chunks(ctx, data, n)
    assert [v for v in data if v] == lengths
    native.destroy(ctx)
    native.pool_destroy(pool)


def test_huge_thread_counts_are_capped(native):
    pool = native.pool_create(5000)
    ctx = native.create(pool, None)
    data = (ctypes.c_uint8 * 9000)()
    native.run(ctx, data, 9000, 3)
    assert bytes(data) == bytes([3]) * 9000
    native.destroy(ctx)
    native.pool_destroy(pool)


def test_nested_jobs_run_in_their_caller(native):
    pool = native.pool_create(4)
    ctx = native.create(pool, None)
    data = (ctypes.c_uint8 * 1000)()
    for _ in range(100):
        native.nested(ctx, data, 1000)
    assert bytes(data) == bytes([100]) * 1000
    native.destroy(ctx)
    native.pool_destroy(pool)


def test_sleeping_workers_wake_for_work(native):
    pool = native.pool_create(3)
    ctx = native.create(pool, None)
    data = (ctypes.c_uint8 * 64)()
    for _ in range(30):
        time.sleep(0.002)  # longer than the workers spin
        native.run(ctx, data, 64, 1)
    assert bytes(data) == bytes([30]) * 64
    native.destroy(ctx)
    native.pool_destroy(pool)


def test_one_pool_serves_many_callers(native):
    """Thousands of tiny jobs from several threads at once: none lost, none run twice."""
    pool = native.pool_create(4)
    wrong = []

    def caller(seed: int) -> None:
        ctx = native.create(pool, None)
        for round_ in range(60):
            n = 1 + (seed * 31 + round_ * 7) % 40
            data = (ctypes.c_uint8 * (n + 1))()
            native.run(ctx, data, n, 200)
            if bytes(data) != bytes([200] * n + [0]):
                wrong.append((seed, n))
        native.destroy(ctx)

    callers = [threading.Thread(target=caller, args=(s,)) for s in range(6)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    native.pool_destroy(pool)
    assert not wrong


def test_pools_come_and_go(native):
    for i in range(200):
        pool = native.pool_create(2 + i % 3)
        ctx = native.create(pool, None)
        data = (ctypes.c_uint8 * 8)()
        native.run(ctx, data, 8, i % 3)
        native.destroy(ctx)
        native.pool_destroy(pool)
    native.pool_destroy(None)


def test_allocations_are_aligned(native):
    for size in [0, 1, 63, 64, 65, 4096, 1 << 20]:
        p = native.alloc(size)
        assert p % 64 == 0
        ctypes.memset(p, 1, size)
        native.free(p)
    p = native.alloc((1 << 21) + 1)
    assert p % (1 << 21) == 0
    native.free(p)
    assert native.alloc(1 << 60) is None


def test_frames_nest_and_stay_put(native, context):
    sizes = [0, 1, 64, 100, 70_000, 3, 3_000_000, 200_000, 5_000_000, 8]
    frames = []
    for i, size in enumerate(sizes):
        p = native.push(context, size)
        assert p % 64 == 0
        ctypes.memset(p, i + 1, size)
        frames.append(p)
    for i, size in reversed(list(enumerate(sizes))):
        assert ctypes.string_at(frames[i], size) == bytes([i + 1]) * size
        native.pop(context)


def test_steady_state_reuses_the_same_memory(native, context):
    def one_call() -> list[int]:
        frames = [native.push(context, s) for s in (1000, 500_000, 64, 4_000_000, 2_500_000)]
        for _ in frames:
            native.pop(context)
        return frames

    one_call()
    assert one_call() == one_call()


def test_large_frames_lie_on_huge_pages(native, context):
    p = native.push(context, 4 << 20)
    assert (p - 128) % (1 << 21) == 0  # behind the chunk's and the frame's links
    native.pop(context)


def test_a_frame_beyond_memory_is_an_error_not_a_crash(native, context):
    assert native.push(context, 1 << 60) is None
    assert I32.from_address(context).value == -1
    assert I.from_address(context + 8).value == 1 << 60
    assert native.push(context, 8)


def test_the_first_failure_wins(native, context):
    native.fail(context, 3, 10, 20, 30)
    native.fail(context, 4, 11, 21, 31)
    assert I32.from_address(context).value == 3
    assert list((I * 6).from_address(context + 8)) == [10, 20, 30, 0, 0, 0]


def test_reset_forgets_the_error_and_the_frames_but_keeps_the_memory(native, context):
    reset = native.image.function("tw_context_reset", None, P)
    first = native.push(context, 1000)
    native.push(context, 5_000_000)
    native.fail(context, 3, 1, 2, 3)
    reset(context)
    assert list((I * 7).from_address(context)) == [0] * 7
    assert native.push(context, 1000) == first
    native.pop(context)


def test_failures_of_parallel_bodies_are_consistent(native):
    pool = native.pool_create(4)
    ctx = native.create(pool, None)
    ends = {k + at: k + end for k in (0, 4, 8, 12) for at, end in ((0, 2), (2, 3), (3, 4))}
    for _ in range(500):
        ctypes.memset(ctx, 0, 56)
        native.fail_parallel(ctx, 16)
        begin, end, seven = list((I * 3).from_address(ctx + 8))
        assert (I32.from_address(ctx).value, end, seven) == (begin + 1, ends[begin], 7)
    native.destroy(ctx)
    native.pool_destroy(pool)


def test_marks_fill_the_buffer_and_then_only_count(native, context):
    native.mark(context, 5)  # off: nothing happens
    buffer = (I * 6)(2)
    I.from_address(context + 72).value = ctypes.addressof(buffer)
    before = time.monotonic_ns()
    for number in (7, -1, 9):
        native.mark(context, number)
    assert buffer[1] == 3
    assert (buffer[2], buffer[4]) == (7, -1)
    assert before <= buffer[3] <= buffer[5] <= time.monotonic_ns()


def test_context_fields_are_where_compiled_code_looks(native):
    ctx = native.create(None, 0x1234)
    assert ctypes.c_uint64.from_address(ctx + 56).value == 0x1234
    assert ctypes.c_uint64.from_address(ctx + 64).value == 0
    native.destroy(ctx)


def test_the_layout_tells_versions_apart(native):
    value = I.from_address(native.image.symbol("tw_support_layout")).value
    assert value > 0 and f"constant i64 {value}" in support_ir(HOST)


def test_unknown_machines_are_refused():
    with pytest.raises(CompileError, match="no native support code for 'pdp11-unknown'"):
        support_ir("pdp11-unknown")
