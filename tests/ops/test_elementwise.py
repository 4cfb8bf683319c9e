"""Elementwise rows: the corners of their semantics, types and messages."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import FLOATS, INTEGERS, dtype
from tensorwright.ir.expr import var
from tensorwright.ir.graph import param
from tensorwright.ir.type import tensor
from tensorwright.ops import elementwise as ops
from tensorwright.ops.positions import nonzero
from tests.ops.rows import all_rows, assert_same, run_lowering, run_reference
from tests.ops.samples import Operand, cases, parse

ROWS = [op for op in all_rows() if op.name in vars(ops)]


def value(op, *arrays, **attrs):
    """A row's reference and its loop nest, which must agree, on given numbers."""
    operands = tuple(Operand(tensor(a.dtype, *a.shape), "") for a in arrays)
    case = next(parse(op, op.samples[0]))
    case = type(case)(op, "", operands, {**op.defaults, **attrs})
    (expected,) = run_reference(case, arrays)
    assert_same(run_lowering(case, arrays, {}), [expected], op.name)
    return expected


@pytest.mark.parametrize("name", [d.name for d in INTEGERS])
def test_integer_division_and_shifts(name):
    d = dtype(name)
    numbers = [d.min, d.max, 0, 1, 2, 7] + ([-1, -2, -7] if d.is_signed else [])
    grid = np.array([(a, b) for a in numbers for b in numbers], d.numpy)
    x, y = grid[:, 0].copy(), grid[:, 1].copy()
    for op in (ops.floor_div, ops.trunc_div, ops.mod, ops.rem, ops.add, ops.sub, ops.mul,
               ops.shift_left, ops.shift_right, ops.minimum, ops.maximum, ops.pow):  # fmt: skip
        value(op, x, y)


def test_integer_division_by_zero_and_wrapping():
    low = np.array([-(2**31), 5, -5], np.int32)
    zero, minus = np.zeros(3, np.int32), np.full(3, -1, np.int32)
    assert value(ops.floor_div, low, zero).tolist() == [0, 0, 0]
    assert value(ops.rem, low, zero).tolist() == [0, 0, 0]
    assert value(ops.trunc_div, low, minus).tolist() == [-(2**31), -5, 5]
    assert value(ops.neg, low).tolist() == [-(2**31), -5, 5]


@pytest.mark.parametrize("op", [ops.mod, ops.rem, ops.floor_div, ops.trunc_div], ids=str)
def test_float_division_of_close_numbers(op):
    """x / y may round up to an integer that x does not reach."""
    random = np.random.default_rng(0)
    for kind in (np.float32, np.float64):
        y = random.uniform(0.1, 1.0, 64).astype(kind)
        x = np.nextafter(y * np.arange(64, dtype=kind), -np.inf).astype(kind)
        signs = random.choice([-1, 1], 64).astype(kind)
        value(op, x * signs, y * np.roll(signs, 1))


def test_extrema_keep_nan():
    x, y = np.array([np.nan, 1, 2], np.float32), np.array([0, np.nan, 3], np.float32)
    assert np.isnan(value(ops.maximum, x, y)).tolist() == [True, True, False]
    assert np.isnan(value(ops.minimum, x, y)).tolist() == [True, True, False]


def test_float_to_integer_saturates():
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.9, -2.9], np.float32)
    for name in ("i8", "u8", "i16", "i32", "u32", "i64", "u64"):
        d = dtype(name)
        low, high = d.min, d.max
        expected = [0, high, low, high, low, 2, max(-2, low)]
        assert value(ops.cast, x, dtype=d).tolist() == expected, name


@pytest.mark.parametrize("name", ["f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz"])
@pytest.mark.parametrize("saturate", [True, False])
def test_every_f16_to_f8(name, saturate):
    x = np.arange(2**16, dtype=np.uint16)[::37].view(np.float16).copy()
    value(ops.cast, x, dtype=dtype(name), saturate=saturate)


def test_every_op_takes_every_type_it_lists():
    for op in ROWS:
        if op.samples and op.dtypes and len(op.params) == 1:
            for d in op.dtypes:
                kind = op.samples[0].split("[")[0]
                text = op.samples[0].replace(kind, d.name, 1).split("@")[0]
                for case in parse(op, text):
                    arrays = case.arrays()
                    assert_same(run_lowering(case, arrays, case.values),
                                run_reference(case, arrays), case.name)  # fmt: skip


def test_number_operands_take_the_tensors_type():
    x = param("x", tensor("f16", 3))
    y = ops.mul(2.0, x)
    assert y.type == tensor("f16", 3) and y.args[0].dtype is dtype("f16")


def test_messages():
    n, m = var("n"), var("m")
    x, w = param("x", tensor("f32", n, 16)), param("w", tensor("f32", m, 16))
    with pytest.raises(CompileError, match="add: shapes do not broadcast: dimension -2 is n and"):
        ops.add(x, w)
    counts = [nonzero(v, flat=True) for v in (x, w)]
    words = r"is nnz \(count_nonzero of x\) and nnz \(count_nonzero of w\)"
    with pytest.raises(CompileError, match=words):
        ops.add(*counts)
    with pytest.raises(CompileError, match=r"mul: operands have different types: f32 and i64"):
        ops.mul(x, param("k", tensor("i64", 16)))
    with pytest.raises(CompileError, match=r"exp: i64 is not supported"):
        ops.exp(param("k", tensor("i64", 16)))
    with pytest.raises(CompileError, match=r"select: the condition is f32, not bool"):
        ops.select(x, x, x)
    with pytest.raises(CompileError, match=r"bitcast: f32 has 32 bits, i64 has 64"):
        ops.bitcast(x, dtype=dtype("i64"))


def test_samples_cover_the_floats():
    for op in ROWS:
        kinds = {o.type.dtype for c in cases(op) for o in c.operands if o}
        wanted = set(FLOATS) & set(op.dtypes)
        assert wanted <= kinds or op.name in ("is_nan", "is_finite", "is_inf"), op.name
