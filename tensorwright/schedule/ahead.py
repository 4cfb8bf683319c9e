"""What tiles will need, asked for while others or they themselves are multiplied.

Weights, which the next panel needs:

    for jo in panels: for t in tiles of rows: for k: acc += x[t, k] * w[jo, k]
->  for jo: for t: for k: prefetch(w[jo + 1, k, t % 4 * 16]); acc += x[t, k] * w[jo, k]

The first tile of rows reads a panel from memory or the L3 cache, all others from the L2 cache: it
waits, and memory rests while they multiply. Where two vectors are multiplied in a cycle, that was 2
to 17 % of a product (128x768x768 of weights from memory 238 -> 250 GFLOP/s of 260, 49x512x512 from
the L3 cache 220 -> 244; 1 core of a Zen 5).

A thread's last panel has no next one: it asks for the first panel that the thread will read of what
the program has announced (`passes/announce.py`). Else each kernel begins with waiting: 64 rows by
384x384 from memory 237 -> 254 GFLOP/s, with two threads 399 -> 465.

A residual, which is added to the results of a tile:

    for t in tiles of rows: { acc = 0; for k: acc += x[t, k] * w[k]; y[t] = acc + r[t] }
->  for t: { acc = 0; prefetch(r[t]); for k: acc += x[t, k] * w[k]; y[t] = acc + r[t] }

Tiles read parts of its rows, which no prefetcher follows, and no multiply-add of the next tile
begins before they have come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    ceildiv,
    compare,
    const,
    is_const,
    minimum,
    substitute,
    sym,
    symbols_of,
)  # fmt: skip
from tensorwright.ir.loop import For, Prefetch, Seq, Stmt, Store
from tensorwright.schedule import primitives as p
from tensorwright.schedule.maps import LINE_BYTES
from tensorwright.schedule.nest import (
    affine,
    depends,
    extent_of,
    flat_index,
    is_step,
    loads_of,
    nest_of,
    operand_bytes,
    stride_of,
)
from tensorwright.schedule.roles import Roles, Tile, is_free
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

WAITED = 0.3  # of the time to read weights, which passes before they are multiplied
ASKED = 0.02  # cycles for a line that is asked for beside multiply-adds
BEYOND = 4  # of the L2 cache: what of it may be asked for of the weights of the next kernel


def fetch_ahead(
    body: Stmt, roles: Roles, tile: Tile, outer: list[Symbol], at: int, blocks: list[Symbol],
    target: Target, choices: Choices,
) -> Stmt:  # fmt: skip
    """Tiles of rows ask in each step for vectors of weights that the next panel has in it, so that
    memory works while rows are multiplied. Otherwise the first tile of a panel waits for most lines
    of it. outer: the loops around a tile, its panel at place `at`, its rows last. blocks: the loop
    over blocks of the reduction, if there is one: then it is the next block that is asked for."""
    loops, rows = [p.find(body, v) for v in (outer[at], *blocks)], p.find(body, outer[-1])
    parts = prod(map(extent_of, (*roles.around, *loops)))
    tiles = -(-extent_of(roles.row) // tile.rows)
    fixed = all(is_const(f.extent) for f in loops)
    if parts < 2 or (tiles < 2 and not blocks) or not fixed or target.by_element:
        return body
    size, free = operand_bytes(roles.weights), [f for f in roles.outer if is_free(f, roles)]
    asks = size / tile.width / 4 * tiles * prod(map(extent_of, free))
    waiting = size / min(target.rate(size), target.l3_rate) * WAITED
    cycles = {"none": waiting, "panel": asks * ASKED}
    if choices.pick("ahead", cycles, cycles.get) == "none":
        return body
    around = p.find(body, outer[at - 1]) if at else None
    if around is not None and is_const(around.extent) and not is_free(around, roles):
        loops.insert(0, around)  # points, groups
    inner = len(loops) if roles.around else len(blocks)
    loops = [*roles.around, *loops]
    ends = roles.around or len(outer) == 2
    end = own_end(loops, rows, inner, target.cores) if ends else None
    even = tiles % 2 == 0 or tiles > 4 * tile.vectors  # 5 tiles of 2 vectors took a quarter longer
    split = 2 if roles.around and even and tiles >= 2 * tile.vectors else 1
    most = target.caches[1] // BEYOND
    return ir.rewrite(body, Asking(loops, rows, tile, tiles, split, most, end).ask)


@dataclass
class Asking:
    """What steps ask for. loops: over parts of weights, innermost last. tiles: how many tiles of
    rows, the iterations of `rows`, share the asking for a part. split: how many of them ask for the
    same vectors, each for its share of the steps. most: bytes to ask for of what the program has
    announced, at the `end` of a thread's parts (`own_end`)."""

    loops: list[For]
    rows: For
    tile: Tile
    tiles: int
    split: int
    most: int
    end: tuple[Expr, Expr] | None

    def ask(self, s: Stmt) -> Stmt | None:
        """A step of the reduction, asking first for lines of the part that follows."""
        if not (isinstance(s, For) and is_step(s)):
            return None
        inner = {sym(f.var): f for f in ir.statements(s.body) if isinstance(f, For)}
        read = next(filter(partial(self.is_read, inner), ir.loads(s)), None)
        written = [v for v, f in inner.items() if f.kind == "unroll"]
        vectors = [v for v in written if read is not None and depends(read, v)]
        high = prod(extent_of(inner[v]) for v in written if v not in vectors)
        if read is None or len(vectors) > 1 or 2 * high < self.tile.rows:
            return None  # the last few rows of an unknown number hardly do more than read
        read = substitute(read, dict.fromkeys(inner.keys() - vectors, const(0)))
        count = -(-self.tile.vectors // self.tiles)  # of vectors to ask for in a step
        turn, part = sym(self.rows.var) // self.split, sym(self.rows.var) % self.split
        turns = [turn * count + n for n in range(count)]
        step = sym(s.var) // self.split + part * (s.extent // self.split)
        lines = [substitute(read, {v: k % self.tile.vectors, sym(s.var): step})
                 for v in vectors for k in turns]  # fmt: skip
        lines = lines or [read]
        following = next_part(self.loops)
        within = {*map(sym, symbols_of(read))} - following.keys()
        begin = substitute(read, dict.fromkeys(within, const(0)))
        beyond = self.end and (*self.end, self.further(begin, -(-self.tile.vectors // len(lines))))
        places = [substitute(e, dict.fromkeys(following, const(0))) for e in lines]
        begin = substitute(begin, following)
        asks = [Prefetch(begin, flat_index(e.value, e.args), beyond) for e in places]
        return replace(s, body=ir.seq(*asks, s.body))

    def is_read(self, inner: dict[Expr, For], e: Expr) -> bool:
        """Whether a load is one of weights, which tiles of rows share."""
        lane = next(v for v, f in inner.items() if f.kind == "vector")
        shared = depends(e, sym(self.loops[-1].var)) and not depends(e, sym(self.rows.var))
        return shared and depends(e, lane)

    def further(self, begin: Expr, tiles: int) -> Expr:
        """How many bytes further a tile goes on to ask, if so many tiles ask for all of a part:
        what the program has announced may have a larger one."""
        step = affine(flat_index(begin.value, begin.args), sym(self.loops[-1].var))
        if step is None or not is_const(step):
            return const(0)
        size = step.value * begin.value.dtype.bytes
        return minimum(sym(self.rows.var) // tiles, max(0, self.most // size - 1)) * size


def own_end(loops: list[For], rows: For, inner: int, threads: int) -> tuple[Expr, Expr]:
    """Whether the part that follows is none of the present thread's, and which thread that is: each
    has a range of the iterations (`codegen/support_pool.py`). inner: how many of the loops are
    inside those that are parallel."""
    place, count = const(0), const(1)
    for f in loops:
        place, count = place * f.extent + sym(f.var), count * f.extent
    if inner:
        within = const(prod(map(extent_of, loops[-inner:])))
        here, following, count = place // within, (place + 1) // within, count // within
    elif is_const(rows.extent):
        tiles = rows.extent
        here, following, count = place * tiles + sym(rows.var), (place + 1) * tiles, count * tiles
    else:  # about where threads meet, which is not known
        here, following = place, place + 1
    thread = here * threads // count
    end = ceildiv((thread + 1) * count, threads)
    return compare("ge", following, end), thread


def next_part(loops: list[For]) -> dict[Expr, Expr]:
    """The place of the part of weights that follows, that of the last one for itself. loops: over
    parts, innermost last; the last part of one round is followed by the first of the next."""
    place, count = const(0), const(1)
    for f in loops:
        place, count = place * f.extent + sym(f.var), count * f.extent
    place = minimum(place + 1, count - 1)
    found = {}
    for f in reversed(loops[1:]):
        found[sym(f.var)], place = place % f.extent, place // f.extent
    return {**found, sym(loops[0].var): place}


def fetch_residual(body: Stmt, target: Target, choices: Choices) -> Stmt:
    """Tiles ask for what is added to their sums before they sum up, so that it is there in time
    (3136 rows by 64 x 256 and as many results added, from the L3 cache: 1.11 to 1.18 times as fast,
    by 128 x 256 1.08 to 1.11; 1 core of a Zen 5). What the L2 cache holds comes in time anyway, and
    where a line is several vectors that multiply for longer, nothing was gained (AVX2: 0.97)."""
    found = {s: added for s in ir.statements(body) if (added := added_to(s))}
    if not found or target.vector_bits < LINE_BYTES * 8:
        return body
    read = {e.value: e for added in found.values() for _, e in added}
    size = sum(map(operand_bytes, read.values()))
    far = size > target.caches[1] // 2
    waiting = size / min(target.rate(size), target.l3_rate) * WAITED if far else 0
    cycles = {"none": waiting, "tile": size / LINE_BYTES * ASKED}
    if choices.pick("residual", cycles, cycles.get) == "none":
        return body

    def ask(s: Stmt) -> Stmt | None:
        if s not in found:
            return None
        at = next(n for n, part in enumerate(s.body) if is_tile_step(part))
        return ir.seq(
            *s.body[:at], *(nested(Prefetch(e, const(0)), n) for n, e in found[s]), *s.body[at:]
        )

    return ir.rewrite(body, ask)


def added_to(s: Stmt) -> list[tuple[list[For], Expr]]:
    """The first elements of vectors that the end of a tile loads, of each row its own, and the
    loops around them."""
    parts = s.body if isinstance(s, Seq) else ()
    at = next((n for n, part in enumerate(parts) if is_tile_step(part)), len(parts))
    found = []
    for part in parts[at + 1 :]:
        *loops, inner = nest_of(part) or [None]
        stored = inner.body if inner is not None and inner.kind == "vector" else None
        for e in loads_of(stored.value) if isinstance(stored, Store) else ():
            own = e.value.scope == "param" and all(depends(e, sym(f.var)) for f in loops)
            if own and is_const(stride_of(e, sym(inner.var)), 1):
                found.append((loops, substitute(e, {sym(inner.var): const(0)})))
    return found


def is_tile_step(s: Stmt) -> bool:
    return isinstance(s, For) and is_step(s)


def nested(s: Stmt, loops: list[For]) -> Stmt:
    for f in reversed(loops):
        s = replace(f, body=s)
    return s
