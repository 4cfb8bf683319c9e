"""`unique` and what sorting says about wrong uses; rows are covered by the table test."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.sort import top_k, unique


def numpy_unique(x, axis, by_value):
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    if not by_value:
        order = np.argsort(first)
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return values, first, inverse.reshape(-1), counts


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("by_value", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 6])
def test_unique(axis, by_value, rows):
    n = var("n", min=0)
    x = param("x", tensor("f32", n, 3))
    g = graph("main", [x], unique(x, axis, by_value))
    data = np.random.default_rng(rows).integers(0, 2, (rows, 3)).astype(np.float32)
    if data.size == 0 and axis == 1:
        return  # NumPy calls three empty columns one
    for got, expected in zip(run_graph(g, [data]), numpy_unique(data, axis, by_value)):
        np.testing.assert_array_equal(got, expected)


def test_nan_is_one_value():
    x = param("x", tensor("f32", 4))
    got = run_graph(graph("main", [x], unique(x)), [np.float32([np.nan, 1, np.nan, 0])])
    np.testing.assert_array_equal(got[0], np.float32([0, 1, np.nan]))
    assert got[3].tolist() == [1, 1, 2]


def test_k_beyond_the_dimension():
    with pytest.raises(CompileError, match="top_k: k is 9, dimension 0 of x is 4"):
        top_k(param("x", tensor("f32", 4)), k=9)
