"""What every row of the operator table is made with.

    relu = elementwise("relu", lambda x: maximum(x, 0), reference=lambda x: np.maximum(x, 0), ...)

`define` makes a row; `elementwise`, `broadcast_shapes`, `normalize_axes` and the nest builders keep
rows short. Attributes of an operator are the keyword-only parameters of its type rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir import build  # noqa: F401  (calling a row builds a node)
from tensorwright.ir.dtype import DType, boolean, f32
from tensorwright.ir.expr import Buffer, Expr, as_expr, bounds, cast, const, load, symbols_of
from tensorwright.ir.graph import Node, constant, param
from tensorwright.ir.loop import Alloc, Stmt, loops, seq, store
from tensorwright.ir.op import OpDef, attribute_defaults
from tensorwright.ir.type import Dim, Shape, TensorType, Type, dim_text

AXIS_NAMES = ("i", "j", "k", "l", "m", "n", "o", "p")


def define(name: str, params: str = "", *, infer: Callable, **columns) -> OpDef:
    """One row: `params` is "x, w" with `*xs` variadic last and `bias?` optional."""
    names = tuple(p.strip() for p in params.split(",") if p.strip())
    for column in ("torch", "samples"):
        if isinstance(columns.get(column), str):
            columns[column] = (columns[column],)
    return OpDef(name, names, infer, defaults=attribute_defaults(infer), **columns)


def composite(name: str, params: str, expand: Callable, check: Callable | None = None, **columns):
    """A row defined by `expand` alone: its type is that of its expansion. `check` has the operands'
    types and the attributes, and says in the row's own words what is wrong with them. Every
    attribute is a keyword-only parameter of `expand` with a default."""

    def infer(*types, **attrs) -> Type:
        if check is not None:
            check(*types, **attrs)
        nodes = (None if t is None else param(f"x{k}", t) for k, t in enumerate(types))
        return expand(*nodes, **attrs).type

    op = define(name, params, infer=infer, expand=expand, **columns)
    op.defaults.update(attribute_defaults(expand))
    return op


# ---- shapes ------------------------------------------------------------------------------------


def broadcast_dims(a: Dim, b: Dim) -> Dim | None:
    """The NumPy broadcast of two dimensions, None if they are not proved compatible."""
    if a == b or b == 1:
        return a
    return b if a == 1 else None


def told_apart(a: Dim, b: Dim) -> tuple[str, str]:
    """Two different dimensions as text; where they read alike, with what made their symbols."""
    texts = dim_text(a), dim_text(b)
    return texts if texts[0] != texts[1] else (f"{texts[0]}{makers(a)}", f"{texts[1]}{makers(b)}")


def makers(d: Dim) -> str:
    """Which values the symbols of a dimension are read from: " (count_nonzero of x)"."""
    found = []
    for s in symbols_of(as_expr(d)):
        if s.origin is not None and s.origin.args:
            read = s.origin.args[0]
            given = ", ".join(a.name or a.op.name for a in read.args if a is not None)
            found.append(f"{read.op.name} of {given}" if given else read.name or read.op.name)
    return f" ({', '.join(found)})" if found else ""


def broadcast_shapes(op: str, *shapes: Shape) -> Shape:
    """The NumPy broadcast of shapes. Two different symbolic dimensions do not broadcast: which of
    them is 1 would only be known at run time."""
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = [1] * rank
    for k, shape in enumerate(shapes):
        for axis, d in enumerate(shape, rank - len(shape)):
            both = broadcast_dims(result[axis], d)
            if both is None:
                one, other = told_apart(result[axis], d)
                raise CompileError(
                    f"{op}: shapes do not broadcast: dimension {axis - rank} is "
                    f"{one} and {other} (operand {k + 1})",
                    help="make the sizes equal or one of them 1; give two symbolic dimensions "
                    "that are always equal one name",
                )
            result[axis] = both
    return tuple(result)


def broadcasts_to(shape: Shape, target: Shape) -> bool:
    """Whether NumPy broadcasting of `shape` gives `target`."""
    tail = target[len(target) - len(shape) :]
    return len(shape) <= len(target) and all(broadcast_dims(a, b) == b for a, b in zip(shape, tail))


def normalize_axis(op: str, axis: int, rank: int) -> int:
    """`axis` in [0, rank), counted from the end if negative."""
    if not -rank <= axis < rank:
        raise CompileError(f"{op}: axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def normalize_axes(op: str, axes: Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted distinct axes; None means all."""
    if axes is None:
        return tuple(range(rank))
    result = [normalize_axis(op, a, rank) for a in axes]
    if len(set(result)) != len(result):
        raise CompileError(f"{op}: axes {tuple(axes)} repeat")
    return tuple(sorted(result))


def same_dtype(op: str, *types: TensorType | None) -> DType:
    """The one dtype of the operands."""
    present = [t for t in types if t is not None]
    for t in present[1:]:
        if t.dtype is not present[0].dtype:
            raise CompileError(
                f"{op}: operands have different types: {present[0].dtype} and {t.dtype}",
                help="cast one of them",
            )
    return present[0].dtype


def check_dtype(op: str, t: TensorType, allowed: Sequence[DType]) -> None:
    """CompileError unless the operand's element type is one of `allowed`."""
    if allowed and t.dtype not in allowed:
        names = ", ".join(d.name for d in allowed)
        raise CompileError(f"{op}: {t.dtype} is not supported", help=f"cast it to one of {names}")


def require(condition: bool, message: str, help: str = "") -> None:
    """CompileError(message) unless the condition holds."""
    if not condition:
        raise CompileError(message, help=help)


def scalar_like(x: Node, value) -> Node:
    """A constant of rank 0 and x's element type, for operands that no tensor gives a type."""
    return constant(np.asarray(value, dtype=x.dtype.numpy))


def known_positive(d: Dim) -> bool:
    low = bounds(as_expr(d))[0]
    return low is not None and low > 0


# ---- loop nests --------------------------------------------------------------------------------


def names(rank: int) -> list[str]:
    """Loop variable names for a nest of that depth."""
    return [AXIS_NAMES[k] if k < len(AXIS_NAMES) else f"i{k}" for k in range(rank)]


def compute(out: Buffer, f: Callable[..., Expr]) -> Stmt:
    """out[i, j, ...] = f(i, j, ...) over the whole of `out`."""
    return loops(names(out.rank), out.shape, lambda *i: store(out, i, f(*i)))


def reduction(
    out: Buffer, extents: Sequence[Dim], init, step: Callable[..., Expr], prefix: str = "r"
) -> Stmt:
    """out[i...] = init, then for each r in `extents`: out[i...] = step(out[i...], i, r)."""

    def nest(*i: Expr) -> Stmt:
        first = store(out, i, as_expr(init, out.dtype))
        inner = loops(
            [f"{prefix}{k}" for k in range(len(extents))],
            extents,
            lambda *r: store(out, i, step(out[i], i, r)),
        )
        return seq(first, inner)

    return loops(names(out.rank), out.shape, nest)


def accumulator(d: DType) -> DType:
    """The type in which sums of `d` are kept."""
    return f32 if d.is_float and d.bits < 32 else d


def accumulate(out: Buffer, i: tuple, init, extents, step: Callable, finish=None) -> Stmt:
    """out[i] = init; for r in extents: out[i] = step(out[i], r...). Where `out` is too narrow to
    accumulate in (or the total is to be finished), a local takes its place and is stored last."""
    wide = accumulator(out.dtype)
    direct = wide is out.dtype and finish is None
    acc, at = (out, i) if direct else (Buffer("acc", wide, (), "local"), ())
    prefixed = [f"r{k}" for k in range(len(extents))]
    update = loops(prefixed, extents, lambda *r: store(acc, at, step(acc[at], *r)))
    first = store(acc, at, as_expr(init, wide))
    if direct:
        return seq(first, update)
    value = acc[()] if finish is None else finish(acc[()])
    return seq(Alloc(acc), first, update, store(out, i, cast(value, out.dtype)))


def broadcast_load(b: Buffer, indices: Sequence[Expr]) -> Expr:
    """The element of `b` that NumPy broadcasting puts at `indices` of the result."""
    own = indices[len(indices) - b.rank :]
    return load(b, tuple(const(0) if d == 1 else i for d, i in zip(b.shape, own)))


# ---- families ----------------------------------------------------------------------------------


def elementwise(
    name: str,
    scalar: Callable[..., Expr],
    params: str = "x",
    result: DType | None = None,
    **columns,
) -> OpDef:
    """A row whose result at an index is `scalar` of the operands there, with NumPy broadcasting.

    `result` is the result's dtype (None: that of the operands, which must agree). Attributes, if
    any, are keyword-only parameters of `scalar`.
    """
    allowed = columns.get("dtypes", ())

    def infer(*types: TensorType, **attrs) -> TensorType:
        common = same_dtype(name, *types)
        check_dtype(name, types[0], allowed)
        shape = broadcast_shapes(name, *(t.shape for t in types))
        return TensorType(result or common, shape)

    def lower(out: Buffer, *ins: Buffer, **attrs) -> Stmt:
        return compute(out, lambda *i: scalar(*(broadcast_load(b, i) for b in ins), **attrs))

    op = define(name, params, infer=infer, lower=lower, **columns)
    op.defaults.update(attribute_defaults(scalar))
    return op


def predicate(name: str, scalar: Callable[..., Expr], params: str = "x", **columns) -> OpDef:
    """An elementwise row whose result is bool."""
    return elementwise(name, scalar, params, boolean, **columns)
