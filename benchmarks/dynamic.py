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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks import runs, zoo
from benchmarks.agreement import TOLERANCE, relative_error
from benchmarks.page import (
    TITLES,
    Table,
    comma,
    measured_on,
    options,
    publish,
    small_option,
    thread_option,
)
from benchmarks.runs import Measured, by_key, sources
from benchmarks.sequence import Job, Run, as_list, contest
from benchmarks.sizes import RANGES, Model, Sizes
from benchmarks.turns import clock_of, in_turns

SEQUENCE, STATIC = "benchmarks.dynamic: sequence", "benchmarks.dynamic: static"
OURS, PEERS = "tensorwright", ("ort", "openvino", "inductor")


# ---- symbolic over static ----------------------------------------------------------------------


@dataclass
class Ratio(Measured):
    """Best seconds of one call at one size."""

    model: str
    sizes: Sizes
    threads: int
    symbolic: float
    static: float

    @property
    def key(self) -> tuple:
        return self.model, tuple(self.sizes.items()), self.threads

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
    found: list[Run] = []
    for count in threads:
        slow = {r.job.engine for r in found if r.stopped}
        jobs = [replace(plan, engine=e, threads=count) for e in (OURS, *peers)]
        found += contest([j for j in jobs if j.engine not in slow], limit)
        found += [Run(j, failure="not run") for j in jobs if j.engine in slow]
    return found


def sequence_table(found: Sequence[Run], note: str) -> Table:
    """A line a model and number of threads."""
    engines = list(dict.fromkeys(r.job.engine for r in found))
    titles = [TITLES[e] for e in engines]
    header = ["model", "threads", *titles, "recompiled", "best peer over ours"]
    rows = []
    for (model, threads), runs_of in by_key(found).items():
        group = {r.job.engine: r for r in runs_of}
        told = [f"{TITLES[e]} {r.recompiled}" for e, r in group.items() if r.recompiled is not None]
        rows.append([zoo.find(model).title, str(threads), *(cell(group.get(e)) for e in engines),
                     ", ".join(told), speed_up(group)])  # fmt: skip
    return Table(SEQUENCE, 1, header, rows, note)


def cell(r: Run | None) -> str:
    if r is None:
        return ""
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
    small_option(parser)
    thread_option(parser)
    runs.options(parser)
    options(parser, SEQUENCE, STATIC)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> tuple[list[Ratio], list[Run]]:
    args = parse(argv)
    how = f"at least {args.seconds} s a comparison, {args.shapes} shapes a sequence"
    kept = runs.Rows(args, how + ", test-size models" * args.small, ratios=Ratio, runs=Run)
    for name in args.models if args.threads else ():
        model, points = Model(name, args.small), RANGES[name].points
        for threads in args.threads if args.seconds else ():
            points = points[:1] if args.small else points
            kept.add("ratios", compare_with_static(model, points, threads, args.seconds))
        if args.shapes:
            plan = Job(name, OURS, 1, args.shapes, args.small)
            kept.add("runs", sequences(plan, args.threads, args.peers, args.limit))
        print(f"{name} done", file=sys.stderr, flush=True)
    ratios, found = kept.ordered("ratios", list(RANGES)), kept.ordered("runs", list(RANGES))
    on = lambda peers, rows: f"{measured_on(peers, timed=False)} {sources(rows)}"
    peers = dict.fromkeys(r.job.engine for r in found)
    tables = [sequence_table(found, on(list(peers), found))] if found else []
    tables += [static_table(ratios, on((), ratios))] if ratios else []
    publish(tables, args.markdown, args.drop)
    return ratios, found


if __name__ == "__main__":
    main()
