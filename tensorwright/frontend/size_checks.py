"""What only the running program can tell of sizes, with messages that name both sides.

zero = checked_zero(Check(a == b, "dimension 0 is {0}, expected {1}", (a, b)))
slice(x, starts=(start + zero,), ...)      # the program ends with that message if they differ
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tensorwright.ir.expr import Expr, as_dim, as_expr, compare, is_const, symbols_of, var
from tensorwright.ir.type import Dim
from tensorwright.ops.positions import Check, bind_size, size


def checked_zero(*checks: Check) -> Expr:
    """An index expression that is 0, and whose use makes the program check the conditions."""
    checked = var("checked", min=0, max=0)
    bind_size(size(dims=(0,)), symbols=(checked,), checks=checks)
    return checked


def equal_sizes(a: Dim, b: Dim, what: str) -> Expr | int:
    """0, in a way that the program checks the sizes to be equal."""
    if a == b:
        return 0
    same = compare("eq", as_expr(a), as_expr(b))
    return checked_zero(Check(same, f"{what} is {{0}}, expected {{1}}", (a, b)))


def depend_on_data(*sizes: Dim) -> bool:
    """Whether one of the sizes is only known while the program runs."""
    return any(s.origin is not None for s in symbols_of(*map(as_expr, sizes)))


def slice_checks(start: Dim, stop: Dim, extent: Dim) -> list[Check]:
    """What has to hold for [start, stop) to lie in a dimension."""
    says = (
        "a slice from {0} to {1} begins before its dimension, which is {2}",
        "a slice from {0} to {1} ends before it begins",
        "a slice from {0} to {1} leaves its dimension, which is {2}",
    )
    order = map(as_expr, (0, start, stop, extent))
    return [Check(compare("le", a, b), said, (start, stop, extent))
            for (a, b), said in zip(itertools.pairwise(order), says)]  # fmt: skip


def checked_slice(
    start: Dim, stop: Dim, checks: Sequence[Check]
) -> tuple[Dim, Dim]:  # fmt: skip
    """start and stop, in a way that the program makes the checks, if there are any."""
    if not checks:
        return start, stop
    zero = checked_zero(*checks)
    return as_dim(start + zero), as_dim(stop + zero)


def checked_by_data(start: Dim, stop: Dim, extent: Dim) -> tuple[Dim, Dim]:
    """start and stop; where they come from data, the program checks that they are in place."""
    if not depend_on_data(start, stop):
        return start, stop
    open_ = [c for c in slice_checks(start, stop, extent) if not is_const(c.holds, True)]
    return checked_slice(start, stop, open_)
