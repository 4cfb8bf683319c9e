"""Stores of tiles that lie the other way in memory: channels in vectors, stored channel by channel.

    for i in unroll(8): for l in vector(16): y[l, i] = f(acc[i, l])
->  for l in vector(16): for i in unroll(8): y[l, i] = f(acc[i, l])

In this order the generator turns the tile in registers (`codegen/columns.py`) and stores rows, of
a last vector those of the lanes that there are.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, is_const, sym, walk
from tensorwright.ir.loop import For, If, Stmt, Store
from tensorwright.schedule import primitives as p
from tensorwright.schedule.maps import nest_loops
from tensorwright.schedule.nest import affine, flat_index, is_near


def store_rows(body: Stmt) -> Stmt:
    """Every unrolled nest around vectors whose lanes are far apart where it stores, and whose
    neighbours in one of its loops are not, with that loop inside."""
    for s in list(ir.statements(body)):
        if isinstance(s, For) and s.kind == "unroll":
            body = turned(body, s)
    return body


def turned(body: Stmt, s: For) -> Stmt:
    loops = nest_loops(s)
    inner = p.find(s, loops[-1])
    unrolled = [p.find(s, v).kind == "unroll" for v in loops[:-1]]
    store, inside = unguarded(inner.body)
    if inner.kind != "vector" or not all(unrolled) or not isinstance(store, Store):
        return body
    if inside is not None and sym(s.var) in walk(inside):
        return body
    flat = flat_index(store.buffer, store.indices)
    lane, first = affine(flat, sym(inner.var)), affine(flat, sym(s.var))
    if lane is None or is_near(lane):
        return body
    if first is None or not is_const(first, 1) or ir.update(store) is not None:
        return body
    body = p.reorder(body, [*loops[1:], s.var])
    if inside is None:
        return body
    return p.replace_loop(body, s.var, lambda f: If(inside, replace(f, body=store)))


def unguarded(s: Stmt) -> tuple[Stmt, Expr | None]:
    """What happens under a condition, and that, if there is one."""
    return (s.then, s.cond) if isinstance(s, If) and s.orelse is None else (s, None)
