"""Give the bodies of control flow the constants that they capture.

    scan_(h, xs, w, body=<graph (h, x, w)>) with constant w   ->   the same with w inside the body

A body sees its parameters only; a constant passed to one would be unknown there, and packed again
in every iteration.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.graph import CONST, Graph, Node, rebuild, with_args
from tensorwright.ir.module import Module, map_graphs


def inline_captures(m: Module) -> Module:
    """`m` with constants inside the bodies that capture them; `dce` drops the parameters."""
    return map_graphs(m, lambda g: rebuild(g, lambda n, args: inline_node(with_args(n, args))))


def first_capture(node: Node) -> int | None:
    """The position of the first operand that no iteration changes, None without a body."""
    match node.op.name:
        case "if_":
            return 1
        case "while_":
            return node.attrs["carried"]
        case "scan_":
            return node.attrs["carried"] + node.attrs["scanned"]
    return None


def inline_node(node: Node) -> Node:
    first = first_capture(node)
    if first is None or not any(a.op is CONST for a in node.args[first:]):
        return node
    offset = 1 if node.op.name == "if_" else 0  # the condition is no parameter of a branch
    known = {k - offset: a for k, a in enumerate(node.args) if k >= first and a.op is CONST}
    attrs = {k: inline_body(v, known) if isinstance(v, Graph) else v
             for k, v in node.attrs.items()}  # fmt: skip
    return replace(node, attrs=attrs)


def inline_body(g: Graph, known: dict[int, Node]) -> Graph:
    """The body with constants in place of those parameters, which stay unused."""
    values = {g.params[k]: c for k, c in known.items()}

    def visit(node: Node, args: tuple) -> Node:
        return inline_node(with_args(node, tuple(values.get(a, a) for a in args)))

    new = rebuild(g, visit)
    return replace(new, results=tuple(values.get(r, r) for r in new.results))
