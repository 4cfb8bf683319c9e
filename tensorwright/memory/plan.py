"""Place the arena buffers of a host function in one frame.

    alloc(a); f(x, a); alloc(b); g(a, b); alloc(c); h(b, c)      ->      a at 0, b at 4096, c at 0

A buffer is live from its first to its last mention, views included; a loop keeps what it did not
allocate itself live to its end. Static sizes are placed greedily, largest first (the offsets of
Pisarchyk and Lee 2020, "greedy by size"); symbolic ones likewise, at offsets that are sums and are
proved to be free, or behind the largest of several ends. Buffers whose size is bound only in the
middle of the function become `dynamic`: allocated there, freed with the function.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from math import nan

from tensorwright.base import config
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import u8
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    const,
    is_const,
    maximum,
    sym,
    symbols_of,
    walk,
)  # fmt: skip
from tensorwright.ir.expr import is_const as _c
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Alloc, Kernel, Seq, Stmt, View
from tensorwright.ir.type import product

ALIGN = 64
USUAL = 256  # the size of a dimension of which no bound is known, to compare buffers by


@dataclass
class Interval:
    """A buffer with the first and last statement at which it is live."""

    buffer: Buffer
    first: int
    last: int
    size: Expr


def byte_size(b: Buffer) -> Expr:
    """Bytes, rounded up to the alignment."""
    size = as_expr(product(b.shape)) * b.dtype.bytes
    return (size + (ALIGN - 1)) // ALIGN * ALIGN


def mentioned(s: Stmt) -> list[Buffer]:
    """Buffers that the statement itself names."""
    found = [e.value for part in ir.expressions(s) for e in _loads(part)]
    match s:
        case ir.Store(buffer=b):
            found.append(b)
        case ir.Call(buffers=buffers):
            found.extend(buffers)
        case ir.Copy(target=t, source=b):
            found += [t, b]
        case ir.Resize(buffer=b) | ir.New(target=b) | ir.Count(target=b):
            found.append(b)
        case View(buffer=b, base=base):
            found += [b, base]
    return found


def _loads(e: Expr) -> list[Expr]:
    return [p for p in walk(e) if p.op == "load"]


class _Scan:
    """One walk over the statements: intervals of arena buffers through their views."""

    def __init__(self):
        self.time = 0
        self.owner: dict[Buffer, Buffer] = {}
        self.found: dict[Buffer, Interval] = {}
        self.born: dict[Buffer, int] = {}  # number of loops open when allocated
        self.loops: list[list[Buffer]] = []

    def visit(self, s: Stmt) -> None:
        self.time += 1
        if isinstance(s, Alloc) and s.buffer.scope == "arena":
            self.owner[s.buffer] = s.buffer
            self.born[s.buffer] = len(self.loops)
            self.found[s.buffer] = Interval(s.buffer, self.time, self.time, byte_size(s.buffer))
        if isinstance(s, View):
            self.owner[s.buffer] = self.owner.get(s.base, s.base)
        for b in mentioned(s):
            self.touch(self.owner.get(b, b))
        if isinstance(s, (ir.For, ir.While)):
            self.loops.append([])
            self.children(s)
            for b in self.loops.pop():
                self.touch(b)
        else:
            self.children(s)

    def children(self, s: Stmt) -> None:
        for child in ir.children(s):
            self.visit(child)

    def touch(self, b: Buffer) -> None:
        if b in self.found:
            self.found[b].last = self.time
            if self.born[b] < len(self.loops):
                self.loops[-1].append(b)


def intervals(k: Kernel) -> list[Interval]:
    """Live ranges of the arena buffers of a host function, in order of allocation."""
    scan = _Scan()
    scan.visit(k.body)
    return list(scan.found.values())


def overlap_in_time(a: Interval, b: Interval) -> bool:
    return a.first <= b.last and b.first <= a.last


def place_static(items: list[Interval]) -> tuple[dict[Buffer, int], int]:
    """Offsets of buffers of constant size and the total."""
    placed: list[tuple[int, int, Interval]] = []
    for item in sorted(items, key=lambda i: (-i.size.value, i.first)):
        offset = 0
        for start, size, other in sorted(placed, key=lambda p: p[0]):
            if overlap_in_time(item, other) and start < offset + item.size.value:
                offset = max(offset, start + size)
        placed.append((offset, item.size.value, item))
    offsets = {i.buffer: o for o, _, i in placed}
    return offsets, max((o + s for o, s, _ in placed), default=0)


Ends = tuple[Expr, ...]  # a place: the largest of these, none of which is known to be a larger one


@dataclass(frozen=True)
class Placed:
    """Where a buffer lies, as expressions and as numbers at the reference sizes."""

    item: Interval
    begin: Ends
    end: Ends
    low: int
    high: int


def place_symbolic(items: list[Interval]) -> tuple[dict[Buffer, Expr], Expr]:
    """Offsets of buffers of any size and the total. The same greedy placement, in the order that
    the sizes have at reference sizes of the symbols; an offset is taken only if it is proved that
    nothing overlaps there whatever the sizes are. Behind the largest of the ends of all others
    nothing does, even where nobody can say which one that is."""
    at, order = Reference(items), Order()
    placed: list[Placed] = []
    total: Ends = (const(0),)
    for item in sorted(items, key=lambda i: (-at(i.size), i.first)):
        others = [p for p in placed if overlap_in_time(item, p.item)]
        begin = _lowest(item, others, at, order)
        end = tuple(e + item.size for e in begin)
        total = order.largest(total + end)
        placed.append(Placed(item, begin, end, at.place(begin), at.place(end)))
    return {p.item.buffer: reduce(maximum, p.begin) for p in placed}, reduce(maximum, total)


def _lowest(item: Interval, others: list[Placed], at: Reference, order: Order) -> Ends:
    """The lowest of the places at 0 and behind the others that is free for certain."""
    size = at(item.size)
    begins = dict.fromkeys(((const(0),), *(p.end for p in others)))
    for begin in sorted(begins, key=at.place):
        low, end = at.place(begin), tuple(e + item.size for e in begin)
        if all(p.high <= low or low + size <= p.low for p in others) and all(
            order.holds(p.end, begin) or order.holds(end, p.begin) for p in others
        ):
            return begin
    return order.largest(tuple(e for p in others for e in p.end))


class Order:
    """What is known of the order of places."""

    def __init__(self):
        self.known: dict[tuple[Expr, Expr], bool] = {}

    def holds(self, a: Ends, b: Ends) -> bool:
        """Whether a <= b is known."""
        return all(any(self.at_most(x, y) for y in b) for x in a)

    def at_most(self, a: Expr, b: Expr) -> bool:
        if (a, b) not in self.known:
            self.known[a, b] = a is b or _c(a <= b, True)
        return self.known[a, b]

    def largest(self, ends: Ends) -> Ends:
        """Those of some ends that are not known to be at most another one."""
        kept: list[Expr] = []
        for e in dict.fromkeys(ends):
            if not any(self.at_most(e, k) for k in kept):
                kept = [*(k for k in kept if not self.at_most(k, e)), e]
        return tuple(kept)


class Reference:
    """Expressions as numbers: symbols at their upper bounds, or at a usual size without one."""

    def __init__(self, items: list[Interval]):
        found = symbols_of(*(i.size for i in items))
        self.values = {s: _usual(s) for s in found}
        self.known: dict[Expr, int] = {}

    def __call__(self, e: Expr) -> int:
        if e not in self.known:
            self.known[e] = evaluate(e, self.values)
        return self.known[e]

    def place(self, ends: Ends) -> int:
        return max(map(self, ends))


def _usual(s: Symbol) -> int:
    size = max(USUAL, s.min or 0) if s.max is None else s.max
    return size // s.multiple_of * s.multiple_of


def plan_memory(k: Kernel) -> Kernel:
    """`k` with an offset for every arena buffer and its frame allocated; with the option `guard`,
    every buffer in memory of its own; with `poison`, every buffer overwritten where its life
    begins, so that what is read before it is written, or was placed over a value that is still
    needed, shows in the results."""
    if config.get("guard"):
        own = {i.buffer: _in(i.buffer, "guarded") for i in intervals(k)}
        return k.with_body(ir.replace_buffers(k.body, own))
    late = _late_symbols(k.body)
    items = intervals(k)
    dynamic = {i.buffer for i in items if symbols_of(i.size) & late}
    static = [i for i in items if is_const(i.size)]
    symbolic = [i for i in items if not is_const(i.size) and i.buffer not in dynamic]
    if symbolic:
        offsets, size = place_symbolic([*static, *symbolic])
    else:
        fixed, total = place_static(static)
        offsets, size = {b: const(o) for b, o in fixed.items()}, const(total)
    fresh = {b: _in(b, "dynamic") for b in dynamic}

    poison = config.get("poison")

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Alloc) and s.buffer in offsets:
            placed = replace(s, offset=offsets[s.buffer])
            return Seq((placed, poisoned(s.buffer))) if poison else placed
        return None

    body = ir.replace_buffers(ir.rewrite(k.body, visit), fresh)
    if not offsets:
        return k.with_body(body)
    frame = Alloc(Buffer("frame", u8, (size,), "frame", 64))
    return k.with_body(_insert(body, frame))


def poisoned(b: Buffer) -> Stmt:
    """NaN in every element, all bits set in integers."""
    value = const(nan, b.dtype) if b.dtype.is_float else const(-1, b.dtype)
    indices = tuple(Symbol(f"p{a}", 0, upper=as_expr(d) - 1) for a, d in enumerate(b.shape))
    body: Stmt = ir.Store(b, tuple(map(sym, indices)), value)
    for i, d in reversed(list(zip(indices, b.shape))):
        body = ir.For(i, const(0), as_expr(d), body)
    return body


def _in(b: Buffer, scope: str) -> Buffer:
    return Buffer(b.name, b.dtype, b.shape, scope, 64)


def _late_symbols(body: Stmt) -> set[Symbol]:
    """Symbols bound after the function's prologue."""
    late, prologue = set(), True
    for s in ir.statements(body):
        if not isinstance(s, Seq) and not _is_prologue(s):
            prologue = False
        if isinstance(s, ir.Let) and not prologue:
            late.add(s.var)
        if isinstance(s, ir.For):
            late.add(s.var)
    return late


def _is_prologue(s: Stmt) -> bool:
    """Whether a statement may run before the frame is there: it binds sizes, or names memory that
    is not in the frame."""
    if isinstance(s, Alloc):
        return s.buffer.scope != "arena"
    return isinstance(s, (ir.Let, ir.Assert, View))


def _insert(body: Stmt, frame: Alloc) -> Stmt:
    """Put the frame before the first statement that is not part of the prologue."""
    parts = body.body if isinstance(body, Seq) else (body,)
    k = 0
    while k < len(parts) and _is_prologue(parts[k]):
        k += 1
    return Seq((*parts[:k], frame, *parts[k:]))
