"""Groups that differ only in how much they sum up share a kernel, which takes that as an argument.

    y = dot_general(x: f32[49, 544], w: f32[544, 128])      }   one kernel with a symbol
    z = dot_general(p: f32[49, 576], q: f32[576, 128])      }   k: 544..576, multiple of 32

Tiles of a contraction follow from its rows and columns, and the code of one step of the reduction
is the same however many steps there are: such kernels run as fast, and a network that grows by
concatenation (a layer of DenseNet-121 has one more block of channels than the one before) compiles
8 of them instead of 58. Where an extent is seen by any other operator, or by an attribute, the
kernels stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tensorwright.base import trace
from tensorwright.ir.expr import Expr, Symbol, const, replace_symbols, sym
from tensorwright.ir.graph import PARAM, Graph, Node, param, structure, users
from tensorwright.ir.type import TensorType

LEAST = 3  # different kernels that are worth replacing by one
REDUCES = "dot_general"  # the only operator that may see the extent

Key = tuple


@dataclass(frozen=True)
class Shared:
    """What one of several groups runs as: `body`, the same for all of them, in which `symbol`
    stands for the group's `value`; `values` are those of all calls."""

    body: Graph
    symbol: Symbol
    value: int
    values: tuple[int, ...]

    def mean(self, work: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        """What a call costs in the mean."""
        costs = [
            [replace_symbols(w, {self.symbol: const(v)}, {}) for v in self.values] for w in work
        ]
        first, second = (sum(c[1:], start=c[0]) // len(c) for c in costs)
        return first, second


def shared_bodies(bodies: Iterable[Graph]) -> dict[Key, Shared]:
    """Which groups (by structure) run as kernels that they share."""
    groups: dict[Key, list[Graph]] = {}
    for body in bodies:
        groups.setdefault(structure(body), []).append(body)
    alike: dict[Key, list[Key]] = {}
    for key, equal in groups.items():
        alike.setdefault(without_depths(equal[0], key), []).append(key)
    found: dict[Key, Shared] = {}
    for keys in alike.values():
        if len(keys) >= LEAST:
            found |= _share([groups[k] for k in keys], keys)
    return found


def without_depths(body: Graph, key: Key) -> Key:
    """The structure `key` of a group without the sizes of what products alone see, and sum over."""
    if not any(n.op.name == REDUCES for n in body.nodes()):
        return key
    readers, rows = users(body), list(key)
    for at, n in enumerate(body.nodes()):
        if _is_rows(n) and _is_summed(n.args[0], n.args[0].rank - 1, readers, body):
            rows[at] = rows[at][:2], n.dtype, n.shape[:-1]
        elif n.op is PARAM and isinstance(n.type, TensorType):
            shape = (d for a, d in enumerate(n.shape) if not _is_summed(n, a, readers, body))
            rows[at] = n.dtype, n.rank, tuple(shape)
    return tuple(rows)


def _is_rows(n: Node) -> bool:
    """Whether a node is a view of a parameter with the same last axis."""
    x = n.args[0] if n.op.name == "reshape" else None
    return x is not None and x.op is PARAM and n.shape[-1:] == x.shape[-1:] != ()


def _is_summed(x: Node, axis: int, readers: dict[Node, list[Node]], body: Graph) -> bool:
    """Whether nothing but products see an axis of a parameter (or of its rows), and sum over it."""
    size = x.shape[axis]
    return isinstance(size, int) and size > 1 and x not in body.results and all(
        _is_summed(n, n.rank - 1, readers, body) if _is_rows(n) and axis == x.rank - 1
        else _sums(n, x, axis) for n in readers[x]
    )  # fmt: skip


def _sums(n: Node, x: Node, axis: int) -> bool:
    """Whether a node is a product that sums over an axis of an operand."""
    if n.op.name != REDUCES:
        return False
    return all(axis in axes for a, axes in zip(n.args, n.attrs["contract"]) if a is x)


def _share(groups: Sequence[Sequence[Graph]], keys: Sequence[Key]) -> dict[Key, Shared]:
    """Groups that differ in such sizes alone as one in a symbol, if each has the same at all places
    that differ."""
    shapes = [[p.shape for p in equal[0].params] for equal in groups]
    places = [
        (k, axis)
        for k, shape in enumerate(shapes[0])
        for axis, size in enumerate(shape)
        if any(other[k][axis] != size for other in shapes)
    ]
    sizes = [{shape[k][axis] for k, axis in places} for shape in shapes]
    if any(len(s) != 1 for s in sizes):
        return {}
    values = [s.pop() for s in sizes]
    symbol = Symbol("depth", min(values), max(values), math.gcd(*values))
    body = _lifted(groups[0][0], places, symbol)
    calls = tuple(v for v, equal in zip(values, groups) for _ in equal)
    for equal, value in zip(groups, values):
        reason = f"a kernel for {len(groups)} sizes, {value} among them"
        trace.decision("lower", equal[0].results[0], "shared", reason)
    return {key: Shared(body, symbol, v, calls) for key, v in zip(keys, values)}


def _lifted(body: Graph, places: list[tuple[int, int]], symbol: Symbol) -> Graph:
    """The group with the symbol at these places."""
    new: dict[Node, Node] = {}
    for k, p in enumerate(body.params):
        axes = {axis for at, axis in places if at == k}
        shape = (sym(symbol) if a in axes else d for a, d in enumerate(p.shape))
        new[p] = param(p.name, TensorType(p.dtype, tuple(shape))) if axes else p
    for n in body.nodes():
        args = tuple(None if a is None else new[a] for a in n.args)
        if _is_rows(n) and new[n.args[0]] is not n.args[0]:
            shape = (*n.shape[:-1], args[0].shape[-1])
            new[n] = replace(n, args=args, attrs={"shape": shape}, type=TensorType(n.dtype, shape))
        elif n.op is not PARAM:
            new[n] = replace(n, args=args)
    return replace(body, params=tuple(new[p] for p in body.params),
                   results=tuple(new[r] for r in body.results))  # fmt: skip
