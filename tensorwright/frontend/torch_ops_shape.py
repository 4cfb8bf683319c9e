"""aten operators that make tensors or move their elements: views, slices, joins, padding, creation.

torch has worked out the shape of every result (`c.shape`), so `-1` in a view or an expanded size
never needs solving here.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend.torch_ops import (
    Call,
    Rows,
    axes_of,
    axis_of,
    clamped,
    dims,
    flat,
    is_empty,
    lift,
    number,
    slice_axis,
    take_one,
    to,
    transposed,
    with_axis,
)  # fmt: skip
from tensorwright.ir.dtype import f64, i64
from tensorwright.ir.expr import Expr, as_dim, as_expr, bounds
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import product
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv

SHAPE = Rows()


@SHAPE.row(
    "view.default", "_unsafe_view.default", "reshape.default", "view_copy.default",
    "_reshape_alias.default", "unsqueeze.default", "squeeze.default", "squeeze.dim",
    "squeeze.dims", "unsqueeze_copy.default", "squeeze_copy.default", "squeeze_copy.dim",
    "squeeze_copy.dims", "flatten.using_ints", "unflatten.int", "view_as.default",
)  # fmt: skip
def _view(c, x, how=None, more=None, sizes=None):
    return x if c.shape == x.shape else mv.reshape(x, shape=c.shape)


@SHAPE.row("view.dtype", "view_copy.dtype")
def _view_dtype(c, x, dtype):
    if c.dtype.bytes != x.dtype.bytes:
        raise c.fail("a view of another element width is not supported")
    return ew.bitcast(x, dtype=c.dtype)


@SHAPE.row("expand.default", "expand_copy.default", "expand_as.default", "broadcast_to.default")
def _expand(c, x, size=None):
    return x if c.shape == x.shape else mv.broadcast_to(x, shape=c.shape)


@SHAPE.row("permute.default", "permute_copy.default")
def _permute(c, x, perm):
    return transposed(x, [axis_of(p, x.rank) for p in perm])


@SHAPE.row("transpose.int", "swapaxes.default", "swapdims.default", "transpose_copy.int")
def _transpose(c, x, a, b):
    perm = list(range(x.rank))
    if x.rank:
        a, b = axis_of(a, x.rank), axis_of(b, x.rank)
        perm[a], perm[b] = perm[b], perm[a]
    return transposed(x, perm)


@SHAPE.row("t.default", "numpy_T.default", "t_copy.default")
def _t(c, x):
    return transposed(x, range(x.rank)[::-1])


@SHAPE.row("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist")
def _movedim(c, x, source, target):
    source, target = axes_of(source, x.rank) or (), axes_of(target, x.rank) or ()
    rest = iter(k for k in range(x.rank) if k not in source)
    place = dict(zip(target, source))
    return transposed(x, [place[k] if k in place else next(rest) for k in range(x.rank)])


@SHAPE.row("select.int", "select_copy.int")
def _select(c, x, axis, position):
    axis = axis_of(axis, x.rank)
    return take_one(x, axis, _position(position, x.shape[axis]))


def _position(position, extent):
    """An index counted from the end if it is known to be negative."""
    high = bounds(as_expr(position))[1]
    if high is not None and high < 0:
        return as_dim(as_expr(extent) + position)
    return position


@SHAPE.row("slice.Tensor", "slice_copy.Tensor")
def _slice(c, x, axis=0, start=None, end=None, step=1):
    axis = axis_of(axis, x.rank)
    extent, size = x.shape[axis], c.shape[axis]
    if size == extent and step == 1:
        return x
    begin = clamped(0 if start is None else start, extent)
    stop = as_dim(as_expr(begin) + size) if step == 1 else (
        clamped(extent if end is None else end, extent))  # fmt: skip
    return slice_axis(x, axis, begin, stop, step)


@SHAPE.row("narrow.default")
def _narrow(c, x, axis, start, length):
    axis = axis_of(axis, x.rank)
    begin = _position(start, x.shape[axis])
    return slice_axis(x, axis, begin, as_dim(as_expr(begin) + length))


@SHAPE.row("cat.default", "concat.default", "concatenate.default")
def _cat(c, xs, axis=0):
    xs = [x for x in xs if not (x.rank == 1 and x.shape[0] == 0 and len(c.shape) != 1)]
    return mv.concat(*[to(x, c.dtype) for x in xs], axis=axis_of(axis, xs[0].rank))


@SHAPE.row("stack.default")
def _stack(c, xs, axis=0):
    axis = axis_of(axis, xs[0].rank + 1)
    return mv.concat(*[with_axis(to(x, c.dtype), axis) for x in xs], axis=axis)


@SHAPE.row("split_with_sizes.default", "split.sizes", "split_with_sizes_copy.default",
           "unsafe_split_with_sizes.default")  # fmt: skip
def _split_with_sizes(c, x, sizes, axis=0):
    axis, parts, start = axis_of(axis, x.rank), [], 0
    for size in dims(sizes):
        stop = as_dim(as_expr(start) + size)
        parts.append(slice_axis(x, axis, start, stop))
        start = stop
    return parts


@SHAPE.row("split.Tensor", "chunk.default", "unsafe_split.Tensor", "split_copy.Tensor",
           "tensor_split.sections", "tensor_split.indices")  # fmt: skip
def _split(c, x, how, axis=0):
    axis = axis_of(axis, x.rank)
    return _split_with_sizes(c, x, [c.sizes.dim(f.shape[axis]) for f in c.fakes], axis)


@SHAPE.row("unbind.int", "unbind_copy.int")
def _unbind(c, x, axis=0):
    axis = axis_of(axis, x.rank)
    return [take_one(x, axis, k) for k in range(x.shape[axis])]


@SHAPE.row("repeat.default", "tile.default")
def _repeat(c, x, repeats):
    repeats = dims(repeats)
    repeats = (1,) * (x.rank - len(repeats)) + repeats
    x = mv.reshape(x, shape=(1,) * (len(repeats) - x.rank) + x.shape)
    return x if all(r == 1 for r in repeats) else mv.tile(x, repeats=repeats)


@SHAPE.row("flip.default")
def _flip(c, x, axes):
    return mv.flip(x, axes=axes_of(axes, x.rank)) if axes else x


@SHAPE.row("roll.default")
def _roll(c, x, shifts, axes=()):
    if not axes:
        return mv.reshape(_rolled(flat(x), 0, shifts[0]), shape=x.shape)
    for shift, axis in zip(shifts, axes):
        x = _rolled(x, axis_of(axis, x.rank), shift)
    return x


def _rolled(x: Node, axis: int, shift) -> Node:
    extent = x.shape[axis]
    if extent == 0:
        return x
    cut = as_dim(as_expr(extent) - as_expr(shift) % as_expr(extent))
    return mv.concat(slice_axis(x, axis, cut, extent), slice_axis(x, axis, 0, cut), axis=axis)


@SHAPE.row("constant_pad_nd.default")
def _constant_pad(c, x, widths, value=0):
    return _pad(x, widths, value=number(value, x.dtype).item(), mode="constant")


@SHAPE.row("reflection_pad1d.default", "reflection_pad2d.default", "reflection_pad3d.default")
def _reflection_pad(c, x, widths):
    return _pad(x, widths, mode="reflect")


@SHAPE.row("replication_pad1d.default", "replication_pad2d.default", "replication_pad3d.default")
def _replication_pad(c, x, widths):
    return _pad(x, widths, mode="edge")


@SHAPE.row("_pad_circular.default")
def _circular_pad(c, x, widths):
    return _pad(x, widths, mode="wrap")


def _pad(x: Node, widths, **how) -> Node:
    """torch lists (low, high) from the last axis on."""
    low, high = [0] * x.rank, [0] * x.rank
    for k in range(len(widths) // 2):
        low[x.rank - 1 - k], high[x.rank - 1 - k] = dims(widths[2 * k : 2 * k + 2])
    return mv.pad(x, low=tuple(low), high=tuple(high), **how)


@SHAPE.row("diagonal.default", "diagonal_copy.default", "linalg_diagonal.default")
def _diagonal(c, x, offset=0, dim1=0, dim2=1):
    a, b = axis_of(dim1, x.rank), axis_of(dim2, x.rank)
    rest = [k for k in range(x.rank) if k not in (a, b)]
    rows, columns, count = x.shape[a], x.shape[b], c.shape[-1]
    x = transposed(x, (*rest, a, b))
    if count == 0:
        return ix.full(shape=c.shape, value=0, dtype=x.dtype)
    x = mv.reshape(x, shape=(*x.shape[:-2], product((rows, columns))))
    step = as_expr(columns) + 1
    start = as_expr(offset) if offset >= 0 else as_expr(columns) * -offset
    if isinstance(columns, int):
        stop = start + (as_expr(count) - 1) * step + 1
        return slice_axis(x, x.rank - 1, as_dim(start), as_dim(stop), columns + 1)
    at = ix.iota(shape=(count,), axis=0, dtype=i64)
    at = ew.add(ew.mul(at, lift(as_dim(step), i64)), lift(as_dim(start), i64))
    return ix.gather(x, at, axis=x.rank - 1)


@SHAPE.row("as_strided.default", "as_strided_copy.default")
def _as_strided(c, x, size, stride, offset=None):
    if not _is_dense(c):
        raise c.fail("as_strided of a tensor that is not contiguous is not supported")
    at = strided_positions(dims(size), dims(stride), offset or 0)
    return ix.gather(flat(x), at, axis=0)


@SHAPE.row("as_strided_scatter.default")
def _as_strided_scatter(c, x, source, size, stride, offset=None):
    if not _is_dense(c):
        raise c.fail("as_strided_scatter of a tensor that is not contiguous is not supported")
    at = flat(strided_positions(dims(size), dims(stride), offset or 0))
    done = ix.scatter_elements(flat(x), at, flat(to(source, x.dtype)), axis=0, mode="set")
    return mv.reshape(done, shape=x.shape)


def strided_positions(size, stride, offset) -> Node:
    """i64[size] of offset + sum(index * stride)."""
    total = mv.broadcast_to(lift(offset, i64), shape=size)
    for axis, step in enumerate(stride):
        total = ew.add(total, ew.mul(ix.iota(shape=size, axis=axis, dtype=i64), lift(step, i64)))
    return total


def _is_dense(c: Call) -> bool:
    fake = c.operands[0]
    return fake is None or (fake.is_contiguous() and fake.storage_offset() == 0)


@SHAPE.row("select_scatter.default")
def _select_scatter(c, x, source, axis, position):
    axis = axis_of(axis, x.rank)
    position = _position(position, x.shape[axis])
    source = with_axis(to(source, x.dtype), axis)
    after = as_dim(as_expr(position) + 1)
    return _between(x, source, axis, position, after)


@SHAPE.row("slice_scatter.default")
def _slice_scatter(c, x, source, axis=0, start=None, end=None, step=1):
    axis = axis_of(axis, x.rank)
    source = to(source, x.dtype)
    begin = clamped(0 if start is None else start, x.shape[axis])
    if step == 1:
        stop = as_dim(as_expr(begin) + source.shape[axis])
        return _between(x, source, axis, begin, stop)
    at = ix.iota(shape=source.shape, axis=axis, dtype=i64)
    at = ew.add(ew.mul(at, lift(step, i64)), lift(begin, i64))
    return ix.scatter_elements(x, at, source, axis=axis, mode="set")


def _between(x: Node, middle: Node, axis: int, start, stop) -> Node:
    """x with [start, stop) along the axis replaced."""
    parts = [slice_axis(x, axis, 0, start), middle, slice_axis(x, axis, stop, x.shape[axis])]
    parts = [p for p in parts if not is_empty(p)] or [middle]
    return parts[0] if len(parts) == 1 else mv.concat(*parts, axis=axis)


@SHAPE.row("diagonal_scatter.default")
def _diagonal_scatter(c, x, source, offset=0, dim1=0, dim2=1):
    a, b = axis_of(dim1, x.rank), axis_of(dim2, x.rank)
    rest = [k for k in range(x.rank) if k not in (a, b)]
    order = (*rest, a, b)
    moved = transposed(x, order)
    i = ix.iota(shape=moved.shape, axis=x.rank - 2, dtype=i64)
    j = ix.iota(shape=moved.shape, axis=x.rank - 1, dtype=i64)
    if is_empty(source):
        return x
    at = ew.sub(i, lift(max(-offset, 0), i64))
    spread = ix.gather_elements(
        mv.broadcast_to(with_axis(to(source, x.dtype), x.rank - 2),
                        shape=(*moved.shape[:-1], source.shape[-1])),
        _inside(at, source),
        axis=x.rank - 1,
    )  # fmt: skip
    done = ew.select(ew.equal(ew.sub(j, i), lift(offset, i64)), spread, moved)
    return transposed(done, np.argsort(order).tolist())


def _inside(at: Node, source: Node) -> Node:
    last = lift(as_dim(as_expr(source.shape[-1]) - 1), i64)
    return ew.minimum(ew.maximum(at, 0), last)


# ---- creation ----------------------------------------------------------------------------------


@SHAPE.row("full_like.default")
def _full_like(c, x, value, *, dtype=None):
    return filled(c, value)


@SHAPE.row("full.default")
def _full_plain(c, size, value, *, dtype=None):
    return filled(c, value)


@SHAPE.row("new_full.default")
def _new_full(c, x, size, value, *, dtype=None):
    return filled(c, value)


def filled(c: Call, value) -> Node:
    """A tensor of the result's type holding one value."""
    if isinstance(value, (Node, Expr)):
        return mv.broadcast_to(lift(value, c.dtype), shape=c.shape)
    return ix.full(shape=c.shape, value=number(value, c.dtype).item(), dtype=c.dtype)


@SHAPE.row("zeros.default", "zeros_like.default", "empty.memory_format", "empty_like.default",
           "empty_strided.default", "empty_permuted.default", "new_zeros.default",
           "new_empty.default", "new_empty_strided.default")  # fmt: skip
def _zeros(c, like=None, size=None, stride=None, *, dtype=None):
    return filled(c, 0)  # the contents of an `empty` are unspecified: zeros are such contents


@SHAPE.row("ones.default", "ones_like.default", "new_ones.default")
def _ones(c, like=None, size=None, *, dtype=None):
    return filled(c, 1)


@SHAPE.row("scalar_tensor.default")
def _scalar_tensor(c, value, *, dtype=None):
    return lift(value, c.dtype)


@SHAPE.row("arange.default")
def _arange(c, end, *, dtype=None):
    return arange(c, 0, 1)


@SHAPE.row("arange.start")
def _arange_start(c, start, end, *, dtype=None):
    return arange(c, start, 1)


@SHAPE.row("arange.start_step")
def _arange_step(c, start, end, step=1, *, dtype=None):
    return arange(c, start, step)


def arange(c: Call, start, step) -> Node:
    if all(isinstance(v, (int, float)) for v in (start, step)) and isinstance(c.shape[0], int):
        whole = isinstance(start, int) and isinstance(step, int)
        counted = np.arange(c.shape[0], dtype=np.int64 if whole else np.float64) * step + start
        return constant(counted.astype(c.dtype.numpy))
    work = c.dtype if c.dtype in (i64, f64) else (f64 if c.dtype.is_float else i64)
    at = ix.iota(shape=c.shape, axis=0, dtype=work)
    if not (isinstance(step, int) and step == 1):
        at = ew.mul(at, lift(step, work))
    if not (isinstance(start, int) and start == 0):
        at = ew.add(at, lift(start, work))
    return to(at, c.dtype)


@SHAPE.row("prims.iota.default")
def _iota(c, length, *, start=0, step=1, dtype=None):
    return arange(c, start, step)


@SHAPE.row("linspace.default")
def _linspace(c, start, end, steps, *, dtype=None):
    if not isinstance(steps, int) or isinstance(start, Node) or isinstance(end, Node):
        raise c.fail("linspace with a size or ends known only at run time is not supported")
    return constant(np.linspace(start, end, steps).astype(c.dtype.numpy))


@SHAPE.row("eye.default", "eye.m")
def _eye(c, n, m=None, *, dtype=None):
    i, j = (ix.iota(shape=c.shape, axis=k, dtype=i64) for k in (0, 1))
    return to(ew.equal(i, j), c.dtype)


@SHAPE.row("tril_indices.default", "triu_indices.default")
def _triangle_indices(c, rows, columns, offset=0, *, dtype=None):
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise c.fail("the sizes must be known")
    find = np.tril_indices if "tril" in c.target else np.triu_indices
    return constant(np.stack(find(rows, offset, columns)).astype(c.dtype.numpy))


@SHAPE.row("tril.default")
def _tril(c, x, diagonal=0):
    return ix.trilu(x, upper=False, k=diagonal)


@SHAPE.row("triu.default")
def _triu(c, x, diagonal=0):
    return ix.trilu(x, upper=True, k=diagonal)


@SHAPE.row("meshgrid.default", "meshgrid.indexing")
def _meshgrid(c, xs, *, indexing="ij"):
    result = []
    for k, (x, fake) in enumerate(zip(xs, c.fakes)):
        shape = c.sizes.shape(fake.shape)
        axis = 1 - k if indexing == "xy" and k < 2 and len(xs) > 1 else k
        lone = [1] * len(shape)
        lone[axis] = x.type.size
        result.append(mv.broadcast_to(mv.reshape(x, shape=tuple(lone)), shape=shape))
    return result


@SHAPE.row("pixel_shuffle.default")
def _pixel_shuffle(c, x, r):
    *lead, channels, h, w = x.shape
    n = len(lead)
    parts = mv.reshape(x, shape=(*lead, as_dim(as_expr(channels) // (r * r)), r, r, h, w))
    perm = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return mv.reshape(transposed(parts, perm), shape=c.shape)


@SHAPE.row("atleast_1d.default", "atleast_2d.default", "atleast_3d.default")
def _atleast(c, x):
    return mv.reshape(x, shape=c.shape)


@SHAPE.row("_shape_as_tensor.default")
def _shape_as_tensor(c, x):
    return ix.size(dims=x.shape)
