"""Convolution: `conv_general` over any number of spatial dimensions, and what is written with it.

    y[n, o, i] = sum over c, k of x[n, group(o) + c, i * stride + k * dilation - low] * w[o, c, k]

x is N,C,spatial with w O,I/groups,spatial (layout "NC"), or x is N,spatial,C with w
spatial,I/groups,O (layout "NLAST"). What lies outside x counts as zero; without padding there is no
such test. lhs_dilation puts that many - 1 zeros between the elements of x.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import FLOATS, DType
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import Buffer, Expr, all_of, as_dim, as_expr, cast, eq, fma, select
from tensorwright.ir.expr import maximum as max_expr
from tensorwright.ir.expr import minimum as min_expr
from tensorwright.ir.loop import Stmt, loops
from tensorwright.ir.type import Dim, TensorType, dim_text
from tensorwright.ops.define import accumulate, define, names, require
from tensorwright.ops.elementwise import add
from tensorwright.ops.linalg import FACTORS, product_type
from tensorwright.ops.movement import flip, reshape, transpose
from tensorwright.ops.widen import to_dtype

LAYOUTS = ("NC", "NLAST")


# ---- windows -----------------------------------------------------------------------------------


def window_extent(d: Dim, window: Dim, stride, padding, dilation=1, lhs_dilation=1) -> Dim:
    """How many windows fit a dimension."""
    low, high = padding
    spread = d if lhs_dilation == 1 else (d - 1) * lhs_dilation + 1
    return as_dim((spread + low + high - (window - 1) * dilation - 1) // stride + 1)


def check_window(op: str, axis: int, d: Dim, window: Dim, stride, padding, dilation, lhs=1) -> None:
    """CompileError where a window is ill-formed or larger than the padded dimension."""
    require(
        stride >= 1 and dilation >= 1 and lhs >= 1,
        f"{op}: stride {stride} or dilation {dilation} of dimension {axis} is below 1",
    )
    low, high = padding
    sizes = (d, window, low, high)
    if all(isinstance(v, int) for v in sizes):
        padded = (d - 1) * lhs + 1 + low + high
        reach = (window - 1) * dilation + 1
        require(d == 0 or padded >= reach,
                f"{op}: the window reaches over {reach} elements of dimension {axis}, which has "
                f"{padded} with padding", "pad more or use a smaller window")  # fmt: skip


def inside(position: Expr, d: Dim, padding, lhs_dilation=1) -> tuple[Expr, list[Expr]]:
    """Where to read a dimension of size d for a window element at `position` (padding already
    subtracted), and the conditions under which it lies inside."""
    low, high = padding
    conditions: list[Expr] = []
    last = (as_expr(d) - 1) * lhs_dilation
    if not (isinstance(low, int) and low <= 0):
        conditions.append(position >= 0)
    if not (isinstance(high, int) and high <= 0):
        conditions.append(position <= last)
    clamped = min_expr(max_expr(position, 0), last) if conditions else position
    if lhs_dilation != 1:
        conditions.append(eq(position % lhs_dilation, 0))
        clamped = clamped // lhs_dilation
    return clamped, conditions


def per_axis(op: str, value, default, rank: int) -> tuple:
    """A window attribute with one entry a spatial dimension."""
    value = (default,) * rank if value is None else tuple(value)
    require(len(value) == rank, f"{op}: {value} does not have {rank} entries, one a dimension")
    return value


# ---- conv_general ------------------------------------------------------------------------------


def _positions(layout: str, rank: int):
    """Axes of (batch, channel, spatial...) in x and of (out, in, spatial...) in w."""
    spatial = rank - 2
    if layout == "NC":
        order = (0, 1, *range(2, rank))
        return order, order
    return (0, rank - 1, *range(1, rank - 1)), (rank - 1, rank - 2, *range(spatial))


def _window_attrs(rank: int, strides, padding, dilation, lhs_dilation):
    n = rank - 2
    return (per_axis("conv_general", strides, 1, n), per_axis("conv_general", padding, (0, 0), n),
            per_axis("conv_general", dilation, 1, n),
            per_axis("conv_general", lhs_dilation, 1, n))  # fmt: skip


def _infer_conv(
    x: TensorType, w: TensorType, *, strides=None, padding=None, dilation=None,
    lhs_dilation=None, groups=1, layout="NC", dtype=None,
) -> TensorType:  # fmt: skip
    op = "conv_general"
    result = product_type(op, x, w, dtype)
    require(layout in LAYOUTS, f"{op}: layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    require(x.rank >= 2, f"{op}: x has rank {x.rank}; it needs a batch and a channel dimension")
    require(x.rank == w.rank, f"{op}: x has rank {x.rank}, w has rank {w.rank}")
    x_axes, w_axes = _positions(layout, x.rank)
    channels, taken = x.shape[x_axes[1]], w.shape[w_axes[1]]
    per_group = as_dim(as_expr(taken) * groups)
    require(channels == per_group,
            f"{op}: x has {dim_text(channels)} channels, w expects {dim_text(taken)} in each of "
            f"{groups} groups")  # fmt: skip
    outputs = w.shape[w_axes[0]]
    require(
        not isinstance(outputs, int) or outputs % groups == 0,
        f"{op}: {dim_text(outputs)} output channels do not divide into {groups} groups",
    )
    shape: list[Dim] = [0] * x.rank
    shape[x_axes[0]], shape[x_axes[1]] = x.shape[x_axes[0]], outputs
    windows = _window_attrs(x.rank, strides, padding, dilation, lhs_dilation)
    for k, (s, p, d, ld) in enumerate(zip(*windows)):
        size, window = x.shape[x_axes[2 + k]], w.shape[w_axes[2 + k]]
        check_window(op, k, size, window, s, p, d, ld)
        shape[x_axes[2 + k]] = window_extent(size, window, s, p, d, ld)
    return TensorType(result, tuple(shape))


def _lower_conv(
    out: Buffer, x: Buffer, w: Buffer, *, strides, padding, dilation, lhs_dilation, groups,
    layout, dtype,
) -> Stmt:  # fmt: skip
    x_axes, w_axes = _positions(layout, x.rank)
    windows = list(zip(*_window_attrs(x.rank, strides, padding, dilation, lhs_dilation)))
    taken = w.shape[w_axes[1]]
    outputs_per_group = as_expr(w.shape[w_axes[0]]) // groups

    def nest(*i: Expr) -> Stmt:
        o, spatial = i[x_axes[1]], [i[a] for a in x_axes[2:]]
        group = 0 if groups == 1 else o // outputs_per_group

        def step(acc: Expr, c: Expr, *ks: Expr) -> Expr:
            at_x: list = [None] * x.rank
            at_w: list = [None] * x.rank
            at_x[x_axes[0]], at_x[x_axes[1]] = i[x_axes[0]], group * as_expr(taken) + c
            at_w[w_axes[0]], at_w[w_axes[1]] = o, c
            conditions: list[Expr] = []
            for a, (p, k, (s, pad, d, ld)) in enumerate(zip(spatial, ks, windows)):
                size = x.shape[x_axes[2 + a]]
                at_x[x_axes[2 + a]], more = inside(p * s + k * d - pad[0], size, pad, ld)
                at_w[w_axes[2 + a]] = k
                conditions += more
            value = cast(x[tuple(at_x)], acc.dtype)
            value = select(all_of(conditions), value, 0)
            return fma(value, cast(w[tuple(at_w)], acc.dtype), acc)

        extents = [taken, *(w.shape[a] for a in w_axes[2:])]
        return accumulate(out, i, 0, extents, step)

    return loops(names(out.rank), out.shape, nest)


def _reference_conv(
    x, w, strides=None, padding=None, dilation=None, lhs_dilation=None, groups=1, layout="NC",
    dtype=None,
):  # fmt: skip
    t = _infer_conv(
        *(TensorType(_dtype(v), v.shape) for v in (x, w)), strides=strides, padding=padding,
        dilation=dilation, lhs_dilation=lhs_dilation, groups=groups, layout=layout, dtype=dtype,
    )  # fmt: skip
    wide = np.float64 if t.dtype.is_float else np.int64
    x_axes, w_axes = _positions(layout, x.ndim)
    x, w = x.transpose(x_axes).astype(wide), w.transpose(w_axes).astype(wide)
    windows = list(zip(*_window_attrs(x.ndim, strides, padding, dilation, lhs_dilation)))
    x = _spread(x, windows)
    out_shape = tuple(t.shape[a] for a in x_axes)
    y = np.zeros((x.shape[0], groups, out_shape[1] // groups, *out_shape[2:]), wide)
    xg = x.reshape(x.shape[0], groups, w.shape[1], *x.shape[2:])
    wg = w.reshape(groups, out_shape[1] // groups, *w.shape[1:])
    for k in np.ndindex(*w.shape[2:]):
        part = xg[(..., *(slice(j * d, j * d + (o - 1) * s + 1, s)
                          for j, o, (s, _, d, _) in zip(k, out_shape[2:], windows)))]  # fmt: skip
        if 0 not in part.shape:
            y += np.einsum("ngc...,goc->ngo...", part, wg[(..., *k)])
    back = np.argsort(x_axes)
    return y.reshape(out_shape).transpose(back).astype(t.dtype.numpy)


def _spread(x, windows):
    """x with its dilation and padding written out as zeros (negative padding crops)."""
    for a, (_, (low, high), _, ld) in enumerate(windows, 2):
        size = x.shape[a]
        if ld != 1 and size:
            wide = np.zeros((*x.shape[:a], (size - 1) * ld + 1, *x.shape[a + 1 :]), x.dtype)
            wide[(slice(None),) * a + (slice(None, None, ld),)] = x
            x = wide
        x = np.pad(x, [(max(low, 0), max(high, 0)) if b == a else (0, 0) for b in range(x.ndim)])
        stop = x.shape[a] + min(high, 0)
        x = x[(slice(None),) * a + (slice(max(-low, 0), stop),)]
    return x


def _dtype(array) -> DType:
    return dtype_of(array.dtype)


def _gradient_conv(
    g, y, x, w, *, strides, padding, dilation, lhs_dilation, groups, layout, dtype,
):  # fmt: skip
    """Both cotangents are convolutions again, written here for layout "NC"."""
    if layout == "NLAST":
        x_axes, w_axes = _positions(layout, x.rank)
        gx, gw = _gradient_conv(
            transpose(g, perm=x_axes), y, transpose(x, perm=x_axes), transpose(w, perm=w_axes),
            strides=strides, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation,
            groups=groups, layout="NC", dtype=dtype,
        )  # fmt: skip
        back = lambda axes: tuple(axes.index(a) for a in range(len(axes)))
        return transpose(gx, perm=back(x_axes)), transpose(gw, perm=back(w_axes))
    windows = list(zip(*_window_attrs(x.rank, strides, padding, dilation, lhs_dilation)))
    spatial = tuple(range(2, x.rank))
    turned = swap_groups(w, groups)
    gx = conv_general(
        g, to_dtype(flip(turned, axes=spatial) if spatial else turned, g.dtype),
        strides=tuple(ld for _, _, _, ld in windows),
        lhs_dilation=tuple(s for s, _, _, _ in windows),
        dilation=tuple(d for _, _, d, _ in windows),
        padding=tuple(_padding_of_x(x.shape[a], w.shape[a], g.shape[a], v)
                      for a, v in zip(spatial, windows)), groups=groups,
    )  # fmt: skip
    gw = _gradient_of_w(g, x, w, windows, groups)
    return to_dtype(gx, x.dtype), to_dtype(gw, w.dtype)


def _padding_of_x(size: Dim, window: Dim, out: Dim, attrs) -> tuple[Dim, Dim]:
    stride, (low, _), dilation, lhs = attrs
    reach = (as_expr(window) - 1) * dilation
    before = reach - low
    spread = (as_expr(out) - 1) * stride + 1
    after = (as_expr(size) - 1) * lhs + 1 + reach - before - spread
    return as_dim(before), as_dim(after)


def _gradient_of_w(g, x, w, windows, groups):
    """Batch is contracted, so it takes the place of channels: x as C,N and g as O,N."""
    n, c, *rest = x.shape
    swap = (1, 0, *range(2, x.rank))
    if groups == 1:
        left = transpose(x, perm=swap)
    else:  # [N, G, C/G] -> [C/G, G * N]
        per = as_dim(as_expr(c) // groups)
        left = reshape(x, shape=(n, groups, per, *rest))
        left = transpose(left, perm=(2, 1, 0, *range(3, x.rank + 1)))
        left = reshape(left, shape=(per, as_dim(as_expr(n) * groups), *rest))
    right = transpose(g, perm=swap)  # [O, N], O = G * O/G
    padding = []
    for a, (s, (low, _), d, ld) in zip(range(2, x.rank), windows):
        # choose the end so that exactly w.shape[a] positions result
        wanted = (as_expr(w.shape[a]) - 1) * d + (as_expr(g.shape[a]) - 1) * s + 1
        padding.append((low, as_dim(wanted - low - ((as_expr(x.shape[a]) - 1) * ld + 1))))
    gw = conv_general(
        to_dtype(left, g.dtype), right, strides=tuple(d for _, _, d, _ in windows),
        dilation=tuple(s for s, _, _, _ in windows), padding=tuple(padding),
        lhs_dilation=tuple(ld for _, _, _, ld in windows), groups=groups,
    )  # fmt: skip
    return transpose(gw, perm=swap)


def swap_groups(w, groups: int):
    """w[O, I/groups, ...] as [I, O/groups, ...]: the weights of the transposed convolution."""
    if groups == 1:
        return transpose(w, perm=(1, 0, *range(2, w.rank)))
    o, i, *rest = w.shape
    per = as_dim(as_expr(o) // groups)
    split = reshape(w, shape=(groups, per, i, *rest))
    turned = transpose(split, perm=(0, 2, 1, *range(3, w.rank + 1)))
    return reshape(turned, shape=(as_dim(as_expr(i) * groups), per, *rest))


conv_general = define(
    "conv_general", "x, w", infer=_infer_conv, reference=_reference_conv, lower=_lower_conv,
    gradient=_gradient_conv, dtypes=FACTORS,
    samples=(
        "f32[2,3,5,6] f32[4,3,3,2]", "f32[1,4,7] f32[6,2,3] groups=2 padding=((1,1),)",
        "f32[1,2,6,5] f32[2,1,3,3] groups=2 strides=(2,1) padding=((1,0),(0,2))",
        "f32[1,2,7] f32[3,2,3] dilation=(2,) padding=((2,2),)",
        "f32[1,2,4] f32[3,2,3] lhs_dilation=(2,) padding=((2,1),)",
        "f32[n,h,5,2] f32[3,3,2,4] layout='NLAST' padding=((1,1),(1,1)) n=1,2 h=1,4",
        "f32[2,3] f32[4,3]", "f32[1,2,6] f32[2,2,3] padding=((-1,0),)",
        "f32[1,1,3,3,3] f32[2,1,2,2,2]", "f16[1,2,5] f16[3,2,3]", "bf16[1,2,5] bf16[3,2,3]",
        "u8[1,2,5] i8[3,2,3] dtype=i32 padding=((1,1),)",
    ),
    doc="Convolution (correlation) with strides, padding, dilations and groups.",
)  # fmt: skip


# ---- with bias, and transposed -----------------------------------------------------------------


def add_bias(y, bias, axis: int):
    """y plus a vector along `axis`."""
    if bias is None:
        return y
    ones = (1,) * (y.rank - 1 - axis)
    return add(y, reshape(bias, shape=(*bias.shape, *ones)) if ones else bias)


def _infer_conv_bias(
    x, w, bias, *, strides=None, padding=None, dilation=None, groups=1, layout="NC"
) -> TensorType:  # fmt: skip
    t = _infer_conv(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups,
                    layout=layout)  # fmt: skip
    outputs = t.shape[1 if layout == "NC" else -1]
    require(bias is None or bias.shape == (outputs,),
            f"conv: bias {bias} does not fit {dim_text(outputs)} output channels")  # fmt: skip
    return t


def _reference_conv_bias(x, w, bias=None, layout="NC", **attrs):
    y = _reference_conv(x, w, layout=layout, **attrs)
    if bias is None:
        return y
    shape = (-1, *(1,) * (x.ndim - 2)) if layout == "NC" else (-1,)
    return y + bias.reshape(shape)


def _expand_conv(x, w, bias, *, layout, **attrs):
    y = conv_general(x, w, layout=layout, **attrs)
    return add_bias(y, bias, 1 if layout == "NC" else x.rank - 1)


conv = define(
    "conv", "x, w, bias?", infer=_infer_conv_bias, reference=_reference_conv_bias,
    expand=_expand_conv, dtypes=FLOATS,
    samples=("f32[1,3,5,5] f32[4,3,3,3] f32[4] padding=((1,1),(1,1))", "f32[1,3,5] f32[4,3,3]",
             "f32[1,5,3] f32[3,3,4] f32[4] layout='NLAST'", "f16[1,2,5] f16[3,2,3] f16[3]"),
    doc="Convolution plus a bias for each output channel.",
)  # fmt: skip


def _transposed_padding(w_shape, padding, output_padding, dilation):
    pairs = []
    for window, (low, high), more, d in zip(w_shape[2:], padding, output_padding, dilation):
        reach = (as_expr(window) - 1) * d
        pairs.append((as_dim(reach - low), as_dim(reach - high + more)))
    return tuple(pairs)


def _transposed_attrs(w_shape, strides, padding, output_padding, dilation, groups):
    op, n = "conv_transpose", len(w_shape) - 2
    dilation = per_axis(op, dilation, 1, n)
    padding = per_axis(op, padding, (0, 0), n)
    more = per_axis(op, output_padding, 0, n)
    return {"padding": _transposed_padding(w_shape, padding, more, dilation), "dilation": dilation,
            "lhs_dilation": per_axis(op, strides, 1, n), "groups": groups}  # fmt: skip


def _infer_conv_transpose(
    x, w, bias, *, strides=None, padding=None, output_padding=None, dilation=None, groups=1
) -> TensorType:  # fmt: skip
    require(x.rank == w.rank, f"conv_transpose: x has rank {x.rank}, w has rank {w.rank}")
    inputs, outputs, *window = w.shape
    require(x.shape[1] == inputs,
            f"conv_transpose: x has {dim_text(x.shape[1])} channels, w expects {dim_text(inputs)}",
            "w is stored as [in, out / groups, spatial]")  # fmt: skip
    require(
        not isinstance(inputs, int) or inputs % groups == 0,
        f"conv_transpose: {dim_text(inputs)} channels do not divide into {groups} groups",
    )
    outputs = as_dim(as_expr(outputs) * groups)
    attrs = _transposed_attrs(w.shape, strides, padding, output_padding, dilation, groups)
    turned = TensorType(w.dtype, (outputs, as_dim(as_expr(inputs) // groups), *window))
    t = _infer_conv(x, turned, **attrs)
    require(
        bias is None or bias.shape == (outputs,),
        f"conv_transpose: bias {bias} does not fit {dim_text(outputs)} output channels",
    )
    return t


def _expand_conv_transpose(
    x, w, bias, *, strides, padding, output_padding, dilation, groups
):  # fmt: skip
    attrs = _transposed_attrs(w.shape, strides, padding, output_padding, dilation, groups)
    spatial = tuple(range(2, w.rank))
    turned = swap_groups(w, groups)
    y = conv_general(x, flip(turned, axes=spatial) if spatial else turned, **attrs)
    return add_bias(y, bias, 1)


def _reference_conv_transpose(
    x, w, bias=None, strides=None, padding=None, output_padding=None, dilation=None, groups=1
):  # fmt: skip
    """Scatters every input element times the window into the result."""
    t = _infer_conv_transpose(
        *(TensorType(_dtype(v), v.shape) for v in (x, w)), None, strides=strides, padding=padding,
        output_padding=output_padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    n = x.ndim - 2
    strides, dilation = per_axis("", strides, 1, n), per_axis("", dilation, 1, n)
    padding = per_axis("", padding, (0, 0), n)
    full = [(d - 1) * s + (k - 1) * e + 1
            for d, k, s, e in zip(x.shape[2:], w.shape[2:], strides, dilation)]  # fmt: skip
    room = [max(f, o + lo) for f, o, (lo, _) in zip(full, t.shape[2:], padding)]
    y = np.zeros((x.shape[0], groups, w.shape[1], *room), np.float64)
    xg = x.astype(np.float64).reshape(x.shape[0], groups, -1, *x.shape[2:])
    wg = w.astype(np.float64).reshape(groups, -1, *w.shape[1:])
    for k in np.ndindex(*w.shape[2:]):
        at = tuple(slice(j * e, j * e + (d - 1) * s + 1, s)
                   for j, e, d, s in zip(k, dilation, x.shape[2:], strides))  # fmt: skip
        y[(..., *at)] += np.einsum("ngc...,gco->ngo...", xg, wg[(..., *k)])
    crop = tuple(slice(lo, lo + o) for (lo, _), o in zip(padding, t.shape[2:]))
    y = y[(..., *crop)].reshape(t.shape)
    y = y if bias is None else y + bias.reshape(-1, *(1,) * n)
    return y.astype(x.dtype)


conv_transpose = define(
    "conv_transpose", "x, w, bias?", infer=_infer_conv_transpose,
    reference=_reference_conv_transpose, expand=_expand_conv_transpose, dtypes=FLOATS,
    samples=(
        "f32[1,3,4,4] f32[3,2,3,3] f32[2]", "f32[1,4,5] f32[4,3,3] groups=2 strides=(2,)",
        "f32[n,2,3,3] f32[2,2,3,3] strides=(2,2) padding=((1,1),(1,1)) output_padding=(1,1) n=1,2",
        "f32[1,2,4] f32[2,1,3] dilation=(2,) padding=((1,2),)",
    ),
    doc="The transpose of a convolution: x spreads through w; padding crops the result.",
)  # fmt: skip
