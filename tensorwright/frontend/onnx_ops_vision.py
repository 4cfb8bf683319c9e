"""ONNX operators on images: resizing, sampling, regions of interest, patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Floats, Ints, converter
from tensorwright.frontend.onnx_ops_elementwise import scalar
from tensorwright.frontend.onnx_ops_movement import axes_of
from tensorwright.frontend.onnx_ops_nn import conv_attributes, per_axis
from tensorwright.frontend.onnx_ops_recurrent import part
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim

# ---- resize -------------------------------------------------------------------------------------


def scaled(c: Call, d: Dim, scale: float) -> Dim:
    """floor(d * scale), in f32 as exporters compute it."""
    if not scale > 0 or not math.isfinite(scale):
        raise c.fail(f"a scale is {scale}")
    if isinstance(d, int):
        return math.floor(np.float32(d) * np.float32(scale))
    ratio = Fraction(scale).limit_denominator(4096)
    if np.float32(float(ratio)) != np.float32(scale):
        raise c.fail(
            f"a scale of {scale} does not give a size in terms of the dimension {d}",
            help="give the sizes instead of the scales, or a fixed shape",
        )
    return as_dim(as_expr(d) * ratio.numerator // ratio.denominator)


def resized(c: Call, x: Node, scales: Sequence[float], **attrs) -> Node:
    if len(scales) != x.rank:
        raise c.fail(f"{len(scales)} scales for a tensor of rank {x.rank}")
    sizes = tuple(scaled(c, d, s) for d, s in zip(x.shape, scales))
    return ops.resize(x, sizes=sizes, scales=tuple(scales), **attrs)


LEGACY = {"coordinates": "asymmetric", "rounding": "floor"}


def legacy_mode(c: Call, mode: str) -> str:
    if mode not in ("nearest", "linear", "bilinear"):
        raise c.fail(f"mode is {mode!r}")
    return "nearest" if mode == "nearest" else "linear"


@converter("Upsample")
def upsample_v1(
    c: Call, x: Node, *, height_scale: float, width_scale: float, mode: str = "nearest"
) -> Node:
    scales = (1.0, 1.0, height_scale, width_scale)
    return resized(c, x, scales, mode=legacy_mode(c, mode), **LEGACY)


@converter("Upsample", since=7)
def upsample_v7(c: Call, x: Node, *, scales: Floats, mode: str = "nearest") -> Node:
    return resized(c, x, scales, mode=legacy_mode(c, mode), **LEGACY)


@converter("Upsample", since=9)
@converter("Resize", since=10)
def resize_v10(c: Call, x: Node, scales: Node, *, mode: str = "nearest") -> Node:
    numbers = c.array(scales, "scales").reshape(-1).tolist()
    return resized(c, x, numbers, mode=legacy_mode(c, mode), **LEGACY)


@converter("Resize", since=11)
def resize(
    c: Call, x: Node, roi: Node | None = None, scales: Node | None = None,
    sizes: Node | None = None, *, antialias: int = 0, axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel", cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0, extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch", mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Node:  # fmt: skip
    at = tuple(range(x.rank)) if axes is None else axes_of(c, axes, x.rank)
    attrs = {
        "mode": mode, "coordinates": coordinate_transformation_mode, "rounding": nearest_mode,
        "cubic": cubic_coeff_a, "exclude_outside": bool(exclude_outside),
        "antialias": bool(antialias), "outside": extrapolation_value,
    }  # fmt: skip
    if coordinate_transformation_mode == "tf_crop_and_resize":
        attrs["region"] = region_of(c, x, roi, at)
    if sizes is not None and sizes.shape != (0,):
        must = keep_aspect_ratio_policy != "stretch" or antialias
        wanted = c.ints(sizes, "sizes") if must else c.dims(sizes)
        if len(wanted) != len(at):
            raise c.fail(f"{len(wanted)} sizes for {len(at)} axes")
        return to_sizes(c, x, at, wanted, keep_aspect_ratio_policy, attrs)
    if scales is None:
        raise c.fail("it has neither scales nor sizes")
    numbers = c.array(scales, "scales").reshape(-1).tolist()
    if len(numbers) != len(at):
        raise c.fail(f"{len(numbers)} scales for {len(at)} axes")
    full = [1.0] * x.rank
    for a, s in zip(at, numbers):
        full[a] = s
    return resized(c, x, full, **attrs)


def region_of(c: Call, x: Node, roi: Node | None, axes: tuple[int, ...]) -> tuple[float, ...]:
    """The region of tf_crop_and_resize: all beginnings, then all ends, for every dimension."""
    given = None if roi is None else c.array(roi, "roi").reshape(-1).tolist()
    if given is None or len(given) != 2 * len(axes):
        raise c.fail(f"roi does not hold {2 * len(axes)} numbers")
    begin, end = [0.0] * x.rank, [1.0] * x.rank
    for k, a in enumerate(axes):
        begin[a], end[a] = given[k], given[k + len(axes)]
    return (*begin, *end)


def to_sizes(c: Call, x: Node, axes, wanted, policy: str, attrs: dict) -> Node:
    sizes: list[Dim] = list(x.shape)
    for a, n in zip(axes, wanted):
        sizes[a] = n
    if policy == "stretch":
        return ops.resize(x, sizes=tuple(sizes), **attrs)
    if policy not in ("not_larger", "not_smaller"):
        raise c.fail(f"keep_aspect_ratio_policy is {policy!r}")
    own = [x.shape[a] for a in axes]
    if not all(isinstance(d, int) and d for d in (*own, *wanted)):
        raise c.fail("keeping the aspect ratio needs sizes that are known while compiling")
    ratios = [n / d for n, d in zip(wanted, own)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    scales = [1.0] * x.rank
    for a, d in zip(axes, own):
        scales[a] = scale
        sizes[a] = math.floor(scale * d + 0.5)
    return ops.resize(x, sizes=tuple(sizes), scales=tuple(scales), **attrs)


# ---- sampling -----------------------------------------------------------------------------------

SAMPLING = {"linear": "linear", "bilinear": "linear", "nearest": "nearest", "cubic": "cubic",
            "bicubic": "cubic"}  # fmt: skip


@converter("GridSample", since=16)
def grid_sample(
    c: Call, x: Node, grid: Node, *, align_corners: int = 0, mode: str = "linear",
    padding_mode: str = "zeros",
) -> Node:  # fmt: skip
    if mode not in SAMPLING:
        raise c.fail(f"mode is {mode!r}, not one of {', '.join(SAMPLING)}")
    if grid.dtype is not x.dtype:
        grid = ops.cast(grid, dtype=x.dtype)
    return ops.grid_sample(
        x, grid, mode=SAMPLING[mode], padding=padding_mode, align_corners=bool(align_corners)
    )


@converter("AffineGrid", since=20)
def affine_grid(c: Call, theta: Node, size: Node, *, align_corners: int = 0) -> Node:
    dims = c.dims(size)
    if len(dims) not in (4, 5):
        raise c.fail(f"size has {len(dims)} elements, not 4 or 5")
    return ops.affine_grid(theta, sizes=tuple(dims[2:]), align_corners=bool(align_corners))


# ---- regions ------------------------------------------------------------------------------------


def _roi_align(
    c: Call, x: Node, rois: Node, batch: Node, mode: str, output: Ints, sampling: int,
    scale: float, half_pixel: bool,
) -> Node:  # fmt: skip
    if min(output) < 1 or sampling < 0:
        raise c.fail(f"the output is {output} with {sampling} samples")
    return ops.roi_align(
        x, rois, batch, output=tuple(output), scale=scale, sampling=sampling, mode=mode,
        half_pixel=half_pixel,
    )  # fmt: skip


@converter("RoiAlign", since=10)
def roi_align_v10(
    c: Call, x: Node, rois: Node, batch: Node, *, mode: str = "avg", output_height: int = 1,
    output_width: int = 1, sampling_ratio: int = 0, spatial_scale: float = 1.0,
) -> Node:  # fmt: skip
    output = (output_height, output_width)
    return _roi_align(c, x, rois, batch, mode, output, sampling_ratio, spatial_scale, False)


@converter("RoiAlign", since=16)
def roi_align(
    c: Call, x: Node, rois: Node, batch: Node, *,
    coordinate_transformation_mode: str = "half_pixel", mode: str = "avg",
    output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Node:  # fmt: skip
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise c.fail(f"coordinate_transformation_mode is {coordinate_transformation_mode!r}")
    half = coordinate_transformation_mode == "half_pixel"
    output = (output_height, output_width)
    return _roi_align(c, x, rois, batch, mode, output, sampling_ratio, spatial_scale, half)


@converter("MaxRoiPool")
def max_roi_pool(
    c: Call, x: Node, rois: Node, *, pooled_shape: Ints, spatial_scale: float = 1.0
) -> Node:
    """The maximum over each cell of each region, one dimension after the other."""
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 5 or len(pooled_shape) != 2:
        raise c.fail(f"the input is {x.type} and the regions {rois.type}")
    n, channels, height, width = (rois.shape[0], *x.shape[1:])
    batch, x0, y0, x1, y1 = (part(rois, 1, k, k + 1) for k in range(5))
    owners = ops.reshape(ops.cast(batch, dtype=i64), shape=(n,))
    lowest = constant(np.array(-np.inf, x.dtype.numpy))
    y = ops.gather(x, owners, axis=0)
    columns = _cells(x0, x1, width, pooled_shape[1], spatial_scale)  # [n, cells, width]
    cells = ops.reshape(columns, shape=(n, 1, 1, *columns.shape[1:]))
    y = ops.select(cells, ops.reshape(y, shape=(n, channels, height, 1, width)), lowest)
    y = ops.reduce_max(y, axes=(4,))  # [n, channels, height, cells]
    rows = _cells(y0, y1, height, pooled_shape[0], spatial_scale)
    cells = ops.reshape(rows, shape=(n, 1, *rows.shape[1:], 1))
    y = ops.select(cells, ops.reshape(y, shape=(n, channels, 1, height, y.shape[3])), lowest)
    y = ops.reduce_max(y, axes=(3,))
    return ops.select(ops.equal(y, lowest), constant(np.zeros((), x.dtype.numpy)), y)


def _cells(low: Node, high: Node, extent: Dim, count: int, scale: float) -> Node:
    """Which of `extent` elements each of `count` cells of [low, high] covers: bool[n, count, d]."""
    half_up = lambda v: ops.floor(ops.add(ops.mul(v, scale), 0.5))
    begin, end = half_up(low), half_up(high)  # [n, 1]
    size = ops.div(ops.maximum(ops.add(ops.sub(end, begin), 1.0), 1.0), float(count))
    k = ops.cast(ops.iota(shape=(1, count), axis=1, dtype="i64"), dtype=low.dtype)
    first = ops.add(ops.floor(ops.mul(k, size)), begin)
    last = ops.add(ops.ceil(ops.mul(ops.add(k, 1.0), size)), begin)
    shape = (low.shape[0], count, 1)
    at = ops.cast(ops.iota(shape=(1, 1, extent), axis=2, dtype="i64"), dtype=low.dtype)
    first, last = ops.reshape(first, shape=shape), ops.reshape(last, shape=shape)
    return ops.logical_and(ops.less_equal(first, at), ops.less(at, last))


@converter("NonMaxSuppression", since=10)
def non_max_suppression(
    c: Call, boxes: Node, scores: Node, limit: Node | None = None, overlap: Node | None = None,
    threshold: Node | None = None, *, center_point_box: int = 0,
) -> Node:  # fmt: skip
    if limit is None:
        return ops.full(shape=(0, 3), value=0, dtype=i64)
    number = lambda v, default: (
        constant(np.array(default, boxes.dtype.numpy)) if v is None else scalar(c, v)
    )
    return ops.non_max_suppression(
        boxes, scores, scalar(c, limit), number(overlap, 0.0), number(threshold, -np.inf),
        centre=bool(center_point_box),
    )  # fmt: skip


# ---- patches ------------------------------------------------------------------------------------


@converter("DeformConv", since=19)
def deform_conv(
    c: Call, x: Node, w: Node, offset: Node, bias: Node | None = None, mask: Node | None = None, *,
    dilations: Ints = (), group: int = 1, kernel_shape: Ints | None = None,
    offset_group: int = 1, pads: Ints = (), strides: Ints = (),
) -> Node:  # fmt: skip
    attrs = conv_attributes(c, x, w, kernel_shape, strides, dilations, pads, "NOTSET")
    return ops.deform_conv(
        x, w, offset, bias, mask, groups=group, offset_groups=offset_group, **attrs
    )


@converter("Col2Im", since=18)
def col2im(
    c: Call, x: Node, image: Node, block: Node, *, dilations: Ints = (), pads: Ints = (),
    strides: Ints = (),
) -> Node:  # fmt: skip
    window = c.ints(block, "block_shape")
    n = len(window)
    strides = per_axis(c, strides, n, "strides")
    dilation = per_axis(c, dilations, n, "dilations")
    if pads and len(pads) != 2 * n:
        raise c.fail(f"{len(pads)} pads for {n} dimensions")
    padding = tuple((pads[k], pads[k + n]) for k in range(n)) if pads else ((0, 0),) * n
    return ops.col2im(
        x, image=c.ints(image, "image_shape"), window=window, strides=strides, padding=padding,
        dilation=dilation,
    )  # fmt: skip
