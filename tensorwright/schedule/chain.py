"""Contractions one behind the other, of which each reads few rows of what the one before makes.

    for i, j: t[i + 1, j] = f(sum x[i, k] * u[k, j]);  border of t = 0
    for i, j: y[i, j] = sum t[2 * i + r, j] * w[r, j]
->  for strip in n: local t'[9, m]
        border of t';  rows of t that 4 rows of y see, into t';  4 rows of y from t'

What lies between them (the expanded tensor of an inverted residual) would leave the L2 cache and
come back; a strip of it stays there. Rows that two strips see are computed for both. Of several
images, however many, each goes in strips by itself; some of them may be a strip, too.

Here is how a chain can be cut. Whether that pays, and in how many strips, a target decides
(`strips.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    any_of,
    as_expr,
    bounds,
    compare,
    const,
    is_const,
    maximum,
    minimum,
    sym,
    symbols_of,
)
from tensorwright.ir.loop import Alloc, For, If, Kernel, Stmt, Store, loop_symbol, loops, seq
from tensorwright.ir.simplify import linear
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.nest import Stage, inverse, loads_of, nest_of
from tensorwright.schedule.padding import Padded, ranges, split_padding
from tensorwright.schedule.primitives_nests import rename_accesses
from tensorwright.schedule.region import loaded_region
from tensorwright.schedule.roles import is_tiled

MIN_STRIPS, MAX_STRIPS = 4, 64  # that threads share


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

    @cached_property
    def nest(self) -> For:
        """The contraction with its map at its store, accumulating in a local."""
        return self.with_map()

    def with_map(self, parallel: Sequence[Symbol] = ()) -> For:
        """The same, some of its loops parallel."""
        s, body = self.stage, self.stage.root
        if s.acc is s.out:
            body = p.cache_write(body, s.init)
        for v in parallel:
            body = p.set_kind(body, v, "parallel")
        if self.inside is not None:
            body = p.fuse_epilogue(body, s, self.inside, inverse(s, self.inside))
        return body


@dataclass(frozen=True, eq=False)
class Strips:
    """A body whose loop `strip` computes a strip of the result of the last of several contractions,
    inside of loops over `images`; the loops `nests` do one contraction each. count: strips of all
    images; kept: bytes of what lies between the contractions for one strip; again: products that
    strips compute more than once. Images of unknown number count as the fewest there may be."""

    body: Stmt
    images: tuple[Symbol, ...]
    strip: Symbol
    nests: tuple[Symbol, ...]
    each: int  # image, has so many
    count: int
    kept: int
    again: int


@dataclass(frozen=True, eq=False)
class Chain:
    """Contractions of which each but the first slides over what the one before makes."""

    links: tuple[Link, ...]

    @property
    def between(self) -> list[Buffer]:
        return [x.out for x in self.links[:-1]]

    @property
    def weights(self) -> int:
        """Bytes that every strip reads again."""
        return sum(map(weight_bytes, self.links))

    @property
    def work(self) -> int:
        """Products, at least."""
        return sum(least(f.extent for f in (*x.stage.spatial, *x.stage.reduce)) for x in self.links)

    @cached_property
    def strips(self) -> tuple[Strips, ...]:
        """All ways in which it can be cut."""
        return tuple(self.cuts())

    def cuts(self) -> Iterator[Strips]:
        for rows in row_loops(self.links[-1].stage):
            for count in range(MIN_STRIPS, MAX_STRIPS + 1):
                if rows.extent.value % count == 0:
                    try:
                        yield in_strips(self.links, rows, count)
                    except ScheduleError:  # others may be whole rows of all that lies between
                        continue


def read_chain(k: Kernel, stages: Sequence[Stage]) -> Chain | None:
    """The stages of a kernel as a chain that can be cut into strips, else None."""
    links = read_links(k, stages)
    chain = None if links is None else Chain(links)
    return chain if chain is not None and chain.strips else None


def read_links(k: Kernel, stages: Sequence[Stage]) -> tuple[Link, ...] | None:
    links: list[Link] = []
    rest = list(stages)
    while rest:
        stage = rest.pop(0)
        behind = rest.pop(0) if rest and rest[0].is_map else None
        x = Link(stage, behind, None if behind is None else split_padding(behind))
        if not stage.is_contraction or not is_fixed(stage) or not is_tiled(k, stage):
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
    """Whether all that a stage reduces over is known."""
    return all(is_const(f.extent) for f in s.reduce)


def least_bytes(b: Buffer) -> int:
    """Bytes of a buffer, or how many they are at least."""
    return least(map(as_expr, b.shape)) * b.dtype.bytes


def least(extents: Iterable[Expr]) -> int:
    """The product of sizes, of which those that are unknown count as small as they may be, 1."""
    return prod(max(bounds(e)[0] or 1, 1) for e in extents)


def weight_bytes(x: Link) -> int:
    """Of what all rows of a contraction multiply with."""
    rows = {f.var for f in x.stage.spatial[:-1] if not is_const(f.extent, 1)}
    reads = [e for e in loads_of(x.stage.step.value) if e.value is not x.stage.acc]
    return sum(least_bytes(e.value) for e in reads if not rows & symbols_of(*e.args))


def row_loops(s: Stage) -> list[For]:
    """The loops that may be cut into strips: the outermost one that a window slides along, and
    those around it, over images."""
    taps, found = {f.var for f in s.reduce}, []
    places = [i for e in loads_of(s.step.value) if e.value is not s.acc for i in e.args]
    for f in s.spatial[:-1]:
        if is_const(f.extent) and f.extent.value > 1:
            found.append(f)
        if any({f.var} & symbols_of(i) and taps & symbols_of(i) for i in places):
            break
    return found


# ---- one contraction behind the other, strip by strip ------------------------------------------


def in_strips(links: Sequence[Link], rows: For, each: int) -> Strips:
    """The contractions of a chain, their maps at their stores, each image in so many strips of
    `rows` of the last one. Raises ScheduleError where a strip is no block of rows of all that lies
    between them."""
    *before, last = links
    outside = last.stage.spatial[: last.stage.spatial.index(rows)]
    images = [f for f in outside if not is_const(f.extent, 1)]
    single = [f.var for f in outside if is_const(f.extent, 1)]
    body = last.with_map([f.var for f in (*images, rows)])  # strips are as independent as rows are
    body, strip, _ = p.split(body, rows.var, rows.extent.value // each)
    if single:
        body = p.reorder(body, [*(f.var for f in images), strip, *single])
    inner = p.find(body, strip).body
    cut = Cut(tuple(f.var for f in images), strip, each)
    nests, kept, again = [inner.var], 0, 0
    for x in reversed(before):
        part = Part(x, inner, cut)
        inner, nest = part.before(inner)
        nests.insert(0, nest)
        kept, again = kept + least_bytes(part.near), again + part.again
    body = p.replace_loop(body, strip, lambda s: replace(s, body=inner))
    border = last.padded.border if last.padded else ()
    many = least(f.extent for f in images)
    return Strips(seq(*border, body), cut.images, strip, tuple(nests), each, each * many, kept,
                  again * many)  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """The loops around a strip: those over images, and the one over the strips of an image."""

    images: tuple[Symbol, ...]
    strip: Symbol
    count: int


class Part:
    """What a strip needs of one contraction of the chain: `rows` of its result along `axis`, from
    `begin` on, of one image. They lie in `near`, behind `ahead` others: where the strip needs rows
    of the border, as many are computed as elsewhere."""

    def __init__(self, x: Link, users: Stmt, cut: Cut):
        self.link = x
        region = loaded_region(users, x.out)
        moving = [n for n, b in enumerate(region.begin) if cut.strip in symbols_of(b)]
        if len(moving) != 1:
            raise ScheduleError(f"a strip of {x.out.name} is no block of its rows")
        (self.axis,) = moving
        self.begin, self.rows = region.begin[self.axis], region.extent[self.axis]
        self.image = {n: b for n, b in enumerate(region.begin) if symbols_of(b) & {*cut.images}}
        self.nest = self.nest_of_image(region.extent)
        self.loop, self.each, self.low = self.loop_along(self.nest, self.axis)
        self.high = self.loop.extent.value // self.each
        self.made = min(self.rows, self.high)
        behind = x.out.shape[self.axis] - self.low - self.high
        self.is_inside = self.low == behind == 0
        self.ahead = max(0, behind - (self.rows - self.made))
        shape = [1 if n in self.image else d for n, d in enumerate(x.out.shape)]
        shape[self.axis] = self.ahead + max(self.rows, self.low + self.made)
        self.near = Buffer(x.out.name, x.out.dtype, shape, "local", 64)
        work = prod(f.extent.value for f in ir.statements(self.nest) if isinstance(f, For))
        self.again = max(work * (self.made * cut.count - self.high) // self.high, 0)

    def nest_of_image(self, extent: Sequence[int]) -> For:
        """The contraction for the image that the strip is of."""
        nest = self.link.nest
        for axis, at in self.image.items():
            if axis == self.axis or extent[axis] != 1:
                raise ScheduleError(f"a strip of {self.link.out.name} is of several images")
            f, each, low = self.loop_along(nest, axis)
            image = f.var
            if each > 1:
                nest, image, _ = p.split(nest, f.var, each)
            body = ir.substitute(p.find(nest, image).body, {sym(image): at - low})
            nest = p.replace_loop(nest, image, lambda _, body=body: body)
        sizes = [f.extent for f in ir.statements(nest) if isinstance(f, For)]
        if not all(map(is_const, sizes)):
            raise ScheduleError(f"the sizes of {self.link.out.name} are not known")
        return nest

    def loop_along(self, nest: For, axis: int) -> tuple[For, int, int]:
        """The loop that moves along an axis of the result, how many of its steps one element of the
        axis takes, and where it begins."""
        store = next(s for s in ir.statements(nest)
                     if isinstance(s, Store) and s.buffer is self.link.out)  # fmt: skip
        terms, low = linear(store.indices[axis])
        (place,) = terms if list(terms.values()) == [1] else (None,)
        for f in nest_of(nest):
            if place is sym(f.var):
                return f, 1, low
            if place is not None and place.op == "floordiv" and place.args[0] is sym(f.var):
                each = place.args[1]
                if is_const(each) and is_const(f.extent % each, 0):
                    return f, each.value, low
        raise ScheduleError(f"no loop moves along dimension {axis} of {self.link.out.name}")

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
        offset = {n: -at for n, at in self.image.items()} | {self.axis: self.ahead - self.begin}

        def index(i: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return tuple(e + offset.get(n, 0) for n, e in enumerate(i))

        return rename_accesses(s, self.link.out, self.near, index)

    def border(self) -> list[Stmt]:
        """Nests that fill what the map pads with: along other axes, then whole rows."""
        if self.link.padded is None:
            return []
        box = ranges(self.link.behind.final.value.args[0], self.link.behind)
        inside = [box[sym(f.var)] for f in self.link.behind.spatial]
        whole = [(const(0), as_expr(d)) for d in self.near.shape]
        nests, fixed = [], {self.axis, *self.image}
        for n, (low, high) in enumerate(inside):
            for begin, end in ((const(0), low), (high, whole[n][1])) if n not in fixed else ():
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
