"""bf16 beside its peers: how far from f32 everybody is, and how fast.

    python -m benchmarks.precision --models resnet50,gpt2_decode --threads 1,2

Errors are relative to PyTorch's f32 outputs: the root of the mean square of the difference over
that of the output, and the largest difference over the largest magnitude, the worst output of all.
Contests are those of `bench.py`: a process per peer, interleaved rounds.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import bench, zoo
from benchmarks.agreement import relative_error
from benchmarks.results import machine_line, markdown_table

OURS = "tensorwright-bf16"
PEERS = (OURS, "tensorwright", "openvino-bf16", "torch-bf16", "torch-autocast")
MODELS = (
    "resnet50", "mobilenet_v2", "bert_base", "vit_b16", "gpt2_prefill", "gpt2_decode",
    "llama_prefill", "llama_decode", "lstm2",
)  # fmt: skip


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


def contest(row: zoo.Row, peers: list[str], plan: bench.Plan) -> list[Row]:
    """All peers on one model: answers first, then rounds in rotated order."""
    wanted = row.artifact(plan.small).torch_outputs
    found = {p: Row(row.name, plan.threads, p) for p in peers}
    workers = {p: bench.Worker(p, plan.threads) for p in peers}
    try:
        for peer, worker in workers.items():
            reply = worker.ask("load", model=row.name, threads=plan.threads, small=plan.small)
            given = reply.get("error", "") or worker.answers()
            if isinstance(given, str):
                found[peer].failure = given
                continue
            found[peer].largest = relative_error(given, wanted)
            found[peer].mean = mean_error(given, wanted)
        bench.run_rounds(workers, found, plan)
    finally:
        for worker in workers.values():
            worker.close()
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


INTRO = """# bf16

Written by `python -m benchmarks.precision`. Each cell: the root mean square error and the largest
error, both relative to PyTorch in f32, then the median latency. "tensorwright" is our f32. The last
column divides the best bf16 peer's median by ours, and our mean error by the least of the peers'.
What is computed in bf16 and what is not is in `passes/precision.py`; `tw explain --precision bf16`
tells it for a model.
"""


def write_markdown(path: Path, rows: list[Row], note: str) -> None:
    parts = [INTRO, f"- Machine: {machine_line()}", f"- {note}"]
    for threads in sorted({r.threads for r in rows}):
        parts.append(f"\n## {threads} thread{'s' if threads > 1 else ''}\n")
        parts.append(table(rows, threads))
    failed = [f"- {r.model}, {r.threads} threads, {r.peer}: {r.failure}" for r in rows if r.failure]
    if failed:
        parts += ["## Could not run\n", *failed]
    path.write_text("\n".join(parts) + "\n")


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    comma = lambda text: [part for part in text.split(",") if part]
    parser.add_argument("--models", type=comma, default=list(MODELS))
    parser.add_argument("--threads", type=comma, default=["1", "2"])
    parser.add_argument("--peers", type=comma, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--gap", type=float, default=0.5)
    parser.add_argument("--small", action="store_true", help="test-size models (a smoke test)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args(argv)
    bench.ensure_exported(args.models, args.small)
    rows: list[Row] = []
    for name in args.models:
        for threads in map(int, args.threads):
            plan = bench.Plan(
                threads, args.rounds, args.seconds, args.calls, args.gap, args.small
            )  # fmt: skip
            group = contest(zoo.find(name), args.peers, plan)
            rows += group
            text = "; ".join(f"{r.peer} {cell(r)}" for r in group)
            print(f"{name}, {threads} thread(s): {text}", file=sys.stderr, flush=True)
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
