"""`compile`: the one entry, from any model to a callable.

    program = tw.compile("model.onnx");  y = program(x)
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from tensorwright.base import config
from tensorwright.base.errors import FrontendError
from tensorwright.driver.build import build_program
from tensorwright.driver.objects import ObjectCache, cache_folder
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.driver.textfile import SUFFIXES, read_text
from tensorwright.ir.module import Module
from tensorwright.runtime.cpu import default_threads
from tensorwright.runtime.program import Program
from tensorwright.target.host import find
from tensorwright.target.target import Target


def compile(
    model, example_inputs=None, *, target="host", threads: int | None = None,
    precision: str = "model", shapes=None, verify: bool = False, observe=None,
) -> Program:  # fmt: skip
    """Compile a model into a native program.

    model: path to an .onnx file or ONNX bytes, onnx.ModelProto, torch.nn.Module,
        torch.export.ExportedProgram, @tw.function, a Module, or the path of its text form.
    example_inputs: what torch modules and Python functions are traced with.
    target: "host" or a name from `tw targets`. threads: default: all CPUs this process may use.
    precision: "model" keeps the model's own types.
    shapes: {"x": "n[1..64], 3, h{224,320}, w=h"} or what torch.export takes.
    verify: run the verifier after every pass, and prove the memory plan.
    observe: called with "import" and the name of each pass and the module after it, then with
        "code" and (objects compiled so far, how many there are).
    Raises FrontendError (model not understood) or CompileError (cannot be compiled so).
    """
    machine = find(target)
    module, name = import_model(model, example_inputs, shapes)
    if observe is not None:
        observe("import", module)
    with config.options(verify=max(int(verify), config.get("verify"))):
        lowered = run_pipeline(module, machine, verify, observe)
        program = build_native(lowered, machine, name, threads, observe)
    program.source, program.module = model, module
    return program


def build_native(lowered: Module, machine: Target, name: str, threads=None, observe=None) -> Program:
    """The program of a module that went through the pipeline."""
    cache = ObjectCache(cache_folder())
    progress = None if observe is None else lambda done, total: observe("code", (done, total))
    program, built = build_program(
        lowered, machine, name, threads or 0,
        lambda texts: cache.objects(texts, machine, progress), {},
    )  # fmt: skip
    program.threads = threads or default_threads()
    program.target, program.lowered, program.built = machine, lowered, built
    return program


def cache_folder() -> Path | None:
    """Where objects are kept between processes; None if caching is off."""
    chosen = config.get("cache")
    if chosen == "off":
        return None
    return Path(chosen or platformdirs.user_cache_dir("tensorwright")) / "objects"


def import_model(model, example_inputs, shapes) -> tuple[Module, str]:
    """(module, its name) of anything that `compile` takes."""
    if isinstance(model, Module):
        return model, model.entry
    kind = type(model).__module__.split(".")[0]
    if isinstance(model, (str, os.PathLike)) and str(model).endswith(SUFFIXES):
        return read_text(Path(model)), Path(model).name.split(".")[0]
    if isinstance(model, (str, os.PathLike)) and str(model).endswith((".onnx", ".ort", ".pb")):
        from tensorwright.frontend.onnx import import_onnx

        name = os.path.splitext(os.path.basename(model))[0]
        return import_onnx(model, shapes), name
    if kind == "onnx":
        from tensorwright.frontend.onnx import import_onnx

        return import_onnx(model, shapes), model.graph.name or "model"
    raise FrontendError(f"cannot compile a {type(model).__name__}")
