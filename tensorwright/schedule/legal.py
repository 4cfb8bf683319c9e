"""Legality of the schedule primitives, one named check each.

A check that fails says which loop, and why: schedules are data that people write and search over.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.base.errors import CompileError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_expr, bounds, const, is_const, sym, walk
from tensorwright.ir.loop import Alloc, For, Store
from tensorwright.ir.simplify import from_linear, linear


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
        if not any(are_apart([a[d] for a in touched], s) for d in range(len(b.shape) + 1)):
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


def are_apart(indices: list[Expr], s: For) -> bool:
    """Whether equal values of any two of these subscripts imply the same iteration: all of them are
    v * c + a constant of the loop + rest, and the rests lie within less than c."""
    steps = [_step(i, s) for i in indices]
    if None in steps or len({(c, fixed) for c, fixed, _, _ in steps}) != 1:
        return False
    lows, highs = [low for _, _, low, _ in steps], [high for _, _, _, high in steps]
    return max(highs) - min(lows) < abs(steps[0][0])


def _step(index: Expr, s: For) -> tuple[int, Expr, int, int] | None:
    """(c, what does not change in the loop, least rest, largest rest) of a subscript."""
    terms, constant = linear(index)
    c = terms.pop(sym(s.var), 0)
    if c == 0 or any(sym(s.var) in set(walk(t)) for t in terms):
        return None
    low, high = constant, constant
    for t in [t for t in terms if _varies_inside(t, s)]:
        lo, hi = bounds(t)
        k = terms.pop(t)
        if lo is None or hi is None:
            return None
        low, high = low + min(lo * k, hi * k), high + max(lo * k, hi * k)
    return c, from_linear(terms), low, high


def _varies_inside(t: Expr, s: For) -> bool:
    inner = {sym(p.var) for p in ir.statements(s.body) if isinstance(p, (For, ir.Let))}
    return bool(inner & set(walk(t))) or any(p.op == "load" for p in walk(t))

