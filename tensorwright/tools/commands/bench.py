"""`tw bench`."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import rich_click as click

from tensorwright.base.errors import TensorwrightError
from tensorwright.runtime.program import Program
from tensorwright.tools.compare import as_list
from tensorwright.tools.engines import ENGINES, open_engine
from tensorwright.tools.numbers import error
from tensorwright.tools.options import (
    EngineName,
    Request,
    command,
    input_options,
    model_options,
)  # fmt: skip
from tensorwright.tools.output import Column, Output
from tensorwright.tools.timing import Latency, interleaved

COLUMNS = (
    Column("engine", style="bold"), Column("p50 ms", True), Column("mean ± sd", True),
    Column("min", True), Column("p90", True), Column("p99", True), Column("runs", True),
    Column("threads", True), Column("speed", True), Column("error", True),
)  # fmt: skip


def engines_of(context, parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """The engines of lists like `ort,torch`, each once."""
    known = EngineName(ENGINES[:-1])
    names = [n.strip() for text in given for n in text.split(",")]
    return tuple(dict.fromkeys(known.convert(n, parameter, context) for n in names if n))


@dataclass(frozen=True)
class Result:
    """One engine: its latency, and how far its outputs are from ours."""

    engine: str
    threads: int
    latency: Latency
    error: float


@command()
@model_options
@input_options
@click.option("--against", multiple=True, metavar="ENGINES", callback=engines_of,
              help=f"Time these too, in turn with ours: {', '.join(ENGINES[:-1])}.")  # fmt: skip
@click.option("--seconds", default=2.0, show_default=True, help="To measure each engine for.")
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
def command(
    request: Request, output: Output, against: tuple[str, ...], seconds: float, markdown: bool
) -> None:
    """Measure latency, alone or beside other engines.

    \b
        tw bench model.onnx --threads 2
        tw bench model.onnx --against ort,openvino,torch
        tw bench model.onnx --input x=8x3x224x224 --seconds 10 --markdown

    Engines run the same inputs in f32 with the same number of threads, in interleaved rounds.
    One that cannot run the model is left out, with the reason.
    `speed` is how many times as fast as each other engine ours is.
    """
    program = request.program(output)
    feeds = request.feeds(program)
    engines, absent = opened(request.path, against, program.threads, feeds)
    for name, why in absent.items():
        output.remark(f"{name} is left out: {why}")
    results = measure(program, engines, feeds, seconds, output)
    if output.as_json:
        output.json({"model": request.name, "inputs": {n: list(a.shape) for n, a in feeds.items()},
                     "results": results})  # fmt: skip
    elif markdown:
        output.print(as_markdown(results))
    else:
        shapes = ", ".join(f"{n} {'x'.join(map(str, a.shape))}" for n, a in feeds.items())
        output.table(COLUMNS, rows(results), f"{request.name}: {shapes}")


def opened(source, names: tuple[str, ...], threads: int, feeds) -> tuple[dict, dict[str, str]]:
    """(engines with what they compute, why the others cannot run this model); a single one that
    cannot says so itself."""
    engines, absent = {}, {}
    for name in names:
        try:
            run = open_engine(name, source, None, threads)
            engines[name] = run, list(map(np.asarray, run(feeds)))
        except TensorwrightError as e:
            if len(names) == 1:
                raise
            absent[name] = f"{e.message} ({e.help})" if e.help else e.message
    return engines, absent


def measure(program: Program, engines: dict, feeds, seconds: float, output: Output) -> list:
    ours = as_list(program(**feeds))
    errors = [0.0]
    for _, theirs in engines.values():
        errors.append(max(error(a, b) for a, b in zip(ours, theirs)))
    calls = [functools.partial(program, **feeds)]
    calls += [functools.partial(run, feeds) for run, _ in engines.values()]
    with output.progress("measuring"):
        times = interleaved(calls, seconds)
    names = ["tensorwright", *engines]
    return [Result(n, program.threads, t, e) for n, t, e in zip(names, times, errors)]


def rows(results: list[Result]) -> list[tuple]:
    ours = results[0].latency.p50
    out = []
    for r in results:
        t = r.latency
        ms = [f"{1e3 * v:.3f}" for v in (t.p50, t.least, t.p90, t.p99)]
        spread = f"{1e3 * t.mean:.3f} ± {1e3 * t.deviation:.3f}"
        speed = "" if r is results[0] else f"{t.p50 / ours:.3g}x"
        gap = "" if r is results[0] else f"{r.error:.1e}"
        out.append((r.engine, ms[0], spread, *ms[1:], t.runs, r.threads, speed, gap))
    return out


def as_markdown(results: list[Result]) -> str:
    head = [c.name for c in COLUMNS]
    align = ["---:" if c.right else "---" for c in COLUMNS]
    lines = [head, align, *(map(str, row) for row in rows(results))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
