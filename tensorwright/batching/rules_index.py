"""Batching rules of reads and writes at computed positions.

Where only the tensor or only the positions differ between lanes, one read serves all; where both
do, lanes are a batch dimension of `gather_nd` and `scatter_nd`.
"""

from __future__ import annotations

from tensorwright.batching.rows import Row, moved
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Dim
from tensorwright.ops.elementwise import add, cast, maximum, minimum
from tensorwright.ops.index import gather_nd as gather_vectors
from tensorwright.ops.index import scatter_nd as scatter_vectors
from tensorwright.ops.movement import broadcast_to, concat, reshape, slice, transpose
from tensorwright.ops.positions import full, iota


def gather(r: Row) -> Node:
    axis = r.axis() - 1
    x, indices = r.args
    if r.only(0):
        return r.again(x, indices, axis=axis + 1)
    if r.only(1):
        return moved(r.again(x, indices, axis=axis), axis, 0)
    rows = moved(x, axis + 1, 1)
    y = gather_vectors(rows, reshape(indices, shape=(*indices.shape, 1)), batch_dims=1)
    return _back(y, 1, indices.rank - 1, axis + 1)


def _back(y: Node, start: int, count: int, to: int) -> Node:
    """`count` dimensions from `start` moved together so that they begin at `to`."""
    rest = [k for k in range(y.rank) if not start <= k < start + count]
    perm = (*rest[:to], *range(start, start + count), *rest[to:])
    return y if perm == tuple(range(y.rank)) else transpose(y, perm=perm)


def gather_nd(r: Row) -> Node:
    lanes = r.attrs["batch_dims"]
    if r.only(1) and not lanes:
        return r.again(*r.args)
    return r.again(*r.all(), batch_dims=lanes + 1)


def scatter_nd(r: Row) -> Node:
    return r.again(*r.all(), batch_dims=r.attrs["batch_dims"] + 1)


def scatter_axis(r: Row) -> Node:
    axis = r.axis() - 1
    x, indices, updates = r.lead(0), r.args[1], r.lead(2)
    if not r.on[1]:
        return r.again(x, indices, updates, axis=axis + 1)
    count = indices.rank - 1
    first = [0, *range(axis + 1, axis + 1 + count)]
    front = transpose(updates, perm=(*first, *(k for k in range(updates.rank) if k not in first)))
    vectors = reshape(indices, shape=(*indices.shape, 1))
    y = scatter_vectors(moved(x, axis + 1, 1), vectors, front, mode=r.attrs["mode"], batch_dims=1)
    return moved(y, 1, axis + 1)


# ---- windows at computed positions -------------------------------------------------------------


def dynamic_slice(r: Row) -> Node:
    x, starts = r.args
    sizes = r.node.shape
    if not r.on[1]:
        return r.again(x, _with_zero(starts), sizes=(r.size, *sizes))
    source = r.node.args[0].shape
    count = _leading(source, sizes)
    if not count:
        return r.lead(0)
    places = _places(starts, source[:count], sizes[:count])
    return gather_vectors(r.lead(0), places, batch_dims=1)


def dynamic_update_slice(r: Row) -> Node:
    x, update, starts = r.lead(0), r.lead(1), r.args[2]
    if not r.on[2]:
        return r.again(x, update, _with_zero(starts))
    source, sizes = r.node.shape, r.node.args[1].shape
    count = _leading(source, sizes)
    if not count:
        return update
    places = _places(starts, source[:count], sizes[:count])
    return scatter_vectors(x, places, update, batch_dims=1)


def _with_zero(starts: Node) -> Node:
    """Where a window starts, with the lanes in front."""
    return concat(full(shape=(1,), value=0, dtype=starts.dtype), starts, axis=0)


def _leading(source, sizes) -> int:
    """How many dimensions there are up to the last in which the window can move."""
    return max((k + 1 for k, (d, n) in enumerate(zip(source, sizes)) if d != n), default=0)


def _places(starts: Node, source, sizes) -> Node:
    """i64[lanes, sizes..., k]: the subscripts of every element of each lane's window."""
    lanes, depth = starts.shape[0], len(sizes)
    columns = []
    for k, (d, n) in enumerate(zip(source, sizes)):
        first = cast(_column(starts, k), dtype=i64)
        first = maximum(minimum(first, _number(as_dim(as_expr(d) - as_expr(n)))), 0)
        first = reshape(first, shape=(lanes, *(1,) * depth))
        at = add(first, iota(shape=(*(n if j == k else 1 for j in range(depth)),), axis=k))
        at = broadcast_to(at, shape=(lanes, *sizes))
        columns.append(reshape(at, shape=(lanes, *sizes, 1)))
    return concat(*columns, axis=depth + 1)


def _column(starts: Node, k: int) -> Node:
    return slice(starts, starts=(0, k), stops=(starts.shape[0], k + 1))


def _number(d: Dim) -> Node:
    return full(shape=(), value=d, dtype=i64)
