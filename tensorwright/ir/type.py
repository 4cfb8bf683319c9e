"""Types of graph values: tensors with symbolic shapes, tuples of them, and functions.

    f32[n, 4*n, 64]   (f32[n], i64[n])   ()

A dimension is a plain int where it is constant, else an index `Expr`; equal shapes compare equal
because expressions are interned in canonical form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tensorwright.ir import simplify  # noqa: F401  (fills the index rules that shapes rely on)
from tensorwright.ir.dtype import DType, dtype
from tensorwright.ir.expr import Expr, as_dim, as_expr, const, symbols_of, text_of

Dim = int | Expr
Shape = tuple[Dim, ...]


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

    def __repr__(self) -> str:
        return f"function({TupleType(self.params)}, {self.result})"


Type = TensorType | TupleType | FunctionType


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
