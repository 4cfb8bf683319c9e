"""Plans of random host functions, executed and proved right."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.base.errors import InternalError
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Symbol, as_dim, const, sym
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Alloc, Call, Kernel, Seq
from tensorwright.memory.overlap import check_plan, verify_plan
from tensorwright.memory.plan import plan_memory
from tests.memory.programs import Clash, host_functions, run_plan, used_twice

N, M = Symbol("n", min=1), Symbol("m", min=0, max=40)
SYMBOLS = (sym(N), sym(N) * 3 + 1, sym(M), sym(N) * sym(M))


def frame_size(k: Kernel):
    return next(s.buffer.shape[0] for s in ir.statements(k.body)
                if isinstance(s, Alloc) and s.buffer.scope == "frame")  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(host_functions())
def test_static_plans_are_right(k: Kernel):
    planned = plan_memory(k)
    assert check_plan(planned) == []
    run_plan(planned)


@settings(max_examples=80, deadline=None)
@given(host_functions(SYMBOLS), st.integers(1, 9), st.integers(0, 40))
def test_symbolic_plans_are_right(k: Kernel, n: int, m: int):
    planned = plan_memory(k)
    assert check_plan(planned) == []
    assert check_plan(planned, {N: n, M: m}) == []
    run_plan(planned, {N: n, M: m})


@settings(max_examples=150, deadline=None)
@given(host_functions(), st.data())
def test_checker_sees_what_execution_sees(k: Kernel, data):
    """Whatever goes wrong when a damaged plan is run, the checker had said."""
    planned = plan_memory(k)
    arena = [s for s in ir.statements(planned.body)
             if isinstance(s, Alloc) and s.buffer.scope == "arena"]  # fmt: skip
    if not arena:
        return
    moved = data.draw(st.sampled_from(arena))
    offset = const(64 * data.draw(st.integers(0, 8)))
    damaged = planned.with_body(ir.rewrite(
        planned.body, lambda s: Alloc(s.buffer, offset) if s is moved else None))  # fmt: skip
    try:
        run_plan(damaged)
    except Clash:
        assert check_plan(damaged)


def test_live_together():
    assert check_plan(used_twice(0, 64)) == []
    (problem,) = check_plan(used_twice(0, 0))
    assert "live together" in str(problem)
    with pytest.raises(InternalError, match="live together"):
        verify_plan(used_twice(64, 64))


def test_outside_and_unaligned():
    assert any("bytes" in str(p) for p in check_plan(used_twice(0, 1024)))
    assert any("not aligned" in str(p) for p in check_plan(used_twice(0, 72)))


def chain(*sizes) -> Kernel:
    """A chain of calls, each reading the result before it."""
    x = Buffer("x", f32, (16,), "input")
    body, last = [Alloc(x, const(0))], x
    for k, n in enumerate(sizes):
        b = Buffer(f"b{k}", f32, (n,), "arena", 64)
        body += [Alloc(b), Call("f", (last, b))]
        last = b
    return Kernel("tw_main", (x,), 0, Seq(tuple(body)))


def test_chain_needs_two_buffers():
    assert as_dim(frame_size(plan_memory(chain(*[256] * 10)))) == 2 * 1024


def test_symbolic_chain_needs_two_buffers():
    size = frame_size(plan_memory(chain(*[sym(N) * 16] * 10)))
    assert size is sym(N) * 128


def test_sizes_that_nobody_can_compare_share_a_place():
    """The frame is as large as the largest two neighbours of the chain, whichever they are."""
    n, m = sym(N) * 16, sym(M) * 16
    planned = plan_memory(chain(n, m, n, m))
    assert check_plan(planned) == []
    for a, b in ((9, 1), (1, 9), (5, 5)):
        assert evaluate(frame_size(planned), {N: a, M: b}) == 64 * (a + b)
    planned = plan_memory(chain(n, 16, m))
    sizes = {evaluate(frame_size(planned), {N: a, M: b}) for a, b in ((9, 1), (1, 9))}
    assert sizes == {64 * 10}
    assert check_plan(planned) == []


def test_empty_buffers_need_nothing():
    planned = plan_memory(chain(0, 0, 0))
    assert check_plan(planned) == []
    assert as_dim(frame_size(planned)) == 0
