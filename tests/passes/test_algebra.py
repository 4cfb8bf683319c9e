"""Arithmetic: what is simplified, and that special values survive it."""

import numpy as np
import pytest

from tensorwright.ir.dtype import dtype
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import clamp, relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import (
    abs,
    add,
    cast,
    div,
    exp,
    greater,
    log,
    logical_and,
    logical_or,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reciprocal,
    select,
    sigmoid,
    sqrt,
    sub,
    tanh,
)  # fmt: skip
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import reshape
from tensorwright.ops.norm import batch_norm, layer_norm, rms_norm, softmax
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.passes.algebra import RULES, simplify_algebra
from tensorwright.passes.canonicalize import canonicalize
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fold_constants import fold_constants
from tensorwright.passes.intervals import interval
from tests.passes.equivalence import assert_equal_results, check_pass, module, op_names, x_of

RNG = np.random.default_rng(7)


def c(values, d="f32"):
    return constant(np.asarray(values, dtype(d).numpy))


def check(result, *params, ops, tol=0, special=True, **how):
    return check_pass(
        simplify_algebra, module(result, *params), ops, tol=tol, special=special, **how
    )


def weight(*shape, low=-1, high=1):
    return constant(RNG.uniform(low, high, shape).astype(np.float32), "w")


# ---- neutral elements --------------------------------------------------------------------------


def test_neutral_elements():
    x = x_of(3, 40)
    for y in (mul(x, 1.0), mul(1.0, x), div(x, 1.0), add(x, -0.0), sub(x, 0.0), pow(x, 1.0)):
        check(neg(y), x, ops=["neg"])
    check(add(x, 0.0), x, ops=["add"])  # -0.0 + 0.0 is 0.0
    check(sub(x, -0.0), x, ops=["add"])
    check(add(exp(x), 0.0), x, ops=["exp"])
    i = x_of(9, d="i32", name="i")
    check(neg(add(i, 0)), i, ops=["neg"])
    b = x_of(9, d="bool", name="b")
    check(logical_and(c(True, "bool"), b), b, ops=[])
    check(logical_or(b, c([False] * 9, "bool")), b, ops=[])


def test_neutral_element_that_broadcasts():
    x = x_of(3)
    check(mul(x, c(np.ones((4, 3)))), x, ops=["broadcast_to"])


def test_signs():
    x, y = x_of(40), x_of(40, name="y")
    check(mul(x, -1.0), x, ops=["neg"])
    check(add(x, neg(y)), x, y, ops=["sub"])
    check(add(neg(x), y), x, y, ops=["sub"])
    check(sub(x, neg(y)), x, y, ops=["add"])
    check(mul(neg(x), 3.0), x, ops=["mul"])


# ---- constants ---------------------------------------------------------------------------------


def test_constants_combine():
    x = x_of(3, 40)
    check(mul(mul(x, 0.5), 4.0), x, ops=["mul"])
    check(mul(mul(0.5, x), 2.0), x, ops=[])
    check(add(sub(x, 1.5), 4.0), x, ops=["add"], tol=1e-6)
    check(mul(mul(x, 1e-30), 1e-30), x, ops=["mul", "mul"])  # would underflow at once
    check(mul(mul(x, 1e30), 1e30), x, ops=["mul", "mul"])
    y = mul(mul(x, c(np.arange(40))), c([[1], [2], [3]]))
    check(y, x, ops=["mul", "mul"])  # together they would be larger than both
    shared = mul(x, 3.0)
    check((mul(shared, 2.0), shared), x, ops=["mul", "mul"])


def test_division_by_powers_of_two():
    x = x_of(3, 40)
    check(div(x, 8.0), x, ops=["mul"])
    check(div(x, 0.25), x, ops=["mul"])
    check(div(x, -2.0), x, ops=["mul"])
    check(div(x, 3.0), x, ops=["div"])
    check(div(x, c([2.0, 4.0] * 20)), x, ops=["mul"])
    check(div(x, c([2.0, 0.0] * 20)), x, ops=["div"])
    check(div(x, 2.0**127), x, ops=["div"])


@pytest.mark.parametrize("d", ["f16", "bf16", "f64"])
def test_other_types(d):
    x = x_of(40, d=d)
    check(div(x, 8.0), x, ops=["mul"])
    check(add(x, -0.0), x, ops=[])


# ---- powers, roots, limits ---------------------------------------------------------------------


def test_powers():
    x = x_of(200)
    check(pow(x, 2.0), x, ops=["mul"], tol=1e-6)
    check(pow(x, 3.0), x, ops=["mul", "mul"], tol=1e-6)
    check(pow(x, -1.0), x, ops=["reciprocal"])
    check(pow(x, 0.5), x, ops=["pow"])
    check(pow(mul(x, x), 0.5), x, ops=["mul", "sqrt"], tol=1e-6)
    check(pow(add(abs(x), 1.0), -0.5), x, ops=["abs", "add", "rsqrt"], tol=1e-6)
    check(pow(x, c([2.0, 3.0] * 100)), x, ops=["pow"])


def test_roots():
    x = x_of(200)
    check(reciprocal(sqrt(x)), x, ops=["rsqrt"], tol=1e-6)
    check(div(1.0, sqrt(x)), x, ops=["rsqrt"], tol=1e-6)
    check(div(1.0, x), x, ops=["reciprocal"])


def test_limits():
    x = x_of(200)
    check(maximum(x, 0.0), x, ops=["relu"])
    check(minimum(maximum(x, -1.0), 6.0), x, ops=["clamp"])
    check(minimum(maximum(x, 0.0), 6.0), x, ops=["clamp"])
    check(minimum(maximum(x, c([0.0, 1.0] * 100)), 6.0), x, ops=["maximum", "minimum"])


# ---- divisions by few --------------------------------------------------------------------------


def test_softmax_divides_once_a_row():
    x = x_of(4, 33)
    m = expand_composites(module(softmax(x), x))
    after = check_pass(simplify_algebra, m, tol=1e-6, special=True)
    assert "div" not in op_names(after) and "reciprocal" in op_names(after)


def test_division_by_what_may_be_small_stays():
    x = x_of(4, 33)
    s = reduce_sum(abs(x), axes=(1,), keepdims=True)
    check(div(x, s), x, ops=["abs", "reduce_sum", "div"])
    y = div(x, sqrt(add(reduce_sum(mul(x, x), axes=(1,), keepdims=True), 1e-5)))
    check(y, x, ops=["mul", "reduce_sum", "add", "rsqrt", "mul"], tol=1e-5)
    check(div(x, add(abs(x), 1.0)), x, ops=["abs", "add", "div"])


def test_spelled_out_rms_norm_is_the_composite():
    x = x_of(4, 64)
    w = weight(64)
    mean = mul(reduce_sum(pow(x, 2.0), axes=(1,), keepdims=True), 1 / 64)
    m = module(mul(mul(x, reciprocal(sqrt(add(mean, 1e-5)))), w), x)
    clean = lambda m: canonicalize(fold_constants(simplify_algebra(expand_composites(m))))
    assert op_names(clean(m)) == op_names(clean(module(rms_norm(x, w, epsilon=1e-5), x)))
    assert_equal_results(m, clean(m), tol=1e-5)


# ---- weights -----------------------------------------------------------------------------------


def folded(result, *params):
    m = expand_composites(module(result, *params))
    after = fold_constants(simplify_algebra(canonicalize(fold_constants(m))))
    assert_equal_results(m, after, tol=1e-4)
    return op_names(after)


def norm(x, axis=1):
    n = x.shape[axis]
    return batch_norm(x, weight(n), weight(n), weight(n), weight(n, low=0.5, high=2), axis=axis)


def test_batch_norm_after_convolution():
    x = x_of(2, 3, 5, 5)
    assert folded(relu(norm(conv_general(x, weight(4, 3, 3, 3)))), x) == [
        "conv_general", "add", "relu"]  # fmt: skip
    y = add(conv_general(x, weight(4, 3, 3, 3)), reshape(weight(4), shape=(4, 1, 1)))
    assert folded(norm(y), x) == ["conv_general", "add"]
    y = conv_general(x, weight(6, 1, 3, 3), groups=3)
    assert folded(norm(y), x) == ["conv_general", "add"]


def test_batch_norm_channels_last():
    x = x_of(2, 5, 5, 3)
    y = conv_general(x, weight(3, 3, 3, 4), layout="NLAST")
    assert folded(norm(y, axis=3), x) == ["conv_general", "add"]


def test_batch_norm_after_product():
    x = x_of(5, 3)
    y = add(dot_general(x, weight(3, 4), contract=((1,), (0,))), weight(4))
    assert folded(norm(y), x) == ["dot_general", "add"]
    y = dot_general(x, weight(4, 3), contract=((1,), (1,)))
    assert folded(norm(y), x) == ["dot_general", "add"]


def test_scale_before():
    x = x_of(2, 3, 5, 5)
    y = mul(x, reshape(weight(3), shape=(3, 1, 1)))
    assert folded(conv_general(y, weight(4, 3, 3, 3), padding=((1, 1), (1, 1))), x) == [
        "conv_general"]  # fmt: skip
    z = x_of(5, 3, name="z")
    assert folded(dot_general(mul(z, weight(3)), weight(3, 4), contract=((1,), (0,))), z) == [
        "dot_general"]  # fmt: skip


def test_what_has_other_users_stays():
    x = x_of(2, 3, 5, 5)
    y = conv_general(x, weight(4, 3, 3, 3))
    assert folded((norm(y), y), x) == ["conv_general", "mul", "add"]


def test_scale_along_another_axis_stays():
    x = x_of(2, 3, 5, 5)
    y = mul(conv_general(x, weight(4, 3, 3, 3)), weight(3))
    assert folded(y, x) == ["conv_general", "mul"]
    assert folded(mul(dot_general(z := x_of(5, 3), weight(3, 4), contract=((1,), (0,))),
                      weight(5, 1)), z) == ["dot_general", "mul"]  # fmt: skip


def test_layer_norm_stays_right():
    x = x_of(3, 40)
    m = expand_composites(module(layer_norm(x, weight(40), weight(40)), x))
    assert_equal_results(m, simplify_algebra(m), tol=1e-5)


# ---- intervals ---------------------------------------------------------------------------------


def test_intervals_hold():
    x, b = x_of(3, 50), param("b", tensor("bool", 3, 50))
    s = sub(x, reduce_max(x, axes=(1,), keepdims=True))
    cases = [
        abs(x), mul(x, x), exp(x), sigmoid(x), tanh(x), relu(x), clamp(x, low=-1.0, high=2.0),
        add(mul(x, x), 1e-5), sqrt(add(abs(x), 0.5)), reduce_sum(exp(s), axes=(1,), keepdims=True),
        mul(sigmoid(x), tanh(x)), sub(sigmoid(x), 2.0), neg(exp(x)), maximum(x, -3.0),
        minimum(abs(x), 4.0), select(b, c(0.0), c(-1e4)), mul(sub(1.0, cast(b, dtype="f32")), -1e4),
        log(x), mul(sub(sigmoid(x), 0.5), sub(tanh(x), 0.5)), reduce_sum(sigmoid(x), axes=(1,)),
        cast(cast(b, dtype="i8"), dtype="f16"), greater(x, 0.0), cast(abs(x), dtype="f16"),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 1e30, 1e-40, 80.0], (3, 50))
    inputs = [values.astype(np.float32), rng.integers(0, 2, (3, 50)).astype(bool)]
    for y in cases:
        (found,) = run_graph(graph("g", [x, b], [y]), inputs)
        found = found.astype(np.float64)
        found = found[~np.isnan(found)]
        known = interval(y)
        assert (known.low <= found).all() and (found <= known.high).all(), (y, known)
    assert interval(cases[15]).is_finite and interval(cases[16]).is_finite
    assert interval(cases[9]).low >= 0.99
    assert not interval(cases[17]).is_finite


def test_rules_have_names():
    assert all(r.name and r.name == r.name.lower() for r in RULES)
