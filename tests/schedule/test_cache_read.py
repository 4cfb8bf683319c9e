"""Copies close to where they are read, panels, and loops on a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, cast, index
from tensorwright.ir.interp import packed, run_kernel
from tensorwright.ir.loop import Pack, Store
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.primitives_memory import bind, cache_read, pack
from tests.schedule.nests import (
    assert_same,
    kernel,
    loop_of,
    map_kernel,
    operands,
    product_kernel,
    sum_kernel,
)  # fmt: skip

numbers = st.integers(1, 9)
checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@checked
@given(numbers, numbers, numbers, st.sampled_from("xw"), st.integers(1, 5))
def test_product(m, n, depth, which, factor):
    k = product_kernel(m, n, depth)
    body, outer, _ = p.split(k.body, loop_of(k, "j"), factor)
    b = k.inputs["xw".index(which)]
    body, near = cache_read(body, outer, b)
    assert near.shape == ((1, depth) if which == "x" else (depth, factor))
    assert_same(k, body)


@checked
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3))
def test_strided_window(n, reach, step):
    x, y = Buffer("x", f32, (n * step + reach,)), Buffer("y", f32, (n, reach))
    body = ir.loops("ir", (n, reach), lambda i, r: Store(y, (i, r), x[i * step + r]))
    k = kernel("window", [x], y, body)
    after, near = cache_read(k.body, loop_of(k, "i"), x)
    assert near.shape == (reach,)
    assert_same(k, after)


def test_refuses_what_the_loop_stores():
    x = Buffer("x", f32, (4,))
    loop = ir.loop("i", 3, lambda i: Store(x, (i,), x[i + 1]))
    with pytest.raises(ScheduleError, match="stores to x"):
        cache_read(loop, loop.var, x)


def test_refuses_symbolic_regions():
    k = sum_kernel(3, "n")
    with pytest.raises(ScheduleError, match="nothing bounds"):
        cache_read(k.body, loop_of(k, "i"), k.inputs[0])


def test_refuses_places_from_memory():
    x, t, y = Buffer("x", f32, (9,)), Buffer("t", "i64", (4,)), Buffer("y", f32, (4,))
    loop = ir.loop("i", 4, lambda i: Store(y, (i,), x[cast(t[i], index)]))
    with pytest.raises(ScheduleError, match="found in memory"):
        cache_read(loop, loop.var, x)


def test_refuses_unrelated_places():
    x, y = Buffer("x", f32, (9, 9)), Buffer("y", f32, (3, 3))
    nest = ir.loops("ij", (3, 3), lambda i, j: Store(y, (i, j), x[i, 0] + x[j, 0]))
    with pytest.raises(ScheduleError, match="unrelated places"):
        cache_read(nest, nest.body.var, x)


@checked
@given(numbers, numbers, numbers, st.integers(1, 5))
def test_pack(m, n, depth, width):
    k = product_kernel(m, n, depth)
    spec = Pack(1, 1, width, (), (0,))
    after = pack(k, spec)
    x, w = operands(k, 0)
    expected = run_kernel(k, [x, w])
    np.testing.assert_array_equal(run_kernel(after, [x, packed(w, spec)]), expected)


def test_pack_refuses():
    k = product_kernel(2, 3, 4)
    with pytest.raises(ScheduleError, match="no place"):
        pack(k, Pack(1, 1, 4, (), ()))
    with pytest.raises(ScheduleError, match="packed already"):
        pack(pack(k, Pack(1, 1, 4, (), (0,))), Pack(1, 1, 4, (), (0,)))
    with pytest.raises(ScheduleError, match="no input"):
        pack(k, Pack(2, 1, 4, (), (0,)))


def test_bind():
    k = map_kernel(4, 5)
    i, j = loop_of(k, "i"), loop_of(k, "j")
    body = bind(bind(k.body, i, "block"), j, "thread")
    assert [s.kind for s in ir.statements(body) if isinstance(s, ir.For)] == ["block", "thread"]
    assert_same(k, body)
    with pytest.raises(ScheduleError, match="no loop around"):
        bind(k.body, j, "thread")
    with pytest.raises(ScheduleError, match="not blocks"):
        bind(k.body, j, "block")
    with pytest.raises(ScheduleError, match="not to parallel"):
        bind(k.body, i, "parallel")


def test_bind_refuses_reductions():
    k = replace(product_kernel(2, 3, 4))
    with pytest.raises(ScheduleError, match="not independent"):
        bind(k.body, loop_of(k, "r"), "thread")
