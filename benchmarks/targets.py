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

from benchmarks import results
from benchmarks.schedules import model, once

ARM = "aarch64"
MEASURED = """\
SSE multiplies and adds by two instructions, which overwrite an operand, and has none that reads
one element into all lanes. Of the 31 instructions of a step of a tile of 2 x 4 vectors, 16 are
products and sums; 3 copy what a product overwrites and is still used, 4 load weights, 4 load
elements of the other operand and spread them over lanes, 4 count the loop, the last two of which
are decoded as one. 6 are decoded in a cycle and 4 products and sums done, so that no more than 80
% of the peak can be reached. Tiles of more rows spread more elements: 6 x 2 has 47 instructions
for 24 products and sums, and 6 shuffles that take the place of one (64 % measured, 5 x 2 60 %, 3
x 3 65 %). Written out four times (28.5 instructions a step) 2 x 4 was 1 to 3 % faster, which code
four times the size is not worth; shuffles of one vector for four steps need a copy each, and so
save nothing."""
EXECUTED = """\
Shares of multiply-adds among the instructions that were executed: in the innermost loops that
multiply by one element of a vector (products), in all innermost loops with multiply-adds, and in
all functions of the kernel. The last column counts instructions of the loops of products that
access the stack.

A tile of R x V vectors takes 4 R V multiply-adds for four steps, R loads of the operand that all
lanes multiply with and 2 V of weights, two vectors at once. With five instructions to count
sixteen steps, tiles of 7 x 3 have 86 %, 5 x 4 85 %, 4 x 4 and 8 x 2 83 %. So rows that make tiles
of 4 (14, 16 or 4 of them) stay 0.2 to 2 % under 85 %; tiles of 7 x 3 would execute more
instructions there, for columns that do not exist. 6 x 4 (87 %) needs all 32 registers, and LLVM
spills. With one row, each vector of weights serves one multiply-add: 63 %, at the speed of
memory. Depthwise convolutions multiply vectors by vectors, each of which is loaded. Winograd's
transforms, and the exponentials of attention, are in the column of all inner loops."""

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
    parser.add_argument("--targets", default="x86-64-avx2,x86-64-sse4.2,aarch64")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args(argv)
    names = args.targets.split(",")
    page = [f"# Older instruction sets, and AArch64\n\n{__doc__.partition(chr(10))[2].strip()}",
            f"- Machine: {results.machine_line()}"]  # fmt: skip
    lines = [row for name in names if name != ARM for row in measured(name, args.rounds)]
    if lines:
        page += [f"## Measured\n\n{MEASURED}", results.markdown_table(HEADER, lines)]
    if ARM in names:
        page += [f"## Counted\n\n{EXECUTED}", results.markdown_table(COUNTS, counted(ARM))]
    text = "\n\n".join(page) + "\n"
    if args.markdown is not None:
        args.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
