"""Integer tensors that compute shapes, mirrored as arrays of ints and index expressions.

    Concat(Shape(x)[0:1], [-1])  is mirrored as  [n, -1], so that Reshape gets symbolic dimensions

`RULES` mirror the operators that exporters compute shapes with. A tensor whose mirror is complete
is rebuilt as one `size` node, so the arithmetic behind it disappears. Where nothing mirrors a
tensor, its elements are read by `bind_size` as far up the computation as they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend import onnx_rows as ops
from tensorwright.ir.dtype import DType, boolean, i64
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    as_dim,
    as_expr,
    binary,
    bounds,
    compare,
    maximum,
    minimum,
    mod,
    select,
    sym,
)  # fmt: skip
from tensorwright.ir.expr import (
    cast as cast_expr,
)
from tensorwright.ir.graph import Node, array_of, constant
from tensorwright.ir.type import Dim

MAX_MIRROR = 1024  # elements; larger integer tensors are data, not shapes
MAX_BOUND = 64  # elements read by one bind_size
INDEX_DTYPES = ("i64", "i32")

RULES: dict[str, Callable] = {}


def rule(*names: str):
    """Register the mirror of operators: (arrays of ints and Exprs, attributes) -> array or None."""

    def register(f):
        for name in names:
            RULES[name] = f
        return f

    return register


class Symbolic:
    """Mirrors of the nodes of one import."""

    def __init__(self):
        self.mirrors: dict[Node, np.ndarray] = {}
        self.recipes: dict[Node, tuple[Callable, tuple, dict]] = {}
        self.bound: dict[Node, np.ndarray] = {}
        self.names: dict[str, int] = {}

    def known(self, x: Node) -> np.ndarray | None:
        """The mirror of a node, if it has one."""
        found = self.mirrors.get(x)
        if found is None and x.dtype.kind in ("int", "uint", "bool"):
            array = array_of(x)
            if array is not None and array.size <= MAX_MIRROR:
                found = self.mirrors[x] = as_mirror(array)
        return found

    def constant(self, x: Node) -> np.ndarray | None:
        """The value of a mirrored node without symbols."""
        found = self.known(x)
        if found is None or any(isinstance(v, Expr) for v in found.flat):
            return None
        return np.array(found.tolist(), dtype=x.dtype.numpy).reshape(found.shape)

    def node(self, mirror: np.ndarray, dtype: DType | None = None) -> Node:
        """The node of a complete mirror: a constant, or the values of its expressions."""
        dtype = dtype or i64
        flat = [as_dim(v) for v in mirror.flat]
        if any(isinstance(v, Expr) for v in flat):
            x = ops.size(dims=tuple(flat))
            if mirror.ndim != 1:
                x = ops.reshape(x, shape=mirror.shape)
            if dtype is not i64:
                x = ops.cast(x, dtype=dtype)
        else:
            x = constant(np.array(flat, dtype=np.int64).astype(dtype.numpy).reshape(mirror.shape))
        self.mirrors[x] = _objects(flat, mirror.shape)
        return x

    def apply(self, op: str, args: Sequence[Node], attrs: dict, dtype_of: Callable) -> Node | None:
        """The result of a shape-computing operator on mirrored operands, else None."""
        f = RULES.get(op)
        if f is None or any(a is not None and not isinstance(a, Node) for a in args):
            return None
        mirrors = [None if a is None else self.known(a) for a in args]
        if any(m is None for m, a in zip(mirrors, args) if a is not None):
            return None
        result = f(mirrors, attrs)
        if result is None or result.size > MAX_MIRROR:
            return None
        dtype = dtype_of()
        if dtype.kind not in ("int", "uint") or any(
            isinstance(v, Expr) and v.dtype is boolean for v in result.flat
        ):
            if dtype is boolean and not any(isinstance(v, Expr) for v in result.flat):
                return constant(np.array(result.tolist(), dtype=bool).reshape(result.shape))
            return None
        return self.node(result, dtype)

    def learn(self, op: str, result: Node, args: Sequence[Node], attrs: dict) -> None:
        """Remember how `result` came about, to mirror it once its operands are bound; a mirror of
        undecided truth values is kept beside the node."""
        f = RULES.get(op)
        if f is None or result.dtype.kind not in ("int", "uint", "bool"):
            return
        if not _is_small(result):
            return
        self.recipes[result] = (f, tuple(args), attrs)
        mirrors = [None if a is None else self.known(a) for a in args]
        if all(m is not None or a is None for m, a in zip(mirrors, args)):
            mirror = f(mirrors, attrs)
            if mirror is not None:
                self.mirrors[result] = mirror

    def learn_pieces(self, pieces: Sequence[Node], x: Node) -> None:
        """The same for the pieces that Split cuts a vector into."""
        start = 0
        for piece in pieces:
            if not isinstance(piece, Node) or not _is_small(piece) or piece.rank != 1:
                return
            stop = start + piece.shape[0]
            self.recipes[piece] = (_piece(start, stop), (x,), {})
            if self.known(x) is not None:
                self.mirrors[piece] = self.known(x)[start:stop]
            start = stop

    def dims(self, x: Node, low: int | None, name: str) -> tuple[Dim, ...]:
        """The elements of `x` as dimensions; see Call.dims."""
        found = self.known(x)
        if found is None:
            found = self.derive(x, low, name, 0)
        if found.ndim > 1:
            raise FrontendError(f"{name!r} is a shape and has rank {found.ndim}, not 1")
        if any(isinstance(v, Expr) and v.dtype is boolean for v in found.flat):
            raise FrontendError(f"{name!r} holds truth values, not sizes")
        return tuple(as_dim(v) for v in found.flat)

    def derive(self, x: Node, low: int | None, name: str, depth: int) -> np.ndarray:
        """The mirror of `x` after binding what it is computed from."""
        found = self.known(x)
        if found is not None:
            return found
        recipe = self.recipes.get(x)
        if recipe is not None and depth < 40:
            f, args, attrs = recipe
            if all(a is None or _is_small(a) for a in args):
                passed = low if f in _PASSES_ON or f.__qualname__.startswith("_piece") else None
                below = [
                    None if a is None else self.derive(a, passed, a.name or name, depth + 1)
                    for a in args
                ]
                result = f(below, attrs)
                if result is not None:
                    self.mirrors[x] = result
                    return result
        return self.bind(x, low, name)

    def bind(self, x: Node, low: int | None, name: str) -> np.ndarray:
        """Fresh symbols for the elements of `x`, read while the program runs."""
        if x in self.bound:
            for s in self.bound[x].flat:
                if low is not None and (s.value.min is None or s.value.min < low):
                    s.value.min = low  # the program checks it where it binds the symbol
            return self.bound[x]
        if not _is_small(x):
            raise FrontendError(f"{name!r} is used as a shape: {x.type} cannot be one")
        stem = "".join(ch if ch.isalnum() else "_" for ch in name).strip("_") or "d"
        stem = stem if not stem[0].isdigit() else f"d_{stem}"
        count = 1 if x.rank == 0 else x.shape[0]
        symbols = tuple(
            sym(Symbol(self.unique(stem if count == 1 else f"{stem}_{k}"), min=low))
            for k in range(count)
        )
        if count:
            ops.bind_size(x, symbols=symbols)
        mirror = _objects(list(symbols), () if x.rank == 0 else (count,))
        self.bound[x] = mirror
        return mirror

    def unique(self, name: str) -> str:
        k = self.names[name] = self.names.get(name, 0) + 1
        return name if k == 1 else f"{name}_{k}"


def _is_small(x: Node) -> bool:
    return (
        x.rank <= 1
        and all(isinstance(d, int) for d in x.shape)
        and (x.rank == 0 or x.shape[0] <= MAX_BOUND)
        and x.dtype.kind in ("int", "uint", "bool")
    )


def as_mirror(array: np.ndarray) -> np.ndarray:
    """Ints (bools for a bool array) as an array of objects."""
    return _objects(array.reshape(-1).tolist(), array.shape)


def _objects(values: list, shape) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out.reshape(shape)


def _each(f: Callable, *arrays: np.ndarray) -> np.ndarray:
    """`f` over the elements of broadcast arrays."""
    arrays = np.broadcast_arrays(*arrays)
    values = [f(*e) for e in zip(*(a.reshape(-1) for a in arrays))]
    return _objects(values, arrays[0].shape)


def _index(v) -> Expr:
    if isinstance(v, Expr) and v.dtype is boolean:
        return cast_expr(v, "index")
    return as_expr(int(v) if not isinstance(v, Expr) else v)


def _lift(f: Callable) -> Callable:
    """A function of index expressions on mirror elements."""

    def lifted(*values):
        result = f(*map(_index, values))
        if result.op == "const":
            return result.value
        return result

    return lifted


def _binary(f: Callable):
    return lambda m, attrs: _each(_lift(f), *m) if len(m) == 2 else None


def _fold(f: Callable):
    def mirror(m, attrs):
        result = m[0]
        for other in m[1:]:
            result = _each(_lift(f), result, other)
        return result

    return mirror


def _divide(a: Expr, b: Expr) -> Expr:
    """ONNX divides integers rounding to zero."""
    low_a, low_b = bounds(a)[0], bounds(b)[0]
    if low_a is not None and low_a >= 0 and low_b is not None and low_b >= 0:
        return a // b
    return binary("truncdiv", a, b)


rule("Add", "Sum")(_fold(lambda a, b: a + b))
rule("Sub")(_binary(lambda a, b: a - b))
rule("Mul")(_binary(lambda a, b: a * b))
rule("Div")(_binary(_divide))
rule("Min")(_fold(minimum))
rule("Max")(_fold(maximum))
rule("Equal")(_binary(lambda a, b: compare("eq", a, b)))
rule("Less")(_binary(lambda a, b: compare("lt", a, b)))
rule("LessOrEqual")(_binary(lambda a, b: compare("le", a, b)))
rule("Greater")(_binary(lambda a, b: compare("gt", a, b)))
rule("GreaterOrEqual")(_binary(lambda a, b: compare("ge", a, b)))


@rule("Mod")
def _mod(m, attrs):
    return None if attrs.get("fmod") else _each(_lift(mod), *m)


@rule("Neg")
def _neg(m, attrs):
    return _each(_lift(lambda a: -a), m[0])


@rule("Abs")
def _abs(m, attrs):
    return _each(_lift(lambda a: maximum(a, -a)), m[0])


@rule("Not")
def _not(m, attrs):
    if any(isinstance(v, Expr) for v in m[0].flat):
        return None
    return _each(lambda a: not a, m[0])


@rule("And")
def _and(m, attrs):
    return _truth(m, lambda a, b: a and b)


@rule("Or")
def _or(m, attrs):
    return _truth(m, lambda a, b: a or b)


def _truth(m, f):
    if any(isinstance(v, Expr) for a in m for v in a.flat):
        return None
    return _each(lambda a, b: bool(f(a, b)), *m)


@rule("Identity")
def _identity(m, attrs):
    return m[0]


@rule("Cast")
def _cast(m, attrs):
    if attrs.get("to") in (6, 7, 12, 13):
        return _each(_lift(lambda a: a), m[0])
    if attrs.get("to") == 9 and not any(isinstance(v, Expr) for v in m[0].flat):
        return _each(bool, m[0])
    return None


@rule("Where")
def _where(m, attrs):
    def pick(c, a, b):
        if not isinstance(c, Expr):
            return a if c else b
        if c.dtype is not boolean:
            return None
        return _lift(lambda x, y: select(c, x, y))(a, b)

    result = _each(pick, *m)
    return None if any(v is None for v in result.flat) else result


@rule("Concat")
def _concat(m, attrs):
    return np.concatenate(m, axis=attrs.get("axis", 0)) if all(a.ndim for a in m) else None


@rule("Gather")
def _gather(m, attrs):
    data, indices = m
    axis = attrs.get("axis", 0)
    if any(isinstance(v, Expr) for v in indices.flat) or not -data.ndim <= axis < data.ndim:
        return None
    at = np.array(indices.tolist(), dtype=np.int64).reshape(indices.shape)
    if at.size and not (-data.shape[axis] <= at.min() and at.max() < data.shape[axis]):
        return None
    return _array(np.take(data, at, axis=axis))


@rule("Unsqueeze")
def _unsqueeze(m, attrs):
    axes = _axes(m, attrs)
    if axes is None:
        return None
    rank = m[0].ndim + len(axes)
    if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        return None
    return np.expand_dims(m[0], tuple(axes))


@rule("Squeeze")
def _squeeze(m, attrs):
    axes = _axes(m, attrs)
    rank = m[0].ndim
    if axes is None:
        axes = [a for a, d in enumerate(m[0].shape) if d == 1] if len(m) == 1 else None
    if axes is None or any(not -rank <= a < rank or m[0].shape[a] != 1 for a in axes):
        return None
    return m[0].reshape([d for a, d in enumerate(m[0].shape) if a not in {x % rank for x in axes}])


def _axes(m, attrs) -> list[int] | None:
    if "axes" in attrs:
        return list(attrs["axes"])
    if len(m) < 2 or m[1] is None or any(isinstance(v, Expr) for v in m[1].flat):
        return None
    return [int(v) for v in m[1].flat]


@rule("Reshape")
def _reshape(m, attrs):
    if len(m) != 2 or any(isinstance(v, Expr) for v in m[1].flat):
        return None
    shape = [int(v) for v in m[1].flat]
    if 0 in shape:
        return None
    try:
        return m[0].reshape(shape)
    except ValueError:
        return None


@rule("Slice")
def _slice(m, attrs):
    if "starts" in attrs:
        starts, ends = list(attrs["starts"]), list(attrs["ends"])
        axes, steps = list(attrs.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        given = [None if a is None else [v for v in a.flat] for a in m[1:]]
        if len(given) < 2 or any(isinstance(v, Expr) for g in given if g for v in g):
            return None
        starts, ends = given[0], given[1]
        axes = given[2] if len(given) > 2 and given[2] is not None else range(len(starts))
        steps = given[3] if len(given) > 3 and given[3] is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    at = [slice(None)] * m[0].ndim
    for s, e, a, step in zip(starts, ends, axes, steps):
        if not -m[0].ndim <= a < m[0].ndim or step == 0:
            return None
        at[a] = slice(s, None if step < 0 and e < -m[0].shape[a] else e, step)
    return m[0][tuple(at)]


@rule("ConstantOfShape")
def _constant_of_shape(m, attrs):
    shape, value = [*m[0].flat], attrs.get("value")
    if any(isinstance(v, Expr) or v < 0 for v in shape) or np.prod(shape or [1]) > MAX_MIRROR:
        return None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.size != 1:
        return None
    return _objects([int(value.reshape(-1)[0])] * int(np.prod(shape)), shape)


@rule("Expand")
def _expand(m, attrs):
    if any(isinstance(v, Expr) for v in m[1].flat):
        return None
    try:
        shape = np.broadcast_shapes(m[0].shape, tuple(int(v) for v in m[1].flat))
    except ValueError:
        return None
    return np.broadcast_to(m[0], shape) if np.prod(shape) <= MAX_MIRROR else None


@rule("Range")
def _range(m, attrs):
    values = [v for a in m for v in a.flat]
    if len(values) != 3 or any(isinstance(v, Expr) for v in values) or values[2] == 0:
        return None
    r = range(*values)
    return _objects(list(r), (len(r),)) if len(r) <= MAX_MIRROR else None


@rule("ReduceProd")
def _reduce_prod(m, attrs):
    return _reduced(m, attrs, lambda a, b: a * b, 1)


@rule("ReduceSum")
def _reduce_sum(m, attrs):
    return _reduced(m, attrs, lambda a, b: a + b, 0)


@rule("ReduceMax")
def _reduce_max(m, attrs):
    return _reduced(m, attrs, maximum, None)


@rule("ReduceMin")
def _reduce_min(m, attrs):
    return _reduced(m, attrs, minimum, None)


def _reduced(m, attrs, f, init):
    axes = _axes(m, attrs)
    if m[0].ndim != 1 or (len(m) > 1 and m[1] is not None and axes is None):
        return None
    if axes not in (None, [0], [-1]) or (init is None and not m[0].size):
        return None
    values = list(m[0]) if init is None else [init, *m[0]]
    result = values[0]
    for v in values[1:]:
        result = _lift(f)(result, v)
    return _objects([result], (1,) if attrs.get("keepdims", 1) else ())


@rule("Transpose")
def _transpose(m, attrs):
    return m[0].transpose(attrs.get("perm")) if m[0].ndim < 2 else None


def _piece(start: int, stop: int) -> Callable:
    def mirror(m, attrs):
        return m[0][start:stop]

    return mirror


# Results that are elements of the operands, so that what is asked of one is asked of the other.
_PASSES_ON = (_identity, _cast, _concat, _squeeze, _unsqueeze)


def _array(x) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else _objects([x], ())
