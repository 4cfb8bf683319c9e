"""Activation memory of one program for all shapes, beside a pooled allocator at the same shapes.

    python -m benchmarks.memory --models llama_prefill_any,llama_decode_any

*planned*: the frame of the program for all shapes at these sizes. *pooled*: what an allocator takes
that serves the same buffers in the order of the program, gives freed blocks out again (the smallest
that is large enough) and never returns them, as run-time allocators of frameworks do. *live*: the
most that is alive at one time, which no plan can go below. *static*: the frame of a program that
was compiled for these sizes alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.dynamic import RANGES, Model, Sizes
from tensorwright.ir.expr import Expr, as_expr
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Alloc, statements
from tensorwright.memory.plan import Interval, byte_size, intervals
from tensorwright.passes.host import lower_entry


@dataclass
class Row:
    """Bytes of one model at one size."""

    model: str
    sizes: Sizes
    planned: int
    static: int
    pooled: int
    live: int

    @property
    def saved(self) -> float:
        return 1 - self.planned / self.pooled if self.pooled else 0.0


def pooled_bytes(items: Sequence[Interval], size) -> int:
    """What a pool of blocks takes that serves the buffers in order."""
    free: list[int] = []
    held: list[tuple[int, int]] = []  # last use, block
    total = 0
    for item in sorted(items, key=lambda i: i.first):
        free += [block for last, block in held if last < item.first]
        held = [(last, block) for last, block in held if last >= item.first]
        wanted = size(item.size)
        block = min((b for b in free if b >= wanted), default=0)
        if block:
            free.remove(block)
        else:
            block, total = wanted, total + wanted
        held.append((item.last, block))
    return total


def live_bytes(items: Sequence[Interval], size) -> int:
    times = {i.first for i in items}
    return max((sum(size(i.size) for i in items if i.first <= t <= i.last) for t in times),
               default=0)  # fmt: skip


def frame_bytes(program, sizes: Sizes) -> int:
    for s in statements(program.built.host[0].body):
        if isinstance(s, Alloc) and s.buffer.scope == "frame":
            return at_sizes(byte_size(s.buffer), sizes)
    return 0


def at_sizes(e: Expr | int, sizes: Sizes) -> int:
    from tensorwright.ir.expr import symbols_of

    e = as_expr(e)
    return evaluate(e, {s: sizes[s.name] for s in symbols_of(e)})


def measure(model: Model, points: Sequence[Sizes]) -> list[Row]:
    import tensorwright as tw

    path = model.artifact.onnx
    program = tw.compile(path, threads=1)
    items = intervals(lower_entry(program.lowered, {}))
    found = []
    for sizes in points:
        known = lambda e, sizes=sizes: at_sizes(e, sizes)
        items_here = [i for i in items if _known(i.size, sizes)]
        static = tw.compile(path, threads=1, shapes=model.static(sizes))
        found.append(Row(model.row.name, sizes, frame_bytes(program, sizes),
                         frame_bytes(static, {}), pooled_bytes(items_here, known),
                         live_bytes(items_here, known)))  # fmt: skip
    return found


def _known(e: Expr, sizes: Sizes) -> bool:
    """Whether the inputs tell the size (the rest is allocated when the data tells it)."""
    from tensorwright.ir.expr import symbols_of

    return all(s.name in sizes for s in symbols_of(e))


def table(rows: Sequence[Row]) -> list[str]:
    lines = ["| model | sizes | planned | static | live | pooled | saved |",
             "|---|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for r in rows:
        sizes = ", ".join(f"{n}={v}" for n, v in r.sizes.items())
        cells = " | ".join(f"{b / 1024:.0f} KiB" for b in (r.planned, r.static, r.live, r.pooled))
        lines.append(f"| {r.model} | {sizes} | {cells} | {100 * r.saved:.0f} % |")
    return lines


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    comma = lambda text: [part for part in text.split(",") if part]
    parser.add_argument("--models", type=comma, default=list(RANGES))
    parser.add_argument("--small", action="store_true", help="test-size models (a smoke test)")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    for name in args.models:
        rows += measure(Model(name, args.small), RANGES[name].points)
    print("\n".join(table(rows)))
    return rows


if __name__ == "__main__":
    main()
