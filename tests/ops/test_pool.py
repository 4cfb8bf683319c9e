"""Pools: positions of maxima, and the last window of ceil_mode."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.pool import avg_pool, max_pool, max_pool_with_indices
from tensorwright.ops.window import reduce_window, spread_window


def test_indices_point_at_the_maxima():
    x = param("x", tensor("f32", 2, 3, 6, 6))
    both = max_pool_with_indices(x, window=(2, 3), strides=(2, 2), padding=((1, 0), (1, 1)))
    data = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
    y, at = run_graph(graph("main", [x], both), [data])
    np.testing.assert_array_equal(data.reshape(-1)[at], y)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_ceil_mode_is_the_same_for_symbolic_sizes(size):
    h = var("h", min=4)
    attrs = {"window": (3,), "strides": (2,), "padding": ((1, 1),), "ceil_mode": True}
    data = np.arange(size, dtype=np.float32).reshape(1, 1, size)
    for pool in (max_pool, avg_pool):
        results = []
        for d in (h, size):
            x = param("x", tensor("f32", 1, 1, d))
            results.append(run_graph(graph("main", [x], [pool(x, **attrs)]), [data])[0])
        np.testing.assert_array_equal(*results)


def test_messages():
    x = param("x", tensor("f32", 2, 3))
    with pytest.raises(CompileError, match="it needs batch, channel and a spatial dimension"):
        max_pool(x, window=())
    with pytest.raises(CompileError, match="op 'mean' is not one of sum, max, min"):
        reduce_window(x, op="mean")
    with pytest.raises(CompileError, match="is not what windows over"):
        spread_window(x, shape=(2, 9), window=(1, 2))
