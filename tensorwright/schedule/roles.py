"""Which loop of a contraction does what, and in which layout it wants its streamed operand.

    out[i, j] += x[i, k] * w[k, j]     column: j (vectors), row: i (the rows of a tile), weights: w

The weights are packed into panels of a tile's width, contiguous in the order in which they are
read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from tensorwright.ir.dtype import u32
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    as_dim,
    as_expr,
    ceildiv,
    compare,
    const,
    is_const,
    sym,
    transform,
    walk,
)
from tensorwright.ir.loop import For, Kernel, Pack
from tensorwright.schedule.nest import Stage, depends, is_near, loads_of, stride_of


class Tile(NamedTuple):
    """rows x vectors of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes


@dataclass(frozen=True)
class Roles:
    """Which loops of a contraction do what: `column` runs over vectors, `row` (may be None) over
    the rows of a tile, `weights` is the operand whose load moves along `column`. run: how many
    columns in a row, from each multiple on, see the same element of the other (groups). order: the
    variables of the reduction, outermost first, if they are not to be in the usual one. around:
    loops outside of the nest that lead to other parts of the weights."""

    column: For
    row: For | None
    outer: tuple[For, ...]
    weights: Expr
    other: Expr | None
    broadcast: bool
    run: int = 1
    order: tuple[Expr, ...] = ()
    around: tuple[For, ...] = ()


def find_roles(stage: Stage) -> Roles | None:
    """Assign the loops, None if the nest is not one for register tiles."""
    value = stage.step.value
    if value.op != "fma" or not stage.spatial:
        return None
    column = next((f for f in reversed(stage.spatial) if not is_const(f.extent, 1)), None)
    if column is None:
        return None
    j = sym(column.var)
    sides = value.args[:2]
    moving = [s for s in sides if depends(s, j)]
    if not moving:
        return None
    weights = moving[-1]
    other = next((s for s in sides if s is not weights), None)
    rows = [f for f in stage.spatial if f is not column and not depends(weights, sym(f.var))
            and (other is None or depends(other, sym(f.var)))]  # fmt: skip
    big = [f for f in rows if not is_const(f.extent, 1)]
    row = big[-1] if big else None
    if row is not None and not is_const(row.extent):
        row = next((f for f in reversed(big) if has_known_steps(other, sym(f.var))), row)
    outer = tuple(f for f in stage.spatial if f is not row and f is not column)
    run = 1 if other is None else run_along(other, j)
    return Roles(column, row, outer, weights, other, len(moving) == 1, run)


def run_along(e: Expr, j: Expr) -> int:
    """How many values of `j` in a row, from each multiple on, give `e` the same value, as far as
    `j` only stands in quotients; 1 if it also stands elsewhere or nowhere."""
    whole = [x for x in walk(e) if x.op == "floordiv" and x.args[0] is j and is_const(x.args[1])]
    runs = {x.args[1].value for x in whole}
    if len(runs) != 1 or depends(transform(e, {x: const(0) for x in whole}.get), j):
        return 1
    return runs.pop()


def has_known_steps(e: Expr | None, i: Expr) -> bool:
    """Whether what is read of an operand moves by known steps along a loop."""
    steps = [stride_of(x, i) for x in loads_of(e)] if e is not None else []
    return all(s is not None and is_const(s) for s in steps)


def is_free(f: For, roles: Roles) -> bool:
    """Whether the weights are the same in all rounds of a loop."""
    return not depends(roles.weights, sym(f.var))


def is_streamed(e: Expr, j: Expr) -> bool:
    """Whether all loads of an operand move by one element (or stay) along `j`."""
    return all(is_near(stride_of(x, j)) for x in loads_of(e))


def is_tiled(k: Kernel, s: Stage) -> bool:
    """Whether a contraction of the kernel goes on register tiles: it has vectors of columns, and
    what it streams lies along them or can be put in panels."""
    roles = find_roles(s)
    if roles is None:
        return False
    lies = is_streamed(roles.weights, sym(roles.column.var))
    return lies or choose_pack(k, s, roles, Tile(1, 1, 1)) is not None


def choose_pack(
    k: Kernel, stage: Stage, roles: Roles, tile: Tile, pairs: Expr | None = None
) -> Pack | None:
    """Panels of the tile's width for the streamed operand, if it is a plain load of a parameter
    that moves by one along the columns; what lies in one such panel already stays as it is. With
    `pairs`, neighbours along that reduction variable share a word. Panels that the kernel is given
    (its `packs`, before it is scheduled) are taken as they are, if they can be read so."""
    e, j = roles.weights, sym(roles.column.var)
    while e.op == "cast":
        e = e.args[0]
    if e.op != "load" or e.value not in k.inputs or j not in e.args:
        return None
    axis = e.args.index(j)
    if any(depends(i, j) for a, i in enumerate(e.args) if a != axis):
        return None
    reduce = [sym(f.var) for f in stage.reduce]
    rest = [a for a, i in enumerate(e.args) if a != axis and any(depends(i, r) for r in reduce)]
    lead = [a for a in range(len(e.args)) if a != axis and a not in rest]
    order = {r: n for n, r in enumerate(reduction_order(stage, roles))}
    rest.sort(key=lambda a: max(order[r] for r in reduce if depends(e.args[a], r)))
    order = (*lead, *rest, axis)
    words = -1
    if pairs is not None:
        words = next(a for a, i in enumerate(e.args) if depends(i, pairs))
    spec = Pack(k.params.index(e.value), axis, tile.width, tuple(lead), tuple(rest), words)
    columns = as_expr(e.value.shape[axis])
    if words < 0 and order == tuple(range(len(e.args))) and is_const(columns, tile.width):
        return None  # one panel, and it lies so already
    given = next((p for p in k.packs if p.param == spec.param), spec)
    return given if serves(given, spec, tile, columns) else spec


def given_width(k: Kernel, roles: Roles) -> int:
    """The width of the panels that the kernel is given its streamed operand in; 0: none."""
    buffers = {e.value for e in loads_of(roles.weights)}
    return next((g.width for g in k.packs if k.params[g.param] in buffers), 0)


def serves(given: Pack, wanted: Pack, tile: Tile, columns: Expr) -> bool:
    """Whether panels of another width do as well: vectors lie within one of them, and the last
    tile reads nothing behind the last panel."""
    if replace(given, width=wanted.width) != wanted or given.width % tile.lanes:
        return False
    held = [ceildiv(columns, w) * w for w in (given.width, tile.width)]
    return given.width == wanted.width or is_const(compare("le", held[1], held[0]), True)


def packed_buffer(b: Buffer, pack: Pack) -> Buffer:
    panels = as_dim(ceildiv(as_expr(b.shape[pack.axis]), pack.width))
    rest = [as_dim(ceildiv(as_expr(b.shape[a]), 2)) if a == pack.words else b.shape[a]
            for a in pack.rest]  # fmt: skip
    shape = [*(b.shape[a] for a in pack.lead), panels, *rest, pack.width]
    return Buffer(b.name, b.dtype if pack.words < 0 else u32, shape, b.scope, 64)


def packed_index(i: tuple[Expr, ...], pack: Pack) -> tuple[Expr, ...]:
    column = i[pack.axis]
    return (*(i[a] for a in pack.lead), column // pack.width, *(i[a] for a in pack.rest),
            column % pack.width)  # fmt: skip


def reduction_order(stage: Stage, roles: Roles) -> list[Expr]:
    """Reduction variables, outermost first: by falling stride of the operand that is not streamed,
    so that the innermost loop walks through contiguous memory; or as the roles say."""
    if roles.order:
        return list(roles.order)
    variables = [sym(f.var) for f in stage.reduce]
    loads = loads_of(roles.other) if roles.other is not None else []
    if not loads:
        return variables

    def key(v: Expr) -> int:
        s = stride_of(loads[0], v)
        return -(s.value if s is not None and s.op == "const" else 1 << 40)

    return sorted(variables, key=key)
