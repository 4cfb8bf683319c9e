"""ONNX reductions, running sums, sorting."""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_movement import axes_of, axis_of
from tensorwright.frontend.size_checks import Check, checked_zero, depend_on_data
from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import as_dim, as_expr, compare, is_const, minimum
from tensorwright.ir.graph import Node
from tensorwright.ir.op import OpDef

REDUCTIONS = {
    "ReduceSum": (ops.reduce_sum, 13), "ReduceProd": (ops.reduce_prod, 18),
    "ReduceMax": (ops.reduce_max, 18), "ReduceMin": (ops.reduce_min, 18),
    "ReduceMean": (ops.reduce_mean, 18), "ReduceL1": (ops.reduce_l1, 18),
    "ReduceL2": (ops.reduce_l2, 18), "ReduceLogSum": (ops.reduce_log_sum, 18),
    "ReduceLogSumExp": (ops.reduce_log_sum_exp, 18),
    "ReduceSumSquare": (ops.reduce_sum_square, 18),
}  # fmt: skip


def reduced(c: Call, op: OpDef, x: Node, axes: Sequence[int] | None, keepdims: int) -> Node:
    axes = None if axes is None else axes_of(c, axes, x.rank)
    if x.dtype is boolean:  # ReduceMax and ReduceMin of truth values
        op = {ops.reduce_max: ops.reduce_any, ops.reduce_min: ops.reduce_all}.get(op, op)
    return op(x, axes=axes, keepdims=bool(keepdims))


def _register(name: str, op: OpDef, since: int) -> None:
    @converter(name)
    def by_attribute(c: Call, x: Node, *, axes: Ints | None = None, keepdims: int = 1) -> Node:
        return reduced(c, op, x, axes, keepdims)

    @converter(name, since=since)
    def by_operand(
        c: Call, x: Node, axes: Node | None = None, *, keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Node:  # fmt: skip
        given = c.ints(axes, "axes")
        if not given:
            if noop_with_empty_axes:
                return elementwise_part(name, x)
            given = None
        return reduced(c, op, x, given, keepdims)


def elementwise_part(name: str, x: Node) -> Node:
    """What a reduction over no axes does: only its functions before and after the sum."""
    if name in ("ReduceL1", "ReduceL2"):
        return ops.abs(x)
    if name == "ReduceSumSquare":
        return ops.mul(x, x)
    return ops.log(x) if name == "ReduceLogSum" else x


for _name, (_op, _since) in REDUCTIONS.items():
    _register(_name, _op, _since)


def _arg(op: OpDef):
    def convert(
        c: Call, x: Node, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
    ) -> Node:
        return op(
            x, axis=axis_of(c, axis, x.rank), keepdims=bool(keepdims),
            last=bool(select_last_index),
        )  # fmt: skip

    return convert


converter("ArgMax")(_arg(ops.argmax))
converter("ArgMin")(_arg(ops.argmin))


def _running(op: OpDef):
    def convert(c: Call, x: Node, axis: Node, *, exclusive: int = 0, reverse: int = 0) -> Node:
        at = axis_of(c, int(c.number(axis, "axis")), x.rank)
        return op(x, axis=at, exclusive=bool(exclusive), reverse=bool(reverse))

    return convert


converter("CumSum")(_running(ops.cumsum))
converter("CumProd")(_running(ops.cumprod))


@converter("TopK")
def top_k_v1(c: Call, x: Node, *, k: int, axis: int = -1) -> tuple:
    return _top(c, x, k, axis, 1, 1)


@converter("TopK", since=10)
def top_k(c: Call, x: Node, k: Node, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple:
    return _top(c, x, c.dim(k), axis, largest, sorted)


def _top(c: Call, x: Node, k, axis: int, largest: int, ordered: int) -> tuple:
    axis = axis_of(c, axis, x.rank)
    extent = x.shape[axis]
    fits = compare("le", as_expr(k), as_expr(extent))
    if is_const(fits, False):
        raise c.fail(f"k is {k}, more than the {extent} elements of axis {axis}")
    if not is_const(fits):
        c.importer.demands.require(fits)
        least = minimum(as_expr(k), as_expr(extent))
        if depend_on_data(k, extent):
            says = f"k is {{0}}, more than the {{1}} elements of axis {axis}"
            least = least + checked_zero(Check(fits, says, (k, extent)))
        k = as_dim(least)
    result = ops.top_k(x, k=k, axis=axis, largest=bool(largest), sorted=bool(ordered))
    return item_of(result, 0), item_of(result, 1)


def item_of(t: Node, k: int) -> Node:
    return ops.item(t, index=k)
