"""How kernels sort: keys, merge sort, heaps. Statements, for the operators of `sort.py`.

    key(x[p], p) = rank of x[p] * 2**32 + p        rank: an integer that orders as elements do

An element of 32 bits or less and its position make one integer, a key: those of a row are distinct
and stand in the order that is asked for, so what sorts them compares integers next to each other
and is stable. Wider elements are sorted by their positions.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.ir.dtype import DType, boolean, f32, i32, i64, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    all_of,
    any_of,
    as_dim,
    as_expr,
    binary,
    bitcast,
    bounds,
    cast,
    compare,
    const,
    sym,
    unary,
)  # fmt: skip
from tensorwright.ir.expr import minimum as min_expr
from tensorwright.ir.expr import select as choose
from tensorwright.ir.loop import Alloc, If, Let, Stmt, While, loop, seq, store
from tensorwright.ir.type import Dim
from tensorwright.ops.cumulative import better

POSITIONS = 1 << 32  # that a key tells apart


def goes_first(descending: bool) -> Callable[[Expr, Expr], Expr]:
    """Whether a must stand before b; false for equals. NaN is the greatest."""
    if descending:
        return better("gt")

    def before(a: Expr, b: Expr) -> Expr:
        if a.dtype is boolean:
            return all_of((unary("not", a), b))
        smaller = compare("lt", a, b)
        if not a.dtype.is_float:
            return smaller
        number = unary("not", unary("isnan", a))
        return any_of((smaller, all_of((unary("isnan", b), number))))

    return before


def local_i64(name: str) -> Buffer:
    return Buffer(name, i64, (), "local")


# ---- keys --------------------------------------------------------------------------------------


def have_keys(dtype: DType, n: Dim) -> bool:
    """Whether `n` elements of a type have keys."""
    most = bounds(as_expr(n))[1]
    return dtype.bits <= 32 and most is not None and most <= POSITIONS


def key(x: Expr, position: Expr, descending: bool) -> Expr:
    """The key (i64) of an element at a position (i64): the smaller of two stands first, NaN after
    every number (before, in descending order), equals as they stood."""
    order = rank(x)
    if descending:
        order = const(-1, i64) - order
    return order * POSITIONS + position


def rank(x: Expr) -> Expr:
    """An integer (i64, of 32 bits with a sign) for an element, in whose order elements are; all NaN
    are one, and both zeros. Bits of a float are such integers, once those of negative ones are
    turned over."""
    if not x.dtype.is_float:
        half = 0 if x.dtype is boolean or x.dtype.is_signed else 1 << (x.dtype.bits - 1)
        return cast(x, i64) - half
    value = cast(x, f32)
    bits = bitcast(choose(compare("eq", value, const(0.0, f32)), const(0.0, f32), value), i32)
    turned = binary("and", binary("shr", bits, const(31, i32)), const(i32.max, i32))
    number = binary("xor", bits, turned)
    return cast(choose(unary("isnan", value), const(i32.max, i32), number), i64)


def position_of(k: Expr) -> Expr:
    """The position (i64) that a key was made of."""
    return binary("and", k, const(POSITIONS - 1, i64))


# ---- merge sort --------------------------------------------------------------------------------


def merge_runs(order: Buffer, spare: Buffer, n: Dim, first: Callable) -> Stmt:
    """Sort the first n of what stands in `order` (i64: positions or keys). first(a, b) gives
    statements to run (or None) and whether a must stand before b. Widths double; each pass merges
    into `spare`. Where nothing is to be run, no step branches: which of two comes first is not to
    be predicted."""
    width, low, left, right, turn = map(local_i64, ("width", "low", "left", "right", "turn"))
    n = as_expr(n)
    at = lambda b: cast(b[()], index)
    step = lambda b: store(b, (), b[()] + 1)

    def merge(mid: Expr, high: Expr) -> Callable[[Expr], Stmt]:
        def place(k: Expr) -> Stmt:
            compare_them, wins = first(order[at(right)], order[at(left)])
            if compare_them is None:
                return select_one(k)
            take_left = seq(store(spare, k, order[at(left)]), step(left))
            take_right = seq(store(spare, k, order[at(right)]), step(right))
            contest = seq(compare_them, If(wins, take_right, take_left))
            return If(at(right) >= high, take_left, If(at(left) >= mid, take_right, contest))

        def select_one(k: Expr) -> Stmt:
            theirs, ours = order[min_expr(at(right), n - 1)], order[at(left)]
            wins = any_of((at(left) >= mid, first(theirs, ours)[1]))
            return seq(
                store(turn, (), cast(all_of((at(right) < high, wins)), i64)),
                store(spare, k, order[at(left) + (at(right) - at(left)) * at(turn)]),
                store(right, (), right[()] + turn[()]),
                store(left, (), left[()] + 1 - turn[()]),
            )

        return place

    mid, high, begin = Symbol("mid", min=0), Symbol("high", min=0), Symbol("begin", min=0)
    pair = seq(
        Let(begin, at(low)),
        Let(mid, min_expr(at(low) + at(width), n)),
        Let(high, min_expr(at(low) + at(width) * 2, n)),
        store(left, (), low[()]), store(right, (), cast(sym(mid), i64)),
        loop("k", sym(high) - sym(begin), lambda k: merge(sym(mid), sym(high))(sym(begin) + k)),
        store(low, (), cast(sym(high), i64)),
    )  # fmt: skip
    passes = seq(
        store(low, (), const(0, i64)), While(at(low) < n, pair),
        loop("k", n, lambda k: store(order, k, spare[k])),
        store(width, (), width[()] * 2),
    )  # fmt: skip
    return seq(
        Alloc(width), Alloc(low), Alloc(left), Alloc(right), Alloc(turn),
        store(width, (), const(1, i64)), While(at(width) < n, passes),
    )  # fmt: skip


# ---- heaps -------------------------------------------------------------------------------------


class Heap:
    """The `size` smallest keys so far in keys[1], keys[2], ... (i64[size + 1]), the greatest first:
    none is greater than the one above it, that of half its number. One that goes there sinks as a
    hole to the bottom and rises a little, which takes one comparison a level (Wegener, "Bottom-up
    heapsort", 1993)."""

    def __init__(self, size: Dim) -> None:
        self.keys = Buffer("keys", i64, (as_dim(as_expr(size) + 1),), "temp")
        self.size = as_expr(size)
        self.hole, self.below, self.held = map(local_i64, ("hole", "below", "held"))

    @property
    def allocs(self) -> Stmt:
        begin = store(self.keys, 0, const(0, i64))  # above the first: read, and never used
        return seq(*map(Alloc, (self.keys, self.hole, self.below, self.held)), begin)

    def build(self, k: Callable[[Expr], Expr]) -> Stmt:
        """A heap of the keys k(0), k(1), ..."""
        half = self.size // 2
        sunk = lambda s: self.sink(self.keys[half - s], half - s, self.size)
        fill = loop("r", self.size, lambda r: store(self.keys, r + 1, k(r)))
        return seq(fill, loop("s", half, sunk))

    def replace_first(self, k: Expr) -> Stmt:
        """A key in place of the greatest one."""
        return self.sink(k, const(1), self.size)

    def sort(self) -> Stmt:
        """The keys in order: the greatest one goes behind those that are left, again and again."""

        def last(s: Expr) -> Stmt:
            end = self.size - s
            taken = seq(store(self.held, (), self.keys[end]), store(self.keys, end, self.keys[1]))
            return seq(taken, self.sink(self.held[()], const(1), end - 1))

        return loop("s", self.size - 1, last)

    def sink(self, k: Expr, start: Expr, size: Expr) -> Stmt:
        """A key put into the part below `start`, whose place is free, of the first `size`."""
        keys, hole, below, held = self.keys, self.hole, self.below, self.held
        at = lambda b: cast(b[()], index)
        above = binary("shr", hole[()], const(1, i64))

        def move(to: Expr) -> Stmt:
            fill = store(keys, at(hole), keys[at(below)])
            return seq(store(below, (), to), fill, store(hole, (), below[()]))

        left = at(hole) * 2
        greater = cast(compare("lt", keys[left], keys[left + 1]), i64)
        rises = all_of((at(hole) > start, compare("lt", keys[cast(above, index)], held[()])))
        return seq(
            store(held, (), k), store(hole, (), cast(start, i64)),
            While(left < size, move(hole[()] * 2 + greater)),
            If(left <= size, move(hole[()] * 2)),
            While(rises, move(above)), store(keys, at(hole), held[()]),
        )  # fmt: skip
