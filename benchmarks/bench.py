"""Measure Tensorwright beside its peers: one command, honest tables.

    python -m benchmarks.bench --models resnet50,lstm2 --threads 1,2 --peers ort,openvino

Peers that compile for minutes keep what they made with `--keep FOLDER`; `--join` puts new rows
beside those of earlier runs (`runs.py`), so that a long table can be made in pieces.

Every (model, threads) is one contest: a process per peer is started, pinned and loaded; rounds of
timed calls are interleaved in rotated order, all other peers stopped meanwhile, so that none's
spinning pool can disturb another; outputs are compared with ONNX Runtime's; then all processes end.
"""

import argparse
import compileall
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import page, results, runs, zoo
from benchmarks.agreement import relative_error
from benchmarks.peers import PEERS
from benchmarks.results import ONNX_ONLY, OURS, REFERENCE, Result

PLACE = "benchmarks.bench"
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Plan:
    threads: int
    rounds: int
    seconds: float
    calls: int
    gap: float
    small: bool
    keep: Path | None = None


@functools.cache
def write_byte_code() -> None:
    """What installing a package does, as it was done for the peers': otherwise a first compilation
    would count 0.8 s in which Python parses our sources."""
    compileall.compile_dir(ROOT / "tensorwright", quiet=2)


class Worker:
    """A peer's process. Its caches live in a folder of its own, empty at the start; only what
    other compilers made may be kept, in the folder `keep`."""

    def __init__(self, peer: str, threads: int, keep: Path | None = None):
        self.peer = peer
        self.folder = tempfile.TemporaryDirectory()
        env = {
            "TW_CACHE": os.path.join(self.folder.name, "tw"),
            "TW_BENCH_FOLDER": str(keep or self.folder.name),
        }
        write_byte_code()
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", peer, ",".join(map(str, cpus))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | env,
        )
        self.process.stdout.readline()  # it has started

    def ask(self, do: str, **arguments: object) -> dict:
        """One command; a process that died answers with an error too."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            return {"error": f"the process ended with status {self.process.wait()}"}
        return json.loads(reply)

    def answers(self) -> list[np.ndarray] | str:
        path = os.path.join(self.folder.name, "answers.npz")
        reply = self.ask("answers", path=path)
        if "error" in reply:
            return reply["error"]
        data = np.load(path)
        return [data[name] for name in data.files]

    def send(self, signal_: signal.Signals) -> None:
        """Stop the process, or have it go on, if it lives."""
        self.process.send_signal(signal_)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


@contextlib.contextmanager
def started(peers: list[str], plan: Plan) -> Iterator[dict[str, Worker]]:
    """A process for each of the peers, until the end of the block."""
    workers: dict[str, Worker] = {}
    try:
        for peer in peers:
            workers[peer] = Worker(peer, plan.threads, plan.keep)
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


@contextlib.contextmanager
def alone(peer: str, workers: dict[str, Worker]) -> Iterator[None]:
    """All other peers stopped: beside eight of them Tensorwright's second thread had half of its
    core (ResNet-50 16.8 ms; beside three 13.7)."""
    others = [w for p, w in workers.items() if p != peer]
    try:
        for worker in others:
            worker.send(signal.SIGSTOP)
        yield
    finally:
        for worker in others:
            worker.send(signal.SIGCONT)


def contest(row: zoo.Row, peers: list[str], plan: Plan) -> list[Result]:
    """All peers on one model at one thread count, in processes of their own."""
    able = [p for p in peers if row.has_torch or not PEERS[p].needs_torch]
    with started(able, plan) as workers:
        return measured(row, peers, workers, plan)


def measured(
    row: zoo.Row, peers: list[str], workers: dict[str, Worker], plan: Plan
) -> list[Result]:
    """What the peers' processes make of a model; who has none cannot take it."""
    meta = row.artifact(plan.small).meta
    cost = {"flops": meta["flops"], "weight_bytes": meta["weight_bytes"]}
    found = {p: Result(row.name, row.title, plan.threads, p, **cost) for p in peers}
    for peer in found.keys() - workers.keys():
        found[peer].failure = ONNX_ONLY
    for peer, worker in workers.items():
        load(worker, found[peer], plan)
    check({p: w for p, w in workers.items() if not found[p].failure}, found)
    run_rounds(workers, found, plan)
    return list(found.values())


def load(worker: Worker, result: Result, plan: Plan) -> None:
    reply = worker.ask("load", model=result.model, threads=plan.threads, small=plan.small)
    result.failure = reply.get("error", "")
    if not result.failure:
        result.version = reply["version"]
        result.cold_s, result.warm_s = reply["cold_s"], reply["warm_s"]
        result.peak = reply["peak"]
    time.sleep(plan.gap)


def check(workers: dict[str, Worker], found: dict[str, Result]) -> None:
    """Relative error of every peer against the reference peer."""
    answers = {peer: worker.answers() for peer, worker in workers.items()}
    reference = answers.get(REFERENCE)
    for peer, given in answers.items():
        if isinstance(given, str):
            found[peer].failure = given
        elif isinstance(reference, list):
            found[peer].error = relative_error(given, reference)


def run_rounds(workers: dict[str, Worker], found: dict[str, Result], plan: Plan) -> None:
    order = [peer for peer in workers if not found[peer].failure]
    for turn in range(plan.rounds):
        start = turn % len(order) if order else 0
        for peer in order[start:] + order[:start]:
            if found[peer].failure:
                continue
            with alone(peer, workers):
                time.sleep(plan.gap)
                reply = workers[peer].ask("run", seconds=plan.seconds, at_least=plan.calls)
            found[peer].failure = reply.get("error", "")
            found[peer].times += reply.get("times", [])


def ensure_exported(names: list[str], small: bool = False) -> None:
    """Export in a process of its own, so that this one never holds torch or a model."""
    command = [sys.executable, "-m", "benchmarks.zoo", *names, *(["--small"] * small)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if names else None
    if done and done.returncode:
        raise SystemExit(f"{', '.join(names)}: not exported:\n{done.stderr[-2000:]}")


# ---- the command -------------------------------------------------------------------------------


def plan_options(parser: argparse.ArgumentParser, rounds: int, seconds: float, gap: float) -> None:
    """How the commands that hold contests measure."""
    page.thread_option(parser)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds,
                        help="timed calls per peer and round")  # fmt: skip
    parser.add_argument("--calls", type=int, default=3, help="at least so many calls per round")
    parser.add_argument("--gap", type=float, default=gap, help="pause between peers, seconds")
    parser.set_defaults(small=False)
    parser.add_argument("--keep", type=lambda p: Path(p).resolve(), help="folder of compiled files")


def plan_of(args: argparse.Namespace, threads: int) -> Plan:
    return Plan(threads, args.rounds, args.seconds, args.calls, args.gap, args.small, args.keep)


def described(args: argparse.Namespace) -> str:
    """How a run measures."""
    text = f"{args.rounds} rounds of at least {args.seconds} s and {args.calls} calls per peer"
    return text + ", test-size models" * args.small


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument(
        "--models",
        type=page.comma,
        default=[row.name for row in zoo.rows()],
        help="comma-separated names; `headline` stands for those of zoo.HEADLINE",
    )
    parser.add_argument("--peers", type=page.comma,
                        default=["ort", "openvino", "torch", "inductor"])  # fmt: skip
    plan_options(parser, rounds=5, seconds=0.5, gap=0.5)
    page.small_option(parser)
    runs.options(parser)
    page.options(parser, PLACE)
    args = parser.parse_args(argv)
    if args.models == ["headline"]:
        args.models = [row.name for row in zoo.rows() if row.name in zoo.HEADLINE]
    return args


def main(argv: list[str] | None = None) -> list[Result]:
    args = parse(argv)
    # Ours always runs, and so does the reference that checks every answer.
    peers = list(dict.fromkeys([OURS, REFERENCE, *args.peers]))
    rows = runs.Rows(args, described(args), results=Result)
    for name in args.models if args.threads else ():
        ensure_exported([name], args.small)
        for threads in args.threads:
            group = contest(zoo.find(name), peers, plan_of(args, threads))
            rows.add("results", group)
            line = ", ".join(f"{r.peer} {r.cell()}" for r in group)
            print(f"{name}, {threads} thread(s): {line}", file=sys.stderr, flush=True)
    found = rows.ordered("results", [row.name for row in zoo.rows()])
    if args.markdown:
        page.publish([results.section(PLACE, found)], args.markdown, args.drop)
    else:
        results.print_tables(found)
    return found


if __name__ == "__main__":
    main()
