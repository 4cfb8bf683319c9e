"""Groups of channels that fill no vectors: each is a contraction of its own columns.

    for o in 60: acc += x[o // 30 * 30 + c] * w[c, o]
->  for g in 2: for m in 30: acc += x[g * 30 + c] * w[c, g * 30 + m]

Vectors along all channels would hold parts of two groups, which see different elements, so that
each would be gathered lane by lane. Within a group all lanes see the same element.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, const, is_const, select, symbols_of
from tensorwright.ir.loop import If, Kernel, Stmt, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import Stage, inverse, loads_of, read_nest
from tensorwright.schedule.roles import Roles, find_roles, is_tiled
from tensorwright.target.target import Target

NARROWEST = 8  # lanes that groups have to fill to be parts of longer vectors


def groups_apart(
    k: Kernel, stages: tuple[Stage, ...], target: Target
) -> tuple[Kernel, tuple[Stage, ...]]:
    """The contraction with a loop over groups around one over the columns of a group, the map
    behind it at its stores, where groups fill no vectors; else as it is, and where weights do not
    lie along columns: panels are of all columns."""
    roles, lanes = find_roles(stages[0]), target.lanes(stages[0].acc.dtype)
    run = 1 if roles is None or roles.broadcast else roles.run
    known = roles is not None and is_const(roles.column.extent)
    if not known or run == 1 or lanes % run == 0 or run % min(lanes, NARROWEST) == 0:
        return k, stages
    body, stage = k.body, stages[0]
    if stage.acc is stage.out:
        body = p.cache_write(body, stage.init)
    if len(stages) == 2:
        body = p.fuse_epilogue(body, stage, stages[1], inverse(stage, stages[1]))
    body, _, _ = p.split(body, roles.column.var, run)
    apart, stage = k.with_body(body), read_nest(p.find(body, stage.spatial[0].var))
    return (apart, (stage,)) if is_tiled(apart, stage) else (k, stages)


def guard_last(roles: Roles) -> Callable[[Stmt, Expr], Stmt]:
    """Guard only the final store of a stage: what accumulates for columns past the end reads padded
    weights and is dropped. Of what is not padded (weights that were not packed, an operand that
    moves with the columns) zeros take the place."""
    column, operands = roles.column.var, [x for x in (roles.weights, roles.other) if x is not None]
    lying = {e.value for x in operands for e in loads_of(x)}

    def guarded(body: Stmt, inside: Expr) -> Stmt:
        def padded(b: Buffer, at: tuple[Expr, ...]) -> Expr | None:
            if b not in lying or column not in symbols_of(*at):
                return None
            return select(inside, b[at], const(0, b.dtype))

        *before, last = body.body
        return seq(*(ir.map_loads(s, padded) for s in before), If(inside, last))

    return guarded
