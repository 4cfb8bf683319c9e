"""Softmax between contractions: divided behind the second one, and what NaN does."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import walk
from tensorwright.ir.interp import run_graph, run_module
from tensorwright.ir.module import Module
from tests.schedule.test_attention import arrays, forms, model

SHAPES = [(1, 2, 37, 16), (1, 2, 150, 16), (1, 2, 150, 24)]
BF16 = dict(rtol=3e-2, atol=3e-2)


def program(g, precision="bf16"):
    made = compile(Module({"main": g}), threads=2, precision=precision)
    assert "attention" in forms(made.lowered)
    return made


def shares(made) -> list[ir.Store]:
    """Stores of what is rounded to bf16 and made of exponentials or of their sum's reciprocal."""
    found = [
        s
        for k in made.lowered.kernels.values()
        for s in ir.statements(k.body)
        if isinstance(s, ir.Store) and s.value.op == "call" and s.value.value == "round_bf16"
    ]
    return [s for s in found if {"exp", "reciprocal"} & {e.op for e in walk(s.value)}]


@pytest.mark.parametrize("attrs", [{}, {"causal": True}, {"scale": 0.3}, {"softcap": 2.0}], ids=str)
def test_divided_behind(attrs):
    g = model(*SHAPES, **attrs)
    made, inputs = program(g), arrays(g)
    assert shares(made)
    assert not any(e.op == "reciprocal" for s in shares(made) for e in walk(s.value))
    (expected,) = run_graph(g, inputs)
    for y in (np.asarray(made(*inputs)), *run_module(made.lowered, inputs)):
        np.testing.assert_allclose(y, expected, **BF16)


def reciprocals(made) -> list[ir.Store]:
    """Stores of something times the reciprocal of a sum, made where it is multiplied."""
    found = [s for k in made.lowered.kernels.values() for s in ir.statements(k.body)]
    return [s for s in found if isinstance(s, ir.Store) and s.value.op != "reciprocal"
            and any(e.op == "reciprocal" for e in walk(s.value))]  # fmt: skip


@pytest.mark.parametrize("guard", ["none", "nan"])
@pytest.mark.parametrize("attrs", [{}, {"causal": True}, {"softcap": 2.0}], ids=str)
def test_weights_that_are_not_rounded(attrs, guard):
    g = model(*SHAPES, guard=guard, **attrs)
    made, inputs = program(g, "model"), arrays(g)
    assert not reciprocals(made)
    inputs[0][0, 1, 5] = np.nan
    (expected,) = run_graph(g, inputs)
    for y in (np.asarray(made(*inputs)), *run_module(made.lowered, inputs)):
        np.testing.assert_allclose(y, expected, 1e-5, 1e-5)
    assert not y[0, 1, 5].any() if guard == "nan" else np.isnan(y[0, 1, 5]).all()


def test_rows_that_see_nothing():
    """Their weights are chosen, not divided alone: such a softmax stays as it is."""
    g = model(*SHAPES, mask=("bool", 37, 150))
    inputs = arrays(g)
    inputs[3][2] = False
    y = np.asarray(program(g)(*inputs))
    np.testing.assert_allclose(y, run_graph(g, inputs)[0], **BF16)
    assert not y[0, :, 2].any()


@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_with_special_scores(precision, value):
    g = model(*SHAPES)
    inputs = arrays(g)
    inputs[0][0, 0, 3] = 0
    inputs[0][0, 0, 3, 0] = value
    for at in (0, 77, 149):  # the same sign in all keys but one
        inputs[1][0, 0, :, 0] = 1
        inputs[1][0, 0, at, 0] = -1
        with np.errstate(invalid="ignore"):
            (expected,) = run_graph(g, inputs)
        y = np.asarray(program(g, precision)(*inputs))
        np.testing.assert_allclose(y, expected, **BF16)


@pytest.mark.parametrize("precision", ["model", "bf16"])
@pytest.mark.parametrize("at", [0, 15, 77, 149])
def test_one_score_that_is_nan(precision, at):
    g = model(*SHAPES)
    inputs = arrays(g)
    inputs[1][0, 1, at] = np.nan
    y = np.asarray(program(g, precision)(*inputs))
    assert np.isnan(y[0, 1]).all() and not np.isnan(y[0, 0]).any()
