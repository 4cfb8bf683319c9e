"""What flows between the blocks of a program: values that all lanes share, and live variables.

Only what differs between lanes and is wanted by another block is a variable; only what is live
across a call that may enter its function again needs a stack.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tensorwright.batching.blocks import Block, Program
from tensorwright.ir.graph import CONST, Node


@dataclass
class Flow:
    """`shared`: parameters that are the same value in every call -> that value. `live`: for each
    block, the variables whose values at its begin are wanted. `saved`: for each block that calls,
    the variables that it puts on the stack; `restored`: for the block behind it, the same."""

    program: Program
    shared: dict[Node, Node] = field(default_factory=dict)
    live: list[set[Node]] = field(default_factory=list)
    saved: dict[int, list[Node]] = field(default_factory=dict)
    restored: dict[int, list[Node]] = field(default_factory=dict)
    known: dict[Node, bool] = field(default_factory=dict)

    # ---- what lanes share ----------------------------------------------------------------------

    def is_shared(self, node: Node) -> bool:
        """Whether all lanes have the same value; iterative, operands first."""
        stack = [node]
        while stack:
            n = stack[-1]
            if n in self.known:
                stack.pop()
            elif n.op is CONST or n in self.shared:
                self.known[n] = True
            elif n not in self.program.home:
                self.known[n] = False
            else:
                missing = [a for a in n.args if a is not None and a not in self.known]
                stack += missing
                if not missing:
                    self.known[n] = all(self.known[a] for a in n.args if a is not None)
        return self.known[node]

    def needs(self, b: Block, roots: Iterable[Node]) -> tuple[set[Node], set[Node]]:
        """(variables that the roots need at the begin of a block, nodes of other blocks among what
        they need)."""
        p, own = self.program, dict(b.entry)
        needed, foreign, seen, todo = set(), set(), set(), list(roots)
        while todo:
            n = todo.pop()
            if n in seen or self.is_shared(n):
                continue
            seen.add(n)
            if n in own:
                needed.add(n)
            elif p.home.get(n, b.number) != b.number:
                foreign.add(n)
                needed.add(n)
            elif n in p.home:
                todo += [a for a in n.args if a is not None]
            else:
                needed.add(n)
        return needed, foreign

    # ---- live variables ------------------------------------------------------------------------

    def wanted(self, b: Block) -> list[Node]:
        """What a block must compute: the values of its moves that are wanted later, a condition."""
        after = self.after(b)
        condition = [b.after[1]] if b.after[0] == "branch" else []
        return [value for v, value in b.moves if v in after] + condition

    def after(self, b: Block) -> set[Node]:
        """The variables whose values at the end of a block are wanted."""
        p = self.program
        found = set().union(*(self.live[s] for s in b.successors()))
        if b.after[0] == "call":
            f = p.functions[b.after[1]]
            found = (found - set(f.returned)) | {v for v in f.params if v not in self.shared}
        if b.after[0] in ("return", "halt"):
            found |= set(p.functions[b.function].returned)
        return found

    def through(self, b: Block) -> set[Node]:
        """The variables that must survive a call at the end of a block which may enter the block's
        function again; the stack keeps what they are here, whatever the call's operands are."""
        if b.after[0] != "call" or b.function not in self.program.reach[b.after[1]]:
            return set()
        return self.live[b.after[2]] - set(self.program.functions[b.after[1]].returned)

    def update(self, b: Block) -> bool:
        """Recompute what is live at the begin of a block; whether it grew."""
        needed, _ = self.needs(b, [*self.wanted(b), *self.through(b)])
        begin = needed | (self.after(b) - {v for v, _ in b.moves})
        for v, source in b.entry:
            if v in begin:
                begin = (begin - {v}) | {source}
        grew = not begin <= self.live[b.number]
        self.live[b.number] |= begin
        return grew

    def kept(self, b: Block) -> set[Node]:
        """The variables that a block must leave in their places at its end."""
        kept = self.after(b) - set(self.saved.get(b.number, ()))
        called = b.after[0] == "call" and self.program.functions[b.after[1]].params
        return kept | {v for v in called or () if v not in self.shared}


def analyse(p: Program, captured: dict[Node, Node]) -> Flow:
    """The flow of a program; `captured`: parameters of the root that all lanes share."""
    flow = Flow(p, dict(captured))
    flow.shared |= _same_in_every_call(p, captured)
    _spread(flow)
    flow.live = [set() for _ in p.blocks]
    while any([flow.update(b) for b in reversed(p.order)]):
        pass
    for b in p.order:
        through = flow.through(b)
        if through:
            kept = [v for v in p.variables if v in through]
            flow.saved[b.number] = flow.restored[b.after[2]] = kept
    return flow


def _same_in_every_call(p: Program, captured: dict[Node, Node]) -> dict[Node, Node]:
    """Parameters of functions that are one constant or captured value in every call: found by
    assuming it of all and dropping those for which it fails."""
    sites: dict[Node, list[Node]] = {}
    for b in p.order:
        if b.after[0] == "call":
            params = set(p.functions[b.after[1]].params)
            for v, value in b.moves:
                if v in params:
                    sites.setdefault(v, []).append(value)
    value_of: dict[Node, Node | None] = dict.fromkeys(sites)
    dropped: set[Node] = set()
    changed = True
    while changed:
        changed = False
        for v, values in sites.items():
            if v in dropped:
                continue
            for x in values:
                fixed = x.op is CONST or x in captured
                found = captured.get(x, x) if fixed else value_of.get(x)
                if found is None and x in value_of and x not in dropped:
                    continue  # not known yet: a parameter passed on
                if found is None or x in dropped or value_of[v] not in (None, found):
                    dropped.add(v)
                    changed = True
                    break
                if value_of[v] is None:
                    value_of[v], changed = found, True
    return {v: x for v, x in value_of.items() if v not in dropped and x is not None}


def _spread(flow: Flow) -> None:
    """Make variables of the nodes that another block wants than the one that computes them."""
    p, changed = flow.program, True
    while changed:
        changed = False
        for b in p.order:
            condition = [b.after[1]] if b.after[0] == "branch" else []
            values = [value for v, value in b.moves if v not in flow.shared]
            for n in flow.needs(b, [*values, *condition])[1]:
                if n not in p.variables:
                    home = p.blocks[p.home[n]]
                    p.variables[n] = home.function
                    home.moves.append((n, n))
                    changed = True
