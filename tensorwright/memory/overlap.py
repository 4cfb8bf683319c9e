"""An independent proof that a planned host function never holds two values in one place.

    for problem in check_plan(planned): print(problem)       # nothing, if the plan is right

It shares nothing with the planner but the format of its result and the prover: what is live
follows from a backward walk over the statements (a buffer is live from its allocation to its last
use, through its views, around loops until nothing changes), and every two buffers that are live at
one point must lie apart. With `values` for the symbols this is arithmetic; without, the distances
must be provably not negative for all values the symbols may take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import gcd, inf

from tensorwright.base.errors import InternalError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    bounds,
    compare,
    const,
    is_const,
    substitute,
    sym,
    symbols_of,
    walk,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, Kernel, Stmt
from tensorwright.ir.simplify import linear
from tensorwright.ir.type import product

Live = frozenset[Buffer]
LINE = 64  # what vector code may touch together, and the alignment that kernels rely on


@dataclass(frozen=True)
class Problem:
    """What is wrong, of which buffers."""

    text: str
    buffers: tuple[Buffer, ...]

    def __str__(self) -> str:
        return f"{self.text}: {', '.join(map(repr, self.buffers))}"


class Liveness:
    """One backward walk: `pairs` are the arena buffers that are live together somewhere."""

    def __init__(self, body: Stmt):
        self.root = _roots(body)
        self.pairs: set[frozenset[Buffer]] = set()
        self.at_entry = self.before(body, frozenset())

    def before(self, s: Stmt, after: Live) -> Live:
        """What is live before `s`, given what is live after it."""
        match s:
            case ir.Seq(body=body):
                for part in reversed(body):
                    after = self.before(part, after)
                return after
            case ir.For(body=body) | ir.While(body=body):
                return self.around(body, after | self.uses(s))
            case ir.If(then=then, orelse=orelse):
                taken = self.before(then, after)
                other = after if orelse is None else self.before(orelse, after)
                return self.point(taken | other | self.uses(s))
            case Alloc(buffer=b):
                self.point(after | ({b} if b in self.root else set()))
                return after - {b}
        return self.point(after | self.uses(s))

    def around(self, body: Stmt, after: Live) -> Live:
        """Before a loop: an iteration is followed by another one or by what is after the loop."""
        live = self.point(after)
        while True:
            more = live | self.before(body, live)
            if more == live:
                return live
            live = self.point(more)

    def uses(self, s: Stmt) -> Live:
        return frozenset(self.root[b] for b in _named(s) if b in self.root)

    def point(self, live: Live) -> Live:
        self.pairs.update(map(frozenset, combinations(live, 2)))
        return live


def _roots(body: Stmt) -> dict[Buffer, Buffer]:
    """Arena buffers and views into them -> the arena buffer."""
    root: dict[Buffer, Buffer] = {}
    for s in ir.statements(body):
        if isinstance(s, Alloc) and s.buffer.scope == "arena":
            root[s.buffer] = s.buffer
        elif isinstance(s, ir.View) and s.base in root:
            root[s.buffer] = root[s.base]
    return root


def _named(s: Stmt) -> Iterator[Buffer]:
    """Every buffer that the statement names itself, whether it reads or writes it."""
    for e in walk(*ir.expressions(s)):
        if e.op == "load":
            yield e.value
    for field in ("buffer", "base", "source", "target"):
        if hasattr(s, field):
            yield getattr(s, field)
    yield from getattr(s, "buffers", ())


def check_plan(k: Kernel, values: dict[Symbol, int] | None = None) -> list[Problem]:
    """Everything wrong with where the buffers of a planned host function are. values: sizes to
    check the plan for; without them it must hold for all."""
    known = {sym(s): const(v) for s, v in (values or {}).items()}
    places = {s.buffer: s.offset for s in ir.statements(k.body)
              if isinstance(s, Alloc) and s.buffer.scope == "arena"}  # fmt: skip
    frames = [s.buffer for s in ir.statements(k.body)
              if isinstance(s, Alloc) and s.buffer.scope == "frame"]  # fmt: skip
    lost = [b for b, offset in places.items() if offset is None]
    if lost or len(frames) != (1 if places else 0):
        return [Problem("no place in a frame", tuple(lost or places))]
    spans = {b: _span(b, offset, known) for b, offset in places.items()}
    at_most = Order(_lines(b, known) for b in places)
    problems = list(_frame_problems(k.body, frames, spans, known, at_most))
    live = Liveness(k.body)
    if live.at_entry:
        problems.append(Problem("used before it is allocated", tuple(live.at_entry)))
    for a, b in sorted(map(_by_name, live.pairs), key=lambda pair: (pair[0].name, pair[1].name)):
        (a0, a1), (b0, b1) = spans[a], spans[b]
        if not (at_most(a1, b0) or at_most(b1, a0)):
            problems.append(Problem(f"live together at [{a0}, {a1}) and [{b0}, {b1})", (a, b)))
    return problems


def _by_name(pair: frozenset[Buffer]) -> list[Buffer]:
    return sorted(pair, key=lambda b: b.name)


def _lines(b: Buffer, known: dict[Expr, Expr]) -> Expr:
    """The lines of memory that a buffer has to itself."""
    size = as_expr(product(b.shape)) * b.dtype.bytes
    return substitute((size + (LINE - 1)) // LINE, known)


def _span(b: Buffer, offset: Expr, known: dict[Expr, Expr]) -> tuple[Expr, Expr]:
    """The bytes that a buffer has to itself, [first, end)."""
    start = substitute(offset, known)
    return start, start + _lines(b, known) * LINE


def _frame_problems(body: Stmt, frames, spans, known, at_most) -> Iterator[Problem]:
    """Buffers outside of the frame or not aligned; a frame of a size that is not known in time."""
    for b, (start, end) in spans.items():
        size = substitute(as_expr(product(frames[0].shape)), known)
        if not at_most(end, size) or not at_most(const(0), start):
            problem = f"at [{start}, {end}) of {size} bytes"
            yield Problem(problem, (b,))
        if not _is_aligned(start):
            yield Problem(f"at {start}, which is not aligned to {LINE}", (b,))
    bound: set[Symbol] = set()
    late = {s.var for s in ir.statements(body) if isinstance(s, (ir.Let, ir.For))}
    for s in ir.statements(body):
        if isinstance(s, Alloc) and s.buffer in frames:
            sizes = symbols_of(*(as_expr(d) for d in s.buffer.shape))
            if sizes & late - bound:
                yield Problem("its size is bound after it", (s.buffer,))
            return
        if isinstance(s, Alloc) and s.buffer in spans:
            yield Problem("allocated before its frame", (s.buffer,))
        if isinstance(s, ir.Let):
            bound.add(s.var)


def _is_aligned(e: Expr) -> bool:
    """Whether an offset is a multiple of a line; of a maximum, whichever of its arguments it is."""
    largest = next((a for a in linear(e)[0] if a.op == "max"), None)
    return is_const(e % LINE, 0) or (
        largest is not None and all(_is_aligned(substitute(e, {largest: x})) for x in largest.args)
    )


class Order:
    """Proves a <= b for index expressions, given some that are not negative: the sizes of buffers,
    whatever the form in which they are written."""

    def __init__(self, sizes: Iterable[Expr]):
        sizes = tuple(dict.fromkeys(sizes))
        self.known: dict[Expr, bool] = {}
        self.sums = [z for z in (e * LINE for e in sizes)
                     if len(linear(z)[0]) > 1 or (linear(z)[0] and linear(z)[1])]  # fmt: skip
        self.positive = {atom for e in sizes for atom, c in linear(e)[0].items()
                         if c > 0 and len(linear(e)[0]) == 1 and linear(e)[1] == 0}  # fmt: skip

    def __call__(self, a: Expr, b: Expr) -> bool:
        return self.reaches_zero(b - a)

    def reaches_zero(self, distance: Expr) -> bool:
        """Whether it is not negative. A sum with a maximum in it is at least what it is with any of
        the arguments; where the maximum is subtracted, that has to hold with all of them."""
        if distance not in self.known:
            terms = {m: c for m, c in linear(distance)[0].items() if m.op == "max"}
            m = next((m for m, c in terms.items() if c < 0), next(iter(terms), None))
            if self.sum_reaches_zero(distance):
                self.known[distance] = True
            elif m is None:
                self.known[distance] = False
            else:
                found = (self.reaches_zero(substitute(distance, {m: x})) for x in m.args)
                self.known[distance] = all(found) if terms[m] < 0 else any(found)
        return self.known[distance]

    def sum_reaches_zero(self, distance: Expr) -> bool:
        for _ in range(len(self.sums) + 1):
            if self.is_never_negative(distance):
                return True
            part = next((z for z in self.sums if _contains(distance, z)), None)
            if part is None:
                return False
            distance = distance - part
        return False

    def is_never_negative(self, e: Expr) -> bool:
        terms, constant = linear(e)
        step = gcd(constant, *terms.values())  # e is a multiple of it: above -step is enough
        least = self.least(terms, constant), self.least(*_without_floors(e, False))
        return max(least) > -max(step, 1) or is_const(compare("le", const(0), e), True)

    def least(self, terms: dict, constant) -> Fraction | float:
        """A lower bound of a sum."""
        total = constant
        for atom, c in terms.items():
            low, high = bounds(atom)
            if atom in self.positive:
                low = max(low or 0, 0)
            end = low if c > 0 else high
            if c and end is None:
                return -inf
            total += c * (end or 0)
        return total


def _contains(e: Expr, part: Expr) -> bool:
    """Whether e has all terms of `part`, at least as often."""
    terms, _ = linear(e)
    return all(terms.get(a, 0) * c >= c * c for a, c in linear(part)[0].items())


def _without_floors(e: Expr, up: bool) -> tuple[dict[Expr, Fraction], Fraction]:
    """A linear bound of `e`, from above if `up`, else from below, as (terms, constant): it knows
    x / d - (d - 1) / d <= x // d <= x / d."""
    terms, constant = linear(e)
    total, result = Fraction(constant), defaultdict(Fraction)
    for atom, c in terms.items():
        if atom.op != "floordiv" or not is_const(atom.args[1]) or atom.args[1].value <= 0:
            result[atom] += c
            continue
        x, d = atom.args[0], atom.args[1].value
        above = up == (c > 0)
        parts, inner = _without_floors(x, above)
        total += Fraction(c, d) * (inner if above else inner - (d - 1))
        for part, factor in parts.items():
            result[part] += factor * Fraction(c, d)
    return result, total


def verify_plan(k: Kernel) -> None:
    """Raise an InternalError that names the buffers if the plan is not right."""
    problems = check_plan(k)
    if problems:
        raise InternalError(f"memory plan of {k.name}: {problems[0]}",
                            notes=tuple(map(str, problems[1:])))  # fmt: skip
