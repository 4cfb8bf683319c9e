"""Options that commands share, and the programs they open.

@command("Compile ...")      @model_options      @input_options
def command(request, output, ...):   program = request.program(output)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rich_click as click

from tensorwright.base.errors import (
    ArtifactError,
    CompileError,
    FrontendError,
    InternalError,
    unexpected,
)
from tensorwright.driver.compile import asked, compile
from tensorwright.driver.textfile import SUFFIXES, read_arrays, write_text
from tensorwright.ir.module import Module
from tensorwright.passes.precision import PRECISIONS
from tensorwright.runtime.artifact import load
from tensorwright.runtime.program import Program
from tensorwright.target.host import find
from tensorwright.target.target import Target
from tensorwright.tools.inputs import Spec, make_inputs, parse_specs
from tensorwright.tools.limits import index_limits
from tensorwright.tools.output import Output
from tensorwright.tools.signature import import_any, signature

REPRODUCER_BYTES = 64 << 20  # of constants, above which none is written


@dataclass(frozen=True)
class Request:
    """The model that a command is about and how to compile it."""

    path: str
    target: str = "host"
    threads: int | None = None
    precision: str = "model"
    shapes: str | None = None
    verify: bool = False
    schedules: str | None = None
    inputs: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    seed: int = 0

    @property
    def is_artifact(self) -> bool:
        return self.path.endswith(".tw")

    @property
    def name(self) -> str:
        return Path(self.path).stem

    @property
    def machine(self) -> Target:
        """The target, asked for the precision."""
        return asked(find(self.target), self.precision, None, self.schedules)

    def program(self, output: Output) -> Program:
        """The model compiled, or the artifact loaded."""
        self.check_path()
        if self.is_artifact:
            return load(self.path, self.threads)
        with output.progress(self.name) as progress:
            try:
                return compile(
                    self.path, target=self.target, threads=self.threads, precision=self.precision,
                    shapes=self.shapes, verify=self.verify, observe=progress,
                    schedules=self.schedules,
                )  # fmt: skip
            except (FrontendError, CompileError):
                raise
            except Exception as e:
                raise self.with_reproducer(e) from e

    def with_reproducer(self, e: Exception) -> InternalError:
        """A bug of ours, with the imported module written to a file that shows it again."""
        error = unexpected(e)
        path = Path(f"{self.name}.repro.py")
        try:
            m = self.module()
            if sum(a.nbytes for a in m.constants().values()) > REPRODUCER_BYTES:
                return error
            write_text(m, path, f"{type(e).__name__}: {e}")
        except Exception:  # the import itself is what fails, or the disk is full
            return error
        return InternalError(error.message, (*error.notes, f"the program is in {path}"),
                             error.help, error.location)  # fmt: skip

    def module(self) -> Module:
        """The model imported, not compiled."""
        self.check_path()
        if self.is_artifact:
            raise CompileError(
                f"{self.path} holds machine code, not the program it was made from",
                help="give the model that it was compiled from",
            )
        return import_any(self.path, None, self.shapes)

    def check_path(self) -> None:
        if Path(self.path).is_dir():
            raise ArtifactError(f"{self.path} is a folder, not a model")
        if not Path(self.path).is_file():
            raise ArtifactError(f"there is no file {self.path}")

    def feeds(self, what: Program | Module) -> dict[str, np.ndarray]:
        """Inputs by name: those asked for, random ones for the rest."""
        infos, symbols = signature(what)
        m = what if isinstance(what, Module) else getattr(what, "module", None)
        limits = {} if m is None else index_limits(m)
        specs = {**self.recorded(), **parse_specs(self.inputs)}
        return make_inputs(infos, symbols, specs, self.sizes, self.seed, limits)

    def recorded(self) -> dict[str, Spec]:
        """Inputs that lie beside a text file, as `tw bisect` writes them."""
        if not self.path.endswith(SUFFIXES):
            return {}
        found = read_arrays(Path(self.path))
        prefix = "input:"
        return {
            n.removeprefix(prefix): Spec(array=a) for n, a in found.items() if n.startswith(prefix)
        }


def command(**settings) -> Callable:
    """A `tw` command: `--json`, `--quiet`, `--debug`, passed on as one `output`."""

    def decorate(f: Callable) -> click.Command:
        @functools.wraps(f)
        def run(as_json: bool, quiet: bool, debug: bool, **values):
            return f(output=Output(as_json, quiet, debug), **values)

        for option in reversed((
            click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
            click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks."),
            click.option("--debug", is_flag=True, help="Show Python tracebacks of errors."),
        )):  # fmt: skip
            run = option(run)
        return click.command(
            cls=click.RichCommand,
            context_settings={"help_option_names": ["-h", "--help"]},
            **settings,
        )(run)

    return decorate


def model_options(f: Callable) -> Callable:
    """MODEL and how to compile it, passed on as `request` together with the input options."""

    @functools.wraps(f)
    def run(model, target, threads, precision, shape, verify, schedules, **values):
        inputs = values.pop("inputs", ())
        sizes = dict(values.pop("sizes", ()))
        seed = values.pop("seed", 0)
        shapes = "; ".join(shape) or None
        request = Request(
            model, target, threads, precision, shapes, verify, schedules, inputs, sizes, seed
        )  # fmt: skip
        return f(request=request, **values)

    for option in reversed((
        click.argument("model", metavar="MODEL"),
        click.option("--target", default="host", show_default=True, help="See `tw targets`."),
        click.option("--threads", type=click.IntRange(1), help="Default: all usable CPUs."),
        click.option("--precision", type=click.Choice(PRECISIONS), default="model",
                     show_default=True, help="`bf16` multiplies what is f32 in bf16 and adds in "
                     "f32; `model` keeps the model's own types."),
        click.option("--shape", "--shapes", multiple=True, metavar="SPEC",
                     help="Dimensions of inputs: 'x: n[1..64],3,224,224; m: n'."),
        click.option("--verify", is_flag=True, help="Check the program after every pass."),
        click.option("--schedules", metavar="FILE",
                     help="Schedule kernels as this file says; see `tw explain`."),
    )):  # fmt: skip
        run = option(run)
    return run


def input_options(f: Callable) -> Callable:
    """What to run on. Use it under `model_options`."""
    for option in reversed((
        click.option("--input", "-i", "inputs", multiple=True, metavar="NAME=WHAT",
                     help="x=1x3x8x8:f32:randn, x=zeros, x=@file.npy, x=[[1,2]]. Inputs that are "
                     "not given are random."),
        click.option("--size", "sizes", multiple=True, type=Size(), metavar="NAME=N",
                     help="Value of a symbolic dimension for random inputs."),
        click.option("--seed", default=0, show_default=True, help="Of random inputs."),
    )):  # fmt: skip
        f = option(f)
    return f


class EngineName(click.Choice):
    """The name of an engine; `ort` is short for the longest."""

    def convert(self, value, param, ctx):
        return super().convert("onnxruntime" if value == "ort" else value, param, ctx)


class Size(click.ParamType):
    """`n=4`."""

    name = "size"

    def convert(self, value, param, ctx):
        name, _, number = value.partition("=")
        if not name or not number.isdigit():
            self.fail(f"{value!r} is not NAME=N")
        return name, int(number)
