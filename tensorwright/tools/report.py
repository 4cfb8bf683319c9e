"""One HTML page about a program: graph, kernels, memory, time, roofline. No network, no server.

    write_report("model.onnx", "report.html")      program.report("report.html", x)

The page is `page/page.html` with its style, its script and the data written into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np

from tensorwright import __version__
from tensorwright.base.errors import ArtifactError
from tensorwright.driver.compile import compile
from tensorwright.runtime.program import Program
from tensorwright.tools.compare import complete_feeds, run_flat
from tensorwright.tools.machine import measured
from tensorwright.tools.output import plain
from tensorwright.tools.report_data import report_data
from tensorwright.tools.signature import module_of
from tensorwright.tools.timing import interleaved

PAGE = files("tensorwright.tools") / "page"


def write_report(
    model, path="report.html", inputs: Mapping[str, np.ndarray] | None = None, *,
    native: bool = True, repeat: int = 20, seconds: float = 1.0,
) -> Path:  # fmt: skip
    """Write the page about a program, or about a model that is compiled first.

    inputs: by name; random ones where none are given. native: with LLVM and assembly text.
    """
    program = model if isinstance(model, Program) else compile(model)
    module = module_of(program)
    feeds = complete_feeds(program, (), inputs or {}, 0)
    latency = interleaved([lambda: run_flat(program, feeds)], seconds)[0]
    profile = program.profile(**feeds, repeat=repeat)
    machine = measured(program.target, program.threads)
    data = report_data(program, module, feeds, profile, machine, latency, native)
    target = Path(path)
    try:
        target.write_text(page(data), encoding="utf-8")
    except OSError as e:
        raise ArtifactError(f"cannot write {target}: {e.strerror}") from None
    return target


def page(data: dict) -> str:
    """The page with everything in it."""
    title = data["title"].replace("&", "&amp;").replace("<", "&lt;")
    parts = {
        "TITLE": title,
        "VERSION": __version__,
        "STYLE": (PAGE / "page.css").read_text(),
        "SCRIPT": "\n".join(
            (PAGE / name).read_text() for name in ("layout.js", "charts.js", "page.js")
        ),
        # `</` would end the script element that holds the data
        "DATA": json.dumps(plain(data), ensure_ascii=False).replace("</", "<\\/"),
    }
    text = (PAGE / "page.html").read_text()
    for name, value in parts.items():
        text = text.replace(f"[[{name}]]", value)
    return text
