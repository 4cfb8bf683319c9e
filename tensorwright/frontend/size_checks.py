"""What only the running program can tell of sizes, with messages that name both sides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import (
    Expr,
    all_of,
    as_dim,
    as_expr,
    compare,
    const,
    select,
    symbols_of,
    var,
)  # fmt: skip
from tensorwright.ir.type import Dim
from tensorwright.ops.positions import bind_size, size


def checked_zero(condition: Expr, says: str, *sizes: Dim) -> Expr:
    """An index expression that is 0, and whose use makes the program check the condition. says: the
    message; {0}, {1} and {2} in it are values of `sizes`."""
    shown = [var(f"size_{k}", min=None) for k in range(len(sizes))]
    holds = var("holds", min=1, max=1)
    told = select(condition, as_expr(1), as_expr(0))
    bind_size(size(dims=(*map(as_expr, sizes), told)), symbols=(*shown, holds), says=says)
    return holds - 1


def equal_sizes(a: Dim, b: Dim, what: str) -> Expr | int:
    """0, in a way that the program checks the sizes to be equal."""
    if a == b:
        return 0
    same = compare("eq", as_expr(a), as_expr(b))
    return checked_zero(same, f"{what} is {{0}}, expected {{1}}", a, b)


def depend_on_data(*sizes: Dim) -> bool:
    """Whether one of the sizes is only known while the program runs."""
    return any(s.origin is not None for s in symbols_of(*map(as_expr, sizes)))


def slice_conditions(start: Dim, stop: Dim, extent: Dim) -> list[Expr]:
    """What has to hold for [start, stop) to lie in a dimension."""
    order = map(as_expr, (0, start, stop, extent))
    return [compare("le", a, b) for a, b in itertools.pairwise(order)]


def checked_slice(
    start: Dim, stop: Dim, extent: Dim, conditions: Sequence[Expr]
) -> tuple[Dim, Dim]:  # fmt: skip
    """start and stop, in a way that the program checks the conditions, those of `slice_conditions`
    that are not known to hold."""
    if not conditions:
        return start, stop
    says = "a slice from {0} to {1} leaves its dimension, which is {2}"
    zero = checked_zero(all_of(conditions), says, start, stop, extent)
    return as_dim(start + zero), as_dim(stop + zero)


def checked_by_data(start: Dim, stop: Dim, extent: Dim) -> tuple[Dim, Dim]:
    """start and stop; where they come from data, the program checks that they are in place."""
    if not depend_on_data(start, stop):
        return start, stop
    holds = const(True, boolean)
    unknown = [c for c in slice_conditions(start, stop, extent) if c is not holds]
    return checked_slice(start, stop, extent, unknown)
