"""Trees and parses that tests of data types, recursion and batching share, and how values are
compared."""

from __future__ import annotations

import ctypes

import numpy as np

import tensorwright as tw
from tensorwright.base.value import Value
from tensorwright.codegen.support_objects import ALIVE

N = 4  # numbers at a leaf


@tw.data
class Tree:
    class Leaf:
        x: tw.f32[N]

    class Node:
        left: "Tree"
        right: "Tree"

    def leaves(self) -> int:
        return 1 if self.case == "Leaf" else self.left.leaves() + self.right.leaves()


@tw.data
class Parse:
    class Word:
        x: tw.f32[N]
        children: "Parses"


@tw.data
class Parses:
    class Nil:
        pass

    class Cons:
        head: Parse
        tail: "Parses"


Rows = tw.List[tw.f32[N]]


def vector(rng) -> np.ndarray:
    return rng.standard_normal(N).astype(np.float32)


def random_tree(rng, leaves: int) -> Tree:
    if leaves == 1:
        return Tree.Leaf(vector(rng))
    k = int(rng.integers(1, leaves))
    return Tree.Node(random_tree(rng, k), random_tree(rng, leaves - k))


def random_parse(rng, words: int) -> Parse:
    """A word with the parses of the words that depend on it."""
    rest, children = words - 1, Parses.Nil()
    while rest:
        k = int(rng.integers(1, rest + 1))
        children, rest = Parses.Cons(random_parse(rng, k), children), rest - k
    return Parse.Word(vector(rng), children)


def same(a, b, tolerance: float = 1e-5) -> None:
    """Fails unless two results are equal, values field by field."""
    if isinstance(b, Value):
        assert a.case == b.case
        for x, y in zip(a.fields, b.fields, strict=True):
            same(x, y, tolerance)
    else:
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def objects(program) -> int:
    """Objects that contexts of a program still hold."""
    return sum(ctypes.c_int64.from_address(s.context + ALIVE).value for s in program._slots)
