"""Sums of terms: what each function gives, against the general one that it stands in for."""

from __future__ import annotations

import random

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Symbol,
    compare,
    const,
    replace_symbols,
    select,
    substitute,
    sym,
    symbols_in,
)
from tensorwright.ir.sums import is_affine, offset_of, put, weighted

I, J, K = (Symbol(name, 0, 63) for name in "ijk")
i, j, k = map(sym, (I, J, K))
X = Buffer("x", "f32", (64, 64))


def random_expression(rng: random.Random, depth: int = 4):
    """An index expression of the symbols, with quotients and remainders."""
    if depth == 0:
        return rng.choice((i, j, k, const(rng.randrange(-5, 20))))
    a, b = (random_expression(rng, depth - 1) for _ in range(2))
    n = rng.randrange(1, 9)
    return rng.choice((lambda: a + b, lambda: a * n, lambda: a - b, lambda: a // n,
                       lambda: a % n))()  # fmt: skip


def test_put_is_substitution():
    rng = random.Random(0)
    for _ in range(300):
        e, parts = random_expression(rng), {}
        for value in (const(3), const(0), j * 4 + 1):
            assert put(e, I, value, {}, parts) is substitute(e, {i: value})


def test_symbols_in():
    rng = random.Random(1)
    for _ in range(100):
        e = random_expression(rng)
        for v in (I, J, K):
            known = substitute(e, {sym(v): const(1)}) is e and v not in symbols_in(e)
            assert known or v in symbols_in(e)
    assert symbols_in(X[i + 1, j]) == {I, J}
    assert symbols_in(const(3)) == frozenset()


def test_an_arm_that_is_not_taken_is_not_looked_at():
    e = select(compare("lt", i, 8), X[i, 0], X[j, i])
    assert put(e, I, const(3), {}, {}) is X[3, 0]
    assert replace_symbols(e, {I: const(9), J: const(2)}, {}) is X[2, 9]


def test_offsets():
    assert offset_of(i * 8 + j + 3) == (i * 8 + j, 3)
    assert offset_of(i * 8) == (i * 8, 0)
    assert offset_of(const(5)) == (None, 5)


def test_weighted():
    rng = random.Random(2)
    for _ in range(200):
        terms = [random_expression(rng, 3) for _ in range(3)]
        assert weighted(terms, (64, 8, 1)) is terms[0] * 64 + terms[1] * 8 + terms[2]
    assert weighted((), ()) is const(0)


def test_affine():
    assert is_affine(i * 3 - j + 2) and is_affine(const(4))
    assert not is_affine(i // 3 + j)


def test_what_does_not_change_is_the_same_statement():
    s = ir.store(X, (i, j), X[i, k] + X[0, 0])
    other = sym(Symbol("other"))
    assert ir.substitute(s, {other: const(1)}) is s
    assert ir.substitute(s, {k: const(1)}).indices is s.indices
