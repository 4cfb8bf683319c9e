"""Reductions made of others: means, norms, logarithms of sums, variance.

reduce_mean(x) = reduce_sum(x) / count,  f16 and bf16 through f32
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import FLOATS, NUMERIC
from tensorwright.ir.type import TensorType, product
from tensorwright.ops import reference as ref
from tensorwright.ops.define import check_dtype, define, normalize_axes, scalar_like
from tensorwright.ops.elementwise import abs as absolute
from tensorwright.ops.elementwise import (
    add,
    cast,
    div,
    exp,
    is_finite,
    log,
    maximum,
    mul,
    select,
    sqrt,
    sub,
    trunc_div,
)  # fmt: skip
from tensorwright.ops.index import size
from tensorwright.ops.movement import reshape
from tensorwright.ops.reduce import (
    FLOAT_REDUCE_SAMPLES,
    REDUCE_SAMPLES,
    reduce_max,
    reduce_sum,
    reduced_shape,
)  # fmt: skip
from tensorwright.ops.widen import to_dtype, widened


def element_count(x, axes, dtype):
    """How many elements of x fall together, as a number or (symbolic) a scalar node."""
    count = product(x.shape[a] for a in normalize_axes("mean", axes, x.rank))
    if isinstance(count, int):
        return count
    return cast(reshape(size(dims=(count,)), shape=()), dtype=dtype)


def _float_reduction(name: str, expand, numpy, dtypes=FLOATS, **columns):
    """A composite reduction; narrow floats are widened around `expand(x, axes, keepdims)`."""

    def infer(x: TensorType, *, axes=None, keepdims=False) -> TensorType:
        check_dtype(name, x, dtypes)
        return TensorType(x.dtype, reduced_shape(name, x.shape, axes, keepdims))

    def reference(x, axes=None, keepdims=False):
        axes = normalize_axes(name, axes, x.ndim)
        wide = x.astype(np.float64 if x.dtype.kind not in "iu" else np.int64)
        return np.asarray(numpy(wide, axis=axes, keepdims=keepdims)).astype(x.dtype)

    def expansion(x, *, axes, keepdims):
        axes = normalize_axes(name, axes, x.rank)
        return to_dtype(expand(widened(x), axes, keepdims), x.dtype)

    samples = REDUCE_SAMPLES if dtypes is NUMERIC else FLOAT_REDUCE_SAMPLES
    return define(name, "x", infer=infer, reference=reference, expand=expansion, dtypes=dtypes,
                  samples=columns.pop("samples", samples), **columns)  # fmt: skip


def _expand_mean(x, axes, keepdims):
    total = reduce_sum(x, axes=axes, keepdims=keepdims)
    count = element_count(x, axes, x.dtype)
    if not x.dtype.is_float:
        return trunc_div(total, count)
    return mul(total, 1 / count) if isinstance(count, int) and count else div(total, count)


def _numpy_mean(x, axis, keepdims):
    total = np.sum(x, axis=axis, keepdims=keepdims)
    count = np.prod([x.shape[a] for a in axis], dtype=np.int64)
    return ref.divide(total, count) if x.dtype.kind == "f" else ref.trunc_div(total, count)


def _log_sum_exp(x, axes, keepdims):
    """The maximum is taken out; one that is not finite would turn the differences to NaN."""
    top = reduce_max(x, axes=axes, keepdims=True)
    top = select(is_finite(top), top, scalar_like(x, 0))
    total = log(reduce_sum(exp(sub(x, top)), axes=axes, keepdims=True))
    return _drop(add(total, top), x, axes, keepdims)


def _drop(y, x, axes, keepdims):
    """y, which kept the reduced axes, in the shape asked for."""
    return y if keepdims else reshape(y, shape=reduced_shape("reduce", x.shape, axes, False))


def _numpy_log_sum_exp(x, axis, keepdims):
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(all="ignore"):
        y = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis)


def _plain(f):
    """The NumPy side: `f` of what np.sum gives."""
    return lambda x, axis, keepdims: f(x, lambda v: np.sum(v, axis=axis, keepdims=keepdims))


reduce_mean = _float_reduction(
    "reduce_mean", _expand_mean, _numpy_mean, NUMERIC, onnx="ReduceMean",
    doc="The mean over axes; integers round to zero.",
)  # fmt: skip
reduce_l1 = _float_reduction(
    "reduce_l1", lambda x, axes, keepdims: reduce_sum(absolute(x), axes=axes, keepdims=keepdims),
    _plain(lambda x, total: total(np.abs(x))), NUMERIC, onnx="ReduceL1",
    doc="The sum of absolute values over axes.",
)  # fmt: skip
reduce_sum_square = _float_reduction(
    "reduce_sum_square",
    lambda x, axes, keepdims: reduce_sum(mul(x, x), axes=axes, keepdims=keepdims),
    _plain(lambda x, total: total(x * x)), NUMERIC, onnx="ReduceSumSquare",
    doc="The sum of squares over axes.",
)  # fmt: skip


def _expand_l2(x, axes, keepdims):
    if not x.dtype.is_float:
        wide = cast(x, dtype="f64")
        return cast(sqrt(reduce_sum(mul(wide, wide), axes=axes, keepdims=keepdims)), dtype=x.dtype)
    return sqrt(reduce_sum(mul(x, x), axes=axes, keepdims=keepdims))


reduce_l2 = _float_reduction(
    "reduce_l2", _expand_l2, _plain(lambda x, total: np.sqrt(total(x * x))), NUMERIC,
    onnx="ReduceL2", doc="The root of the sum of squares over axes.",
)  # fmt: skip


def _expand_log_sum(x, axes, keepdims):
    if not x.dtype.is_float:
        total = reduce_sum(cast(x, dtype="f64"), axes=axes, keepdims=keepdims)
        return cast(log(total), dtype=x.dtype)
    return log(reduce_sum(x, axes=axes, keepdims=keepdims))


reduce_log_sum = _float_reduction(
    "reduce_log_sum", _expand_log_sum, _plain(lambda x, total: np.log(total(x))),
    onnx="ReduceLogSum", samples=tuple(s.replace("]", "]@0.1:3", 1) for s in FLOAT_REDUCE_SAMPLES),
    doc="The logarithm of the sum over axes.",
)  # fmt: skip
reduce_log_sum_exp = _float_reduction(
    "reduce_log_sum_exp", _log_sum_exp, _numpy_log_sum_exp, onnx="ReduceLogSumExp",
    doc="The logarithm of the sum of exponentials over axes, without overflow.",
)  # fmt: skip


# ---- variance ----------------------------------------------------------------------------------


def _infer_variance(x: TensorType, *, axes=None, keepdims=False, correction=0) -> TensorType:
    check_dtype("variance", x, FLOATS)
    return TensorType(x.dtype, reduced_shape("variance", x.shape, axes, keepdims))


def _reference_variance(x, axes=None, keepdims=False, correction=0):
    wide, axes = x.astype(np.float64), normalize_axes("variance", axes, x.ndim)
    count = np.prod([x.shape[a] for a in axes], dtype=np.int64)
    with np.errstate(all="ignore"):
        centered = wide - wide.sum(axis=axes, keepdims=True) / count
        total = (centered * centered).sum(axis=axes, keepdims=keepdims)
        return np.asarray(total / max(count - correction, 0)).astype(x.dtype)


def _expand_variance(x, *, axes, keepdims, correction):
    wide = widened(x)
    centered = sub(wide, reduce_mean(wide, axes=axes, keepdims=True))
    total = reduce_sum(mul(centered, centered), axes=axes, keepdims=keepdims)
    count = element_count(wide, axes, wide.dtype)
    if isinstance(count, int):
        count = scalar_like(wide, max(count - correction, 0))
    elif correction:
        count = maximum(sub(count, correction), 0)
    return to_dtype(div(total, count), x.dtype)


variance = define(
    "variance", "x", infer=_infer_variance, reference=_reference_variance,
    expand=_expand_variance, dtypes=FLOATS,
    samples=("f32[3,4]", "f32[3,4,5] axes=(1,) correction=1", "f16[9,3] axes=(0,)",
             "f32[n,5] axes=(0,) keepdims=True n=2,7"),
    doc="The mean square distance from the mean; correction=1 divides by one less.",
)  # fmt: skip
