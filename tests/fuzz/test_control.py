"""Random programs with branches, loops, recursion, data types, functions as values and sizes that
vary: with the input, with what branches choose, with every step of a loop, with data.

Each is run by the reference interpreter, compiled as it is defined (every operator a kernel of its
own) and compiled as usual, its memory full of NaN until it is written; all must agree for inputs of
several sizes, and leave no objects behind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import tensorwright as tw
from tensorwright import numpy as tnp
from tensorwright.base.config import options
from tensorwright.frontend.function import trace
from tensorwright.ir.interp import run_module
from tensorwright.ir.verify import verify
from tensorwright.passes.functions import resolve_functions
from tests.codegen.unscheduled import compile_as_defined
from tests.values import objects, same

N = 3


@tw.data
class Tree:
    class Tip:
        pass

    class Leaf:
        x: tw.f32[N]

    class Node:
        left: "Tree"
        x: tw.f32[N]
        right: "Tree"


Rows = tw.List[tw.f32[N]]
Sized = tw.List[tw.f32["m", N]]  # matrices, each with its own number of rows
Vector = tw.f32[N]
Step = Callable[[tw.f32[N]], tw.f32[N]]


@tw.function
def rebuilt(t: Tree, f: Step) -> Tree:
    return tw.match(
        t,
        Tip=Tree.Tip,
        Leaf=lambda x: Tree.Leaf(f(x)),
        Node=lambda a, x, b: Tree.Node(rebuilt(b, f), f(x), rebuilt(a, f)),
    )


@tw.function
def folded(t: Tree, start: Vector, f: Callable[[tw.f32[N], tw.f32[N]], tw.f32[N]]) -> Vector:
    return tw.match(
        t,
        Tip=lambda: start,
        Leaf=lambda x: f(start, x),
        Node=lambda a, x, b: f(folded(a, start, f), folded(b, x, f)),
    )


@tw.function
def mapped(xs: Rows, f: Step) -> Rows:
    return tw.match(xs, Nil=Rows.Nil, Cons=lambda h, t: Rows.Cons(f(h), mapped(t, f)))


@tw.function
def reduced(xs: Rows, done: Vector) -> Vector:
    return tw.match(xs, Nil=lambda: done, Cons=lambda h, t: reduced(t, tnp.tanh(done + h)))


@tw.function
def pushed(n: tw.i64, x: Vector, xs: Rows) -> Rows:
    return tw.cond(n <= 0, lambda: xs, lambda: pushed(n - 1, x * 0.5, Rows.Cons(x, xs)))


@tw.function
def stacked(xs: Sized, done: Vector) -> Vector:
    return tw.match(xs, Nil=lambda: done, Cons=lambda h, t: stacked(t, done + tnp.mean(h, axis=0)))


class Generator:
    """Writes one program, choice by choice."""

    def __init__(self, data):
        self.data, self.fuel = data, 14

    def pick(self, options: int) -> int:
        self.fuel -= 1
        return 0 if self.fuel < 0 else self.data.draw(st.integers(0, options - 1))

    def vector(self, env):
        v, _t, _xs, n, _m = env
        a = lambda: self.vector(env)
        match self.pick(14):
            case 0:
                return v
            case 1:
                return tnp.tanh(a() + a())
            case 2:
                return a() * 0.5 - v
            case 3:
                left, right = self.pick(4), self.pick(4)
                return tw.cond(tnp.sum(a()) > 0, lambda: self.small(v, left),
                               lambda: self.small(v, right))  # fmt: skip
            case 4:
                k, kind = self.pick(4), self.pick(4)
                body = lambda s: (s[0] + 1, self.small(s[1], kind))
                return tw.while_loop(lambda s: s[0] < k, body, (tnp.asarray(0), a()))[1]
            case 5:
                kind = self.pick(4)
                return folded(self.tree(env), a(), lambda p, q: self.small(p + q, kind))
            case 6:
                return reduced(self.rows(env), a())
            case 7:
                b = a()
                return tw.match(self.tree(env), Leaf=lambda x: x + b, orelse=lambda: b * 2)
            case 8:
                state, ys = tw.scan(lambda s, x: (tnp.tanh(s + x), s), a(), tnp.stack([v, a()]))
                return state + tnp.sum(ys, axis=0)
            case 9:
                return v + n
            case 10:
                return tnp.mean(self.matrix(env), axis=0)
            case 11:
                kind = self.pick(4)
                step = lambda s, x: (self.small(s + x, kind), tnp.sum(s))
                state, ys = tw.scan(step, a(), self.matrix(env))
                return tnp.tanh(state) + tnp.max(ys)
            case 12:
                x = self.matrix(env)
                return stacked(Sized.Cons(x, Sized.Cons(tnp.concat([x, x]), Sized.Nil())), a())
            case _:
                x = self.matrix(env)
                return tnp.tanh(x[-1] + x[0])

    def matrix(self, env):
        """A matrix of one row or more."""
        v, _t, _xs, n, m = env
        b = lambda: self.matrix(env)
        match self.pick(7):
            case 0:
                return m
            case 1:
                return tnp.concat([b(), tnp.expand_dims(self.vector(env), axis=0)])
            case 2:
                x = b()
                scores = x @ tnp.matrix_transpose(x)
                e = tnp.exp(scores - tnp.max(scores, axis=-1, keepdims=True))
                return (e / tnp.sum(e, axis=-1, keepdims=True)) @ x
            case 3:
                x = b()
                return tw.cond(tnp.sum(v) > 0, lambda: tnp.concat([x, m]), lambda: tnp.tanh(x))
            case 4:
                row = tnp.expand_dims(v, axis=0)
                step = lambda s: (s[0] + 1, tnp.concat([tnp.tanh(s[1]), row]))
                return tw.while_loop(lambda s: s[0] < n, step, (tnp.asarray(0), b()))[1]
            case 5:
                x = b()
                chosen = tnp.take(x, tnp.nonzero(tnp.sum(x, axis=1) > 0)[0], axis=0)
                return tnp.concat([chosen, tnp.expand_dims(v, axis=0)])
            case _:
                return tnp.tanh(b()) * 0.5 + v

    def small(self, x, kind: int):
        return [lambda: x, lambda: tnp.tanh(x), lambda: x * 0.5 + 1, lambda: -x][kind]()

    def tree(self, env):
        v, t, _xs, n, _m = env
        match self.pick(7):
            case 0:
                return t
            case 1:
                return Tree.Leaf(self.vector(env))
            case 2:
                return Tree.Node(self.tree(env), self.vector(env), self.tree(env))
            case 3 | 4:
                kind = self.pick(4)
                return rebuilt(self.tree(env), lambda x: self.small(x + v, kind))
            case 5:
                other = self.tree(env)
                return tw.cond(n > 2, lambda: t, lambda: other)
            case _:
                step = lambda s: (s[0] + 1, Tree.Node(s[1], v, Tree.Tip()))
                return tw.while_loop(lambda s: s[0] < n, step, (tnp.asarray(0), self.tree(env)))[1]

    def rows(self, env):
        v, _t, xs, n, _m = env
        match self.pick(5):
            case 0:
                return xs
            case 1:
                return Rows.Cons(self.vector(env), self.rows(env))
            case 2:
                kind = self.pick(4)
                return mapped(self.rows(env), lambda x: self.small(x * v, kind))
            case 3:
                return pushed(n, self.vector(env), self.rows(env))
            case _:
                return tw.match(self.rows(env), Nil=lambda: xs, Cons=lambda h, rest: rest)


def grown(draw, depth: int):
    kind = draw(st.integers(0, 2)) if depth else draw(st.integers(0, 1))
    x = np.array([draw(st.integers(-4, 4)) for _ in range(N)], np.float32) / 4
    if kind == 2:
        return Tree.Node(grown(draw, depth - 1), x, grown(draw, depth - 1))
    return Tree.Leaf(x) if kind else Tree.Tip()


@settings(max_examples=10, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck),
          phases=(Phase.explicit, Phase.generate))  # fmt: skip
@given(st.data())
def test_programs(data):
    make = Generator(data)

    def program(v: Vector, t: Tree, xs: Rows, n: tw.i64, m: tw.f32["rows", N]):
        env = (v, t, xs, n, m)
        return make.vector(env), make.tree(env), make.rows(env), make.matrix(env)

    m = trace(tw.function(program))
    verify(m)
    inputs = [np.float32([0.5, -1, 0.25]), grown(data.draw, 3),
              Rows.of([np.float32([k, 1, -k]) for k in range(data.draw(st.integers(0, 3)))]),
              np.array(data.draw(st.integers(0, 4)))]  # fmt: skip
    plain = compile_as_defined(resolve_functions(m))
    with options(poison=True):
        usual = tw.compile(m, threads=1, verify=True)
    for count in (1, 5):
        given = [*inputs, np.float32([[k - 2, 0.5, -k] for k in range(count)]) / 4]
        expected = run_module(m, given)
        for compiled in (plain, usual):
            for _ in range(2):
                for a, b in zip(compiled(*given), expected, strict=True):
                    same(a, b, 2e-4)
            assert objects(compiled) == 0
