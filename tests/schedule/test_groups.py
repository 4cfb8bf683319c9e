"""Groups of channels that fill no vectors: loops over groups and over the columns of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tensorwright as tw
from tensorwright.ir.graph import constant, graph
from tensorwright.ir.interp import run_module
from tensorwright.ir.loop import For, statements
from tensorwright.ir.module import Module
from tensorwright.target.host import find
from tests.schedule.test_native import OP, x_of

TARGETS = ("x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2")


def layer(x: np.ndarray, w: np.ndarray, groups: int, order: str) -> Module:
    """A convolution in groups, a bias and relu, channels last or first at both ends."""
    node = x_of(*x.shape)
    inside = OP["transpose"](node, perm=(0, 3, 1, 2)) if order == "last" else node
    y = OP["conv_general"](inside, constant(w, "w"), groups=groups)
    bias = constant(np.linspace(-1, 1, w.shape[0], dtype=np.float32)[:, None, None], "b")
    y = OP["relu"](OP["add"](y, bias))
    y = OP["transpose"](y, perm=(0, 2, 3, 1)) if order == "last" else y
    return Module({"main": graph("main", [node], [y])})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("channels, outputs", [(3, 3), (10, 10), (5, 30), (24, 24), (12, 20)])
def test_results(channels: int, outputs: int, window: int, order: str, target: str):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 3 * channels, 14, 13)).astype(np.float32)
    w = rng.standard_normal((3 * outputs, channels, window, window)).astype(np.float32)
    exact = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), groups=3).numpy()
    exact += np.linspace(-1, 1, len(w), dtype=np.float32)[:, None, None]
    exact = exact.clip(0)
    if order == "last":
        x, exact = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, exact))
    f = tw.compile(layer(x, w, 3, order), target=target, fast_math=0)
    np.testing.assert_allclose(f(x), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels, lanes", [(30, 16), (24, 8), (6, 8), (16, 16)])
def test_vectors_lie_within_groups(channels: int, lanes: int):
    """Groups of 6 and 30 are contractions of their own, of 24 three vectors of 8, of 16 one."""
    x = np.zeros((1, 14, 14, 4 * channels), np.float32)
    w = np.ones((4 * channels, channels, 2, 2), np.float32)
    f = tw.compile(layer(x, w, 4, "last"), target="x86-64-avx512")
    (trace,) = [s for k in f.lowered.kernels.values() for s in k.schedule if "contraction" in s]
    assert f"x {lanes} register tile" in trace


@pytest.mark.parametrize("target, kind", [("x86-64-avx512", "unroll"), ("x86-64-avx2", "serial")])
def test_channels_of_groups_are_written_out_where_a_vector_is_a_line(target: str, kind: str):
    """Each is then loaded from the beginning of the vector that its neighbours lie in."""
    x, w = np.zeros((1, 28, 28, 64), np.float32), np.ones((64, 4, 3, 3), np.float32)
    f = tw.compile(layer(x, w, 16, "last"), target=target)
    (k,) = (k for k in f.lowered.kernels.values() if any("contraction" in s for s in k.schedule))
    channels = [s for s in statements(k.body) if isinstance(s, For) and s.var.name == "r0"]
    assert {(s.extent.value, s.kind) for s in channels} == {(4, kind)}


@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize("run", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_is_read_past_the_last_channel(run: int, precision: str, stride: int):
    """Of 20 channels, in groups narrower than the last vector: the interpreter would tell."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 8, 9, 20)).astype(np.float32)
    w = rng.standard_normal((3, 3, run, 20)).astype(np.float32)
    y = OP["conv_general"](x_of(*x.shape), constant(w), layout="NLAST", groups=20 // run,
                           strides=(stride, stride))  # fmt: skip
    module = Module({"main": graph("main", list(y.args[:1]), [y])})
    f = tw.compile(module, target=find("host"), precision=precision)
    (exact,) = run_module(module, [x])
    tol = (1e-4 if precision == "model" else 4e-2) * np.abs(exact).max()
    for found in (f(x), *run_module(f.lowered, [x])):
        np.testing.assert_allclose(found, exact, atol=tol)
