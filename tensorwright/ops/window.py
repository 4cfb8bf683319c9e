"""Windows over any dimensions: their sums and extremes, where these lie, and the adjoint of sums.

    y = reduce_window(x, window=(1, 2), strides=(1, 2), op="max")  # f32[n, 8] -> f32[n, 4]
    for i, j: y[i, j] = -inf; for r0, r1: y[i, j] = max(y[i, j], x[i + r0, j * 2 + r1])

Window attributes have one entry a dimension of x; what lies outside x is left out.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import NUMERIC, i64
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
    eq,
    select,
)  # fmt: skip
from tensorwright.ir.expr import maximum as max_expr
from tensorwright.ir.expr import minimum as min_expr
from tensorwright.ir.loop import Alloc, If, Stmt, loops, seq, store
from tensorwright.ir.type import Dim, TensorType, product
from tensorwright.ops.conv import check_window, inside, per_axis, window_extent
from tensorwright.ops.cumulative import better, highest, lowest
from tensorwright.ops.define import accumulate, accumulator, check_dtype, define, names, require
from tensorwright.ops.index import full, scatter_elements
from tensorwright.ops.movement import reshape

OPERATORS = {"sum": "add", "max": "max", "min": "min"}


def _attrs(op: str, rank: int, window, strides, padding, dilation):
    window = per_axis(op, window, 1, rank)
    return list(zip(window, per_axis(op, strides, 1, rank), per_axis(op, padding, (0, 0), rank),
                    per_axis(op, dilation, 1, rank)))  # fmt: skip


def _windows(op: str, x: TensorType, window, strides, padding, dilation) -> tuple[Dim, ...]:
    shape = []
    for a, (w, s, p, d) in enumerate(_attrs(op, x.rank, window, strides, padding, dilation)):
        if (w, s, tuple(p), d) == (1, 1, (0, 0), 1):
            shape.append(x.shape[a])
            continue
        check_window(op, a, x.shape[a], w, s, p, d)
        shape.append(window_extent(x.shape[a], w, s, p, d))
    return tuple(shape)


def _infer_window(
    x: TensorType, *, window=None, strides=None, padding=None, dilation=None, op="max"
) -> TensorType:  # fmt: skip
    check_dtype("reduce_window", x, NUMERIC)
    require(op in OPERATORS, f"reduce_window: op {op!r} is not one of {', '.join(OPERATORS)}")
    return TensorType(x.dtype, _windows("reduce_window", x, window, strides, padding, dilation))


def _places(x: Buffer, i, r, attrs) -> tuple[tuple[Expr, ...], Expr]:
    """Where window element r of result element i lies in x, and whether it does."""
    at, conditions, rest = [], [], iter(r)
    for a, (w, s, p, d) in enumerate(attrs):
        if w == 1 and tuple(p) == (0, 0):
            at.append(i[a] * s)
            continue
        place, more = inside(i[a] * s + next(rest) * d - as_expr(p[0]), x.shape[a], p)
        at.append(place)
        conditions += more
    return tuple(at), all_of(conditions)


def _extents(attrs) -> list[Dim]:
    return [w for w, _, p, _ in attrs if not (w == 1 and tuple(p) == (0, 0))]


def identity_of(op: str, d):
    """What changes no sum, largest or smallest element."""
    return {"sum": lambda d: 0, "max": lowest, "min": highest}[op](d)


def _lower_window(out: Buffer, x: Buffer, *, window, strides, padding, dilation, op) -> Stmt:
    attrs = _attrs("reduce_window", x.rank, window, strides, padding, dilation)
    wide = accumulator(x.dtype) if op == "sum" else x.dtype
    identity = const(identity_of(op, wide), wide)

    def nest(*i: Expr) -> Stmt:
        def step(acc: Expr, *r: Expr) -> Expr:
            at, holds = _places(x, i, r, attrs)
            value = select(holds, cast(x[at], acc.dtype), cast(identity, acc.dtype))
            return binary(OPERATORS[op], acc, value)

        return accumulate(out, i, identity_of(op, accumulator(x.dtype)), _extents(attrs), step)

    return loops(names(out.rank), out.shape, nest)


def _unfold(x, attrs, shape, fill):
    """Every window of x as trailing dimensions, by indexing with `fill` outside."""
    grids, outside = [], False
    rank = x.ndim
    for a, (w, s, p, d) in enumerate(attrs):
        at = np.arange(shape[a])[:, None] * s + np.arange(w) * d - p[0]
        at = at.reshape([{a: shape[a], rank + a: w}.get(b, 1) for b in range(2 * rank)])
        outside = outside | (at < 0) | (at >= x.shape[a])
        grids.append(np.clip(at, 0, max(x.shape[a] - 1, 0)))
    return np.where(outside, np.asarray(fill, x.dtype), x[tuple(grids)])


def _reference_window(x, window=None, strides=None, padding=None, dilation=None, op="max"):
    attrs = _attrs("", x.ndim, window, strides, padding, dilation)
    shape = [window_extent(n, w, s, p, d) for n, (w, s, p, d) in zip(x.shape, attrs)]
    if 0 in shape:
        return np.zeros(shape, x.dtype)
    integer = x.dtype.kind in "iu"
    wide = x.astype(np.int64 if integer else np.float64)
    fill = {"sum": 0, "max": np.iinfo(x.dtype).min if integer else -np.inf,
            "min": np.iinfo(x.dtype).max if integer else np.inf}[op]  # fmt: skip
    axes = tuple(range(x.ndim, 2 * x.ndim))
    reduce = {"sum": np.sum, "max": np.max, "min": np.min}[op]
    return reduce(_unfold(wide, attrs, shape, fill), axis=axes).astype(x.dtype)


def _gradient_window(g, y, x, *, window, strides, padding, dilation, op):
    attrs = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
    if op == "sum":
        return (spread_window(g, shape=x.shape, **attrs),)
    at = window_argument(x, op=op, **attrs)
    flat = lambda v: reshape(v, shape=(product(v.shape),))
    zeros = full(shape=(product(x.shape),), value=0, dtype=x.dtype)
    spread = scatter_elements(zeros, flat(at), flat(g), axis=0, mode="add")
    return (reshape(spread, shape=x.shape),)


WINDOW_SAMPLES = (
    "f32[2,6] window=(1,2) strides=(1,2)", "f32[1,2,5,6] window=(1,1,3,2) strides=(1,1,2,1) "
    "padding=((0,0),(0,0),(1,1),(0,1))", "f32[7] window=(3,) dilation=(2,)",
    "f32[n,5] window=(1,3) padding=((0,0),(1,1)) n=1,3", "f32[3,h] window=(2,2) h=2,5",
    "f16[9] window=(3,)", "i32[4,4] window=(2,2)", "bf16[2,9] window=(1,4)",
)  # fmt: skip

reduce_window = define(
    "reduce_window", "x", infer=_infer_window, reference=_reference_window, lower=_lower_window,
    gradient=_gradient_window, dtypes=NUMERIC,
    samples=tuple(f"{s} op={op}" if " n=" not in s and " h=" not in s
                  else s.replace(" n=", f" op={op} n=").replace(" h=", f" op={op} h=")
                  for s in WINDOW_SAMPLES for op in OPERATORS),
    doc="The sum, largest or smallest element of every window of x.",
)  # fmt: skip


# ---- the adjoint of a window sum ---------------------------------------------------------------


def _infer_spread(
    g: TensorType, *, shape=(), window=None, strides=None, padding=None, dilation=None
) -> TensorType:  # fmt: skip
    x = TensorType(g.dtype, tuple(shape))
    wanted = _windows("spread_window", x, window, strides, padding, dilation)
    require(wanted == g.shape, f"spread_window: {g} is not what windows over {shape} give")
    return x


def _lower_spread(out: Buffer, g: Buffer, *, shape, window, strides, padding, dilation) -> Stmt:
    attrs = _attrs("spread_window", g.rank, window, strides, padding, dilation)

    def nest(*i: Expr) -> Stmt:
        def step(acc: Expr, *r: Expr) -> Expr:
            at, conditions, rest = [], [], iter(r)
            for a, (w, s, p, d) in enumerate(attrs):
                k = const(0) if w == 1 and tuple(p) == (0, 0) else next(rest)
                first = i[a] + as_expr(p[0]) - k * d
                last = (as_expr(g.shape[a]) - 1) * s
                conditions += [first >= 0, first <= last, eq(first % s, 0)]
                place = min_expr(max_expr(first, 0), last) // s
                at.append(place)
            value = select(all_of(conditions), cast(g[tuple(at)], acc.dtype), 0)
            return acc + value

        return accumulate(out, i, 0, _extents(attrs), step)

    return loops(names(out.rank), out.shape, nest)


def _reference_spread(g, shape=(), window=None, strides=None, padding=None, dilation=None):
    attrs = _attrs("", g.ndim, window, strides, padding, dilation)
    y = np.zeros(shape, np.float64)
    for r in np.ndindex(*(w for w, *_ in attrs)):
        grids, keep = [], np.ones(g.shape, bool)
        for a, (k, (_, s, p, d)) in enumerate(zip(r, attrs)):
            at = np.arange(g.shape[a]) * s + k * d - p[0]
            at = at.reshape([-1 if b == a else 1 for b in range(g.ndim)])
            keep &= (at >= 0) & (at < shape[a])
            grids.append(np.broadcast_to(np.clip(at, 0, shape[a] - 1), g.shape))
        np.add.at(y, tuple(v[keep] for v in grids), g[keep].astype(np.float64))
    return y.astype(g.dtype)


spread_window = define(
    "spread_window", "g", infer=_infer_spread, reference=_reference_spread, lower=_lower_spread,
    gradient=lambda g, y, x, *, shape, **attrs: (reduce_window(g, op="sum", **attrs),),
    dtypes=NUMERIC,
    samples=("f32[2,3] shape=(2,6) window=(1,2) strides=(1,2)",
             "f32[3,3] shape=(5,6) window=(3,2) strides=(2,2) padding=((1,1),(0,1))",
             "f32[n,3] shape=(n,7) window=(1,3) dilation=(1,2) n=1,2"),
    doc="Each element of g added to every element of the window it stands for.",
)  # fmt: skip


# ---- positions of extremes ---------------------------------------------------------------------


def _infer_argument(
    x: TensorType, *, window=None, strides=None, padding=None, dilation=None, op="max"
) -> TensorType:  # fmt: skip
    require(op in ("max", "min"), f"window_argument: op {op!r} is not max or min")
    return TensorType(i64, _windows("window_argument", x, window, strides, padding, dilation))


def _lower_argument(out: Buffer, x: Buffer, *, window, strides, padding, dilation, op) -> Stmt:
    attrs = _attrs("window_argument", x.rank, window, strides, padding, dilation)
    wins = better({"max": "gt", "min": "lt"}[op])

    def nest(*i: Expr) -> Stmt:
        best = Buffer("best", x.dtype, (), "local")
        start = const(-1, i64)

        def step(*r: Expr) -> Stmt:
            at, holds = _places(x, i, r, attrs)
            flat = const(0)
            for place, d in zip(at, x.shape):
                flat = flat * as_expr(d) + place
            first = compare("lt", out[i], const(0, i64))
            take = seq(store(best, (), x[at]), store(out, i, cast(flat, i64)))
            return If(holds, If(any_of((first, wins(x[at], best[()]))), take))

        extents = _extents(attrs)
        return seq(Alloc(best), store(out, i, start), store(best, (), const(0, x.dtype)),
                   loops([f"r{k}" for k in range(len(extents))], extents, step))  # fmt: skip

    return loops(names(out.rank), out.shape, nest)


def _reference_argument(x, window=None, strides=None, padding=None, dilation=None, op="max"):
    attrs = _attrs("", x.ndim, window, strides, padding, dilation)
    shape = [window_extent(n, w, s, p, d) for n, (w, s, p, d) in zip(x.shape, attrs)]
    wide = x.astype(np.float64) * (1 if op == "max" else -1)
    values = _unfold(wide, attrs, shape, -np.inf)
    flat = _unfold(np.arange(x.size).reshape(x.shape), attrs, shape, -1)
    values, flat = (v.reshape(*shape, -1) for v in (values, flat))
    order = np.where(np.isnan(values), np.inf, values)
    order = np.where(flat < 0, -np.inf, order)
    best = np.argmax((flat >= 0) & (order == order.max(axis=-1, keepdims=True)), axis=-1)
    return np.take_along_axis(flat, best[..., None], -1)[..., 0].astype(np.int64)


window_argument = define(
    "window_argument", "x", infer=_infer_argument, reference=_reference_argument,
    lower=_lower_argument, dtypes=NUMERIC,
    samples=tuple(s for s in WINDOW_SAMPLES if "bf16" not in s),
    doc="The row-major position in x of the first extreme of every window; NaN is extreme.",
)  # fmt: skip
