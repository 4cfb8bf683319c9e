"""Which algorithm an operator computes by: that of least cost, or the one that a record names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorwright.ir.graph import Graph, Node, param, with_args
from tensorwright.ir.loop import Kernel
from tensorwright.passes.lower import define_kernel
from tensorwright.schedule.records import Record, identity, recorded, report_unused
from tensorwright.schedule.space import ChoiceError, Choices
from tensorwright.target.target import Target

Chosen = Callable[[Record], object]
DIRECT = "direct"


class Algorithms:
    """Decisions for operators of one kind, which records name. chosen: is told of each that had an
    alternative."""

    def __init__(self, kind: str, what: str, target: Target, chosen: Chosen | None) -> None:
        self.kind, self.what, self.target, self.chosen = kind, what, target, chosen
        self.seen: list[Kernel] = []

    def pick(self, node: Node, cost: Mapping[str, float]) -> str:
        """The name of one algorithm. cost: cycles by name."""
        given, asked = {}, bool(self.target.schedules) or self.chosen is not None
        if asked:
            self.seen.append(alone(node))
            given = recorded(self.seen[-1], self.target, self.kind)
        choices = Choices(given)
        try:
            name = choices.pick("algorithm", cost, cost.get)
        except ChoiceError as e:
            raise e.located((f"{self.what} {node.name or node.op.name}", *node.loc[:1])) from None
        if self.chosen is not None and len(cost) > 1:
            does = f"{self.what}: {name}"
            k = self.seen[-1]
            self.chosen(Record.of_algorithm(k, self.target, choices, self.kind, does))
        return name

    def report_unused(self) -> None:
        """Tell of records that were for none of the operators."""
        keys = (identity(k, self.kind) for k in self.seen) if self.target.schedules else ()
        report_unused(keys, self.target, self.kind)


def alone(node: Node) -> Kernel:
    """The kernel that the operator defines, without what will be computed beside it."""
    operands = [param(f"x{k}", a.type) for k, a in enumerate(node.args)]
    name = node.op.name
    return define_kernel(name, Graph(name, tuple(operands), (with_args(node, operands),)))
