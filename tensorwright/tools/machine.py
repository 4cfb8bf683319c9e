"""The machine's limits, measured with kernels that our own compiler made.

    measured(target, 2)  ->  Machine(gflops=148.0, gbytes={"L1": 410.0, "memory": 28.0, ...})

Arithmetic: fused multiply-adds on registers, as many chains as hide their latency. Bandwidth:
reads of arrays that fit into a level and are spread over the threads. The best of some rounds
counts; results are kept in the cache folder by processor, target and number of threads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tensorwright import __version__
from tensorwright.driver.compile import build_native
from tensorwright.driver.objects import cache_folder
from tensorwright.ir.dtype import f32
from tensorwright.ir.module import digest
from tensorwright.ir.parser import parse
from tensorwright.ops.table import BY_NAME
from tensorwright.runtime.program import Program
from tensorwright.target.target import Target

ROUNDS = 12
STEPS = 1 << 16  # multiply-adds of a chain in one call
LEAST_BYTES = 32 << 20  # read in one call
MEMORY_BYTES = 256 << 20

PEAK = """
@graph
def main(x: f32[{lanes}]) -> f32[{threads}, {chains}, {lanes}]:
    y: f32[{threads}, {chains}, {lanes}] = call_kernel(
        x, scalars=(), callee='peak', type=f32[{threads}, {chains}, {lanes}])
    return y

@kernel
def peak(x: f32[{lanes}], y: out[f32[{threads}, {chains}, {lanes}]]):
    for t in parallel({threads}):
        acc = local(f32[{chains}, {lanes}])
        for u in unroll({chains}):
            for j in vector({lanes}):
                acc[u, j] = x[j]
        for k in serial({steps}):
            for u in unroll({chains}):
                for j in vector({lanes}):
                    acc[u, j] = fma(acc[u, j], 0.5, 1.0)
        for u in unroll({chains}):
            for j in vector({lanes}):
                y[t, u, j] = acc[u, j]
"""

READ = """
@graph
def main(x: f32[{parts}, {count}, 8, {lanes}]) -> f32[{parts}, 8, {lanes}]:
    y: f32[{parts}, 8, {lanes}] = call_kernel(
        x, scalars=(), callee='read', type=f32[{parts}, 8, {lanes}])
    return y

@kernel
def read(x: f32[{parts}, {count}, 8, {lanes}], y: out[f32[{parts}, 8, {lanes}]]):
    for t in parallel({parts}):
        acc = local(f32[8, {lanes}])
        for u in unroll(8):
            for j in vector({lanes}):
                acc[u, j] = 0.0
        for r in serial({repeats}):
            for k in serial({count}):
                for u in unroll(8):
                    for j in vector({lanes}):
                        acc[u, j] = acc[u, j] + x[t, k, u, j]
        for u in unroll(8):
            for j in vector({lanes}):
                y[t, u, j] = acc[u, j]
"""


@dataclass(frozen=True)
class Machine:
    """Limits for a number of threads: 10^9 f32 operations and bytes a second."""

    processor: str
    target: str
    threads: int
    gflops: float
    gbytes: dict[str, float]

    @property
    def ridge(self) -> float:
        """Operations a byte above which arithmetic, not memory, is the limit."""
        return self.gflops / self.gbytes["memory"]

    def attainable(self, intensity: float, level: str = "memory") -> float:
        """GFLOP/s that a kernel of that intensity can reach."""
        return min(self.gflops, intensity * self.gbytes[level])


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "CPU implementer")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown processor"


def measured(target: Target, threads: int, fresh: bool = False) -> Machine:
    """The limits, from the cache folder if they were measured before."""
    path = stored_at(target, threads)
    if path is not None and not fresh:
        try:
            return Machine(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            pass
    found = measure(target, threads)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(found)))
        except OSError:  # measured again next time
            pass
    return found


def stored_at(target: Target, threads: int) -> Path | None:
    folder = cache_folder()
    key = digest(processor(), repr(target), str(threads), __version__, PEAK, READ)
    return None if folder is None else folder / "machine" / f"{key[:16]}.json"


def measure(target: Target, threads: int) -> Machine:
    """Measure now; takes a second or two."""
    levels = {"L1": target.caches[0] // 2, "L2": target.caches[1] // 2}
    levels["L3"] = max(target.caches[2] // 2 // threads, target.caches[1])
    gbytes = {name: bandwidth(target, threads, size) for name, size in levels.items()}
    gbytes["memory"] = bandwidth(target, threads, MEMORY_BYTES // threads)
    return Machine(processor(), target.name, threads, peak(target, threads), gbytes)


def program(text: str, target: Target, threads: int, **values: int) -> Program:
    """The program of a module in the text form with numbers filled in."""
    m = parse(text.format(threads=threads, **values), BY_NAME)
    return build_native(m, target, "machine", threads)


def peak(target: Target, threads: int) -> float:
    """GFLOP/s of multiply-adds in registers."""
    lanes, chains = target.lanes(f32), target.vector_registers * 3 // 4
    run = program(PEAK, target, threads, lanes=lanes, chains=chains, steps=STEPS)
    x = np.zeros(lanes, np.float32)
    return 2 * threads * chains * lanes * STEPS / best(lambda: run(x)) / 1e9


def bandwidth(target: Target, threads: int, size: int) -> float:
    """GB/s of reading `size` bytes a thread again and again."""
    lanes = target.lanes(f32)
    count = max(size // (8 * lanes * 4), 1)
    read = count * 8 * lanes * 4 * threads
    repeats = max(LEAST_BYTES // read, 1)
    run = program(READ, target, threads, lanes=lanes, parts=threads, count=count, repeats=repeats)
    x = np.ones((threads, count, 8, lanes), np.float32)
    return read * repeats / best(lambda: run(x)) / 1e9


def best(call: Callable) -> float:
    """The least seconds of a call, after one to warm up."""
    call()
    least = float("inf")
    for _ in range(ROUNDS):
        os.sched_yield()
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return least
