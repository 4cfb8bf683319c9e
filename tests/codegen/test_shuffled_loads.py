"""Lanes that read from one vector's worth of memory: a load and a shuffle instead of a gather."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.ir.graph import constant
from tensorwright.ir.interp import run_graph
from tensorwright.ops.conv import conv_general
from tests.passes.equivalence import module, x_of

RNG = np.random.default_rng(11)


def grouped(channels, outputs, groups, **attrs):
    w = RNG.standard_normal((3, 3, channels // groups, outputs)).astype(np.float32)
    x = x_of(2, 9, 11, channels)
    return module(conv_general(x, constant(w, "w"), groups=groups, layout="NLAST", **attrs), x)


def text_of(program) -> str:
    kernels = [k for k in program.lowered.kernels.values() if "conv" in k.name]
    text = ModuleText()
    for k in kernels:
        emit_kernel(k, text, program.target)
    return text.text()


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "attrs"),
    [(32, 32, 8, {}), (64, 64, 8, {}), (16, 32, 16, {}), (8, 8, 4, {}), (16, 32, 4, {}),
     (32, 32, 8, {"strides": (2, 2), "padding": ((1, 1), (1, 1))}), (24, 24, 6, {}),
     (12, 18, 6, {})],
)  # fmt: skip
def test_groups_smaller_than_vectors(channels, outputs, groups, attrs, target):
    m = grouped(channels, outputs, groups, **attrs)
    value = RNG.standard_normal((2, 9, 11, channels)).astype(np.float32)
    program = tw.compile(m, target=target)
    (expected,) = run_graph(m.main, [value])
    np.testing.assert_allclose(program(value), expected, rtol=1e-4, atol=1e-4)


def test_no_gathers_where_the_pattern_is_known():
    program = tw.compile(grouped(32, 32, 8), target="x86-64-avx512")
    text = text_of(program)
    assert "shufflevector" in text and "gather" not in text


def test_a_guarded_vector_stays_inside_its_buffer():
    """18 channels in vectors of 16: lanes past the end read nothing."""
    m = grouped(18, 18, 9)
    value = RNG.standard_normal((2, 9, 11, 18)).astype(np.float32)
    (expected,) = run_graph(m.main, [value])
    np.testing.assert_allclose(tw.compile(m)(value), expected, rtol=1e-4, atol=1e-4)


def test_masked_tiles_stay_in_registers():
    """24 columns in vectors of 16: the tile is read back without a mask, so that it is never in
    memory."""
    m = module(conv_general(x := x_of(1, 8, 8, 16), constant(RNG.standard_normal(
        (1, 1, 16, 24)).astype(np.float32), "w"), layout="NLAST"), x)  # fmt: skip
    program = tw.compile(m, target="x86-64-avx512")
    text = ModuleText()
    for k in program.lowered.kernels.values():
        emit_kernel(k, text, program.target)
    assert "@llvm.masked.load" not in text.text()
