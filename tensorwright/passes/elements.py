"""The elements of an integer or bool tensor as index expressions of their position.

    less_equal(iota(shape=(n + 1,)), size(dims=(n,)))   at position (i,)   ->   i <= n, that is True

An operator's loop nest says how an element is computed; what it loads is followed through the graph
down to positions, sizes and constants. None where a tensor holds data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorwright.ir.dtype import DType, boolean, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    all_of,
    any_of,
    as_expr,
    binary,
    bounds,
    compare,
    const,
    is_const,
    select,
    transform,
    var,
)  # fmt: skip
from tensorwright.ir.graph import CONST, PARAM, Node, array_of
from tensorwright.ir.loop import For, Store
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import Shape, TensorType

DEPTH = 24  # operators followed
LARGEST = 1 << 20  # elements of constants that are examined
EXACT = ("add", "sub", "mul", "min", "max")
NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")


def positions(shape: Shape) -> tuple[Expr, ...]:
    """A fresh variable for each dimension, in its range."""
    return tuple(const(0) if d == 1 else var(f"p{k}", d) for k, d in enumerate(shape))


def element(node: Node, at: Sequence[Expr], depth: int = DEPTH) -> Expr | None:
    """The element of `node` at a position, as an index or bool expression."""
    t = node.type
    if depth == 0 or not isinstance(t, TensorType) or t.dtype.is_float or node.op is PARAM:
        return None
    if node.op is CONST:
        return _of_constant(array_of(node), at)
    if node.op.name == "bind_size":
        return element(node.args[0], at, depth - 1)
    found = _definition(node)
    if found is None:
        return None
    stored, ins = found
    where = dict(zip(stored.indices, at))
    value = transform(stored.value, where.get)

    def load(e: Expr) -> Expr | None:
        indices = [_converted(i, load) for i in e.args]
        return None if None in indices else element(ins[e.value], indices, depth - 1)

    return _converted(value, load)


def _definition(node: Node) -> tuple[Store, dict[Buffer, Node]] | None:
    """The one store of an operator's loop nest, and what its buffers stand for."""
    if node.op.lower is None or any(not isinstance(a.type, TensorType) for a in node.args if a):
        return None
    if not _is_simple(node.op):
        return None
    out = Buffer("y", node.dtype, node.shape)
    ins = [a and Buffer("x", a.dtype, a.shape) for a in node.args]
    body = node.op.lower(out, *ins, **node.attrs)
    while isinstance(body, For) and is_const(body.begin, 0):
        body = body.body
    if not isinstance(body, Store) or not all(i.op == "sym" for i in body.indices):
        return None
    return body, {b: a for b, a in zip(ins, node.args) if b is not None}


def _is_simple(op: OpDef) -> bool:
    """Operators with large nests that never are one store are not worth asking."""
    return op.name not in ("conv_general", "dot_general", "reduce_window", "top_k", "argsort")


# ---- scalars -----------------------------------------------------------------------------------


def _converted(e: Expr, load) -> Expr | None:
    """A scalar of a loop nest as an index (or bool) expression; None if it may wrap around."""
    if e.dtype.is_float:
        return None
    if e.op == "const":
        return e if e.dtype in (boolean, index) else const(int(e.value))
    if e.op == "sym":
        return e
    if e.op == "load":
        return load(e)
    args = [_converted(a, load) for a in e.args]
    if None in args:
        return None
    return _fitting(_operation(e, args), e.dtype)


def _fitting(e: Expr | None, d: DType) -> Expr | None:
    """`e` if its value surely is one of type d; sizes and positions are far below i64's limits."""
    if e is None or d in (boolean, index) or d.name == "i64":
        return e
    low, high = bounds(e)
    fits = low is not None and high is not None and low >= d.min and high <= d.max
    return e if fits else None


def _operation(e: Expr, args: list[Expr]) -> Expr | None:
    op = e.op
    if op == "cast":
        return _cast(args[0], e.dtype)
    if op == "select":
        return select(*args)
    if op in COMPARED:
        same = args[0].dtype is index and args[1].dtype is index
        return compare(op, *args) if same else None
    if e.dtype is boolean:
        return _logic(op, args)
    if op in EXACT:
        return binary(op, *args)
    if op == "neg":
        return args[0] * -1
    if op in ("floordiv", "mod") and is_const(args[1]) and args[1].value > 0:
        return binary(op, *args)
    return None


def _logic(op: str, args: list[Expr]) -> Expr | None:
    if op == "and":
        return all_of(args)
    if op == "or":
        return any_of(args)
    if op == "not" and is_const(args[0]):
        return const(not args[0].value, boolean)
    if op == "not" and args[0].op in NEGATED:
        return compare(NEGATED[args[0].op], *args[0].args)
    return None


def _cast(e: Expr, to: DType) -> Expr | None:
    if e.dtype is boolean:
        return e if to is boolean else select(e, const(1), const(0))
    return compare("ne", e, const(0)) if to is boolean else e


# ---- constants ---------------------------------------------------------------------------------


def _of_constant(a: np.ndarray, at: Sequence[Expr]) -> Expr | None:
    """A constant that is a linear function of the position."""
    if not 0 < a.size <= LARGEST:
        return None
    known = [is_const(i) for i in at]
    a = a[tuple(i.value if k else np.s_[:] for i, k in zip(at, known))]
    at = [i for i, k in zip(at, known) if not k]
    if a.dtype == bool:
        same = a.all() or not a.any()
        return const(bool(a.flat[0]), boolean) if same else None
    wide = a.astype(np.int64)
    origin = wide[(0,) * a.ndim]
    fitted, result = np.full(a.shape, origin), const(int(origin))
    for k, (d, i) in enumerate(zip(a.shape, at)):
        if d == 1:
            continue
        step = int(np.take(wide, 1, k).flat[0] - origin)
        fitted = fitted + np.expand_dims(np.arange(d) * step, tuple(range(1, a.ndim - k)))
        result = result + as_expr(i) * step
    return result if np.array_equal(fitted, wide) else None


def is_always(node: Node, value: bool) -> bool:
    """Whether all elements of a bool tensor are known to be `value`."""
    return element(node, positions(node.shape)) is const(value, boolean)


def scalar_value(node: Node, k: int = 0) -> Expr | None:
    """The value of a tensor of rank 0, or of element k of one of rank 1, as an index expression."""
    e = element(node, (const(k),)[: node.rank])
    return e if e is not None and e.dtype is index else None
