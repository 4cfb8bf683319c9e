"""The cleaning passes until nothing changes: fold, canonicalize, merge, drop; with algebra or not.

    m = clean(assign_layouts(m))        transposes of constants fold, chains of movement shorten

Each pass gives the next something to do: a folded constant makes a rule match, a rewritten node
equals another. Few rounds are needed, and a module that is clean comes back as the same object.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.ir.module import Module
from tensorwright.passes.algebra import simplify_algebra
from tensorwright.passes.canonicalize import canonicalize
from tensorwright.passes.cse import merge_equal
from tensorwright.passes.dce import drop_dead
from tensorwright.passes.fold_constants import fold_constants

ROUNDS = 8  # a bound, should passes ever undo each other's work


def clean(m: Module) -> Module:
    """`m` without what is known, repeated or unused; no rounding changes."""
    return repeated(m, lambda m: drop_dead(merge_equal(canonicalize(fold_constants(m)))))


def simplify(m: Module) -> Module:
    """`m` cleaned and with simpler arithmetic, after composites have been expanded."""
    return repeated(m, lambda m: simplify_algebra(clean(m)))


def repeated(m: Module, f: Callable[[Module], Module]) -> Module:
    """`f` applied until it changes nothing."""
    for _ in range(ROUNDS):
        new = f(m)
        if new is m:
            break
        m = new
    return m
