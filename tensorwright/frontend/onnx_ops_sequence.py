"""ONNX sequences and optionals. What is known while importing is resolved: a sequence whose length
and positions are known is a tuple of nodes, of which nothing remains in the program. The others are
values of data types (`onnx_sequences.py`).
"""

from __future__ import annotations

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend import onnx_sequences as sq
from tensorwright.frontend.onnx_model import ValueRecord
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
from tensorwright.frontend.onnx_scope import POISON, Scope, closed_graph
from tensorwright.frontend.onnx_sequences import (
    Kind,
    OptionalKind,
    SequenceKind,
    kind_of,
    pattern_of,
)  # fmt: skip
from tensorwright.frontend.size_checks import equal_sizes
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, array_of, constant, param
from tensorwright.ir.type import Dim, TensorType

MAX_ITEMS = 1024
"""A sequence of more elements is a value of the program even if its length is known."""


# ---- values of either form ----------------------------------------------------------------------


def is_tensor(x: object) -> bool:
    return isinstance(x, Node) and isinstance(x.type, TensorType)


def tensor(c: Call, x: object) -> Node:
    if not is_tensor(x):
        raise c.fail(f"its input is {value_kind(x)}, not a tensor")
    return x


def kind_of_value(value: object) -> Kind | None:
    """What a sequence or an optional may hold; None for a tensor."""
    if isinstance(value, SequenceValue):
        kind = SequenceKind(value.dtype or f32)
        for x in value.items:
            kind = kind.join(SequenceKind(x.dtype, (pattern_of(x.shape),)))
        return kind
    if isinstance(value, OptionalValue):
        return OptionalKind() if value.item is None else optional_of(value.item)
    return kind_of(value) if isinstance(value, Node) else None


def optional_of(value: object) -> OptionalKind:
    """The kind of optionals that hold such a value."""
    if is_tensor(value):
        return OptionalKind(value.dtype, (pattern_of(value.shape),))
    return OptionalKind(sequence=kind_of_value(value))


def joined(values: list) -> Kind | None:
    """The kind of a value that may be any of these; None if all are tensors. FrontendError if they
    have no type in common."""
    kinds = [kind_of_value(v) for v in values]
    if all(k is None for k in kinds):
        return None
    if any(isinstance(k, OptionalKind) for k in kinds):
        kinds = [k if isinstance(k, OptionalKind) else optional_of(v)
                 for k, v in zip(kinds, values)]  # fmt: skip
    if None in kinds:
        raise FrontendError("it is a sequence or a tensor")
    found = kinds[0]
    for k in kinds[1:]:
        found = found.join(k)
    return found


def as_node(value: object, kind: Kind) -> Node:
    """A value as one of the program, of a kind that its own is part of."""
    if isinstance(kind, OptionalKind):
        if isinstance(value, Node) and isinstance(kind_of(value), OptionalKind):
            return sq.widened(value, kind)
        item = value.item if isinstance(value, OptionalValue) else value
        if item is None:
            return sq.absent(kind)
        return sq.present(kind, item if is_tensor(item) else as_node(item, kind.sequence))
    if isinstance(value, Node):
        return sq.converted(value, kind)
    found = sq.nothing(kind)
    for x in value.items:
        found = sq.append(found, x)
    return found


def native(value: object) -> object:
    """A sequence or optional as a value of the program, any other value as it is."""
    kind = kind_of_value(value)
    return value if kind is None else as_node(value, kind)


def sequence(c: Call, s: object) -> SequenceValue | Node:
    if isinstance(s, OptionalValue) and s.item is not None:
        s = s.item
    if isinstance(s, Node) and isinstance(kind_of(s), OptionalKind):
        s = sq.content(s)
    if isinstance(s, SequenceValue) or isinstance(kind_of_value(s), SequenceKind):
        return s
    raise c.fail(f"its input is {value_kind(s)}, not a sequence")


def declared(v: ValueRecord, pattern: tuple | None = None) -> Kind | None:
    """The kind that the declared type of an input says; None if that is no sequence or optional of
    tensors. pattern: sizes of the elements that the user gives."""
    if v.kind not in ("sequence", "optional") or v.element is None:
        return None
    inner = v.element
    if inner.kind == "tensor":
        patterns = sq.any_patterns() if inner.shape is None else (pattern_of(inner.shape),)
        patterns = patterns if pattern is None else (pattern,)
        return (SequenceKind if v.kind == "sequence" else OptionalKind)(inner.dtype, patterns)
    within = declared(inner, pattern)
    if v.kind == "optional" and isinstance(within, SequenceKind):
        return OptionalKind(sequence=within)
    return None


def known_position(c: Call, at: object) -> int | None:
    """The position, if it is known while importing."""
    at = tensor(c, at)
    found = array_of(at)
    found = c.importer.symbolic.constant(at) if found is None else found
    return None if found is None else int(c.number(at, "position"))


def position(
    c: Call, s: SequenceValue | Node, at: object, default: int, room: int
) -> tuple[SequenceValue | Node, int | Node | None]:
    """(the sequence, a position in it): both as known while importing, or both native."""
    if isinstance(s, SequenceValue):
        k = default if at is None else known_position(c, at)
        if k is not None:
            if not -len(s.items) <= k < len(s.items) + room:
                raise c.fail(f"position {k} is outside a sequence of {len(s.items)}")
            return s, k + len(s.items) if k < 0 else k
        s = native(s)
    return s, None if at is None else tensor(c, at)


# ---- sequences ----------------------------------------------------------------------------------


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
    s, k = position(c, sequence(c, s), at, 0, 0)
    return sq.element(s, k) if isinstance(s, Node) else s.items[k]


@converter("SequenceInsert", values=True)
def sequence_insert(c: Call, s: object, x: object, at: object = None) -> SequenceValue | Node:
    s, x = sequence(c, s), tensor(c, x)
    s, k = position(c, s, at, len(s.items) if isinstance(s, SequenceValue) else 0, 1)
    if isinstance(s, Node):
        return sq.inserted(s, x, k)
    return SequenceValue((*s.items[:k], x, *s.items[k:]), s.dtype)


@converter("SequenceErase", values=True)
def sequence_erase(c: Call, s: object, at: object = None) -> SequenceValue | Node:
    s = sequence(c, s)
    if isinstance(s, SequenceValue) and not s.items:
        raise c.fail("the sequence is empty")
    s, k = position(c, s, at, len(s.items) - 1 if isinstance(s, SequenceValue) else 0, 0)
    if isinstance(s, Node):
        return sq.erased(s, k)
    return SequenceValue((*s.items[:k], *s.items[k + 1 :]), s.dtype)


@converter("SequenceLength", values=True)
def sequence_length(c: Call, s: object) -> Node:
    s = sequence(c, s)
    return sq.length(s) if isinstance(s, Node) else constant(np.array(len(s.items)))


@converter("ConcatFromSequence", values=True)
def concat_from_sequence(c: Call, s: object, *, axis: int, new_axis: int = 0) -> Node:
    s = sequence(c, s)
    if isinstance(s, Node):
        return sq.concatenated(s, axis_of(c, axis, sq.last(s).rank + bool(new_axis)), new_axis)
    items = s.items
    if not items:
        raise c.fail("the sequence is empty")
    axis = axis_of(c, axis, items[0].rank + bool(new_axis))
    if new_axis:
        items = [ops.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in items]
    return items[0] if len(items) == 1 else ops.concat(*items, axis=axis)


@converter("SplitToSequence", values=True)
def split_to_sequence(
    c: Call, x: object, split: object = None, *, axis: int = 0, keepdims: int = 1
) -> SequenceValue | Node:
    x = tensor(c, x)
    axis = axis_of(c, axis, x.rank)
    extent, keep = x.shape[axis], split is not None or bool(keepdims)
    split = constant(np.array(1)) if split is None else tensor(c, split)
    stops: list[Dim] = []
    if split.rank == 0:
        step = known_position(c, split)
        if step is not None and step < 1:
            raise c.fail(f"pieces have a length of {step}")
        if step is None or not isinstance(extent, int) or extent > step * MAX_ITEMS:
            size = as_expr(c.dim(split, low=1))
            return sq.pieces(x, axis, split, as_dim((as_expr(extent) + size - 1) // size), keep)
        stops += [min(k + step, extent) for k in range(0, extent, step)]
    elif not isinstance(split.shape[0], int) or split.shape[0] > MAX_ITEMS:
        return sq.pieces(x, axis, split, split.shape[0], keep)
    else:
        total = as_expr(0)
        for d in c.dims(split):
            total = total + as_expr(d)
            stops.append(as_dim(total))
    pieces, start = [], 0
    for stop in stops:
        pieces.append(piece(x, axis, start, stop))
        start = stop
    if not keep:
        pieces = [squeezed(c, p, [axis]) for p in pieces]
    return SequenceValue(tuple(pieces), x.dtype)


def piece(x: Node, axis: int, start: Dim, stop: Dim) -> Node:
    starts, stops = [0] * x.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return ops.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)


@converter("SequenceMap", values=True)
def sequence_map(c: Call, s: object, *more: object, body: Body) -> list:
    values = [sequence(c, s), *(v if is_tensor(v) else sequence(c, v) for v in more)]
    if any(isinstance(v, Node) and not is_tensor(v) for v in values):
        return mapped(c, [native(v) for v in values], body)
    first = values[0]
    columns: list[list[Node]] = [[] for _ in body.outputs]
    for k in range(len(first.items)):
        args = [v.items[k] if isinstance(v, SequenceValue) else v for v in values]
        for column, value in zip(columns, c.importer.inline(body, c.scope, args)):
            column.append(value)
    return [SequenceValue(tuple(col), col[0].dtype if col else f32) for col in columns]


def mapped(c: Call, values: list[Node], body: Body) -> list:
    """The body over the elements of native sequences, beside tensors: one loop, which takes the
    elements from the ends of reversed sequences."""
    length = sq.bound(sq.length(values[0]), "length")
    state, fixed = [], []
    for v in values:
        if is_tensor(v):
            fixed.append(v)
            continue
        own = length if v is values[0] else sq.bound(sq.length(v), "length")
        steps = as_dim(own + as_expr(equal_sizes(own, length, "the length of a sequence")))
        state.append(sq.move(v, sq.nothing(kind_of(v)), steps)[1])
    ins = [param(f"sequence_{k}", s.type) for k, s in enumerate(state)]
    scope, rows = Scope(parent=c.scope), iter(ins)
    args = [scope.take(v) if is_tensor(v) else sq.last(next(rows)) for v in values]
    results = c.importer.inline(body, scope, args)
    if any(r is POISON for r in results):
        return [POISON] * c.outputs
    columns = [SequenceKind(r.dtype, (pattern_of(r.shape),)) for r in results]
    outs = [param(f"mapped_{k}", kind.type) for k, kind in enumerate(columns)]
    grown = [sq.append(s, r) for s, r in zip(outs, results)]
    g = closed_graph("map", [*ins, *outs, *scope.captures.values()], [*map(sq.rest, ins), *grown])
    start = [*state, *map(sq.nothing, columns)]
    found = ops.scan([*start, *scope.captures], g, carried=len(start), length=length)
    return list(ops.items(found))[len(state) :]


# ---- optionals ----------------------------------------------------------------------------------


@converter("Optional", values=True)
def optional(c: Call, x: object = None, *, type: TypeOf | None = None) -> OptionalValue:
    return OptionalValue(x)


@converter("OptionalHasElement", values=True)
def optional_has_element(c: Call, x: object = None) -> Node:
    if isinstance(x, Node) and isinstance(kind_of(x), OptionalKind):
        return sq.is_present(x)
    has = x is not None and not (isinstance(x, OptionalValue) and x.item is None)
    return constant(np.array(has))


@converter("OptionalGetElement", values=True)
def optional_get_element(c: Call, x: object) -> object:
    if isinstance(x, Node) and isinstance(kind_of(x), OptionalKind):
        return sq.content(x)
    if isinstance(x, OptionalValue):
        if x.item is None:
            raise c.fail("the optional is empty")
        return x.item
    return x
