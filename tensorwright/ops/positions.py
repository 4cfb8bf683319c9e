"""Tensors made from positions and sizes, and sizes read from tensors.

Shapes that depend on data enter the shape language only through `bind_size`; what counts first and
fills then (`nonzero`, `range_`) is built on it.

    n = bind_size(count_nonzero(x), symbols=(nnz,)); nonzero_indices(x, count=nnz)  ->  i64[2, nnz]
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tensorwright.ir.dtype import INTEGERS, DType, boolean, f32, i64, index
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import Buffer, Expr, all_of, as_expr, bounds, compare, const, var
from tensorwright.ir.expr import cast as cast_expr
from tensorwright.ir.expr import maximum as max_of
from tensorwright.ir.expr import minimum as min_of
from tensorwright.ir.expr import select as select_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import Alloc, If, Stmt, loops, seq, store
from tensorwright.ir.type import Dim, Shape, TensorType, dim_text, product, shape_of
from tensorwright.ops import reference as ref
from tensorwright.ops.define import compute, define, names, normalize_axis, reduction, require
from tensorwright.ops.elementwise import (
    add,
    cast,
    ceil,
    div,
    floor_div,
    maximum,
    mul,
    neg,
    sub,
)  # fmt: skip


def _infer_iota(*, shape: Shape, axis: int = 0, dtype: DType = i64, start: Dim = 0, step: Dim = 1):
    if shape or axis:
        normalize_axis("iota", axis, len(shape))
    require(dtype_of(dtype) is not boolean, "iota: bool cannot count", "use an integer type")
    return TensorType(dtype_of(dtype), shape_of(shape))


def _lower_iota(out: Buffer, *, shape, axis, dtype, start, step) -> Stmt:
    return compute(out, lambda *i: cast_expr(
        as_expr(start) + (i[axis] if i else const(0)) * as_expr(step), out.dtype))  # fmt: skip


def _reference_iota(shape, axis=0, dtype=i64, start=0, step=1):
    count = np.arange(shape[axis] if shape else 1) * step + start
    along = [-1 if k == axis % len(shape) else 1 for k in range(len(shape))]
    return np.broadcast_to(ref.cast(count, dtype_of(dtype)).reshape(along), shape)


iota = define(
    "iota", infer=_infer_iota, reference=_reference_iota, lower=_lower_iota,
    gradient=lambda g, y, **attrs: (),
    samples=("shape=(5,)", "shape=(2,n) axis=1 dtype=f32 n=1,4", "shape=(0,3) axis=-1",
             "shape=(3,2) axis=0 dtype=i32 start=-4 step=3", "shape=(n,) start=n step=-1 n=1,5",
             "shape=(4,) dtype=bf16", "shape=()"),
    doc="start + step * position along one axis.",
)  # fmt: skip


def _infer_full(*, shape: Shape, value, dtype: DType) -> TensorType:
    return TensorType(dtype_of(dtype), shape_of(shape))


def _lower_full(out: Buffer, *, shape, value, dtype) -> Stmt:
    return compute(out, lambda *i: cast_expr(value, out.dtype))


full = define(
    "full", infer=_infer_full, lower=_lower_full, gradient=lambda g, y, **attrs: (),
    reference=lambda shape, value, dtype: np.full(shape, value, dtype_of(dtype).numpy),
    samples=("shape=(2,3) value=1.5 dtype=f32", "shape=(n,) value=-1 dtype=i32 n=1,3",
             "shape=() value=True dtype=bool", "shape=(0,2) value=0 dtype=f16",
             "shape=(2,) value=n dtype=i64 n=1,6", "shape=(3,) value=0.1 dtype=bf16"),
    doc="The same number everywhere; it may be an index expression.",
)  # fmt: skip


def _infer_size(*, dims: Shape) -> TensorType:
    return TensorType(i64, (len(dims),))


def _lower_size(out: Buffer, *, dims) -> Stmt:
    def element(k: Expr) -> Expr:
        value = as_expr(dims[-1]) if dims else const(0)
        for at in reversed(range(len(dims) - 1)):
            value = select_expr(compare("eq", k, at), as_expr(dims[at]), value)
        return cast_expr(value, i64)

    return compute(out, element)


size = define(
    "size", infer=_infer_size, lower=_lower_size, gradient=lambda g, y, **attrs: (),
    reference=lambda dims: np.array(dims, np.int64),
    samples=("dims=(3,4)", "dims=(n,2*n,7) n=1,5", "dims=()", "dims=(n//2,) n=2,9"),
    doc="The values of index expressions as a tensor.",
)  # fmt: skip


class Check(NamedTuple):
    """What has to hold of sizes. says: the message if it does not, {0}, {1}, {2} the `values`."""

    holds: Expr
    says: str
    values: tuple[Dim, ...]


def _infer_bind_size(
    x: TensorType, *, symbols: tuple[Expr, ...], checks: tuple[Check, ...] = ()
) -> TensorType:  # fmt: skip
    require(x.dtype in INTEGERS and x.rank <= 1,
            f"bind_size: x is {x}; sizes are integers of rank 0 or 1")  # fmt: skip
    count = x.shape[0] if x.rank else 1
    require(
        count == len(symbols),
        f"bind_size: x has {dim_text(count)} elements, {len(symbols)} symbols are given",
    )
    require(all(isinstance(s, Expr) and s.op == "sym" for s in symbols),
            "bind_size: every one of `symbols` must be a plain symbol")  # fmt: skip
    require(all(holds.dtype is boolean and isinstance(says, str) for holds, says, _ in checks),
            "bind_size: a check is a condition, a message and the values in it")  # fmt: skip
    return x


bind_size = define(
    "bind_size", "x", infer=_infer_bind_size, reference=lambda x, symbols, checks=(): x,
    lower=lambda out, x, *, symbols, checks=(): compute(out, lambda *i: x[i]),
    gradient=lambda g, y, x, symbols, checks=(): (None,),
    doc="x itself; names its elements, so that they may be used in shapes. The program makes "
        "each of `checks`: (condition, message, values), of which the message shows up to three as "
        "{0}, {1} and {2}, then checks what is known of the symbols.",
)  # fmt: skip


def zeros_like(x: Node) -> Node:
    """Zeros of x's type."""
    return full(shape=x.shape, value=0, dtype=x.dtype)


def position(e: Expr, extent: Dim) -> Expr:
    """The index `e` names in a dimension: negative ones count from the end, then clamped."""
    extent, at = as_expr(extent), cast_expr(e, index)
    if e.dtype.is_signed:
        at = select_expr(compare("lt", at, 0), at + extent, at)
    return max_of(min_of(at, extent - 1), 0)


# ---- positions by condition --------------------------------------------------------------------


def nonzero_test(e: Expr) -> Expr:
    return e if e.dtype is boolean else compare("ne", e, const(0, e.dtype))


def _infer_one_hot(indices: TensorType, *, depth: Dim, axis: int = -1, dtype: DType = f32):
    require(indices.dtype in INTEGERS, f"one_hot: the indices are {indices.dtype}",
            "cast them to i64")  # fmt: skip
    axis = normalize_axis("one_hot", axis, indices.rank + 1)
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    return TensorType(dtype_of(dtype), shape_of(shape))


def _lower_one_hot(out: Buffer, indices: Buffer, *, depth, axis, dtype) -> Stmt:
    axis %= out.rank

    def element(*i: Expr) -> Expr:
        at = cast_expr(indices[(*i[:axis], *i[axis + 1 :])], index)
        wrapped = select_expr(compare("lt", at, 0), at + as_expr(depth), at)
        return cast_expr(compare("eq", wrapped, i[axis]), out.dtype)

    return compute(out, element)


def _reference_one_hot(indices, depth, axis=-1, dtype=f32):
    wrapped = np.where(indices < 0, indices.astype(np.int64) + depth, indices)
    hot = wrapped[..., None] == np.arange(depth)
    return np.moveaxis(hot, -1, axis).astype(dtype_of(dtype).numpy)


one_hot = define(
    "one_hot", "indices", infer=_infer_one_hot, lower=_lower_one_hot,
    reference=_reference_one_hot, gradient=lambda g, y, x, **attrs: (None,),
    samples=("i64[3,2]@-1:5 depth=4", "i32[n]@0:3 depth=n axis=0 dtype=i64 n=1,4",
             "u8[]@0:2 depth=3 dtype=bool", "i64[0] depth=2", "i64[2,3]@0:4 depth=5 axis=1"),
    doc="1 where the new axis meets the index (negative ones count from the end), else 0.",
)  # fmt: skip


def _infer_trilu(x: TensorType, *, upper: bool = True, k: Dim = 0) -> TensorType:
    require(x.rank >= 2, f"trilu: x has rank {x.rank}, it needs at least 2")
    return x


def _lower_trilu(out: Buffer, x: Buffer, *, upper, k) -> Stmt:
    def element(*i: Expr) -> Expr:
        diagonal = i[-2] + as_expr(k)
        kept = compare("le", diagonal, i[-1]) if upper else compare("le", i[-1], diagonal)
        return select_expr(kept, x[i], const(0, x.dtype))

    return compute(out, element)


trilu = define(
    "trilu", "x", infer=_infer_trilu, lower=_lower_trilu,
    reference=lambda x, upper=True, k=0: np.where(
        np.triu(np.ones(x.shape[-2:], bool), k) if upper
        else np.tril(np.ones(x.shape[-2:], bool), k), x, np.zeros((), x.dtype)),
    gradient=lambda g, y, x, upper, k: (trilu(g, upper=upper, k=k),),
    samples=("f32[3,4]", "f64[2,n,3] upper=False n=1,5", "f32[4,4] k=1", "i32[4,5] k=-2",
             "f32[0,3] upper=False", "f16[3,3] upper=False k=-1", "f32[n,n] k=n-2 n=2,4"),
    doc="The upper or lower triangle of the last two dimensions, zeros elsewhere.",
)  # fmt: skip


def _lower_count(out: Buffer, x: Buffer) -> Stmt:
    return reduction(out, x.shape, 0, lambda y, i, r: y + cast_expr(nonzero_test(x[r]), i64))


count_nonzero = define(
    "count_nonzero", "x", infer=lambda x: TensorType(i64, ()), lower=_lower_count,
    reference=lambda x: np.asarray(np.count_nonzero(x), np.int64),
    gradient=lambda g, y, x: (None,),
    samples=("f32[3,4]", "bool[n] n=1,7", "i32[0]", "bool[]", "i64[9]@0:2"),
    doc="How many elements differ from 0.",
)  # fmt: skip


def _infer_nonzero_indices(x: TensorType, *, count: Dim, flat: bool = False) -> TensorType:
    return TensorType(i64, shape_of((count,) if flat else (x.rank, count)))


def _lower_nonzero_indices(out: Buffer, x: Buffer, *, count, flat) -> Stmt:
    """Row-major over x with a running count; what a too small `count` leaves out is dropped."""
    done = Buffer("done", i64, (1,), "local")
    at = cast_expr(done[0], index)

    def visit(*i: Expr) -> Stmt:
        where = _linear(i, x.shape) if flat else i
        put = [store(out, (at,) if flat else (const(k), at), cast_expr(v, i64))
               for k, v in enumerate([where] if flat else where)]  # fmt: skip
        bump = store(done, 0, done[0] + 1)
        return If(all_of((nonzero_test(x[i]), compare("lt", at, as_expr(count)))), seq(*put, bump))

    return seq(Alloc(done), store(done, 0, const(0, i64)), loops(names(x.rank), x.shape, visit))


def _linear(i, shape: Shape) -> Expr:
    flat = const(0)
    for v, d in zip(i, shape):
        flat = flat * as_expr(d) + v
    return flat


def _reference_nonzero_indices(x, count, flat=False):
    found = np.flatnonzero(x) if flat else np.argwhere(x).T
    return found[..., :count].astype(np.int64)


nonzero_indices = define(
    "nonzero_indices", "x", infer=_infer_nonzero_indices, lower=_lower_nonzero_indices,
    reference=_reference_nonzero_indices, gradient=lambda g, y, x, **attrs: (None,),
    samples=("f32[3,4]@1:2 count=12", "i32[3,4]@1:2 count=7 flat=True", "bool[0] count=0",
             "f32[]@1:1 count=1", "f32[2,n]@1:2 count=n n=1,3"),
    doc="The subscripts (or flat positions) of the first elements that differ from 0.",
)  # fmt: skip


def nonzero(x: Node, flat: bool = False) -> Node:
    """Subscripts of the elements of x that differ from 0: i64[rank, nnz], or flat: i64[nnz]."""
    most = bounds(as_expr(product(x.shape)))[1]
    count = var("nnz", max=most)
    bind_size(count_nonzero(x), symbols=(count,))
    return nonzero_indices(x, count=count, flat=flat)


def range_(start: Node, limit: Node, delta: Node) -> Node:
    """start, start + delta, ... before `limit`; scalars of one type, known at run time."""
    if start.dtype.is_float:
        steps = ceil(div(sub(limit, start), delta))
    else:
        steps = neg(floor_div(sub(start, limit), delta))
    count = var("range")
    bind_size(maximum(cast(steps, dtype=i64), 0), symbols=(count,))
    positions = iota(shape=(count,), axis=0, dtype=start.dtype)
    return add(start, mul(positions, delta))
