"""Drop what no result needs: symbols that nothing mentions, operands that bodies never read.

    n = bind_size(k, symbols=(n,)); return y        ->   return y
    y = if_(c, a, b, then=(a, b -> a), orelse=(a, b -> a))   ->   y = if_(c, a, then=(a -> a), ...)

Ordinary dead nodes need no pass: a graph is what its results reach.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.expr import Symbol
from tensorwright.ir.graph import (
    Graph,
    Node,
    bound_symbols,
    node_symbols,
    order,
    rebuild,
    with_args,
)  # fmt: skip
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import type_symbols
from tensorwright.passes.bodies import captures_from


def drop_dead(m: Module) -> Module:
    """`m` without symbols and captures that nothing uses."""
    return map_graphs(m, drop_in_graph)


def drop_in_graph(g: Graph) -> Graph:
    return drop_binders(rebuild(g, lambda node, args: drop_captures(with_args(node, args))))


def drop_binders(g: Graph) -> Graph:
    """`g` with only the binders whose symbols the results need."""
    binder_of: dict[Symbol, Node] = {s: b for b in g.binders for s in bound_symbols(b)}
    live: dict[Node, None] = {}
    while True:
        needed = set()
        for n in order(g.params, (*live, *g.results), tuple(live)):
            needed |= node_symbols(n) - set(bound_symbols(n))
            if n in g.binders:
                live.setdefault(n)
        found = {binder_of[s] for s in needed if s in binder_of} - live.keys()
        if not found:
            break
        live.update(dict.fromkeys(found))
    kept = tuple(b for b in g.binders if b in live)
    return g if len(kept) == len(g.binders) else replace(g, binders=kept)


def drop_captures(node: Node) -> Node:
    """A control-flow node without the captures that none of its bodies reads."""
    found = captures_from(node)
    if found is None:
        return node
    first, own = found
    used = {k - own[name] for name in own for k in _reads(node.attrs[name])}
    kept = [k for k in range(len(node.args) - first) if k in used]
    if len(kept) == len(node.args) - first:
        return node
    args = (*node.args[:first], *(node.args[first + k] for k in kept))
    attrs = dict(node.attrs)
    for name, start in own.items():
        params = attrs[name].params
        attrs[name] = replace(
            attrs[name], params=(*params[:start], *(params[start + k] for k in kept))
        )
    return replace(node, args=args, attrs=attrs)


def _reads(body: Graph) -> set[int]:
    """Positions of the parameters that a body uses, be it only for a symbol in their shape."""
    nodes = body.nodes()
    read = {a for n in nodes for a in n.args} | set(body.results)
    inner = [n for n in nodes if n not in body.params]
    symbols = set().union(*map(node_symbols, inner)) if inner else set()
    return {k for k, p in enumerate(body.params) if p in read or type_symbols(p.type) & symbols}
