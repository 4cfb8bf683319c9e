"""Quantized numbers: to and from integers or narrow floats, and products of them.

    quantize(x, scale, zero)    ->  clamp(round(x / scale) + zero)
    dequantize(x, scale, zero)  ->  (x - zero) * scale

scale (and zero, of the quantized type) is one number, a vector along `axis`, or, with `block` > 0,
a tensor of x's rank with one entry for every `block` elements along `axis`. Products are exact in
i32; zero points are taken out of them afterwards, so that the operands stay bytes:

    (x - a) (w - b)  ->  x w - a sum(w) - b sum(x) + k a b
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import (
    FLOATS8,
    SUBBYTE,
    DType,
    f32,
    f64,
    i8,
    i16,
    i32,
    u8,
    u16,
)  # fmt: skip
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops import reference as ref
from tensorwright.ops.activations import clamp
from tensorwright.ops.control import make_tuple
from tensorwright.ops.conv import add_bias, conv_general
from tensorwright.ops.define import composite, normalize_axis, require, scalar_like
from tensorwright.ops.elementwise import add, cast, div, equal, maximum, minimum, mul, select, sub
from tensorwright.ops.elementwise import round as round_even
from tensorwright.ops.index import full, size
from tensorwright.ops.linalg import matmul
from tensorwright.ops.movement import broadcast_to, reshape, slice
from tensorwright.ops.reduce import reduce_max, reduce_min, reduce_sum
from tensorwright.ops.widen import to_dtype

QUANTIZED = (i8, u8, i16, u16, *SUBBYTE, *FLOATS8)


# ---- scales ------------------------------------------------------------------------------------


def _check_parameter(op: str, name: str, t, x: TensorType, axis: int, block: int) -> None:
    if t is None or t.rank == 0 or t.shape == (1,):
        return
    axis = normalize_axis(op, axis, x.rank)
    if not block:
        require(t.shape == (x.shape[axis],),
                f"{op}: {name} is {t}; it must be one number or {dim_text(x.shape[axis])} of them "
                f"(axis {axis} of x)")  # fmt: skip
        return
    wanted = tuple(as_dim((as_expr(d) + block - 1) // block) if a == axis else d
                   for a, d in enumerate(x.shape))  # fmt: skip
    require(t.shape == wanted, f"{op}: {name} is {t}, blocks of {block} along axis {axis} of x "
            f"need {TensorType(t.dtype, wanted)}")  # fmt: skip


def spread(t: Node, shape, axis: int, block: int) -> Node:
    """A scale or zero point in a shape that broadcasts to `shape`."""
    if t.rank == 0:
        return t
    if t.rank == 1 and t.shape == (1,) and shape[axis] != 1:
        return reshape(t, shape=())
    if not block:
        return reshape(t, shape=(*t.shape, *(1,) * (len(shape) - 1 - axis % len(shape))))
    axis %= len(shape)
    split = reshape(t, shape=(*t.shape[: axis + 1], 1, *t.shape[axis + 1 :]))
    many = broadcast_to(split, shape=(*t.shape[: axis + 1], block, *t.shape[axis + 1 :]))
    whole = as_dim(as_expr(t.shape[axis]) * block)
    long = reshape(many, shape=(*t.shape[:axis], whole, *t.shape[axis + 1 :]))
    return long if whole == shape[axis] else slice(long, starts=(0,) * len(shape), stops=shape)


def _spread_array(t, shape, axis: int, block: int):
    if t is None or t.size == 1:
        return t if t is None else t.reshape(())
    if not block:
        return t.reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))])
    return np.take(np.repeat(t, block, axis), np.arange(shape[axis]), axis)


# ---- quantize ----------------------------------------------------------------------------------


def _target(zero, dtype) -> DType:
    if zero is not None:
        return zero.dtype
    return u8 if dtype is None else dtype_of(dtype)


def _check_quantize(
    x, scale, zero=None, *, axis=1, block=0, dtype=None, saturate=True, precision=None
) -> None:  # fmt: skip
    op = "quantize"
    target = _target(zero, dtype)
    require(target in QUANTIZED, f"{op}: {target} is not a quantized type")
    require(dtype is None or dtype_of(dtype) is target,
            f"{op}: the zero point is {target}, not {dtype}")  # fmt: skip
    require(scale.dtype.is_float, f"{op}: the scale is {scale.dtype}")
    _check_parameter(op, "scale", scale, x, axis, block)
    _check_parameter(op, "zero", zero, x, axis, block)


def _expand_quantize(
    x, scale, zero=None, *, axis=1, block=0, dtype=None, saturate=True, precision=None
):  # fmt: skip
    target = _target(zero, dtype)
    if precision is not None:
        wide = dtype_of(precision)
    else:
        wide = x.dtype if x.dtype.is_float else scale.dtype
        wide = f64 if f64 in (x.dtype, scale.dtype) else wide
    y = div(to_dtype(x, wide), spread(to_dtype(scale, wide), x.shape, axis, block))
    if target.is_float:
        return cast(y, dtype=target, saturate=saturate)
    y = round_even(y)
    # sums with a zero point are exact in f32 for 16 bits, not in f16
    y = y if wide in (f32, f64) else cast(y, dtype=f32)
    if zero is not None:
        y = add(y, spread(to_dtype(zero, y.dtype), x.shape, axis, block))
    return cast(clamp(y, low=target.min, high=target.max), dtype=target)


def _reference_quantize(
    x, scale, zero=None, axis=1, block=0, dtype=None, saturate=True, precision=None
):  # fmt: skip
    # a zero point of a narrow type may come in a wider one
    target = dtype_of(zero.dtype) if dtype is None and zero is not None else _target(None, dtype)
    wide = np.float64 if precision is None else dtype_of(precision).numpy
    if precision is None and x.dtype != np.float64:
        wide = x.dtype if dtype_of(x.dtype).is_float else scale.dtype
    y = x.astype(wide) / _spread_array(scale, x.shape, axis, block).astype(wide)
    if target.is_float:
        return ref.cast(y, target, saturate)
    y = np.round(y).astype(np.float64)
    if zero is not None:
        y = y + _spread_array(zero, x.shape, axis, block).astype(np.float64)
    y = np.where(np.isnan(y), 0, y)
    return np.clip(y, target.min, target.max).astype(np.int64).astype(target.numpy)


quantize = composite(
    "quantize", "x, scale, zero?", _expand_quantize, _check_quantize,
    reference=_reference_quantize,
    samples=(
        "f32[3,4]@-9:9 f32[]@0.1:0.2 u8[]", "f32[3,4]@-9:9 f32[4]@0.02:0.2 i8[4]@-9:9",
        "f32[n,4]@-9:9 f32[n]@0.1:0.2 axis=0 n=1,5 dtype=i8", "f32[9]@-900:900 f32[]@1:2 dtype=u16",
        "f32[3,8]@-9:9 f32[3,2]@0.1:0.2 axis=1 block=4 dtype=i4",
        "f32[7,2]@-9:9 f32[3,2]@0.1:0.2 i8[3,2]@-9:9 axis=0 block=3",
        "f32[9]@-900:900 f32[]@1:2 dtype=f8e4m3fn", "f32[9] f32[]@0.5:1 dtype=f8e5m2",
        "i32[9] f32[]@0.5:1 dtype=i8", "f32[9]@-9:9 f32[]@0.5:1 dtype=u2",
    ),
    doc="x over scale, rounded to even, plus zero, in a narrow type.",
)  # fmt: skip


def _check_dequantize(x, scale, zero=None, *, axis=1, block=0, dtype=None) -> None:
    op = "dequantize"
    require(x.dtype in (*QUANTIZED, i32), f"{op}: {x.dtype} is not a quantized type")
    require(scale.dtype.is_float, f"{op}: the scale is {scale.dtype}")
    require(zero is None or zero.dtype is x.dtype,
            f"{op}: the zero point is {zero and zero.dtype}, x is {x.dtype}")  # fmt: skip
    _check_parameter(op, "scale", scale, x, axis, block)
    _check_parameter(op, "zero", zero, x, axis, block)


def _expand_dequantize(x, scale, zero=None, *, axis=1, block=0, dtype=None):
    result = scale.dtype if dtype is None else dtype_of(dtype)
    wide = f64 if f64 in (result, scale.dtype) else f32
    if x.dtype is i32 and zero is not None:  # differences of i32 are not exact in f32
        y = to_dtype(sub(x, spread(zero, x.shape, axis, block)), wide)
    elif zero is not None and not x.dtype.is_float:
        y = sub(to_dtype(x, wide), spread(to_dtype(zero, wide), x.shape, axis, block))
    else:
        y = to_dtype(x, wide)
    return to_dtype(mul(y, spread(to_dtype(scale, wide), x.shape, axis, block)), result)


def _reference_dequantize(x, scale, zero=None, axis=1, block=0, dtype=None):
    y = x.astype(np.float64)
    if zero is not None and dtype_of(x.dtype).is_integer:
        y = y - _spread_array(zero, x.shape, axis, block).astype(np.float64)
    y = y * _spread_array(scale, x.shape, axis, block).astype(np.float64)
    return y.astype(scale.dtype if dtype is None else dtype_of(dtype).numpy)


dequantize = composite(
    "dequantize", "x, scale, zero?", _expand_dequantize, _check_dequantize,
    reference=_reference_dequantize,
    samples=(
        "u8[3,4] f32[] u8[]", "i8[3,4] f32[4] i8[4]@-9:9", "i8[n,4] f32[n] axis=0 n=1,5",
        "i4[3,8]@-8:7 f32[3,2] axis=1 block=4", "u4[7,2]@0:15 f16[3,2] u4[3,2]@0:15 axis=0 block=3",
        "f8e4m3fn[9] f32[]", "i32[9] f32[]", "u16[9] f32[] dtype=f16", "f4e2m1[9] f32[]",
    ),
    doc="(x - zero) * scale.",
)  # fmt: skip


# ---- dynamic -----------------------------------------------------------------------------------


def _expand_dynamic(x, *, dtype=u8):
    """The range always includes 0, which is represented exactly."""
    target = dtype_of(dtype)
    high = maximum(reduce_max(x), 0.0)
    low = minimum(reduce_min(x), 0.0)
    width = sub(high, low)
    width = select(equal(width, 0.0), scalar_like(width, 1), width)
    scale = div(width, float(target.max - target.min))
    zero = sub(scalar_like(low, target.min), div(low, scale))
    zero = round_even(clamp(zero, low=target.min, high=target.max))
    y = add(round_even(div(x, scale)), zero)
    y = cast(clamp(y, low=target.min, high=target.max), dtype=target)
    return make_tuple(y, scale, cast(zero, dtype=target))


def _reference_dynamic(x, dtype=u8):
    target = dtype_of(dtype)
    low, high = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
    width = x.dtype.type(1) if high == low else high - low
    scale = (width / x.dtype.type(target.max - target.min)).astype(x.dtype)
    zero = np.round(np.clip(x.dtype.type(target.min) - low / scale, target.min, target.max))
    y = np.clip(np.round(x / scale) + zero, target.min, target.max)
    return y.astype(target.numpy), np.asarray(scale), np.asarray(zero).astype(target.numpy)


dynamic_quantize = composite(
    "dynamic_quantize", "x", _expand_dynamic, reference=_reference_dynamic, dtypes=(f32,),
    samples=("f32[3,4]", "f32[n]@0:3 n=1,6", "f32[5]@0:0", "f32[4]@-3:-1"),
    doc="x with a scale and zero point from its own range: (y, scale, zero).",
)  # fmt: skip


# ---- integer products --------------------------------------------------------------------------


def _check_bytes(op: str, **operands) -> None:
    for name, t in operands.items():
        require(t.dtype in (i8, u8), f"{op}: {name} is {t.dtype}, not i8 or u8")


def _check_matmul_integer(x, w, x_zero=None, w_zero=None) -> None:
    _check_bytes("matmul_integer", x=x, w=w)


def _expand_matmul_integer(x, w, x_zero=None, w_zero=None):
    y = matmul(x, w, dtype=i32)
    rows, columns = max(x.rank - 2, 0), w.rank - 1
    a, b = _zero_along(x_zero, x.rank, rows), _zero_along(w_zero, w.rank, columns)
    if a is not None:
        total = reduce_sum(cast(w, dtype=i32), axes=(max(w.rank - 2, 0),), keepdims=w.rank > 1)
        y = sub(y, _drop_vector(mul(a, total), x.rank == 1))
    if b is not None:
        total = reduce_sum(cast(x, dtype=i32), axes=(x.rank - 1,), keepdims=w.rank > 1)
        y = sub(y, _drop_vector(mul(total, b), x.rank == 1))
    if a is not None and b is not None:
        count = cast(reshape(size(dims=(x.shape[-1],)), shape=()), dtype=i32)
        y = add(y, _drop_vector(mul(mul(a, b), count), x.rank == 1))
    return y


def _zero_along(zero: Node | None, rank: int, axis: int) -> Node | None:
    """A zero point in i32, shaped to broadcast along an axis of a tensor of that rank."""
    if zero is None:
        return None
    zero = cast(zero, dtype=i32)
    if zero.rank == 0 or zero.rank == rank:
        return zero
    if zero.shape == (1,):
        return reshape(zero, shape=())
    ones = (1,) * (rank - 1 - axis)
    return reshape(zero, shape=(*zero.shape, *ones)) if ones else zero


def _drop_vector(y: Node, vector: bool) -> Node:
    """A correction for a product of a vector, which has no rows."""
    return reshape(y, shape=y.shape[1:]) if vector and y.rank and y.shape[0] == 1 else y


def _difference(x, zero, axis: int):
    x = x.astype(np.int64)
    if zero is None:
        return x
    zero = np.asarray(zero).astype(np.int64)
    if zero.size == 1:
        return x - zero.reshape(())
    return x - zero.reshape([-1 if a == axis else 1 for a in range(x.ndim)])


def _reference_matmul_integer(x, w, x_zero=None, w_zero=None):
    left = _difference(x, x_zero, max(x.ndim - 2, 0))
    return (left @ _difference(w, w_zero, w.ndim - 1)).astype(np.int32)


matmul_integer = composite(
    "matmul_integer", "x, w, x_zero?, w_zero?", _expand_matmul_integer, _check_matmul_integer,
    reference=_reference_matmul_integer,
    samples=("u8[3,4] i8[4,5]", "u8[n,4] u8[4,5] u8[] u8[] n=1,3", "i8[2,3,4] i8[4,5] i8[] i8[5]",
             "u8[3,4] i8[4,5] u8[3]", "u8[4] i8[4,5] u8[] i8[5]", "u8[2,3,4] i8[4] u8[] i8[]",
             "u8[2,3,4] u8[2,4,5] u8[] u8[]"),
    doc="(x - x_zero) times (w - w_zero) in i32; zero points by row of x and column of w.",
)  # fmt: skip


def centered(x: Node, zero: Node | None, axis: int) -> Node:
    """x minus its zero point, in i16; x itself if there is none."""
    if zero is None:
        return x
    zero = cast(zero, dtype=i16)
    if zero.rank == 1 and zero.shape != (1,):
        ones = (1,) * (x.rank - 1 - axis)
        zero = reshape(zero, shape=(*zero.shape, *ones)) if ones else zero
    elif zero.rank == 1:
        zero = reshape(zero, shape=())
    return sub(cast(x, dtype=i16), zero)


def _check_conv_integer(x, w, x_zero=None, w_zero=None, **attrs) -> None:
    _check_bytes("conv_integer", x=x, w=w)


def _expand_conv_integer(
    x, w, x_zero=None, w_zero=None, *, strides=None, padding=None, dilation=None, groups=1
):  # fmt: skip
    attrs = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups,
             "dtype": i32}  # fmt: skip
    if w_zero is not None:
        x, w = centered(x, x_zero, 1), centered(w, w_zero, 0)
        return conv_general(to_dtype(x, i16), to_dtype(w, i16), **attrs)
    y = conv_general(x, w, **attrs)
    if x_zero is None:
        return y
    # what the zero point adds to each element: less where the window reaches into the padding
    ones = full(shape=(1, *x.shape[1:]), value=1, dtype=x.dtype)
    return sub(y, mul(_zero_along(x_zero, x.rank, 1), conv_general(ones, w, **attrs)))


def _reference_conv_integer(x, w, x_zero=None, w_zero=None, **attrs):
    left, right = _difference(x, x_zero, 1), _difference(w, w_zero, 0)
    return conv_general.reference(left, right, dtype=i32, **attrs)


conv_integer = composite(
    "conv_integer", "x, w, x_zero?, w_zero?", _expand_conv_integer, _check_conv_integer,
    reference=_reference_conv_integer,
    samples=("u8[1,2,5,5] i8[3,2,3,3]", "u8[1,2,5,5] u8[3,2,3,3] u8[] u8[3] padding=((1,1),(1,1))",
             "i8[1,4,6] i8[4,2,3] i8[] groups=2 strides=(2,)"),
    doc="Convolution of (x - x_zero) with (w - w_zero) in i32; padding counts as x_zero.",
)  # fmt: skip


# ---- products between quantized tensors --------------------------------------------------------


def _requantize(y: Node, factor: Node, zero: Node) -> Node:
    """clamp(round(y * factor) + zero), in f32, in the type of the zero point."""
    target = zero.dtype
    y = round_even(mul(cast(y, dtype=f32), factor))
    zero = reshape(zero, shape=()) if zero.rank else zero
    y = add(y, cast(zero, dtype=f32))
    return cast(clamp(y, low=target.min, high=target.max), dtype=target)


def _factor(x_scale, w_scale, y_scale) -> Node:
    scalar = lambda t: reshape(t, shape=()) if t.rank == 1 and t.shape == (1,) else t
    x_scale, w_scale, y_scale = (to_dtype(scalar(t), f32) for t in (x_scale, w_scale, y_scale))
    return div(mul(x_scale, w_scale), y_scale)


def _expand_quantized_matmul(x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero):
    y = _expand_matmul_integer(x, w, x_zero, w_zero)
    return _requantize(y, _factor(x_scale, w_scale, y_scale), y_zero)


def _numpy_requantize(y, x_scale, w_scale, y_scale, zero, axis=None):
    target = dtype_of(zero.dtype)
    scale = (x_scale.astype(np.float32) * w_scale.astype(np.float32)) / y_scale.astype(np.float32)
    if scale.size == 1:
        scale = scale.reshape(())
    elif axis is not None:
        scale = scale.reshape([-1 if a == axis else 1 for a in range(y.ndim)])
    y = np.round(y.astype(np.float32) * scale) + zero.reshape(()).astype(np.float32)
    return np.clip(y, target.min, target.max).astype(np.int64).astype(target.numpy)


def _reference_quantized_matmul(x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero):
    y = _reference_matmul_integer(x, w, x_zero, w_zero)
    return _numpy_requantize(y, x_scale, w_scale, y_scale, y_zero)


def _check_quantized(op: str):
    def check(x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *rest, **attrs) -> None:
        _check_bytes(op, x=x, w=w, y_zero=y_zero)

    return check


quantized_matmul = composite(
    "quantized_matmul", "x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero",
    _expand_quantized_matmul, _check_quantized("quantized_matmul"),
    reference=_reference_quantized_matmul,
    samples=("u8[3,4] f32[]@0.1:0.2 u8[] i8[4,5] f32[]@0.1:0.2 i8[]@0:0 f32[]@1:2 u8[]",
             "i8[n,4] f32[]@0.1:0.2 i8[] i8[4,5] f32[5]@0.1:0.2 i8[5] f32[]@1:2 i8[] n=1,3"),
    doc="A matrix product whose operands and result are quantized.",
)  # fmt: skip


def _expand_quantized_conv(
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias=None, *, strides=None,
    padding=None, dilation=None, groups=1,
):  # fmt: skip
    y = _expand_conv_integer(x, w, x_zero, w_zero, strides=strides, padding=padding,
                             dilation=dilation, groups=groups)  # fmt: skip
    y = add_bias(y, bias, 1)
    factor = _factor(x_scale, w_scale, y_scale)
    if factor.rank == 1:
        factor = reshape(factor, shape=(*factor.shape, *(1,) * (x.rank - 2)))
    return _requantize(y, factor, y_zero)


def _reference_quantized_conv(
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias=None, **attrs
):  # fmt: skip
    y = _reference_conv_integer(x, w, x_zero, w_zero, **attrs)
    y = y if bias is None else y + bias.reshape(-1, *(1,) * (x.ndim - 2))
    return _numpy_requantize(y, x_scale, w_scale, y_scale, y_zero, axis=1)


quantized_conv = composite(
    "quantized_conv", "x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias?",
    _expand_quantized_conv, _check_quantized("quantized_conv"),
    reference=_reference_quantized_conv,
    samples=("u8[1,2,5,5] f32[]@0.1:0.2 u8[] i8[3,2,3,3] f32[3]@0.1:0.2 i8[3]@0:0 f32[]@9:20 u8[] "
             "i32[3] padding=((1,1),(1,1))",
             "u8[1,1,7,7] f32[]@0.1:0.2 u8[] u8[1,1,1,1] f32[1]@0.1:0.2 u8[1] f32[]@1:2 u8[]"),
    doc="A convolution whose operands and result are quantized; the bias is i32.",
)  # fmt: skip
