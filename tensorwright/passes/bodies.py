"""What the bodies of control flow capture: operands that every one of them gets, behind its own.

if_(c, a, b, then=<graph (a, b)>)          operands from 1 are captures, parameters from 0
match(t, a, Node=<graph (l, r, a)>)        operands from 1, parameters of this arm from 2
"""

from __future__ import annotations

from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.type import Dim


def number_of_steps(scan: Node) -> Dim:
    length = scan.attrs["length"]
    return scan.args[scan.attrs["carried"]].shape[0] if length is None else length


def captures_from(node: Node) -> tuple[int, dict[str, int]] | None:
    """(position of the first operand that is captured, position of the first parameter that is a
    capture by name of body); None for nodes whose bodies capture nothing."""
    a = node.attrs
    match node.op.name:
        case "if_":
            return 1, {"then": 0, "orelse": 0}
        case "while_":
            return a["carried"], {"cond": a["carried"], "body": a["carried"]}
        case "scan_":
            own = a["carried"] + a["scanned"]
            return own, {"body": own}
        case "match":
            return 1, {k: len(g.params) - len(node.args) + 1 for k, g in a.items()
                       if isinstance(g, Graph)}  # fmt: skip
        case "closure":
            return 0, {"body": len(a["body"].params) - len(node.args)}
    return None
