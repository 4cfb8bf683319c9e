"""Recursion over one value, generation by generation: the same results, where it is worth it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.batching.generations import by_generation, equal
from tensorwright.ir.interp import run_module
from tensorwright.target.host import host
from tests import values as given
from tests.values import N, Parse, Parses, Rows, Tree

ROWS = 3
xp = tw.numpy
rng = np.random.default_rng(3)
W, U = (rng.standard_normal(s).astype(np.float32) / 2 for s in ((N, N), (2 * N, N)))
vector, tree = partial(given.vector, rng), partial(given.random_tree, rng)
words = partial(given.random_parse, rng)


@tw.function
def encode(t: Tree) -> tw.f32[N]:
    join = lambda a, b: xp.tanh(xp.concat([encode(a), encode(b)]) @ U)
    return tw.match(t, Leaf=lambda x: xp.tanh(x @ W), Node=join)


def plain(t):
    if t.case == "Leaf":
        return np.tanh(t.x @ W)
    return np.tanh(np.concatenate([plain(t.left), plain(t.right)]) @ U)


@pytest.fixture
def small_caches(monkeypatch):
    """Weights that are read for every part are too large for the cache next to the core."""
    monkeypatch.setattr("tensorwright.batching.generations.SHARE", 0)


def loops(program) -> bool:
    return any(n.op.name == "plant" for g in program.lowered.all_graphs() for n in g.nodes())


def test_trees_in_loops(small_caches):
    program = tw.compile(encode, threads=1)
    assert loops(program) and "encode" not in program.lowered.graphs
    shared = tree(5)
    deep = tree(1)
    for _ in range(600):
        deep = Tree.Node(tree(1), deep)
    for t in (tree(1), tree(2), tree(13), tree(300), Tree.Node(shared, Tree.Node(shared, shared)),
              deep):  # fmt: skip
        np.testing.assert_allclose(program(t), plain(t), rtol=1e-5, atol=1e-5)


def test_the_interpreter_agrees(small_caches):
    t = tree(9)
    m = by_generation(tw.compile(encode, threads=1).module, host())
    assert any(n.op.name == "plant" for n in m.main.nodes())
    np.testing.assert_allclose(run_module(m, [t])[0], plain(t), rtol=1e-5, atol=1e-5)


def test_what_surrounds_the_call(small_caches):
    @tw.function
    def score(t: Tree, u: Tree, y: tw.f32[ROWS, N]):
        return xp.sum(encode(t) * y, axis=1) - xp.sum(encode(u)), encode(t)

    program = tw.compile(score, threads=1)
    assert loops(program)
    t, u, y = tree(6), tree(11), np.stack([vector() for _ in range(ROWS)])
    found = program(t, u, y)
    np.testing.assert_allclose(found[0], y @ plain(t) - plain(u).sum(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], plain(t), rtol=1e-5, atol=1e-5)


def test_weights_may_be_arguments(small_caches):
    @tw.function
    def state(t: Tree, w: tw.f32[2 * N, N]) -> tw.f32[N]:
        join = lambda a, b: xp.tanh(xp.concat([state(a, w), state(b, w)]) @ w) + C
        return tw.match(t, Leaf=lambda x: x, Node=join)

    def by_hand(t, w):
        if t.case == "Leaf":
            return t.x
        return np.tanh(np.concatenate([by_hand(t.left, w), by_hand(t.right, w)]) @ w) + C

    C = vector()
    program = tw.compile(state, threads=1)
    assert loops(program)
    t = tree(8)
    np.testing.assert_allclose(program(t, U), by_hand(t, U), rtol=1e-5, atol=1e-5)


def test_weights_that_fit_stay_as_they_are():
    program = tw.compile(encode, threads=1)
    assert not loops(program)
    huge = replace(host(), caches=(16, 32, 1 << 20))
    assert by_generation(program.module, huge) is not program.module


def test_one_path_of_many_is_not_all_of_them(small_caches):
    @tw.function
    def decide(t: Tree, x: tw.f32[N]) -> tw.f32[N]:
        turn = lambda a, b: tw.cond(x[0] > 0, lambda: decide(a, x @ W), lambda: decide(b, x @ W))
        return tw.match(t, Leaf=lambda y: y, Node=turn)

    program = tw.compile(decide, threads=1)
    assert not loops(program)
    t = Tree.Node(Tree.Leaf(vector()), Tree.Leaf(vector()))
    x = np.ones(N, np.float32)
    np.testing.assert_array_equal(program(t, x), t.left.x)


def test_a_list_has_nothing_to_share(small_caches):
    @tw.function
    def fold(xs: Rows) -> tw.f32[N]:
        more = lambda x, rest: xp.tanh((x + fold(rest)) @ W)
        return tw.match(xs, Nil=lambda: xp.zeros((N,)), Cons=more)

    assert not loops(tw.compile(fold, threads=1))


GATE = rng.standard_normal((N, 2 * N)).astype(np.float32) / 2


@tw.function
def child_sum(t: Parse) -> tw.f32[N]:
    def word(x, children):
        g = x @ GATE
        return xp.tanh(g[:N] + summed(children, g[N:]) @ W)

    return tw.match(t, Word=word)


@tw.function
def summed(ts: Parses, gate: tw.f32[N]) -> tw.f32[N]:
    def cons(head, tail):
        h = child_sum(head)
        return summed(tail, gate) + h * xp.tanh(gate + h @ W)

    return tw.match(ts, Nil=lambda: xp.zeros((N,)), Cons=cons)


def plain_sum(t):
    g, total, ts = t.x @ GATE, np.zeros(N, np.float32), t.children
    while ts.case == "Cons":
        h = plain_sum(ts.head)
        total = total + h * np.tanh(g[N:] + h @ W)
        ts = ts.tail
    return np.tanh(g[:N] + total @ W)


def test_any_number_of_children(small_caches):
    """A list is given what its holder computes from its fields; products of fields come first."""
    program = tw.compile(child_sum, threads=1)
    assert loops(program) and not program.lowered.graphs.keys() & {"child_sum", "summed"}
    shared = words(4)
    twice = Parse.Word(vector(), Parses.Cons(shared, Parses.Cons(shared, Parses.Nil())))
    for t in (words(1), words(2), words(30), words(700), twice):
        np.testing.assert_allclose(program(t), plain_sum(t), rtol=1e-4, atol=1e-5)
    m = by_generation(program.module, host())
    np.testing.assert_allclose(run_module(m, [twice])[0], plain_sum(twice), rtol=1e-5, atol=1e-5)


def test_many_values_with_lists_of_parts():
    program = tw.compile(tw.batch(child_sum), threads=1)
    values = [words(k) for k in (1, 9, 2, 300, 5)]
    expected = np.stack([plain_sum(t) for t in values])
    np.testing.assert_allclose(program(values), expected, rtol=1e-4, atol=1e-5)
    assert program([]).shape == (0, N)


def test_a_list_that_begins_at_two_places_stays_recursive(small_caches):
    """What it is given comes from the fields of the one or of the other."""

    @tw.function
    def total(t: Parse) -> tw.f32[N]:
        def word(x, children):
            return total_of(children, x @ W) + total_of(children, x * 2)

        return tw.match(t, Word=word)

    @tw.function
    def total_of(ts: Parses, y: tw.f32[N]) -> tw.f32[N]:
        more = lambda head, tail: total(head) * y + total_of(tail, y)
        return tw.match(ts, Nil=lambda: y, Cons=more)

    def by_hand(t):
        return list_by_hand(t.children, t.x @ W) + list_by_hand(t.children, t.x * 2)

    def list_by_hand(ts, y):
        return y if ts.case == "Nil" else by_hand(ts.head) * y + list_by_hand(ts.tail, y)

    program = tw.compile(total, threads=1)
    assert not loops(program)
    t = words(7)
    np.testing.assert_allclose(program(t), by_hand(t), rtol=1e-4, atol=1e-5)


def test_arguments_that_differ_between_calls_stay_recursive(small_caches):
    @tw.function
    def down(t: Tree, x: tw.f32[N]) -> tw.f32[N]:
        both = lambda a, b: down(a, x @ W) + down(b, x)
        return tw.match(t, Leaf=lambda y: x * y, Node=both)

    program = tw.compile(down, threads=1)
    assert not loops(program)
    a, b, x = vector(), vector(), vector()
    t = Tree.Node(Tree.Leaf(a), Tree.Leaf(b))
    np.testing.assert_allclose(program(t, x), (x @ W) * a + x * b, rtol=1e-5, atol=1e-6)


def test_equal_graphs():
    graphs = tw.compile(encode, threads=1).module.graphs
    assert equal(graphs["main"], graphs["encode"])


def test_nothing_is_kept(small_caches):
    """Memory of the process after many calls, and the trees may go."""
    import resource

    program = tw.compile(encode, threads=1)
    used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        program(tree(30))
    before = used()
    for _ in range(3000):
        program(tree(30))
    assert used() - before < 4096  # KiB
