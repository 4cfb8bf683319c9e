"""Legality of the schedule primitives, one named check each.

A check that fails says which loop, and why: schedules are data that people write and search over.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import gcd

from tensorwright.base.errors import CompileError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    bounds,
    const,
    is_const,
    sym,
    symbols_of,
    walk,
)  # fmt: skip
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Alloc, For, Seq, Store
from tensorwright.ir.simplify import from_linear, linear
from tensorwright.schedule.nest import nest_of

MOST_COUNTED = 4096  # iterations whose places are counted out


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
    """The loops (one in another) do nothing but one reduction update of an element that they do not
    move."""
    loops = nest_of(s)
    step = loops[-1].body
    if not isinstance(step, Store) or ir.update(step) is None:
        raise ScheduleError(f"loop {s.var} is not a single reduction")
    for f in loops:
        if any(sym(f.var) in set(walk(i)) for i in step.indices):
            raise ScheduleError(f"loop {f.var} moves the element that it reduces into")


def check_carried(s: For) -> None:
    """The loop does nothing but store to one element, and reads no other one of that buffer."""
    step = nest_of(s)[-1].body
    if not isinstance(step, Store):
        raise ScheduleError(f"loop {s.var} does more than one thing")
    moving = {sym(f.var) for f in nest_of(s)} & set(walk(*step.indices))
    if moving or any(e.value is step.buffer and e.args != step.indices for e in ir.loads(s)):
        raise ScheduleError(f"loop {s.var} touches more than one element of {step.buffer.name}")


def check_repeatable(s: For) -> None:
    """An iteration can run twice: what it stores it does not read, locals of its own aside."""
    own = {x.buffer for x in ir.statements(s) if isinstance(x, ir.Alloc)}
    if ({e.value for e in ir.loads(s)} & ir.stored_buffers(s)) - own:
        raise ScheduleError(f"loop {s.var} reads what it stores, it cannot run an iteration again")


def check_parallel(s: For) -> None:
    """Different iterations touch different elements of everything that they store."""
    reason = why_not_parallel(s)
    if reason:
        raise ScheduleError(f"iterations of {s.var} are not independent: {reason}")


def why_not_parallel(s: For) -> str:
    """ "" if the iterations are independent, else the reason."""
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
        pairs, run = taken_apart(accesses[0]), where_used(sym(s.var), accesses[0])
        touched = [(*a, flat(a, b.shape), flat(a[run], b.shape[run]),
                    *(rejoined(a, p) for p in pairs)) for a in (*accesses, *loads)]  # fmt: skip
        apart = any(are_apart(list(place), s) for place in zip(*touched))
        if not apart and not are_counted_apart([*accesses, *loads], s):
            return f"{b.name} may be stored to at one place by two of them"
    return ""


def are_counted_apart(accesses: list[tuple[Expr, ...]], s: For) -> bool:
    """Whether the subscripts that hang on the loop alone are others in each iteration, counted out:
    those of pairs of rows of an image, (2 i + k) // w and (2 i + k) % w."""
    if not is_const(s.extent) or s.extent.value > MOST_COUNTED:
        return False
    known = lambda e: symbols_of(e) <= {s.var} and all(x.op != "load" for x in walk(e))
    own = [n for n, each in enumerate(zip(*accesses)) if all(map(known, each))]
    places = {tuple(a[n] for n in own) for a in accesses}
    if not own or not is_const(s.begin):
        return False
    seen: dict[tuple[int, ...], int] = {}
    for t in range(s.begin.value, s.begin.value + s.extent.value):
        for place in places:
            if seen.setdefault(tuple(evaluate(e, {s.var: t}) for e in place), t) != t:
                return False
    return True


def taken_apart(indices: tuple[Expr, ...]) -> list[tuple[int, int, Expr]]:
    """(p, q, d) where subscripts p and q are v // d and v % d of one value, wherever they stand."""
    return [(p, q, i.args[1]) for p, i in enumerate(indices) if i.op == "floordiv"
            for q, j in enumerate(indices) if j.op == "mod" and j.args == i.args]  # fmt: skip


def rejoined(indices: tuple[Expr, ...], pair: tuple[int, int, Expr]) -> Expr:
    """The value that two subscripts give together."""
    p, q, d = pair
    i, j = indices[p], indices[q]
    whole = i.op == "floordiv" and j.op == "mod" and i.args == j.args and i.args[1] is d
    return i.args[0] if whole else i * d + j


def where_used(v: Expr, indices: tuple[Expr, ...]) -> slice:
    """From the first subscript that depends on `v` to the last: a place along these dimensions
    alone."""
    used = [n for n, i in enumerate(indices) if v in set(walk(i))]
    return slice(used[0], used[-1] + 1) if used else slice(0, 0)


def flat(indices: tuple[Expr, ...], shape: tuple) -> Expr:
    """The row-major position: where a fused loop is taken apart by // and %, it is the loop."""
    position = const(0)
    for i, d in zip(indices, shape):
        taken_apart = position.op == "floordiv" and i.op == "mod" and position.args == i.args
        whole = taken_apart and position.args[1] is as_expr(d)
        position = position.args[0] if whole else position * d + i
    return position


def are_apart(indices: list[Expr], s: For) -> bool:
    """Whether equal values of any two of these subscripts imply the same iteration: all of them are
    v * c + a constant of the loop + rest, and the rests lie within less than c, or differ by
    multiples of more than all iterations together move."""
    steps = [_step(i, s) for i in indices]
    if None in steps or len({(c, fixed) for c, fixed, _, _ in steps}) != 1:
        return False
    lows, highs = [low for _, _, low, _ in steps], [high for _, _, _, high in steps]
    step, last = abs(steps[0][0]), bounds(s.extent - 1)[1]
    if max(highs) - min(lows) < step:
        return True
    return lows == highs and last is not None and last * step < gcd(*(r - lows[0] for r in lows))


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
    return bool(_bound_inside(s) & set(walk(t))) or any(p.op == "load" for p in walk(t))


@functools.lru_cache(maxsize=16)
def _bound_inside(s: For) -> frozenset[Expr]:
    return frozenset(sym(p.var) for p in ir.statements(s.body) if isinstance(p, (For, ir.Let)))


def check_same_range(loops: Sequence[For]) -> None:
    """All loops run over one range, in one way."""
    first = loops[0]
    for s in loops[1:]:
        if s.begin is not first.begin or s.extent is not first.extent:
            raise ScheduleError(f"loops {first.var} and {s.var} run over different ranges: "
                                f"{first.extent} and {s.extent} iterations")  # fmt: skip
        check_kinds(first, s)


def check_neighbours(around: Seq | None, loops: Sequence[For]) -> None:
    """The loops stand in one Seq, in this order, with only allocations between them."""
    names = ", ".join(s.var.name for s in loops)
    if around is None or any(s not in around.body for s in loops):
        raise ScheduleError(f"loops {names} do not follow each other")
    places = [around.body.index(s) for s in loops]
    between = around.body[places[0] : places[-1] + 1]
    others = [s for s in between if s not in loops and not isinstance(s, Alloc)]
    if places != sorted(places) or others:
        raise ScheduleError(f"loops {names} do not follow each other")


def check_distribute(s: For, groups: Sequence[Sequence[ir.Stmt]], private: set[Buffer]) -> None:
    """No group of statements stores what another one touches, except in private buffers; or no
    iteration what another iteration touches."""
    if not why_not_parallel(s):
        return
    stored = [{b for part in g for b in ir.stored_buffers(part)} - private for g in groups]
    touched = [{b for part in g for b in ir.buffers(part)} for g in groups]
    for k, own in enumerate(stored):
        for n, other in enumerate(touched):
            for b in own & other if n != k else ():
                raise ScheduleError(f"parts of loop {s.var} share {b.name}, which one stores")


def check_private(root: ir.Stmt, s: For, b: Buffer, rank: int) -> None:
    """`b` is a temporary that only loop `s` accesses, each of its iterations (and of the loops
    around it) at another place along the first `rank` dimensions."""
    inside = _accesses(s, b)
    if len(inside) != len(_accesses(root, b)):
        raise ScheduleError(f"{b.name} is used outside of loop {s.var}")
    if b.scope not in ("temp", "local"):
        raise ScheduleError(f"{b.name} is no temporary")
    unit = [is_const(as_expr(d), 1) for d in b.shape[:rank]]
    places = {tuple(None if u else i for u, i in zip(unit, a[:rank])) for a in inside}
    if len(places) > 1:
        raise ScheduleError(f"loop {s.var} uses {b.name} at more than one place")
    used = set(next(iter(places), ()))
    loops = [f for f in ir.statements(root) if isinstance(f, For) and s in set(ir.statements(f))]
    for f in loops:
        if sym(f.var) not in used and not is_const(f.extent, 1):
            raise ScheduleError(f"iterations of {f.var} share {b.name}")


def _accesses(root: ir.Stmt, b: Buffer) -> list[tuple[Expr, ...]]:
    """Subscripts of every load and store of a buffer, a load counting once a statement."""
    stores = [p.indices for p in ir.statements(root) if isinstance(p, Store) and p.buffer is b]
    return stores + [e.args for e in ir.loads(root) if e.value is b]


def check_in_place(root: ir.Stmt, old: Buffer, new: Buffer) -> None:
    """One map makes `new`, reads `old` only at the element that it stores, and is the last to read
    it."""
    if old.dtype is not new.dtype or old.shape != new.shape or old.scope != new.scope:
        raise ScheduleError(f"{old.name} and {new.name} are not alike")
    makers = [p for p in ir.statements(root) if isinstance(p, Store) and p.buffer is new]
    if len(makers) != 1:
        raise ScheduleError(f"{new.name} is stored to more than once")
    order = list(ir.statements(root))
    last = order.index(makers[0])
    for e in ir.loads(makers[0]):
        if e.value is new or (e.value is old and e.args != makers[0].indices):
            raise ScheduleError(f"{new.name} depends on other elements of {old.name}")
    for p in order[last + 1 :]:
        if old in ir.buffers(p) and not isinstance(p, (For, ir.Seq, ir.If)):
            raise ScheduleError(f"{old.name} is used after {new.name} is made")


def check_not_stored(s: For, b: Buffer) -> None:
    """The loop leaves `b` as it is, for all that can be seen."""
    for p in ir.statements(s.body):
        if isinstance(p, (ir.Call, ir.Copy, ir.View)) and b in ir.buffers(p):
            raise ScheduleError(f"loop {s.var} hands {b.name} on")
    if b in ir.stored_buffers(s.body):
        raise ScheduleError(f"loop {s.var} stores to {b.name}")


def check_producer(root: ir.Stmt, producer: For, stage, s: For) -> None:
    """`producer` is a stage that makes a temporary for loop `s` alone, from what keeps its value
    until then."""
    if stage is None or stage.out.scope != "temp":
        raise ScheduleError(f"loop {producer.var} is no stage that makes a temporary")
    b = stage.out
    mine, theirs = len(_accesses(producer, b)), len(_accesses(s, b))
    if mine + theirs != len(_accesses(root, b)):
        raise ScheduleError(f"{b.name} is used outside of loop {s.var}")
    check_not_stored(s, b)
    order = list(ir.statements(root))
    inside = set(ir.statements(producer))
    reads = {e.value for e in ir.loads(producer)} - {b}
    for p in order[order.index(producer) :]:
        if isinstance(p, Store) and p not in inside and p.buffer in reads:
            raise ScheduleError(f"{p.buffer.name}, which {b.name} is made from, changes")


def check_pipeline(s: For, parts: Sequence[ir.Stmt], cache: Buffer) -> None:
    """A serial loop over what fills `cache` completely and what uses it, in this order."""
    if s.kind != "serial":
        raise ScheduleError(f"loop {s.var} is {s.kind}: its iterations have no order")
    fills = [p for p in parts if cache in ir.stored_buffers(p)]
    if not any(isinstance(p, Alloc) and p.buffer is cache for p in parts) or len(fills) != 1:
        raise ScheduleError(f"{cache.name} is not filled once an iteration of {s.var}")
    (fill,) = fills
    if ir.stored_buffers(fill) != {cache} or cache in {e.value for e in ir.loads(fill)}:
        raise ScheduleError(f"what fills {cache.name} does more than that")
    before = parts[: list(parts).index(fill)]
    if any(cache in ir.buffers(p) for p in before):
        raise ScheduleError(f"{cache.name} is used before it is filled")
    sources = {e.value for e in ir.loads(fill)}
    for p in parts:
        if p is not fill and sources & ir.stored_buffers(p):
            raise ScheduleError(f"loop {s.var} stores to what {cache.name} is filled from")
        if isinstance(p, Alloc) and p.buffer in sources:
            raise ScheduleError(f"{cache.name} is filled from a buffer of one iteration")
        if isinstance(p, ir.Let) and sym(p.var) in {x for y in ir.statements(fill)
                                                    for x in walk(*ir.expressions(y))}:  # fmt: skip
            raise ScheduleError(f"what fills {cache.name} depends on {p.var}")


def runs(s: For) -> bool:
    """Whether the loop certainly runs at least once."""
    low = bounds(s.extent)[0]
    return low is not None and low > 0


def check_pack(k: ir.Kernel, spec: ir.Pack) -> None:
    """The parameter is an input that is not packed already, and every dimension has its place."""
    if not 0 <= spec.param < len(k.inputs):
        raise ScheduleError(f"{k.name} has no input {spec.param}")
    b = k.params[spec.param]
    if any(p.param == spec.param for p in k.packs):
        raise ScheduleError(f"{b.name} is packed already")
    if sorted((*spec.lead, spec.axis, *spec.rest)) != list(range(b.rank)) or spec.width < 1:
        raise ScheduleError(f"panels of {b.name} have no place for some of its {b.rank} dimensions")


def check_bind(root: ir.Stmt, s: For, kind: str) -> None:
    """Blocks are outermost, threads inside of blocks, and iterations are independent."""
    if kind not in ("block", "thread"):
        raise ScheduleError(f"a loop is bound to block or thread, not to {kind}")
    check_parallel(s)
    around = [f for f in ir.statements(root)
              if isinstance(f, For) and f is not s and s in set(ir.statements(f))]  # fmt: skip
    if kind == "block" and any(f.kind != "block" for f in around):
        raise ScheduleError(f"loop {s.var} is inside of loops that are not blocks")
    if kind == "thread" and not any(f.kind == "block" for f in around):
        raise ScheduleError(f"no loop around {s.var} is a block")
