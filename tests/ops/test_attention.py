"""Attention: intermediates, rows that see nothing, and messages."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.attention import attention, attention_parts


def operands(heads=2, shared=2, length=3, keys=4, depth=8):
    return [param("q", tensor("f32", 1, heads, length, depth)),
            param("k", tensor("f32", 1, shared, keys, depth)),
            param("v", tensor("f32", 1, shared, keys, depth))]  # fmt: skip


def arrays(params):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(p.shape).astype(np.float32) for p in params]


def test_parts_build_on_each_other():
    params = operands(heads=4)
    parts = attention_parts(*params, softcap=1.5, causal=True, start=1)
    g = graph("main", params, list(parts.values()))
    q, k, v = data = arrays(params)
    found = dict(zip(parts, run_graph(g, data)))
    k, v = np.repeat(k, 2, 1), np.repeat(v, 2, 1)
    raw = q @ k.swapaxes(2, 3) / np.sqrt(8)
    np.testing.assert_allclose(found["raw"], raw, 1e-5, 1e-5)
    np.testing.assert_allclose(found["capped"], 1.5 * np.tanh(raw / 1.5), 1e-5, 1e-5)
    assert np.isneginf(found["biased"][..., 0, 2:]).all()
    np.testing.assert_allclose(found["weights"].sum(-1), 1, 1e-5)
    np.testing.assert_allclose(found["y"], found["weights"] @ v, 1e-4, 1e-5)


def test_a_query_that_may_look_at_nothing_gives_zero():
    params = [*operands(), param("mask", tensor("bool", 3, 4))]
    y = attention.expand(*params, None, None, **attention.defaults)
    mask = np.ones((3, 4), bool)
    mask[1] = False
    (got,) = run_graph(graph("main", params, [y]), [*arrays(params[:3]), mask])
    assert not got[:, :, 1].any() and got[:, :, 0].all()


def test_without_a_mask_there_is_no_guard():
    params = operands()
    names = lambda **attrs: [
        n.op.name for n in graph("g", params, [attention_parts(*params, **attrs)["y"]]).nodes()
    ]
    assert "softmax" in names(causal=True) and "softmax" not in names(window=(0, -1))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"heads": 3}, "3 query heads do not share 2 key heads evenly"),
        ({"keys": 5}, r"mask f32\[3, 4\] does not broadcast"),
    ],
)
def test_messages(change, message):
    mask = param("mask", tensor("f32", 3, 4))
    with pytest.raises(CompileError, match=message):
        attention(*operands(**change), mask)
