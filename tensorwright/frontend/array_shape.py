"""The array namespace: making tensors and moving their elements.

Sizes are ints or symbolic sizes (`x.shape[0]`) everywhere.
"""

from __future__ import annotations

import numpy

from tensorwright.frontend.array_define import axes_of, axis_of, cast, function
from tensorwright.frontend.array_index import get_item
from tensorwright.frontend.tracer import (
    Size,
    Tensor,
    dim_of,
    is_weak,
    node_of,
    result_dtype,
    shape_from,
    size_of,
    together,
    traced_error,
    typed,
    weak_dtype,
)  # fmt: skip
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.dtype import f32, i64
from tensorwright.ir.expr import as_dim, as_expr, var
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import product
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv
from tensorwright.ops.define import broadcast_shapes


@function
def asarray(x, /, *, dtype=None, device=None, copy=None):
    return node_of(x, None if dtype is None else dtype_of(dtype))


@function
def full(shape, fill_value, *, dtype=None, device=None):
    d = dtype_of(dtype) if dtype is not None else typed(fill_value) if not is_weak(
        fill_value) else weak_dtype(fill_value)  # fmt: skip
    if isinstance(fill_value, (int, float)):
        return ix.full(shape=shape_from(shape), value=fill_value, dtype=d)
    return mv.broadcast_to(node_of(fill_value, d), shape=shape_from(shape))


def zeros(shape, *, dtype=None, device=None):
    return full(shape, 0, dtype=dtype or f32)


def ones(shape, *, dtype=None, device=None):
    return full(shape, 1, dtype=dtype or f32)


empty = zeros


@function
def full_like(x, /, fill_value, *, dtype=None, device=None):
    x = node_of(x)
    d = x.dtype if dtype is None else dtype_of(dtype)
    return mv.broadcast_to(node_of(fill_value, d), shape=x.shape)


def zeros_like(x, /, *, dtype=None, device=None):
    return full_like(x, 0, dtype=dtype)


def ones_like(x, /, *, dtype=None, device=None):
    return full_like(x, 1, dtype=dtype)


empty_like = zeros_like


@function
def arange(start, /, stop=None, step=1, *, dtype=None, device=None):
    if stop is None:
        start, stop = 0, start
    parts = (start, stop, step)
    if any(isinstance(v, Tensor) for v in parts):
        d = result_dtype(*parts) if dtype is None else dtype_of(dtype)
        return cast(ix.range_(*(node_of(v, result_dtype(*parts)) for v in parts)), d)
    if not any(isinstance(v, Size) for v in parts):
        array = numpy.arange(start, stop, step)
        return cast(constant(array.astype("f4") if array.dtype.kind == "f" else array), dtype)
    if not isinstance(step, int):
        raise traced_error("arange over symbolic sizes needs an integer step")
    first, last = as_expr(dim_of(start)), as_expr(dim_of(stop))
    count = (last - first + (step - (1 if step > 0 else -1))) // step
    d = i64 if dtype is None else dtype_of(dtype)
    return ix.iota(shape=(as_dim(count),), axis=0, dtype=d, start=dim_of(start), step=step)


@function
def linspace(start, stop, /, num, *, dtype=None, device=None, endpoint=True):
    if isinstance(num, Size) or isinstance(start, Tensor) or isinstance(stop, Tensor):
        raise traced_error("linspace needs numbers")
    d = f32 if dtype is None else dtype_of(dtype)
    return constant(numpy.linspace(start, stop, num, endpoint=endpoint).astype(d.numpy))


@function
def eye(n_rows, n_cols=None, /, *, k=0, dtype=None, device=None):
    shape = shape_from((n_rows, n_rows if n_cols is None else n_cols))
    i, j = (ix.iota(shape=shape, axis=a, dtype=i64) for a in (0, 1))
    return cast(ew.equal(ew.add(i, k) if k else i, j), dtype or f32)


@function
def tril(x, /, *, k=0):
    return ix.trilu(node_of(x), upper=False, k=k)


@function
def triu(x, /, *, k=0):
    return ix.trilu(node_of(x), upper=True, k=k)


@function
def meshgrid(*arrays, indexing="xy"):
    nodes = [node_of(a) for a in arrays]
    order = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        order[:2] = [1, 0]
    shape = tuple(nodes[k].type.size for k in order)
    found = []
    for k, x in enumerate(nodes):
        lone = tuple(d if order[a] == k else 1 for a, d in enumerate(shape))
        found.append(mv.broadcast_to(mv.reshape(x, shape=lone), shape=shape))
    return found


@function
def size_from(x, /, name="size", min=0, max=None):
    """A size with the value of an integer tensor of rank 0, checked when the program runs."""
    e_ = var(name, min=min, max=max)
    ix.bind_size(cast(mv.reshape(node_of(x), shape=()), i64), symbols=(e_,))
    return Size(e_)


# ---- manipulation ------------------------------------------------------------------------------


@function
def reshape(x, /, shape, *, copy=None):
    x, shape = node_of(x), list(shape_from(shape))
    if -1 in shape:
        known = product(d for d in shape if d != -1)
        shape[shape.index(-1)] = as_dim(as_expr(x.type.size) // known) if known != 0 else 0
    return mv.reshape(x, shape=tuple(shape))


@function
def permute_dims(x, /, axes):
    x = node_of(x)
    return mv.transpose(x, perm=tuple(axis_of(a, x.rank) for a in axes))


@function
def matrix_transpose(x, /):
    x = node_of(x)
    return mv.transpose(x, perm=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


@function
def moveaxis(x, source, destination, /):
    x = node_of(x)
    source, target = (axes_of(v, x.rank) or () for v in (source, destination))
    rest = iter([k for k in range(x.rank) if k not in source])
    place = dict(zip(target, source))
    return mv.transpose(x, perm=tuple(place[k] if k in place else next(rest)
                                      for k in range(x.rank)))  # fmt: skip


@function
def expand_dims(x, /, *, axis=0):
    x = node_of(x)
    axes = sorted(axis_of(a, x.rank + 1 if isinstance(axis, int) else x.rank + len(axis))
                  for a in ((axis,) if isinstance(axis, int) else axis))  # fmt: skip
    shape = list(x.shape)
    for a in axes:
        shape.insert(a, 1)
    return mv.reshape(x, shape=tuple(shape))


@function
def squeeze(x, /, axis):
    x = node_of(x)
    axes = axes_of(axis, x.rank) or ()
    for a in axes:
        if x.shape[a] != 1:
            raise traced_error(f"axis {a} has size {size_of(x.shape[a])}, it cannot be squeezed")
    return mv.reshape(x, shape=tuple(d for k, d in enumerate(x.shape) if k not in axes))


@function
def broadcast_to(x, /, shape):
    return mv.broadcast_to(node_of(x), shape=shape_from(shape))


@function
def broadcast_arrays(*arrays):
    nodes = [node_of(a) for a in arrays]
    shape = broadcast_shapes("broadcast_arrays", *(n.shape for n in nodes))
    return [mv.broadcast_to(n, shape=shape) for n in nodes]


@function
def concat(arrays, /, *, axis=0):
    nodes = together(*arrays)
    if axis is None:
        nodes, axis = [mv.reshape(n, shape=(n.type.size,)) for n in nodes], 0
    return mv.concat(*nodes, axis=axis_of(axis, nodes[0].rank))


@function
def stack(arrays, /, *, axis=0):
    nodes = together(*arrays)
    at = axis_of(axis, nodes[0].rank + 1)
    nodes = [mv.reshape(n, shape=(*n.shape[:at], 1, *n.shape[at:])) for n in nodes]
    return mv.concat(*nodes, axis=at)


@function
def unstack(x, /, *, axis=0):
    x = node_of(x)
    axis = axis_of(axis, x.rank)
    if not isinstance(x.shape[axis], int):
        raise traced_error(f"axis {axis} has the symbolic size {x.shape[axis]}",
                           help="use tw.scan to go along it")  # fmt: skip
    return tuple(get_item(x, (slice(None),) * axis + (k,)) for k in range(x.shape[axis]))


@function
def flip(x, /, *, axis=None):
    x = node_of(x)
    axes = axes_of(axis, x.rank)
    return mv.flip(x, axes=tuple(range(x.rank)) if axes is None else axes)


@function
def roll(x, /, shift, *, axis=None):
    x = node_of(x)
    shape = x.shape
    if axis is None:
        return mv.reshape(_rolled(mv.reshape(x, shape=(x.type.size,)), shift, 0), shape=shape)
    shifts, axes = ((shift,), (axis,)) if isinstance(axis, int) else (shift, axis)
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    for s, a in zip(shifts, axes):
        x = _rolled(x, s, axis_of(a, x.rank))
    return x


def _rolled(x: Node, shift, axis: int) -> Node:
    n = x.shape[axis]
    if n == 0:
        return x
    cut = as_dim(as_expr(n) - as_expr(dim_of(shift)) % as_expr(n))
    ends = [(cut, n), (0, cut)]
    parts = []
    for start, stop in ends:
        starts, stops = [0] * x.rank, list(x.shape)
        starts[axis], stops[axis] = start, stop
        parts.append(mv.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank))
    return mv.concat(*parts, axis=axis)


@function
def repeat(x, repeats, /, *, axis=None):
    x = node_of(x)
    if isinstance(repeats, (Tensor, numpy.ndarray)):
        raise traced_error("repeat by a tensor of counts is not supported",
                           help="use take with an index tensor")  # fmt: skip
    if axis is None:
        x, axis = mv.reshape(x, shape=(x.type.size,)), 0
    axis, times = axis_of(axis, x.rank), dim_of(repeats)
    spread = mv.reshape(x, shape=(*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    wide = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
    grown = as_dim(as_expr(x.shape[axis]) * times)
    shape = (*x.shape[:axis], grown, *x.shape[axis + 1 :])
    return mv.reshape(mv.broadcast_to(spread, shape=wide), shape=shape)


@function
def tile(x, repetitions, /):
    x, times = node_of(x), shape_from(repetitions)
    times = (1,) * (x.rank - len(times)) + times
    x = mv.reshape(x, shape=(1,) * (len(times) - x.rank) + x.shape)
    return mv.tile(x, repeats=times)
