"""A graph over one example as a graph over many: a leading dimension of lanes on what differs.

    f(x: f32[3], w: f32[3]) -> f32[3]   with x on   ->   f(x: f32[b, 3], w: f32[3]) -> f32[b, 3]

What no lane changes is computed once and shared. Each node answers by its rule (`rules.py`,
`control.py`), a composite without one by its expansion; calls of functions are put in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from tensorwright.base.errors import CompileError
from tensorwright.batching.control import CONTROL
from tensorwright.batching.rows import Row, with_lanes
from tensorwright.batching.rules import RULES
from tensorwright.ir.build import location
from tensorwright.ir.expr import Expr, as_expr
from tensorwright.ir.graph import Graph, Node, bound_symbols, graph, node_symbols, param
from tensorwright.ir.type import Dim, TensorType, TupleType
from tensorwright.ops.control import items, make_tuple
from tensorwright.passes.shapes import substitute_symbols

# (node, whether it has lanes), for a tuple a tuple of these
Value = tuple


class Lanes:
    """The batching of nodes of one graph; `values` holds what is known of them."""

    def __init__(self, size: Dim, graphs: Mapping[str, Graph] = MappingProxyType({})) -> None:
        self.size, self.graphs = size, graphs
        self.values: dict[Node, Value] = {}
        self.calling: tuple[str, ...] = ()
        self.bound: set[Node] = set()  # binders of sizes that some block has seen to

    # ---- values --------------------------------------------------------------------------------

    def of(self, root: Node) -> Value:
        """The value of a node for all lanes; iterative, operands first."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.values:
                stack.pop()
                continue
            needed = (*(a for a in node.args if a is not None), *self.binders(node))
            missing = [a for a in needed if a not in self.values]
            if missing:
                stack.extend(reversed(missing))
                continue
            with location(*node.loc):
                self.values[node] = self.node(node)
            stack.pop()
        return self.values[root]

    def binders(self, node: Node) -> list[Node]:
        """The nodes that bind the sizes which a node mentions, once in all blocks."""
        own = bound_symbols(node)
        found = [s.origin for s in node_symbols(node) if s.origin is not None and s not in own]
        found = [b for b in found if b not in self.bound or b in self.values]
        self.bound.update(found)
        return found

    def node(self, node: Node) -> Value:
        op = node.op
        if op.name == "item":
            return self.values[node.args[0]][node.attrs["index"]]
        if op.name == "make_tuple":
            return tuple(self.values[a] for a in node.args)
        if op.name == "call" and not self.is_shared(node):
            return self.call(node)
        if self.is_shared(node):
            return self.shared(node)
        if op.name in CONTROL:
            return CONTROL[op.name](self, node)
        return self.operator(node)

    def is_shared(self, node: Node) -> bool:
        return not any(on for a in node.args if a is not None for _, on in flat(self.values[a]))

    def shared(self, node: Node) -> Value:
        """A node that no lane changes, on what its operands have become."""
        args = tuple(None if a is None else self.whole(a) for a in node.args)
        if any(a is not b for a, b in zip(args, node.args)):
            node = replace(node, args=args)
            for s in bound_symbols(node):
                s.origin = node
        if isinstance(node.type, TupleType):
            return tuple((part, False) for part in items(node))
        return (node, False)

    def whole(self, node: Node) -> Node:
        """The node for all lanes; tuples are put together."""
        value = self.values[node]
        return value[0] if is_single(value) else make_tuple(*(v for v, _ in value))

    def operator(self, node: Node) -> Value:
        """By the operator's rule, else by its expansion."""
        values = [(None, False) if a is None else self.values[a] for a in node.args]
        row = Row(self.size, node, tuple(v for v, _ in values), tuple(on for _, on in values))
        rule = RULES.get(node.op)
        found = None if rule is None else rule(row)
        if found is None:
            return self.expansion(node)
        parts = tuple((part, True) for part in items(found))
        return parts if isinstance(node.type, TupleType) else parts[0]

    def expansion(self, node: Node) -> Value:
        if node.op.expand is None:
            raise CompileError(f"vmap: {node.op.name} has no batching rule").located(node.loc)
        found = node.op.expand(*node.args, **node.attrs)
        if isinstance(found, tuple):
            return tuple(self.of(n) for n in found)
        return self.of(found)

    # ---- graphs --------------------------------------------------------------------------------

    def call(self, node: Node) -> Value:
        """A called function in place of the call; one that calls itself has no end."""
        name = node.attrs["callee"]
        g = self.graphs.get(name)
        if g is None or name in self.calling:
            raise CompileError(
                f"vmap: {name} calls itself, and examples need it to different depths",
                help=f"use tw.batch({name}), which keeps a stack for each example",
            ).located(node.loc)
        sizes = sizes_of(g, node.args)
        g = substitute_symbols(g, sizes) if sizes else g
        inner = self.block((*self.calling, name))
        inner.values = dict(zip(g.params, (self.values[a] for a in node.args)))
        results = tuple(inner.of(r) for r in g.results)
        return results if isinstance(node.type, TupleType) else results[0]

    def block(self, calling: tuple[str, ...] | None = None) -> Lanes:
        """A new place for nodes of another graph."""
        inner = Lanes(self.size, self.graphs)
        inner.calling = self.calling if calling is None else calling
        inner.bound = self.bound
        return inner

    def body(self, g: Graph, on: Sequence[bool], wanted: Sequence[bool] = ()):
        """(the graph whose parameters have lanes where `on` says, which of its results have);
        results that are `wanted` get them."""
        inner = self.block()
        params = []
        for p, one in zip(g.params, on):
            t = TensorType(p.dtype, (self.size, *p.shape)) if one else p.type
            params.append(param(p.name, t) if one else p)
            inner.values[p] = (params[-1], one)
        values = [inner.of(r) for r in g.results]
        wanted = wanted or [False] * len(values)
        results = [inner.with_lanes(v) if w else v[0] for v, w in zip(values, wanted)]
        flags = [w or v[1] for v, w in zip(values, wanted)]
        return graph(g.name, params, results, g.result_names), flags

    def with_lanes(self, value: Value) -> Node:
        node, on = value
        return node if on else with_lanes(node, self.size)


def is_single(value: Value) -> bool:
    """Whether a value is that of one tensor."""
    return len(value) == 2 and isinstance(value[1], bool)


def flat(value: Value) -> list[Value]:
    return [value] if is_single(value) else [v for part in value for v in flat(part)]


def sizes_of(g: Graph, args: Sequence[Node]) -> dict[Expr, Expr]:
    """The caller's dimension for every symbol that is a dimension of the callee's parameters."""
    pairs = ((ours, theirs) for p, a in zip(g.params, args) for ours, theirs in
             zip(p.shape, a.shape))  # fmt: skip
    return {ours: as_expr(theirs) for ours, theirs in pairs
            if isinstance(ours, Expr) and ours.op == "sym" and ours is not theirs}  # fmt: skip


def batch_graph(
    g: Graph, on: Sequence[bool], size: Dim, graphs: Mapping[str, Graph] = MappingProxyType({}),
) -> Graph:  # fmt: skip
    """`g` over `size` lanes: the parameters that are `on`, and every result, have a leading
    dimension for them. `graphs`: the functions that it may call."""
    return Lanes(size, graphs).body(g, on, [True] * len(g.results))[0]
