"""Contractions on other instruction sets: their share of what these can do at most here.

    python -m benchmarks.targets --targets x86-64-avx2,x86-64-sse4.2,aarch64

Programs for x86-64 are compiled for each target and run on this machine, on one thread. The peak is
that of a loop of multiply-adds on registers, compiled by the same compiler for the same target: two
instructions where it has no fused one. Programs for AArch64 run under an emulator that counts the
instructions that are executed, which says nothing of time and does not vary.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.page import Table, comma, measured_on, options, publish
from benchmarks.schedules import model, once

ARM = "aarch64"
PLACES = "benchmarks.targets: measured", "benchmarks.targets: counted"

# families and sizes as in benchmarks.schedules
CONVOLUTIONS = (
    ("direct convolution", (56, 64, 64, 3, 1)),
    ("direct convolution", (28, 128, 128, 3, 1)),
    ("direct convolution", (14, 256, 256, 3, 1)),
    ("direct convolution", (28, 128, 128, 3, 2)),
    ("direct convolution", (56, 64, 256, 1, 1)),
    ("direct convolution", (14, 256, 1024, 1, 1)),
)
ROWS = (
    ("matmul", (128, 768, 768)),
    ("matmul", (128, 768, 3072)),
    ("matmul", (512, 768, 768)),
    ("matmul", (197, 768, 3072)),
    ("matmul", (1024, 1024, 1024)),
    *CONVOLUTIONS,
)

# kernels whose executed instructions are counted: those of BERT and ViT, few rows, convolutions
COUNTED = (
    ("matmul", (128, 768, 768)),
    ("matmul", (128, 768, 3072)),
    ("matmul", (128, 3072, 768)),
    ("matmul", (197, 768, 768)),
    ("thin matmul", (16, 768, 768)),
    ("thin matmul", (4, 768, 768)),
    ("thin matmul", (1, 768, 3072)),
    *CONVOLUTIONS,
    ("winograd", (56, 64, 64)),
    ("winograd", (28, 128, 128)),
    ("attention", (12, 128, 64)),
    ("attention", (3, 197, 64)),
    ("depthwise", (56, 96, 3, 1)),
    ("depthwise", (56, 96, 3, 2)),
)


def operations(family: str, size: tuple) -> int:
    """Of one call: two a multiply-add."""
    if family == "matmul":
        m, k, n = size
        return 2 * m * k * n
    rows, channels, outputs, window, _ = size
    return 2 * rows**2 * window**2 * channels * outputs


def measured(name: str, rounds: int) -> list[list[str]]:
    """One line a contraction; the peak is the best of all that are taken beside them."""

    from tensorwright.driver.compile import build_native
    from tensorwright.ir.dtype import f32
    from tensorwright.ir.parser import parse
    from tensorwright.ops.table import BY_NAME
    from tensorwright.target.host import find
    from tensorwright.tools.machine import PEAK, STEPS
    from tensorwright.tools.program import compile

    target = find(name)
    chains = target.vector_registers - 2  # that hide the latency of one; the rest for constants
    lanes = target.lanes(f32)
    text = PEAK.format(lanes=lanes, threads=1, chains=chains, steps=STEPS)
    peak = build_native(parse(text, BY_NAME), target, "peak", threads=1)
    work = 2 * lanes * chains * STEPS
    found, top = [], float("inf")
    for family, size in ROWS:
        module, arrays, _ = model(family, size)
        program = compile(module, target=target, threads=1, fast_math=0)
        calls = max(1, int(2e-3 / once(program, arrays, 1)))
        best = float("inf")
        for _ in range(rounds):
            best = min(best, once(program, arrays, calls))
            top = min(top, once(peak, [np.zeros(lanes, np.float32)], 4))
        speed = operations(family, size) / best / 1e9
        shape = "x".join(map(str, size))
        tile = next(r.choices["tile"] for r in program.schedules().records if "tile" in r.choices)
        found.append((family, shape, "x".join(map(str, tile)), speed))
        print(*found[-1], sep="  ", file=sys.stderr, flush=True)
    limit = work / top / 1e9
    return [[name, *row, f"{speed:.1f}", f"{limit:.1f}", f"{speed / limit:.0%}"]
            for *row, speed in found]  # fmt: skip


def counted(name: str) -> list[list[str]]:
    """One line a kernel: what share of the instructions executed under an emulator are
    multiply-adds. The results are compared with those of this machine."""

    from benchmarks.counts import counted, hot_loops, joined
    from tensorwright.driver.compile import asked
    from tensorwright.target.host import find
    from tensorwright.tools.program import compile

    found = []
    for family, size in COUNTED:
        module, arrays, level = model(family, size)
        with tempfile.TemporaryDirectory() as folder:
            target = asked(find(name), "model", level)
            (result,), functions = counted(module, arrays, Path(folder), target)
        here = compile(module, threads=1, fast_math=level)
        error = np.abs(result - here(*arrays)).max() / np.abs(result).max()
        if not error < 1e-5:
            raise SystemExit(f"{family} {size}: differs by {error:.1e} from what this machine says")
        loops = hot_loops(functions)
        products = joined(c for c in loops if c.is_by_element)
        kernel = joined(c for c in functions.values() if c.multiply_adds)
        share = lambda code: f"{code.share:.1%}" if code.body else "-"
        found.append([family, "x".join(map(str, size)), tiles_of(family, size, name),
                      f"{kernel.executed / 1e6:.1f}", share(products), share(joined(loops)),
                      share(kernel), str(products.spills)])  # fmt: skip
        print(*found[-1], sep="  ", file=sys.stderr, flush=True)
    return found


def tiles_of(family: str, size: tuple, name: str) -> str:
    """The register tiles of the kernel that matters."""
    from benchmarks.schedules import Space, chosen
    from tensorwright.schedule.space import Choices
    from tensorwright.target.host import find

    made = chosen(Space(family, size, find(name)), Choices()).made
    tiles = [d.value for key, d in made.items() if key.split(".")[-1] == "tile"]
    return "; ".join(f"{t.rows} x {t.vectors}" for t in tiles)


HEADER = ["target", "family", "size", "tile", "GFLOP/s", "peak", "share"]
COUNTS = ["family", "size", "tiles", "million instructions", "products", "inner loops", "kernel",
          "on the stack"]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    every = ["x86-64-avx2", "x86-64-sse4.2", ARM]
    parser.add_argument("--targets", type=comma, default=every)
    parser.add_argument("--rounds", type=int, default=40)
    options(parser, *PLACES)
    args = parser.parse_args(argv)
    tables, timed = [], [name for name in args.targets if name != ARM]
    if timed:
        lines = [row for name in timed for row in measured(name, args.rounds)]
        tables.append(Table(PLACES[0], 4, HEADER, lines, measured_on(())))
    if ARM in args.targets:
        tables.append(Table(PLACES[1], 3, COUNTS, counted(ARM), measured_on((), timed=False)))
    publish(tables, args.markdown, args.drop)


if __name__ == "__main__":
    main()
