"""Values of data types as the nodes of a graph that has their rows.

    Node(Leaf(a), Node(Leaf(b), Leaf(c))), Leaf(d)
->  Leaf: d, a, b, c    Node: left = [1, 2], right = [5, 3]    steps: all leaves, 1 Node, 1 Node

The walk over the values is part of the program (`ops/forest.py` has the order of rows); a step is
at most `CHUNK` rows of each case, so that what a step computes stays in the caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.ir.expr import Expr, Symbol, as_dim, as_expr, sym
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Case, DataType, Dim
from tensorwright.ops.control import items
from tensorwright.ops.forest import Edge, Layout, Rows, census, layout_of, plant
from tensorwright.ops.positions import bind_size

CHUNK = 256  # rows of a case in one step


@dataclass
class Forest:
    """sizes[k]: rows of case k; places[k]: i64 of them; parts[k][j]: the slots of their parts;
    table: i64[steps, cases, 2], first row and number of rows; roots: the slots of the values;
    origins[k]: the rows of the origins of case k, for the cases that have any."""

    layout: Layout
    values: list[Node]
    attrs: dict
    sizes: list[Dim]
    places: list[Node]
    parts: list[dict[int, Node]]
    table: Node
    roots: list[Node]
    origins: dict[int, Node]

    def base(self, r: Rows) -> Expr:
        """The first slot of a case."""
        k = self.layout.rows.index(r)
        return sum(map(as_expr, self.sizes[self.layout.first(r.data) : k]), as_expr(0))

    def slots(self, data: DataType) -> Dim:
        """How many values of a type there are."""
        rows = self.layout.rows
        own = [as_expr(n) for n, r in zip(self.sizes, rows) if r.data == data]
        return as_dim(sum(own, as_expr(0)))


def planted(values: Sequence[Node], types: Sequence[DataType], examples: Sequence[Dim | None],
            edges: Sequence[Edge] = (), chunk: int = CHUNK) -> Forest:  # fmt: skip
    """The rows of values, or of lists of as many values as `examples` says (None: no list)."""
    layout = layout_of(types)
    rows, lists = layout.rows, tuple(n is not None for n in examples)
    told = {"types": tuple(types), "lists": lists, "chunk": chunk}
    counts = census(*values, **told)
    named = lambda name: sym(Symbol(name.lower()))
    sizes = [named(f"{r.data.name}_{r.name}_rows") for r in rows]
    steps = named("steps")
    told_again = tuple(named("values") for _ in values)
    bind_size(counts, symbols=(*sizes, steps, *told_again))
    known = tuple(1 if n is None else n for n in examples)
    found = iter(items(plant(*values, **told, rows=tuple(sizes), steps=steps,
                             roots=known, edges=tuple(edges))))  # fmt: skip
    places = [next(found) for _ in rows]
    parts = [{j: next(found) for j in r.parts} for r in rows]
    table, roots = next(found), [next(found) for _ in values]
    return Forest(layout, list(values), {"types": tuple(types), "lists": lists}, sizes, places,
                  parts, table, roots, dict(zip(layout.owned(edges), found)))  # fmt: skip


def list_of(data: DataType) -> DataType:
    """The type of a list of examples, as a program takes it."""
    found = DataType(f"{data.name}Examples")
    return found.define((Case("End", ()), Case("One", (("value", data), ("rest", found)))))
