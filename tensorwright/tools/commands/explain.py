"""`tw explain`."""

from __future__ import annotations

import rich_click as click

from tensorwright.tools.explain import Explanation, KernelNote
from tensorwright.tools.options import Request, command, model_options
from tensorwright.tools.output import Column, Output
from tensorwright.tools.program import program_explain


@command()
@model_options
@click.option("--kernel", default="", metavar="TEXT", help="Kernels whose name has this in it.")
def command(request: Request, output: Output, kernel: str) -> None:
    """Tell what the compiler decided, and why.

    \b
        tw explain model.onnx
        tw explain model.onnx --kernel conv
    """
    program = request.program(output)
    found = program_explain(program)
    kernels = [k for k in found.kernels if kernel in k.name]
    if output.as_json:
        output.json({**vars(found), "kernels": kernels})
        return
    output.pairs(found.summary)
    show_kernels(output, kernels)
    show_decisions(output, found)
    output.pairs([("memory", found.memory)])


def show_kernels(output: Output, kernels: list[KernelNote]) -> None:
    columns = (Column("kernel", style="bold"), Column("calls", True), Column("computes"),
               Column("schedule"), Column("flops", True), Column("bytes", True))  # fmt: skip
    rows = [
        (k.name, k.calls, "\n".join(k.sources) or "-", "\n".join(k.schedule) or "as defined",
         k.flops, k.bytes)
        for k in kernels
    ]  # fmt: skip
    output.table(columns, rows, "kernels, in order of their first call")


def show_decisions(output: Output, found: Explanation) -> None:
    if found.decisions:
        columns = (Column("about", style="bold"), Column("what"), Column("decided"), Column("why"))
        output.table(columns, found.decisions, "decisions")
    if found.rules:
        columns = (Column("pass", style="bold"), Column("rule"), Column("times", True))
        output.table(columns, found.rules, "rules that fired")
    columns = (Column("pass", style="bold"), Column("ms", True), Column(""))
    rows = [(n, f"{1e3 * s:.1f}", "" if changed else "no change") for n, s, changed in found.passes]
    output.table(columns, rows, "passes")
