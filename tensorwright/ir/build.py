"""The one constructor of operator nodes: fills defaults, lifts numbers, infers and checks types.

    build(matmul, (x, w), {})  ->  Node(matmul, (x, w), {}, f32[n, 32])

Everything that makes a node goes through here, so a node that exists is well typed. The current
`location` (a front end sets it for each model node) is recorded in what is built under it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir import op as op_file
from tensorwright.ir.dtype import DType, dtype
from tensorwright.ir.expr import Expr, as_dim
from tensorwright.ir.graph import Graph, Node, bound_symbols, constant
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import DataType, FunctionType, TensorType, TupleType

_LOCATION: ContextVar[tuple[str, ...]] = ContextVar("location", default=())


@contextmanager
def location(*where: str) -> Iterator[None]:
    """Nodes built inside carry `where` as the place in the user's model they come from."""
    token = _LOCATION.set(where)
    try:
        yield
    finally:
        _LOCATION.reset(token)


def current_location() -> tuple[str, ...]:
    return _LOCATION.get()


def build(op: OpDef, args: tuple, attrs: dict) -> Node:
    """The node `op(*args, **attrs)`. Numbers and arrays among `args` become constants of the first
    tensor operand's dtype. Raises CompileError, with the location, where the type rule does."""
    unknown = set(attrs) - set(op.defaults) - _required(op)
    if op.infer.__code__.co_flags & inspect.CO_VARKEYWORDS:  # bodies by name: the arms of a match
        unknown = {k for k in unknown if not isinstance(attrs[k], Graph)}
    if unknown:
        raise TypeError(f"{op.name}() has no attribute {', '.join(sorted(unknown))}")
    args = _operands(op, args)
    check_tensors(op, args)
    full = {**op.defaults, **{k: _normalize(v) for k, v in attrs.items()}}
    try:
        type_ = op.infer(*(None if a is None else a.type for a in args), **full)
    except CompileError as e:
        raise e.located(_LOCATION.get(), operands_text(op, args)) from None
    node = Node(op, args, full, type_, "", _LOCATION.get())
    for s in bound_symbols(node):
        s.origin = node
    return node


def check_tensors(op: OpDef, args: tuple) -> None:
    """Operators that compute take tensors, not references to values of data types."""
    if op.lower is None and op.expand is None:
        return
    for name, a in zip((*op.params, *("" for _ in args)), args):
        if a is not None and isinstance(a.type, (DataType, FunctionType)):
            raise CompileError(
                f"{op.name}: the operand {name} is a {a.type}, a tensor is expected",
                help="take it apart with `match`" if isinstance(a.type, DataType) else "call it",
            ).located(_LOCATION.get(), operands_text(op, args))


def _required(op: OpDef) -> set[str]:
    code = op.infer.__code__
    first = code.co_argcount
    return set(code.co_varnames[first : first + code.co_kwonlyargcount])


def _operands(op: OpDef, args: tuple) -> tuple:
    like: DType | None = next((a.type.dtype for a in args if is_tensor(a)), None)
    out = []
    for a in args:
        if a is None or isinstance(a, Node):
            out.append(a)
        elif isinstance(a, np.ndarray):
            out.append(constant(a))
        elif isinstance(a, (bool, int, float, np.generic)):
            if like is None:
                raise TypeError(f"{op.name}() needs a tensor operand to give {a!r} a type")
            out.append(constant(np.asarray(a, dtype=like.numpy)))
        else:
            raise TypeError(f"{op.name}() cannot take {type(a).__name__} as an operand")
    missing = len(op.params) - op.is_variadic - len(out)
    if missing < 0 and not op.is_variadic:
        raise TypeError(f"{op.name}() takes {len(op.params)} operands, {len(out)} were given")
    if missing > 0 and all(p.endswith("?") for p in op.params[len(out) : len(out) + missing]):
        out += [None] * missing
    elif missing > 0:
        raise TypeError(f"{op.name}() needs the operand {op.params[len(out)]}")
    return tuple(out)


def is_tensor(a) -> bool:
    return isinstance(a, Node) and isinstance(a.type, TensorType)


def _normalize(value):
    """Attributes in one representation: tuples, plain ints, dtypes."""
    if isinstance(value, (list, tuple)):
        return tuple(_normalize(v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Expr):
        return as_dim(value)
    return value


def operands_text(op: OpDef, args: tuple) -> str:
    """`x: f32[n, 16]   w: f32[8, 16]`, for messages."""
    names = [*op.params[: len(op.params) - op.is_variadic]]
    names += [f"{op.params[-1][1:]}{k}" for k in range(len(args) - len(names))] if args else []
    return "   ".join(f"{n.rstrip('?')}: {a.type}" for n, a in zip(names, args) if a is not None)


def body_types(g: Graph) -> TensorType | TupleType:
    """The type of a call of `g`: its only result's type or a tuple."""
    types = g.result_types
    return types[0] if len(types) == 1 else TupleType(types)


op_file.BUILD = build

__all__ = ["body_types", "build", "constant", "current_location", "dtype", "location"]
