"""Compute of a value only what is read.

    y = slice(gelu(dot_general(x: f32[197,768], w)), starts=(0, 0), stops=(1, 3072))
->  y = gelu(dot_general(slice(x, starts=(0, 0), stops=(1, 768)), w))

Classifiers read one token of what their last layer computes for all of them, and who generates text
reads the scores of the last position only: products, maps and sums of the other rows are left out.
Demands go from the results backwards; what several read is computed as far as any of them reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tensorwright.base import trace
from tensorwright.ir.build import build, location
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Graph, Node, with_args
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim, Shape, TensorType, product
from tensorwright.ops.define import normalize_axes
from tensorwright.ops.elementwise import bitcast
from tensorwright.ops.linalg import dot_general, free_axes
from tensorwright.ops.movement import broadcast_to, slice
from tensorwright.passes.pointwise import is_pointwise
from tensorwright.passes.simplify import clean

Span = tuple[Dim, Dim] | None  # from, to along an axis; None: all of it
Region = tuple[Span, ...]
Needs = tuple[Region, list[Region]]  # what is computed of a node, and what that takes of operands
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
SAVING = 2  # times as many rows, at least, as are read: a slice is a copy, too


def narrow(m: Module) -> Module:
    """`m` with products of those rows and columns only that something reads."""
    new = map_graphs(m, narrow_graph)
    return m if new is m else clean(new)


def narrow_graph(g: Graph) -> Graph:
    if not any(n.op is slice for n in g.nodes()):
        return g
    found = regions(g, frozenset())
    # Not through what gains nothing: a map alone is better computed with what it follows.
    useless = frozenset(n for n, gains in gaining(g, found).items() if not gains)
    if all(n in useless for n in found):
        return g
    return computed(g, regions(g, useless))


# ---- demands -----------------------------------------------------------------------------------


def regions(g: Graph, whole: frozenset[Node]) -> dict[Node, Needs]:
    """What is computed of those nodes that are not computed wholly; none of `whole`."""
    read: dict[Node, Region] = {r: everything(r) for r in g.results}
    found: dict[Node, Needs] = {}
    for n in reversed(g.nodes()):
        region = read.get(n)
        needs = None if region is None or n in whole else needs_of(n, region)
        if needs is not None and (any(needs[0]) or n.op is slice):
            found[n] = needs
        for k, a in enumerate(n.args):
            if a is not None:
                wanted = needs[1][k] if needs is not None else everything(a)
                read[a] = hull(read[a], wanted, a) if a in read else wanted
    return found


def everything(node: Node) -> Region:
    return (None,) * node.rank if isinstance(node.type, TensorType) else ()


def hull(a: Region, b: Region, node: Node) -> Region:
    """The least region known to hold both."""

    def along(p: Span, q: Span, extent: Dim) -> Span:
        if p is None or q is None or p == q:
            return p if p == q else None
        if not all(isinstance(v, int) for v in (*p, *q)):
            return None
        both = min(p[0], q[0]), max(p[1], q[1])
        return None if both == (0, extent) else both

    return a if a == b else tuple(map(along, a, b, node.shape))


def needs_of(node: Node, region: Region) -> Needs | None:
    """None for operators of which only all is computed; a cast of bits may split elements."""
    if node.op is broadcast_to or (is_pointwise(node) and node.op is not bitcast):
        return region, [aligned(region, node, a) for a in node.args]
    rule = RULES.get(node.op.name)
    return rule(node, region) if rule is not None else None


def aligned(region: Region, node: Node, a: Node) -> Region:
    """Of an operand that is repeated along dimensions where it has one element or none."""
    lead = node.rank - a.rank
    return tuple(s if d == node.shape[lead + k] else None
                 for k, (s, d) in enumerate(zip(region[lead:], a.shape)))  # fmt: skip


def _slice(node: Node, region: Region) -> Needs | None:
    steps = node.attrs["steps"]
    if steps and any(s != 1 for s in steps):
        return None
    x, spans = node.args[0], []
    for s, start, size, extent in zip(region, node.attrs["starts"], node.shape, x.shape):
        low, high = (0, size) if s is None else s
        if size == extent:
            spans.append(s)
        else:
            spans.append((plus(start, low), plus(start, high)))
    return region, [tuple(spans)]


def _dot(node: Node, region: Region) -> Needs:
    x, w = node.args
    (xb, wb), (xc, wc) = node.attrs["batch"], node.attrs["contract"]
    xf, wf = free_axes(x.rank, xb, xc), free_axes(w.rank, wb, wc)
    left = dict(zip((*xb, *xf), region))
    right = dict(zip((*wb, *wf), (*region[: len(wb)], *region[len(xb) + len(xf) :])))
    return region, [tuple(of.get(k) for k in range(a.rank)) for of, a in ((left, x), (right, w))]


def _transpose(node: Node, region: Region) -> Needs:
    of = dict(zip(node.attrs["perm"], region))
    return region, [tuple(of[k] for k in range(node.rank))]


def _reduce(node: Node, region: Region) -> Needs:
    x = node.args[0]
    gone = normalize_axes(node.op.name, node.attrs["axes"], x.rank)
    kept = [k for k in range(x.rank) if k not in gone]
    of = dict(zip(range(x.rank) if node.attrs["keepdims"] else kept, region))
    return region, [tuple(of[k] if k in kept else None for k in range(x.rank))]


def _reshape(node: Node, region: Region) -> Needs:
    """Dimensions that it leaves as they are; all of those that it splits or joins."""
    x, same = node.args[0], same_axes(node.args[0].shape, node.shape)
    own = tuple(s if k in same else None for k, s in enumerate(region))
    of = {j: own[k] for k, j in same.items()}
    return own, [tuple(of.get(j) for j in range(x.rank))]


def same_axes(old: Shape, new: Shape) -> dict[int, int]:
    """Dimensions of the new shape, by those of the old one that they are."""
    before = {(product(old[:j]), d): j for j, d in enumerate(old) if d != 1}
    found = ((k, before.get((product(new[:k]), d))) for k, d in enumerate(new) if d != 1)
    return {k: j for k, j in found if j is not None}


def _concat(node: Node, region: Region) -> Needs:
    (axis,) = normalize_axes("concat", (node.attrs["axis"],), node.rank)
    own = tuple(None if k == axis else s for k, s in enumerate(region))
    return own, [own] * len(node.args)


RULES: dict[str, Callable[[Node, Region], Needs | None]] = {
    "slice": _slice, "dot_general": _dot, "transpose": _transpose, "reshape": _reshape,
    "concat": _concat,
    **dict.fromkeys(REDUCTIONS, _reduce),
}  # fmt: skip


def gaining(g: Graph, found: dict[Node, Needs]) -> dict[Node, bool]:
    """Whether products or sums are left out in a node, or in what it reads."""
    gains: dict[Node, bool] = {}
    for n in g.nodes():
        if n in found:
            own = n.op.name in ("dot_general", *REDUCTIONS) and saves(n, found[n][0])
            gains[n] = own or any(gains.get(a, False) for a in n.args)
    return gains


def saves(node: Node, region: Region) -> bool:
    """Whether most rows or columns are left out; of an unknown number all but a known one."""
    spans = [(s, d) for s, d in zip(region, node.shape) if s is not None]
    sizes = [(as_dim(as_expr(high) - low), d) for (low, high), d in spans]
    return any(isinstance(n, int) and (not isinstance(d, int) or n * SAVING <= d)
               for n, d in sizes)  # fmt: skip


# ---- the graph ---------------------------------------------------------------------------------


def computed(g: Graph, found: dict[Node, Needs]) -> Graph:
    """The graph with its nodes computed as far as is needed."""
    new: dict[Node, Node] = {p: p for p in g.params}
    own = {n: needs[0] for n, needs in found.items()}

    def value(n: Node, wanted: Region) -> Node:
        """The region of a node, cut out of what is computed of it."""
        made, has = new[n], own.get(n, everything(n))
        if has == wanted:
            return made
        spans = [(0, d) if s is None else s for s, d in zip(wanted, n.shape)]
        first = [0 if s is None else s[0] for s in has]
        return slice(made, starts=tuple(minus(low, f) for (low, _), f in zip(spans, first)),
                     stops=tuple(minus(high, f) for (_, high), f in zip(spans, first)))  # fmt: skip

    for n in g.nodes():
        if n in new:
            continue
        if n not in found:
            args = tuple(None if a is None else value(a, everything(a)) for a in n.args)
            new[n] = with_args(n, args)
            continue
        with location(*n.loc):
            args = tuple(map(value, n.args, found[n][1]))
            if n.op is slice:
                new[n] = args[0]
                continue
            if n.op is dot_general:
                trace.decision("narrow", n, texts(own[n]), "nothing else of it is read")
            attrs = {**n.attrs, **({"shape": shape_of(n, own[n])} if "shape" in n.attrs else {})}
            new[n] = replace(build(n.op, args, attrs), name=n.name)
    results = tuple(value(r, everything(r)) for r in g.results)
    return replace(g, results=results, binders=tuple(new[b] for b in g.binders))


def shape_of(node: Node, region: Region) -> Shape:
    return tuple(d if s is None else minus(s[1], s[0]) for s, d in zip(region, node.shape))


def texts(region: Region) -> str:
    """As subscripts."""
    return f"[{', '.join(':' if s is None else f'{s[0]}:{s[1]}' for s in region)}]"


def plus(a: Dim, b: Dim) -> Dim:
    return as_dim(as_expr(a) + b)


def minus(a: Dim, b: Dim) -> Dim:
    return as_dim(as_expr(a) - b)
