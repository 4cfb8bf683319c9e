"""Running reductions along one axis: `cumsum`, `cumprod`, `cummax`, `cummin`.

exclusive: element k covers those before k only. reverse: from the end. f16 and bf16 accumulate in
f32.

    acc = 0; for r: acc = acc + x[i, r]; y[i, r] = acc
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import FLOATS, NUMERIC, DType, i64
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    all_of,
    any_of,
    as_expr,
    binary,
    cast,
    compare,
    const,
    fma,
    unary,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, Stmt, loop, loops, seq, store
from tensorwright.ir.type import TensorType
from tensorwright.ops.define import (
    accumulator,
    check_dtype,
    define,
    names,
    normalize_axis,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import equal, is_nan, logical_or, mul, select
from tensorwright.ops.index import full, iota, scatter_elements
from tensorwright.ops.movement import pad
from tensorwright.ops.positions import zeros_like

SAMPLES = (
    "f32[3,4] axis=1", "f32[3,4] axis=0 exclusive=True", "f32[3,4,2] axis=1 reverse=True",
    "f32[n,5] axis=0 exclusive=True reverse=True n=1,7", "f32[0,3] axis=0", "f64[6] axis=-1",
    "f16[9] axis=0", "bf16[9] axis=0", "i32[7] axis=0", "i64[2,3] axis=1 reverse=True",
)  # fmt: skip


def lowest(d: DType):
    """The identity of max."""
    return -np.inf if d.is_float else d.min


def highest(d: DType):
    """The identity of min."""
    return np.inf if d.is_float else d.max


def better(op: str, or_equal: bool = False) -> Callable[[Expr, Expr], Expr]:
    """Whether a new element beats the best so far, by "gt" or "lt"; NaN beats every number."""
    op = {"gt": "ge", "lt": "le"}[op] if or_equal else op

    def wins(new: Expr, best: Expr) -> Expr:
        beats = compare(op, new, best)
        if not new.dtype.is_float:
            return beats
        new_nan, best_number = unary("isnan", new), unary("not", unary("isnan", best))
        first_nan = new_nan if or_equal else all_of((new_nan, best_number))
        return any_of((all_of((beats, best_number)), first_nan))

    return wins


def along_axis(out: Buffer, axis: int, body: Callable) -> Stmt:
    """Loops over every other axis of `out` around body(at), where at(r) are indices."""
    others = [a for a in range(out.rank) if a != axis]

    def nest(*i: Expr) -> Stmt:
        return body(lambda r: (*i[:axis], as_expr(r), *i[axis:]))

    return loops(names(len(others)), [out.shape[a] for a in others], nest)


def _running(name: str, op: str, init: Callable, numpy: Callable, **columns):
    """The running reduction by the scalar operator `op`."""

    def infer(x: TensorType, *, axis=0, exclusive=False, reverse=False) -> TensorType:
        check_dtype(name, x, NUMERIC)
        normalize_axis(name, axis, x.rank)
        return x

    def reference(x, axis=0, exclusive=False, reverse=False):
        wide = x.astype(np.int64 if x.dtype.kind in "iu" else np.float64)
        y = np.flip(wide, axis) if reverse else wide
        if exclusive and y.shape[axis]:
            first = np.full_like(np.take(y, [0], axis), init(dtype_of(x.dtype)))
            y = np.concatenate([first, np.delete(y, -1, axis)], axis)
        y = numpy(y, axis=axis)
        return (np.flip(y, axis) if reverse else y).astype(x.dtype)

    def lower(out, x, *, axis, exclusive, reverse):
        axis = normalize_axis(name, axis, x.rank)
        wide = accumulator(x.dtype)

        def row(at: Callable) -> Stmt:
            acc = Buffer("acc", wide, (), "local")

            def step(r: Expr) -> Stmt:
                i = at(as_expr(x.shape[axis]) - 1 - r if reverse else r)
                add = store(acc, (), binary(op, acc[()], cast(x[i], wide)))
                put = store(out, i, cast(acc[()], out.dtype))
                return seq(put, add) if exclusive else seq(add, put)

            return seq(Alloc(acc), store(acc, (), as_expr(init(wide), wide)),
                       loop("r", x.shape[axis], step))  # fmt: skip

        return along_axis(out, axis, row)

    return define(
        name, "x", infer=infer, reference=reference, lower=lower, dtypes=NUMERIC, samples=SAMPLES,
        **columns,
    )  # fmt: skip


def _sum_gradient(g, y, x, *, axis, exclusive, reverse):
    return (cumsum(g, axis=axis, exclusive=exclusive, reverse=not reverse),)


cumsum = _running(
    "cumsum", "add", lambda d: 0, np.cumsum, gradient=_sum_gradient,
    doc="The sum of the elements up to each one along an axis.",
)  # fmt: skip


def shift(x, axis: int, by: int):
    """x moved `by` places along an axis; zeros come in at the other end."""
    low = tuple(by if a == axis else 0 for a in range(x.rank))
    return pad(x, low=low, high=tuple(-v for v in low))


def _prod_gradient(g, y, x, *, axis, exclusive, reverse):
    """The product before each element times the sum of g over what follows it, each weighted by the
    product in between: no division, so zeros are no danger."""
    axis = normalize_axis("cumprod", axis, x.rank)
    towards = 1 if reverse else -1
    before = cumprod(x, axis=axis, exclusive=True, reverse=reverse)
    g = shift(g, axis, towards) if exclusive else g
    after = linear_recurrence(shift(x, axis, towards), g, axis=axis, reverse=not reverse)
    return (mul(before, after),)


cumprod = _running(
    "cumprod", "mul", lambda d: 1, np.cumprod, gradient=_prod_gradient,
    doc="The product of the elements up to each one along an axis.",
)  # fmt: skip


def running_positions(x, y, *, axis: int, reverse: bool = False):
    """Where along the axis the running extremes y of x (inclusive ones) were last attained."""
    axis = normalize_axis("running_positions", axis, x.rank)
    ones = tuple(d if a == axis else 1 for a, d in enumerate(x.shape))
    place = iota(shape=ones, axis=axis, dtype=i64)
    attained = logical_or(equal(x, y), is_nan(x)) if x.dtype.is_float else equal(x, y)
    if reverse:
        never = full(shape=(), value=x.shape[axis], dtype=i64)
        return cummin(select(attained, place, never), axis=axis, reverse=True)
    return cummax(select(attained, place, scalar_like(place, -1)), axis=axis)


def _extreme_gradient(running):
    def rule(g, y, x, *, axis, exclusive, reverse):
        """Each element takes what came to the results that it gave; without one before it, none."""
        axis = normalize_axis("cummax", axis, x.rank)
        inclusive = running(x, axis=axis, reverse=reverse)
        g = shift(g, axis, 1 if reverse else -1) if exclusive else g
        at = running_positions(x, inclusive, axis=axis, reverse=reverse)
        return (scatter_elements(zeros_like(x), at, g, axis=axis, mode="add"),)

    return rule


cummax = _running(
    "cummax", "max", lowest, np.maximum.accumulate,
    gradient=_extreme_gradient(lambda x, **attrs: cummax(x, **attrs)),
    doc="The largest element up to each one along an axis; NaN from the first one on.",
)  # fmt: skip
cummin = _running(
    "cummin", "min", highest, np.minimum.accumulate,
    gradient=_extreme_gradient(lambda x, **attrs: cummin(x, **attrs)),
    doc="The smallest element up to each one along an axis; NaN from the first one on.",
)  # fmt: skip


# ---- linear recurrences ------------------------------------------------------------------------


def _infer_recurrence(a: TensorType, b: TensorType, *, axis=0, reverse=False) -> TensorType:
    same_dtype("linear_recurrence", a, b)
    check_dtype("linear_recurrence", a, FLOATS)
    require(a.shape == b.shape, f"linear_recurrence: shapes differ: {a} and {b}",
            "broadcast one of them")  # fmt: skip
    normalize_axis("linear_recurrence", axis, a.rank)
    return b


def _reference_recurrence(a, b, axis=0, reverse=False):
    a, b, kind = (*(np.moveaxis(v.astype(np.float64), axis, 0) for v in (a, b)), b.dtype)
    h, state = np.empty_like(b), np.zeros(b.shape[1:])
    for r in range(len(b))[:: -1 if reverse else 1]:
        state = h[r] = a[r] * state + b[r]
    return np.moveaxis(h, 0, axis).astype(kind)


def _lower_recurrence(out: Buffer, a: Buffer, b: Buffer, *, axis, reverse) -> Stmt:
    axis = normalize_axis("linear_recurrence", axis, out.rank)
    wide = accumulator(out.dtype)

    def row(at: Callable) -> Stmt:
        acc = Buffer("acc", wide, (), "local")

        def step(r: Expr) -> Stmt:
            i = at(as_expr(out.shape[axis]) - 1 - r if reverse else r)
            value = fma(cast(a[i], wide), acc[()], cast(b[i], wide))
            return seq(store(acc, (), value), store(out, i, cast(acc[()], out.dtype)))

        return seq(Alloc(acc), store(acc, (), const(0, wide)), loop("r", out.shape[axis], step))

    return along_axis(out, axis, row)


def _recurrence_gradient(g, y, a, b, *, axis, reverse):
    axis = normalize_axis("linear_recurrence", axis, a.rank)
    towards = 1 if reverse else -1
    total = linear_recurrence(shift(a, axis, towards), g, axis=axis, reverse=not reverse)
    return mul(total, shift(y, axis, -towards)), total


linear_recurrence = define(
    "linear_recurrence", "a, b", infer=_infer_recurrence, reference=_reference_recurrence,
    lower=_lower_recurrence, gradient=_recurrence_gradient, dtypes=FLOATS,
    samples=("f32[3,4] f32[3,4] axis=1", "f32[n,2] f32[n,2] reverse=True n=1,5",
             "f16[9] f16[9]", "f32[0,2] f32[0,2]"),
    doc="h along an axis, where h[r] = a[r] * h[r - 1] + b[r], from 0.",
)  # fmt: skip
