"""Types of graph values: tensors with symbolic shapes, tuples of them, functions and data types.

    f32[n, 4*n, 64]   (f32[n], i64[n])   ()   function((f32[8],), f32[8])   Tree

A dimension is a plain int where it is constant, else an index `Expr`; equal shapes compare equal
because expressions are interned in canonical form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tensorwright.ir import simplify  # noqa: F401  (fills the index rules that shapes rely on)
from tensorwright.ir.dtype import DType, dtype
from tensorwright.ir.expr import Expr, as_dim, as_expr, const, order_of, symbols_of, text_of

Dim = int | Expr
Shape = tuple[Dim, ...]
BRIEF = 300  # characters of a size in a message


@dataclass(frozen=True)
class TensorType:
    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(dim_text(d) for d in self.shape) or '()'}]"


@dataclass(frozen=True)
class TupleType:
    items: tuple[Type, ...]

    def __repr__(self) -> str:
        inner = ", ".join(map(repr, self.items))
        return f"({inner}{',' if len(self.items) == 1 else ''})"


@dataclass(frozen=True)
class FunctionType:
    params: tuple[Type, ...]
    result: Type

    dtype = property(lambda self: _word, doc="How a reference to a function is stored.")
    shape = property(lambda self: ())
    rank = property(lambda self: 0)
    size = property(lambda self: 1)
    is_static = property(lambda self: True)

    def __repr__(self) -> str:
        return f"function({TupleType(self.params)}, {self.result})"


@dataclass(frozen=True)
class Case:
    """One alternative of a data type. A dimension of a field is a number, or a symbol: each value
    has its own size there, the same wherever its case mentions the symbol."""

    name: str
    fields: tuple[tuple[str, Type], ...]

    @property
    def types(self) -> tuple[Type, ...]:
        return tuple(t for _, t in self.fields)


class DataType:
    """A sum type, `Tree = Leaf(x: f32[8]) | Node(left: Tree, right: Tree)`. Its cases are given
    once, after it is made, so that they may mention it. Types of one name and the same cases are
    equal. In memory a value is a reference, one word. origin: what a front end made it from."""

    __slots__ = ("cases", "name", "origin")

    def __init__(self, name: str, cases: Iterable[Case] = (), origin=None) -> None:
        self.name, self.cases, self.origin = name, tuple(cases), origin

    def define(self, cases: Iterable[Case]) -> DataType:
        self.cases = tuple(cases)
        return self

    def case(self, name: str) -> Case | None:
        return next((c for c in self.cases if c.name == name), None)

    def tag(self, name: str) -> int:
        return [c.name for c in self.cases].index(name)

    def _key(self) -> tuple:
        """What makes types equal; symbols count by their order in their case."""
        return tuple((c.name, tuple(n for n, _ in c.fields), _case_key(c)) for c in self.cases)

    def __eq__(self, other) -> bool:
        if self is other:
            return True
        return isinstance(other, DataType) and self.name == other.name and (
            self._key() == other._key())  # fmt: skip

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name

    dtype = property(lambda self: _word, doc="How a reference is stored.")
    shape = property(lambda self: ())
    rank = property(lambda self: 0)
    size = property(lambda self: 1)
    is_static = property(lambda self: True)


def _case_key(c: Case) -> tuple:
    order: dict[Dim, int] = {}
    row = []
    for t in c.types:
        if isinstance(t, TensorType):
            dims = tuple(d if isinstance(d, int) else f"s{order.setdefault(d, len(order))}"
                         for d in t.shape)  # fmt: skip
            row.append((t.dtype.name, dims))
        else:
            row.append(repr(t))
    return tuple(row)


_word = dtype("i64")
Type = TensorType | TupleType | FunctionType | DataType
TYPES = (TensorType, TupleType, FunctionType, DataType)


def data_types(*types: Type) -> list[DataType]:
    """The data types that types mention, and those in their fields, in order of appearance."""
    found: dict[DataType, None] = {}
    todo = list(reversed(types))
    while todo:
        t = todo.pop()
        if isinstance(t, TupleType):
            todo += reversed(t.items)
        elif isinstance(t, FunctionType):
            todo += (t.result, *reversed(t.params))
        elif isinstance(t, DataType) and t not in found:
            found[t] = None
            todo += reversed([f for c in t.cases for f in c.types])
    return list(found)


def tensor(dtype_, *shape) -> TensorType:
    """The type of a tensor; dimensions may be ints or index expressions."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = shape[0]
    return TensorType(dtype(dtype_), shape_of(shape))


def shape_of(dims: Iterable) -> Shape:
    """Dimensions in their canonical representation (ints where constant)."""
    return tuple(as_dim(d) for d in dims)


def product(dims: Iterable) -> Dim:
    """The product of dimensions."""
    dims = list(dims)
    if all(isinstance(d, int) for d in dims):
        return math.prod(dims)
    result = const(1)
    for d in dims:
        result = result * as_expr(d)
    return as_dim(result)


def dim_text(d: Dim) -> str:
    return text_of(d) if isinstance(d, Expr) else str(d)


def brief_text(d: Dim) -> str:
    """A dimension in a message: dots for the rest of a text that nobody reads to its end."""
    text = order_of(d) if isinstance(d, Expr) else str(d)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}..."


def leaves(t: Type) -> tuple[Type, ...]:
    """The types inside a tuple type, flattened; (t,) for anything else."""
    if isinstance(t, TupleType):
        return tuple(leaf for item in t.items for leaf in leaves(item))
    return (t,)


def type_symbols(*types: Type) -> set:
    """The symbols in the shapes of the types."""
    found = set()
    for t in types:
        for leaf in leaves(t):
            if isinstance(leaf, TensorType):
                found |= symbols_of(*(d for d in leaf.shape if isinstance(d, Expr)))
    return found
