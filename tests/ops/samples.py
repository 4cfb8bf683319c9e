"""The `samples` column read into concrete operands.

    "f32[n,4] i64[3]@0:3 axis=1 n=1,5"  ->  two cases, n=1 and n=5, of two random operands

A sample is operands, then attributes, then values of the symbols in it; a word is `-` (an absent
operand), a tensor type with an optional range of values (`@0:3`, ends included; `@special` mixes in
infinities, NaN and zeros of both signs), or `name=value`. Words have no spaces; values are Python
over dtype names, symbols and bare words (strings).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from tensorwright.ir.dtype import DTYPES, dtype
from tensorwright.ir.expr import Expr, Symbol, as_dim, as_expr, substitute, sym
from tensorwright.ir.graph import Node, param
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import TensorType, tensor

TENSOR = re.compile(r"^(\w+)\[(.*)\](?:@(\S+))?$")
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, -2.5, 1e30, -1e30, 3e9, 7e4)


@dataclass(frozen=True)
class Operand:
    type: TensorType
    domain: str  # "" or "low:high" or "special"


@dataclass(frozen=True)
class Case:
    """One sample with one choice of values for its symbols."""

    op: OpDef
    text: str
    operands: tuple[Operand | None, ...]
    attrs: dict
    values: dict[Symbol, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        chosen = " ".join(f"{s.name}={v}" for s, v in self.values.items())
        return f"{self.op.name}: {self.text}" + (f" ({chosen})" if chosen else "")

    def types(self) -> tuple[TensorType | None, ...]:
        return tuple(None if o is None else o.type for o in self.operands)

    def static(self) -> Case:
        """The same case with its symbols replaced by numbers."""
        operands = tuple(
            o and Operand(concrete_type(o.type, self.values), o.domain) for o in self.operands
        )
        return Case(self.op, self.text, operands, concrete(self.attrs, self.values))

    def params(self) -> tuple[Node | None, ...]:
        return tuple(t and param(f"x{k}", t) for k, t in enumerate(self.types()))

    def arrays(self, seed: int = 0) -> tuple[np.ndarray | None, ...]:
        """Random operands, the same for the same case."""
        random = np.random.default_rng([seed, *self.name.encode()])
        return tuple(o and random_array(random, concrete_type(o.type, self.values), o.domain)
                     for o in self.operands)  # fmt: skip


def cases(op: OpDef) -> Iterator[Case]:
    """Every sample of a row, once for each choice of values of its symbols."""
    for text in op.samples:
        yield from parse(op, text)


def parse(op: OpDef, text: str) -> Iterator[Case]:
    words = text.split()
    tensors = [w for w in words if w == "-" or TENSOR.match(w)]
    given = dict(w.split("=", 1) for w in words[len(tensors) :])
    known = set(op.defaults) | keyword_names(op)
    ranges = {k: [int(v) for v in given[k].split(",")] for k in given if k not in known}
    for chosen in product(*ranges.values()):
        symbols = {n: Symbol(n, min=min(ranges[n])) for n in ranges}
        scope = {n: sym(s) for n, s in symbols.items()} | {d.name: d for d in DTYPES}
        attrs = {k: attribute(v, scope) for k, v in given.items() if k in known}
        operands = [None if w == "-" else operand(w, scope) for w in tensors]
        operands += [None] * (0 if op.is_variadic else len(op.params) - len(operands))
        values = dict(zip(symbols.values(), chosen))
        yield Case(op, text, tuple(operands), {**op.defaults, **attrs}, values)


def keyword_names(op: OpDef) -> set[str]:
    code = op.infer.__code__
    return set(code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount])


def attribute(text: str, scope: dict):
    """A Python value; a word that is no name in scope is a string, dimensions are ints or Exprs."""
    names = {**scope, "inf": math.inf, "nan": math.nan, "True": True, "False": False}
    if re.fullmatch(r"[A-Za-z_]\w*", text) and text not in names and text != "None":
        return text
    words = set(re.findall(r"[A-Za-z_]\w*", text)) - set(names) - {"None"}
    value = eval(text, {"__builtins__": {}}, names | {w: w for w in words})
    return as_dim(value) if isinstance(value, Expr) else value


def operand(word: str, scope: dict) -> Operand:
    kind, dims, domain = TENSOR.match(word).groups()
    shape = [eval(d, {"__builtins__": {}}, scope) for d in dims.split(",") if d.strip()]
    return Operand(tensor(kind, *shape), domain or "")


def concrete(value, values: dict[Symbol, int]):
    """An attribute value with numbers for its symbols."""
    if isinstance(value, Expr):
        return as_dim(substitute(value, {sym(s): as_expr(v) for s, v in values.items()}))
    if isinstance(value, tuple):
        return tuple(concrete(v, values) for v in value)
    if isinstance(value, dict):
        return {k: concrete(v, values) for k, v in value.items()}
    return value


def concrete_type(t: TensorType, values: dict[Symbol, int]) -> TensorType:
    return TensorType(t.dtype, concrete(t.shape, values))


def random_array(random: np.random.Generator, t: TensorType, domain: str = "") -> np.ndarray:
    """Values of the domain, exactly representable in the type where it is narrow."""
    kind = dtype(t.dtype)
    if domain == "special":
        with np.errstate(over="ignore"):
            return np.resize(random.permutation(SPECIAL), t.shape).astype(kind.numpy)
    if kind.kind == "bool":
        return random.integers(0, 2, t.shape).astype(bool)
    if kind.is_float:
        low, high = map(float, domain.split(":")) if domain else (-3.0, 3.0)
        return np.asarray(random.uniform(low, high, t.shape)).astype(kind.numpy)
    low, high = map(int, domain.split(":")) if domain else (max(kind.min, -100), min(kind.max, 100))
    return np.asarray(random.integers(low, high, t.shape, endpoint=True)).astype(kind.numpy)
