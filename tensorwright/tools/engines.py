"""Other engines that run the same model: to compare numbers and time with.

    engine = open_engine("onnxruntime", "model.onnx", threads=2);  engine(feeds) -> [outputs]

Telemetry of an engine is switched off before it is imported.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tensorwright.base.errors import CompileError, FrontendError, TensorwrightError
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module

Feeds = Mapping[str, np.ndarray]
Engine = Callable[[Feeds], list[np.ndarray]]


def open_engine(
    name: str, source, module: Module | None, threads: int = 1, outputs: Sequence[str] = ()
) -> Engine:
    """The engine of that name, ready to run. source: what was compiled; `outputs`: these values
    instead of the model's outputs, where the engine knows them. What it cannot load or run is a
    CompileError that says so."""
    makers = {"onnxruntime": onnxruntime_engine, "ort": onnxruntime_engine,
              "openvino": openvino_engine, "torch": torch_engine}  # fmt: skip
    if name == "reference":
        return reference_engine(module)
    if name not in makers:
        raise CompileError(f"there is no engine '{name}'", help=f"engines: {', '.join(ENGINES)}")
    with refusals_of(name):
        run = makers[name](source, threads, outputs)

    def engine(feeds: Feeds) -> list[np.ndarray]:
        with refusals_of(name):
            return run(feeds)

    return engine


@contextmanager
def refusals_of(name: str) -> Iterator[None]:
    """An engine's own exceptions as errors of ours."""
    try:
        yield
    except TensorwrightError:
        raise
    except Exception as e:
        why = textwrap.shorten(str(e), 300)
        raise CompileError(f"{name} cannot run this model: {type(e).__name__}: {why}") from e


ENGINES = ("onnxruntime", "openvino", "torch", "reference")


def reference_engine(module: Module | None) -> Engine:
    """Our own interpreter, in the model's types."""
    if module is None:
        raise FrontendError("the reference needs the model, which a loaded program does not hold")
    return lambda feeds: run_module(module, [feeds[p.name] for p in module.main.params])


def onnx_model(source):
    """The ModelProto of a path, bytes or ModelProto."""
    import onnx

    if isinstance(source, (str, os.PathLike)) and Path(source).suffix in (".onnx", ".pb"):
        return onnx.load(source)
    if isinstance(source, bytes):
        return onnx.load_from_string(source)
    if isinstance(source, onnx.ModelProto):
        return source
    raise FrontendError(
        f"this engine runs ONNX models, the program was compiled from {describe(source)}",
        help="compare with `reference`, or with `torch` if the model is a torch module",
    )


def describe(source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return "a file" if source is None else f"a {type(source).__name__}"


def missing(package: str) -> CompileError:
    return CompileError(f"{package} is not installed", help=f"pip install {package}")


def onnxruntime_engine(source, threads: int, outputs: Sequence[str]) -> Engine:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as ort
    except ImportError:
        raise missing("onnxruntime") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if isinstance(source, (str, os.PathLike)) and not outputs:
        onnx_model(source)  # the same error for what is no ONNX model
        session = ort.InferenceSession(os.fspath(source), options, providers=providers)
    else:
        model = with_outputs(onnx_model(source), outputs)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    wanted = list(outputs) or None
    return lambda feeds: session.run(wanted, dict(feeds))


def with_outputs(model, names: Sequence[str]):
    """The model with the named values as further outputs."""
    import onnx

    if not names:
        return model
    new = onnx.ModelProto()
    new.CopyFrom(model)
    present = {o.name for o in new.graph.output}
    new.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return new


def onnx_values(source) -> set[str]:
    """Names of all values that the nodes of the model's graph compute."""
    return {name for node in onnx_model(source).graph.node for name in node.output if name}


def openvino_engine(source, threads: int, outputs: Sequence[str]) -> Engine:
    try:
        import openvino as ov
    except ImportError:
        raise missing("openvino") from None
    core = ov.Core()
    model = core.read_model(with_outputs(onnx_model(source), outputs).SerializeToString(), b"")
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda feeds: [np.asarray(v) for v in compiled(dict(feeds)).values()]


def torch_engine(source, threads: int, outputs: Sequence[str]) -> Engine:
    """A torch.nn.Module or ExportedProgram, eager."""
    try:
        import torch
    except ImportError:
        raise missing("torch") from None
    if isinstance(source, torch.export.ExportedProgram):
        source = source.module()
    if not callable(source):
        raise FrontendError(
            f"torch can only run torch modules, the program was compiled from {describe(source)}",
            help="compare with `onnxruntime` or `reference`",
        )
    if outputs:
        raise CompileError("layers of torch modules have no names to match by",
                           help="compare layers with `reference`")  # fmt: skip

    def run(feeds: Feeds) -> list[np.ndarray]:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found = source(*(torch.from_numpy(np.array(v)) for v in feeds.values()))
        return [t.numpy() for t in torch.utils._pytree.tree_leaves(found)]

    return run
