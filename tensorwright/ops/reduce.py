"""Reductions and running reductions along axes.

A reduction stores its identity and then updates each result element once for every element it
covers, so an empty one gives the identity (-inf for the maximum of floats). Sums and products of
f16 and bf16 are accumulated in f32 and rounded once.

    for i: y[i] = 0; for r0: y[i] = y[i] + x[i, r0]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import NUMERIC, boolean, i32, i64
from tensorwright.ir.expr import Buffer, Expr, as_dim, as_expr, binary, bounds
from tensorwright.ir.expr import cast as cast_expr
from tensorwright.ir.loop import Stmt, loops
from tensorwright.ir.type import Shape, TensorType
from tensorwright.ops.cumulative import cumprod, highest, lowest
from tensorwright.ops.define import (
    accumulate,
    accumulator,
    check_dtype,
    define,
    names,
    normalize_axes,
    normalize_axis,
    require,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import cast, div, equal, is_nan, logical_or, mul
from tensorwright.ops.elementwise import select as where
from tensorwright.ops.movement import broadcast_to, reshape
from tensorwright.ops.positions import full, iota

MOST = 1 << 62  # of a size without a bound
REDUCE_SAMPLES = (
    "f32[3,4]", "f32[3,4,5] axes=(1,)", "f32[3,4,5] axes=(0,-1) keepdims=True",
    "f32[n,5] axes=(0,) n=1,7", "f32[0,3] axes=(0,)", "f32[2,3] axes=()", "f64[2,3] axes=(1,)",
    "f16[9,3] axes=(0,)", "bf16[3,9] axes=(1,)", "i32[0,3] axes=(0,)", "i32[4,5] axes=(1,)",
)  # fmt: skip
FLOAT_REDUCE_SAMPLES = REDUCE_SAMPLES[:-2]
BOOL_SAMPLES = ("bool[3,4]", "bool[3,4] axes=(1,) keepdims=True", "bool[n,2] axes=(0,) n=1,3",
                "bool[0,2] axes=(0,)")  # fmt: skip


def reduced_shape(op: str, shape: Shape, axes, keepdims: bool) -> Shape:
    """The shape after removing (or making 1) the axes."""
    axes = normalize_axes(op, axes, len(shape))
    if keepdims:
        return tuple(1 if a in axes else d for a, d in enumerate(shape))
    return tuple(d for a, d in enumerate(shape) if a not in axes)


def lower_reduce(out: Buffer, x: Buffer, axes, keepdims: bool, init, step: Callable) -> Stmt:
    """out[i] = init, then out[i] = step(out[i], x[i, r]); through a wider local where narrow."""
    axes = normalize_axes("reduce", axes, x.rank)
    wide = accumulator(out.dtype)

    def element(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        kept, reduced = iter(i), iter(r)
        at = []
        for a in range(x.rank):
            own = next(kept) if keepdims or a not in axes else None
            at.append(next(reduced) if a in axes else own)
        return cast_expr(x[tuple(at)], wide)

    def nest(*i: Expr) -> Stmt:
        return accumulate(out, i, init, [x.shape[a] for a in axes],
                          lambda acc, *r: step(acc, element(i, r)))  # fmt: skip

    return loops(names(out.rank), out.shape, nest)


def _reducer(name: str, op: str, init: Callable, numpy: Callable, result=None, **columns):
    """A reduction by the commutative scalar operator `op` with identity `init(dtype)`."""
    allowed = columns.setdefault("dtypes", NUMERIC)

    def infer(x: TensorType, *, axes=None, keepdims=False) -> TensorType:
        check_dtype(name, x, allowed)
        return TensorType(x.dtype, reduced_shape(name, x.shape, axes, keepdims))

    def reference(x, axes=None, keepdims=False):
        axes = normalize_axes(name, axes, x.ndim)
        return numpy(x, axes, keepdims)

    def lower(out, x, *, axes, keepdims):
        return lower_reduce(
            out, x, axes, keepdims, init(accumulator(x.dtype)), lambda a, e: binary(op, a, e)
        )

    return define(name, "x", infer=infer, reference=reference, lower=lower, **columns)


def _wide(f: Callable, **more) -> Callable:
    """`f` over axes, narrow floats through float64 as an oracle should."""

    def reference(x, axes, keepdims):
        wide = x.astype(np.float64) if x.dtype.itemsize < 4 and x.dtype.kind not in "iub" else x
        dtype = None if wide.dtype.kind in "f" else wide.dtype
        y = f(wide, axis=axes, keepdims=keepdims, dtype=dtype, **more)
        return np.asarray(y).astype(x.dtype)

    return reference


def _extreme(f: Callable, low: bool) -> Callable:
    def reference(x, axes, keepdims):
        first = _lowest(x) if low else _highest(x)
        return np.asarray(f(x, axis=axes, keepdims=keepdims, initial=first)).astype(x.dtype)

    return reference


def _lowest(x):
    return np.array(np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf, x.dtype)


def _highest(x):
    return np.array(np.iinfo(x.dtype).max if x.dtype.kind in "iu" else np.inf, x.dtype)


def expand_back(g, x, axes, keepdims):
    """A reduced value at the shape of what was reduced."""
    kept = reduced_shape("reduce", x.shape, axes, True)
    return broadcast_to(g if keepdims else reshape(g, shape=kept), shape=x.shape)


def _gradient_extreme(g, y, x, *, axes, keepdims):
    """The cotangent is shared evenly by the elements that attain the extreme."""
    full = expand_back(y, x, axes, keepdims)
    ones = broadcast_to(scalar_like(x, 1), shape=x.shape)
    zeros = broadcast_to(scalar_like(x, 0), shape=x.shape)
    hits = where(equal(x, full), ones, zeros)
    count = expand_back(reduce_sum(hits, axes=axes, keepdims=keepdims), x, axes, keepdims)
    return (mul(expand_back(g, x, axes, keepdims), div(hits, count)),)


def _gradient_prod(g, y, x, *, axes, keepdims):
    """Each element's cofactor is the product of those before and after it, so zeros are no danger.
    Several axes are reduced one at a time."""
    axes = normalize_axes("reduce_prod", axes, x.rank)
    if not axes:
        return (g,)
    steps = [x]
    for a in axes[1:]:
        steps.append(reduce_prod(steps[-1], axes=(a,), keepdims=True))
    order = [*axes[1:], axes[0]]
    g = g if keepdims else reshape(g, shape=reduced_shape("reduce_prod", x.shape, axes, True))
    for a, before in zip(reversed(order), reversed(steps)):
        left = cumprod(before, axis=a, exclusive=True)
        right = cumprod(before, axis=a, exclusive=True, reverse=True)
        g = mul(broadcast_to(g, shape=before.shape), mul(left, right))
    return (g,)


reduce_sum = _reducer(
    "reduce_sum", "add", lambda d: 0, _wide(np.sum), onnx="ReduceSum",
    gradient=lambda g, y, x, *, axes, keepdims: (expand_back(g, x, axes, keepdims),),
    samples=REDUCE_SAMPLES, doc="The sum over axes (all by default).",
)  # fmt: skip
reduce_prod = _reducer(
    "reduce_prod", "mul", lambda d: 1, _wide(np.prod), gradient=_gradient_prod,
    onnx="ReduceProd", samples=REDUCE_SAMPLES, doc="The product over axes.",
)  # fmt: skip
reduce_max = _reducer(
    "reduce_max", "max", lowest, _extreme(np.max, True), gradient=_gradient_extreme,
    onnx="ReduceMax", torch="amax.default", samples=REDUCE_SAMPLES,
    doc="The largest element over axes; NaN if there is one.",
)  # fmt: skip
reduce_min = _reducer(
    "reduce_min", "min", highest, _extreme(np.min, False), gradient=_gradient_extreme,
    onnx="ReduceMin", torch="amin.default", samples=REDUCE_SAMPLES,
    doc="The smallest element over axes; NaN if there is one.",
)  # fmt: skip
reduce_any = _reducer(
    "reduce_any", "or", lambda d: False, lambda x, a, k: np.any(x, axis=a, keepdims=k),
    dtypes=(boolean,), samples=BOOL_SAMPLES, doc="Whether any element over axes is true.",
)  # fmt: skip
reduce_all = _reducer(
    "reduce_all", "and", lambda d: True, lambda x, a, k: np.all(x, axis=a, keepdims=k),
    dtypes=(boolean,), samples=BOOL_SAMPLES, doc="Whether all elements over axes are true.",
)  # fmt: skip


# ---- positions of extremes ---------------------------------------------------------------------


def _arg_reducer(name: str, extreme, numpy: Callable, **columns):
    """The position along one axis of the first (or last) extreme; a NaN counts as extreme. Two
    reductions, the extreme and the first position that holds it, as both run on vectors."""

    def infer(x: TensorType, *, axis=0, keepdims=True, last=False) -> TensorType:
        check_dtype(name, x, NUMERIC)
        axis = normalize_axis(name, axis, x.rank)
        require(x.shape[axis] != 0, f"{name}: dimension {axis} is empty, it has no extreme")
        return TensorType(i64, reduced_shape(name, x.shape, (axis,), keepdims))

    def reference(x, axis=0, keepdims=True, last=False):
        view = np.flip(x, axis) if last else x
        found = numpy(view.astype(np.float64) if x.dtype.kind not in "iuf" else view, axis=axis)
        found = x.shape[axis] - 1 - found if last else found
        return np.asarray(np.expand_dims(found, axis) if keepdims else found, np.int64)

    def expand(x, *, axis, keepdims, last):
        axis = normalize_axis(name, axis, x.rank)
        best = broadcast_to(extreme(x, axes=(axis,), keepdims=True), shape=x.shape)
        holds = equal(x, best)
        if x.dtype.is_float:
            holds = logical_or(holds, is_nan(x))
        extent = as_expr(x.shape[axis])
        count = i32 if (bounds(extent)[1] or MOST) < i32.max else i64
        places = iota(shape=x.shape, axis=axis, dtype=count)
        other = full(shape=x.shape, value=0 if last else as_dim(extent - 1), dtype=count)
        nearest = reduce_max if last else reduce_min
        return cast(nearest(where(holds, places, other), axes=(axis,), keepdims=keepdims),
                    dtype=i64)  # fmt: skip

    return define(name, "x", infer=infer, reference=reference, expand=expand, **columns)


ARG_SAMPLES = (
    "f32[3,4] axis=1", "f32[3,4,5] axis=1 keepdims=False", "f32[n,5] axis=0 n=1,7",
    "f16[9] axis=0", "i32[4,5] axis=-1 last=True",
)  # fmt: skip

argmax = _arg_reducer(
    "argmax", reduce_max, np.argmax, samples=ARG_SAMPLES, dtypes=NUMERIC,
    doc="The index of the largest element along an axis.",
)  # fmt: skip
argmin = _arg_reducer(
    "argmin", reduce_min, np.argmin, samples=ARG_SAMPLES, dtypes=NUMERIC,
    doc="The index of the smallest element along an axis.",
)  # fmt: skip
