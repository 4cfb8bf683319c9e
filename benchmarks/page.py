"""Tables of benchmark commands, on the terminal and in a page whose prose is written by hand.

The page keeps places for what commands write, which are filled anew with `--markdown PAGE`:

    <!-- benchmarks.control: models -->
    ... the table, and a line that names machine and versions ...
    <!-- end -->

What stands between the places is nobody's but the writer's. A row that the page has is not lost to
a run that measured others: the page stays as it is then, unless `--drop` allows it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.limits import machine_line

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
        table = aligned(self.header, self.rows, self.words)
        return f"{table}\n\n{self.note}" if self.note else table


@dataclass(frozen=True)
class Section:
    """What a command writes into a place where it is more than one table: paragraphs."""

    place: str
    parts: Sequence[str]

    def text(self) -> str:
        return "\n\n".join(part for part in self.parts if part)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table in Markdown whose columns are aligned, numbers at the right."""
    lines = [[c.replace("|", "\\|") for c in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    text = [w if k < words else -w for k, w in enumerate(widths)]
    edge = lambda cell, w: cell.ljust(w) if w > 0 else cell.rjust(-w)
    rule = "|".join("-" * (w + 2) if w > 0 else "-" * (1 - w) + ":" for w in text)
    first, *rest = ("| " + " | ".join(map(edge, line, text)) + " |" for line in lines)
    return "\n".join([first, f"|{rule}|", *rest])


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
    before, _, after = cut(page, place)
    return f"{before}\n\n{text}\n\n{after}"


def cut(page: str, place: str) -> tuple[str, str, str]:
    """What is before, in and behind a place."""
    start = f"<!-- {place} -->"
    if page.count(start) != 1:
        raise LookupError(f"the page should have one line {start!r} and has {page.count(start)}")
    before, _, rest = page.partition(start)
    inside, end, after = rest.partition(END)
    if not end or "<!-- " in inside:
        raise LookupError(f"after {start!r} the page has no line {END!r}")
    return before + start, inside, end + after


def labels(text: str) -> Counter[str]:
    """The first cells of all rows of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {k for k, line in enumerate(lines) if set(line) <= set("|-: ")}
    rows = (line for k, line in enumerate(lines) if not rules & {k, k + 1})
    return Counter(re.split(r"(?<!\\)\|", line)[1].strip() for line in rows)


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
    parser.add_argument("--drop", action="store_true",
                        help="even if the page has rows that are not measured")  # fmt: skip


def comma(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def numbers(text: str) -> list[int]:
    return list(map(int, comma(text)))


def thread_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="numbers of them: 1,2")


def small_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--small", action="store_true", help="test-size models (a smoke test)")


def publish(tables: Sequence[Table | Section], page: Path | None, drop: bool = False) -> None:
    """Prints the tables, and puts them in the page if there is one. SystemExit: the page has rows
    that they have not, and these are not to be dropped."""
    for table in tables:
        print(f"{table.text()}\n", flush=True)
    if page is None:
        return
    text = page.read_text()
    for table in tables:
        lost = labels(cut(text, table.place)[1]) - labels(table.text())
        if lost and not drop:
            names = ", ".join(lost)
            raise SystemExit(f"{page} stays as it is: it has rows that these are not: {names}. "
                             "--join the runs that they are of, or --drop them")  # fmt: skip
        text = filled(text, table.place, table.text())
    page.write_text(text)
