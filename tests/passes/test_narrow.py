"""What nothing reads is not computed: rules on every operator's samples, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright import numpy as tnp
from tensorwright.frontend.function import trace
from tensorwright.ir.expr import as_dim, as_expr, var
from tensorwright.ir.facts import solve
from tensorwright.ir.graph import graph, subgraphs
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ops.activations import relu
from tensorwright.ops.control import items, scan_
from tensorwright.ops.elementwise import add, div, erf, exp, mul, sub
from tensorwright.ops.linalg import dot_general, matmul
from tensorwright.ops.movement import broadcast_to, concat, reshape, slice, transpose
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.narrow import RULES, computed, narrow, narrow_graph, regions
from tensorwright.passes.pointwise import NAMES
from tensorwright.passes.simplify import simplify
from tests.ops.rows import all_rows, build
from tests.ops.samples import cases
from tests.passes.equivalence import assert_equal_results, module, random_inputs, x_of
from tests.passes.test_convolutions import last, weight
from tests.passes.test_every_operator import assert_close

RNG = np.random.default_rng(4)
RULED = {*RULES, *NAMES, "broadcast_to"} - {"bitcast"}
OPS = [op for op in all_rows() if op.samples and op.name in RULED]


def rows(y, first, stop, axis=0):
    """A slice of one dimension."""
    starts = tuple(first if k == axis else 0 for k in range(y.rank))
    stops = tuple(stop if k == axis else d for k, d in enumerate(y.shape))
    return slice(y, starts=starts, stops=stops)


def products(m: Module) -> list[tuple]:
    """The shapes of all products."""
    return [n.shape for g in m.all_graphs() for n in g.nodes() if n.op is dot_general]


def expanded(y, *params) -> Module:
    return simplify(expand_composites(module(y, *params)))


def narrowed(y, *params, sizes=None) -> Module:
    m = expanded(y, *params)
    after = narrow(m)
    assert_equal_results(m, after, sizes=sizes, tol=1e-4)
    return after


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_rules_keep_the_meaning_of_every_sample(op):
    """The middle of each dimension of the result in turn, whether that is worth while or not."""
    met = []
    for case in cases(op):
        params = case.params()
        y = build(case, params)
        own = [p for p in params if p is not None]
        found = {step.symbol for step in solve([d for p in own for d in p.shape]).steps}
        if set(case.values) - found:  # a symbol that no parameter would give
            continue
        inputs = [a for a in case.arrays() if a is not None]
        for axis, d in enumerate(y.shape):
            third = as_expr(d) // 3
            part = rows(y, as_dim(third), as_dim(third + (as_expr(d) + 2) // 3), axis)
            g = graph("main", own, [part])
            needs = regions(g, frozenset())
            met.append(y in needs)
            expected, found = (run_module(Module({"main": h}), inputs)[0]
                               for h in (g, computed(g, needs)))  # fmt: skip
            assert_close(found, expected, part.dtype, case.name)
    assert any(met)


def mlp(x, hidden: int = 12):
    d = x.shape[-1]
    y = erf(add(matmul(x, weight(d, hidden)), weight(hidden)))
    return add(x, matmul(y, weight(hidden, d)))


def test_rows_of_a_perceptron():
    x = x_of(9, 8)
    assert products(narrowed(rows(mlp(mlp(x)), 2, 4), x)) == [(2, 12), (2, 8), (2, 12), (2, 8)]


def test_columns_of_a_product():
    x = x_of(9, 8)
    y = rows(matmul(x, weight(8, 12)), 3, 5, axis=1)
    assert products(narrowed(y, x)) == [(9, 2)]


def attention(x, heads: int = 2):
    n, d = x.shape
    q, k, v = (reshape(matmul(x, weight(d, d)), shape=(n, heads, d // heads)) for _ in range(3))
    s = dot_general(q, k, batch=((1,), (1,)), contract=((2,), (2,)))
    e = exp(sub(s, reduce_max(s, axes=(2,), keepdims=True)))
    p = div(e, reduce_sum(e, axes=(2,), keepdims=True))
    y = dot_general(p, v, batch=((0,), (1,)), contract=((2,), (0,)))
    y = reshape(transpose(y, perm=(1, 0, 2)), shape=(n, d))
    return add(x, matmul(y, weight(d, d)))


def test_a_classifier_reads_one_token():
    """Keys and values of the last layer are of all tokens, all else of one."""
    x = x_of(9, 8)
    y = reshape(rows(mlp(attention(mlp(attention(x)))), 0, 1), shape=(8,))
    found = products(narrowed(y, x))
    first = [(9, 8)] * 4 + [(2, 9, 9), (2, 9, 4), (9, 12), (9, 8)]
    last = [(9, 8)] * 2 + [(1, 8), (2, 1, 9), (2, 1, 4), (1, 8), (1, 12), (1, 8)]
    assert sorted(found) == sorted(first + last)


def test_the_last_position_of_any_number():
    n = var("n", min=1)
    x = x_of(n, 8)
    y = rows(mlp(attention(x)), n - 1, n)
    for size in (1, 2, 5):
        after = narrowed(y, x, sizes={"n": size})
    assert products(after).count((1, 12)) == 1 and (2, 1, n) in products(after)


def test_what_several_read_is_computed_for_all_of_them():
    x = x_of(9, 8)
    y = mlp(x)
    found = products(narrowed([rows(y, 1, 2), rows(y, 3, 4)], x))
    assert found == [(3, 12), (3, 8)]


def test_parts_of_one_product_leave_nothing_out():
    x = x_of(9, 8)
    y = matmul(x, weight(8, 12))
    parts = [rows(y, k, k + 4, axis=1) for k in (0, 4, 8)]
    m = expanded(parts, x)
    assert narrow(m) is m


def test_what_is_read_wholly_stays():
    x = x_of(9, 8)
    y = mlp(x)
    for other in (y, reduce_sum(y, axes=(0,))):
        m = expanded([rows(y, 0, 1), other], x)
        assert narrow(m) is m


def test_slices_of_nearly_all_stay_where_they_are():
    """A copy of eight rows in nine costs more than the product of the ninth."""
    x = x_of(9, 8)
    m = expanded(rows(mlp(x), 1, 9), x)
    assert narrow(m) is m


def test_slices_stay_behind_what_has_no_rule():
    x = x_of(1, 9, 8)
    y = relu(last(x, weight(3, 8, 6), padding=((1, 1),)))
    m = expanded(rows(y, 0, 2, axis=1), x)
    assert narrow(m) is m
    y = slice(matmul(x, weight(8, 8)), starts=(0, 0, 0), stops=(1, 9, 8), steps=(1, 5, 1))
    m = expanded(y, x)
    assert narrow(m) is m


def test_dimensions_that_are_split_or_joined_are_read_wholly():
    x = x_of(4, 6, 8)
    y = matmul(reshape(x, shape=(24, 8)), weight(8, 8))
    assert products(narrowed(rows(y, 0, 3), x)) == [(3, 8)]
    y = rows(reshape(matmul(x, weight(8, 8)), shape=(24, 8)), 0, 3)
    m = expanded(y, x)
    assert narrow(m) is m


def test_operands_that_repeat():
    x, b = x_of(9, 8), x_of(9, 1, name="b")
    y = mul(add(matmul(x, weight(8, 8)), b), broadcast_to(weight(8), shape=(9, 8)))
    y = concat(y, y, axis=1)
    assert products(narrowed(rows(y, 8, 9), x, b)) == [(1, 8)]


def test_bodies_of_loops():
    s, x = x_of(8, name="s"), x_of(9, 8)
    body = graph("body", (s, x), (add(s, reshape(rows(mlp(x), 0, 1), shape=(8,))),))
    h, xs = x_of(8, name="h"), x_of(3, 9, 8, name="xs")
    y = items(scan_(h, xs, body=body, carried=1, scanned=1))[0]
    after = narrowed(y, h, xs)
    assert products(after) == [(1, 12), (1, 8)]
    assert subgraphs(after.main.results[0])


def test_norms_and_compiled_programs():
    w = RNG.standard_normal((16, 16)).astype(np.float32) / 4

    @tw.function
    def f(x: tw.f32["n", 16]):
        y = tnp.tanh(norm(x) @ w) @ w
        return norm(y)[-1]

    def norm(y):
        z = y - tnp.mean(y, axis=-1, keepdims=True)
        return z / tnp.sqrt(tnp.mean(z * z, axis=-1, keepdims=True) + 1e-5)

    program = tw.compile(f)
    shapes = [p.shape for k in program.lowered.kernels.values() for p in k.results]
    assert not any(len(s) == 2 and s[0] != 1 for s in shapes)
    for n in (1, 7):
        (x,) = random_inputs(trace(f).main, RNG, {"n": n})
        y = x.astype(np.float64)[-1]
        known = lambda y: (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        wanted = known(np.tanh(known(y) @ w) @ w)
        np.testing.assert_allclose(program(x), wanted, rtol=1e-3, atol=1e-3)


def test_nothing_to_do_changes_nothing():
    x = x_of(9, 8)
    g = graph("main", [x], [mlp(x)])
    assert narrow_graph(g) is g
