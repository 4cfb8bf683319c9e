"""Contractions on register tiles: matrix products, convolutions, depthwise convolutions.

    for i: for j: { out = 0; for k: out += x[i, k] * w[k, j] }     and, behind it, y = f(out)
->  for tile in parallel:  acc[6, 64] in registers
        for k: for ii in unroll(6): for jv in unroll(4): for l in vector(16): acc += x * w
        y = f(acc)

`j`, the last axis of the output, runs over vectors; `i`, the innermost axis that the weights do not
depend on, over the rows of a tile (`tiles.py`). Rows that do not divide evenly are balanced over
two tile heights; a symbolic number of rows gets a guarded last tile.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    const,
    is_const,
    sym,
    walk,
)  # fmt: skip
from tensorwright.ir.loop import For, Kernel, Pack, Stmt
from tensorwright.schedule import primitives as p
from tensorwright.schedule.ahead import fetch_ahead, fetch_residual
from tensorwright.schedule.depth import choose_depth, in_blocks
from tensorwright.schedule.elements import element_loops, multiply_by_element
from tensorwright.schedule.groups import guard_last
from tensorwright.schedule.halves import share_halves
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.maps import LINE_BYTES, are_as_one, fall_apart, in_parallel, share, total
from tensorwright.schedule.nest import (
    EXPENSIVE,
    Stage,
    affine,
    depends,
    extent_of,
    flat_index,
    inverse,
    is_step,
    loads_of,
    nest_of,
    operand_bytes,
    stride_of,
)
from tensorwright.schedule.pairs import multiply_pairs, pair_variable
from tensorwright.schedule.roles import (
    Roles,
    Tile,
    choose_pack,
    find_roles,
    given_width,
    is_free,
    is_streamed,
    packed_buffer,
    packed_index,
    reduction_order,
)  # fmt: skip
from tensorwright.schedule.sliding import seen_again, slid_by, sliding_window, window_step
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import (
    LATENCY,
    MOST_VECTORS,
    PAIR_LATENCY,
    Product,
    choose_tile,
    cycles_of,
    least_cycles,
)
from tensorwright.target.target import Target

DECODING, TILE_IN_MEMORY = 0.6, 6  # cycles: of an operation, and of a vector stored and loaded
FAR_ROW, FAR_LINE = 2, 4  # cycles to begin with another row of weights, to wait for a line of it
HIDDEN = 0.1  # of the time to read that multiply-adds do not hide
STEP = 0.05  # cycles for a step that is written out: its code, as no time is gained by it
MOST_ORDERED = 3  # loops of a reduction that are ordered in any way
SECOND_LINE = 0.5  # cycles that a load takes longer where it is of two lines
STEPS = (1, 2, 4)  # of a reduction that are written out
BLOCKS = (1, 2, 4, 8)  # of rows


@dataclass(frozen=True, eq=False)
class Plan:
    """How a contraction is computed: on which tiles, with which window written out, along which
    variable in pairs, and in which panels it reads its weights."""

    stage: Stage
    roles: Roles
    window: For | None
    pairs: Expr | None
    tile: Tile
    pack: Pack | None


def schedule_contraction(
    k: Kernel, stages: tuple[Stage, ...], target: Target, choices: Choices
) -> Kernel:
    """The kernel with its one contraction (and a map behind it) on register tiles."""
    stage = stages[0]
    plan = plan_contraction(k, stage, target, choices)
    body = k.body
    if stage.acc is stage.out:
        body = p.cache_write(body, stage.init)
    work = total([*stage.spatial, *stage.reduce])
    if in_parallel(work, choices, cycles_of(1, target)):
        for f in stage.spatial:
            body = p.set_kind(body, f.var, "parallel")
    if len(stages) == 2:
        body = p.fuse_epilogue(body, stage, stages[1], inverse(stage, stages[1]))
    out = stages[-1].out
    rolled = len(stages) == 2 and is_rolled(stages[1], choices)
    if rolled:
        body = p.stage_result(body, out)
    k, body = on_tiles(k, body, plan, target, choices)
    if rolled:
        body = p.roll(body, out)
    tile, pack = plan.tile, plan.pack
    trace = f"contraction: {tile.rows} x {tile.vectors} x {tile.lanes} register tile"
    trace += ", pairs of bf16" if pack is not None and pack.words >= 0 else ""
    return k.with_body(body, trace)


def plan_contraction(k: Kernel, stage: Stage, target: Target, choices: Choices) -> Plan:
    """The choices for one contraction of the kernel. Raises ScheduleError where it is not one for
    register tiles (`roles.is_tiled`)."""
    roles = find_roles(stage)
    if roles is None:
        raise ScheduleError(f"no loop of {stage.out.name} runs along columns")
    roles = choose_order(stage, roles, target, choices)
    lanes = target.lanes(stage.acc.dtype)
    pairs = choose_products(stage, roles, target, choices)
    product = Product(
        extent_of(roles.row), extent_of(roles.column), reduction_length(stage), roles.broadcast,
        run=roles.run, far=float(is_stream(roles, target, lanes)), panel=given_width(k, roles),
        latency=LATENCY if pairs is None else PAIR_LATENCY, apart=are_apart(roles),
        slid=slid_by(roles, (roles.row, roles.column, *stage.reduce)),
    )  # fmt: skip
    times = choices.within("", prod(extent_of(f) for f in roles.outer))
    window, product = choose_window(stage, roles, product, target, lanes, times)
    tile = choose_tile(product, target, lanes, times)
    pack = choose_panels(k, stage, roles, tile, pairs, target, choices)
    if pack is None and not is_streamed(roles.weights, sym(roles.column.var)):
        raise ScheduleError(f"what {stage.out.name} streams neither lies along its columns nor can "
                            "be put in panels")  # fmt: skip
    if roles.run % tile.lanes == 0:  # nothing but single elements to slide over
        window = None
    return Plan(stage, roles, window, pairs, tile, pack)


def on_tiles(
    k: Kernel, body: Stmt, plan: Plan, target: Target, choices: Choices
) -> tuple[Kernel, Stmt]:
    """The kernel with its weights in panels; `body`, the part of it with the planned contraction
    alone, which accumulates in a local, on register tiles."""
    body = order_reduction(body, plan.stage, plan.roles, plan.window)
    if plan.window is not None:
        body = p.set_kind(body, plan.window.var, "unroll")
    body = order_spatial(body, plan.stage, plan.roles)
    pack = plan.pack
    if pack is not None:
        old = k.params[pack.param]
        new = packed_buffer(old, pack)
        params = tuple(new if b is old else b for b in k.params)
        packs = (*(given for given in k.packs if given.param != pack.param), pack)
        k = replace(k, params=params, packs=packs)
        if pack.words >= 0:
            body = multiply_pairs(body, plan.pairs, plan.roles, new, pack)
        else:
            body = p.relayout(body, old, new, lambda i: packed_index(i, pack))
    # last: products of pairs are made of the roles' own loads
    body, roles = join_rows(body, plan.roles)
    return k, tile_nest(body, roles, plan.tile, target, choices)


def reduction_length(stage: Stage) -> int:
    return prod(extent_of(f) for f in stage.reduce)


def are_apart(roles: Roles) -> bool:
    """Whether rows of what is not streamed are known to fall into several sets of the L1 cache."""
    if roles.row is None or roles.other is None:
        return False
    read = [(e.value.dtype.bytes, stride_of(e, sym(roles.row.var))) for e in loads_of(roles.other)]
    return all(fall_apart([s], n) for n, s in read)


def is_stream(roles: Roles, target: Target, lanes: int) -> bool:
    """Whether one row reads more weights than would stay in the L2 cache, of more columns than a
    tile has: fewer lie as one panel, which narrow tiles would have to be turned for."""
    many = extent_of(roles.column) > MOST_VECTORS * lanes
    few = many and roles.broadcast and extent_of(roles.row) == 1
    return few and operand_bytes(roles.weights) >= target.caches[1] // 2


def choose_order(stage: Stage, roles: Roles, target: Target, choices: Choices) -> Roles:
    """The loops of the reduction, outermost first, by their places in the definition. What the
    innermost loop reads far apart is a cache line for each element; where such lines leave the L1
    cache before the next element of theirs is read, they come from the L2 cache once an element."""
    usual = reduction_order(stage, roles)
    if roles.other is None or not 2 <= len(usual) <= MOST_ORDERED:
        return roles
    at = {sym(f.var): n for n, f in enumerate(stage.reduce)}
    first = tuple(at[v] for v in usual)
    orders = [first, *(o for o in itertools.permutations(sorted(first)) if o != first)]
    elements = reduction_length(stage) * extent_of(roles.row)
    steps = [stride_of(e, v) for e in loads_of(roles.other)[:1] for v in at]

    def cycles(order: tuple[int, ...]) -> float:
        step = steps[order[-1]] if steps else None
        near = step is None or (is_const(step) and abs(step.value) * 4 < LINE_BYTES)
        lines = extent_of(stage.reduce[order[-1]]) * extent_of(roles.row) * LINE_BYTES
        if near or lines <= target.caches[0] // 2:
            return 0
        return elements * LINE_BYTES / target.l2_rate

    order = choices.pick("order", orders, cycles)
    return replace(roles, order=tuple(sym(stage.reduce[n].var) for n in order))


def choose_window(
    stage: Stage, roles: Roles, product: Product, target: Target, lanes: int, choices: Choices
) -> tuple[For | None, Product]:  # fmt: skip
    """The loop of a sliding window to write out, if any, and what tiles then are asked for: it
    saves loads of what neighbouring rows see, which wait in registers meanwhile."""
    window = sliding_window(stage, roles)
    if window is None:
        return None, product
    slid = replace(product, window=window.extent.value, step=window_step(window, roles))
    found = {"registers": (window, slid), "memory": (None, product)}
    cycles = lambda kept: least_cycles(found[kept][1], target, lanes)
    return found[choices.pick("window", found, cycles)]


def choose_products(stage: Stage, roles: Roles, target: Target, choices: Choices) -> Expr | None:
    """The variable along which two products are one instruction, where there is such a one."""
    pairs = pair_variable(stage, roles, target)
    if pairs is None:
        return None
    count = reduction_length(stage) * prod(extent_of(f) for f in stage.spatial)
    cycles = {"pairs": cycles_of(count / 2, target), "single": cycles_of(count, target)}
    return pairs if choices.pick("products", cycles, cycles.get) == "pairs" else None


def choose_panels(
    k: Kernel, stage: Stage, roles: Roles, tile: Tile, pairs: Expr | None, target: Target,
    choices: Choices,
) -> Pack | None:  # fmt: skip
    """Panels for the streamed operand, or none where it is to be read as it lies: in rows of which
    a tile reads a part, which no prefetcher follows."""
    spec = choose_pack(k, stage, roles, tile, pairs)
    whole = is_const(roles.column.extent % tile.width, 0)  # nothing is read past the last column
    lies = whole and is_streamed(roles.weights, sym(roles.column.var))
    if spec is None or pairs is not None or not lies or any(g.param == spec.param for g in k.packs):
        return spec
    count = reduction_length(stage) * prod(extent_of(f) for f in stage.spatial)
    weights = operand_bytes(roles.weights)
    far = FAR_ROW if weights > target.caches[0] // 2 else 0
    waiting = weights / LINE_BYTES * FAR_LINE if weights > target.caches[1] // 2 else 0
    cycles = {"panels": 0.0, "rows": count / tile.width / tile.rows * far + waiting}
    return spec if choices.pick("weights", cycles, cycles.get) == "panels" else None


def is_rolled(s: Stage, choices: Choices) -> bool:
    """Whether an epilogue is a loop over the vectors of a tile. Written out, each of its operations
    is decoded anew for every vector; as a loop, the tile goes through memory."""
    results = prod(extent_of(f) for f in s.spatial) / 16
    cycles = {"unrolled": results * weight(s) * DECODING, "rolled": results * TILE_IN_MEMORY}
    return choices.pick("epilogue", cycles, cycles.get) == "rolled"


def weight(s: Stage) -> int:
    """Operations of a map per element, a mathematical function counting as ten."""
    inner = [e for e in walk(s.final.value) if e.op not in ("load", "const", "sym", "cast")
             and e.dtype.name != "index"]  # fmt: skip
    return sum(10 if e.op in EXPENSIVE and e.op != "div" else 1 for e in inner)


def order_reduction(body: Stmt, stage: Stage, roles: Roles, window: For | None) -> Stmt:
    """A window that slides is innermost."""
    if len(stage.reduce) < 2:
        return body
    order = [v.value for v in reduction_order(stage, roles)]
    if window is not None:
        order.sort(key=lambda v: v is window.var)
    return p.reorder(body, order)


def order_spatial(body: Stmt, stage: Stage, roles: Roles) -> Stmt:
    """Outer loops, then the row loop, then the column loop: here still one perfect nest."""
    order = [*roles.outer, *([roles.row] if roles.row else []), roles.column]
    return p.reorder(body, [f.var for f in order]) if len(order) > 1 else body


def join_rows(body: Stmt, roles: Roles) -> tuple[Stmt, Roles]:
    """The row loop as one with the loop around it, where its size is known only when running and
    all steps follow each other: else a batch of one would fill no tile."""
    if roles.row is None or is_const(roles.row.extent) or not roles.outer:
        return body, roles
    around = p.find(body, roles.outer[-1].var)
    inner = p.find(body, roles.row.var)
    if depends(roles.weights, sym(around.var)) or not are_as_one(inner, around, inner):
        return body, roles
    body, both = p.fuse(body, around.var, inner.var)
    return body, replace(roles, row=p.find(body, both), outer=roles.outer[:-1])


def panel_position(body: Stmt, roles: Roles, width: int, target: Target, choices: Choices) -> int:
    """Where among the outer loops that over weight panels goes: inside all of them, so that a panel
    serves one block of rows after another from the L1 cache; or around those loops that the weights
    do not depend on, which rereads the other operand instead of weights that fit no L2 cache, and
    stores one after another what lies in one line of a result that is turned. Each panel has its
    own part of what a window slides over channel by channel: around the loop along which it slides,
    the L1 cache holds what the next step sees again."""
    free = [f for f in roles.outer if is_free(f, roles)]
    weights, other = operand_bytes(roles.weights), operand_bytes(roles.other)
    repeats = prod(extent_of(f) for f in free)
    panels = -(-extent_of(roles.column) // width)
    again = weights * (repeats - 1) if weights > target.caches[1] // 2 else 0
    parted = parted_lines(body, roles) if panels > 1 else 0
    seen = seen_again(body, roles, extent_of(roles.column), target)
    cycles = {"inside": again / target.memory_rate + parted / target.l2_rate + seen}
    first = next((k for k, f in enumerate(roles.outer) if f in free), len(roles.outer))
    if first < len(roles.outer) and all(f in free for f in roles.outer[first:]):
        reread = other * (panels - 1) / target.memory_rate if roles.broadcast else 0
        cycles["around"] = reread + seen_again(body, roles, width, target)
    where = choices.pick("panels", cycles, cycles.get)
    return first if where == "around" else len(roles.outer)


def parted_lines(body: Stmt, roles: Roles) -> int:
    """Bytes of lines of a turned result, each of which holds the end of a row and the next one."""
    if roles.row is None or extent_of(roles.row) * 4 % LINE_BYTES == 0:
        return 0
    row, column = sym(roles.row.var), sym(roles.column.var)
    stores = [s for s in ir.statements(body) if isinstance(s, ir.Store)]
    flats = [flat_index(s.buffer, s.indices) for s in stores]
    turned = any(affine(f, row) is const(1) and affine(f, column) is not const(0) for f in flats)
    return prod(extent_of(f) for f in (*roles.outer, roles.column)) * LINE_BYTES if turned else 0


def tile_nest(body: Stmt, roles: Roles, tile: Tile, target: Target, choices: Choices) -> Stmt:
    """Split column and row, put the tile inside, distribute it over the parts of the stage."""
    body = spread_nest(body, roles, tile, target, choices)
    found = element_loops(body) if target.by_element else []
    if not found:
        return write_out(body, roles, tile, choices)
    tiles = -(-extent_of(roles.row) // tile.rows) * -(-extent_of(roles.column) // tile.width)
    times = tiles * prod(extent_of(f) for f in roles.outer)
    return multiply_by_element(body, found, tile, choices.within("", times))


def spread_nest(body: Stmt, roles: Roles, tile: Tile, target: Target, choices: Choices) -> Stmt:
    at = panel_position(body, roles, tile.width, target, choices)
    body, jo, ji = p.split(body, roles.column.var, tile.width, guard=guard_last(roles))
    body, jv, jl = p.split(body, ji, tile.lanes)
    outer = [f.var for f in roles.outer]
    outer.insert(at, jo)
    row = roles.row
    if row is None:
        body = p.reorder(body, [*outer, jv, jl])
        body = p.set_kind(body, jl, "vector")
        body = spread(body, (jl, jv))
    else:
        body = p.reorder(body, [*outer, row.var, jv, jl])
        count = choose_blocks(roles, tile, at, target, choices)
        if count > 1:
            body, block, inner = p.split(body, row.var, row.extent.value // count)
            kind = p.find(body, block).kind  # halves of a loop are as independent as the whole
            body = p.replace_loop(body, inner, lambda s: replace(s, kind=kind))
            outer.insert(at, block)
            body, row = p.reorder(body, [*outer, inner]), p.find(body, inner)
        row, inner, blocks = p.find(body, row.var), [jv, jl], []
        steps = choose_depth(row, roles, tile, target, choices)
        if steps:
            body, *blocks, i, inner = in_blocks(body, row, inner, tile, steps)
            row = p.find(body, i)
        body, tiles = split_rows(body, row, tile.rows, inner)
        outer.append(tiles)
        body = fetch_ahead(body, roles, tile, outer, at, blocks, target, choices)
        body = share_halves(body, roles, tile, target, choices)
        body = fetch_residual(body, target, choices)
    return fuse_outer(body, outer, choices)


def choose_blocks(roles: Roles, tile: Tile, at: int, target: Target, choices: Choices) -> int:
    """Blocks of rows, each of which runs through all panels: what rows read then stays in the L2
    cache, and every block reads the weights once more. (Where the L3 cache is nearly as fast as the
    L2 cache that gains nothing: 512x768x768 and ResNet-50 within 1 %, 1 core of a Zen 4.)"""
    row = roles.row
    if not is_const(row.extent) or at < len(roles.outer) or not roles.broadcast:
        return 1
    rows = row.extent.value
    counts = [n for n in BLOCKS if n == 1 or (rows % n == 0 and rows // n >= 2 * tile.rows)]
    weights = operand_bytes(roles.weights)
    rate = target.l3_rate if weights > target.caches[1] // 2 else target.l2_rate
    return choices.pick("blocks", counts, lambda n: (n - 1) * weights / rate * HIDDEN)


def write_out(body: Stmt, roles: Roles, tile: Tile, choices: Choices) -> Stmt:
    """Some steps of the reduction written out, in the innermost loops. Tiles hide what a loop takes
    beside its body: 1, 2 and 4 steps were within 2 % of each other in 7 of 8 products and
    convolutions (1 core of a Zen 4); in one row by 1024 x 4096 they differed up to 18 %, either
    way from tile to tile. The channels of groups that are parts of vectors are another matter:
    written out, each is known to lie in the vector that begins with the first one, so that no load
    is of two lines (56 x 56, 128 channels in groups of 4 186 -> 141 us; 1 core of a Zen 5)."""
    loops = [f for f in ir.statements(body) if isinstance(f, For) and is_step(f)]
    if not loops:
        return body
    counts = [n for n in STEPS if all(is_const(f.extent % n, 0) for f in loops)]
    steps = max(extent_of(f) for f in loops)
    parted = any(is_within_groups(f, roles, tile) for f in loops)

    def cycles(n: int) -> float:
        loads = steps * tile.rows * tile.vectors if parted and n < steps else 0
        return STEP * steps * n + SECOND_LINE * loads

    count = choices.pick("unroll", counts, cycles)
    for f in loops if count > 1 else ():
        inner = f.var
        if not is_const(f.extent, count):
            body, _, inner = p.split(body, f.var, count)
        body = p.set_kind(body, inner, "unroll")
    return body


def is_within_groups(f: For, roles: Roles, tile: Tile) -> bool:
    """Whether a loop of a reduction runs along the channels of groups, several of which are one
    vector, as long as a line."""
    line = tile.lanes * 4 == LINE_BYTES and 1 < roles.run < tile.lanes
    few = line and is_const(f.extent) and f.extent.value <= roles.run
    return few and any(is_const(stride_of(e, sym(f.var)), 1) for e in ir.loads(f))


def spread(body: Stmt, order: tuple[Symbol, ...]) -> Stmt:
    """Distribute the innermost loops, given innermost first, over the parts of the stage, with all
    but the vector loop unrolled."""
    for v in order:
        if p.find(body, v).kind != "vector":
            body = p.set_kind(body, v, "unroll")
        body = p.fission(body, v)
    return body


def split_rows(body: Stmt, row: For, rows: int, inner: list[Symbol]) -> tuple[Stmt, Symbol]:
    """Tiles of `rows` rows: balanced over two heights for a constant extent, the last one guarded
    for a symbolic one. Returns the loop over tiles."""
    _, jl = inner
    body = p.set_kind(body, jl, "vector")
    m = row.extent
    if not is_const(m):
        at, heights = m // rows * rows, (rows, rows)
    else:
        count = -(-m.value // rows)
        high = -(-m.value // count)
        short = count * high - m.value  # tiles that are one row lower
        if short == 0:
            body, io, ii = p.split(body, row.var, high)
            return spread_tile(body, ii), io
        at, heights = (count - short) * high, (high, high - 1)
    body, *parts = p.partition(body, row.var, at)
    loops = []
    for part, height in zip(parts, heights):
        if part is parts[1] and not is_const(m):
            body, io, tiles = p.gather_tail(body, part, rows)
        else:
            body, io, ii = p.split(body, part, height)
            tiles = [ii]
        for ii in tiles:
            body = spread_tile(body, ii)
        loops.append(io)
    body, tiles = p.join(body, *loops)
    return p.decide(body), tiles


def spread_tile(body: Stmt, ii: Symbol) -> Stmt:
    """Distribute the loops of a tile, rows outermost: then all vectors of the weights and one
    element of the other operand live beside the accumulators, as `choose_tile` counts."""
    jv, jl = (f.var for f in nest_of(p.find(body, ii).body))
    return spread(p.reorder(body, [jv, ii]), (jl, ii, jv))


def fuse_outer(body: Stmt, loops: list[Symbol], choices: Choices) -> Stmt:
    """Fuse the outer loops, which are parallel, as far as they nest perfectly."""
    nested = loops[:1]
    for v in loops[1:]:
        inside = p.find(body, nested[-1]).body
        if not (isinstance(inside, For) and inside.var is v):
            break
        nested.append(v)
    return share(body, nested, choices)
