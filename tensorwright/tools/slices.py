"""Cutting small modules out of a large one, with the values that go in.

    y = relu(add(matmul(x, w), b)), depth 1 at relu   ->   main(v: f32[n, 32]): return relu(v)

A slice keeps the operators up to `depth` steps above a node; what lies beyond becomes a parameter.
Constants and taking tuples apart cost no step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorwright.ir.graph import CONST, PARAM, Node, graph, param, with_args
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TensorType

FREE = ("item", "make_tuple", "const")
Values = dict[Node, np.ndarray]


@dataclass(frozen=True)
class Slice:
    """A module with one result, what to run it on, and what should come out."""

    module: Module
    root: Node
    inputs: tuple[np.ndarray, ...]
    expected: np.ndarray

    @property
    def operators(self) -> list[str]:
        return [n.op.name for n in self.module.main.nodes() if n.op not in (PARAM, CONST)]

    @property
    def shape(self) -> str:
        """The same for slices that differ in names and numbers only."""
        nodes = self.module.main.nodes()
        place = {n: k for k, n in enumerate(nodes)}
        lines = []
        for n in nodes:
            attrs = {} if n.op is CONST else n.attrs
            operands = [None if a is None else place[a] for a in n.args]
            lines.append(f"{n.op.name}{operands}{attrs}{n.type}")
        return "\n".join(lines)


def tensors(m: Module) -> list[Node]:
    """Nodes of the entry that compute a tensor, in order of computation."""
    return [
        n for n in m.main.nodes() if n.op not in (PARAM, CONST) and isinstance(n.type, TensorType)
    ]


def node_values(m: Module, inputs: Sequence[np.ndarray]) -> Values:
    """The value of every tensor of the entry, by the interpreter."""
    nodes = tensors(m)
    wide = replace(m.main, results=tuple(nodes), result_names=(), state=())
    found = run_module(replace(m, graphs={**m.graphs, m.entry: wide}), inputs)
    return {**dict(zip(m.main.params, map(np.asarray, inputs))), **dict(zip(nodes, found))}


def slice_at(m: Module, root: Node, depth: int, values: Mapping[Node, np.ndarray]) -> Slice:
    """The slice of `m` that ends in `root`."""
    cut = _Cut(values)
    result = cut.take(root, depth)
    g = graph("main", cut.params, (result,), ("result",))
    called = {k: v for k, v in m.graphs.items() if k != m.entry}
    small = prune(Module({"main": g, **called}, m.kernels))
    return Slice(small, root, tuple(cut.inputs), values[root])


class _Cut:
    """Copies nodes above a root until the depth is used up."""

    def __init__(self, values: Mapping[Node, np.ndarray]):
        self.values = values
        self.done: dict[Node, tuple[Node, int]] = {}
        self.params: list[Node] = []
        self.inputs: list[np.ndarray] = []
        self.names: set[str] = set()

    def take(self, node: Node, depth: int) -> Node:
        found = self.done.get(node)
        if found is not None and found[1] >= depth:
            return found[0]
        if node.op is CONST:
            new = node
        elif node.op is PARAM or (depth <= 0 and node.op.name not in FREE):
            new = self.done[node][0] if found else self.parameter(node)
        else:
            step = depth - (node.op.name not in FREE)
            args = tuple(None if a is None else self.take(a, step) for a in node.args)
            new = with_args(node, args)
        self.done[node] = (new, depth)
        return new

    def parameter(self, node: Node) -> Node:
        name = unique(node.name or "x", self.names)
        self.names.add(name)
        new = param(name, node.type)
        self.params.append(new)
        self.inputs.append(self.values[node])
        return new


def prune(m: Module) -> Module:
    """`m` without functions that nothing reaches from its entries."""
    graphs, kernels, todo = {}, {}, list(m.offered)
    while todo:
        name = todo.pop()
        if name in graphs or name not in m.graphs:
            continue
        graphs[name] = m.graphs[name]
        for g in Module({name: graphs[name]}).all_graphs():
            for callee in (n.attrs["callee"] for n in g.nodes() if "callee" in n.attrs):
                todo.append(callee)
                if callee in m.kernels:
                    kernels[callee] = m.kernels[callee]
    return Module(graphs, kernels, m.entry, m.entries)
