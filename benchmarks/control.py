"""Models with control flow, recursion and data types beside PyTorch and ONNX Runtime.

    python -m benchmarks.control                             an aligned table
    python -m benchmarks.control --only tree,lstm --threads 1,2
    python -m benchmarks.control --markdown docs/benchmarks_dynamic.md

Each input is run by all peers in turn, many times; a row adds up the best time of every input (CPU
time with one thread, else wall time). With several threads a peer begins after a rest, with a call
that is not timed: PyTorch's threads go on looking for work for a while and would take a core from
whoever comes next. Results are compared with PyTorch's first. `torch.compile` and ONNX Runtime
appear where they can run the model as one program for all inputs.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import tensorwright as tw
from benchmarks.nets.programs import PROGRAMS, Program
from benchmarks.page import TITLES, Table, comma, measured_on, options, publish, thread_option
from benchmarks.turns import clock_of, in_turns, rest_of
from tensorwright import numpy as tnp

ROUNDS = 12
STEPS = 200_000  # of the loops whose overhead is measured
PEERS = ("tensorwright", "eager", "inductor", "ort")
MODELS, OVERHEADS = "benchmarks.control: models", "benchmarks.control: overheads"


@dataclass(frozen=True)
class Row:
    name: str
    threads: int
    microseconds: dict[str, float]  # for one unit of work, by peer
    unit: str

    def speedup(self, peer: str) -> str:
        t = self.microseconds
        return f"{t[peer] / t['tensorwright']:.2f}x" if peer in t else "-"


def onnx_session(p: Program, threads: int):
    """ONNX Runtime on the exported module; every length is one dynamic dimension."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    file = io.BytesIO()
    torch.onnx.export(p.module, p.torch[0], file, dynamo=False, opset_version=17,
                      input_names=["tokens"], dynamic_axes={"tokens": {0: "n"}})  # fmt: skip
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda tokens: session.run(None, {"tokens": tokens})


def peers_of(p: Program, threads: int) -> dict[str, tuple[Callable, list[tuple]]]:
    """peer -> (what runs the model, its inputs)."""
    found = {"tensorwright": (tw.compile(p.ours, threads=threads), p.inputs),
             "eager": (p.eager, p.torch)}  # fmt: skip
    if p.module is not None:
        compiled = torch.compile(p.module, dynamic=True)
        try:
            for inputs in p.torch[:3]:
                compiled(*inputs)
            found["inductor"] = (compiled, p.torch)
        except Exception as e:  # no C++ compiler, or a model it cannot take
            print(f"torch.compile cannot run {p.name}: {type(e).__name__}")
        found["ort"] = (onnx_session(p, threads), p.inputs)
    return found


def check(p: Program, found: dict) -> None:
    """ValueError unless all peers agree with PyTorch on every input."""
    for k, inputs in enumerate(p.torch):
        expected = flat(p.eager(*inputs))
        for peer, (call, given) in found.items():
            for a, b in zip(flat(call(*given[k])), expected, strict=True):
                worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
                if worst > 1e-3:
                    raise ValueError(f"{p.name}: {peer} differs by {worst:.1e} on input {k}")


def flat(result) -> list[np.ndarray]:
    result = result if isinstance(result, (tuple, list)) else [result]
    return [np.asarray(r, np.float64) for r in result]


def compare(p: Program, threads: int) -> Row:
    torch.set_num_threads(threads)
    torch._dynamo.reset()  # what it compiled for another number of threads
    with torch.inference_mode():
        found = peers_of(p, threads)
        check(p, found)
        total = dict.fromkeys(found, 0.0)
        for k in range(len(p.inputs)):
            calls = {peer: partial(call, *given[k]) for peer, (call, given) in found.items()}
            times = in_turns(calls, clock_of(threads), ROUNDS, rest=rest_of(threads))
            for peer, measured in times.items():
                total[peer] += min(measured)
    units = sum(p.work)
    return Row(p.name, threads, {k: t / units * 1e6 for k, t in total.items()}, p.unit)


# ---- what control itself costs -----------------------------------------------------------------

Cells = tw.List[tw.f32]


@tw.function
def steps(n: tw.i64, x: tw.f32):
    body = lambda s: (s[0] + 1, s[1] * 0.999)
    return tw.while_loop(lambda s: s[0] < n, body, (tnp.asarray(0), x))[1]


@tw.function
def branches(n: tw.i64, x: tw.f32):
    def body(s):
        k, x = s
        return k + 1, tw.cond(x > 0.5, lambda: x * 0.999, lambda: x + 0.5)

    return tw.while_loop(lambda s: s[0] < n, body, (tnp.asarray(0), x))[1]


@tw.function
def fibonacci(n: tw.i64) -> tw.i64:
    return tw.cond(n < 2, lambda: n, lambda: fibonacci(n - 1) + fibonacci(n - 2))


@tw.function
def countdown(n: tw.i64, x: tw.f32) -> tw.f32:
    return tw.cond(n <= 0, lambda: x, lambda: countdown(n - 1, x * 0.999))


@tw.function
def built(n: tw.i64):
    body = lambda s: (s[0] + 1, Cells.Cons(1.0, s[1]))
    return tw.while_loop(lambda s: s[0] < n, body, (tnp.asarray(0), Cells.Nil()))[1]


@tw.function
def summed(xs: Cells, total: tw.f32) -> tw.f32:
    return tw.match(xs, Nil=lambda: total, Cons=lambda h, t: summed(t, total + h))


@tw.function
def raised(xs: Cells) -> Cells:
    return tw.match(xs, Nil=Cells.Nil, Cons=lambda h, t: Cells.Cons(h + 1, raised(t)))


@tw.function
def lists(n: tw.i64):
    return summed(raised(built(n)), 0.0)


def overheads() -> Iterator[tuple[str, float]]:
    """(what, nanoseconds for one of it)."""
    n, x = np.int64(STEPS), np.float32(1)
    calls = 242_785  # of fibonacci(25)
    for what, f, inputs, count in (
        ("step of a loop on scalars", steps, (n, x), STEPS),
        ("step of a loop with a branch", branches, (n, x), STEPS),
        ("call of a recursive function, with its branch", fibonacci, (np.int64(25),), calls),
        ("tail call, with its branch", countdown, (n, x), STEPS),
        ("list cell: made, changed in place, matched, freed", lists, (np.int64(10_000),), 10_000),
    ):
        program = tw.compile(f, threads=1)
        program(*inputs)
        times = in_turns({what: partial(program, *inputs)}, time.process_time, ROUNDS)[what]
        yield what, min(times) / count * 1e9


# ---- tables ------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> Table:
    gains = [f"over {TITLES[p]}" for p in PEERS[1:]]
    header = ["microseconds for", "threads", *(TITLES[p] for p in PEERS), *gains]
    lines = []
    for r in rows:
        times = [f"{r.microseconds[p]:.3g}" if p in r.microseconds else "-" for p in PEERS]
        gains = [r.speedup(p) for p in PEERS[1:]]
        lines.append([f"a {r.unit}: {r.name}", str(r.threads), *times, *gains])
    return Table(MODELS, 1, header, lines, measured_on(PEERS))


def overhead_table() -> Table:
    rows = [[what, f"{ns:.1f}"] for what, ns in overheads()]
    return Table(OVERHEADS, 1, ["control", "ns"], rows, measured_on(()))


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--only", type=comma, default=[*PROGRAMS, "overheads"])
    thread_option(parser)
    options(parser, MODELS, OVERHEADS)
    args = parser.parse_args(argv)
    rows = [compare(PROGRAMS[name](), threads)
            for name in args.only if name in PROGRAMS for threads in args.threads]  # fmt: skip
    tables = [table(rows)] if rows else []
    tables += [overhead_table()] if "overheads" in args.only else []
    publish(tables, args.markdown, args.drop)
    return rows


if __name__ == "__main__":
    main()
