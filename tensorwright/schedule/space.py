"""Decisions of the rules as data: every choice has a name, declared candidates and a cost model.

    tile = choices.pick("tile", tiles, cost)       # in a rule: the candidate of least cost

    schedule(k, target)                            # all decisions by cost
    schedule(k, target, Choices({"tile": (6, 4, 16)}))     # this one as given, the others by cost
    schedule(k, target, Samples(random))           # all at random: a point of the space

Which decisions there are may depend on earlier ones, so a space is what a rule asks for while it
runs (as in AutoTVM's templates, arXiv 1805.08166, section 3). Costs are cycles of one core,
estimated from the target's description; those of independent decisions add up.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tensorwright.base.errors import CompileError

Value = int | str | tuple  # what JSON can hold, lists read as tuples
Cost = Callable[[Any], float]


class ChoiceError(CompileError):
    """A choice does not fit the kernel that it was given for."""


@dataclass(frozen=True)
class Decision:
    """One choice that was made, among `values`, and the cycles estimated for it."""

    value: Value
    values: tuple[Value, ...]
    cost: float


class Choices:
    """What a rule asks while it runs. given: values by name, taken instead of those of least cost.
    made: the decisions so far, in order."""

    def __init__(self, given: Mapping[str, Value] | None = None) -> None:
        self.given = dict(given or {})
        self.made: dict[str, Decision] = {}
        self.prefix, self.times = "", 1

    def pick(self, name: str, values: Iterable[Value], cost: Cost) -> Value:
        """One of `values`, which come in order of preference among those that cost the same."""
        name, values = self.prefix + name, tuple(values)
        value = self.given[name] if name in self.given else self.prefer(values, cost)
        if value not in values:
            shown = ", ".join(map(str, values))
            raise ChoiceError(f"{name} = {value} is not in the space of this kernel",
                              help=f"candidates: {shown}")  # fmt: skip
        value = values[values.index(value)]  # of the rule's own class
        self.made[name] = Decision(value, values, cost(value) * self.times)
        return value

    def prefer(self, values: tuple[Value, ...], cost: Cost) -> Value:
        """What to take where nothing is given."""
        return least(values, cost)

    def within(self, part: str, times: int = 1) -> Choices:
        """The same choices for one part of a kernel, which runs so many times: names begin with
        `part` and a dot."""
        inner = copy.copy(self)
        inner.prefix = f"{self.prefix}{part}." if part else self.prefix
        inner.times = self.times * times
        return inner

    def forget(self) -> None:
        """Nothing was decided: the rule did not apply."""
        self.made.clear()

    def check_used(self) -> None:
        """Raise ChoiceError for a given choice that no rule asked for."""
        for name in self.left_over():
            known = ", ".join(self.made) or "nothing"
            raise ChoiceError(f"{name} = {self.given[name]} is not a choice of this kernel",
                              help=f"what is decided here: {known}")  # fmt: skip

    def left_over(self) -> list[str]:
        """The given choices that no rule asked for so far."""
        return [name for name in self.given if name not in self.made]

    @property
    def cost(self) -> float:
        """Estimated cycles, of what depends on decisions."""
        return sum(d.cost for d in self.made.values())

    def values(self) -> dict[str, Value]:
        """The decisions that had an alternative: with these given, the same kernel comes out."""
        made = {name: d.value for name, d in self.made.items() if len(d.values) > 1}
        return {name: tuple(v) if isinstance(v, tuple) else v for name, v in made.items()}


class Samples(Choices):
    """Choices at random, each candidate with the same probability."""

    def __init__(self, random: Random, given: Mapping[str, Value] | None = None) -> None:
        super().__init__(given)
        self.random = random

    def prefer(self, values: tuple[Value, ...], cost: Cost) -> Value:
        return self.random.choice(values)


def least(values: Iterable[Value], cost: Cost) -> Value:
    """The value of least cost; a later one must be cheaper by a thousandth to win."""
    best = found = None
    for value in values:
        own = cost(value)
        if best is None or own < best * 0.999:
            best, found = own, value
    return found
