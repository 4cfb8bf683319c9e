"""Functions that walk over values of data types: which there are, and what their calls pass.

    child_sum(t):  match t: Word(x, ts) -> g = x @ w; ... summed(ts, g[:8]) ...
    summed(ts, y): match ts: Nil -> 0; Cons(t, rest) -> cell(y, child_sum(t)) + summed(rest, y)
->  shared: w    given: y of summed is g[:8] of the Word that its list begins at

An argument beside the value is the same in every call (shared), or comes from the fields of one
case and is passed on unchanged (given): then all that a row needs is which row that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tensorwright.base.errors import CompileError
from tensorwright.batching.blocks import called, cyclic
from tensorwright.ir.graph import CONST, Graph, Node, bound_symbols, subgraphs
from tensorwright.ir.type import Case, DataType, TensorType
from tensorwright.ops.data import arms_of
from tensorwright.ops.forest import Edge, layout_of
from tensorwright.ops.linalg import dot_general, matmul

WAY_OUT = "call it on the fields that a match gives, with the same other arguments in every call"
PRODUCTS = (matmul, dot_general)


@dataclass(frozen=True)
class Own:
    """A parameter of the walker that a call stands in."""

    walker: str
    position: int


@dataclass(frozen=True)
class Part:
    """A field of a walker's value that is a value itself."""

    walker: str
    case: str
    position: int


@dataclass(frozen=True)
class Source:
    """A node of the arm of one case."""

    walker: str
    case: str
    node: Node


# A node of the main graph or a constant; None: computed where nothing is known of it.
Token = Node | Own | Part | Source | None


@dataclass
class Walker:
    """A function that is computed for all values of a type."""

    name: str
    graph: Graph
    position: int  # of the value among its parameters
    shared: dict[int, Node] = field(default_factory=dict)  # other parameters, by position
    given: dict[int, Source] = field(default_factory=dict)  # those that come from fields
    sites: list[Site] = field(default_factory=list)  # of its calls in walkers

    @property
    def data(self) -> DataType:
        return self.graph.params[self.position].type

    def arms(self) -> Iterator[tuple[Node, Case, Graph]]:
        """(match, case, arm) of the matches on its own value."""
        own = self.graph.params[self.position]
        for n in self.graph.nodes():
            if n.op.name == "match" and n.args[0] is own:
                yield from ((n, case, arm) for case, arm in arms_of(n) if case is not None)


@dataclass(frozen=True)
class Site:
    """What a call of a walker gives for a parameter, and for its value."""

    callee: Walker
    position: int
    token: Token
    value: Token


def find_walkers(main: Graph, graphs: Mapping[str, Graph]) -> dict[str, Walker]:
    """The functions that are computed value by value, with what their calls pass."""
    found: dict[str, Walker] = {}
    for name in sorted(cyclic(graphs)):
        g = graphs[name]
        places = [k for k, p in enumerate(g.params) if isinstance(p.type, DataType)]
        if not places:
            continue
        if len(places) > 1:
            raise CompileError(f"batch: {name} walks two values at once", help=WAY_OUT)
        found[name] = Walker(name, g, places[0])
    sites = list(_sites(main, {p: p for p in main.params}, found, graphs))
    for w in found.values():
        own = {p: Own(w.name, k) for k, p in enumerate(w.graph.params)}
        sites += _sites(w.graph, own, found, graphs)
    _settle(found, sites)
    for w in found.values():
        w.sites = [s for s in sites if s.callee is w and s.position in w.given]
        for source in w.given.values():
            if source.node not in early(found[source.walker], source.case, found, graphs):
                raise _differs(w, next(iter(w.given)))
    return found


def _sites(g: Graph, known: Mapping[Node, Token], walkers: Mapping[str, Walker],
           graphs: Mapping[str, Graph],
           place: tuple[str, str] | None = None) -> Iterator[Site]:  # fmt: skip
    """What calls pass; `place`: the walker and the case whose arm `g` is."""

    def token(a: Node) -> Token:
        found = a if a.op is CONST else known.get(a)
        return Source(*place, a) if found is None and place is not None else found

    for node in g.nodes():
        callee = node.attrs["callee"] if node.op.name == "call" else None
        if callee in walkers:
            w = walkers[callee]
            value = token(node.args[w.position])
            yield from (Site(w, k, token(a), value) for k, a in enumerate(node.args)
                        if k != w.position)  # fmt: skip
        elif callee is not None:
            body = graphs[callee]
            inner = {p: token(a) for p, a in zip(body.params, node.args)}
            yield from _sites(body, inner, walkers, graphs)
        arms = arms_of(node) if node.op.name == "match" else [(None, s) for s in subgraphs(node)]
        own = token(node.args[0]) if node.op.name == "match" else None
        for case, body in arms:
            inner = {p: token(a) for p, a in captured(node, body)}
            here = None
            if case is not None and isinstance(own, Own):
                here = (own.walker, case.name)
                inner |= {body.params[k]: Part(*here, k) for k in parts_of(case)}
            yield from _sites(body, inner, walkers, graphs, here)


def captured(node: Node, body: Graph) -> list[tuple[Node, Node]]:
    """(parameter of a body, what it captures) of a branch."""
    args = node.args[1:] if node.op.name in ("match", "if_") else ()
    return list(zip(body.params[len(body.params) - len(args) :], args))


def parts_of(case: Case) -> list[int]:
    return [k for k, t in enumerate(case.types) if isinstance(t, DataType)]


def _settle(walkers: Mapping[str, Walker], sites: Sequence[Site]) -> None:
    fixed: dict[tuple[str, int], Node | Source] = {}
    changed = True
    while changed:
        changed = False
        for s in sites:
            key, token = (s.callee.name, s.position), s.token
            if isinstance(token, Own):
                token = fixed.get((token.walker, token.position), token)
            if isinstance(token, Own):
                continue
            if token is None or isinstance(token, Part) or fixed.get(key, token) != token:
                raise _differs(s.callee, s.position)
            changed |= key not in fixed
            fixed[key] = token
    for (name, k), token in fixed.items():
        w = walkers[name]
        (w.given if isinstance(token, Source) else w.shared)[k] = token


def _differs(w: Walker, position: int) -> CompileError:
    return CompileError(
        f"batch: argument {position + 1} of {w.name} differs between its calls",
        help="only the value may change from call to call; compute the rest from it",
    )


def edges_of(walkers: Mapping[str, Walker], types: Sequence[DataType]) -> list[Edge]:
    """Where origins of values of these types come from, for all that walkers are given."""
    layout = layout_of(types)
    found: dict[tuple[int, int], bool] = {}
    taking = [w for w in walkers.values() if w.given]
    for s in (s for w in taking for s in w.sites):
        on = isinstance(s.token, Own)
        if on and isinstance(s.value, Own):
            continue  # another function on the same value
        if not isinstance(s.value, Part):
            raise _differs(s.callee, s.position)
        data = walkers[s.value.walker].data
        edge = (layout.rows_of(data, s.value.case), s.value.position)
        if found.setdefault(edge, on) is not on:
            raise _differs(s.callee, s.position)
    for w in taking:
        reached = {(k, j) for k, r in enumerate(layout.rows)
                   for j, t in r.parts.items() if t == w.data}  # fmt: skip
        if w.data in types or not reached <= set(found):
            raise _differs(w, next(iter(w.given)))
    return [(*edge, on) for edge, on in found.items()]


# ---- what needs no part ------------------------------------------------------------------------


def early(w: Walker, case: str, walkers: Mapping[str, Walker],
          graphs: Mapping[str, Graph]) -> set[Node]:  # fmt: skip
    """Nodes of the arms of a case that differ between values and need nothing but their fields."""
    found: set[Node] = set()
    shared = {w.graph.params[k] for k in w.shared}
    for match, c, arm in w.arms():
        if c.name != case:
            continue
        found |= {p for p, t in zip(arm.params, c.types) if isinstance(t, TensorType)}
        same = {p for p, a in captured(match, arm) if a in shared or a.op is CONST}
        for n in arm.nodes():
            args = [a for a in n.args if a is not None]
            if any(a in found for a in args):
                if all(a in found or a in same for a in args) and _plain(n, walkers, graphs):
                    found.add(n)
            elif n.op is CONST or (args and all(a in same for a in args)):
                same.add(n)
    return found


def _plain(n: Node, walkers: Mapping[str, Walker], graphs: Mapping[str, Graph]) -> bool:
    """Whether a node is a tensor whose size is known, and calls no walker."""
    names, seen = [n.attrs["callee"]] if n.op.name == "call" else [], set()
    for s in subgraphs(n):
        names += called(s)
    while names:
        name = names.pop()
        if name in walkers:
            return False
        if name not in seen:
            seen.add(name)
            names += called(graphs[name])
    return isinstance(n.type, TensorType) and not bound_symbols(n)


def kept(w: Walker, case: str, walkers: Mapping[str, Walker],
         graphs: Mapping[str, Graph]) -> list[Node]:  # fmt: skip
    """What is worth computing for all values of a case before their parts: products of fields with
    what follows from them, as far as the rest of the cell reads it; and what others are given."""
    found = early(w, case, walkers, graphs)
    wanted = {s.node: None for v in walkers.values() for s in v.given.values()
              if (s.walker, s.case) == (w.name, case)}  # fmt: skip
    for _, c, arm in w.arms():
        if c.name != case or not parts_of(c):
            continue  # without parts everything is early
        heavy: set[Node] = set()
        for n in arm.nodes():
            if n in found and (n.op in PRODUCTS or any(a in heavy for a in n.args)):
                heavy.add(n)
            else:
                wanted |= {a: None for a in n.args if a in heavy}
        wanted |= {r: None for r in arm.results if r in heavy}
    return list(wanted)


# ---- order -------------------------------------------------------------------------------------


def in_order(walkers: Mapping[str, Walker]) -> list[Walker]:
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


def _same_value(g: Graph, same: set[Node], walkers: Mapping[str, Walker]) -> set[str]:
    found = set()
    for node in g.nodes():
        if node.op.name == "call" and node.attrs["callee"] in walkers:
            w = walkers[node.attrs["callee"]]
            found |= {w.name} if node.args[w.position] in same else set()
        for body in subgraphs(node):
            inner = {p for p, a in captured(node, body) if a in same}
            found |= _same_value(body, inner, walkers)
    return found
