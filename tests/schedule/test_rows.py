"""Reductions along rows, products of rows among them, and across rows that are read from memory:
strips of columns; maps that share rows."""

from dataclasses import replace

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import symbols_of
from tensorwright.ir.interp import run_graph
from tensorwright.ir.loop import For, Store, statements
from tensorwright.ops.conv import conv_general
from tensorwright.ops.elementwise import add, mul, sigmoid, sub, tanh
from tensorwright.ops.linalg import dot_general, matmul
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.ops.window import reduce_window
from tensorwright.schedule.rows import strip_width
from tensorwright.target.host import find
from tests.passes.equivalence import module, x_of

RNG = np.random.default_rng(2)
REDUCE = {"sum": (reduce_sum, np.sum), "max": (reduce_max, np.max)}


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((64, 5, 1024), 0), ((64, 5, 1024), 1), ((67, 7, 701), 0), ((3, 250, 501), 1),
     ((40, 33000), 0), ((2, 9, 40, 515), (1, 2)), ((2, 9, 40, 515), (0, 2)), ((90000, 5), 0)],
)  # fmt: skip
def test_strips(shape, axis, op, target):
    reduce, expected = REDUCE[op]
    axes = axis if isinstance(axis, tuple) else (axis,)
    x = x_of(*shape)
    far = replace(find(target), caches=(32 << 10, 256 << 10, 2 << 20))
    program = tw.compile(module(reduce(x, axes=axes), x), target=far)
    value = RNG.standard_normal(shape).astype(np.float32)
    if op == "max":
        value.flat[::100003] = np.nan
    np.testing.assert_allclose(program(value), expected(value, axis), rtol=1e-4, atol=1e-4)
    (kernel,) = program.lowered.kernels.values()
    assert any("strips" in line for line in kernel.schedule)


@pytest.mark.parametrize("shape", [(16, 256), (1000, 1000), (4, 250, 25, 40)])
def test_what_fits_the_cache_stays_in_registers(shape):
    """Of the L3 cache a part; columns of several loops are one."""
    x = x_of(*shape)
    y = reduce_sum(x, axes=(len(shape) // 4,))
    program = tw.compile(module(y, x), target="x86-64-avx512")
    (kernel,) = program.lowered.kernels.values()
    assert kernel.schedule[-1] in ("columns: 8 x 16", "columns: 7 x 16")
    value = RNG.standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(program(value), value.sum(len(shape) // 4), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "tile"), [(24, "3 x 8"), (64, "4 x 16"), (2000, "strips")])
def test_windows_of_few_columns_stay_in_registers(channels, tile):
    """Pooling reads each row again for its neighbours, however large all of them are."""
    side = 4000 // channels + 60
    x = x_of(1, side, side, channels)
    y = reduce_window(x, window=(1, 3, 3, 1), strides=(1, 2, 2, 1), op="max",
                      padding=((0, 0), (1, 1), (1, 0), (0, 0)))  # fmt: skip
    m = module(y, x)
    program = tw.compile(m, target="x86-64-avx512")
    (kernel,) = program.lowered.kernels.values()
    assert tile in kernel.schedule[-1]
    value = RNG.standard_normal(x.shape).astype(np.float32)
    np.testing.assert_array_equal(program(value), run_graph(m.main, [value])[0])


@pytest.mark.parametrize(("cores", "width"), [(1, 1008), (2, 512), (4, 256), (8, 128)])
def test_strips_for_each_thread(cores, width):
    x = x_of(1000, 1000)
    near = find("x86-64-avx512").with_cores(cores)
    target = replace(near, caches=(*near.caches[:2], 8 << 20))  # so that the operand is far
    (kernel,) = run_pipeline(module(reduce_sum(x, axes=(0,)), x), target).kernels.values()
    assert kernel.schedule == (f"columns: strips of {width}",)


@pytest.mark.parametrize(("n", "width"), [(512, 512), (131072, 16384), (1000, 1008), (48, 48),
                                          (16391, 16384), (7, 16)])  # fmt: skip
def test_width_of_strips(n, width):
    assert strip_width(n, 16384, 16) == width


@pytest.mark.parametrize("rows", [1, 7, 130])
@pytest.mark.parametrize("depth", [16, 37, 356])
def test_one_column_is_summed_up_along_rows(rows, depth):
    """Nothing is turned and padded, and the map behind the product is in the same kernel."""
    x, w, bias = x_of(rows, 3, depth), x_of(depth, 1, name="w"), x_of(1, name="b")
    program = tw.compile(module(tanh(add(matmul(x, w), bias)), x, w, bias))
    (kernel,) = program.lowered.kernels.values()
    assert kernel.schedule[0].startswith("rows"), kernel.schedule
    assert not kernel.packs
    a, b = (RNG.standard_normal(s).astype(np.float32) for s in ((rows, 3, depth), (depth, 1)))
    c = np.array([0.25], np.float32)
    np.testing.assert_allclose(program(a, b, c), np.tanh(a @ b + c), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attrs", [
    {}, {"strides": (2, 1)}, {"dilation": (1, 2)}, {"padding": ((1, 1), (1, 0))},
])  # fmt: skip
@pytest.mark.parametrize("channels", [6, 16, 37])
def test_convolutions_to_one_channel_are_summed_up_along_rows(channels, attrs):
    x, w = x_of(2, 9, 7, channels), x_of(3, 3, channels, 1, name="w")
    m = module(conv_general(x, w, layout="NLAST", **attrs), x, w)
    program = tw.compile(m)
    kernels = [k for k in program.lowered.kernels.values() if "conv" in k.name]
    assert [k.schedule[0].startswith("rows") for k in kernels] == [True]
    inputs = [RNG.standard_normal(v.shape).astype(np.float32) for v in (x, w)]
    (want,) = run_graph(m.main, inputs)
    np.testing.assert_allclose(program(*inputs), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [3, 40])
def test_a_product_with_one_result_is_a_sum(length):
    x, y = x_of(length), x_of(length, name="y")
    program = tw.compile(module(tanh(dot_general(x, y, contract=((0,), (0,)))), x, y))
    (kernel,) = program.lowered.kernels.values()
    assert kernel.schedule[0].startswith("rows"), kernel.schedule
    a, b = (RNG.standard_normal(length).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(program(a, b), np.tanh(a @ b), rtol=1e-4, atol=1e-5)


def test_few_elements_are_multiplied_on_tiles():
    x, w = x_of(64, 8), x_of(8, 1, name="w")
    program = tw.compile(module(matmul(x, w), x, w))
    assert not any(k.schedule[0].startswith("rows") for k in program.lowered.kernels.values())


def gate(*shape: int):
    """A gated unit: what it computes twice is a stage of its own, and no stage reduces."""
    a, h = x_of(*shape), x_of(*shape)
    z = sigmoid(a)
    y = add(mul(sub(1.0, z), tanh(sigmoid(mul(a, h)))), mul(z, h))
    return module(y, a, h)


@pytest.mark.parametrize("shape", [(256,), (37,), (5, 40), (3, 4, 19)])
def test_maps_that_share_rows_are_vectors(shape):
    program = tw.compile(gate(*shape), target="x86-64-avx512")
    a, h = (RNG.standard_normal(shape).astype(np.float32) for _ in range(2))
    z, n = 1 / (1 + np.exp(-a)), np.tanh(1 / (1 + np.exp(-a * h)))
    np.testing.assert_allclose(program(a, h), (1 - z) * n + z * h, rtol=1e-5, atol=1e-5)
    for kernel in program.lowered.kernels.values():
        stored = [s for s in statements(kernel.body) if isinstance(s, Store)]
        loops = [s for s in statements(kernel.body) if isinstance(s, For)]
        lanes = {f.var for f in loops if f.kind == "vector"}
        assert all(lanes & set(symbols_of(s.indices[-1])) for s in stored)
