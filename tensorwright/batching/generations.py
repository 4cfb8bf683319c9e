"""Recursion over one value as work on all parts of a generation at once, where weights are large.

    y = encode(t)     ->     for each generation of t's parts, the last one first: encode's cell

A function that calls itself, perhaps through others, on all parts of its argument reads its weights
once for every part. Where they fit the caches next to a core that costs nothing. Where they do not,
the parts of a generation, which do not depend on each other, share the reading, and what depends on
fields alone is one product. This is `tw.batch` with one example, inside of a program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tensorwright.base import trace
from tensorwright.base.errors import CompileError
from tensorwright.batching.blocks import called, cyclic, reachable
from tensorwright.batching.forest import planted
from tensorwright.batching.structure import Builder
from tensorwright.batching.walkers import edges_of, find_walkers, parts_of
from tensorwright.ir.graph import (
    CONST,
    Graph,
    Node,
    bound_symbols,
    graph,
    param,
    rebuild,
    subgraphs,
    with_args,
)  # fmt: skip
from tensorwright.ir.module import Module
from tensorwright.ir.type import DataType, TensorType, TupleType
from tensorwright.ops.control import call, items, make_tuple
from tensorwright.ops.data import arms_of
from tensorwright.ops.index import gather
from tensorwright.ops.movement import reshape
from tensorwright.target.target import Target

SHARE = 0.5  # of the second-level cache that weights may take and still be read for every part


def by_generation(m: Module, target: Target) -> Module:
    """`m` with the recursive functions that are worth it computed generation by generation."""
    chosen: set[str] = set()
    for name in sorted(cyclic(m.graphs)):
        if name not in chosen:
            chosen |= worth(m, name, target)
    if not chosen:
        return m
    made: dict[str, Graph] = {}
    for name in m.offered:
        g = m.graphs[name]
        twin = next((f for f in sorted(chosen - {name}) if equal(g, m.graphs[f])), None)
        if twin is not None:  # the entry is the function itself, traced once more
            types = g.result_types
            y = call(*g.params, callee=twin, type=types[0] if len(types) == 1 else TupleType(types))
            g = graph(name, g.params, items(y), g.result_names, g.state)
        made[name] = bound(rebuild(g, lambda n, args: replaced(n, args, m, chosen)))
    if all(made[k] is m.graphs[k] for k in made):
        return m
    graphs = {**m.graphs, **made}
    reach = reachable(graphs)
    wanted = set(m.offered).union(*(reach[name] for name in m.offered))
    return m.with_graphs({k: g for k, g in graphs.items() if k in wanted})


def bound(g: Graph) -> Graph:
    """`g` with the nodes that name the sizes of its new nodes."""
    found = graph(g.name, g.params, g.results).binders
    known = {s for b in g.binders for s in bound_symbols(b)}
    more = tuple(b for b in found if known.isdisjoint(bound_symbols(b)))
    return replace(g, binders=(*more, *g.binders)) if more else g


def worth(m: Module, name: str, target: Target) -> set[str]:
    """The functions that call each other with one, if they have several parts to share weights
    between, want the results of all of them, and read more weights than stay near the core."""
    reach = reachable(m.graphs)
    group = {other for other in reach[name] if name in reach[other]}
    arms = [arm for other in group for arm in whole_arms(m.graphs[other])]
    if not all(whole_arms(m.graphs[other]) for other in group):
        return set()
    if all(len(parts_of(case)) < 2 for case, _ in arms if case is not None):
        return set()
    seen: set[int] = set()
    bytes_ = sum(weights(m.graphs[other], seen) for other in sorted(group))
    near = SHARE * target.caches[1]
    trace.decision("generations", name, "yes" if bytes_ > near else "no",
                   f"{bytes_} bytes of weights are read for every part")  # fmt: skip
    return group if bytes_ > near else set()


def whole_arms(g: Graph) -> list:
    """The arms of a function that is one match on its only value and calls something on every part
    of it; none for other functions."""
    places = [p for p in g.params if isinstance(p.type, DataType)]
    if len(places) != 1 or not all(isinstance(p.type, TensorType | DataType) for p in g.params):
        return []
    heads = [n for n in g.nodes() if n.op.name == "match" and n.args[0] is places[0]]
    found = arms_of(heads[0]) if len(heads) == 1 else []
    return found if all(map(whole, found)) else []


def equal(a: Graph, b: Graph) -> bool:
    """Whether two graphs compute the same of their parameters; constants count by content."""
    xs, ys = a.nodes(), b.nodes()
    if len(xs) != len(ys) or len(a.params) != len(b.params) or len(a.results) != len(b.results):
        return False
    twin: dict[Node | None, Node | None] = {None: None} | dict(zip(a.params, b.params))
    for x, y in zip(xs, ys):
        twin[x] = twin.get(x, y)
        if twin[x] is not y or x.op is not y.op or x.type != y.type or set(x.attrs) != set(y.attrs):
            return False
        if [twin[i] for i in x.args] != list(y.args):
            return False
        if not all(_equal_values(v, y.attrs[k]) for k, v in x.attrs.items()):
            return False
    return all(twin[x] is y for x, y in zip(a.results, b.results))


def _equal_values(v, w) -> bool:
    if isinstance(v, Graph):
        return isinstance(w, Graph) and equal(v, w)
    return np.array_equal(v, w) if isinstance(v, np.ndarray) else v == w


def whole(arm) -> bool:
    """Whether an arm calls a function on every part, always: not in a branch or a loop."""
    case, g = arm
    inside = any(called(s) for n in g.nodes() for s in subgraphs(n))
    wanted = {g.params[k] for k in parts_of(case)} if case is not None else set()
    given = {a for n in g.nodes() if n.op.name == "call" for a in n.args}
    return not inside and wanted <= given


def weights(g: Graph, seen: set[int]) -> int:
    """Bytes of the constants of a graph and its bodies."""
    found = 0
    for n in g.nodes():
        if n.op is CONST and id(n.attrs["value"]) not in seen:
            seen.add(id(n.attrs["value"]))
            found += n.attrs["value"].nbytes
        found += sum(weights(s, seen) for s in subgraphs(n))
    return found


def replaced(node: Node, args: tuple, m: Module, chosen: set[str]) -> Node:
    """The call of a chosen function as the loop over its value's generations."""
    if node.op.name == "call" and node.attrs["callee"] in chosen:
        try:
            return grown(args, node, m.graphs)
        except CompileError as e:
            trace.decision("generations", node.attrs["callee"], "no", e.message)
    return with_args(node, args)


def grown(args: tuple, node: Node, graphs: Mapping[str, Graph]) -> Node:
    callee = node.attrs["callee"]
    params = [param(f"a{k}", a.type) for k, a in enumerate(args)]
    y = call(*params, callee=callee, type=node.type)
    reach = reachable(graphs)[callee]
    walkers = find_walkers(graph("one", params, [y]), {k: graphs[k] for k in sorted(reach)})
    actual = dict(zip(params, args))
    for w in walkers.values():
        w.shared = {k: actual.get(x, x) for k, x in w.shared.items()}
    own = walkers[callee]
    forest = planted([args[own.position]], [own.data], [None], edges_of(walkers, [own.data]))
    tables = Builder(forest, graphs, walkers).tables()[callee]
    found = [reshape(gather(t, forest.roots[0], axis=0), shape=t.shape[1:]) for t in tables]
    return make_tuple(*found) if isinstance(node.type, TupleType) else found[0]
