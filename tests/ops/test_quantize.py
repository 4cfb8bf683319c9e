"""Quantized products keep their operands in bytes; parameters that do not fit are named."""

from __future__ import annotations

import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import i8, u8
from tensorwright.ir.graph import graph, param
from tensorwright.ir.type import tensor
from tensorwright.ops.quantize import conv_integer, dequantize, matmul_integer, quantize


def products(op, *params, **attrs):
    y = op.expand(*params, **{**op.defaults, **attrs})
    nodes = graph("g", list(params), [y]).nodes()
    return [n for n in nodes if n.op.name in ("matmul", "dot_general", "conv_general")]


def test_zero_points_leave_the_operands_bytes():
    x, w = param("x", tensor("u8", 3, 4)), param("w", tensor("i8", 4, 5))
    zero = param("zero", tensor("u8"))
    (product,) = products(matmul_integer, x, w, zero)
    assert [a.dtype for a in product.args] == [u8, i8]
    x, w = param("x", tensor("u8", 1, 2, 9)), param("w", tensor("i8", 4, 2, 3))
    both = products(conv_integer, x, w, zero, padding=((1, 1),))
    assert {a.dtype for n in both for a in n.args} == {u8, i8}


@pytest.mark.parametrize(
    "scale, attrs, message",
    [
        ((3,), {}, r"scale is f32\[3\]; it must be one number or 8 of them"),
        ((4, 3), {"block": 2}, r"blocks of 2 along axis 1 of x need f32\[4, 4\]"),
        ((), {"dtype": "f32"}, "f32 is not a quantized type"),
    ],
)
def test_messages(scale, attrs, message):
    x, scale = param("x", tensor("f32", 4, 8)), param("scale", tensor("f32", *scale))
    with pytest.raises(CompileError, match=message):
        quantize(x, scale, **attrs)


def test_zero_point_of_another_type():
    x, scale, zero = (param(n, tensor(d)) for n, d in (("x", "u8"), ("s", "f32"), ("z", "i8")))
    with pytest.raises(CompileError, match="the zero point is i8, x is u8"):
        dequantize(x, scale, zero)
