"""Reading and writing at computed positions: gathers, scatters, windows.

An index operand may be any integer type. A negative index counts from the end; one outside the
tensor is clamped into it, so that no kernel ever leaves a buffer, and a scatter is the adjoint of
the gather of its form. Writing one place twice with mode "set" keeps the last in row-major order.

    gather(x: f32[n, 8], indices: i64[3], axis=0)  ->  y[i, j] = x[clamp(indices[i]), j]
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import INTEGERS, boolean, index
from tensorwright.ir.expr import Buffer, Expr, all_of, as_expr, binary, compare, const, load
from tensorwright.ir.expr import cast as cast_expr
from tensorwright.ir.expr import maximum as max_of
from tensorwright.ir.expr import minimum as min_of
from tensorwright.ir.expr import select as select_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import If, Stmt, loops, seq, store
from tensorwright.ir.type import Dim, Shape, TensorType, dim_text, shape_of
from tensorwright.ops.define import compute, define, normalize_axis, require, same_dtype
from tensorwright.ops.elementwise import cast, div, equal, maximum, mul
from tensorwright.ops.positions import (
    bind_size,
    full,
    iota,
    nonzero,
    one_hot,
    position,
    range_,
    size,
    trilu,
    zeros_like,
)  # fmt: skip

__all__ = [
    "bind_size", "compress", "dynamic_slice", "dynamic_update_slice", "full", "gather",
    "gather_elements", "gather_nd", "iota", "nonzero", "one_hot", "range_", "scatter_axis",
    "scatter_elements", "scatter_nd", "size", "trilu",
]  # fmt: skip
MODES = ("set", "add", "mul", "min", "max")

# ---- reading at computed positions -------------------------------------------------------------


def guarded(extents, value: Expr) -> Expr:
    """`value`, or zero where a dimension that it reads by a computed index is empty."""
    nonempty = all_of(compare("lt", const(0), as_expr(d)) for d in extents)
    return select_expr(nonempty, value, const(0, value.dtype))


def check_indices(op: str, t: TensorType) -> None:
    require(t.dtype in INTEGERS, f"{op}: the indices are {t.dtype}", "cast them to i64")


def check_nonempty(op: str, extent: Dim, count: Dim) -> None:
    require(extent != 0 or count == 0, f"{op}: the dimension that is indexed is empty")


def normal(indices, extent: int):
    """The same on arrays."""
    indices = indices.astype(np.int64)
    return np.clip(np.where(indices < 0, indices + extent, indices), 0, max(extent - 1, 0))


def _infer_gather(x: TensorType, indices: TensorType, *, axis: int = 0) -> TensorType:
    axis = normalize_axis("gather", axis, x.rank)
    check_indices("gather", indices)
    check_nonempty("gather", x.shape[axis], indices.size)
    return TensorType(x.dtype, x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _lower_gather(out: Buffer, x: Buffer, indices: Buffer, *, axis: int) -> Stmt:
    axis %= x.rank

    def element(*i: Expr) -> Expr:
        at = position(indices[i[axis : axis + indices.rank]], x.shape[axis])
        return guarded(x.shape[axis : axis + 1],
                       x[(*i[:axis], at, *i[axis + indices.rank :])])  # fmt: skip

    return compute(out, element)


gather = define(
    "gather", "x, indices", infer=_infer_gather, lower=_lower_gather,
    reference=lambda x, indices, axis=0: np.take(x, normal(indices, x.shape[axis]), axis),
    gradient=lambda g, y, x, indices, axis: (
        scatter_axis(zeros_like(x), indices, g, axis=axis, mode="add"), None),
    onnx="Gather", torch="index_select.default",
    samples=("f32[5,4] i64[3]@-5:4", "f32[n,4] i32[2,2]@-1:0 n=1,6", "f64[3,4] i64[]@0:3 axis=1",
             "f32[3,4] i64[0] axis=-1", "f64[2,3,4] i64[2,2]@-9:9 axis=1", "bool[4] u8[6]@0:9",
             "i64[7] i64[n]@0:6 n=1,4", "f16[4,0] i64[2]@0:3"),
    doc="The slices of x along an axis that the indices name (NumPy's take).",
)  # fmt: skip


def _check_ranks(op: str, x: TensorType, indices: TensorType, axis: int) -> int:
    axis = normalize_axis(op, axis, x.rank)
    check_indices(op, indices)
    require(indices.rank == x.rank, f"{op}: x has rank {x.rank}, the indices {indices.rank}")
    for k, (d, n) in enumerate(zip(x.shape, indices.shape)):
        fits = k == axis or not (isinstance(d, int) and isinstance(n, int)) or n <= d
        require(fits, f"{op}: indices.shape[{k}] is {n}, more than x.shape[{k}], which is {d}")
    check_nonempty(op, x.shape[axis], indices.size)
    return axis


def _infer_gather_elements(x: TensorType, indices: TensorType, *, axis: int = 0) -> TensorType:
    _check_ranks("gather_elements", x, indices, axis)
    return TensorType(x.dtype, indices.shape)


def _lower_gather_elements(out: Buffer, x: Buffer, indices: Buffer, *, axis: int) -> Stmt:
    axis %= x.rank

    def element(*i: Expr) -> Expr:
        at = position(indices[i], x.shape[axis])
        return guarded(x.shape[axis : axis + 1], x[(*i[:axis], at, *i[axis + 1 :])])

    return compute(out, element)


def _grid(indices, axis: int, extent: int) -> tuple:
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = normal(indices, extent)
    return tuple(grid)


gather_elements = define(
    "gather_elements", "x, indices", infer=_infer_gather_elements, lower=_lower_gather_elements,
    reference=lambda x, indices, axis=0: x[_grid(indices, axis, x.shape[axis])],
    gradient=lambda g, y, x, indices, axis: (
        scatter_elements(zeros_like(x), indices, g, axis=axis, mode="add"), None),
    onnx="GatherElements", torch="gather.default",
    samples=("f32[5,4] i64[3,4]@-5:4", "f64[3,4] i64[2,6]@-4:3 axis=1", "f32[n] i32[4]@-1:9 n=1,5",
             "f32[2,3] i64[2,0] axis=-1", "i32[6] i64[1]@0:5", "f32[2,3,2] i64[2,2,1]@0:2 axis=1"),
    doc="y[i, j] = x[indices[i, j], j], for axis 0.",
)  # fmt: skip


def _nd_parts(op: str, x: TensorType, indices: TensorType, batch_dims: int) -> int:
    """How many dimensions of x one index vector names."""
    check_indices(op, indices)
    require(indices.rank > batch_dims >= 0 and isinstance(indices.shape[-1], int),
            f"{op}: the last dimension of the indices must be a known size")  # fmt: skip
    depth = indices.shape[-1]
    require(batch_dims + depth <= x.rank,
            f"{op}: index vectors of {depth} elements for a tensor of rank {x.rank}")  # fmt: skip
    require(indices.shape[:batch_dims] == x.shape[:batch_dims],
            f"{op}: the {batch_dims} batch dimensions differ")  # fmt: skip
    for d in x.shape[batch_dims : batch_dims + depth]:
        check_nonempty(op, d, indices.size)
    return depth


def _infer_gather_nd(x: TensorType, indices: TensorType, *, batch_dims: int = 0) -> TensorType:
    depth = _nd_parts("gather_nd", x, indices, batch_dims)
    return TensorType(x.dtype, indices.shape[:-1] + x.shape[batch_dims + depth :])


def _nd_positions(indices: Buffer, lead, shape: Shape) -> tuple[Expr, ...]:
    """Where the index vector at `lead` points in dimensions `shape`."""
    return tuple(position(indices[(*lead, const(k))], d) for k, d in enumerate(shape))


def _lower_gather_nd(out: Buffer, x: Buffer, indices: Buffer, *, batch_dims: int) -> Stmt:
    depth, lead = indices.shape[-1], indices.rank - 1
    named = x.shape[batch_dims : batch_dims + depth]

    def element(*i: Expr) -> Expr:
        at = _nd_positions(indices, i[:lead], named)
        return guarded(named, x[(*i[:batch_dims], *at, *i[lead:])])

    return compute(out, element)


def _nd_grid(x, indices, batch_dims: int) -> tuple:
    lead = indices.shape[:-1]
    grid = list(np.ix_(*map(np.arange, lead)))[:batch_dims]
    named = x.shape[batch_dims : batch_dims + indices.shape[-1]]
    grid += [normal(indices[..., k], d) for k, d in enumerate(named)]
    return tuple(np.broadcast_to(g, lead) for g in grid)


def _reference_gather_nd(x, indices, batch_dims=0):
    grid = _nd_grid(x, indices, batch_dims)
    return x[grid] if grid else np.broadcast_to(x, indices.shape[:-1] + x.shape)


def _gather_nd_gradient(g, y, x, indices, batch_dims):
    return scatter_nd(zeros_like(x), indices, g, mode="add", batch_dims=batch_dims), None


gather_nd = define(
    "gather_nd", "x, indices", infer=_infer_gather_nd, lower=_lower_gather_nd,
    reference=_reference_gather_nd, gradient=_gather_nd_gradient, onnx="GatherND",
    samples=("f32[4,5] i64[3,2]@-4:3", "f64[4,5] i64[2,2,1]@0:3", "f32[n,3] i32[2,1]@0:0 n=1,4",
             "f64[2,3,4] i64[2,2,1]@0:2 batch_dims=1", "f32[3,4] i64[0,2]", "f32[3] i64[2,0]",
             "f32[2,3,4] i64[2,1]@-2:2 batch_dims=1", "f32[2,3] i64[2,4,0] batch_dims=1"),
    doc="x at index vectors: the last dimension of the indices names the first ones of x.",
)  # fmt: skip

# ---- writing at computed positions -------------------------------------------------------------


def _check_mode(op: str, x: TensorType, updates: TensorType, wanted: Shape, mode: str) -> None:
    require(mode in MODES, f"{op}: mode {mode!r} is not one of {', '.join(MODES)}")
    same_dtype(op, x, updates)
    require(
        updates.shape == wanted,
        f"{op}: the updates have shape ({_dims(updates.shape)}), not ({_dims(wanted)})",
    )


def _dims(shape: Shape) -> str:
    return ", ".join(map(dim_text, shape))


def _combine(mode: str, old: Expr, new: Expr) -> Expr:
    return new if mode == "set" else binary({"add": "or", "mul": "and", "min": "and", "max": "or"}[
        mode] if old.dtype is boolean else mode, old, new)  # fmt: skip


def _scatter_nest(out: Buffer, x: Buffer, extents, target, value, mode: str, named) -> Stmt:
    """Copy x, then update at target(i...) for every i in `extents`."""
    copy = compute(out, lambda *i: x[i])

    def update(*i: Expr) -> Stmt:
        at = target(*i)
        return store(out, at, _combine(mode, load(out, at), value(*i)))

    nonempty = all_of(compare("lt", const(0), as_expr(d)) for d in named)
    updates = loops([f"u{k}" for k in range(len(extents))], extents, update)
    return seq(copy, updates if nonempty is const(True, boolean) else If(nonempty, updates))


_COMBINE = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def _scatter_into(x, grid, updates, mode):
    """x with updates, in their order, at the places grid[0][i], grid[1][i] ... of its first
    dimensions. Plain assignment promises no order: of the updates of a place the last is taken."""
    grid = np.broadcast_arrays(*grid)
    if not grid or grid[0].size == 0 or x.size == 0:
        return x.copy()
    named, count = x.shape[: len(grid)], grid[0].size
    try:
        place = np.ravel_multi_index([g.reshape(count) for g in grid], named)
    except ValueError:
        raise IndexError(f"an index lies outside of the dimensions {named}") from None
    y = x.reshape(-1, *x.shape[len(grid) :]).copy()
    updates = updates.reshape(count, *y.shape[1:])
    if mode == "set":
        place, last = np.unique(place[::-1], return_index=True)
        y[place] = updates[::-1][last]
    else:
        _COMBINE[mode].at(y, place, updates)
    return y.reshape(x.shape)


def _infer_scatter_elements(x: TensorType, indices: TensorType, updates: TensorType, *,
                            axis: int = 0, mode: str = "set") -> TensorType:  # fmt: skip
    _check_ranks("scatter_elements", x, indices, axis)
    _check_mode("scatter_elements", x, updates, indices.shape, mode)
    return x


def _lower_scatter_elements(out, x, indices, updates, *, axis: int, mode: str) -> Stmt:
    axis %= x.rank

    def target(*i: Expr) -> tuple:
        return (*i[:axis], position(indices[i], x.shape[axis]), *i[axis + 1 :])

    named = x.shape[axis : axis + 1]
    return _scatter_nest(out, x, indices.shape, target, lambda *i: updates[i], mode, named)


def _scatter_gradient(read, write):
    """Rules shared by the scatters: `read(t, indices)` gathers where `write` scatters."""

    def rule(g, y, x, indices, updates, mode="set", **attrs):
        if mode == "add":
            return g, None, read(g, indices, **attrs)
        if mode == "set":  # exact where no place is written twice
            gone = write(g, indices, zeros_like(updates), mode="set", **attrs)
            return gone, None, read(g, indices, **attrs)
        kept, taken = _share(read, write, y, x, indices, updates, mode, attrs)
        return mul(g, kept), None, mul(read(g, indices, **attrs), taken)

    return rule


def _share(read, write, y, x, indices, updates, mode, attrs):
    """The derivatives of y by x and by each update, for products and extrema."""
    at = lambda t: read(t, indices, **attrs)
    if mode == "mul":
        ones = full(shape=x.shape, value=1, dtype=x.dtype)
        return write(ones, indices, updates, mode="mul", **attrs), div(at(y), updates)
    winner, won = cast(equal(x, y), dtype=x.dtype), cast(equal(updates, at(y)), dtype=x.dtype)
    ties = write(winner, indices, won, mode="add", **attrs)
    return div(winner, maximum(ties, 1.0)), div(won, maximum(at(ties), 1.0))


SCATTERS = ("f32[5,4] i64[3,4]@-5:4 f32[3,4]", "f64[3,4] i64[2,6]@-4:3 f64[2,6] axis=1")
scatter_elements = define(
    "scatter_elements", "x, indices, updates", infer=_infer_scatter_elements,
    lower=_lower_scatter_elements, onnx="ScatterElements",
    reference=lambda x, indices, updates, axis=0, mode="set": _scatter_into(
        x, _grid(indices, axis, x.shape[axis]), updates, mode),
    gradient=_scatter_gradient(lambda *a, **k: gather_elements(*a, **k),
                               lambda *a, **k: scatter_elements(*a, **k)),
    samples=(*(f"{s} mode={m}" for m in MODES[1:] for s in SCATTERS),
             "f64[4,2] i64[1,2]@0:3 f64[1,2]", "f32[n,2] i32[1,2]@0:0 f32[1,2] n=1,4",
             "i32[3] i64[5]@0:2 i32[5]", "f32[2,3] i64[0,3] f32[0,3] mode=add"),
    doc="x with y[indices[i, j], j] set to (or combined with) updates[i, j], for axis 0.",
)  # fmt: skip


def _infer_scatter_nd(x: TensorType, indices: TensorType, updates: TensorType, *,
                      mode: str = "set", batch_dims: int = 0) -> TensorType:  # fmt: skip
    depth = _nd_parts("scatter_nd", x, indices, batch_dims)
    wanted = indices.shape[:-1] + x.shape[batch_dims + depth :]
    _check_mode("scatter_nd", x, updates, wanted, mode)
    return x


def _lower_scatter_nd(out, x, indices, updates, *, mode: str, batch_dims: int) -> Stmt:
    depth, lead = indices.shape[-1], indices.rank - 1
    named = x.shape[batch_dims : batch_dims + depth]

    def target(*i: Expr) -> tuple:
        return (*i[:batch_dims], *_nd_positions(indices, i[:lead], named), *i[lead:])

    return _scatter_nest(out, x, updates.shape, target, lambda *i: updates[i], mode, named)


def _reference_scatter_nd(x, indices, updates, mode="set", batch_dims=0):
    grid = _nd_grid(x, indices, batch_dims)
    if not grid:  # empty index vectors: every update meets the whole of x
        lead = np.prod(indices.shape[:-1], dtype=int)
        grid, x = (np.zeros(lead, int),), x[None]
        return _scatter_into(x, grid, updates.reshape(lead, *x.shape[1:]), mode)[0]
    return _scatter_into(x, grid, updates, mode)


scatter_nd = define(
    "scatter_nd", "x, indices, updates", infer=_infer_scatter_nd, lower=_lower_scatter_nd,
    reference=_reference_scatter_nd, onnx="ScatterND",
    gradient=_scatter_gradient(lambda g, i, batch_dims: gather_nd(g, i, batch_dims=batch_dims),
                               lambda *a, **k: scatter_nd(*a, **k)),
    samples=(*(f"f64[4,5] i64[3,2]@-4:3 f64[3] mode={m}" for m in MODES[1:]),
             "f64[4,5] i64[1,1]@0:3 f64[1,5]", "f32[n,3] i32[2,1]@0:0 f32[2,3] mode=add n=1,4",
             "i32[3] i64[2,0] i32[2,3]", "f64[3] i64[1,0] f64[1,3]",
             "f64[2,3,2] i64[2,1,1]@0:2 f64[2,1,2] batch_dims=1",
             "i32[2,3] i64[2,4,0] i32[2,4,3] batch_dims=1",
             "i64[3] i64[0,1] i64[0]"),
    doc="x with slices set to (or combined with) updates at index vectors.",
)  # fmt: skip


def _infer_scatter_axis(x: TensorType, indices: TensorType, updates: TensorType, *,
                        axis: int = 0, mode: str = "add") -> TensorType:  # fmt: skip
    axis = normalize_axis("scatter_axis", axis, x.rank)
    check_indices("scatter_axis", indices)
    wanted = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    _check_mode("scatter_axis", x, updates, wanted, mode)
    check_nonempty("scatter_axis", x.shape[axis], indices.size)
    return x


def _lower_scatter_axis(out, x, indices, updates, *, axis: int, mode: str) -> Stmt:
    axis %= x.rank
    after = axis + indices.rank

    def target(*i: Expr) -> tuple:
        return (*i[:axis], position(indices[i[axis:after]], x.shape[axis]), *i[after:])

    named = x.shape[axis : axis + 1]
    return _scatter_nest(out, x, updates.shape, target, lambda *i: updates[i], mode, named)


def _reference_scatter_axis(x, indices, updates, axis=0, mode="add"):
    axis %= x.ndim
    middle = tuple(range(axis, axis + indices.ndim))
    front = np.moveaxis(updates, middle, range(indices.ndim))
    moved = np.moveaxis(x, axis, 0)
    done = _scatter_into(moved, (normal(indices, x.shape[axis]),), front, mode)
    return np.moveaxis(done, 0, axis)


scatter_axis = define(
    "scatter_axis", "x, indices, updates", infer=_infer_scatter_axis, lower=_lower_scatter_axis,
    reference=_reference_scatter_axis,
    gradient=_scatter_gradient(lambda *a, **k: gather(*a, **k),
                               lambda *a, **k: scatter_axis(*a, **k)),
    samples=("f64[5,4] i64[3]@-5:4 f64[3,4]", "f32[n,4] i32[2,2]@-1:0 f32[2,2,4] n=1,6",
             "f64[3,4] i64[]@0:3 f64[3] axis=1 mode=set", "f32[3,4] i64[0] f32[3,0] axis=-1",
             "f64[2,3,2] i64[2,2]@-9:9 f64[2,2,2,2] axis=1", "f64[4] i64[6]@0:3 f64[6] mode=max"),
    doc="x with slices along an axis combined with updates: the adjoint of gather.",
)  # fmt: skip

# ---- windows at computed positions -------------------------------------------------------------


def _check_starts(op: str, x: TensorType, starts: TensorType, sizes: Shape) -> None:
    check_indices(op, starts)
    require(starts.shape == (x.rank,), f"{op}: starts is {starts} for a tensor of rank {x.rank}")
    require(len(sizes) == x.rank, f"{op}: {len(sizes)} sizes for a tensor of rank {x.rank}")
    for k, (d, n) in enumerate(zip(x.shape, sizes)):
        fits = compare("le", as_expr(n), as_expr(d))
        require(fits is not const(False, boolean),
                f"{op}: dimension {k} of the window is {dim_text(n)}, "
                f"x.shape[{k}] is {dim_text(d)}")  # fmt: skip


def _infer_dynamic_slice(x: TensorType, starts: TensorType, *, sizes: Shape) -> TensorType:
    _check_starts("dynamic_slice", x, starts, sizes)
    return TensorType(x.dtype, shape_of(sizes))


def _window(starts: Buffer, i, x: Buffer, sizes: Shape) -> tuple[Expr, ...]:
    """Subscripts of x for element `i` of a window that is moved until it fits."""
    out = []
    for k, (at, d, n) in enumerate(zip(i, x.shape, sizes)):
        first = cast_expr(starts[k], index)
        out.append(max_of(min_of(first, as_expr(d) - as_expr(n)), 0) + at)
    return tuple(out)


def _lower_dynamic_slice(out: Buffer, x: Buffer, starts: Buffer, *, sizes) -> Stmt:
    return compute(out, lambda *i: x[_window(starts, i, x, sizes)])


def _slices(x, starts, sizes) -> tuple:
    first = [min(max(int(s), 0), d - n) for s, d, n in zip(starts, x.shape, sizes)]
    return tuple(slice(f, f + n) for f, n in zip(first, sizes))


dynamic_slice = define(
    "dynamic_slice", "x, starts", infer=_infer_dynamic_slice, lower=_lower_dynamic_slice,
    reference=lambda x, starts, sizes: x[_slices(x, starts, sizes)],
    gradient=lambda g, y, x, starts, sizes: (
        dynamic_update_slice(zeros_like(x), g, starts), None),
    samples=("f32[5,4] i64[2]@-1:4 sizes=(2,4)", "f64[n,3] i32[2]@0:1 sizes=(1,2) n=1,5",
             "f32[4] i64[1]@9:9 sizes=(0,)", "f32[6] i64[1]@0:4 sizes=(n,) n=1,6"),
    doc="A window of fixed size; its start is clamped so that it fits.",
)  # fmt: skip


def _infer_dynamic_update(x: TensorType, update: TensorType, starts: TensorType) -> TensorType:
    same_dtype("dynamic_update_slice", x, update)
    require(update.rank == x.rank, f"dynamic_update_slice: x has rank {x.rank}, "
            f"the update {update.rank}")  # fmt: skip
    _check_starts("dynamic_update_slice", x, starts, update.shape)
    return x


def _lower_dynamic_update(out: Buffer, x: Buffer, update: Buffer, starts: Buffer) -> Stmt:
    return _scatter_nest(out, x, update.shape, lambda *i: _window(starts, i, x, update.shape),
                         lambda *i: update[i], "set", ())  # fmt: skip


def _reference_dynamic_update(x, update, starts):
    y = x.copy()
    y[_slices(x, starts, update.shape)] = update
    return y


dynamic_update_slice = define(
    "dynamic_update_slice", "x, update, starts", infer=_infer_dynamic_update,
    lower=_lower_dynamic_update, reference=_reference_dynamic_update,
    gradient=lambda g, y, x, update, starts: (
        dynamic_update_slice(g, zeros_like(update), starts),
        dynamic_slice(g, starts, sizes=update.shape), None),
    samples=("f32[5,4] f32[2,4] i64[2]@-1:4", "f64[n,3] f64[1,2] i32[2]@0:1 n=1,5",
             "f32[4] f32[0] i64[1]@9:9", "f16[6] f16[2] i64[1]@0:9"),
    doc="x with a window replaced; its start is clamped so that it fits.",
)  # fmt: skip


def compress(x: Node, condition: Node, axis: int) -> Node:
    """The slices of x along an axis where a bool vector (no longer than it) is true."""
    return gather(x, nonzero(condition, flat=True), axis=axis)
