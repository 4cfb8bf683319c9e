"""Which part of a buffer some loops touch: interval analysis of affine subscripts.

    for ii in 8: for r in 3: .. x[io * 8 + ii + r, 0] ..     ->     x[io * 8 :+ 10, 0 :+ 1]

A subscript is an expression of what is fixed outside of the loops plus terms that vary inside; the
former is where the region begins, the bounds of the latter are how far it reaches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, bounds, sym, walk
from tensorwright.ir.loop import For, Stmt
from tensorwright.ir.simplify import from_linear, linear
from tensorwright.schedule.legal import ScheduleError


@dataclass(frozen=True)
class Region:
    """[begin, begin + extent) along every dimension."""

    begin: tuple[Expr, ...]
    extent: tuple[int, ...]


def loaded_region(root: Stmt, b: Buffer) -> Region:
    """What `root` loads from a buffer, whatever the loops inside do."""
    accesses = [e.args for e in ir.loads(root) if e.value is b]
    if not accesses:
        raise ScheduleError(f"{b.name} is not read here")
    inner = {sym(s.var) for s in ir.statements(root) if isinstance(s, (For, ir.Let))}
    places = [join_dimension(b, d, [a[d] for a in accesses], inner) for d in range(b.rank)]
    return Region(tuple(p[0] for p in places), tuple(p[1] for p in places))


def join_dimension(
    b: Buffer, axis: int, subscripts: Iterable[Expr], inner: set[Expr]
) -> tuple[Expr, int]:
    """The interval that holds all subscripts of one dimension."""
    found = [dimension(b, axis, i, inner) for i in subscripts]
    bases = {base for base, _, _ in found}
    if len(bases) > 1:
        raise ScheduleError(f"{b.name} is read at unrelated places along dimension {axis}: "
                            + ", ".join(sorted(map(str, bases))))  # fmt: skip
    low, high = min(f[1] for f in found), max(f[2] for f in found)
    return found[0][0] + low, high - low + 1


def dimension(b: Buffer, axis: int, i: Expr, inner: set[Expr]) -> tuple[Expr, int, int]:
    """(what is fixed, least and greatest of the rest) of a subscript."""
    terms, constant = linear(i)
    fixed, low, high = {}, constant, constant
    for atom, c in terms.items():
        parts = set(walk(atom))
        if any(p.op == "load" for p in parts):
            raise ScheduleError(f"dimension {axis} of {b.name} is read at a place found in memory")
        if not parts & inner:
            fixed[atom] = c
            continue
        ends = bounds(atom)
        if None in ends:
            raise ScheduleError(f"nothing bounds {atom}, where {b.name} is read along "
                                f"dimension {axis}")  # fmt: skip
        low, high = low + min(c * e for e in ends), high + max(c * e for e in ends)
    return from_linear(fixed), low, high
