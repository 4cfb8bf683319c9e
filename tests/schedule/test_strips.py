"""Contractions strip by strip: where that pays, where they must not form, and what they compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.ir.expr import Expr, Symbol, sym
from tensorwright.ir.graph import Node, constant, graph, param
from tensorwright.ir.interp import run_graph, run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import Dim, tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import add
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import reshape
from tensorwright.passes import fuse
from tensorwright.schedule.strips import cycles, pays, stays_near
from tensorwright.target.host import find
from tensorwright.target.target import Target
from tests.schedule.test_chain import chain_of

SERVER = Target("server", "", caches=(32 << 10, 1 << 20, 32 << 20), cores=2)


@pytest.fixture(autouse=True)
def strips_pay(monkeypatch):
    """Fusion takes small tensors for large ones."""
    monkeypatch.setattr(fuse, "leaves_cache", lambda size, target: True)
    monkeypatch.setattr(fuse, "pays", lambda chain, target: True)


def test_large_tensors_are_worth_it():
    assert pays(chain_of(112, 16, 96, stride=2), SERVER)


@pytest.mark.parametrize("why, size, channels, wide, stride", [
    ("stays in the L2 cache", 28, 32, 192, 1),
    ("few rows of many are border", 56, 24, 144, 1),
    ("weights are read for every strip", 112, 320, 96, 2),
])  # fmt: skip
def test_others_are_not(why, size, channels, wide, stride):
    assert not pays(chain_of(size, channels, wide, stride), SERVER), why


@pytest.mark.parametrize("why, expected, changed", [
    ("all of it stays in a larger L2 cache", False, {"caches": (32 << 10, 8 << 20, 32 << 20)}),
    ("no strip of it stays in a small one", False, {"caches": (32 << 10, 128 << 10, 2 << 20)}),
    ("the L3 cache is nearly as fast", False, {"l3_rate": 64}),
    ("what is computed twice takes longer", False, {"vector_bits": 64}),
    ("it would come from memory", True, {"vector_bits": 64, "caches": (32 << 10, 1 << 20)}),
    ("few strips leave many cores without one", False, {"cores": 48}),
])  # fmt: skip
def test_what_a_target_decides(why, expected, changed):
    chain = chain_of(112, 16, 96, stride=2)
    assert pays(chain, replace(SERVER, **changed)) is expected, why


def test_images_leave_the_cache_together():
    """Which one of them would not; of an unknown number no more than one is counted on."""
    assert not pays(chain_of(28, 16, 192), SERVER)
    assert pays(chain_of(28, 16, 192, images=8), SERVER)
    assert not pays(chain_of(28, 16, 192, images=sym(Symbol("n", min=1))), SERVER)


def test_as_many_strips_as_threads_share():
    chain = chain_of(112, 16, 96, stride=2)
    near = [s for s in chain.strips if stays_near(s, SERVER)]
    assert [s.count for s in near] == [7, 8, 14, 28, 56]
    assert min(near, key=lambda s: cycles(s, chain, SERVER)).count == 8


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


def check(build, *shape: Dim, strips: bool = True, tol: float = 2e-4, **options) -> Module:
    """Native and interpreted results are those of the graph; the kernels that it became."""
    x = param("x", tensor("f32", *shape))
    g = graph("main", [x], [build(x)])
    program = compile(Module({"main": g}), threads=2, **options)
    found = [k for k in program.lowered.kernels.values() if "chain" in str(k.schedule)]
    assert bool(found) is strips
    for many in [1, 3] if isinstance(shape[0], Expr) else [shape[0]]:
        inputs = [np.random.default_rng(1).standard_normal((many, *shape[1:])).astype(np.float32)]
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


@pytest.mark.parametrize("images", [2, 3, sym(Symbol("n", min=1))], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_images(images, stride):
    """Each in strips of its own, however many there are."""

    def build(x):
        attrs = {"strides": (stride, stride), "padding": ((1, 1), (1, 1))}
        return layer(layer(x, 24, 1), 0, 3, **attrs)

    lowered = check(build, images, 16, 16, 8)
    assert any("of each image" in str(k.schedule) for k in lowered.kernels.values())


def test_pixels_of_images():
    """As rows of a product, which come from several images."""

    def build(x):
        n, height, width, depth = x.shape
        pixels = reshape(x, shape=(n * height * width, depth))
        y = dot_general(pixels, weights(depth, 20), contract=((1,), (0,)))
        y = relu(reshape(y, shape=(n, height, width, 20)))
        return layer(y, 0, 3, padding=((1, 1), (1, 1)))

    lowered = check(build, sym(Symbol("n", min=1)), 16, 16, 8)
    assert any("of each image" in str(k.schedule) for k in lowered.kernels.values())


def test_strips_of_whole_images():
    lowered = check(lambda x: layer(layer(x, 8, 1), 0, 3), 8, 10, 10, 4)
    assert any("chain of 2 in 4 strips" in k.schedule for k in lowered.kernels.values())
