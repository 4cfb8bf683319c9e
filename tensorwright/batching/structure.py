"""Functions over data types for many values at once: one batched cell for each case.

    def f(t): match t: Leaf(x) -> a(x); Node(l, r) -> b(f(l), f(r))
->  for each step: results[its leaves] = a(x); results[its nodes] = b(results[l], results[r])

A function that calls itself only on parts of its argument computes each case from its fields and
from results of its parts. So the cell, one step of the function, is what is batched: rows of a case
in one generation, whatever values they belong to. The program itself finds the steps
(`forest.py`): first those of all cases without parts, then the generations, the last one first.
Products that need no part are computed before, for all values of their case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorwright.base.errors import CompileError
from tensorwright.batching.forest import CHUNK, Forest
from tensorwright.batching.lanes import Lanes, Value
from tensorwright.batching.walkers import WAY_OUT, Walker, in_order, kept
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import Expr, Symbol, as_dim, as_expr, ceildiv, maximum, sym
from tensorwright.ir.graph import CONST, Graph, Node, graph, param
from tensorwright.ir.type import Dim, TupleType
from tensorwright.ops.control import items, while_
from tensorwright.ops.data import arms_of
from tensorwright.ops.elementwise import add, less, minimum, mul, sub
from tensorwright.ops.elementwise import maximum as largest
from tensorwright.ops.forest import Rows, read_rows, room
from tensorwright.ops.index import dynamic_slice, dynamic_update_slice, gather
from tensorwright.ops.movement import concat, reshape
from tensorwright.ops.positions import bind_size, full, iota


class Cell(Lanes):
    """Lanes that know their case, and where the results of other values are."""

    def __init__(self, size: Dim, graphs: Mapping[str, Graph], tables: dict[str, list[Node]],
                 walkers: dict[str, Walker]) -> None:  # fmt: skip
        super().__init__(size, graphs)
        self.tables, self.walkers = tables, walkers
        self.case: tuple[Node, Rows, list[Value]] | None = None
        self.kept: dict[Node, Value] = {}  # nodes of arms that are known already

    def block(self, calling=None) -> Cell:
        inner = Cell(self.size, self.graphs, self.tables, self.walkers)
        inner.calling = self.calling if calling is None else calling
        inner.bound, inner.case, inner.kept = self.bound, self.case, self.kept
        return inner

    def node(self, node: Node) -> Value:
        if node.op.name == "match":
            return self.match(node)
        return super().node(node)

    def match(self, node: Node) -> Value:
        """The arm of the case that all lanes have."""
        slots = self.values[node.args[0]][0]
        if self.case is None or slots is not self.case[0]:
            raise _refused(node, "a match on something else than the function's own argument")
        _, rows, fields = self.case
        arms = {c.name if c is not None else None: g for c, g in arms_of(node)}
        arm = arms.get(rows.name)
        own = fields if arm is not None else []
        arm = arms[None] if arm is None else arm
        inner = self.arm(arm, [*own, *(self.values[a] for a in node.args[1:])])
        results = tuple(inner.of(r) for r in arm.results)
        return results if isinstance(node.type, TupleType) else results[0]

    def arm(self, arm: Graph, values: Sequence[Value]) -> Cell:
        inner = self.block()
        inner.values = dict(zip(arm.params, values)) | self.kept
        return inner

    def call(self, node: Node) -> Value:
        walker = self.walkers.get(node.attrs["callee"])
        if walker is None:
            return super().call(node)
        slots = self.values[node.args[walker.position]][0]
        found = tuple((gather(t, slots, axis=0), True) for t in self.tables[walker.name])
        return found if isinstance(node.type, TupleType) else found[0]


def _refused(node: Node, what: str) -> CompileError:
    return CompileError(f"batch: {what} cannot be batched", help=WAY_OUT).located(node.loc)


# ---- the program -------------------------------------------------------------------------------

Where = tuple[str, int]  # a walker and a case
Tables = dict[str, list[Node]]  # a walker's results for all values


@dataclass
class Builder:
    """The program of one forest: in each step as many rows of each case as the table says."""

    forest: Forest
    graphs: Mapping[str, Graph]
    walkers: dict[str, Walker]

    def lanes(self, size: Dim, tables: Tables) -> Cell:
        return Cell(size, self.graphs, tables, self.walkers)

    def tables(self) -> Tables:
        """The results of every walker for every value: one loop over the steps."""
        f = self.forest
        # Cases in order, so that no step reads a table's old contents after it was updated.
        order = sorted(in_order(self.walkers), key=lambda w: f.layout.first(w.data))
        early = self.early()
        flat = [room(shape=(f.slots(w.data), *x.shape), dtype=x.dtype)
                for w in order for x in w.graph.results]  # fmt: skip
        rest = [*self.read(), *(p for own in f.parts for p in own.values()), f.table,
                *(t for found in early.values() for t in found.values()),
                *f.origins.values()]  # fmt: skip

        def body(number: Node, carried: list[Node], own: dict[Node, Node]) -> list[Node]:
            now = iter(carried)
            tables = {w.name: [next(now) for _ in w.graph.results] for w in order}
            for k in range(len(f.layout.rows)):
                self.step(k, number, order, tables, early, own)
            return [t for w in order for t in tables[w.name]]

        done = iter(repeated(f.table.shape[0], flat, rest, body))
        return {w.name: [next(done) for _ in w.graph.results] for w in order}

    def read(self) -> list[Node]:
        """What reading fields takes, and what all values share."""
        shared = dict.fromkeys(x for w in self.walkers.values() for x in w.shared.values()
                               if x.op is not CONST)  # fmt: skip
        return [*self.forest.values, *self.forest.places, *shared]

    def early(self) -> dict[Where, dict[Node, Node]]:
        """Tables of what needs no part, by node: one loop over as many rows of all cases."""
        f, found = self.forest, {}
        for w in self.walkers.values():
            for k, r in enumerate(f.layout.rows):
                if r.data == w.data:
                    found[w.name, k] = kept(w, r.name, self.walkers, self.graphs)
        found = {where: nodes for where, nodes in found.items() if nodes}
        if not found:
            return {}
        flat = [room(shape=(f.sizes[k], *x.shape), dtype=x.dtype)
                for (_, k), nodes in found.items() for x in nodes]  # fmt: skip

        def body(number: Node, carried: list[Node], own: dict[Node, Node]) -> list[Node]:
            now, results = iter(carried), []
            first = reshape(mul(number, integer(CHUNK)), shape=(1,))
            for (name, k), nodes in found.items():
                left = minimum(sub(integer(f.sizes[k], (1,)), first), integer(CHUNK))
                span = Span(first, largest(left, integer(0)))
                lanes, w = self.lanes(span.size, {}), self.walkers[name]
                for y in self.of_fields(lanes, w, k, span, nodes, own):
                    results.append(span.put(next(now), y, first))
            return results

        most = as_expr(0)
        for _, k in found:
            most = maximum(most, as_expr(f.sizes[k]))
        done = iter(repeated(as_dim(ceildiv(most, CHUNK)), flat, self.read(), body))
        return {where: {x: next(done) for x in nodes} for where, nodes in found.items()}

    def of_fields(self, lanes: Cell, w: Walker, k: int, span: Span, nodes: list[Node],
                  own: dict[Node, Node]) -> list[Node]:  # fmt: skip
        """Nodes of a case's arms on some of its rows."""
        r, fields = self.forest.layout.rows[k], self.fields(k, span, own)
        self.share(lanes, w, own)
        found = {}
        for match, case, arm in w.arms():
            if case.name == r.name:
                known = [(fields[j], True) if j in fields else None for j in range(len(case.types))]
                known += [lanes.of(a) if a in lanes.values or a.op is CONST else None
                          for a in match.args[1:]]  # fmt: skip
                inner = lanes.block()
                inner.values = {p: v for p, v in zip(arm.params, known) if v is not None}
                inside = set(arm.nodes())
                found |= {x: inner.with_lanes(inner.of(x)) for x in nodes if x in inside}
        return [found[x] for x in nodes]

    def fields(self, k: int, span: Span, own: dict[Node, Node]) -> dict[int, Node]:
        """The fields of tensor type of some rows of a case, by position."""
        f = self.forest
        places, values = span.of(own[f.places[k]]), [own[x] for x in f.values]
        return {j: read_rows(places, *values, **f.attrs, case=k, position=j)
                for j in f.layout.rows[k].tensors}  # fmt: skip

    def share(self, lanes: Cell, w: Walker, own: dict[Node, Node]) -> None:
        for k, node in w.shared.items():
            lanes.values[w.graph.params[k]] = (own.get(node, node), False)

    def step(self, k: int, number: Node, order: list[Walker], tables: Tables,
             early: dict[Where, dict[Node, Node]], own: dict[Node, Node]) -> None:  # fmt: skip
        """The results of a case's rows of one step, put into the tables."""
        f, r = self.forest, self.forest.layout.rows[k]
        at = concat(reshape(number, shape=(1,)), integer(k, (1,)), integer(0, (1,)), axis=0)
        told = reshape(dynamic_slice(own[f.table], at, sizes=(1, 1, 2)), shape=(2,))
        span = Span(dynamic_slice(told, integer(0, (1,)), sizes=(1,)),
                    dynamic_slice(told, integer(1, (1,)), sizes=(1,)))  # fmt: skip
        fields = self.fields(k, span, own)
        fields |= {j: span.of(own[x]) for j, x in f.parts[k].items()}
        slot = add(span.first, integer(f.base(r), (1,)))
        slots = add(iota(shape=(span.size,)), slot)
        for w in order:
            if w.data != r.data:
                continue
            lanes = self.lanes(span.size, tables)
            lanes.case = (slots, r, [(fields[j], True) for j in range(len(fields))])
            lanes.values = {w.graph.params[w.position]: (slots, True)}
            self.share(lanes, w, own)
            for j, source in w.given.items():
                rows = self.forest.layout.rows_of(self.walkers[source.walker].data, source.case)
                table = own[early[source.walker, rows][source.node]]
                found = gather(table, span.of(own[f.origins[k]]), axis=0)
                lanes.values[w.graph.params[j]] = (found, True)
            lanes.kept = {x: (span.of(own[t]), True)
                          for x, t in early.get((w.name, k), {}).items()}  # fmt: skip
            results = [lanes.with_lanes(lanes.of(x)) for x in w.graph.results]
            tables[w.name] = [span.put(t, y, slot) for t, y in zip(tables[w.name], results)]


class Span:
    """Some rows, `CHUNK` at most: first and number of them are i64[1]."""

    def __init__(self, first: Node, count: Node) -> None:
        self.first, self.size = first, sym(Symbol("rows", 0, CHUNK))
        bind_size(count, symbols=(self.size,))

    def of(self, x: Node) -> Node:
        """These rows of x."""
        starts = concat(self.first, *(integer(0, (1,)) for _ in x.shape[1:]), axis=0)
        return dynamic_slice(x, starts, sizes=(self.size, *x.shape[1:]))

    def put(self, table: Node, y: Node, first: Node) -> Node:
        """The table with y at the rows that begin at `first`."""
        starts = concat(first, *(integer(0, (1,)) for _ in table.shape[1:]), axis=0)
        return dynamic_update_slice(table, y, starts)


def integer(value: Dim | Expr, shape: tuple[int, ...] = ()) -> Node:
    return full(shape=shape, value=as_dim(as_expr(value)), dtype=i64)


Body = Callable[[Node, list[Node], dict[Node, Node]], list[Node]]


def repeated(count: Dim, carried: Sequence[Node], captures: Sequence[Node],
             body: Body) -> list[Node]:  # fmt: skip
    """What is carried after `body(number, carried, what captures are in it)` for each number."""
    start = [integer(0), *carried, *captures]
    params = [param(f"s{k}", x.type) for k, x in enumerate(start)]
    behind = 1 + len(carried)
    after = body(params[0], params[1:behind], dict(zip(captures, params[behind:])))
    step = graph("step", params, [add(params[0], integer(1)), *after])
    tested = [param(p.name, p.type) for p in params]
    cond = graph("more", tested, [less(tested[0], integer(count))])
    return items(while_(*start, cond=cond, body=step, carried=behind))[1:]
