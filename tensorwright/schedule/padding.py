"""Padding behind a contraction: write into the inside of the padded buffer, fill its border apart.

    y[i, j] = f(out[i - 1, j - 1]) if 1 <= i < n + 1 and 1 <= j < m + 1 else 0
->  if not (...): y[i, j] = 0      and      y[i + 1, j + 1] = f(out[i, j])

The second part reads each element of `out` where it was produced, so it becomes the epilogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, as_expr, const, is_const, sym, unary
from tensorwright.ir.loop import For, If, Stmt, loop_symbol
from tensorwright.ir.simplify import linear
from tensorwright.schedule.nest import Stage


@dataclass(frozen=True, eq=False)
class Padded:
    """A padding map in two parts: the nest that fills the border, and the stage of the inside."""

    border: Stmt
    inside: Stage


def split_padding(s: Stage) -> Padded | None:
    """The parts of a map `inner if <box> else constant`; None if it is something else."""
    value = s.final.value
    if value.op != "select" or value.args[2].op != "const" or not s.spatial:
        return None
    box = ranges(value.args[0], s)
    if box is None:
        return None
    border = s.final.value.args[2]
    outside = If(unary("not", value.args[0]), replace(s.final, value=border))
    loops, values = [], {}
    for f in s.spatial:
        low, high = box.get(sym(f.var), (const(0), f.extent))
        v = loop_symbol(f.var.name, const(0), high - low)
        loops.append(For(v, const(0), high - low, s.final))
        values[sym(f.var)] = sym(v) + low
    inner = ir.substitute(replace(s.final, value=value.args[1]), values)
    nest = around(tuple(loops), inner)
    chain, rest = [], nest
    while isinstance(rest, For):
        chain.append(rest)
        rest = rest.body
    return Padded(around(s.spatial, outside), Stage(nest, tuple(chain), s.out, inner))


def around(loops: tuple[For, ...], body: Stmt) -> Stmt:
    """`body` inside loops like these."""
    for f in reversed(loops):
        body = replace(f, body=body)
    return body


def ranges(cond: Expr, s: Stage) -> dict[Expr, tuple[Expr, Expr]] | None:
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
