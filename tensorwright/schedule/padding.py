"""Padding: what is inside apart from the border.

Behind a contraction, write into the inside of the padded buffer and fill its border apart:

    y[i, j] = f(out[i - 1, j - 1]) if 1 <= i < n + 1 and 1 <= j < m + 1 else 0
->  y[i + 1, j + 1] = f(out[i, j])      and, beside it,
    for j: y[0, j] = 0      for j: y[n + 1, j] = 0      for i in n: y[i + 1, 0] = 0      ...

The first part reads each element of `out` where it was produced, so it becomes the epilogue; the
others are as large as the border.
Of panels of which the last one is not full, the full ones are read without looking for the end:

    for p in (n + 63) // 64: for j in 64: y[p, j] = x[64 * p + j] if 64 * p + j < n else 0
->  for p in n // 64: for j in 64: y[p, j] = x[64 * p + j]      and      the last one as before
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Expr,
    as_expr,
    ceildiv,
    compare,
    const,
    is_const,
    select,
    sym,
)  # fmt: skip
from tensorwright.ir.loop import For, Stmt, loop_symbol
from tensorwright.ir.simplify import linear
from tensorwright.schedule.nest import Stage, read_nest

Range = tuple[Expr, Expr]  # from, up to


@dataclass(frozen=True, eq=False)
class Padded:
    """A padding map in parts: the nests that fill the border, and the stage of the inside."""

    border: tuple[Stmt, ...]
    inside: Stage


def split_padding(s: Stage) -> Padded | None:
    """The parts of a map `inner if <box> else constant`; None if it is something else."""
    value = s.final.value
    if value.op != "select" or value.args[2].op != "const" or not s.spatial:
        return None
    box = ranges(value.args[0], s)
    if box is None:
        return None
    inside = [box[sym(f.var)] for f in s.spatial]
    nest = part_of(s, inside, value.args[1])
    return Padded(border_of(s, inside, value.args[2]), read_nest(nest))


def border_of(s: Stage, inside: list[Range], value: Expr) -> tuple[Stmt, ...]:
    """What lies before and behind the inside along each axis: all of the axes below it, of those
    above what no earlier nest has filled."""
    whole, nests = [(const(0), f.extent) for f in s.spatial], []
    for n, ((begin, end), (low, high)) in enumerate(zip(whole, inside)):
        sides = [side for side in ((begin, low), (high, end)) if side[0] is not side[1]]
        nests += [part_of(s, [*inside[:n], side, *whole[n + 1 :]], value) for side in sides]
    return tuple(nests)


def part_of(s: Stage, box: list[Range], value: Expr) -> Stmt:
    """The nest that stores `value` where a map's variables are in `box`; its own begin at 0."""
    loops, values = [], {}
    for f, (low, high) in zip(s.spatial, box):
        v = loop_symbol(f.var.name, const(0), high - low)
        loops.append(For(v, const(0), high - low, s.final))
        values[sym(f.var)] = sym(v) + low
    return around(tuple(loops), ir.substitute(replace(s.final, value=value), values))


def split_panels(s: Stage) -> tuple[Stmt, Stmt] | None:
    """The full panels of a map `x[c * p + j] if c * p + j < n else constant`, j < c, of which there
    are as many as hold n elements, and the last one; None if it is something else."""
    value = s.final.value
    if value.op != "select" or value.args[2].op != "const":
        return None
    cond = value.args[0]
    if cond.op not in ("lt", "le") or cond.args[0].dtype.name != "index":
        return None
    difference = cond.args[1] - cond.args[0] + const(0 if cond.op == "lt" else 1)  # > 0
    terms = linear(difference)[0]
    loops = [f for f in s.spatial if sym(f.var) in terms]
    if len(loops) != 2:
        return None
    element, panel = sorted(loops, key=lambda f: -terms[sym(f.var)])
    width = -terms[sym(panel.var)]
    if terms[sym(element.var)] != -1 or not is_const(element.extent, width) or width == 1:
        return None
    n = difference + sym(panel.var) * width + sym(element.var)
    if panel.extent is not ceildiv(n, width):
        return None
    full = n // width
    inside = replace(s.final, value=value.args[1])
    there = compare("lt", sym(element.var), n - full * width)
    last = replace(s.final, value=select(there, *value.args[1:]))
    last = ir.substitute(last, {sym(panel.var): sym(panel.var) + full})
    return tuple(
        around(tuple(replace(f, extent=m) if f is panel else f for f in s.spatial), store)
        for m, store in ((full, inside), (panel.extent - full, last))
    )


def around(loops: tuple[For, ...], body: Stmt) -> Stmt:
    """`body` inside loops like these."""
    for f in reversed(loops):
        body = replace(f, body=body)
    return body


def ranges(cond: Expr, s: Stage) -> dict[Expr, Range] | None:
    """variable -> [low, high) where a conjunction of bounds on single variables holds."""
    box = {sym(f.var): [const(0), f.extent] for f in s.spatial}
    todo = [cond]
    while todo:
        e = todo.pop()
        if e.op == "and":
            todo.extend(e.args)
            continue
        if e.op not in ("lt", "le") or e.args[0].dtype.name != "index":
            return None
        difference = e.args[1] - e.args[0] + const(0 if e.op == "lt" else 1)  # > 0
        terms = linear(difference)[0]
        found = [v for v in box if v in terms]
        if len(found) != 1 or abs(terms[found[0]]) != 1:
            return None
        v = found[0]
        if terms[v] > 0:  # v + rest > 0
            low = v - difference + 1
            if not is_const(box[v][0], 0) or not is_const(as_expr(low)):
                return None
            box[v][0] = low
        else:  # rest - v > 0
            high = difference + v
            if box[v][1] is not next(f.extent for f in s.spatial if sym(f.var) is v):
                return None
            box[v][1] = high
    return {v: (low, high) for v, (low, high) in box.items()}
