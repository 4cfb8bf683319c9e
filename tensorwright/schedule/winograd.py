"""Contractions between transforms (Winograd's convolutions, Strassen's products), on blocks.

    for block in parallel:  v = inputs of its tiles;  m = v * u, register tiles;  y = results of m
or  v = inputs, in parallel;  m = v * u, in parallel;  y = results of m, in parallel
or  v = inputs, in parallel;  for columns in parallel: { m = v * u;  y = results of m }

A block is as many tiles as keep what passes between the stages in the L2 cache, in some or all
groups of channels. Where the weights are so large that rereading them for every block costs more,
the stages run one after another; or blocks are columns of one register tile, at all points, which
read each weight once. Transforms are vectors of channels, their intermediate values registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import gcd, prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, Symbol, compare, const, is_const, sym
from tensorwright.ir.loop import Alloc, For, Kernel, Pack, Stmt, loop_symbol, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.contraction import (
    HIDDEN,
    extent_of,
    reduction_length,
    tile_nest,
)
from tensorwright.schedule.form import Form
from tensorwright.schedule.maps import fuse_all
from tensorwright.schedule.nest import Stage, nest_of, read_nest
from tensorwright.schedule.primitives_memory import pack
from tensorwright.schedule.primitives_nests import rename_accesses
from tensorwright.schedule.roles import Roles, Tile, choose_pack, find_roles
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import Product, choose_tile, weighed
from tensorwright.schedule.transformed import (
    Transformed,
    escaping,
    read_transformed,
    with_epilogue,
)
from tensorwright.target.target import Target

USUAL_BLOCK = 12  # where their number varies
FEWEST_TILES = 4  # of a block that is worth a look
FEWEST_OF_COLUMNS = 32  # where fewer wait for their weights (16 tiles at 36 points, 512 x 512 from
# memory: 885 us, by tiles 787; 1 core of a Zen 5)
ORDERLY = 0.9  # of the cycles that are counted, what columns take, whose weights are asked for from
# one kernel to the next (BERT-base 79.5 -> 77.6 ms, ViT 120.6 -> 118.5; 1 core of a Zen 5)
SPREAD = 16  # elements between what is written at once, so that it falls into different cache sets


def schedule_winograd(form: Form, target: Target, choices: Choices) -> Kernel:
    """The kernel on blocks of tiles, or stage by stage."""
    t = read_transformed(form.kernel.body)
    if len(form.stages) == 2:
        t = with_epilogue(t, form.stages[1])
    kernel, t = given_weights(form.kernel, t)
    t = replace(t, inputs=over_tiles(t.inputs), results=over_tiles(t.results))
    count, groups = t.inputs.extent, groups_of(t)
    tile = tile_of_columns(t, target, choices)
    if tile is not None:
        k = in_columns(kernel, t, tile, target, choices)
        return k.with_body(k.body, f"transformed: {count} tiles, columns by {tile.width}")
    part = groups_of_block(t, target, choices)
    size = block_size(t, part, target, choices)
    if size == 0:
        k = in_stages(kernel, t, target, choices)
        return k.with_body(k.body, f"transformed: {count} tiles, stage by stage")
    times = -(-extent_of(t.inputs) // size) * (groups // part)
    k = in_blocks(kernel, t, size, part, target, choices.within("", times))
    some = f" in {part} of {groups} groups" if part < groups else ""
    return k.with_body(k.body, f"transformed: {count} tiles, blocks of {size}{some}")


def given_weights(k: Kernel, t: Transformed) -> tuple[Kernel, Transformed]:
    """The same with weights that the caller transforms. Its parameter is what the products read
    then, which `half` says (`loop.Pack`)."""
    if t.weights is None:
        return k, t
    (made,) = escaping(t.weights)
    old = next(e.value for e in ir.loads(t.weights) if e.value.scope == "param")
    given = Buffer(old.name, made.dtype, made.shape, "param")
    products = rename_accesses(t.products.root, made, given, lambda i: i)
    k = replace(k, params=tuple(given if b is old else b for b in k.params))
    return k, replace(t, products=read_nest(products), weights=None, half=made.shape[-1])


def over_tiles(nest: For) -> For:
    """A transform with one parallel loop over tiles, and one over channels inside."""
    first, *others, _ = nest_of(nest)
    body = p.set_kind(nest, first.var, "parallel")
    for f in others:
        body = p.set_kind(body, f.var, "parallel")
    return fuse_all(body, [f.var for f in (first, *others)])


# ---- the size of blocks -------------------------------------------------------------------------


def groups_of(t: Transformed) -> int:
    return t.m.shape[2] if len(t.m.shape) == 4 else 1


def groups_of_block(t: Transformed, target: Target, choices: Choices) -> int:
    """Groups of channels that a block takes, as many as fill whole vectors: the fewer, the more
    tiles stay in the L2 cache and read the weights together."""
    groups, lanes = groups_of(t), target.lanes(t.v.dtype)
    widths = (t.v.shape[2] // groups, t.m.shape[-1])
    parts = [
        n
        for n in range(groups, 0, -1)
        if groups % n == 0 and all(n * w % lanes == 0 for w in widths)
    ] or [groups]

    def cycles(part: int) -> float:
        return min(map(block_cost(t, part, target), block_sizes(t, part, target)))

    return choices.pick("groups", parts, cycles) if groups > 1 else groups


def block_size(t: Transformed, part: int, target: Target, choices: Choices) -> int:
    """Tiles of a block in so many groups of channels, 0 if the stages should run apart."""
    sizes = block_sizes(t, part, target)
    if not is_const(t.inputs.extent):
        return sizes[0]
    return choices.pick("block", sizes, block_cost(t, part, target))


def block_sizes(t: Transformed, part: int, target: Target) -> list[int]:
    """Candidates, first those whose blocks keep in the L2 cache what passes between the stages;
    last those that keep up to twice as much as it holds, on the stack of a task."""
    passed = passed_bytes(t, part)
    fitting, most = room(target) // passed, 2 * target.caches[1] // passed
    if not is_const(t.inputs.extent):  # rows that no tile fills cost time: blocks are small
        return [max(min(USUAL_BLOCK, fitting), FEWEST_TILES)]
    count, parts = t.inputs.extent.value, groups_of(t) // part
    threads = max(target.cores, 2)  # on one, a block alone was slower than two: 280 us, not 200
    step = threads // gcd(threads, parts)  # as many blocks for each of the threads
    blocks = range(step, max(count // FEWEST_TILES, step) + 1, step)
    sizes = dict.fromkeys(-(-count // n) for n in blocks)
    apart = [0] if parts == 1 else []
    large = [n for n in sizes if fitting < n <= most]
    return [*(n for n in sizes if n <= fitting), *apart, *large] or [min(sizes)]


def room(target: Target) -> int:
    return target.caches[1] * 5 // 8


def passed_bytes(t: Transformed, part: int) -> int:
    """What passes between the stages for one tile."""
    channels = (t.v.shape[2] + prod(t.m.shape[2:])) * part // groups_of(t)
    return t.v.shape[0] * channels * t.v.dtype.bytes


def weights_of(t: Transformed) -> Buffer:
    return next(e.value for e in ir.loads(t.products.root) if e.value.scope == "param")


def far_share(t: Transformed, blocks: int) -> float:
    """How often, of all times, weights come from memory: every block reads them at each point, some
    of them at several."""
    return weights_of(t).shape[0] / (t.v.shape[0] * blocks)


def block_cost(t: Transformed, part: int, target: Target) -> Callable[[int], float]:
    """Cycles of blocks of so many tiles in so many groups of channels, without the transforms.
    Every block reads the weights once, which takes longer than its products if it is small: the
    first one from memory, others from what holds them beside what passes between the stages, the L3
    cache if they are no more than half of it. For two threads, an odd number of blocks takes as
    long as one more (49 tiles by 7 and by 5, 3x3x256x256: 1.48 and 1.50 ms on one core, 0.94 and
    0.83 on two)."""
    count, points, wide = extent_of(t.inputs), t.v.shape[0], t.m.shape[-1]
    depth, parts = reduction_length(t.products), groups_of(t) // part
    weights = prod(weights_of(t).shape) // parts * t.v.dtype.bytes
    passed = passed_bytes(t, part)

    def cycles(size: int) -> float:
        rows = min(size or count, count)
        blocks = -(-count // rows)
        tiles = Choices()
        product = Product(rows, wide, depth, far=far_share(t, blocks))
        choose_tile(product, target, target.lanes(t.v.dtype), tiles)
        products = points * part * tiles.cost
        far = 2 * weights > target.caches[2]
        rate = target.memory_rate if far else target.rate(weights + rows * passed)
        again = weights / rate
        shown = HIDDEN * again if rate < target.l2_rate else 0
        first = max(products, weights / target.memory_rate)
        reading = first + (blocks - 1) * max(products + shown, again)
        outside = count * passed / target.l3_rate * seen_moves(size, rows * passed, target)
        tasks = parts * blocks
        uneven = tasks % 2 / tasks if size else 0
        return parts * (reading + outside) * (1 + uneven)

    return cycles


def seen_moves(size: int, passed: int, target: Target) -> float:
    """How many moves between caches take time that is seen, of what passes between the stages in a
    block. One that leaves the L2 cache comes back beside multiply-adds, to and from a stack that
    the L3 cache still holds: 196 tiles, 3x3x128x128, in blocks of 1 to 4 MB took as long as each
    other, in smaller ones, which read the weights more often, up to 8 % longer (1 core of a Zen 5).
    Stage by stage it lies in memory that other kernels have used since, and other cores have made a
    part of it (25 tiles at 81 points, 128 channels, in ResNet-50: 0.79 ms, in two blocks 0.65)."""
    leaves = passed > room(target)
    if size:
        return 2 * HIDDEN if leaves else 0
    return 2 if leaves else 1 - 1 / target.cores


# ---- stage by stage ----------------------------------------------------------------------------


def in_stages(k: Kernel, t: Transformed, target: Target, choices: Choices) -> Kernel:
    far = far_share(t, 1)
    t = spread_out(t, t.inputs.extent.value, "temp", "temp")
    first = transform_part(t.inputs, target)
    last = transform_part(t.results, target)
    k = replace(k, body=seq(*t.rest, Alloc(t.v), Alloc(t.m), first, t.products, last))
    return contract(k, t, target, choices, kind="parallel", far=far)


def spread_out(t: Transformed, tiles: int, *scopes: str) -> Transformed:
    """`v` and `m` of these scopes for that many tiles, and `products` as a nest; what belongs to
    one point lies in one row, and rows are a bit longer than they need be."""
    new = {}
    for b, scope in zip((t.v, t.m), scopes):
        points, _, *widths = b.shape
        new[b] = Buffer(b.name, b.dtype, (points, tiles * prod(widths) + SPREAD), scope, 64)

    def renamed(s: For, b: Buffer) -> For:
        flat = lambda i: (i[0], i[1] * prod(b.shape[2:]) + flat_place(i[2:], b.shape[2:]))
        return rename_accesses(s, b, new[b], flat)

    return replace(t, inputs=renamed(t.inputs, t.v), results=renamed(t.results, t.m),
                   products=renamed(renamed(t.products.root, t.v), t.m),
                   v=new[t.v], m=new[t.m])  # fmt: skip


def flat_place(i: tuple[Expr, ...], shape: tuple[int, ...]) -> Expr:
    place = i[0]
    for e, d in zip(i[1:], shape[1:]):
        place = place * d + e
    return place


# ---- blocks ------------------------------------------------------------------------------------


def in_blocks(
    k: Kernel, t: Transformed, size: int, part: int, target: Target, choices: Choices
) -> Kernel:
    count, parts = t.inputs.extent, groups_of(t) // part
    n = loop_symbol("part", const(0), const(parts))
    t = in_part(t, part, sym(n)) if parts > 1 else t
    far = far_share(t, max(extent_of(t.inputs) // size, 1))
    blocks = (count + (size - 1)) // size
    block = loop_symbol("block", const(0), blocks)
    t = spread_out(t, size, "local", "local")
    first, last = (part_of(transform_part(s, target), passed, sym(block), size, count)
                   for s, passed in ((t.inputs, t.v), (t.results, t.m)))  # fmt: skip
    middle = shortened(t.products, size)
    body = seq(Alloc(t.v), Alloc(t.m), first, middle, last)
    # blocks are parallel because tiles are
    nest = For(block, const(0), blocks, body, "parallel")
    if parts > 1:
        nest = p.fuse(For(n, const(0), const(parts), nest, "parallel"), n, block)[0]
    k = replace(k, body=seq(*t.rest, nest))
    return contract(k, replace(t, products=middle), target, choices, far=far)


def in_part(t: Transformed, part: int, n: Expr) -> Transformed:
    """The same for `part` groups of channels, the n-th of such parts."""
    groups = groups_of(t)
    v = Buffer(t.v.name, t.v.dtype, (*t.v.shape[:2], t.v.shape[2] * part // groups), t.v.scope)
    m = Buffer(t.m.name, t.m.dtype, (*t.m.shape[:2], part, t.m.shape[3]), t.m.scope)
    moved = {t.v: (v, lambda i: (*i[:2], i[2] - n * v.shape[2])),
             t.m: (m, lambda i: (*i[:2], i[2] - n * part, i[3]))}  # fmt: skip
    inputs = short(t.inputs, nest_of(t.inputs)[-1].var, v.shape[2], n, moved)
    products = short(t.products.root, t.products.spatial[2].var, part, n, moved)
    results = short(t.results, nest_of(t.results)[-1].var, part * m.shape[3], n, moved)
    return replace(t, inputs=inputs, products=read_nest(products), results=results, v=v, m=m)


Moved = dict[Buffer, tuple[Buffer, Callable[[tuple[Expr, ...]], tuple[Expr, ...]]]]


def short(s: For, var: Symbol, size: int, n: Expr, moved: Moved) -> For:
    """The n-th part of a loop's iterations, so many of them; of what passes between the stages,
    buffers of its own."""
    i = loop_symbol(var.name, const(0), const(size))
    at = {sym(var): n * size + sym(i)}
    part = lambda f: For(i, const(0), const(size), ir.substitute(f.body, at), f.kind)
    s = p.replace_loop(s, var, part)
    for old, (new, to) in moved.items():
        s = rename_accesses(s, old, new, to)
    return s


def part_of(nest: For, passed: Buffer, block: Expr, size: int, count: Expr) -> For:
    """The tiles of one block: what passes to or from other stages is counted from its first one."""
    i = loop_symbol(nest.var.name, const(0), const(size))
    at = block * size + sym(i)
    body = ir.substitute(nest.body, {sym(nest.var): at})
    begin = block * (passed.shape[1] - SPREAD)
    body = rename_accesses(body, passed, passed, lambda x: (x[0], x[1] - begin))
    return For(i, const(0), const(size), body if is_const(count % size, 0) else ir.If(
        compare("lt", at, count), body))  # fmt: skip


def shortened(products: For, size: int) -> For:
    """The products over the tiles of one block, all of them: rows that no tile fills are not
    read."""
    return replace(products, body=replace_tiles(products.body, size))


def replace_tiles(nest: For, size: int) -> For:
    i = loop_symbol(nest.var.name, const(0), const(size))
    return For(i, const(0), const(size), ir.substitute(nest.body, {sym(nest.var): sym(i)}))


def transform_part(nest: For, target: Target) -> Stmt:
    """A transform with its channels in vectors; its loop over tiles stays outermost."""
    channels = nest.body
    lanes = min(target.lanes(next(iter(ir.loads(nest))).dtype), channels.extent.value)
    whole = channels.extent.value // lanes * lanes
    body, parts = nest, [channels.var]
    if whole < channels.extent.value:
        body, *parts = p.partition(body, channels.var, whole)
    for v in parts:
        width = min(lanes, p.find(body, v).extent.value)
        body, _, lane = p.split(body, v, width)
        body = p.set_kind(body, lane, "vector")
        body = p.fission(body, lane)
    return body


def contract(
    k: Kernel, t: Transformed, target: Target, choices: Choices, far: float, kind: str = "serial"
) -> Kernel:
    """The products on register tiles, their weights in panels. far: how often, of all times, these
    come from memory."""
    k, stage, roles = summed_apart(k, t.products, kind)
    points = prod(extent_of(f) for f in roles.outer)
    rows, columns, depth = *map(extent_of, (roles.row, roles.column)), reduction_length(stage)
    product = Product(rows, columns, depth, far=far)
    lanes = target.lanes(stage.acc.dtype)
    tile = choose_tile(product, target, lanes, choices.within("", points))
    spec = choose_pack(k, stage, roles, tile)
    if spec is None and t.half:  # one panel
        spec = Pack(k.params.index(roles.weights.value), 2, t.half, (0,), (1,))
    return on_tiles(k, t, roles, tile, spec, target, choices)


def summed_apart(k: Kernel, root: For, kind: str) -> tuple[Kernel, Stage, Roles]:
    """The kernel with sums in locals, its products, and the roles of their loops."""
    stage = read_nest(root)
    body = p.cache_write(k.body, stage.init) if stage.acc is stage.out else k.body
    for f in stage.spatial:
        body = p.set_kind(body, f.var, kind) if kind != "serial" else body
    k = replace(k, body=body)
    stage = read_nest(p.find(k.body, root.var))
    return k, stage, find_roles(stage)


def on_tiles(
    k: Kernel, t: Transformed, roles: Roles, tile: Tile, spec: Pack | None, target: Target,
    choices: Choices,
) -> Kernel:  # fmt: skip
    """The same with weights as `spec` says, or as they lie."""
    if spec is not None:  # panels of others, which read the same, are not asked for
        own = tuple(g for g in k.packs if g.param != spec.param)
        k = pack(replace(k, packs=own), replace(spec, half=t.half))
    var = t.products.var
    done = tile_nest(p.find(k.body, var), roles, tile, target, choices)
    return replace(k, body=p.replace_loop(k.body, var, lambda _: done))


# ---- columns -----------------------------------------------------------------------------------


def tile_of_columns(t: Transformed, target: Target, choices: Choices) -> Tile | None:
    """The tile, as wide as the columns that go through products and the last transform together;
    None if tiles of results should go through all stages together."""
    lanes, (points, count, *_, wide) = target.lanes(t.m.dtype), t.m.shape
    if not is_const(t.inputs.extent) or groups_of(t) > 1 or count < FEWEST_OF_COLUMNS:
        return None
    product = Product(count, wide, reduction_length(t.products), far=far_share(t, 1))
    tiles, cycles = weighed(product, target, lanes)
    passed = points * count * t.m.dtype.bytes  # to the results, for each column
    most = 2 * target.caches[1]  # on the stack of a task
    tiles = [tile for tile in tiles if wide % tile.width == 0 and passed * tile.width <= most]
    if not tiles:
        return None
    by_tiles = min(map(block_cost(t, 1, target), block_sizes(t, 1, target)))
    size = prod(t.v.shape) * t.v.dtype.bytes
    leaves = size > room(target)
    moved = size / target.l3_rate

    def by_columns(tile: Tile) -> float:
        """What is read again comes from the L3 cache if the L2 cache does not hold it."""
        parts = wide // tile.width
        again = (parts - 1) * moved * HIDDEN if leaves else 0
        uneven = -parts % target.cores / parts
        outside = moved * (2 if leaves else 1 - 1 / target.cores)
        told = ORDERLY if parts >= FEWEST_TILES else 1
        return ((points * cycles(tile) + again) * (1 + uneven) + outside) * told

    cost = {"tiles": by_tiles, "columns": min(map(by_columns, tiles))}
    if choices.pick("along", cost, cost.get) == "tiles":
        return None
    return choices.pick("tile", tiles, by_columns)


def in_columns(
    k: Kernel, t: Transformed, tile: Tile, target: Target, choices: Choices
) -> Kernel:  # fmt: skip
    """Inputs first; then, column by column of tiles, products at all points and the results that
    they make: these stay in the nearest caches, and weights are read once, in the order in which
    they lie."""
    width, (*lead, wide) = tile.width, t.m.shape
    n = loop_symbol("part", const(0), const(wide // width))
    m = Buffer(t.m.name, t.m.dtype, (*lead, width), t.m.scope)
    moved = {t.m: (m, lambda i: (*i[:2], i[2] - sym(n) * width))}
    products = short(t.products.root, t.products.spatial[2].var, width, sym(n), moved)
    results = short(t.results, nest_of(t.results)[-1].var, width, sym(n), moved)
    t = replace(t, products=read_nest(products), results=results, m=m)
    t = spread_out(t, lead[1], "temp", "local")
    first, last = (transform_part(s, target) for s in (t.inputs, t.results))
    inside = seq(Alloc(t.m), t.products, replace(last, kind="serial"))
    parts = For(n, const(0), const(wide // width), inside, "parallel")
    k = replace(k, body=seq(*t.rest, Alloc(t.v), first, parts))
    k, _, roles = summed_apart(k, t.products, "serial")
    spec = Pack(k.params.index(roles.weights.value), 2, width, (), (0, 1))
    roles = replace(roles, around=(parts,))
    return on_tiles(k, t, roles, tile, spec, target, choices)
