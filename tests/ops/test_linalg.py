"""The wording of contraction errors, and that products keep to few operators."""

from __future__ import annotations

import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.build import location
from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.type import tensor
from tensorwright.ops.einsum import einsum
from tensorwright.ops.linalg import det, dot_general, gemm, linear, matmul


def test_inner_dimensions_differ():
    n = var("n", min=1, max=4096)
    x, w = param("x", tensor("f32", n, 16)), param("w", tensor("f32", 8, 16))
    with pytest.raises(CompileError) as e, location('mlp.onnx, node "/fc1/MatMul"'):
        matmul(x, w)
    assert str(e.value) == (
        "error: matmul: inner dimensions differ: x.shape[1] is 16, w.shape[0] is 8\n"
        '  at mlp.onnx, node "/fc1/MatMul"   x: f32[n, 16]   w: f32[8, 16]\n'
        "  help: w.shape[1] is 16; if w is stored as [out, in], transpose it"
    )


def test_two_symbols_are_not_one():
    x = param("x", tensor("f32", 3, var("n")))
    w = param("w", tensor("f32", var("m"), 2))
    with pytest.raises(CompileError, match=r"x.shape\[1\] is n, w.shape\[0\] is m") as e:
        matmul(x, w)
    assert e.value.help == "give dimensions that are always equal one name"


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda x: dot_general(x, x, contract=((0,), ())), "axes are not in pairs"),
        (lambda x: dot_general(x, x, contract=((0, 0), (0, 1))), "of x repeat"),
        (lambda x: matmul(x, x, dtype="i32"), "f32 operands cannot give i32"),
        (lambda x: linear(x, param("w", tensor("f32", 3))), "w has rank 1, it is"),
        (lambda x: linear(x, x, param("b", tensor("f32", 7))), "does not fit 4 outputs"),
        (lambda x: gemm(x, x), "inner dimensions differ: 5 of a, 4 of b"),
        (lambda x: det(x), "is not made of square matrices"),
        (lambda x: einsum(x, equation="ijk->i"), "'ijk' does not fit operand 1, which has rank 2"),
        (lambda x: einsum(x, x, equation="ij,ji->"), "label 'j' is 5 and 4|label 'i' is"),
        (lambda x: einsum(x, equation="ij->ik"), "label 'k' of the result"),
    ],
)
def test_messages(build, message):
    x = param("x", tensor("f32", 4, 5))
    with pytest.raises(CompileError, match=message):
        build(x)


def test_a_product_without_summation_is_elementwise():
    x, w = param("x", tensor("f32", 4)), param("w", tensor("f32", 5))
    y = einsum.expand(x, w, equation="i,j->ij")
    assert "dot_general" not in {n.op.name for n in graph("g", [x, w], [y]).nodes()}


def test_a_matrix_on_the_right_needs_no_batch():
    x, w = param("x", tensor("f32", 2, 3, 4)), param("w", tensor("f32", 4, 5))
    y = matmul.expand(x, w, dtype=None)
    assert y.op is dot_general and y.attrs["batch"] == ((), ())
