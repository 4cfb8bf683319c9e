"""ONNX gathers, scatters and operators whose result size depends on data."""

from __future__ import annotations

from tensorwright.base.errors import CompileError
from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, converter
from tensorwright.frontend.onnx_ops_movement import axis_of, reshape_checked
from tensorwright.frontend.size_checks import depend_on_data
from tensorwright.ir.dtype import i64
from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.type import product

MODES = {"none": "set", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def check_constant(c: Call, indices: Node, extent) -> None:
    """Refuse constant indices outside what they index; the pass `indices` sees to the others."""
    if indices.op is not CONST or not isinstance(extent, int):
        return
    values = array_of(indices)
    wrong = values[(values < -extent) | (values >= extent)]
    if wrong.size:
        raise c.fail(f"index {wrong.flat[0]} lies outside the {extent} elements of the axis")


@converter("Gather")
def gather(c: Call, x: Node, indices: Node, *, axis: int = 0) -> Node:
    axis = axis_of(c, axis, x.rank)
    check_constant(c, indices, x.shape[axis])
    return ops.gather(x, indices, axis=axis)


@converter("GatherElements")
def gather_elements(c: Call, x: Node, indices: Node, *, axis: int = 0) -> Node:
    axis = axis_of(c, axis, x.rank)
    check_constant(c, indices, x.shape[axis])
    return ops.gather_elements(x, indices, axis=axis)


@converter("GatherND")
def gather_nd(c: Call, x: Node, indices: Node, *, batch_dims: int = 0) -> Node:
    return ops.gather_nd(x, indices, batch_dims=batch_dims)


def mode_of(c: Call, reduction: str) -> str:
    if reduction not in MODES:
        raise c.fail(f"reduction is {reduction!r}, not one of {', '.join(MODES)}")
    return MODES[reduction]


@converter("Scatter", "ScatterElements")
def scatter_elements(
    c: Call, x: Node, indices: Node, updates: Node, *, axis: int = 0, reduction: str = "none"
) -> Node:
    return ops.scatter_elements(
        x, indices, updates, axis=axis_of(c, axis, x.rank), mode=mode_of(c, reduction)
    )


@converter("ScatterND")
def scatter_nd(c: Call, x: Node, indices: Node, updates: Node, *, reduction: str = "none") -> Node:
    mode = mode_of(c, reduction)
    try:
        return ops.scatter_nd(x, indices, updates, mode=mode)
    except CompileError:
        depth = indices.shape[-1] if indices.rank else None
        if not isinstance(depth, int) or depth > x.rank:
            raise
        wanted = (*indices.shape[:-1], *x.shape[depth:])
        same_rank = updates.rank == len(wanted)
        if not same_rank or not depend_on_data(*wanted, *updates.shape):
            raise
    return ops.scatter_nd(x, indices, reshape_checked(c, updates, wanted), mode=mode)


@converter("OneHot")
def one_hot(c: Call, indices: Node, depth: Node, values: Node, *, axis: int = -1) -> Node:
    n = c.dim(depth if depth.dtype.is_integer else ops.cast(depth, dtype=i64))
    rank = indices.rank + 1
    axis = axis_of(c, axis, rank)
    at = ops.cast(indices, dtype=i64)
    size = ops.reshape(c.sizes((n,)), shape=())
    at = ops.select(ops.less(at, 0), ops.add(at, size), at)
    own = iter(indices.shape)
    shape = tuple(1 if k == axis else next(own) for k in range(rank))
    full = tuple(n if k == axis else d for k, d in enumerate(shape))
    hit = ops.equal(ops.reshape(at, shape=shape), ops.iota(shape=full, axis=axis, dtype="i64"))
    if len(values.shape) != 1 or (isinstance(values.shape[0], int) and values.shape[0] != 2):
        raise c.fail(f"its values have the shape {values.shape}; they are what is off and on")
    if values.shape[0] != 2:
        values = reshape_checked(c, values, (2,))
    off, on = (ops.reshape(ops.slice(values, starts=(k,), stops=(k + 1,), steps=(1,)), shape=())
               for k in (0, 1))  # fmt: skip
    return ops.select(hit, on, off)


@converter("NonZero")
def nonzero(c: Call, x: Node) -> Node:
    if x.rank == 0:
        x = ops.reshape(x, shape=(1,))
    return ops.nonzero(x)


@converter("Compress")
def compress(c: Call, x: Node, condition: Node, *, axis: int | None = None) -> Node:
    """The slices of x where the condition holds; beyond its length it does not."""
    if axis is None:
        x, axis = ops.reshape(x, shape=(product(x.shape),)), 0
    axis = axis_of(c, axis, x.rank)
    found = ops.nonzero(condition)
    count = found.shape[1]
    return ops.gather(x, ops.reshape(found, shape=(count,)), axis=axis)


@converter("Trilu")
def trilu(c: Call, x: Node, k: Node | None = None, *, upper: int = 1) -> Node:
    if x.rank < 2:
        raise c.fail(f"the input has rank {x.rank}, less than 2")
    diagonal = 0 if k is None else c.dim(k, low=None)
    return ops.trilu(x, upper=bool(upper), k=diagonal)


@converter("ReverseSequence")
def reverse_sequence(
    c: Call, x: Node, lengths: Node, *, batch_axis: int = 1, time_axis: int = 0
) -> Node:
    batch, time = axis_of(c, batch_axis, x.rank), axis_of(c, time_axis, x.rank)
    if {batch, time} != {0, 1}:
        raise c.fail("time_axis and batch_axis are 0 and 1 in some order")
    at = ops.iota(shape=x.shape[:2], axis=time, dtype="i64")
    shape = tuple(d if k == batch else 1 for k, d in enumerate(x.shape[:2]))
    last = ops.reshape(ops.cast(lengths, dtype=i64), shape=shape)
    source = ops.select(ops.less(at, last), ops.sub(ops.sub(last, 1), at), at)
    source = ops.reshape(source, shape=x.shape[:2] + (1,) * (x.rank - 2))
    return ops.gather_elements(x, ops.broadcast_to(source, shape=x.shape), axis=time)


@converter("Unique")
def unique(c: Call, x: Node, *, axis: int | None = None, sorted: int = 1) -> object:
    results = ops.unique(x, axis=axis, sorted=bool(sorted))
    return tuple(results)


@converter("TensorScatter")
def tensor_scatter(
    c: Call, cache: Node, update: Node, write_indices: Node | None = None, *, axis: int = -2,
    mode: str = "linear",
) -> Node:  # fmt: skip
    """The cache with `update` written along `axis`, for each batch from its own position on."""
    if mode not in ("linear", "circular"):
        raise c.fail(f"mode is {mode!r}, not linear or circular")
    axis = axis_of(c, axis, cache.rank)
    if axis == 0:
        raise c.fail("axis is the batch dimension")
    at = ops.iota(shape=update.shape, axis=axis, dtype="i64")
    if write_indices is not None:
        first = ops.cast(write_indices, dtype=i64)
        at = ops.add(at, ops.reshape(first, shape=(*first.shape, *(1,) * (cache.rank - 1))))
    if mode == "circular":
        at = ops.mod(at, ops.reshape(c.sizes((cache.shape[axis],)), shape=()))
    return ops.scatter_elements(cache, at, update, axis=axis, mode="set")
