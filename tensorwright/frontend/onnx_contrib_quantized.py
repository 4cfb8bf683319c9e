"""Operators of domain com.microsoft on quantized tensors.

`QLinear*` are what they say: dequantize, compute in f32, quantize. `MatMulNBits` keeps its weights
narrow, as a constant of u4 (or u8, u2) with a scale and zero point for each block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_contrib import DOMAIN
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_movement import axis_of
from tensorwright.frontend.onnx_ops_nn import pool_attributes
from tensorwright.frontend.onnx_ops_quantize import dequantize_linear, quantize_linear
from tensorwright.ir.dtype import DType, f32, u2, u4, u8
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.op import OpDef

converter("QuantizeLinear", domain=DOMAIN)(quantize_linear)
converter("DequantizeLinear", domain=DOMAIN)(dequantize_linear)


def opened(x: Node, scale: Node, zero: Node | None) -> Node:
    """The numbers that a quantized tensor stands for."""
    return ops.dequantize(x, scale, zero)


def closed(y: Node, scale: Node, zero: Node | None, target: DType) -> Node:
    return ops.quantize(y, scale, zero, dtype=target)


def _binary(op: OpDef):
    def convert(
        c: Call, a: Node, a_scale: Node, a_zero: Node | None, b: Node, b_scale: Node,
        b_zero: Node | None, y_scale: Node, y_zero: Node | None = None,
    ) -> Node:  # fmt: skip
        y = op(opened(a, a_scale, a_zero), opened(b, b_scale, b_zero))
        return closed(y, y_scale, y_zero, a.dtype)

    return convert


converter("QLinearAdd", domain=DOMAIN)(_binary(ops.add))
converter("QLinearMul", domain=DOMAIN)(_binary(ops.mul))


@converter("QLinearSigmoid", domain=DOMAIN)
def qlinear_sigmoid(
    c: Call, x: Node, x_scale: Node, x_zero: Node | None, y_scale: Node,
    y_zero: Node | None = None,
) -> Node:  # fmt: skip
    return closed(ops.sigmoid(opened(x, x_scale, x_zero)), y_scale, y_zero, x.dtype)


@converter("QLinearLeakyRelu", domain=DOMAIN)
def qlinear_leaky_relu(
    c: Call, x: Node, x_scale: Node, x_zero: Node | None, y_scale: Node,
    y_zero: Node | None = None, *, alpha: float = 0.01,
) -> Node:  # fmt: skip
    y = ops.leaky_relu(opened(x, x_scale, x_zero), alpha=alpha)
    return closed(y, y_scale, y_zero, x.dtype)


@converter("QLinearSoftmax", domain=DOMAIN)
def qlinear_softmax(
    c: Call, x: Node, x_scale: Node, x_zero: Node | None, y_scale: Node,
    y_zero: Node | None = None, *, axis: int = -1, opset: int = 13,
) -> Node:  # fmt: skip
    axis = axis_of(c, axis, x.rank)
    if opset < 13 and axis != x.rank - 1:
        raise c.fail("softmax of an opset below 13 over several axes is not supported")
    return closed(ops.softmax(opened(x, x_scale, x_zero), axis=axis), y_scale, y_zero, x.dtype)


def _first(x: Node, channels_last: int) -> Node:
    """x with channels in second place."""
    return ops.transpose(x, perm=(0, x.rank - 1, *range(1, x.rank - 1))) if channels_last else x


def _last(x: Node, channels_last: int) -> Node:
    return ops.transpose(x, perm=(0, *range(2, x.rank), 1)) if channels_last else x


@converter("QLinearGlobalAveragePool", domain=DOMAIN)
def qlinear_global_average_pool(
    c: Call, x: Node, x_scale: Node, x_zero: Node, y_scale: Node, y_zero: Node, *,
    channels_last: int = 0,
) -> Node:  # fmt: skip
    y = ops.global_avg_pool(opened(_first(x, channels_last), x_scale, x_zero))
    return closed(_last(y, channels_last), y_scale, y_zero, x.dtype)


@converter("QLinearAveragePool", domain=DOMAIN)
def qlinear_average_pool(
    c: Call, x: Node, x_scale: Node, x_zero: Node | None, y_scale: Node,
    y_zero: Node | None = None, *, kernel_shape: Ints, auto_pad: str = "NOTSET",
    ceil_mode: int = 0, channels_last: int = 0, count_include_pad: int = 0, pads: Ints = (),
    strides: Ints = (),
) -> Node:  # fmt: skip
    x = _first(x, channels_last)
    attrs = pool_attributes(c, x, kernel_shape, strides, (), pads, auto_pad, ceil_mode)
    y = ops.avg_pool(opened(x, x_scale, x_zero), count_padding=bool(count_include_pad), **attrs)
    return closed(_last(y, channels_last), y_scale, y_zero, x.dtype)


@converter("QLinearConcat", domain=DOMAIN)
def qlinear_concat(c: Call, y_scale: Node, y_zero: Node, *parts: Node, axis: int) -> Node:
    if not parts or len(parts) % 3:
        raise c.fail(f"{len(parts)} operands do not make (tensor, scale, zero point) triples")
    triples = [parts[k : k + 3] for k in range(0, len(parts), 3)]
    axis = axis_of(c, axis, triples[0][0].rank)
    y = ops.concat(*(opened(*t) for t in triples), axis=axis)
    return closed(y, y_scale, y_zero, triples[0][0].dtype)


@converter("QLinearWhere", domain=DOMAIN)
def qlinear_where(
    c: Call, condition: Node, x: Node, x_scale: Node, x_zero: Node, y: Node, y_scale: Node,
    y_zero: Node, z_scale: Node, z_zero: Node,
) -> Node:  # fmt: skip
    z = ops.select(condition, opened(x, x_scale, x_zero), opened(y, y_scale, y_zero))
    return closed(z, z_scale, z_zero, x.dtype)


# ---- products -----------------------------------------------------------------------------------


def _scaled(y: Node, scales: Sequence[Node], bias: Node | None) -> Node:
    """An i32 product as f32, times its scales."""
    y = ops.cast(y, dtype=f32)
    for s in scales:
        y = ops.mul(y, scalar_or_row(s))
    return y if bias is None else ops.add(y, bias)


def scalar_or_row(scale: Node) -> Node:
    """A scale of one element as a scalar; one a column as it is."""
    return ops.reshape(scale, shape=()) if scale.rank == 1 and scale.shape == (1,) else scale


@converter("MatMulIntegerToFloat", domain=DOMAIN)
def matmul_integer_to_float(
    c: Call, a: Node, b: Node, a_scale: Node, b_scale: Node, a_zero: Node | None = None,
    b_zero: Node | None = None, bias: Node | None = None,
) -> Node:  # fmt: skip
    return _scaled(ops.matmul_integer(a, b, a_zero, b_zero), (a_scale, b_scale), bias)


@converter("DynamicQuantizeMatMul", domain=DOMAIN)
def dynamic_quantize_matmul(
    c: Call, a: Node, b: Node, b_scale: Node, b_zero: Node | None = None,
    bias: Node | None = None,
) -> Node:  # fmt: skip
    narrow, scale, zero = ops.items(ops.dynamic_quantize(a))
    return _scaled(ops.matmul_integer(narrow, b, zero, b_zero), (scale, b_scale), bias)


@converter("QGemm", domain=DOMAIN)
def qgemm(
    c: Call, a: Node, a_scale: Node, a_zero: Node, b: Node, b_scale: Node, b_zero: Node,
    addend: Node | None = None, y_scale: Node | None = None, y_zero: Node | None = None, *,
    alpha: float = 1.0, transA: int = 0, transB: int = 0,
) -> Node:  # fmt: skip
    a = ops.transpose(a, perm=(1, 0)) if transA else a
    b = ops.transpose(b, perm=(1, 0)) if transB else b
    y = ops.matmul_integer(a, b, a_zero, b_zero)
    y = y if addend is None else ops.add(y, addend)
    y = _scaled(y, (a_scale, b_scale), None)
    y = y if alpha == 1.0 else ops.mul(y, alpha)
    if y_scale is None:
        return y
    return closed(y, y_scale, y_zero, u8 if y_zero is None else y_zero.dtype)


NARROW = {2: u2, 4: u4, 8: u8}


@converter("MatMulNBits", domain=DOMAIN)
def matmul_n_bits(
    c: Call, a: Node, b: Node, scales: Node, zeros: Node | None = None, order: Node | None = None,
    bias: Node | None = None, *, K: int, N: int, bits: int = 4, block_size: int,
    accuracy_level: int = 0, weight_prepacked: int = 0,
) -> Node:  # fmt: skip
    """a times the transpose of weights[N, K] that are packed in blocks along K."""
    if bits not in NARROW or block_size < 16 or block_size & (block_size - 1) or weight_prepacked:
        raise c.fail(f"{bits} bits in blocks of {block_size} are not supported")
    if order is not None:
        raise c.fail("g_idx (a permuted order) is not supported")
    blocks = math.ceil(K / block_size)
    packed = c.array(b, "weights").reshape(-1)
    if packed.dtype != np.uint8 or packed.size != N * blocks * block_size * bits // 8:
        raise c.fail(f"the weights are {b.type}, {N} x {K} at {bits} bits were expected")
    weights = unpack(packed, bits).reshape(N, blocks * block_size)[:, :K]
    scale = ops.reshape(ops.cast(scales, dtype=a.dtype), shape=(N, blocks))
    narrow = constant(np.ascontiguousarray(weights).astype(NARROW[bits].numpy), b.name)
    if zeros is not None and zeros.dtype.is_float:
        # not representable in the weights' type: taken out of the numbers instead
        plain = ops.dequantize(narrow, scale, None, axis=1, block=block_size, dtype=a.dtype)
        offset = ops.mul(ops.reshape(ops.cast(zeros, dtype=a.dtype), shape=(N, blocks)), scale)
        wide = ops.sub(plain, repeated(offset, block_size, K))
    else:
        zero = constant(zero_points(c, zeros, bits, N, blocks).astype(NARROW[bits].numpy))
        wide = ops.dequantize(narrow, scale, zero, axis=1, block=block_size, dtype=a.dtype)
    return ops.linear(a, wide, bias)


def repeated(x: Node, count: int, total: int) -> Node:
    """x[n, blocks] with each entry repeated along the second axis, `total` columns in all."""
    n, blocks = x.shape
    many = ops.broadcast_to(ops.reshape(x, shape=(n, blocks, 1)), shape=(n, blocks, count))
    flat = ops.reshape(many, shape=(n, blocks * count))
    return ops.slice(flat, starts=(0, 0), stops=(n, total), steps=(1, 1))


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Numbers packed into bytes from the low bits up."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    return (packed[:, None] >> shifts & ((1 << bits) - 1)).reshape(-1)


def zero_points(c: Call, zeros: Node | None, bits: int, rows: int, blocks: int) -> np.ndarray:
    """A zero point for each block; rows are padded to whole bytes."""
    if zeros is None:
        return np.full((rows, blocks), 1 << (bits - 1), np.uint8)
    packed = c.array(zeros, "zero points").reshape(rows, -1)
    width = math.ceil(blocks * bits / 8)
    if packed.dtype != np.uint8 or packed.shape[1] != width:
        raise c.fail(f"the zero points are {zeros.type}, {rows} x {width} bytes were expected")
    return np.stack([unpack(row, bits)[:blocks] for row in packed])
