"""Functions as values, and calls: known ones are written out or specialized, others become data.

    map(f, xs), f = closure(b, body=<graph (x, b)>)     ->   map_2(b, xs), which knows the body
    apply(closure(b, body=g), x)                        ->   g(x, b), written out
    apply(f, x)                                         ->   call(f, x, callee='apply_Function')

First, as long as something changes: functions that are small or called once, and do not call
themselves, are written out; a function that gets a known function gets what that captures instead.
Then every function type that is left becomes a sum type with a case for each closure, and its
calls a match on it (defunctionalization, Reynolds 1972).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, param, rebuild, subgraphs, with_args
from tensorwright.ir.graph import graph as make_graph
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import (
    Case,
    DataType,
    FunctionType,
    TensorType,
    TupleType,
    Type,
    leaves,
    type_symbols,
)  # fmt: skip
from tensorwright.ops.control import call, make_tuple
from tensorwright.ops.data import closure, construct, match_on
from tensorwright.passes.bodies import captures_from
from tensorwright.passes.splice import is_plain, splice

SMALL = 12  # operators of a function that is written out wherever it is called
ROUNDS = 40
MOST = 16  # specializations of one function


def resolve_functions(m: Module) -> Module:
    """`m` without function values, and with fewer calls."""
    names = {n.op.name for g in m.all_graphs() for n in g.nodes()}
    if not names & {"call", "closure", "apply"}:
        return m
    made: dict[tuple, str] = {}
    for _ in range(ROUNDS):
        new = _Resolver(m, made).run()
        if new is m:
            break
        m = new
    return _Data(m).run() if uses_functions(m) else m


def uses_functions(m: Module) -> bool:
    return any(
        isinstance(leaf, FunctionType)
        for g in m.all_graphs() for n in g.nodes() for leaf in leaves(n.type)
    ) or any(isinstance(f, FunctionType) for t in m.data_types().values()
             for c in t.cases for f in c.types)  # fmt: skip


def with_bodies(node: Node, f: Callable[[Graph], Graph]) -> Node:
    """The node with its bodies rewritten; those of closures wait until they are written out."""
    if node.op is closure or not subgraphs(node):
        return node
    attrs = {k: f(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
    return node if all(attrs[k] is v for k, v in node.attrs.items()) else replace(node, attrs=attrs)


def as_one(results: list[Node]) -> Node:
    return results[0] if len(results) == 1 else make_tuple(*results)


# ---- known functions ---------------------------------------------------------------------------


class _Resolver:
    """One round over a module. made: (function, (position, body) of known operands) -> the copy of
    the function that knows them, from this round and those before."""

    def __init__(self, m: Module, made: dict[tuple, str]):
        self.m, self.made = m, made
        self.graphs = dict(m.graphs)
        self.calls: dict[str, int] = {}
        self.edges: dict[str, set[str]] = {k: set() for k in m.graphs}
        for name, g in m.graphs.items():
            for inner in Module({name: g}, entry=name).all_graphs():
                for n in inner.nodes():
                    if n.op is call:
                        callee = n.attrs["callee"]
                        self.calls[callee] = self.calls.get(callee, 0) + 1
                        self.edges[name].add(callee)
        self.recursive = {k for k in m.graphs if k in self.reached(self.edges[k])}
        self.recursive |= set(made.values())  # as long as their calls of themselves are not found

    def reached(self, start: set[str]) -> set[str]:
        seen, todo = set(), list(start)
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += self.edges.get(name, ())
        return seen

    def run(self) -> Module:
        for name in list(self.graphs):
            self.graphs[name] = self.graph(self.graphs[name])
        changed = any(self.m.graphs.get(k) is not g for k, g in self.graphs.items())
        if not changed:
            return self.m
        return without_uncalled(replace(self.m, graphs=self.graphs))

    def graph(self, g: Graph) -> Graph:
        return rebuild(g, lambda n, args: self.node(with_bodies(with_args(n, args), self.graph)))

    def node(self, n: Node) -> Node:
        known = [k for k, a in enumerate(n.args) if a is not None and a.op is closure]
        match n.op.name:
            case "apply" if known[:1] == [0]:
                f = n.args[0]
                if is_plain(f.attrs["body"]):
                    return as_one(splice(f.attrs["body"], [*n.args[1:], *f.args]))
            case "call":
                if known:
                    return self.specialized(n, known)
                return self.written_out(n)
        found = captures_from(n) if known else None
        if found is not None:
            inside = [k for k in known if k >= found[0]]
            return pushed_in(n, inside[0], *found) if inside else n
        return n

    def written_out(self, n: Node) -> Node:
        name = n.attrs["callee"]
        callee = self.m.graphs.get(name)
        if callee is None or name in self.recursive or not is_plain(callee):
            return n
        own = [x for x in callee.nodes() if x.op not in (PARAM, CONST)]
        gives = any(isinstance(t, FunctionType) for r in callee.results for t in leaves(r.type))
        if gives or self.calls.get(name) == 1 or len(own) <= SMALL:
            return as_one(splice(callee, n.args))
        return n

    def copies(self, name: str) -> int:
        return sum(callee == name for callee, _ in self.made)

    def specialized(self, n: Node, known: list[int]) -> Node:
        """The call of a copy of the function that knows the bodies of its operands `known`."""
        name = n.attrs["callee"]
        key = (name, tuple((k, n.args[k].attrs["body"]) for k in known))
        callee = self.graphs.get(name)
        if callee is None or (key not in self.made and self.copies(name) >= MOST):
            return n
        if self.made.get(key) not in self.graphs:
            copy = self.made[key] = unique(name, self.graphs)
            self.graphs[copy] = callee  # the name is taken
            self.graphs[copy] = knowing(callee, copy, {k: n.args[k] for k in known})
        args = [x for k, a in enumerate(n.args) for x in (a.args if k in known else (a,))]
        made = call(*args, callee=self.made[key], type=n.attrs["type"])
        return replace(made, name=n.name, loc=n.loc)


def knowing(g: Graph, name: str, known: dict[int, Node]) -> Graph:
    """`g` with parameters for what known functions capture in place of those functions."""
    params: list[Node] = []
    values: dict[Node, Node] = {}
    taken: set[str] = {p.name for k, p in enumerate(g.params) if k not in known}
    for k, p in enumerate(g.params):
        f = known.get(k)
        if f is None:
            params.append(p)
            continue
        own = []
        for a in f.args:
            fresh = unique(f"{p.name}_{len(own)}", taken)
            taken.add(fresh)
            own.append(param(fresh, a.type))
        params += own
        values[p] = replace(f, args=tuple(own))

    def visit(n: Node, args: tuple) -> Node:
        return with_args(n, tuple(values.get(a, a) for a in args))

    body = rebuild(g, visit)
    results = tuple(values.get(r, r) for r in body.results)
    return replace(body, name=name, params=tuple(params), results=results)


def pushed_in(n: Node, at: int, first: int, own: dict[str, int]) -> Node:
    """A control-flow node with a known function made inside of its bodies."""
    f = n.args[at]
    attrs = dict(n.attrs)
    for name, start in own.items():
        g = attrs[name]
        k = start + at - first
        inner = knowing(g, g.name, {k: f})
        # what it captures is captured last
        count = len(f.args)
        params = (*inner.params[:k], *inner.params[k + count :], *inner.params[k : k + count])
        attrs[name] = replace(inner, params=params)
    args = (*n.args[:at], *n.args[at + 1 :], *f.args)
    return replace(n, args=args, attrs=attrs)


def without_uncalled(m: Module) -> Module:
    """`m` without the graphs that nothing calls any more."""
    found: dict[str, Graph] = {}
    todo = list(dict.fromkeys((m.entry, *m.offered)))
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = m.graphs[name]
        for g in Module({name: m.graphs[name]}, entry=name).all_graphs():
            todo += [n.attrs["callee"] for n in g.nodes() if n.op is call]
    return replace(m, graphs={k: g for k, g in m.graphs.items() if k in found})


# ---- functions as data -------------------------------------------------------------------------


class _Data:
    """Function types as sum types, one case a closure."""

    def __init__(self, m: Module):
        self.m = m
        self.names = {t.name for t in m.data_types().values()} | set(m.graphs)
        self.types: dict[Type, DataType] = {}
        self.cases: dict[FunctionType, list[tuple[Case, Graph]]] = {}
        self.bodies: dict[Graph, str] = {}

    def run(self) -> Module:
        for g in (self.m.graphs[e] for e in dict.fromkeys((self.m.entry, *self.m.offered))):
            for n in (*g.params, *g.results):
                if any(isinstance(t, FunctionType) for t in leaves(n.type)):
                    raise CompileError(
                        f"{g.name} takes or gives a function",
                        help="programs take and give tensors and values",
                    )
        graphs = {name: self.graph(g) for name, g in self.m.graphs.items()}
        for f in self.cases:
            name = self.applier(f)
            graphs[name] = self.apply_graph(f, name, self.cases[f])
        return replace(self.m, graphs=graphs)

    def applier(self, f: FunctionType) -> str:
        return f"apply_{self.type(f).name}"

    def type(self, t: Type) -> Type:
        if isinstance(t, TupleType):
            return TupleType(tuple(map(self.type, t.items)))
        if isinstance(t, TensorType):
            return t
        found = self.types.get(t)
        if found is None and isinstance(t, FunctionType):
            name = unique("Function", self.names)
            self.names.add(name)
            found = self.types[t] = DataType(name)
            self.cases[t] = []
        elif found is None:
            found = self.types[t] = DataType(t.name, origin=t.origin)
            found.define(Case(c.name, tuple((n, self.type(f)) for n, f in c.fields))
                         for c in t.cases)  # fmt: skip
        return found

    def graph(self, g: Graph) -> Graph:
        new: dict[Node, Node] = {p: replace(p, type=self.type(p.type)) for p in g.params}
        for n in g.nodes():
            if n not in new:
                new[n] = self.node(n, tuple(None if a is None else new[a] for a in n.args))
        return replace(g, params=tuple(new[p] for p in g.params),
                       results=tuple(new[r] for r in g.results),
                       binders=tuple(new[b] for b in g.binders))  # fmt: skip

    def node(self, n: Node, args: tuple) -> Node:
        if n.op is closure:
            return replace(self.construct(n, args), name=n.name, loc=n.loc)
        if n.op.name == "apply":
            f = n.args[0].type
            made = call(*args, callee=self.applier(f), type=self.type(n.type))
            return replace(made, name=n.name, loc=n.loc)
        attrs = {k: self.attr(v) for k, v in n.attrs.items()}
        return replace(n, args=args, attrs=attrs, type=self.type(n.type))

    def attr(self, v):
        if isinstance(v, Graph):
            return self.graph(v)
        return self.type(v) if isinstance(v, (DataType, FunctionType, TupleType)) else v

    def construct(self, n: Node, args: tuple) -> Node:
        f: FunctionType = n.type
        data, body = self.type(f), n.attrs["body"]
        name = self.bodies.get(body)
        if name is None:
            fields = tuple((f"c{k}", a.type) for k, a in enumerate(args))
            for _, t in fields:
                if isinstance(t, TensorType) and type_symbols(t):
                    raise CompileError(
                        f"a function value captures {t}, whose size is known only at run time",
                        help="give it to the function as an argument, or in a data type",
                    ).located(n.loc)
            name = self.bodies[body] = f"F{len(self.cases[f])}"
            self.cases[f].append((Case(name, fields), self.graph(body)))
            data.define([c for c, _ in self.cases[f]])
        return construct(*args, data=data, case=name)

    def apply_graph(self, f: FunctionType, name: str, rows: list[tuple[Case, Graph]]) -> Graph:
        data = self.type(f)
        fn = param("f", data)
        args = [param(f"a{k}", self.type(t)) for k, t in enumerate(f.params)]
        count = len(args)
        arms = {
            c.name: replace(g, name=c.name.lower(), params=(*g.params[count:], *g.params[:count]))
            for c, g in rows
        }
        if not arms:
            raise CompileError(f"nothing makes a {f} that is called")
        return make_graph(name, [fn, *args], [match_on(fn, args, arms)])
