"""aten operators of neural networks: products, convolutions, pooling, resizing, attention.

Padding and strides come as torch writes them (one number an axis, symmetric) and leave as ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.frontend.torch_ops import (
    Call,
    Rows,
    lift,
    to,
    together,
    transposed,
    with_axis,
)  # fmt: skip
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import product
from tensorwright.ops import attention as at
from tensorwright.ops import conv as cv
from tensorwright.ops import einsum as es
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import linalg as la
from tensorwright.ops import movement as mv
from tensorwright.ops import pool as pl
from tensorwright.ops import reduce as rd
from tensorwright.ops import statistics as st
from tensorwright.ops import window as wi

NN = Rows()


# ---- products ----------------------------------------------------------------------------------


@NN.row("mm.default", "bmm.default", "matmul.default", "linalg_matmul.default")
def _matmul(c, x, w):
    return product_of(c, x, w)


@NN.row("mv.default")
def _mv(c, x, v):
    return mv.reshape(product_of(c, x, with_axis(v, 1)), shape=c.shape)


@NN.row("dot.default", "vdot.default", "inner.default")
def _dot(c, x, y):
    if x.rank == 0 or y.rank == 0:
        return ew.mul(*together(x, y, dtype=c.dtype))
    if x.rank != 1 or y.rank != 1:
        return to(la.dot_general(x, y, contract=((x.rank - 1,), (y.rank - 1,))), c.dtype)
    return mv.reshape(product_of(c, with_axis(x, 0), with_axis(y, 1)), shape=())


def product_of(c: Call, x: Node, w: Node) -> Node:
    """x @ w; integers accumulate in the type of the result."""
    return to(la.matmul(x, w), c.dtype)


@NN.row("linear.default")
def _linear(c, x, w, bias=None):
    if w.rank == 1:
        y = mv.reshape(la.matmul(x, with_axis(w, 1)), shape=c.shape)
        return y if bias is None else ew.add(y, bias)
    return la.linear(x, w, bias) if bias is not None else la.linear(x, w)


@NN.row("addmm.default", "baddbmm.default")
def _addmm(c, bias, x, w, *, beta=1, alpha=1):
    y = _times(product_of(c, x, w), alpha)
    return y if beta == 0 else ew.add(_times(to(bias, c.dtype), beta), y)


@NN.row("_trilinear.default")
def _trilinear(c, x, y, z, expand1, expand2, expand3, sumdim, unroll=1):
    """The sum over `sumdim` of a product of three tensors, each with new axes of size 1."""
    grown = []
    for v, axes in ((x, expand1), (y, expand2), (z, expand3)):
        for a in sorted(axes):
            v = with_axis(v, a)
        grown.append(v)
    letters = "abcdefghijklmnopqrst"[: grown[0].rank]
    kept = "".join(ch for k, ch in enumerate(letters) if k not in sumdim)
    shown, parts = [], []
    for v in grown:  # axes of size 1 stand for any size
        names = [ch for ch, d in zip(letters, v.shape) if d != 1]
        shown.append("".join(names))
        parts.append(mv.reshape(v, shape=tuple(d for d in v.shape if d != 1)))
    full = {ch: d for v in grown for ch, d in zip(letters, v.shape) if d != 1}
    present = "".join(ch for ch in kept if ch in full)
    total = es.einsum(*together(*parts), equation=f"{','.join(shown)}->{present}")
    return mv.reshape(total, shape=c.shape)


@NN.row("addbmm.default")
def _addbmm(c, bias, x, w, *, beta=1, alpha=1):
    y = _times(la.dot_general(x, w, contract=((0, 2), (0, 1))), alpha)
    return y if beta == 0 else ew.add(_times(to(bias, c.dtype), beta), y)


@NN.row("addmv.default")
def _addmv(c, bias, x, v, *, beta=1, alpha=1):
    y = _times(_mv(c, x, v), alpha)
    return y if beta == 0 else ew.add(_times(to(bias, c.dtype), beta), y)


def _times(x: Node, factor) -> Node:
    return x if factor == 1 else ew.mul(x, lift(factor, x.dtype))


@NN.row("einsum.default")
def _einsum(c, equation, xs, path=None):
    return es.einsum(*together(*xs), equation=equation.replace(" ", ""))


# ---- convolution -------------------------------------------------------------------------------


def spread(value, rank: int) -> tuple[int, ...]:
    """One entry a spatial axis."""
    value = [value] if isinstance(value, int) else list(value)
    return tuple(value * rank if len(value) == 1 else value)


@NN.row("convolution.default")
def _convolution(c, x, w, bias, strides, padding, dilation, is_transposed, extra, groups):
    n = w.rank - 2
    if x.rank == w.rank - 1:  # no batch axis
        y = _convolution_batched(with_axis(x, 0), w, bias, strides, padding, dilation,
                                 is_transposed, extra, groups, n)  # fmt: skip
        return mv.reshape(y, shape=c.shape)
    return _convolution_batched(x, w, bias, strides, padding, dilation, is_transposed, extra,
                                groups, n)  # fmt: skip


def _convolution_batched(x, w, bias, strides, padding, dilation, is_transposed, extra, groups, n):
    attrs = dict(strides=spread(strides, n), dilation=spread(dilation, n), groups=groups,
                 padding=tuple((p, p) for p in spread(padding, n)))  # fmt: skip
    operands = (x, w) if bias is None else (x, w, bias)
    if is_transposed:
        return cv.conv_transpose(*operands, output_padding=spread(extra, n), **attrs)
    return cv.conv(*operands, **attrs)


# ---- pooling -----------------------------------------------------------------------------------


def window_attrs(c: Call, window, strides, padding, dilation, ceil: bool, n: int) -> dict:
    """Our attributes of a pooling over n spatial axes."""
    window = spread(window, n)
    return dict(window=window, strides=spread(strides, n) if strides else window,
                padding=tuple((p, p) for p in spread(padding, n)), dilation=spread(dilation, n),
                ceil_mode=bool(ceil))  # fmt: skip


def batched(x: Node, spatial: int) -> Node:
    """x with a batch axis if it has none."""
    return x if x.rank == spatial + 2 else with_axis(x, 0)


def _max_pool(n: int):
    def convert(c: Call, x, window, strides=(), padding=0, dilation=1, ceil=False):
        attrs = window_attrs(c, window, strides, padding, dilation, ceil, n)
        return mv.reshape(pl.max_pool(batched(x, n), **attrs), shape=c.shape)

    return convert


def _max_pool_indices(n: int):
    def convert(c: Call, x, window, strides=(), padding=0, dilation=1, ceil=False):
        attrs = window_attrs(c, window, strides, padding, dilation, ceil, n)
        x = batched(x, n)
        values, where = pl.max_pool_with_indices(x, **attrs)
        area = lift(product(x.shape[2:]), i64)  # torch counts within one channel
        return [mv.reshape(v, shape=c.shape) for v in (values, ew.mod(where, area))]

    return convert


def _avg_pool(n: int):
    def convert(c: Call, x, window, strides=(), padding=0, ceil=False, count_padding=True,
                divisor=None):  # fmt: skip
        attrs = window_attrs(c, window, strides, padding, 1, ceil, n)
        x = batched(x, n)
        if divisor is None:
            y = pl.avg_pool(x, count_padding=bool(count_padding), **attrs)
        else:
            attrs = pl.spatial_attrs("avg_pool", x, *(attrs[k] for k in POOL_ATTRS))
            y = ew.div(wi.reduce_window(x, op="sum", **attrs), lift(divisor, x.dtype))
        return mv.reshape(y, shape=c.shape)

    return convert


POOL_ATTRS = ("window", "strides", "padding", "dilation", "ceil_mode")

for _n in (1, 2, 3):
    NN.add(_max_pool(_n), f"max_pool{_n}d.default")
    NN.add(_max_pool_indices(_n), f"max_pool{_n}d_with_indices.default")
    NN.add(_avg_pool(_n), f"avg_pool{_n}d.default")


def _adaptive(n: int):
    def convert(c: Call, x, size):
        for k in range(n):
            x = averaged_axis(c, x, x.rank - n + k, c.shape[len(c.shape) - n + k])
        return x

    return convert


def averaged_axis(c: Call, x: Node, axis: int, count) -> Node:
    """An axis cut into `count` nearly equal windows, each replaced by its mean."""
    size = x.shape[axis]
    if count == size:
        return x
    if count == 1:
        return st.reduce_mean(x, axes=(axis,), keepdims=True)
    if not isinstance(count, int) or not isinstance(size, int):
        raise c.fail("adaptive pooling of a dynamic dimension to more than one element")
    if size % count == 0:
        shape = (*x.shape[:axis], count, size // count, *x.shape[axis + 1 :])
        return st.reduce_mean(mv.reshape(x, shape=shape), axes=(axis + 1,), keepdims=False)
    weights = constant(adaptive_weights(size, count).astype(x.dtype.numpy))
    last = (*(k for k in range(x.rank) if k != axis), axis)
    y = la.matmul(transposed(x, last), weights)
    return transposed(y, np.argsort(last).tolist())


def adaptive_weights(size: int, count: int) -> np.ndarray:
    """f64[size, count]: column k averages the elements of window k."""
    w = np.zeros((size, count))
    for k in range(count):
        low, high = k * size // count, -(-(k + 1) * size // count)
        w[low:high, k] = 1 / (high - low)
    return w


NN.add(_adaptive(1), "adaptive_avg_pool1d.default")
NN.add(_adaptive(2), "adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default")
NN.add(_adaptive(3), "adaptive_avg_pool3d.default", "_adaptive_avg_pool3d.default")


def _adaptive_max(n: int):
    """Maxima of windows as those of `averaged_axis`, and where they are within their channel."""

    def convert(c: Call, x, size):
        inner, counts = x.shape[x.rank - n :], c.shape[len(c.shape) - n :]
        lead = x.shape[: x.rank - n]
        if all(k == 1 for k in counts):
            windows, places = (*lead, *counts, product(inner)), None
            x = mv.reshape(x, shape=windows)
        else:
            if not all(isinstance(d, int) for d in (*inner, *counts)):
                raise c.fail("adaptive pooling of a dynamic dimension to more than one element")
            places = adaptive_places(inner, counts)
            x = mv.reshape(x, shape=(*lead, product(inner)))
            x = ix.gather(x, constant(places), axis=len(lead))
        last = x.rank - 1
        where = rd.argmax(x, axis=last, keepdims=True)
        if places is not None:
            table = mv.broadcast_to(constant(places), shape=x.shape)
            where = ix.gather_elements(table, where, axis=last)
        where = mv.reshape(where, shape=(*lead, *counts))
        return [rd.reduce_max(x, axes=(last,), keepdims=False), where]

    return convert


def adaptive_places(sizes: Sequence[int], counts: Sequence[int]) -> np.ndarray:
    """i64[*counts, n]: the row-major positions of the elements of each window; a window that is
    smaller than the largest names its last element again."""
    places = np.zeros((1,) * 2 * len(sizes), np.int64)  # counts, then elements of a window
    for k, (size, count) in enumerate(zip(sizes, counts)):
        low = np.arange(count) * size // count
        high = -(-(np.arange(count) + 1) * size // count)
        at = np.minimum(low[:, None] + np.arange((high - low).max()), high[:, None] - 1)
        shape = [1] * 2 * len(sizes)
        shape[k], shape[len(sizes) + k] = at.shape
        places = places * size + at.reshape(shape)
    return places.reshape(*counts, -1)


for _n in (2, 3):
    NN.add(_adaptive_max(_n), f"adaptive_max_pool{_n}d.default")


# ---- attention ---------------------------------------------------------------------------------


@NN.row("scaled_dot_product_attention.default")
def _attention(c, q, k, v, mask=None, dropout=0.0, causal=False, *, scale=None, enable_gqa=False):
    if dropout:
        raise c.fail("dropout is on", "call model.eval() before compiling")
    return _attend(q, k, v, mask, causal, scale)


@NN.row("_scaled_dot_product_flash_attention_for_cpu.default")
def _flash_attention(c, q, k, v, dropout=0.0, causal=False, *, attn_mask=None, scale=None):
    if dropout:
        raise c.fail("dropout is on", "call model.eval() before compiling")
    y = _attend(q, k, v, attn_mask, causal, scale)
    return [y, _log_total(c, q, k, attn_mask, causal, scale)]


def _log_total(c: Call, q: Node, k: Node, mask, causal: bool, scale) -> Node:
    """The logarithm of each row's sum of exponentials (for the gradient; dead in inference)."""
    d = c.dtypes()[1]
    factor = float(scale) if scale is not None else q.shape[-1] ** -0.5
    scores = la.matmul(to(q, d), transposed(to(k, d), (0, 1, 3, 2)))
    scores = ew.mul(scores, factor)
    if mask is not None:
        low = lift(-np.inf, d)
        scores = ew.select(mask, scores, low) if mask.dtype is boolean else (
            ew.add(scores, to(mask, d)))  # fmt: skip
    if causal:
        i, j = (ix.iota(shape=scores.shape, axis=a, dtype=i64) for a in (2, 3))
        scores = ew.select(ew.greater_equal(i, j), scores, lift(-np.inf, d))
    return st.reduce_log_sum_exp(scores, axes=(-1,), keepdims=False)


def _attend(q, k, v, mask, causal: bool, scale) -> Node:
    """Attention over any number of leading axes: ours has exactly two."""
    lead = q.shape[:-2]
    if mask is not None and mask.dtype is not boolean:
        mask = to(mask, q.dtype)
    if len(lead) != 2:
        q, k, v = (_two_leading(x, x.rank) for x in (q, k, v))
        if mask is not None and mask.rank > 2:
            mask = mv.broadcast_to(mask, shape=(*lead, *mask.shape[-2:]))
            mask = _two_leading(mask, mask.rank)
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    attrs = {} if scale is None else dict(scale=float(scale))
    y = at.attention(*operands, causal=causal, **attrs)
    return y if len(lead) == 2 else mv.reshape(y, shape=(*lead, *y.shape[-2:]))


def _two_leading(x: Node, rank: int) -> Node:
    if rank <= 4:
        return mv.reshape(x, shape=(*([1] * (4 - rank)), *x.shape))
    lead = as_expr(1)
    for d in x.shape[:-3]:
        lead = lead * as_expr(d)
    return mv.reshape(x, shape=(as_dim(lead), *x.shape[-3:]))
