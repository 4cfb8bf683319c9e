"""Group nodes into kernels.

    y = relu(add(matmul(x, w), b))      ->      y = fused(x, w, b, body=matmul; add; relu)

From the results backwards: a node joins the group of its users if all of them are in one group and
the schedule rules have a form for the group with it (`schedule.form.read_form`, on the very loop
nests that define the operators). So fusion never builds a kernel that no rule schedules, and what
kinds of operators fuse is inferred from their nests, not declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tensorwright.base import trace
from tensorwright.ir.expr import Expr, as_expr, sym
from tensorwright.ir.graph import (
    CONST,
    PARAM,
    Graph,
    Node,
    bound_symbols,
    node_symbols,
    param,
    structure,
    users,
)  # fmt: skip
from tensorwright.ir.module import Module, map_graphs, unique
from tensorwright.ir.type import TensorType, TupleType, type_symbols
from tensorwright.ops.kernel import fused
from tensorwright.passes.lower import HOST_OPS, define_kernel, joined_results
from tensorwright.passes.share import without_depths
from tensorwright.schedule.chain import least
from tensorwright.schedule.form import read_form
from tensorwright.schedule.strips import leaves_cache, pays
from tensorwright.target.target import Target

MAX_GROUP = 40
LONGEST_EPILOGUE = 8  # nodes from a contraction to the last one that it stores
TRANSFORMED = ("winograd", "strassen")  # contractions between sums of what they take and make
CONTRACTIONS = ("dot_general", "conv_general", *TRANSFORMED)
# what kernels with several contractions may begin with, by the one that they end with
BEGINNINGS = {"dot_general": CONTRACTIONS[:1], "conv_general": CONTRACTIONS[:2]}
SCALAR_ELEMENTS = 1  # constants up to this size are part of the group, as literals


@dataclass(eq=False)
class Group:
    """Nodes of one kernel; `root` is the one whose result leaves it."""

    root: Node
    nodes: list[Node] = field(default_factory=list)
    fusable: bool = True


def fuse(m: Module, target: Target) -> Module:
    """`m` with the nodes of each group replaced by one `fused` node."""
    known: dict[tuple, bool] = {}
    return map_graphs(m, lambda g: Fusion(g, target, known).run())


class Fusion:
    """known: which groups rules would schedule, by structure."""

    def __init__(self, g: Graph, target: Target, known: dict[tuple, bool]):
        self.graph, self.machine, self.known = g, target, known
        self.users = users(g)
        self.outputs = {*g.results, *g.binders}
        self.joined = joined_results(g)
        self.group_of: dict[Node, Group] = {}
        self.place: dict[Node, int] = {}  # in the order of the graph

    def run(self) -> Graph:
        order = self.graph.nodes()
        self.place = {node: k for k, node in enumerate(order)}
        for node in reversed(order):
            if node.op in (PARAM, CONST) or (
                node.op.name in HOST_OPS and node.op.name != "reshape"
            ):
                continue
            if node in self.group_of or node in self.joined:
                continue
            target = self.target(node)
            if target is not None:
                target.nodes.append(node)
                self.group_of[node] = target
            else:
                self.group_of[node] = Group(node, [node], self.can_grow(node))
            self.reach_back(node)
        return self.rebuild(order)

    def can_grow(self, node: Node) -> bool:
        if isinstance(node.type, TupleType) or node.op.lower is None:
            return False
        return node.op.name != "reshape" and self.has_form([node], node)

    def target(self, node: Node) -> Group | None:
        """The group that the node joins, if any; why not is recorded."""
        if not isinstance(node.type, TensorType) or node.op.lower is None:
            return None
        groups = {self.group_of.get(u) for u in self.users[node]}
        if node in self.outputs or len(groups) != 1 or None in groups:
            where = "a result of the graph" if node in self.outputs else "used by several kernels"
            trace.decision("fuse", node, "no", where)
            return None
        (group,) = groups
        reason = self.obstacle(node, group)
        trace.decision("fuse", node, "no" if reason else "yes", reason or f"into {group.root}")
        return None if reason else group

    def obstacle(self, node: Node, group: Group) -> str:
        """Why the node cannot join the group of its users; "" if it can."""
        if not group.fusable:
            return f"{group.root.op.name} is a kernel of its own"
        if len(group.nodes) >= MAX_GROUP:
            return f"the group of {group.root} is full"
        if node.op.once and node.type.size != group.root.type.size:
            return f"the kernel of {group.root} would compute its elements again and again"
        if picks_elements(node) and is_smaller(node, group.root):
            return f"the kernel of {group.root} would pick its elements again and again"
        if not self.has_form([*group.nodes, node], group.root):
            return f"no rule schedules {node.op.name} together with the kernel of {group.root}"
        if self.is_epilogue(node, group):
            return f"{node.op.name} is done where a contraction stores, once for each element"
        return ""

    def is_epilogue(self, node: Node, group: Group) -> bool:
        """Whether a contraction leads to the node through maps of as many elements, could store
        what the node makes, and cannot be in the group."""
        chain = self.path(node, node, LONGEST_EPILOGUE)
        if not chain or len(chain) == 1 or chain[-1].dtype.bytes < node.dtype.bytes:
            return False
        if self.has_form([*group.nodes, *chain], group.root):  # most often
            return False
        return self.can_grow(node) and self.has_form(chain, node)

    def has_form(self, nodes: list[Node], root: Node) -> bool:
        """Whether the rules would schedule the group, faster than its parts. How much a product
        sums up is not asked."""
        if is_amid_others(nodes):
            return False
        body, _ = group_graph(nodes, root)
        key = structure(body)
        if [n.op.name for n in nodes if n.op.name in CONTRACTIONS] == ["dot_general"]:
            key = without_depths(body, key)
        if key not in self.known:
            form = read_form(define_kernel("trial", body))
            is_chain = form is not None and form.chain is not None
            self.known[key] = pays(form.chain, self.machine) if is_chain else form is not None
        return self.known[key]

    def path(self, node: Node, last: Node, steps: int) -> list[Node]:
        """The nodes from this one to a contraction, which are used by one another alone and as
        large as `last`; none if there is none."""
        if node.op.name in CONTRACTIONS:
            return [node]
        if node.op in (PARAM, CONST) or steps == 0 or node.op.lower is None:
            return []
        for a in node.args:
            if a is None or len(set(self.users[a])) != 1 or a in self.outputs:
                continue
            if not isinstance(a.type, TensorType) or a.type.size != last.type.size:
                continue
            rest = self.path(a, last, steps - 1)
            if rest:
                return [node, *rest]
        return []

    def reach_back(self, node: Node) -> None:
        """Take in everything from an earlier contraction to this one, if the whole has a form where
        its beginnings have none (attention, contractions strip by strip)."""
        beginnings = BEGINNINGS.get(node.op.name)
        if beginnings is None or (
            node.op.name == "conv_general" and not may_be_cut(node.args[0], self.machine)
        ):
            return
        group = self.group_of[node]
        between = self.chain(node.args[0], group, beginnings)
        fits = group.fusable and len(group.nodes) + len(between) <= MAX_GROUP
        if between and fits and self.has_form([*group.nodes, *between], group.root):
            group.nodes += between
            self.group_of.update(dict.fromkeys(between, group))
            for earlier in between:
                self.reach_back(earlier)

    def chain(self, start: Node, group: Group, beginnings: Sequence[str]) -> list[Node]:
        """The nodes from the nearest contraction of these kinds to `start`, users first, if they
        are used by each other alone."""
        depends: dict[Node, bool] = {}
        leads_back(start, beginnings, depends)
        inside = [n for n, found in depends.items() if found]
        inside.sort(key=self.place.__getitem__)  # a contraction may use what another one leads to
        allowed = {*inside, *group.nodes}
        alone = all(n not in self.outputs and allowed.issuperset(self.users[n]) for n in inside)
        return inside[::-1] if alone else []

    def rebuild(self, order: Sequence[Node]) -> Graph:
        """The graph with groups as nodes, emitted where their root stood."""
        new: dict[Node, Node] = {}
        for node in order:
            group = self.group_of.get(node)
            if group is not None and group.root is not node:
                continue
            if group is None or len(group.nodes) == 1:
                args = tuple(None if a is None else new[a] for a in node.args)
                same = all(a is b for a, b in zip(args, node.args))
                new[node] = node if same else replace(node, args=args)
            else:
                new[node] = self.emit(group, new)
        g = self.graph
        return replace(
            g,
            results=tuple(new[r] for r in g.results),
            binders=tuple(new[b] for b in g.binders),
        )

    def emit(self, group: Group, new: dict[Node, Node]) -> Node:
        body, inputs = group_graph(group.nodes, group.root)
        sizes = hidden_sizes(group.nodes, inputs)
        made = fused(*(new[x] for x in inputs), body=body, **({"sizes": sizes} if sizes else {}))
        loc = tuple(dict.fromkeys(place for n in reversed(group.nodes) for place in n.loc))
        return replace(made, name=group.root.name, loc=loc)


def hidden_sizes(nodes: list[Node], inputs: list[Node]) -> tuple[Expr, ...]:
    """The sizes that the nodes use, and neither their operands nor their result, the first, has."""
    used = set().union(*map(node_symbols, nodes)) - type_symbols(*(x.type for x in inputs))
    hidden = used - type_symbols(nodes[0].type) - {s for n in nodes for s in bound_symbols(n)}
    return tuple(map(sym, sorted(hidden, key=lambda s: (s.name, s.serial))))


def may_be_cut(node: Node, target: Target) -> bool:
    """Whether what a window slides over is so large that strips of it may pay."""
    if not isinstance(node.type, TensorType):
        return False
    return leaves_cache(least(map(as_expr, node.shape)) * node.dtype.bytes, target)


def leads_back(n: Node | None, beginnings: Sequence[str], depends: dict[Node, bool]) -> bool:
    """Whether kernels may lead from a contraction of these kinds to the node; `depends` collects
    the answers."""
    if n is None or n.op in (PARAM, CONST) or n.op.name in HOST_OPS - {"reshape"}:
        return False
    if n not in depends and len(depends) < MAX_GROUP:
        found = n.op.name in beginnings or any([leads_back(a, beginnings, depends) for a in n.args])
        depends[n] = found and n.op.lower is not None
    return depends.get(n, False)


def picks_elements(node: Node) -> bool:
    """Whether neighbouring results come from anywhere: one element at a time is fetched."""
    return node.op.name == "gather" and node.attrs["axis"] % node.args[0].rank == node.rank - 1


def is_smaller(node: Node, other: Node) -> bool:
    a, b = node.type.size, other.type.size
    return isinstance(a, int) and isinstance(b, int) and a < b


def group_graph(nodes: list[Node], root: Node) -> tuple[Graph, list[Node]]:
    """The nodes as a graph of their own, and what it takes from outside, in order of use. Scalar
    constants come along."""
    inside = set(nodes)
    new: dict[Node, Node] = {}
    inputs: list[Node] = []
    params: list[Node] = []
    names: set[str] = set()
    for node in reversed(nodes):  # groups grow from users to producers
        for a in node.args:
            if a is None or a in inside or a in new:
                continue
            if a.op is CONST and a.type.size == SCALAR_ELEMENTS and a.rank == 0:
                new[a] = a
            else:
                new[a] = param(unique(a.name or f"x{len(inputs)}", names), a.type)
                names.add(new[a].name)
                inputs.append(a)
                params.append(new[a])
        new[node] = replace(node, args=tuple(None if a is None else new[a] for a in node.args))
    return Graph("group", tuple(params), (new[root],)), inputs


def is_amid_others(nodes: list[Node]) -> bool:
    """Whether a contraction of what is transformed is in the group, and behind something else or
    with another contraction. It begins every form that it is in, and maps alone follow, so that
    there is no need to look at its long nests."""
    contractions = [n for n in nodes if n.op.name in CONTRACTIONS]
    inside = set(nodes)
    return any(
        n.op.name in TRANSFORMED and (len(contractions) > 1 or not inside.isdisjoint(n.args))
        for n in contractions
    )
