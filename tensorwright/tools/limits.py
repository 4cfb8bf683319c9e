"""How far the integers of an input may go: inputs that index a table stay inside it.

y = gather(table: f32[30522, 384], ids, axis=0)     ->     {"ids": 30522}
"""

from __future__ import annotations

from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.module import Module

_KEEP = ("reshape", "broadcast_to", "transpose", "cast", "slice", "concat", "where", "select",
         "squeeze", "unsqueeze", "expand", "clip", "bind_size")  # fmt: skip
_INDEXED = {"gather": (0, 1), "gather_elements": (0, 1), "embedding": (0, 1)}


def index_limits(m: Module) -> dict[str, int]:
    """Input name -> the least size of what it indexes; inputs that index nothing are left out."""
    return graph_limits(m.main)


def graph_limits(g: Graph) -> dict[str, int]:
    limits: dict[Node, int] = {}
    for node in reversed(g.nodes()):
        if node.op.name in _INDEXED:
            table, indices = (node.args[k] for k in _INDEXED[node.op.name])
            extent = table.shape[node.attrs.get("axis", 0)]
            if isinstance(extent, int):
                limits[indices] = min(extent, limits.get(indices, extent))
        if node in limits and node.op.name in _KEEP:
            for a in node.args:
                if a is not None and a.dtype.is_integer:
                    limits[a] = min(limits[node], limits.get(a, limits[node]))
    return {p.name: limits[p] for p in g.params if p in limits}
