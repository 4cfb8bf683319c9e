"""`tw.batch`: any function of one example as a function of many, recursion and branches included.

    batched = tw.batch(f)            # f(x: f32[()]) -> f32[()], calling itself
    batched(xs)                      # xs: f32[b] -> f32[b]

Examples may take other branches, run loops for other times and recur to other depths. A function
without any of that is `tw.vmap` of it; else it becomes one loop over a program counter for each
example (`machine.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.batching.lanes import Lanes
from tensorwright.batching.machine import DEPTH, batch_program
from tensorwright.batching.vmap import Mapped, mapped
from tensorwright.ir.graph import Graph, Node, subgraphs
from tensorwright.ir.graph import graph as make_graph


def batch(f: Callable, in_axes=0, out_axes=0, depth: int = DEPTH) -> Mapped:
    """`f` over examples that lie along `in_axes` of its arguments. `depth`: how many calls of
    recursive functions may be open in one example; more is a RunError that names the depth."""

    def engine(nodes: list[Node], params, captures, lanes: Lanes) -> list:
        given = [*params, *captures]
        g = make_graph("example", [p for p, _ in given], nodes)
        if not needs_counter(g, lanes):
            lanes.values = {p: (x, True) for p, x in params}
            lanes.values |= {p: (x, False) for p, x in captures}
            return [lanes.of(n) for n in nodes]
        on = [True] * len(params) + [False] * len(captures)
        found = batch_program(g, on, [x for _, x in given], lanes, depth)
        return [(x, True) for x in found]

    return mapped(f, in_axes, out_axes, engine)


def needs_counter(g: Graph, lanes: Lanes) -> bool:
    """Whether examples may run for different lengths: there are loops or recursive calls."""
    seen: set[str] = set()

    def search(g: Graph) -> bool:
        for n in g.nodes():
            if n.op.name == "while_" or any(map(search, subgraphs(n))):
                return True
            name = n.attrs["callee"] if n.op.name == "call" else None
            if name in seen:
                return True
            if name is not None:
                seen.add(name)
                if search(lanes.graphs[name]):
                    return True
                seen.discard(name)
        return False

    return search(g)
