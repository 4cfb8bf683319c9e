"""ONNX slices, concatenation and padding.

Bounds are clamped as ONNX clamps them, on ints and on index expressions alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_elementwise import scalar
from tensorwright.frontend.onnx_ops_movement import axes_of, axis_of
from tensorwright.frontend.size_checks import Check, checked_slice, checked_zero, slice_checks
from tensorwright.ir.expr import (
    Expr,
    as_dim,
    as_expr,
    ceildiv,
    compare,
    floordiv,
    is_const,
    maximum,
    minimum,
    select,
)
from tensorwright.ir.graph import Node, array_of
from tensorwright.ir.type import Dim

# ---- slices and concatenation -------------------------------------------------------------------


@converter("Slice")
def slice_by_attributes(
    c: Call, x: Node, *, starts: Ints, ends: Ints, axes: Ints | None = None
) -> Node:
    axes = tuple(range(len(starts))) if axes is None else axes
    return sliced(c, x, starts, ends, axes, (1,) * len(starts))


@converter("Slice", since=10)
def slice_(
    c: Call, x: Node, starts: Node, ends: Node, axes: Node | None = None,
    steps: Node | None = None,
) -> Node:  # fmt: skip
    first, last = c.dims(starts, low=None), c.dims(ends, low=None)
    at = tuple(range(len(first))) if axes is None else c.ints(axes, "axes")
    by = (1,) * len(first) if steps is None else c.ints(steps, "steps")
    return sliced(c, x, first, last, at, by)


def sliced(c: Call, x: Node, starts, ends, axes, steps) -> Node:
    """x[starts:ends:steps] along the axes, bounds clamped as ONNX clamps them."""
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise c.fail("starts, ends, axes and steps have different lengths")
    axes = axes_of(c, axes, x.rank)
    begin, end, by = [0] * x.rank, list(x.shape), [1] * x.rank
    for a, s, e, step in zip(axes, starts, ends, steps):
        if step == 0:
            raise c.fail("a step is 0")
        d = x.shape[a]
        if d == 0:
            continue
        by[a] = step
        if step == 1 and any(isinstance(v, Expr) for v in (s, e)):
            begin[a], end[a] = within(c, s, e, d)
            continue
        low, high = (0, d) if step > 0 else (-1, as_dim(as_expr(d) - 1))
        begin[a] = clamped(from_end(s, d), max(low, 0), high)
        end[a] = clamped(from_end(e, d), low, high)
        if step > 0:
            end[a] = as_dim(maximum(as_expr(end[a]), as_expr(begin[a])))
        else:
            end[a] = as_dim(minimum(as_expr(end[a]), as_expr(begin[a])))
    if all(b == 0 for b in begin) and tuple(end) == x.shape and all(s == 1 for s in by):
        return x
    return ops.slice(x, starts=tuple(begin), stops=tuple(end), steps=tuple(by))


def within(c: Call, start: Dim, stop: Dim, d: Dim) -> tuple[Dim, Dim]:
    """start and stop clamped into [0, d]. In a strict import they are taken as they are where
    nothing shows that they need it, and the program checks that."""
    begin = clamped(from_end(start, d), 0, d)
    end = as_dim(maximum(as_expr(clamped(from_end(stop, d), 0, d)), as_expr(begin)))
    plain = [as_expr(v if isinstance(v, Expr) else clamped(from_end(v, d), 0, d))
             for v in (start, stop)]  # fmt: skip
    checks = slice_checks(*map(as_dim, plain), d)
    conditions = [check.holds for check in checks]
    if all(is_const(t, True) for t in conditions) or any(is_const(t, False) for t in conditions):
        return begin, end
    c.importer.undecided += 1
    if not c.importer.strict:
        return begin, end
    # Where it depends on the size of an input alone, that gets a bound instead.
    open_ = [t for t in checks
             if not is_const(t.holds) and not c.importer.demands.require(t.holds)]  # fmt: skip
    return checked_slice(*map(as_dim, plain), open_)


def from_end(v: Dim, d: Dim) -> Dim:
    """v, counted from the end if negative."""
    if isinstance(v, int):
        if v <= -FAR:
            return -FAR
        return v if v >= 0 else as_dim(as_expr(d) + v)
    return as_dim(select(compare("lt", v, 0), v + d, v))


FAR = (1 << 31) - 1  # exporters write the largest i32 or i64 for "to the end"


def clamped(v: Dim, low: Dim, high: Dim) -> Dim:
    if isinstance(v, int) and v >= FAR:
        return high
    return as_dim(minimum(maximum(as_expr(v), as_expr(low)), as_expr(high)))


@converter("Concat")
def concat_v1(c: Call, *xs: Node, axis: int = 1) -> Node:
    return concatenated(c, xs, axis)


@converter("Concat", since=4)
def concat(c: Call, *xs: Node, axis: int) -> Node:
    return concatenated(c, xs, axis)


def concatenated(c: Call, xs: Sequence[Node], axis: int) -> Node:
    if not xs:
        raise c.fail("it has no inputs")
    axis = axis_of(c, axis, xs[0].rank)
    return xs[0] if len(xs) == 1 else ops.concat(*xs, axis=axis)


@converter("Split")
def split_by_attribute(
    c: Call, x: Node, lengths: Node | None = None, *, axis: int = 0, split: Ints | None = None
) -> list[Node]:
    if lengths is not None:
        split = c.dims(lengths)
    return divided(c, x, axis, split, c.outputs)


@converter("Split", since=13)
def split(
    c: Call, x: Node, split: Node | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> list[Node]:
    if num_outputs is not None and num_outputs != c.outputs:
        raise c.fail(f"num_outputs is {num_outputs}, and there are {c.outputs} outputs")
    sizes = None if split is None else c.dims(split)
    return divided(c, x, axis, sizes, c.outputs)


def divided(c: Call, x: Node, axis: int, sizes, count: int) -> list[Node]:
    """The pieces of x along an axis; without sizes, equal ones (the last may be smaller)."""
    axis, checks = axis_of(c, axis, x.rank), []
    if sizes is None:
        part = as_dim(ceildiv(as_expr(x.shape[axis]), count))
        last = as_dim(as_expr(x.shape[axis]) - as_expr(part) * (count - 1))
        if isinstance(last, int) and last < 0:
            raise c.fail(f"{x.shape[axis]} elements do not split into {count}")
        says = f"dimension {axis} of {{0}} elements does not split into {{1}} of {{2}}"
        checks.append(Check(compare("le", as_expr(0), as_expr(last)), says,
                            (x.shape[axis], count, part)))  # fmt: skip
        sizes = (part,) * (count - 1) + (last,)
    if len(sizes) != count:
        raise c.fail(f"{len(sizes)} sizes for {count} outputs")
    whole = as_expr(0)
    for n in sizes:
        whole = whole + as_expr(n)
    fits = compare("eq", whole, as_expr(x.shape[axis]))
    if is_const(fits, False):
        raise c.fail(f"the sizes add up to {whole}, not {x.shape[axis]}")
    says = f"the sum of the pieces of dimension {axis} is {{0}}, expected {{1}}"
    checks.append(Check(fits, says, (as_dim(whole), x.shape[axis])))
    unknown = [check for check in checks if not is_const(check.holds)]
    total = checked_zero(*unknown) if unknown else as_expr(0)
    pieces = []
    for n in sizes:
        if x.shape[axis] == 0:
            shape = tuple(n if k == axis else d for k, d in enumerate(x.shape))
            pieces.append(ops.full(shape=shape, value=total, dtype=x.dtype))
            continue
        starts, stops = [0] * x.rank, list(x.shape)
        starts[axis] = as_dim(total)
        total = total + as_expr(n)
        stops[axis] = as_dim(total)
        pieces.append(ops.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank))
    return pieces


# ---- padding ------------------------------------------------------------------------------------

MODES = ("constant", "edge", "reflect", "wrap")


@converter("Pad")
def pad_by_attributes(
    c: Call, x: Node, *, paddings: Ints = (), pads: Ints = (), mode: str = "constant",
    value: float = 0.0,
) -> Node:  # fmt: skip
    return padded(c, x, pads or paddings, None, mode, value)


@converter("Pad", since=11)
def pad(
    c: Call, x: Node, pads: Node, value: Node | None = None, axes: Node | None = None, *,
    mode: str = "constant",
) -> Node:  # fmt: skip
    at = None if axes is None else c.ints(axes, "axes")
    around = c.dims(pads, low=None)
    fill = 0 if value is None else array_of(value)
    if fill is not None:
        number = fill if isinstance(fill, int) else c.number(value, "constant_value")
        return padded(c, x, around, at, mode, number)
    y = padded(c, x, around, at, mode, 0)
    if mode != "constant":
        return y
    own = padded(c, ops.full(shape=x.shape, value=1, dtype="bool"), around, at, mode, 0)
    return ops.select(own, y, scalar(c, value))


def padded(c: Call, x: Node, pads, axes, mode: str, value) -> Node:
    """x with `pads` (all the low ends, then all the high ones) around the axes."""
    axes = tuple(range(x.rank)) if axes is None else axes_of(c, axes, x.rank)
    if len(pads) != 2 * len(axes):
        raise c.fail(f"{len(pads)} pads for {len(axes)} axes")
    if mode not in MODES:
        raise c.fail(f"mode is {mode!r}, not one of {', '.join(MODES)}")
    low, high = [0] * x.rank, [0] * x.rank
    for k, a in enumerate(axes):
        low[a], high[a] = pads[k], pads[k + len(axes)]
    return ops.pad(x, low=tuple(low), high=tuple(high), value=value, mode=mode)


@converter("CenterCropPad")
def center_crop_pad(c: Call, x: Node, shape: Node, *, axes: Ints | None = None) -> Node:
    axes = tuple(range(x.rank)) if axes is None else axes_of(c, axes, x.rank)
    dims = c.dims(shape)
    if len(dims) != len(axes):
        raise c.fail(f"{len(dims)} sizes for {len(axes)} axes")
    low, high = [0] * x.rank, [0] * x.rank
    for a, d in zip(axes, dims):
        more = as_expr(d) - as_expr(x.shape[a])
        # what is odd goes to the high end when padding, and is cut there when cropping
        first = select(compare("ge", more, 0), floordiv(more, 2), -floordiv(-more, 2))
        low[a], high[a] = as_dim(first), as_dim(more - first)
    return ops.pad(x, low=tuple(low), high=tuple(high))
