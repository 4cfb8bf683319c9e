"""The pools of models, over the spatial dimensions of N,C,spatial tensors.

    avg_pool(x, window=(2, 2), strides=(2, 2))  ->  reduce_window(x, op="sum", ...) * 0.25

ceil_mode lets a last window start within x or its leading padding and reach beyond the end.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, NUMERIC
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.expr import minimum as min_expr
from tensorwright.ir.type import Dim, TensorType, product
from tensorwright.ops.conv import per_axis
from tensorwright.ops.define import check_dtype, composite, require, scalar_like
from tensorwright.ops.elementwise import abs as absolute
from tensorwright.ops.elementwise import div, mul
from tensorwright.ops.elementwise import pow as power
from tensorwright.ops.index import full
from tensorwright.ops.movement import pad
from tensorwright.ops.reduce import reduce_max
from tensorwright.ops.statistics import reduce_mean
from tensorwright.ops.widen import to_dtype, widened
from tensorwright.ops.window import reduce_window, window_argument


def spatial_attrs(op: str, x, window, strides, padding, dilation, ceil_mode=False) -> dict:
    """Window attributes over N,C,spatial from those a spatial dimension. ceil_mode adds padding at
    the end so that a last window starts within x or its leading padding."""
    n = x.rank - 2
    require(n >= 1, f"{op}: x has rank {x.rank}; it needs batch, channel and a spatial dimension")
    window = per_axis(op, window, 1, n)
    strides, dilation = per_axis(op, strides, 1, n), per_axis(op, dilation, 1, n)
    padding = per_axis(op, padding, (0, 0), n)
    if ceil_mode:
        parts = zip(x.shape[2:], window, strides, padding, dilation)
        padding = tuple(ceil_padding(*part) for part in parts)
    full_ = lambda values, one: (one, one, *values)
    return {"window": full_(window, 1), "strides": full_(strides, 1),
            "padding": full_(padding, (0, 0)), "dilation": full_(dilation, 1)}  # fmt: skip


def ceil_padding(d: Dim, window: int, stride: int, padding, dilation: int) -> tuple[Dim, Dim]:
    """Padding with which the last, partly filled window counts too."""
    low, high = padding
    reach = (window - 1) * dilation + 1
    room = as_expr(d) + low + high - reach
    count = (room + stride - 1) // stride + 1
    # a window that would start in the padding at the end does not count
    count = min_expr(count, (as_expr(d) + low - 1) // stride + 1)
    return low, as_dim((count - 1) * stride + reach - as_expr(d) - low)


def _check_pool(op: str):
    def check(x: TensorType, **attrs) -> None:
        check_dtype(op, x, NUMERIC if op == "max_pool" else FLOATS)

    return check


def _expand_max_pool(
    x, *, window=None, strides=None, padding=None, dilation=None, ceil_mode=False
):  # fmt: skip
    attrs = spatial_attrs("max_pool", x, window, strides, padding, dilation, ceil_mode)
    return reduce_window(x, op="max", **attrs)


def _reference_pool(op: str, f):
    def reference(
        x, window=None, strides=None, padding=None, dilation=None, ceil_mode=False, **more
    ):  # fmt: skip
        n = x.ndim - 2
        window, strides = per_axis("", window, 1, n), per_axis("", strides, 1, n)
        padding, dilation = per_axis("", padding, (0, 0), n), per_axis("", dilation, 1, n)
        counts = []
        for d, w, s, (lo, hi), e in zip(x.shape[2:], window, strides, padding, dilation):
            room = d + lo + hi - (w - 1) * e - 1
            count = (-(-room // s) if ceil_mode else room // s) + 1
            if ceil_mode and (count - 1) * s >= d + lo:
                count -= 1
            counts.append(count)
        y = np.zeros((*x.shape[:2], *counts))
        wide = x.astype(np.float64)
        for at in np.ndindex(*counts):
            y[(..., *at)] = f(wide, at, window, strides, padding, dilation, **more)
        return y.astype(x.dtype)

    return reference


def _cells(x, at, window, strides, padding, dilation, high=True):
    """One window as [N, C, elements], and how many elements it has with padding."""
    grids, padded = [], 1
    for d, o, w, s, (lo, hi), e in zip(x.shape[2:], at, window, strides, padding, dilation):
        places = o * s + np.arange(w) * e - lo
        padded *= int(((places >= -lo) & (places < d + hi)).sum())
        grids.append(places[(places >= 0) & (places < d)])
    cells = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *grids)]
    return cells.reshape(*x.shape[:2], math.prod(cells.shape[2:])), padded


def _max_cell(x, *window):
    return _cells(x, *window)[0].max(axis=-1)


POOL_SAMPLES = (
    "f32[1,2,6,6] window=(2,2) strides=(2,2)",
    "f32[1,2,7] window=(3,) strides=(2,) padding=((1,1),)",
    "f32[1,1,6,5] window=(3,3) strides=(2,2) ceil_mode=True",
    "f32[n,2,h] window=(3,) strides=(2,) padding=((1,1),) ceil_mode=True n=1 h=4,5,6",
    "f32[1,2,8] window=(2,) dilation=(3,)", "f16[1,2,6] window=(2,)",
    "f32[1,1,3,3,3] window=(2,2,2)", "f32[1,1,2] window=(1,) strides=(2,) ceil_mode=True",
)  # fmt: skip

max_pool = composite(
    "max_pool", "x", _expand_max_pool, _check_pool("max_pool"),
    reference=_reference_pool("max_pool", _max_cell), dtypes=NUMERIC, samples=POOL_SAMPLES,
    doc="The largest element of every spatial window.",
)  # fmt: skip


def max_pool_with_indices(x, **attrs):
    """(max_pool(x), row-major positions in x of the maxima), the first where several are equal."""
    attrs = spatial_attrs("max_pool", x, *(attrs.get(k) for k in (
        "window", "strides", "padding", "dilation")), attrs.get("ceil_mode", False))  # fmt: skip
    return reduce_window(x, op="max", **attrs), window_argument(x, op="max", **attrs)


def _expand_avg_pool(
    x, *, window=None, strides=None, padding=None, dilation=None, ceil_mode=False,
    count_padding=False,
):  # fmt: skip
    wide = widened(x)
    attrs = spatial_attrs("avg_pool", x, window, strides, padding, dilation, ceil_mode)
    total = reduce_window(wide, op="sum", **attrs)
    plain = spatial_attrs("avg_pool", x, window, strides, padding, dilation)["padding"]
    if not ceil_mode and (count_padding or all(p == (0, 0) for p in plain)):
        return to_dtype(mul(total, 1 / product(attrs["window"])), x.dtype)
    return to_dtype(div(total, _counts(x, wide.dtype, attrs, plain, count_padding)), x.dtype)


def _counts(x, dtype, attrs, plain, count_padding: bool):
    """How many elements each window averages over. What ceil_mode adds is never counted."""
    ones = full(shape=(1, 1, *x.shape[2:]), value=1, dtype=dtype)
    padding = attrs["padding"]
    if count_padding:
        low, high = (tuple(p[k] for p in plain) for k in (0, 1))
        ones = pad(ones, low=low, high=high, value=1.0)
        padding = tuple((as_dim(as_expr(a[0]) - b[0]), as_dim(as_expr(a[1]) - b[1]))
                        for a, b in zip(padding, plain))  # fmt: skip
    return reduce_window(ones, op="sum", **{**attrs, "padding": padding})


def _avg_cell(x, *window, count_padding=False):
    cells, padded = _cells(x, *window)
    return cells.sum(axis=-1) / (padded if count_padding else cells.shape[-1])


avg_pool = composite(
    "avg_pool", "x", _expand_avg_pool, _check_pool("avg_pool"),
    reference=_reference_pool("avg_pool", _avg_cell), dtypes=FLOATS,
    samples=(*POOL_SAMPLES,
             *(s.replace(" n=1 ", " count_padding=True n=1 ") if " n=1" in s
               else s + " count_padding=True" for s in POOL_SAMPLES)),
    doc="The mean of every spatial window; count_padding counts the padding as zeros.",
)  # fmt: skip


def _expand_lp_pool(
    x, *, p=2, window=None, strides=None, padding=None, dilation=None, ceil_mode=False
):  # fmt: skip
    attrs = spatial_attrs("lp_pool", x, window, strides, padding, dilation, ceil_mode)
    wide = absolute(widened(x))
    powers = mul(wide, wide) if p == 2 else power(wide, scalar_like(wide, p))
    total = reduce_window(powers, op="sum", **attrs)
    return to_dtype(power(total, scalar_like(wide, 1 / p)), x.dtype)


def _lp_cell(x, *window, p=2):
    return (np.abs(_cells(x, *window)[0]) ** p).sum(axis=-1) ** (1 / p)


lp_pool = composite(
    "lp_pool", "x", _expand_lp_pool, _check_pool("lp_pool"),
    reference=_reference_pool("lp_pool", _lp_cell), dtypes=FLOATS,
    samples=(*POOL_SAMPLES, "f32[1,2,5] window=(2,) p=3"),
    doc="The p-norm of every spatial window.",
)  # fmt: skip


def _spatial(x) -> tuple[int, ...]:
    return tuple(range(2, x.rank))


global_max_pool = composite(
    "global_max_pool", "x", lambda x: reduce_max(x, axes=_spatial(x), keepdims=True),
    reference=lambda x: x.max(axis=tuple(range(2, x.ndim)), keepdims=True), dtypes=NUMERIC,
    onnx="GlobalMaxPool", samples=("f32[1,2,3,3]", "f32[n,2,h] n=1,2 h=3"),
    doc="The largest element of each channel.",
)  # fmt: skip
global_avg_pool = composite(
    "global_avg_pool", "x", lambda x: reduce_mean(x, axes=_spatial(x), keepdims=True),
    reference=lambda x: x.astype(np.float64).mean(axis=tuple(range(2, x.ndim)), keepdims=True)
    .astype(x.dtype),
    dtypes=FLOATS, onnx="GlobalAveragePool",
    samples=("f32[1,2,3,3]", "f32[n,2,h] n=1,2 h=3", "f16[1,2,5]"),
    doc="The mean of each channel.",
)  # fmt: skip


def _expand_global_lp_pool(x, *, p=2):
    return lp_pool(x, p=p, window=x.shape[2:])


global_lp_pool = composite(
    "global_lp_pool", "x", _expand_global_lp_pool,
    reference=lambda x, p=2: ((np.abs(x.astype(np.float64)) ** p)
                              .sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p))
    .astype(x.dtype),
    dtypes=FLOATS, samples=("f32[1,2,3,3]", "f32[1,2,4] p=3"),
    doc="The p-norm of each channel.",
)  # fmt: skip
