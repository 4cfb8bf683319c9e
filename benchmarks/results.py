"""What one benchmark run measured, and its tables in the terminal and in Markdown.

Invariant: every (model, threads, peer) that was asked for has a `Result`; one that could not run
carries the first line of its error, and losing rows stay.
"""

import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import geometric_mean

from benchmarks.agreement import TOLERANCE
from benchmarks.causes import cause_of
from benchmarks.limits import described, limit, machine_line, measured_machine
from benchmarks.page import Section, aligned
from benchmarks.peers import PEERS
from benchmarks.runs import Measured, by_key, sources
from benchmarks.zoo import HEADLINE

OURS, REFERENCE = "tensorwright", "ort"


@dataclass
class Result(Measured):
    model: str
    title: str
    threads: int
    peer: str
    flops: int = 0
    weight_bytes: int = 0
    version: str = ""
    cold_s: float | None = 0.0  # none where the files of an earlier compilation were found
    warm_s: float = 0.0
    peak: int = 0  # bytes in memory while compiling, beyond those before
    times: list[float] = field(default_factory=list)
    error: float | None = None
    failure: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.model, self.threads

    @property
    def is_wrong(self) -> bool:
        return self.error is not None and self.error > TOLERANCE

    @property
    def low(self) -> float:
        return 1e3 * min(self.times)

    @property
    def median(self) -> float:
        return 1e3 * statistics.median(self.times)

    @property
    def high(self) -> float:
        return 1e3 * max(self.times)

    def cell(self) -> str:
        if self.failure:
            return "ONNX only" if self.failure == ONNX_ONLY else "failed"
        wrong = f" WRONG {self.error:.0e}" if self.is_wrong else ""
        return f"{self.low:.3g} / {self.median:.3g} / {self.high:.3g}{wrong}"


ONNX_ONLY = "no PyTorch form"


def grouped(results: list[Result]) -> dict[tuple[str, int], dict[str, Result]]:
    return {key: {r.peer: r for r in group} for key, group in by_key(results).items()}


def by_threads(results: list[Result]) -> dict[int, list[Result]]:
    counts = sorted({r.threads for r in results})
    return {n: [r for r in results if r.threads == n] for n in counts}


def best_peer(
    group: dict[str, Result], time: Callable[[Result], float]
) -> tuple[str, float] | None:
    """The peer with the least time and how many times slower than us it is (below 1: we lose).
    Whose answers are wrong is no peer, and has none."""
    right = {p: r for p, r in group.items() if r.times and not r.is_wrong}
    ours = right.pop(OURS, None)
    if ours is None or not right:
        return None
    best = min(right.values(), key=time)
    return best.peer, time(best) / time(ours)


def ratio(group: dict[str, Result]) -> tuple[str, float] | None:
    return best_peer(group, lambda r: r.median)


def verdict(against: tuple[str, float] | None) -> str:
    return f"{against[1]:.2f}x vs {against[0]}" if against else "—"


def peers_of(results: list[Result]) -> list[str]:
    found = {r.peer for r in results}
    return [p for p in PEERS if p in found]


def latency_rows(results: list[Result], machine=None) -> list[list[str]]:
    """A line a model; the share of the limit where the machine's is known (`limits`)."""
    peers, rows = peers_of(results), []
    for group in grouped(results).values():
        first = next(iter(group.values()))
        cost = [f"{first.flops / 1e9:.3g}", f"{first.weight_bytes / 1e6:.3g}"]
        cells = [group[p].cell() if p in group else "" for p in peers]
        share = [share_of_limit(group[OURS], machine)] if machine else []
        rows.append([first.title, *cost, *cells, *share, verdict(ratio(group))])
    return rows


def share_of_limit(ours: Result, machine) -> str:
    if not ours.times:
        return ""
    least = limit(ours.flops, ours.weight_bytes, machine)
    return f"{least.ms / ours.low:.0%} {least.binds}"


def mean_speedup(results: list[Result]) -> str:
    """The geometric means of the median speed-up: over all models, and over the headline."""
    groups = {model: ratio(group) for (model, _), group in grouped(results).items()}
    found = {model: r[1] for model, r in groups.items() if r}
    headline = [r for model, r in found.items() if model in HEADLINE]
    if not found:
        return ""
    mean = geometric_mean(found.values())
    text = f"Geometric mean of the speed-ups: {mean:.2f}x ({len(found)} models)"
    if 0 < len(headline) < len(found):
        text += f"; over the {len(headline)} headline models, "
        text += f"{geometric_mean(headline):.2f}x"
    return text + "."


def latency_header(results: list[Result], machine=None) -> list[str]:
    share = ["share of limit"] if machine else []
    return ["model", "GFLOP", "MB read", *peers_of(results), *share, "median speed-up"]


def losses(results: list[Result], ratio: Callable[[dict[str, Result]], tuple | None]) -> str:
    """A paragraph: the rows in which a peer is faster by this `ratio`, the worst first, and why."""
    found = [(name, ratio(group)) for (name, _), group in grouped(results).items()]
    lost = sorted((r[1], r[0], name) for name, r in found if r and r[1] < 1)
    lines = [f"- `{name}` {x:.2f}x vs {peer}: {cause_of(name)}" for x, peer, name in lost]
    return "\n".join(["Where a peer wins, and why:", "", *lines]) if lines else ""


def compile_rows(results: list[Result]) -> list[list[str]]:
    """A line a model, of its greatest number of threads."""
    groups: dict[str, dict[str, Result]] = {}
    for found in by_threads(results).values():
        groups |= {model: group for (model, _), group in grouped(found).items()}
    return [[next(iter(group.values())).title,
             *(_compile_cell(group.get(p)) for p in peers_of(results))]
            for group in groups.values()]  # fmt: skip


def _compile_cell(result: Result | None) -> str:
    if result is None or result.failure:
        return ""
    peak = f" / {result.peak / 1e6:.0f}" if result.peak >= 1e6 else ""  # small ones are not seen
    cold = "kept" if result.cold_s is None else f"{result.cold_s:.2f}"
    return f"{cold} / {result.warm_s:.2f}{peak}"


def scaling_rows(results: list[Result]) -> list[list[str]]:
    """How much faster each peer's fastest call is with the most threads than with one."""
    groups, peers = grouped(results), peers_of(results)
    top = max((r.threads for r in results), default=1)
    rows = []
    for (model, threads), one in groups.items():
        many = groups.get((model, top), {})
        if threads != 1 or top == 1 or not many:
            continue
        both = [(one.get(p), many.get(p)) for p in peers]
        cells = [f"{a.low / b.low:.2f}" if a and b and a.times and b.times else "" for a, b in both]
        rows.append([next(iter(one.values())).title, *cells])
    return rows


def failures(results: list[Result]) -> list[str]:
    shown = (r for r in results if r.failure and r.failure != ONNX_ONLY)
    return [f"{r.title}, {r.threads} thread(s), {r.peer}: {r.failure}" for r in shown]


def wrongs(results: list[Result]) -> list[str]:
    shown = (r for r in results if r.is_wrong)
    return [f"{r.title}, {r.threads} thread(s), {r.peer}: {r.error:.1e}" for r in shown]


SCALING = "Fastest call with one thread over that with all"


def section(place: str, results: list[Result]) -> Section:
    """All tables: latency with each number of threads, compile times, and what went wrong."""
    versions = {p: sorted({r.version for r in results if r.peer == p and r.version})
                for p in peers_of(results)}  # fmt: skip
    told = [f"{peer} {'/'.join(found)}" for peer, found in versions.items() if found]
    parts = [f"- Machine: {machine_line()}\n"
             f"- {', '.join([f'Python {platform.python_version()}', *told])}"]  # fmt: skip
    for threads, group in by_threads(results).items():
        machine = measured_machine(threads)
        parts += [f"## Latency, {threads} thread{'s' * (threads > 1)}", described(machine)]
        parts += [aligned(latency_header(group, machine), latency_rows(group, machine))]
        parts += [sources(group), mean_speedup(group), losses(group, ratio)]
    parts.append("## Compile time in seconds, cold / warm, and its peak of memory in MB")
    parts.append(aligned(["model", *peers_of(results)], compile_rows(results)))
    if rows := scaling_rows(results):
        parts += [f"## {SCALING}", aligned(["model", *peers_of(results)], rows)]
    for title, lines in (("Could not run", failures(results)), ("Wrong answers", wrongs(results))):
        if lines:
            parts += [f"## {title}", "\n".join(f"- {line}" for line in lines)]
    return Section(place, parts)


def print_tables(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    for threads, group in by_threads(results).items():
        table = Table(title=f"latency in ms, min / median / max, {threads} thread(s)")
        for column in latency_header(group):
            table.add_column(column)
        for row in latency_rows(group):
            table.add_row(*row)
        console.print(table)
    for line in failures(results):
        console.print(line, markup=False)
