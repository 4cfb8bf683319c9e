"""Products of few rows as sums: where it pays on a target, and the same results."""

import numpy as np
import pytest

from tensorwright.ir.graph import constant
from tensorwright.ops.linalg import dot_general
from tensorwright.passes.product_sums import sum_products
from tensorwright.target.host import find
from tests.passes.equivalence import check_pass, module, op_names, x_of

RNG = np.random.default_rng(7)
TARGET = find("x86-64-avx512")
BATCHED = {"batch": ((0,), (0,)), "contract": ((2,), (2,))}


def is_sum(y, *params, target=TARGET) -> bool:
    """Whether the product becomes a sum; the results stay."""
    after = check_pass(lambda m: sum_products(m, target), module(y, *params), tol=1e-5)
    names = op_names(after)
    assert ("reduce_sum" in names) != ("dot_general" in names)
    return "reduce_sum" in names


def weight(*shape):
    return constant(RNG.uniform(-1, 1, shape).astype(np.float32), "w")


def test_one_row_against_rows():
    q, k = x_of(2, 3, 1, 32, name="q"), x_of(2, 3, 9, 32, name="k")
    both = ((0, 1), (0, 1))
    assert is_sum(dot_general(q, k, batch=both, contract=((3,), (3,))), q, k)
    turned, two = x_of(2, 3, 32, 9, name="k"), x_of(2, 3, 2, 32, name="q")
    assert is_sum(dot_general(q, turned, batch=both, contract=((3,), (2,))), q, turned)
    assert not is_sum(dot_general(two, turned, batch=both, contract=((3,), (2,))), two, turned)
    alone, w = x_of(1, 32, name="q"), x_of(9, 32, name="w")
    assert not is_sum(dot_general(alone, alone, contract=((0, 1), (0, 1))), alone)
    assert not is_sum(dot_general(alone, w, contract=((1,), (1,))), alone, w)


@pytest.mark.parametrize(("rows", "length", "expected"), [
    (2, 32, False), (2, 200, True), (3, 200, False), (5, 1000, True), (6, 1000, False),
])  # fmt: skip
def test_few_long_rows_against_rows(rows, length, expected):
    """A sum for each row takes less than to turn what they are multiplied with."""
    q, k = x_of(2, rows, length, name="q"), x_of(2, 9, length, name="k")
    assert is_sum(dot_general(q, k, **BATCHED), q, k) == expected
    assert not is_sum(dot_general(q, weight(2, 9, length), **BATCHED), q)


def test_narrow_vectors_add_fewer_at_a_time():
    """Of 4 elements, where the sum of a long row takes longer than to turn it."""
    q, k = x_of(2, 5, 1000, name="q"), x_of(2, 9, 1000, name="k")
    y = dot_general(q, k, **BATCHED)
    assert is_sum(y, q, k) and not is_sum(y, q, k, target=find("x86-64-sse4.2"))


def test_a_matrix_against_one_column():
    """In a batch, in which the matrix would be turned; alone, the scheduler sums along rows."""
    x, w = x_of(4, 9, 32), x_of(4, 32, 1, name="w")
    assert is_sum(dot_general(x, w, batch=((0,), (0,)), contract=((2,), (1,))), x, w)
    x, w = x_of(9, 32), x_of(32, 1, name="w")
    assert not is_sum(dot_general(x, w, contract=((1,), (0,))), x, w)


def test_a_vector_against_a_large_matrix():
    x, w, v = x_of(40), x_of(40, 1000, name="w"), x_of(1000, 40, name="w")
    assert is_sum(dot_general(x, w, contract=((0,), (0,))), x, w)
    assert not is_sum(dot_general(v, x, contract=((-1,), (-1,))), v, x)
    assert not is_sum(dot_general(x, weight(40, 1000), contract=((0,), (0,))), x)


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_against_a_large_matrix(rows):
    """Sums of its rows; panels of it would take longer than the product."""
    x, w, less = x_of(rows, 40), x_of(40, 1000, name="w"), x_of(40, 100, name="w")
    plain = {"contract": ((1,), (0,))}
    assert is_sum(dot_general(x, w, **plain), x, w)
    assert not is_sum(dot_general(x, less, **plain), x, less)
    assert not is_sum(dot_general(x, weight(40, 1000), **plain), x)
    many = x_of(3, 40, name="x")
    assert not is_sum(dot_general(many, w, **plain), many, w)
