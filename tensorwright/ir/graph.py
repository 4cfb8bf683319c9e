"""Graph functions: pure DAGs of nodes over tensors.

A `Node` applies an operator to other nodes; a `Graph` is parameters and results, and everything
that the results need lies in between. Order is derived, identity is the object's. A node of a tuple
type is taken apart by `item` nodes. Attributes hold ints, floats, strings, dtypes, index
expressions, tuples of these, arrays (constants), and graphs (the bodies of control flow), whose
own parameters are all that they see.

Symbols enter a graph through the shapes of its parameters, or are bound by a node that lists them
in its attribute `symbols` (`bind_size`, control flow with results of unknown size), which then
orders before every node whose type or attributes mention them (`Graph.binders`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import is_

import numpy as np

from tensorwright.ir.expr import Expr, Symbol, symbols_of
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import Type, leaves, tensor, type_symbols


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node:
    op: OpDef
    args: tuple[Node | None, ...]
    attrs: dict
    type: Type
    name: str = ""
    loc: tuple[str, ...] = ()

    @property
    def shape(self):
        return self.type.shape

    @property
    def dtype(self):
        return self.type.dtype

    @property
    def rank(self) -> int:
        return self.type.rank

    def __repr__(self) -> str:
        return f"<{self.name or self.op.name}: {self.type}>"


@dataclass(frozen=True, eq=False)
class Graph:
    """`state`: (parameter, result) pairs of an entry whose result takes the parameter's memory: the
    caller gives the old value up, and finds the new one where it was."""

    name: str
    params: tuple[Node, ...]
    results: tuple[Node, ...]
    binders: tuple[Node, ...] = ()
    result_names: tuple[str, ...] = field(default=())
    state: tuple[tuple[int, int], ...] = ()

    def nodes(self) -> tuple[Node, ...]:
        """Every node that the results need, operands and binders first; parameters come first."""
        return self._ordered

    @cached_property
    def _ordered(self) -> tuple[Node, ...]:
        return tuple(order(self.params, (*self.binders, *self.results), self.binders))

    @cached_property
    def holds_graphs(self) -> bool:
        """Whether there are bodies of control flow in it, or groups."""
        return any(map(subgraphs, self.nodes()))

    @property
    def result_types(self) -> tuple[Type, ...]:
        return tuple(r.type for r in self.results)


def _never(*types, **attrs):
    raise TypeError("parameters and constants get their type when they are made")


PARAM = OpDef("param", (), _never)
CONST = OpDef("const", (), _never)


def param(name: str, type_: Type) -> Node:
    """A parameter of a graph."""
    return Node(PARAM, (), {}, type_, name)


def constant(value, name: str = "") -> Node:
    """A constant tensor; its array is made read-only."""
    array = np.array(value, copy=None, order="C")
    array = array.view()
    array.flags.writeable = False
    return Node(CONST, (), {"value": array}, tensor(array.dtype, *array.shape), name)


def array_of(node: Node) -> np.ndarray | None:
    """The array of a constant node, else None."""
    return node.attrs["value"] if node.op is CONST else None


def attr_expressions(value) -> Iterator[Expr]:
    """The index expressions inside an attribute value."""
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from attr_expressions(v)


def node_symbols(node: Node) -> set[Symbol]:
    """Symbols that must be bound before the node runs."""
    found = type_symbols(node.type)
    for v in node.attrs.values():
        found |= symbols_of(*attr_expressions(v))
    return found


def bound_symbols(node: Node) -> tuple[Symbol, ...]:
    """Symbols that the node itself binds: those of its attribute `symbols` (`bind_size` reads them
    from a tensor, control flow takes them from the shapes of its results)."""
    return tuple(e.value for e in node.attrs.get("symbols", ()))


def order(params: Iterable[Node], roots: Iterable[Node], binders: Iterable[Node]) -> list[Node]:
    """Depth-first topological order from `roots`; `params` first. Iterative."""
    binder_of = {s: b for b in binders for s in bound_symbols(b)}
    done: dict[Node, None] = dict.fromkeys(params)
    stack = [(r, False) for r in reversed(tuple(roots))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done[node] = None
            continue
        stack.append((node, True))
        needed = [a for a in node.args if a is not None]
        if binder_of:
            own = bound_symbols(node)
            found = {binder_of[s] for s in node_symbols(node) if s in binder_of and s not in own}
            needed += [b for b in binders if b in found]
        stack.extend((a, False) for a in reversed(needed) if a not in done)
    return list(done)


def graph(name: str, params, results, result_names=(), state=()) -> Graph:
    """A Graph over nodes as a front end made them. Binders are found through the origins that
    `build` recorded for their symbols; a body does not have those that are computed around it."""
    params, results = tuple(params), tuple(results)
    binders: dict[Node, None] = {}
    todo, seen = list(results), set()
    while todo:
        node = todo.pop()
        if node in seen or node is None:
            continue
        seen.add(node)
        todo.extend(node.args)
        for s in sorted(node_symbols(node), key=lambda s: s.serial):
            origin = s.origin
            if origin is not None and origin not in binders:
                binders[origin] = None
                todo.append(origin)
    if any(n.op is PARAM and n not in params for n in seen):
        inside = _computed_from(params)
        binders = {b: None for b in binders if inside(b)}
    before, ordered = None, tuple(binders)
    while ordered != before:  # an order that the graph printed and parsed keeps
        before = ordered
        nodes = order(params, (*ordered, *results), ordered)
        ordered = tuple(n for n in nodes if n in binders)
    return Graph(name, params, results, ordered, tuple(result_names), tuple(state))


def _computed_from(params: tuple[Node, ...]) -> Callable[[Node], bool]:
    """Whether a node is computed from nothing but these parameters, their sizes and constants."""
    known, found = type_symbols(*(p.type for p in params)), dict.fromkeys(params, True)

    def inside(node: Node) -> bool:
        stack = [node]
        while stack:
            n = stack[-1]
            own = bound_symbols(n)
            needed = [a for a in n.args if a is not None]
            needed += [s.origin for s in node_symbols(n) - known
                       if s.origin is not None and s not in own]  # fmt: skip
            if n in found:
                stack.pop()
            elif n.op is PARAM or not all(found.get(a, True) for a in needed):
                found[stack.pop()] = False
            elif all(a in found for a in needed):
                found[stack.pop()] = True
            else:
                stack += [a for a in needed if a not in found]
        return found[node]

    return inside


def rebuild(g: Graph, make: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """`g` with each node replaced by make(node, new args), operands first. Returns `g` itself if
    nothing changed."""
    new: dict[Node, Node] = {p: p for p in g.params}
    for node in g.nodes():
        if node not in new:
            args = tuple(None if a is None else new[a] for a in node.args)
            new[node] = make(node, args)
    if all(map(is_, new.keys(), new.values())):
        return g
    live = tuple(new[b] for b in g.binders if bound_symbols(new[b]))
    return replace(g, results=tuple(new[r] for r in g.results), binders=live)


def with_args(node: Node, args: tuple[Node, ...]) -> Node:
    """`node` on other operands of the same types; the same object if none changed."""
    if len(args) == len(node.args) and all(map(is_, args, node.args)):
        return node
    return replace(node, args=args)


def users(g: Graph) -> dict[Node, list[Node]]:
    """node -> the nodes that take it as an operand (once for each time)."""
    found: dict[Node, list[Node]] = {n: [] for n in g.nodes()}
    for n in list(found):
        for a in n.args:
            if a is not None:
                found[a].append(n)
    return found


def subgraphs(node: Node) -> tuple[Graph, ...]:
    """Graphs held by the attributes of a control-flow node."""
    return tuple(v for v in node.attrs.values() if isinstance(v, Graph))


def result_leaves(g: Graph) -> tuple[Type, ...]:
    return tuple(t for r in g.results for t in leaves(r.type))


def structure(g: Graph) -> tuple:
    """A hashable key that graphs share exactly if they compute the same function of their
    parameters: operators, attributes, types and wiring, but not names or places."""
    number: dict[Node, int] = {}
    rows = []
    for n in g.nodes():
        number[n] = len(number)
        args = tuple(-1 if a is None else number[a] for a in n.args)
        attrs = tuple((k, _attr_key(v)) for k, v in sorted(n.attrs.items()))
        rows.append((n.op.name, args, attrs, n.type))
    return (*rows, tuple(number[r] for r in g.results))


def _attr_key(value):
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes() if value.size <= 64 else id(value))
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Graph):
        return structure(value)
    if isinstance(value, tuple):
        return tuple(map(_attr_key, value))
    return value
