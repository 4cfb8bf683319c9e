"""Functions over data types for many values at once: one batched cell for each case.

    def f(t): match t: Leaf(x) -> a(x); Node(l, r) -> b(f(l), f(r))
->  for each step: results[its leaves] = a(x); results[its nodes] = b(results[l], results[r])

A function that calls itself only on parts of its argument computes each case from its fields and
from results of its parts. So the cell, one step of the function, is what is batched: rows of a case
in one generation, whatever values they belong to. The program itself finds the steps
(`forest.py`): first those of all cases without parts, then the generations, the last one first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorwright.base.errors import CompileError
from tensorwright.batching.blocks import cyclic
from tensorwright.batching.forest import CHUNK, Forest
from tensorwright.batching.lanes import Lanes, Value
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import Symbol, as_dim, sym
from tensorwright.ir.graph import CONST, Graph, Node, graph, param, subgraphs
from tensorwright.ir.type import DataType, Dim, TupleType
from tensorwright.ops.control import items, while_
from tensorwright.ops.data import arms_of
from tensorwright.ops.elementwise import add, less
from tensorwright.ops.forest import Rows, read_rows, room
from tensorwright.ops.index import dynamic_slice, dynamic_update_slice, gather
from tensorwright.ops.movement import concat, reshape
from tensorwright.ops.positions import bind_size, full, iota

WAY_OUT = "call it on the fields that a match gives, with the same other arguments in every call"


@dataclass
class Walker:
    """A function that is computed for all values of a type."""

    name: str
    graph: Graph
    position: int  # of the value among its parameters
    shared: dict[int, Node] = field(default_factory=dict)  # other parameters, by position

    @property
    def data(self) -> DataType:
        return self.graph.params[self.position].type


class Cell(Lanes):
    """Lanes that know their case, and where the results of other values are."""

    def __init__(self, size: Dim, graphs: Mapping[str, Graph], tables: dict[str, list[Node]],
                 walkers: dict[str, Walker]) -> None:  # fmt: skip
        super().__init__(size, graphs)
        self.tables, self.walkers = tables, walkers
        self.case: tuple[Node, Rows, list[Value]] | None = None

    def block(self, calling=None) -> Cell:
        inner = Cell(self.size, self.graphs, self.tables, self.walkers)
        inner.calling = self.calling if calling is None else calling
        inner.bound, inner.case = self.bound, self.case
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
        inner = self.block()
        captures = [self.values[a] for a in node.args[1:]]
        inner.values = dict(zip(arm.params, [*own, *captures]))
        results = tuple(inner.of(r) for r in arm.results)
        return results if isinstance(node.type, TupleType) else results[0]

    def call(self, node: Node) -> Value:
        walker = self.walkers.get(node.attrs["callee"])
        if walker is None:
            return super().call(node)
        slots = self.values[node.args[walker.position]][0]
        found = tuple((gather(t, slots, axis=0), True) for t in self.tables[walker.name])
        return found if isinstance(node.type, TupleType) else found[0]


def _refused(node: Node, what: str) -> CompileError:
    return CompileError(f"batch: {what} cannot be batched", help=WAY_OUT).located(node.loc)


# ---- which functions, and what they share ------------------------------------------------------


def find_walkers(main: Graph, graphs: Mapping[str, Graph]) -> dict[str, Walker]:
    """The functions that are computed value by value, with the arguments that all calls share."""
    found: dict[str, Walker] = {}
    for name in sorted(cyclic(graphs)):
        g = graphs[name]
        places = [k for k, p in enumerate(g.params) if isinstance(p.type, DataType)]
        if not places:
            continue
        if len(places) > 1:
            raise CompileError(f"batch: {name} walks two values at once", help=WAY_OUT)
        found[name] = Walker(name, g, places[0])
    sites: list[tuple[Walker, int, object]] = []
    _sites(main, {p: p for p in main.params}, found, graphs, sites)
    for w in found.values():
        own = {p: (w.name, k) for k, p in enumerate(w.graph.params)}
        _sites(w.graph, own, found, graphs, sites)
    _settle(found, sites)
    return found


def _sites(g: Graph, known: dict, walkers, graphs, sites: list) -> None:
    """What each call of a walker passes: a node of the main graph, a constant, (walker, position)
    of a parameter passed on, or None."""
    for node in g.nodes():
        token = lambda a: a if a.op is CONST else known.get(a)
        callee = node.attrs["callee"] if node.op.name == "call" else None
        if callee in walkers:
            w = walkers[callee]
            sites += [(w, k, token(a)) for k, a in enumerate(node.args) if k != w.position]
        elif callee is not None:
            body = graphs[callee]
            inner = {p: token(a) for p, a in zip(body.params, node.args)}
            _sites(body, inner, walkers, graphs, sites)
        for body in subgraphs(node):
            first = {"match": 1, "if_": 1}.get(node.op.name)
            captured = node.args[first:] if first is not None else ()
            behind = body.params[len(body.params) - len(captured) :]
            inner = {p: token(a) for p, a in zip(behind, captured)}
            _sites(body, inner, walkers, graphs, sites)


def _settle(walkers: dict[str, Walker], sites: list) -> None:
    changed = True
    while changed:
        changed = False
        for w, k, token in sites:
            if isinstance(token, tuple):
                token = walkers[token[0]].shared.get(token[1], token)
            if isinstance(token, tuple):
                continue
            if token is None or w.shared.get(k, token) is not token:
                raise CompileError(
                    f"batch: argument {k + 1} of {w.name} differs between its calls",
                    help="only the value may change from call to call; compute the rest from it",
                )
            changed |= k not in w.shared
            w.shared[k] = token


def in_order(walkers: dict[str, Walker]) -> list[Walker]:
    """Walkers that need another one's result for the same value come after it."""
    needs = {w.name: _same_value(w.graph, {w.graph.params[w.position]}, walkers)
             for w in walkers.values()}  # fmt: skip
    done: list[str] = []
    while len(done) < len(needs):
        ready = [n for n, before in needs.items() if n not in done and before <= set(done)]
        if not ready:
            raise CompileError(f"batch: {', '.join(needs)} call each other on the same value",
                               help=WAY_OUT)  # fmt: skip
        done += ready
    return [walkers[n] for n in done]


def _same_value(g: Graph, same: set[Node], walkers) -> set[str]:
    found = set()
    for node in g.nodes():
        if node.op.name == "call" and node.attrs["callee"] in walkers:
            w = walkers[node.attrs["callee"]]
            found |= {w.name} if node.args[w.position] in same else set()
        for body in subgraphs(node):
            captured = node.args[1:] if node.op.name in ("match", "if_") else ()
            behind = body.params[len(body.params) - len(captured) :]
            found |= _same_value(body, {p for p, a in zip(behind, captured) if a in same}, walkers)
    return found


# ---- the program -------------------------------------------------------------------------------


@dataclass
class Builder:
    """The program of one forest: in each step as many rows of each case as the table says."""

    forest: Forest
    graphs: Mapping[str, Graph]
    walkers: dict[str, Walker]

    def lanes(self, size: Dim, tables: dict[str, list[Node]]) -> Cell:
        return Cell(size, self.graphs, tables, self.walkers)

    def cell(self, w: Walker, r: Rows, size: Dim, tables, own: Node, fields: dict[int, Node],
             shared: dict[Node, Node]) -> list[Node]:  # fmt: skip
        """A walker's results for rows of one case; `own` are their slots."""
        lanes = self.lanes(size, tables)
        values = [(fields[j], True) for j in range(len(r.tensors) + len(r.parts))]
        lanes.case = (own, r, values)
        lanes.values = {w.graph.params[w.position]: (own, True)}
        for k, node in w.shared.items():
            lanes.values[w.graph.params[k]] = (shared.get(node, node), False)
        return [lanes.with_lanes(lanes.of(x)) for x in w.graph.results]

    def tables(self) -> dict[str, list[Node]]:
        """The results of every walker for every value: one loop over the steps."""
        order, f = in_order(self.walkers), self.forest
        flat = [room(shape=(f.slots(w.data), *x.shape), dtype=x.dtype)
                for w in order for x in w.graph.results]  # fmt: skip
        shared = list(dict.fromkeys(x for w in order for x in w.shared.values()
                                    if x.op is not CONST))  # fmt: skip
        rest = [*f.values, *f.places, *(p for own in f.parts for p in own.values()), f.table,
                *shared]  # fmt: skip
        step = full(shape=(), value=0, dtype=i64)
        params = [param(f"s{k}", x.type) for k, x in enumerate([step, *flat, *rest])]
        own = dict(zip(rest, params[1 + len(flat) :]))
        now = iter(params[1:])
        tables = {w.name: [next(now) for _ in w.graph.results] for w in order}
        for k in range(len(f.layout.rows)):
            self.step(k, params[0], order, tables, own)
        after = [t for w in order for t in tables[w.name]]
        one = full(shape=(), value=1, dtype=i64)
        body = graph("step", params, [add(params[0], one), *after])
        tested = [param(p.name, p.type) for p in params]
        last = full(shape=(), value=f.table.shape[0], dtype=i64)
        cond = graph("more", tested, [less(tested[0], last)])
        y = while_(step, *flat, *rest, cond=cond, body=body, carried=1 + len(flat))
        done = iter(items(y)[1:])
        return {w.name: [next(done) for _ in w.graph.results] for w in order}

    def step(self, k: int, number: Node, order, tables, own: dict[Node, Node]) -> None:
        """The results of a case's rows of one step, put into the tables."""
        f, r = self.forest, self.forest.layout.rows[k]
        zero = full(shape=(1,), value=0, dtype=i64)
        at = concat(reshape(number, shape=(1,)), full(shape=(1,), value=k, dtype=i64), zero,
                    axis=0)  # fmt: skip
        span = reshape(dynamic_slice(own[f.table], at, sizes=(1, 1, 2)), shape=(2,))
        first = dynamic_slice(span, zero, sizes=(1,))
        count = dynamic_slice(span, full(shape=(1,), value=1, dtype=i64), sizes=(1,))
        n = sym(Symbol("rows", 0, CHUNK))
        bind_size(count, symbols=(n,))
        rows = lambda x: dynamic_slice(own[x], first, sizes=(n,))
        places, values = rows(f.places[k]), [own[x] for x in f.values]
        fields = {j: read_rows(places, *values, **f.attrs, case=k, position=j) for j in r.tensors}
        fields |= {j: rows(x) for j, x in f.parts[k].items()}
        slot = add(first, full(shape=(1,), value=as_dim(f.base(r)), dtype=i64))
        slots = add(iota(shape=(n,)), slot)
        for w in order:
            if w.data != r.data:
                continue
            found = self.cell(w, r, n, tables, slots, fields, own)
            starts = lambda t: concat(slot, *(zero for _ in t.shape[1:]), axis=0)
            tables[w.name] = [dynamic_update_slice(t, y, starts(t))
                              for t, y in zip(tables[w.name], found)]  # fmt: skip
