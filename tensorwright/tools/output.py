"""What the command line writes: results to stdout, progress and remarks to stderr.

With `--json` stdout has one JSON document and nothing else; with `--quiet` stderr has errors only.
Progress is one live line on a terminal, after a second of work, and a plain line now and then
elsewhere.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tensorwright.base.errors import TensorwrightError, render

PATIENCE = 1.0  # seconds of work before progress is shown
WIDE = 160  # columns where stdout is no terminal
PERIOD = 5.0  # seconds between plain progress lines


@dataclass(frozen=True)
class Column:
    """A table column; numbers go to the right."""

    name: str
    right: bool = False
    style: str = ""


class Pipe(Console):
    """A console whose reader may go away, as `head` does."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Output:
    """Where a command's results and remarks go."""

    def __init__(self, as_json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.as_json, self.quiet, self.debug = as_json, quiet, debug
        width = None if sys.stdout.isatty() else WIDE
        self.out = Pipe(highlight=False, soft_wrap=True, width=width)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def remark(self, text: str) -> None:
        """A line for people that is no result."""
        if not self.quiet and not self.as_json:
            self.err.print(text, markup=False, style="dim")

    def print(self, text: str = "", style: str = "") -> None:
        self.out.print(text, markup=False, style=style or None)

    def code(self, text: str, language: str = "python") -> None:
        """Program text, coloured on terminals."""
        if self.out.is_terminal:
            from rich.syntax import Syntax  # Pygments is slow to import

            self.out.print(Syntax(text, language, theme="ansi_dark", background_color="default"))
        else:
            sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence], title: str = "") -> None:
        self.out.print(make_table(columns, rows, title), soft_wrap=False)

    def pairs(self, rows: Iterable[tuple[str, object]], title: str = "") -> None:
        """Names and values, aligned."""
        grid = Table(box=None, show_header=False, title=title or None, title_justify="left",
                     pad_edge=False)  # fmt: skip
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(name, Text(str(value)))
        self.out.print(grid, soft_wrap=False)

    def json(self, data) -> None:
        sys.stdout.write(json.dumps(plain(data), indent=1, ensure_ascii=False) + "\n")

    def error(self, error: TensorwrightError, code: int) -> None:
        """An error, in the one form that all of ours have."""
        if self.as_json:
            kind = type(error).__name__
            fields = {k: getattr(error, k) for k in ("message", "location", "notes", "help")}
            self.json({"error": {"kind": kind, **fields}, "exit_code": code})
        self.err.print(colored(render(error)))

    def progress(self, title: str) -> Progress:
        return Progress(self, title)


class Progress:
    """Shows what is being done; usable as `observe` of a compilation.

    with output.progress("resnet50") as p: compile(..., observe=p)
    """

    def __init__(self, output: Output, title: str) -> None:
        self.output, self.title, self.phase = output, title, "reading"
        self.start = self.last = time.perf_counter()
        self.live: Live | None = None

    def __enter__(self) -> Progress:
        if not self.output.quiet and self.output.err.is_terminal:
            self.live = Live(self, console=self.output.err, transient=True, refresh_per_second=8)
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live is not None:
            self.live.stop()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def __call__(self, phase: str, value=None) -> None:
        """A phase ended (`value` is the module) or advanced (`value` is (done, total))."""
        counted = isinstance(value, tuple)
        self.phase = f"{phase} {value[0]}/{value[1]} kernels" if counted else f"after {phase}"
        self.tell()

    def say(self, phase: str) -> None:
        self.phase = phase
        self.tell()

    def tell(self) -> None:
        now = time.perf_counter()
        waited = PATIENCE if self.last == self.start else PERIOD
        if self.live is None and not self.output.quiet and now - self.last > waited:
            self.last = now
            self.output.err.print(f"{self.title}: {self.phase} ({self.seconds:.0f} s)", style="dim")

    def __rich__(self) -> Text:
        if self.seconds < PATIENCE:
            return Text("")
        return Text(f"{self.title}: {self.phase} ({self.seconds:.0f} s)", style="dim")


def make_table(columns: Sequence[Column], rows: Iterable[Sequence], title: str = "") -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False,
                  title_style="bold", header_style="bold")  # fmt: skip
    for c in columns:
        justify = "right" if c.right else "left"
        table.add_column(c.name, justify=justify, style=c.style, overflow="fold", no_wrap=c.right)
    for row in rows:
        table.add_row(*(v if isinstance(v, Text) else Text(str(v)) for v in row))
    return table


def colored(text: str) -> Text:
    """A rendered error with its labels coloured."""
    out = Text(text)
    out.highlight_regex(r"^(internal )?error:", "bold red")
    out.highlight_regex(r"(?m)^  (at|note:|help:)", "bold")
    return out


def plain(data):
    """Dataclasses, arrays and paths as what JSON has."""
    if is_dataclass(data) and not isinstance(data, type):
        return plain(asdict(data))
    if isinstance(data, dict):
        return {str(k): plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(v) for v in data]
    if isinstance(data, np.ndarray):
        return plain(data.tolist())
    if isinstance(data, np.generic):
        return plain(data.item())
    if isinstance(data, float) and not np.isfinite(data):
        return str(data)  # JSON has no infinities
    return str(data) if isinstance(data, Path) else data


def clip(text: str, length: int) -> str:
    """A text that fits, with a mark where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
