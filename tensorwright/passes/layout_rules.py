"""How operators compute a result whose dimensions are stored in another order.

    transpose(reduce_sum(x, axes=(2,), keepdims=True), perm=p)
    ->  reduce_sum(transpose(x, perm=p), axes=(p.index(2),), keepdims=True)

A storage order `p` of a tensor t means that transpose(t, perm=p) is what lies in memory. A rule
says in which order each operand must be (`needs`), which order of the result suits a given one of
an operand (`gives`), and makes the node on permuted operands (`build`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorwright.ir.build import build as make
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Shape
from tensorwright.ops.define import normalize_axes
from tensorwright.ops.linalg import free_axes
from tensorwright.ops.movement import inverse, reshape, transpose
from tensorwright.passes.movement_chain import trace_chain
from tensorwright.passes.pointwise import NAMES as POINTWISE_NAMES

Perm = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """needs(node, p): the order of each operand (None: as it is), or None if p is out of reach.
    gives(node, k, q): the order of the result if operand k is in order q, None if there is none.
    build(node, p, args, orders): the node in order p, on operands in the orders needed."""

    needs: Callable[[Node, Perm], tuple[Perm | None, ...] | None]
    gives: Callable[[Node, int, Perm], Perm | None]
    build: Callable[[Node, Perm, Sequence[Node], Sequence[Perm | None]], Node]


def identity(rank: int) -> Perm:
    return tuple(range(rank))


def same_order(shape: Shape, a: Perm, b: Perm) -> bool:
    """Whether two orders store a tensor alike: dimensions of size 1 may stand anywhere."""
    return a == b or [i for i in a if shape[i] != 1] == [i for i in b if shape[i] != 1]


def permuted(values: Sequence, p: Perm) -> tuple:
    return tuple(values[i] for i in p)


def with_attrs(node: Node, args: Sequence[Node], **attrs) -> Node:
    return make(node.op, tuple(args), {**node.attrs, **attrs})


# ---- element by element ------------------------------------------------------------------------


def _needs_alike(node: Node, p: Perm):
    return tuple(p if a.rank == node.rank else None for a in node.args)


def _gives_alike(node: Node, k: int, q: Perm) -> Perm | None:
    return q if len(q) == node.rank else None


def lifted(a: Node, p: Perm) -> Node:
    """An operand of lower rank, which broadcasts, for a result in order p."""
    if a.rank == 0 or a.rank == len(p):
        return a
    return transpose(reshape(a, shape=(1,) * (len(p) - a.rank) + a.shape), perm=p)


def _build_alike(node: Node, p: Perm, args: Sequence[Node], orders) -> Node:
    return make(node.op, tuple(lifted(a, p) for a in args), node.attrs)


ALIKE = Rule(_needs_alike, _gives_alike, _build_alike)


# ---- operators with one attribute entry a dimension, or an axis --------------------------------


def _per_dimension(*names: str) -> Rule:
    def build(node: Node, p: Perm, args: Sequence[Node], orders) -> Node:
        found = {n: node.attrs[n] for n in names if node.attrs[n] is not None}
        return with_attrs(node, args, **{n: permuted(v, p) for n, v in found.items()})

    return Rule(_needs_alike, _gives_alike, build)


def _along_axis(node: Node, p: Perm, args: Sequence[Node], orders=()) -> Node:
    return with_attrs(node, args, axis=p.index(node.attrs["axis"] % node.rank))


def _along_axes(node: Node, p: Perm, args: Sequence[Node], orders=()) -> Node:
    axes = normalize_axes(node.op.name, node.attrs["axes"], len(p))
    return with_attrs(node, args, axes=tuple(sorted(p.index(a) for a in axes)))


def _needs_broadcast(node: Node, p: Perm):
    return (p if node.args[0].rank == node.rank else None,)


def _build_broadcast(node: Node, p: Perm, args: Sequence[Node], orders) -> Node:
    return with_attrs(node, [lifted(args[0], p)], shape=permuted(node.shape, p))


AXIS = Rule(_needs_alike, _gives_alike, _along_axis)
AXES = Rule(_needs_alike, _gives_alike, _along_axes)


# ---- reductions --------------------------------------------------------------------------------


def _kept_axes(node: Node) -> list[int]:
    a = node.attrs
    axes = normalize_axes(node.op.name, a["axes"] if "axes" in a else (a["axis"],),
                          node.args[0].rank)  # fmt: skip
    return [i for i in range(node.args[0].rank) if i not in axes]


def _needs_reduced(node: Node, p: Perm):
    if node.attrs["keepdims"]:
        return (p,)
    kept = _kept_axes(node)
    rest = tuple(i for i in range(node.args[0].rank) if i not in kept)
    return ((*(kept[i] for i in p), *rest),)


def _gives_reduced(node: Node, k: int, q: Perm) -> Perm:
    if node.attrs["keepdims"]:
        return q
    kept = _kept_axes(node)
    return tuple(kept.index(i) for i in q if i in kept)


def reduce_stored(node: Node, x: Node, q: Perm) -> Node:
    """The reduction of x, which is stored in order q."""
    if "axis" in node.attrs:
        return with_attrs(node, [x], axis=q.index(node.attrs["axis"] % x.rank))
    return _along_axes(node, q, [x])


def _build_reduced(node: Node, p: Perm, args: Sequence[Node], orders) -> Node:
    return reduce_stored(node, args[0], orders[0])


REDUCED = Rule(_needs_reduced, _gives_reduced, _build_reduced)


# ---- reshape, transpose ------------------------------------------------------------------------


def _needs_transpose(node: Node, p: Perm):
    return (permuted(node.attrs["perm"], p),)


def _gives_transpose(node: Node, k: int, q: Perm) -> Perm:
    back = inverse(node.attrs["perm"])
    return permuted(back, q)


def _match(sequence: list, dims: list[list]) -> Perm | None:
    """The order of `dims` in which their atoms follow each other as in `sequence`."""
    first = {d[0]: k for k, d in enumerate(dims) if d}
    found: list[int] = []
    at = 0
    while at < len(sequence):
        k = first.get(sequence[at])
        if k is None or sequence[at : at + len(dims[k])] != dims[k]:
            return None
        found.append(k)
        at += len(dims[k])
    for k, d in enumerate(dims):  # dimensions of size 1 stay near where they are
        if not d:
            found.insert(min(k, len(found)), k)
    return tuple(found)


def _needs_reshape(node: Node, p: Perm):
    traced = trace_chain(node.args[0].shape, [node])
    if traced is None:
        return None
    before, after = traced
    q = _match([a for i in p for a in after[i]], before)
    return None if q is None else (q,)


def _gives_reshape(node: Node, k: int, q: Perm) -> Perm | None:
    traced = trace_chain(node.args[0].shape, [node])
    if traced is None:
        return None
    before, after = traced
    return _match([a for i in q for a in before[i]], after)


# ---- gather, contractions ----------------------------------------------------------------------


def _needs_gather(node: Node, p: Perm):
    return (p, None) if node.args[1].rank == 1 else None


def _gives_gather(node: Node, k: int, q: Perm) -> Perm | None:
    return q if k == 0 and node.args[1].rank == 1 else None


def channels_last(rank: int) -> Perm:
    return (0, *range(2, rank), 1)


def _needs_conv(node: Node, p: Perm):
    return (channels_last(node.rank), None) if p == channels_last(node.rank) else None


def _build_conv(node: Node, p: Perm, args: Sequence[Node], orders) -> Node:
    x, w = args
    last = transpose(w, perm=(*range(2, w.rank), 1, 0))
    return with_attrs(node, (x, last), layout="NLAST")


RULES: dict[str, Rule] = {
    **dict.fromkeys(sorted(POINTWISE_NAMES), ALIKE),
    "pad": _per_dimension("low", "high"),
    "slice": _per_dimension("starts", "stops", "steps"),
    "reduce_window": _per_dimension("window", "strides", "padding", "dilation"),
    **dict.fromkeys(("concat", "cumsum", "cumprod", "cummax", "cummin"), AXIS),
    "gather": Rule(_needs_gather, _gives_gather, _along_axis),
    "flip": AXES,
    "broadcast_to": Rule(_needs_broadcast, _gives_alike, _build_broadcast),
    **dict.fromkeys(
        ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_any", "reduce_all",
         "argmax", "argmin"), REDUCED),
    "transpose": Rule(_needs_transpose, _gives_transpose, lambda node, p, args, orders: args[0]),
    "reshape": Rule(_needs_reshape, _gives_reshape, lambda node, p, args, orders: reshape(
        args[0], shape=permuted(node.shape, p))),
    "conv_general": Rule(_needs_conv, _gives_alike, _build_conv),
}  # fmt: skip


# ---- operators that read an operand in any order -----------------------------------------------


def reads(node: Node, k: int, q: Perm) -> bool:
    """Whether the node gives its plain result from operand k in order q at no cost."""
    if RULES.get(node.op.name) is REDUCED and not node.attrs["keepdims"]:
        return _gives_reduced(node, k, q) == identity(node.rank)
    if node.op.name != "dot_general":
        return False
    free = _free(node, k)
    return sorted(free, key=q.index) == list(free)


def _free(node: Node, k: int) -> Perm:
    rank = node.args[k].rank
    used = [a % rank for pairs in (node.attrs["batch"], node.attrs["contract"]) for a in pairs[k]]
    return free_axes(rank, used)


def build_reading(node: Node, orders: Sequence[Perm], args: Sequence[Node]) -> Node:
    """The node on operands in orders that it reads."""
    if node.op.name != "dot_general":
        return reduce_stored(node, args[0], orders[0])
    moved = {}
    for name in ("batch", "contract"):
        moved[name] = tuple(tuple(q.index(a % len(q)) for a in axes)
                            for q, axes in zip(orders, node.attrs[name]))  # fmt: skip
    return with_attrs(node, args, **moved)
