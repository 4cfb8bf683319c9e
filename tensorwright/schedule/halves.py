"""The last vector of a tile, where half of its columns are none, shared by two rows.

    24 columns:  for ii in 8: for jv in 2: for l in 16: acc[jv, ii, l] += x[ii, k] * w[k, 16 jv + l]
->  for ii in 8: for l in 16: acc[0, ii, l] += x[ii, k] * w[k, l]
    for ip in 4: for l in 16: halves[ip, l] += (x[2 ip, k] if l < 8 else x[2 ip + 1, k])
                                               * w[k, 16 + l % 8]

Three products of vectors in place of four, for a blend of elements that are loaded anyway (3136 x
144 x 24 112 -> 89 us, 784 x 240 x 40 1.12 times as fast, 196 x 240 x 72 1.05; in AVX2 784 x 240 x
20 1.07; 1 core of a Zen 5).
"""

from __future__ import annotations

from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, compare, const, is_const, select, sym, transform
from tensorwright.ir.loop import Alloc, For, Seq, Stmt, Store, loop_symbol
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import depends, extent_of, is_step, nest_of
from tensorwright.schedule.roles import Roles, Tile
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

BLENDED = 3  # registers for two elements and their blend


def share_halves(body: Stmt, roles: Roles, tile: Tile, target: Target, choices: Choices) -> Stmt:
    """Tiles, as wide as the result, with their last vector for two rows each. Where halves of
    vectors take half the time, tiles are of these."""
    rest = extent_of(roles.column) - tile.width + tile.lanes
    fits = is_const(roles.column.extent) and 0 < rest <= tile.lanes // 2 and tile.vectors > 1
    two = 2 * tile.lanes * 32 <= target.cycle_bits
    if not fits or not two or not roles.broadcast or not target.fma or target.by_element:
        return body
    found = {s: new for s in ir.statements(body) if (new := shared(s, tile, target))}
    if not found:
        return body
    steps = max(prod(extent_of(f) for f in loops_of_steps(s)) for s in found)
    rows = prod(extent_of(f) for f in (*roles.outer, roles.row)) * steps
    cycles = {"own": rows * tile.vectors / 2, "shared": rows * (tile.vectors - 0.5) / 2}
    if choices.pick("halves", cycles, cycles.get) == "own":
        return body
    return p.decide(ir.rewrite(body, found.get))


def loops_of_steps(s: Seq) -> list[For]:
    found = (nest_of(part) for part in s.body if isinstance(part, For) and is_step(part))
    return [f for f in next(found, []) if f.kind == "serial"]


def shared(s: Stmt, tile: Tile, target: Target) -> Stmt | None:
    """A tile with its last vector shared; None for what is no such tile."""
    if not isinstance(s, Seq) or not loops_of_steps(s):
        return None
    sums = [a.buffer for a in s.body if isinstance(a, Alloc)]
    if len(sums) != 1 or len(sums[0].shape) != 3:
        return None
    acc, (vectors, rows, lanes) = sums[0], sums[0].shape
    if (vectors, lanes) != tile[1:] or rows < 2:
        return None
    if rows * vectors - rows // 2 + vectors + BLENDED > target.vector_registers:
        return None
    whole = Buffer(acc.name, acc.dtype, (vectors - 1, rows, lanes), acc.scope)
    halves = Buffer("halves", acc.dtype, ((rows + 1) // 2, lanes), acc.scope)

    def visit(part: Stmt) -> Stmt | None:
        if isinstance(part, Alloc) and part.buffer is acc:
            return ir.seq(Alloc(whole), Alloc(halves))
        loops = nest_of(part)
        if [f.kind for f in loops] != ["unroll", "unroll", "vector"]:
            return None
        return ir.seq(whole_vectors(loops, acc, whole), last_vectors(loops, acc, halves))

    made = ir.rewrite(s, visit)
    return None if acc in ir.buffers(made) else made


def whole_vectors(loops: list[For], acc: Buffer, whole: Buffer) -> Stmt:
    """The nest without its last vector."""
    rows, vectors, lanes = loops
    v = loop_symbol(vectors.var.name, const(0), vectors.extent - 1)
    leaf = ir.substitute(lanes.body, {sym(vectors.var): sym(v)})
    leaf = ir.map_accesses(leaf, lambda b, at: (whole, at) if b is acc else None)
    inner = For(v, const(0), vectors.extent - 1, ir.with_children(lanes, (leaf,)), "unroll")
    return ir.with_children(rows, (inner,))


def last_vectors(loops: list[For], acc: Buffer, halves: Buffer) -> Stmt:
    """The last vectors of the nest, two rows at a time where they sum up."""
    rows, vectors, lanes = loops
    half, leaf, count = lanes.extent.value // 2, lanes.body, rows.extent.value
    last = {sym(vectors.var): vectors.extent - 1}

    def apart(row: Expr) -> For:
        place = lambda b, at: (halves, (at[1] // 2, at[1] % 2 * half + at[2])) if b is acc else None
        l = loop_symbol(lanes.var.name, const(0), const(half))
        one = ir.substitute(leaf, {**last, sym(rows.var): row, sym(lanes.var): sym(l)})
        return For(l, const(0), const(half), ir.map_accesses(one, place), "vector")

    if not isinstance(leaf, Store) or leaf.buffer is not acc:
        row = loop_symbol(rows.var.name, const(0), rows.extent)
        return For(row, const(0), rows.extent, apart(sym(row)), "unroll")
    pair = loop_symbol(rows.var.name, const(0), const(count // 2))
    l = loop_symbol(lanes.var.name, const(0), lanes.extent)

    def both(e: Expr) -> Expr | None:
        if e.op == "load" and e.value is acc:
            return halves[sym(pair), sym(l)]
        if depends(e, sym(rows.var)):
            if depends(e, sym(lanes.var)):
                return None
            two = [transform(e, {sym(rows.var): sym(pair) * 2 + n}.get) for n in (0, 1)]
            return select(compare("lt", sym(l), const(half)), *two)
        return transform(e, {**last, sym(lanes.var): sym(l) % half}.get)

    store = Store(halves, (sym(pair), sym(l)), transform(leaf.value, both))
    vector = For(l, const(0), lanes.extent, store, "vector")
    pairs = For(pair, const(0), const(count // 2), vector, "unroll")
    return ir.seq(pairs, apart(const(count - 1))) if count % 2 else pairs
