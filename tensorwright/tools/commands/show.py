"""`tw show`."""

from __future__ import annotations

import rich_click as click

from tensorwright.tools.options import Request, command, model_options
from tensorwright.tools.output import Output
from tensorwright.tools.show import PASSES, STAGES, diff_text, text_after


@command()
@model_options
@click.option("--after", default=PASSES[-1], show_default=True, metavar="STAGE",
              help=f"One of {', '.join(STAGES)}.")  # fmt: skip
@click.option("--diff", is_flag=True, help="What that pass changed.")
@click.option("--kernel", default="", metavar="NAME", help="This kernel or graph only.")
def command(request: Request, output: Output, after: str, diff: bool, kernel: str) -> None:
    """Print the program, before or after any pass.

    \b
        tw show model.onnx --after import          the model as it was understood
        tw show model.onnx --after fuse --diff     what fusion changed
        tw show model.onnx --after asm --kernel matmul_add_relu
    """
    m, target = request.module(), request.machine
    text = diff_text(m, after, target) if diff else text_after(m, after, target, kernel)
    if output.as_json:
        output.json({"stage": after, "target": target.name, "text": text})
    else:
        output.code(text, "diff" if diff else {"llvm": "llvm", "asm": "nasm"}.get(after, "python"))
