"""Loops whose state changes its size, from ONNX to native code."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorwright as tw


def growing_loop() -> onnx.ModelProto:
    """y = x followed, `trip` times, by `size` ones."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Expand", ["one", "size"], ["piece"]),
            helper.make_node("Concat", ["before", "piece"], ["after"], axis=0),
            helper.make_node("Identity", ["go"], ["again"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [None]),
        ],
        [value("again", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [None])],
        [helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["trip", "", "x"], ["y"], body=body)],
        "growing",
        [
            value("trip", TensorProto.INT64, []),
            value("x", TensorProto.FLOAT, ["n"]),
            value("size", TensorProto.INT64, [1]),
        ],
        [value("y", TensorProto.FLOAT, [None])],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


@pytest.mark.parametrize(("trip", "size"), [(0, 1), (1, 3), (4, 2)])
def test_state_grows_by_a_size_known_in_the_loop(trip, size):
    program = tw.compile(growing_loop())
    x = np.arange(2, dtype=np.float32)
    for _ in range(3):  # memory of one call is not taken for that of another
        y = program(np.array(trip), x, np.array([size]))
        np.testing.assert_array_equal(y, np.append(x, np.ones(trip * size, np.float32)))
