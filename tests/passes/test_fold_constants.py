"""Constant folding: what is computed, what stays."""

import numpy as np
import pytest

from tensorwright.ir.expr import var
from tensorwright.ir.graph import array_of, constant, param
from tensorwright.ir.graph import graph as make_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.control import if_, item
from tensorwright.ops.elementwise import add, mul, rsqrt
from tensorwright.ops.linalg import matmul
from tensorwright.ops.movement import broadcast_to, reshape, transpose
from tensorwright.ops.positions import full, iota, size
from tensorwright.ops.sort import top_k
from tensorwright.passes.fold_constants import fold_constants
from tests.passes.equivalence import check_pass, module, op_names, x_of

W = np.arange(6, dtype=np.float32).reshape(2, 3) + 1


def test_arithmetic_of_constants():
    x = x_of(2, 3)
    k = rsqrt(add(constant(W, "w"), 0.5))
    m = check_pass(fold_constants, module(mul(x, k), x), ["mul"])
    folded = m.main.results[0].args[1]
    np.testing.assert_allclose(array_of(folded), 1 / np.sqrt(W + 0.5), rtol=1e-6)
    assert folded.name == "w"


def test_transposed_weight():
    x = x_of(3, 2)
    m = check_pass(fold_constants, module(add(x, transpose(constant(W), perm=(1, 0))), x), ["add"])
    assert array_of(m.main.results[0].args[1]).flags.c_contiguous


def test_unchanged_is_the_same_object():
    x = x_of(2, 3)
    m = module(add(x, constant(W)), x)
    assert fold_constants(m) is m


def test_large_broadcast_stays():
    x = x_of(64, 1024, 128)
    big = broadcast_to(constant(np.ones(128, np.float32)), shape=x.shape)
    m = module(add(x, big), x)
    assert op_names(fold_constants(m)) == ["broadcast_to", "add"]


def test_small_fill_and_iota():
    x = x_of(4, d="i64")
    y = add(x, add(iota(shape=(4,)), full(shape=(4,), value=2, dtype="i64")))
    check_pass(fold_constants, module(y, x), ["add"])


def test_symbolic_sizes_stay():
    n = var("n", min=1)
    x = x_of(n)
    m = module((size(dims=(n,)), reshape(x, shape=(n, 1))), x)
    assert fold_constants(m) is m


def test_item_of_a_tuple():
    x = x_of(2, 2)
    t = top_k(constant(W), k=2)
    check_pass(fold_constants, module(add(x, item(t, index=0)), x), ["add"])


def test_bodies_of_control_flow():
    c, x = param("c", tensor("bool")), x_of(2, 3)
    inner = param("x", x.type)
    then = make_graph("then", [inner], [mul(inner, add(constant(W), 1.0))])
    orelse = make_graph("orelse", [other := param("x", x.type)], [other])
    m = module(if_(c, x, then=then, orelse=orelse), c, x)
    after = check_pass(fold_constants, m)
    body = after.main.results[0].attrs["then"]
    assert [n.op.name for n in body.nodes()] == ["param", "const", "mul"]


@pytest.mark.parametrize("d", ["bf16", "f16", "i8", "u8"])
def test_keeps_the_type(d):
    x = x_of(3, d=d)
    c = constant(np.arange(3).astype(x.dtype.numpy))
    check_pass(fold_constants, module(mul(x, add(c, c)), x), ["mul"], tol=0)


def test_weights_of_contractions_are_not_copied():
    x = x_of(8, 256)
    w = constant(np.ones((128, 256), np.float32), "w")
    m = module(matmul(x, transpose(w, perm=(1, 0))), x)
    assert fold_constants(m) is m
    m = module((matmul(x, t := transpose(w, perm=(1, 0))), t), x)
    assert op_names(fold_constants(m)) == ["matmul"]
