"""Maps: collapse what is contiguous, vectors along the last loop, the rest in parallel.

for i: for j: y[i, j] = f(x[i, j])   ->   for b in parallel(n * m // 16): for l in vector(16): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, Symbol, bounds, const, is_const, sym, symbols_in, walk
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import For, Kernel, Stmt
from tensorwright.ir.simplify import linear
from tensorwright.schedule import primitives as p
from tensorwright.schedule.interleaved import in_blocks, interleaved
from tensorwright.schedule.nest import EXPENSIVE, accesses, affine, flat_index, is_near, read_nest
from tensorwright.schedule.padding import Padded, split_padding, split_panels
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

MAX_BENDS, LONGEST_BENT = 4, 4096  # of subscripts along a loop
MAX_PARTS = 64  # of a loop that reads different operands
MOST_RUNS = 16  # operands that follow each other and get a nest each
FEW_NESTS = 4  # that a map is written out as
FEWEST_LANES = 4  # of a vector that goes over results again
ROWS = (8, 7, 6, 5, 4, 3, 2, 1)  # that read at the same places, written out
MAX_STRIDE = 4  # of lanes that are loaded together and put in order
LINE_BYTES = 64
BLOCK = LINE_BYTES // 4  # elements of a cache line
STRIPS = (8, 4, 16)  # vectors
BLOCKS = (BLOCK, 8, 32, 4)
SET_BYTES = 4096  # between lines of one set of the L1 cache, which holds 8 or 12 of them
UNKNOWN = 1 << 20  # iterations of a loop without a bound
TOGETHER = (4, 2, 1)  # vectors
WAITING = 1 / 6  # of the time of a vector: what its instructions wait for each other (measured)
TESTS, NEW_LOOP = 1, 1  # cycles: of an element that tests a condition, of one loop more
WAKING = 512  # cycles that it costs to share work with another thread (2048 gained nothing)
EACH = 1 / 16  # cycles of an element of a map, at least
PARALLEL_WORK = int(2 * WAKING / EACH)  # elements below which that is more than it gains


def element_bits(root: Stmt) -> int:
    """The widest element that vectors of this code hold (narrow types compute in 32 bits; where an
    element is read, whatever type says so, does not count)."""
    widths, seen = [32], set()
    todo = [s.value for s in ir.statements(root) if isinstance(s, ir.Store)]
    while todo:
        x = todo.pop()
        if x not in seen and x.dtype.name != "index":
            seen.add(x)
            widths.append(x.dtype.bits)
            todo += x.args if x.op != "load" else ()
    return max(widths)


def lanes_for(root: Stmt, target: Target) -> int:
    return max(1, target.vector_bits // element_bits(root))


def collapse(body: Stmt, loops: list[Symbol]) -> tuple[Stmt, list[Symbol]]:
    """Fuse neighbouring loops whose two steps every access takes as one."""
    k = len(loops) - 1
    while k > 0:
        outer, inner = p.find(body, loops[k - 1]), p.find(body, loops[k])
        if outer.body is inner and are_as_one(inner, outer, inner):
            body, both = p.fuse(body, loops[k - 1], loops[k])
            loops = [*loops[: k - 1], both, *loops[k + 1 :]]
        k -= 1
    return body, loops


def are_as_one(root: Stmt, outer: For, inner: For) -> bool:
    """Whether, in every flat index below, a step of `outer` is `inner.extent` steps of `inner`; if
    there is but one step (a batch of one), it is."""
    if is_const(outer.extent, 1) and is_const(inner.extent):
        return True
    i, j = sym(outer.var), sym(inner.var)
    for flat in accesses(root):
        a, b = affine(flat, i), affine(flat, j)
        if a is None or b is None or a is not b * inner.extent:
            return False
    return not any(i in set(ir.walk(e)) or j in set(ir.walk(e)) for e in _other_uses(root))


def _other_uses(root: Stmt) -> list[Expr]:
    """Index expressions used as data or as conditions."""
    found = []
    for s in ir.statements(root):
        for e in ir.expressions(s):
            stack = [e] if not isinstance(s, ir.Store) or e is s.value else []
            while stack:
                x = stack.pop()
                if x.op == "load":
                    continue
                if x.dtype.name == "index":
                    found.append(x)
                else:
                    stack.extend(x.args)
    return found


def choose_lanes(
    body: Stmt, extent: Expr, target: Target, choices: Choices, decoding: float = 1
) -> int:
    """Elements of one vector along a loop: wide ones take more cycles each, and fewer of them have
    to be decoded."""
    widest = lanes_for(body, target)
    few = [n for n in (widest, widest // 2, widest // 4) if n >= FEWEST_LANES] or [widest]
    length = extent.value if is_const(extent) else 1 << 10
    one = max(target.cycle_bits // 2, 1)  # bits; wider vectors take two operations
    bits = element_bits(body)

    def cycles(n: int) -> float:
        return -(-length // n) * (max(n * bits / one, 1) + decoding)

    return choices.pick("lanes", few, cycles)


def choose_together(s: For, lanes: int, choices: Choices) -> int:
    """Vectors of a step of a loop with functions: each is a chain of instructions, more of them
    than a machine looks ahead for another vector's, which it finds between them if they take
    turns."""
    values = [x.value for x in ir.statements(s) if isinstance(x, ir.Store)]
    if not any(e.op in EXPENSIVE and e.dtype.is_float for e in walk(*values)):
        return 1
    length = s.extent.value if is_const(s.extent) else UNKNOWN

    def cycles(n: int) -> float:
        return -(-length // (n * lanes)) * (n + WAITING)

    return choices.pick("together", TOGETHER, cycles)


def vectorize_innermost(
    body: Stmt, v: Symbol, target: Target, lanes: int = 0
) -> tuple[Stmt, Symbol | None]:
    """Vectors along `v`: as wide as the extent fills, of `lanes` elements at most if these are
    given."""
    s = p.find(body, v)
    lanes = lanes or lanes_for(s, target)
    if is_const(s.extent):
        while lanes > 1 and s.extent.value <= lanes // 2:
            lanes //= 2
    if lanes == 1:
        return body, v
    return p.vectorize(body, v, lanes)


def total(loops: list[For]) -> Expr:
    """The number of iterations of a nest."""
    n = const(1)
    for f in loops:
        n = n * f.extent
    return n


def is_small(n: Expr) -> bool:
    return is_const(n) and n.value < PARALLEL_WORK


def in_parallel(work: Expr, choices: Choices, each: float = EACH) -> bool:
    """Whether threads share the work, given in elements that take so many cycles each: where two of
    them gain by it, however many the target has, as a program may run with more."""
    serial = each * (work.value if is_const(work) else UNKNOWN)
    cycles = {"parallel": serial / 2 + WAKING, "serial": serial}
    return choices.pick("threads", cycles, cycles.get) == "parallel"


def schedule_map(k: Kernel, spatial: tuple[For, ...], target: Target, choices: Choices) -> Kernel:
    if not spatial:
        return k
    deciding = deciding_loop(k.body, spatial)
    if deciding is not None:
        return schedule_apart(k, deciding, target, choices)
    following = operands_follow(k.body, spatial)
    if following is not None:
        return schedule_following(k, spatial, following, target, choices)
    body, small = k.body, not in_parallel(total(list(spatial)), choices)
    if not small:
        for f in spatial:
            body = p.set_kind(body, f.var, "parallel")
    body, loops = collapse(body, [f.var for f in spatial])
    turns_taken = interleaved(body, loops, lanes_for(body, target))
    if turns_taken is not None:
        body, outer = in_blocks(body, loops, turns_taken, choices)
        body = body if small else share(body, outer, choices)
        return k.with_body(body, "map: operands take turns, turned in blocks")
    along = transposed_loop(body, loops)
    padded = padding_apart(k, body, loops, along is not None)
    if padded is not None:
        return schedule_padded(k, padded, target, choices)
    if along is not None:
        panels = split_panels(read_nest(k.body)) if isinstance(k.body, For) else None
        if panels is not None:
            return schedule_parts(k, dict(zip(("full", "last"), panels)), target, choices)
        if are_side_by_side(body, along, loops[-1]):
            return schedule_side_by_side(k.with_body(body), loops, small, target, choices)
        return schedule_transposed(k.with_body(body), loops, along, small, target, choices)
    body, loops = lengthen(body, loops, target)
    body, loops = looked_up_together(body, loops)
    innermost = p.find(body, loops[-1])
    inner = choices.within("", iterations(body) // max(iterations(innermost), 1))
    lanes = choose_lanes(innermost, innermost.extent, target, inner)
    together = choose_together(innermost, lanes, inner)
    cuts = choose_cuts(innermost, cut_points(innermost), inner)
    body, parts = p.cut(body, loops[-1], cuts)
    vectors = []
    for v in parts:
        times = times_read(p.find(body, v))
        if times > 1 or takes_steps(p.find(body, v)):
            body = whole_vectors(body, v, lanes, times)
            vectors.append(None)
            continue
        body, outer = vectorize_innermost(body, v, target, together * lanes)
        vectors.append(outer)
    loops = loops[:-1] if None in vectors or len(loops) > 1 else vectors
    if loops and not small and loops[-1] not in vectors:
        body = share(body, loops, choices)
    size = f"{together} vectors of {lanes}" if together > 1 else f"vectors of {lanes}"
    trace = f"map: {len(loops) or 1} loops, {size}"
    return k.with_body(body, trace + (f", in {len(parts)} parts" if cuts else ""))


def deciding_loop(body: Stmt, spatial: tuple[For, ...]) -> For | None:
    """A loop of few steps, each of which reads other operands along the innermost loop (channels of
    joined operands, shuffled): what depends on both."""
    last = sym(spatial[-1].var)
    if not is_const(spatial[-1].extent) or not isinstance(body, For):
        return None
    chosen = [c for c in conditions(body) if last in walk(c)]
    for f in spatial[:-1]:
        few = is_const(f.extent) and 1 < f.extent.value <= FEW_NESTS
        if few and any(sym(f.var) in walk(c) for c in chosen):
            return f
    return None


def operands_follow(body: Stmt, spatial: tuple[For, ...]) -> For | None:
    """A loop around rows along which one operand follows another (a concatenation of slices) and
    nothing else is decided: rows of one operand are one run of memory, those of all are not."""
    chosen = conditions(body)
    if not chosen or not isinstance(body, For) or split_padding(read_nest(body)) is not None:
        return None
    if transposed_loop(body, [f.var for f in spatial]) is not None:
        return None
    for f in spatial[:-1]:
        if all(set(linear(c.args[1] - c.args[0])[0]) == {sym(f.var)} for c in chosen):
            return f if 0 < len(turns(f, chosen)) < MOST_RUNS else None
    return None


def schedule_following(
    k: Kernel, spatial: tuple[For, ...], f: For, target: Target, choices: Choices
) -> Kernel:
    """A nest for each of the operands: all within a task where there are many around them, else
    each a map of its own."""
    outer = spatial[: spatial.index(f)]
    around, points = total(list(outer)), turns(f, conditions(k.body))
    if is_const(around) and around.value < target.even_tasks:
        ends = [0, *points, f.extent.value]
        nests = {
            f"part{n}": p.replace_loop(
                k.body, f.var, lambda s, a=a, b=b: p.fresh_copy(s, s.begin + a, const(b - a))
            )
            for n, (a, b) in enumerate(pairwise(ends))
        }
        return schedule_parts(k, nests, target, choices)
    body, small = k.body, not in_parallel(total(list(spatial)), choices)
    for g in () if small else outer:
        body = p.set_kind(body, g.var, "parallel")
    body, parts = p.cut(body, f.var, points)
    for n, v in enumerate(parts):
        body, loops = collapse(body, nest_loops(p.find(body, v)))
        innermost = p.find(body, loops[-1])
        inner = choices.within(f"part{n}")
        lanes = choose_lanes(innermost, innermost.extent, target, inner)
        body, _ = vectorize_innermost(body, loops[-1], target, lanes)
    body = body if small else share(body, [g.var for g in outer], choices)
    return k.with_body(body, f"map: {len(outer)} loops, {len(parts)} operands one after another")


def schedule_apart(k: Kernel, f: For, target: Target, choices: Choices) -> Kernel:
    """A map of its own for each step of a loop."""
    nests = {f"step{n}": p.replace_loop(k.body, f.var, lambda s, n=n: ir.substitute(
                 s.body, {sym(f.var): f.begin + n})) for n in range(f.extent.value)}  # fmt: skip
    return schedule_parts(k, nests, target, choices)


def schedule_parts(
    k: Kernel, nests: dict[str, ir.Stmt], target: Target, choices: Choices
) -> Kernel:
    """A map in several nests, each with choices of its own."""
    made = []
    for name, nest in nests.items():
        part = k.with_body(p.renew(nest))
        spatial = read_nest(part.body).spatial
        made.append(schedule_map(part, spatial, target, choices.within(name)))
    trace = f"map: {len(made)} nests, {made[0].schedule[-1]}"
    return k.with_body(ir.seq(*(m.body for m in made)), trace)


def takes_steps(s: For) -> bool:
    """Whether some operand is read at every second, third, ... element along a loop of constant
    length: whole vectors of it are put in order, elements of a masked one are fetched singly."""
    if not is_const(s.extent) or s.extent.value < FEWEST_LANES or not isinstance(s.body, ir.Store):
        return False
    flats = [flat_index(e.value, e.args) for e in ir.loads(s.body)]
    steps = [affine(flat, sym(s.var)) for flat in flats]
    known = all(a is not None and is_const(a) and 0 <= a.value <= MAX_STRIDE for a in steps)
    return known and any(a.value > 1 for a in steps)


def times_read(s: For) -> int:
    """How many neighbours along a loop of constant length read the same element (of a picture that
    is enlarged): a vector of it is put in order for as many of theirs. 1 for all else."""
    if not is_const(s.extent) or s.extent.value < FEWEST_LANES:
        return 1
    v, flats = sym(s.var), {flat_index(e.value, e.args) for e in ir.loads(s)}
    parts = {e for e in walk(*flats) if e.op in ("floordiv", "mod") and v in walk(e.args[0])}
    times = {e.args[1] for e in parts}
    if len(times) != 1 or any(e.op == "mod" for e in parts) or not is_const(*times):
        return 1
    count = times.pop().value
    return count if count <= MAX_STRIDE else 1


def whole_vectors(body: Stmt, v: Symbol, lanes: int, period: int = 1) -> Stmt:
    """The loop on vectors. Of a constant extent, the last vector goes over results of the one
    before again; what else is left stays as it is. period: vectors after which the order repeats in
    which operands are read, and that are written out."""
    extent = p.find(body, v).extent
    while is_const(extent) and lanes > extent.value:
        lanes //= 2
    if lanes < FEWEST_LANES:
        return body
    parts = [v]
    if not is_const(extent):
        body, *parts = p.partition(body, v, extent // lanes * lanes)
        parts = parts[:1]
    elif extent.value % lanes:
        body, *parts = p.cover(body, v, lanes)
    if period > 1 and lanes % period:
        body, parts = written_out(body, parts, lanes, period)
    for part in parts:
        body, _, inner = p.split(body, part, lanes)
        rows = p.find(body, inner).body
        if isinstance(rows, For) and rows.kind == "unroll" and isinstance(rows.body, ir.Seq):
            body = p.reorder(body, [rows.var, inner])  # of rows that are written out, all at once
            body = p.fission(p.set_kind(body, inner, "vector"), inner)
            body = p.fission(body, rows.var)
        else:
            body = p.fission(p.set_kind(body, inner, "vector"), inner)
    return body


def written_out(
    body: Stmt, parts: list[Symbol], lanes: int, period: int
) -> tuple[Stmt, list[Symbol]]:
    """Loops of whole vectors as one over periods of them and a loop for each vector of a period."""
    made, found = period * lanes, []
    for part in parts:
        extent = p.find(body, part).extent.value
        ends = range(extent // made * made, extent, lanes)
        body, pieces = p.cut(body, part, [at for at in ends if at > 0])
        if extent >= made:
            body, _, inner = p.split(body, pieces[0], made)
            body, vectors = p.cut(body, inner, range(lanes, made, lanes))
            pieces[:1] = vectors
        found += pieces
    return body, found


def lengthen(body: Stmt, loops: list[Symbol], target: Target) -> tuple[Stmt, list[Symbol]]:
    """The innermost loop, if it is a part of a vector long, as one with those around it: lanes then
    read what they did in a pattern that repeats."""
    lanes = lanes_for(body, target)
    while len(loops) > 1:
        outer, inner = p.find(body, loops[-2]), p.find(body, loops[-1])
        short = is_const(inner.extent) and 1 < inner.extent.value < lanes
        if not short or lanes % inner.extent.value or outer.body is not inner or cut_points(inner):
            break
        stored = [flat_index(s.buffer, s.indices) for s in ir.statements(inner)
                  if isinstance(s, ir.Store)]  # fmt: skip
        steps = [(affine(f, sym(outer.var)), affine(f, sym(inner.var))) for f in stored]
        if any(None in (a, b) or a is not b * inner.extent for a, b in steps):
            break
        body, both = p.fuse(body, loops[-2], loops[-1])
        loops = [*loops[:-2], both]
    return body, loops


def looked_up_together(body: Stmt, loops: list[Symbol]) -> tuple[Stmt, list[Symbol]]:
    """Some rows written out within the loop along them, where what they read lies at places that
    are looked up along it, the same for all rows, or is the same and put in order: the places are
    then worked out once for them."""
    if len(loops) < 2:
        return body, loops
    row, last = p.find(body, loops[-2]), p.find(body, loops[-1])
    if row.body is not last or not is_const(row.extent) or not isinstance(last.body, ir.Store):
        return body, loops
    places = [set(walk(i)) for e in ir.loads(last.body) for i in e.args]
    found = [x for x in places if sym(last.var) in x and any(e.op == "load" for e in x)]
    same = times_read(last) > 1 and not any(sym(row.var) in x for x in places)
    count = next(n for n in ROWS if row.extent.value % n == 0)
    if count == 1 or not (same or any(sym(row.var) not in x for x in found)):
        return body, loops
    body, outer, inner = p.split(body, row.var, count)
    body = p.set_kind(p.reorder(body, [outer, last.var, inner]), inner, "unroll")
    return body, [*loops[:-2], outer, last.var]


def padding_apart(k: Kernel, body: Stmt, loops: list[Symbol], turned: bool) -> Padded | None:
    """The padding that a map consists of, where its inside is better a map of its own: what is
    turned on the way, and rows that are shorter than a vector but follow each other inside."""
    padded = split_padding(read_nest(k.body)) if isinstance(k.body, For) else None
    if padded is None or turned:
        return padded
    last = p.find(body, loops[-1])
    inner = padded.inside.spatial
    short = is_const(last.extent) and last.extent.value < BLOCK
    if len(inner) < 2 or not short or not are_as_one(inner[-1], *inner[-2:]):
        return None
    return padded


def schedule_padded(k: Kernel, padded: Padded, target: Target, choices: Choices) -> Kernel:
    """The border filled, then the inside as a map of its own."""
    inside = schedule_map(
        k.with_body(padded.inside.root), padded.inside.spatial, target, choices.within("inside")
    )
    border = [fill(k, nest, target) for nest in padded.border]
    return inside.with_body(ir.seq(*border, inside.body), "map: border filled apart")


def fill(k: Kernel, nest: Stmt, target: Target) -> Stmt:
    """A part of a border, as a map of constants: too little to have choices of its own."""
    return schedule_map(k.with_body(nest), read_nest(nest).spatial, target, Choices()).body


def choose_cuts(s: For, points: list[int], choices: Choices) -> list[int]:
    """Where to cut a loop, of the places where a condition turns: nowhere, and every element tests
    it."""
    if not points:
        return []
    cycles = {"cut": len(points) * NEW_LOOP, "whole": s.extent.value * TESTS}
    return points if choices.pick("parts", cycles, cycles.get) == "cut" else []


def cut_points(s: For) -> list[int]:
    """Where along a loop other operands are read (a concatenation), or the same one in another
    direction (padding by reflection): the places at which a condition on its variable alone turns,
    or the step of what is read. Too many to be worth it are none."""
    return sorted({*turns(s, conditions(s)), *bends(s)})


def bends(s: For) -> list[int]:
    """Where along a loop a subscript that depends on its variable alone goes on by another step.
    The element in between belongs to the longer side."""
    if not is_const(s.extent) or s.extent.value > LONGEST_BENT:
        return []
    v, begin, found = sym(s.var), s.begin, set()
    bent = {i for e in ir.loads(s) for i in e.args
            if symbols_in(i) == {s.var} and affine(i, v) is None
            and all(x.op != "load" for x in walk(i))}  # fmt: skip
    for i in bent if is_const(begin) else ():
        values = [evaluate(i, {s.var: begin.value + k}) for k in range(s.extent.value)]
        steps = [b - a for a, b in pairwise(values)]
        runs = [len(list(run)) for _, run in groupby(steps)]
        ends = list(accumulate(runs))
        found |= {at + (before > behind) for at, (before, behind) in zip(ends, pairwise(runs))}
    return sorted(found) if len(found) <= MAX_BENDS else []


def turns(s: For, compared: set[Expr]) -> list[int]:
    """Where along a loop comparisons of its variable alone turn."""
    v, found = sym(s.var), set()
    if not is_const(s.extent):
        return []
    for c in compared:
        terms, constant = linear(c.args[1] - c.args[0])  # 0 < this, or 0 <= it
        if set(terms) == {v}:
            found.add(first_turn(terms[v], constant - (c.op == "lt")))
    inner = sorted(at for at in found if 0 < at < s.extent.value)
    return inner if len(inner) < MAX_PARTS else []


def share(body: Stmt, loops: list[Symbol], choices: Choices) -> Stmt:
    """One parallel loop over the outermost of them, whose iterations threads share; the others run
    within one. One thread may be left with the last iteration."""
    nest = p.find(body, loops[0])
    if nest.kind != "parallel":
        return fuse_all(body, loops)
    extents = [p.find(body, v).extent for v in loops]
    tasks = [prod(e.value if is_const(e) else UNKNOWN for e in extents[:n + 1])
             for n in range(len(loops))]  # fmt: skip
    work = iterations(nest)
    counts = range(len(loops), 0, -1)
    count = choices.pick("shared", counts, lambda n: work / max(tasks[n - 1], 1))
    return fuse_all(body, loops[:count])


def iterations(s: Stmt) -> int:
    """Of a nest; the longest of several. An unknown extent counts as many."""
    if isinstance(s, For):
        return (s.extent.value if is_const(s.extent) else UNKNOWN) * iterations(s.body)
    if isinstance(s, ir.Seq):
        return max(map(iterations, s.body), default=1)
    return 1


def first_turn(step: int, rest: int) -> int:
    """The first i at which `0 <= step * i + rest` has turned true (false, for a negative step)."""
    return -(rest // step) if step > 0 else rest // -step + 1


def conditions(s: Stmt) -> set[Expr]:
    """Comparisons of indices that choose among values."""
    values = [x.value for x in ir.statements(s) if isinstance(x, ir.Store)]
    return index_conditions(*(e.args[0] for e in walk(*values) if e.op == "select"))


def index_conditions(*chosen: Expr) -> set[Expr]:
    """Comparisons of indices."""
    return {c for c in walk(*chosen) if c.op in ("lt", "le") and c.args[0].dtype.name == "index"}


def fuse_all(body: Stmt, loops: list[Symbol]) -> Stmt:
    """One parallel loop over all of them."""
    first = loops[0]
    for v in loops[1:]:
        body, first = p.fuse(body, first, v)
    return body


def transposed_loop(body: Stmt, loops: list[Symbol]) -> Symbol | None:
    """The loop along which what is read lies in memory, where that is not the last one."""
    last = sym(loops[-1])
    for e in ir.loads(body):
        flat = flat_index(e.value, e.args)
        own = {v: affine(flat, sym(v)) for v in loops[:-1]}
        step = affine(flat, last)
        if step is None or not is_const(step) or is_near(step) or e.dtype.bytes > 4:
            continue
        for v, a in own.items():
            if a is not None and is_const(a, 1) and bounds(p.find(body, v).extent)[1] not in (
                    1, 2, 3):  # fmt: skip
                return v
    return None


def schedule_transposed(
    k: Kernel,
    loops: list[Symbol],
    along: Symbol,
    small: bool,
    target: Target,
    choices: Choices,
) -> Kernel:
    """Blocks of some steps of the loop along which is read, unrolled within vectors of the loop
    along which is written, so that what is fetched from memory is used at once."""
    body, last = k.body, loops[-1]
    extent = p.find(body, along).extent
    block = choose_block(extent, in_one_set(body, along, last), target, choices)
    whole = extent if is_const(extent % block, 0) else extent // block * block
    body = p.reorder(body, [along, *(v for v in loops if v not in (along, last)), last])
    parts = [along]
    if whole is not extent:
        body, *parts = p.partition(body, along, whole)
    for part in parts:
        _, *others, inner = nest_loops(p.find(body, part))
        if part is parts[0] or is_const(extent):
            body, part, columns = p.split(body, part, block_of(p.find(body, part).extent, block))
            body = p.reorder(body, [part, *others, inner, columns])
            body = p.set_kind(body, columns, "unroll")
        body, columns = vectorize_innermost(body, inner, target)
        rows = [part, *others]
        body, strip = cut_strip(body, rows, columns, extent, target, choices)
        if not small:
            body = fuse_all(body, [*strip, *rows])
    return k.with_body(body, f"map: transposed in blocks of {block}")


def are_side_by_side(body: Stmt, along: Symbol, last: Symbol) -> bool:
    """Whether a loop of few steps stores one step of the loop around it behind the other (pixels
    of planes of colours)."""
    outer, inner = p.find(body, along), p.find(body, last)
    few = is_const(inner.extent) and 1 < inner.extent.value <= FEW_NESTS
    if outer.body is not inner or not few or not isinstance(inner.body, ir.Store):
        return False
    flat = flat_index(inner.body.buffer, inner.body.indices)
    steps = affine(flat, sym(along)), affine(flat, sym(last))
    return None not in steps and is_const(steps[1], 1) and steps[0] is inner.extent


def schedule_side_by_side(
    k: Kernel, loops: list[Symbol], small: bool, target: Target, choices: Choices
) -> Kernel:
    """Vectors along the loop along which is read, the few elements of each lane written out: put
    in order, they fill vectors."""
    *outer, along, last = loops
    body = p.set_kind(k.body, last, "unroll")
    lanes, extent, parts = lanes_for(body, target), p.find(body, along).extent, [along]
    if is_const(extent) and extent.value > lanes and extent.value % lanes:
        body, *parts = p.cover(body, along, lanes)
    for part in parts:
        body, part = vectorize_innermost(body, part, target)
    if not small and (outer or len(parts) == 1):
        body = share(body, outer or [part], choices)
    return k.with_body(body, f"map: vectors of {lanes} side by side")


def cut_strip(
    body: Stmt, rows: list[Symbol], columns: Symbol | None, row: Expr, target: Target,
    choices: Choices,
) -> tuple[Stmt, list[Symbol]]:  # fmt: skip
    """All rows strip by strip, of some vectors each, where rows of what is read are shorter than a
    line, which the next row reads again: the L1 cache holds the lines of a strip until then."""
    vectors, steps = p.find(body, rows[-1]).body, total([p.find(body, v) for v in rows])
    whole = isinstance(vectors, For) and vectors.var is columns and isinstance(vectors.body, For)
    known = whole and all(is_const(e) for e in (row, vectors.extent, steps))
    if not known or row.value >= BLOCK or steps.value == 1:
        return body, []
    count, lanes = vectors.extent.value, vectors.body.extent.value

    def cycles(n: int) -> float:
        lost = 2 * n * lanes * LINE_BYTES > target.caches[0] // 2  # a row lies in two lines
        again = count * lanes * LINE_BYTES / target.l2_rate if lost else 0
        return steps.value * (again + count / n * NEW_LOOP)

    counts = [count, *(n for n in STRIPS if n < count and count % n == 0)]
    strip = choices.pick("strip", counts, cycles)
    if strip == count:
        return body, []
    body, outer, inner = p.split(body, columns, strip)
    return p.reorder(body, [outer, *rows, inner]), [outer]


def in_one_set(body: Stmt, along: Symbol, last: Symbol) -> bool:
    """Whether the lines that a vector is gathered from all compete for one set of the L1 cache."""
    steps = [affine(flat, sym(last)) for flat in accesses(body)
             if (own := affine(flat, sym(along))) is not None and is_const(own, 1)]  # fmt: skip
    return any(s is not None and is_const(s) and s.value * 4 % SET_BYTES == 0 for s in steps)


def choose_block(extent: Expr, crowded: bool, target: Target, choices: Choices) -> int:
    """Steps of a block: what is read of a cache line is used at once if the block is as long as the
    line, and stays in registers if it is not much longer. Lines that crowd each other out cost less
    if their neighbours are used together with them."""
    if is_const(extent) and extent.value <= BLOCK:
        return extent.value
    spilled = {n: max(n - target.vector_registers, 0) / n for n in BLOCKS}
    again = BLOCK / 2 if crowded else 0

    def cycles(n: int) -> float:
        return (-(-n // BLOCK) * BLOCK + again) / n + spilled[n]

    return choices.pick("block", BLOCKS, cycles)


def block_of(extent: Expr, most: int) -> int:
    return min(extent.value, most) if is_const(extent) else most


def nest_loops(s: Stmt) -> list[Symbol]:
    """The variables of a perfect nest, outermost first."""
    found = []
    while isinstance(s, For):
        found.append(s.var)
        s = s.body
    return found


def fall_apart(steps: Sequence[Expr | None], width: int) -> bool:
    """Whether elements of so many bytes, so many elements apart, are known to fall into several
    sets of the L1 cache."""
    return all(s is not None and is_const(s) and s.value * width % SET_BYTES for s in steps)
