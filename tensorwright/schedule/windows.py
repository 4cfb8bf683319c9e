"""Reductions of a few elements each (windows, short rows), with the maps around them.

    for i: y[i] = -inf; for r in 3: y[i] = max(y[i], x[2 i + r - 1] if 1 <= 2 i + r else -inf)
->  for i in 1: ...; for io: for l in vector(16): acc[l] = max(acc[l], x[2 (16 io + l) + ...])

Such rows are too short for vectors of their own, so vectors run along the last axis of the result,
whose neighbours read neighbours or every second, third, fourth element. The loop along it is cut
where a window leaves what it slides over, so that vectors test nothing.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product as combinations
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Symbol, const, is_const, sym, transform, walk
from tensorwright.ir.loop import Alloc, For, Kernel, Stmt, loop_symbol, seq
from tensorwright.ir.simplify import linear
from tensorwright.schedule import primitives as p
from tensorwright.schedule.form import MAX_WINDOW, Form, unbounded
from tensorwright.schedule.maps import (
    choose_cuts,
    choose_lanes,
    conditions,
    first_turn,
    in_parallel,
    lanes_for,
    share,
    total,
    whole_vectors,
)
from tensorwright.schedule.nest import Stage, affine, extent_of, flat_index, loads_of
from tensorwright.schedule.rows import shrink
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

FEW_PARTS = 8  # of the loop along which vectors run
ROWS = (1, 2, 4)  # of results at once
WRITTEN_OUT = 0.05  # what a further row costs, in loads
DECODING = 0.1  # cycles of a vector, however wide


def schedule_windows(form: Form, target: Target, choices: Choices) -> Kernel:
    """One nest over the results: their reductions in registers, unrolled, then the maps."""
    k, first = form.kernel, form.stages[0]
    shared = [loop_symbol(f.var.name, const(0), f.extent) for f in first.spatial]
    body = seq(*(at_result(s, shared) for s in form.stages))
    for v, f in reversed(list(zip(shared, first.spatial))):
        body = For(v, const(0), f.extent, body)
    body, private = shrink(body, [Alloc(b) for b in temps(form)], len(shared))
    front = seq(*(Alloc(b) for b in private))
    body = p.replace_loop(body, shared[-1], lambda s: replace(s, body=seq(front, s.body)))
    parallel = in_parallel(total([*first.spatial, *first.reduce]), choices)
    if parallel:
        for v in shared:
            body = p.set_kind(body, v, "parallel")
    innermost = p.find(body, shared[-1])
    loads = prod(extent_of(f) for f in (*first.spatial[:-1], *first.reduce))  # of a column
    each = choices.within("", loads)
    lanes = choose_lanes(body, innermost.extent, target, each, decoding=DECODING)
    points = choose_cuts(innermost, turning_points(innermost), choices)
    vectors = loads * extent_of(innermost) // lanes_for(body, target)
    rows = choose_rows(first, target, choices.within("", vectors))
    body, along = tile_rows(p.set_kind(body, shared[-1], "serial"), shared, rows)
    for x in along:
        body, parts = p.cut(body, x, points)
        for v in parts:
            body = whole_vectors(body, v, lanes)
    outer = shared[:-1] if rows == 1 else shared[:-2]
    if parallel and outer:
        body = share(body, outer, choices)
    told = f"windows: {rows} rows of " if rows > 1 else "windows: "
    return k.with_body(body, f"{told}vectors of {lanes}, in {len(parts)} parts")


def choose_rows(s: Stage, target: Target, choices: Choices) -> int:
    """Neighbouring rows of results that are computed together: what their windows share is loaded
    once, and so are weights. Threads need something else to share then."""
    if len(s.spatial) < 3 or len(s.reduce) < 2 or s.is_map:
        return 1
    *outer, row, _ = s.spatial
    tasks = total(outer)
    if not is_const(row.extent) or not (is_const(tasks) and tasks.value >= target.even_tasks):
        return 1
    size, step = overlap(s, row)
    weights = size * any(sym(row.var) not in walk(e) for e in loads_of(s.step.value))
    counts = [n for n in ROWS if n == 1 or (n <= row.extent.value and step < size + weights)]
    # rows of the operand, for one, and the weights of a row
    read = lambda n: (min(step, size) * (n - 1) + size + weights) / n + n * WRITTEN_OUT
    return choices.pick("rows", counts, lambda n: read(n) / size)


def overlap(s: Stage, row: For) -> tuple[int, int]:
    """The rows that a window reads, and how many further the next row's window begins."""
    for e in loads_of(s.step.value):
        flat = flat_index(e.value, tuple(transform(i, unbounded) for i in e.args))
        step = affine(flat, sym(row.var))
        for f in s.reduce:
            one = affine(flat, sym(f.var))
            if None in (step, one) or not (is_const(step) and is_const(one) and one.value > 0):
                continue
            if step.value and step.value % one.value == 0 and is_const(f.extent):
                size, further = f.extent.value, step.value // one.value
                if further < size:
                    return size, further
    return 1, 1


def tile_rows(body: Stmt, shared: list[Symbol], rows: int) -> tuple[Stmt, list[Symbol]]:
    """Some rows at once, written out within the loop along them: cut where a window leaves what it
    slides over, the last ones over some results again. Returns the loops along rows."""
    if rows == 1:
        return body, [shared[-1]]
    row = shared[-2]
    body = p.set_kind(body, row, "serial")
    body, parts = p.cut(body, row, turning_points(p.find(body, row)))
    found = []
    for part in parts:
        extent = p.find(body, part).extent.value
        count, both = min(rows, extent), [part]
        if extent % count:
            body, *both = p.cover(body, part, count)
        for v in both:
            body, outer, inner = p.split(body, v, count)
            along = p.find(body, inner).body.var
            body = p.reorder(body, [outer, along, inner])
            body = p.set_kind(body, inner, "unroll")
            found.append(along)
    return body, found


def temps(form: Form) -> list:
    return [s.out for s in form.stages if s.out.scope == "temp"]


def at_result(s: Stage, shared: list[Symbol]) -> Stmt:
    """What a stage does for one result, its reduction in a private scalar and unrolled,
    the outer loops of a large window excepted."""
    root = s.root
    if not s.is_map and s.acc is s.out:
        root = p.cache_write(root, s.init)
    written_out = 1
    for f in reversed(s.reduce):
        written_out *= extent_of(f)
        if written_out <= MAX_WINDOW:
            root = p.set_kind(root, f.var, "unroll")
    for v in shared:
        root = ir.substitute(root.body, {sym(root.var): sym(v)})
    return root


def turning_points(s: For) -> list[int]:
    """Where along a loop a condition on it and on unrolled loops inside turns, for some of their
    iterations. None if the loop has no constant length, or if they are many."""
    if not is_const(s.extent):
        return []
    v, found = sym(s.var), set()
    unrolled = {sym(x.var): x for x in ir.statements(s) if isinstance(x, For)}
    for c in conditions(s):
        terms, constant = linear(c.args[1] - c.args[0])  # 0 < this, or 0 <= it
        step = terms.pop(v, 0)
        if step == 0 or any(t not in unrolled or not is_const(unrolled[t].extent) for t in terms):
            continue
        for at in combinations(*(range(unrolled[t].extent.value) for t in terms)):
            rest = constant + sum(a * b for a, b in zip(at, terms.values()))
            found.add(first_turn(step, rest - (c.op == "lt")))
    inner = sorted(at for at in found if 0 < at < s.extent.value)
    return inner if len(inner) < FEW_PARTS else []
