"""What a model demands of the sizes of its inputs, found while it is imported.

    Conv with a window of 400 over [1, n]        ->  n >= 400
    If n // 128 == 4, squeezed in one branch     ->  512 <= n <= 639
    Slice of a table of 512 rows up to n         ->  n <= 512

A demand is a condition on one size that every call which works fulfils. It becomes bounds of the
symbol in the next import of the model, which the program checks and names the node for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorwright.ir.build import current_location
from tensorwright.ir.expr import Expr, Symbol, symbols_of
from tensorwright.ir.facts import evaluate, prove

FAR = 1 << 40  # as good as unbounded
TRIED = 1024  # sizes that are tried one by one before larger steps


@dataclass
class Bounds:
    """The sizes that a model takes, and for both ends the node that says so."""

    low: int | None = None
    high: int | None = None
    why_low: str = ""
    why_high: str = ""


@dataclass
class Demands:
    """Bounds by the name of the symbol of an input's dimension."""

    bounds: dict[str, Bounds] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def add(self, name: str, low: int | None, high: int | None) -> None:
        """Bounds that the node being imported demands."""
        known = self.bounds.setdefault(name, Bounds())
        where = "".join(current_location()[-1:])
        if low is not None and (known.low is None or known.low < low):
            known.low, known.why_low = low, where
        if high is not None and (known.high is None or known.high > high):
            known.high, known.why_high = high, where

    def require(self, condition: Expr) -> bool:
        """Demand a condition on one size of the inputs, if it holds for one run of sizes; whether
        that makes a difference."""
        symbols = symbols_of(condition)
        if prove(condition) is not None or len(symbols) != 1:
            return False
        (s,) = symbols
        if s.origin is not None or s.values is not None:
            return False
        found = run_of(condition, s)
        if found is None:
            return False
        self.add(s.name, *found)
        return True


def run_of(condition: Expr, s: Symbol) -> tuple[int, int | None] | None:
    """The first sizes in a row for which a condition holds, from there on or up to an end."""
    low, high = s.min or 0, FAR if s.max is None else s.max

    def holds(v: int) -> bool:
        return bool(evaluate(condition, {s: v}))

    last, v = low - 1, low
    while v <= high and not holds(v):
        last, v = v, v + max(1, (v - low) // TRIED)
    if v > high or v - low > FAR // 2:
        return None
    begin = _first(holds, last, v)
    if holds(high):
        return begin, None if high == FAR else high
    step, inside = 1, begin
    while inside + step <= high and holds(inside + step):
        inside, step = inside + step, 2 * step
    outside = min(inside + step, high)
    return begin, _first(lambda x: not holds(x), inside, outside) - 1


def _first(holds, no: int, yes: int) -> int:
    """The least v in (no, yes] that holds, where all behind it do."""
    while yes - no > 1:
        middle = (no + yes) // 2
        no, yes = (no, middle) if holds(middle) else (middle, yes)
    return yes
