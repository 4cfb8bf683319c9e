"""Operators of domain com.microsoft that ONNX Runtime's tools write: fused layers and products.

Attention is in `onnx_contrib_attention`, operators on quantized tensors in
`onnx_contrib_quantized`.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Floats, Ints, converter
from tensorwright.frontend.onnx_ops_index import trilu
from tensorwright.frontend.onnx_ops_movement import axis_of, range_
from tensorwright.frontend.onnx_ops_nn import conv_attributes
from tensorwright.frontend.onnx_ops_norm import layer_normalization
from tensorwright.frontend.onnx_ops_recurrent import part
from tensorwright.ir.dtype import i32
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node

DOMAIN = "com.microsoft"

converter("Trilu", domain=DOMAIN)(trilu)
converter("Range", domain=DOMAIN)(range_)
converter("LayerNormalization", domain=DOMAIN)(layer_normalization)


# ---- activations --------------------------------------------------------------------------------


@converter("Gelu", domain=DOMAIN)
def gelu(c: Call, x: Node) -> Node:
    return ops.gelu(x)


@converter("BiasGelu", domain=DOMAIN)
def bias_gelu(c: Call, x: Node, bias: Node) -> Node:
    return ops.gelu(ops.add(x, bias))


@converter("FastGelu", domain=DOMAIN)
def fast_gelu(c: Call, x: Node, bias: Node | None = None) -> Node:
    return ops.gelu(x if bias is None else ops.add(x, bias), approximate="tanh")


@converter("QuickGelu", domain=DOMAIN)
def quick_gelu(c: Call, x: Node, *, alpha: float = 1.702) -> Node:
    return ops.swish(x, alpha=alpha)


@converter("BiasSplitGelu", domain=DOMAIN)
def bias_split_gelu(c: Call, x: Node, bias: Node) -> Node:
    """One half of x + bias times the gelu of the other."""
    x = ops.add(x, bias)
    last, width = x.rank - 1, x.shape[-1]
    half = as_dim(as_expr(width) // 2)
    return ops.mul(part(x, last, 0, half), ops.gelu(part(x, last, half, width)))


@converter("BiasAdd", domain=DOMAIN)
def bias_add(c: Call, x: Node, bias: Node, skip: Node) -> Node:
    return ops.add(ops.add(x, bias), skip)


def activated(c: Call, x: Node, name: str | None, values: Floats) -> Node:
    """x through the activation that a fused operator names."""
    if not name:
        return x
    a, b = (*values, 0.0, 0.0)[:2]
    table: dict[str, Callable[[], Node]] = {
        "Relu": lambda: ops.relu(x), "Tanh": lambda: ops.tanh(x),
        "Sigmoid": lambda: ops.sigmoid(x), "LeakyRelu": lambda: ops.leaky_relu(x, alpha=a),
        "Clip": lambda: ops.clamp(x, low=a, high=b),
        "HardSigmoid": lambda: ops.hard_sigmoid(x, alpha=a, beta=b),
        "Gelu": lambda: ops.gelu(x), "FastGelu": lambda: ops.gelu(x, approximate="tanh"),
    }  # fmt: skip
    if name not in table:
        raise c.fail(f"activation {name!r} is not supported")
    return table[name]()


# ---- products -----------------------------------------------------------------------------------


def turned(x: Node, matrix: int, batch: int) -> Node:
    """x with its last two dimensions swapped, or (batch) its first moved before its last."""
    if batch:
        x = ops.transpose(x, perm=(*range(1, x.rank - 1), 0, x.rank - 1))
    if matrix and x.rank > 1:
        x = ops.transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))
    return x


@converter("FusedMatMul", "TransposeMatMul", domain=DOMAIN)
def fused_matmul(
    c: Call, a: Node, b: Node, *, alpha: float = 1.0, transA: int = 0, transB: int = 0,
    transBatchA: int = 0, transBatchB: int = 0,
) -> Node:  # fmt: skip
    y = ops.matmul(turned(a, transA, transBatchA), turned(b, transB, transBatchB))
    return y if alpha == 1.0 else ops.mul(y, alpha)


@converter("FusedGemm", domain=DOMAIN)
def fused_gemm(
    c: Call, a: Node, b: Node, addend: Node | None = None, *, alpha: float = 1.0,
    beta: float = 1.0, transA: int = 0, transB: int = 0, activation: str = "",
    activation_alpha: float = 0.0, activation_beta: float = 0.0, activation_gamma: float = 0.0,
) -> Node:  # fmt: skip
    y = ops.gemm(a, b, addend, alpha=alpha, beta=beta, trans_a=bool(transA), trans_b=bool(transB))
    return activated(c, y, activation, (activation_alpha, activation_beta))


@converter("GemmFastGelu", domain=DOMAIN)
def gemm_fast_gelu(c: Call, x: Node, w: Node, bias: Node | None = None) -> Node:
    return fast_gelu(c, ops.matmul(x, w), bias)


@converter("FusedConv", domain=DOMAIN)
def fused_conv(
    c: Call, x: Node, w: Node, bias: Node | None = None, addend: Node | None = None, *,
    activation: str = "", activation_params: Floats = (), auto_pad: str = "NOTSET",
    dilations: Ints = (), group: int = 1, kernel_shape: Ints | None = None, pads: Ints = (),
    strides: Ints = (),
) -> Node:  # fmt: skip
    attrs = conv_attributes(c, x, w, kernel_shape, strides, dilations, pads, auto_pad)
    y = ops.conv(x, w, bias, groups=group, **attrs)
    y = y if addend is None else ops.add(y, addend)
    return activated(c, y, activation, activation_params)


@converter("NhwcConv", domain=DOMAIN)
def nhwc_conv(
    c: Call, x: Node, w: Node, bias: Node | None = None, *, auto_pad: str = "NOTSET",
    dilations: Ints = (), group: int = 1, kernel_shape: Ints | None = None, pads: Ints = (),
    strides: Ints = (),
) -> Node:  # fmt: skip
    """Channels last: x[N, spatial, C] by w[O, spatial, I]."""
    if x.rank < 3 or w.rank != x.rank:
        raise c.fail(f"the input is {x.type} and the weights {w.type}")
    last = x.rank - 1
    first = ops.transpose(x, perm=(0, last, *range(1, last)))
    attrs = conv_attributes(
        c, first, ops.transpose(w, perm=(0, last, *range(1, last))), kernel_shape, strides,
        dilations, pads, auto_pad,
    )  # fmt: skip
    w = ops.transpose(w, perm=(*range(1, last + 1), 0))
    return ops.conv(x, w, bias, groups=group, layout="NLAST", **attrs)


# ---- normalizations -----------------------------------------------------------------------------


@converter("SimplifiedLayerNormalization")
@converter("SimplifiedLayerNormalization", domain=DOMAIN)
def simplified_layer_normalization(
    c: Call, x: Node, scale: Node, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple:
    axes = tuple(range(axis_of(c, axis, x.rank), x.rank))
    return ops.rms_norm(x, scale, axes=axes, epsilon=epsilon), inverse_rms(x, axes, epsilon)


def inverse_rms(x: Node, axes: tuple[int, ...], epsilon: float) -> Node:
    square = ops.reduce_mean(ops.mul(x, x), axes=axes, keepdims=True)
    return ops.rsqrt(ops.add(square, epsilon))


def skipped(x: Node, skip: Node, bias: Node | None) -> Node:
    y = ops.add(x, skip)
    return y if bias is None else ops.add(y, bias)


@converter("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(
    c: Call, x: Node, skip: Node, gamma: Node, beta: Node | None = None,
    bias: Node | None = None, *, epsilon: float = 1e-12,
) -> tuple:  # fmt: skip
    y = skipped(x, skip, bias)
    last = (y.rank - 1,)
    mean = ops.reduce_mean(y, axes=last, keepdims=True)
    centered = ops.sub(y, mean)
    spread = ops.rsqrt(ops.add(ops.reduce_mean(ops.mul(centered, centered), axes=last,
                                               keepdims=True), epsilon))  # fmt: skip
    return ops.layer_norm(y, gamma, beta, axes=last, epsilon=epsilon), mean, spread, y


@converter("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_simplified_layer_normalization(
    c: Call, x: Node, skip: Node, gamma: Node, bias: Node | None = None, *,
    epsilon: float = 1e-12,
) -> tuple:  # fmt: skip
    y = skipped(x, skip, bias)
    last = (y.rank - 1,)
    spread = inverse_rms(y, last, epsilon)
    return ops.rms_norm(y, gamma, axes=last, epsilon=epsilon), spread, spread, y


@converter("EmbedLayerNormalization", domain=DOMAIN)
def embed_layer_normalization(
    c: Call, ids: Node, segments: Node | None, words: Node, positions: Node,
    kinds: Node | None, gamma: Node, beta: Node, mask: Node | None = None,
    position_ids: Node | None = None, *, epsilon: float = 1e-12, mask_index_type: int = 1,
) -> tuple:  # fmt: skip
    """The normalized sum of word, position and segment embeddings, and the mask's lengths."""
    if ids.rank != 2:
        raise c.fail(f"the ids are {ids.type}, not [batch, length]")
    total = ops.gather(words, ids, axis=0)
    if position_ids is None:
        n = ids.shape[1]
        places = part(positions, 0, 0, n) if positions.shape[0] != n else positions
    else:
        places = ops.gather(positions, position_ids, axis=0)
    total = ops.add(total, places)
    if segments is not None and kinds is not None:
        total = ops.add(total, ops.gather(kinds, segments, axis=0))
    y = ops.layer_norm(total, gamma, beta, axes=(2,), epsilon=epsilon)
    if mask is not None and mask_index_type:
        lengths = ops.reduce_sum(ops.cast(mask, dtype=i32), axes=(1,))
    else:
        lengths = ops.full(shape=(ids.shape[0],), value=0, dtype=i32)
    return y, lengths, total


# ---- small things -------------------------------------------------------------------------------


@converter("ExpandDims", domain=DOMAIN)
def expand_dims(c: Call, x: Node, axis: Node) -> Node:
    at = axis_of(c, int(c.number(axis, "axis")), x.rank + 1)
    return ops.reshape(x, shape=(*x.shape[:at], 1, *x.shape[at:]))


@converter("ReduceSumInteger", domain=DOMAIN)
def reduce_sum_integer(c: Call, x: Node, *, axes: Ints, keepdims: int = 1) -> Node:
    wide = ops.cast(x, dtype=i32 if x.dtype.is_signed else "u32")
    return ops.reduce_sum(wide, axes=axes, keepdims=bool(keepdims))
