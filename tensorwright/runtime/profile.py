"""Where a program's time goes, kernel by kernel, from marks its native code leaves.

A mark (id, nanoseconds) says that kernel `id` starts now; its time lasts until the next mark.
Negative ids mean "between kernels", which is reported as host time, as is what comes before the
first mark and so much of the time after the last as is negative.

    marks (0, 10) (1, 40) (-1, 90), run 5..100   ->   k0 30 ns, k1 50 ns, host 15 ns
"""

import ctypes
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorwright.base.errors import ArtifactError
from tensorwright.runtime.dims import evaluate
from tensorwright.runtime.manifest import KernelInfo

HOST = "(host program)"


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One kernel over all runs; times in nanoseconds, rates 0 where the work is not known."""

    kernel: str
    calls: int
    time_ns: int
    share: float
    gflops: float
    gbytes: float
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One call of the program: its begin and end, and the marks in between."""

    begin: int
    end: int
    marks: np.ndarray  # int64[n, 2]: id, nanoseconds


class MarkBuffer:
    """The memory native code writes marks to: capacity, count, then (id, time) pairs."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.words = np.zeros(2 + 2 * capacity, np.int64)
        self.words[0] = capacity

    @property
    def address(self) -> int:
        return self.words.ctypes.data

    @property
    def count(self) -> int:
        return int(self.words[1])

    def take(self) -> np.ndarray:
        """A copy of the marks, leaving the buffer empty."""
        kept = min(self.count, self.capacity)
        marks = self.words[2 : 2 + 2 * kept].reshape(kept, 2).copy()
        self.words[1] = 0
        return marks


class Profile:
    """The result of `program.profile(...)`: print it, look at `rows`, or export a trace."""

    def __init__(
        self,
        name: str,
        kernels: tuple[KernelInfo, ...],
        runs: list[Run],
        sizes: Mapping[str, int] = {},
    ) -> None:
        self.name, self.kernels, self.runs, self.sizes = name, kernels, runs, sizes
        self.total_ns = sum(r.end - r.begin for r in runs)
        self.rows = self._rows()

    def _rows(self) -> tuple[ProfileRow, ...]:
        calls: dict[int, int] = {}
        times: dict[int, int] = {}
        for run in self.runs:
            for kernel, start, end in _spans(run):
                calls[kernel] = calls.get(kernel, 0) + 1
                times[kernel] = times.get(kernel, 0) + end - start
        order = sorted(times, key=lambda k: -times[k])
        return tuple(self._row(k, calls[k], times[k]) for k in order)

    def _row(self, number: int, calls: int, time: int) -> ProfileRow:
        kernel = self._kernel(number)
        share = time / self.total_ns if self.total_ns else 0.0
        flops, moved = (evaluate(n, self.sizes) or 0 for n in (kernel.flops, kernel.bytes))
        rates = (flops * calls / time, moved * calls / time) if time else (0.0, 0.0)
        return ProfileRow(kernel.name, calls, time, share, *rates, kernel.sources)

    def _kernel(self, number: int) -> KernelInfo:
        if number < 0:
            return KernelInfo(HOST)
        if number < len(self.kernels):
            return self.kernels[number]
        return KernelInfo(f"kernel {number}")

    def to_chrome_trace(self, path: str | os.PathLike) -> None:
        """Write a trace for chrome://tracing or Perfetto."""
        events = []
        for number, run in enumerate(self.runs):
            label = f"{self.name} run {number}"
            events.append(_event(label, run.begin, run.end, 0))
            for k, start, end in _spans(run):
                if k >= 0:
                    kernel = self._kernel(k)
                    events.append(_event(kernel.name, start, end, 0, sources=kernel.sources))
        try:
            Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
        except OSError as error:
            raise ArtifactError(f"cannot write the trace: {error}") from error

    def __str__(self) -> str:
        head = ("kernel", "calls", "time", "share", "GFLOP/s", "GB/s", "from")
        body = [_cells(row) for row in self.rows]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        mean = self.total_ns / max(len(self.runs), 1)
        lines = [f"{self.name}: {len(self.runs)} runs, {_time(mean)} each"]
        for line in [head, *body]:
            cells = [
                text.ljust(width) if i in (0, 6) else text.rjust(width)
                for i, (text, width) in enumerate(zip(line, widths))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    __repr__ = __str__


def _spans(run: Run) -> list[tuple[int, int, int]]:
    """(kernel, start, end) for every stretch of a run; together they cover it exactly."""
    marks = run.marks.tolist()
    starts = [(-1, run.begin), *marks]
    ends = [time for _, time in marks] + [run.end]
    return [(k, s, e) for (k, s), e in zip(starts, ends)]


def _event(name: str, begin: int, end: int, thread: int, **arguments: object) -> dict:
    return {
        "name": name, "ph": "X", "ts": begin / 1000, "dur": (end - begin) / 1000,
        "pid": os.getpid(), "tid": thread, "args": arguments,
    }  # fmt: skip


def _cells(row: ProfileRow) -> tuple[str, ...]:
    sources = ", ".join(row.sources)
    short = sources if len(sources) <= 60 else sources[:57] + "..."
    return (
        row.kernel, str(row.calls), _time(row.time_ns), f"{100 * row.share:.1f} %",
        _rate(row.gflops), _rate(row.gbytes), short,
    )  # fmt: skip


def _rate(value: float) -> str:
    return f"{value:.1f}" if value else "-"


def _time(ns: float) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.2f} {unit}"
    return f"{ns:.0f} ns"


def set_marks(context: int, buffer: MarkBuffer | None) -> None:
    """Turn a context's profile on or off."""
    ctypes.c_uint64.from_address(context + 72).value = buffer.address if buffer else 0
