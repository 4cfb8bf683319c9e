"""`tw report`."""

from __future__ import annotations

import rich_click as click

from tensorwright.tools.options import Request, command, input_options, model_options
from tensorwright.tools.output import Output
from tensorwright.tools.report import write_report


@command()
@model_options
@input_options
@click.option("--output", "-o", "path", metavar="FILE.html", help="Default: MODEL.html.")
@click.option("--no-native", is_flag=True, help="Leave out LLVM and assembly text.")
def command(request: Request, output: Output, path: str | None, no_native: bool) -> None:
    """Write one HTML page about a program.

    \b
        tw report model.onnx
        tw report model.onnx --size batch=8 -o report.html

    The page has the graph, the kernels with their text and machine code, the memory plan, one
    run, and the kernels under the machine's measured limits. It needs no network.
    """
    program = request.program(output)
    feeds = request.feeds(program)
    with output.progress("measuring"):
        written = write_report(program, path or f"{request.name}.html", feeds, native=not no_native)
    if output.as_json:
        output.json({"file": written, "bytes": written.stat().st_size})
    else:
        output.print(f"wrote {written}")
