"""Which functions and bodies take over the objects that they are given.

    def bump(xs): match xs: Nil -> Nil; Cons(h, t) -> Cons(h + 1, bump(t))      bump takes xs over

Taking over pays where an object may then be changed in place: a parameter is taken over if some
arm of a match on it builds an object of the same size, or if it is passed on to where it is taken
over. Found by iterating from "nothing is taken over". Functions that jump (`host_tail.py`) take
over all of their objects: the next round must not need what the one before holds.
"""

from __future__ import annotations

from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.module import Module
from tensorwright.ir.type import DataType, FunctionType, Type
from tensorwright.passes.bodies import captures_from
from tensorwright.passes.tail_calls import circle


def is_object(t: Type) -> bool:
    return isinstance(t, (DataType, FunctionType))


def objects_of(g: Graph) -> set[int]:
    return {k for k, p in enumerate(g.params) if is_object(p.type)}


class Takers:
    def __init__(self, m: Module) -> None:
        self.graphs = {k: g for k, g in m.graphs.items() if k != m.entry}
        self.jumping = {k: objects_of(g) if circle(m, g) else set()
                        for k, g in m.graphs.items()}  # fmt: skip
        self.found: dict[str, frozenset[int]] = dict.fromkeys(m.graphs, frozenset())
        while True:
            new = {k: frozenset(self.wanted(g) | self.jumping[k]) for k, g in self.graphs.items()}
            if new == self.found:
                break
            self.found = new

    def takes(self, callee: str, k: int) -> bool:
        return k in self.found[callee]

    def wanted(self, g: Graph) -> set[int]:
        """The parameters of a graph that it wants to own."""
        objects = {p: k for k, p in enumerate(g.params) if is_object(p.type)}
        found: set[int] = set()
        for n in g.nodes() if objects else ():
            for at, a in enumerate(n.args):
                if a in objects and self.pays(n, at):
                    found.add(objects[a])
        return found

    def pays(self, n: Node, at: int) -> bool:
        """Whether to own operand `at` of a node is of use."""
        match n.op.name:
            case "call":
                return self.takes(n.attrs["callee"], at)
            case "match" if at == 0:
                return any(builds_alike(n.args[0].type, k, g) for k, g in n.attrs.items()
                           if isinstance(g, Graph))  # fmt: skip
            case "while_" | "scan_" if at < n.attrs["carried"]:
                return at in self.wanted(n.attrs["body"])
        found = captures_from(n)
        if found is None or at < found[0]:
            return False
        first, own = found
        return any(own[k] + at - first in self.wanted(n.attrs[k]) for k in own)


def builds_alike(data: DataType, name: str, arm: Graph) -> bool:
    """Whether an arm builds something as large as what it takes apart."""
    case = data.case(name)
    if case is None or not case.fields:
        return False
    return any(n.op.name == "construct" and weight(n.type.case(n.attrs["case"])) == weight(case)
               for n in arm.nodes())  # fmt: skip


def weight(case) -> tuple:
    """What decides about the size of a case's objects."""
    return tuple("ref" if is_object(t) else (t.dtype.bytes, t.shape) for t in case.types)
