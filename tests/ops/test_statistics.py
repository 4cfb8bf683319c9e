"""Reductions of empty, infinite and large data."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.driver.compile import compile
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.reduce import argmax, argmin, reduce_max, reduce_sum
from tensorwright.ops.statistics import reduce_log_sum_exp, reduce_mean, variance


def expanded(op, data, **attrs):
    x = param("x", tensor(data.dtype, *data.shape))
    y = op.expand(x, **{**op.defaults, **attrs})
    return run_graph(graph("main", [x], [y]), [data])[0]


def test_log_sum_exp_does_not_overflow():
    data = np.float32([[1000, 1000], [-np.inf, -np.inf], [np.inf, 0]])
    got = expanded(reduce_log_sum_exp, data, axes=(1,))
    np.testing.assert_allclose(got, [1000 + np.log(2), -np.inf, np.inf], rtol=1e-6)


def test_the_mean_of_nothing_is_nan():
    assert np.isnan(expanded(reduce_mean, np.zeros((0,), np.float32)))
    assert np.isnan(expanded(variance, np.zeros((1,), np.float32), correction=1))


def test_half_precision_adds_in_f32():
    data = np.full(4096, 0.1, np.float16)
    np.testing.assert_allclose(expanded(reduce_mean, data), np.float16(0.1), rtol=1e-3)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda x: reduce_sum(x, axes=(2,)), "axis 2 is outside a tensor of rank 2"),
        (lambda x: reduce_max(x, axes=(0, -2)), "repeat"),
        (lambda x: argmax(x, axis=1), "dimension 1 is empty, it has no extreme"),
    ],
)
def test_messages(build, message):
    with pytest.raises(CompileError, match=message):
        build(param("x", tensor("f32", 3, 0)))


@pytest.mark.parametrize("op", [argmax, argmin])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_places_of_extremes(op, last, axis):
    """Ties, NaN and infinities, in rows that vectors do and do not divide."""
    rng = np.random.default_rng(0)
    data = rng.integers(-3, 4, (70, 133)).astype(np.float32)
    data[::5, 7::50] = np.nan
    data[3], data[4, ::2] = -np.inf, np.inf
    data[:, 5] = -0.0
    x = param("x", tensor("f32", *data.shape))
    y = op(x, axis=axis, keepdims=False, last=last)
    got = compile(Module({"main": graph("main", [x], [y])}))(data)
    expected = op.reference(data, axis=axis, keepdims=False, last=last)
    np.testing.assert_array_equal(got, expected)
