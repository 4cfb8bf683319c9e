"""Names and the values they stand for while a model is imported.

A scope is the main graph, a function, or a body of control flow. A body sees the names around it;
the nodes it takes from there become parameters of its graph (`captures`), constants excepted.
`closed_graph` makes the graph of a body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tensorwright.frontend.onnx_model import GraphRecord, NodeRecord
from tensorwright.ir.graph import CONST, Graph, Node, graph, param


class _Poison:
    """The value of an output whose node could not be imported."""

    def __repr__(self) -> str:
        return "POISON"


POISON = _Poison()


class Scope:
    def __init__(
        self, parent: Scope | None = None, captures: bool = True, *,
        opsets: Mapping[str, int] | None = None, attrs: Mapping | None = None,
        calls: tuple = (), where: tuple[str, ...] = (), mirrors: dict | None = None,
    ):  # fmt: skip
        self.parent = parent
        self.opsets = opsets if parent is None else parent.opsets
        self.attrs = attrs or {} if parent is None else parent.attrs
        self.calls = calls if parent is None else parent.calls
        self.where = where if parent is None else parent.where
        self.mirrors = mirrors if parent is None else parent.mirrors
        self.values: dict[str, object] = {}
        self.captures: dict[Node, Node] | None = {} if parent and captures else None

    def bind(self, name: str, value) -> None:
        self.values[name] = value

    def find(self, name: str):
        """The value of a name; a node from around a body comes back as the body's parameter."""
        if name in self.values:
            return self.values[name]
        if self.parent is None:
            return None
        value = self.values[name] = self.take(self.parent.find(name))
        return value

    def peek(self, name: str):
        """`find` without capturing."""
        if name in self.values or self.parent is None:
            return self.values.get(name)
        return self.parent.peek(name)

    def take(self, value):
        """A value of the parent, for use in this scope."""
        if self.captures is None:
            return value
        if isinstance(value, Node):
            return self.capture(value)
        items = getattr(value, "items", None)
        if isinstance(items, tuple):
            return type(value)(tuple(self.take(v) for v in items), value.dtype)
        if hasattr(value, "item"):
            return type(value)(self.take(value.item))
        return value

    def capture(self, node: Node) -> Node:
        if node.op is CONST:
            return node
        if node not in self.captures:
            taken = {p.name for p in self.captures.values()}
            name = node.name or f"capture_{len(self.captures)}"
            while name in taken:
                name += "_"
            self.captures[node] = inner = param(name, node.type)
            if node in self.mirrors:
                self.mirrors[inner] = self.mirrors[node]
        return self.captures[node]

    def poisoned(self, record: NodeRecord) -> bool:
        """Whether a body of the node uses a value that could not be imported."""
        return any(self.peek(name) is POISON for name in free_names(record))


def bodies(record: NodeRecord) -> Iterable[GraphRecord]:
    for value in record.attrs.values():
        for v in value if isinstance(value, tuple) else (value,):
            if isinstance(v, GraphRecord):
                yield v


def free_names(record: NodeRecord) -> set[str]:
    """The names that the bodies of a node use and do not define."""
    free: set[str] = set()
    for g in bodies(record):
        defined = {v.name for v in g.inputs} | set(g.initializers)
        for n in g.nodes:
            free |= {name for name in (*n.inputs, *free_names(n)) if name not in defined}
            defined |= set(n.outputs)
        free |= {v.name for v in g.outputs if v.name not in defined}
    return free


def live_nodes(nodes: Sequence[NodeRecord], outputs: Iterable[str]) -> list[NodeRecord]:
    """The nodes that the outputs need, in order."""
    needed = set(outputs)
    live = []
    for n in reversed(nodes):
        if any(name in needed for name in n.outputs if name):
            live.append(n)
            needed.update(n.inputs, free_names(n))
    live.reverse()
    return live


# ---- bodies as graphs ---------------------------------------------------------------------------


def closed_graph(name: str, params: Sequence[Node], results: Sequence[Node]) -> Graph:
    """The graph of a body, its parameters under names of their own."""
    return graph(name, unique_names(params), results)


def unique_names(params: Sequence[Node]) -> list[Node]:
    taken: dict[str, int] = {}
    for p in params:
        k = taken[p.name] = taken.get(p.name, 0) + 1
        if k > 1:
            object.__setattr__(p, "name", f"{p.name}_{k}")
    return list(params)
