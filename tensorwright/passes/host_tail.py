"""Tail calls in host functions: a call whose results are the function's results is a jump.

    def f(n, acc): if n == 0: acc  else: f(n - 1, acc * n)
        ->   while again: again = False; ... n_next = n - 1; again = True ...; n = n_next

Functions that call each other so become one loop over the body of whichever is to run: they use no
stack. A jump needs parameters of the very types that it is given; sizes that change make it a call.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import Buffer, compare, const, load
from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.loop import Alloc, Copy, If, Seq, Stmt, While, store
from tensorwright.passes.host_objects import reference
from tensorwright.passes.tail_calls import tail_calls, tail_node
from tensorwright.passes.takers import is_object


@dataclass
class Place:
    """Where a function of a circle has its parameters, and where those of the next round wait."""

    number: int
    graph: Graph
    now: list[Buffer]
    then: list[Buffer]


@dataclass
class Round:
    """The loop that functions which jump to each other have become."""

    places: dict[str, Place]
    again: Buffer
    which: Buffer
    outputs: list[Buffer]


class Tails:
    """The part of `Host` for tail calls; the rest of it is in `host.py`."""

    round: Round | None

    def run_circle(self, names: list[str], inputs: list[Buffer], outputs: list[Buffer]) -> None:
        """The body of the first of some functions that jump to each other."""
        again, which = Buffer("again", boolean, (), "local"), Buffer("which", i64, (), "local")
        self.body += [Alloc(again), store(again, (), const(True, boolean)),
                      Alloc(which), store(which, (), const(0, i64))]  # fmt: skip
        places = {}
        for number, name in enumerate(names):
            g = self.module.graphs[name]
            places[name] = Place(number, g, self.rooms(g, ""), self.rooms(g, "_next"))
        first = places[names[0]]
        self.body += [Copy(b, given) for b, given in zip(first.now, inputs)]
        made = Round(places, again, which, outputs)
        inner = self.block()
        inner.body.append(store(again, (), const(False, boolean)))
        arms: list[tuple[int, Stmt, Stmt]] = []
        for p in places.values():
            arm = self.block()
            arm.round = made
            arm.owned = {b for b in p.now if b.scope == "reference"}
            arm.results_into(p.graph, p.now, outputs)
            step = Seq(tuple(Copy(b, t) for b, t in zip(p.now, p.then)))
            arms.append((p.number, Seq(tuple(arm.body)), step))
        inner.body.append(self.dispatch(which, [(k, body) for k, body, _ in arms]))
        following = self.dispatch(which, [(k, step) for k, _, step in arms])
        inner.body.append(If(load(again, ()), following))
        self.body.append(While(load(again, ()), Seq(tuple(inner.body))))

    def rooms(self, g: Graph, suffix: str) -> list[Buffer]:
        found = []
        for p in g.params:
            if is_object(p.type):
                b = reference(p.name + suffix)
            else:
                b = Buffer(p.name + suffix, p.dtype, p.shape, "arena", 64)
            self.body.append(Alloc(b))
            found.append(b)
        return found

    def dispatch(self, which: Buffer, arms: list[tuple[int, Stmt]]) -> Stmt:
        chosen = arms[-1][1]
        for k, body in reversed(arms[:-1]):
            chosen = If(compare("eq", load(which, ()), const(k, i64)), body, chosen)
        return chosen

    def ends_with(self, g: Graph) -> Node | None:
        """The node that ends a body of the circle and may jump."""
        node = tail_node(g) if self.round is not None else None
        return node if node is not None and any(map(self.is_jump, tail_calls(g))) else None

    def is_jump(self, call: Node) -> bool:
        place = self.round.places.get(call.attrs["callee"])
        return place is not None and all(
            p.type == a.type for p, a in zip(place.graph.params, call.args))  # fmt: skip

    def finish_round(self, g: Graph, number: int, node: Node, outputs: list[Buffer]) -> None:
        """Emit the last node of a body: jump, or branch to where it may be done."""
        self.before_node(number, node)
        if node.op.name == "call":
            self.jump(node)
        else:
            self.branch_to = outputs
            self.node(node)
            self.branch_to = None

    def jump(self, call: Node) -> None:
        made = self.round
        place = made.places[call.attrs["callee"]]
        for a, b in zip(call.args, place.then):
            if is_object(a.type):
                self.acquire(self.buffer(a))
            self.body.append(Copy(b, self.buffer(a)))
        self.body += [store(made.which, (), const(place.number, i64)),
                      store(made.again, (), const(True, boolean))]  # fmt: skip
