"""`tw.data`, `tw.match`, lists, options and functions as values: traced, interpreted, compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

import tensorwright as tw
from tensorwright import numpy as tnp
from tensorwright.base.errors import CompileError, FrontendError, RunError
from tensorwright.base.value import Value
from tensorwright.ir.interp import run_module
from tests.values import N, Tree, objects, random_tree, same


@tw.data
class Shape:
    class Circle:
        radius: tw.f32

    class Polygon:
        points: tw.f32["n", 2]
        weights: tw.f32["n"]

    class Empty:
        pass


Floats = tw.List[tw.f32]
Rows = tw.List[tw.f32["n"]]
Maybe = tw.Option[tw.i64]


def both(f, *args, **options):
    """What the compiled function gives, after comparing it with the interpreter."""
    program = tw.compile(f, verify=True, **options)
    flat = program.convention.flatten(args, {})
    found = program(*args)
    expected = run_module(program.module, flat)
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected):
        same(a, b)
    assert objects(program) == 0
    return found


@tw.function
def total(t: Tree):
    return tw.match(t, Leaf=lambda x: x, Node=lambda a, b: total(a) + total(b))


@tw.function
def mirrored(t: Tree) -> Tree:
    return t.match(Leaf=Tree.Leaf, Node=lambda a, b: Tree.Node(mirrored(b), mirrored(a)))


# ---- values outside of programs ----------------------------------------------------------------


def test_values_are_python_objects():
    a, b = Tree.Leaf(np.zeros(N)), Tree.Leaf(x=np.ones(N))
    t = Tree.Node(a, right=b)
    assert t.left is a and t.right is b and t.leaves() == 2 and isinstance(t, Tree)
    match t:
        case Tree.Node(left, Tree.Leaf(x)):
            assert left is a and x[0] == 1
    assert tw.match(t, Leaf=lambda x: 0, Node=lambda left, right: right is b)
    assert Floats.of([1, 2, 3]).head == 1 and [float(x) for x in Floats.of([1, 2])] == [1, 2]
    assert len(Floats.of([])) == 0
    for wrong in (lambda: Tree(a, b), lambda: Tree.Node(a), lambda: Tree.Leaf(y=1)):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(FrontendError, match="no arm for Leaf"):
        tw.match(a, Node=lambda a, b: 0)


# ---- programs ----------------------------------------------------------------------------------


def test_trees_are_summed():
    rng = np.random.default_rng(0)
    for size in (1, 2, 30):
        both(total, random_tree(rng, size))


def test_trees_are_built():
    rng = np.random.default_rng(1)
    t = random_tree(rng, 20)
    back = both(mirrored, t)
    assert isinstance(back, Tree) and back.leaves() == 20
    same(both(mirrored, back), t)


def test_what_is_shared_stays_shared():
    leaf = Tree.Leaf(np.ones(N, np.float32))
    t = leaf
    for _ in range(12):
        t = Tree.Node(t, t)
    assert both(total, t)[0] == 2**12
    program = tw.compile(tw.function(lambda t: Tree.Node(t, t)), (t,))
    back = program(t)
    assert back.left is back.right and back.left.left is back.left.right


def test_sizes_of_their_own():
    @tw.function
    def area(s: Shape):
        def polygon(points, weights):
            return tnp.sum(points[:, 0] * points[:, 1] * weights)

        return tw.match(s, Circle=lambda r: 3 * r * r, Polygon=polygon, Empty=lambda: 0.0)

    both(area, Shape.Circle(2.0))
    both(area, Shape.Empty())
    for n in (0, 1, 7, 100):
        both(area, Shape.Polygon(np.ones((n, 2), np.float32), np.arange(n, dtype=np.float32)))
    program = tw.compile(area)
    with pytest.raises(RunError, match=r"Shape.Polygon.weights is f32\[3\], expected f32\[n\]"):
        program(Shape.Polygon(np.ones((2, 2), np.float32), np.ones(3, np.float32)))


def test_lists_of_vectors():
    @tw.function
    def scaled(xs: Rows, k: tw.f32) -> Rows:
        return tw.match(xs, Nil=Rows.Nil, Cons=lambda h, t: Rows.Cons(h * k, scaled(t, k)))

    rows = [np.arange(n, dtype=np.float32) for n in (3, 0, 5)]
    found = both(scaled, rows, np.float32(2))
    for a, b in zip(found, rows):
        np.testing.assert_array_equal(a, b * 2)
    assert len(both(scaled, [], np.float32(2))) == 0


def test_sizes_from_arms():
    @tw.function
    def first(xs: Rows):
        return tw.match(xs, Cons=lambda h, t: h, orelse=lambda: tnp.zeros((2,)))

    assert both(first, [np.ones(5, np.float32)]).shape == (5,)
    assert both(first, []).shape == (2,)


def test_loops_carry_values():
    @tw.function
    def reverse(xs: Floats) -> Floats:
        def step(state):
            rest, done, _go = state
            return tw.match(
                rest,
                Nil=lambda: (rest, done, False),
                Cons=lambda h, t: (t, Floats.Cons(h, done), True),
            )

        return tw.while_loop(lambda s: s[2], step, (xs, Floats.Nil(), True))[1]

    assert list(map(float, both(reverse, [1.0, 2.0, 3.0]))) == [3, 2, 1]


def test_scans_carry_values():
    @tw.function
    def to_list(x: tw.f32["n"]) -> Floats:
        done, _ = tw.scan(lambda xs, v: (Floats.Cons(v, xs), v), Floats.Nil(), x)
        return done

    assert list(map(float, both(to_list, np.arange(4, dtype=np.float32)))) == [3, 2, 1, 0]


def test_branches_give_values():
    @tw.function
    def half(n: tw.i64) -> Maybe:
        even = n % 2 == 0
        return tw.cond(even, lambda: Maybe.Some(n // 2), lambda: Maybe.Nothing())

    assert both(half, np.int64(6)).value == 3
    assert both(half, np.int64(7)).case == "Nothing"


def test_options_inside_branches():
    @tw.function
    def f(m: Maybe, c: tw.i64, d: tw.i64):
        picked = tw.cond(c > 0, lambda: m, lambda: Maybe.Some(d))
        return tw.match(picked, Nothing=lambda: d * 100, Some=lambda v: v + d), picked

    for m in (Maybe.Some(np.int64(5)), Maybe.Nothing()):
        for c in (0, 1):
            both(f, m, np.int64(c), np.int64(7))


def test_mutual_recursion():
    @tw.function
    def even(xs: Floats) -> tw.f32:
        return tw.match(xs, Nil=lambda: 0.0, Cons=lambda h, t: h + odd(t))

    @tw.function
    def odd(xs: Floats) -> tw.f32:
        return tw.match(xs, Nil=lambda: 0.0, Cons=lambda h, t: even(t) - h)

    assert both(even, [1.0, 2.0, 3.0, 4.0]) == 1 - 2 + 3 - 4


def test_known_values_need_no_match():
    @tw.function
    def f(x: tw.f32[N]):
        t = Value("Leaf", (x,))
        return tw.match(t, Leaf=lambda x: x + 1, Node=lambda a, b: a)

    program = tw.compile(f)
    assert all(n.op.name != "match" for n in program.module.main.nodes())


def test_constants_in_values():
    @tw.function
    def f(x: tw.f32[N]):
        t = Tree.Node(Tree.Leaf(np.ones(N, np.float32)), Tree.Leaf(x))
        return total(t), t

    found = both(f, np.full(N, 2, np.float32))
    np.testing.assert_array_equal(found[0], 3)
    assert found[1].leaves() == 2


# ---- memory ------------------------------------------------------------------------------------


def test_nothing_leaks():
    @tw.function
    def turn(t: Tree, n: tw.i64) -> Tree:
        step = lambda s: (s[0] + 1, mirrored(s[1]))
        return tw.while_loop(lambda s: s[0] < n, step, (tnp.asarray(0), t))[1]

    t = random_tree(np.random.default_rng(2), 3)
    program = tw.compile(turn, threads=1)
    same(program(t, np.int64(100_000)), t)
    assert objects(program) == 0
    for _ in range(3000):
        program(t, np.int64(1))
    assert objects(program) == 0


def test_failures_leave_nothing():
    @tw.function
    def build(n: tw.i64) -> Floats:
        return tw.cond(n > 0, lambda: Floats.Cons(1.0, build(n - 1)), lambda: Floats.Nil())

    program = tw.compile(build, threads=1)
    for _ in range(20):
        with pytest.raises(RunError, match="recursion of build is deeper than the stack"):
            program(np.int64(100_000_000))
        assert objects(program) == 0
        assert len(program(np.int64(100))) == 100


def test_a_larger_stack_goes_deeper():
    @tw.function
    def depth(xs: Floats) -> tw.f32:
        return tw.match(xs, Nil=lambda: 0.0, Cons=lambda h, t: h + depth(t))

    program, xs, found = tw.compile(depth, threads=1), Floats.of([1.0] * 60_000), []
    before = threading.stack_size(256 << 20)
    try:
        thread = threading.Thread(target=lambda: found.append(program(xs)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert found == [60_000]


def test_long_lists_are_freed_and_copied_without_a_stack():
    @tw.function
    def count(n: tw.i64) -> Floats:
        def step(s):
            k, xs = s
            return k + 1, Floats.Cons(k.astype(tw.f32), xs)

        return tw.while_loop(lambda s: s[0] < n, step, (tnp.asarray(0), Floats.Nil()))[1]

    program = tw.compile(count)
    assert len(program(np.int64(60_000))) == 60_000
    assert objects(program) == 0


def test_large_objects():
    Big = tw.List[tw.f32[5000]]

    @tw.function
    def twice(x: tw.f32[5000]) -> Big:
        return Big.Cons(x, Big.Cons(x * 2, Big.Nil()))

    program = tw.compile(twice)
    for _ in range(5):
        a, b = program(np.ones(5000, np.float32))
        assert a.sum() == 5000 and b.sum() == 10000
    assert objects(program) == 0


def test_inputs_are_never_changed():
    xs = Floats.of([1.0, 2.0])

    @tw.function
    def bump(xs: Floats) -> Floats:
        return tw.match(xs, Nil=Floats.Nil, Cons=lambda h, t: Floats.Cons(h + 1, bump(t)))

    @tw.function
    def f(xs: Floats):
        return bump(bump(xs)), xs

    once, same_list = both(f, xs)
    assert list(map(float, once)) == [3, 4] and list(map(float, same_list)) == [1, 2]


def test_programs_of_several_threads():
    program = tw.compile(mirrored, threads=1)
    rng = np.random.default_rng(3)
    trees = [random_tree(rng, 20) for _ in range(4)]
    wrong = []

    def work(t):
        for _ in range(200):
            try:
                same(program(program(t)), t)
            except Exception as e:
                wrong.append(e)

    threads = [threading.Thread(target=work, args=(t,)) for t in trees]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and objects(program) == 0


def test_saved_programs(tmp_path):
    tw.compile(mirrored).save(tmp_path / "mirrored.tw")
    program = tw.load(tmp_path / "mirrored.tw")
    t = random_tree(np.random.default_rng(4), 6)
    back = program(program(t))
    assert type(back) is Value
    same(back, t)


# ---- functions as values -----------------------------------------------------------------------

Scalar = Callable[[tw.f32], tw.f32]


def test_functions_as_static_arguments():
    @tw.function
    def mapped(f, xs: Floats) -> Floats:
        return tw.match(xs, Nil=Floats.Nil, Cons=lambda h, t: Floats.Cons(f(h), mapped(f, t)))

    @tw.function
    def main(xs: Floats):
        return mapped(tnp.exp, mapped(tnp.sqrt, xs))

    found = list(map(float, both(main, [1.0, 4.0])))
    np.testing.assert_allclose(found, np.exp([1, 2]), rtol=1e-5)


def test_functions_that_are_known_are_specialized():
    @tw.function
    def mapped(f: Scalar, xs: Floats) -> Floats:
        return tw.match(xs, Nil=Floats.Nil, Cons=lambda h, t: Floats.Cons(f(h), mapped(f, t)))

    @tw.function
    def folded(f: Callable[[tw.f32, tw.f32], tw.f32], start: tw.f32, xs: Floats) -> tw.f32:
        return tw.match(xs, Nil=lambda: start, Cons=lambda h, t: folded(f, f(start, h), t))

    @tw.function
    def main(xs: Floats, k: tw.f32):
        ys = mapped(lambda x: x * k, mapped(lambda x: x + 1, xs))
        return folded(lambda a, b: a + b * k, 0.0, ys), ys

    found = both(main, [1.0, 2.0], np.float32(3))
    assert found[0] == (6 + 9) * 3
    lowered = tw.compile(main).lowered
    assert not any(n.op.name in ("closure", "apply") for g in lowered.all_graphs()
                   for n in g.nodes())  # fmt: skip
    assert all(not t.name.startswith("Function") for t in lowered.data_types().values())


def test_functions_chosen_at_run_time():
    @tw.function
    def main(c: tw.i64, x: tw.f32, k: tw.f32):
        def chosen() -> Scalar:
            return pick(c, k)

        return chosen()(x), pick(1 - c, k)(x)

    @tw.function
    def pick(c: tw.i64, k: tw.f32) -> Scalar:
        return tw.match(decide(c), Left=lambda f: f, Right=lambda: lambda x: x + k)

    @tw.data
    class Choice:
        class Left:
            f: Scalar

        class Right:
            pass

    @tw.function
    def decide(c: tw.i64) -> Choice:
        return tw.cond(c > 0, lambda: Choice.Left(lambda x: x * 2), lambda: Choice.Right())

    found = both(main, np.int64(1), np.float32(5), np.float32(100))
    assert found[0] == 10 and found[1] == 105


def test_lists_of_functions():
    Steps = tw.List[Scalar]

    @tw.function
    def composed(fs: Steps, x: tw.f32) -> tw.f32:
        return tw.match(fs, Nil=lambda: x, Cons=lambda f, rest: composed(rest, f(x)))

    @tw.function
    def repeated(n: tw.i64, k: tw.f32) -> Steps:
        return tw.cond(
            n > 0,
            lambda: Steps.Cons(lambda x: x * k, Steps.Cons(tnp.sqrt, repeated(n - 1, k))),
            lambda: Steps.Nil(),
        )

    @tw.function
    def main(n: tw.i64, x: tw.f32, k: tw.f32):
        return composed(repeated(n, k), x)

    both(main, np.int64(5), np.float32(3), np.float32(2))


def test_functions_are_no_arguments_of_programs():
    @tw.function
    def main(f: Scalar, x: tw.f32):
        return f(x)

    with pytest.raises(FrontendError, match="'f' is a function"):
        tw.compile(main)


# ---- errors ------------------------------------------------------------------------------------


def test_wrong_values_are_named():
    program = tw.compile(total)
    leaf = Tree.Leaf(np.zeros(N, np.float32))
    for bad, message in (
        (3, "total: input 't': a int is given where a Tree is expected"),
        (Value("Branch"), "Tree has no case Branch: it has Leaf, Node"),
        (Tree.Node(leaf, None), "a NoneType is given where a Tree is expected"),
        (Tree.Leaf(np.zeros(3, np.float32)), r"Tree.Leaf.x is f32\[3\], expected f32\[4\]"),
        (Tree.Leaf(np.zeros(N)), r"Tree.Leaf.x is f64\[4\], expected f32\[4\]"),
    ):
        with pytest.raises(RunError, match=message):
            program(bad)


def test_wrong_programs_are_explained():
    def compiled(f):
        return tw.compile(tw.function(f), (Tree.Leaf(np.zeros(N, np.float32)),))

    for f, message in (
        (lambda t: t + 1, "a Tree, a tensor is expected"),
        (lambda t: tw.match(t, Leaf=lambda x: x), "no arm for Node"),
        (lambda t: tw.match(t, Leef=lambda x: x, orelse=lambda: 1), "Tree has no case Leef"),
        (lambda t: tw.match(t, Leaf=lambda x: x, Node=lambda a, b: a), "result 1 is"),
        (lambda t: tw.match(t, Leaf=lambda x: x, Node=lambda a, b: (a, b)), "different structure"),
        (lambda t: Tree.Node(t, 1.0), "field right"),
        (lambda t: t(1), "a Tree cannot be called"),
    ):
        with pytest.raises((FrontendError, CompileError), match=message):
            compiled(f)


def test_wrong_declarations_are_explained():
    @tw.data
    class bad:
        class One:
            x: tw.f32

    @tw.data
    class Odd:
        class One:
            x: int

    for cls, message in ((bad, "named 'bad'"), (Odd, "Odd.One.x: .* is no type of a field")):
        with pytest.raises(FrontendError, match=message):
            tw.compile(tw.function(lambda t: t), (cls.One(1.0),))


# ---- tail calls --------------------------------------------------------------------------------


def test_tail_calls_need_no_stack():
    @tw.function
    def add_up(n: tw.i64, total: tw.i64) -> tw.i64:
        return tw.cond(n <= 0, lambda: total, lambda: add_up(n - 1, total + n))

    program = tw.compile(add_up, verify=True)
    assert program(np.int64(1_000_000), np.int64(0)) == 1_000_000 * 1_000_001 // 2


def test_mutual_tail_calls_need_no_stack():
    @tw.function
    def even(n: tw.i64, seen: tw.i64) -> tw.i64:
        return tw.cond(n <= 0, lambda: seen, lambda: odd(n - 1, seen + 1))

    @tw.function
    def odd(n: tw.i64, seen: tw.i64) -> tw.i64:
        return tw.cond(n <= 0, lambda: -seen, lambda: even(n - 1, seen + 1))

    program = tw.compile(even, verify=True)
    assert program(np.int64(1_000_001), np.int64(0)) == -1_000_001
    assert program(np.int64(300_000), np.int64(0)) == 300_000


def test_tail_calls_over_values():
    @tw.function
    def reverse(xs: Floats, done: Floats) -> Floats:
        return tw.match(xs, Nil=lambda: done, Cons=lambda h, t: reverse(t, Floats.Cons(h, done)))

    @tw.function
    def f(xs: Floats):
        back = reverse(xs, Floats.Nil())
        return back, reverse(back, Floats.Nil())

    back, again = both(f, [1.0, 2.0, 3.0])
    assert list(map(float, back)) == [3, 2, 1] and list(map(float, again)) == [1, 2, 3]
    program = tw.compile(f, threads=1)
    assert len(program([1.0] * 60_000)[0]) == 60_000
    assert objects(program) == 0


def test_tail_calls_that_exchange_arguments():
    @tw.function
    def steps(n: tw.i64, a: tw.f32["d"], b: tw.f32["d"]):
        return tw.cond(n <= 0, lambda: (a, b), lambda: steps(n - 1, b, a + b))

    found = both(steps, np.int64(10), np.float32([0, 1]), np.float32([1, 1]))
    np.testing.assert_array_equal(found[0], [55, 89])
