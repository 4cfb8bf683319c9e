"""What a model costs: FLOPs, streamed weight bytes and its operators.

FLOPs (2 per multiply-add of contractions, nothing else) are read off one profiled run in ONNX
Runtime with its optimiser off, so that loops and branches count as often as they really execute.
Weight bytes leave out tables that are only gathered from: a step reads a few of their rows.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx

Shapes = list[tuple[int, ...]]


def _matmul(ins: Shapes, outs: Shapes) -> int:
    return 2 * prod(outs[0]) * ins[0][-1]


def _gemm(ins: Shapes, outs: Shapes) -> int:
    rows = outs[0][0]
    return 2 * prod(outs[0]) * (prod(ins[0]) // rows)


def _conv(ins: Shapes, outs: Shapes) -> int:
    return 2 * prod(outs[0]) * prod(ins[1][1:])


def _qlinear_conv(ins: Shapes, outs: Shapes) -> int:
    return 2 * prod(outs[0]) * prod(ins[3][1:])


def _conv_transpose(ins: Shapes, outs: Shapes) -> int:
    return 2 * prod(ins[0]) * prod(ins[1][1:])


def _recurrent(ins: Shapes, outs: Shapes) -> int:
    steps, batch = ins[0][:2]
    return 2 * steps * batch * (prod(ins[1]) + prod(ins[2]))


COST = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}


def count_flops(path: Path, feeds: dict[str, np.ndarray]) -> int:
    """FLOPs of one call with these inputs."""
    with tempfile.TemporaryDirectory() as folder:
        return sum(_node_flops(event) for event in _profile(path, feeds, folder))


def _profile(path: Path, feeds: dict[str, np.ndarray], folder: str) -> list[dict]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = os.path.join(folder, "run")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    # A pre-packed weight vanishes from the profile, and its shape with it.
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    return json.loads(Path(session.end_profiling()).read_text())


def _node_flops(event: dict) -> int:
    args = event.get("args", {})
    cost = COST.get(args.get("op_name", ""))
    if cost is None or not event["name"].endswith("_kernel_time"):
        return 0
    return cost(_shapes(args["input_type_shape"]), _shapes(args["output_type_shape"]))


def _shapes(typed: list[dict]) -> Shapes:
    return [tuple(dims) for entry in typed for dims in entry.values()]


def walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of nested graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from walk(inner)


def operators(model: onnx.ModelProto) -> Counter[str]:
    nodes = [n for g in (model.graph, *model.functions) for n in walk(g)]
    return Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in nodes)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the constants that a call reads in full."""
    gathered, read = set(), set()
    for node in walk(model.graph):
        names = list(node.input)
        if node.op_type == "Gather":
            gathered.add(names.pop(0))
        read.update(names)
    skip = gathered - read
    sizes = {t.name: _tensor_bytes(t) for t in model.graph.initializer}
    constants = sum(
        _tensor_bytes(a.t)
        for n in walk(model.graph)
        if n.op_type == "Constant" and n.output[0] not in skip
        for a in n.attribute
        if a.name == "value"
    )
    return constants + sum(size for name, size in sizes.items() if name not in skip)


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return prod(tensor.dims) * dtype.itemsize
