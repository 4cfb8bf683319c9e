"""Attention as exporters spell it, and what must not be taken for it."""

import math

import numpy as np
import pytest

from tensorwright.ir.dtype import dtype
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import (
    add,
    cast,
    div,
    equal,
    greater,
    is_nan,
    less_equal,
    logical_and,
    mul,
    select,
    sub,
    tanh,
)  # fmt: skip
from tensorwright.ops.linalg import dot_general, matmul
from tensorwright.ops.movement import broadcast_to, expand_dims, reshape, transpose
from tensorwright.ops.norm import softmax
from tensorwright.ops.positions import iota, trilu
from tensorwright.passes.attention import recognise_attention
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fold_constants import fold_constants
from tensorwright.passes.shapes import simplify_shapes
from tensorwright.passes.simplify import clean
from tests.passes.equivalence import assert_equal_results, module, op_names, x_of

KT = (0, 1, 3, 2)


def c(value, d="f32"):
    return constant(np.asarray(value, dtype(d).numpy))


def qkv(b=2, h=3, n=5, s=6, d=4, d_v=7, kind="f32"):
    return (x_of(b, h, n, d, name="q", d=kind), x_of(b, h, s, d, name="k", d=kind),
            x_of(b, h, s, d_v, name="v", d=kind))  # fmt: skip


def found(y, *params, sizes=None, tol=1e-5, special=True, **attrs):
    """The one attention node that is recognised; its attributes are as given, results stay. With
    `special`, infinities and NaN as well, where the expansion rounds and overflows as the model."""
    before = module(y, *params)
    after = recognise_attention(fold_constants(simplify_shapes(before)))
    assert op_names(after).count("attention") == 1
    assert "softmax" not in op_names(after)
    assert recognise_attention(after) is after
    assert_equal_results(before, after, sizes=sizes, tol=tol)
    expanded = expand_composites(after)
    for odd in (False, special):
        assert_equal_results(before, expanded, sizes=sizes, tol=tol, special=odd)
    (node,) = (n for n in after.main.nodes() if n.op.name == "attention")
    for name, value in attrs.items():
        assert node.attrs[name] == pytest.approx(value), name
    return node


def missed(y, *params):
    m = module(y, *params)
    assert "attention" not in op_names(recognise_attention(fold_constants(simplify_shapes(m))))


def scores(q, k):
    return matmul(q, transpose(k, perm=KT))


def guarded(p):
    return select(is_nan(p), c(0.0), p)


# ---- scales ------------------------------------------------------------------------------------


def test_plain():
    q, k, v = qkv()
    found(matmul(softmax(scores(q, k)), v), q, k, v, scale=1.0, guard="none")


def test_scale_on_both_factors():
    q, k, v = qkv()
    s = matmul(mul(q, 0.5), mul(transpose(k, perm=KT), 0.25))
    node = found(matmul(softmax(s), v), q, k, v, scale=0.125)
    assert [a.op.name for a in node.args[:3]] == ["param"] * 3


def test_scale_on_scores():
    q, k, v = qkv()
    found(matmul(softmax(div(scores(q, k), 2.0)), v), q, k, v, scale=0.5)
    found(matmul(softmax(mul(0.5, scores(mul(c([[0.5]]), q), k))), v), q, k, v, scale=0.25)


def test_scale_under_movement():
    x = x_of(2, 5, 12, name="x")
    heads = transpose(reshape(mul(x, 0.5), shape=(2, 5, 3, 4)), perm=(0, 2, 1, 3))
    k, v = x_of(2, 3, 5, 4, name="k"), x_of(2, 3, 5, 4, name="v")
    found(matmul(softmax(scores(heads, k)), v), x, k, v, scale=0.5)


def test_scale_behind_a_mask_is_no_scale():
    q, k, v = qkv()
    m = x_of(5, 6, name="m")
    missed(matmul(softmax(mul(add(scores(q, k), m), 0.5)), v), q, k, v, m)


def test_cap():
    q, k, v = qkv()
    s = mul(tanh(div(mul(scores(q, k), 0.5), 30.0)), 30.0)
    found(matmul(softmax(s), v), q, k, v, scale=0.5, softcap=30.0)


# ---- forms of the products ---------------------------------------------------------------------


def test_contractions_in_any_order_of_dimensions():
    b, n, h, d = 2, 5, 3, 4
    q, k, v = (x_of(b, n, h, d, name=t) for t in "qkv")
    s = dot_general(q, k, batch=((0, 2), (0, 2)), contract=((3,), (3,)))
    y = dot_general(softmax(mul(s, 0.5)), v, batch=((0, 1), (0, 2)), contract=((3,), (1,)))
    found(y, q, k, v, scale=0.5)


def test_heads_in_the_batch():
    q, k, v = x_of(6, 5, 4, name="q"), x_of(6, 7, 4, name="k"), x_of(6, 7, 3, name="v")
    y = matmul(softmax(matmul(q, transpose(k, perm=(0, 2, 1)))), v)
    found(y, q, k, v)
    m = x_of(6, 1, 7, name="m")
    y = matmul(softmax(add(matmul(q, transpose(k, perm=(0, 2, 1))), m)), v)
    assert found(y, q, k, v, m).args[3].shape == (6, 1, 1, 7)


def repeated(t, r):
    b, g, s, d = t.shape
    wide = broadcast_to(reshape(t, shape=(b, g, 1, s, d)), shape=(b, g, r, s, d))
    return reshape(wide, shape=(b, g * r, s, d))


def test_shared_heads():
    q, k, v = x_of(2, 6, 5, 4, name="q"), x_of(2, 2, 7, 4, name="k"), x_of(2, 2, 7, 4, name="v")
    y = matmul(softmax(mul(scores(q, repeated(k, 3)), 0.5)), repeated(v, 3))
    node = found(y, q, k, v)
    assert node.args[1].shape == (2, 2, 7, 4) and node.args[2].op.name == "param"


def test_shared_heads_of_symbolic_length():
    n = var("n", min=1)
    q = x_of(1, 4, 1, 8, name="q")
    k, v = x_of(1, 2, n + 1, 8, name="k"), x_of(1, 2, n + 1, 8, name="v")
    kt = transpose(reshape(repeated(k, 2), shape=(4, n + 1, 8)), perm=(0, 2, 1))
    s = matmul(q, reshape(mul(kt, 0.5), shape=(1, 4, 8, n + 1)))
    node = found(matmul(softmax(s), repeated(v, 2)), q, k, v, sizes={"n": 3})
    assert node.args[1].shape[1] == 2


def test_one_key_head_for_all():
    q, k, v = x_of(2, 6, 5, 4, name="q"), x_of(2, 1, 7, 4, name="k"), x_of(2, 1, 7, 4, name="v")
    y = matmul(softmax(scores(q, repeated(k, 6))), repeated(v, 6))
    assert found(y, q, k, v).args[1].shape[1] == 1


# ---- masks -------------------------------------------------------------------------------------


def test_float_mask():
    q, k, v = qkv()
    m = x_of(2, 1, 5, 6, name="m")
    y = matmul(softmax(add(scores(q, k), m)), v)
    found(y, q, k, v, m, guard="none")
    y = matmul(guarded(softmax(add(m, mul(scores(q, k), 0.5)))), v)
    found(y, q, k, v, m, guard="nan", scale=0.5)


def test_mask_of_nothing():
    q, k, v = qkv()
    node = found(matmul(softmax(add(scores(q, k), 0.0)), v), q, k, v)
    assert node.args[3] is None


def test_bool_mask():
    q, k, v = qkv()
    m = x_of(2, 1, 1, 6, name="m", d="bool")
    s = select(m, scores(q, k), c(-np.inf))
    assert found(matmul(guarded(softmax(s)), v), q, k, v, m).args[3].op.name == "param"
    s = select(m, c(-np.inf), scores(q, k))
    found(matmul(softmax(s), v), q, k, v, m, guard="none")
    s = add(scores(q, k), select(m, c(0.0), c(-np.inf)))
    node = found(matmul(guarded(softmax(s)), v), q, k, v, m, special=False)
    assert node.args[3].dtype is dtype("bool")


def test_finite_stand_in_for_minus_infinity():
    """A row without keys would be even over all keys, not empty."""
    q, k, v = qkv()
    m = x_of(2, 1, 1, 6, name="m", d="bool")
    missed(matmul(softmax(select(m, scores(q, k), c(-1e38))), v), q, k, v, m)
    found(matmul(softmax(add(scores(q, k), select(m, c(0.0), c(-1e38)))), v), q, k, v, m)


@pytest.mark.parametrize("low", [-math.inf, -3.4e38])
@pytest.mark.parametrize("extra", [0, 2])
def test_causal_constant(low, extra):
    q, k, v = qkv(n=5, s=5 + extra)
    keep = np.arange(5 + extra) <= np.arange(5)[:, None] + extra
    m = c(np.where(keep, 0, low)[None, None])
    y = matmul(guarded(softmax(add(scores(q, k), m))), v)
    node = found(y, q, k, v, causal=True, start=extra, special=False)
    assert node.args[3] is None
    s = select(c(keep, "bool"), scores(q, k), c(low))
    found(matmul(softmax(s), v), q, k, v, causal=True, start=extra, guard="none")


def test_almost_causal_constant():
    q, k, v = qkv(n=5, s=5)
    keep = np.arange(5) <= np.arange(5)[:, None]
    keep[0, 3] = True
    node = found(matmul(softmax(add(scores(q, k), c(np.where(keep, 0, -np.inf)))), v), q, k, v)
    assert not node.attrs["causal"] and node.args[3] is not None


def test_causal_by_positions():
    n = var("n", min=1)
    q, k, v = (x_of(1, 2, n, 4, name=t) for t in "qkv")
    i, j = expand_dims(iota(shape=(n,)), 1), iota(shape=(n,))
    for keep in (less_equal(j, i), greater(add(i, 1), j)):
        s = select(keep, scores(q, k), c(-np.inf))
        y = matmul(softmax(s), v)
        node = found(y, q, k, v, sizes={"n": 4}, causal=True, guard="none")
        assert node.args[3] is None


def test_causal_with_a_cache():
    n, p = var("n", min=1), var("p", min=0)
    q = x_of(1, 2, n, 4, name="q")
    k, v = x_of(1, 2, n + p, 4, name="k"), x_of(1, 2, n + p, 4, name="v")
    i, j = expand_dims(iota(shape=(n,), start=p), 1), iota(shape=(n + p,))
    m = select(less_equal(j, i), c(0.0), c(-3.4e38))
    node = found(matmul(softmax(add(scores(q, k), m)), v), q, k, v, sizes={"n": 3, "p": 2})
    assert node.attrs["causal"] and node.attrs["start"] is p


def test_mask_that_keeps_all():
    p = var("p", min=0)
    q = x_of(1, 2, 1, 4, name="q")
    k, v = x_of(1, 2, p + 1, 4, name="k"), x_of(1, 2, p + 1, 4, name="v")
    keep = less_equal(iota(shape=(p + 1,)), iota(shape=(1, 1), start=p))
    s = add(scores(q, k), select(keep, c(0.0), c(-3.4e38)))
    node = found(matmul(softmax(s), v), q, k, v, sizes={"p": 4})
    assert not node.attrs["causal"] and node.args[3] is None


def test_two_masks():
    q, k, v = qkv()
    a, b = x_of(5, 6, name="a"), x_of(2, 1, 1, 6, name="b")
    found(matmul(softmax(add(add(scores(q, k), a), b)), v), q, k, v, a, b, tol=1e-4)
    a, b = x_of(5, 6, name="a", d="bool"), x_of(2, 1, 1, 6, name="b", d="bool")
    s = select(logical_and(a, b), scores(q, k), c(-np.inf))
    found(matmul(guarded(softmax(s)), v), q, k, v, a, b)


# ---- what stays --------------------------------------------------------------------------------


def test_other_axis():
    q, k, v = qkv(n=6, s=6)
    missed(matmul(softmax(scores(q, k), axis=2), v), q, k, v)


def test_what_is_not_a_product():
    q, v = x_of(2, 3, 5, 6, name="q"), x_of(2, 3, 6, 4, name="v")
    missed(matmul(softmax(sub(q, 1.0)), v), q, v)


def test_weights_that_are_results():
    q, k, v = qkv()
    p = softmax(scores(q, k))
    missed((matmul(p, v), p), q, k, v)


def test_half_precision():
    q, k, v = qkv(kind="f16")
    s = cast(mul(scores(q, k), 0.5), dtype="f32")
    before = module(matmul(cast(softmax(s), dtype="f16"), v), q, k, v)
    after = recognise_attention(before)
    assert op_names(after) == ["attention"]
    assert_equal_results(before, after, tol=5e-3)


@pytest.mark.parametrize("upper, k", [(False, 0), (False, 2), (True, 1)])
@pytest.mark.parametrize("length", [6, None], ids=["fixed", "symbolic"])
def test_triangles_made_while_running(length, upper, k):
    """The mask of exporters: where a triangle of ones is 0, a very low number is added."""
    n = length or var("n", min=1, max=64)
    q, keys, v = (param(name, tensor("f32", 1, 2, n, 8)) for name in "qkv")
    ones = broadcast_to(constant(np.float32(1)), shape=(n, n))
    zero, low = constant(np.float32(0)), constant(np.float32(-3.4028235e38))
    inside = equal(trilu(ones, upper=upper, k=k), zero)
    mask = select(inside, zero, low) if upper else select(inside, low, zero)
    scores = add(matmul(q, transpose(keys, perm=(0, 1, 3, 2))), mask)
    g = graph("main", [q, keys, v], [matmul(softmax(scores, axis=-1), v)])
    found = recognise_attention(clean(Module({"main": g})))
    (node,) = [x for x in found.graphs["main"].nodes() if x.op.name == "attention"]
    assert node.attrs["causal"]
    assert node.attrs["start"] == (0 if upper else k)
    inputs = [np.random.default_rng(0).standard_normal((1, 2, 6, 8)).astype("f4")] * 3
    np.testing.assert_allclose(run_graph(found.graphs["main"], inputs)[0],
                               run_graph(g, inputs)[0], 1e-5, 1e-6)  # fmt: skip
