"""Functions of f32 where a target multiplies by powers of two, or looks up one of 16 numbers, in
one instruction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorwright as tw
from tensorwright.codegen.instructions import INSTRUCTIONS
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.codegen.math import BY_SCALING, ULP_BOUNDS, expand_math
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, call, load, make, rebuild, walk
from tensorwright.ops import elementwise
from tensorwright.ops.reduce import reduce_sum
from tensorwright.target.host import host
from tests.codegen.math_reference import inputs, points, reference, ulp_error
from tests.codegen.native_math import Kernel
from tests.codegen.numpy_math import evaluate
from tests.passes.equivalence import module, x_of

HAS_SCALE = set(INSTRUCTIONS["scale"].features) <= set(host().required)
needs_scale = pytest.mark.skipif(not HAS_SCALE, reason="this machine has no such instruction")


def expanded(op: str):
    loads = inputs(op, f32)
    return loads, expand_math(make(op, f32, tuple(loads)), scaling=True)


def in_plain_operations(e):
    """e without the instructions."""
    new = {}
    for node in walk(e):
        args = tuple(new[a] for a in node.args)
        plain = node.op == "call" and INSTRUCTIONS[node.value].expand
        new[node] = plain(*args) if plain else rebuild(node, args)
    return new[e]


@needs_scale
@pytest.mark.parametrize("op", BY_SCALING)
def test_error_is_within_the_stated_bound(op):
    (x,) = points(op, f32)
    loads, e = expanded(op)
    y, exact = Kernel(loads, e)(x), reference(op, f32, x)
    error = ulp_error(y, exact)
    worst = int(np.argmax(error))
    assert error[worst] <= ULP_BOUNDS[op, 32], f"{op}({x[worst]}) = {y[worst]}, not {exact[worst]}"


@needs_scale
@pytest.mark.parametrize("op", BY_SCALING)
def test_lanes_without_the_instruction_give_the_same_bits(op):
    (x,) = points(op, f32, stride=40009, seed=1)
    loads, e = expanded(op)
    with_it = Kernel(loads, e)(x)
    for without in (Kernel(loads, in_plain_operations(e))(x), evaluate(e, {loads[0]: x})):
        differs = (with_it != without) & ~(np.isnan(with_it) & np.isnan(without))
        assert not differs.any(), x[differs][:3]


@pytest.mark.parametrize("op, x, expected", [
    ("exp", 0.0, 1.0), ("exp", -np.inf, 0.0), ("exp", np.inf, np.inf), ("exp", -1e30, 0.0),
    ("exp", 1e30, np.inf), ("exp", np.nan, np.nan), ("sigmoid", 0.0, 0.5),
    ("sigmoid", -np.inf, 0.0), ("sigmoid", np.inf, 1.0), ("sigmoid", np.nan, np.nan),
    ("sigmoid", 20.0, 1.0), ("erf", -0.0, -0.0), ("erf", np.inf, 1.0), ("erf", -np.inf, -1.0),
    ("erf", np.nan, np.nan), ("erf", 4.0, 1.0),
])  # fmt: skip
def test_special_values(op, x, expected):
    loads, e = expanded(op)
    got = evaluate(in_plain_operations(e), {loads[0]: np.array([x], np.float32)})
    np.testing.assert_array_equal(got, [expected])
    assert np.isnan(expected) or np.signbit(got[0]) == np.signbit(expected)


def test_erf_is_odd_and_never_exceeds_one():
    last = np.arange(np.float32(3.5).view("u4"), np.float32(4).view("u4"), 7, np.uint32)
    x = np.concatenate([last.view("f4"), np.linspace(0, 4, 100001, dtype=np.float32)])
    loads, e = expanded("erf")
    y = evaluate(e, {loads[0]: x})
    np.testing.assert_array_equal(evaluate(e, {loads[0]: -x}), -y)
    assert y.max() == 1


@pytest.mark.parametrize("op", BY_SCALING)
@given(x=st.floats(width=32))
@settings(max_examples=60, deadline=None)
def test_any_f32(op, x):
    values = np.array([x], np.float32)
    loads, e = expanded(op)
    y, exact = evaluate(e, {loads[0]: values}), reference(op, f32, values)
    assert ulp_error(y, exact)[0] <= ULP_BOUNDS[op, 32]


def test_powers_of_two_are_exact():
    x, n = (load(Buffer(name, f32, (1,)), (0,)) for name in "xn")
    e = INSTRUCTIONS["scale"].expand(x, n)
    values = np.linspace(0.7, 1.41, 1001, dtype=np.float32)
    for power in (-160, -149, -130, -126, -3, 0, 5, 127, 128, 140):
        got = evaluate(e, {x: values, n: np.full(1001, power, np.float32)})
        np.testing.assert_array_equal(got, np.ldexp(values, power))
    assert call("scale", f32, (x, n)).value in INSTRUCTIONS


@needs_scale
@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 13, 16])
def test_any_number_of_lanes_gives_the_same_bits(width):
    """Scalars and narrow vectors look up roots as parts of wider ones."""
    x, whole = x_of(5, width), x_of(16 * 5 * width)
    values = np.linspace(-103, 88, 5 * width, dtype=np.float32)
    few = tw.compile(module(elementwise.exp(x), x))(values.reshape(5, width))
    many = tw.compile(module(elementwise.exp(whole), whole))(np.repeat(values, 16))
    np.testing.assert_array_equal(few.ravel(), many[::16])


@needs_scale
@pytest.mark.parametrize("length", [64, 100, 1000])
def test_sums_of_many_lanes_expand_nothing(length):
    """Reductions run on several vectors at once, each of which has the instructions."""
    x = x_of(3, length)
    program = tw.compile(module(reduce_sum(elementwise.exp(x), axes=(1,)), x))
    (kernel,) = program.lowered.kernels.values()
    text = ModuleText()
    emit_kernel(kernel, text, program.target)
    roots = [line for line in text.text().splitlines() if "permvar" in line and " call " in line]
    assert roots and "icmp eq" not in text.text()
    values = np.linspace(-5, 3, 3 * length, dtype=np.float32).reshape(3, length)
    expected = np.exp(values.astype(np.float64)).sum(1)
    np.testing.assert_allclose(program(values), expected, rtol=1e-5)
