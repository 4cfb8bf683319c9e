"""Patterns over graphs and the engine that applies rewrite rules to a fixed point.

    rule("transpose-of-transpose", P.transpose(P.transpose(x, perm=p), perm=q),
         lambda x, p, q: transpose(x, perm=tuple(p[i] for i in q)))

A replacement inherits the name and place of what it replaces and must have its type; a graph in
which nothing matches comes back as the same object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorwright.base import trace
from tensorwright.base.errors import InternalError
from tensorwright.ir.build import location
from tensorwright.ir.graph import CONST, Graph, Node, bound_symbols, with_args

Bindings = dict[str, object]
Matcher = Callable[[Node, Bindings, dict[Node, int]], bool]

_STEPS = 1000  # how often one place may be rewritten before the rules count as endless


@dataclass(frozen=True)
class V:
    """Any node (only a constant, if so asked); the same name twice is the same node."""

    name: str
    const: bool = False


@dataclass(frozen=True)
class A:
    """The value of an attribute."""

    name: str


@dataclass(frozen=True)
class Rest:
    """All remaining operands, as a tuple."""

    name: str


@dataclass(frozen=True)
class Once:
    """A node that matches `pattern` and has no other use."""

    pattern: Pattern


@dataclass(frozen=True)
class Apply:
    """A node of operator `op` with these operands and attributes (others are free)."""

    op: str
    args: tuple
    attrs: tuple[tuple[str, object], ...]


Pattern = V | Apply | Once | int | float


class _Patterns:
    def __getattr__(self, op: str) -> Callable[..., Apply]:
        return lambda *args, **attrs: Apply(op, args, tuple(attrs.items()))


P = _Patterns()


def once(pattern: Pattern) -> Once:
    """`pattern`, if nothing else uses the node."""
    return Once(pattern)


@dataclass(frozen=True, eq=False)
class Rule:
    name: str
    root: str
    match: Matcher
    build: Callable[[Bindings], Node | None]
    when: Callable[[Bindings], bool]


def rule(name: str, pattern: Apply, build: Callable, when: Callable | None = None) -> Rule:
    """Replace what matches `pattern` by build(...) where when(...) holds.

    Both take any of the names in the pattern, and `node` for the matched node. A build that gives
    None declines."""
    names = _names(pattern) | {"node"}
    return Rule(name, pattern.op, _compile(pattern), _caller(name, build, names),
                _caller(name, when, names) if when else lambda b: True)  # fmt: skip


def _names(p) -> set[str]:
    match p:
        case V() | A() | Rest():
            return {p.name}
        case Once():
            return _names(p.pattern)
        case Apply():
            return {n for a in (*p.args, *(v for _, v in p.attrs)) for n in _names(a)}
    return set()


def _caller(name: str, f: Callable, known: set[str]) -> Callable[[Bindings], object]:
    wanted = tuple(inspect.signature(f).parameters)
    unknown = set(wanted) - known
    if unknown:
        raise TypeError(f"rule {name}: {', '.join(sorted(unknown))} is not in the pattern")
    return lambda b: f(*(b[w] for w in wanted))


# ---- matching ----------------------------------------------------------------------------------


def _compile(p) -> Matcher:
    match p:
        case V():
            return _match_variable(p)
        case Once():
            return _match_once(_compile(p.pattern))
        case Apply():
            return _match_apply(p)
        case bool() | int() | float():
            return _match_number(p)
        case None:
            return lambda node, b, uses: node is None
    raise TypeError(f"{p!r} is no pattern")


def _match_variable(p: V) -> Matcher:
    name = p.name

    def match(node: Node, b: Bindings, uses: dict[Node, int]) -> bool:
        if node is None or (p.const and node.op is not CONST):
            return False
        return b.setdefault(name, node) is node

    return match


def _match_once(inner: Matcher) -> Matcher:
    return lambda node, b, uses: uses.get(node, 0) == 1 and inner(node, b, uses)


def _match_number(value: float) -> Matcher:
    def match(node: Node, b: Bindings, uses: dict[Node, int]) -> bool:
        if node is None or node.op is not CONST:
            return False
        array = node.attrs["value"]
        return array.size > 0 and bool(np.all(array == np.asarray(value, array.dtype)))

    return match


def _match_apply(p: Apply) -> Matcher:
    op = p.op
    rest = p.args[-1].name if p.args and isinstance(p.args[-1], Rest) else None
    inner = [_compile(a) for a in (p.args if rest is None else p.args[:-1])]
    count = len(inner)
    attrs = p.attrs

    def match(node: Node, b: Bindings, uses: dict[Node, int]) -> bool:
        if node is None or node.op.name != op:
            return False
        args = node.args
        if len(args) != count and (rest is None or len(args) < count):
            return False
        for m, a in zip(inner, args):
            if not m(a, b, uses):
                return False
        if rest is not None:
            b[rest] = args[count:]
        return not attrs or _match_attrs(attrs, node, b)

    return match


def _match_attrs(attrs: tuple, node: Node, b: Bindings) -> bool:
    for name, wanted in attrs:
        if name not in node.attrs:
            return False
        value = node.attrs[name]
        if isinstance(wanted, A):
            if b.setdefault(wanted.name, value) != value:
                return False
        elif value != wanted:
            return False
    return True


# ---- rewriting ---------------------------------------------------------------------------------


def rewrite(g: Graph, rules: Iterable[Rule]) -> Graph:
    """`g` with the rules applied to a fixed point, first rule first at each node."""
    by_op: dict[str, list[Rule]] = {}
    for r in rules:
        by_op.setdefault(r.root, []).append(r)
    while True:
        new, again = _Sweep(g, by_op).run()
        if not again:
            return new
        g = new


class _Sweep:
    """One walk over the graph, operands first, each node rewritten until no rule matches it."""

    def __init__(self, g: Graph, by_op: dict[str, list[Rule]]):
        self.g, self.by_op = g, by_op
        self.nodes = g.nodes()
        self.uses: dict[Node, int] = {}
        for n in self.nodes:
            for a in n.args:
                if a is not None:
                    self.uses[a] = self.uses.get(a, 0) + 1
        for r in g.results:
            self.uses[r] = self.uses.get(r, 0) + 1
        self.final: set[Node] = set()
        self.fired = False
        self.stopped = False

    def run(self) -> tuple[Graph, bool]:
        new: dict[Node, Node] = {}
        changed = False
        candidates = self.by_op
        for n in self.nodes:
            if not changed and n.op.name not in candidates:
                new[n] = n
                self.final.add(n)
                continue
            m = n
            if changed and n.args:
                m = self.moved(n, tuple([None if a is None else new[a] for a in n.args]))
            if m.op.name in candidates:
                m = self.settle(m, 0)
            if m is not n:
                changed = True
            new[n] = m
            self.final.add(m)
        if not changed:
            return self.g, False
        binders = tuple(new[b] for b in self.g.binders)
        results = tuple(new[r] for r in self.g.results)
        return replace(self.g, results=results, binders=binders), self.fired and not self.stopped

    def moved(self, n: Node, args: tuple) -> Node:
        """`n` on new operands, its uses carried over."""
        m = with_args(n, args)
        if m is not n:
            self.uses[m] = self.uses.get(n, 0)
            for s in bound_symbols(m):
                s.origin = m
        return m

    def settle(self, n: Node, depth: int) -> Node:
        """What `n`, whose operands are final, becomes."""
        while not self.stopped:
            found = self.fire(n)
            if found is None:
                return n
            r, result = found
            if depth > _STEPS:
                raise InternalError(f"rewriting does not end; the last rule was {r.name}")
            depth += 1
            if result in self.final:
                self.uses[result] = self.uses.get(result, 0) + self.uses.get(n, 0)
                return result
            n = self.adopt(result, n, depth)
        return n

    def fire(self, n: Node) -> tuple[Rule, Node] | None:
        """The first rule that matches, and its result."""
        if n.op.name not in self.by_op or bound_symbols(n):
            return None
        for r in self.by_op[n.op.name]:
            b: Bindings = {}
            if not r.match(n, b, self.uses):
                continue
            b["node"] = n
            if not r.when(b):
                continue
            with location(*n.loc):
                result = r.build(b)
            if result is None or result is n:
                continue
            if result.type != n.type:
                raise InternalError(
                    f"rule {r.name} replaces {n.type} by {result.type}", (f"at {n!r}",)
                )
            if not trace.burn():
                self.stopped = True
                return None
            self.fired = True
            trace.fired(r.name, n)
            return r, result
        return None

    def adopt(self, result: Node, old: Node, depth: int) -> Node:
        """Take the nodes that a rule made into the graph; the root stands where `old` stood. Inner
        nodes are settled; the root is settled by the caller."""
        result_name = replace(result, name=old.name or result.name, loc=old.loc)
        fresh = _fresh_nodes(result, self.final)
        for n in fresh:
            for a in n.args:
                if a is not None:
                    self.uses[a] = self.uses.get(a, 0) + 1
        for a in old.args:
            if a is not None:
                self.uses[a] = self.uses.get(a, 1) - 1
        new: dict[Node, Node] = {}
        for n in fresh[:-1]:
            m = self.moved(n, tuple(new.get(a, a) for a in n.args))
            new[n] = self.settle(m, depth)
            self.final.add(new[n])
        root = with_args(result_name, tuple(new.get(a, a) for a in result.args))
        self.uses[root] = self.uses.get(old, 0)
        return root


def _fresh_nodes(root: Node, final: set[Node]) -> list[Node]:
    """Nodes below `root` that are not in the graph yet, operands first."""
    done: dict[Node, None] = {}
    stack = [(root, False)]
    while stack:
        n, expanded = stack.pop()
        if expanded:
            done[n] = None
        elif n not in done and n not in final:
            stack.append((n, True))
            stack.extend((a, False) for a in reversed(n.args) if a is not None)
    return list(done)


def apply_rules(rules: Sequence[Rule]) -> Callable[[Graph], Graph]:
    """A pass that applies the rules."""
    return lambda g: rewrite(g, rules)
