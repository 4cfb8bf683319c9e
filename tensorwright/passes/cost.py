"""What one call of a kernel costs at least: arithmetic, and bytes that must move.

    for i in n: for j in 32: for k in 64: y[i, j] += x[i, k] * w[k, j]
        ->   flops 4096 * n,  bytes 4 * (64 * n + 2048 + 32 * n)

Counted on the definition, before scheduling: an operation a distinct node of an expression, two a
fused multiply-add; every buffer that is read or written once, except those read at computed places,
which count what is read. Index and boolean arithmetic is free. Guards count as taken.
"""

from __future__ import annotations

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import boolean, index
from tensorwright.ir.expr import (
    BITWISE,
    PREDICATES,
    UNARY,
    Buffer,
    Expr,
    as_expr,
    bounds,
    const,
    minimum,
    symbols_of,
    walk,
)  # fmt: skip
from tensorwright.ir.loop import For, Kernel, Stmt, Store
from tensorwright.ir.type import product

_ONE = frozenset((
    "add", "sub", "mul", "div", "floordiv", "mod", "truncdiv", "rem", "pow", "min", "max", "atan2",
    *BITWISE, *UNARY, *PREDICATES,
))  # fmt: skip
_FREE = (index, boolean)


def kernel_cost(k: Kernel) -> tuple[Expr, Expr]:
    """(operations, bytes) of one call of an unscheduled kernel, in its symbols."""
    count = _Count(k)
    count.visit(k.body, const(1))
    return count.flops, count.bytes()


class _Count:
    """Walks a nest with the number of times that the present statement runs."""

    def __init__(self, k: Kernel):
        self.kernel = k
        self.known = set(k.symbols)
        self.flops = const(0)
        self.gathered: dict[Buffer, Expr] = {}  # elements read at computed places
        self.whole: set[Buffer] = set()  # buffers read or written as a whole

    def visit(self, s: Stmt, times: Expr) -> None:
        for e in ir.expressions(s):
            self.expression(e, times)
        match s:
            case Store(buffer=b):
                self.whole.add(b)
            case ir.Copy(target=t, source=b):
                self.whole |= {t, b}
            case ir.Call(buffers=buffers):
                self.whole |= set(buffers)
        inner = times * self.extent(s) if isinstance(s, For) else times
        for child in ir.children(s):
            self.visit(child, inner)

    def extent(self, s: For) -> Expr:
        """Iterations in terms of the kernel's symbols: the most, where outer loops decide."""
        if symbols_of(s.extent) <= self.known:
            return s.extent
        high = bounds(s.extent)[1]
        return const(1 if high is None else max(high, 0))

    def expression(self, e: Expr, times: Expr) -> None:
        for node in walk(e):
            if node.op == "load":
                self.load(node, times)
            elif node.dtype not in _FREE and node.op in _ONE:
                self.flops = self.flops + times
            elif node.op == "fma":
                self.flops = self.flops + 2 * times

    def load(self, e: Expr, times: Expr) -> None:
        if any(part.op == "load" for part in walk(*e.args)):
            self.gathered[e.value] = self.gathered.get(e.value, const(0)) + times
        else:
            self.whole.add(e.value)

    def bytes(self) -> Expr:
        total = const(0)
        for b in self.kernel.params:
            size = as_expr(product(b.shape))
            if b not in self.whole:
                size = minimum(size, self.gathered.get(b, const(0)))
            total = total + size * b.dtype.bytes
        return total
