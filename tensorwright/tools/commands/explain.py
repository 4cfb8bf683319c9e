"""`tw explain`."""

from __future__ import annotations

import rich_click as click

from tensorwright.tools.explain import Explanation, KernelNote
from tensorwright.tools.options import Request, command, model_options
from tensorwright.tools.output import Column, Output
from tensorwright.tools.program import program_explain
from tensorwright.tools.summary import short_source

SHOWN = 5  # places in the model for each kernel, unless it was asked for by name


@command()
@model_options
@click.option("--write-schedules", "path", default="", metavar="FILE",
              help="Write how kernels are scheduled, for `--schedules`.")  # fmt: skip
@click.option("--kernel", default="", metavar="TEXT", help="Kernels whose name has this in it.")
def command(request: Request, output: Output, path: str, kernel: str) -> None:
    """Tell what the compiler decided, and why.

    \b
        tw explain model.onnx
        tw explain model.onnx --kernel conv
        tw explain model.onnx --write-schedules model.json
    """
    program = request.program(output)
    if path:
        program.schedules().write(path)
    found = program_explain(program)
    kernels = [k for k in found.kernels if kernel in k.name]
    if output.as_json:
        output.json({**vars(found), "kernels": kernels})
        return
    output.pairs(found.summary)
    show_kernels(output, kernels, bool(kernel))
    show_decisions(output, found)
    output.pairs([("memory", found.memory)])


def show_kernels(output: Output, kernels: list[KernelNote], everything: bool) -> None:
    output.print("kernels, in order of their first call", "bold")
    for k in kernels:
        plural = "s"[: k.calls - 1]
        output.print(f"{k.name}   {k.calls} call{plural}, {k.flops} operations, {k.bytes} bytes",
                     "cyan")  # fmt: skip
        shown = k.sources if everything else k.sources[:SHOWN]
        for source in shown:
            output.print(f"    from  {short_source(source)}")
        if len(shown) < len(k.sources):
            output.print(f"          and {len(k.sources) - len(shown)} more")
        for step in k.schedule:
            output.print(f"    does  {step}")
    output.print()


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
