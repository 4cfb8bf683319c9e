"""`tw.batch`: recursion, loops and branches of other lengths in every example."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import RunError
from tensorwright.frontend.function import trace
from tensorwright.ir.interp import run_module

random = np.random.default_rng(5)


def run(f, *args, native: bool = False):
    if native:
        found = tw.compile(f, args, threads=1)(*args)
        return [np.asarray(y) for y in (found if isinstance(found, tuple) else (found,))]
    return run_module(trace(f, args), list(args))


@tw.function
def fibonacci(n: tw.i64[()]) -> tw.i64[()]:
    return tw.cond(n < 2, lambda: n, lambda: fibonacci(n - 1) + fibonacci(n - 2))


@tw.function
def ackermann(m: tw.i64[()], n: tw.i64[()]) -> tw.i64[()]:
    return tw.cond(
        m == 0,
        lambda: n + 1,
        lambda: tw.cond(
            n == 0,
            lambda: ackermann(m - 1, n * 0 + 1),
            lambda: ackermann(m - 1, ackermann(m, n - 1)),
        ),
    )


@tw.function
def is_even(n: tw.i64[()]) -> tw.i64[()]:
    return tw.cond(n == 0, lambda: n + 1, lambda: is_odd(n - 1))


@tw.function
def is_odd(n: tw.i64[()]) -> tw.i64[()]:
    return tw.cond(n == 0, lambda: n, lambda: is_even(n - 1))


@pytest.mark.parametrize("native", [False, True])
def test_recursion(native):
    n = np.array([0, 1, 5, 9, 3], np.int64)
    (found,) = run(tw.batch(lambda n: fibonacci(n)), n, native=native)
    assert found.tolist() == [0, 1, 5, 34, 2]


def test_nested_recursion():
    m, n = np.array([0, 1, 2, 2], np.int64), np.array([3, 2, 2, 3], np.int64)
    (found,) = run(tw.batch(lambda m, n: ackermann(m, n)), m, n, native=True)
    assert found.tolist() == [4, 4, 7, 9]


def test_mutual_recursion():
    n = np.array([0, 1, 6, 7], np.int64)
    (found,) = run(tw.batch(lambda n: is_even(n) * 10 + is_odd(n)), n, native=True)
    assert found.tolist() == [10, 1, 10, 1]


def test_a_function_of_vectors_with_shared_weights():
    """A random walk down a tree of calls; w is the same in every call of every lane."""

    @tw.function
    def tree(x: tw.f32[3], k: tw.i64[()], w: tw.f32[3, 3]) -> tw.f32[3]:
        def deeper():
            y = tw.numpy.tanh(x @ w)
            left = tree(y, k - 1, w)
            right = tree(y + left, k - 2, w)
            return left + 2 * right + x

        return tw.cond(k <= 0, lambda: x, deeper)

    def plain(x, k, w):
        if k <= 0:
            return x
        y = np.tanh(x @ w)
        left = plain(y, k - 1, w)
        right = plain(y + left, k - 2, w)
        return left + 2 * right + x

    x, w = random.standard_normal((4, 3)).astype("f4"), random.standard_normal((3, 3)).astype("f4")
    k = np.array([0, 2, 5, 3], np.int64)
    f = tw.batch(lambda x, k, w: tree(x, k, w), in_axes=(0, 0, None))
    expected = np.stack([plain(a, b, w) for a, b in zip(x, k)])
    for native in (False, True):
        np.testing.assert_allclose(run(f, x, k, w, native=native)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("native", [False, True])
def test_loops_in_loops(native):
    """Steps of the Collatz sequences of all numbers up to n."""

    def total(n):
        def count(k):
            return tw.while_loop(
                lambda s: s[0] != 1,
                lambda s: (tw.numpy.where(s[0] % 2 == 0, s[0] // 2, 3 * s[0] + 1), s[1] + 1),
                (k, k * 0),
            )[1]

        return tw.while_loop(lambda s: s[0] > 0, lambda s: (s[0] - 1, s[1] + count(s[0])),
                             (n, n * 0))[1]  # fmt: skip

    def plain(n):
        steps = 0
        for k in range(1, n + 1):
            while k != 1:
                k, steps = (k // 2 if k % 2 == 0 else 3 * k + 1), steps + 1
        return steps

    n = np.array([1, 9, 4, 0], np.int64)
    (found,) = run(tw.batch(total), n, native=native)
    assert found.tolist() == [plain(int(v)) for v in n]


def test_any_number_of_examples():
    program = tw.compile(tw.batch(lambda n: fibonacci(n)), (np.zeros(2, np.int64),),
                         shapes={"n": ("b",)}, threads=1)  # fmt: skip
    for b in (1, 4, 7):
        n = np.arange(b)
        assert np.asarray(program(n)).tolist() == [0, 1, 1, 2, 3, 5, 8][:b]


def test_a_stack_that_is_too_small_is_an_error():
    n = np.array([3, 9], np.int64)
    program = tw.compile(tw.batch(lambda n: is_even(n), depth=6), (n,), threads=1)
    with pytest.raises(RunError, match="stack_depth is 7"):
        program(n)
    assert np.asarray(program(np.array([3, 5]))).tolist() == [0, 0]


def test_without_recursion_it_is_vmap():
    f = tw.batch(lambda x: tw.cond(x.sum() > 0, lambda: x, lambda: -x))
    x = random.standard_normal((5, 3)).astype("f4")
    np.testing.assert_allclose(run(f, x)[0], np.where(x.sum(1, keepdims=True) > 0, x, -x))
