"""@tw.function: tracing, branches, loops, calls, recursion, annotations, errors."""

import numpy as np
import pytest

from tensorwright.base.errors import FrontendError
from tensorwright.driver.compile import compile as compile_module
from tensorwright.frontend import array_api as xp
from tensorwright.frontend.function import cond, function, load, scan, trace, while_loop
from tensorwright.ir.dtype import f32, i64
from tensorwright.ir.interp import run_module

X = np.arange(12, dtype="f4").reshape(3, 4)


def run(f, *args, shapes=None, native=False):
    program = load(f, args, shapes)
    inputs = [np.asarray(a) for a in program.flatten(args, {})]
    if native:
        results = compile_module(program.module)(*inputs)
        results = results if isinstance(results, (list, tuple)) else [results]
    else:
        results = run_module(program.module, inputs)
    return program.rebuild(results)


# ---- tracing -----------------------------------------------------------------------------------


def test_nested_arguments_and_results():
    def f(state, x, *, scale=2.0):
        return {"x": x * scale, "state": (state["h"] + 1, [state["c"]])}

    got = run(f, {"h": X, "c": X[0]}, X)
    np.testing.assert_array_equal(got["x"], X * 2)
    np.testing.assert_array_equal(got["state"][0], X + 1)
    np.testing.assert_array_equal(got["state"][1][0], X[0])


def test_annotations_need_no_examples():
    @function
    def product(x: f32["n", 4], w: f32[4, "m"]) -> f32["n", "m"]:
        return x @ w

    main = trace(product).main
    assert [str(p.type) for p in main.params] == ["f32[n, 4]", "f32[4, m]"]
    assert str(main.results[0].type) == "f32[n, m]"


def test_shapes_win_over_annotations():
    def f(x: f32["n", 4]):
        return x + 1

    assert str(trace(f, shapes={"x": "k[2..8], 4"}).main.params[0].type) == "f32[k, 4]"


def test_a_wrong_declared_result():
    @function
    def f(x: f32["n", 4]) -> f32["n", 5]:
        return x

    with pytest.raises(FrontendError, match=r"declares its result as f32\[n, 5\]"):
        trace(f)


def test_nodes_carry_the_users_line():
    main = trace(lambda x: xp.exp(x), (X,)).main
    assert main.results[0].loc[0].startswith("test_function.py:")


def test_calling_a_function_directly():
    @function
    def f(x):
        return x

    with pytest.raises(FrontendError, match=r"tw\.compile\(f"):
        f(X)


def test_unknown_argument():
    with pytest.raises(FrontendError, match="nothing is known of the argument 'y'"):
        trace(lambda x, y: x + y, (X,))


def test_static_arguments():
    @function(static=("mode",))
    def f(x, mode):
        return x + 1 if mode == "up" else x - 1

    np.testing.assert_array_equal(run(f, X, "up"), X + 1)


# ---- control flow ------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [False, True])
def test_cond_captures_what_surrounds_it(native):
    def f(x, b):
        c = b * 2
        return cond(xp.sum(x) > 0, lambda x: x + c, lambda x: x - b, x)

    np.testing.assert_array_equal(run(f, X, np.float32(3), native=native), X + 6)
    np.testing.assert_array_equal(run(f, -X, np.float32(3), native=native), -X - 3)


def test_nested_conditions_and_weak_results():
    def f(x):
        return cond(x > 0, lambda: cond(x > 10, lambda: x, lambda: 1.0), lambda: 0)

    assert [run(f, np.float32(v)).item() for v in (20, 5, -1)] == [20, 1, 0]
    assert run(f, np.float32(5)).dtype == np.float32


def test_branches_of_different_structure():
    with pytest.raises(FrontendError, match="different structure"):
        run(lambda x: cond(x[0, 0] > 0, lambda: (x, x), lambda: x), X)


@pytest.mark.parametrize("native", [False, True])
def test_while_loop(native):
    def f(n, x):
        def body(s):
            i, y = s
            return i + 1, y * x

        return while_loop(lambda s: s[0] < n, body, (0, 1.0))

    i, y = run(f, np.int64(5), np.float32(2), native=native)
    assert (i, y) == (5, 32)


def test_a_loop_may_grow_its_state():
    def f(x):
        return while_loop(lambda s: xp.sum(s) < 100, lambda s: xp.concat([s, s]), x)

    expected = np.arange(4, dtype="f4")
    while expected.sum() < 100:
        expected = np.concatenate([expected, expected])
    np.testing.assert_array_equal(run(f, np.arange(4, dtype="f4")), expected)
    np.testing.assert_array_equal(run(f, np.arange(4, dtype="f4"), shapes="x: n"), expected)


def test_a_loop_that_changes_the_type():
    with pytest.raises(FrontendError, match="before and"):
        run(lambda n: while_loop(lambda s: s < 5, lambda s: s / 2, n), np.int64(3))


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse):
    def f(xs, w):
        def step(state, x):
            h = state["h"] * w + x
            return {"h": h}, (h, x)

        return scan(step, {"h": xp.zeros(4)}, xs, reverse=reverse)

    state, (hs, xs) = run(f, X, np.float32(0.5))
    h, expected = np.zeros(4, "f4"), []
    for x in X[::-1] if reverse else X:
        h = h * 0.5 + x
        expected.append(h)
    np.testing.assert_allclose(state["h"], h)
    np.testing.assert_allclose(hs, expected[::-1] if reverse else expected)
    np.testing.assert_array_equal(xs, X)


def test_scan_by_length():
    final, ys = run(lambda x: scan(lambda c, _: (c * 2, c), x, length=4), np.float32(1))
    assert final == 16 and ys.tolist() == [1, 2, 4, 8]


# ---- calls and recursion -----------------------------------------------------------------------


@function
def normalized(x):
    return (x - xp.mean(x)) / xp.std(x)


@function
def factorial(n: i64[()]):
    return cond(n <= 1, lambda: 1, lambda: n * factorial(n - 1))


@function
def total(x):
    return cond(x.shape[0] <= 1, lambda: xp.sum(x), lambda: x[0] + total(x[1:]))


@function
def tree_sum(x: f32["n"], low: i64[()], high: i64[()]) -> f32[()]:
    def halves():
        middle = (low + high) // 2
        return tree_sum(x, low, middle) + tree_sum(x, middle, high)

    return cond(high - low <= 1, lambda: xp.take(x, low, axis=0), halves)


def test_calls_share_one_graph():
    def f(x, y):
        return normalized(x) + normalized(x * 2), normalized(y)

    module = trace(f, (X, X[0]))
    assert sorted(module.graphs) == ["main", "normalized", "normalized_2"]
    got = run(f, X, X[0])
    z = (X - X.mean()) / X.std()
    np.testing.assert_allclose(got[0], z * 2, 1e-5)


@pytest.mark.parametrize("native", [False, True])
def test_recursion(native):
    assert run(lambda n: factorial(n) + 1, np.int64(6), native=native) == 721


def test_recursion_over_sizes():
    x = np.arange(6, dtype="f4")
    assert run(lambda x: total(x), x, shapes="x: n") == 15


def test_recursion_with_a_declared_result():
    x = np.arange(7, dtype="f4")
    assert run(lambda x: tree_sum(x, xp.asarray(0), xp.asarray(7)), x) == 21


def test_recursion_without_an_end():
    @function
    def forever(x):
        return forever(x) + 1

    with pytest.raises(FrontendError, match="calls itself before the type of its result is known"):
        trace(lambda x: forever(x), (X,))


def test_a_result_with_a_size_of_its_own_is_inlined():
    @function
    def positive(x):
        return x[x > 0]

    module = trace(lambda x: positive(x), (X,))
    assert list(module.graphs) == ["main"]
    np.testing.assert_array_equal(run(lambda x: positive(x), X - 5), (X - 5)[X > 5])


def test_a_closure_over_a_traced_tensor_of_the_caller():
    def f(x):
        @function
        def inner(y):
            return y + x

        return inner(x)

    with pytest.raises(FrontendError, match="used outside of the function"):
        trace(f, (X,))
