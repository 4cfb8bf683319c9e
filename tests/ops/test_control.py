"""Control flow: what bodies may look like, and which dimensions of results are fresh symbols."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.expr import as_dim, as_expr, var
from tensorwright.ir.graph import bound_symbols, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import TensorType, tensor
from tensorwright.ops.control import (
    conditional,
    if_,
    item,
    items,
    loop_while,
    make_tuple,
    scan,
    scan_,
    while_,
)  # fmt: skip
from tensorwright.ops.elementwise import add, less, mul
from tensorwright.ops.index import nonzero
from tensorwright.ops.movement import concat
from tensorwright.ops.reduce import reduce_sum


def branch(name, type_, f):
    x = param("x", type_)
    return graph(name, [x], [f(x)])


def test_if_takes_a_branch():
    t = tensor("f32", 3)
    cond, x = param("cond", tensor("bool")), param("x", t)
    y = if_(
        cond,
        x,
        then=branch("a", t, lambda v: add(v, 1.0)),
        orelse=branch("b", t, lambda v: mul(v, 2.0)),
    )
    g = graph("main", [cond, x], [y])
    assert y.type == t
    for taken, expected in ((True, [2, 3, 4]), (False, [2, 4, 6])):
        (got,) = run_graph(g, [np.array(taken), np.array([1, 2, 3], np.float32)])
        assert got.tolist() == expected


def test_branches_of_different_sizes_need_a_symbol():
    t = tensor("f32", 3)
    cond, x = param("cond", tensor("bool")), param("x", t)
    then, orelse = branch("a", t, lambda v: v), branch("b", t, lambda v: concat(v, v))
    with pytest.raises(CompileError, match="a dimension of result 1 is 3 or 6") as e:
        if_(cond, x, then=then, orelse=orelse)
    assert "list a fresh symbol" in e.value.help
    y = conditional(cond, [x], then, orelse)
    (s,) = bound_symbols(y)
    assert y.type.shape[0].value is s
    (got,) = run_graph(graph("main", [cond, x], [y]), [np.array(False), np.ones(3, np.float32)])
    assert got.shape == (6,)


def test_a_size_known_only_inside_a_branch_needs_a_symbol():
    t = tensor("f32", 3)
    cond, x = param("cond", tensor("bool")), param("x", t)
    found = branch("a", t, lambda v: nonzero(v, flat=True))
    other = branch("b", t, lambda v: nonzero(add(v, 1.0), flat=True))
    y = conditional(cond, [x], found, other)
    assert len(bound_symbols(y)) == 1
    (got,) = run_graph(graph("main", [cond, x], [y]), [np.array(True), np.float32([0, 5, 7])])
    assert got.tolist() == [1, 2]


def test_while_counts():
    t = tensor("i64")
    n, limit = param("n", t), param("limit", t)
    cond = graph("cond", [n, limit], [less(n, limit)])
    body = graph("body", [n, limit], [add(n, 3)])
    y = while_(n, limit, cond=cond, body=body, carried=1)
    (got,) = run_graph(graph("main", [n, limit], [y]), [np.int64(1), np.int64(9)])
    assert got == 10


def growing_loop():
    """A loop that appends its counter to a vector until there are `limit` of them."""
    k = var("k", min=0)
    i, limit = param("i", tensor("i64")), param("limit", tensor("i64"))
    inside = [param("i", tensor("i64")), param("v", TensorType(tensor("i64").dtype, (k,))),
              param("limit", tensor("i64"))]  # fmt: skip
    from tensorwright.ops.movement import reshape

    cond = graph("cond", inside, [less(inside[0], inside[2])])
    step = concat(inside[1], reshape(inside[0], shape=(1,)))
    body = graph("body", inside, [add(inside[0], 1), step])
    return i, limit, cond, body


def test_a_state_may_grow_if_the_body_has_its_own_symbol():
    i, limit, cond, body = growing_loop()
    empty = param("empty", tensor("i64", 0))
    y = loop_while([i, empty, limit], cond, body, carried=2)
    assert len(bound_symbols(y)) == 1
    g = graph("main", [i, empty, limit], items(y))
    _, v = run_graph(g, [np.int64(0), np.zeros(0, np.int64), np.int64(4)])
    assert v.tolist() == [0, 1, 2, 3]


def test_a_state_of_fixed_type_may_not_grow():
    t = tensor("f32", 2)
    x = param("x", t)
    cond = graph("cond", [x], [less(reduce_sum(x), 9.0)])
    body = graph("body", [x], [concat(x, x)])
    with pytest.raises(CompileError, match="state 1 is 2 before and 4 after a step") as e:
        while_(x, cond=cond, body=body, carried=1)
    assert "symbol of its own" in e.value.help


def test_scan_collects_and_carries():
    n = var("n", min=0)
    h, xs = param("h", tensor("f32", 2)), param("xs", tensor("f32", n, 2))
    sh, sx = param("h", tensor("f32", 2)), param("x", tensor("f32", 2))
    new = add(sh, sx)
    body = graph("step", [sh, sx], [new, mul(new, 2.0)])
    y = scan_(h, xs, body=body, carried=1, scanned=1)
    last, collected = items(y)
    assert collected.type == tensor("f32", n, 2)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    got = run_graph(graph("main", [h, xs], [last, collected]), [np.zeros(2, np.float32), x])
    np.testing.assert_array_equal(got[0], x.sum(0))
    np.testing.assert_array_equal(got[1], 2 * x.cumsum(0))
    back = scan([h, xs], body, carried=1, scanned=1, reverse=True)
    got = run_graph(graph("main", [h, xs], items(back)), [np.zeros(2, np.float32), x])
    np.testing.assert_array_equal(got[1], 2 * x[::-1].cumsum(0)[::-1])


def test_scan_without_operands_needs_a_length():
    h = param("h", tensor("f32"))
    body = graph("step", [h], [add(h, 1.0)])
    with pytest.raises(CompileError, match="the number of steps is not known"):
        scan_(h, body=body, carried=1)
    y = scan_(h, body=body, carried=1, length=4)
    (got,) = run_graph(graph("main", [h], [y]), [np.float32(0)])
    assert got == 4


def test_wrong_bodies_are_named():
    x, cond = param("x", tensor("f32", 3)), param("cond", tensor("bool"))
    wrong = branch("wrong", tensor("f32", 4), lambda v: v)
    right = branch("right", tensor("f32", 3), lambda v: v)
    with pytest.raises(CompileError, match=r"parameter 1 of the then branch is f32\[4\]"):
        if_(cond, x, then=wrong, orelse=right)
    with pytest.raises(CompileError, match="the condition is f32"):
        if_(x, x, then=right, orelse=right)
    with pytest.raises(CompileError, match="the else branch takes 1 operands, 2 are given"):
        if_(cond, x, x, then=graph("t", [x, param("z", x.type)], [x]), orelse=right)


def test_tuples():
    x, n = param("x", tensor("f32", 3)), as_dim(as_expr(2))
    t = make_tuple(x, add(x, float(n)))
    assert item(t, index=1).type == x.type
    with pytest.raises(CompileError, match="has no item 2"):
        item(t, index=2)
    assert items(x) == (x,)
