"""Single kernels beside the peers and beside what the machine can do.

    python -m benchmarks.kernels --threads 1,2 --families conv,matmul

One process per peer serves all rows; rounds are interleaved as in `benchmarks.bench`. The limit is
the larger of operations over the FMA peak and bytes (inputs, weights, results) over the bandwidth
of the cache or memory that holds them, both measured here. Times are those of the fastest calls of
all rounds: such kernels are short, and other work on the machine only ever adds to them. A ratio is
the best peer's time over Tensorwright's; Winograd does fewer operations than are counted and may
pass 100 %.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import geometric_mean

from benchmarks import results, zoo
from benchmarks.bench import Plan, Worker, check, load, run_rounds
from benchmarks.causes import cause_of
from benchmarks.limits import Limit, described, limit, measured_machine
from benchmarks.results import OURS, Result

PEERS = ("ort", "openvino", "torch")


def rows(families: list[str]) -> list[zoo.Row]:
    from benchmarks.nets.kernels import KERNELS

    return [zoo.Row(name, "kernels", name) for name, (family, _) in KERNELS.items()
            if not families or family in families]  # fmt: skip


def least_time(row: zoo.Row, machine) -> Limit:
    """From operations and bytes that must move: weights, inputs and results."""
    artifact = row.artifact()
    arrays = [*artifact.inputs.values(), *artifact.torch_outputs]
    moved = artifact.meta["weight_bytes"] + sum(a.nbytes for a in arrays)
    return limit(artifact.meta["flops"], moved, machine)


def measure(names: list[zoo.Row], peers: list[str], plan: Plan) -> list[Result]:
    """All peers on all rows at one thread count."""
    workers = {p: Worker(p, plan.threads) for p in peers}
    found: list[Result] = []
    try:
        for k, row in enumerate(names):
            meta = row.artifact().meta
            group = {p: Result(row.name, row.title, plan.threads, p, meta["flops"],
                               meta["weight_bytes"]) for p in peers}  # fmt: skip
            for p, worker in workers.items():
                load(worker, group[p], plan)
            alive = {p: w for p, w in workers.items() if not group[p].failure}
            check(alive, group)
            run_rounds({p: w for p, w in alive.items() if not group[p].failure}, group, plan)
            found += group.values()
            line = ", ".join(f"{r.peer} {r.cell()}" for r in group.values())
            print(f"{k + 1}/{len(names)} {row.name}: {line}", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    return found


def table(found: list[Result], threads: int, machine) -> tuple[list[str], list[list[str]]]:
    peers = results.peers_of(found)
    header = ["kernel", "limit ms", "binds", *peers, "share of limit", "ratio"]
    lines, ratios = [], []
    for (name, count), group in results.grouped(found).items():
        if count != threads:
            continue
        least = least_time(zoo.Row(name, "kernels", name), machine)
        ours = group[OURS]
        cells = [f"{r.low:.3g}" + " wrong" * is_wrong(r) if r.times else "failed"
                 for r in group.values()]  # fmt: skip
        share = f"{least.ms / ours.low:.0%}" if ours.times else ""
        against = ratio(group)
        if against is not None:
            ratios.append(against[1])
        verdict = f"{against[1]:.2f}x vs {against[0]}" if against else "—"
        lines.append([name, f"{least.ms:.3g}", least.binds, *cells, share, verdict])
    if ratios:
        mean = geometric_mean(ratios)
        under = sum(r < 0.9 for r in ratios)
        note = f"{mean:.2f}x, {under} of {len(ratios)} under 0.9"
        lines.append(["geometric mean", "", "", *[""] * len(peers), "", note])
    return header, lines


def losses(found: list[Result], threads: int) -> list[str]:
    """A line for each row in which a peer wins, the worst first."""
    lost = []
    for (name, count), group in results.grouped(found).items():
        against = ratio(group)
        if count == threads and against is not None and against[1] < 1:
            lost.append((against[1], f"- `{name}` {against[1]:.2f}x: {cause_of(name)}"))
    return [line for _, line in sorted(lost)]


def ratio(group: dict[str, Result]) -> tuple[str, float] | None:
    """The best peer whose answers are right, and how many times slower than us it is."""
    ours = group[OURS]
    others = [r for p, r in group.items() if p != OURS and r.times and not is_wrong(r)]
    if not ours.times or is_wrong(ours) or not others:
        return None
    best = min(others, key=lambda r: r.low)
    return best.peer, best.low / ours.low


def is_wrong(r: Result) -> bool:
    return r.error is not None and r.error > results.TOLERANCE


def export_all(names: list[zoo.Row]) -> None:
    """In a process of its own, so that this one never holds torch."""
    import subprocess

    command = [sys.executable, "-m", "benchmarks.zoo", *(r.name for r in names)]
    done = subprocess.run(command, cwd=zoo.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the kernels could not be exported:\n{done.stderr[-2000:]}")


def main(argv: list[str] | None = None) -> list[Result]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    comma = lambda text: [part for part in text.split(",") if part]
    parser.add_argument("--families", type=comma, default=[])
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--threads", type=comma, default=["1", "2"])
    parser.add_argument("--peers", type=comma, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--gap", type=float, default=0.0, help="default: 0.3 with several threads")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args(argv)
    names = [r for r in rows(args.families) if args.only in r.name]
    export_all(names)
    peers = list(dict.fromkeys([OURS, results.REFERENCE, *args.peers]))
    found: list[Result] = []
    about = __doc__.split("\n\n", 2)[2].strip()
    parts = [f"# Kernels\n\n{about}\n", f"- Machine: {results.machine_line()}"]
    for threads in map(int, args.threads):
        gap = args.gap or (0.3 if threads > 1 else 0.0)
        plan = Plan(threads, args.rounds, args.seconds, 3, gap, False)
        machine = measured_machine(threads)
        found += measure(names, peers, plan)
        header, lines = table(found, threads, machine)
        parts.append(f"\n## Milliseconds, {threads} thread{'s' * (threads > 1)}\n")
        parts.append(described(machine) + "\n")
        parts.append(f"Load of the machine, with these measurements: {os.getloadavg()[1]:.1f}.\n")
        parts.append(results.markdown_table(header, lines))
        if lost := losses(found, threads):
            parts.append("\nWhere a peer wins, and why:\n\n" + "\n".join(lost) + "\n")
        print(results.markdown_table(header, lines))
        if args.json:
            args.json.write_text(json.dumps([r.record() for r in found]))
    if args.markdown:
        args.markdown.write_text("\n".join(parts))
    return found


if __name__ == "__main__":
    main()
