"""ONNX sequences and optionals, as far as they are resolved while importing.

A sequence is a tuple of nodes: its length and every position must be known. Nothing of it remains
in the program.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import (
    Body,
    Call,
    OptionalValue,
    SequenceValue,
    TypeOf,
    converter,
    value_kind,
)  # fmt: skip
from tensorwright.frontend.onnx_ops_elementwise import tensor_dtype
from tensorwright.frontend.onnx_ops_movement import axis_of, squeezed
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim

MAX_ITEMS = 1024


def sequence(c: Call, s: object) -> SequenceValue:
    if isinstance(s, OptionalValue) and isinstance(s.item, SequenceValue):
        s = s.item
    if not isinstance(s, SequenceValue):
        raise c.fail(f"its input is {value_kind(s)}, not a sequence known while importing")
    return s


def tensor(c: Call, x: object) -> Node:
    if not isinstance(x, Node):
        raise c.fail(f"its input is {value_kind(x)}, not a tensor")
    return x


def position(c: Call, s: SequenceValue, at: Node | None, default: int, room: int) -> int:
    """A position in the sequence, which must be known."""
    k = default if at is None else int(c.number(tensor(c, at), "position"))
    if not -len(s.items) <= k < len(s.items) + room:
        raise c.fail(f"position {k} is outside a sequence of {len(s.items)}")
    return k + len(s.items) if k < 0 else k


@converter("SequenceConstruct", values=True)
def sequence_construct(c: Call, *xs: object) -> SequenceValue:
    items = tuple(tensor(c, x) for x in xs)
    if len({x.dtype for x in items}) > 1:
        raise c.fail("the tensors have different element types")
    return SequenceValue(items, items[0].dtype if items else None)


@converter("SequenceEmpty", values=True)
def sequence_empty(c: Call, *, dtype: int = 1) -> SequenceValue:
    return SequenceValue((), tensor_dtype(c, dtype))


@converter("SequenceAt", values=True)
def sequence_at(c: Call, s: object, at: object) -> Node:
    s = sequence(c, s)
    return s.items[position(c, s, at, 0, 0)]


@converter("SequenceInsert", values=True)
def sequence_insert(c: Call, s: object, x: object, at: object = None) -> SequenceValue:
    s = sequence(c, s)
    k = position(c, s, at, len(s.items), 1)
    return SequenceValue((*s.items[:k], tensor(c, x), *s.items[k:]), s.dtype)


@converter("SequenceErase", values=True)
def sequence_erase(c: Call, s: object, at: object = None) -> SequenceValue:
    s = sequence(c, s)
    if not s.items:
        raise c.fail("the sequence is empty")
    k = position(c, s, at, len(s.items) - 1, 0)
    return SequenceValue((*s.items[:k], *s.items[k + 1 :]), s.dtype)


@converter("SequenceLength", values=True)
def sequence_length(c: Call, s: object) -> Node:
    return constant(np.array(len(sequence(c, s).items)))


@converter("ConcatFromSequence", values=True)
def concat_from_sequence(c: Call, s: object, *, axis: int, new_axis: int = 0) -> Node:
    items = sequence(c, s).items
    if not items:
        raise c.fail("the sequence is empty")
    axis = axis_of(c, axis, items[0].rank + bool(new_axis))
    if new_axis:
        items = [ops.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in items]
    return items[0] if len(items) == 1 else ops.concat(*items, axis=axis)


@converter("SplitToSequence", values=True)
def split_to_sequence(
    c: Call, x: object, split: object = None, *, axis: int = 0, keepdims: int = 1
) -> SequenceValue:
    x = tensor(c, x)
    axis = axis_of(c, axis, x.rank)
    extent = x.shape[axis]
    if split is None or tensor(c, split).rank == 0:
        step = 1 if split is None else int(c.number(split, "split"))
        if not isinstance(extent, int) or step < 1 or extent > step * MAX_ITEMS:
            raise c.fail(f"dimension {axis} is {extent}: the number of pieces is not known")
        stops = [min(k + step, extent) for k in range(0, extent, step)]
    else:
        stops, total = [], as_expr(0)
        for d in c.dims(split):
            total = total + as_expr(d)
            stops.append(as_dim(total))
    pieces, start = [], 0
    for stop in stops:
        pieces.append(piece(x, axis, start, stop))
        start = stop
    if split is None and not keepdims:
        pieces = [squeezed(c, p, [axis]) for p in pieces]
    return SequenceValue(tuple(pieces), x.dtype)


def piece(x: Node, axis: int, start: Dim, stop: Dim) -> Node:
    starts, stops = [0] * x.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return ops.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)


@converter("SequenceMap", values=True)
def sequence_map(c: Call, s: object, *more: object, body: Body) -> list[SequenceValue]:
    first = sequence(c, s)
    columns: list[list[Node]] = [[] for _ in body.outputs]
    for k in range(len(first.items)):
        args = [first.items[k]]
        for m in more:
            inner = m.item if isinstance(m, OptionalValue) else m
            args.append(sequence(c, inner).items[k] if isinstance(inner, SequenceValue) else inner)
        for column, value in zip(columns, c.importer.inline(body, c.scope, args)):
            column.append(value)
    return [SequenceValue(tuple(col), col[0].dtype if col else f32) for col in columns]


# ---- optionals ----------------------------------------------------------------------------------


@converter("Optional", values=True)
def optional(c: Call, x: object = None, *, type: TypeOf | None = None) -> OptionalValue:
    return OptionalValue(x)


@converter("OptionalHasElement", values=True)
def optional_has_element(c: Call, x: object = None) -> Node:
    has = x is not None and not (isinstance(x, OptionalValue) and x.item is None)
    return constant(np.array(has))


@converter("OptionalGetElement", values=True)
def optional_get_element(c: Call, x: object) -> object:
    if isinstance(x, OptionalValue):
        if x.item is None:
            raise c.fail("the optional is empty")
        return x.item
    return x
