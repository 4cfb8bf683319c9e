"""Activations against PyTorch's, extremes included."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops import activations as ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

X = np.concatenate([np.linspace(-6, 6, 61), [-1e4, -90.0, 90.0, 1e4, -0.0]]).astype(np.float32)
PAIRS = {
    "relu": ({}, F.relu), "leaky_relu": ({"alpha": 0.2}, lambda x: F.leaky_relu(x, 0.2)),
    "elu": ({"alpha": 0.7}, lambda x: F.elu(x, 0.7)), "selu": ({}, F.selu),
    "celu": ({"alpha": 0.7}, lambda x: F.celu(x, 0.7)), "silu": ({}, F.silu),
    "gelu": ({"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    "softplus": ({}, F.softplus), "softsign": ({}, F.softsign), "mish": ({}, F.mish),
    "hard_sigmoid": ({"alpha": 1 / 6}, F.hardsigmoid), "hard_swish": ({}, F.hardswish),
    "clamp": ({"low": -1.5, "high": 2.0}, lambda x: torch.clamp(x, -1.5, 2.0)),
    "shrink": ({"lambd": 0.5, "bias": 0.5}, lambda x: F.softshrink(x, 0.5)),
    "quick_gelu": ({}, lambda x: x * torch.sigmoid(1.702 * x)), "square": ({}, torch.square),
    "thresholded_relu": ({"alpha": 0.3}, lambda x: F.threshold(x, 0.3, 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_against_torch(name):
    attrs, theirs = PAIRS[name]
    op = getattr(ops, name)
    x = param("x", tensor("f32", len(X)))
    result = op.expand(x, **{**op.defaults, **attrs}) if op.expand else op(x, **attrs)
    (y,) = run_graph(graph("g", [x], [result]), [X])
    expected = theirs(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-6)
    (reference,) = run_graph(graph("g", [x], [op(x, **attrs)]), [X])
    np.testing.assert_allclose(reference, expected, rtol=2e-5, atol=2e-6)


def test_exact_gelu():
    x = param("x", tensor("f32", len(X)))
    (y,) = run_graph(graph("g", [x], [ops.gelu(x)]), [X])
    np.testing.assert_allclose(y, F.gelu(torch.from_numpy(X)).numpy(), rtol=1e-4, atol=1e-6)


def test_messages():
    x = param("x", tensor("f32", 2, 3, 4))
    with pytest.raises(CompileError, match=r"prelu: the slope \(3\) does not broadcast to x"):
        ops.prelu(x, param("slope", tensor("f32", 3)))
    with pytest.raises(CompileError, match="gelu: i64 is not supported"):
        ops.gelu(param("k", tensor("i64", 3)))
