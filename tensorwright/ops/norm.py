"""Normalization: softmax and the layer, batch, group, instance and local-response norms.

All are compositions; f16 and bf16 are computed in f32 and rounded at the end. They stay one unit
until something expands them, so a schedule may give them a form of one pass.

    softmax(x) = e / sum(e), e = exp(x - max(x))
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import FLOATS, DType
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops.define import (
    broadcast_shapes, check_dtype, define, normalize_axes, normalize_axis, require, same_dtype,
)  # fmt: skip
from tensorwright.ops.elementwise import add, div, exp, log, mul, neg, rsqrt, sub
from tensorwright.ops.movement import reshape
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.ops.statistics import reduce_mean
from tensorwright.ops.widen import to_dtype, widened

SOFTMAX_SAMPLES = ("f32[3,4]", "f32[3,4,5] axis=1", "f32[n,5] n=1,7", "f32[2,3] axis=0",
                   "f64[2,3]", "f16[3,9]", "bf16[3,9]", "f32[0,3]")  # fmt: skip


def as_float64(*arrays):
    return [None if a is None else np.asarray(a, np.float64) for a in arrays]


def _infer_softmax(name: str):
    def infer(x: TensorType, *, axis=-1) -> TensorType:
        check_dtype(name, x, FLOATS)
        normalize_axis(name, axis, x.rank)
        return x

    return infer


def _reference_softmax(x, axis=-1):
    (wide,) = as_float64(x)
    e = np.exp(wide - np.max(wide, axis=axis, keepdims=True, initial=-np.inf))
    return (e / e.sum(axis=axis, keepdims=True)).astype(x.dtype)


def _expand_softmax(x, *, axis):
    wide = widened(x)
    e = exp(sub(wide, reduce_max(wide, axes=(axis,), keepdims=True)))
    return to_dtype(div(e, reduce_sum(e, axes=(axis,), keepdims=True)), x.dtype)


def _gradient_softmax(g, y, x, *, axis):
    wide, g = widened(y), widened(g)
    inner = reduce_sum(mul(g, wide), axes=(axis,), keepdims=True)
    return (to_dtype(mul(wide, sub(g, inner)), x.dtype),)


softmax = define(
    "softmax", "x", infer=_infer_softmax("softmax"), reference=_reference_softmax,
    expand=_expand_softmax, gradient=_gradient_softmax, dtypes=FLOATS, samples=SOFTMAX_SAMPLES,
    doc="exp(x) over its sum along one axis.",
)  # fmt: skip


def _reference_log_softmax(x, axis=-1):
    (wide,) = as_float64(x)
    shifted = wide - np.max(wide, axis=axis, keepdims=True, initial=-np.inf)
    return (shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))).astype(x.dtype)


def _expand_log_softmax(x, *, axis):
    wide = widened(x)
    shifted = sub(wide, reduce_max(wide, axes=(axis,), keepdims=True))
    total = reduce_sum(exp(shifted), axes=(axis,), keepdims=True)
    return to_dtype(sub(shifted, log(total)), x.dtype)


def _gradient_log_softmax(g, y, x, *, axis):
    wide, g = widened(y), widened(g)
    total = reduce_sum(g, axes=(axis,), keepdims=True)
    return (to_dtype(sub(g, mul(exp(wide), total)), x.dtype),)


log_softmax = define(
    "log_softmax", "x", infer=_infer_softmax("log_softmax"), reference=_reference_log_softmax,
    expand=_expand_log_softmax, gradient=_gradient_log_softmax, dtypes=FLOATS,
    samples=SOFTMAX_SAMPLES, doc="The logarithm of softmax.",
)  # fmt: skip


# ---- layer norms -------------------------------------------------------------------------------


def _check_affine(op: str, x: TensorType, **operands) -> None:
    for name, t in operands.items():
        if t is not None:
            require(broadcast_shapes(op, x.shape, t.shape) == x.shape,
                    f"{op}: {name} {t} does not broadcast to x {x}")  # fmt: skip


def _affine(y, scale, bias, result: DType):
    """y * scale + bias in the type of y, rounded to the result's type."""
    if scale is not None:
        y = mul(y, to_dtype(scale, y.dtype))
    if bias is not None:
        y = add(y, to_dtype(bias, y.dtype))
    return to_dtype(y, result)


def _infer_layer_norm(x, scale, bias, *, axes=(-1,), epsilon=1e-5) -> TensorType:
    check_dtype("layer_norm", x, FLOATS)
    normalize_axes("layer_norm", axes, x.rank)
    _check_affine("layer_norm", x, scale=scale, bias=bias)
    return x


def _reference_layer_norm(x, scale=None, bias=None, axes=(-1,), epsilon=1e-5):
    wide, s, b = as_float64(x, scale, bias)
    y = wide - wide.mean(axis=tuple(axes), keepdims=True)
    y = y / np.sqrt((y * y).mean(axis=tuple(axes), keepdims=True) + epsilon)
    y = y if s is None else y * s
    return (y if b is None else y + b).astype(x.dtype)


def _expand_layer_norm(x, scale, bias, *, axes, epsilon):
    centered = sub(widened(x), reduce_mean(widened(x), axes=axes, keepdims=True))
    spread = reduce_mean(mul(centered, centered), axes=axes, keepdims=True)
    return _affine(mul(centered, rsqrt(add(spread, epsilon))), scale, bias, x.dtype)


layer_norm = define(
    "layer_norm", "x, scale?, bias?", infer=_infer_layer_norm, reference=_reference_layer_norm,
    expand=_expand_layer_norm, dtypes=FLOATS,
    samples=("f32[3,8] f32[8] f32[8]", "f32[n,8] f32[8] n=1,5", "f32[2,3,4]",
             "f32[2,3,4] f32[3,4] f32[3,4] axes=(1,2) epsilon=0.01", "f16[3,8] f16[8] f16[8]"),
    doc="x with mean 0 and variance 1 over the axes, times scale plus bias.",
)  # fmt: skip


def _infer_rms_norm(x, scale, *, axes=(-1,), epsilon=1e-5) -> TensorType:
    check_dtype("rms_norm", x, FLOATS)
    normalize_axes("rms_norm", axes, x.rank)
    _check_affine("rms_norm", x, scale=scale)
    return x


def _reference_rms_norm(x, scale=None, axes=(-1,), epsilon=1e-5):
    wide, s = as_float64(x, scale)
    y = wide / np.sqrt((wide * wide).mean(axis=tuple(axes), keepdims=True) + epsilon)
    return (y if s is None else y * s).astype(x.dtype)


def _expand_rms_norm(x, scale, *, axes, epsilon):
    wide = widened(x)
    square = reduce_mean(mul(wide, wide), axes=axes, keepdims=True)
    return _affine(mul(wide, rsqrt(add(square, epsilon))), scale, None, x.dtype)


rms_norm = define(
    "rms_norm", "x, scale?", infer=_infer_rms_norm, reference=_reference_rms_norm,
    expand=_expand_rms_norm, dtypes=FLOATS,
    samples=("f32[3,8] f32[8]", "f32[n,8] n=1,5", "f32[2,3,4] f32[3,4] axes=(1,2)",
             "bf16[3,8] bf16[8]"),
    doc="x over the root of its mean square along the axes, times scale.",
)  # fmt: skip


# ---- norms over channels -----------------------------------------------------------------------


def along(v, axis: int, rank: int):
    """A vector shaped to broadcast along `axis` of a tensor of that rank."""
    ones = (1,) * (rank - 1 - axis)
    return reshape(v, shape=(*v.shape, *ones)) if ones else v


def _infer_batch_norm(x, scale, bias, mean, var, *, epsilon=1e-5, axis=1) -> TensorType:
    check_dtype("batch_norm", x, FLOATS)
    axis = normalize_axis("batch_norm", axis, x.rank)
    for name, t in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var)):
        require(t is None or t.shape == (x.shape[axis],),
                f"batch_norm: {name} {t} does not fit the {dim_text(x.shape[axis])} channels of x "
                f"(axis {axis})")  # fmt: skip
    return x


def _reference_batch_norm(x, scale, bias, mean, var, epsilon=1e-5, axis=1):
    shape = [1] * x.ndim
    shape[axis] = -1
    wide, s, b, m, v = as_float64(x, scale, bias, mean, var)
    y = (wide - m.reshape(shape)) / np.sqrt(v.reshape(shape) + epsilon)
    y = y if s is None else y * s.reshape(shape)
    return (y if b is None else y + b.reshape(shape)).astype(x.dtype)


def _expand_batch_norm(x, scale, bias, mean, var, *, epsilon, axis):
    """x * k + c with k, c vectors, so that constant statistics leave one multiply-add."""
    axis = normalize_axis("batch_norm", axis, x.rank)
    k = rsqrt(add(widened(var), epsilon))
    if scale is not None:
        k = mul(k, widened(scale))
    c = mul(widened(mean), k)
    c = neg(c) if bias is None else sub(widened(bias), c)
    y = add(mul(widened(x), along(k, axis, x.rank)), along(c, axis, x.rank))
    return to_dtype(y, x.dtype)


batch_norm = define(
    "batch_norm", "x, scale?, bias?, mean, var", infer=_infer_batch_norm,
    reference=_reference_batch_norm, expand=_expand_batch_norm, dtypes=FLOATS,
    samples=("f32[2,3,4,4] f32[3] f32[3] f32[3] f32[3]@0.1:2",
             "f32[n,5,3] f32[3] f32[3] f32[3] f32[3]@0.1:2 axis=2 n=1,2",
             "f16[2,3,4] f16[3] f16[3] f16[3] f16[3]@0.1:2"),
    doc="x normalized by given statistics of each channel.",
)  # fmt: skip
