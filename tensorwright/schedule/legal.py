"""Legality of the schedule primitives, one named check each.

A check that fails says which loop, and why: schedules are data that people write and search over.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.base.errors import CompileError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_expr, bounds, const, is_const, sym, walk
from tensorwright.ir.loop import Alloc, For, Store
from tensorwright.ir.simplify import linear


class ScheduleError(CompileError):
    """A schedule primitive does not apply here."""


def check_constant(s: For) -> None:
    """The extent is known at compile time."""
    if not is_const(s.extent):
        raise ScheduleError(f"loop {s.var} has the symbolic extent {s.extent}",
                            help="split it first")  # fmt: skip


def check_perfect(outer: For, inner: For) -> None:
    """`inner` is all of the body of `outer`, and its range does not depend on it."""
    if outer.body is not inner:
        raise ScheduleError(f"loop {inner.var} is not directly inside {outer.var}")
    if sym(outer.var) in set(walk(inner.begin, inner.extent)):
        raise ScheduleError(f"the range of {inner.var} depends on {outer.var}")


def check_kinds(a: For, b: For) -> None:
    """Both loops run in one way."""
    if a.kind != b.kind:
        raise ScheduleError(f"loop {a.var} is {a.kind} and loop {b.var} is {b.kind}")


def check_reorder(chain: list[For], order: Sequence[Symbol]) -> None:
    """The loops form a perfect nest whose ranges do not depend on each other."""
    names = ", ".join(v.name for v in order)
    if {c.var for c in chain} != set(order):
        raise ScheduleError(f"loops {names} are not one perfect nest")
    variables = {sym(c.var) for c in chain}
    for c in chain:
        if variables & set(walk(c.begin, c.extent)):
            raise ScheduleError(f"the range of {c.var} depends on another of the loops {names}")


def check_reduction(s: For) -> None:
    """The loop does nothing but one reduction update of an element that it does not move."""
    step = s.body
    if not isinstance(step, Store) or ir.update(step) is None:
        raise ScheduleError(f"loop {s.var} is not a single reduction")
    if any(sym(s.var) in set(walk(i)) for i in step.indices):
        raise ScheduleError(f"loop {s.var} moves the element that it reduces into")


def check_parallel(s: For) -> None:
    """Different iterations touch different elements of everything that they store."""
    reason = why_not_parallel(s)
    if reason:
        raise ScheduleError(f"iterations of {s.var} are not independent: {reason}")


def why_not_parallel(s: For) -> str:
    """"" if the iterations are independent, else the reason."""
    if bounds(s.extent)[1] in (0, 1):
        return ""
    private = {p.buffer for p in ir.statements(s.body) if isinstance(p, Alloc)}
    stored: dict[Buffer, list[tuple[Expr, ...]]] = {}
    for p in ir.statements(s.body):
        if isinstance(p, (ir.Call, ir.Copy, ir.View)):
            return "it calls other functions"
        if isinstance(p, Store) and p.buffer not in private:
            stored.setdefault(p.buffer, []).append(p.indices)
    for b, accesses in stored.items():
        loads = [e.args for e in ir.loads(s.body) if e.value is b]
        touched = [(*a, flat(a, b)) for a in (*accesses, *loads)]
        if not any(all(separates(a[d], s) for a in touched) and
                   len({_distance(a[d], s) for a in touched}) == 1
                   for d in range(len(b.shape) + 1)):  # fmt: skip
            return f"{b.name} may be stored to at one place by two of them"
    return ""


def flat(indices: tuple[Expr, ...], b: Buffer) -> Expr:
    """The row-major position: where a fused loop is taken apart by // and %, it is the loop."""
    position = const(0)
    for i, d in zip(indices, b.shape):
        taken_apart = position.op == "floordiv" and i.op == "mod" and position.args == i.args
        whole = taken_apart and position.args[1] is as_expr(d)
        position = position.args[0] if whole else position * d + i
    return position


def separates(index: Expr, s: For) -> bool:
    """Whether equal values of a subscript imply the same iteration: v * c + rest, |rest| < c."""
    terms = dict(linear(index)[0])
    c = terms.pop(sym(s.var), 0)
    if c == 0 or any(sym(s.var) in set(walk(t)) for t in terms):
        return False
    low = high = 0
    for t, k in terms.items():
        lo, hi = bounds(t)
        if not _varies_inside(t, s):
            continue
        if lo is None or hi is None:
            return False
        low, high = low + min(lo * k, hi * k), high + max(lo * k, hi * k)
    return high - low < abs(c)


def _varies_inside(t: Expr, s: For) -> bool:
    inner = {sym(p.var) for p in ir.statements(s.body) if isinstance(p, (For, ir.Let))}
    return bool(inner & set(walk(t))) or any(p.op == "load" for p in walk(t))


def _distance(index: Expr, s: For) -> int:
    """The coefficient of the loop variable: all accesses must step alike."""
    return linear(index)[0].get(sym(s.var), 0)
