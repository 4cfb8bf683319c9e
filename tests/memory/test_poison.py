"""Programs whose planned memory holds NaN until it is written: plans that are wrong give wrong
results, plans that are right give the same as ever."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.config import options
from tensorwright.driver import build
from tensorwright.driver.compile import compile
from tensorwright.ir.expr import as_expr, const, var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.memory import plan
from tensorwright.ops.elementwise import add
from tensorwright.ops.linalg import matmul
from tensorwright.ops.norm import softmax

X = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)


def poisoned(model):
    with options(poison=True, cache="off"):
        return compile(model, threads=1)


def residual(n) -> Module:
    """A value that is needed long after it was made."""
    random = np.random.default_rng(0)
    weight = lambda *s: constant(random.normal(size=s).astype(np.float32) / 16)
    x = param("x", tensor("f32", n, 300))
    h = matmul(x, weight(300, 200))
    y = matmul(softmax(matmul(softmax(h), weight(200, 300))), weight(300, 200))
    return Module({"main": graph("main", [x], [softmax(matmul(add(y, h), weight(200, 90)))])})


def plain(model):
    return compile(model, threads=1)(X)


@pytest.fixture
def unproved(monkeypatch):
    """Plans go on as they are, which the rest of the tests prove right."""
    monkeypatch.setattr(build, "plan_memory", plan.plan_memory)


SIZES = pytest.mark.parametrize("size", [7, var("n", min=1)])


@SIZES
def test_right_plans_give_the_same(size):
    assert np.array_equal(poisoned(residual(size))(X), plain(residual(size)))


@SIZES
def test_a_value_placed_over_one_that_is_needed_shows(size, unproved, monkeypatch):
    right = plain(residual(size))
    total = lambda items: sum((as_expr(i.size) for i in items), const(0))
    at_zero = lambda items: ({i.buffer: const(0) for i in items}, total(items))
    static = lambda items: ({i.buffer: 0 for i in items}, total(items).value)
    monkeypatch.setattr(plan, "place_symbolic", at_zero)
    monkeypatch.setattr(plan, "place_static", static)
    assert np.isnan(poisoned(residual(size))(X)).any()
    assert not np.isnan(right).any()


@SIZES
def test_a_life_that_ends_too_early_shows(size, unproved, monkeypatch):
    def early(k):
        found = intervals(k)
        for i in found:
            i.last = i.first
        return found

    intervals = plan.intervals
    right = plain(residual(size))
    monkeypatch.setattr(plan, "intervals", early)
    assert np.isnan(poisoned(residual(size))(X)).any()
    assert not np.isnan(right).any()


@tw.function
def programs(x: tw.f32["n", 4], k: tw.i64, w: tw.f32[4, 4]):
    xp = tw.numpy

    def step(state):
        i, h, seen = state
        h = tw.cond(i % 2 == 0, lambda: xp.tanh(h @ w), lambda: h - xp.mean(h, axis=0))
        return i + 1, h, seen.at[i % 3].set(xp.sum(h))

    start = (xp.asarray(0), x, xp.zeros(3, dtype=tw.f32))
    _, h, seen = tw.while_loop(lambda s: s[0] < k, step, start)
    rows = xp.nonzero(h[:, 0] > 0)[0]
    return xp.take(h, rows, axis=0) @ w, seen


def test_control_flow_and_sizes_of_data_give_the_same():
    random = np.random.default_rng(1)
    w = random.standard_normal((4, 4), dtype=np.float32)
    usual, careful = tw.compile(programs, threads=1), poisoned(programs)
    for n, k in ((1, 0), (3, 1), (9, 5), (40, 8)):
        x = random.standard_normal((n, 4), dtype=np.float32)
        for a, b in zip(usual(x, np.array(k), w), careful(x, np.array(k), w)):
            np.testing.assert_array_equal(a, b)
