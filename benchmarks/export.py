"""Torch module -> ONNX file, its inputs and PyTorch's outputs, and a description.

Runs torch's own exporter offline and writes STEM.onnx, STEM.npz (in__NAME, out__NAME in order) and
STEM.json (key, opset, operators, FLOPs, weight bytes). All three are moved into place when they
are complete, the description last, so that neither an interrupted export nor one running beside
this one is ever taken for a finished one.
"""

import inspect
import json
import logging
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx

from benchmarks.flops import count_flops, operators, weight_bytes


def export(net, stem: Path, key: str, opset: int) -> None:
    """Write the three files of one model."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=stem.parent) as folder:
        draft = Path(folder) / stem.name
        _write(net, draft, key, opset)
        for suffix in (".onnx", ".npz", ".json"):
            os.replace(beside(draft, suffix), beside(stem, suffix))


def beside(stem: Path, suffix: str) -> Path:
    """Not `with_suffix`: names may contain dots."""
    return stem.with_name(stem.name + suffix)


def _write(net, stem: Path, key: str, opset: int) -> None:
    import torch

    args = tuple(net.inputs.values())
    with torch.no_grad():
        outputs = net.module(*args)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    data = {f"in__{name}": value.numpy() for name, value in net.inputs.items()}
    data |= {f"out__{name}": value.numpy() for name, value in zip(net.outputs, outputs)}
    np.savez(beside(stem, ".npz"), **data)
    path = beside(stem, ".onnx")
    _write_onnx(net, args, path, opset)
    feeds = {name: value.numpy() for name, value in net.inputs.items()}
    beside(stem, ".json").write_text(json.dumps({"key": key} | describe(path, feeds)))


def _write_onnx(net, args: tuple, path: Path, opset: int) -> None:
    import torch

    dynamic = None
    if net.dynamic:
        named = [net.dynamic.get(name, {}) for name in net.inputs]
        # A shared name is one symbolic dimension for the exporter.
        dims: dict[str, torch.export.Dim] = {}
        dim = lambda d: (
            dims.setdefault(d, torch.export.Dim(d, min=1, max=512)) if isinstance(d, str) else d
        )
        dynamic = tuple({axis: dim(name) for axis, name in axes.items()} for axes in named)
        parameters = inspect.signature(net.module.forward).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            dynamic = (dynamic,)
    # The exporter warns on every call that torchvision is absent, which no model here uses.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.module,
            args,
            path,
            input_names=list(net.inputs),
            output_names=list(net.outputs),
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=dynamic,
            custom_translation_table=net.onnx_functions or None,
            external_data=False,
            verbose=False,
        )


def describe(path: Path, feeds: dict[str, np.ndarray]) -> dict:
    """Opsets, operator counts, FLOPs and weight bytes of a file."""
    model = onnx.load(path)
    return {
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "operators": dict(operators(model).most_common()),
        "flops": count_flops(path, feeds),
        "weight_bytes": weight_bytes(model),
    }


def describe_once(path: Path, feeds: dict[str, np.ndarray], memo: Path) -> dict:
    """The description of a file that is not ours to export, kept in `memo`."""
    if not memo.exists():
        memo.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=memo.parent) as folder:
            draft = Path(folder) / memo.name
            draft.write_text(json.dumps(describe(path, feeds)))
            os.replace(draft, memo)
    return json.loads(memo.read_text())
