"""aten operators that fold axes: sums, means, extrema, variances, running totals, sorting.

Integers are summed in i64 and halves averaged in f32, as in torch.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.frontend.torch_ops import (
    Call,
    Rows,
    axes_of,
    axis_of,
    flat,
    lift,
    slice_axis,
    to,
    together,
    wide,
    with_axis,
)  # fmt: skip
from tensorwright.frontend.torch_ops_pointwise import truth
from tensorwright.frontend.torch_symbols import size_scalar
from tensorwright.ir.dtype import DType, boolean, i64
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim, product
from tensorwright.ops import control as ct
from tensorwright.ops import cumulative as cu
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv
from tensorwright.ops import reduce as rd
from tensorwright.ops import sort as so
from tensorwright.ops import statistics as st

REDUCE = Rows()


@REDUCE.row("sum.default", "sum.dim_IntList")
def _sum(c, x, axes=None, keep=False, *, dtype=None):
    x = to(x, c.dtype)
    return rd.reduce_sum(x, axes=axes_of(axes, x.rank), keepdims=keep)


@REDUCE.row("mean.default", "mean.dim")
def _mean(c, x, axes=None, keep=False, *, dtype=None):
    x = to(x, c.dtype)
    return st.reduce_mean(x, axes=axes_of(axes, x.rank), keepdims=keep)


@REDUCE.row("prod.default", "prod.dim_int")
def _prod(c, x, axis=None, keep=False, *, dtype=None):
    return rd.reduce_prod(to(x, c.dtype), axes=axes_of(axis, x.rank), keepdims=keep)


@REDUCE.row("amax.default")
def _amax(c, x, axes=(), keep=False):
    return extreme("max", x, axes_of(axes, x.rank), keep)


@REDUCE.row("amin.default")
def _amin(c, x, axes=(), keep=False):
    return extreme("min", x, axes_of(axes, x.rank), keep)


@REDUCE.row("max.default")
def _max(c, x):
    return extreme("max", x, None, False)


@REDUCE.row("min.default")
def _min(c, x):
    return extreme("min", x, None, False)


def extreme(name: str, x: Node, axes, keep: bool) -> Node:
    if x.dtype is boolean:
        fold = rd.reduce_any if name == "max" else rd.reduce_all
    else:
        fold = rd.reduce_max if name == "max" else rd.reduce_min
    return fold(x, axes=axes, keepdims=keep)


@REDUCE.row("max.dim")
def _max_dim(c, x, axis, keep=False):
    return _extreme_dim("max", x, axis, keep)


@REDUCE.row("min.dim")
def _min_dim(c, x, axis, keep=False):
    return _extreme_dim("min", x, axis, keep)


def _extreme_dim(name: str, x: Node, axis: int, keep: bool) -> list[Node]:
    if x.rank == 0:
        return [x, lift(0, i64)]
    axis = axis_of(axis, x.rank)
    return [extreme(name, x, (axis,), keep), position_of(name, x, axis, keep)]


def position_of(name: str, x: Node, axis: int, keep: bool) -> Node:
    x = to(x, i64) if x.dtype is boolean else x
    return (rd.argmax if name == "max" else rd.argmin)(x, axis=axis, keepdims=keep)


@REDUCE.row("aminmax.default")
def _aminmax(c, x, *, dim=None, keepdim=False):
    axes = axes_of(dim, x.rank)
    return [extreme(name, x, axes, keepdim) for name in ("min", "max")]


@REDUCE.row("argmax.default")
def _argmax(c, x, axis=None, keep=False):
    return _arg("max", c, x, axis, keep)


@REDUCE.row("argmin.default")
def _argmin(c, x, axis=None, keep=False):
    return _arg("min", c, x, axis, keep)


def _arg(name: str, c: Call, x: Node, axis, keep: bool) -> Node:
    if x.rank == 0:
        return lift(0, i64)
    if axis is None:
        return mv.reshape(position_of(name, flat(x), 0, False), shape=c.shape)
    return position_of(name, x, axis_of(axis, x.rank), keep)


@REDUCE.row("any.default", "any.dim", "any.dims")
def _any(c, x, axes=None, keep=False):
    return to(rd.reduce_any(truth(x), axes=axes_of(axes, x.rank), keepdims=keep), c.dtype)


@REDUCE.row("all.default", "all.dim", "all.dims")
def _all(c, x, axes=None, keep=False):
    return to(rd.reduce_all(truth(x), axes=axes_of(axes, x.rank), keepdims=keep), c.dtype)


# ---- statistics --------------------------------------------------------------------------------


def count_of(x: Node, axes) -> Dim:
    return product(x.shape[a] for a in (range(x.rank) if axes is None else axes))


def divisor(count: Dim, correction, d: DType) -> Node:
    """max(count - correction, 0) as a tensor of rank 0; sizes are only known when it runs."""
    if isinstance(count, int):
        return lift(max(count - correction, 0), d)
    return ew.maximum(ew.sub(to(size_scalar(count), d), lift(correction, d)), 0.0)


def moments(x: Node, axes, correction, keep: bool) -> tuple[Node, Node]:
    """(variance, mean) with `count - correction` as the divisor, in f32 at least."""
    x = to(x, wide(x.dtype))
    mean = st.reduce_mean(x, axes=axes, keepdims=True)
    centered = ew.sub(x, mean)
    total = rd.reduce_sum(ew.mul(centered, centered), axes=axes, keepdims=keep)
    var = ew.div(total, divisor(count_of(x, axes), correction, x.dtype))
    return var, mean if keep else mv.reshape(mean, shape=var.shape)


def _correction(value, unbiased=True):
    return (1 if unbiased else 0) if value is None else value


@REDUCE.row("var.correction")
def _var(c, x, axes=None, *, correction=None, keepdim=False):
    return to(moments(x, axes_of(axes, x.rank), _correction(correction), keepdim)[0], c.dtype)


@REDUCE.row("std.correction")
def _std(c, x, axes=None, *, correction=None, keepdim=False):
    var, _ = moments(x, axes_of(axes, x.rank), _correction(correction), keepdim)
    return to(ew.sqrt(var), c.dtype)


@REDUCE.row("var.default")
def _var_all(c, x, unbiased=True):
    return to(moments(x, None, int(unbiased), False)[0], c.dtype)


@REDUCE.row("var.dim")
def _var_dim(c, x, axes=None, unbiased=True, keep=False):
    return to(moments(x, axes_of(axes, x.rank), int(unbiased), keep)[0], c.dtype)


@REDUCE.row("std.dim")
def _std_dim(c, x, axes=None, unbiased=True, keep=False):
    return to(ew.sqrt(moments(x, axes_of(axes, x.rank), int(unbiased), keep)[0]), c.dtype)


@REDUCE.row("var_mean.correction")
def _var_mean(c, x, axes=None, *, correction=None, keepdim=False):
    both = moments(x, axes_of(axes, x.rank), _correction(correction), keepdim)
    return [to(v, c.dtype) for v in both]


@REDUCE.row("std_mean.correction")
def _std_mean(c, x, axes=None, *, correction=None, keepdim=False):
    var, mean = moments(x, axes_of(axes, x.rank), _correction(correction), keepdim)
    return [to(ew.sqrt(var), c.dtype), to(mean, c.dtype)]


@REDUCE.row("logsumexp.default")
def _logsumexp(c, x, axes, keep=False):
    return st.reduce_log_sum_exp(to(x, c.dtype), axes=axes_of(axes, x.rank), keepdims=keep)


@REDUCE.row("linalg_vector_norm.default")
def _vector_norm(c, x, order=2, axes=None, keep=False, *, dtype=None):
    return to(norm_of(to(x, wide(c.dtype)), order, axes_of(axes, x.rank), keep), c.dtype)


def norm_of(x: Node, order: float, axes, keep: bool) -> Node:
    """The vector norm of that order over the axes."""
    size = ew.abs(x)
    match order:
        case 2:
            return ew.sqrt(rd.reduce_sum(ew.mul(x, x), axes=axes, keepdims=keep))
        case 1:
            return rd.reduce_sum(size, axes=axes, keepdims=keep)
        case 0:
            return rd.reduce_sum(to(ew.not_equal(x, 0.0), x.dtype), axes=axes, keepdims=keep)
        case math.inf:
            return rd.reduce_max(size, axes=axes, keepdims=keep)
        case _ if order == -math.inf:
            return rd.reduce_min(size, axes=axes, keepdims=keep)
    total = rd.reduce_sum(ew.pow(size, float(order)), axes=axes, keepdims=keep)
    return ew.pow(total, 1.0 / float(order))


# ---- running totals and order ------------------------------------------------------------------


def _running(op):
    def convert(c: Call, x, axis, *, dtype=None):
        x = to(x, c.dtype)
        return x if x.rank == 0 else op(x, axis=axis_of(axis, x.rank))

    return convert


REDUCE.add(_running(lambda x, axis: cu.cumsum(x, axis=axis)), "cumsum.default")
REDUCE.add(_running(lambda x, axis: cu.cumprod(x, axis=axis)), "cumprod.default")


def _running_extreme(op):
    def convert(c: Call, x, axis):
        if x.rank == 0:
            return [x, lift(0, i64)]
        axis = axis_of(axis, x.rank)
        high = op(x, axis=axis)
        return [high, cu.running_positions(x, high, axis=axis, reverse=False)]

    return convert


REDUCE.add(_running_extreme(cu.cummax), "cummax.default")
REDUCE.add(_running_extreme(cu.cummin), "cummin.default")


@REDUCE.row("logcumsumexp.default")
def _logcumsumexp(c, x, axis):
    """Sums relative to the highest element so far; where that rises, the sum so far shrinks."""
    if x.rank == 0:
        return x
    axis = axis_of(axis, x.rank)
    high = cu.cummax(x, axis=axis)
    finite = ew.select(ew.is_inf(high), lift(0.0, x.dtype), high)
    fall = ew.sub(cu.shift(finite, axis, 1), finite)  # there is nothing to fade at the first
    fade = ew.exp(ew.minimum(fall, lift(0.0, x.dtype)))
    total = cu.linear_recurrence(fade, ew.exp(ew.sub(x, finite)), axis=axis)
    return ew.add(ew.log(total), finite)


@REDUCE.row("sort.default", "sort.stable")
def _sort(c, x, dim=-1, descending=False, *, stable=None):
    return _sorted(x, dim, descending)


def _sorted(x: Node, axis: int, descending: bool) -> list[Node]:
    if x.rank == 0:
        return [x, lift(0, i64)]
    axis = axis_of(axis, x.rank)
    keys = to(x, "u8") if x.dtype is boolean else x
    order = so.argsort(keys, axis=axis, descending=bool(descending), stable=True)
    return [ix.gather_elements(x, order, axis=axis), order]


@REDUCE.row("argsort.default", "argsort.stable")
def _argsort(c, x, dim=-1, descending=False, *, stable=None):
    return _sorted(x, dim, descending)[1]


@REDUCE.row("msort.default")
def _msort(c, x):
    return _sorted(x, 0, False)[0]


@REDUCE.row("topk.default")
def _topk(c, x, k, axis=-1, largest=True, sorted_=True):
    if x.rank == 0:
        return [x, lift(0, i64)]
    both = so.top_k(x, k=k, axis=axis_of(axis, x.rank), largest=bool(largest), sorted=True)
    return list(ct.items(both))


@REDUCE.row("median.default")
def _median(c, x):
    return _middle(c, flat(x), 0, False)[0]


@REDUCE.row("median.dim")
def _median_dim(c, x, axis, keep=False):
    return _middle(c, x, axis_of(axis, x.rank), keep)


def _middle(c: Call, x: Node, axis: int, keep: bool) -> list[Node]:
    """The lower median along an axis."""
    if not isinstance(x.shape[axis], int):
        raise c.fail("the median over a dynamic dimension is not supported")
    return _kth(x, (x.shape[axis] - 1) // 2, axis, keep)


@REDUCE.row("kthvalue.default")
def _kthvalue(c, x, k, axis=-1, keep=False):
    if x.rank == 0:
        return [x, lift(0, i64)]
    return _kth(x, int(k) - 1, axis_of(axis, x.rank), keep)


def _kth(x: Node, at: int, axis: int, keep: bool) -> list[Node]:
    """The element that stands at `at` after sorting along an axis, and where it was."""
    values, order = _sorted(x, axis, False)
    starts, stops = [0] * x.rank, list(x.shape)
    starts[axis], stops[axis] = at, at + 1
    shape = tuple(1 if k == axis else d for k, d in enumerate(x.shape))
    shape = shape if keep else shape[:axis] + shape[axis + 1 :]
    cut = dict(starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)
    return [mv.reshape(mv.slice(v, **cut), shape=shape) for v in (values, order)]


@REDUCE.row("histc.default")
def _histc(c, x, bins=100, low=0, high=0):
    """How many elements lie in each of `bins` equal stretches of [low, high]; low = high asks for
    those of the data."""
    x = flat(x)
    if low == high:
        low, high = (f(x, axes=(0,), keepdims=False) for f in (rd.reduce_min, rd.reduce_max))
        flat_range = ew.equal(low, high)
        low = ew.select(flat_range, ew.sub(low, lift(1, x.dtype)), low)
        high = ew.select(flat_range, ew.add(high, lift(1, x.dtype)), high)
    else:
        low, high = lift(low, x.dtype), lift(high, x.dtype)
    inside = ew.logical_and(ew.greater_equal(x, low), ew.less_equal(x, high))
    place = ew.div(ew.mul(ew.sub(x, low), lift(bins, x.dtype)), ew.sub(high, low))
    place = to(ew.floor(ew.select(inside, place, lift(bins, x.dtype))), i64)
    last = ew.logical_and(inside, ew.equal(x, high))
    place = ew.select(last, lift(bins - 1, i64), place)  # the highest belongs to the last
    counts = ix.full(shape=(bins + 1,), value=0, dtype=x.dtype)  # and one for those outside
    counts = ix.scatter_elements(counts, place, ix.full(shape=x.shape, value=1, dtype=x.dtype),
                                 axis=0, mode="add")  # fmt: skip
    return slice_axis(counts, 0, 0, bins)


@REDUCE.row("_cdist_forward.default")
def _cdist(c, x, y, p, mode=None):
    distance = ew.sub(with_axis(x, x.rank - 1), with_axis(y, y.rank - 2))
    return norm_of(distance, p, (distance.rank - 1,), False)


@REDUCE.row("_pdist_forward.default")
def _pdist(c, x, p=2.0):
    if not isinstance(x.shape[0], int):
        raise c.fail("the number of rows must be known")
    i, j = np.triu_indices(x.shape[0], 1)
    rows = [ix.gather(x, lift_array(v), axis=0) for v in (i, j)]
    return norm_of(ew.sub(*rows), p, (1,), False)


def lift_array(array) -> Node:
    return constant(np.asarray(array, np.int64))


@REDUCE.row("searchsorted.Tensor")
def _searchsorted(c, x, v, *, right=False, side=None, sorter=None):
    if sorter is not None:
        x = ix.gather_elements(x, sorter, axis=x.rank - 1)
    x, v = together(x, v)
    if x.rank > 1:  # one row of boundaries for each row of values
        x = with_axis(x, x.rank - 1)
    return _ranks(c, x, v, bool(right) or side == "right")


@REDUCE.row("bucketize.Tensor")
def _bucketize(c, v, x, *, right=False):
    return _ranks(c, *together(x, v), bool(right))


def _ranks(c: Call, x: Node, v: Node, right: bool) -> Node:
    """How many boundaries stand before each value."""
    before = (ew.less_equal if right else ew.less)(x, with_axis(v, v.rank))
    return to(rd.reduce_sum(to(before, i64), axes=(v.rank,), keepdims=False), c.dtype)
