"""Transformed tiles of windows that move by two: what is chosen, results, weights shared by points.

Windows that move by one: `test_winograd.py`.
"""

import numpy as np
import pytest
from onnx import helper

import tensorwright as tw
from tensorwright.ir.expr import as_expr, var
from tensorwright.ir.graph import constant
from tensorwright.ops.activations import relu
from tensorwright.ops.elementwise import add
from tensorwright.ops.movement import pad
from tensorwright.ops.winograd import (
    ERROR,
    SAME,
    Along,
    matrices,
    name_of,
    points_of,
    transformed_weights,
    weights_at,
)
from tensorwright.passes.winograd import on_tiles
from tests.passes.equivalence import assert_equal_results, module, x_of
from tests.passes.test_winograd import (
    RNG,
    algorithms,
    check,
    compiled,
    decisions,
    error,
    last,
    weight,
    with_algorithm,
)

TWO = {"strides": (2, 2)}


@pytest.mark.parametrize("high", [SAME, Along(2, 3), Along(4, 3, 2)], ids=name_of)
@pytest.mark.parametrize("wide", [*ERROR, SAME], ids=name_of)
def test_every_point_has_its_weights(high, wide):
    """Whatever is shared: at each point of both dimensions, u is g w g'."""
    over, across = (np.array(matrices(a)[1], np.float64) for a in (high, wide))
    w = RNG.standard_normal((high.window, wide.window, 1, 1)).astype(np.float32)
    u = transformed_weights(w, high, wide)
    assert len(u) == high.weights * wide.weights
    assert sorted(points_of(high, wide)) == list(np.ndindex(high.reach, wide.reach))
    for p, (a, b) in enumerate(points_of(high, wide)):
        own = over[min(a, high.weights - 1)], across[min(b, wide.weights - 1)]
        expected = own[0] @ w[..., 0, 0] @ own[1]
        number = weights_at(as_expr(p), high, wide).value
        assert np.isclose(u[number].item(), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (9, 30), (6, 13)])
@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 1), (0, 1)), ((2, 0), (0, 3)), None])
@pytest.mark.parametrize("tile", [2, 4])
def test_tiles_are_windows(size, padding, tile):
    """Whether inputs are added around, or the last of them is seen by no window and cut off."""
    x, w = x_of(2, *size, 16), weight(3, 3, 8, 24)
    y = last(x, w, padding=padding, groups=2, **TWO)
    assert_equal_results(
        module(y, x), module(on_tiles(y, x, w, (Along(tile, 3, 2),) * 2), x), tol=1e-5
    )


def test_windows_become_tiles():
    x, w = x_of(2, 30, 31, 64), weight(3, 3, 64, 64)
    check(last(x, w, **TWO), x, ops=["pad", "winograd"])
    check(last(x, weight(3, 3, 32, 64), groups=2, **TWO), x, ops=["pad", "winograd"])
    frames = x_of(1, 4, 32, 32, 32)
    y = last(frames, weight(3, 3, 3, 32, 64), padding=((1, 1),) * 3, strides=(2, 2, 2))
    assert "winograd" in [n.op.name for n in check(y, frames).main.nodes()]
    x = x_of(var("b", min=1), var("n", min=1), 30, 64)
    check(last(x, w, **TWO), x, ops=["pad", "winograd"])


def test_the_tile_is_that_of_least_cycles():
    """Few results on many channels have few tiles for many weights."""
    chosen = []
    for size, channels in ((56, 128), (28, 256), (14, 512)):
        x = x_of(1, size, size, channels)
        y = last(x, weight(3, 3, channels, channels), **TWO)
        chosen.append(decisions(y, x)[0][0])
        assert decisions(y, x, level=0) == [("no", "fast_math is 0")]
    assert chosen == ["F(4,3)/2", "F(2,3)/2", "F(4x2,3)/2"]


@pytest.mark.parametrize("strides", [(2, 1), (1, 2), (3, 3)])
def test_other_strides_stay_direct(strides):
    x = x_of(1, 28, 28, 64)
    y = last(x, weight(3, 3, 64, 64), strides=strides)
    assert decisions(y, x) == [("no", f"its window moves by {strides[0]} and {strides[1]}")]


# ---- compiled ----------------------------------------------------------------------------------


def on(name, m, **how):
    """The program of a module with one convolution, by an algorithm that is asked for."""
    program = tw.compile(m, schedules=with_algorithm(tw.compile(m, **how), name), **how)
    schedules = [s for k in program.lowered.kernels.values() for s in k.schedule]
    assert algorithms(program) == [name] and any("transformed" in s for s in schedules), schedules
    assert all("as defined" not in s for s in schedules), schedules
    return program


def check_on(name, y, x, tol=5e-6, **how):
    """The program gives what direct convolution gives."""
    value = RNG.standard_normal(x.shape).astype(np.float32)
    _, direct = compiled(y, x, value, 0, **how)
    found = np.asarray(on(name, module(y, x), **how)(value))
    assert error(found, direct.astype(np.float64)) < tol


NAMES = ["F(2,3)/2", "F(4,3)/2", "F(4x2,3)/2", "F(2x4,3)/2"]


@pytest.mark.parametrize(
    ("shape", "outputs", "groups"),
    [((1, 28, 28, 64), 64, 1), ((2, 17, 35, 20), 40, 1), ((1, 14, 14, 256), 256, 1),
     ((3, 40, 40, 32), 32, 1), ((1, 28, 28, 256), 256, 32), ((2, 9, 11, 48), 96, 3)],
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_with_everything_around(shape, outputs, groups, name, threads):
    x = x_of(*shape)
    y = last(relu(x), weight(3, 3, shape[3] // groups, outputs), groups=groups, **TWO)
    side = constant(RNG.standard_normal(y.shape).astype(np.float32), "side")
    y = relu(add(add(y, weight(outputs)), side))
    check_on(name, pad(y, low=(0, 1, 2, 0), high=(0, 0, 1, 0)), x, threads=threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_for_all_sizes(name, threads):
    b, h, w = var("b", min=1), var("h", min=1), var("w", min=1)
    x = x_of(b, h, w, 48)
    y = pad(relu(last(x, weight(3, 3, 48, 80), **TWO)), low=(0, 1, 1, 0), high=(0, 1, 1, 0))
    m = module(y, x)
    tiled, direct = on(name, m, threads=threads), tw.compile(m, fast_math=0, threads=threads)
    for shape in ((1, 1, 1), (2, 3, 4), (1, 8, 12), (3, 17, 6), (1, 30, 33)):
        value = RNG.standard_normal((*shape, 48)).astype(np.float32)
        assert error(np.asarray(tiled(value)), np.asarray(direct(value)).astype(np.float64)) < 5e-6


@pytest.mark.parametrize("target", ["x86-64-avx2", "x86-64-sse4.2"])
def test_other_targets(target):
    x = x_of(1, 20, 20, 24)
    check_on("F(4,3)/2", relu(last(x, weight(3, 3, 24, 40), **TWO)), x, target=target)


@pytest.mark.parametrize(
    ("shape", "pads", "groups"),
    [((1, 64, 40, 40), (1, 1, 1, 1), 1), ((2, 64, 33, 38), (0, 1, 2, 0), 1),
     ((1, 64, 41, 27), (0, 0, 1, 1), 2), ((1, 64, 34, 34), (0, 0, 0, 0), 1)],
)  # fmt: skip
def test_as_onnx_runtime_computes_it(shape, pads, groups):
    onnxruntime = pytest.importorskip("onnxruntime")
    w = RNG.standard_normal((64, shape[1] // groups, 3, 3)).astype(np.float32) / 20
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, strides=(2, 2), group=groups)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [helper.make_tensor("w", 1, w.shape, w.tobytes(), raw=True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    value = RNG.standard_normal(shape).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": value})
    for name in NAMES:
        found = np.asarray(on(name, model)(value))
        assert error(found, expected.astype(np.float64)) < 5e-6
