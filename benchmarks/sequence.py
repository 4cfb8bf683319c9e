"""One engine over a sequence of distinct shapes, in a process of its own that can be stopped.

    run_alone(Job("bert_any", "ort", threads=1, shapes=50), 240, Path("answers.npz"))

An engine compiles, then runs the sequence three times: the first pass shows what new shapes cost,
the better of the others what is left when all were seen. By the clock on the wall, because an
engine may compile in other processes; recompilations are counted where an engine tells them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.agreement import TOLERANCE, relative_error
from benchmarks.runs import Measured
from benchmarks.sizes import RANGES, Feeds, Model
from benchmarks.worker import first_line, private_stdout
from benchmarks.zoo import ROOT


@dataclass(frozen=True)
class Job:
    model: str
    engine: str
    threads: int
    shapes: int
    small: bool = False


@dataclass
class Run(Measured):
    """Seconds of a job's passes, the compilations of these, and what failed."""

    job: Job
    compile_s: float = 0.0
    first_s: float = 0.0
    again_s: float = 0.0
    recompiled: int | None = None
    failure: str = ""
    stopped: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.job.model, self.job.threads

    @classmethod
    def of_record(cls, record: dict) -> Run:
        return cls(**record | {"job": Job(**record["job"])})


# ---- engines -----------------------------------------------------------------------------------


@dataclass
class Engine:
    """A compiled model: `run` takes named arrays; `compilations` tells how often it compiled."""

    run: Callable[[Feeds], list]
    compile_s: float
    compilations: Callable[[], int | None] = field(default=lambda: None)


def as_list(result) -> list:
    return list(result) if isinstance(result, tuple | list) else [result]


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
    return Engine(lambda f: as_list(program(**f)), took, lambda: count[0])


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
    return Engine(lambda f: session.run(None, f), time.perf_counter() - start)


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

    return Engine(run, took)


def inductor(model: Model, threads: int) -> Engine:
    """torch.compile(dynamic=True); its first call compiles. A graph break makes several graphs."""
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
    return Engine(run, took, lambda: counters["stats"]["unique_graphs"])


ENGINES = {f.__name__: f for f in (tensorwright, ort, openvino, inductor)}


# ---- in a process ------------------------------------------------------------------------------


def run(job: Job, answers: Path) -> Run:
    """The passes; the outputs of the last shape go into a file."""
    model = Model(job.model, job.small)
    engine = ENGINES[job.engine](model, job.threads)
    sequence = RANGES[job.model].sequence(job.shapes)
    feeds = [model.feeds(sizes, k) for k, sizes in enumerate(sequence)]
    before = engine.compilations()
    engine.run(dict(model.artifact.inputs))
    passes = [seconds(engine.run, feeds) for _ in range(3)]
    found = Run(job, engine.compile_s, passes[0], min(passes[1:]))
    if before is not None:
        found.recompiled = engine.compilations() - before
    np.savez(answers, *engine.run(feeds[-1]))
    return found


def seconds(call: Callable[[Feeds], list], feeds: list[Feeds]) -> float:
    start = time.perf_counter()
    for f in feeds:
        call(f)
    return time.perf_counter() - start


def run_alone(job: Job, limit: float, answers: Path) -> Run:
    """The run of a process, which is stopped after `limit` seconds with all that it started."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sequence", json.dumps(asdict(job)), str(answers)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}, start_new_session=True,
        )  # fmt: skip
        try:
            reply = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            return Run(job, failure=f"over {limit:.0f} s", stopped=True)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
    if process.returncode:
        return Run(job, failure=f"ended with status {process.returncode}")
    return Run(job, **json.loads(reply))


def contest(jobs: list[Job], limit: float) -> list[Run]:
    """One model at one number of threads by all engines; answers must be those of the first."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        expected = None
        for job in jobs:
            path = Path(folder) / f"{job.engine}.npz"
            start = time.perf_counter()
            found = run_alone(job, limit, path)
            took = time.perf_counter() - start
            print(f"{job}: {found.failure or 'done'} after {took:.0f} s", file=sys.stderr)
            runs.append(found)
            if found.failure:
                continue
            given = list(np.load(path).values())
            expected = expected or given
            error = relative_error(given, expected)
            if error > TOLERANCE:
                found.failure = f"differs by {error:.0e}"
    return runs


if __name__ == "__main__":
    wanted, replies = Job(**json.loads(sys.argv[1])), private_stdout()
    try:
        reply = asdict(run(wanted, Path(sys.argv[2])))
    except Exception as e:
        reply = asdict(Run(wanted, failure=first_line(e)))
    del reply["job"]
    print(json.dumps(reply), file=replies, flush=True)
