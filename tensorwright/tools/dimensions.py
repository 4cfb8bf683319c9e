"""What is known of a program's sizes: what was proved, what is checked, and where each comes from.

    s       1..512        dimension 1 of input 'ids'
    kept    0..           read by /NonMaxSuppression while it runs
    proved  output 'logits' is [1, s, 96]
    checked dimension 1 of input 'mask' = past + s

A size is proved if its text is an expression of others; nothing is then compared while the program
runs. Memory that is planned grows with the sizes, up to their upper bounds where all have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorwright.ir.expr import Expr, Symbol, as_expr, symbols_of, text_of
from tensorwright.ir.facts import evaluate, solve
from tensorwright.ir.graph import Graph, bound_symbols
from tensorwright.ir.loop import Alloc, Kernel, statements
from tensorwright.ir.module import Module
from tensorwright.ir.type import TensorType, product, type_symbols
from tensorwright.tools.summary import short_source


@dataclass(frozen=True)
class Dimension:
    """A size that varies: its facts, where the program finds it, and which nodes of the model are
    the reason of its bounds."""

    name: str
    facts: str
    source: str
    why: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = f", by {' and '.join(self.why)}" if self.why else ""
        return f"{self.name}  {self.facts}  {self.source}{why}"


@dataclass(frozen=True)
class Dimensions:
    """All that varies in a program. `proved` and `checked` are relations, `memory` what the planned
    frame takes at most."""

    found: tuple[Dimension, ...]
    proved: tuple[str, ...]
    checked: tuple[str, ...]
    memory: str

    def lines(self) -> list[str]:
        return [
            *map(str, self.found),
            *(f"proved: {p}" for p in self.proved),
            *(f"checked: {c}" for c in self.checked),
            *([f"memory: {self.memory}"] if self.found else []),
        ]


def dimensions(imported: Module, final: Module, host: Kernel) -> Dimensions:
    """The sizes of a program: of the model as it was imported, and of what became of it."""
    g = imported.main
    own, checked = from_inputs(g)
    read = {s: d for f in final.all_graphs() for s, d in from_data(f)}
    return Dimensions(
        (*own, *read.values()),
        tuple(proved_results(g, {s for p in g.params for s in type_symbols(p.type)})),
        tuple(checked),
        memory_bound(host),
    )


def from_inputs(g: Graph) -> tuple[list[Dimension], list[str]]:
    """Where the symbols of the inputs are found, and what is compared with them."""
    dims, places = [], []
    for p in g.params:
        if isinstance(p.type, TensorType):
            for axis, d in enumerate(p.shape):
                dims.append(as_expr(d))
                places.append(f"dimension {axis} of input '{p.name}'")
    plan = solve(dims)
    found = []
    for step in plan.steps:
        s, d = step.symbol, dims[step.source]
        told = "" if text_of(d) == s.name else f" = {text_of(d)}"
        why = tuple(dict.fromkeys(short_source(w) for w in s.why if w))
        found.append(Dimension(s.name, facts_of(s), places[step.source] + told, why))
    checks = [f"{places[k]} = {text_of(dims[k])}" for k in plan.checks if symbols_of(dims[k])]
    return found, checks


def from_data(g: Graph) -> Iterator[tuple[Symbol, Dimension]]:
    """Symbols that nodes bind while the program runs."""
    for node in g.binders:
        by = next(map(short_source, node.loc), node.op.name)
        for s in bound_symbols(node):
            yield s, Dimension(s.name, facts_of(s), f"read by {by} while it runs")


def proved_results(g: Graph, known: set[Symbol]) -> Iterator[str]:
    """Results whose sizes follow from those of the inputs."""
    names = g.result_names or tuple(r.name or f"out{k}" for k, r in enumerate(g.results))
    for name, r in zip(names, g.results):
        if isinstance(r.type, TensorType):
            inside = type_symbols(r.type)
            if inside and inside <= known:
                shape = ", ".join(text_of(as_expr(d)) for d in r.shape)
                yield f"output '{name}' is [{shape}]"


def facts_of(s: Symbol) -> str:
    if s.values:
        return f"one of {', '.join(map(str, s.values))}"
    text = f"{'' if s.min is None else s.min}..{'' if s.max is None else s.max}"
    text += f", a multiple of {s.multiple_of}" if s.multiple_of > 1 else ""
    return text + (f", often {', '.join(map(str, s.hot))}" if s.hot else "")


def memory_bound(host: Kernel) -> str:
    """What the frame of the host function takes at most."""
    for s in statements(host.body):
        if isinstance(s, Alloc) and s.buffer.scope == "frame":
            return bound_text(as_expr(product(s.buffer.shape)))
    return "nothing between kernels"


def bound_text(size: Expr) -> str:
    symbols = sorted(symbols_of(size), key=lambda s: s.serial)
    open_ = [s.name for s in symbols if s.max is None]
    if open_:
        return f"grows with {', '.join(open_)}, which {'have' if open_[1:] else 'has'} no bound"
    most = evaluate(size, {s: s.max // s.multiple_of * s.multiple_of for s in symbols})
    return f"at most {most} bytes" + ("" if symbols else ", whatever the sizes")
