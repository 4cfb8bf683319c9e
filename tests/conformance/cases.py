"""The ONNX backend test cases as plain records: a model, its data sets, what it is about.

`group` says which promise a case falls under: "tensors" is the default domain on tensors; the rest
(strings, sequences, optionals, maps, training, preview, ml, random) is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tensorwright.frontend.onnx_tensor import TensorReader

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted", "real")
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
          "RandomUniformLike")  # fmt: skip
SEQUENCES = (
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence",
)  # fmt: skip
# Where the suite's own tolerance is finer than the rounding of its expected values.
TOLERANCES = {
    "test_dft_inverse": (1e-3, 1e-6),  # zeros of an f32 transform, recorded as 2e-7
    "test_dft_inverse_opset19": (1e-3, 1e-6),
    "test_attention_4d_causal_fp16": (2e-3, 1e-7),  # one unit in the last place of f16
}
STRINGS = ("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch")


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    op: str  # what it tests: the operator of the first node (of the body's owner, if expanded)
    group: str
    model: onnx.ModelProto
    data: tuple[tuple[list, list], ...]
    rtol: float
    atol: float


def load_cases(kinds=KINDS) -> list[Case]:
    """Every case of the installed `onnx`, sorted by name."""
    from onnx.backend.test.loader import load_model_tests

    found: list[Case] = []
    for kind in kinds:
        for t in load_model_tests(kind=kind):
            case = _case(kind, t)
            if case is not None:
                found.append(case)
    return sorted(found, key=lambda c: c.name)


def _case(kind: str, t) -> Case | None:
    model = t.model
    if model is None and kind == "real":
        return _light(t)
    if model is None:
        folder = Path(t.model_dir) if t.model_dir else None
        path = folder / "model.onnx" if folder else None
        if path is None or not path.exists():
            return None
        model = onnx.load(path)
        data = tuple(_read_sets(folder, model))
    else:
        data = tuple((_arrays(i), _arrays(o)) for i, o in t.data_sets or ())
    name = t.name.removesuffix("_cpu")
    rtol, atol = TOLERANCES.get(name.removesuffix("_expanded"), (t.rtol, t.atol))
    return Case(name, kind, subject(model, name), group(model), model, data, rtol, atol)


def _light(t) -> Case | None:
    """A convolutional network with synthetic weights, which the suite feeds a made-up image."""
    from onnx.backend.test.runner import Runner

    path = Path(onnx.__file__).parent.parent / (t.url or "")
    if not path.is_file():
        return None
    model = onnx.load(path)
    given = {i.name for i in model.graph.initializer}
    feeds = [
        Runner.generate_dummy_data(v, seed=0, name=t.model_name, random=False)
        for v in model.graph.input
        if v.name not in given
    ]
    outputs = [
        numpy_helper.to_array(TensorProto.FromString(p.read_bytes()))
        for p in sorted(path.parent.glob(f"{path.stem}_output_*.pb"), key=_number)
    ]
    data = ((feeds, outputs),)
    return Case(t.name, "real", "(network)", "tensors", model, data, t.rtol, t.atol)


def _arrays(values) -> list:
    """Tensors as arrays; everything else as it is."""
    return [
        TensorReader(None).read(v) if isinstance(v, TensorProto) else v for v in values
    ]  # fmt: skip


def _read_sets(folder: Path, model) -> Iterator[tuple[list, list]]:
    for npz in sorted(folder.glob("test_data_*.npz")):
        arrays = np.load(npz, encoding="bytes")
        yield list(arrays["inputs"]), list(arrays["outputs"])
    for d in sorted(folder.glob("test_data_set_*")):
        given = [v.type for v in model.graph.input]
        made = [v.type for v in model.graph.output]
        yield _read_values(d, "input", given), _read_values(d, "output", made)


def _read_values(folder: Path, stem: str, types) -> list:
    values = []
    for k, path in enumerate(sorted(folder.glob(f"{stem}_*.pb"), key=_number)):
        kind = types[k].WhichOneof("value") if k < len(types) else "tensor_type"
        raw = path.read_bytes()
        if kind == "sequence_type":
            values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(raw)))
        elif kind == "optional_type":
            values.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(raw)))
        else:
            values.append(numpy_helper.to_array(TensorProto.FromString(raw)))
    return values


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def subject(model, name: str) -> str:
    """The operator that a case is about."""
    nodes = model.graph.node
    if len(nodes) == 1:
        return nodes[0].op_type
    if "_expanded" in name:
        schemas = {s.lower(): s for s in _operator_names()}
        words = name.removeprefix("test_").split("_expanded")[0].split("_")
        for end in range(len(words), 0, -1):
            for start in range(end):
                found = schemas.get("".join(words[start:end]))
                if found and start == 0:
                    return found
        return EXPANDED.get(words[0], words[0])
    if len(nodes) <= 4:
        for n in nodes:
            if n.op_type not in ("Constant", "Identity"):
                return n.op_type
    return "(model)"


EXPANDED = {
    "nllloss": "NegativeLogLikelihoodLoss", "sce": "SoftmaxCrossEntropyLoss",
    "softmax": "Softmax", "logsoftmax": "LogSoftmax", "hardsigmoid": "HardSigmoid",
    "leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu", "reduce": "Reduce",
    "rms": "RMSNormalization", "layer": "LayerNormalization", "group": "GroupNormalization",
    "greater": "GreaterOrEqual", "less": "LessOrEqual", "center": "CenterCropPad",
    "mvn": "MeanVarianceNormalization", "linear": "LinearAttention",
    "causal": "CausalConvWithState",
}  # fmt: skip


def _operator_names() -> set[str]:
    return {s.name for s in onnx.defs.get_all_schemas()}


def group(model) -> str:
    """Under which promise the case falls."""
    domains = {o.domain for o in model.opset_import}
    if "ai.onnx.preview.training" in domains:
        return "training"
    if _drops(model):
        return "random"
    if any(d.startswith("ai.onnx.preview") for d in domains):
        return "preview"
    nodes = list(_all_nodes(model.graph))
    if any(n.domain == "ai.onnx.ml" for n in nodes):
        return "ml"
    types = [v.type for v in (*model.graph.input, *model.graph.output)]
    kinds = {t.WhichOneof("value") for t in types}
    operators = {n.op_type for n in nodes}
    if "optional_type" in kinds or operators & {"Optional", "OptionalHasElement",
                                                "OptionalGetElement"}:  # fmt: skip
        return "optionals"
    if "sequence_type" in kinds or operators & set(SEQUENCES):
        return "sequences"
    if "map_type" in kinds:
        return "maps"
    if operators & set(STRINGS) or any(
        t.tensor_type.elem_type == TensorProto.STRING for t in types
    ):
        return "strings"
    if operators & set(RANDOM):
        return "random"
    return "images" if "ImageDecoder" in operators else "tensors"


def _drops(model) -> bool:
    """Whether a dropout of the model may be asked to drop at random."""
    return any(n.op_type == "Dropout" and len(n.input) > 2 and n.input[2]
               for n in model.graph.node)  # fmt: skip


def _all_nodes(graph) -> Iterator:
    for n in graph.node:
        yield n
        for a in n.attribute:
            if a.HasField("g"):
                yield from _all_nodes(a.g)
