"""Transformed tiles of dilated windows, each of which sees an image between others.

Windows that are not dilated: `test_winograd.py`.
"""

import numpy as np
import pytest
from onnx import helper, numpy_helper

import tensorwright as tw
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ops.activations import relu
from tensorwright.ops.elementwise import add
from tensorwright.ops.movement import pad
from tests.passes.equivalence import assert_equal_results, module, x_of
from tests.passes.test_winograd import RNG, check, check_compiled, decisions, error, last, weight


def spread(x, w, *dilation, **attrs):
    """A convolution whose results are as many as what it sees."""
    around = tuple((d * (k // 2), d * (k // 2)) for d, k in zip(dilation, w.shape))
    return last(x, w, **{"padding": around, "dilation": dilation} | attrs)


@pytest.mark.parametrize("size", [(16, 24), (17, 13), (32, 9)])
@pytest.mark.parametrize("dilation", [(2, 2), (4, 4), (1, 3)])
def test_windows_become_tiles(size, dilation):
    x = x_of(2, *size, 64)
    check(spread(x, weight(3, 3, 64, 48), *dilation), x, ops=["pad", "winograd"])


@pytest.mark.parametrize(("window", "dilation"), [((5, 5), (2, 2)), ((1, 3), (4, 2)),
                                                  ((7, 1), (2, 1))])  # fmt: skip
def test_other_windows_become_tiles(window, dilation):
    x = x_of(1, 20, 22, 64)
    check(spread(x, weight(*window, 64, 64), *dilation), x, ops=["pad", "winograd"])


def test_sequences_and_frames():
    x = x_of(1, 90, 64)
    check(spread(x, weight(3, 64, 128), 4), x, ops=["pad", "winograd"])
    x = x_of(1, 4, 16, 16, 32)
    after = check(spread(x, weight(3, 3, 3, 32, 64), 2, 2, 2), x).main
    assert "winograd" in [n.op.name for n in after.nodes()]


def test_tiles_are_those_of_all_images():
    """Few elements of each image fill no tile, and products with padding are left out."""
    chosen = []
    for dilation in (1, 4, 24):
        x = x_of(1, 32, 32, 128)
        chosen.append(decisions(spread(x, weight(3, 3, 128, 128), dilation, dilation), x)[0][0])
    assert chosen == ["F(4,3)", "F(4,3)", "no"]


@pytest.mark.parametrize(
    ("shape", "outputs", "groups", "dilation"),
    [((1, 32, 32, 64), 64, 1, (2, 2)), ((2, 17, 35, 20), 40, 1, (3, 2)),
     ((1, 16, 16, 128), 96, 8, (2, 2)), ((3, 40, 24, 32), 32, 1, (4, 1))],
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_with_everything_around(shape, outputs, groups, dilation, threads):
    x = x_of(*shape)
    y = spread(relu(x), weight(3, 3, shape[3] // groups, outputs), *dilation, groups=groups)
    side = constant(RNG.standard_normal(y.shape).astype(np.float32), "side")
    y = relu(add(add(y, weight(outputs)), side))
    value = RNG.standard_normal(shape).astype(np.float32)
    check_compiled(pad(y, low=(0, 1, 2, 0), high=(0, 0, 1, 0)), x, value, 1, threads)


def test_compiled_for_all_sizes():
    x = x_of(var("b", min=1), var("n", min=1), 20, 32)
    m = module(relu(spread(x, weight(3, 3, 32, 32), 2, 2)), x)
    program, direct = tw.compile(m), tw.compile(m, fast_math=0)
    assert any("transformed" in s for k in program.lowered.kernels.values() for s in k.schedule)
    for shape in ((1, 1, 20, 32), (2, 16, 20, 32), (1, 37, 20, 32)):
        value = RNG.standard_normal(shape).astype(np.float32)
        exact = np.asarray(direct(value)).astype(np.float64)
        assert error(np.asarray(program(value)), exact) < 5e-6


def test_equal_on_the_reference_interpreter():
    x = x_of(1, 9, 14, 16)
    y = spread(x, weight(3, 3, 16, 16), 2, 3)
    assert_equal_results(module(y, x), module(y, x))


@pytest.mark.parametrize("dilation", [2, 3])
def test_as_onnx_runtime_computes_it(dilation):
    ort = pytest.importorskip("onnxruntime")
    w = (RNG.standard_normal((64, 64, 3, 3)) / 24).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[dilation] * 4,
                            dilations=[dilation] * 2)  # fmt: skip
    value = RNG.standard_normal((1, 64, 21, 18)).astype(np.float32)
    g = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, value.shape)],
        [helper.make_tensor_value_info("y", 1, value.shape)], [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    m = helper.make_model(g, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": value})
    program = tw.compile(m)
    assert any("transformed" in s for k in program.lowered.kernels.values() for s in k.schedule)
    assert error(np.asarray(program(value)), expected.astype(np.float64)) < 5e-6
