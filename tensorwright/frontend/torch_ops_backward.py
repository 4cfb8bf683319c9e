"""aten operators that training graphs contain: gradients of norms, convolutions, pools, embeddings.

Each is written by its formula or taken from the gradient of our own operator; results that the mask
of the call leaves out are None, as in torch.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend.torch_ops import (
    Call,
    Rows,
    flat,
    lift,
    to,
    transposed,
    wide,
    with_axis,
)  # fmt: skip
from tensorwright.frontend.torch_ops_nn import (
    POOL_ATTRS,
    adaptive_weights,
    batched,
    spread,
    window_attrs,
)  # fmt: skip
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import product
from tensorwright.ops import conv as cv
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import linalg as la
from tensorwright.ops import movement as mv
from tensorwright.ops import pool as pl
from tensorwright.ops import reduce as rd
from tensorwright.ops import statistics as st
from tensorwright.ops import window as wi

BACKWARD = Rows()


@BACKWARD.row("embedding_dense_backward.default")
def _embedding(c, g, indices, count, padding, scale_grad_by_freq):
    if scale_grad_by_freq:
        raise c.fail("scale_grad_by_freq is not supported")
    rows = mv.reshape(g, shape=(indices.type.size, g.shape[-1]))
    at = flat(indices)
    if padding >= 0:
        kept = ew.not_equal(at, lift(padding, at.dtype))
        rows = ew.mul(rows, with_axis(to(kept, rows.dtype), 1))
    start = ix.full(shape=c.shape, value=0, dtype=g.dtype)
    return ix.scatter_nd(start, with_axis(at, 1), rows, mode="add")


def _masked(mask, *results) -> list[Node | None]:
    return [r() if wanted else None for wanted, r in zip(mask, results)]


@BACKWARD.row("native_layer_norm_backward.default")
def _layer_norm(c, g, x, shape, mean, rstd, weight, bias, mask):
    axes = tuple(range(x.rank - len(shape), x.rank))
    lead = tuple(range(x.rank - len(shape)))
    wider = wide(x.dtype)
    g, x, mean, rstd = (to(v, wider) for v in (g, x, mean, rstd))
    normal = ew.mul(ew.sub(x, mean), rstd)

    def of_x():
        scaled = g if weight is None else ew.mul(g, to(weight, wider))
        return to(_centered(scaled, normal, rstd, axes), c.dtype)

    def summed(v):
        return to(rd.reduce_sum(v, axes=lead, keepdims=False) if lead else v, c.dtype)

    return _masked(mask, of_x, lambda: summed(ew.mul(g, normal)), lambda: summed(g))


def _centered(g: Node, normal: Node, rstd: Node, axes) -> Node:
    """The gradient through normalization: rstd * (g - mean(g) - normal * mean(g * normal))."""
    mean = st.reduce_mean(g, axes=axes, keepdims=True)
    along = st.reduce_mean(ew.mul(g, normal), axes=axes, keepdims=True)
    return ew.mul(rstd, ew.sub(ew.sub(g, mean), ew.mul(normal, along)))


@BACKWARD.row("native_group_norm_backward.default")
def _group_norm(c, g, x, mean, rstd, weight, n, channels, size, groups, mask):
    wider = wide(x.dtype)
    each = as_dim(as_expr(channels) // groups)
    shape = (n, groups, each, size)
    own = x.shape
    g, x = (mv.reshape(to(v, wider), shape=shape) for v in (g, x))
    mean, rstd = (mv.reshape(to(v, wider), shape=(n, groups, 1, 1)) for v in (mean, rstd))
    normal = ew.mul(ew.sub(x, mean), rstd)

    def of_x():
        scaled = g
        if weight is not None:
            scaled = ew.mul(g, mv.reshape(to(weight, wider), shape=(1, groups, each, 1)))
        return to(mv.reshape(_centered(scaled, normal, rstd, (2, 3)), shape=own), c.dtype)

    def summed(v):
        total = rd.reduce_sum(v, axes=(0, 3), keepdims=False)
        return to(mv.reshape(total, shape=(channels,)), c.dtype)

    return _masked(mask, of_x, lambda: summed(ew.mul(g, normal)), lambda: summed(g))


@BACKWARD.row("convolution_backward.default")
def _convolution(c, g, x, w, bias_sizes, strides, padding, dilation, is_transposed, extra, groups,
                 mask):  # fmt: skip
    n = w.rank - 2
    attrs = dict(
        strides=spread(strides, n), padding=tuple((p, p) for p in spread(padding, n)),
        dilation=spread(dilation, n), lhs_dilation=(1,) * n, groups=groups, layout="NC", dtype=None,
    )  # fmt: skip

    def gradients():
        if not is_transposed:
            return cv.conv_general.gradient(g, None, x, w, **attrs)
        # A transposed convolution is the gradient of a convolution by its input.
        forward = {k: v for k, v in attrs.items()}
        return (cv.conv_general(g, w, **forward),
                cv.conv_general.gradient(x, None, g, w, **forward)[1])  # fmt: skip

    def of_bias():
        axes = tuple(k for k in range(g.rank) if k != 1)
        return rd.reduce_sum(g, axes=axes, keepdims=False)

    both = gradients() if mask[0] or mask[1] else (None, None)
    return _masked(mask, lambda: both[0], lambda: both[1], of_bias)


@BACKWARD.row("avg_pool2d_backward.default")
def _avg_pool(c, g, x, window, strides, padding, ceil, count_padding, divisor):
    own, x, g = x.shape, batched(x, 2), batched(g, 2)
    attrs = window_attrs(c, window, strides, padding, 1, ceil, 2)
    full = pl.spatial_attrs("avg_pool", x, *(attrs[k] for k in POOL_ATTRS))
    if divisor is not None:
        share = ew.div(g, lift(divisor, g.dtype))
    else:  # the mean of ones over windows of ones, times what a window sums, is its divisor
        ones = ix.full(shape=x.shape, value=1, dtype=x.dtype)
        total = wi.reduce_window(ones, op="sum", **full)
        if count_padding and not ceil:
            total = ix.full(shape=g.shape, value=product(attrs["window"]), dtype=g.dtype)
        elif count_padding:
            total = ew.div(total, pl.avg_pool(ones, count_padding=True, **attrs))
        share = ew.div(g, total)
    return mv.reshape(wi.spread_window(share, shape=x.shape, **full), shape=own)


@BACKWARD.row("max_pool2d_with_indices_backward.default")
def _max_pool(c, g, x, window, strides, padding, dilation, ceil, indices):
    lead = x.shape[:-2]
    area = product(x.shape[-2:])
    flat_g, at = (mv.reshape(v, shape=(product(lead), product(v.shape[-2:]))) for v in (g, indices))
    start = ix.full(shape=(product(lead), area), value=0, dtype=g.dtype)
    done = ix.scatter_elements(start, at, flat_g, axis=1, mode="add")
    return mv.reshape(done, shape=x.shape)


@BACKWARD.row("_adaptive_avg_pool2d_backward.default")
def _adaptive_avg_pool(c, g, x):
    for axis in (x.rank - 2, x.rank - 1):
        g = _spread_axis(c, g, axis, x.shape[axis])
    return g


def _spread_axis(c: Call, g: Node, axis: int, size) -> Node:
    """The adjoint of averaging an axis of that size down to g's."""
    count = g.shape[axis]
    if not isinstance(size, int) or not isinstance(count, int):
        raise c.fail("adaptive pooling of a dynamic dimension")
    weights = constant(adaptive_weights(size, count).T.astype(g.dtype.numpy))
    last = (*(k for k in range(g.rank) if k != axis), axis)
    return transposed(la.matmul(transposed(g, last), weights), np.argsort(last).tolist())
