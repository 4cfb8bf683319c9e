"""Convolution: messages, symbolic sizes, and the padding test that is not there."""

from __future__ import annotations

import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.expr import Buffer, var, walk
from tensorwright.ir.graph import param
from tensorwright.ir.loop import expressions, statements
from tensorwright.ir.type import tensor
from tensorwright.ops.conv import conv, conv_general, conv_transpose


def lowered_ops(padding) -> set[str]:
    x, w = Buffer("x", "f32", (1, 2, 9)), Buffer("w", "f32", (3, 2, 3))
    size = 9 + sum(padding) - 2
    out = Buffer("y", "f32", (1, 3, size))
    body = conv_general.lower(out, x, w, **{**conv_general.defaults, "padding": (padding,)})
    return {e.op for s in statements(body) for e in walk(*expressions(s))}


def test_only_padding_brings_a_test():
    assert "select" not in lowered_ops((0, 0))
    assert "select" in lowered_ops((1, 0))
    assert "fma" in lowered_ops((0, 0))


def test_symbolic_sizes():
    n, h = var("n", min=1), var("h", min=3)
    x, w = param("x", tensor("f32", n, 3, h)), param("w", tensor("f32", 8, 3, 3))
    assert conv_general(x, w, padding=((1, 1),)).shape == (n, 8, h)
    half = conv_general(x, w, strides=(2,), padding=((1, 1),)).shape[2]
    assert half == (h - 1) // 2 + 1
    up = conv_transpose(x, param("w", tensor("f32", 3, 8, 2)), strides=(2,))
    assert up.shape == (n, 8, h * 2)


@pytest.mark.parametrize(
    "x, w, attrs, message",
    [
        ((1, 4, 9), (8, 3, 3), {}, "x has 4 channels, w expects 3 in each of 1 groups"),
        ((1, 3, 2), (8, 3, 3), {}, "the window reaches over 3 elements of dimension 0"),
        ((1, 3, 9), (8, 3, 3), {"strides": (0,)}, "stride 0"),
        ((1, 3, 9), (8, 3, 3), {"strides": (1, 1)}, "does not have 1 entries"),
        ((1, 4, 9), (3, 2, 3), {"groups": 2}, "3 output channels do not divide into 2 groups"),
        ((1, 3, 9), (8, 3), {}, "x has rank 3, w has rank 2"),
    ],
)  # fmt: skip
def test_messages(x, w, attrs, message):
    with pytest.raises(CompileError, match=message):
        conv_general(param("x", tensor("f32", x)), param("w", tensor("f32", w)), **attrs)


def test_bias_must_fit():
    x, w = param("x", tensor("f32", 1, 3, 9)), param("w", tensor("f32", 8, 3, 3))
    with pytest.raises(CompileError, match=r"bias f32\[3\] does not fit 8 output channels"):
        conv(x, w, param("b", tensor("f32", 3)))
