"""Small ONNX models for the tests of errors, made from nodes and declared values.

model([node("Relu", ["x"], ["y"])], [value("x", [4])], [value("y", [4])])
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

node = helper.make_node
F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, shape, kind: int = F32):
    return helper.make_tensor_value_info(name, kind, shape)


def array(name: str, values, kind: str = "int64"):
    return numpy_helper.from_array(np.array(values, kind), name)


def model(nodes, inputs, outputs, arrays=(), opset: int = 17) -> ModelProto:
    g = helper.make_graph(nodes, "g", inputs, outputs, list(arrays))
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", opset)])


def unary(op: str = "Relu", shape=(4,)) -> ModelProto:
    return model([node(op, ["x"], ["y"])], [value("x", shape)], [value("y", None)])


def chain(op: str, count: int, operands: int = 1) -> ModelProto:
    """x -> op -> op ... -> y."""
    names = ["x", *(f"v{k}" for k in range(1, count)), "y"]
    nodes = [node(op, [a] * operands, [b]) for a, b in pairwise(names)]
    return model(nodes, [value("x", [4])], [value("y", [4])])


def network(width: int = 64, layers: int = 3, rows=128) -> ModelProto:
    """Layers that multiply by the identity, so that the result is the input if that is positive."""
    nodes = []
    for k in range(layers):
        nodes.append(node("MatMul", [f"v{k}", "w"], [f"m{k}"]))
        nodes.append(node("Relu", [f"m{k}"], [f"v{k + 1}"]))
    return model(nodes, [value("v0", [rows, width])], [value(f"v{layers}", None)],
                 [array("w", np.eye(width), "float32")])  # fmt: skip


def nested(depth: int) -> ModelProto:
    """`depth` branches inside each other."""
    body = helper.make_graph([node("Relu", ["x"], ["y"])], "b", [], [value("y", [4])])
    for _ in range(depth):
        other = helper.make_graph([node("Neg", ["x"], ["e"])], "e", [], [value("e", [4])])
        branch = node("If", ["c"], ["y"], then_branch=body, else_branch=other)
        body = helper.make_graph([branch], "b", [], [value("y", [4])])
    body.input.extend([value("c", [], BOOL), value("x", [4])])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])


def dynamic_size(op: str = "Expand") -> ModelProto:
    """A result whose size is a value of the input `s`."""
    inputs = ([value("x", [1])] if op == "Expand" else []) + [value("s", [1], I64)]
    return model([node(op, [v.name for v in inputs], ["y"])], inputs, [value("y", ["k"])])
