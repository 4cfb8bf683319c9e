import pytest

from tensorwright.ir.expr import Symbol, sym, text_of
from tensorwright.ir.facts import evaluate as evaluate_expr
from tensorwright.runtime.dims import bind, evaluate, names

N, M = Symbol("n", 1), Symbol("m", 1)
n, m = sym(N), sym(M)


@pytest.mark.parametrize("e", [n, 4 * n + 1, n * m, n // 3, n % 5, -n + 2 * m, (n + m) // 2 * 2])
def test_texts_of_expressions_evaluate_to_the_same(e):
    for a, b in ((1, 1), (7, 3), (64, 5)):
        assert evaluate(text_of(e), {"n": a, "m": b}) == evaluate_expr(e, {N: a, M: b})


def test_min_and_max():
    assert evaluate("min(n, 3) + max(n, 3)", {"n": 5}) == 8


def test_what_is_not_known():
    assert evaluate("2*n", {}) is None
    assert evaluate("f(n)", {"n": 1}) is None
    assert evaluate("past length", {}) is None
    assert evaluate(12, {}) == 12


def test_division_by_zero_is_zero():
    assert evaluate("n // m", {"n": 4, "m": 0}) == 0


def test_names():
    assert names("min(n, 2*m) + n") == ("n", "m")
    assert names(3) == ()


def test_bind_takes_dimensions_that_stand_alone():
    assert bind([("n", 4), ("2*m", 6), (3, 3)]) == {"n": 4}
