"""Results of a function, computed where the caller wants them.

    a = f(x); b = g(x); r = concat(a, b)    ->    a = view(r, 0); f(x, a); b = view(r, n); g(x, b)

A result whose producer writes to any buffer gets the caller's. One that is tensors one behind the
other (`lower.joined_results`) is handed on to what makes these; whatever cannot write there is
copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tensorwright.ir.expr import Buffer, Expr, as_expr, const
from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.loop import Copy, View
from tensorwright.ir.type import TensorType, TupleType, product
from tensorwright.passes.takers import is_object


class Results:
    """The part of `Host` that says where results are computed."""

    def claim(self, g: Graph, outputs: list[Buffer]) -> list[int]:
        """Make producers of the results write to `outputs`; the positions that need a copy."""
        copies = []
        state = {r for _, r in g.state}
        for k, (result, out) in enumerate(zip(g.results, outputs)):
            producer = result
            while producer.op.name == "reshape" or producer.attrs.get("inplace", -1) >= 0:
                producer = producer.args[producer.attrs.get("inplace", 0)]
            direct = writes_to_target(producer) and not isinstance(producer.type, TupleType)
            item = producer.op.name == "item" and writes_to_target(producer.args[0])
            fits = (direct or item) and producer not in self.targets and producer not in g.params
            joined = result.op.name == "concat" and result not in self.targets
            if (fits or joined) and k not in state:
                self.targets[producer] = out
                if joined:
                    self.claim_parts(result, out)
            else:
                copies.append(k)
        return copies

    def claim_parts(self, node: Node, out: Buffer) -> None:
        """Make producers of tensors that lie one behind the other in a result write there."""
        for a, start in zip(node.args, self.starts(node)):
            producer = a
            while producer.op.name == "reshape":
                producer = producer.args[0]
            plain = producer.op.name == "call_kernel" and producer.attrs["inplace"] < 0
            if plain and isinstance(producer.type, TensorType) and producer not in self.targets:
                self.targets[producer] = self.stretch(out, producer, start)
                self.placed.add(a)

    def stretch(self, out: Buffer, like: Node, start: Expr) -> Buffer:
        """The view of a tensor's elements from `start` on."""
        own = Buffer(f"{out.name}_part", out.dtype, self.shape(like.shape), "arena")
        self.body.append(View(own, out, start))
        return own

    def starts(self, node: Node) -> Iterator[Expr]:
        """Where in a concatenation each of the operands begins."""
        sizes = [self.dim(as_expr(product(a.shape))) for a in node.args]
        return itertools.accumulate(sizes[:-1], initial=const(0))

    def emit_concat(self, node: Node) -> Buffer:
        """A result whose parts lie where they belong, or are copied there."""
        out = self.targets.get(node) or self.allocate(node, node.type, node.name or "concat")
        for a, start in zip(node.args, self.starts(node)):
            if a not in self.placed:
                self.body.append(Copy(self.stretch(out, a, start), self.buffer(a)))
        return out


def writes_to_target(node: Node) -> bool:
    """Whether a node computes its results in whatever buffers it is given."""
    types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    tensors = not any(map(is_object, types))
    return node.op.name == "call_kernel" or (node.op.name == "call" and tensors)
