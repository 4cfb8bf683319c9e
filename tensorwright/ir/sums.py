"""What is asked again and again of canonical index expressions: sums of terms and a constant.

offset_of(i * 8 + j + 3)                   ->  i * 8 + j, 3
shifted(i * 8 + 3, 2)                      ->  i * 8 + 5
weighted((i, j + 1), (8, 1))               ->  i * 8 + j + 1
put(i * 8 + j, i, const(2), {}, {})        ->  j + 16
"""

from __future__ import annotations

from collections.abc import Iterable

from tensorwright.ir.dtype import index
from tensorwright.ir.expr import Expr, Symbol, const, make, rebuild, symbols_in
from tensorwright.ir.simplify import from_linear, terms_of


def is_affine(e: Expr) -> bool:
    """Whether an index expression is a sum of symbols with constant factors, and a constant."""
    return all([atom.op == "sym" for atom in terms_of(e)[0]])


def offset_of(e: Expr) -> tuple[Expr | None, int]:
    """e = rest + constant; None for a rest of nothing."""
    if e.op == "const":
        return None, e.value
    if e.op == "add" and e.args[1].op == "const":
        return e.args[0], e.args[1].value
    return e, 0


def shifted(e: Expr, by: int) -> Expr:
    """e + by: the terms of the sum stay as they are."""
    rest, constant = offset_of(e)
    constant += by
    if rest is None:
        return const(constant)
    return make("add", index, (rest, const(constant))) if constant else rest


def weighted(terms: Iterable[Expr], factors: Iterable[int]) -> Expr:
    """The sum of index expressions times numbers."""
    total: dict[Expr, int] = {}
    constant = 0
    for e, factor in zip(terms, factors):
        more, other = terms_of(e)
        constant += other * factor
        for atom, c in more.items():
            total[atom] = total.get(atom, 0) + c * factor
    return from_linear(total, constant)


def put(e: Expr, v: Symbol, value: Expr, memo: dict, parts: dict) -> Expr:
    """`e` with a symbol replaced. memo: the results for this value; parts: what the sums are made
    of, which serves all values."""
    if v not in symbols_in(e):
        return e
    found = memo.get(e)
    if found is None:
        if e.op == "select":
            cond = put(e.args[0], v, value, memo, parts)
            if cond.op == "const":  # the other arm does not matter
                found = put(e.args[1 if cond.value else 2], v, value, memo, parts)
        elif e.dtype is index:
            part = parts.get(e)
            if part is None:
                part = parts[e] = _without(e, v)
            if part:
                rest, factor = part
                known = value.op == "const"
                found = shifted(rest, value.value * factor) if known else rest + value * factor
        if found is None:
            found = rebuild(e, tuple([put(a, v, value, memo, parts) for a in e.args]))
        memo[e] = found
    return found


def _without(e: Expr, v: Symbol) -> tuple[Expr, int] | tuple[()]:
    """(rest, c) if e = rest + v * c with no other v in it."""
    terms, constant = terms_of(e)
    factor = next((c for a, c in terms.items() if a.op == "sym" and a.value is v), None)
    rest = {a: c for a, c in terms.items() if a.op != "sym" or a.value is not v}
    if factor is None or any(v in symbols_in(a) for a in rest):
        return ()
    return from_linear(rest, constant), factor
