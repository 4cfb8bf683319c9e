"""Functions with calls, branches and loops as basic blocks over variables.

    fact(n): if n == 0: 1 else n * fact(n - 1)

    entry:   branch n == 0 -> a, b          n, joined, returned: variables
    a:       joined = 1; jump c
    b:       call fact(n - 1) -> d          n is live here: it goes on the stack
    d:       joined = n * returned; jump c
    c:       returned = joined; return

This is the form from which `machine.py` makes one loop for many examples (Radul et al. 2020,
"Automatically batching control-intensive programs for modern accelerators"). Only what the stack is
needed for becomes blocks: calls of functions that call themselves, loops, and branches around
those; every other node stays inside a block. A node is computed in the first block that wants it,
and is a variable if another block wants it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tensorwright.base.errors import CompileError
from tensorwright.batching.lanes import sizes_of
from tensorwright.ir.graph import CONST, Graph, Node, param, subgraphs
from tensorwright.ir.type import TupleType, leaves
from tensorwright.passes.shapes import substitute_symbols


@dataclass
class Block:
    """`entry` and `moves` are simultaneous assignments (variable, value) at begin and end. `after`
    says where to go: ("jump", b), ("branch", cond, b, c), ("call", function, b), ("return",) or
    ("halt",)."""

    number: int
    function: str
    entry: list[tuple[Node, Node]] = field(default_factory=list)
    moves: list[tuple[Node, Node]] = field(default_factory=list)
    after: tuple = ("halt",)

    def successors(self) -> tuple[int, ...]:
        """Blocks of the same function that may come next."""
        return tuple(b for b in self.after[1:] if isinstance(b, int))

    def wanted(self) -> list[Node]:
        """The nodes whose values the block needs at its end."""
        condition = [self.after[1]] if self.after[0] == "branch" else []
        return [source for _, source in self.moves] + condition


@dataclass
class Function:
    params: list[Node]
    returned: list[Node]  # the variables that hold the results after a return
    entry: int = 0


@dataclass
class Program:
    blocks: list[Block] = field(default_factory=list)
    order: list[Block] = field(default_factory=list)  # those that are ever entered
    functions: dict[str, Function] = field(default_factory=dict)
    home: dict[Node, int] = field(default_factory=dict)  # node -> the block that computes it
    variables: dict[Node, str] = field(default_factory=dict)  # -> the function it belongs to
    reach: dict[str, set[str]] = field(default_factory=dict)  # functions that a call may enter


def called(g: Graph) -> set[str]:
    """The functions that a graph calls, in the bodies of its control flow too."""
    found = set()
    for n in g.nodes():
        if n.op.name == "call":
            found.add(n.attrs["callee"])
        for s in subgraphs(n):
            found |= called(s)
    return found


def reachable(graphs: Mapping[str, Graph]) -> dict[str, set[str]]:
    """For each function, all that a call of it may enter, itself included."""
    direct = {name: called(g) & set(graphs) for name, g in graphs.items()}
    reach = {}
    for name in graphs:
        seen, todo = {name}, [name]
        while todo:
            new = direct[todo.pop()] - seen
            seen |= new
            todo += new
        reach[name] = seen
    return reach


def cyclic(graphs: Mapping[str, Graph]) -> set[str]:
    """The functions that call themselves, perhaps through others."""
    direct = {name: called(g) & set(graphs) for name, g in graphs.items()}
    reach = reachable(graphs)
    return {name for name in graphs if any(name in reach[c] for c in direct[name])}


def recursive(graphs: Mapping[str, Graph]) -> set[str]:
    """The functions from which one that calls itself can be entered."""
    own, reach = cyclic(graphs), reachable(graphs)
    return {name for name in graphs if reach[name] & own}


class Emit:
    """Writes a program's blocks; `root` is the graph that is entered first."""

    def __init__(self, root: Graph, graphs: Mapping[str, Graph]) -> None:
        self.graphs = dict(graphs)
        self.deep = recursive(graphs)
        self.program = Program(reach=reachable(graphs))
        self.current = self.block("")
        self.program.functions[""] = Function(list(root.params), [])
        self.program.reach[""] = {""}
        results = self.graph(root, root.params)
        out = [self.variable(f"out{k}", r) for k, r in enumerate(results)]
        self.program.functions[""].returned = out
        self.current.moves += zip(out, results)
        while waiting := [n for n, f in self.program.functions.items() if not f.entry and n]:
            for name in waiting:
                self.function(name)
        for b in self.program.blocks:
            join_forwarding(self.program, b)
        self.program.order = reached(self.program)

    # ---- pieces --------------------------------------------------------------------------------

    def block(self, function: str) -> Block:
        b = Block(len(self.program.blocks), function)
        self.program.blocks.append(b)
        return b

    def variable(self, name: str, like: Node, function: str | None = None) -> Node:
        v = param(name, like.type)
        self.program.variables[v] = self.current.function if function is None else function
        return v

    def declared(self, name: str, operands: list[Node]) -> Function:
        """A function and its variables, its blocks to be written later."""
        if name not in self.program.functions:
            sizes = sizes_of(self.graphs[name], operands)
            g = self.graphs[name] = substitute_symbols(self.graphs[name], sizes)
            params = [self.variable(p.name, p, name) for p in g.params]
            results = [self.variable(f"{name}_{k}", r, name) for k, r in enumerate(g.results)]
            self.program.functions[name] = Function(params, results)
        return self.program.functions[name]

    def function(self, name: str) -> None:
        f = self.program.functions[name]
        self.current = self.block(name)
        f.entry = self.current.number
        results = self.graph(self.graphs[name], f.params)
        self.current.moves += zip(f.returned, results)
        self.current.after = ("return",)

    # ---- graphs --------------------------------------------------------------------------------

    def is_control(self, node: Node) -> bool:
        if node.op.name == "call":
            return node.attrs["callee"] in self.deep
        if node.op.name == "while_":
            return True
        bodies = subgraphs(node) if node.op.name == "if_" else ()
        return any(self.is_control(n) for g in bodies for n in g.nodes())

    def graph(self, g: Graph, args: Sequence[Node]) -> list[Node]:
        """Write the blocks of a graph from the current one on; its results, in the last one."""
        known: dict[Node, object] = dict(zip(g.params, args))
        for node in g.nodes():
            if node not in known and self.is_control(node):
                operands = [self.value(a, known) for a in node.args]
                known[node] = getattr(self, node.op.name)(node, operands)
        return [self.value(r, known) for r in g.results]

    def value(self, root: Node, known: dict[Node, object]) -> Node:
        """A node over this program's nodes; it is computed in the current block if it is new."""
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [a for a in node.args if a is not None and a not in known]
            if node in known:
                stack.pop()
            elif missing:
                stack += reversed(missing)
            else:
                known[node] = self.copy(node, known)
                stack.pop()
        return known[root]

    def copy(self, node: Node, known: dict[Node, object]) -> object:
        if node.op is CONST:
            return node
        if node.op.name == "item" and isinstance(known[node.args[0]], tuple):
            return known[node.args[0]][node.attrs["index"]]
        new = replace(node, args=tuple(None if a is None else known[a] for a in node.args))
        self.program.home[new] = self.current.number
        return new

    def joined(self, node: Node, name: str) -> list[Node]:
        """A variable for each result of a control-flow node."""
        types = leaves(node.type)
        made = [param(f"{name}{k}", t) for k, t in enumerate(types)]
        self.program.variables.update(dict.fromkeys(made, self.current.function))
        return made

    def single(self, node: Node, made: list[Node]) -> object:
        return tuple(made) if isinstance(node.type, TupleType) else made[0]

    # ---- control -------------------------------------------------------------------------------

    def if_(self, node: Node, operands: list[Node]) -> object:
        start, made = self.current, self.joined(node, "if")
        begins, ends = [], []
        for g in (node.attrs["then"], node.attrs["orelse"]):
            self.current = self.block(start.function)
            begins.append(self.current.number)
            results = self.graph(g, operands[1:])
            self.current.moves += zip(made, results)
            ends.append(self.current)
        start.after = ("branch", operands[0], *begins)
        self.current = self.block(start.function)
        for end in ends:
            end.after = ("jump", self.current.number)
        return self.single(node, made)

    def while_(self, node: Node, operands: list[Node]) -> object:
        """The condition stands before the loop and at the end of its body."""
        count = node.attrs["carried"]
        init, rest = operands[:count], operands[count:]
        state = self.joined(node, "state")
        body = None
        pending = []
        for values in (init, None):
            if values is None:
                body = self.current = self.block(self.current.function)
                values = self.graph(node.attrs["body"], [*state, *rest])
            (cond,) = self.graph(node.attrs["cond"], [*values, *rest])
            self.current.moves += [(s, v) for s, v in zip(state, values) if s is not v]
            pending.append((self.current, cond))
        self.current = self.block(self.current.function)
        for block, cond in pending:
            block.after = ("branch", cond, body.number, self.current.number)
        return self.single(node, state)

    def call(self, node: Node, operands: list[Node]) -> object:
        f = self.declared(node.attrs["callee"], operands)
        _check_sizes(node, f, operands)
        start = self.current
        start.moves += zip(f.params, operands)
        made = self.joined(node, node.attrs["callee"])
        self.current = self.block(start.function)
        self.current.entry = list(zip(made, f.returned))
        start.after = ("call", node.attrs["callee"], self.current.number)
        return self.single(node, made)


def _check_sizes(node: Node, f: Function, operands: list[Node]) -> None:
    for k, (p, a) in enumerate(zip(f.params, operands)):
        if p.type != a.type:
            raise CompileError(
                f"batch: operand {k + 1} of {node.attrs['callee']} is {p.type} in one call and "
                f"{a.type} in another",
                help="keep the sizes of a recursive function's arguments, or pad them",
            ).located(node.loc)


def reached(p: Program) -> list[Block]:
    """The blocks that are ever entered, by number."""
    seen, todo = set(), [0]
    while todo:
        b = p.blocks[todo.pop()]
        if b.number not in seen:
            seen.add(b.number)
            entered = [p.functions[b.after[1]].entry] if b.after[0] == "call" else []
            todo += [*b.successors(), *entered]
    return [b for b in p.blocks if b.number in seen]


def join_forwarding(p: Program, b: Block) -> None:
    """Let a block do itself what the blocks do that it jumps to, while these only pass variables
    on: a result is then written where it is returned, not to every join on the way."""
    passed = set()
    while b.after[0] == "jump" and b.after[1] not in passed:
        nxt = p.blocks[b.after[1]]
        values = [x for _, x in nxt.moves] + ([nxt.after[1]] if nxt.after[0] == "branch" else [])
        if nxt.entry or any(x in p.home for x in values):
            return
        passed.add(nxt.number)
        now = dict(b.moves)
        later = [(v, now.get(x, x)) for v, x in nxt.moves]
        written = {v for v, _ in later}
        b.moves = [(v, x) for v, x in b.moves if v not in written] + later
        cond = (now.get(nxt.after[1], nxt.after[1]),) if nxt.after[0] == "branch" else ()
        b.after = (nxt.after[0], *cond, *nxt.after[1 + len(cond) :])
