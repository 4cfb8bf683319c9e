"""Register tiles: how many rows and vectors of a result are summed up in registers at a time.

    acc[6, 64] in registers:   for k: for ii in unroll(6): for jv in unroll(4): acc += x * w

The tile is the one that needs the fewest cycles by a count of multiply-adds, loads and waste at the
edges, under the hard limit rows * vectors + vectors + 1 <= registers (one more and LLVM spills; a
vector for each row in place of 1 where the target multiplies by one element of a vector).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tensorwright.schedule.roles import Tile
from tensorwright.schedule.sliding import Slid
from tensorwright.schedule.space import Choices, Cost
from tensorwright.target.target import Target

MOST_ROWS, MOST_VECTORS = 14, 8
ALIKE_ROWS = 8  # that are read element by element: as many as one set of the L1 cache may hold
LATENCY, PAIR_LATENCY = 4, 6  # cycles of a multiply-add, and of one of pairs of bf16
NARROW = 1.05  # times what a step on whole vectors takes: one on halves of them
INSTRUCTIONS_A_CYCLE = 5.25  # where there are more than multipliers and adders take
ALONE, NEXT = 0.5, 0.2  # cycles that a load takes more if it is not in the L1 cache: where its
# neighbours are not loaded, and where they are (3x3, 28 x 28, 256 channels, 1 core of a Zen 5:
# tiles of 14 x 1 vectors 79 us, of 7 x 2 33)
KEPT = 0.75  # of the L2 cache: what stays while other rows and results pass through it (64 rows by
# 1536 x 384, two panels of 786 KB: tiles of 6 x 4 vectors 163 us, of 8 x 3 153; 1 core of a Zen 5)
AHEAD = 0.007  # of the time to read weights from memory: what each further vector of a step costs
OTHER_PANELS = 1.1  # times that: tiles as wide as the panels that weights are given in are not
PERMUTED = 1.5  # times what a load costs: one whose elements are then spread over their groups
GATHERED = 16  # the same where groups do not fill vectors or tiles: a load for each element


@dataclass(frozen=True)
class Product:
    """What tiles are asked for: results of so many rows and columns, each a sum of `depth`
    products. broadcast: all columns of a row multiply with the same element of the other operand;
    where they do not, `run`: columns that do, and `window`: rows that see one vector of it, all of
    which then stay in registers. far: how often, of all times, the streamed operand comes from
    memory: then the first tile of a panel waits for what it reads. panel: the width of panels that
    it is given in, 0 if it is not. latency: cycles of a multiply-add. apart: whether rows fall into
    several sets of the L1 cache. step: how many vectors further the next row's window begins. slid:
    what the window slides over, if the next rows of results see some of it again."""

    rows: int
    columns: int
    depth: int = 1
    broadcast: bool = True
    window: int = 1
    run: int = 1
    far: float = 0.0
    panel: int = 0
    latency: int = LATENCY
    apart: bool = False
    step: int = 1
    slid: Slid | None = None

    def is_same(self, lanes: int) -> bool:
        """Whether all lanes of a vector multiply with the same element."""
        return self.broadcast or self.run % lanes == 0


def choose_tile(product: Product, target: Target, lanes: int, choices: Choices) -> Tile:
    """The tile of least cost; few columns narrow the vectors."""
    tiles, cycles = weighed(product, target, lanes)
    return choices.pick("tile", tiles, cycles)


def least_cycles(product: Product, target: Target, lanes: int) -> float:
    """What the tile of least cost takes."""
    tiles, cycles = weighed(product, target, lanes)
    return min(map(cycles, tiles))


def weighed(product: Product, target: Target, lanes: int) -> tuple[list[Tile], Cost]:
    """The tiles that fit the registers, and the cycles of all steps of the reduction on one."""
    product = replace(product, rows=max(product.rows, 1), columns=max(product.columns, 1))
    while lanes > 4 and product.columns <= lanes // 2:
        lanes //= 2

    def cycles(tile: Tile) -> float:
        narrow = NARROW if tile.lanes < lanes and product.run % tile.lanes else 1
        return product.depth * narrow * tile_cost(product, tile, target)

    return tiles_of(product, target, lanes), cycles


def tiles_of(product: Product, target: Target, lanes: int) -> list[Tile]:
    """Those that fit the registers, in vectors of as many lanes or fewer."""
    run, rest = product.run, product.columns % lanes
    half = lanes >= 8 and 0 < rest <= lanes // 2  # two halves take no longer than one vector
    widths = [lanes, lanes // 2] if half else [lanes]
    whole = run & -run  # lanes that groups of `run` columns fill
    if 4 <= whole < lanes and whole not in widths:
        widths.append(whole)
    return [tile for lanes in widths for tile in tiles_of_lanes(product, target, lanes)]


def tiles_of_lanes(product: Product, target: Target, lanes: int) -> Iterator[Tile]:
    registers = target.vector_registers
    same, sums = product.is_same(lanes), 0 if target.fma else 1  # products to be added yet
    most_vectors = min(-(-product.columns // lanes), MOST_VECTORS)
    few = same and not (product.apart and most_vectors == 1)  # two vectors need no more rows
    most_rows = min(product.rows, ALIKE_ROWS if few else MOST_ROWS)
    for rows in range(1, most_rows + 1):
        others = rows if target.by_element and same else 1
        for vectors in range(1, most_vectors + 1):
            held = rows * vectors + kept(product, rows) * vectors
            if held + vectors + others + sums <= registers:
                yield Tile(rows, vectors, lanes)


def kept(product: Product, rows: int) -> int:
    """Vectors of what a window slides over that wait for a row to see them again: of each row but
    one as many as lie between it and the next, or as the windows of both share if that is less."""
    return (rows - 1) * max(min(product.step, product.window - product.step), 0)


def cycles_of(products: float, target: Target) -> float:
    """Of multiply-adds in f32 that fill vectors, two of which start at once."""
    return products * 32 / min(target.cycle_bits, 2 * target.vector_bits)


def tile_cost(product: Product, tile: Tile, target: Target) -> float:
    """Cycles per step of the reduction, for all tiles: the most of multiply-adds, loads and
    latency, and a share of what does not overlap. The steps say whether a panel of weights stays in
    the L1 cache."""
    vectors, width, run = tile.vectors, tile.width, product.run
    row_tiles, columns = -(-product.rows // tile.rows), -(-product.columns // width)
    rows = product.rows / row_tiles
    bits = tile.lanes * 32
    one = max(bits / target.cycle_bits, 0.5)  # cycles of an operation on vectors: two at a time
    panel = product.depth * width * 4
    near = panel <= target.caches[0] // 2
    held = 2 * panel + product.depth * tile.rows * 4  # with the next panel, and what rows read
    held = held / KEPT if row_tiles > 1 else held  # one tile reads it once
    weights = vectors * (one if near else bits / 8 / target.rate(held))
    if product.is_same(tile.lanes):
        elements = rows * (-(-width // run) if run > 1 else 1)
        if not target.fma:
            others = instructions(rows, vectors) / INSTRUCTIONS_A_CYCLE - weights
            rest = 0.2 * vectors
        elif target.by_element:  # one load for as many steps as a vector has elements
            others = elements / 2 / tile.lanes
            rest = 0.3 * elements / tile.lanes + 0.25 * vectors
        else:
            others = elements / 2
            rest = 0.3 * elements + 0.5 * vectors
    else:  # what a window slides over is loaded once; vectors next to each other come together
        seen = (product.step * (rows - 1) + product.window) / product.window * vectors
        loads = seen * one
        apart = tile.lanes % run or product.columns % width  # whose last columns are guarded
        others = loads * (1 if run == 1 else GATHERED if apart else PERMUTED)
        slid = product.slid
        lost = 0 if slid is None else slid.crowding(width, target)
        rest = (0.15 + lost * (ALONE if vectors == 1 else NEXT)) * seen + 0.25 * vectors
    cycles = max(rows * vectors * one, others + weights, product.latency)
    waiting = product.far * max(reading(product, tile, target) - cycles, 0)
    return columns * (row_tiles * (cycles + rest * one) + waiting)


def reading(product: Product, tile: Tile, target: Target) -> float:
    """Cycles to read the weights of a step from memory. One row does nothing else: 99 % of a plain
    read by tiles of 2 vectors, 97 % by 4, 90 % by 8 (1 x 1024 x 2816 and back, one core and two).
    If the L3 cache has them after all, its sums shall not wait for each other."""
    size = tile.lanes * tile.vectors * 4
    if product.rows > 1:
        return size / target.memory_rate
    other = OTHER_PANELS if product.panel not in (0, tile.width) else 1
    waiting = max(product.latency + 1 - size / target.l3_rate, 0)  # one more, as loads vary
    return size / target.memory_rate * other * (1 + AHEAD * tile.vectors) + waiting


def instructions(rows: float, vectors: int) -> float:
    """Of a step, where products and sums are instructions of their own that overwrite an operand:
    these, copies of what is used again, loads of weights, counting the loop, and for each element
    of the other operand a load and a shuffle, which takes as long as two from the adders."""
    return 2 * rows * vectors + (rows - 1) * (vectors - 1) + vectors + 3 * rows + 4
