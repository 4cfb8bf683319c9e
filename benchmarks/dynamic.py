"""One program for all shapes, beside programs for one shape and beside the peers.

    python -m benchmarks.dynamic --models bert_any,vit_any --shapes 50 --peers ort,openvino,inductor
    python -m benchmarks.dynamic --markdown docs/benchmarks_dynamic.md

Two tables. *Symbolic over static*: the time of the program for all shapes over that of a program
compiled for one shape, calls in turns in one process, the best of many; CPU time with one thread.
*A sequence of shapes*: every engine, in a process of its own, compiles once and runs the same
sequence of distinct shapes (`sequence.py`); one that needs more than `--limit` seconds is stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import zoo
from benchmarks.agreement import TOLERANCE, relative_error
from benchmarks.page import TITLES, Table, comma, measured_on, options, publish, thread_option
from benchmarks.sequence import Job, Run, as_list, contest
from benchmarks.sizes import RANGES, Model, Sizes
from benchmarks.turns import clock_of, in_turns

SEQUENCE, STATIC = "benchmarks.dynamic: sequence", "benchmarks.dynamic: static"
OURS, PEERS = "tensorwright", ("ort", "openvino", "inductor")


# ---- symbolic over static ----------------------------------------------------------------------


@dataclass
class Ratio:
    """Best seconds of one call at one size."""

    model: str
    sizes: Sizes
    threads: int
    symbolic: float
    static: float

    @property
    def ratio(self) -> float:
        return self.symbolic / self.static


def compare_with_static(
    model: Model, points: Sequence[Sizes], threads: int, seconds: float
) -> list[Ratio]:
    import tensorwright as tw

    path, found = model.artifact.onnx, []
    symbolic = tw.compile(path, threads=threads)
    for sizes in points:
        static = tw.compile(path, threads=threads, shapes=model.static(sizes))
        feeds = model.feeds(sizes)
        error = relative_error(as_list(symbolic(**feeds)), as_list(static(**feeds)))
        if error > TOLERANCE:
            raise SystemExit(f"{model.row.name} {sizes}: the results differ by {error:.1e}")
        calls = {"symbolic": lambda f=feeds: symbolic(**f),
                 "static": lambda p=static, f=feeds: p(**f)}  # fmt: skip
        times = in_turns(calls, clock_of(threads), 5, seconds)
        best = {name: min(t) for name, t in times.items()}
        found.append(Ratio(model.row.name, sizes, threads, **best))
    return found


def static_table(found: Sequence[Ratio], note: str) -> Table:
    """A line a model and size, all numbers of threads beside each other."""
    counts = sorted({r.threads for r in found})
    header = ["model", "sizes"]
    for n in counts:
        header += [f"ms, {n} thread{'s' * (n > 1)}", "for this size", "ratio"]
    lines: dict[tuple[str, str], list[str]] = {}
    for r in sorted(found, key=lambda r: r.threads):
        sizes = ", ".join(f"{n}={v}" for n, v in r.sizes.items())
        line = lines.setdefault((r.model, sizes), [zoo.find(r.model).title, sizes])
        line += [f"{1e3 * r.symbolic:.2f}", f"{1e3 * r.static:.2f}", f"{r.ratio:.2f}"]
    return Table(STATIC, 2, header, list(lines.values()), note)


# ---- a sequence of shapes ----------------------------------------------------------------------


def sequences(plan: Job, threads: Sequence[int], peers: Sequence[str], limit: float) -> list[Run]:
    """All engines over the plan's sequence with each number of threads. Who was stopped is not run
    again: compiling takes as long."""
    runs: list[Run] = []
    for count in threads:
        slow = {r.job.engine for r in runs if r.stopped}
        jobs = [replace(plan, engine=e, threads=count) for e in (OURS, *peers)]
        runs += contest([j for j in jobs if j.engine not in slow], limit)
        runs += [Run(j, failure="not run") for j in jobs if j.engine in slow]
    return runs


def sequence_table(runs: Sequence[Run], note: str) -> Table:
    """A line a model and number of threads."""
    engines = list(dict.fromkeys(r.job.engine for r in runs))
    titles = [TITLES[e] for e in engines]
    header = ["model", "threads", *titles, "recompiled", "best peer over ours"]
    groups: dict[tuple[str, int], dict[str, Run]] = {}
    for r in runs:
        groups.setdefault((r.job.model, r.job.threads), {})[r.job.engine] = r
    rows = []
    for (model, threads), group in groups.items():
        told = [f"{TITLES[e]} {r.recompiled}" for e, r in group.items() if r.recompiled is not None]
        rows.append([zoo.find(model).title, str(threads), *(cell(group[e]) for e in engines),
                     ", ".join(told), speed_up(group)])  # fmt: skip
    return Table(SEQUENCE, 1, header, rows, note)


def cell(r: Run) -> str:
    return r.failure or f"{r.first_s:.2f} / {r.again_s:.2f}"


def speed_up(group: dict[str, Run]) -> str:
    """Of both passes; the best peer may be another one in each."""
    ours, *others = group[OURS], *(r for e, r in group.items() if e != OURS and not r.failure)
    if ours.failure or not others:
        return "-"
    first = min(r.first_s for r in others) / ours.first_s
    return f"{first:.2f}x / {min(r.again_s for r in others) / ours.again_s:.2f}x"


# ---- the command -------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamic", description=__doc__)
    parser.add_argument("--models", type=comma, default=list(RANGES))
    parser.add_argument("--peers", type=comma, default=list(PEERS), help="in the sequence")
    parser.add_argument("--shapes", type=int, default=50, help="distinct shapes; 0: no sequence")
    parser.add_argument("--limit", type=float, default=240, help="seconds of a peer's sequence")
    parser.add_argument("--seconds", type=float, default=1.0,
                        help="per comparison with static; 0: none")  # fmt: skip
    parser.add_argument("--small", action="store_true", help="test-size models (a smoke test)")
    parser.add_argument("--json", type=Path)
    thread_option(parser)
    options(parser, SEQUENCE, STATIC)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> tuple[list[Ratio], list[Run]]:
    args = parse(argv)
    ratios: list[Ratio] = []
    runs: list[Run] = []
    for name in args.models:
        model, points = Model(name, args.small), RANGES[name].points
        for threads in args.threads if args.seconds else ():
            points = points[:1] if args.small else points
            ratios += compare_with_static(model, points, threads, args.seconds)
        if args.shapes:
            plan = Job(name, OURS, 1, args.shapes, args.small)
            runs += sequences(plan, args.threads, args.peers, args.limit)
        print(f"{name} done", file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps({"ratios": [asdict(r) for r in ratios],
                                             "runs": [asdict(r) for r in runs]}))  # fmt: skip
    tables = [sequence_table(runs, measured_on(args.peers))] if runs else []
    tables += [static_table(ratios, measured_on(()))] if ratios else []
    publish(tables, args.markdown)
    return ratios, runs


if __name__ == "__main__":
    main()
