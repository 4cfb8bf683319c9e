"""bf16 beside its peers: how far from f32 everybody is, and how fast.

    python -m benchmarks.precision --markdown docs/precision.md           # all of it: 8 minutes
    python -m benchmarks.precision --models resnet50,gpt2_decode --threads 1,2

Errors are relative to PyTorch's f32 outputs: the root of the mean square of the difference over
that of the output, and the largest difference over the largest magnitude, the worst output of all.
Contests are those of `bench.py`, a process per peer and interleaved rounds.
"""

import argparse
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from benchmarks import bench, runs, zoo
from benchmarks.agreement import relative_error
from benchmarks.limits import machine_line
from benchmarks.page import Section, aligned, comma, options, publish, small_option
from benchmarks.runs import Measured, by_key, sources

PLACE = "benchmarks.precision"
OURS = "tensorwright-bf16"
PEERS = (OURS, "openvino-bf16", "torch-bf16", "torch-autocast")
MODELS = (
    "resnet50", "mobilenet_v2", "resnext50_32x4d", "densenet121", "vit_b16", "deit_tiny",
    "bert_base", "minilm", "gpt2_prefill", "gpt2_decode", "llama_prefill", "llama_decode", "lstm2",
    "wav2vec2_base",
)  # fmt: skip
AT_ONCE = 2  # peers that compile at the same time


@dataclass
class Row(Measured):
    """One peer on one model; times in seconds."""

    model: str
    threads: int
    peer: str
    largest: float = float("nan")
    mean: float = float("nan")
    times: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.model, self.threads


def mean_error(given, reference) -> float:
    """Worst output's root mean square difference relative to its root mean square."""
    if [a.shape for a in given] != [b.shape for b in reference]:
        return float("inf")
    return max(float(norm(a - b) / max(norm(b), 1e-30)) for a, b in zip(given, reference))


def norm(a: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64).ravel()))


def contest(row: zoo.Row, peers: list[str], plans: list[bench.Plan]) -> list[Row]:
    """All peers on one model, a process each for all numbers of threads."""
    with bench.started(peers, max(plans, key=lambda plan: plan.threads)) as workers:
        return [r for plan in plans for r in measured(row, workers, plan)]


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


def table(rows: list[Row]) -> str:
    """A line a model, of one number of threads; each cell error (mean, largest) and median
    latency."""
    peers = list(dict.fromkeys(r.peer for r in rows))
    lines = []
    for (model, _), found in by_key(rows).items():
        group = {r.peer: r for r in found}
        lines.append([zoo.find(model).title, *(cell(group.get(p)) for p in peers), verdict(group)])
    return aligned(["model", *peers, "best bf16 peer / ours"], lines)


def cell(r: Row | None) -> str:
    if r is None:
        return ""
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


def section(rows: list[Row]) -> Section:
    parts = [f"Measured on {machine_line()}."]
    for threads in sorted({r.threads for r in rows}):
        group = [r for r in rows if r.threads == threads]
        parts += [f"## {threads} thread{'s' * (threads > 1)}", table(group), sources(group)]
    failed = [f"- {r.model}, {r.threads} thread(s), {r.peer}: {r.failure}"
              for r in rows if r.failure]  # fmt: skip
    return Section(PLACE, parts + ["## Could not run", "\n".join(failed)] * bool(failed))


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--models", type=comma, default=list(MODELS))
    parser.add_argument("--peers", type=comma, default=list(PEERS))
    bench.plan_options(parser, rounds=3, seconds=0.3, gap=0.1)
    small_option(parser)
    runs.options(parser)
    options(parser, PLACE)
    args = parser.parse_args(argv)
    kept = runs.Rows(args, bench.described(args), rows=Row)
    plans = [bench.plan_of(args, threads) for threads in args.threads]
    for name in args.models if plans else ():
        bench.ensure_exported([name], args.small)
        group = contest(zoo.find(name), args.peers, plans)
        kept.add("rows", group)
        for r in group:
            text = f"{name}, {r.threads} thread(s): {r.peer} {cell(r)}"
            print(text, file=sys.stderr, flush=True)
    rows = kept.ordered("rows", MODELS)
    publish([section(rows)], args.markdown, args.drop)
    return rows


if __name__ == "__main__":
    main()
