"""Batching rules of the operator table: one for each primitive, and for composites that stay whole.

    RULES[gather](r)  ->  y: [lanes, ...]

A composite without a rule is replaced by its expansion, so an operator written in terms of others
needs nothing. A rule of a composite keeps it a unit for the passes that know it. What has no
definition over all lanes at once runs lane after lane (`one_by_one`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from tensorwright.base.errors import CompileError
from tensorwright.batching import rules_index as ix
from tensorwright.batching.rows import Row, aligned, merged, moved, one_by_one
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.graph import Node
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import product
from tensorwright.ops import (
    activations,
    attention,
    caches,
    conv,
    cumulative,
    data,
    elementwise,
    index,
    linalg,
    movement,
    norm,
    patches,
    pool,
    positions,
    random,
    reduce,
    sort,
    statistics,
    strassen,
    vision,
    window,
    winograd,
)  # fmt: skip
from tensorwright.ops.define import normalize_axes, normalize_axis

Rule = Callable[[Row], Node | None]


def rows_of(module: ModuleType) -> list[OpDef]:
    """The rows that a file of the table defines or imports."""
    return [v for v in vars(module).values() if isinstance(v, OpDef)]


# ---- element by element ------------------------------------------------------------------------


def pointwise(r: Row) -> Node:
    """Operands broadcast from the right within a lane, so that ones go behind the lanes."""
    rank = max(r.rank(k) for k in range(len(r.args)))
    args = [aligned(x, rank) if one else x for x, one in zip(r.args, r.on)]
    return r.again(*args)


def _prelu(r: Row) -> Node | None:
    """The slope broadcasts to x, so x must have the lanes."""
    x = r.lead(0)
    return r.again(x, aligned(r.args[1], r.rank(0)) if r.on[1] else r.args[1])


# ---- along axes --------------------------------------------------------------------------------


def along_axis(r: Row) -> Node:
    """One axis is named; it is one further behind."""
    return r.again(*r.all(), axis=r.axis())


def along_axes(r: Row) -> Node:
    axes = normalize_axes(r.node.op.name, r.attrs["axes"], r.rank())
    return r.again(r.args[0], axes=tuple(a + 1 for a in axes))


def _normalized(r: Row) -> Node | None:
    """layer_norm and rms_norm: scale and bias broadcast from the right."""
    if not r.on[0]:
        return None
    axes = normalize_axes(r.node.op.name, r.attrs["axes"], r.rank())
    rest = [x if x is None or not one else aligned(x, r.rank())
            for x, one in zip(r.args[1:], r.on[1:])]  # fmt: skip
    return r.again(r.args[0], *rest, axes=tuple(a + 1 for a in axes))


def unchanged(r: Row) -> Node:
    """Operators over the last dimensions, whatever leads."""
    return r.again(*r.all())


def _each_dimension(r: Row, **first) -> Node:
    """Attributes with an entry for each dimension get one more in front, for the lanes."""
    more = {k: (v, *r.attrs[k]) for k, v in first.items() if r.attrs[k] is not None}
    return r.again(r.args[0], **more)


def _windowed(r: Row, **more) -> Node:
    return _each_dimension(r, window=1, strides=1, padding=(0, 0), dilation=1, **more)


# ---- movement ----------------------------------------------------------------------------------


def _broadcast_to(r: Row) -> Node:
    shape = r.node.shape
    return r.again(aligned(r.args[0], len(shape)), shape=(r.size, *shape))


def _slice(r: Row) -> Node:
    stops = (r.size, *r.attrs["stops"])
    steps = None if r.attrs["steps"] is None else (1, *r.attrs["steps"])
    return r.again(r.args[0], starts=(0, *r.attrs["starts"]), stops=stops, steps=steps)


# ---- contractions ------------------------------------------------------------------------------


FEW = 8  # lanes: fewer leave most of a vector along them empty


def _dot_general(r: Row) -> Node:
    """Lanes of both operands are one more batch dimension; those of one are a free dimension,
    which then goes to the front. Few lanes that are the only free dimension of the second operand
    come first from the beginning: vectors lie along what is free in the other."""
    (xb, wb), (xc, wc) = r.attrs["batch"], r.attrs["contract"]
    shift = lambda axes, k: tuple(normalize_axis("dot_general", a, r.rank(k)) + r.on[k]
                                  for a in axes)  # fmt: skip
    few = isinstance(r.size, int) and 1 < r.size < FEW
    if few and not r.on[0] and not xb and r.rank(1) == len(wc):
        return r.again(*r.args[::-1], contract=(shift(wc, 1), shift(xc, 0)))
    both = (0,) if all(r.on) else ()
    y = r.again(*r.args, batch=((*both, *shift(xb, 0)), (*both, *shift(wb, 1))),
                contract=(shift(xc, 0), shift(wc, 1)))  # fmt: skip
    if all(r.on):
        return y
    free = r.rank(0) - len(xb) - len(xc)
    return moved(y, len(xb) if r.on[0] else len(xb) + free, 0)


def _matmul(r: Row) -> Node | None:
    """Whole where NumPy's rules give the lanes their place."""
    if r.only(0) and r.rank(1) <= 2:
        return r.again(*r.args)
    ranks = (r.rank(0), r.rank(1))
    return r.again(*r.all()) if min(ranks) >= 2 and ranks[0] == ranks[1] else None


def _linear(r: Row) -> Node | None:
    return r.again(*r.args) if r.only(0) else None


def _examples(r: Row) -> Node | None:
    """Operators over a dimension of examples: lanes are more examples. None where an operand that
    all examples share differs between lanes."""
    if not r.only(0) or r.rank() < 2:
        return None
    y = r.again(merged(r.args[0]), *r.args[1:])
    return moved_apart(y, r)


def moved_apart(y: Node, r: Row) -> Node:
    return movement.reshape(y, shape=(r.size, *r.node.shape))


def _or_one_by_one(rule: Rule) -> Rule:
    def either(r: Row) -> Node:
        y = rule(r)
        return one_by_one(r) if y is None else y

    return either


def _attention(r: Row) -> Node | None:
    """Lanes join the batch dimension where everything that has one differs between lanes."""
    if not (r.on[0] and r.on[1] and r.on[2]) or not r.only(0, 1, 2):
        return None
    mask, *rest = r.args[3:]
    if any(x is not None for x in rest) or (mask is not None and mask.rank > 2):
        return None
    y = r.again(*(merged(x) for x in r.args[:3]), mask)
    return moved_apart(y, r)


# ---- others ------------------------------------------------------------------------------------


def _count_nonzero(r: Row) -> Node:
    x = r.args[0]
    hit = x if x.dtype is boolean else elementwise.not_equal(x, 0)
    return reduce.reduce_sum(elementwise.cast(hit, dtype=i64), axes=tuple(range(1, x.rank)))


def _window_argument(r: Row) -> Node:
    """Positions count from the beginning of the lane; -1 stays."""
    y = _windowed(r)
    shape = (r.size, *(1,) * (y.rank - 1))
    per_lane = positions.full(shape=(), value=product(r.node.args[0].shape), dtype=i64)
    first = elementwise.mul(positions.iota(shape=shape, axis=0), per_lane)
    return elementwise.select(elementwise.less(y, 0), y, elementwise.sub(y, first))


def _sizes_differ(r: Row) -> Node:
    raise CompileError(
        f"vmap: {r.node.op.name} makes a size of a value that differs between examples",
        help="sizes must be the same for all examples; compute with a mask, or use tw.batch",
    )


def _values_differ(r: Row) -> Node:
    raise CompileError(
        f"vmap: {r.node.op.name} works on values, which have no dimension for examples",
        help="use tw.batch, which runs the equal parts of many values together",
    )


RULES: dict[OpDef, Rule] = {
    **dict.fromkeys((*rows_of(elementwise), *rows_of(activations)), pointwise),
    activations.prelu: _prelu,
    positions.bind_size: _sizes_differ,
    positions.one_hot: lambda r: r.again(r.args[0], axis=r.axis(rank=r.rank() + 1)),
    positions.trilu: unchanged,
    positions.count_nonzero: _count_nonzero,
    positions.nonzero_indices: one_by_one,
    index.gather: ix.gather,
    index.gather_elements: along_axis,
    index.gather_nd: ix.gather_nd,
    index.scatter_elements: along_axis,
    index.scatter_nd: ix.scatter_nd,
    index.scatter_axis: ix.scatter_axis,
    index.dynamic_slice: ix.dynamic_slice,
    index.dynamic_update_slice: ix.dynamic_update_slice,
    movement.broadcast_to: _broadcast_to,
    movement.reshape: lambda r: r.again(r.args[0], shape=(r.size, *r.node.shape)),
    movement.transpose: lambda r: r.again(r.args[0], perm=(0, *(p + 1 for p in r.attrs["perm"]))),
    movement.slice: _slice,
    movement.flip: along_axes,
    movement.pad: lambda r: _each_dimension(r, low=0, high=0),
    movement.concat: along_axis,
    **dict.fromkeys((cumulative.cumsum, cumulative.cumprod, cumulative.cummax, cumulative.cummin,
                     cumulative.linear_recurrence, norm.softmax, norm.log_softmax, sort.argsort,
                     sort.sort, sort.top_k), along_axis),
    **dict.fromkeys((reduce.reduce_sum, reduce.reduce_prod, reduce.reduce_max, reduce.reduce_min,
                     reduce.reduce_any, reduce.reduce_all, statistics.reduce_mean,
                     statistics.reduce_l1, statistics.reduce_sum_square, statistics.reduce_l2,
                     statistics.reduce_log_sum, statistics.reduce_log_sum_exp,
                     statistics.variance), along_axes),
    reduce.argmax: along_axis,
    reduce.argmin: along_axis,
    norm.layer_norm: _normalized,
    norm.rms_norm: _normalized,
    **dict.fromkeys((norm.group_norm, norm.instance_norm, norm.lrn, pool.max_pool, pool.avg_pool,
                     pool.lp_pool, pool.global_max_pool, pool.global_avg_pool,
                     pool.global_lp_pool, conv.conv, conv.conv_transpose), _examples),
    linalg.dot_general: _dot_general,
    linalg.matmul: _matmul,
    linalg.linear: _linear,
    linalg.det: unchanged,
    conv.conv_general: _or_one_by_one(_examples),
    window.reduce_window: lambda r: _windowed(r),
    window.spread_window: lambda r: _windowed(r, shape=r.size),
    window.window_argument: _window_argument,
    sort.row_order: one_by_one,
    patches.im2col: _examples,
    patches.col2im: _examples,
    attention.attention: _attention,
    vision.roi_align: one_by_one,
    vision.nms_indices: one_by_one,
    **dict.fromkeys((caches.page_write, caches.page_read, caches.decode_attention,
                     strassen.strassen, winograd.winograd), one_by_one),
    **dict.fromkeys((data.construct, data.match, data.closure, data.apply), _values_differ),
    random.random_bits: unchanged,
}  # fmt: skip
