"""Give the bodies of control flow the constants that they capture.

    scan_(h, xs, w, body=<graph (h, x, w)>) with constant w   ->   the same with w inside the body

A body sees its parameters only; a constant passed to one would be unknown there, and packed again
in every iteration.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.graph import CONST, Graph, Node, rebuild, with_args
from tensorwright.ir.module import Module, map_graphs
from tensorwright.passes.bodies import captures_from


def inline_captures(m: Module) -> Module:
    """`m` with constants inside the bodies that capture them; `dce` drops the parameters."""
    return map_graphs(m, lambda g: rebuild(g, lambda n, args: inline_node(with_args(n, args))))


def inline_node(node: Node) -> Node:
    found = captures_from(node)
    if found is None or not any(a.op is CONST for a in node.args[found[0] :]):
        return node
    first, own = found
    known = {k: a for k, a in enumerate(node.args[first:]) if a.op is CONST}
    attrs = dict(node.attrs)
    for name, start in own.items():
        attrs[name] = inline_body(attrs[name], {start + k: a for k, a in known.items()})
    return replace(node, attrs=attrs)


def inline_body(g: Graph, known: dict[int, Node]) -> Graph:
    """The body with constants in place of those parameters, which stay unused."""
    values = {g.params[k]: c for k, c in known.items()}

    def visit(node: Node, args: tuple) -> Node:
        return inline_node(with_args(node, tuple(values.get(a, a) for a in args)))

    new = rebuild(g, visit)
    return replace(new, results=tuple(values.get(r, r) for r in new.results))
