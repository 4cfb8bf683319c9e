"""Row-wise reductions with the maps around them, one row at a time; column reductions.

    m = max(x); e = exp(x - m); s = sum(e); y = e / s
->  for i in parallel(n): { m = max over x[i]; y[i] = exp(x[i] - m); s = sum over y[i]; y[i] /= s }

Each reduction accumulates in several vectors at once (`rfactor`), so that it is not bound by the
latency of one addition. Intermediate rows live in the output where types allow, else in a
temporary.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2, prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Symbol, bounds, const, is_const, sym
from tensorwright.ir.loop import Alloc, For, Kernel, Seq, Stmt, loop_symbol, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.contraction import (
    reduction_length,
    spread,
)
from tensorwright.schedule.form import Form
from tensorwright.schedule.maps import (
    choose_lanes,
    collapse,
    in_parallel,
    lanes_for,
    share,
    total,
    vectorize_innermost,
)
from tensorwright.schedule.nest import Stage, extent_of, loads_of, nest_of, stride_of
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import Product, choose_tile
from tensorwright.target.target import Target

ACCUMULATORS = (4, 2, 1, 8)
LATENCY = 4  # of an addition
SHORT, MOST_VECTORS = 64, 8  # elements of a window, and vectors of a tile
ROWS_AT_ONCE = (4, 2, 8, 1)  # that are added to a strip of columns
CACHED = 4  # of which part of the L3 cache what is summed up certainly is in it
SHORT_RUNS = 4  # bytes that come from memory in a cycle where only a few of them lie together
NEW_RUN = 50  # cycles until the next row comes as fast as memory gives it


def schedule_rows(form: Form, target: Target, choices: Choices) -> Kernel:
    """Fuse the row loops of all stages, then vectorize each stage along its row."""
    k, rows = form.kernel, form.rows
    body = reuse_output(k.body, form)
    parts = body.body if isinstance(body, Seq) else (body,)
    nests = [s for s in parts if not isinstance(s, Alloc)]
    allocs = [s for s in parts if isinstance(s, Alloc)]
    extents = [f.extent for f in form.stages[0].spatial[:rows]]
    shared = [loop_symbol(f"row{n}", const(0), e)
              for n, e in enumerate(extents)]  # fmt: skip
    inner = []
    count = prod(extent_of(f) for f in form.stages[0].spatial[:rows])
    for n, nest in enumerate(nests):
        for v in shared:
            nest = ir.substitute(nest.body, {sym(nest.var): sym(v)})
        inner.append(schedule_inside(nest, target, choices.within(f"stage{n}", count)))
    body = seq(*inner)
    for v, e in reversed(list(zip(shared, extents))):
        body = For(v, const(0), e, body)
    body, private = shrink(body, allocs, rows)
    if shared:
        private_inside = seq(*(Alloc(b) for b in private))
        body = ir.rewrite(body, lambda s: _with_front(s, shared[-1], private_inside))
        work = total(list(form.stages[0].spatial[:rows])) * _row_length(form)
        if in_parallel(work, choices):
            for v in shared:
                body = p.set_kind(body, v, "parallel")
            body = share(body, shared, choices)
    else:
        body = seq(*(Alloc(b) for b in private), body)
    kept = [a for a in allocs if a.buffer not in _names(private) and _used(body, a.buffer)]
    return k.with_body(seq(*kept, body), f"rows: {len(inner)} stages over {rows} shared loops")


def _with_front(s: Stmt, v, front: Stmt) -> Stmt | None:
    if isinstance(s, For) and s.var is v and isinstance(front, Seq | Alloc):
        return replace(s, body=seq(front, s.body))
    return None


def _row_length(form: Form):
    longest = const(1)
    for s in form.stages:
        n = total([*s.spatial[form.rows :], *s.reduce])
        if is_const(n) and is_const(longest):
            longest = n if n.value > longest.value else longest
        else:
            return n
    return longest


def _names(private: dict) -> set[Buffer]:
    return set(private.values())


def _used(body: Stmt, b: Buffer) -> bool:
    return b in ir.stored_buffers(body)


def shrink(body: Stmt, allocs: list[Alloc], rows: int) -> tuple[Stmt, dict[Buffer, Buffer]]:
    """Temporaries with one element a row become private scalars: new -> old."""
    private: dict[Buffer, Buffer] = {}
    for a in allocs:
        if all(d == 1 for d in a.buffer.shape[rows:]):
            small = Buffer(a.buffer.name, a.buffer.dtype, (), "local")
            body = p.relayout(body, a.buffer, small, lambda i: ())
            body = ir.rewrite(body, lambda s, a=a, small=small: replace(
                s, buffer=small, indices=()) if isinstance(s, ir.Store) and s.buffer is a.buffer
                else None)  # fmt: skip
            private[small] = a.buffer
    return body, private


def reuse_output(body: Stmt, form: Form) -> Stmt:
    """Keep an intermediate of the output's shape and type in the output itself, if the last stage
    alone writes the output and reads the intermediate only at the element that it writes."""
    last = form.stages[-1]
    if not last.is_map:
        return body
    for s in form.stages[:-1]:
        same = s.out.dtype is last.out.dtype and s.out.shape == last.out.shape
        if s.is_map and same and s.out.scope == "temp":
            reads = [e for e in ir.loads(last.root) if e.value is s.out]
            if all(e.args == last.final.indices for e in reads):
                body = ir.replace_buffers(body, {s.out: last.out})
                return ir.rewrite(body, lambda x: Seq(tuple(
                    part for part in x.body if not (isinstance(part, Alloc)
                                                    and part.buffer is last.out)))
                    if isinstance(x, Seq) else None)  # fmt: skip
    return body


def schedule_inside(s: Stmt, target: Target, choices: Choices) -> Stmt:
    """One stage within its row."""
    loops, inner = [], s
    while isinstance(inner, For):
        loops.append(inner.var)
        inner = inner.body
    if not isinstance(inner, ir.Store) or any(map(_is_reducing, _loops_in(s))):
        return _reduction_inside(s, target, choices)
    if not loops:
        return s
    s, loops = collapse(s, loops)
    extent = p.find(s, loops[-1]).extent
    return vectorize_innermost(s, loops[-1], target, choose_lanes(s, extent, target, choices))[0]


def _loops_in(s: Stmt) -> list[For]:
    return [x for x in ir.statements(s) if isinstance(x, For)]


def _reduction_inside(s: Stmt, target: Target, choices: Choices) -> Stmt:
    """Vectorize the reduction loop inside (unit loops around it stay)."""
    reduce = [x for x in _loops_in(s) if _is_reducing(x)]
    if not reduce:
        return s
    names = [f.var for f in reduce]
    s, names = collapse(s, names)
    innermost = p.find(s, names[-1])
    if not isinstance(innermost.body, ir.Store):
        return s
    lanes = lanes_for(s, target)
    high = bounds(innermost.extent)[1]
    width = lanes * choose_accumulators(extent_of(innermost), lanes, choices)
    while width > 1 and high is not None and width > high:
        width //= 2
    return s if width == 1 else p.rfactor(s, names[-1], width, names[0])[0]


def choose_accumulators(length: int, lanes: int, choices: Choices) -> int:
    """Vectors to accumulate in, of a reduction that takes in one vector a cycle if it does not wait
    for the last addition; they are combined at the end."""
    fitting = [n for n in ACCUMULATORS if n == 1 or n * lanes <= length]

    def cycles(n: int) -> float:
        return -(-length // (n * lanes)) * max(n, LATENCY) + LATENCY * log2(n)

    return choices.pick("accumulators", fitting, cycles)


def _is_reducing(f: For) -> bool:
    s = f.body
    while isinstance(s, For):
        s = s.body
    if not isinstance(s, ir.Store) or ir.update(s) is None:
        return False
    return not any(sym(f.var) in set(ir.walk(i)) for i in s.indices)


def schedule_columns(k: Kernel, stage: Stage, target: Target, choices: Choices) -> Kernel:
    """A reduction whose output's last axis is contiguous: tiles of 1 x several vectors."""
    lanes = lanes_for(k.body, target)
    if in_strips(stage, lanes, target, choices):
        return schedule_strips(k, stage, target, choices)
    body, loops = columns_as_one(k, stage)
    n = p.find(body, loops[-1]).extent
    product = Product(1, n.value if is_const(n) else 1024, reduction_length(stage))
    tile = choose_tile(product, target, lanes, choices)
    body, jo, ji = p.split(body, loops[-1], tile.width, guard=p.guard_carried)
    body, jv, jl = p.split(body, ji, tile.lanes)
    body = p.set_kind(body, jl, "vector")
    body = spread(body, (jl, jv))
    body = share(body, [*loops[:-1], jo], choices)
    return k.with_body(body, f"columns: {tile.vectors} x {tile.lanes}")


def columns_as_one(k: Kernel, stage: Stage) -> tuple[Stmt, list[Symbol]]:
    """The reduction with sums of its own, and its loops over results, those of one run of memory
    fused."""
    body = k.body
    if stage.acc is stage.out:
        body = p.cache_write(body, stage.init)
    for f in stage.spatial:
        body = p.set_kind(body, f.var, "parallel")
    return collapse(body, [f.var for f in stage.spatial])


def in_strips(stage: Stage, lanes: int, target: Target, choices: Choices) -> bool:
    """Whether sums of many columns are kept in the cache rather than those of few in registers:
    what comes from memory is read in long runs then, but sums are moved."""
    reads = {e.value for e in loads_of(stage.step.value) if e.value is not stage.acc}
    if not all(isinstance(d, int) for b in reads for d in b.shape):
        return False
    size = sum(prod(b.shape) * b.dtype.bytes for b in reads)
    near = size <= target.caches[2] // CACHED
    rate = target.l2_rate if size <= target.caches[1] else target.l3_rate
    together = target.memory_rate if is_short(stage, lanes) else SHORT_RUNS
    moved = 2 * reduction_length(stage) * prod(extent_of(f) for f in stage.spatial) / lanes
    cycles = {
        "tiles": size / (rate if near else together),
        "strips": size / (rate if near else target.memory_rate) + near * moved,
    }
    return choices.pick("sums", cycles, cycles.get) == "strips"


def is_short(stage: Stage, lanes: int) -> bool:
    """Whether a window of few elements reduces columns that fit a tile (pooling): what it reads
    lies together, and neighbouring results read it again."""
    width = bounds(stage.spatial[-1].extent)[1]
    few = reduction_length(stage) <= SHORT
    return few and width is not None and width <= MOST_VECTORS * lanes


def schedule_strips(k: Kernel, stage: Stage, target: Target, choices: Choices) -> Kernel:
    """Sums of a strip of columns in the cache, to which rows are added: what is read lies together.
    Rows that do not follow each other are added several at once, so that the sums move less."""
    lanes = lanes_for(k.body, target)
    body, loops = columns_as_one(k, stage)
    n = p.find(body, loops[-1]).extent.value
    width = choose_strip(n, stage, lanes, target, choices)
    body, jo, ji = p.split(body, loops[-1], width, guard=p.guard_carried)
    body, jv, jl = p.split(body, ji, lanes)
    body = p.fission(p.set_kind(body, jl, "vector"), jl)
    body = p.fission(p.set_kind(body, jv, "serial"), jv)
    last = stage.reduce[-1]
    steps = [stride_of(e, sym(last.var)) for e in loads_of(stage.step.value)
             if e.value is not stage.acc]  # fmt: skip
    apart = not all(is_const(s, width) for s in steps)
    fitting = [r for r in ROWS_AT_ONCE if is_const(last.extent % r, 0)]
    moves = prod(map(extent_of, (*stage.spatial, *stage.reduce))) / lanes
    at_once = choices.pick("rows", fitting, lambda r: moves * (2 / r + r / 8)) if apart else 1
    if at_once > 1:
        body, ro, ri = p.split(body, last.var, at_once)
        _, _, columns, inner = (f.var for f in nest_of(p.find(body, ro)))
        body = p.set_kind(p.reorder(body, [ro, columns, ri, inner]), ri, "unroll")
    body = share(body, [*loops[:-1], jo], choices)
    return k.with_body(body, f"columns: strips of {width}")


def choose_strip(n: int, stage: Stage, lanes: int, target: Target, choices: Choices) -> int:
    """Columns of a strip: so many that what is read are long runs, as long as their sums stay in a
    part of the L2 cache, and all threads have something to do."""
    most, element = target.caches[1] // 16 // stage.acc.dtype.bytes, stage.acc.dtype.bytes
    part = -(-n // (target.cores * lanes)) * lanes
    limits = (most, most // 2, most // 4, 2 * most, min(part, most))
    widths = dict.fromkeys(strip_width(n, m, lanes) for m in limits)
    rows, columns = reduction_length(stage), prod(map(extent_of, stage.spatial))

    def cycles(width: int) -> float:
        far = max(width - most, 0) * element / target.l2_rate
        run = NEW_RUN + min(width, n) * element / target.memory_rate
        tasks = -(-n // width) * max(columns // n, 1)
        return -(-tasks // target.cores) * rows * (run + far)

    return choices.pick("strip", list(widths), cycles)


def strip_width(n: int, most: int, lanes: int) -> int:
    """Whole vectors, up to `most` columns; a divisor of n if there is one that is not small."""
    whole = [w for w in range(lanes, most + 1, lanes) if n % w == 0]
    if whole and 4 * whole[-1] >= min(n, most):
        return whole[-1]
    return min(most, -(-n // lanes) * lanes)
