"""ONNX sequences and optionals as values of data types, where importing does not resolve them.

    seq(tensor(float))[n, 3]   ->   NoElement | Element2(count: i64, last: f32[n, 3], rest)
    optional(tensor(float))[4] ->   Absent | Present1(value: f32[4])

A sequence is its last element and the sequence before it, so that appending, which loops do, makes
one cell. Elements may differ in size and even in rank: a case for each rank. Everything here is
loops over such values; positions and sizes are checked where the program binds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.base.value import ABSENT, ELEMENT, NO_ELEMENT, PRESENT
from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.data import own_types
from tensorwright.frontend.onnx_scope import closed_graph
from tensorwright.frontend.size_checks import Check, equal_sizes
from tensorwright.ir.dtype import DType, i64
from tensorwright.ir.expr import Expr, compare, var
from tensorwright.ir.graph import Node, constant, param
from tensorwright.ir.type import Case, DataType, Dim, TensorType
from tensorwright.ops.data import construct, match_on

MAX_RANK = 8  # of elements whose rank nothing tells

Pattern = tuple[int | None, ...]  # sizes of an element; None: each has its own
_KINDS: dict[str, SequenceKind | OptionalKind] = {}  # by the names of their types


@dataclass(frozen=True)
class SequenceKind:
    """What the elements of a sequence may be: a pattern for each rank that one may have."""

    dtype: DType
    patterns: tuple[Pattern, ...] = ()

    def join(self, other: SequenceKind) -> SequenceKind:
        return SequenceKind(_same(self.dtype, other.dtype), _joined(self.patterns, other.patterns))

    @property
    def type(self) -> DataType:
        return _declared(self, _name("Sequence", self))

    def cases(self, t: DataType) -> list[Case]:
        rows = [
            Case(f"{ELEMENT}{len(p)}", (
                ("count", TensorType(i64, ())), ("last", _tensor(self.dtype, p)), ("rest", t)))
            for p in self.patterns
        ]  # fmt: skip
        return [Case(NO_ELEMENT, ()), *rows]


@dataclass(frozen=True)
class OptionalKind:
    """What an optional may hold: a tensor of one of the patterns, or a sequence; neither while
    nothing is known of it."""

    dtype: DType | None = None
    patterns: tuple[Pattern, ...] = ()
    sequence: SequenceKind | None = None

    def join(self, other: OptionalKind) -> OptionalKind:
        if self.sequence is None or other.sequence is None:
            sequence = self.sequence or other.sequence
        else:
            sequence = self.sequence.join(other.sequence)
        element = _same(self.dtype or other.dtype, other.dtype or self.dtype)
        return OptionalKind(element, _joined(self.patterns, other.patterns), sequence)

    @property
    def type(self) -> DataType:
        inner = "" if self.sequence is None else f"_{self.sequence.type.name}"
        return _declared(self, _name("Optional", self) + inner)

    def cases(self, t: DataType) -> list[Case]:
        rows = [Case(ABSENT, ())]
        if self.sequence is not None:
            rows.append(Case(PRESENT, (("value", self.sequence.type),)))
        return rows + [Case(f"{PRESENT}{len(p)}", (("value", _tensor(self.dtype, p)),))
                       for p in self.patterns]  # fmt: skip


Kind = SequenceKind | OptionalKind


def _same(a: DType | None, b: DType | None) -> DType | None:
    if a is not b:
        raise FrontendError(f"a sequence or optional holds both {a} and {b}")
    return a


def _joined(a: tuple[Pattern, ...], b: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    found = {len(p): p for p in a}
    for p in b:
        before = found.get(len(p), p)
        found[len(p)] = tuple(m if m == n else None for m, n in zip(before, p))
    return tuple(found[r] for r in sorted(found))


def _name(what: str, kind: Kind) -> str:
    """`Sequence_f32_nx3`, `Sequence_f32_rank1to8`: a type's name, another for each kind."""
    dims = ["x".join("n" if d is None else str(d) for d in p) or "s" for p in kind.patterns]
    if len(dims) > 2:  # of many ranks, usually all that are not excluded
        low, high = len(kind.patterns[0]), len(kind.patterns[-1])
        if kind.patterns == any_patterns()[low : high + 1]:
            dims = ["any"] if (low, high) == (0, MAX_RANK) else [f"rank{low}to{high}"]
    return "_".join([what, *([str(kind.dtype)] if kind.dtype is not None else []), *dims])


def _declared(kind: Kind, name: str) -> DataType:
    _KINDS[name] = kind
    t = DataType(name)
    return t.define(kind.cases(t))


def _tensor(dtype: DType, pattern: Pattern) -> TensorType:
    return TensorType(dtype, tuple(var(f"d{k}", min=0) if d is None else d
                                   for k, d in enumerate(pattern)))  # fmt: skip


def pattern_of(shape: Sequence[Dim]) -> Pattern:
    return tuple(d if isinstance(d, int) else None for d in shape)


def kind_of(x: Node) -> Kind | None:
    """The kind of a node that is a sequence or an optional; None for tensors."""
    return _KINDS.get(x.type.name) if isinstance(x.type, DataType) else None


def any_patterns() -> tuple[Pattern, ...]:
    """The patterns of a tensor of which nothing is declared."""
    return tuple((None,) * rank for rank in range(MAX_RANK + 1))


# ---- small graphs -------------------------------------------------------------------------------


def choose(x: Node, operands: Sequence[Node], arm: Callable) -> tuple[Node, ...]:
    """The results of `arm(case, fields, operands)` for the case of a value, as nodes."""
    arms = {}
    for case in x.type.cases:
        fields = [param(name, t) for (name, _), t in zip(case.fields, own_types(case))]
        captured = [param(f"given_{k}", o.type) for k, o in enumerate(operands)]
        results = arm(case, fields, captured)
        arms[case.name] = closed_graph(case.name.lower(), [*fields, *captured], list(results))
    return ops.items(match_on(x, operands, arms))


def repeat(steps: Dim, state: Sequence[Node], step: Callable, extra=()) -> tuple[Node, ...]:
    """The state after so many steps; `step(state, extra)` gives the next."""
    params = [param(f"state_{k}", s.type) for k, s in enumerate(state)]
    given = [param(f"given_{k}", s.type) for k, s in enumerate(extra)]
    body = closed_graph("step", [*params, *given], list(step(params, given)))
    return ops.items(ops.scan([*state, *extra], body, carried=len(state), length=steps))


def scalar(d: Dim) -> Node:
    return ops.reshape(ops.size(dims=(d,)), shape=())


def bound(x: Node, name: str, low: int = 0) -> Expr:
    """The value of a scalar as a size, which the program checks to be at least `low`."""
    size = var(name, min=low)
    ops.bind_size(x, symbols=(size,))
    return size


# ---- sequences ----------------------------------------------------------------------------------


def nothing(kind: SequenceKind) -> Node:
    return construct(data=kind.type, case=NO_ELEMENT)


def append(s: Node, x: Node) -> Node:
    """The sequence with one more element at its end, of one of the patterns of its kind."""
    return construct(ops.add(length(s), 1), x, s, data=s.type, case=f"{ELEMENT}{x.rank}")


def length(s: Node) -> Node:
    """The number of elements, i64[()]."""
    return choose(s, (), lambda case, fields, _: fields[:1] or [zero()])[0]


def rest(s: Node) -> Node:
    """The sequence without its last element; an empty one is itself."""
    empty = nothing(kind_of(s))
    return choose(s, (), lambda case, fields, _: fields[2:] if fields else [empty])[0]


def last(s: Node) -> Node:
    """The last element of a sequence that is known to have one."""
    kind = kind_of(s)
    if len(kind.patterns) != 1:
        ranks = " or ".join(str(len(p)) for p in kind.patterns) or "unknown"
        raise FrontendError(
            f"the rank of the elements is {ranks}; it has to be known here",
            help='say it of the input, shapes={"x": "n, 4"} for elements of n times 4',
        )
    (pattern,) = kind.patterns
    none = ops.full(shape=tuple(0 if d is None else d for d in pattern), value=0, dtype=kind.dtype)
    return choose(s, (), lambda case, fields, _: fields[1:2] if fields else [none])[0]


def move(s: Node, to: Node, steps: Dim) -> tuple[Node, Node]:
    """Both sequences after so many elements have moved, last first, from one end to the other."""

    def step(state, _):
        return choose(state[0], state[1:], arm)

    def arm(case, fields, operands):
        (out,) = operands
        return (fields[2], append(out, fields[1])) if fields else (nothing(kind_of(s)), out)

    return repeat(steps, (s, to), step)


def converted(s: Node, kind: SequenceKind) -> Node:
    """The same elements in a sequence of a wider kind."""
    if kind_of(s) == kind:
        return s
    n = bound(length(s), "length")
    _, back = move(s, nothing(kind), n)
    return move(back, nothing(kind), n)[1]


def reached(s: Node, at: Node | None, room: int) -> tuple[Node, Node, Expr]:
    """(the sequence up to a position, what was behind it in reverse, how many that are). room: 1
    for positions between elements, at which something may be inserted. at: None means the end."""
    n = length(s)
    if at is None:
        at = ops.sub(n, 1 - room)
    at = ops.cast(at if at.rank == 0 else ops.reshape(at, shape=()), dtype=i64)
    before = ops.select(ops.less(at, 0), ops.add(at, n), at)
    after = ops.sub(ops.sub(n, 1 - room), before)
    told = [ops.reshape(v, shape=(1,)) for v in (at, n, before, after)]
    position, size = var("position", min=None), var("length")
    behind = var("behind", min=0)
    says = "there is no position {0} in a sequence of {1}"
    inside = compare("le", -size, position), compare("lt", position, size + room)
    ops.bind_size(
        ops.concat(*told, axis=0), symbols=(position, size, var("before", min=0), behind),
        checks=tuple(Check(holds, says, (position, size)) for holds in inside),
    )  # fmt: skip
    front, back = move(s, nothing(kind_of(s)), behind)
    return front, back, behind


def element(s: Node, at: Node) -> Node:
    front, _, _ = reached(s, at, 0)
    return last(front)


def inserted(s: Node, x: Node, at: Node | None) -> Node:
    kind = kind_of(s).join(SequenceKind(x.dtype, (pattern_of(x.shape),)))
    s = converted(s, kind)
    if at is None:
        return append(s, x)
    front, back, behind = reached(s, at, 1)
    return move(back, append(front, x), behind)[1]


def erased(s: Node, at: Node | None) -> Node:
    front, back, behind = reached(s, at, 0)
    return move(back, rest(front), behind)[1]


def concatenated(s: Node, axis: int, new_axis: bool) -> Node:
    """The elements, which agree in all other sizes, one behind the other (or on an axis of their
    own, at which they all have one position)."""
    n = bound(length(s), "length", low=1)
    first = last(s)

    def shaped(x: Node) -> Node:
        return ops.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) if new_axis else x

    def count(state, _):
        x = shaped(last(state[0]))
        return rest(state[0]), ops.add(state[1], scalar(x.shape[axis]))

    total = n if new_axis else bound(repeat(n, (s, zero()), count)[1], "total")
    whole = shaped(first)
    shape = tuple(total if k == axis else d for k, d in enumerate(whole.shape))

    def step(state, given):
        x = shaped(last(state[0]))
        stop = ops.sub(state[1], scalar(x.shape[axis]))
        starts = [
            scalar(equal_sizes(x.shape[k], d, f"dimension {k} of an element"))
            for k, d in enumerate(shape)
        ]
        starts[axis] = stop
        at = ops.concat(*(ops.reshape(v, shape=(1,)) for v in starts), axis=0)
        return rest(state[0]), stop, ops.dynamic_update_slice(state[2], x, at)

    empty = ops.full(shape=shape, value=0, dtype=whole.dtype)
    return repeat(n, (s, scalar(total), empty), step)[2]


def pieces(x: Node, axis: int, split: Node | None, count: Dim, keep: bool) -> Node:
    """x cut into `count` pieces along an axis: of `split` positions, or of split[k] each."""
    extent = x.shape[axis]
    others = pattern_of([d for a, d in enumerate(x.shape) if a != axis])
    pattern = (*others[:axis], None, *others[axis:]) if keep else others
    kind = SequenceKind(x.dtype, (pattern,))
    start = zero()
    if split.rank:
        total = bound(ops.cast(ops.reduce_sum(split, axes=(0,)), dtype=i64), "total")
        start = scalar(equal_sizes(total, extent, f"the sum of the pieces of dimension {axis}"))

    def step(state, operands):
        s, start, k = state
        x, split = operands
        if split.rank:
            size = ops.gather(split, k, axis=0)
        else:
            size = ops.minimum(split, ops.sub(scalar(extent), start))
        size = ops.cast(size, dtype=i64)
        if keep:
            sizes = tuple(bound(size, "piece") if a == axis else d for a, d in enumerate(x.shape))
            starts = [ops.reshape(start if a == axis else zero(), shape=(1,))
                      for a in range(x.rank)]  # fmt: skip
            piece = ops.dynamic_slice(x, ops.concat(*starts, axis=0), sizes=sizes)
        else:
            piece = ops.gather(x, start, axis=axis)
        return append(s, piece), ops.add(start, size), ops.add(k, 1)

    return repeat(count, (nothing(kind), start, zero()), step, (x, split))[0]


def zero() -> Node:
    return constant(np.array(0))


# ---- optionals ----------------------------------------------------------------------------------


def absent(kind: OptionalKind) -> Node:
    return construct(data=kind.type, case=ABSENT)


def present(kind: OptionalKind, x: Node) -> Node:
    """An optional that holds a tensor, or a sequence."""
    if kind_of(x) is not None:
        return construct(converted(x, kind.sequence), data=kind.type, case=PRESENT)
    return construct(x, data=kind.type, case=f"{PRESENT}{x.rank}")


def widened(x: Node, kind: OptionalKind) -> Node:
    """The same optional as one of a wider kind."""
    if kind_of(x) == kind:
        return x

    def arm(case, fields, _):
        return [present(kind, fields[0]) if fields else absent(kind)]

    return choose(x, (), arm)[0]


def is_present(x: Node) -> Node:
    """Whether the optional holds something, bool[()]."""
    return choose(x, (), lambda case, fields, _: [constant(np.array(bool(fields)))])[0]


def content(x: Node) -> Node:
    """What an optional holds; the program checks that it holds something."""
    kind = kind_of(x)
    if (kind.sequence is not None) + len(kind.patterns) != 1:
        raise FrontendError("what the optional holds is not known",
                            help="say its rank, as in shapes={\"x\": \"n, 4\"}")  # fmt: skip

    def arm(case, fields, given):
        if fields:
            return fields
        there = bound(given[0], "elements_of_optional", low=1)
        if kind.sequence is not None:
            return [move(nothing(kind.sequence), nothing(kind.sequence), there)[1]]
        shape = tuple(0 if d is None else d for d in kind.patterns[0])
        return [ops.full(shape=shape, value=there, dtype=kind.dtype)]

    return choose(x, (ops.cast(is_present(x), dtype=i64),), arm)[0]
