"""`tw.batch` over values of data types: results equal those of one value at a time."""

from functools import partial

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import CompileError, FrontendError, RunError
from tensorwright.batching.forest import CHUNK
from tensorwright.ir.interp import run_module
from tests import values as given
from tests.values import N, Parse, Parses, Rows, Tree

xp = tw.numpy
rng = np.random.default_rng(2)
W = rng.standard_normal((N, N)).astype(np.float32)
vector, tree = partial(given.vector, rng), partial(given.random_tree, rng)
parse = partial(given.random_parse, rng)


@tw.function
def state(t: Tree, w: tw.f32[N, N]):
    def node(a, b):
        left, right = state(a, w), state(b, w)
        return left[0] * 0.5 + xp.tanh(right[0] @ w), left[1] + right[1] + 1

    return tw.match(t, Leaf=lambda x: (x, xp.sum(x) * 0), Node=node)


def check(f, values, *more, in_axes=0, one=None, native=True):
    """The batched function, interpreted and compiled, against one value after another."""
    expected = [one(v, *more) for v in values]
    names = list(f.parameters.parameters)
    program = tw.compile(tw.batch(f, in_axes=in_axes),
                         dict(zip(names[1:], more)) if more else None, threads=1)  # fmt: skip
    flat = program.convention.flatten((values, *more), {})
    found = [program.convention.rebuild(run_module(program.module, flat)), program(values, *more)]
    for results in found[: 2 if native else 1]:
        for k, want in enumerate(zip(*expected)):
            np.testing.assert_allclose(results[k], np.stack(want), rtol=1e-5, atol=1e-5)
    return program


def plain_state(t, w):
    if t.case == "Leaf":
        return t.x, 0.0
    (a, n), (b, m) = plain_state(t.left, w), plain_state(t.right, w)
    return a * 0.5 + np.tanh(b @ w), n + m + 1


@pytest.mark.parametrize("native", [False, True])
def test_trees(native):
    values = [tree(int(k)) for k in (1, 7, 2, 12, 5)]
    program = check(state, values, W, in_axes=(0, None), one=plain_state, native=native)
    more = [tree(3), tree(20)]
    y, n = program(more, W)
    np.testing.assert_allclose(n, [2, 19])
    np.testing.assert_allclose(y[1], plain_state(more[1], W)[0], rtol=1e-5, atol=1e-5)


def test_lists_of_other_lengths():
    @tw.function
    def fold(xs: Rows):
        return tw.match(xs, Nil=lambda: (xp.zeros((N,), dtype="f32"),),
                        Cons=lambda x, rest: (xp.tanh(x + fold(rest)[0] @ W),))  # fmt: skip

    def plain(xs):
        h = np.zeros(N, np.float32)
        for x in reversed(list(xs)):
            h = np.tanh(x + h @ W)
        return (h,)

    values = [Rows.of([vector() for _ in range(k)]) for k in (0, 4, 1, 9)]
    check(fold, values, one=plain)


def test_types_that_mention_each_other():
    @tw.function
    def total(t: Parse) -> tw.f32[N]:
        return tw.match(t, Word=lambda x, children: xp.tanh(x + total_of(children)))

    @tw.function
    def total_of(ts: Parses) -> tw.f32[N]:
        return tw.match(ts, Nil=lambda: xp.zeros((N,), dtype="f32"),
                        Cons=lambda t, rest: total(t) * 2 + total_of(rest))  # fmt: skip

    def plain(t):
        children, s = t.children, np.zeros(N)
        while children.case == "Cons":
            s = s + plain(children.head)[0] * 2
            children = children.tail
        return (np.tanh(t.x + s),)

    @tw.function
    def first(t: Parse):
        return (total(t),)

    check(first, [parse(k) for k in (1, 6, 3, 11)], one=plain)


def test_what_surrounds_the_recursion_and_a_tensor_of_each_example():
    @tw.function
    def score(t: Tree, y: tw.f32[N], w: tw.f32[N, N]):
        h, n = state(t, w)
        return xp.sum(h * y) / (n + 1), xp.argmax(h)

    values, ys = [tree(int(k)) for k in (4, 1, 9)], rng.standard_normal((3, N)).astype(np.float32)
    program = tw.compile(tw.batch(score, in_axes=(0, 0, None)), {"y": ys, "w": W}, threads=1)
    found = program(values, ys, W)
    for k, (t, y) in enumerate(zip(values, ys)):
        h, n = plain_state(t, W)
        np.testing.assert_allclose(found[0][k], (h * y).sum() / (n + 1), rtol=1e-4, atol=1e-5)
        assert found[1][k] == h.argmax()


def test_steps_have_bounded_size():
    """More rows than a step takes, and shared parts, which get a row for each place."""
    shared = tree(40)
    values = [shared] * 11 + [Tree.Node(shared, shared)]
    leaves = 40 * 13
    assert leaves > 2 * CHUNK
    check(state, values, W, in_axes=(0, None), one=plain_state)


def test_a_deep_chain():
    def plain(t, w):
        below = [t]
        while below[-1].case == "Node":
            below.append(below[-1].left)
        h = below.pop().x
        for v in reversed(below):
            h = h * 0.5 + np.tanh(v.right.x @ w)
        return h, float(len(below))

    deep = tree(1)
    for _ in range(3000):
        deep = Tree.Node(deep, Tree.Leaf(vector()))
    values = [deep, tree(1)]
    program = tw.compile(tw.batch(state, in_axes=(0, None)), {"w": W}, threads=1)
    for found, want in zip(program(values, W), zip(*[plain(v, W) for v in values])):
        np.testing.assert_allclose(found, np.stack(want), rtol=1e-5, atol=1e-5)


def test_no_examples():
    program = tw.compile(tw.batch(state, in_axes=(0, None)), threads=1)
    y, n = program([], W)
    assert y.shape == (0, N) and n.shape == (0,)


def test_errors():
    @tw.function
    def down(t: Tree, k: tw.f32[()]) -> tw.f32[()]:
        return tw.match(t, Leaf=lambda x: k, Node=lambda a, b: down(a, k + 1) + down(b, k))

    with pytest.raises(CompileError, match="argument 2 of down differs between its calls"):
        tw.compile(tw.batch(down, in_axes=(0, None)))
    program = tw.compile(tw.batch(state, in_axes=(0, None)), threads=1)
    with pytest.raises(RunError, match=r"Tree.Leaf.x is f64\[3\], expected f32\[4\]"):
        program([Tree.Leaf(np.zeros(3))], W)
    with pytest.raises(RunError, match="a float is given where a Tree is expected"):
        program([1.0], W)
    with pytest.raises(FrontendError, match="takes lists of values"):
        tw.batch(state)([tree(2)])
