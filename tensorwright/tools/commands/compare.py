"""`tw compare`."""

from __future__ import annotations

import rich_click as click
from rich.text import Text

from tensorwright.tools.compare import Comparison, compare
from tensorwright.tools.engines import ENGINES
from tensorwright.tools.numbers import Difference
from tensorwright.tools.options import EngineName, Request, command, input_options, model_options
from tensorwright.tools.output import Column, Output

COLUMNS = (
    Column("value", style="bold"), Column("type"), Column("error", True),
    Column("tolerance", True), Column("max abs", True), Column("max rel", True),
    Column("ulps p50/p99/max", True), Column("cosine", True), Column(""),
)  # fmt: skip


@command()
@model_options
@input_options
@click.option("--against", type=EngineName(ENGINES), default="onnxruntime", show_default=True)
@click.option("--layers", is_flag=False, flag_value="kernels", default=None,
              type=click.Choice(["kernels", "all"]),
              help="Inside too: what kernels leave in memory, or all named values.")  # fmt: skip
@click.option("--tolerance", type=float, help="Accepted error; default: by type, f32 1e-4.")
def command(
    request: Request, output: Output, against: str, layers: str | None, tolerance: float | None
) -> int:
    """Compare the numbers with another engine, layer by layer.

    \b
        tw compare model.onnx --against onnxruntime
        tw compare model.onnx --layers --size batch=4
        tw compare model.onnx --against reference --tolerance 1e-3

    The error is the largest difference over the largest magnitude expected. Exit code 1 says that
    it is over the tolerance.
    """
    program = request.program(output)
    feeds = request.feeds(program)
    program.source = getattr(program, "source", None)
    found = compare(program, against, layers=layers or False, tolerance=tolerance, **feeds)
    if output.as_json:
        output.json({"ok": found.ok, **vars(found)})
    else:
        show(output, found)
    return 0 if found.ok else 1


def show(output: Output, found: Comparison) -> None:
    if found.layers:
        output.table(COLUMNS, map(row, found.layers), "inside, in order of computation")
    output.table(COLUMNS, map(row, found.outputs), f"{found.name} against {found.against}")
    first = found.first_bad_layer
    if first is not None:
        output.print(f"first outside its tolerance: {first.name}", "red")


def row(d: Difference) -> tuple:
    ulps = "-" if d.ulps is None else " / ".join(f"{u:.3g}" for u in d.ulps)
    verdict = Text("ok", style="green") if d.ok else Text(d.note or "outside", style="red")
    shape = ", ".join(map(str, d.shape))
    return (
        d.name, f"{d.dtype}[{shape}]", f"{d.error:.1e}", f"{d.tolerance:.0e}", f"{d.max_abs:.1e}",
        f"{d.max_rel:.1e}", ulps, f"{d.cosine:.6f}", verdict,
    )  # fmt: skip
