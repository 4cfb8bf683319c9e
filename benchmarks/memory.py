"""Activation memory of one program for all shapes, beside a pooled allocator at the same shapes.

    python -m benchmarks.memory --models llama_prefill_any,llama_decode_any
    python -m benchmarks.memory --markdown docs/benchmarks_dynamic.md

*planned*: the frame of the program for all shapes at these sizes. *pooled*: what an allocator takes
that gives every tensor between kernels a block of its own, in the order of the program, gives freed
blocks out again (the smallest that is large enough) and never returns them, as run-time allocators
of frameworks do; results are not counted, but tensors that the plan places in them are, until they
are joined. *live*: the most that is alive at one time in the frame, which no plan can go below.
*static*: the frame of a program that was compiled for these sizes alone. All count what single
kernels need while they run (the most of them). `llama_paged` is `tw.nn.Llama` with its cache in
pages. The number of threads changes nothing here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import zoo
from benchmarks.page import Table, comma, measured_on, options, publish, small_option
from benchmarks.sizes import RANGES, Model, Sizes
from tensorwright.driver.compile import import_model, no_collection
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import Buffer, Expr, as_expr, substitute, sym, symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Alloc, Call, Kernel, Stmt, View, rewrite, statements
from tensorwright.ir.module import Module
from tensorwright.ir.type import product
from tensorwright.memory.plan import Interval, byte_size, intervals, mentioned, plan_memory
from tensorwright.passes.host import lower_entry
from tensorwright.target.host import find


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


def frame_bytes(m: Module, sizes: Sizes, entry: str = "") -> int:
    for s in statements(plan_memory(lower_entry(m, {}, entry)).body):
        if isinstance(s, Alloc) and s.buffer.scope == "frame":
            return at_sizes(byte_size(s.buffer), sizes)
    return 0


def at_sizes(e: Expr | int, sizes: Sizes) -> int:
    e = as_expr(e)
    return evaluate(e, {s: sizes[s.name] for s in symbols_of(e)})


def never_in_place(m: Module, k: Kernel) -> Kernel:
    """The host function with a tensor for every result that is computed in another one's memory,
    results and states of the program aside."""
    made = {s.buffers[-1] for s in statements(k.body)
            if isinstance(s, Call) and s.callee in m.kernels}  # fmt: skip
    arena = {s.buffer for s in statements(k.body)
             if isinstance(s, Alloc) and s.buffer.scope == "arena"}  # fmt: skip
    owner: dict[Buffer, Buffer] = {}
    over: dict[Buffer, Buffer] = {}  # a result -> the tensor in whose memory it was

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Call) and s.buffers[-1] in over:
            return replace(s, buffers=(over[s.buffers[-1]], *s.buffers))
        if not isinstance(s, View):
            return None
        owner[s.buffer] = owner.get(s.base, s.base)
        if s.buffer not in made or owner[s.buffer] not in arena:
            return None
        over[s.buffer], owner[s.buffer] = s.base, s.buffer
        arena.add(s.buffer)
        return Alloc(s.buffer)

    return k.with_body(rewrite(k.body, visit))


def parts_of_results(k: Kernel) -> list[Interval]:
    """Tensors that lie in results. An allocator holds them to the end, where they are joined."""
    found: dict[Buffer, Interval] = {}
    inside: dict[Buffer, Buffer] = {}  # names of a part -> the part
    body = list(statements(k.body))
    for time, s in enumerate(body):
        if isinstance(s, View) and s.base in inside:
            inside[s.buffer] = inside[s.base]
        elif isinstance(s, View) and s.base.scope == "output" and is_part(s.buffer, s.base):
            inside[s.buffer] = s.buffer
        for b in mentioned(s) if isinstance(s, Call) else ():
            if b in inside:
                own = inside[b]
                found.setdefault(own, Interval(own, time, len(body), byte_size(own)))
    return list(found.values())


def is_part(b: Buffer, whole: Buffer) -> bool:
    return as_expr(product(b.shape)) is not as_expr(product(whole.shape))


def scratch_bytes(m: Module, k: Kernel, sizes: Sizes) -> int:
    """The most that a kernel needs for itself while it runs."""
    most = 0
    for s in statements(k.body):
        kernel = m.kernels.get(s.callee) if isinstance(s, Call) else None
        if kernel is not None:
            given = dict(zip(map(sym, kernel.symbols), s.scalars))
            own = [substitute(byte_size(a.buffer), given) for a in statements(kernel.body)
                   if isinstance(a, Alloc) and a.buffer.scope == "temp"]  # fmt: skip
            most = max(most, sum(at_sizes(e, sizes) for e in own if _known(e, sizes)))
    return most


def measure(
    name: str, every: Module, static: Callable[[Sizes], Module], points: Sequence[Sizes],
    entry: str = "",
) -> list[Row]:  # fmt: skip
    """every: the lowered program for all shapes; static(sizes): the one for these."""
    host = lower_entry(every, {}, entry)
    items, parts = intervals(host), parts_of_results(host)
    apart = intervals(never_in_place(every, host))
    found = []
    for sizes in points:
        size = lambda e, sizes=sizes: at_sizes(e, sizes)
        own, more, single = ([i for i in some if _known(i.size, sizes)]
                             for some in (items, parts, apart))  # fmt: skip
        only = static(sizes)
        scratch = scratch_bytes(every, host, sizes)
        alone = scratch_bytes(only, lower_entry(only, {}, entry), sizes)
        found.append(Row(name, sizes, frame_bytes(every, sizes, entry) + scratch,
                         frame_bytes(only, sizes, entry) + alone,
                         pooled_bytes([*single, *more], size) + scratch,
                         live_bytes(own, size) + scratch))  # fmt: skip
    return found


def rows_of(name: str, small: bool) -> list[Row]:
    if name == "llama_paged":
        return paged_rows(small)
    model = Model(name, small)
    path = model.artifact.onnx
    one = lambda sizes: lowered(path, model.static(sizes))
    points = RANGES[name].points[:1] if small else RANGES[name].points
    return measure(name, lowered(path), one, points)


def lowered(path: str, shapes=None) -> Module:
    """All of a compilation but the code of its kernels."""
    with no_collection():
        return run_pipeline(import_model(path, shapes)[0], find("host"))


def paged_rows(small: bool) -> list[Row]:
    """Both entries of a model whose cache is state: 4 layers of the width of the others'."""
    import tensorwright as tw

    width = 64 if small else 1024
    model = tw.nn.Llama(tw.nn.LlamaConfig(16_000, width, 11 * width // 4, 4, 16, 4))
    program, found = tw.compile(model, threads=1).lowered, []
    for entry, points in (
        ("prefill", [{"s": n, "held": 0, "pages": 16} for n in (16, 64, 200)]),
        ("decode", [{"held": n, "pages": 16} for n in (16, 1000)]),
    ):
        found += measure(f"llama_paged.{entry}", program, lambda _: program, points, entry)
    return found


def _known(e: Expr, sizes: Sizes) -> bool:
    """Whether the inputs tell the size (the rest is allocated when the data tells it)."""
    return all(s.name in sizes for s in symbols_of(e))


PLACE = "benchmarks.memory"


def table(rows: Sequence[Row]) -> Table:
    header = ["model", "sizes", "planned", "pooled", "saved", "live", "static"]
    lines = []
    for r in rows:
        sizes = ", ".join(f"{n}={v}" for n, v in r.sizes.items())
        bytes_ = r.planned, r.pooled, r.live, r.static
        planned, pooled, live, static = map(amount, bytes_)
        lines.append([title(r.model), sizes, planned, pooled, f"{r.saved:.0%}", live, static])
    return Table(PLACE, 2, header, lines, measured_on((), timed=False))


def title(model: str) -> str:
    name, _, entry = model.partition(".")
    return f"`tw.nn.Llama`, cache in pages, {entry}" if entry else zoo.find(name).title


def amount(count: int) -> str:
    return f"{count / 1024:.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def main(argv: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--models", type=comma, default=[*RANGES, "llama_paged"])
    small_option(parser)
    options(parser, PLACE)
    args = parser.parse_args(argv)
    rows = [row for name in args.models for row in rows_of(name, args.small)]
    publish([table(rows)], args.markdown, args.drop)
    return rows


if __name__ == "__main__":
    main()
