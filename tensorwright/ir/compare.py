"""Structural equality of programs, up to the names of what they bind.

    same(parse(to_text(m), OPS), m)     difference(a, b) -> "main: node 3: add and sub" or ""

Symbols correspond where they first meet; everything after must agree with that. Names of
parameters count, those of inner nodes, loop variables and buffers do not, nor do locations.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from tensorwright.ir.expr import Buffer, Expr, Symbol, load, sym, symbols_of, transform
from tensorwright.ir.graph import CONST, Graph, Node
from tensorwright.ir.loop import (
    Alloc,
    Call,
    Copy,
    Count,
    For,
    Kernel,
    Let,
    New,
    Stmt,
    Store,
    View,
    children,
)  # fmt: skip
from tensorwright.ir.module import Module
from tensorwright.ir.print_kernel import flatten, free_buffers, program_buffers
from tensorwright.ir.type import DataType, FunctionType, TensorType, TupleType


def same(a, b) -> bool:
    """Whether two modules, graphs or kernels are the same program."""
    return not difference(a, b)


def difference(a, b) -> str:
    """The first difference in words, "" if there is none."""
    try:
        comparison = _Comparison()
        if isinstance(a, Module):
            comparison.module(a, b)
        elif isinstance(a, Graph):
            comparison.graph(a, b)
        else:
            comparison.kernel(a, b)
        comparison.finish()
    except _Different as e:
        return str(e)
    return ""


class _Different(Exception):
    pass


class _Comparison:
    def __init__(self):
        self.symbols: dict[Symbol, Symbol] = {}
        self.taken: set[Symbol] = set()
        self.buffers: dict[Buffer, Buffer] = {}
        self.where: list[str] = []
        self.memo: dict[Expr, Expr] = {}
        self.later: list[tuple[str, Expr, Expr]] = []

    def fail(self, message: str):
        raise _Different(": ".join([*self.where, message]))

    def check(self, condition: bool, message: str) -> None:
        if not condition:
            self.fail(message)

    def equal(self, a, b, what: str) -> None:
        if a is not b and a != b:
            self.fail(f"{what}: {a} and {b}")

    def module(self, a: Module, b: Module) -> None:
        self.equal(a.entry, b.entry, "entry")
        self.equal(a.entries, b.entries, "entries")
        self.equal(list(a.graphs), list(b.graphs), "graphs")
        self.equal(list(a.kernels), list(b.kernels), "kernels")
        for name in a.graphs:
            self.graph(a.graphs[name], b.graphs[name])
        for name in a.kernels:
            self.kernel(a.kernels[name], b.kernels[name])

    # ---- symbols and expressions ---------------------------------------------------------------

    def bind(self, a: Symbol, b: Symbol) -> None:
        found = self.symbols.get(a)
        if found is b:
            return
        if found is not None or b in self.taken:
            self.fail(f"symbols: {a.name} and {b.name}")
        self.symbols[a] = b
        self.taken.add(b)
        self.memo.clear()
        for fact in ("min", "max", "multiple_of", "values", "hot"):
            if getattr(a, fact) != getattr(b, fact):
                self.fail(f"{fact} of {a.name}: {getattr(a, fact)} and {getattr(b, fact)}")
        self.check((a.upper is None) == (b.upper is None), f"upper of {a.name}")
        if a.upper is not None:
            self.expr(a.upper, b.upper)

    def expr(self, a, b) -> None:
        """Equal under the correspondence so far; postponed while symbols are unknown."""
        if not isinstance(a, Expr) or not isinstance(b, Expr):
            self.equal(a, b, "sizes")
        elif a.op == "sym" and b.op == "sym":
            self.bind(a.value, b.value)
        elif all(s in self.symbols for s in symbols_of(a)):
            self.equal(transform(a, self._leaf, self.memo), b, "expressions")
        else:
            self.later.append((": ".join(self.where), a, b))

    def _leaf(self, e: Expr) -> Expr | None:
        if e.op == "sym":
            return sym(self.symbols[e.value])
        if e.op == "load":
            indices = tuple(transform(i, self._leaf, self.memo) for i in e.args)
            b = self.buffers.get(e.value, e.value)
            return load(b, indices) if b.rank == len(indices) else e
        return None

    def finish(self) -> None:
        """Postponed expressions: their symbols correspond by name, or by position."""
        for where, a, b in self.later:
            self.where = [where]
            ours = [s for s in _by_name(a) if s not in self.symbols]
            theirs = [s for s in _by_name(b) if s not in self.taken]
            self.check(len(ours) == len(theirs), f"expressions: {a} and {b}")
            by_name = {s.name: s for s in theirs}
            if {s.name for s in ours} == set(by_name):
                theirs = [by_name[s.name] for s in ours]
            for s, t in zip(ours, theirs):
                self.bind(s, t)
            self.equal(transform(a, self._leaf, self.memo), b, "expressions")

    # ---- types and graphs ----------------------------------------------------------------------

    def type(self, a, b) -> None:
        if a is b:
            return
        self.check(type(a) is type(b), f"types: {a} and {b}")
        if isinstance(a, TupleType):
            self.check(len(a.items) == len(b.items), f"types: {a} and {b}")
            for x, y in zip(a.items, b.items):
                self.type(x, y)
        elif isinstance(a, FunctionType):
            self.type(TupleType(a.params), TupleType(b.params))
            self.type(a.result, b.result)
        elif isinstance(a, DataType):
            self.equal(a, b, "data types")
        else:
            self.check(a.dtype is b.dtype and len(a.shape) == len(b.shape), f"types: {a} and {b}")
            for x, y in zip(a.shape, b.shape):
                self.expr(x, y)

    def graph(self, a: Graph, b: Graph) -> None:
        self.where.append(a.name)
        self.equal(a.name, b.name, "names")
        self.equal(a.result_names, b.result_names, "result names")
        self.equal(a.state, b.state, "state")
        self.equal([p.name for p in a.params], [p.name for p in b.params], "parameters")
        mine, other = a.nodes(), b.nodes()
        self.check(len(mine) == len(other), f"{len(mine)} and {len(other)} nodes")
        place = {n: k for k, n in enumerate(other)}
        index = {n: k for k, n in enumerate(mine)}
        for k, (x, y) in enumerate(zip(mine, other)):
            self.where.append(f"node {k}")
            self.node(x, y, index, place)
            self.where.pop()
        self.equal([index[r] for r in a.results], [place[r] for r in b.results], "results")
        self.where.pop()

    def node(self, a: Node, b: Node, index: dict[Node, int], place: dict[Node, int]) -> None:
        self.check(a.op is b.op, f"{a.op.name} and {b.op.name}")
        mine = [index.get(x) for x in a.args]
        self.equal(mine, [place.get(x) for x in b.args], "operands")
        if a.op is CONST:
            self.array(a.attrs["value"], b.attrs["value"])
            return
        self.type(a.type, b.type)
        self.equal(set(a.attrs), set(b.attrs), "attributes")
        for k, v in a.attrs.items():
            self.attr(v, b.attrs[k], k)

    def array(self, a: np.ndarray, b: np.ndarray) -> None:
        self.check(a.dtype == b.dtype and a.shape == b.shape, f"constants of {a.shape}, {b.shape}")
        self.check(a is b or a.tobytes() == b.tobytes(), "contents of a constant")

    def attr(self, a, b, name: str) -> None:
        if isinstance(a, Expr):
            self.expr(a, b)
        elif isinstance(a, (TensorType, TupleType, FunctionType, DataType)):
            self.type(a, b)
        elif isinstance(a, Graph):
            self.check(isinstance(b, Graph), name)
            self.graph(a, b)
        elif isinstance(a, np.ndarray):
            self.array(a, b)
        elif isinstance(a, (tuple, list)):
            self.check(isinstance(b, (tuple, list)) and len(a) == len(b), f"{name}: {a} and {b}")
            for x, y in zip(a, b):
                self.attr(x, y, name)
        else:
            self.check(type(a) is type(b) and repr(a) == repr(b), f"{name}: {a} and {b}")

    # ---- kernels -------------------------------------------------------------------------------

    def kernel(self, a: Kernel, b: Kernel) -> None:
        self.where.append(a.name)
        self.equal(a.name, b.name, "names")
        self.equal(a.outputs, b.outputs, "outputs")
        self.equal(a.sources, b.sources, "sources")
        self.equal(a.packs, b.packs, "packs")
        self.equal(a.streams, b.streams, "streams")
        self.check(len(a.params) == len(b.params), "parameters")
        self.check(len(a.symbols) == len(b.symbols), "symbols")
        for x, y in zip(a.symbols, b.symbols):
            self.bind(x, y)
        turns = [k.turn and k.symbols.index(k.turn) for k in (a, b)]
        self.equal(*turns, "turn")
        mine, other = program_buffers(a), program_buffers(b)
        for x, y in zip(a.params, b.params):
            self.check((x in mine) == (y in other), f"buffers: {x} and {y}")
            if x not in mine:
                self.buffer(x, y)
        for x, y in zip(free_buffers(a), free_buffers(b)):
            self.buffer(x, y)
        self.block(a.body, b.body)
        self.where.pop()

    def buffer(self, a: Buffer, b: Buffer) -> None:
        """Declare corresponding buffers."""
        self.check(
            (a.dtype, a.scope, a.align, a.rank) == (b.dtype, b.scope, b.align, b.rank),
            f"buffers: {a} and {b}",
        )
        for x, y in zip(a.shape, b.shape):
            self.expr(x, y)
        self.buffers[a] = b
        self.memo.clear()

    def use(self, a: Buffer, b: Buffer) -> None:
        if a not in self.buffers:
            self.buffer(a, b)
        self.check(self.buffers[a] is b, f"buffers: {a.name} and {b.name}")

    def block(self, a: Stmt, b: Stmt) -> None:
        mine, other = flatten(a), flatten(b)
        self.check(len(mine) == len(other), f"{len(mine)} and {len(other)} statements")
        for x, y in zip(mine, other):
            self.statement(x, y)

    def statement(self, a: Stmt, b: Stmt) -> None:
        self.check(type(a) is type(b), f"{type(a).__name__} and {type(b).__name__}")
        if isinstance(a, View):
            self.use(a.base, b.base)
        for f in fields(a):
            if f.name not in (
                "body",
                "then",
                "orelse",
                "var",
                "buffer",
                "base",
                "buffers",
                "target",
                "source",
            ):
                self.attr(getattr(a, f.name), getattr(b, f.name), f.name)
        match a:
            case For() | Let():
                self.bind(a.var, b.var)
            case Alloc() | View():
                self.buffer(a.buffer, b.buffer)
            case Store():
                self.use(a.buffer, b.buffer)
            case Copy():
                self.use(a.target, b.target)
                self.use(a.source, b.source)
            case New() | Count():
                self.use(a.target, b.target)
            case Call():
                self.check(len(a.buffers) == len(b.buffers), "buffers of a call")
                for x, y in zip(a.buffers, b.buffers):
                    self.use(x, y)
        mine, other = children(a), children(b)
        self.check(len(mine) == len(other), f"branches of {type(a).__name__}")
        for x, y in zip(mine, other):
            self.block(x, y)


def _by_name(e: Expr) -> list[Symbol]:
    return sorted(symbols_of(e), key=lambda s: s.name)
