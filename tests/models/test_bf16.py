"""Zoo architectures at test size in bf16: no further from f32 than PyTorch's own bf16."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tensorwright as tw
from benchmarks import precision
from benchmarks.peers import tensors
from tests.models.test_zoo import as_tuple, row_of


def torch_answers(name: str):
    torch = pytest.importorskip("torch")
    net, low = row_of(name).net(True), torch.bfloat16
    module = copy.deepcopy(net.module).to(low)
    inputs = [x.to(low) if x.is_floating_point() else x for x in net.inputs.values()]
    with torch.no_grad():
        return [t.float().numpy() for t in tensors(module(*inputs))]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "bert_base", "gpt2_decode", "lstm2"])
def test_error(name: str) -> None:
    artifact = row_of(name).artifact(True)
    program = tw.compile(artifact.onnx, precision="bf16")
    found = as_tuple(program(**artifact.inputs))
    assert all(a.dtype == b.dtype for a, b in zip(found, artifact.torch_outputs))
    ours = precision.mean_error(found, artifact.torch_outputs)
    assert 0 < ours <= precision.mean_error(torch_answers(name), artifact.torch_outputs)


def test_table() -> None:
    def row(peer, seconds, error):
        return precision.Row("lstm2", 1, peer, error, error, [seconds])

    rows = [row(precision.OURS, 0.01, 1e-3), row("openvino-bf16", 0.02, 2e-3)]
    rows.append(precision.Row("lstm2", 1, "torch-bf16", failure="no such type"))
    text = precision.table(rows)
    assert "2.00x (openvino-bf16); error 0.50 of the least" in text and "failed" in text
    assert precision.mean_error([np.ones(4)], [np.ones(5)]) == float("inf")
