"""`compile`: the one entry, from any model to a callable.

program = tw.compile("model.onnx");  y = program(x)
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tensorwright.base import config
from tensorwright.base.errors import CompileError, FrontendError, RunError
from tensorwright.driver.bound import BoundProgram
from tensorwright.driver.build import Coder, build_program
from tensorwright.driver.jobs import Jobs
from tensorwright.driver.kernels import KnownKernels
from tensorwright.driver.objects import ObjectCache, cache_folder
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.driver.programs import KnownPrograms, content
from tensorwright.driver.textfile import SUFFIXES, read_text
from tensorwright.ir.module import Module
from tensorwright.ir.simplify import forgetting
from tensorwright.passes.precision import PRECISIONS
from tensorwright.passes.schedule_kernels import schedule_kernels
from tensorwright.passes.winograd import FAST_MATH
from tensorwright.runtime.program import Program, thread_count
from tensorwright.schedule.records import Schedules
from tensorwright.target.host import find
from tensorwright.target.target import Target


def compile(
    model, example_inputs=None, *, target="host", threads: int | None = None,
    precision: str = "model", shapes=None, verify: bool = False, observe=None, fast_math=None,
    schedules=None,
) -> Program:  # fmt: skip
    """Compile a model into a native program.

    model: path to an .onnx file or ONNX bytes, onnx.ModelProto, torch.nn.Module,
        torch.export.ExportedProgram, @tw.function, a Module, or the path of its text form; also a
        tw.nn module, or a dict of functions, the entries of one program by name, whose
        example_inputs and shapes are then dicts by entry.
    example_inputs: what torch modules and Python functions are traced with.
    target: "host" or a name from `tw targets`.
    threads: that run the program and that its loops are split for. Default: TW_THREADS, else all
        CPUs this process may use; loops of a target by name are then split as it says.
    precision: "model" keeps the model's types; "bf16" multiplies what is f32 in bf16, adds in f32.
    shapes: {"x": "n[1..64], 3, h{224,320}, w=h"} or what torch.export takes.
    fast_math: rounding errors accepted for speed. 0: those of the operators' definitions; 1
        (default, or TW_FAST_MATH): 1e-6 of a layer's results; 2: 1e-5; see docs/floors/passes.md.
    schedules: the choices that kernels are scheduled with instead of the default ones: a file that
        `tw explain --write-schedules` wrote, or what `program.schedules()` gave. Those of kernels
        that the program does not have are told by `program.explain()`; it is an error if all are.
    verify: run the verifier after every pass, and prove the memory plan.
    observe: called with "import" and the name of each pass and the module after it, then with
        "code" and (objects compiled so far, how many there are).
    Raises FrontendError (model not understood) or CompileError (cannot be compiled so).
    """
    used = checked_threads(threads)
    machine = asked(machine_for(target, threads), precision, fast_math, schedules)
    watched = verify or observe is not None
    kept = None if watched else KnownPrograms.of(model, machine, shapes)
    program = None if kept is None else found(kept, machine, used, threads, shapes)
    if program is not None:
        program.source = model
        return program
    model = loaded(model)
    convention = calling_convention(model, example_inputs, shapes)
    if convention is None:
        module, name = import_model(model, shapes)
    else:
        fallback = "program" if isinstance(model, dict) else type(model).__name__
        module, name = convention.module, getattr(model, "__name__", fallback)
    if observe is not None:
        observe("import", module)
    known = KnownKernels(ObjectCache(cache_folder()), machine)
    make = Program if convention is None else BoundProgram
    checks = config.options(verify=max(int(verify), config.get("verify")))
    try:
        with no_collection(), forgetting(), checks, Jobs(known.cache, machine) as jobs:
            coder = Coder(machine, jobs, known)
            later = {"schedule": lambda m, t: schedule_kernels(m, t, known.schedule, coder.begin)}
            lowered = run_pipeline(module, machine, verify, observe, later)
            program = build_coded(lowered, machine, name, threads, observe, make, coder)
    except RecursionError as e:
        raise CompileError(f"{name}: sizes or bodies are nested too deeply to compile") from e
    bind(program, convention, module)
    program.source, program.module = model, module
    if kept is not None:
        kept.keep(program)
    return program


def found(
    kept: KnownPrograms, machine: Target, used: int, threads: int | None, shapes
) -> Program | None:
    """The program that was compiled before, if it is known."""
    program = kept.load(threads or 0, lambda: compile_again(kept, machine, shapes))
    if program is not None:
        program.target, program.threads = machine, used
    return program


def bind(program: BoundProgram, convention, module: Module) -> None:
    """Give every entry its convention, if there is one, and the classes of the front end's
    values."""
    if convention is None:
        return
    program.bind_convention(convention)
    for entry, other in getattr(convention, "others", {}).items():
        program.entries[entry].bind_convention(other)
    for part in (program, *program.entries.values()):
        part.know(module.data_types())


def machine_for(target: str | Target, threads: int | None) -> Target:
    """The target of that name, with as many cores as threads are asked for."""
    cores = threads or config.get("threads")
    return find(target).with_cores(cores) if cores else find(target)


def asked(
    machine: Target, precision: str, fast_math: int | None = None,
    schedules: Schedules | str | os.PathLike | None = None,
) -> Target:  # fmt: skip
    """The machine, asked to compute in a precision, with rounding errors up to some, and as some
    schedules say."""
    if schedules is not None:
        given = schedules if isinstance(schedules, Schedules) else Schedules.read(schedules)
        machine = given.on(machine)
    if precision not in PRECISIONS:
        raise CompileError(
            f"precision {precision!r} is not supported",
            help='"bf16" multiplies in bf16 and adds in f32; "model" keeps the types of the model',
        )
    level = config.get("fast_math") if fast_math is None else fast_math
    if level not in FAST_MATH:
        raise CompileError(f"there is no fast_math level {level!r}",
                           help=f"the levels are {', '.join(map(str, FAST_MATH))}")  # fmt: skip
    return replace(machine, precision=precision, fast_math=level)


@contextmanager
def no_collection() -> Iterator[None]:
    """No search for cycles of garbage meanwhile: a compilation makes many objects and hardly any
    cycles, and looking at all of them again and again takes a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def compile_again(kept: KnownPrograms, target: Target, shapes) -> Program:
    """The program that was found, made anew: with all that led to it."""
    if content(kept.path) != kept.content:
        raise CompileError(
            f"{kept.path} is no longer what the program was compiled from",
            help="compile it again to look inside",
        )
    with config.options(cache_programs=0):
        return compile(kept.path, target=target, threads=target.cores, shapes=shapes,
                       precision=target.precision, fast_math=target.fast_math)  # fmt: skip


def checked_threads(threads: int | None) -> int:
    try:
        return thread_count(threads or 0)
    except RunError as e:
        raise CompileError(e.message) from None


def build_native(
    lowered: Module, machine: Target, name: str, threads=None, observe=None, make=Program
) -> Program:
    """The program of a module that went through the pipeline."""
    with Jobs(ObjectCache(cache_folder()), machine) as jobs:
        coder = Coder(machine, jobs)
        return build_coded(lowered, machine, name, threads, observe, make, coder)


def build_coded(
    lowered: Module, machine: Target, name: str, threads, observe, make, coder: Coder
) -> Program:
    """The same with a coder that may have begun with some of the kernels."""
    used = checked_threads(threads)
    progress = None if observe is None else lambda done, total: observe("code", (done, total))
    program, built = build_program(lowered, machine, name, threads or 0, coder, {}, make, progress)
    program.threads = used
    program.target, program.lowered, program.built = machine, lowered, built
    return program


def loaded(model):
    """A `.pt2` file as the ExportedProgram in it; anything else as it is."""
    if isinstance(model, (str, os.PathLike)) and str(model).endswith(".pt2"):
        import torch

        return torch.export.load(model)
    return model


def calling_convention(model, example_inputs, shapes):
    """How Python calls map onto a torch module or a Python function; None for everything else."""
    kinds = {k.__module__.split(".")[0] for k in type(model).__mro__}
    if "torch" in kinds:
        from tensorwright.frontend import torch as torch_frontend

        return torch_frontend.load(model, example_inputs, shapes)
    functions = model if isinstance(model, dict) else getattr(model, "tw_entries", dict)()
    if functions:
        from tensorwright.frontend import function

        if len(functions) == 1 and not isinstance(model, dict):
            return function.load(*functions.values(), example_inputs, shapes)
        return function.load_entries(functions, example_inputs, shapes)
    if isinstance(model, Module) or "onnx" in kinds or not callable(model):
        return None
    from tensorwright.frontend import function

    return function.load(model, example_inputs, shapes)


def import_model(model, shapes=None) -> tuple[Module, str]:
    """(module, its name) of a Module, a file or an ONNX model."""
    if isinstance(model, Module):
        return model, model.entry
    is_path = isinstance(model, (str, os.PathLike))
    if is_path and str(model).endswith(SUFFIXES):
        return read_text(Path(model)), Path(model).name.split(".")[0]
    if is_path or isinstance(model, bytes) or type(model).__module__.startswith("onnx"):
        from tensorwright.frontend.onnx import import_onnx

        name = Path(model).stem if is_path else getattr(getattr(model, "graph", None), "name", "")
        return import_onnx(model, shapes), name or "model"
    raise FrontendError(
        f"cannot compile a {type(model).__name__}",
        help="give a path to an ONNX file, a torch module, a Python function or a Module",
    )
