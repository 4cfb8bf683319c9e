"""Groups that differ only in how much they sum up, or where windows begin, share a kernel.

    y = dot_general(x: f32[49, 544], w: f32[544, 128])      }   one kernel with a symbol
    z = dot_general(p: f32[49, 576], q: f32[576, 128])      }   k: 544..576, multiple of 32

Tiles of a contraction follow from its rows and columns, and the code of one step of the reduction
is the same however many steps there are: such kernels run as fast with their number as an argument,
and a network that grows by concatenation (a layer of DenseNet-121 has one more block of channels
than the one before) compiles 8 of them instead of 58. Where an extent is seen by any other
operator, or by an attribute, the kernels stay apart.

    y = conv_general(slice(x, starts=(0, 0, 1, 0), ..), w)  }   one kernel with symbols
    z = conv_general(slice(x, starts=(0, 1, 0, 0), ..), v)  }   start0: 0..1, start1: 0..1

Where windows begin is an offset to the address of all that they read: the phases of a transposed
convolution are such groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tensorwright.base import trace
from tensorwright.ir.expr import Expr, Symbol, const, replace_symbols, sym
from tensorwright.ir.graph import PARAM, Graph, Node, param, structure, users
from tensorwright.ir.type import Dim, TensorType

LEAST = 3  # different kernels that are worth replacing by one
REDUCES = "dot_general"  # the only operator that may see the extent
WINDOWS = "conv_general"  # the only operator that may read what begins elsewhere

Key = tuple
Place = tuple[int, int]  # a node of a group by position (or a parameter), and an axis


@dataclass(frozen=True)
class Shared:
    """What one of several groups runs as: `body`, the same for all of them, in which symbols stand
    for the group's `values`; `calls` are the values of all calls."""

    body: Graph
    values: dict[Symbol, Expr]
    calls: tuple[dict[Symbol, Expr], ...]

    def mean(self, work: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
        """What a call costs in the mean."""
        costs = [[replace_symbols(w, values, {}) for values in self.calls] for w in work]
        first, second = (sum(c[1:], start=c[0]) // len(c) for c in costs)
        return first, second


def shared_bodies(bodies: Iterable[Graph]) -> dict[Key, Shared]:
    """Which groups (by structure) run as kernels that they share."""
    groups: dict[Key, list[Graph]] = {}
    for body in bodies:
        groups.setdefault(structure(body), []).append(body)
    alike: dict[Key, list[Key]] = {}
    for key, equal in groups.items():
        body = equal[0]
        alike.setdefault(without_starts(body, without_depths(body, key)), []).append(key)
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


def without_starts(body: Graph, key: Key) -> Key:
    """The structure `key` of a group without the places where windows begin, channels apart."""
    rows = list(key)
    for at, n in _windowed(body):
        rows[at] = n.op.name, rows[at][1], n.type, n.attrs["starts"][-1]
    return tuple(rows)


def _windowed(body: Graph) -> list[tuple[int, Node]]:
    """The slices of parameters, by position, that convolutions alone read."""
    nodes = body.nodes()
    if not any(n.op.name == WINDOWS for n in nodes):
        return []
    readers = users(body)
    return [
        (at, n) for at, n in enumerate(nodes)
        if n.op.name == "slice" and n.args[0].op is PARAM and n not in body.results
        and all(isinstance(v, int) for v in (*n.attrs["starts"], *n.shape))
        and n.attrs["steps"] in (None, (1,) * n.rank)
        and all(u.op.name == WINDOWS and u.args.index(n) == 0 for u in readers[n])
    ]  # fmt: skip


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
    """Groups that differ in such sizes and starts alone as one in symbols, if each has the same
    size at all places where sizes differ."""
    depths = _differing([_sizes(equal[0]) for equal in groups])
    starts = _differing([_starts(equal[0]) for equal in groups])
    if len(set(depths.values())) > 1:
        return {}
    symbols = {v: _symbol("depth", v) for v in depths.values()}
    numbered = enumerate(dict.fromkeys(starts.values()))
    begins = {v: _symbol(f"start{k}", v) for k, v in numbered}
    body = _lifted(groups[0][0], {at: symbols[v] for at, v in depths.items()},
                   {at: begins[v] for at, v in starts.items()})  # fmt: skip
    of_symbol = [(s, v) for found in (symbols, begins) for v, s in found.items()]
    values = [{s: const(v[k]) for s, v in of_symbol} for k in range(len(groups))]
    calls = tuple(v for v, equal in zip(values, groups) for _ in equal)
    for equal, own in zip(groups, values):
        reason = f"a kernel for {len(groups)} of {', '.join(f'{s} {e}' for s, e in own.items())}"
        trace.decision("lower", equal[0].results[0], "shared", reason)
    return {key: Shared(body, own, calls) for key, own in zip(keys, values)}


def _sizes(body: Graph) -> dict[Place, Dim]:
    """By parameter and axis."""
    return {(k, axis): d for k, p in enumerate(body.params) for axis, d in enumerate(p.shape)}


def _starts(body: Graph) -> dict[Place, int]:
    """Of windows, by node and axis."""
    return {(at, axis): v for at, n in _windowed(body) for axis, v in enumerate(n.attrs["starts"])}


def _differing(found: Sequence[dict[Place, int]]) -> dict[Place, tuple[int, ...]]:
    """The numbers of all groups, where they are not the same."""
    rows = {at: tuple(one[at] for one in found) for at in found[0]}
    return {at: values for at, values in rows.items() if len(set(values)) > 1}


def _symbol(name: str, values: Sequence[int]) -> Symbol:
    return Symbol(name, min(values), max(values), math.gcd(*values))


def _lifted(body: Graph, depths: dict[Place, Symbol], starts: dict[Place, Symbol]) -> Graph:
    """The group with symbols at these places."""
    new: dict[Node, Node] = {}
    for k, p in enumerate(body.params):
        shape = tuple(sym(depths[k, a]) if (k, a) in depths else d for a, d in enumerate(p.shape))
        new[p] = p if shape == p.shape else param(p.name, TensorType(p.dtype, shape))
    for at, n in enumerate(body.nodes()):
        args = tuple(None if a is None else new[a] for a in n.args)
        if _is_rows(n) and new[n.args[0]] is not n.args[0]:
            shape = (*n.shape[:-1], args[0].shape[-1])
            new[n] = replace(n, args=args, attrs={"shape": shape}, type=TensorType(n.dtype, shape))
        elif n.op is not PARAM:
            new[n] = replace(n, args=args)
        begins = {a: sym(s) for (k, a), s in starts.items() if k == at}
        if begins:
            new[n] = replace(new[n], attrs=_beginning(n, begins))
    return replace(body, params=tuple(new[p] for p in body.params),
                   results=tuple(new[r] for r in body.results))  # fmt: skip


def _beginning(n: Node, begins: dict[int, Expr]) -> dict:
    """The attributes of a slice that begins elsewhere along some axes."""
    starts = tuple(begins.get(a, v) for a, v in enumerate(n.attrs["starts"]))
    stops = tuple(begins[a] + n.shape[a] if a in begins else v
                  for a, v in enumerate(n.attrs["stops"]))  # fmt: skip
    return {**n.attrs, "starts": starts, "stops": stops}
