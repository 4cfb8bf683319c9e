"""Sizes and truths known before running."""

import numpy as np
import pytest

from tensorwright.ir.expr import const, var
from tensorwright.ir.graph import Graph, constant, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.type import tensor
from tensorwright.ops.control import if_
from tensorwright.ops.elementwise import (
    add,
    cast,
    floor_div,
    less,
    less_equal,
    logical_and,
    logical_not,
    maximum,
    mul,
    select,
)  # fmt: skip
from tensorwright.ops.index import gather, gather_elements, gather_nd
from tensorwright.ops.movement import broadcast_to, concat, expand_dims, reshape, slice_axis
from tensorwright.ops.positions import bind_size, full, iota, size
from tensorwright.passes.canonicalize import canonicalize
from tensorwright.passes.elements import element, is_always, positions
from tensorwright.passes.fold_constants import fold_constants
from tensorwright.passes.shapes import holds_for, simplify_shapes
from tests.passes.equivalence import assert_equal_results, check_pass, module, op_names, x_of


def scalar(e):
    return reshape(size(dims=(e,)), shape=())


def check(result, *params, ops=None, **how):
    return check_pass(simplify_shapes, module(result, *params), ops, **how)


def test_arithmetic_of_sizes():
    n = var("n", min=1)
    x = x_of(n, 3)
    k = add(mul(scalar(n), 2), 1)
    m = check(k, x, ops=["size", "reshape"])
    assert m.main.results[0].args[0].attrs["dims"] == (2 * n + 1,)
    check(maximum(floor_div(scalar(4 * n), 2), 0), x, ops=["size", "reshape"])
    both = concat(size(dims=(n, 3)), reshape(scalar(n), shape=(1,)), axis=0)
    check(gather(both, constant(np.array(2)), axis=0), x, ops=["size", "reshape"])
    check(slice_axis(add(both, 1), 0, 1, 3), x, ops=["size"])
    check(cast(scalar(n), dtype="i32"), x, ops=["size", "reshape", "cast"])
    check(add(cast(scalar(n), dtype="f32"), 1.0), x, ops=["size", "reshape", "cast", "add"])


def test_round_trip_through_a_symbol():
    n = var("n", min=1)
    s = var("s", min=0)
    x = x_of(n, 3)
    bind_size(mul(scalar(n), 3), symbols=(s,))
    m = module(reshape(iota(shape=(s,)), shape=(s, 1)), x)
    after = check_pass(simplify_shapes, m, ["iota", "reshape"])
    assert not after.main.binders and str(after.main.results[0].shape[0]) == "n * 3"


def test_what_is_not_proved_stays_checked():
    n = var("n", min=1)
    x = x_of(n, 3)
    for s in (var("s", min=2), var("s", max=9), var("s", multiple_of=2)):
        bind_size(scalar(n), symbols=(s,))
        m = module(iota(shape=(s,)), x)
        assert "bind_size" in op_names(simplify_shapes(m))
    assert not holds_for(var("s", max=5).value, const(6))
    assert holds_for(var("s", max=6, multiple_of=3).value, const(6))


def test_two_names_of_one_value():
    k = param("k", tensor("i64"))
    a, b = var("a", min=0), var("b", min=0)
    bind_size(k, symbols=(a,))
    bind_size(k, symbols=(b,))
    y = add(iota(shape=(a,)), 1)
    z = concat(iota(shape=(b,)), y, axis=0)
    m = module(z, k)
    after = simplify_shapes(m)
    assert len(after.main.binders) == 1
    assert str(after.main.results[0].shape[0]) in ("a * 2", "b * 2")
    assert run_module(after, [np.array(2)])[0].tolist() == [0, 1, 1, 2]


def test_symbols_in_bodies():
    c, n, s = param("c", tensor("bool")), var("n", min=1), var("s", min=0)
    x = x_of(n)
    bind_size(add(scalar(n), 0), symbols=(s,))
    inner = iota(shape=(s,), dtype="f32")
    p, q = param("p", inner.type), param("p", inner.type)
    y = if_(c, inner, then=Graph("then", (p,), (add(p, 1.0),)), orelse=Graph("orelse", (q,), (q,)))
    after = check(y, c, x)
    assert "s" not in str(after.main.results[0].attrs["then"].params[0].type)


def test_truths():
    n = var("n", min=1)
    x = x_of(n)
    row = iota(shape=(n,))
    check(less(row, scalar(n)), x, ops=["full"])
    check(less_equal(add(mul(row, 1), 0), scalar(n)), x, ops=["full"])
    check(less(scalar(n), row), x, ops=["full"])
    check(less_equal(row, 3), x, ops=["iota", "less_equal"])
    last = constant(np.arange(4))
    check(less_equal(last, expand_dims(constant(np.arange(4) + 3), 1)), ops=["full"])
    both = logical_and(less(row, scalar(n)), logical_not(less(scalar(n), row)))
    check(both, x, ops=["full"])


def test_data_is_not_known():
    x = x_of(4, d="i32")
    m = module(less(add(x, 1), 3), x)
    assert simplify_shapes(m) is m
    m = module(less(x_of(4), 0.5), x_of(4))
    assert simplify_shapes(m) is m


@pytest.mark.parametrize("d", ["i8", "u8", "i32"])
def test_what_may_wrap_is_not_known(d):
    n = var("n", min=1, max=300)
    x = x_of(n)
    row = iota(shape=(n,), dtype=d)
    m = module(less(row, add(row, 1)), x)
    known = element(m.main.results[0], positions((n,)))
    assert (known is not None) == (d == "i32")


def test_elements():
    n = var("n", min=2)
    i = positions((n, 4))
    grid = add(mul(expand_dims(iota(shape=(n,)), 1), 4), iota(shape=(4,)))
    assert element(grid, i) is i[0] * 4 + i[1]
    flat = reshape(grid, shape=(4 * n,))
    j = positions((4 * n,))
    assert element(flat, j) is j[0]
    picked = select(less(iota(shape=(4,)), 2), iota(shape=(4,)), constant(np.array(9)))
    assert element(picked, (const(1),)) is const(1) and element(picked, (const(3),)) is const(9)
    assert is_always(constant(np.ones((2, 2), bool)), True)
    assert element(constant(np.array([0, 1, 3])), positions((3,))) is None


# ---- reads -------------------------------------------------------------------------------------


def clean(result, *params, ops, **how):
    m = module(result, *params)
    after = canonicalize(fold_constants(canonicalize(simplify_shapes(m))))
    assert_equal_results(m, after, tol=0, **how)
    assert op_names(after) == ops


def test_rows_in_order():
    n = var("n", min=1, max=6)
    ids, x = x_of(n, d="i64", name="ids"), x_of(6, 3)
    rows = slice_axis(constant(np.arange(8)[None]), 1, 0, n)
    clean(gather(x, rows, axis=0), ids, x, ops=["slice", "reshape"], sizes={"n": 4})
    clean(gather(x, add(iota(shape=(2,)), 3), axis=0), x, ops=["slice"])
    clean(gather(x, iota(shape=(n,), start=1), axis=0), ids, x, ops=["iota", "gather"])
    clean(gather(x, expand_dims(iota(shape=(3,)), 0), axis=1), x, ops=["reshape"])


def test_grid_of_all_positions():
    b, s = var("b", min=1), var("s", min=1)
    m = x_of(b, s, d="bool", name="m")
    at = (b, 1, 1, s)
    i = broadcast_to(reshape(iota(shape=(b,)), shape=(b, 1, 1, 1)), shape=at)
    j = broadcast_to(iota(shape=(s,)), shape=at)
    grid = concat(expand_dims(i, 4), expand_dims(j, 4), axis=4)
    clean(gather_nd(m, grid), m, ops=["reshape"], sizes={"b": 2, "s": 3})
    x = x_of(2, 5)
    grid = np.stack(np.meshgrid([0, 1], [1, 2, 3], indexing="ij"), axis=-1)
    clean(gather_nd(x, constant(grid)), x, ops=["slice"])
    clean(gather_nd(x, constant(grid.swapaxes(0, 1))), x, ops=["slice", "transpose"])
    clean(gather_nd(x, constant(grid[:, [0, 2, 1]])), x, ops=["gather_nd"])


def test_one_row_for_all():
    n = var("n", min=1)
    ids, t = x_of(n, 4, d="i64", name="ids"), x_of(2, 3, name="t")
    zeros = full(shape=(n, 4), value=0, dtype="i64")
    ops = ["slice", "broadcast_to"]
    clean(gather(t, zeros, axis=0), ids, t, ops=ops, sizes={"n": 2})
    clean(gather(t, add(zeros, -1), axis=0), ids, t, ops=ops, sizes={"n": 2})
    table = constant(np.zeros((1, 9), np.int64))
    picked = gather_elements(table, slice_axis(constant(np.arange(9)[None]), 1, 2, 5), axis=1)
    clean(gather(t, picked, axis=0), t, ops=ops)


def test_elements_along_an_axis():
    x = x_of(3, 6)
    at = constant(np.tile(np.arange(1, 5), (2, 1)))
    clean(gather_elements(x, at, axis=1), x, ops=["slice"])
    at = constant(np.full((3, 2), 4))
    clean(gather_elements(x, at, axis=1), x, ops=["slice", "broadcast_to"])


def test_positions_outside_are_clamped():
    x = x_of(3, 6)
    clean(gather(x, add(iota(shape=(4,)), 4), axis=1), x, ops=["gather"])
