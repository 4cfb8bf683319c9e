"""Single kernels beside the peers and beside what the machine can do.

    python -m benchmarks.kernels --threads 1,2 --families conv,matmul

One process per peer serves all rows; rounds are interleaved as in `benchmarks.bench`. The limit is
the larger of operations over the FMA peak and bytes (inputs, weights, results) over the bandwidth
of the cache or memory that holds them, both measured here. Times are those of the fastest calls of
all rounds: such kernels are short, and other work on the machine only ever adds to them. A ratio is
the best peer's time over Tensorwright's; Winograd and Strassen do fewer operations than are counted
and may pass 100 %.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from statistics import geometric_mean
from typing import NamedTuple

from benchmarks import bench, results, runs, zoo
from benchmarks.bench import Plan, measured, started
from benchmarks.limits import Limit, described, limit, machine_line, measured_machine
from benchmarks.page import Section, aligned, comma, options, publish
from benchmarks.results import OURS, Result
from benchmarks.runs import sources

PEERS = ("ort", "openvino", "torch")
THREADS_GAP = 0.3  # seconds in which a peer's threads stop to look for work


class Collection(NamedTuple):
    """Single operators that one command measures. place: of their tables in a page, and the
    command; module: the file of `nets` that builds them."""

    place: str
    module: str

    def rows(self, families: list[str]) -> list[zoo.Row]:
        kernels = importlib.import_module(f"benchmarks.nets.{self.module}").KERNELS
        return [zoo.find(name) for name, (family, _) in kernels.items()
                if not families or family in families]  # fmt: skip


KERNELS = Collection("benchmarks.kernels", "kernels")


def least_time(row: zoo.Row, machine) -> Limit:
    """From operations and bytes that must move: weights, inputs and results."""
    artifact = row.artifact()
    arrays = [*artifact.inputs.values(), *artifact.torch_outputs]
    moved = artifact.meta["weight_bytes"] + sum(a.nbytes for a in arrays)
    return limit(artifact.meta["flops"], moved, machine)


def measure(names: list[zoo.Row], peers: list[str], plan: Plan) -> Iterator[list[Result]]:
    """All peers at one thread count: of each row, what they made of it."""
    with started(peers, plan) as workers:
        for k, row in enumerate(names):
            group = measured(row, peers, workers, plan)
            line = ", ".join(f"{r.peer} {r.cell()}" for r in group)
            print(f"{k + 1}/{len(names)} {row.name}: {line}", file=sys.stderr, flush=True)
            yield group


def table(found: list[Result], machine) -> str:
    """Of the rows with one number of threads."""
    peers = results.peers_of(found)
    header = ["kernel", "limit ms", "binds", *peers, "share of limit", "ratio"]
    lines, ratios = [], []
    for (name, _), group in results.grouped(found).items():
        least = least_time(zoo.find(name), machine)
        ours, against = group[OURS], ratio(group)
        share = f"{least.ms / ours.low:.0%}" if ours.times else ""
        ratios += [against[1]] if against else []
        lines.append([name, f"{least.ms:.3g}", least.binds, *(cell(group.get(p)) for p in peers),
                      share, results.verdict(against)])  # fmt: skip
    if ratios:
        under = sum(r < 0.9 for r in ratios)
        note = f"{geometric_mean(ratios):.2f}x, {under} of {len(ratios)} under 0.9"
        lines.append(["geometric mean", "", "", *[""] * len(peers), "", note])
    return aligned(header, lines)


def cell(r: Result | None) -> str:
    if r is None:
        return ""
    return f"{r.low:.3g}" + " WRONG" * r.is_wrong if r.times else "failed"


def ratio(group: dict[str, Result]) -> tuple[str, float] | None:
    return results.best_peer(group, lambda r: r.low)


def section(place: str, found: list[Result]) -> Section:
    parts = [f"Measured on {machine_line()}."]
    for threads, group in results.by_threads(found).items():
        machine = measured_machine(threads)
        parts += [f"## Milliseconds, {threads} thread{'s' * (threads > 1)}", described(machine),
                  table(group, machine), sources(group),
                  results.losses(group, ratio)]  # fmt: skip
    return Section(place, parts)


def run(of: Collection, description: str | None, argv: list[str] | None) -> list[Result]:
    parser = argparse.ArgumentParser(prog=f"python -m {of.place}", description=description)
    parser.add_argument("--families", type=comma, default=[])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--peers", type=comma, default=list(PEERS))
    bench.plan_options(parser, rounds=3, seconds=0.05, gap=0.0)
    runs.options(parser)
    options(parser, of.place)
    args = parser.parse_args(argv)
    names = [r for r in of.rows(args.families) if args.only in r.name] if args.threads else []
    bench.ensure_exported([r.name for r in names])
    peers = list(dict.fromkeys([OURS, results.REFERENCE, *args.peers]))
    kept = runs.Rows(args, bench.described(args), results=Result)
    for threads in args.threads:
        plan = bench.plan_of(args, threads)
        plan = replace(plan, gap=plan.gap or (THREADS_GAP if threads > 1 else 0.0))
        for group in measure(names, peers, plan):
            kept.add("results", group)
    found = kept.ordered("results", [r.name for r in of.rows([])])
    publish([section(of.place, found)], args.markdown, args.drop)
    return found


def main(argv: list[str] | None = None) -> list[Result]:
    return run(KERNELS, __doc__, argv)


if __name__ == "__main__":
    main()
