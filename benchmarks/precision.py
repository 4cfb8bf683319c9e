"""bf16 beside its peers: how far from f32 everybody is, and how fast.

    python -m benchmarks.precision --markdown docs/precision.md           # all of it: 8 minutes
    python -m benchmarks.precision --models resnet50,gpt2_decode --threads 1,2

Errors are relative to PyTorch's f32 outputs: the root of the mean square of the difference over
that of the output, and the largest difference over the largest magnitude, the worst output of all.
Contests are those of `bench.py`, a process per peer and interleaved rounds.
"""

import argparse
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import bench, zoo
from benchmarks.agreement import relative_error
from benchmarks.results import machine_line, markdown_table

OURS = "tensorwright-bf16"
PEERS = (OURS, "openvino-bf16", "torch-bf16", "torch-autocast")
MODELS = (
    "resnet50", "mobilenet_v2", "resnext50_32x4d", "densenet121", "vit_b16", "deit_tiny",
    "bert_base", "minilm", "gpt2_prefill", "gpt2_decode", "llama_prefill", "llama_decode", "lstm2",
    "wav2vec2_base",
)  # fmt: skip
AT_ONCE = 2  # peers that compile at the same time


@dataclass
class Row:
    """One peer on one model; times in seconds."""

    model: str
    threads: int
    peer: str
    largest: float = float("nan")
    mean: float = float("nan")
    times: list[float] = field(default_factory=list)
    failure: str = ""


def mean_error(given, reference) -> float:
    """Worst output's root mean square difference relative to its root mean square."""
    if [a.shape for a in given] != [b.shape for b in reference]:
        return float("inf")
    return max(float(norm(a - b) / max(norm(b), 1e-30)) for a, b in zip(given, reference))


def norm(a: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64).ravel()))


def contest(row: zoo.Row, peers: list[str], plans: list[bench.Plan]) -> list[Row]:
    """All peers on one model, a process each for all numbers of threads."""
    workers = {p: bench.Worker(p, max(plan.threads for plan in plans)) for p in peers}
    try:
        return [r for plan in plans for r in measured(row, workers, plan)]
    finally:
        for worker in workers.values():
            worker.close()


def measured(row: zoo.Row, workers: dict[str, bench.Worker], plan: bench.Plan) -> list[Row]:
    """Answers first, then rounds in rotated order."""
    wanted = row.artifact(plan.small).torch_outputs
    found = {p: Row(row.name, plan.threads, p) for p in workers}
    how = {"model": row.name, "threads": plan.threads, "small": plan.small, "once": True}

    def answers(worker: bench.Worker) -> list[np.ndarray] | str:
        return worker.ask("load", **how).get("error", "") or worker.answers()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        given_by = dict(zip(workers, pool.map(answers, workers.values())))
    for peer, given in given_by.items():
        if isinstance(given, str):
            found[peer].failure = given
            continue
        found[peer].largest = relative_error(given, wanted)
        found[peer].mean = mean_error(given, wanted)
    bench.run_rounds(workers, found, plan)
    return list(found.values())


def table(rows: list[Row], threads: int) -> str:
    """Markdown: a line a model; each cell error (mean, largest) and median latency."""
    peers = list(dict.fromkeys(r.peer for r in rows))
    lines = []
    for model in dict.fromkeys(r.model for r in rows if r.threads == threads):
        group = {r.peer: r for r in rows if r.model == model and r.threads == threads}
        lines.append([zoo.find(model).title, *(cell(group[p]) for p in peers), verdict(group)])
    return markdown_table(["model", *peers, "best bf16 peer / ours"], lines)


def cell(r: Row) -> str:
    if r.failure:
        return "failed"
    return f"{r.mean:.1e}, {r.largest:.1e}; {1e3 * statistics.median(r.times):.3g} ms"


def verdict(group: dict[str, Row]) -> str:
    ours = group.get(OURS)
    others = [r for p, r in group.items() if p not in (OURS, "tensorwright") and r.times]
    if ours is None or not ours.times or not others:
        return "—"
    best = min(others, key=lambda r: statistics.median(r.times))
    ratio = statistics.median(best.times) / statistics.median(ours.times)
    exact = min(r.mean for r in others)
    return f"{ratio:.2f}x ({best.peer}); error {ours.mean / max(exact, 1e-30):.2f} of the least"


INTRO = """# Computing in bf16

`tw.compile(model, precision="bf16")` multiplies in bf16 and adds in f32; inputs and results keep
their types. `passes/precision.py` has the rules, one line an operator: what is multiplied in
bf16, what is moved or stored narrow, what stays exact. `tw explain MODEL --precision bf16` prints
what came of them.

Written by `python -m benchmarks.precision --markdown docs/precision.md`. Each cell: the root mean
square of the difference from PyTorch in f32, over that of the result; the largest difference,
over the largest result; the median latency. The last column divides the median of the best bf16
peer by ours, and our first error by the least of the peers'. Random weights in the convolutional
networks amplify every rounding, whoever rounds.
"""
LIMITS = """
## What binds

- Large products run at 95 to 100 % of the bf16 peak (234 GFLOP/s a core), OpenVINO's at about 90
  %: what is bound by arithmetic cannot be much more than 1.1 times as fast.
- Convolutions in groups of 16 and more channels reach 98 % of it, groups of 4 (3x3, 56 x 56) 73
  %: what the window slides over is permuted in pairs. Groups of 8 are on F(4,3) in f32 or direct,
  by cost.
- 3x3 convolutions are on F(4,3) in f32 where that takes fewer cycles than direct products in
  bf16: tiles are not transformed in bf16, where their rounding would grow.
- Products with one row read their weights at the speed of a plain read, on one thread and on two.
- The stem of image models pads three channels to four.
"""


def write_markdown(path: Path, rows: list[Row], note: str) -> None:
    parts = [INTRO, f"- Machine: {machine_line()}", f"- {note}"]
    for threads in sorted({r.threads for r in rows}):
        parts.append(f"\n## {threads} thread{'s' if threads > 1 else ''}\n")
        parts.append(table(rows, threads))
    failed = [f"- {r.model}, {r.threads} threads, {r.peer}: {r.failure}" for r in rows if r.failure]
    if failed:
        parts += ["## Could not run\n", *failed]
    parts.append(LIMITS.rstrip())
    path.write_text("\n".join(parts) + "\n")


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    comma = lambda text: [part for part in text.split(",") if part]
    parser.add_argument("--models", type=comma, default=list(MODELS))
    parser.add_argument("--threads", type=comma, default=["1", "2"])
    parser.add_argument("--peers", type=comma, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--gap", type=float, default=0.1)
    parser.add_argument("--small", action="store_true", help="test-size models (a smoke test)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args(argv)
    bench.ensure_exported(args.models, args.small)
    rows: list[Row] = []
    plans = [bench.Plan(int(n), args.rounds, args.seconds, args.calls, args.gap, args.small)
             for n in args.threads]  # fmt: skip
    for name in args.models:
        group = contest(zoo.find(name), args.peers, plans)
        rows += group
        for r in group:
            text = f"{name}, {r.threads} thread(s): {r.peer} {cell(r)}"
            print(text, file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps([asdict(r) for r in rows]))
    note = f"{args.rounds} rounds of at least {args.seconds} s and {args.calls} calls per peer"
    note += ", test-size models" * args.small
    if args.markdown:
        write_markdown(args.markdown, rows, note)
    for threads in sorted({r.threads for r in rows}):
        print(f"{threads} thread(s)\n{table(rows, threads)}")
    return rows


if __name__ == "__main__":
    main()
