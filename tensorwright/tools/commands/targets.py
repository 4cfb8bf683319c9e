"""`tw targets`."""

from __future__ import annotations

from rich.text import Text

from tensorwright.base.errors import CompileError
from tensorwright.runtime.cpu import missing
from tensorwright.target.host import TARGETS, host
from tensorwright.target.target import Target
from tensorwright.tools.options import command
from tensorwright.tools.output import Column, Output


@command()
def command(output: Output) -> None:
    """List the machines that can be compiled for.

    \b
        tw targets
        tw compile model.onnx --target x86-64-avx2
    """
    try:
        chosen = host().name
    except CompileError:
        chosen = ""
    if output.as_json:
        output.json([{**describe(t), "host": t.name == chosen} for t in TARGETS])
        return
    columns = (Column("target", style="bold"), Column("triple"), Column("vectors", True),
               Column("registers", True), Column("this machine"))  # fmt: skip
    output.table(columns, [row(t, chosen) for t in TARGETS])


def describe(t: Target) -> dict:
    return {
        "name": t.name, "triple": t.triple, "cpu": t.cpu, "features": t.features,
        "vector_bits": t.vector_bits, "vector_registers": t.vector_registers,
        "runs_here": runs_here(t),
    }  # fmt: skip


def runs_here(t: Target) -> bool:
    return t.triple.split("-")[0] == host().triple.split("-")[0] and not missing(t.required)


def row(t: Target, chosen: str) -> tuple:
    if t.name == chosen:
        here = Text("host: used by default", style="green")
    elif runs_here(t):
        here = Text("runs here")
    else:
        lacking = ", ".join(missing(t.required))
        here = Text(f"lacks {lacking}" if lacking else "another processor", style="dim")
    return t.name, t.triple, f"{t.vector_bits} bit", t.vector_registers, here
