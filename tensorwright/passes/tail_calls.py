"""Which calls end a function, and which functions therefore only jump to each other.

def even(n): if n == 0: True else: odd(n - 1)
def odd(n): if n == 0: False else: even(n - 1)
    ->   circle(even) is [even, odd]: one loop, no stack (`host_tail.py`)
"""

from __future__ import annotations

from tensorwright.ir.graph import Graph, Node, bound_symbols, subgraphs
from tensorwright.ir.module import Module
from tensorwright.ir.type import TupleType


def tail_node(g: Graph) -> Node | None:
    """The one node that all results of a graph come from, in their order."""
    if g.state or not g.results:
        return None
    node = g.results[0]
    if node.op.name == "item":
        node = node.args[0]
        count = len(node.type.items)
        wanted = [(r.op.name, r.args[:1], r.attrs.get("index")) for r in g.results]
        if wanted != [("item", (node,), k) for k in range(count)]:
            return None
    elif len(g.results) != 1 or isinstance(node.type, TupleType):
        return None
    branches = node.op.name in ("if_", "match") and not bound_symbols(node)
    return node if branches or node.op.name == "call" else None


def tail_calls(g: Graph) -> list[Node]:
    """The calls that end a graph, those in branches included."""
    node = tail_node(g)
    if node is None:
        return []
    if node.op.name == "call":
        return [node]
    return [call for body in subgraphs(node) for call in tail_calls(body)]


def jumps(m: Module, caller: Graph) -> set[str]:
    """The functions that `caller` may jump to."""
    found = set()
    for call in tail_calls(caller):
        callee = m.graphs[call.attrs["callee"]]
        fits = callee.result_types == caller.result_types and all(
            p.type == a.type and (callee is caller or getattr(p.type, "is_static", True))
            for p, a in zip(callee.params, call.args))  # fmt: skip
        if fits and not callee.state:
            found.add(callee.name)
    return found


def circle(m: Module, start: Graph) -> list[str]:
    """The functions that jump to `start`, or to one that does, among those it jumps to: `start`
    first. Empty if none comes back."""
    edges: dict[str, set[str]] = {}
    todo = [start.name]
    while todo:
        name = todo.pop()
        if name not in edges:
            edges[name] = jumps(m, m.graphs[name])
            todo += edges[name]
    back = {start.name}
    while True:
        more = {n for n, to in edges.items() if to & back} - back
        if not more:
            break
        back |= more
    if start.name not in set().union(*(edges[n] for n in back)):
        return []
    return [start.name, *sorted(back - {start.name})]
