"""Attention on tiles of query rows: the scores of a tile stay in a buffer of its task.

    s = q k'; p = softmax(s); y = p v
->  for head, tile in parallel:  s[rows, keys] in the cache
        s = q k' (register tiles);  s = softmax(s) (row by row, in place);  y = s v (register tiles)

The nests are brought to common loops over rows, their intermediates made private to a row, and the
loop over the rows of a tile is distributed over the three parts again. Each part is a function of
its own, so that the constants of one do not take the registers of another.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Symbol, as_expr, bounds, const, is_const, minimum, sym
from tensorwright.ir.loop import Alloc, For, Kernel, Seq, Stmt, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.contraction import (
    FAR_ROW,
    extent_of,
    reduction_length,
    tile_nest,
)
from tensorwright.schedule.form import (
    MAX_ROW_BYTES,
    MAX_TILE_BYTES,
    Form,
    row_shape,
    temps_in_order,
)
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.maps import LINE_BYTES, fall_apart, in_parallel, share, total
from tensorwright.schedule.masked import skip_masked, statements_of
from tensorwright.schedule.nest import Stage, inverse, loads_of, read_nest, stride_of
from tensorwright.schedule.pairs import pack_pairs, pair_variable
from tensorwright.schedule.primitives_memory import pack
from tensorwright.schedule.primitives_nests import (
    distribute,
    divide_once,
    in_place,
    in_runs,
    jam,
    privatize,
)  # fmt: skip
from tensorwright.schedule.roles import Roles, Tile, choose_pack, find_roles, is_streamed
from tensorwright.schedule.rows import schedule_inside
from tensorwright.schedule.softmax import divide_behind, greatest_number
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import Product, choose_tile, cycles_of
from tensorwright.target.target import Target

MANY = 64  # elements that a size of which nothing is known is taken to have
MANY_KEYS = 512  # likewise keys, of which a tile of rows holds the scores
RUNS = 16  # of tiles, each with memory of its own for scores whose number has no bound
MAX_ROWS = 48
WIDE_ROWS = 12  # of a tile whose rows are long
FEW_LINES = 4  # of a cache, that a row of scores fills
MIN_ROWS = 4  # of a tile, unless there is no room for as many
WAITING = 40  # cycles until a reduction along a row, or what is made of it, is there


def schedule_attention(form: Form, target: Target, choices: Choices) -> Kernel:
    """The kernel with its rows in tiles, one task a tile."""
    k, rows = form.kernel, form.rows
    values = next(s for s in reversed(form.stages) if s.is_contraction)
    body, temps = k.body, temps_in_order(k.body)
    body, parts = together(body, form, values, temps)
    body = p.replace_loop(body, parts[-1].var, divide_behind)
    parts = [p.find(body, f.var) for f in parts]
    loops, row = [f.var for f in parts[:-1]], parts[-1]
    work = total([*parts, *form.stages[0].spatial[rows:], *form.stages[0].reduce])
    if in_parallel(work, choices):
        for f in parts:
            body = p.set_kind(body, f.var, "parallel")
    height = tile_height(row, form, target, choices)
    last = "repeated" if is_const(row.extent) else "short"
    body, tile, inner = p.split(body, row.var, height, last=last)
    most = minimum(height, row.extent) if last == "short" else None
    body, three = distribute(body, inner, cut_points(p.find(body, inner)), most)
    place = sym(tile) * height + sym(three[1])
    place = row.begin + (place if last == "short" else minimum(place, row.extent - 1))
    skipping = skip_masked(body, [p.find(body, v) for v in three], place)
    if skipping is not body:
        count = prod(map(extent_of, (*parts, *form.stages[0].spatial[rows:], values.spatial[-1])))
        cycles = {"skipped": cycles_of(count, target), "computed": cycles_of(2 * count, target)}
        if choices.pick("masked", cycles, cycles.get) == "skipped":
            body = skipping
    k = k.with_body(body, f"attention: tiles of {height} rows over {rows} shared loops")
    again = -(-extent_of(row) // height)  # that keys and values are read
    tiles = prod(extent_of(f) for f in parts[:-1]) * again
    for name, v in (("scores", three[0]), ("values", three[2])):
        k = contract_part(k, v, again, target, choices.within(name, tiles))
    between = choices.within("", tiles * height)
    size = 4 * row_width(form)
    body = p.replace_loop(k.body, three[1], lambda s: rows_part(s, size, target, between))
    return replace(k, body=in_runs(share(body, [*loops, tile], choices), RUNS, MAX_ROW_BYTES))


def together(body: Stmt, form: Form, values: Stage, temps: list[Buffer]) -> tuple[Stmt, list[For]]:
    """One nest over the rows with all stages in it and every intermediate private to a row; its
    loops."""
    last = form.stages[-1]
    if values.acc is values.out:
        body = p.cache_write(body, values.init)
    if last is not values:
        body = p.fuse_epilogue(body, values, last, inverse(values, last))
    stages = [s for s in form.stages if s is values or not is_behind(s, values, form)]
    loops = []
    for level in range(form.rows):
        body, v = jam(body, [s.spatial[level].var for s in stages])
        loops.append(v)
    own = []
    for b in temps:
        if b in ir.buffers(body):
            body, small = privatize(body, loops[-1], b, whole_lines(row_shape(b, form.rows)))
            own.append(small)
    return reuse_rows(body, own), [p.find(body, v) for v in loops]


def whole_lines(row: tuple) -> tuple:
    """A row's shape where each row begins with a cache line; short rows would grow too much."""
    *others, last = row
    line = LINE_BYTES // 4
    long = isinstance(last, int) and last > FEW_LINES * line
    return (*others, -(-last // line) * line) if long else row


def is_behind(s: Stage, values: Stage, form: Form) -> bool:
    return form.stages.index(s) > form.stages.index(values)


def reuse_rows(body: Stmt, temps: list[Buffer]) -> Stmt:
    """Store maps over the row that they read, where that is their only use of it."""
    kept: list[Buffer] = []
    for b in temps:
        for old in kept:
            try:
                body = in_place(body, old, b)
                break
            except ScheduleError:  # then the row gets a buffer of its own
                continue
        else:
            kept.append(b)
    return body


def tile_height(row: For, form: Form, target: Target, choices: Choices) -> int:
    """Rows of a tile, all tiles alike: keys and values are read once a tile, so many, but only so
    many that their scores stay in the cache, and that all cores have as many tiles."""
    width = row_width(form)
    wide = min(WIDE_ROWS, MAX_TILE_BYTES // (4 * width))
    most = max(1, wide, min(MAX_ROWS, MAX_ROW_BYTES // (4 * width)))
    high = bounds(row.extent)[1]
    whole = most if high is None else high
    heights = [min(most, whole)]
    if is_const(row.extent):
        heights = [-(-whole // n) for n in range(-(-whole // most), whole + 1)]
    heights = list(dict.fromkeys(h for h in heights if h >= min(heights[0], MIN_ROWS)))
    scores = form.stages[0]
    both = 2 * width * prod(extent_of(f) for f in scores.reduce)  # elements of keys and values
    repeats = prod(extent_of(f) for f in scores.spatial[: form.rows - 1])

    def cycles(h: int) -> float:
        tiles = repeats * -(-whole // h)
        idle = -tiles % target.cores  # cores that rest while the last tiles are computed
        return tiles * 4 * both / target.l2_rate + (tiles + idle) * cycles_of(h * both, target)

    return choices.pick("height", heights, cycles)


def row_width(form: Form) -> int:
    """Scores of a row."""
    sizes = [as_expr(row_shape(s.out, form.rows)[-1]) for s in form.stages[:-1]
             if len(s.out.shape) > form.rows]  # fmt: skip
    return max((d.value if is_const(d) else MANY_KEYS for d in sizes), default=1)


def cut_points(s: For) -> list[Stmt]:
    """Where the second and the third part of a row's work begin."""
    nests = [x for x in s.body.body if not isinstance(x, Alloc)]
    return [nests[1], nests[-1]]


def contract_part(k: Kernel, v: Symbol, again: int, target: Target, choices: Choices) -> Kernel:
    """One contraction of a tile on register tiles, its streamed operand in panels."""
    stage = read_nest(p.find(k.body, v))
    if stage.acc is stage.out:
        k = replace(k, body=p.cache_write(k.body, stage.init))
        stage = read_nest(p.find(k.body, v))
    roles = find_roles(stage)
    columns = bounds(roles.column.extent)[1] or MANY  # a head whose size only the call tells
    rows = bounds(p.find(k.body, v).extent)[1]
    product = Product(rows, columns, reduction_length(stage))
    tile = choose_tile(product, target, target.lanes(stage.acc.dtype), choices)
    pairs = pair_variable(stage, roles, target)
    spec = choose_pack(k, stage, roles, tile, pairs)
    if spec is not None and spec.words >= 0:
        k = pack_pairs(k, stage, roles, pairs, spec)
    elif spec is not None:
        again *= -(-rows // tile.rows)
        given = any(g.param == spec.param for g in k.packs)
        if given or not in_rows(stage, roles, tile, again, target, choices):
            k = pack(k, spec)
    done = outline(tile_nest(p.find(k.body, v), roles, tile, target, choices))
    return replace(k, body=p.replace_loop(k.body, v, lambda _: done))


def in_rows(
    stage: Stage, roles: Roles, tile: Tile, again: int, target: Target, choices: Choices
) -> bool:
    """Whether the streamed operand, read so often, is read as it lies, not copied to a panel in
    each call: a tile reads whole rows of it, which stay in the L1 cache, as they do not all fall
    into a few sets."""
    lies = is_streamed(roles.weights, sym(roles.column.var))
    if not lies or not is_const(roles.column.extent, tile.width):
        return False
    length, (operand,) = reduction_length(stage), loads_of(roles.weights)
    steps = [stride_of(operand, sym(f.var)) for f in stage.reduce]
    width = operand.dtype.bytes
    apart = fall_apart(steps, width)
    size = width * tile.width * length
    far = 0 if apart and size <= target.caches[0] // 2 else FAR_ROW
    cycles = {"panels": 2 * size / target.l2_rate, "rows": again * length * far}
    return choices.pick("weights", cycles, cycles.get) == "rows"


def outline(s: Stmt) -> For:
    """`s` as a function of its own."""
    if isinstance(s, For):
        return replace(s, kind="outline")
    return ir.loop("once", 1, lambda _: s, "outline")


def rows_part(s: For, size: int, target: Target, choices: Choices) -> For:
    """The stages between the contractions, vectorized along each row of `size` bytes. Where a row
    is divided by the sum of its exponentials it is multiplied by the reciprocal, which is in
    (0, 1]: what rounding once more costs is less than what the sum of the products behind it
    rounds."""
    if is_softmax(s):
        s = replace(s, body=divide_once(s.body))
    parts = s.body.body if isinstance(s.body, Seq) else (s.body,)
    done = [x if isinstance(x, Alloc) else schedule_inside(x, target, choices.within(f"row{n}"))
            for n, x in enumerate(parts)]  # fmt: skip
    s = greatest_number(replace(s, body=seq(*done)))
    return outline(stage_by_stage(s, size, target, choices))


def stage_by_stage(s: For, size: int, target: Target, choices: Choices) -> Stmt:
    """Each stage for a group of rows, which stay in the L1 cache, before the next stage: else each
    waits for the end of the one before, of the same row, and a machine looks ahead for no more than
    a row or two of instructions."""
    height = bounds(s.extent)[1]
    most = max(1, target.caches[0] // 2 // size)
    alike = -(-height // -(-height // most))
    stages = len(statements_of(s))
    groups = dict.fromkeys((alike, 1))
    group = choices.pick("group", groups, lambda n: WAITING * stages / n)
    if group == 1:
        return s
    body, v = s, s.var
    if group < height:
        body, _, v = p.split(s, v, group, last="short")
    return distribute(body, v, statements_of(p.find(body, v))[1:], const(group))[0]


def is_softmax(s: For) -> bool:
    """Whether a row is reduced to its greatest element, then exponentials of what lies below that
    are summed."""
    found = []
    for x in ir.statements(s.body):
        if isinstance(x, ir.Store):
            reduced = ir.update(x)
            if reduced is not None:
                found.append(reduced[0])
            elif x.value.op == "exp" and x.value.args[0].op == "sub":
                found.append("exp")
            elif any(e.op == "div" for e in ir.walk(x.value)):
                found.append("div")
    return found == ["max", "exp", "add", "div"]
