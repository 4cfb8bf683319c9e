"""One program for all shapes, beside programs for one shape and beside the peers.

    python -m benchmarks.dynamic --models bert_any,vit_any --shapes 50 --peers ort,openvino,inductor

Two tables. *Symbolic over static*: the time of the program for all shapes over that of a program
compiled for one shape, calls in turns in one process, the best of many by CPU time. *A sequence of
shapes*: every engine compiles once and runs the same sequence of distinct shapes twice; the first
time shows what new shapes cost, the second what is left when all were seen; recompilations are
counted where an engine tells them. One thread unless asked, then by CPU time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import zoo
from benchmarks.agreement import TOLERANCE, relative_error
from tensorwright.runtime import dims

Sizes = dict[str, int]
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Range:
    """What varies in a model: `points` are the sizes at which it is compared with static programs;
    `low` and `high` bound the sizes of a sequence."""

    points: tuple[Sizes, ...]
    low: Sizes
    high: Sizes

    def sequence(self, count: int, seed: int = 1) -> list[Sizes]:
        """`count` distinct sizes in random order."""
        random, found = np.random.default_rng(seed), {}
        while len(found) < count:
            draw = tuple(int(random.integers(self.low[n], self.high[n] + 1)) for n in self.low)
            found[draw] = dict(zip(self.low, draw))
        return list(found.values())


def _one(name: str, points: Sequence[int], low: int, high: int) -> Range:
    return Range(tuple({name: p} for p in points), {name: low}, {name: high})


def _two(points: Sequence[tuple[int, int]], low: int, high: int) -> Range:
    named = tuple({"h": h, "w": w} for h, w in points)
    return Range(named, {"h": low, "w": low}, {"h": high, "w": high})


RANGES: Mapping[str, Range] = {
    "bert_any": _one("s", (16, 57, 128, 384), 1, 256),
    "vit_any": _two(((14, 14), (10, 17), (24, 24)), 6, 16),
    "wav2vec2_any": _one("samples", (8000, 16_000, 37_123), 4000, 32_000),
    "llama_prefill_any": _one("s", (16, 64, 200), 1, 256),
    "llama_decode_any": _one("past", (16, 128, 1000), 1, 512),
    "detector_any": _two(((10, 10), (7, 12), (16, 16)), 4, 12),
}


# ---- models and what they are fed --------------------------------------------------------------


class Model:
    """A zoo row with the symbolic shapes of its inputs."""

    def __init__(self, name: str, small: bool):
        import onnx

        self.row, self.small = zoo.find(name), small
        self.artifact = self.row.artifact(small)
        inputs = onnx.load(self.artifact.onnx).graph.input
        self.shapes = {
            i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
            for i in inputs
        }

    def shape(self, name: str, sizes: Sizes) -> tuple[int, ...]:
        return tuple(dims.evaluate(d, sizes) for d in self.shapes[name])

    def static(self, sizes: Sizes) -> dict[str, tuple[int, ...]]:
        return {n: self.shape(n, sizes) for n in self.shapes}

    def feeds(self, sizes: Sizes, seed: int = 0) -> Feeds:
        """Random inputs of these sizes; integers within the range of the example's."""
        random = np.random.default_rng(seed)
        found = {}
        for name in self.shapes:
            example, shape = self.artifact.inputs[name], self.shape(name, sizes)
            if example.dtype.kind == "i":
                x = random.integers(example.min(), example.max() + 1, shape)
            else:
                x = 0.5 * random.standard_normal(shape)
            found[name] = x.astype(example.dtype)
        return found


# ---- symbolic over static ----------------------------------------------------------------------


@dataclass
class Ratio:
    """Best CPU seconds of one call at one size."""

    model: str
    sizes: Sizes
    symbolic: float
    static: float

    @property
    def ratio(self) -> float:
        return self.symbolic / self.static


def best_in_turns(calls: Sequence[Callable], seconds: float, clock=time.process_time):
    """The least time of each call, one after the other until `seconds` passed."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 5 or time.perf_counter() < end:
        for k in range(len(calls)):
            k = (k + rounds) % len(calls)
            start = clock()
            calls[k]()
            best[k] = min(best[k], clock() - start)
        rounds += 1
    return best


def compare_with_static(
    model: Model, points: Sequence[Sizes], threads: int, seconds: float
) -> list[Ratio]:
    import tensorwright as tw

    clock = time.process_time if threads == 1 else time.perf_counter
    path, found = model.artifact.onnx, []
    symbolic = tw.compile(path, threads=threads)
    for sizes in points:
        static = tw.compile(path, threads=threads, shapes=model.static(sizes))
        feeds = model.feeds(sizes)
        check(as_list(symbolic(**feeds)), as_list(static(**feeds)), f"{model.row.name} {sizes}")
        calls = [lambda p=p, f=feeds: p(**f) for p in (symbolic, static)]
        found.append(Ratio(model.row.name, sizes, *best_in_turns(calls, seconds, clock)))
    return found


def as_list(result) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple | list) else [result]


def check(given: list, expected: list, what: str) -> None:
    error = relative_error(given, expected)
    if error > TOLERANCE:
        raise SystemExit(f"{what}: the results differ by {error:.1e}")


# ---- a sequence of shapes ----------------------------------------------------------------------


@dataclass
class Engine:
    """A compiled model: `run` takes named arrays; `compilations` tells how often it compiled."""

    name: str
    run: Callable[[Feeds], list]
    compile_s: float
    compilations: Callable[[], int | None] = field(default=lambda: None)


def tensorwright(model: Model, threads: int) -> Engine:
    import tensorwright as tw
    from tensorwright.driver import compile as driver

    start, count, inner = time.perf_counter(), [0], driver.run_pipeline

    def counted(*args, **kwargs):
        count[0] += 1
        return inner(*args, **kwargs)

    driver.run_pipeline = counted
    program = tw.compile(model.artifact.onnx, threads=threads)
    took = time.perf_counter() - start
    return Engine("tensorwright", lambda f: as_list(program(**f)), took, lambda: count[0])


def ort(model: Model, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(
        model.artifact.onnx, options, providers=["CPUExecutionProvider"]
    )
    return Engine("ort", lambda f: session.run(None, f), time.perf_counter() - start)


def openvino(model: Model, threads: int) -> Engine:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }  # fmt: skip
    start = time.perf_counter()
    core = openvino.Core()
    request = core.compile_model(
        core.read_model(model.artifact.onnx), "CPU", settings
    ).create_infer_request()
    took = time.perf_counter() - start

    def run(feeds: Feeds) -> list:
        result = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [np.array(result[k]) for k in range(len(result))]

    return Engine("openvino", run, took)


def inductor(model: Model, threads: int) -> Engine:
    """torch.compile(dynamic=True); its first call compiles."""
    import torch
    from torch._dynamo.utils import counters

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch._dynamo.reset()
    counters.clear()
    module = torch.compile(model.row.net(model.small).module, dynamic=True)
    run = lambda f: [t.numpy() for t in as_list(module(*map(torch.from_numpy, f.values())))]
    start = time.perf_counter()
    run(dict(model.artifact.inputs))
    took = time.perf_counter() - start
    return Engine("inductor", run, took, lambda: counters["stats"]["unique_graphs"])


ENGINES = {f.__name__: f for f in (tensorwright, ort, openvino, inductor)}


@dataclass
class Run:
    """One engine over one sequence: seconds of both passes, recompilations, and what failed."""

    model: str
    engine: str
    shapes: int
    compile_s: float = 0.0
    first_s: float = 0.0
    again_s: float = 0.0
    recompiled: int | None = None
    failure: str = ""


def run_sequence(model: Model, sequence: list[Sizes], threads: int, engines: Sequence[str]):
    """All engines over the same sequence; answers of the first are compared with the others'."""
    clock = time.process_time if threads == 1 else time.perf_counter
    feeds = [model.feeds(sizes, k) for k, sizes in enumerate(sequence)]
    runs, expected = [], None
    for name in engines:
        run = Run(model.row.name, name, len(sequence))
        runs.append(run)
        try:
            engine = ENGINES[name](model, threads)
            run.compile_s = engine.compile_s
            engine.run(model.feeds(sequence[0]))
            before = engine.compilations()
            run.first_s = timed(engine.run, feeds, clock)
            run.again_s = min(timed(engine.run, feeds, clock) for _ in range(2))
            if before is not None:
                run.recompiled = engine.compilations() - before
            answers = engine.run(feeds[-1])
        except Exception as e:
            run.failure = f"{type(e).__name__}: {str(e).splitlines()[0][:120]}"
            continue
        if expected is None:
            expected = answers
        else:
            check(answers, expected, f"{model.row.name}, {name}")
    return runs


def timed(run: Callable, feeds: list[Feeds], clock: Callable) -> float:
    start = clock()
    for f in feeds:
        run(f)
    return clock() - start


# ---- tables ------------------------------------------------------------------------------------


def ratio_table(found: Sequence[Ratio]) -> list[str]:
    rows = ["| model | sizes | symbolic | static | ratio |", "|---|---|---:|---:|---:|"]
    for r in found:
        sizes = ", ".join(f"{n}={v}" for n, v in r.sizes.items())
        rows.append(f"| {r.model} | {sizes} | {1e3 * r.symbolic:.3f} ms | {1e3 * r.static:.3f} ms "
                    f"| {r.ratio:.3f} |")  # fmt: skip
    return rows


def run_table(runs: Sequence[Run]) -> list[str]:
    rows = ["| model | engine | shapes | compile | first pass | second pass | recompiled |",
            "|---|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for r in runs:
        if r.failure:
            rows.append(f"| {r.model} | {r.engine} | {r.shapes} | {r.failure} | | | |")
            continue
        again = "not told" if r.recompiled is None else r.recompiled
        rows.append(f"| {r.model} | {r.engine} | {r.shapes} | {r.compile_s:.1f} s | "
                    f"{r.first_s:.3f} s | {r.again_s:.3f} s | {again} |")  # fmt: skip
    return rows


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamic", description=__doc__)
    comma = lambda text: [part for part in text.split(",") if part]
    parser.add_argument("--models", type=comma, default=list(RANGES))
    parser.add_argument("--peers", type=comma, default=["ort", "openvino", "inductor"])
    parser.add_argument("--shapes", type=int, default=50, help="distinct shapes; 0: no sequence")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per comparison with static")
    parser.add_argument("--small", action="store_true", help="test-size models (a smoke test)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> tuple[list[Ratio], list[Run]]:
    args = parse(argv)
    ratios: list[Ratio] = []
    runs: list[Run] = []
    for name in args.models:
        model, span = Model(name, args.small), RANGES[name]
        points = span.points[:1] if args.small else span.points
        if args.seconds:
            ratios += compare_with_static(model, points, args.threads, args.seconds)
        if args.shapes:
            sequence = span.sequence(args.shapes)
            runs += run_sequence(model, sequence, args.threads, ["tensorwright", *args.peers])
        print(f"{name} done", file=sys.stderr, flush=True)
    tables = [*ratio_table(ratios), "", *run_table(runs)]
    print("\n".join(tables))
    if args.json:
        args.json.write_text(json.dumps({"ratios": [asdict(r) for r in ratios],
                                         "runs": [asdict(r) for r in runs]}))  # fmt: skip
    return ratios, runs


if __name__ == "__main__":
    main()
