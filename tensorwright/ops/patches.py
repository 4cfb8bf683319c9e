"""Windows as columns and back, and layers made with them: deformed convolution, unpooling.

im2col(x, window=(3, 3))  # f32[n, c, h, w] -> f32[n, c*9, windows]; col2im is its adjoint
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, INTEGERS, NUMERIC, i64
from tensorwright.ir.expr import Buffer, Expr, all_of, as_dim, as_expr, cast, const, eq, select
from tensorwright.ir.expr import maximum as max_expr
from tensorwright.ir.expr import minimum as min_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import Stmt, loops
from tensorwright.ir.type import TensorType, dim_text, product, shape_of
from tensorwright.ops.conv import add_bias, inside, per_axis, window_extent
from tensorwright.ops.define import (
    accumulate,
    composite,
    compute,
    define,
    names,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import (
    add,
    floor,
    less_equal,
    logical_and,
    maximum,
    minimum,
    mul,
    sub,
)  # fmt: skip
from tensorwright.ops.elementwise import cast as cast_to
from tensorwright.ops.elementwise import (
    select as where,
)
from tensorwright.ops.index import full, gather_elements, iota, scatter_elements
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import (
    broadcast_to,
    pad,
    reshape,
    slice_axis,
    split_position,
    squeeze,
    transpose,
)  # fmt: skip


def _patch_attrs(op: str, rank: int, strides, padding, dilation):
    n = rank - 2
    return list(zip(per_axis(op, strides, 1, n), per_axis(op, padding, (0, 0), n),
                    per_axis(op, dilation, 1, n)))  # fmt: skip


def _infer_im2col(x, *, window=(), strides=None, padding=None, dilation=None) -> TensorType:
    require(x.rank == len(window) + 2,
            f"im2col: a window {window} does not fit x {x}")  # fmt: skip
    attrs = _patch_attrs("im2col", x.rank, strides, padding, dilation)
    counts = [window_extent(d, w, s, p, e) for d, w, (s, p, e) in zip(x.shape[2:], window, attrs)]
    columns = product((x.shape[1], *window))
    return TensorType(x.dtype, (x.shape[0], columns, product(counts)))


def _lower_im2col(out: Buffer, x: Buffer, *, window, strides, padding, dilation) -> Stmt:
    attrs = _patch_attrs("im2col", x.rank, strides, padding, dilation)
    counts = [window_extent(d, w, s, p, e) for d, w, (s, p, e) in zip(x.shape[2:], window, attrs)]

    def element(n: Expr, column: Expr, place: Expr) -> Expr:
        c, *ks = split_position(column, (x.shape[1], *window))
        at, conditions = [], []
        for k, i, d, (s, p, e) in zip(ks, split_position(place, counts), x.shape[2:], attrs):
            where, more = inside(i * s + k * e - as_expr(p[0]), d, p)
            at.append(where)
            conditions += more
        return select(all_of(conditions), x[(n, c, *at)], const(0, x.dtype))

    return compute(out, element)


def _reference_im2col(x, window=(), strides=None, padding=None, dilation=None):
    attrs = _patch_attrs("", x.ndim, strides, padding, dilation)
    x = np.pad(x, [(0, 0), (0, 0), *(p for _, p, _ in attrs)])
    counts = [(d - (w - 1) * e - 1) // s + 1
              for d, w, (s, _, e) in zip(x.shape[2:], window, attrs)]  # fmt: skip
    columns = [x[(..., *(np.s_[k * e : k * e + (o - 1) * s + 1 : s]
                         for k, o, (s, _, e) in zip(ks, counts, attrs)))]
               for ks in np.ndindex(*window)]  # fmt: skip
    y = np.stack(columns, axis=2)
    return y.reshape(x.shape[0], -1, math.prod(counts))


im2col = define(
    "im2col", "x", infer=_infer_im2col, reference=_reference_im2col, lower=_lower_im2col,
    gradient=lambda g, y, x, *, window, **attrs: (
        col2im(g, image=x.shape[2:], window=window, **attrs),),
    samples=("f32[1,2,5,6] window=(2,3)", "f32[2,1,5] window=(3,) strides=(2,) padding=((1,1),)",
             "f32[n,2,6] window=(2,) dilation=(2,) n=1,2"),
    doc="Every window of x as a column: [batch, channels * window, windows].",
)  # fmt: skip


def _infer_col2im(
    x, *, image=(), window=(), strides=None, padding=None, dilation=None
) -> TensorType:  # fmt: skip
    image = shape_of(image)
    require(x.rank == 3, f"col2im: x is {x}; it must be [batch, channels * window, windows]")
    channels = as_dim(as_expr(x.shape[1]) // as_expr(product(window)))
    y = TensorType(x.dtype, (x.shape[0], channels, *image))
    back = _infer_im2col(y, window=window, strides=strides, padding=padding, dilation=dilation)
    require(back.shape == x.shape, f"col2im: x is {x}, windows over {y} are {back}")
    return y


def _lower_col2im(out: Buffer, x: Buffer, *, image, window, strides, padding, dilation) -> Stmt:
    attrs = _patch_attrs("col2im", out.rank, strides, padding, dilation)
    counts = [window_extent(d, w, s, p, e) for d, w, (s, p, e) in zip(image, window, attrs)]

    def nest(n: Expr, c: Expr, *i: Expr) -> Stmt:
        def step(acc: Expr, *ks: Expr) -> Expr:
            column, place, conditions = c, const(0), []
            for k, w, v, count, (s, p, e) in zip(ks, window, i, counts, attrs):
                column = column * as_expr(w) + k
                first = v + as_expr(p[0]) - k * e
                last = (as_expr(count) - 1) * s
                conditions += [first >= 0, first <= last, eq(first % s, 0)]
                place = place * as_expr(count) + min_expr(max_expr(first, 0), last) // s
            return acc + select(all_of(conditions), cast(x[n, column, place], acc.dtype), 0)

        return accumulate(out, (n, c, *i), 0, window, step)

    return loops(names(out.rank), out.shape, nest)


def _reference_col2im(x, image=(), window=(), strides=None, padding=None, dilation=None):
    attrs = _patch_attrs("", len(image) + 2, strides, padding, dilation)
    sizes = [d + p[0] + p[1] for d, (_, p, _) in zip(image, attrs)]
    counts = [(d - (w - 1) * e - 1) // s + 1 for d, w, (s, _, e) in zip(sizes, window, attrs)]
    parts = x.astype(np.float64).reshape(x.shape[0], -1, *window, *counts)
    y = np.zeros((x.shape[0], parts.shape[1], *sizes))
    for ks in np.ndindex(*window):
        at = tuple(np.s_[k * e : k * e + (o - 1) * s + 1 : s]
                   for k, o, (s, _, e) in zip(ks, counts, attrs))  # fmt: skip
        y[(..., *at)] += parts[(np.s_[:], np.s_[:], *ks)]
    crop = tuple(np.s_[p[0] : p[0] + d] for d, (_, p, _) in zip(image, attrs))
    return y[(..., *crop)].astype(x.dtype)


col2im = define(
    "col2im", "x", infer=_infer_col2im, reference=_reference_col2im, lower=_lower_col2im,
    gradient=lambda g, y, x, *, image, **attrs: (im2col(g, **attrs),),
    samples=("f32[1,12,16] image=(5,6) window=(2,3)",
             "f32[2,3,3] image=(5,) window=(3,) strides=(2,) padding=((1,1),)",
             "f32[n,4,4] image=(6,) window=(2,) dilation=(2,) n=1,2", "f16[1,4,4] image=(3,3) "
             "window=(2,2)"),
    doc="The columns of im2col added up where they came from.",
)  # fmt: skip


# ---- deformed convolution ----------------------------------------------------------------------


def _check_deform(
    x, w, offset, bias=None, mask=None, *, strides=None, padding=None, dilation=None, groups=1,
    offset_groups=1,
) -> None:  # fmt: skip
    op = "deform_conv"
    same_dtype(op, x, w, offset, bias, mask)
    require(
        x.rank == 4 and w.rank == 4 and offset.rank == 4,
        f"{op}: x {x}, w {w} and offset {offset} must have two spatial dimensions",
    )
    require(as_dim(as_expr(w.shape[1]) * groups) == x.shape[1],
            f"{op}: x has {dim_text(x.shape[1])} channels, w takes {dim_text(w.shape[1])} in each "
            f"of {groups} groups")  # fmt: skip
    cells = product((*w.shape[2:], offset_groups))
    require(offset.shape[1] == as_dim(as_expr(cells) * 2),
            f"{op}: offset has {dim_text(offset.shape[1])} channels, the window needs "
            f"{dim_text(as_dim(as_expr(cells) * 2))}")  # fmt: skip
    require(mask is None or mask.shape[1] == cells, f"{op}: mask is {mask}")


def _expand_deform(
    x, w, offset, bias=None, mask=None, *, strides=None, padding=None, dilation=None, groups=1,
    offset_groups=1,
):  # fmt: skip
    """Sample x at every displaced window element into columns, then contract them with w."""
    n, c, height, width = x.shape
    out, window = offset.shape[2:], w.shape[2:]
    cells = product(window)
    attrs = _patch_attrs("deform_conv", 4, strides, padding, dilation)
    moves = reshape(offset, shape=(n, offset_groups, cells, 2, *out))
    positions = []
    for axis, (s, p, e) in enumerate(attrs):
        move = squeeze(slice_axis(moves, 3, axis, axis + 1), (3,))
        grid = iota(shape=tuple(out[axis] if a == axis else 1 for a in range(2)), axis=axis,
                    dtype=offset.dtype)  # fmt: skip
        grid = add(mul(grid, float(s)), -float(p[0])) if p[0] else mul(grid, float(s))
        cell = _cell_positions(window, axis, e, offset.dtype)
        positions.append(add(add(move, grid), reshape(cell, shape=(cells, 1, 1))))
    shape = (n, offset_groups, product((cells, *out)))
    flat = [reshape(p, shape=shape) for p in positions]
    per = as_dim(as_expr(c) // offset_groups)
    image = reshape(x, shape=(n, offset_groups, per, product((height, width))))
    value = _bilinear(image, flat, (height, width))
    if mask is not None:
        weight = reshape(mask, shape=(n, offset_groups, 1, shape[2]))
        value = mul(value, weight)
    columns = reshape(value, shape=(n, groups, product((as_dim(as_expr(c) // groups), cells)),
                                    product(out)))  # fmt: skip
    o = as_dim(as_expr(w.shape[0]) // groups)
    kernel = reshape(w, shape=(groups, o, columns.shape[2]))
    y = dot_general(kernel, columns, batch=((0,), (1,)), contract=((2,), (2,)))  # [g, o, n, out]
    y = reshape(transpose(y, perm=(2, 0, 1, 3)), shape=(n, w.shape[0], *out))
    return add_bias(y, bias, 1)


def _cell_positions(window, axis: int, dilation: int, dtype) -> Node:
    """How far each element of a window lies from its first, along one axis, flattened."""
    grid = iota(shape=tuple(window[axis] if a == axis else 1 for a in range(2)), axis=axis,
                dtype=dtype)  # fmt: skip
    spread = broadcast_to(mul(grid, float(dilation)), shape=window)
    return reshape(spread, shape=(product(window),))


def _bilinear(image: Node, at, sizes) -> Node:
    """image[n, g, c, h*w] between elements at positions [n, g, points]; zero outside."""
    n, g, c, _ = image.shape
    points = at[0].shape[2]
    base = [floor(p) for p in at]
    total = None
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        flat, weight, inside_ = None, None, None
        for p, low, step, size in zip(at, base, corner, sizes):
            place = add(low, 1.0) if step else low
            w = sub(p, low) if step else sub(add(low, 1.0), p)
            last = full(shape=(), value=as_dim(as_expr(size) - 1), dtype=p.dtype)
            keep = logical_and(less_equal(scalar_like(p, 0), place), less_equal(place, last))
            where_ = cast_to(maximum(minimum(place, last), 0.0), dtype=i64)
            flat = where_ if flat is None else add(
                mul(flat, full(shape=(), value=size, dtype=i64)), where_)  # fmt: skip
            weight = w if weight is None else mul(weight, w)
            inside_ = keep if inside_ is None else logical_and(inside_, keep)
        spread = broadcast_to(reshape(flat, shape=(n, g, 1, points)), shape=(n, g, c, points))
        value = gather_elements(image, spread, axis=3)
        weight = where(inside_, weight, scalar_like(weight, 0))
        part = mul(value, reshape(weight, shape=(n, g, 1, points)))
        total = part if total is None else add(total, part)
    return total


def _reference_deform(
    x, w, offset, bias=None, mask=None, strides=None, padding=None, dilation=None, groups=1,
    offset_groups=1,
):  # fmt: skip
    (n, c, height, width), (o, per, kh, kw) = x.shape, w.shape
    attrs = _patch_attrs("", 4, strides, padding, dilation)
    out = offset.shape[2:]
    moves = offset.astype(np.float64).reshape(n, offset_groups, kh * kw, 2, *out)
    gates = np.ones((n, offset_groups, kh * kw, *out)) if mask is None else mask.astype(
        np.float64).reshape(n, offset_groups, kh * kw, *out)  # fmt: skip
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    columns = np.zeros((n, c, kh * kw, *out))
    for b, g, k, i, j in np.ndindex(n, offset_groups, kh * kw, *out):
        row, column = (v * s - p[0] + cell * e + moves[b, g, k, a, i, j]
                       for a, (v, cell, (s, p, e)) in enumerate(
                           zip((i, j), divmod(k, kw), attrs)))  # fmt: skip
        value = _reference_between(padded[b], row, column, height, width)
        group = np.s_[g * c // offset_groups : (g + 1) * c // offset_groups]
        columns[b, group, k, i, j] = value[group] * gates[b, g, k, i, j]
    columns = columns.reshape(n, groups, per * kh * kw, -1)
    kernel = w.astype(np.float64).reshape(groups, o // groups, per * kh * kw)
    y = np.einsum("gok,ngkp->ngop", kernel, columns).reshape(n, o, *out)
    return (y if bias is None else y + bias.reshape(-1, 1, 1)).astype(x.dtype)


def _reference_between(padded, row, column, height, width):
    """All channels at a position of an image with a border of zeros."""
    if row <= -1 or column <= -1 or row >= height or column >= width:
        return np.zeros(len(padded))
    r, c = math.floor(row), math.floor(column)
    dr, dc = row - r, column - c
    at = lambda i, j: padded[:, r + 1 + i, c + 1 + j]
    return (at(0, 0) * (1 - dr) * (1 - dc) + at(0, 1) * (1 - dr) * dc
            + at(1, 0) * dr * (1 - dc) + at(1, 1) * dr * dc)  # fmt: skip


deform_conv = composite(
    "deform_conv", "x, w, offset, bias?, mask?", _expand_deform, _check_deform,
    reference=_reference_deform, dtypes=FLOATS,
    samples=("f32[1,2,4,4] f32[3,2,2,2] f32[1,8,3,3] f32[3]",
             "f32[2,4,5,4] f32[2,2,3,2] f32[2,24,3,3] - f32[2,12,3,3] groups=2 offset_groups=2 "
             "strides=(2,1) padding=((1,1),(0,0))",
             "f32[n,1,5,5] f32[1,1,2,2] f32[n,8,3,3] dilation=(2,2) n=1,2"),
    doc="A convolution whose window elements are displaced, each by its own offset.",
)  # fmt: skip


# ---- unpooling, centring -----------------------------------------------------------------------


def _infer_unpool(x: TensorType, indices: TensorType, *, shape=()) -> TensorType:
    require(
        indices.dtype in INTEGERS and indices.shape == x.shape,
        f"max_unpool: indices {indices} are not one integer for each element of x {x}",
    )
    return TensorType(x.dtype, shape_of(shape))


def _expand_unpool(x, indices, *, shape):
    flat = lambda t: reshape(t, shape=(product(t.shape),))
    zeros = full(shape=(product(shape),), value=0, dtype=x.dtype)
    return reshape(scatter_elements(zeros, flat(indices), flat(x), axis=0), shape=shape)


def _reference_unpool(x, indices, shape=()):
    y = np.zeros(math.prod(shape), x.dtype)
    y[indices.reshape(-1)] = x.reshape(-1)
    return y.reshape(shape)


max_unpool = define(
    "max_unpool", "x, indices", infer=_infer_unpool, reference=_reference_unpool,
    expand=_expand_unpool, dtypes=NUMERIC,
    samples=("f32[1,1,1,1] i64[1,1,1,1]@0:15 shape=(1,1,4,4)"),
    doc="Each element of x at the row-major position that its index names, zeros elsewhere.",
)  # fmt: skip


def center_crop_pad(x: Node, sizes) -> Node:
    """x cropped or padded with zeros around its centre to `sizes`."""
    low, high = [], []
    for d, wanted in zip(x.shape, sizes):
        more, less = as_expr(wanted) - d, as_expr(d) - wanted
        before = max_expr(more, 0) // 2 - max_expr(less, 0) // 2
        low.append(as_dim(before))
        high.append(as_dim(more - before))
    return pad(x, low=tuple(low), high=tuple(high))
