"""The expansions of codegen/math.py hold to their stated bounds, natively and under NumPy."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.codegen.math import (
    ABSOLUTE_BOUNDS,
    NEAR_BOUNDS,
    NEAR_BY_SCALING,
    ULP_BOUNDS,
    expand_math,
    expand_near,
)
from tensorwright.ir.dtype import bf16, f16, f32, f64, i32
from tensorwright.ir.expr import Buffer, load, make, walk
from tests.codegen.math_reference import (
    BINARY,
    HAS_EXTENDED,
    inputs,
    points,
    reference,
    specials,
    ulp_error,
)
from tests.codegen.native_math import Kernel
from tests.codegen.numpy_math import evaluate

CASES = sorted(ULP_BOUNDS)
DTYPES = {32: f32, 64: f64}
DTYPES_BY_NAME = {"f32": 32, "f64": 64}
BASIC = {
    "load", "const", "add", "sub", "mul", "div", "fma", "neg", "abs", "sqrt", "round", "trunc",
    "select", "cast", "bitcast", "and", "or", "xor", "shl", "shr", "eq", "ne", "lt", "le", "gt",
    "ge",
}  # fmt: skip


@functools.cache
def expanded(op: str, bits: int):
    loads = inputs(op, DTYPES[bits])
    return loads, expand_math(make(op, DTYPES[bits], tuple(loads)))


@functools.cache
def kernel(op: str, bits: int) -> Kernel:
    return Kernel(*expanded(op, bits))


def call(op: str, bits: int, *values: float) -> float:
    return float(kernel(op, bits)(*(np.array([v], DTYPES[bits].numpy) for v in values))[0])


def excess(op: str, bits: int, y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in ulps, those within the absolute bound counting as none."""
    error = ulp_error(y, exact)
    with np.errstate(invalid="ignore"):
        close = np.abs(y - exact) <= ABSOLUTE_BOUNDS.get((op, bits), -1)
    return np.where(close, 0, error)


def needs_extended(bits: int) -> None:
    if bits == 64 and not HAS_EXTENDED:
        pytest.skip("long double is no wider than double here")


@pytest.mark.parametrize("op, bits", CASES)
def test_error_is_within_the_stated_bound(op, bits):
    needs_extended(bits)
    x = points(op, DTYPES[bits])
    y, exact = kernel(op, bits)(*x), reference(op, DTYPES[bits], *x)
    error = excess(op, bits, y, exact)
    worst = int(np.argmax(error))
    where = [v[worst] for v in x]
    assert error[worst] <= ULP_BOUNDS[op, bits], f"{op}{where} = {y[worst]}, not {exact[worst]}"


@pytest.mark.parametrize("op, bits", CASES)
def test_numpy_gives_the_same_bits(op, bits):
    """The evaluator rounds every operation as the semantics page says, so LLVM must agree."""
    x = points(op, DTYPES[bits], stride=400009, seed=1)
    if bits == 64:  # the emulated fma splits its operands: keep them far from overflow
        inside = np.all([(np.abs(v) < 1e60) & (np.abs(v) > 1e-60) for v in x], axis=0)
        x = [v[inside][:20000] for v in x]
    loads, e = expanded(op, bits)
    native, emulated = kernel(op, bits)(*x), evaluate(e, dict(zip(loads, x)))
    differs = (native != emulated) & ~(np.isnan(native) & np.isnan(emulated))
    assert not differs.any(), [(v[differs][:3]) for v in x]


@pytest.mark.parametrize("op, bits", CASES)
def test_error_without_fma(op, bits):
    needs_extended(bits)
    loads, d = inputs(op, DTYPES[bits]), DTYPES[bits]
    e = expand_math(make(op, d, tuple(loads)), fused=False)
    assert all(node.op != "fma" for node in walk(e))
    x = [v[-60000:] if bits == 64 else v for v in points(op, d, stride=90001)]
    y = evaluate(e, dict(zip(loads, x)))
    error = excess(op, bits, y, reference(op, d, *x)).max()
    assert error <= (0 if op == "rem" else ULP_BOUNDS[op, bits] + 1)


@pytest.mark.parametrize("op, bits", CASES)
def test_only_basic_operations_are_used(op, bits):
    assert {node.op for node in walk(expanded(op, bits)[1])} <= BASIC


@pytest.mark.parametrize("op", [op for op, bits in CASES if bits == 32 and op not in BINARY])
@given(x=st.floats(width=32))
@settings(max_examples=60, deadline=None)
def test_any_f32(op, x):
    values = np.array([x], np.float32)
    loads, e = expanded(op, 32)
    y, exact = evaluate(e, {loads[0]: values}), reference(op, f32, values)
    assert ulp_error(y, exact)[0] <= ULP_BOUNDS[op, 32]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("op", ["rem", "mod"])
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_remainders_are_exact(op, bits, data):
    number = st.floats(width=bits, allow_nan=False, allow_infinity=False)
    x, y = data.draw(number), data.draw(number.filter(lambda v: v != 0))
    exact = math.fmod(x, y) if op == "rem" else float(np.mod(DTYPES[bits].numpy.type(x), y))
    got = call(op, bits, x, y)
    assert (got, math.copysign(1, got)) == (exact, math.copysign(1, exact))


INF, NAN = math.inf, math.nan
EXACT = [
    ("exp", (0.0,), 1.0), ("exp", (-INF,), 0.0), ("exp", (INF,), INF), ("exp2", (10.0,), 1024.0),
    ("expm1", (-0.0,), -0.0), ("expm1", (-INF,), -1.0), ("log", (0.0,), -INF), ("log", (1.0,), 0.0),
    ("log", (-1.0,), NAN), ("log2", (8.0,), 3.0), ("log1p", (-1.0,), -INF),
    ("log1p", (-0.0,), -0.0),
    ("tanh", (-0.0,), -0.0), ("tanh", (40.0,), 1.0), ("tanh", (-INF,), -1.0),
    ("sigmoid", (0.0,), 0.5), ("sigmoid", (-INF,), 0.0), ("sigmoid", (INF,), 1.0),
    ("sin", (-0.0,), -0.0), ("sin", (INF,), NAN), ("cos", (0.0,), 1.0), ("tan", (-0.0,), -0.0),
    ("asin", (2.0,), NAN), ("acos", (1.0,), 0.0), ("atan", (-0.0,), -0.0),
    ("atan2", (0.0, 0.0), 0.0), ("atan2", (-0.0, 0.0), -0.0), ("atan2", (NAN, 0.0), NAN),
    ("sinh", (-INF,), -INF), ("cosh", (-INF,), INF), ("asinh", (-0.0,), -0.0),
    ("acosh", (1.0,), 0.0), ("acosh", (0.5,), NAN), ("atanh", (1.0,), INF),
    ("atanh", (-1.0,), -INF),
    ("erf", (-0.0,), -0.0), ("erf", (INF,), 1.0), ("erfc", (INF,), 0.0), ("erfc", (-INF,), 2.0),
    ("rsqrt", (0.0,), INF), ("rsqrt", (INF,), 0.0), ("reciprocal", (-0.0,), -INF),
    ("lgamma", (1.0,), 0.0), ("lgamma", (2.0,), 0.0), ("lgamma", (0.0,), INF),
    ("lgamma", (-3.0,), INF), ("lgamma", (-INF,), INF), ("digamma", (0.0,), -INF),
    ("digamma", (-2.0,), NAN), ("pow", (NAN, 0.0), 1.0), ("pow", (1.0, NAN), 1.0),
    ("pow", (-2.0, 3.0), -8.0), ("pow", (-8.0, 1 / 3), NAN), ("pow", (-0.0, -3.0), -INF),
    ("pow", (-INF, 0.5), INF), ("pow", (-1.0, INF), 1.0), ("rem", (5.0, 0.0), NAN),
    ("rem", (-6.0, 3.0), -0.0), ("mod", (-1.0, 3.0), 2.0), ("mod", (-6.0, 3.0), 0.0),
    ("mod", (-1.0, INF), INF),
]  # fmt: skip


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("op, x, expected", EXACT)
def test_special_values(op, x, expected, bits):
    got = call(op, bits, *x)
    if math.isnan(expected):
        assert math.isnan(got)
    else:
        assert (got, math.copysign(1, got)) == (expected, math.copysign(1, expected))


@pytest.mark.parametrize("op, low, high", [("tanh", -1, 1), ("erf", -1, 1), ("sigmoid", 0, 1),
                                           ("sin", -1, 1), ("cos", -1, 1)])  # fmt: skip
@pytest.mark.parametrize("bits", [32, 64])
def test_results_stay_in_range(op, low, high, bits):
    x = np.linspace(-30, 30, 400001).astype(DTYPES[bits].numpy)
    y = kernel(op, bits)(x)
    assert y.min() >= low and y.max() <= high


@pytest.mark.parametrize("op", ["tanh", "erf", "sin", "tan", "asin", "atan", "sinh", "asinh"])
@pytest.mark.parametrize("bits", [32, 64])
def test_odd_functions_are_exactly_odd(op, bits):
    x = np.concatenate([specials(DTYPES[bits]), np.linspace(-4, 4, 4001).astype(f"f{bits // 8}")])
    np.testing.assert_array_equal(kernel(op, bits)(-x), -kernel(op, bits)(x))


@pytest.mark.parametrize("op", sorted(NEAR_BY_SCALING))
def test_near_functions(op):
    loads = inputs(op, f32)
    near = Kernel(loads, expand_near(make(op, f32, tuple(loads)), scaling=True))
    x = points(op, f32)
    with np.errstate(over="ignore"):
        y, exact = near(*x), reference(op, f32, *x).astype("f4")
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(exact))
    y, exact = y[np.isfinite(y)], exact[np.isfinite(y)]
    least = 1 if op == "erf" else 1e-37
    assert (np.abs(y - exact) / np.maximum(np.abs(exact), least)).max() <= NEAR_BOUNDS[op]


def test_near_erf_is_odd_with_or_without_fma():
    (x,), (loads,) = points("erf", f32), (inputs("erf", f32),)
    for fused in (True, False):
        near = Kernel(loads, expand_near(make("erf", f32, tuple(loads)), fused))
        np.testing.assert_array_equal(near(-x), -near(x))
        assert np.nanmax(np.abs(near(x) - reference("erf", f32, x))) <= NEAR_BOUNDS["erf"]


def test_only_what_is_summed_up_is_near():
    x = load(Buffer("x", f32, (1,)), (0,))
    e = make("erf", f32, (x,))
    assert not {n.op for n in walk(expand_near(x * (e + 1.0)))} & {"erf"}
    assert expand_near(make("exp", f32, (x,))).op == "exp"  # where nothing scales by powers of two
    for kept in (make("exp", f32, (e,)), x / e, make("tanh", f32, (x,)) * x):
        assert expand_near(kept) is kept


def test_other_nodes_are_left_alone():
    for d, op in ((f32, "add"), (i32, "pow"), (f16, "exp"), (bf16, "tanh"), (f32, "sqrt")):
        x = load(Buffer("x", d, (1,)), (0,))
        assert expand_math(make(op, d, (x, x))) is None


def test_the_documented_bounds_are_these():
    text = (Path(__file__).parents[2] / "docs/math.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `")]
    documented = {(a.strip(" `"), DTYPES_BY_NAME[b.strip()]): float(c) for a, b, c in rows}
    assert documented == ULP_BOUNDS
