"""`Module`: the only thing that passes exchange: graph functions, kernels and their entry.

Constants live in the nodes that use them (`const`); `Module.constants()` names them. Data types
live in the types that mention them; `Module.data_types()` lists them. A pass is a
pure function Module -> Module; `graph_pass` lifts one on graphs, going into the bodies of control
flow as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from tensorwright.base.errors import InternalError
from tensorwright.ir.graph import CONST, Graph, Node, rebuild, subgraphs
from tensorwright.ir.loop import Kernel
from tensorwright.ir.type import TYPES, DataType, data_types


@dataclass(frozen=True, eq=False)
class Module:
    """`entry` is the graph that a program runs when it is called; `entries`, if not empty, are all
    the graphs that a program offers by name, `entry` first."""

    graphs: dict[str, Graph]
    kernels: dict[str, Kernel] = field(default_factory=dict)
    entry: str = "main"
    entries: tuple[str, ...] = ()

    @property
    def main(self) -> Graph:
        return self.graphs[self.entry]

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of all entries, the main one first."""
        return self.entries or (self.entry,)

    def alone(self, entry: str) -> Module:
        """The same functions with one entry."""
        return replace(self, entry=entry, entries=())

    def constants(self) -> dict[str, np.ndarray]:
        """Arrays of the constants by unique name, in order of use."""
        named: dict[str, np.ndarray] = {}
        seen: set[Node] = set()
        for g in self.all_graphs():
            for n in g.nodes():
                if n.op is CONST and n not in seen:
                    seen.add(n)
                    named[unique(n.name or "c", named)] = n.attrs["value"]
        return named

    def data_types(self) -> dict[str, DataType]:
        """The data types that the module's values have, by name, in order of use. Raises
        InternalError if two different ones have one name."""
        named: dict[str, DataType] = {}
        seen: set = set()
        for g in self.all_graphs():
            for n in g.nodes():
                types = [n.type, *(v for v in n.attrs.values() if isinstance(v, TYPES))]
                for t in types:
                    if t in seen:
                        continue
                    seen.add(t)
                    for d in data_types(t):
                        if named.setdefault(d.name, d) != d:
                            raise InternalError(f"two data types are named {d.name!r}")
        return named

    def all_graphs(self) -> Iterator[Graph]:
        """Every graph, bodies of control flow after the graph that holds them."""
        todo = list(reversed(self.graphs.values()))
        while todo:
            g = todo.pop()
            yield g
            todo.extend(reversed([s for n in g.nodes() for s in subgraphs(n)]))

    def with_graphs(self, graphs: dict[str, Graph]) -> Module:
        if all(self.graphs.get(k) is v for k, v in graphs.items()) and len(graphs) == len(
            self.graphs
        ):
            return self
        return replace(self, graphs=graphs)


def unique(name: str, taken) -> str:
    """`name`, or `name_2`, `name_3` ... if it is taken."""
    if name not in taken:
        return name
    k = 2
    while f"{name}_{k}" in taken:
        k += 1
    return f"{name}_{k}"


def map_graphs(m: Module, f: Callable[[Graph], Graph]) -> Module:
    """`m` with `f` applied to every graph, innermost bodies first."""
    return m.with_graphs({name: map_bodies(g, f) for name, g in m.graphs.items()})


def map_bodies(g: Graph, f: Callable[[Graph], Graph]) -> Graph:
    """`f` applied to the bodies inside `g`, then to `g`."""
    if not g.holds_graphs:
        return f(g)

    def visit(node: Node, args: tuple) -> Node:
        attrs = node.attrs
        if subgraphs(node):
            attrs = {k: map_bodies(v, f) if isinstance(v, Graph) else v for k, v in attrs.items()}
            if all(attrs[k] is v for k, v in node.attrs.items()):
                attrs = node.attrs
        same = all(a is b for a, b in zip(args, node.args))
        return node if same and attrs is node.attrs else replace(node, args=args, attrs=attrs)

    return f(rebuild(g, visit))


def digest(*parts) -> str:
    """A hex SHA-256 of strings, bytes and arrays."""
    h = hashlib.sha256()
    for p in parts:
        if isinstance(p, np.ndarray):
            h.update(f"{p.dtype}{p.shape}".encode())
            p = np.ascontiguousarray(p).view(np.uint8).data if p.size else b""
        h.update(p.encode() if isinstance(p, str) else p)
        h.update(b"\0")
    return h.hexdigest()
