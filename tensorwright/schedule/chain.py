"""Contractions one behind the other, of which each reads few rows of what the one before makes.

    for i, j: t[i + 1, j] = f(sum x[i, k] * u[k, j]);  border of t = 0
    for i, j: y[i, j] = sum t[2 * i + r, j] * w[r, j]
->  for strip in n: local t'[9, m]
        border of t';  rows of t that 4 rows of y see, into t';  4 rows of y from t'

What lies between them (the expanded tensor of an inverted residual) would leave the L2 cache and
come back; a strip of it stays there. Rows that two strips see are computed for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    any_of,
    as_expr,
    compare,
    const,
    is_const,
    maximum,
    minimum,
    sym,
    symbols_of,
)
from tensorwright.ir.loop import Alloc, For, If, Stmt, Store, loop_symbol, loops, seq
from tensorwright.ir.simplify import linear
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.nest import Stage, inverse, loads_of
from tensorwright.schedule.padding import Padded, ranges, split_padding
from tensorwright.schedule.primitives_nests import rename_accesses
from tensorwright.schedule.region import loaded_region
from tensorwright.schedule.roles import find_roles

MIN_BYTES = 1 << 20  # of what lies between two contractions: less stays in an L2 cache
MAX_KEPT = 7 << 17  # bytes of a strip of all of it
MAX_WEIGHTS = 1 << 17  # bytes that every strip reads again
MIN_STRIPS, MAX_STRIPS = 4, 64  # that threads share
L3_RATE, MULTIPLIED = 24, 16  # bytes and products of a cycle
SHOWN = 0.65  # of the time to store and load again what leaves the L2 cache


@dataclass(frozen=True, eq=False)
class Link:
    """A contraction, and the map behind it, which may pad what it stores."""

    stage: Stage
    behind: Stage | None
    padded: Padded | None

    @property
    def out(self) -> Buffer:
        return self.stage.out if self.behind is None else self.behind.out

    @property
    def inside(self) -> Stage | None:
        """The map without what it pads with."""
        return self.behind if self.padded is None else self.padded.inside


@dataclass(frozen=True, eq=False)
class Strips:
    """A body whose loop `strip` computes a strip of the result of the last of several contractions;
    the loops `nests` do one contraction each. kept: bytes of what lies between them for one strip;
    again: products that strips compute more than once; saved: bytes that an L2 cache would not
    hold."""

    body: Stmt
    strip: Symbol
    nests: tuple[Symbol, ...]
    count: int
    kept: int
    again: int
    saved: int

    @property
    def gain(self) -> float:
        """Cycles of one core."""
        return 2 * self.saved / L3_RATE * SHOWN - self.again / MULTIPLIED


def read_chain(stages: Sequence[Stage]) -> tuple[Link, ...] | None:
    """The stages as a chain that is worth computing strip by strip, else None."""
    links = read_links(stages)
    if links is None or not all(leaves_cache(size(b)) for b in between(links)):
        return None
    if sum(map(weight_bytes, links)) > MAX_WEIGHTS:
        return None
    best = max((s.gain for s in candidates(links)), default=0)
    return links if best > 0 else None


def leaves_cache(size: int) -> bool:
    """Whether so many bytes between two contractions do not stay in an L2 cache."""
    return size >= MIN_BYTES


def read_links(stages: Sequence[Stage]) -> tuple[Link, ...] | None:
    links: list[Link] = []
    rest = list(stages)
    while rest:
        stage = rest.pop(0)
        behind = rest.pop(0) if rest and rest[0].is_map else None
        x = Link(stage, behind, None if behind is None else split_padding(behind))
        if not stage.is_contraction or not is_fixed(stage) or find_roles(stage) is None:
            return None
        if x.inside is not None and inverse(stage, x.inside) is None:
            return None
        links.append(x)
    made = {x.stage.out for x in links} | {x.out for x in links}
    for a, b in zip([None, *links], links):
        read = {e.value for e in ir.loads(b.stage.root)} - {b.stage.acc, b.stage.out}
        if read & made != (set() if a is None else {a.out}):
            return None
        if a is not None and not slides(b.stage, a.out):
            return None
        if b.behind and {e.value for e in ir.loads(b.behind.root)} & made != {b.stage.out}:
            return None
    return tuple(links) if len(links) > 1 else None


def slides(s: Stage, b: Buffer) -> bool:
    """Whether neighbouring results see the same elements of a buffer. (What a 1x1 convolution reads
    once, beside many products, need not lie near: strips of those were not faster.)"""
    taps, own = {f.var for f in s.reduce}, {f.var for f in s.spatial}
    places = [i for e in loads_of(s.step.value) if e.value is b for i in e.args]
    return any(taps & symbols_of(i) and own & symbols_of(i) for i in places)


def is_fixed(s: Stage) -> bool:
    return all(is_const(f.extent) for f in (*s.spatial, *s.reduce))


def between(links: Sequence[Link]) -> list[Buffer]:
    return [x.out for x in links[:-1]]


def size(b: Buffer) -> int:
    """Bytes of a buffer of fixed shape, 0 of others."""
    fixed = all(isinstance(d, int) for d in b.shape)
    return prod(b.shape) * b.dtype.bytes if fixed else 0


def weight_bytes(x: Link) -> int:
    """Of what all rows of a contraction multiply with."""
    rows = {f.var for f in x.stage.spatial[:-1] if not is_const(f.extent, 1)}
    reads = [e for e in loads_of(x.stage.step.value) if e.value is not x.stage.acc]
    return sum(size(e.value) for e in reads if not rows & symbols_of(*e.args))


def candidates(links: Sequence[Link]) -> Iterator[Strips]:
    """Strips of all sizes that stay in the L2 cache."""
    rows = row_loop(links[-1].stage)
    for count in range(MIN_STRIPS, MAX_STRIPS + 1) if rows is not None else ():
        if rows.extent.value % count == 0:
            try:
                found = in_strips(links, count)
            except ScheduleError:  # other strips may be whole rows of all that lies between
                continue
            if found.kept <= MAX_KEPT:
                yield found


def row_loop(s: Stage) -> For | None:
    """The loop that is cut into strips."""
    return next((f for f in s.spatial[:-1] if not is_const(f.extent, 1)), None)


# ---- one contraction behind the other, strip by strip ------------------------------------------


def in_strips(links: Sequence[Link], count: int) -> Strips:
    """The contractions of a chain, their maps at their stores, in so many strips. Raises
    ScheduleError where a strip is no block of rows of all that lies between them."""
    *before, last = links
    rows = row_loop(last.stage)
    body = with_map(last, rows.var)  # strips are as independent as the rows are
    body, strip, _ = p.split(body, rows.var, rows.extent.value // count)
    outside = [f.var for f in last.stage.spatial[: last.stage.spatial.index(rows)]]
    body = p.reorder(body, [strip, *outside]) if outside else body
    inner = p.find(body, strip).body
    nests, kept, again = [inner.var], 0, 0
    for x in reversed(before):
        part = Part(x, inner, strip, count)
        inner, nest = part.before(inner)
        nests.insert(0, nest)
        kept, again = kept + size(part.near), again + part.again
    body = p.replace_loop(body, strip, lambda s: replace(s, body=inner))
    border = last.padded.border if last.padded else ()
    saved = sum(size(b) - MIN_BYTES for b in between(links))
    return Strips(seq(*border, body), strip, tuple(nests), count, kept, again, saved)


def with_map(x: Link, parallel: Symbol | None = None) -> For:
    """A contraction with its map at its store, accumulating in a local; a loop may be parallel."""
    s, body = x.stage, x.stage.root
    if s.acc is s.out:
        body = p.cache_write(body, s.init)
    if parallel is not None:
        body = p.set_kind(body, parallel, "parallel")
    if x.inside is not None:
        body = p.fuse_epilogue(body, s, x.inside, inverse(s, x.inside))
    return body


class Part:
    """What a strip needs of one contraction of the chain: `rows` of its result along `axis`, from
    `begin` on. They lie in `near`, behind `ahead` others: where the strip needs rows of the border,
    as many are computed as elsewhere."""

    def __init__(self, x: Link, users: Stmt, strip: Symbol, count: int):
        self.link, self.nest = x, with_map(x)
        region = loaded_region(users, x.out)
        moving = [n for n, b in enumerate(region.begin) if strip in symbols_of(b)]
        if len(moving) != 1:
            raise ScheduleError(f"a strip of {x.out.name} is no block of its rows")
        (self.axis,) = moving
        self.begin, self.rows = region.begin[self.axis], region.extent[self.axis]
        self.loop, self.each, self.low = self.row_of_store()
        self.high = self.loop.extent.value // self.each
        self.made = min(self.rows, self.high)
        behind = x.out.shape[self.axis] - self.low - self.high
        self.is_inside = self.low == behind == 0
        self.ahead = max(0, behind - (self.rows - self.made))
        length = self.ahead + max(self.rows, self.low + self.made)
        shape = [length if n == self.axis else d for n, d in enumerate(x.out.shape)]
        self.near = Buffer(x.out.name, x.out.dtype, shape, "local", 64)
        work = prod(f.extent.value for f in (*x.stage.spatial, *x.stage.reduce))
        self.again = max(work * (self.made * count - self.high) // self.high, 0)

    def row_of_store(self) -> tuple[For, int, int]:
        """The loop of the contraction that moves along the rows, how many of its steps are in one,
        and the row that the first one stores."""
        store = next(s for s in ir.statements(self.nest)
                     if isinstance(s, Store) and s.buffer is self.link.out)  # fmt: skip
        terms, low = linear(store.indices[self.axis])
        for f in self.link.stage.spatial:
            for each in divisors(f.extent.value):
                if terms == {sym(f.var) // each: 1}:
                    return f, each, low
        raise ScheduleError(f"no loop moves along the rows of {self.link.out.name}")

    def before(self, users: Stmt) -> tuple[Stmt, Symbol]:
        """The border of the strip, its part of the contraction, then the users; and the outermost
        loop of the contraction."""
        first = self.begin - self.low
        if not self.is_inside:
            first = maximum(minimum(first, self.high - self.made), 0)
        steps = const(self.made * self.each)
        v = loop_symbol(self.loop.var.name, const(0), steps)

        def window(f: For) -> For:
            place = first * self.each + sym(v)
            return For(v, const(0), steps, ir.substitute(f.body, {sym(f.var): place}), f.kind)

        nest = p.replace_loop(self.nest, self.loop.var, window)
        parts = seq(Alloc(self.near), *self.border(), self.moved(nest), self.moved(users))
        return parts, nest.var

    def moved(self, s: Stmt) -> Stmt:
        """`s` with what it loads and stores of the result in `near`."""
        offset = self.ahead - self.begin

        def index(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return (*i[: self.axis], i[self.axis] + offset, *i[self.axis + 1 :])

        return rename_accesses(s, self.link.out, self.near, index)

    def border(self) -> list[Stmt]:
        """Nests that fill what the map pads with: along other axes, then whole rows."""
        if self.link.padded is None:
            return []
        box = ranges(self.link.behind.final.value.args[0], self.link.behind)
        inside = [box[sym(f.var)] for f in self.link.behind.spatial]
        whole = [(const(0), as_expr(d)) for d in self.near.shape]
        nests = []
        for n, (low, high) in enumerate(inside):
            for begin, end in ((const(0), low), (high, whole[n][1])) if n != self.axis else ():
                if begin is not end:
                    nests.append(self.filled([*whole[:n], (begin, end), *whole[n + 1 :]]))
        low, high = inside[self.axis]

        def row(r: Expr) -> Stmt:
            box, at = list(whole), self.begin + r
            box[self.axis] = (self.ahead + r, self.ahead + r + 1)
            outside = any_of([compare("lt", at, low), compare("le", high, at)])
            return If(outside, self.filled(box))

        return [*nests, ir.loop("row", self.rows, row)] if not self.is_inside else nests

    def filled(self, box: list[tuple[Expr, Expr]]) -> Stmt:
        """A part of `near` with the constant that the map pads with."""
        value, names = self.link.behind.final.value.args[2], [
            f.var.name for f in self.link.behind.spatial]  # fmt: skip

        def store(*i: Expr) -> Stmt:
            return Store(self.near, tuple(e + begin for e, (begin, _) in zip(i, box)), value)

        return loops(names, [end - begin for begin, end in box], store)


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
