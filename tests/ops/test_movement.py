"""Movement rows: canonical subscripts, inferred sizes and messages."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import DTYPES, index
from tensorwright.ir.expr import Buffer, Expr, var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.loop import Store, statements
from tensorwright.ir.type import tensor
from tensorwright.ops import movement as ops
from tensorwright.ops.elementwise import select
from tensorwright.ops.index import dynamic_slice, gather, gather_nd
from tests.ops.rows import assert_same, run_lowering, run_reference
from tests.ops.samples import parse

n = var("n", min=1)


def subscripts(op, dims, **attrs) -> str:
    """The load of x in the loop nest of a row."""
    node = op(param("x", tensor("f32", *dims)), **attrs)
    body = op.lower(Buffer("y", "f32", node.shape), Buffer("x", "f32", dims), **node.attrs)
    (store,) = (s for s in statements(body) if isinstance(s, Store))
    return str(store.value)


@pytest.mark.parametrize("shape, to, text", [
    ((n, 12), (n, 3, 4), "x[i, j * 4 + k]"),
    ((n, 3, 4), (n, 12), "x[i, j // 4, j % 4]"),
    ((2, n, 8), (2 * n, 8), "x[i // n, i % n, j]"),
    ((2 * n, 8), (2, n, 8), "x[j + i * n, k]"),
    ((n, 1, 5), (n, 5), "x[i, 0, j]"),
    ((4, 6), (4, 6), "x[i, j]"),
])  # fmt: skip
def test_reshape_subscripts(shape, to, text):
    assert subscripts(ops.reshape, shape, shape=to) == text


def test_other_subscripts():
    assert subscripts(ops.transpose, (2, 3, 4), perm=(2, 0, 1)) == "x[j, k, i]"
    assert subscripts(ops.flip, (n, 3), axes=(0,)) == "x[i * -1 + n - 1, j]"
    assert subscripts(ops.broadcast_to, (3, 1), shape=(2, 3, 4)) == "x[j, 0]"
    assert subscripts(ops.slice, (9,), starts=(1,), stops=(9,), steps=(3,)) == "x[i * 3 + 1]"
    assert subscripts(ops.pad, (3, 4), low=(0, 0), high=(0, 0)) == "x[i, j]"
    padded = subscripts(ops.pad, (3, 4), low=(1, 0), high=(0, 0))
    assert padded == "x[i - 1, j] if 1 <= i else 0.0"


def test_inferred_sizes():
    x = param("x", tensor("f32", n, 6))
    assert ops.reshape(x, shape=(n, -1, 2)).shape == (n, 3, 2)
    assert ops.reshape(x, shape=(-1,)).shape == (n * 6,)
    assert ops.slice(x, starts=(0, 0), stops=(n, 5), steps=(1, 2)).shape == (n, 3)
    assert ops.concat(x, x, axis=0).shape == (n * 2, 6)
    assert ops.flatten(param("x", tensor("f32", n, 2, 3))).shape == (n, 6)


def test_functions():
    x = param("x", tensor("f32", 2, 1, 6))
    a = np.arange(12, dtype=np.float32).reshape(2, 1, 6)
    parts = ops.split(x, [1, 2, 3], axis=2)
    results = [ops.squeeze(x), ops.expand_dims(x, (0, -1)), ops.swap_axes(x), *parts,
               ops.stack([x, x], axis=1)]  # fmt: skip
    found = run_graph(graph("g", [x], results), [a])
    pieces = [a[..., :1], a[..., 1:3], a[..., 3:]]
    expected = [a[:, 0], a[None, ..., None], a.swapaxes(-1, -2), *pieces, np.stack([a, a], 1)]
    for y, e in zip(found, expected):
        np.testing.assert_array_equal(y, e)


def test_messages():
    x = param("x", tensor("f32", n, 6))
    for message, call in {
        r"reshape: x has 12 elements, shape \(5,? ?\) has 5": lambda: ops.reshape(
            param("x", tensor("f32", 12)), shape=(5,)),
        "are not known to have equally many": lambda: ops.reshape(x, shape=(var("m"), 6)),
        "more than one -1": lambda: ops.reshape(x, shape=(-1, -1)),
        r"transpose: \(0, 0\) is not a permutation": lambda: ops.transpose(x, perm=(0, 0)),
        r"slice: 0:7:1 leaves dimension 1 of x, which is 6": lambda: ops.slice(
            x, starts=(0, 0), stops=(n, 7)),
        r"broadcast_to: \(n, 6\) does not broadcast to \(n, 7\)": lambda: ops.broadcast_to(
            x, shape=(n, 7)),
        "concat: dimension 1 is 6 in operand 1 and 5 in operand 2": lambda: ops.concat(
            x, param("y", tensor("f32", n, 5)), axis=0),
        "pad: mode 'mirror' is not one of": lambda: ops.pad(
            x, low=(0, 0), high=(0, 0), mode="mirror"),
        "split: the sizes add up to 5": lambda: ops.split(x, [2, 3], axis=1),
        "squeeze: dimension 1 is 6, not 1": lambda: ops.squeeze(x, [1]),
    }.items():  # fmt: skip
        with pytest.raises(CompileError, match=message):
            call()


def test_dimensions_stay_canonical():
    x = param("x", tensor("f32", n, 6))
    y = ops.slice_axis(ops.concat(x, x, axis=0), 0, n, n * 2)
    assert y.shape[0] is n and isinstance(n, Expr)


@pytest.mark.parametrize("kind", [d.name for d in DTYPES if d is not index])
def test_every_element_type_moves(kind):
    rows = (ops.reshape, ops.transpose, ops.slice, ops.flip, ops.broadcast_to, ops.pad, ops.concat,
            gather, gather_nd, dynamic_slice, select)  # fmt: skip
    for op in rows:
        text = next(s for s in op.samples if s.count("f32[") >= 1)
        for case in parse(op, text.replace("f32[", f"{kind}[")):
            arrays = case.arrays()
            assert_same(run_lowering(case, arrays, case.values),
                        run_reference(case, arrays), case.name)  # fmt: skip
