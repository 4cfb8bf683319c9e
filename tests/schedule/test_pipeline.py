"""Caches that are filled one iteration ahead."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer
from tensorwright.ir.loop import Alloc, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.primitives_memory import cache_read, pipeline
from tests.schedule.nests import assert_same, loop_of, map_kernel, product_kernel

checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@checked
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 5), st.integers(1, 4))
def test_product(m, n, depth, factor):
    k = product_kernel(m, n, depth)
    body, outer, _ = p.split(k.body, loop_of(k, "j"), factor)
    body, near = cache_read(body, outer, k.inputs[1])
    body = pipeline(body, outer, near)
    (double,) = {s.buffer for s in ir.statements(body) if isinstance(s, Alloc)}
    assert double.shape == (2, *near.shape)
    assert_same(k, body)


@checked
@given(st.integers(1, 6), st.integers(1, 7))
def test_symbolic(n, size):
    k = map_kernel("n", n)
    body, near = cache_read(k.body, loop_of(k, "i"), k.inputs[0])
    assert_same(k, pipeline(body, loop_of(k, "i"), near), size)


def test_refuses_loops_without_order():
    k = map_kernel(4, 3)
    i = loop_of(k, "i")
    body, near = cache_read(p.set_kind(k.body, i, "parallel"), i, k.inputs[0])
    with pytest.raises(ScheduleError, match="no order"):
        pipeline(body, i, near)


def test_refuses_sources_that_change():
    x, y = Buffer("x", f32, (5,)), Buffer("y", f32, (4,))
    c = Buffer("c", f32, (1,), "local")
    loop = ir.loop("i", 4, lambda i: seq(
        Alloc(c), ir.store(c, 0, x[i]), ir.store(y, i, c[0]),
        ir.store(x, i + 1, c[0])))  # fmt: skip
    with pytest.raises(ScheduleError, match="stores to what c is filled from"):
        pipeline(loop, loop.var, c)


def test_refuses_a_cache_of_another_loop():
    k = product_kernel(4, 3, 2)
    body, near = cache_read(k.body, loop_of(k, "j"), k.inputs[0])
    with pytest.raises(ScheduleError, match="not filled once"):
        pipeline(body, loop_of(k, "i"), near)
