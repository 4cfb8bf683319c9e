"""aten operators that read and write at computed positions: indexing, gather, scatter, nonzero.

x[:, i, j]  (i, j tensors)   ->   gather_nd over the indexed axes moved to the front
x[mask]     (mask bool)      ->   nonzero(mask), then gather_nd; its length is a new symbol
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend.torch_ops import (
    Call,
    Rows,
    axis_of,
    flat,
    lift,
    slice_axis,
    to,
    transposed,
    with_axis,
)  # fmt: skip
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import product
from tensorwright.ops import cumulative as cu
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv
from tensorwright.ops import reduce as rd
from tensorwright.ops.define import broadcast_shapes

INDEX = Rows()

REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max",
              "amin": "min"}  # fmt: skip


@INDEX.row("index_select.default")
def _index_select(c, x, axis, indices):
    if x.rank == 0:
        return mv.reshape(x, shape=c.shape)
    return ix.gather(x, flat(indices), axis=axis_of(axis, x.rank))


@INDEX.row("embedding.default")
def _embedding(c, weight, indices, padding=-1):
    return ix.gather(weight, indices, axis=0)


@INDEX.row("gather.default")
def _gather(c, x, axis, indices):
    if indices.type.size == 0:
        return ix.full(shape=c.shape, value=0, dtype=x.dtype)
    if x.rank == 0 or indices.rank == 0:
        return mv.reshape(x, shape=c.shape)
    return ix.gather_elements(x, indices, axis=axis_of(axis, x.rank))


@INDEX.row("take.default")
def _take(c, x, indices):
    return ix.gather(flat(x), indices, axis=0)


@INDEX.row("index.Tensor", "_unsafe_index.Tensor")
def _index(c, x, indices):
    indices = positions(c, x, indices)
    axes = [k for k, i in enumerate(indices) if i is not None]
    if len(axes) == 1:
        return ix.gather(x, indices[axes[0]], axis=axes[0])
    front, stacked, back = advanced(x, indices, axes)
    picked = ix.gather_nd(front, stacked)
    return transposed(picked, np.argsort(back).tolist()) if back else picked


def positions(c: Call, x: Node, indices) -> list[Node | None]:
    """One integer tensor or None for each axis of x; masks become the positions they select."""
    found: list[Node | None] = []
    for i in indices:
        if i is not None and i.dtype is boolean:
            where = nonzero_of(c, i)
            found += [flat(slice_axis(where, 0, k, k + 1)) for k in range(i.rank)]
        else:
            found.append(i)
    return found + [None] * (x.rank - len(found))


def nonzero_of(c: Call, mask: Node) -> Node:
    """i64[rank, count] of the places where the mask holds: one node, so one count, for a mask. The
    count is torch's unbacked size where the result shows it."""
    if mask not in c.sizes.places:
        c.sizes.places[mask] = ix.nonzero(mask)
    where = c.sizes.places[mask]
    for fake in c.fakes:
        for d in getattr(fake, "shape", ()):
            if not isinstance(d, int):
                c.sizes.adopt((d,), (where.shape[1],))
    return where


def advanced(x: Node, indices: list[Node | None], axes: list[int]):
    """(x with the indexed axes first, index vectors, how the result's axes are to be ordered).

    The order lists, for each axis of the gathered result, where NumPy's rule puts it; None if it is
    right already."""
    shape = broadcast_shapes("index", *(indices[k].shape for k in axes))
    stacked = mv.concat(
        *[with_axis(mv.broadcast_to(to(indices[k], i64), shape=shape), len(shape)) for k in axes],
        axis=len(shape),
    )
    rest = [k for k in range(x.rank) if k not in axes]
    front = transposed(x, (*axes, *rest))
    if axes != list(range(axes[0], axes[0] + len(axes))) or axes[0] == 0:
        return front, stacked, None
    first, n = axes[0], len(shape)
    moved = [first + k for k in range(n)]
    others = [k for k in range(n + len(rest)) if k not in moved]
    return front, stacked, [*moved, *others]


@INDEX.row("index_put.default", "_unsafe_index_put.default")
def _index_put(c, x, indices, values, accumulate=False):
    values = to(values, x.dtype)
    if len(indices) == 1 and indices[0].dtype is boolean and values.type.size == 1:
        return _masked_put(x, indices[0], values, accumulate)
    indices = positions(c, x, indices)
    axes = [k for k, i in enumerate(indices) if i is not None]
    if not axes:
        return mv.broadcast_to(values, shape=x.shape)
    front, stacked, back = advanced(x, indices, axes)
    lead, rest = stacked.shape[:-1], front.shape[len(axes) :]
    shape = (*lead, *rest)
    if back:  # the values' axes are in the result's order
        wanted = [None] * len(shape)
        for k, at in enumerate(back):
            wanted[at] = shape[k]
        values = transposed(mv.broadcast_to(values, shape=tuple(wanted)), back)
    updates = mv.broadcast_to(values, shape=shape)
    mode = "set" if not accumulate else "add"
    done = ix.scatter_nd(front, stacked, updates, mode=mode)
    order = [*axes, *(k for k in range(x.rank) if k not in axes)]
    return transposed(done, np.argsort(order).tolist())


def _masked_put(x: Node, mask: Node, value: Node, accumulate: bool) -> Node:
    """x with one value where the mask of the leading axes holds."""
    mask = mv.reshape(mask, shape=(*mask.shape, *([1] * (x.rank - mask.rank))))
    value = mv.reshape(value, shape=())
    return ew.select(mask, ew.add(x, value) if accumulate else value, x)


@INDEX.row("index_add.default")
def _index_add(c, x, axis, indices, source, *, alpha=1):
    source = source if alpha == 1 else ew.mul(source, lift(alpha, source.dtype))
    return _scatter_axis(c, x, axis, indices, source, "add")


@INDEX.row("index_copy.default")
def _index_copy(c, x, axis, indices, source):
    return _scatter_axis(c, x, axis, indices, source, "set")


@INDEX.row("index_fill.int_Scalar", "index_fill.int_Tensor")
def _index_fill(c, x, axis, indices, value):
    return _scatter_axis(c, x, axis, indices, lift(value, x.dtype), "set")


def _scatter_axis(c: Call, x: Node, axis: int, indices: Node, source: Node, mode: str) -> Node:
    """x with the slices along an axis that the indices name replaced or added to."""
    if x.rank == 0:
        x = mv.reshape(x, shape=(1,))
        return mv.reshape(_scatter_axis(c, x, 0, indices, flat(source), mode), shape=())
    axis, indices = axis_of(axis, x.rank), flat(indices)
    shape = (*x.shape[:axis], indices.shape[0], *x.shape[axis + 1 :])
    along = mv.reshape(indices, shape=(indices.shape[0], *([1] * (x.rank - 1 - axis))))
    source = mv.broadcast_to(to(source, x.dtype), shape=shape)
    return ix.scatter_elements(x, mv.broadcast_to(along, shape=shape), source, axis=axis, mode=mode)


@INDEX.row("scatter.src", "scatter.value")
def _scatter(c, x, axis, indices, source):
    return _scattered(x, axis, indices, source, "set")


@INDEX.row("scatter.reduce", "scatter.value_reduce")
def _scatter_with(c, x, axis, indices, source, *, reduce):
    return _scattered(x, axis, indices, source, REDUCTIONS[reduce])


@INDEX.row("scatter_add.default")
def _scatter_add(c, x, axis, indices, source):
    return _scattered(x, axis, indices, source, "add")


def _scattered(x: Node, axis: int, indices: Node, source, mode: str) -> Node:
    if x.rank == 0 or indices.rank == 0:
        source = mv.reshape(lift(source, x.dtype), shape=(1,) if isinstance(source, Node) else ())
        lone = [mv.reshape(v, shape=(1,)) for v in (x, indices)]
        return mv.reshape(_scattered(*lone[:1], 0, lone[1], source, mode), shape=x.shape)
    if isinstance(source, Node) and source.rank:
        source = to(source, x.dtype)
        source = mv.slice(source, starts=(0,) * x.rank, stops=indices.shape, steps=(1,) * x.rank)
    else:
        source = mv.broadcast_to(lift(source, x.dtype), shape=indices.shape)
    return ix.scatter_elements(x, indices, source, axis=axis_of(axis, x.rank), mode=mode)


@INDEX.row("scatter_reduce.two")
def _scatter_reduce(c, x, axis, indices, source, reduce, *, include_self=True):
    mean = reduce == "mean"
    mode = "add" if mean else REDUCTIONS[reduce]
    start = x
    if not include_self:  # places that are written start from the neutral element
        start = _scattered(x, axis, indices, neutral(mode, x.dtype), "set")
    done = _scattered(start, axis, indices, source, mode)
    if not mean:
        return done
    ones = ix.full(shape=x.shape, value=1 if include_self else 0, dtype=x.dtype)
    count = _scattered(ones, axis, indices, 1, "add")
    count = ew.maximum(count, 1)
    return ew.div(done, count) if x.dtype.is_float else ew.floor_div(done, count)


def neutral(mode: str, d):
    """The element that changes nothing in a scatter of that mode."""
    low, high = (-np.inf, np.inf) if d.is_float else (d.min, d.max)
    return {"add": 0, "mul": 1, "max": low, "min": high}[mode]


@INDEX.row("masked_scatter.default")
def _masked_scatter(c, x, mask, source):
    x, mask = mv.broadcast_to(x, shape=c.shape), mv.broadcast_to(mask, shape=c.shape)
    at = ew.sub(cu.cumsum(to(flat(mask), i64), axis=0), 1)
    picked = ix.gather(flat(to(source, x.dtype)), ew.maximum(at, 0), axis=0)
    return ew.select(mask, mv.reshape(picked, shape=x.shape), x)


@INDEX.row("masked_select.default")
def _masked_select(c, x, mask):
    shape = broadcast_shapes("masked_select", x.shape, mask.shape)
    x, mask = mv.broadcast_to(x, shape=shape), mv.broadcast_to(mask, shape=shape)
    at = nonzero_of(c, flat(mask))
    return ix.gather(flat(x), flat(slice_axis(at, 0, 0, 1)), axis=0)


@INDEX.row("nonzero.default", "argwhere.default")
def _nonzero(c, x):
    if x.rank == 0:
        where = nonzero_of(c, mv.reshape(x, shape=(1,)))
        return ix.full(shape=(where.shape[1], 0), value=0, dtype=i64)
    return transposed(nonzero_of(c, x), (1, 0))


@INDEX.row("_local_scalar_dense.default", "item.default")
def _item(c, x):
    """The number in a tensor: a size if it is an integer, else a tensor of rank 0."""
    fake, x = c.fakes[0], mv.reshape(x, shape=())
    if isinstance(fake, (int, float, bool)):
        return fake
    if type(fake).__name__ == "SymInt":
        e = fake.node.expr
        bound = ix.bind_size(to(x, i64), symbols=(c.sizes.fresh(e),))
        del bound  # shapes find it through the symbol
        return c.sizes.dim(fake)
    c.sizes.floats[fake.node.expr] = to(x, "f64") if x.dtype is not boolean else x
    return x


@INDEX.row("repeat_interleave.self_int")
def _repeat_interleave(c, x, repeats, axis=None, *, output_size=None):
    if axis is None:
        x, axis = flat(x), 0
    axis = axis_of(axis, x.rank)
    spread = with_axis(x, axis + 1)
    shape = (*x.shape[: axis + 1], as_dim(repeats), *x.shape[axis + 1 :])
    return mv.reshape(mv.broadcast_to(spread, shape=shape), shape=c.shape)


@INDEX.row("_embedding_bag.default", "_embedding_bag_forward_only.default")
def _embedding_bag(c, weight, indices, offsets, mode=0, weights=None, include_last=False,
                   padding=-1):  # fmt: skip
    if padding >= 0:
        raise c.fail("padding_idx is not supported")
    bags = c.sizes.shape(c.fakes[0].shape)[0]
    at = ix.iota(shape=(indices.shape[0], 1), axis=0, dtype=i64)
    begun = ew.less_equal(mv.reshape(to(offsets, i64), shape=(1, offsets.shape[0])), at)
    bag = ew.sub(rd.reduce_sum(to(begun, i64), axes=(1,)), 1)
    rows = ix.gather(weight, indices, axis=0)
    if weights is not None:
        rows = ew.mul(rows, with_axis(weights, 1))
    sizes = ix.scatter_nd(ix.full(shape=(bags,), value=0, dtype=i64), with_axis(bag, 1),
                          ix.full(shape=indices.shape, value=1, dtype=i64), mode="add")  # fmt: skip
    start = ix.full(shape=(bags, weight.shape[1]), value=-np.inf if mode == 2 else 0.0,
                    dtype=weight.dtype)  # fmt: skip
    total = ix.scatter_nd(start, with_axis(bag, 1), rows, mode="max" if mode == 2 else "add")
    if mode == 1:
        total = ew.div(total, with_axis(to(ew.maximum(sizes, 1), weight.dtype), 1))
    if mode == 2:
        total = ew.select(with_axis(ew.equal(sizes, 0), 1), lift(0.0, weight.dtype), total)
    where = sizes if mode else ew.mul(sizes, 0)  # torch fills it for means and maxima only
    if mode == 2:
        where = _first_maximum(rows, bag, total, indices, sizes)
    given = (bag, sizes if mode else ew.mul(sizes, 0), where)
    return [total, *(to(_fitted(v, c.sizes.shape(f.shape)), d)
                     for v, f, d in zip(given, c.fakes[1:], c.dtypes()[1:]))]  # fmt: skip


def _fitted(v: Node, shape) -> Node:
    """`v`, or nothing where torch leaves the result empty."""
    return v if v.shape == shape else ix.full(shape=shape, value=0, dtype=v.dtype)


def _first_maximum(rows: Node, bag: Node, total: Node, indices: Node, sizes: Node) -> Node:
    """For each bag and column, the index whose row holds the maximum (0 for an empty bag)."""
    count = rows.shape[0]
    at = ix.iota(shape=rows.shape, axis=0, dtype=i64)
    last = lift(as_dim(as_expr(count) - 1), i64)
    attained = ew.equal(rows, ix.gather(total, bag, axis=0))
    start = mv.broadcast_to(last, shape=total.shape)
    first = ix.scatter_nd(start, with_axis(bag, 1), ew.select(attained, at, last), mode="min")
    found = ix.gather(to(indices, i64), first, axis=0)
    return ew.select(with_axis(ew.equal(sizes, 0), 1), lift(0, i64), found)


@INDEX.row("unfold.default")
def _unfold(c, x, axis, size, step):
    """Windows along an axis as a new last axis."""
    if x.rank == 0:
        return mv.broadcast_to(mv.reshape(x, shape=(1,)), shape=c.shape)
    axis = axis_of(axis, x.rank)
    shape = (c.shape[axis], size)
    begin = ew.mul(ix.iota(shape=shape, axis=0, dtype=i64), lift(step, i64))
    windows = ix.gather(x, ew.add(begin, ix.iota(shape=shape, axis=1, dtype=i64)), axis=axis)
    last = [k for k in range(windows.rank) if k != axis + 1]
    return transposed(windows, (*last, axis + 1))


@INDEX.row("col2im.default")
def _col2im(c, x, size, window, dilation, padding, stride):
    """Columns [n, channels * window, blocks] added back into images: the adjoint of unfold."""
    if not isinstance(product((*x.shape[1:], *c.shape[-2:])), int):
        raise c.fail("the sizes must be known")
    lead = c.shape[:-2]
    grids = []
    for s, w, d, p, st in zip(size, window, dilation, padding, stride):
        count = (s + 2 * p - d * (w - 1) - 1) // st + 1
        grids.append(np.arange(w)[:, None] * d + np.arange(count) * st - p)
    (h, w), (height, width) = grids, c.shape[-2:]
    rows, columns = h[:, None, :, None], w[None, :, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    at = np.where(inside, rows * width + columns, height * width).reshape(-1)
    flat_x = mv.reshape(x, shape=(product(lead), at.size))
    index = mv.broadcast_to(constant(at[None]), shape=flat_x.shape)
    start = ix.full(shape=(product(lead), height * width + 1), value=0, dtype=x.dtype)
    done = ix.scatter_elements(start, index, flat_x, axis=1, mode="add")
    return mv.reshape(slice_axis(done, 1, 0, height * width), shape=c.shape)
