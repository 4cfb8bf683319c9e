"""What one benchmark run measured, and its tables in the terminal and in Markdown.

Invariant: every (model, threads, peer) that was asked for has a `Result`; one that could not run
carries the first line of its error, and losing rows stay.
"""

import json
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import geometric_mean

from benchmarks.agreement import TOLERANCE
from benchmarks.causes import cause_of
from benchmarks.limits import described, limit, measured_machine
from benchmarks.zoo import HEADLINE

OURS, REFERENCE = "tensorwright", "ort"


@dataclass
class Result:
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
        wrong = "" if self.error is None or self.error <= TOLERANCE else f" WRONG {self.error:.0e}"
        return f"{self.low:.3g} / {self.median:.3g} / {self.high:.3g}{wrong}"

    def record(self) -> dict:
        return asdict(self)


ONNX_ONLY = "no PyTorch form"


def read(path: Path) -> list[Result]:
    """The results of a file that an earlier run wrote; none if there is no file."""
    return [Result(**r) for r in json.loads(path.read_text())] if path.exists() else []


def joined(earlier: list[Result], group: list[Result]) -> list[Result]:
    """With `group`, one model at one number of threads, in the place of what it had before."""
    key = lambda r: (r.model, r.threads)
    place = next((k for k, r in enumerate(earlier) if key(r) == key(group[0])), len(earlier))
    rest = [r for r in earlier if key(r) != key(group[0])]
    return rest[:place] + group + rest[place:]


def machine_line() -> str:
    """Processor, cores visible, memory: the line that every number depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(part.split(":", 1) for part in lines if ":" in part)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    wide = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if f in flags]
    cores = sum(line.startswith("processor") for line in lines)
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines())
    memory = int(total.split()[1]) >> 20
    name = fields.get("model name", platform.processor())
    model = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{name} ({model}), {cores} cores, {memory} GiB, {' '.join(wide)}"


def grouped(results: list[Result]) -> dict[tuple[str, int], dict[str, Result]]:
    groups: dict[tuple[str, int], dict[str, Result]] = {}
    for result in results:
        groups.setdefault((result.model, result.threads), {})[result.peer] = result
    return groups


def ratio(group: dict[str, Result]) -> tuple[str, float] | None:
    """The best peer and how many times slower than us its median is (below 1: we lose)."""
    ours = group.get(OURS)
    others = [r for r in group.values() if r.peer != OURS and r.times]
    if ours is None or not ours.times or not others:
        return None
    best = min(others, key=lambda r: r.median)
    return best.peer, best.median / ours.median


def verdict(group: dict[str, Result]) -> str:
    against = ratio(group)
    return f"{against[1]:.2f}x vs {against[0]}" if against else "—"


def peers_of(results: list[Result]) -> list[str]:
    return list(dict.fromkeys(r.peer for r in results))


def latency_rows(results: list[Result], threads: int, machine=None) -> list[list[str]]:
    """A line a model; the share of the limit where the machine's is known (`limits`)."""
    peers = peers_of(results)
    rows = []
    for (_, count), group in grouped(results).items():
        if count != threads:
            continue
        first = next(iter(group.values()))
        cost = [f"{first.flops / 1e9:.3g}", f"{first.weight_bytes / 1e6:.3g}"]
        cells = [group[p].cell() if p in group else "" for p in peers]
        share = [share_of_limit(group[OURS], machine)] if machine else []
        rows.append([first.title, *cost, *cells, *share, verdict(group)])
    return rows


def share_of_limit(ours: Result, machine) -> str:
    if not ours.times:
        return ""
    least = limit(ours.flops, ours.weight_bytes, machine)
    return f"{least.ms / ours.low:.0%} {least.binds}"


def mean_speedup(results: list[Result], threads: int) -> str:
    """The geometric means of the median speed-up: over all models, and over the headline."""
    groups = {m: ratio(g) for (m, count), g in grouped(results).items() if count == threads}
    found = {model: r[1] for model, r in groups.items() if r}
    headline = [r for model, r in found.items() if model in HEADLINE]
    if not found:
        return ""
    mean = geometric_mean(found.values())
    text = f"Geometric mean of the speed-ups: {mean:.2f}x ({len(found)} models)"
    if 0 < len(headline) < len(found):
        text += f"; over the {len(headline)} headline models, "
        text += f"{geometric_mean(headline):.2f}x"
    return text + ".\n"


def latency_header(results: list[Result], machine=None) -> list[str]:
    share = ["share of limit"] if machine else []
    return ["model", "GFLOP", "MB read", *peers_of(results), *share, "median speed-up"]


def losses(results: list[Result], threads: int) -> list[str]:
    """A line for each model on which a peer's median is lower, the worst first."""
    groups = {m: ratio(g) for (m, count), g in grouped(results).items() if count == threads}
    lost = sorted((r[1], r[0], model) for model, r in groups.items() if r and r[1] < 1)
    return [f"- `{model}` {x:.2f}x vs {peer}: {cause_of(model)}" for x, peer, model in lost]


def compile_rows(results: list[Result]) -> list[list[str]]:
    rows, peers = [], peers_of(results)
    top = max((r.threads for r in results), default=1)
    for (_, threads), group in grouped(results).items():
        if threads == top:
            cells = [_compile_cell(group.get(p)) for p in peers]
            rows.append([next(iter(group.values())).title, *cells])
    return rows


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


def failures(results: list[Result]) -> list[list[str]]:
    shown = (r for r in results if r.failure and r.failure != ONNX_ONLY)
    return [[r.title, str(r.threads), r.peer, r.failure] for r in shown]


def wrongs(results: list[Result]) -> list[list[str]]:
    shown = (r for r in results if r.error is not None and r.error > TOLERANCE)
    return [[r.title, str(r.threads), r.peer, f"{r.error:.1e}"] for r in shown]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    clean = lambda cells: "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
    return "\n".join([clean(header), "|" + "---|" * len(header), *map(clean, rows)]) + "\n"


SCALING = "Fastest call with one thread over that with all"
INTRO = """# Benchmarks

Written by `python -m benchmarks.bench`. Batch 1 unless the name says otherwise, float32, random
weights in the true architectures (rows marked "trained" carry real ones). One process per peer,
rounds interleaved in rotated order with a pause between them, threads and cores pinned. Latency is
min / median / max in milliseconds over all timed calls. "Median speed-up" is the best peer's median
over Tensorwright's: below 1 Tensorwright is slower. Outputs are compared with ONNX Runtime's in the
same run; a relative error above 1e-4 is shown as WRONG. "MB read" leaves out tables of which a call
gathers single rows. The limit is the larger of operations over the FMA peak and bytes of weights
over the bandwidth of the level that holds them; Winograd does fewer operations than are counted.
"""


def write_markdown(path: Path, results: list[Result], note: str) -> None:
    versions = {r.peer: r.version for r in results if r.version}
    parts = [INTRO, f"- Machine: {machine_line()}", f"- Python {platform.python_version()}, "]
    parts[-1] += ", ".join(f"{peer} {version}" for peer, version in versions.items())
    parts.append(f"- {note}")
    for threads in sorted({r.threads for r in results}):
        parts.append(f"\n## Latency, {threads} thread{'s' if threads > 1 else ''}\n")
        machine = measured_machine(threads)
        parts.append(described(machine) + "\n")
        header = latency_header(results, machine)
        parts.append(markdown_table(header, latency_rows(results, threads, machine)))
        parts.append(mean_speedup(results, threads))
        if lost := losses(results, threads):
            parts.append("Where a peer wins, and why:\n\n" + "\n".join(lost) + "\n")
    parts.append("## Compile time in seconds, cold / warm, and its peak of memory in MB\n")
    parts.append(markdown_table(["model", *peers_of(results)], compile_rows(results)))
    for title, header, rows in (
        (SCALING, ["model", *peers_of(results)], scaling_rows(results)),
        ("Could not run", ["model", "threads", "peer", "error"], failures(results)),
        ("Wrong answers", ["model", "threads", "peer", "relative error"], wrongs(results)),
    ):
        if rows:
            parts += [f"## {title}\n", markdown_table(header, rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts))


def print_tables(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    for threads in sorted({r.threads for r in results}):
        table = Table(title=f"latency in ms, min / median / max, {threads} thread(s)")
        for column in latency_header(results):
            table.add_column(column)
        for row in latency_rows(results, threads):
            table.add_row(*row)
        console.print(table)
    for title, threads, peer, failure in failures(results):
        console.print(f"{title}, {threads} thread(s), {peer}: {failure}", markup=False)
