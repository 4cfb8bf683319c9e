"""ONNX operators that rearrange elements: shapes, slices, concatenation, padding.

Operands that give a shape are read as dimensions (`Call.dims`): ints and index expressions where
they are known, else symbols that the program reads from the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Array, Call, Ints, converter
from tensorwright.frontend.onnx_ops_elementwise import scalar, tensor_dtype
from tensorwright.frontend.size_checks import Check, checked_zero, depend_on_data
from tensorwright.ir.expr import (
    Expr,
    as_dim,
    as_expr,
    ceildiv,
    compare,
    floordiv,
    is_const,
    maximum,
    select,
)  # fmt: skip
from tensorwright.ir.graph import Node, array_of, constant
from tensorwright.ir.type import Dim, product


def axis_of(c: Call, axis: int, rank: int) -> int:
    """`axis` in [0, rank)."""
    if not -rank <= axis < rank:
        raise c.fail(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def axes_of(c: Call, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    found = tuple(axis_of(c, a, rank) for a in axes)
    if len(set(found)) != len(found):
        raise c.fail(f"axes {tuple(axes)} repeat")
    return found


# ---- shapes as values ---------------------------------------------------------------------------


@converter("Shape")
def shape(c: Call, x: Node, *, start: int = 0, end: int | None = None) -> Node:
    return c.sizes(x.shape[start:end])


@converter("Size")
def size(c: Call, x: Node) -> Node:
    return c.sizes(product(x.shape))


@converter("Reshape")
def reshape_by_attribute(
    c: Call, x: Node, *, shape: Ints = (), consumed_inputs: object = None
) -> Node:
    return ops.reshape(x, shape=resolved_shape(c, x, shape, False))


@converter("Reshape", since=5)
def reshape(c: Call, x: Node, shape: Node, *, allowzero: int = 0) -> Node:
    target = resolved_shape(c, x, c.dims(shape, low=-1), bool(allowzero))
    try:
        return ops.reshape(x, shape=target)
    except CompileError:
        if not depend_on_data(*target):
            raise
    return reshape_checked(c, x, target)


def reshape_checked(c: Call, x: Node, target: tuple[Dim, ...]) -> Node:
    """A reshape whose number of elements only the program can check."""
    count, own = product(target), product(x.shape)
    fits = compare("eq", as_expr(count), as_expr(own))
    says = "the input has {0} elements, its new shape {1}"
    zero = checked_zero(Check(fits, says, (own, count)))
    if own == 0:
        return ops.full(shape=target, value=zero, dtype=x.dtype)
    at = ops.add(
        ops.iota(shape=(count,), axis=0, dtype="i64"), ops.reshape(c.sizes((zero,)), shape=())
    )
    flat = ops.reshape(x, shape=(own,))
    return ops.reshape(ops.gather(flat, at, axis=0), shape=target)


def resolved_shape(c: Call, x: Node, dims: Sequence[Dim], allowzero: bool) -> tuple[Dim, ...]:
    """The target shape with 0 (keep) and -1 (the rest) replaced."""
    if sum(is_const(d, -1) for d in dims) > 1:
        raise c.fail(f"shape {list(dims)} has more than one -1")
    dims = [d if allowzero else _kept(c, x, k, d) for k, d in enumerate(dims)]
    open_ = [_may_be(d, -1) for d in dims]
    if all(o is False for o in open_):
        return tuple(map(as_dim, dims))
    others = [1 if o is True else _replaced(d, -1, 1) for d, o in zip(dims, open_)]
    rest = _quotient(x.shape, others)
    return tuple(d if o is False else as_dim(_replaced(d, -1, rest)) for d, o in zip(dims, open_))


def _kept(c: Call, x: Node, k: int, d: Dim) -> Dim:
    """Dimension k of the target: 0 stands for x's own."""
    if is_const(d, 0) or (isinstance(d, int) and d == 0):
        if k >= x.rank:
            raise c.fail(f"shape keeps dimension {k} of a tensor of rank {x.rank}")
        return x.shape[k]
    if isinstance(d, int):
        if d < -1:
            raise c.fail(f"shape has a dimension {d}")
        return d
    kept = _replaced(d, 0, x.shape[k]) if k < x.rank else d
    c.importer.undecided += kept is not d and kept != d
    return kept


def _may_be(d: Dim, value: int) -> bool | None:
    """True where d is `value`, False where it cannot be, None where that is open."""
    if isinstance(d, int):
        return d == value
    test = compare("eq", d, value)
    return bool(test.value) if is_const(test) else None


def _replaced(d: Dim, value: int, other: Dim) -> Dim:
    """`other` where d is `value`, else d."""
    if isinstance(d, int):
        return other if d == value else d
    return as_dim(select(compare("eq", d, value), as_expr(other), d))


def _quotient(shape: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    """The size of `shape` over the product of `others`, common dimensions cancelled first."""
    above, below = list(shape), []
    for d in others:
        if isinstance(d, Expr) and d in above:
            above.remove(d)
        else:
            below.append(d)
    total, divisor = product(above), product(below)
    if isinstance(total, int) and isinstance(divisor, int):
        return total // divisor if divisor else 0
    return as_dim(floordiv(as_expr(total), as_expr(divisor)))


@converter("Flatten")
def flatten(c: Call, x: Node, *, axis: int = 1) -> Node:
    if not -x.rank <= axis <= x.rank:
        raise c.fail(f"axis {axis} is outside a tensor of rank {x.rank}")
    axis = axis + x.rank if axis < 0 else axis
    return ops.reshape(x, shape=(product(x.shape[:axis]), product(x.shape[axis:])))


@converter("Squeeze")
def squeeze_by_attribute(c: Call, x: Node, *, axes: Ints | None = None) -> Node:
    return squeezed(c, x, axes)


@converter("Squeeze", since=13)
def squeeze(c: Call, x: Node, axes: Node | None = None) -> Node:
    return squeezed(c, x, c.ints(axes, "axes"))


def squeezed(c: Call, x: Node, axes: Sequence[int] | None) -> Node:
    if axes is None:
        axes = [k for k, d in enumerate(x.shape) if d == 1]
    axes = axes_of(c, axes, x.rank)
    for a in axes:
        fits = compare("eq", as_expr(x.shape[a]), as_expr(1))
        if is_const(fits, False):
            raise c.fail(f"dimension {a} of {x.type} is not 1")
        if not is_const(fits):  # only the program can tell
            says = f"dimension {a} is {{0}}, expected 1"
            zero = checked_zero(Check(fits, says, (x.shape[a],)))
            starts, stops = [0] * x.rank, list(x.shape)
            starts[a], stops[a] = zero, zero + 1
            x = ops.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)
    return ops.reshape(x, shape=tuple(d for k, d in enumerate(x.shape) if k not in axes))


@converter("Unsqueeze")
def unsqueeze_by_attribute(c: Call, x: Node, *, axes: Ints) -> Node:
    return unsqueezed(c, x, axes)


@converter("Unsqueeze", since=13)
def unsqueeze(c: Call, x: Node, axes: Node) -> Node:
    return unsqueezed(c, x, c.ints(axes, "axes"))


def unsqueezed(c: Call, x: Node, axes: Sequence[int]) -> Node:
    rank = x.rank + len(axes)
    axes = axes_of(c, axes, rank)
    own = iter(x.shape)
    return ops.reshape(x, shape=tuple(1 if k in axes else next(own) for k in range(rank)))


@converter("Transpose")
def transpose(c: Call, x: Node, *, perm: Ints | None = None) -> Node:
    perm = tuple(reversed(range(x.rank))) if perm is None else perm
    if sorted(perm) != list(range(x.rank)):
        raise c.fail(f"perm {perm} is no permutation of the {x.rank} dimensions")
    return ops.transpose(x, perm=perm)


@converter("Expand")
def expand(c: Call, x: Node, shape: Node) -> Node:
    dims = c.dims(shape)
    rank = max(len(dims), x.rank)
    own = (1,) * (rank - x.rank) + x.shape
    asked = (1,) * (rank - len(dims)) + tuple(dims)
    target = tuple(_expanded(a, b) for a, b in zip(own, asked))
    return ops.broadcast_to(x, shape=target)


def _expanded(own: Dim, asked: Dim) -> Dim:
    """The broadcast of a dimension with one that may only be known later."""
    if own == asked or asked == 1:
        return own
    if own == 1:
        return asked
    return own if isinstance(asked, Expr) or isinstance(own, int) is False else _same(own, asked)


def _same(own: int, asked: int) -> int:
    return own if own == asked else asked


@converter("Tile")
def tile_by_axis(c: Call, x: Node, tiles: Node, axis: Node) -> Node:
    repeats = [1] * x.rank
    repeats[axis_of(c, int(c.number(axis, "axis")), x.rank)] = c.dim(tiles)
    return ops.tile(x, repeats=tuple(repeats))


@converter("Tile", since=6)
def tile(c: Call, x: Node, repeats: Node) -> Node:
    dims = c.dims(repeats)
    if len(dims) != x.rank:
        raise c.fail(f"{len(dims)} repeats for a tensor of rank {x.rank}")
    return ops.tile(x, repeats=dims)


# ---- made of nothing ----------------------------------------------------------------------------


@converter("ConstantOfShape")
def constant_of_shape(c: Call, shape: Node, *, value: Array | None = None) -> Node:
    fill = np.zeros(1, np.float32) if value is None else value
    if fill.size != 1:
        raise c.fail(f"value has {fill.size} elements, not one")
    dims = c.dims(shape)
    return ops.broadcast_to(constant(fill.reshape(())), shape=dims)


@converter("EyeLike")
def eye_like(c: Call, x: Node, *, dtype: int | None = None, k: int = 0) -> Node:
    if x.rank != 2:
        raise c.fail(f"the input has rank {x.rank}, not 2")
    to = x.dtype if dtype is None else tensor_dtype(c, dtype)
    rows = ops.iota(shape=x.shape, axis=0, dtype="i64")
    columns = ops.iota(shape=x.shape, axis=1, dtype="i64")
    return ops.cast(ops.equal(ops.add(rows, k), columns), dtype=to)


@converter("Range")
def range_(c: Call, start: Node, limit: Node, delta: Node, *, stash_type: int = 1) -> Node:
    if start.dtype.is_integer:
        first, last, step = (c.dim(v, low=None) for v in (start, limit, delta))
        if step == 0:
            raise c.fail("delta is 0")
        count = as_dim(steps_between(first, last, step))
        at = ops.iota(shape=(count,), axis=0, dtype="i64")
        values = ops.add(ops.mul(at, c.sizes(step)), c.sizes(first))
        return ops.cast(values, dtype=start.dtype)
    fixed = [array_of(v) for v in (start, limit, delta)]
    if any(f is None or f.size != 1 for f in fixed):
        return ranged(c, scalar(c, start), scalar(c, limit), scalar(c, delta))
    first, last, step = (f.reshape(-1)[0] for f in fixed)
    if step == 0:
        raise c.fail("delta is 0")
    count = max(int(np.ceil((float(last) - float(first)) / float(step))), 0)
    at = ops.cast(ops.iota(shape=(count,), axis=0, dtype="i64"), dtype=start.dtype)
    return ops.add(ops.mul(at, scalar(c, delta)), scalar(c, start))


def steps_between(first: Dim, last: Dim, step: Dim) -> Expr:
    """How many terms first, first + step, ... come before `last`."""
    span, by = as_expr(last) - as_expr(first), as_expr(step)
    if isinstance(step, int):
        return maximum(ceildiv(span, by) if step > 0 else ceildiv(-span, -by), as_expr(0))
    up, down = ceildiv(span, maximum(by, as_expr(1))), ceildiv(-span, maximum(-by, as_expr(1)))
    return maximum(select(compare("gt", by, 0), up, down), as_expr(0))


def ranged(c: Call, start: Node, limit: Node, delta: Node) -> Node:
    """A range of floats whose length is computed by the program."""
    wide = start.dtype
    count = ops.ceil(ops.div(ops.sub(limit, start), delta))
    count = ops.maximum(ops.cast(count, dtype="i64"), 0)
    at = ops.cast(ops.iota(shape=(c.dim(count),), axis=0, dtype="i64"), dtype=wide)
    return ops.add(ops.mul(at, delta), start)


# ---- blocks -------------------------------------------------------------------------------------


@converter("SpaceToDepth")
def space_to_depth(c: Call, x: Node, *, blocksize: int, mode: str = "DCR") -> Node:
    n, ch, h, w = image_shape(c, x, blocksize)
    b = blocksize
    parts = (n, ch, as_dim(as_expr(h) // b), b, as_dim(as_expr(w) // b), b)
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    y = ops.transpose(ops.reshape(x, shape=parts), perm=perm)
    return ops.reshape(y, shape=(n, as_dim(as_expr(ch) * (b * b)), parts[2], parts[4]))


@converter("DepthToSpace")
def depth_to_space(c: Call, x: Node, *, blocksize: int, mode: str = "DCR") -> Node:
    n, ch, h, w = image_shape(c, x, blocksize)
    b = blocksize
    deep = as_dim(as_expr(ch) // (b * b))
    if mode not in ("DCR", "CRD"):
        raise c.fail(f"mode is {mode!r}, not DCR or CRD")
    parts = (n, b, b, deep, h, w) if mode == "DCR" else (n, deep, b, b, h, w)
    perm = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    y = ops.transpose(ops.reshape(x, shape=parts), perm=perm)
    return ops.reshape(y, shape=(n, deep, as_dim(as_expr(h) * b), as_dim(as_expr(w) * b)))


def image_shape(c: Call, x: Node, block: int) -> tuple[Dim, ...]:
    if x.rank != 4:
        raise c.fail(f"the input has rank {x.rank}, not 4")
    if block < 1:
        raise c.fail(f"blocksize is {block}")
    return x.shape
