"""Tell kernels that a loop calls again and again which call it is.

    scan_(h, xs, body=<graph (h, x): call_kernel(h, w, x, callee="cell")>)
->  scan_(h, xs, iota(n), body=<graph (h, x, step): t = bind_size(step);
                                call_kernel(h, w, x, callee="cell_in_turns", scalars=(t,))>)

Each step reads the same weights. Where these leave the L2 cache, a kernel that begins at the end
where it stopped the last time finds there what it read last (`schedule/turns.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tensorwright.base import trace
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import CONST, Graph, Node, param, rebuild, subgraphs, with_args
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import TensorType
from tensorwright.ops.control import scan_
from tensorwright.ops.kernel import call_kernel
from tensorwright.ops.positions import bind_size, iota
from tensorwright.passes.bodies import captures_from, number_of_steps
from tensorwright.passes.lower import lower_to_kernel, without_uncalled
from tensorwright.schedule.turns import leaves_cache
from tensorwright.target.target import Target


def count_turns(m: Module, target: Target) -> Module:
    """`m` with the number of the step for kernels of scans that read much again in each of them."""
    turns = _Turns(target, dict(m.kernels))
    graphs = {name: rebuild(g, turns.visit) for name, g in m.graphs.items()}
    if not turns.counting:
        return m
    return without_uncalled(replace(m, graphs=graphs, kernels=turns.kernels), turns.counting.keys())


@dataclass
class _Turns:
    """counting: the kernels that are told, by the names of those that they were."""

    target: Target
    kernels: dict[str, Kernel]
    counting: dict[str, str] = field(default_factory=dict)
    known: dict[tuple, str] = field(default_factory=dict)

    def visit(self, node: Node, args: tuple) -> Node:
        node = with_args(node, args)
        if subgraphs(node):
            attrs = {k: rebuild(v, self.visit) if isinstance(v, Graph) else v
                     for k, v in node.attrs.items()}  # fmt: skip
            node = replace(node, attrs=attrs)
        return self.scan(node) if node.op is scan_ else node

    def scan(self, node: Node) -> Node:
        """The scan with the number of the step as the last of its slices, if a kernel wants it."""
        first, own = captures_from(node)
        body, turn = node.attrs["body"], Symbol("turn", min=0)
        captured = set(body.params[own["body"] :])

        def visit(n: Node, args: tuple) -> Node:
            again = [a for a in n.args if a is not None and (a.op is CONST or a in captured)]
            told = n.op is call_kernel and any(leaves_cache(a.type, self.target) for a in again)
            return self.told(with_args(n, args), turn) if told else with_args(n, args)

        counted = rebuild(body, visit)
        if counted is body:
            return node
        step = param("step", TensorType(i64, ()))
        params = (*body.params[:first], step, *body.params[first:])
        binders = (*counted.binders, bind_size(step, symbols=(sym(turn),)))
        count = iota(shape=(number_of_steps(node),), dtype=i64)
        steps = lower_to_kernel(count, self.kernels, self.known)
        attrs = {**node.attrs, "scanned": node.attrs["scanned"] + 1}
        attrs["body"] = replace(counted, params=params, binders=binders)
        return replace(node, args=(*node.args[:first], steps, *node.args[first:]), attrs=attrs)

    def told(self, call: Node, turn: Symbol) -> Node:
        """The call of a kernel with the number of the step behind its other numbers."""
        trace.decision("turns", call, "yes", "the loop reads the same weights in each step")
        callee = call.attrs["callee"]
        if callee not in self.counting:
            name, k = unique(f"{callee}_in_turns", self.kernels), self.kernels[callee]
            own = Symbol("turn", min=0)
            self.counting[callee] = name
            self.kernels[name] = replace(k, name=name, symbols=(*k.symbols, own), turn=own)
        scalars = (*call.attrs["scalars"], sym(turn))
        return replace(call, attrs={**call.attrs, "callee": self.counting[callee],
                                    "scalars": scalars})  # fmt: skip
