"""Reductions in blocks: a part of a panel of weights serves all rows while a cache holds it.

    for jo in panels: for t in tiles: { acc = 0; for k in 4096: acc += x[t, k] * w[jo, k]
                                        y = f(acc) }
->  for jo: sums[:] = 0
            for ko in 16: for t: { acc = sums[t]; for ki in 256: acc += x[t, ko, ki] * w[jo, ko, ki]
                                   sums[t] = acc }
            for t: y = f(sums[t])

A panel of a long reduction leaves the L2 cache before the next tile of rows reads it. The block
that follows is what is asked for ahead (`ahead.py`): it lies in the cache beside the present one.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.expr import Symbol, is_const
from tensorwright.ir.loop import For, Seq, Stmt, Store
from tensorwright.schedule import primitives as p
from tensorwright.schedule.maps import LINE_BYTES
from tensorwright.schedule.nest import extent_of, nest_of, operand_bytes
from tensorwright.schedule.primitives_nests import carry, distribute
from tensorwright.schedule.roles import Roles, Tile
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import cycles_of
from tensorwright.target.target import Target

LEAST = 32  # steps of a block
SHARE = 3  # of the L1 cache: what a block leaves to rows, to sums and to the block that follows
LATE = 0.035  # of the time to read weights, which rows wait for what a panel asked for
SERIAL = 0.5  # of multiply-adds, of one tile of rows, for each of the time to read weights
NEAR_LINE = 0.3  # cycles to ask for a line that the L3 cache would have given in time
DRAIN = 20  # vectors that could be multiplied until a tile is at work again


def choose_depth(row: For, roles: Roles, tile: Tile, target: Target, choices: Choices) -> int:
    """Steps of the reduction in a block, which the L1 cache holds; 0 for all steps at once."""
    loop, size = reduction_of(row), operand_bytes(roles.weights)
    if loop is None or not may_pay(row, size, roles, tile, target):
        return 0
    most = target.caches[0] // SHARE // (tile.width * 4)
    n = loop.extent.value
    steps = next((s for s in range(min(most, n // 2), LEAST - 1, -1) if n % s == 0), 0)
    if not steps:
        return 0
    cycles = {0: waiting(row, n, size, tile, target), steps: again(row, size, tile, target) / steps}
    if extent_of(row) <= tile.rows and size <= target.caches[-1]:
        cycles[steps] += size / LINE_BYTES * NEAR_LINE
    return choices.pick("depth", cycles, cycles.get)


def may_pay(row: For, size: int, roles: Roles, tile: Tile, target: Target) -> bool:
    """Whether weights are read from memory, and once only (each block of tiles of Winograd reads
    them again, and each image), sums lie in the L1 cache, and panels are enough tasks for
    threads."""
    once = all(is_const(f.extent, 1) for f in roles.outer)
    sums = extent_of(row) * tile.width * 4
    panels = extent_of(roles.column) // tile.width
    many = panels >= target.even_tasks or extent_of(row) <= tile.rows
    far = size > target.caches[1] // 2 and target.memory_rate < target.l3_rate
    near = sums <= target.caches[0] // 2
    return once and far and near and many and roles.broadcast and not target.by_element


def waiting(row: For, n: int, size: int, tile: Tile, target: Target) -> float:
    """Cycles that rows wait for weights, taken to come from memory (a model has many), where they
    go through a panel at a time. Memory, which rests while rows are multiplied, is late where these
    are few; and where a panel and the next one do not fit the L2 cache, they come twice. 16 x 4096
    x 4096: 3.2 ms, in blocks 2.4; 8 rows 2.1, 1.4; 24 x 1024 x 1024 1.04 times as fast, 48 rows
    0.99 (1 core of a Zen 5)."""
    reading = size / target.memory_rate
    if extent_of(row) <= tile.rows:
        return SERIAL * cycles_of(extent_of(row) * size / 4, target) ** 2 / reading
    held = (2 * tile.width + tile.rows) * n * 4
    return LATE * reading * (2 if held > target.caches[1] else 1)


def again(row: For, size: int, tile: Tile, target: Target) -> float:
    """Cycles to store sums and to load them, and to begin with each tile again, for each step."""
    tiles = -(-extent_of(row) // tile.rows)
    products = cycles_of(extent_of(row) * size / 4, target)
    return products * (1 + tiles * DRAIN / extent_of(row) / tile.vectors)


def reduction_of(nest: For) -> For | None:
    """The one loop that a nest of rows and columns sums up in, between what begins with the sums
    and what uses them, where it is known how many there are."""
    leaf = nest_of(nest)[-1].body
    parts = leaf.body if isinstance(leaf, Seq) else ()
    loops = [s for s in parts[:-1] if isinstance(s, For) and isinstance(s.body, Store)]
    known = len(loops) == 1 and is_const(loops[0].extent) and is_const(nest.extent)
    return loops[0] if known else None


def in_blocks(
    body: Stmt, row: For, inner: list[Symbol], tile: Tile, steps: int
) -> tuple[Stmt, Symbol, Symbol, list[Symbol]]:
    """The loops over rows and, `inner`, vectors of a panel with blocks of the reduction around
    them; inside, where one tile has all rows. Returns the loops over blocks, rows and `inner`."""
    loop = reduction_of(row)
    if extent_of(row) <= tile.rows:
        body, block, _ = p.split(body, loop.var, steps)
        return body, block, row.var, inner
    body = p.replace_loop(body, row.var, lambda s: replace(s, kind="serial"))
    parts = nest_of(row)[-1].body.body
    cuts, nests = [loop, parts[parts.index(loop) + 1]], []
    for v in (*reversed(inner), row.var):
        body, nests = distribute(body, v, cuts)
        cuts = [p.find(body, u) for u in nests[1:]]
    for v in (nests[0], nests[-1]):
        lanes = nest_of(p.find(body, v))[len(inner)].var
        body = p.fission(p.set_kind(body, lanes, "vector"), lanes)
    *spatial, k = (f.var for f in nest_of(p.find(body, nests[1])))
    body, block, step = p.split(body, k, steps)
    body = p.reorder(body, [block, *spatial, step])
    return carry(body, step), block, spatial[0], spatial[1:]
