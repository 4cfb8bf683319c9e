"""Padding behind a contraction: the inside is its epilogue, the border is filled apart."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.ir.expr import var
from tensorwright.ir.graph import param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.loop import For, Kernel, Store, statements
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.movement import pad
from tensorwright.schedule.maps import iterations
from tests.passes.equivalence import module, x_of

RNG = np.random.default_rng(3)


def padded(low, high, height, width, channels: int) -> Module:
    """A border of 7 around relu(x w)."""
    x = param("x", tensor("f32", 2, height, width, 5))
    w = x_of(1, 1, 5, channels, name="w")
    y = pad(relu(conv_general(x, w, layout="NLAST")), low=low, high=high, value=7.0)
    return module(y, x, w)


def borders(k: Kernel) -> list[For]:
    """The nests that store nothing but what is padded with."""
    stored = [(s, [x.value for x in statements(s) if isinstance(x, Store)]) for s in k.body.body]
    return [s for s, values in stored if values and all(v.op == "const" for v in values)]


@pytest.mark.parametrize(("low", "high"), [
    ((0, 1, 1, 0), (0, 1, 1, 0)), ((0, 2, 0, 0), (0, 0, 3, 0)), ((1, 0, 1, 2), (2, 1, 0, 1)),
    ((0, 0, 0, 0), (0, 0, 0, 12)), ((0, -1, 1, 0), (0, 1, -2, 0)),
])  # fmt: skip
@pytest.mark.parametrize(
    "sizes", [(7, 9), (var("h", min=3), var("w", min=3))], ids=["known", "vary"]
)
def test_borders_of_every_shape(low, high, sizes):
    m = padded(low, high, *sizes, channels=20)
    values = [RNG.standard_normal(s).astype(np.float32) for s in ((2, 7, 9, 5), (1, 1, 5, 20))]
    (expected,) = run_graph(m.main, values)
    np.testing.assert_allclose(tw.compile(m)(*values), expected, rtol=1e-5, atol=1e-5)


def test_nothing_but_the_border_is_gone_through():
    """To test every element took up to an eighth of a convolution, on one core alone."""
    m = padded((0, 1, 2, 0), (0, 1, 1, 0), 40, 30, channels=32)
    (kernel,) = tw.compile(m, target="x86-64-avx512").lowered.kernels.values()
    found = borders(kernel)
    assert sum(map(iterations, found)) == 2 * (42 * 33 - 40 * 30) * 32
    assert any(s.kind == "vector" for f in found for s in statements(f) if isinstance(s, For))
