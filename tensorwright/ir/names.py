"""Names in the text form: valid, unique, deterministic.

    "/fc1/MatMul" -> fc1_MatMul     a second "i" -> i_2     "relu", "if" -> relu_, if_

Index sums are ordered by the names in them, so a renamed symbol is substituted before its
expressions are printed: what is parsed back is then in the same order.
"""

from __future__ import annotations

import keyword
import re

from tensorwright.ir.dtype import DTYPES
from tensorwright.ir.expr import (
    ARITHMETIC,
    BITWISE,
    COMPARISONS,
    PREDICATES,
    UNARY,
    Buffer,
    Expr,
    Symbol,
    load,
    sym,
    transform,
)  # fmt: skip
from tensorwright.ir.loop import KINDS

WORDS = frozenset(
    [*keyword.kwlist, *keyword.softkwlist, *(d.name for d in DTYPES), *ARITHMETIC, *BITWISE,
     *COMPARISONS, *PREDICATES, *UNARY, *KINDS, "sym", "graph", "kernel", "out", "const", "param",
     "local", "temp", "arena", "view", "aligned", "assert_", "call_kernel", "call_extern", "select",
     "cast", "bitcast", "fma", "call", "not_", "bit_and", "bit_or", "power", "inf", "nan", "entry",
     "free", "frame", "dynamic", "program_input", "program_shape", "prefetch",
     "program_output", "copy", "data", "case", "match", "new", "retain", "release", "reference",
     "np", "range", "array", "function", "tuple_type"]
)  # fmt: skip

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
_UNNAMED = re.compile(r"v\d+\Z")


def identifier(name: str, otherwise: str) -> str:
    """`name` as a Python identifier that is no word of the text form."""
    if not _IDENTIFIER.match(name):
        name = re.sub(r"[^A-Za-z_0-9]+", "_", name).strip("_") or otherwise
        if name[0].isdigit():
            name = f"{otherwise}_{name}"
    return name + "_" if name in WORDS else name


def is_unnamed(name: str) -> bool:
    """Whether a node's name is one that the printer makes up."""
    return not name or bool(_UNNAMED.match(name))


class Scope:
    """The names taken so far, in this scope or one around it."""

    def __init__(self, around: Scope | None = None, words: frozenset[str] = frozenset()):
        self.taken: set[str] = set() if around is None else set(around.taken)
        self.taken |= words
        self.counters: dict[str, int] = {}
        self.order: list[str] = []

    def take(self, name: str) -> str:
        """`name`, or `name_2`, `name_3` ... if it is taken."""
        found = name
        if name in self.taken:
            k = self.counters.get(name, 2)
            while f"{name}_{k}" in self.taken:
                k += 1
            self.counters[name] = k + 1
            found = f"{name}_{k}"
        self.taken.add(found)
        self.order.append(found)
        return found

    def mark(self) -> int:
        return len(self.order)

    def release(self, mark: int) -> None:
        """Give back the names taken since `mark`."""
        for name in self.order[mark:]:
            self.taken.discard(name)
            self.counters.pop(name.rpartition("_")[0], None)
        del self.order[mark:]


class Renaming:
    """New names of symbols and buffers, and expressions under them."""

    def __init__(self, outer: Renaming | None = None):
        self.symbols: dict[Symbol, Symbol] = dict(outer.symbols) if outer else {}
        self.buffers: dict[Buffer, Buffer] = dict(outer.buffers) if outer else {}
        self.changed = outer.changed if outer else False
        self.memo: dict[Expr, Expr] = {}

    def symbol(self, s: Symbol, scope: Scope) -> Symbol:
        """Declare a symbol; gives the one to print."""
        name = scope.take(identifier(s.name, "n"))
        new = s
        upper = s.upper if s.upper is None else self.expr(s.upper)
        if name != s.name or upper is not s.upper:
            new = Symbol(name, s.min, s.max, s.multiple_of, upper, s.values, s.hot)
            self.changed = True
            self.memo.clear()
        self.symbols[s] = new
        return new

    def buffer(self, b: Buffer, scope: Scope) -> Buffer:
        """Declare a buffer; gives the one to print."""
        name = scope.take(identifier(b.name, "b"))
        shape = tuple(self.expr(d) if isinstance(d, Expr) else d for d in b.shape)
        new = b
        if name != b.name or any(x is not y for x, y in zip(shape, b.shape)):
            new = Buffer(name, b.dtype, shape, b.scope, b.align)
            self.changed = True
            self.memo.clear()
        self.buffers[b] = new
        return new

    def expr(self, e: Expr) -> Expr:
        """`e` under the new names, canonical again."""
        return transform(e, self._leaf, self.memo) if self.changed else e

    def _leaf(self, e: Expr) -> Expr | None:
        if e.op == "sym":
            return sym(self.symbols.get(e.value, e.value))
        if e.op == "load":
            b = self.buffers.get(e.value, e.value)
            indices = tuple(transform(i, self._leaf, self.memo) for i in e.args)
            return load(b, indices)
        return None
