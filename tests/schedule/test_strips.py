"""Contractions strip by strip: that they form, where they must not, and that they are right."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.ir.graph import Node, constant, graph, param
from tensorwright.ir.interp import run_graph, run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import add
from tensorwright.schedule import chain
from tensorwright.target.host import find


@pytest.fixture(autouse=True)
def strips_pay(monkeypatch):
    """Small tensors are taken for large ones."""
    monkeypatch.setattr(chain, "MIN_BYTES", 1)
    monkeypatch.setattr(chain, "SHOWN", 1e6)


def weights(*shape: int, seed: int = 0) -> Node:
    return constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def layer(x: Node, channels: int, window: int, **attrs) -> Node:
    """A convolution with a bias and a function behind it, of pixels; 0 channels: of each alone."""
    depth = x.type.shape[-1]
    if channels == 0:
        w = weights(window, window, 1, depth, seed=depth)
        attrs["groups"] = depth
    else:
        w = weights(window, window, depth, channels, seed=channels)
    y = conv_general(x, w, layout="NLAST", **attrs)
    return relu(add(y, weights(y.type.shape[-1])))


def check(build, *shape: int, strips: bool = True, tol: float = 2e-4, **options) -> Module:
    """Native and interpreted results are those of the graph; the kernels that it became."""
    x = param("x", tensor("f32", *shape))
    g = graph("main", [x], [build(x)])
    program = compile(Module({"main": g}), threads=2, **options)
    found = [k for k in program.lowered.kernels.values() if "chain" in str(k.schedule)]
    assert bool(found) is strips
    inputs = [np.random.default_rng(1).standard_normal(shape).astype(np.float32)]
    (expected,) = run_graph(g, inputs)
    for y in [np.asarray(program(*inputs)), *run_module(program.lowered, inputs)]:
        np.testing.assert_allclose(y, expected, tol, tol * np.abs(expected).max())
    return program.lowered


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [
    ((1, 1), (1, 1)), ((0, 1), (0, 1)), ((2, 0), (0, 0)), ((0, 0), (0, 0)),
], ids=str)  # fmt: skip
def test_expansion_and_depthwise(stride, padding):
    def build(x):
        attrs = {"strides": (stride, stride), "padding": padding}
        return layer(layer(x, 24, 1), 0, 3, **attrs)

    size = 15 if padding == ((0, 1), (0, 1)) else 16
    rows = (size + sum(padding[0]) - 3) // stride + 1
    check(build, 1, size, size, 5, strips=any(rows % n == 0 for n in range(4, rows + 1)))


def test_window_over_window():
    def build(x):
        attrs = {"strides": (2, 2), "padding": ((1, 1), (1, 1))}
        return layer(layer(x, 20, 3, **attrs), 17, 3, **attrs)

    check(build, 1, 32, 24, 3)


def test_three_behind_each_other():
    def build(x):
        a = layer(x, 16, 3, strides=(2, 2), padding=((1, 1), (1, 1)))
        b = layer(a, 0, 3, padding=((1, 1), (1, 1)))
        return layer(b, 0, 5, padding=((2, 2), (2, 2)))

    lowered = check(build, 1, 32, 32, 3)
    assert any("chain of 3" in str(k.schedule) for k in lowered.kernels.values())


@pytest.mark.parametrize("groups", [2, 4])
def test_groups(groups):
    def build(x):
        y = layer(x, 16, 1)
        w = weights(3, 3, 16 // groups, 32)
        return conv_general(y, w, layout="NLAST", groups=groups, strides=(2, 2),
                            padding=((1, 1), (1, 1)))  # fmt: skip

    check(build, 1, 16, 16, 8)


def test_result_is_padded():
    """What the last of them pads with is filled apart."""

    def build(x):
        y = layer(layer(x, 16, 1), 0, 3, padding=((1, 1), (1, 1)))
        return layer(y, 8, 7, padding=((3, 3), (3, 3)))

    check(build, 1, 16, 16, 8)


def test_pairs():
    """Of bf16, where the machine multiplies them (padding is converted behind it, so no chain)."""
    check(lambda x: layer(layer(x, 32, 1), 0, 3), 1, 18, 18, 8, tol=3e-2, precision="bf16")


@pytest.mark.parametrize("target", ["x86-64-avx2", "x86-64-sse4.2"])
def test_narrower_vectors(target):
    def build(x):
        return layer(layer(x, 24, 1), 0, 3, padding=((1, 1), (1, 1)))

    check(build, 1, 16, 16, 8, target=find(target))


def test_what_is_used_elsewhere_is_stored():
    def build(x):
        y = layer(x, 8, 1)
        return add(y, layer(y, 0, 3, padding=((1, 1), (1, 1))))

    check(build, 1, 16, 16, 8, strips=False)


def test_several_images_are_not_cut():
    """Strips are rows of the first loop that runs more than once."""

    def build(x):
        return layer(layer(x, 24, 1), 0, 3, padding=((1, 1), (1, 1)))

    check(build, 3, 16, 16, 8, strips=False)
