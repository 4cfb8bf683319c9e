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
from tensorwright.frontend.onnx_mirrors import (
    MAX_MIRROR,
    RULES,
    as_mirror,
    objects,
    piece_rule,
)
from tensorwright.ir.dtype import DType, boolean, i64
from tensorwright.ir.expr import Expr, Symbol, as_dim, sym
from tensorwright.ir.graph import Node, array_of, constant
from tensorwright.ir.type import Dim

MAX_BOUND = 64  # elements read by one bind_size
MAX_OPERAND = 8  # elements of an operand that are read instead of the fewer of a result


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
        self.mirrors[x] = objects(flat, mirror.shape)
        return x

    def apply(self, op: str, args: Sequence[Node], attrs: dict, dtype_of: Callable) -> Node | None:
        """The result of a shape-computing operator on mirrored operands, else None."""
        f = RULES.get(op)
        if f is None or any(a is not None and not isinstance(a, Node) for a in args):
            return None
        mirrors = [None if a is None else self.known(a) for a in args]
        if any(m is None for m, a in zip(mirrors, args) if a is not None):
            return None
        result = mirrored(f, mirrors, attrs)
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
            mirror = mirrored(f, mirrors, attrs)
            if mirror is not None:
                self.mirrors[result] = mirror

    def learn_pieces(self, pieces: Sequence[Node], x: Node) -> None:
        """The same for the pieces that Split cuts a vector into."""
        start = 0
        for piece in pieces:
            if not isinstance(piece, Node) or not _is_small(piece) or piece.rank != 1:
                return
            stop = start + piece.shape[0]
            self.recipes[piece] = (piece_rule(start, stop), (x,), {})
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
        dims = tuple(as_dim(v) for v in found.flat)
        for d in dims:
            if low is not None and isinstance(d, int) and d < low:
                raise FrontendError(f"{name!r} has the element {d}, which must be at least {low}")
        return dims

    def derive(self, x: Node, low: int | None, name: str, depth: int) -> np.ndarray:
        """The mirror of `x` after binding what it is computed from."""
        found = self.known(x)
        if found is not None:
            return found
        recipe = self.recipes.get(x)
        if recipe is not None and depth < 40:
            f, args, attrs = recipe
            if all(a is None or self.is_bindable(a, x) for a in args):
                below = [
                    None if a is None else
                    self.derive(a, low if k < f.passes_on else None, a.name or name, depth + 1)
                    for k, a in enumerate(args)
                ]  # fmt: skip
                result = mirrored(f, below, attrs)
                if result is not None:
                    self.mirrors[x] = result
                    return result
        return self.bind(x, low, name)

    def is_bindable(self, a: Node, x: Node) -> bool:
        """Whether `x` is better understood from the elements of its operand `a`: not from truth
        values, and not from far more numbers than it has itself."""
        if self.known(a) is not None or a in self.bound:
            return True
        if not _is_small(a) or a.dtype is boolean:
            return False
        return a.rank == 0 or a.shape[0] <= max(MAX_OPERAND, x.shape[0] if x.rank else 1)

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
        mirror = objects(list(symbols), () if x.rank == 0 else (count,))
        self.bound[x] = mirror
        return mirror

    def unique(self, name: str) -> str:
        k = self.names[name] = self.names.get(name, 0) + 1
        return name if k == 1 else f"{name}_{k}"


def mirrored(f: Callable, mirrors: list, attrs: dict) -> np.ndarray | None:
    """The result of a rule; None too where the node is malformed, which its converter explains."""
    try:
        return f(mirrors, attrs)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def _is_small(x: Node) -> bool:
    return (
        x.rank <= 1
        and all(isinstance(d, int) for d in x.shape)
        and (x.rank == 0 or x.shape[0] <= MAX_BOUND)
        and x.dtype.kind in ("int", "uint", "bool")
    )
