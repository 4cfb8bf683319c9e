"""Trained models on disk: where they are, what they eat, what they answered.

The folder is TW_SHARED_DATA or ../shared/data beside the repository; without it there are no such
models and `titles` is empty. Inputs are the real samples stored beside the models in golden/*.npz
(one sample at a time); streaming models are fed one step of their recorded sequence.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
Feeds = dict[str, np.ndarray]


def folder() -> Path | None:
    """The data folder, or None where it does not exist."""
    named = os.environ.get("TW_SHARED_DATA")
    candidates = [Path(named)] if named else [ROOT.parent / "shared" / "data"]
    return next((p.resolve() for p in candidates if (p / "golden").is_dir()), None)


def golden(name: str) -> Feeds:
    """The recorded arrays of one model."""
    data = np.load(require() / "golden" / f"{name}.npz")
    return {key: data[key] for key in data.files}


def require() -> Path:
    found = folder()
    if found is None:
        raise FileNotFoundError("trained models: set TW_SHARED_DATA to their folder")
    return found


def sample(name: str, index: int = 0) -> Feeds:
    """One recorded sample as feeds: every array's row `index`, with a batch dimension of 1."""
    arrays = golden(name)
    return {k[4:]: v[index : index + 1] for k, v in arrays.items() if k.startswith("in__")}


def _dtln(stage: str, signal: str) -> Callable[[], Feeds]:
    state = np.zeros((1, 2, 128, 2), np.float32)
    first = 2 if stage == "1" else 4
    return lambda: {
        f"input_{first}": golden("dtln_sequence")[signal][:1],
        f"input_{first + 1}": state,
    }


def silero_feeds(chunk: np.ndarray, state: np.ndarray) -> Feeds:
    return {"input": chunk, "state": state, "sr": np.array(16_000, np.int64)}


def _silero() -> Feeds:
    return silero_feeds(golden("silero_vad_sequence")["chunks"][:1], np.zeros((2, 1, 128), "f4"))


def stories_feeds(tokens: np.ndarray, past_k: np.ndarray, past_v: np.ndarray) -> Feeds:
    return {"tokens": tokens, "past_k": past_k, "past_v": past_v}


def _stories(decode: bool) -> Callable[[], Feeds]:
    def feeds() -> Feeds:
        arrays = golden("stories260K_kv")
        past = 47 if decode else 0
        keys, values = (arrays[f"present_{kind}"][:, :, :, :past] for kind in "kv")
        return stories_feeds(arrays["tokens"][:, past:], keys, values)

    return feeds


@dataclass(frozen=True)
class Trained:
    """A file, the golden record of its inputs (or a function giving feeds), and its kind."""

    name: str
    file: str
    golden: str | Callable[[], Feeds]
    quantized: bool = False

    def feeds(self) -> Feeds:
        return self.golden() if callable(self.golden) else sample(self.golden)


def _kws(name: str, record: str, quantized: bool = False) -> Trained:
    return Trained(name, f"mlperf_tiny/{name}.onnx", record, quantized)


TABLE = (
    _kws("kws_f32", "kws_f32"),
    _kws("kws_true_f32", "kws_savedmodel_f32"),
    _kws("resnet8_f32", "resnet8_f32"),
    _kws("vww_96_f32", "vww_96_f32"),
    _kws("ad01_f32", "ad01_f32"),
    Trained("hello_world_f32", "tflm/hello_world_f32.onnx", "hello_world_f32"),
    Trained("mnist-8", "vision/mnist-8.onnx", "mnist-8"),
    Trained("resnet20_cifar10", "vision/resnet20_cifar10.onnx", "resnet20_cifar10"),
    Trained(
        "mobilenet_v1_0.25_128_f32",
        "vision/mobilenet_v1_0.25_128_f32.onnx",
        "mobilenet_v1_0.25_128_f32",
    ),
    Trained(
        "mobilenet_v2_1.0_224_f32",
        "vision/mobilenet_v2_1.0_224_f32.onnx",
        "mobilenet_v2_1.0_224_f32",
    ),
    Trained("ultraface_rfb320", "vision/ultraface_rfb320.onnx", "ultraface_rfb320"),
    Trained("FastestDet", "vision/FastestDet.onnx", "FastestDet"),
    Trained("silero_vad", "audio/silero_vad_16k_op15.onnx", _silero),
    Trained("dtln_1", "audio/dtln_1.onnx", _dtln("1", "mag")),
    Trained("dtln_2", "audio/dtln_2.onnx", _dtln("2", "frame")),
    Trained("mlkws_GRU_S", "audio/mlkws_GRU_S.onnx", "mlkws_GRU_S"),
    Trained("mlkws_CRNN_S", "audio/mlkws_CRNN_S.onnx", "mlkws_CRNN_S"),
    Trained("textgenrnn", "language/textgenrnn.onnx", "textgenrnn"),
    Trained("stories260K_prefill", "language/stories260K_kv.onnx", _stories(False)),
    Trained("stories260K_decode", "language/stories260K_kv.onnx", _stories(True)),
    _kws("kws_int8", "kws_int8", True),
    _kws("resnet8_int8", "resnet8_int8", True),
    _kws("vww_96_int8", "vww_96_int8", True),
    _kws("ad01_int8", "ad01_int8", True),
    Trained("hello_world_int8", "tflm/hello_world_int8.onnx", "hello_world_int8", True),
    Trained(
        "micro_speech_quantized",
        "tflm/micro_speech_quantized.onnx",
        "micro_speech_quantized",
        True,
    ),
    Trained("person_detect", "tflm/person_detect.onnx", "person_detect", True),
    Trained(
        "mobilenet_v1_0.25_128_quant",
        "vision/mobilenet_v1_0.25_128_quant.onnx",
        "mobilenet_v1_0.25_128_quant",
        True,
    ),
    Trained(
        "mobilenet_v2_1.0_224_quant",
        "vision/mobilenet_v2_1.0_224_quant.onnx",
        "mobilenet_v2_1.0_224_quant",
        True,
    ),
    Trained(
        "deeplabv3_mnv2_dm05_quant",
        "vision/deeplabv3_mnv2_dm05_quant.onnx",
        "deeplabv3_mnv2_dm05_pascal_quant",
        True,
    ),
    Trained(
        "shufflenet-v2-12-int8", "vision/shufflenet-v2-12-int8.onnx", "shufflenet-v2-12-int8", True
    ),
)


def find(name: str) -> Trained:
    return next(row for row in TABLE if row.name == name)


def titles() -> list[tuple[str, str]]:
    """Name and title of every float model whose file is there."""
    found = folder()
    if found is None:
        return []
    rows = (r for r in TABLE if not r.quantized and (found / r.file).exists())
    return [(r.name, f"{r.name}, trained") for r in rows]


def model(name: str) -> tuple[Path, Feeds]:
    row = find(name)
    return require() / row.file, row.feeds()
