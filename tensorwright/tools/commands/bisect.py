"""`tw bisect`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from tensorwright.driver.textfile import arrays_path
from tensorwright.tools.bisect import Culprit, bisect, write_culprit
from tensorwright.tools.engines import ENGINES, open_engine
from tensorwright.tools.options import EngineName, Request, command, input_options, model_options
from tensorwright.tools.output import Output


@command()
@model_options
@input_options
@click.option("--against", type=EngineName(ENGINES), default="reference", show_default=True,
              help="Whose results are right; another engine also judges the import.")  # fmt: skip
@click.option("--tolerance", type=float, help="Accepted error; default: by type, f32 1e-4.")
@click.option("--output", "-o", "path", metavar="FILE.py",
              help="Where to write what fails; default: MODEL.culprit.py.")  # fmt: skip
def command(request: Request, output: Output, against: str, tolerance: float | None,
            path: str | None) -> int:  # fmt: skip
    """Find the pass and the kernel where numbers go wrong.

    \b
        tw bisect model.onnx
        tw bisect model.onnx --against onnxruntime --size batch=2
        tw bisect model.culprit.py            again, on what the first one wrote

    Exit code 1 says that a culprit was found.
    """
    m = request.module()
    feeds = request.feeds(m)
    expected = None
    if against != "reference":
        expected = open_engine(against, request.path, m)(feeds)
    inputs = [feeds[p.name] for p in m.main.params]
    with output.progress(f"{request.name}: bisect") as progress:
        found = bisect(m, request.machine, inputs, expected, tolerance, progress.say)
    written = "" if found is None or found.part is None else path or f"{request.name}.culprit.py"
    if written:
        write_culprit(found, Path(written))
    show(output, found, written)
    return 0 if found is None else 1


def show(output: Output, found: Culprit | None, path: str) -> None:
    if output.as_json:
        part = None if found is None or found.part is None else found.part.operators
        details = {} if found is None else {"stage": found.stage, "worst": found.worst}
        output.json({"ok": found is None, **details, "operators": part, "file": path or None})
        return
    if found is None:
        output.print("every stage gives the same results", "green")
        return
    d = found.worst
    output.print(found.title, "red")
    output.pairs([("stage", found.stage), ("value", d.name), ("error", f"{d.error:.2e}"),
                  ("tolerance", f"{d.tolerance:.0e}"), ("", d.note or found.note)])  # fmt: skip
    if path:
        output.print(f"written to {path} and {arrays_path(Path(path))}")
