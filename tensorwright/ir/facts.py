"""What follows from the facts about symbols: proofs, values, and solving shapes for symbols.

    solve([4 * n + 1, n * m])  ->  n = (dim0 - 1) / 4, then m = dim1 / n

`solve` is a plan that the interpreter executes on numbers and the host compiler turns into code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorwright.base.errors import InternalError, RunError
from tensorwright.ir.dtype import boolean, index
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    as_expr,
    bounds,
    const,
    eq,
    sym,
    symbols_of,
    walk,
)
from tensorwright.ir.scalar import function
from tensorwright.ir.simplify import factors, from_linear, is_positive, linear, multiple_of


@dataclass(frozen=True)
class Step:
    """`symbol` = (dims[source] - rest) / scale, exact; rest and scale use earlier symbols only."""

    symbol: Symbol
    source: int
    rest: Expr
    scale: Expr


@dataclass(frozen=True)
class Solution:
    """steps bind symbols in order; checks are positions of dims that then must agree; unsolved
    symbols occur but cannot be found from the dims."""

    steps: tuple[Step, ...]
    checks: tuple[int, ...]
    unsolved: tuple[Symbol, ...]


def solve(dims: Sequence[int | Expr], known: set[Symbol] = frozenset()) -> Solution:
    """How to find the symbols in `dims` from the values of the dims."""
    pending = [(k, as_expr(d)) for k, d in enumerate(dims)]
    known, steps, checks = set(known), [], []
    progress = True
    while progress:
        progress, later = False, []
        pending.sort(key=lambda p: (len(symbols_of(p[1]) - known), len(p[1].args), p[0]))
        for k, d in pending:
            missing = [s for s in symbols_of(d) if s not in known]
            split = _isolate(d, missing[0]) if len(missing) == 1 else None
            if not missing:
                checks.append(k)
            elif split is None:
                later.append((k, d))
            else:
                steps.append(Step(missing[0], k, *split))
                known.add(missing[0])
                progress = True
        pending = later
    unsolved = {s: None for k, d in pending for s in _ordered_symbols(d) if s not in known}
    checks += [k for k, d in pending if not symbols_of(d) - known]
    return Solution(tuple(steps), tuple(sorted(checks)), tuple(unsolved))


def _ordered_symbols(d: Expr) -> list[Symbol]:
    return sorted(symbols_of(d), key=lambda s: s.name)


def _isolate(d: Expr, s: Symbol) -> tuple[Expr, Expr] | None:
    """(rest, scale) with d = s * scale + rest and s in neither, if d is linear in s."""
    terms, constant = linear(d)
    rest, scale = const(constant), const(0)
    for atom, c in terms.items():
        if s not in symbols_of(atom):
            rest = rest + from_linear({atom: c})
            continue
        parts = factors(atom)
        if sym(s) not in parts:
            return None
        parts.remove(sym(s))
        if any(s in symbols_of(f) for f in parts):
            return None
        part = const(c)
        for f in parts:
            part = part * f
        scale = scale + part
    return (rest, scale)


def evaluate(e: Expr | int, values: Mapping[Symbol, int]) -> int:
    """The value of an index (or bool) expression."""
    if not isinstance(e, Expr):
        return int(e)
    match e.op:
        case "const":
            return e.value
        case "sym":
            found = values.get(e.value)
            if found is None:
                raise InternalError(f"the symbol {e.value.name} has no value here")
            return found
        case "select":
            return evaluate(e.args[1 if evaluate(e.args[0], values) else 2], values)
    args = [evaluate(a, values) for a in e.args]
    if e.op == "cast":
        from_ = e.args[0].dtype
        if from_ is index or e.dtype is index or e.dtype is boolean:
            return bool(args[0]) if e.dtype is boolean else int(args[0])
    result = function(e.op, e.args[0].dtype)(*args)
    return bool(result) if e.dtype is boolean else int(result)


def bind(
    dims: Sequence[int | Expr],
    actual: Sequence[int],
    describe: Callable[[int], str],
    values: Mapping[Symbol, int] | None = None,
) -> dict[Symbol, int]:
    """The symbols' values that make `dims` equal `actual`, beyond those already in `values`.

    Raises RunError naming the dimension (through `describe`) and both values."""
    values = dict(values or {})
    solution = solve(dims, set(values))
    for step in solution.steps:
        rest, scale = evaluate(step.rest, values), evaluate(step.scale, values)
        left = actual[step.source] - rest
        if scale == 0 or left % scale:
            raise RunError(
                f"{describe(step.source)} is {actual[step.source]}, which is not "
                f"{dims[step.source]} for any {step.symbol.name}"
            )
        values[step.symbol] = left // scale
        check_facts(step.symbol, values[step.symbol], values, describe(step.source))
    for k in solution.checks:
        expected = evaluate(dims[k], values)
        if expected != actual[k]:
            raise RunError(mismatch(describe(k), actual[k], dims[k], expected))
    return values


def mismatch(what: str, actual: int, dim: int | Expr, expected: int) -> str:
    """`x.shape[0] is 5, expected n = 4`."""
    text = f"{dim} = {expected}" if isinstance(dim, Expr) else str(expected)
    return f"{what} is {actual}, expected {text}"


def check_facts(s: Symbol, value: int, values: Mapping[Symbol, int], what: str = "") -> None:
    """RunError unless `value` agrees with what is known of the symbol."""
    broken = ""
    if s.min is not None and value < s.min:
        broken = f"at least {s.min}"
    elif s.max is not None and value > s.max:
        broken = f"at most {s.max}"
    elif s.multiple_of > 1 and value % s.multiple_of:
        broken = f"a multiple of {s.multiple_of}"
    elif s.values is not None and value not in s.values:
        broken = f"one of {', '.join(map(str, s.values))}"
    elif s.upper is not None and all(u in values for u in symbols_of(s.upper)):
        limit = evaluate(s.upper, values)
        broken = f"at most {s.upper} = {limit}" if value > limit else ""
    if broken:
        where = f" (from {what})" if what else ""
        raise RunError(f"{s.name} is {value}{where}, but must be {broken}")


# ---- proofs ------------------------------------------------------------------------------------


def prove(e: Expr | bool) -> bool | None:
    """Whether a bool expression over indices always holds (True), never does (False), or neither
    is known (None)."""
    if not isinstance(e, Expr):
        return bool(e)
    match e.op:
        case "const":
            return bool(e.value)
        case "not":
            found = prove(e.args[0])
            return None if found is None else not found
        case "and" | "or":
            return _prove_both(e.op == "or", prove(e.args[0]), prove(e.args[1]))
        case "select":
            a, b = prove(e.args[1]), prove(e.args[2])
            return a if a is b else None
        case "lt" | "le" | "gt" | "ge" | "eq" | "ne" if e.args[0].dtype is index:
            return _prove_comparison(e.op, *e.args)
    return None


def _prove_both(dominant: bool, a: bool | None, b: bool | None) -> bool | None:
    if a is dominant or b is dominant:
        return dominant
    return None if a is None or b is None else not dominant


def _prove_comparison(op: str, a: Expr, b: Expr) -> bool | None:
    if op in ("gt", "ge"):
        a, b, op = b, a, {"gt": "lt", "ge": "le"}[op]
    if op in ("eq", "ne"):
        found = _prove_equal(a, b)
        return found if op == "eq" or found is None else not found
    if at_least(b - a, 1 if op == "lt" else 0):
        return True
    return False if at_least(a - b, 0 if op == "lt" else 1) else None


def _prove_equal(a: Expr, b: Expr) -> bool | None:
    d = a - b
    if d.op == "const":
        return d.value == 0
    terms, constant = linear(d)
    divisor = math.gcd(*(c * multiple_of(t) for t, c in terms.items()))
    if at_least(d, 1) or at_least(-d, 1) or (divisor > 1 and constant % divisor):
        return False
    values = _possible_values(d)
    if values is not None and 0 not in values:
        return False
    if at_least(d, 0) and at_least(-d, 0):
        return True
    return None


def _possible_values(d: Expr) -> set[int] | None:
    """Values of an expression in one symbol that takes few."""
    symbols = symbols_of(d)
    if len(symbols) != 1 or any(e.op == "load" for e in walk(d)):
        return None
    (s,) = symbols
    few = s.values
    if few is None and s.min is not None and s.max is not None and s.max - s.min < 64:
        few = [v for v in range(s.min, s.max + 1) if v % s.multiple_of == 0]
    return None if few is None else {evaluate(d, {s: v}) for v in few}


def at_least(e: Expr, least: int) -> bool:
    """Whether e >= least is known: by bounds, by divisibility, by symbolic upper bounds, or by
    trying the few values that its only symbol takes."""
    if is_positive(e + (1 - least)):
        return True
    low = bounds(e)[0]
    divisor = multiple_of(e)
    if low is not None and divisor > 1 and -(-low // divisor) * divisor >= least:
        return True
    values = _possible_values(e)
    return values is not None and min(values, default=least) >= least


def divides(d: int, e: Expr | int) -> bool | None:
    """Whether d divides every value of e."""
    if d == 0:
        return None
    remainder = as_expr(e) % abs(d)
    return prove(eq(remainder, 0))
