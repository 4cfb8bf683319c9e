"""Proofs about symbols, and solving shapes for them."""

from __future__ import annotations

import pytest

from tensorwright.base.errors import RunError
from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import all_of, any_of, const, make, var
from tensorwright.ir.facts import bind, check_facts, divides, evaluate, prove, solve
from tensorwright.ir.type import tensor

N, M = var("n", min=1, max=4096), var("m", min=1)
W = var("w", min=8, multiple_of=8)
I, J, K = var("i", N), var("j", 8), var("k", N * 8)
FEW = var("few", min=1, max=9, values=(1, 4, 9))
assert tensor


def raw(op, a, b):
    """A comparison that nobody simplified."""
    return make(op, boolean, (a, b if not isinstance(b, int) else const(b)))


@pytest.mark.parametrize("e, expected", [
    (raw("lt", I, N), True), (raw("le", N, I), False), (raw("lt", I * 8 + J, N * 8), True),
    (raw("ge", N, 1), True), (raw("gt", N, 4096), False), (raw("eq", W, 12), False),
    (raw("ne", W, 12), True), (raw("lt", I, M), None), (raw("eq", N, M), None),
    (raw("eq", FEW, 5), False), (raw("le", FEW * FEW, 81), True), (raw("gt", FEW * FEW, 81), False),
    (raw("lt", K // 8, N), True), (raw("lt", K % 8, 8), True), (raw("eq", I - I, 0), True),
    (raw("gt", W, 0), True), (raw("le", W, 7), False), (raw("lt", (N + 7) // 8 * 8, N), False),
])  # fmt: skip
def test_prove(e, expected):
    assert prove(e) is expected


def test_connectives():
    yes, no, unknown = raw("lt", I, N), raw("le", N, I), raw("eq", N, M)
    assert prove(all_of([yes, unknown])) is None
    assert prove(all_of([unknown, no])) is False
    assert prove(any_of([unknown, yes])) is True
    assert prove(make("not", boolean, (no,))) is True


def test_divides():
    assert divides(8, W) is True
    assert divides(8, N * 16 + 8) is True
    assert divides(8, W + 1) is False
    assert divides(8, N) is None


def test_solve():
    s = solve([4 * N + 1, N * M, N + M, 3])
    assert [(step.symbol, step.source) for step in s.steps] == [(N.value, 0), (M.value, 1)]
    assert s.checks == (2, 3)
    assert solve([4 * N, N]).steps[0].source == 1  # the plain one first
    assert solve([N * M]).unsolved == (M.value, N.value)
    assert solve([N * N]).unsolved == (N.value,)


def names(k):
    return f"x.shape[{k}]"


def test_bind():
    values = bind([4 * N + 1, N * M, N + M, 3], [9, 10, 7, 3], names)
    assert values == {N.value: 2, M.value: 5}
    with pytest.raises(RunError, match=r"x.shape\[2\] is 8, expected n \+ m = 7|m \+ n = 7"):
        bind([4 * N + 1, N * M, N + M], [9, 10, 8], names)
    with pytest.raises(RunError, match=r"x.shape\[0\] is 8, which is not n \* 4 \+ 1 for any n"):
        bind([4 * N + 1], [8], names)


@pytest.mark.parametrize("s, value, message", [
    (N, 0, "n is 0, but must be at least 1"), (N, 5000, "at most 4096"),
    (W, 12, "a multiple of 8"), (FEW, 3, "one of 1, 4, 9"),
])  # fmt: skip
def test_check_facts(s, value, message):
    with pytest.raises(RunError, match=message):
        check_facts(s.value, value, {})


def test_evaluate():
    assert evaluate((I * 8 + J) // 3, {I.value: 5, J.value: 4}) == 14
    assert evaluate(raw("lt", I, N), {I.value: 5, N.value: 4}) is False
    assert evaluate(7, {}) == 7
