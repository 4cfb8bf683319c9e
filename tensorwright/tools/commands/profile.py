"""`tw profile`."""

from __future__ import annotations

import rich_click as click
from rich.text import Text

from tensorwright.target.host import host
from tensorwright.tools.machine import Machine, measured
from tensorwright.tools.options import Request, command, input_options, model_options
from tensorwright.tools.output import Column, Output, clip, duration
from tensorwright.tools.roofline import Point, points
from tensorwright.tools.summary import short_source, slow_kernels

COLUMNS = (
    Column("kernel", style="bold"), Column("calls", True), Column("a call", True),
    Column("share", True), Column("GFLOP/s", True), Column("GB/s", True),
    Column("of limit", True), Column("bound by"), Column("from"),
)  # fmt: skip


@command()
@model_options
@input_options
@click.option("--repeat", default=10, show_default=True, help="Runs to measure.")
@click.option("--trace", metavar="FILE.json", help="Write a trace for chrome://tracing, Perfetto.")
@click.option("--top", default=25, show_default=True, help="Kernels to show.")
@click.option("--measure", is_flag=True, help="Measure the machine's limits again.")
def command(
    request: Request, output: Output, repeat: int, trace: str | None, top: int, measure: bool
) -> None:
    """Tell where the time goes, and how near the machine's limit.

    \b
        tw profile model.onnx
        tw profile model.onnx --size batch=16 --trace trace.json

    `of limit` is the time that the kernel's arithmetic and compulsory bytes would take at the
    speed that this machine was measured to have, over the time that it took.
    """
    program = request.program(output)
    feeds = request.feeds(program)
    target = getattr(program, "target", None) or host()
    with output.progress("measuring the machine"):
        machine = measured(target, program.threads, measure)
    profile = program.profile(**feeds, repeat=repeat)
    found = points(profile, machine, target)
    if trace:
        profile.to_chrome_trace(trace)
        output.remark(f"wrote {trace}")
    seconds = profile.total_ns / max(len(profile.runs), 1) / 1e9
    if output.as_json:
        kernels = [as_data(p) for p in found]
        output.json({"seconds": seconds, "machine": machine, "kernels": kernels})
    else:
        output.table(COLUMNS, map(row, found[:top]), f"{program.name}: {duration(seconds)} a run")
        show_machine(output, machine)
        for text in slow_kernels(program):
            output.remark(text)


def show_machine(output: Output, machine: Machine) -> None:
    memory = ", ".join(f"{name} {speed:.0f} GB/s" for name, speed in machine.gbytes.items())
    output.remark(
        f"limits of this machine, {machine.threads} threads: {machine.gflops:.0f} GFLOP/s; {memory}"
    )


def as_data(p: Point) -> dict:
    return {**vars(p), "gflops": p.gflops, "gbytes": p.gbytes, "of_limit": p.of_limit}


def row(p: Point) -> tuple:
    more = f"{len(p.sources)}: " if len(p.sources) > 1 else ""
    sources = more + (short_source(p.sources[0]) if p.sources else "")
    known = bool(p.bound)
    reached = Text(f"{100 * p.of_limit:.0f} %" if known else "-", style=reached_style(p))
    return (
        p.kernel, p.calls, duration(p.seconds), f"{100 * p.share:.1f} %",
        f"{p.gflops:.1f}" if known else "-", f"{p.gbytes:.1f}" if known else "-", reached, p.bound,
        clip(sources, 48),
    )  # fmt: skip


def reached_style(p: Point) -> str:
    if not p.bound or p.share < 0.02:
        return "dim"
    return "green" if p.of_limit > 0.6 else "yellow" if p.of_limit > 0.3 else "red"
