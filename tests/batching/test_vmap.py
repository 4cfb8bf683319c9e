"""`tw.vmap` on functions: axes, nesting, control flow, calls, gradients; run compiled."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.autodiff.backward import gradient
from tensorwright.base.errors import CompileError, FrontendError
from tensorwright.batching.lanes import batch_graph
from tensorwright.frontend.function import trace
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.control import items, scan_
from tensorwright.ops.elementwise import add, exp, mul, sin
from tensorwright.ops.random import normal
from tensorwright.ops.reduce import reduce_sum

random = np.random.default_rng(3)


def values(*shape) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def run(f, *args, shapes=None) -> list[np.ndarray]:
    found = tw.compile(f, args, shapes=shapes, threads=1)(*args)
    return [np.asarray(y) for y in (found if isinstance(found, tuple) else (found,))]


def stacked(f, lanes: int, *args, axes) -> np.ndarray:
    pick = lambda x, a, k: x if a is None else np.take(x, k, a)
    return np.stack([f(*(pick(x, a, k) for x, a in zip(args, axes))) for k in range(lanes)])


def close(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (1, 0), (None, -1)])
def test_axes(axes):
    shapes = {0: ((4, 3), (4, 3, 5)), 1: ((3, 4), (4, 3, 5)), None: ((3,), (3, 5, 4))}
    x, w = (values(*s) for s in shapes[axes[0]])
    w = values(3, 5) if axes[1] is None else w
    (y,) = run(tw.vmap(lambda x, w: x @ w, in_axes=axes), x, w)
    close(y, stacked(np.matmul, 4, x, w, axes=axes))


def test_results_have_their_axes():
    f = tw.vmap(lambda x, w: (x * 2, {"w": w + 1, "s": x.sum()}), in_axes=(0, None),
                out_axes=(1, {"w": None, "s": 0}))  # fmt: skip
    x, w = values(4, 3), values(2)
    program = tw.compile(f, (x, w), threads=1)
    y, more = program(x, w)
    close(y, (x * 2).T)
    close(more["w"], w + 1)
    close(more["s"], x.sum(1))


def test_any_number_of_examples():
    @tw.function
    def f(x: tw.f32["n"], w: tw.f32["n"]):
        return tw.numpy.sum(x * w)

    program = tw.compile(tw.vmap(f, in_axes=(0, None)), threads=1)
    for b, n in ((1, 3), (5, 2), (3, 4)):
        x, w = values(b, n), values(n)
        close(program(x, w), x @ w)


def test_nested():
    """Distances of all pairs."""
    one = lambda a, b: tw.numpy.sum((a - b) ** 2)
    f = tw.vmap(tw.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    a, b = values(4, 3), values(5, 3)
    close(run(f, a, b)[0], ((a[:, None] - b[None]) ** 2).sum(-1))


def test_inside_a_function_with_captures():
    def f(x, w):
        bias = w.sum()
        return tw.vmap(lambda row: tw.numpy.tanh(row @ w + bias))(x).sum(0)

    x, w = values(6, 3), values(3, 2)
    close(run(f, x, w)[0], np.tanh(x @ w + w.sum()).sum(0))


def test_branch_by_lane_and_branch_for_all():
    def f(x, flag):
        y = tw.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)
        return tw.cond(flag, lambda: y, lambda: -y)

    x = values(5, 3)
    each = np.where(x.sum(1, keepdims=True) > 0, x * 2, x - 1)
    for flag in (True, False):
        (y,) = run(tw.vmap(f, in_axes=(0, None)), x, np.array(flag))
        close(y, each if flag else -each)


def test_loop_of_another_length_in_every_lane():
    def collatz(n):
        return tw.while_loop(
            lambda s: s[0] != 1,
            lambda s: (tw.numpy.where(s[0] % 2 == 0, s[0] // 2, 3 * s[0] + 1), s[1] + 1),
            (n, tw.numpy.zeros((), dtype="i64")),
        )[1]

    n = np.array([1, 6, 7, 27, 2], np.int64)
    assert run(tw.vmap(collatz), n)[0].tolist() == [0, 8, 16, 111, 1]


def test_loop_of_one_length_with_state_that_gets_lanes():
    def f(x, n):
        init = (tw.numpy.zeros((3,), dtype="f32"), n)
        return tw.while_loop(lambda s: s[1] > 0, lambda s: (s[0] + x, s[1] - 1), init)[0]

    x = values(4, 3)
    close(run(tw.vmap(f, in_axes=(0, None)), x, np.array(5))[0], 5 * x)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse):
    def f(h, xs, w):
        def step(h, x):
            h = tw.numpy.tanh(h @ w + x)
            return h, h * 2

        return tw.scan(step, h, xs, reverse=reverse)

    h, xs, w = values(4, 3), values(4, 6, 3), values(3, 3)
    last, ys = run(tw.vmap(f, in_axes=(0, 0, None)), h, xs, w)
    state, rows = h, []
    for k in range(6)[:: -1 if reverse else 1]:
        state = np.tanh(state @ w + xs[:, k])
        rows.append(state * 2)
    close(last, state)
    close(ys, np.stack(rows[:: -1 if reverse else 1], 1))


def test_calls_are_put_in_place():
    @tw.function
    def norm(x: tw.f32["k"]):
        return tw.numpy.sqrt(tw.numpy.sum(x * x))

    def f(x, y):
        return norm(x) + norm(y)

    x, y = values(4, 3), values(4, 5)
    expected = np.linalg.norm(x, axis=1) + np.linalg.norm(y, axis=1)
    close(run(tw.vmap(f), x, y)[0], expected)


def test_random_keys_of_lanes():
    key = param("key", tensor("u64", 2))
    g = graph("g", [key], [normal(key, shape=(5,))])
    keys = random.integers(0, 2**60, (4, 2)).astype(np.uint64)
    (found,) = run_graph(batch_graph(g, [True], 4), [keys])
    close(found, np.stack([run_graph(g, [k])[0] for k in keys]))


def test_recursion_is_sent_to_batch():
    @tw.function
    def down(x: tw.f32[()]) -> tw.f32[()]:
        return tw.cond(x > 0, lambda: down(x - 1), lambda: x)

    with pytest.raises(CompileError, match="down calls itself") as e:
        trace(tw.vmap(lambda x: down(x)), (values(3),))
    assert "tw.batch" in e.value.help


def test_errors():
    with pytest.raises(FrontendError, match="4 examples, another 5"):
        trace(tw.vmap(lambda x, y: x), (values(4), values(5)))
    with pytest.raises(FrontendError, match="no argument has examples"):
        trace(tw.vmap(lambda x: x, in_axes=None), (values(4),))
    with pytest.raises(FrontendError, match="differs between examples"):
        trace(tw.vmap(lambda x: x, out_axes=None), (values(4),))
    with pytest.raises(FrontendError, match="in_axes has 1 entries for 2 values"):
        trace(tw.vmap(lambda x, y: x, in_axes=(0,)), (values(4), values(4)))


# ---- gradients ---------------------------------------------------------------------------------


def loss_graph():
    """A loss of one example, through a scan."""
    w, xs = param("w", tensor("f64", 3)), param("xs", tensor("f64", 4, 3))
    h, x, v = (param(n, tensor("f64", 3)) for n in "hxv")
    after = sin(add(mul(h, v), x))
    h0 = mul(w, 0.0)
    y = scan_(h0, xs, w, body=graph("body", [h, x, v], [after, exp(after)]), carried=1, scanned=1)
    last, ys = items(y)
    return graph("loss", [w, xs], [add(reduce_sum(mul(last, last)), reduce_sum(ys))])


def test_gradients_of_examples():
    """Batching a gradient gives the gradient of each example."""
    g = gradient(loss_graph(), ["w"])
    w, xs = random.standard_normal(3), random.standard_normal((5, 4, 3))
    loss, dw = run_graph(batch_graph(g, [False, True], 5), [w, xs])
    each = [run_graph(g, [w, x]) for x in xs]
    np.testing.assert_allclose(loss, [e[0] for e in each])
    np.testing.assert_allclose(dw, [e[1] for e in each])


def test_gradient_of_a_batch():
    """The gradient of the sum over lanes is the sum of the gradients."""
    b = batch_graph(loss_graph(), [False, True], 5)
    total = graph("total", b.params, [reduce_sum(b.results[0])])
    w, xs = random.standard_normal(3), random.standard_normal((5, 4, 3))
    _, dw = run_graph(gradient(total, ["w"]), [w, xs])
    each = [run_graph(gradient(loss_graph(), ["w"]), [w, x])[1] for x in xs]
    np.testing.assert_allclose(dw, np.sum(each, 0))
