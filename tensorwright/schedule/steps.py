"""Kernels that go step by step through memory and keep what they need in between to themselves.

    for b: for g: { m = -inf; y = 0; for p in pages: { s = q k; m = max(m, s) ...; y = y c + s v }}

The outer loops are independent and run in parallel; the loop over steps stays as it is; every nest
inside of fixed size is scheduled as if it were a kernel of its own: contractions on register tiles,
reductions and maps on vectors.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.expr import bounds, is_const, sym
from tensorwright.ir.loop import For, Kernel, Seq, Stmt, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.contraction import reduction_length, tile_nest
from tensorwright.schedule.legal import ScheduleError, why_not_parallel
from tensorwright.schedule.maps import fuse_all, total
from tensorwright.schedule.nest import read_nest
from tensorwright.schedule.roles import find_roles, is_streamed
from tensorwright.schedule.rows import schedule_inside
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import Product, choose_tile
from tensorwright.target.target import Target


def schedule_steps(k: Kernel, target: Target, choices: Choices) -> Kernel | None:
    """The kernel with its nests scheduled; None if it does not go step by step."""
    outer, s = [], k.body
    while isinstance(s, For):
        outer.append(s)
        s = s.body
    if not outer or not isinstance(s, Seq) or not any(map(is_step_loop, s.body)):
        return None
    refused: list[str] = []
    inside = seq(*(part(x, target, refused, choices.within(f"part{n}"))
                   for n, x in enumerate(s.body)))  # fmt: skip
    body = p.replace_loop(k.body, outer[-1].var, lambda f: replace(f, body=inside))
    if not any(map(why_not_parallel, outer)):
        for f in outer:
            body = p.set_kind(body, f.var, "parallel")
        body = fuse_all(body, [f.var for f in outer])
    trace = f"steps: {len(outer)} parallel loops, {len(s.body)} parts"
    return k.with_body(body, "; as defined: ".join((trace, *refused)))


def is_step_loop(s: Stmt) -> bool:
    """A loop of unknown length over several nests."""
    return isinstance(s, For) and not is_const(s.extent) and isinstance(s.body, Seq) and (
        sum(isinstance(x, For) for x in s.body.body) > 1)  # fmt: skip


def part(s: Stmt, target: Target, refused: list[str], choices: Choices) -> Stmt:
    """One statement of a step, scheduled; what stays as it is defined says why in `refused`."""
    if isinstance(s, For) and is_step_loop(s):
        return replace(s, body=seq(*(part(x, target, refused, choices.within(f"step{n}"))
                                     for n, x in enumerate(s.body.body))))  # fmt: skip
    if not isinstance(s, For):
        return s
    try:
        return contraction(s, target, choices) or schedule_inside(s, target, choices)
    except ScheduleError as e:
        refused.append(f"loop {s.var.name}, {e.message}")
        return s


def contraction(s: For, target: Target, choices: Choices) -> Stmt | None:
    """A nest that is a contraction on register tiles, None for any other."""
    stage = read_nest(s)
    if stage is None or not stage.is_contraction or not is_const(total(list(stage.spatial))):
        return None
    body: Stmt = s
    if stage.acc is stage.out:
        body = p.cache_write(body, stage.init)
        stage = read_nest(body)
    roles = find_roles(stage)
    if roles is None or not is_streamed(roles.weights, sym(roles.column.var)):
        return None
    rows = 1 if roles.row is None else bounds(roles.row.extent)[1]
    columns = bounds(roles.column.extent)[1]
    product = Product(rows, columns, reduction_length(stage))
    tile = choose_tile(product, target, target.lanes(stage.acc.dtype), choices)
    return tile_nest(body, roles, tile, target, choices)
