"""The array namespace: statistics, searching, sorting, products.

Sums of small integers are made in the default integer, means of integers in f32.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.frontend.array_define import axes_of, axis_of, cast, floating, function, named
from tensorwright.frontend.array_index import get_item
from tensorwright.frontend.tracer import node_of, size_of, together, traced_error
from tensorwright.ir.dtype import boolean, i8, i64, u64
from tensorwright.ir.graph import Node
from tensorwright.ir.type import product
from tensorwright.ops import cumulative as cu
from tensorwright.ops import einsum as es
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import linalg as la
from tensorwright.ops import movement as mv
from tensorwright.ops import norm as nm
from tensorwright.ops import reduce as rd
from tensorwright.ops import sort as so
from tensorwright.ops import statistics as st
from tensorwright.ops.define import broadcast_shapes


@function
def sum(x, /, *, axis=None, dtype=None, keepdims=False):
    x = _accumulated(node_of(x), dtype)
    return rd.reduce_sum(x, axes=axes_of(axis, x.rank), keepdims=keepdims)


@function
def prod(x, /, *, axis=None, dtype=None, keepdims=False):
    x = _accumulated(node_of(x), dtype)
    return rd.reduce_prod(x, axes=axes_of(axis, x.rank), keepdims=keepdims)


def _accumulated(x: Node, dtype) -> Node:
    """Small integers are summed in the default integer, as the standard says."""
    if dtype is not None:
        return cast(x, dtype)
    if x.dtype.is_float or (x.dtype.bits == 64 and x.dtype is not boolean):
        return x
    return cast(x, u64 if x.dtype.kind == "uint" else i64)


@function
def mean(x, /, *, axis=None, keepdims=False):
    x = node_of(x, floating(x))
    return st.reduce_mean(x, axes=axes_of(axis, x.rank), keepdims=keepdims)


@function
def var(x, /, *, axis=None, correction=0.0, keepdims=False):
    return _variance(node_of(x, floating(x)), axis, correction, keepdims)


@function
def std(x, /, *, axis=None, correction=0.0, keepdims=False):
    return ew.sqrt(_variance(node_of(x, floating(x)), axis, correction, keepdims))


def _variance(x: Node, axis, correction, keepdims) -> Node:
    axes = axes_of(axis, x.rank)
    centered = ew.sub(x, st.reduce_mean(x, axes=axes, keepdims=True))
    total = rd.reduce_sum(ew.mul(centered, centered), axes=axes, keepdims=keepdims)
    count = product(x.shape[a] for a in (range(x.rank) if axes is None else axes))
    return ew.div(total, ew.sub(node_of(size_of(count), x.dtype), float(correction)))


def _extreme(name: str) -> Callable:
    def f(x, /, *, axis=None, keepdims=False):
        x = node_of(x)
        axes = axes_of(axis, x.rank)
        if x.dtype is boolean:
            fold = rd.reduce_any if name == "max" else rd.reduce_all
        else:
            fold = getattr(rd, f"reduce_{name}")
        return fold(x, axes=axes, keepdims=keepdims)

    return named(f, name)


max, min = _extreme("max"), _extreme("min")


@function
def any(x, /, *, axis=None, keepdims=False):
    x = node_of(x, boolean)
    return rd.reduce_any(x, axes=axes_of(axis, x.rank), keepdims=keepdims)


@function
def all(x, /, *, axis=None, keepdims=False):
    x = node_of(x, boolean)
    return rd.reduce_all(x, axes=axes_of(axis, x.rank), keepdims=keepdims)


def _cumulative(name: str, neutral: int) -> Callable:
    row = getattr(cu, name)

    def f(x, /, *, axis=None, dtype=None, include_initial=False):
        x = _accumulated(node_of(x), dtype)
        if axis is None and x.rank > 1:
            raise traced_error(f"a tensor of rank {x.rank} needs an axis")
        axis = axis_of(axis or 0, x.rank)
        y = row(x, axis=axis)
        if not include_initial:
            return y
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        return mv.concat(ix.full(shape=shape, value=neutral, dtype=y.dtype), y, axis=axis)

    return named(f, name.replace("cum", "cumulative_"))


cumulative_sum, cumulative_prod = _cumulative("cumsum", 0), _cumulative("cumprod", 1)


@function
def diff(x, /, *, axis=-1, n=1):
    x = node_of(x)
    at = (slice(None),) * axis_of(axis, x.rank)
    for _ in range(n):
        ends = [get_item(x, (*at, s)) for s in (slice(1, None), slice(None, -1))]
        x = ew.logical_xor(*ends) if x.dtype is boolean else ew.sub(*ends)
    return x


# ---- searching, sorting ------------------------------------------------------------------------


def _arg(name: str) -> Callable:
    def f(x, /, *, axis=None, keepdims=False):
        x = node_of(x)
        x = cast(x, i8) if x.dtype is boolean else x
        if axis is None:
            y = getattr(rd, name)(mv.reshape(x, shape=(x.type.size,)), axis=0, keepdims=False)
            return mv.reshape(y, shape=(1,) * x.rank) if keepdims else y
        return getattr(rd, name)(x, axis=axis_of(axis, x.rank), keepdims=keepdims)

    return named(f, name)


argmax, argmin = _arg("argmax"), _arg("argmin")


@function
def count_nonzero(x, /, *, axis=None, keepdims=False):
    x = node_of(node_of(x, boolean), i64)
    return rd.reduce_sum(x, axes=axes_of(axis, x.rank), keepdims=keepdims)


@function
def nonzero(x, /):
    x = node_of(x)
    found = ix.nonzero(x)
    count = found.shape[1]
    return tuple(mv.reshape(mv.slice(found, starts=(k, 0), stops=(k + 1, count), steps=(1, 1)),
                            shape=(count,)) for k in range(x.rank))  # fmt: skip


@function
def searchsorted(x1, x2, /, *, side="left", sorter=None):
    x, v = together(x1, x2)
    if sorter is not None:
        x = ix.gather(x, node_of(sorter), axis=0)
    smaller = ew.less if side == "left" else ew.less_equal
    found = smaller(x, mv.reshape(v, shape=(*v.shape, 1)))
    return rd.reduce_sum(cast(found, i64), axes=(v.rank,))


@function
def argsort(x, /, *, axis=-1, descending=False, stable=True):
    x = node_of(x)
    return so.argsort(x, axis=axis_of(axis, x.rank), descending=descending, stable=True)


@function
def sort(x, /, *, axis=-1, descending=False, stable=True):
    x = node_of(x)
    return so.sort(x, axis=axis_of(axis, x.rank), descending=descending, stable=True)


@function
def take(x, indices, /, *, axis=None):
    x = node_of(x)
    if axis is None and x.rank > 1:
        raise traced_error(f"a tensor of rank {x.rank} needs an axis")
    return ix.gather(x, node_of(indices), axis=axis_of(axis or 0, x.rank))


@function
def take_along_axis(x, indices, /, *, axis=-1):
    x, indices = node_of(x), node_of(indices)
    axis = axis_of(axis, x.rank)
    wanted = [a if k != axis else 1 for k, a in enumerate(x.shape)]
    shape = broadcast_shapes("take_along_axis", tuple(wanted), indices.shape)
    full_ = tuple(d if k == axis else shape[k] for k, d in enumerate(x.shape))
    return ix.gather_elements(mv.broadcast_to(x, shape=full_),
                              mv.broadcast_to(indices, shape=shape), axis=axis)  # fmt: skip


@function
def unique_values(x, /):
    return so.unique(node_of(x))[0]


# ---- linear algebra ----------------------------------------------------------------------------


@function
def matmul(x, y, /):
    return la.matmul(*together(x, y))


@function
def tensordot(x, y, /, *, axes=2):
    x, y = together(x, y)
    if isinstance(axes, int):
        axes = (range(x.rank - axes, x.rank), range(axes))
    contract = tuple(tuple(axis_of(a, t.rank) for a in side) for t, side in zip((x, y), axes))
    return la.dot_general(x, y, contract=contract)


@function
def vecdot(x, y, /, *, axis=-1):
    x, y = together(x, y)
    shape = broadcast_shapes("vecdot", x.shape, y.shape)
    product_ = ew.mul(mv.broadcast_to(x, shape=shape), mv.broadcast_to(y, shape=shape))
    return rd.reduce_sum(product_, axes=(axis_of(axis, len(shape)),))


@function
def einsum(equation: str, /, *operands):
    return es.einsum(*together(*operands), equation=equation.replace(" ", ""))


@function
def outer(x, y, /):
    x, y = together(x, y)
    return ew.mul(mv.reshape(x, shape=(x.type.size, 1)), mv.reshape(y, shape=(1, y.type.size)))


# ---- neural networks (beyond the standard) -----------------------------------------------------


@function
def relu(x, /):
    return ew.maximum(node_of(x), 0)


@function
def softmax(x, /, *, axis=-1):
    x = node_of(x, floating(x))
    return nm.softmax(x, axis=axis_of(axis, x.rank))


@function
def apply(op, *operands, **attrs):
    """A node of any operator of the table: apply(tw.ops.layer_norm, x, scale, axes=(-1,))."""
    return op(*(x if x is None else node_of(x) for x in operands), **attrs)
