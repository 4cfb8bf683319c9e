"""Normalization: softmax and the layer, batch, group, instance and local-response norms.

All are compositions; f16 and bf16 are computed in f32 and rounded at the end. They stay one unit
until something expands them, so a schedule may give them a form of one pass.

    softmax(x) = e / sum(e), e = exp(x - max(x))
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import FLOATS, DType
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops.define import (
    broadcasts_to,
    check_dtype,
    define,
    normalize_axes,
    normalize_axis,
    require,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import (
    add,
    div,
    equal,
    exp,
    log,
    maximum,
    mul,
    neg,
    rsqrt,
    select,
    sub,
)  # fmt: skip
from tensorwright.ops.elementwise import pow as power
from tensorwright.ops.movement import reshape
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.ops.statistics import reduce_l1, reduce_l2, reduce_mean
from tensorwright.ops.widen import to_dtype, widened
from tensorwright.ops.window import reduce_window

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
            require(broadcasts_to(t.shape, x.shape),
                    f"{op}: {name} {t} does not broadcast to x {x}")  # fmt: skip


def _affine(y, scale, bias, result: DType):
    """y * scale + bias in the type of y, rounded to the result's type."""
    if scale is not None:
        y = mul(y, to_dtype(scale, y.dtype))
    if bias is not None:
        y = add(y, to_dtype(bias, y.dtype))
    return to_dtype(y, result)


def standardized(x, axes, epsilon):
    """x with mean 0 and variance 1 over the axes."""
    centered = sub(x, reduce_mean(x, axes=axes, keepdims=True))
    spread = reduce_mean(mul(centered, centered), axes=axes, keepdims=True)
    return mul(centered, rsqrt(add(spread, epsilon)))


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
    return _affine(standardized(widened(x), axes, epsilon), scale, bias, x.dtype)


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


def _infer_group_norm(x, scale, bias, *, groups=1, epsilon=1e-5) -> TensorType:
    check_dtype("group_norm", x, FLOATS)
    require(x.rank >= 2, f"group_norm: x {x} has no channel dimension")
    channels = x.shape[1]
    require(
        groups >= 1 and (not isinstance(channels, int) or channels % groups == 0),
        f"group_norm: {dim_text(channels)} channels do not divide into {groups} groups",
    )
    for name, t in (("scale", scale), ("bias", bias)):
        require(
            t is None or t.shape == (channels,),
            f"group_norm: {name} {t} does not fit the {dim_text(channels)} channels of x",
        )
    return x


def _reference_group_norm(x, scale=None, bias=None, groups=1, epsilon=1e-5):
    wide, s, b = as_float64(x, scale, bias)
    split = wide.reshape(x.shape[0], groups, -1)
    y = _standardized(split, (2,), epsilon).reshape(x.shape)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    y = y if s is None else y * s.reshape(shape)
    return (y if b is None else y + b.reshape(shape)).astype(x.dtype)


def _standardized(x, axes, epsilon):
    if x.size == 0:
        return x
    y = x - x.mean(axis=axes, keepdims=True)
    return y / np.sqrt((y * y).mean(axis=axes, keepdims=True) + epsilon)


def _channel_affine(y, scale, bias, result: DType):
    """y[n, c, ...] * scale[c] + bias[c], in the type of y."""
    if scale is not None:
        y = mul(y, along(to_dtype(scale, y.dtype), 1, y.rank))
    if bias is not None:
        y = add(y, along(to_dtype(bias, y.dtype), 1, y.rank))
    return to_dtype(y, result)


def _expand_group_norm(x, scale, bias, *, groups, epsilon):
    """Statistics over [C/G, spatial] of [N, G, C/G, spatial]."""
    n, c, *rest = x.shape
    per = as_dim(as_expr(c) // groups)
    split = widened(reshape(x, shape=(n, groups, per, *rest)))
    y = standardized(split, tuple(range(2, split.rank)), epsilon)
    return _channel_affine(reshape(y, shape=x.shape), scale, bias, x.dtype)


group_norm = define(
    "group_norm", "x, scale?, bias?", infer=_infer_group_norm, reference=_reference_group_norm,
    expand=_expand_group_norm, dtypes=FLOATS,
    samples=("f32[2,6,3,3] f32[6] f32[6] groups=2", "f32[n,4,h] f32[4] groups=4 n=1,2 h=3",
             "f32[2,4] groups=2", "f16[2,4,3] f16[4] f16[4] groups=2"),
    doc="Each group of channels with mean 0 and variance 1, times scale plus bias.",
)  # fmt: skip


def _infer_instance_norm(x, scale, bias, *, epsilon=1e-5) -> TensorType:
    require(x.rank >= 3, f"instance_norm: x {x} has no spatial dimension")
    return _infer_group_norm(x, scale, bias)


def _reference_instance_norm(x, scale=None, bias=None, epsilon=1e-5):
    return _reference_group_norm(x, scale, bias, x.shape[1], epsilon)


def _expand_instance_norm(x, scale, bias, *, epsilon):
    y = standardized(widened(x), tuple(range(2, x.rank)), epsilon)
    return _channel_affine(y, scale, bias, x.dtype)


instance_norm = define(
    "instance_norm", "x, scale?, bias?", infer=_infer_instance_norm,
    reference=_reference_instance_norm, expand=_expand_instance_norm, dtypes=FLOATS,
    samples=("f32[2,3,4,4] f32[3] f32[3]", "f32[n,3,h] f32[3] f32[3] n=1,2 h=4", "f16[1,2,5]"),
    doc="Each channel of each image with mean 0 and variance 1, times scale plus bias.",
)  # fmt: skip


# ---- others ------------------------------------------------------------------------------------


def _infer_lrn(x, *, size=5, alpha=1e-4, beta=0.75, bias=1.0) -> TensorType:
    check_dtype("lrn", x, FLOATS)
    require(x.rank >= 2, f"lrn: x {x} has no channel dimension")
    require(size >= 1, f"lrn: size {size} is below 1")
    return x


def _reference_lrn(x, size=5, alpha=1e-4, beta=0.75, bias=1.0):
    (wide,) = as_float64(x)
    total = np.zeros_like(wide)
    for c in range(x.shape[1]):
        low, high = max(0, c - (size - 1) // 2), min(x.shape[1], c + size // 2 + 1)
        total[:, c] = (wide[:, low:high] ** 2).sum(axis=1)
    return (wide / (bias + alpha / size * total) ** beta).astype(x.dtype)


def _expand_lrn(x, *, size, alpha, beta, bias):
    wide = widened(x)
    ones = (1,) * (x.rank - 2)
    none = ((0, 0),) * (x.rank - 2)
    total = reduce_window(
        mul(wide, wide), window=(1, size, *ones), op="sum",
        padding=((0, 0), ((size - 1) // 2, size // 2), *none),
    )  # fmt: skip
    base = add(mul(total, alpha / size), bias)
    return to_dtype(div(wide, power(base, scalar_like(base, beta))), x.dtype)


lrn = define(
    "lrn", "x", infer=_infer_lrn, reference=_reference_lrn, expand=_expand_lrn, dtypes=FLOATS,
    samples=("f32[2,7,3,3] size=3", "f32[2,5,3] size=4 alpha=0.5 beta=0.5 bias=2.0",
             "f32[n,5,2] n=1,2", "f16[1,4,2] size=3"),
    doc="x over a power of the squares summed across neighbouring channels.",
)  # fmt: skip


def _infer_lp_norm(x, *, p=2, axis=-1, epsilon=0.0) -> TensorType:
    check_dtype("lp_norm", x, FLOATS)
    require(p in (1, 2), f"lp_norm: p is {p}, it is 1 or 2")
    normalize_axis("lp_norm", axis, x.rank)
    return x


def _reference_lp_norm(x, p=2, axis=-1, epsilon=0.0):
    (wide,) = as_float64(x)
    norm = (np.abs(wide) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
    norm = np.maximum(norm, epsilon) if epsilon else np.where(norm == 0, 1, norm)
    return (wide / norm).astype(x.dtype)


def _expand_lp_norm(x, *, p, axis, epsilon):
    """Without epsilon a zero vector stays zero, as ONNX has it; else the norm is at least that."""
    wide = widened(x)
    norm = (reduce_l1 if p == 1 else reduce_l2)(wide, axes=(axis,), keepdims=True)
    if epsilon:
        norm = maximum(norm, epsilon)
    else:
        norm = select(equal(norm, 0), scalar_like(norm, 1), norm)
    return to_dtype(div(wide, norm), x.dtype)


lp_norm = define(
    "lp_norm", "x", infer=_infer_lp_norm, reference=_reference_lp_norm, expand=_expand_lp_norm,
    dtypes=FLOATS,
    samples=("f32[3,4]", "f32[3,4] p=1 axis=0", "f32[n,4] epsilon=1e-12 n=1,3", "f16[3,4]",
             "f32[3,4]@0:0"),
    doc="x over its L1 or L2 norm along an axis.",
)  # fmt: skip
