"""ONNX quantization: QDQ nodes, and operators on quantized tensors."""

from __future__ import annotations

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_elementwise import tensor_dtype
from tensorwright.frontend.onnx_ops_movement import axis_of
from tensorwright.frontend.onnx_ops_nn import conv_attributes
from tensorwright.ir.dtype import u8
from tensorwright.ir.graph import Node


def _axis(c: Call, axis: int, x: Node, scale: Node) -> int:
    """The axis along which scales lie; of no meaning for a single one."""
    if scale.rank == 0 or (scale.rank == 1 and scale.shape[0] == 1) or x.rank == 0:
        return axis if -x.rank <= axis < x.rank else 0
    return axis_of(c, axis, x.rank)


@converter("QuantizeLinear")
def quantize_linear(
    c: Call, x: Node, scale: Node, zero: Node | None = None, *, axis: int = 1,
    block_size: int = 0, output_dtype: int = 0, precision: int = 0, saturate: int = 1,
) -> Node:  # fmt: skip
    target = zero.dtype if zero is not None else u8
    if output_dtype:
        target = tensor_dtype(c, output_dtype)
    return ops.quantize(
        x, scale, zero, axis=_axis(c, axis, x, scale), block=block_size, dtype=target,
        saturate=bool(saturate), precision=tensor_dtype(c, precision) if precision else None,
    )  # fmt: skip


@converter("DequantizeLinear")
def dequantize_linear(
    c: Call, x: Node, scale: Node, zero: Node | None = None, *, axis: int = 1,
    block_size: int = 0, output_dtype: int = 0,
) -> Node:  # fmt: skip
    return ops.dequantize(
        x, scale, zero, axis=_axis(c, axis, x, scale), block=block_size,
        dtype=tensor_dtype(c, output_dtype) if output_dtype else None,
    )  # fmt: skip


@converter("DynamicQuantizeLinear")
def dynamic_quantize_linear(c: Call, x: Node) -> tuple:
    return ops.items(ops.dynamic_quantize(x))


@converter("MatMulInteger")
def matmul_integer(
    c: Call, a: Node, b: Node, a_zero: Node | None = None, b_zero: Node | None = None
) -> Node:
    return ops.matmul_integer(a, b, a_zero, b_zero)


@converter("ConvInteger")
def conv_integer(
    c: Call, x: Node, w: Node, x_zero: Node | None = None, w_zero: Node | None = None, *,
    auto_pad: str = "NOTSET", dilations: Ints = (), group: int = 1,
    kernel_shape: Ints | None = None, pads: Ints = (), strides: Ints = (),
) -> Node:  # fmt: skip
    attrs = conv_attributes(c, x, w, kernel_shape, strides, dilations, pads, auto_pad)
    return ops.conv_integer(x, w, x_zero, w_zero, groups=group, **attrs)


@converter("QLinearMatMul")
def qlinear_matmul(
    c: Call, a: Node, a_scale: Node, a_zero: Node, b: Node, b_scale: Node, b_zero: Node,
    y_scale: Node, y_zero: Node,
) -> Node:  # fmt: skip
    return ops.quantized_matmul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)


@converter("QLinearConv")
def qlinear_conv(
    c: Call, x: Node, x_scale: Node, x_zero: Node, w: Node, w_scale: Node, w_zero: Node,
    y_scale: Node, y_zero: Node, bias: Node | None = None, *, auto_pad: str = "NOTSET",
    dilations: Ints = (), group: int = 1, kernel_shape: Ints | None = None, pads: Ints = (),
    strides: Ints = (),
) -> Node:  # fmt: skip
    attrs = conv_attributes(c, x, w, kernel_shape, strides, dilations, pads, auto_pad)
    return ops.quantized_conv(
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias, groups=group, **attrs
    )
