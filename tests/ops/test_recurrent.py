"""Recurrent layers: one product for all gates, sequences that end early, messages."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import graph, param
from tensorwright.ir.type import tensor
from tensorwright.ops.recurrent import gru, lstm, rnn


def test_one_product_for_all_gates_and_steps():
    x, w, r = (param(n, tensor("f32", *s)) for n, s in
               (("x", (7, 2, 4)), ("w", (20, 4)), ("r", (20, 5))))  # fmt: skip
    attrs = lstm.defaults
    y = lstm.expand(x, w, r, None, None, None, None, None, **attrs)
    nodes = graph("g", [x, w, r], [y]).nodes()
    outside = [n for n in nodes if n.op.name == "dot_general"]
    (loop,) = [n for n in nodes if n.op.name == "scan_"]
    inside = [n for n in loop.attrs["body"].nodes() if n.op.name == "dot_general"]
    assert [n.shape for n in outside] == [(7, 2, 20)] and [n.shape for n in inside] == [(2, 20)]


@pytest.mark.parametrize("op, gates", [(rnn, 1), (gru, 3), (lstm, 4)])
def test_messages(op, gates):
    x, w = param("x", tensor("f32", 7, 2, 4)), param("w", tensor("f32", 5 * gates, 4))
    with pytest.raises(CompileError, match="do not hold"):
        op(x, w, param("r", tensor("f32", 5 * gates + 1, 5)))
    with pytest.raises(CompileError, match="it must be"):
        op(x, param("w", tensor("f32", 5, 3)), param("r", tensor("f32", 5 * gates, 5)))


def test_unknown_activation():
    x, w, r = (param(n, tensor("f32", *s)) for n, s in
               (("x", (7, 2, 4)), ("w", (5, 4)), ("r", (5, 5))))  # fmt: skip
    with pytest.raises(CompileError, match="activation 'wave' is not known") as e:
        rnn(x, w, r, activation="wave")
    assert "use one of sigmoid, tanh" in e.value.help


def test_lengths_end_a_sequence():
    rng = np.random.default_rng(1)
    x, w, r = (rng.standard_normal(s).astype(np.float32) for s in ((4, 2, 3), (5, 3), (5, 5)))
    whole, last = rnn.reference(x, w, r)
    cut, early = rnn.reference(x, w, r, None, None, np.array([2, 4]))
    np.testing.assert_array_equal(cut[2:, 0], 0)
    np.testing.assert_array_equal(early[0], whole[1, 0])
    np.testing.assert_array_equal(early[1], last[1])
