"""`tw compile`."""

from __future__ import annotations

import time

import rich_click as click

from tensorwright.base.errors import CompileError
from tensorwright.tools.options import Request, command, model_options
from tensorwright.tools.output import Output, duration
from tensorwright.tools.summary import summarize


@command()
@model_options
@click.option("--output", "-o", "path", metavar="FILE.tw",
              help="Where to write; default: the model's name.")  # fmt: skip
def command(request: Request, output: Output, path: str | None) -> None:
    """Compile a model to a .tw file.

    \b
        tw compile model.onnx
        tw compile model.onnx -o small.tw --target x86-64-avx2 --shape "x: n[1..64],3,224,224"

    Run the file with `tw run`, or in Python, without the compiler: `tensorwright.load(FILE)(x)`.
    """
    if request.is_artifact:
        raise CompileError(f"{request.path} is compiled already")
    start = time.perf_counter()
    program = request.program(output)
    seconds = time.perf_counter() - start
    path = path or f"{request.name}.tw"
    program.save(path)
    summary = summarize(program)
    if output.as_json:
        output.json({"file": path, "seconds": seconds, **vars(summary)})
        return
    output.pairs([*summary.rows(), ("written to", path)])
    output.remark(f"compiled in {duration(seconds)}")
