"""ONNX convolutions, pooling and matrix products.

`auto_pad`, `ceil_mode` and output shapes become explicit padding here, so that the operators below
know only (low, high) pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Ints, Number, converter
from tensorwright.ir.expr import Expr, as_dim, as_expr, ceildiv, compare, maximum
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim

AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
Padding = tuple[tuple[Dim, Dim], ...]


# ---- windows ------------------------------------------------------------------------------------


def per_axis(c: Call, values: Sequence[int], count: int, what: str, default: int = 1) -> tuple:
    """One positive number a spatial axis."""
    values = tuple(values) or (default,) * count
    if len(values) != count or any(v < (1 if default else 0) for v in values):
        raise c.fail(f"{what} is {list(values)} for {count} spatial dimensions")
    return values


def paddings(
    c: Call, sizes: Sequence[Dim], window: Sequence[Dim], strides, dilation, pads: Ints,
    auto_pad: str,
) -> Padding:  # fmt: skip
    """(low, high) for each spatial axis."""
    n = len(sizes)
    if auto_pad not in AUTO_PADS:
        raise c.fail(f"auto_pad is {auto_pad!r}, not one of {', '.join(AUTO_PADS)}")
    if auto_pad in ("NOTSET", "VALID"):
        pads = tuple(pads) if auto_pad == "NOTSET" and pads else (0,) * (2 * n)
        if len(pads) != 2 * n:
            raise c.fail(f"{len(pads)} pads for {n} spatial dimensions")
        for d, k, e, low, high in zip(sizes, window, dilation, pads, pads[n:]):
            if isinstance(d, Expr) and isinstance(k, int):
                reach = (k - 1) * e + 1
                c.importer.demands.require(compare("ge", d + (low + high), as_expr(reach)))
        return tuple((pads[k], pads[k + n]) for k in range(n))
    found = []
    for d, k, s, e in zip(sizes, window, strides, dilation):
        reach = (as_expr(k) - 1) * e + 1
        total = maximum((ceildiv(as_expr(d), s) - 1) * s + reach - as_expr(d), as_expr(0))
        small = total // 2
        large = total - small
        pair = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        found.append(tuple(map(as_dim, pair)))
    return tuple(found)


# ---- convolution --------------------------------------------------------------------------------


def conv_attributes(c: Call, x: Node, w: Node, kernel_shape, strides, dilations, pads, auto_pad):
    """strides, dilation and padding of a convolution of x[N, C, ...] by w[O, I, ...]."""
    n = x.rank - 2
    if n < 1 or w.rank != x.rank:
        raise c.fail(f"the input has rank {x.rank} and the weights rank {w.rank}")
    if kernel_shape is not None and tuple(kernel_shape) != w.shape[2:]:
        raise c.fail(f"kernel_shape {list(kernel_shape)} differs from the weights {w.type}")
    strides = per_axis(c, strides, n, "strides")
    dilation = per_axis(c, dilations, n, "dilations")
    padding = paddings(c, x.shape[2:], w.shape[2:], strides, dilation, pads, auto_pad)
    return {"strides": strides, "dilation": dilation, "padding": padding}


@converter("Conv")
def conv(
    c: Call, x: Node, w: Node, bias: Node | None = None, *, auto_pad: str = "NOTSET",
    dilations: Ints = (), group: int = 1, kernel_shape: Ints | None = None, pads: Ints = (),
    strides: Ints = (),
) -> Node:  # fmt: skip
    attrs = conv_attributes(c, x, w, kernel_shape, strides, dilations, pads, auto_pad)
    return ops.conv(x, w, bias, groups=group, **attrs)


@converter("ConvTranspose")
def conv_transpose(
    c: Call, x: Node, w: Node, bias: Node | None = None, *, auto_pad: str = "NOTSET",
    dilations: Ints = (), group: int = 1, kernel_shape: Ints | None = None,
    output_padding: Ints = (), output_shape: Ints = (), pads: Ints = (), strides: Ints = (),
) -> Node:  # fmt: skip
    n = x.rank - 2
    if n < 1 or w.rank != x.rank:
        raise c.fail(f"the input has rank {x.rank} and the weights rank {w.rank}")
    strides = per_axis(c, strides, n, "strides")
    dilation = per_axis(c, dilations, n, "dilations")
    more = per_axis(c, output_padding, n, "output_padding", 0)
    if auto_pad not in AUTO_PADS:
        raise c.fail(f"auto_pad is {auto_pad!r}")
    if output_shape or auto_pad.startswith("SAME"):
        if output_shape and len(output_shape) not in (n, n + 2):
            raise c.fail(f"output_shape has {len(output_shape)} dimensions")
        wanted = output_shape[-n:] or [as_dim(as_expr(d) * s) for d, s in zip(x.shape[2:], strides)]
        padding = _padding_for(x, w, strides, dilation, more, wanted, auto_pad)
    else:
        padding = paddings(c, x.shape[2:], w.shape[2:], strides, dilation, pads, auto_pad)
    return ops.conv_transpose(
        x, w, bias, strides=strides, padding=padding, output_padding=more, dilation=dilation,
        groups=group,
    )  # fmt: skip


def _padding_for(x, w, strides, dilation, more, wanted, auto_pad) -> Padding:
    """The cropping that gives the wanted output sizes."""
    found = []
    for d, k, s, e, m, o in zip(x.shape[2:], w.shape[2:], strides, dilation, more, wanted):
        full = (as_expr(d) - 1) * s + m + (as_expr(k) - 1) * e + 1
        total = full - as_expr(o)
        half = total // 2
        pair = (half, total - half) if auto_pad == "SAME_UPPER" else (total - half, half)
        found.append(tuple(map(as_dim, pair)))
    return tuple(found)


# ---- pooling ------------------------------------------------------------------------------------


def pool_attributes(
    c: Call, x: Node, kernel_shape: Ints, strides: Ints, dilations: Ints, pads: Ints,
    auto_pad: str, ceil_mode: int,
) -> dict:  # fmt: skip
    n = x.rank - 2
    if n < 1:
        raise c.fail(f"the input has rank {x.rank}")
    window = per_axis(c, kernel_shape, n, "kernel_shape")
    strides = per_axis(c, strides, n, "strides")
    dilation = per_axis(c, dilations, n, "dilations")
    padding = paddings(c, x.shape[2:], window, strides, dilation, pads, auto_pad)
    up = bool(ceil_mode) and not auto_pad.startswith("SAME")
    return {"window": window, "strides": strides, "dilation": dilation, "padding": padding,
            "ceil_mode": up}  # fmt: skip


@converter("MaxPool")
def max_pool(
    c: Call, x: Node, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    dilations: Ints = (), pads: Ints = (), storage_order: int = 0, strides: Ints = (),
) -> object:  # fmt: skip
    attrs = pool_attributes(c, x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    if not c.wants(1):
        return ops.max_pool(x, **attrs)
    values, indices = ops.max_pool_with_indices(x, **attrs)
    return values, _storage_order(x, indices, storage_order)


def _storage_order(x: Node, indices: Node, order: int) -> Node:
    """Row-major positions within a channel, as positions in the whole tensor; `order` 1 counts the
    spatial dimensions column by column."""
    return indices if not order else column_major(x, indices)


def column_major(x: Node, indices: Node) -> Node:
    """Flat row-major indices into x as column-major ones within each channel."""
    spatial = x.shape[2:]
    rest, result = indices, None
    for k, d in reversed(list(enumerate(spatial))):
        coordinate = ops.rem(rest, size_of(d))
        rest = ops.trunc_div(rest, size_of(d))
        term = ops.mul(coordinate, size_of(as_dim(_product(spatial[:k]))))
        result = term if result is None else ops.add(result, term)
    return ops.add(result, ops.mul(rest, size_of(as_dim(_product(spatial)))))


def size_of(d: Dim) -> Node:
    """A dimension as an i64 scalar."""
    if isinstance(d, int):
        return constant(np.array(d, np.int64))
    return ops.reshape(ops.size(dims=(d,)), shape=())


def _product(dims):
    result = as_expr(1)
    for d in dims:
        result = result * as_expr(d)
    return result


@converter("AveragePool")
def average_pool(
    c: Call, x: Node, *, kernel_shape: Ints, auto_pad: str = "NOTSET", ceil_mode: int = 0,
    count_include_pad: int = 0, dilations: Ints = (), pads: Ints = (), strides: Ints = (),
) -> Node:  # fmt: skip
    attrs = pool_attributes(c, x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return ops.avg_pool(x, count_padding=bool(count_include_pad), **attrs)


@converter("LpPool")
def lp_pool(
    c: Call, x: Node, *, kernel_shape: Ints | None = None, auto_pad: str = "NOTSET",
    ceil_mode: int = 0, dilations: Ints = (), p: Number = 2, pads: Ints = (), strides: Ints = (),
) -> Node:  # fmt: skip
    if kernel_shape is None:
        raise c.fail("it lacks its attribute 'kernel_shape'")
    attrs = pool_attributes(c, x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return ops.lp_pool(x, p=norm_of(c, p), **attrs)


def norm_of(c: Call, p: Number) -> Number:
    if not 0 < p < math.inf:
        raise c.fail(f"there is no norm of p = {p}")
    return p


@converter("GlobalMaxPool")
def global_max_pool(c: Call, x: Node) -> Node:
    return ops.global_max_pool(x)


@converter("GlobalAveragePool")
def global_average_pool(c: Call, x: Node) -> Node:
    return ops.global_avg_pool(x)


@converter("GlobalLpPool")
def global_lp_pool(c: Call, x: Node, *, p: Number = 2) -> Node:
    return ops.global_lp_pool(x, p=norm_of(c, p))


@converter("MaxUnpool")
def max_unpool(
    c: Call, x: Node, indices: Node, output_shape: Node | None = None, *, kernel_shape: Ints,
    pads: Ints = (), strides: Ints = (),
) -> Node:  # fmt: skip
    n = x.rank - 2
    window = per_axis(c, kernel_shape, n, "kernel_shape")
    strides = per_axis(c, strides, n, "strides")
    padding = paddings(c, x.shape[2:], window, strides, (1,) * n, pads, "NOTSET")
    inferred = tuple(
        as_dim((as_expr(d) - 1) * s - low - high + k)
        for d, s, k, (low, high) in zip(x.shape[2:], strides, window, padding)
    )
    # positions count within the shape that the pooling saw
    own = x.shape[:2] + inferred
    target = own if output_shape is None else c.dims(output_shape)
    if tuple(target) == own or len(target) != x.rank:
        return ops.max_unpool(x, indices, shape=own)
    return ops.max_unpool(x, moved_positions(indices, own, target), shape=target)


def moved_positions(indices: Node, own: Sequence[Dim], target: Sequence[Dim]) -> Node:
    """Row-major positions in a tensor of shape `own` as those in one of shape `target`."""
    rest, result, scale = indices, None, as_expr(1)
    for d, t in zip(reversed(own), reversed(target)):
        coordinate = ops.rem(rest, size_of(d))
        rest = ops.trunc_div(rest, size_of(d))
        term = ops.mul(coordinate, size_of(as_dim(scale)))
        result = term if result is None else ops.add(result, term)
        scale = scale * as_expr(t)
    return result


# ---- matrix products ----------------------------------------------------------------------------


@converter("MatMul")
def matmul(c: Call, a: Node, b: Node) -> Node:
    return ops.matmul(a, b)


@converter("Gemm")
def gemm(
    c: Call, a: Node, b: Node, addend: Node | None = None, *, alpha: float = 1.0,
    beta: float = 1.0, transA: int = 0, transB: int = 0, broadcast: int = 0,
) -> Node:  # fmt: skip
    return ops.gemm(
        a, b, addend, alpha=alpha, beta=beta, trans_a=bool(transA), trans_b=bool(transB)
    )


@converter("Einsum")
def einsum(c: Call, *xs: Node, equation: str) -> Node:
    return ops.einsum(*xs, equation=equation.replace(" ", ""))


@converter("Det")
def det(c: Call, x: Node) -> Node:
    return ops.det(x)
