"""Losses over classes: negative log likelihood and cross entropy.

    cross_entropy(x, target)  ->  nll_loss(log_softmax(x, axis=1), target)

x is [batch, classes, ...] and target [batch, ...]. Elements whose target is `ignore` count for
nothing; "mean" divides by the weights of those that count.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import FLOATS, INTEGERS
from tensorwright.ir.graph import Node
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops.define import check_dtype, define, require, same_dtype, scalar_like
from tensorwright.ops.elementwise import div, equal, maximum, minimum, mul, neg, select
from tensorwright.ops.index import full, gather, gather_elements
from tensorwright.ops.movement import reshape
from tensorwright.ops.norm import log_softmax
from tensorwright.ops.reduce import reduce_sum
from tensorwright.ops.widen import to_dtype, widened

REDUCTIONS = ("none", "mean", "sum")


def _infer(op: str):
    def infer(
        x: TensorType, target: TensorType, weight: TensorType | None, *, reduction="mean",
        ignore=None,
    ) -> TensorType:  # fmt: skip
        check_dtype(op, x, FLOATS)
        same_dtype(op, x, weight)
        require(
            reduction in REDUCTIONS,
            f"{op}: reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}",
        )
        require(x.rank >= 2, f"{op}: x {x} has no dimension of classes")
        require(
            target.dtype in INTEGERS and target.shape == (x.shape[0], *x.shape[2:]),
            f"{op}: target {target} is not one class for each element of x {x}",
        )
        require(
            weight is None or weight.shape == (x.shape[1],),
            f"{op}: weight {weight} is not one for each of {dim_text(x.shape[1])} classes",
        )
        return TensorType(x.dtype, target.shape if reduction == "none" else ())

    return infer


def _expand_nll(x, target, weight, *, reduction, ignore):
    wide = widened(x)
    at = reshape(target, shape=(x.shape[0], 1, *x.shape[2:]))
    chosen = reshape(gather_elements(wide, _known(at), axis=1), shape=target.shape)
    factor = None if weight is None else gather(widened(weight), _known(target), axis=0)
    if ignore is not None:
        ones = full(shape=target.shape, value=1, dtype=wide.dtype) if factor is None else factor
        factor = select(equal(target, ignore), scalar_like(wide, 0), ones)
        chosen = select(equal(target, ignore), scalar_like(wide, 0), chosen)
    loss = neg(chosen) if factor is None else mul(neg(chosen), factor)
    if reduction == "none":
        return to_dtype(loss, x.dtype)
    total = reduce_sum(loss)
    if reduction == "mean":
        factor = full(shape=target.shape, value=1, dtype=wide.dtype) if factor is None else factor
        total = div(total, reduce_sum(factor))
    return to_dtype(total, x.dtype)


def _known(target: Node) -> Node:
    """Classes that may be read: an ignored one may be negative, which must not count from the
    end."""
    return maximum(target, 0) if target.dtype.is_signed else minimum(target, target.dtype.max)


def _reference_nll(x, target, weight=None, reduction="mean", ignore=None):
    wide = np.moveaxis(x.astype(np.float64), 1, -1)
    at = np.clip(target, 0, x.shape[1] - 1).astype(np.int64)
    factor = np.ones(target.shape) if weight is None else weight.astype(np.float64)[at]
    factor = factor if ignore is None else np.where(target == ignore, 0, factor)
    loss = np.where(factor == 0, 0, -np.take_along_axis(wide, at[..., None], -1)[..., 0]) * factor
    if reduction != "none":
        loss = loss.sum() if reduction == "sum" else loss.sum() / factor.sum()
    return np.asarray(loss).astype(x.dtype)


SAMPLES = (
    "f32[3,5] i64[3]@0:4", "f32[3,5] i64[3]@0:4 f32[5]@0.1:2 reduction=sum",
    "f32[2,4,3] i64[2,3]@0:3 - reduction=none",
    "f32[2,4,3,2] i32[2,3,2]@-1:3 f32[4]@0.1:2 ignore=-1",
    "f32[n,5] i64[n]@0:4 - ignore=2 n=2,6", "f16[3,5] i64[3]@0:4",
)  # fmt: skip

nll_loss = define(
    "nll_loss", "x, target, weight?", infer=_infer("nll_loss"), reference=_reference_nll,
    expand=_expand_nll, dtypes=FLOATS, samples=SAMPLES,
    doc="Minus the element of x that the target names along axis 1, weighted and reduced.",
)  # fmt: skip


def _expand_cross_entropy(x, target, weight, **attrs):
    return nll_loss(log_softmax(x, axis=1), target, weight, **attrs)


def _reference_cross_entropy(x, target, weight=None, **attrs):
    logs = log_softmax.reference(x.astype(np.float64), axis=1)
    return _reference_nll(logs, target, weight, **attrs).astype(x.dtype)


cross_entropy = define(
    "cross_entropy", "x, target, weight?", infer=_infer("cross_entropy"),
    reference=_reference_cross_entropy, expand=_expand_cross_entropy, dtypes=FLOATS,
    samples=SAMPLES,
    doc="Minus the logarithm of the softmax at the class that the target names.",
)  # fmt: skip
