"""Contractions on older instruction sets: their share of what these can do at most here.

    python -m benchmarks.targets --targets x86-64-avx2,x86-64-sse4.2

Programs are compiled for each target and run on this machine, on one thread. The peak is that of a
loop of multiply-adds on registers, compiled by the same compiler for the same target: two
instructions where it has no fused one. A contraction then needs a third, a copy, because
a product of SSE overwrites one of its operands, which is still to be used: of 6 instructions that
are decoded in a cycle, not all can be arithmetic.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks import results
from benchmarks.schedules import model, once

# families and sizes as in benchmarks.schedules
ROWS = (
    ("matmul", (128, 768, 768)),
    ("matmul", (128, 768, 3072)),
    ("matmul", (512, 768, 768)),
    ("matmul", (197, 768, 3072)),
    ("matmul", (1024, 1024, 1024)),
    ("direct convolution", (56, 64, 64, 3, 1)),
    ("direct convolution", (28, 128, 128, 3, 1)),
    ("direct convolution", (14, 256, 256, 3, 1)),
    ("direct convolution", (28, 128, 128, 3, 2)),
    ("direct convolution", (56, 64, 256, 1, 1)),
    ("direct convolution", (14, 256, 1024, 1, 1)),
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


HEADER = ["target", "family", "size", "tile", "GFLOP/s", "peak", "share"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.add_argument("--targets", default="x86-64-avx2,x86-64-sse4.2")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args(argv)
    lines = [row for name in args.targets.split(",") for row in measured(name, args.rounds)]
    table = results.markdown_table(HEADER, lines)
    about = __doc__.partition("\n")[2].strip()
    if args.markdown is not None:
        page = f"# Older instruction sets\n\n{about}\n\n- Machine: {results.machine()}\n\n{table}\n"
        args.markdown.write_text(page)
    print(table)


if __name__ == "__main__":
    main()
