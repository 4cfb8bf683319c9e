"""Choose the order in which each tensor's dimensions are stored, so that least is transposed.

    y = relu(conv_general(x, w)); z = conv_general(y, v)     # N,C,H,W
    ->  x' = transpose(x, perm=(0,2,3,1)); y = relu(conv_general(x', w', layout="NLAST"))
        z = transpose(conv_general(y, v', layout="NLAST"), perm=(0,3,1,2))

Convolutions take and give channels last. From them and from the transposes of the model a second
order spreads through operators that can compute in any (`layout_rules`); which tensors take it is
a minimum cut, where parting a producer from its consumers costs the bytes of a transpose. What has
no convolution changes only if less is transposed than before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tensorwright.base import trace
from tensorwright.ir.build import location
from tensorwright.ir.expr import Expr, bounds, symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import CONST, Graph, Node, users, with_args
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim, TensorType
from tensorwright.ops.movement import inverse, reshape, transpose
from tensorwright.passes.layout_rules import (
    RULES,
    Perm,
    build_reading,
    channels_last,
    identity,
    permuted,
    reads,
    same_order,
)  # fmt: skip
from tensorwright.passes.minimum_cut import Network
from tensorwright.schedule.records import graph_identity, recorded_for_graphs, report_unused
from tensorwright.schedule.space import ChoiceError, Choices
from tensorwright.target.target import Target

KIND = "layout"  # of records
FEW_TAPS, FEW_STEPS, LONG_ROW = 32, 4, 12  # of a depthwise convolution that runs along rows
TYPICAL = 64  # the size that a symbol is taken to have where tensors are weighed


def assign_layouts(
    m: Module, choices_of: Callable[[Graph], Choices] = lambda g: Choices()
) -> Module:
    """`m` with convolutions channels last and as few transposes as possible. choices_of: what is
    not to be decided by the number of bytes that are transposed; raises ChoiceError for a choice
    that a graph does not have."""
    return map_graphs(m, lambda g: assign_in_graph(g, choices_of(g)))


def recorded_layouts(m: Module, target: Target) -> Module:
    """The same by the target's records, where it has some for these graphs."""
    choices_of, seen = recorded_for_graphs(KIND, target), []

    def known(g: Graph) -> Choices:
        seen.append(g)
        return choices_of(g)

    made = assign_layouts(m, known)
    if target.schedules:
        report_unused((graph_identity(KIND, g) for g in seen), target, KIND)
    return made


def assign_in_graph(g: Graph, choices: Choices) -> Graph:
    made = orders_in_graph(g, choices)
    try:
        choices.check_used()
    except ChoiceError as e:
        raise e.located((f"function {g.name}",)) from None
    return made


def orders_in_graph(g: Graph, choices: Choices) -> Graph:
    nodes = g.nodes()
    if not any(is_conv(n) for n in nodes) and not any(n.op is transpose for n in nodes):
        return g
    second = Orders(g).found
    while True:
        problem = Problem(g, second)
        if not problem.conflicts:
            break
        second = {n: p for n, p in second.items() if n not in problem.conflicts}
    chosen = problem.solve(choices)
    if not chosen and not any(map(is_forced, nodes)):
        return g
    return _Rewrite(g, second, chosen).graph()


def is_conv(node: Node) -> bool:
    return node.op.name == "conv_general" and node.attrs["layout"] == "NC" and node.rank > 2


def is_forced(node: Node) -> bool:
    """A convolution has its fast kernels channels last; some have one either way."""
    return is_conv(node) and not runs_along_rows(node)


def runs_along_rows(node: Node) -> bool:
    """Whether each channel is made from one or from few of its group, by a window that takes short
    steps along long rows, few products in all: vectors along rows are faster then than vectors of
    channels, where both ends are in plain order (measured: one channel 1.2 to 1.9 times, with steps
    of one and two; rows of 7: 0.6; 3 to 7 channels 2.5 to 9 times; 2 to 32 channels made from one
    1.1 to 7 times)."""
    w = node.args[1]
    grouped = node.attrs["groups"] > 1
    spread = any(d != 1 for d in node.attrs["lhs_dilation"] or ())
    few = all(isinstance(d, int) for d in w.shape[1:]) and math.prod(w.shape[1:]) <= FEW_TAPS
    steps = node.attrs["strides"] or (1,)
    long = isinstance(node.shape[-1], int) and node.shape[-1] >= LONG_ROW
    short = all(1 <= s <= FEW_STEPS for s in steps) and not spread
    return grouped and few and long and short and not fills_vectors(*w.shape)


def fills_vectors(results: int, channels: int, *window: int) -> bool:
    """Whether groups of so many channels make good vectors of channels: so do multiples of 8, and
    few that a window slides over, where each vector is spread over its groups but once (measured,
    vectors along rows: 0.6 to 0.9 times as fast) and the last one is whole."""
    few = channels == 4 or (channels == 2 and results % 8 == 0)
    return channels % 8 == 0 or (few and math.prod(window) > 1)


# ---- candidates --------------------------------------------------------------------------------


class Orders:
    """The second order that each tensor may be stored in, spread from convolutions, then from
    transposes, through everything that can follow."""

    def __init__(self, g: Graph):
        self.found: dict[Node, Perm] = {}
        self.users = users(g)
        nodes = g.nodes()
        self.params = set(g.params)
        self.queue: deque[Node] = deque()
        for n in nodes:
            if is_conv(n):
                self.suggest(n, channels_last(n.rank))
        self.spread()
        for n in nodes:
            if n.op is transpose and n not in self.found and n.args[0] not in self.found:
                self.suggest(n.args[0], n.attrs["perm"])
                self.suggest(n, inverse(n.attrs["perm"]))
        self.spread()

    def suggest(self, node: Node, p: Perm | None) -> None:
        if p is None or node in self.found or node in self.params or node.op.name not in RULES:
            return
        if node.op.name == "conv_general" and not is_conv(node):
            return
        if p == identity(node.rank):
            return
        if RULES[node.op.name].needs(node, p) is not None:
            self.found[node] = p
            self.queue.append(node)

    def spread(self) -> None:
        while self.queue:
            node = self.queue.popleft()
            p = self.found[node]
            needed = RULES[node.op.name].needs(node, p)
            for a, q in zip(node.args, needed):
                if q is not None:
                    self.suggest(a, q)
            for user in self.users[node]:
                for k, a in enumerate(user.args):
                    if a is node and user.op.name in RULES and isinstance(user.type, TensorType):
                        self.suggest(user, RULES[user.op.name].gives(user, k, p))


# ---- the choice --------------------------------------------------------------------------------


@dataclass
class Term:
    """`cost` is paid if `tensor` is not stored in the order of this term (it is in plain order iff
    `plain`, in its second iff `second`) and one of the consumers, each given with the choice in
    which it wants that order, wants it; `always` if some consumer does in any case."""

    tensor: Node
    cost: int
    plain: bool
    second: bool
    wanted: dict[tuple[Node, bool], None] = field(default_factory=dict)
    always: bool = False
    at_conv: bool = False

    def paid(self, chosen: set[Node]) -> bool:
        stored = self.second if self.tensor in chosen or is_forced(self.tensor) else self.plain
        wants = self.always or any((n in chosen) == c for n, c in self.wanted)
        return wants and not stored


class Problem:
    """Which tensors take their second order, as a minimum cut (source side: those that do)."""

    def __init__(self, g: Graph, second: dict[Node, Perm]):
        self.second = second
        self.terms: dict[tuple, Term] = {}
        self.conflicts: set[Node] = set()
        for node in g.nodes():
            for choice in self.choices(node):
                for a, q in wanted_orders(node, second, choice):
                    self.want(a, q, node, choice)
        for r in g.results:
            if isinstance(r.type, TensorType):
                self.want(r, identity(r.rank), None, False)
        for t in self.terms.values():
            self.check(t)

    def choices(self, node: Node) -> tuple[bool, ...]:
        if node not in self.second:
            return (False,)
        return (True,) if is_forced(node) else (False, True)

    def want(self, a: Node, q: Perm, consumer: Node | None, choice: bool) -> None:
        if a.op is CONST or not isinstance(a.type, TensorType):
            return
        key = (a, q)
        if key not in self.terms:
            self.terms[key] = self.term(a, q)
        term = self.terms[key]
        term.at_conv |= is_forced(a) or (consumer is not None and is_forced(consumer))
        if consumer is None or len(self.choices(consumer)) == 1 or (
            (consumer, not choice) in term.wanted
        ):  # fmt: skip
            term.always = True
        else:
            term.wanted[consumer, choice] = None

    def term(self, a: Node, q: Perm) -> Term:
        own = self.second.get(a)
        plain = same_order(a.shape, q, identity(a.rank)) and not is_forced(a)
        other = own is not None and same_order(a.shape, q, own)
        if plain and other:  # a reshape does, which is as good as free
            return Term(a, 1, q == identity(a.rank), q == own)
        return Term(a, weight(a), plain, other)

    def is_free(self, node: Node) -> bool:
        return len(self.choices(node)) == 2

    def check(self, t: Term) -> None:
        """Costs of agreement cannot be cut: of two nodes that would have one, that which got its
        second order later stays in plain order."""
        if t.always or not self.is_free(t.tensor) or t.plain == t.second:
            return
        wrong = [n for n, choice in t.wanted if choice == t.plain]
        if wrong:
            age = {n: k for k, n in enumerate(self.second)}
            self.conflicts.add(max((t.tensor, *wrong), key=age.get))

    def solve(self, choices: Choices) -> set[Node]:
        """The nodes that take their second order. What shares no tensor is a part: as the cut says
        ("turned"), or in plain order but for convolutions ("plain")."""
        network = Network()
        for k, t in enumerate(self.terms.values()):
            self.edges(network, k, t)
        chosen = {n for n in network.cut() if isinstance(n, Node) and self.is_free(n)}
        for part in self.parts():
            members = {n for t in part for n in self.members(t)} & chosen
            if not members:
                continue
            before = sum(t.cost for t in part if t.paid(set()))
            after = sum(t.cost for t in part if t.paid(chosen))
            moved = {"turned": 2 * after, "plain": 2 * before}  # bytes, in place of cycles
            names = moved if any(t.at_conv for t in part) else reversed(moved)
            name = f"part{len(choices.made)}"
            turned = choices.pick(name, names, moved.get) == "turned"
            trace.decision("layout", next(iter(members)), "yes" if turned else "no",
                           f"{before} bytes would be transposed, {after} are")  # fmt: skip
            if not turned:
                chosen -= members
        return chosen

    def members(self, t: Term) -> Iterator[Node]:
        """The nodes of a term that have a choice."""
        for n in (t.tensor, *(n for n, _ in t.wanted)):
            if self.is_free(n):
                yield n

    def parts(self) -> list[list[Term]]:
        """Terms that share no node with a choice, apart."""
        parent: dict[Node, Node] = {}

        def root(n: Node) -> Node:
            while parent.setdefault(n, n) is not n:
                parent[n] = parent[parent[n]]
                n = parent[n]
            return n

        for t in self.terms.values():
            first, *rest = [*self.members(t)] or [t.tensor]
            for n in rest:
                parent[root(n)] = root(first)
        found: dict[Node, list[Term]] = {}
        for t in self.terms.values():
            found.setdefault(root(next(self.members(t), t.tensor)), []).append(t)
        return list(found.values())

    def edges(self, network: Network, k: int, t: Term) -> None:
        """The term as edges; an extra node joins the consumers, so that they pay once."""
        source, sink, free = network.SOURCE, network.SINK, self.is_free(t.tensor)
        stored = t.plain if not free and not is_forced(t.tensor) else t.second
        if (not free and stored) or (free and t.plain and t.second):
            return
        tied = free and t.plain != t.second
        if t.always:
            if tied:
                ends = (t.tensor, sink) if t.plain else (source, t.tensor)
                network.edge(*ends, t.cost)
            return
        for choice in (False, True):
            consumers = [n for n, c in t.wanted if c == choice]
            if not consumers:
                continue
            joint = ("joint", k, choice)
            other = t.tensor if tied else (sink if choice else source)
            network.edge(*((joint, other) if choice else (other, joint)), t.cost)
            for n in consumers:
                network.edge(*((n, joint) if choice else (joint, n)))


def wanted_orders(node: Node, second: dict[Node, Perm], choice: bool):
    """(operand, order) for the operands whose order matters, in plain or second order of `node`."""
    if choice:
        p = second[node]
        rule = RULES[node.op.name]
        for k, (a, q) in enumerate(zip(node.args, rule.needs(node, p))):
            if q is not None:
                yield a, agreed(node, k, p, q, second)
        return
    for k, a in enumerate(node.args):
        if a is None or not isinstance(a.type, TensorType):
            continue
        if a in second and reads(node, k, second[a]):
            continue
        yield a, plain_order(node, a)


def plain_order(node: Node, a: Node) -> Perm:
    """What a node in plain order wants of an operand; a transpose then costs nothing."""
    return node.attrs["perm"] if node.op is transpose else identity(a.rank)


def agreed(node: Node, k: int, p: Perm, q: Perm, second: dict[Node, Perm]) -> Perm:
    """The order wanted of an operand: its own second one if that suits as well as q."""
    own = second.get(node.args[k])
    rule = RULES[node.op.name]
    return own if own is not None and rule.gives(node, k, own) == p else q


def weight(node: Node) -> int:
    size = node.dtype.bytes
    for d in node.shape:
        size *= max(typical(d), 1)
    return size


def typical(d: Dim) -> int:
    if not isinstance(d, Expr):
        return d
    values = {}
    for s in symbols_of(d):
        low, high = s.min or 0, TYPICAL if s.max is None else s.max
        values[s] = max(low, min(TYPICAL, high)) // s.multiple_of * s.multiple_of
    low, high = bounds(d)
    found = max(evaluate(d, values), low or 0)
    return found if high is None else min(found, high)


# ---- the rewriting -----------------------------------------------------------------------------


class _Rewrite:
    def __init__(self, g: Graph, second: dict[Node, Perm], chosen: set[Node]):
        self.g, self.second, self.chosen = g, second, chosen
        self.new: dict[Node, Node] = {p: p for p in g.params}
        self.turned: dict[tuple[Node, Perm], Node] = {}

    def graph(self) -> Graph:
        for node in self.g.nodes():
            if node not in self.new:
                with location(*node.loc):
                    self.new[node] = self.node(node)
        results = tuple(self.plain(r) for r in self.g.results)
        return replace(self.g, results=results, binders=tuple(self.new[b] for b in self.g.binders))

    def stored(self, node: Node) -> Perm:
        """The order in which the new graph stores what `node` was."""
        if node in self.chosen or is_forced(node):
            return self.second[node]
        return identity(node.rank)

    def plain(self, node: Node) -> Node:
        return self.get(node, identity(node.rank)) if isinstance(node.type, TensorType) else (
            self.new[node])  # fmt: skip

    def get(self, node: Node, q: Perm) -> Node:
        """The new node for `node` in order q."""
        at, new = self.stored(node), self.new[node]
        if at == q:
            return new
        key = (node, q)
        if key not in self.turned:
            if same_order(node.shape, at, q):
                self.turned[key] = reshape(new, shape=permuted(node.shape, q))
            else:
                self.turned[key] = transpose(new, perm=tuple(at.index(i) for i in q))
        return self.turned[key]

    def node(self, node: Node) -> Node:
        if node in self.chosen or is_forced(node):
            return named(*self.in_second(node), node.name)
        if node.op is transpose and self.stored(node.args[0]) != identity(node.rank):
            return self.get(node.args[0], node.attrs["perm"])
        if any(self.is_read(node, k) for k in range(len(node.args))):
            orders = [self.stored(a) if self.is_read(node, k) else identity(a.rank)
                      for k, a in enumerate(node.args)]  # fmt: skip
            args = [self.get(a, q) for a, q in zip(node.args, orders)]
            return named(build_reading(node, orders, args), args, node.name)
        return with_args(node, tuple(None if a is None else self.plain(a) for a in node.args))

    def is_read(self, node: Node, k: int) -> bool:
        a = node.args[k]
        if a is None or not isinstance(a.type, TensorType):
            return False
        return self.stored(a) != identity(a.rank) and reads(node, k, self.stored(a))

    def in_second(self, node: Node) -> tuple[Node, list[Node]]:
        p, rule = self.second[node], RULES[node.op.name]
        args, orders = [], []
        for k, (a, q) in enumerate(zip(node.args, rule.needs(node, p))):
            q = None if q is None else agreed(node, k, p, q, self.second)
            orders.append(q)
            args.append(self.plain(a) if q is None else self.get(a, q))
        return rule.build(node, p, args, orders), args


def named(made: Node, args: list[Node], name: str) -> Node:
    """A node just made, under the name of what it stands for."""
    return made if made.name or not name or made in args else replace(made, name=name)
