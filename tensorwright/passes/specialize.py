"""Functions of their own for sizes that come often, chosen where the program is called.

    s = sym(max=512, hot=(128, '%16'));  def main(x: f32[s, 64]): ...
->  def main(x): return call(x, callee='main_any', hot=('main_s128', 'main_s16x'))
    def main_s128(x: f32[128, 64]): ...     def main_s16x(x: f32[16*s, 64]): ...

`hot` lists sizes (128) and divisors ('%16': multiples of 16 without the tail of a row of tiles).
Each function goes through all passes by itself, so it is as fast as a program for these sizes; the
native code compares the sizes at hand with those of the functions, in order. Weights that both want
in one layout are stored once.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from tensorwright.base import trace
from tensorwright.base.errors import CompileError, RunError
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    all_of,
    as_expr,
    compare,
    const,
    is_const,
    sym,
    symbols_of,
)
from tensorwright.ir.facts import check_facts
from tensorwright.ir.graph import Graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.simplify import linear
from tensorwright.ir.type import TensorType, TupleType, type_symbols
from tensorwright.ops.control import call, item
from tensorwright.passes.shapes import substitute_symbols

MOST = 16  # functions of one entry


def specialize(m: Module) -> Module:
    """`m` with the entry calling a function of its own for the hot sizes of its symbols."""
    g = m.main
    found = [s for s in g_symbols(g) if s.hot]
    if not found:
        return m
    check(g, found)
    general = replace(g, name=f"{g.name}_any", result_names=())
    variants = [variant(g, choice) for choice in choices(found)]
    for v in variants:
        trace.decision("specialize", v.name, "yes", "declared as hot")
    entry = dispatcher(g, general, tuple(v.name for v in variants))
    made = {v.name: v for v in (general, *variants)}
    if set(made) & set(m.graphs):
        raise CompileError(f"a function of the program is already named {sorted(made)[0]!r}")
    return m.with_graphs({**m.graphs, g.name: entry, **made})


def g_symbols(g: Graph) -> list[Symbol]:
    """Symbols of the parameters in a stable order."""
    found = {s for p in g.params for s in type_symbols(p.type)}
    return sorted(found, key=lambda s: s.serial)


def check(g: Graph, found: list[Symbol]) -> None:
    """CompileError where results are not of sizes that the parameters tell."""
    own = {s for p in g.params for s in type_symbols(p.type)}
    names = ", ".join(s.name for s in found)
    for name, r in zip(g.result_names or map(str, range(len(g.results))), g.results):
        if not isinstance(r.type, TensorType) or type_symbols(r.type) - own:
            raise CompileError(
                f"hot sizes of {names}: the size of result {name} is known only while it runs",
                help="leave the hot sizes out",
            )
    for s in found:
        outside = [h for h in s.hot if isinstance(h, int) and not _takes(s, h)]
        if outside:
            raise CompileError(f"the hot size {outside[0]} of {s.name} is none that it takes")
    if g.state:
        raise CompileError(f"hot sizes of {names}: the program keeps state in its arguments",
                           help="leave the hot sizes out")  # fmt: skip


def _takes(s: Symbol, size: int) -> bool:
    try:
        check_facts(s, size, {})
    except RunError:
        return False
    return True


def choices(found: list[Symbol]) -> list[dict[Symbol, int | str]]:
    """Every way to fix the hot symbols, those that fix most first."""
    ways = itertools.product(*[[*s.hot, None] for s in found])
    made = [{s: h for s, h in zip(found, way) if h is not None} for way in ways]
    made = sorted(filter(None, made), key=lambda c: (-len(c), _residues(c)))
    if len(made) > MOST:
        raise CompileError(f"{len(made)} combinations of hot sizes are too many, at most {MOST}")
    return made


def _residues(choice: dict) -> int:
    return sum(isinstance(h, str) for h in choice.values())


def variant(g: Graph, choice: dict[Symbol, int | str]) -> Graph:
    """`g` for these sizes."""
    values: dict[Expr, Expr] = {}
    name = g.name
    for s, h in choice.items():
        if isinstance(h, str):
            step = int(h[1:])
            low, high = -(-(s.min or 0) // step), None if s.max is None else s.max // step
            values[sym(s)] = sym(Symbol(s.name, low, high)) * step
            name += f"_{s.name}{step}x"
        else:
            values[sym(s)] = const(h)
            name += f"_{s.name}{h}"
    made = substitute_symbols(g, values)
    return replace(made, name=name, result_names=())


def dispatcher(g: Graph, general: Graph, hot: tuple[str, ...]) -> Graph:
    """A graph that calls one of them."""
    params = tuple(param(p.name, p.type) for p in g.params)
    types = g.result_types
    one = types[0] if len(types) == 1 else TupleType(types)
    y = call(*params, callee=general.name, type=one, hot=hot)
    results = (y,) if len(types) == 1 else tuple(item(y, index=k) for k in range(len(types)))
    return Graph(g.name, params, results, (), g.result_names)


def applies(g: Graph, shapes: list[tuple]) -> Expr:
    """The condition under which arguments of these shapes fit the parameters of a function, whose
    dimensions are numbers, what the general function has, or sums of multiples of symbols."""
    conditions = []
    for p, shape in zip(g.params, shapes):
        for d, n in zip(p.shape, shape):
            wanted, given = as_expr(d), as_expr(n)
            if not symbols_of(wanted):
                conditions.append(compare("eq", given, wanted))
                continue
            terms, constant = linear(wanted)
            step = math.gcd(*terms.values())
            if step > 1:
                conditions.append(compare("eq", (given - constant) % step, const(0)))
    return all_of(dict.fromkeys(c for c in conditions if not is_const(c, True)))
