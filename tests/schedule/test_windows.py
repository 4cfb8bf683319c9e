"""Windows: vectors along the results, cut where the window leaves what it slides over."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ir.interp import run_graph
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import maximum, mul
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.ops.window import reduce_window
from tests.passes.equivalence import module, x_of

RNG = np.random.default_rng(5)


def pooled(shape, window, strides, padding, dilation, op):
    x = x_of(*shape)
    attrs = {"window": (1, *window), "strides": (1, *strides), "dilation": (1, *dilation)}
    return module(reduce_window(x, padding=((0, 0), *padding), op=op, **attrs), x)


def check(m, target, *shape):
    value = RNG.standard_normal(shape).astype(np.float32)
    value.flat[:: max(value.size // 5, 1)] = np.nan
    program = tw.compile(m, target=target)
    (expected,) = run_graph(m.main, [value])
    np.testing.assert_allclose(program(value), expected, rtol=1e-5, atol=1e-5)
    return program


def traces(program) -> list[str]:
    return [line for k in program.lowered.kernels.values() for line in k.schedule]


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-sse4.2"])
@pytest.mark.parametrize("op", ["max", "sum"])
@pytest.mark.parametrize(
    ("width", "window", "stride", "padding", "dilation"),
    [(112, 3, 2, (1, 1), 1), (56, 2, 2, (0, 0), 1), (37, 3, 1, (1, 1), 1), (41, 3, 3, (2, 2), 1),
     (30, 2, 4, (0, 1), 1), (33, 3, 2, (4, 4), 3), (9, 5, 1, (4, 4), 1), (19, 2, 5, (0, 0), 1)],
)  # fmt: skip
def test_windows_of_every_shape(width, window, stride, padding, dilation, op, target):
    m = pooled((2, 7, width), (2, window), (1, stride), ((0, 1), padding), (1, dilation), op)
    program = check(m, target, 2, 7, width)
    assert any("windows" in t for t in traces(program)) == (stride < 5)


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-sse4.2"])
@pytest.mark.parametrize(
    ("width", "window", "stride", "padding", "dilation"),
    [(112, 3, 2, 1, 1), (57, 5, 3, 2, 1), (40, 2, 2, 0, 1), (48, 3, 2, 2, 2)],
)
def test_depthwise_along_rows(width, window, stride, padding, dilation, target):
    x = x_of(2, 4, 9, width)
    w = constant(RNG.standard_normal((4, 1, window, window)).astype(np.float32), "w")
    y = conv_general(x, w, strides=(stride, stride), padding=((padding, padding),) * 2,
                     dilation=(dilation, dilation), groups=4)  # fmt: skip
    m = module(relu(y), x)
    value = RNG.standard_normal((2, 4, 9, width)).astype(np.float32)
    program = tw.compile(m, target=target)
    (expected,) = run_graph(m.main, [value])
    np.testing.assert_allclose(program(value), expected, rtol=1e-5, atol=1e-5)
    assert any("windows" in t for t in traces(program))
    assert len(program.lowered.kernels) == 1


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-sse4.2"])
@pytest.mark.parametrize(
    ("height", "width", "window", "stride", "padding", "dilation"),
    [(14, 14, 3, 1, (1, 1), 1), (9, 40, 3, 1, (0, 2), 1), (1, 33, 3, 1, (1, 1), 1),
     (13, 28, 5, 1, (2, 2), 1), (11, 26, 3, 2, (1, 1), 1), (3, 17, 3, 1, (2, 1), 1),
     (12, 20, 3, 1, (2, 2), 2), (7, 60, 5, 2, (2, 1), 1), (2, 24, 2, 1, (0, 0), 1)],
)  # fmt: skip
def test_rows_that_share_what_their_windows_read_or_their_weights(
    height, width, window, stride, padding, dilation, target
):
    x = x_of(1, 9, height, width)
    w = constant(RNG.standard_normal((9, 1, window, window)).astype(np.float32), "w")
    y = conv_general(x, w, strides=(stride, stride), padding=(padding, padding),
                     dilation=(dilation, dilation), groups=9)  # fmt: skip
    m = module(relu(y), x)
    value = RNG.standard_normal((1, 9, height, width)).astype(np.float32)
    program = tw.compile(m, target=target)
    (expected,) = run_graph(m.main, [value])
    np.testing.assert_allclose(program(value), expected, rtol=1e-5, atol=1e-5)
    assert any("rows of vectors" in t for t in traces(program)) == (y.shape[2] > 1)


def test_windows_without_a_border_share_rows_too():
    x = x_of(1, 8, 64, 130)
    w = constant(RNG.standard_normal((8, 1, 3, 3)).astype(np.float32), "w")
    program = check(module(conv_general(x, w, groups=8), x), "host", 1, 8, 64, 130)
    assert any("4 rows" in t for t in traces(program))


def test_symbolic_width():
    n = var("n", min=1, max=400)
    x = x_of(3, n)
    m = module(reduce_window(x, window=(1, 3), strides=(1, 2), padding=((0, 0), (1, 1))), x)
    for width in (1, 2, 31, 32, 33, 34, 100):
        check(m, "host", 3, width)


def test_maps_around_a_window_join_it():
    x, scale = x_of(4, 64), constant(np.float32(0.25), "scale")
    zero = constant(np.float32(0), "zero")
    m = module(
        mul(reduce_window(maximum(x, zero), window=(1, 2), strides=(1, 2), op="sum"), scale), x
    )
    program = check(m, "host", 4, 64)
    assert len(program.lowered.kernels) == 1


def test_short_rows():
    x = x_of(50, 3)
    for op in (reduce_max, reduce_sum):
        program = check(module(op(x, axes=(1,)), x), "x86-64-avx512", 50, 3)
        assert any("windows" in t for t in traces(program))


def test_vectors_are_loaded_and_shuffled():
    program = check(pooled((2, 8, 112), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), "max"),
                    "x86-64-avx512", 2, 8, 112)  # fmt: skip
    text = ModuleText()
    for k in program.lowered.kernels.values():
        emit_kernel(k, text, program.target)
    assert "shufflevector" in text.text() and "gather" not in text.text()
