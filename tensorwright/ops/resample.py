"""Resampling of tensors at other positions: `resize`, `grid_sample`, `affine_grid`.

    y = resize(x, sizes=(1, 3, 2*h, 2*w), mode="linear")

A resize handles one dimension after the other, the last one first, where elements are picked one by
one: what the others then take are whole rows. Positions and weights are vectors over the result's
dimension, computed in f64 from sizes alone (so they fold to constants where sizes are static), and
each result element is a weighted sum of a few gathered ones.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, f32, f64, i64
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Dim, TensorType, dim_text, product, shape_of
from tensorwright.ops.activations import clamp
from tensorwright.ops.define import composite, define, require, scalar_like
from tensorwright.ops.elementwise import abs as absolute
from tensorwright.ops.elementwise import (
    add,
    cast,
    ceil,
    div,
    equal,
    floor,
    greater,
    less,
    less_equal,
    logical_and,
    logical_or,
    maximum,
    minimum,
    mul,
    select,
    sub,
)  # fmt: skip
from tensorwright.ops.elementwise import mod as modulo
from tensorwright.ops.elementwise import round as round_even
from tensorwright.ops.index import full, gather, gather_elements, iota
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import broadcast_to, concat, reshape, slice, transpose
from tensorwright.ops.widen import to_dtype, widened

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
               "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize")  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

# ---- positions ---------------------------------------------------------------------------------


def _number(value, dtype=f64) -> Node:
    """A dimension or a float as a scalar."""
    return full(shape=(), value=value, dtype=dtype)


def source_positions(old: Dim, new: Dim, scale, coordinates: str, region) -> Node:
    """Where in x, in elements, each element of the result's dimension lies: f64[new]."""
    i = iota(shape=(new,), axis=0, dtype=f64)
    old_size, new_size = _number(old), _number(new)
    scale = div(new_size, old_size) if scale is None else _number(float(scale))
    width = mul(scale, old_size)  # of the result before it was rounded
    halves = sub(div(add(i, 0.5), scale), 0.5)
    ends = maximum(sub(width, 1.0), 1e-300)
    if coordinates == "align_corners":
        along = div(mul(i, sub(old_size, 1.0)), ends)
        return select(equal(width, 1.0), scalar_like(i, 0), along)
    if coordinates == "asymmetric":
        return div(i, scale)
    if coordinates == "tf_half_pixel_for_nn":
        return div(add(i, 0.5), scale)
    if coordinates == "pytorch_half_pixel":
        return select(equal(width, 1.0), scalar_like(i, -0.5), halves)
    if coordinates == "half_pixel_symmetric":
        centre = div(old_size, 2.0)
        return add(halves, sub(centre, div(mul(centre, new_size), width)))
    if coordinates == "tf_crop_and_resize":
        begin, end = region
        last = sub(old_size, 1.0)
        along = div(mul(mul(i, end - begin), last), ends)
        along = select(equal(width, 1.0), mul(last, (end - begin) / 2), along)
        return add(along, mul(last, begin))
    return halves


def _nearest(at: Node, rounding: str) -> Node:
    if rounding == "round_prefer_floor":
        return ceil(sub(at, 0.5))
    if rounding == "round_prefer_ceil":
        return floor(add(at, 0.5))
    return floor(at) if rounding == "floor" else ceil(at)


def _triangle(x: Node) -> Node:
    return maximum(sub(scalar_like(x, 1), absolute(x)), 0.0)


def cubic_kernel(x: Node, a: float) -> Node:
    """Keys' cubic convolution kernel."""
    x = absolute(x)
    near = add(mul(mul(sub(mul(x, a + 2), a + 3), x), x), 1.0)
    far = sub(mul(add(mul(sub(mul(x, a), 5 * a), x), 8 * a), x), 4 * a)
    far = select(less(x, 2.0), far, scalar_like(x, 0))
    return select(less_equal(x, 1.0), near, far)


def _taps(mode: str, shrink: float) -> range:
    """Offsets from the element left of a position that may have weight there."""
    first = math.floor(-(1 if mode == "linear" else 2) / shrink) + 1
    return range(first, 2 - first)


def _weights(at: Node, mode: str, a: float, shrink: float, size: Dim, exclude: bool):
    """(positions, weights) of each tap, f64[new]; weights add up to 1."""
    left = floor(at)
    found, total = [], None
    for t in _taps(mode, shrink):
        place = add(left, float(t))
        distance = mul(sub(place, at), shrink)
        w = _triangle(distance) if mode == "linear" else cubic_kernel(distance, a)
        if exclude:
            outside = logical_or(less(place, 0.0), greater(place, sub(_number(size), 1.0)))
            w = select(outside, scalar_like(w, 0), w)
        total = w if total is None else add(total, w)
        found.append((place, w))
    if shrink < 1 or exclude:
        found = [(p, div(w, total)) for p, w in found]
    return found


def _indices(place: Node, size: Dim) -> Node:
    last = sub(_number(size, i64), 1)
    return maximum(minimum(cast(place, dtype=i64), last), 0)


def _along(t: Node, axis: int, rank: int) -> Node:
    ones = (1,) * (rank - 1 - axis)
    return reshape(t, shape=(*t.shape, *ones)) if ones else t


# ---- resize ------------------------------------------------------------------------------------


def _check_resize(
    x,
    *,
    sizes=(),
    scales=None,
    mode="nearest",
    coordinates="half_pixel",
    rounding="round_prefer_floor",
    antialias=False,
    region=None,
    **attrs,
) -> None:
    op = "resize"
    require(len(sizes) == x.rank, f"{op}: {len(sizes)} sizes for a tensor of rank {x.rank}")
    require(
        scales is None or len(scales) == x.rank,
        f"{op}: {scales and len(scales)} scales for a tensor of rank {x.rank}",
    )
    require(mode in ("nearest", "linear", "cubic"), f"{op}: mode {mode!r} is not known")
    require(coordinates in COORDINATES, f"{op}: coordinates {coordinates!r} are not one of "
            f"{', '.join(COORDINATES)}")  # fmt: skip
    require(rounding in ROUNDINGS, f"{op}: rounding {rounding!r} is not known")
    require(region is not None or coordinates != "tf_crop_and_resize",
            f"{op}: tf_crop_and_resize needs a region")  # fmt: skip
    for a, (old, new) in enumerate(zip(x.shape, sizes)):
        static = isinstance(old, int) and isinstance(new, int)
        require(not antialias or static or old == new or scales is not None,
                f"{op}: how far dimension {a} shrinks from {dim_text(old)} to {dim_text(new)} is "
                "not known, which antialias needs", "give scales")  # fmt: skip


def _is_kept(old: Dim, new: Dim, scale, coordinates: str) -> bool:
    return (old == new and scale in (None, 1, 1.0)
            and coordinates not in ("tf_crop_and_resize", "tf_half_pixel_for_nn"))  # fmt: skip


def _expand_resize(
    x, *, sizes=(), scales=None, mode="nearest", coordinates="half_pixel",
    rounding="round_prefer_floor", cubic=-0.75, exclude_outside=False, antialias=False,
    region=None, outside=0.0,
):  # fmt: skip
    y = x if mode == "nearest" else widened(x) if x.dtype.is_float else cast(x, dtype=f32)
    for axis, (old, new) in reversed([*enumerate(zip(x.shape, sizes))]):
        scale = None if scales is None else scales[axis]
        if _is_kept(old, new, scale, coordinates):
            continue
        limits = None if region is None else (region[axis], region[axis + x.rank])
        at = source_positions(old, new, scale, coordinates, limits)
        if mode == "nearest":
            moved = gather(y, _indices(_nearest(at, rounding), old), axis=axis)
        else:
            shrink = min(_ratio(old, new, scale), 1.0) if antialias else 1.0
            moved = None
            for place, w in _weights(at, mode, cubic, shrink, old, exclude_outside):
                w = _along(to_dtype(w, y.dtype), axis, x.rank)
                part = mul(gather(y, _indices(place, old), axis=axis), w)
                moved = part if moved is None else add(moved, part)
        if coordinates == "tf_crop_and_resize":
            off = logical_or(less(at, 0.0), greater(at, sub(_number(old), 1.0)))
            moved = select(_along(off, axis, x.rank), scalar_like(moved, outside), moved)
        y = moved
    if x.dtype.is_float or mode == "nearest":
        return to_dtype(y, x.dtype)
    y = clamp(round_even(y), low=float(x.dtype.min), high=float(x.dtype.max))
    return cast(y, dtype=x.dtype)


def _ratio(old: Dim, new: Dim, scale) -> float:
    return float(scale) if scale is not None else new / old


def _reference_resize(
    x, sizes=(), scales=None, mode="nearest", coordinates="half_pixel",
    rounding="round_prefer_floor", cubic=-0.75, exclude_outside=False, antialias=False,
    region=None, outside=0.0,
):  # fmt: skip
    y = x.astype(np.float64)
    for axis, (old, new) in enumerate(zip(x.shape, sizes)):
        scale = None if scales is None else scales[axis]
        if _is_kept(old, new, scale, coordinates):
            continue
        limits = None if region is None else (region[axis], region[axis + x.ndim])
        scale = new / old if scale is None else float(scale)
        m = np.zeros((new, old))
        off = np.zeros(new, bool)
        for i in range(new):
            at = _reference_position(i, old, new, scale, coordinates, limits)
            off[i] = coordinates == "tf_crop_and_resize" and not 0 <= at <= old - 1
            for place, w in _reference_taps(at, mode, rounding, cubic, scale if antialias else 1.0):
                if not exclude_outside or 0 <= place < old:
                    m[i, min(max(place, 0), old - 1)] += w
        m /= m.sum(axis=1, keepdims=True)
        y = np.moveaxis(np.tensordot(m, y, (1, axis)), 0, axis)
        y[(np.s_[:],) * axis + (off,)] = outside
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        y = np.clip(np.round(y), info.min, info.max)
    return y.astype(x.dtype)


def _reference_position(i, old, new, scale, coordinates, region) -> float:
    width = scale * old
    half = (i + 0.5) / scale - 0.5
    if coordinates == "tf_crop_and_resize":
        begin, end = region
        along = (end - begin) * (old - 1) / 2 if width == 1 else (
            i * (end - begin) * (old - 1) / (width - 1))  # fmt: skip
        return along + begin * (old - 1)
    return {
        "align_corners": 0.0 if width == 1 else i * (old - 1) / (width - 1),
        "asymmetric": i / scale, "tf_half_pixel_for_nn": (i + 0.5) / scale,
        "pytorch_half_pixel": -0.5 if width == 1 else half, "half_pixel": half,
        "half_pixel_symmetric": old / 2 * (1 - new / width) + half,
    }[coordinates]  # fmt: skip


def _reference_taps(at, mode, rounding, a, scale):
    if mode == "nearest":
        place = {"round_prefer_floor": math.ceil(at - 0.5), "floor": math.floor(at),
                 "round_prefer_ceil": math.floor(at + 0.5), "ceil": math.ceil(at)}  # fmt: skip
        return [(place[rounding], 1.0)]
    shrink = min(scale, 1.0)
    reach = math.ceil((1 if mode == "linear" else 2) / shrink)
    places = range(math.floor(at) - reach, math.floor(at) + reach + 1)
    return [(p, _reference_kernel(abs(p - at) * shrink, mode, a)) for p in places]


def _reference_kernel(x, mode, a):
    if mode == "linear":
        return max(1 - x, 0)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0


resize = composite(
    "resize", "x", _expand_resize, _check_resize, reference=_reference_resize,
    samples=(
        "f32[1,2,3,4] sizes=(1,2,6,8)", "f32[1,1,4,4] sizes=(1,1,3,2) mode=linear",
        "f32[1,1,n,m] sizes=(1,1,2*n,2*m) mode=linear coordinates=align_corners n=2,3 m=4",
        "f32[1,1,4,5] sizes=(1,1,7,9) mode=cubic", "f32[1,1,4,4] sizes=(1,1,3,3) mode=cubic "
        "exclude_outside=True coordinates=asymmetric cubic=-0.5",
        *(f"f32[7,5] sizes=(4,8) coordinates={c} mode={m}" for m in ("nearest", "linear")
          for c in COORDINATES[:-1]),
        *(f"f32[6,2] sizes=(9,5) coordinates=asymmetric rounding={r}" for r in ROUNDINGS),
        "f32[7,6] sizes=(3,4) mode=linear antialias=True", "f32[9] sizes=(4,) mode=cubic "
        "antialias=True", "f32[4,4] sizes=(3,3) mode=linear coordinates=tf_crop_and_resize "
        "region=(0.2,0.4,1.2,0.8) outside=9.0", "f32[1,4,4] sizes=(1,2,2) scales=(1.0,0.6,0.6)",
        "u8[4,4]@0:255 sizes=(7,7) mode=cubic", "f16[4,4] sizes=(8,8) mode=linear",
        "f32[3,3] sizes=(1,1) mode=linear coordinates=pytorch_half_pixel",
        "i32[n] sizes=(3*n,) coordinates=asymmetric rounding=floor n=1,3",
    ),
    doc="x sampled on another number of evenly spaced positions in each dimension.",
)  # fmt: skip


# ---- grid_sample -------------------------------------------------------------------------------


def _check_grid(x, grid, *, mode="linear", padding="zeros", align_corners=False) -> None:
    op = "grid_sample"
    n = x.rank - 2
    require(
        n >= 1 and grid.rank == x.rank and grid.shape[-1] == n,
        f"{op}: grid {grid} does not give {n} coordinates for each result element of x {x}",
    )
    require(grid.shape[0] == x.shape[0], f"{op}: batch sizes differ: x {x}, grid {grid}")
    require(mode in ("linear", "nearest", "cubic"), f"{op}: mode {mode!r} is not known")
    require(padding in ("zeros", "border", "reflection"), f"{op}: padding {padding!r} is not known")


def _reflect(at: Node, low: Node, high: Node) -> Node:
    """Positions outside [low, high] mirrored at its ends until they lie within."""
    span = sub(high, low)
    twice = maximum(mul(span, 2.0), 1e-30)
    t = modulo(sub(at, low), twice)
    return add(low, select(less_equal(t, span), t, sub(twice, t)))


def _expand_grid_sample(x, grid, *, mode="linear", padding="zeros", align_corners=False):
    """Each tap of the window is one gather; its weight is a product over dimensions."""
    n, c, *dims = x.shape
    out, count = grid.shape[1:-1], product(grid.shape[1:-1])
    wide = widened(x)
    flat_x = reshape(wide, shape=(n, c, product(dims)))
    taps = []  # for each dimension: (position, weight, inside) of every tap, [n, count]
    for k, d in enumerate(dims):
        lead = (0,) * (grid.rank - 1)
        last = len(dims) - 1 - k  # the grid names the last dimension first
        at = slice(grid, starts=(*lead, last), stops=(*grid.shape[:-1], last + 1))
        at = widened(reshape(at, shape=(n, count)))
        taps.append(_grid_taps(at, d, mode, padding, align_corners))
    total = None
    for chosen in itertools.product(*taps):
        flat, weight, inside = None, None, None
        for (place, w, keep), d in zip(chosen, dims):
            flat = place if flat is None else add(mul(flat, _number(d, i64)), place)
            weight = w if weight is None or w is None else mul(weight, w)
            inside = keep if inside is None else logical_and(inside, keep)
        spread = lambda t: broadcast_to(reshape(t, shape=(n, 1, count)), shape=(n, c, count))
        value = gather_elements(flat_x, spread(flat), axis=2)
        if inside is not None:
            value = select(spread(inside), value, scalar_like(value, 0))
        if weight is not None:
            value = mul(value, reshape(to_dtype(weight, value.dtype), shape=(n, 1, count)))
        total = value if total is None else add(total, value)
    return to_dtype(reshape(total, shape=(n, c, *out)), x.dtype)


def _grid_taps(at: Node, d: Dim, mode: str, padding: str, align_corners: bool):
    """(index, weight or None, inside or None) of the elements that one coordinate reads."""
    size = _number(d, at.dtype)
    last = sub(size, 1.0)
    if align_corners:
        at = mul(div(add(at, 1.0), 2.0), last)
        low, high = scalar_like(at, 0), last
    else:
        at = div(sub(mul(add(at, 1.0), size), 1.0), 2.0)
        low, high = scalar_like(at, -0.5), sub(size, 0.5)
    at = round_even(at) if mode == "nearest" else at
    bound = lambda t: _bounded(t, padding, low, high, last)
    at = bound(at)
    base = floor(at)
    offsets = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}[mode]
    found = []
    for offset in offsets:
        place = add(base, float(offset)) if offset else base
        distance = sub(at, place)
        weight = {"nearest": lambda t: None, "linear": _triangle,
                  "cubic": lambda t: cubic_kernel(t, -0.75)}[mode](distance)  # fmt: skip
        inside = None
        if padding == "zeros":
            inside = logical_and(less_equal(scalar_like(place, 0), place), less_equal(place, last))
        found.append((_indices(bound(place), d), weight, inside))
    return found


def _bounded(t: Node, padding: str, low: Node, high: Node, last: Node) -> Node:
    if padding == "border":
        return minimum(maximum(t, 0.0), last)
    return _reflect(t, low, high) if padding == "reflection" else t


def _reference_grid_sample(x, grid, mode="linear", padding="zeros", align_corners=False):
    dims = x.shape[2:]
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    wide = x.astype(np.float64)
    for at in np.ndindex(grid.shape[:-1]):
        choices = []
        for g, d in zip(grid[at][::-1].astype(np.float64), dims):
            p = (g + 1) / 2 * (d - 1) if align_corners else ((g + 1) * d - 1) / 2
            low, high = (0, d - 1) if align_corners else (-0.5, d - 0.5)
            p = _reference_bound(np.rint(p) if mode == "nearest" else p, d, low, high, padding)
            base, taps = math.floor(p), []
            for t in {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}[mode]:
                q = base + t
                w = 1.0 if mode == "nearest" else _reference_kernel(abs(p - q), mode, -0.75)
                if padding == "zeros" and not 0 <= q < d:
                    continue
                q = int(_reference_bound(q, d, low, high, padding))
                taps.append((min(max(q, 0), d - 1), w))
            choices.append(taps)
        for chosen in itertools.product(*choices):
            value = wide[(at[0], np.s_[:], *(q for q, _ in chosen))]
            y[(at[0], np.s_[:], *at[1:])] += value * math.prod(w for _, w in chosen)
    return y.astype(x.dtype)


def _reference_bound(p, d, low, high, padding):
    if padding == "border":
        return min(max(p, 0), d - 1)
    if padding == "reflection" and high > low:
        t = (p - low) % (2 * (high - low))
        return low + min(t, 2 * (high - low) - t)
    return p


grid_sample = composite(
    "grid_sample", "x, grid", _expand_grid_sample, _check_grid, reference=_reference_grid_sample,
    dtypes=FLOATS,
    samples=(
        *(f"f32[1,2,4,5] f32[1,3,3,2]@-1.4:1.4 mode={m} padding={p}"
          for m in ("linear", "nearest") for p in ("zeros", "border", "reflection")),
        "f32[1,1,4,5] f32[1,2,3,2]@-1.4:1.4 mode=cubic padding=reflection align_corners=True",
        "f32[1,1,4] f32[1,5,1]@-1.4:1.4 mode=cubic",
        "f32[1,1,4] f32[1,5,1]@-1.4:1.4 padding=reflection align_corners=True",
        "f32[n,1,4,4] f32[n,2,3,2]@-1:1 n=1,2", "f32[1,2,3,3,3] f32[1,2,2,2,3]@-1:1",
        "f32[1,1,6] f32[1,4,1]@-1:1",
    ),
    doc="x at positions given by a grid of coordinates in [-1, 1], last dimension first.",
)  # fmt: skip


def _infer_affine(theta: TensorType, *, sizes=(), align_corners=False) -> TensorType:
    n = len(sizes)
    require(theta.rank == 3 and theta.shape[1:] == (n, n + 1),
            f"affine_grid: theta {theta} does not map {n} coordinates")  # fmt: skip
    return TensorType(theta.dtype, (theta.shape[0], *shape_of(sizes), n))


def _expand_affine(theta, *, sizes, align_corners):
    """theta times (x, y, ..., 1) at every point."""
    n = len(sizes)
    parts = []
    for k in reversed(range(n)):
        size = _number(sizes[k], theta.dtype)
        at = iota(shape=tuple(sizes[k] if a == k else 1 for a in range(n)), axis=k,
                  dtype=theta.dtype)  # fmt: skip
        if align_corners:
            at = sub(div(mul(at, 2.0), sub(size, 1.0)), 1.0)
        else:
            at = sub(div(add(mul(at, 2.0), 1.0), size), 1.0)
        parts.append(reshape(broadcast_to(at, shape=sizes), shape=(*sizes, 1)))
    parts.append(full(shape=(*sizes, 1), value=1, dtype=theta.dtype))
    points = reshape(concat(*parts, axis=-1), shape=(product(sizes), n + 1))
    y = dot_general(theta, points, contract=((2,), (1,)))  # [batch, n, points]
    return reshape(transpose(y, perm=(0, 2, 1)), shape=(theta.shape[0], *sizes, n))


def _reference_affine(theta, sizes=(), align_corners=False):
    axes = []
    for d in sizes:
        i = np.arange(d)
        axes.append(i * 2 / (d - 1) - 1 if align_corners else (2 * i + 1) / d - 1)
    grid = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(sizes)], -1)
    return np.einsum("bij,...j->b...i", theta.astype(np.float64), grid).astype(theta.dtype)


affine_grid = define(
    "affine_grid", "theta", infer=_infer_affine, reference=_reference_affine,
    expand=_expand_affine, dtypes=FLOATS,
    samples=("f32[2,2,3] sizes=(3,4)", "f32[1,3,4] sizes=(2,3,4) align_corners=True",
             "f32[b,2,3] sizes=(n,2) b=1 n=2,5"),
    doc="Coordinates for grid_sample: an affine map of every point of a result.",
)  # fmt: skip
