"""Schedule primitives that move data closer: what a loop reads, and where it is computed.

cache_read(i, x)    for i: .. x[i * 8 + r] ..  ->  for i: c[:] = x[i * 8 :+ 8]; .. c[r] ..
compute_at(t, i)    for j: t[j] = f(j); for i: .. t[i * 8 + r] ..
                                               ->  for i: t[:] = f(i * 8 :+ 8); .. t[r] ..
pipeline(i)         for i: c = x[i]; use(c)
                                ->  c[0] = x[0]; for i: c[(i + 1) % 2] = x[i + 1]; use(c[i % 2])
pack(x)             the caller provides x in panels
bind(i, "block")    iterations on the blocks or threads of a grid
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    compare,
    const,
    maximum,
    minimum,
    sym,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, For, If, Kernel, Pack, Seq, Stmt, Store, loops, seq
from tensorwright.schedule import legal
from tensorwright.schedule.nest import read_stage
from tensorwright.schedule.primitives import (
    find,
    index_local,
    relayout,
    renew,
    replace_loop,
)  # fmt: skip
from tensorwright.schedule.primitives_nests import drop_alloc, rename_accesses
from tensorwright.schedule.region import Region, loaded_region
from tensorwright.schedule.roles import packed_buffer, packed_index

NAMES = "abcdefgh"


def cache_read(root: Stmt, v: Symbol, b: Buffer) -> tuple[Stmt, Buffer]:
    """Copy what one iteration of `v` reads of a buffer into a local one, and read it there. Legal
    if the loop does not store to the buffer. Returns the local buffer."""
    s = find(root, v)
    legal.check_not_stored(s, b)
    region = loaded_region(s.body, b)
    cache = Buffer(f"{b.name}_near", b.dtype, region.extent, "local", 64)
    fill = loops(NAMES, region.extent, lambda *c: Store(cache, c, b[inside(region, b, c)]))
    body = rename_accesses(s.body, b, cache, lambda i: relative(region, i))
    return replace_loop(root, v, lambda s: replace(s, body=seq(Alloc(cache), fill, body))), cache


def inside(region: Region, b: Buffer, c: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Element `c` of a region, moved to the nearest that the buffer has: a region may reach further
    than what is really read."""
    places = []
    for begin, k, size in zip(region.begin, c, b.shape):
        i, last = begin + k, as_expr(size) - 1
        places.append(maximum(minimum(i, last), const(0)))
    return tuple(places)


def relative(region: Region, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return tuple(i - begin for i, begin in zip(indices, region.begin))


def compute_at(root: Stmt, producer: For, v: Symbol) -> tuple[Stmt, Buffer]:
    """Compute a stage where it is read: in each iteration of its consumer's loop `v`, as much as
    that needs. Legal if only this loop reads what the stage makes, and nothing that the stage reads
    changes in between. Returns the local buffer."""
    stage, s = read_stage(producer), find(root, v)
    legal.check_producer(root, producer, stage, s)
    t = stage.out
    region = loaded_region(s.body, t)
    near = Buffer(t.name, t.dtype, region.extent, "local", 64)
    axes = {i: d for d, i in enumerate(stage.final.indices) if i.op == "sym"}

    def part(*c: Expr) -> Stmt:
        moved = rename_accesses(stage_body(stage), t, near, lambda _: c)
        place = inside(region, t, c)
        values = {x: place[axes[x]] if x in axes else const(0) for x in stage.variables}
        return renew(ir.substitute(moved, values))

    fill = loops(NAMES, region.extent, part)
    body = rename_accesses(s.body, t, near, lambda i: relative(region, i))
    new = replace_loop(root, v, lambda s: replace(s, body=seq(Alloc(near), fill, body)))
    return drop_alloc(without(new, producer), t), near


def stage_body(stage) -> Stmt:
    """What a stage does for one element."""
    s = stage.root
    for _ in stage.spatial:
        s = s.body
    return s


def without(root: Stmt, gone: Stmt) -> Stmt:
    """`root` without one of its statements."""

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq) and gone in s.body:
            return seq(*(x for x in s.body if x is not gone))
        return None

    return ir.rewrite(root, visit)


def pipeline(root: Stmt, v: Symbol, cache: Buffer) -> Stmt:
    """Fill a cache one iteration ahead of its use, in two halves that take turns. Legal for a
    serial loop whose body first fills the cache, and does not store to what it is filled from."""
    s = find(root, v)
    parts = s.body.body if isinstance(s.body, Seq) else (s.body,)
    legal.check_pipeline(s, parts, cache)
    fill = next(x for x in parts if cache in ir.stored_buffers(x))
    rest = seq(*(x for x in parts if x is not fill and not _allocates(x, cache)))
    double = Buffer(cache.name, cache.dtype, (2, *cache.shape), cache.scope, cache.align)
    i = sym(v)

    def half(part: Stmt, at: Expr) -> Stmt:
        moved = ir.substitute(part, {i: at})
        return renew(index_local(moved, {cache: double}, (at - s.begin) % 2))

    ahead = If(compare("lt", i + 1, s.begin + s.extent), half(fill, i + 1))
    body = seq(ahead, index_local(rest, {cache: double}, (i - s.begin) % 2))
    first = half(fill, s.begin)
    if not legal.runs(s):
        first = If(compare("lt", const(0), s.extent), first)
    return replace_loop(root, v, lambda s: seq(Alloc(double), first, replace(s, body=body)))


def _allocates(s: Stmt, b: Buffer) -> bool:
    return isinstance(s, Alloc) and s.buffer is b


def pack(k: Kernel, spec: Pack) -> Kernel:
    """Have the caller provide a parameter in panels: everything that reads it finds it there."""
    legal.check_pack(k, spec)
    old = k.params[spec.param]
    new = packed_buffer(old, spec)
    body = relayout(k.body, old, new, lambda i: packed_index(i, spec))
    params = tuple(new if b is old else b for b in k.params)
    return replace(k, body=body, params=params, packs=(*k.packs, spec))


def bind(root: Stmt, v: Symbol, kind: str) -> Stmt:
    """Run a loop on the blocks or the threads of a grid. Legal if its iterations are independent,
    and threads are inside of blocks."""
    legal.check_bind(root, find(root, v), kind)
    return replace_loop(root, v, lambda s: replace(s, kind=kind))
