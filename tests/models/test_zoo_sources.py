"""The zoo itself: published sizes, correct exports, sane activations, exact FLOP counts."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import zoo
from benchmarks.agreement import relative_error
from benchmarks.flops import count_flops, operators, weight_bytes

PUBLISHED_GFLOP = {"resnet50": 8.18, "mobilenet_v2": 0.601, "vit_b16": 35.1, "bert_base": 22.3}


def test_published_parameter_counts() -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    from benchmarks.nets.vision import PARAMETERS

    for name, published in PARAMETERS.items():
        module = zoo.find(name).net().module
        assert sum(p.numel() for p in module.parameters()) == published, name


def test_names_are_unique() -> None:
    names = [row.name for row in zoo.rows()]
    assert len(names) == len(set(names))


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(KeyError, match="resnet50"):
        zoo.find("resnet51")


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "lstm2", "llama_decode"])
def test_export_is_right_and_sane(name: str) -> None:
    for package in ("torch", "onnxscript", "transformers"):
        pytest.importorskip(package, exc_type=ImportError)
    artifact = zoo.find(name).artifact(small=True)
    outputs = run_reference(artifact.onnx, artifact.inputs)
    assert relative_error(outputs, artifact.torch_outputs) < 1e-4
    assert 1e-2 < np.abs(outputs[0]).max() < 100


@pytest.mark.full
@pytest.mark.parametrize("name", PUBLISHED_GFLOP)
def test_published_flops(name: str) -> None:
    found = zoo.find(name).artifact().meta["flops"] / 1e9
    assert found == pytest.approx(PUBLISHED_GFLOP[name], rel=0.01)


def run_reference(path, feeds) -> list[np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path).run(None, feeds)


def looped_model() -> onnx.ModelProto:
    """Gather from a table, convolve, then three times a 4x4 product inside a Loop."""
    node, info = helper.make_node, helper.make_tensor_value_info
    value = lambda name, array: numpy_helper.from_array(np.array(array), name)
    body = helper.make_graph(
        [
            node("MatMul", ["state", "square"], ["next"]),
            node("Identity", ["go"], ["again"]),
        ],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, [2, 4]),
        ],
        [info("again", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, [2, 4])],
    )
    graph = helper.make_graph(
        [
            node("Gather", ["table", "rows"], ["picked"]),
            node("Conv", ["image", "kernel"], ["map"]),
            node("Loop", ["trips", "", "picked"], ["out"], body=body),
        ],
        "looped",
        [info("rows", TensorProto.INT64, [2]), info("image", TensorProto.FLOAT, [1, 2, 5, 5])],
        [info("out", TensorProto.FLOAT, [2, 4]), info("map", TensorProto.FLOAT, [1, 4, 3, 3])],
        [
            value("table", np.ones((100, 4), np.float32)),
            value("square", np.eye(4, dtype=np.float32)),
            value("kernel", np.ones((4, 2, 3, 3), np.float32)),
            value("trips", 3),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_costs_of_a_known_graph(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    model = looped_model()
    path = tmp_path / "looped.onnx"
    onnx.save(model, path)
    feeds = {"rows": np.array([1, 2]), "image": np.ones((1, 2, 5, 5), np.float32)}
    convolution, product = 2 * (4 * 3 * 3) * (2 * 3 * 3), 2 * 2 * 4 * 4
    assert count_flops(path, feeds) == convolution + 3 * product
    assert weight_bytes(model) == 4 * (4 * 4 + 4 * 2 * 3 * 3) + 8
    assert operators(model)["MatMul"] == 1
