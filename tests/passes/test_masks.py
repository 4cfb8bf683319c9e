"""Causal masks said by position: which, and that results stay the same."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import mul, select
from tensorwright.passes.masks import place_masks

LOW = np.float32(-np.inf)


def operators(g):
    return [n.op.name for n in g.nodes()]


def chosen(mask: np.ndarray, low=LOW):
    x = param("x", tensor("f32", 2, 6, 9))
    m = constant(mask)
    return graph("main", [x], [select(m, x, constant(low)), select(m, mul(x, x), constant(low))])


@pytest.mark.parametrize("start", [0, 3])
def test_each_choice_compares_positions(start):
    g = chosen(np.tril(np.ones((6, 9), bool), start))
    made = place_masks(Module({"main": g})).graphs["main"]
    assert operators(made).count("less_equal") == 2
    x = np.random.default_rng(0).standard_normal((2, 6, 9)).astype("f4")
    for a, b in zip(run_graph(g, [x]), run_graph(made, [x])):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mask, low", [
    (np.triu(np.ones((6, 9), bool)), LOW), (np.tril(np.ones((6, 9), bool), -1), LOW),
    (np.ones((6, 9), bool), LOW), (np.tril(np.ones((6, 9), bool)), np.float32(0)),
], ids=["turned", "empty row", "all", "not -inf"])  # fmt: skip
def test_others_stay(mask, low):
    m = Module({"main": chosen(mask, low)})
    assert place_masks(m) is m or place_masks(m).graphs["main"] is m.graphs["main"]
