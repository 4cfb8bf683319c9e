"""Producers computed where they are read, and loops that share their rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Symbol, cast, const, sym
from tensorwright.ir.loop import Alloc, For, Kernel, Let, Store, loops, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.primitives_memory import compute_at
from tensorwright.schedule.primitives_nests import (
    distribute,
    divide_once,
    in_place,
    jam,
    privatize,
)  # fmt: skip
from tests.schedule.nests import Dim, assert_same, chain_kernel, dim, kernel, loop_of

sizes = st.integers(1, 9) | st.just("n")
checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def window_kernel(n: Dim, reach: int, total: bool = False) -> Kernel:
    """t[i] = x[i] * x[i] (or sum over r of x[r] * x[i]); y[i] = sum over r in reach of t[i + r]"""
    n = dim(n)
    m = n + reach - 1
    x, t, y = Buffer("x", f32, (m,)), Buffer("t", f32, (m,), "temp"), Buffer("y", f32, (n,))

    def make(j):
        if not total:
            return Store(t, (j,), x[j] * x[j])
        step = ir.loop("q", 3, lambda q: Store(t, (j,), t[j] + x[j] * cast(q, f32)))
        return seq(Store(t, (j,), const(0.0, f32)), step)

    def use(i):
        step = ir.loop("r", reach, lambda r: Store(y, (i,), y[i] + t[i + r]))
        return seq(Store(y, (i,), const(0.0, f32)), step)

    body = seq(Alloc(t), ir.loop("j", m, make), ir.loop("i", n, use))
    return kernel("window", [x], y, body)


def producer_of(k: Kernel) -> For:
    return next(s for s in ir.statements(k.body) if isinstance(s, For) and s.var.name == "j")


@checked
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_window(n, reach, factor, total):
    k = window_kernel(n, reach, total)
    body, outer, _ = p.split(k.body, loop_of(k, "i"), factor)
    body, near = compute_at(body, producer_of(k), outer)
    assert near.shape == (factor + reach - 1,)
    assert_same(k, body, n)


@checked
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 9))
def test_rows(m, n, size):
    k = chain_kernel(m, n)
    first = next(s for s in k.body.body if isinstance(s, For))
    body, near = compute_at(k.body, first, loop_of(k, "i", 1))
    assert near.shape == (1, n)
    assert_same(k, body, size)


def test_refuses_a_second_reader():
    k = window_kernel(4, 2)
    t = next(s.buffer for s in ir.statements(k.body) if isinstance(s, Alloc))
    more = ir.loop("z", 4, lambda z: Store(k.results[0], (z,), t[z]))
    with pytest.raises(ScheduleError, match="used outside"):
        compute_at(seq(k.body, more), producer_of(k), loop_of(k, "i"))


def test_refuses_inputs_that_change():
    k = window_kernel(4, 2)
    x, (alloc, first, last) = k.inputs[0], k.body.body
    spoil = ir.loop("z", 4, lambda z: Store(x, (z,), const(0.0, f32)))
    with pytest.raises(ScheduleError, match="changes"):
        compute_at(seq(alloc, first, spoil, last), first, last.var)


def test_refuses_what_nothing_bounds():
    k = chain_kernel(3, "n")
    first = next(s for s in k.body.body if isinstance(s, For))
    with pytest.raises(ScheduleError, match="nothing bounds"):
        compute_at(k.body, first, loop_of(k, "i", 1))


# ---- loops over common rows --------------------------------------------------------------------


@checked
@given(sizes, st.integers(1, 8), st.integers(1, 4), st.integers(1, 9))
def test_tile_of_rows(m, n, height, size):
    """jam, privatize, split and distribute: what attention is made of."""
    k = chain_kernel(m, n)
    t = next(s.buffer for s in ir.statements(k.body) if isinstance(s, Alloc))
    body, row = jam(k.body, [loop_of(k, "i"), loop_of(k, "i", 1)])
    body, small = privatize(body, row, t, t.shape[1:])
    assert small.shape == (n,)
    assert_same(k, body, size)
    body, _, inner = p.split(body, row, height, last="repeated")
    nests = [s for s in p.find(body, inner).body.body if isinstance(s, For)]
    body, parts = distribute(body, inner, nests[1:])
    assert len(parts) == 2
    assert_same(k, body, size)


def test_jam_refuses_dependent_iterations():
    k = window_kernel(4, 2)
    x, y = k.inputs[0], k.results[0]
    t = next(s.buffer for s in ir.statements(k.body) if isinstance(s, Alloc))
    first = ir.loop("a", 4, lambda a: Store(t, (a,), x[a]))
    last = ir.loop("b", 4, lambda b: Store(y, (b,), t[3 - b]))
    with pytest.raises(ScheduleError, match="not independent"):
        jam(seq(Alloc(t), first, last), [first.var, last.var])


def test_jam_refuses_other_ranges():
    k = window_kernel(4, 2)
    with pytest.raises(ScheduleError, match="different ranges"):
        jam(k.body, [loop_of(k, "j"), loop_of(k, "i")])


def test_privatize_refuses_rows_that_meet():
    t = Buffer("t", f32, (4, 4), "temp")
    y = Buffer("y", f32, (4,))
    loop = ir.loop("i", 4, lambda i: seq(Store(t, (i, const(0)), const(1.0, f32)),
                                         Store(y, (i,), t[0, 0])))  # fmt: skip
    with pytest.raises(ScheduleError, match="more than one place"):
        privatize(seq(Alloc(t), loop), loop.var, t, t.shape[1:])


def test_distribute_refuses_shared_results():
    x, y, z = (Buffer(n, f32, (4,)) for n in "xyz")
    loop = ir.loop("i", 4, lambda i: seq(Store(y, (i,), x[i]), Store(z, (i,), y[3 - i])))
    with pytest.raises(ScheduleError, match="share y"):
        distribute(loop, loop.var, loop.body.body[1:])


def test_distribute_independent_iterations():
    """What groups share may be a result of which each iteration touches an element of its own; each
    group binds the numbers that it reads."""
    x, y = (Buffer(n, f32, (4,)) for n in "xy")
    n = Symbol("n", 0, 3)
    body = lambda i: seq(Let(n, 3 - i), Store(y, (i,), x[i]), Store(y, (i,), y[i] * x[sym(n)]))
    loop = ir.loop("i", 4, body)
    new, parts = distribute(loop, loop.var, loop.body.body[2:])
    first, last = (p.find(new, v) for v in parts)
    assert isinstance(first.body, Store)
    assert [type(s) for s in last.body.body] == [Let, Store]


def test_in_place():
    x, y = Buffer("x", f32, (4,)), Buffer("y", f32, (4,))
    a, b = (Buffer(n, f32, (4,), "temp") for n in "ab")
    body = seq(
        Alloc(a), Alloc(b), loops("i", (4,), lambda i: Store(a, (i,), x[i] * 2.0)),
        loops("j", (4,), lambda i: Store(b, (i,), a[i] + 1.0)),
        loops("k", (4,), lambda i: Store(y, (i,), b[3 - i])),
    )  # fmt: skip
    k = kernel("chain", [x], y, body)
    after = in_place(body, a, b)
    assert b not in ir.buffers(after)
    assert_same(k, after)


def test_in_place_refuses_reversed_reads():
    k = chain_kernel(2, 3)
    t = next(s.buffer for s in ir.statements(k.body) if isinstance(s, Alloc))
    u = Buffer("u", f32, t.shape, "temp")
    body = ir.replace_buffers(k.body, {k.results[0]: u})
    with pytest.raises(ScheduleError, match="other elements"):
        in_place(seq(Alloc(u), body), t, u)


def test_divide_once():
    x, y = Buffer("x", f32, (3, 4)), Buffer("y", f32, (3, 4))
    k = kernel("quotient", [x], y, loops("ij", (3, 4), lambda i, j: Store(
        y, (i, j), x[i, j] / ((x[i, 0] * x[i, 0]) * 0.0 + 4.0))))  # fmt: skip
    after = divide_once(k.body)
    assert sum(e.op == "div" for s in ir.statements(after) if isinstance(s, Store)
               for e in ir.walk(s.value)) == 1  # fmt: skip
    inner = next(s for s in ir.statements(after) if isinstance(s, For) and s.var.name == "j")
    assert not any(e.op == "div" for e in ir.walk(inner.body.value))
    assert_same(k, after)
