"""Tables of benchmark commands, on the terminal and in a page whose prose is written by hand.

The page keeps a place for every table, which the table's command fills anew with `--markdown PAGE`:

    <!-- benchmarks.control: models -->
    ... the table, and a line that names machine and versions ...
    <!-- end -->
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.results import machine_line

END = "<!-- end -->"
TITLES = {
    "tensorwright": "Tensorwright", "ort": "ONNX Runtime", "openvino": "OpenVINO",
    "eager": "PyTorch eager", "torch": "PyTorch eager", "inductor": "torch.compile",
    "llamacpp": "llama.cpp (AVX2)", "limit": "limit",
}  # fmt: skip
PACKAGES = {
    "ort": "onnxruntime", "openvino": "openvino", "eager": "torch", "torch": "torch",
    "inductor": "torch", "llamacpp": "xllamacpp",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """`place` names it in the page; the first `words` columns hold text, the others numbers;
    `note` goes under it."""

    place: str
    words: int
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """Markdown whose columns are aligned, numbers at the right."""
        lines = [[c.replace("|", "\\|") for c in line] for line in (self.header, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        text = [w if k < self.words else -w for k, w in enumerate(widths)]
        edge = lambda cell, w: cell.ljust(w) if w > 0 else cell.rjust(-w)
        rule = "|".join("-" * (w + 2) if w > 0 else "-" * (1 - w) + ":" for w in text)
        first, *rest = ("| " + " | ".join(map(edge, line, text)) + " |" for line in lines)
        return "\n".join([first, f"|{rule}|", *rest, *(["", self.note] if self.note else [])])


def measured_on(peers: Sequence[str], timed: bool = True) -> str:
    """A sentence: machine, its load, and the versions of what was measured."""
    import tensorwright

    packages = sorted({PACKAGES[p] for p in peers if p in PACKAGES})
    versions = [f"Python {platform.python_version()}", f"Tensorwright {tensorwright.__version__}"]
    versions += [f"{p} {metadata.version(p)}" for p in packages]
    load = f"; load with these measurements {os.getloadavg()[1]:.1f}" * timed
    return f"Measured on {machine_line()}{load}; {', '.join(versions)}."


# ---- a place in a page -------------------------------------------------------------------------


def filled(page: str, place: str, text: str) -> str:
    """The page with `text` in a place of it. LookupError tells a place that is not there once, or
    does not end."""
    start = f"<!-- {place} -->"
    if page.count(start) != 1:
        raise LookupError(f"the page should have one line {start!r} and has {page.count(start)}")
    before, _, rest = page.partition(start)
    old, end, after = rest.partition(END)
    if not end or "<!-- " in old:
        raise LookupError(f"after {start!r} the page has no line {END!r}")
    return f"{before}{start}\n\n{text}\n\n{END}{after}"


def options(parser: argparse.ArgumentParser, *places: str) -> None:
    """`--markdown PAGE` of a command that fills these places; they are looked up before anything
    is measured."""

    def page(path: str) -> Path:
        try:
            for place in places:
                filled(Path(path).read_text(), place, "")
        except (OSError, LookupError) as e:
            raise argparse.ArgumentTypeError(f"{path}: {e}") from e
        return Path(path)

    parser.add_argument("--markdown", type=page, metavar="PAGE",
                        help="put the tables in their places of this page")  # fmt: skip


def comma(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    return list(map(int, comma(text)))


def thread_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of them: 1,2")


def publish(tables: Sequence[Table], page: Path | None) -> None:
    """Prints the tables, and puts them in the page if there is one."""
    for table in tables:
        print(f"{table.text()}\n", flush=True)
        if page:
            page.write_text(filled(page.read_text(), table.place, table.text()))
