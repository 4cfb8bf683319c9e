"""Expand composites that have no kernel of their own into the operators they are made of.

    y = softmax(x, axis=-1)   ->   m = reduce_max(x); e = exp(sub(x, m)); y = div(e, reduce_sum(e))

Until here a composite is a unit, so that front ends, algebra and quantization see it whole.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.build import location
from tensorwright.ir.graph import Graph, Node, rebuild, subgraphs, with_args
from tensorwright.ir.module import Module, map_graphs


def expand_composites(m: Module) -> Module:
    """`m` with only primitives and composites that have a `lower`."""
    return map_graphs(m, expand_graph)


def expand_graph(g: Graph) -> Graph:
    return rebuild(g, lambda node, args: expand_node(with_args(node, args)))


def expand_node(node: Node) -> Node:
    """The definition of a composite node, expanded all the way; primitives stay."""
    if node.op.expand is None or node.op.lower is not None:
        return expand_bodies(node)
    with location(*node.loc):
        made = node.op.expand(*node.args, **node.attrs)
    return expand_below(made, frozenset(node.args), node.name)


def expand_bodies(node: Node) -> Node:
    """The node with its graphs expanded: those that the definition of a composite brings along."""
    if not subgraphs(node):
        return node
    attrs = {k: expand_graph(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
    return replace(node, attrs=attrs)


def expand_below(root: Node, stop: frozenset, name: str) -> Node:
    """Expand composites among the nodes between `root` and `stop`."""
    done: dict[Node, Node] = {a: a for a in stop if a is not None}
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if not ready:
            stack.append((node, True))
            stack.extend((a, False) for a in node.args if a is not None and a not in done)
            continue
        new = with_args(node, tuple(None if a is None else done[a] for a in node.args))
        new = expand_node(new)
        if node is root and name and not new.name:
            new = replace(new, name=name)
        done[node] = new
    return done[root]
