"""Rows of positions and indices: sizes that depend on data, clamping, messages."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.expr import var
from tensorwright.ir.graph import Graph, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops import index as ops


def test_nonzero_and_compress():
    n = var("n")
    x = param("x", tensor("f32", n, 3))
    keep = param("keep", tensor("bool", n))
    g = graph("g", [x, keep], [ops.nonzero(x), ops.compress(x, keep, 0)])
    assert len(g.binders) == 2
    for rows in (0, 1, 4):
        a = np.random.default_rng(rows).integers(0, 2, (rows, 3)).astype(np.float32)
        k = np.arange(rows) % 2 == 0
        found, kept = run_graph(g, [a, k])
        np.testing.assert_array_equal(found, np.argwhere(a).T.reshape(2, -1))
        np.testing.assert_array_equal(kept, a[k])


@pytest.mark.parametrize("bounds", [(0, 10, 3), (10, 0, -4), (3, 3, 1), (5, 0, 1), (-2, 7, 2)])
@pytest.mark.parametrize("kind", ["i64", "i32", "f32"])
def test_range(bounds, kind):
    start, limit, delta = (param(k, tensor(kind)) for k in ("start", "limit", "delta"))
    g = graph("g", [start, limit, delta], [ops.range_(start, limit, delta)])
    arrays = [np.asarray(v, start.dtype.numpy) for v in bounds]
    (found,) = run_graph(g, arrays)
    np.testing.assert_array_equal(found, np.arange(*bounds).astype(start.dtype.numpy))


def test_bound_sizes_enter_shapes():
    sizes = param("sizes", tensor("i64", 2))
    h, w = var("h"), var("w")
    ops.bind_size(sizes, symbols=(h, w))
    g = graph("g", [sizes], [ops.full(shape=(h, w * 2), value=1.0, dtype="f32")])
    assert isinstance(g, Graph) and len(g.binders) == 1
    (y,) = run_graph(g, [np.array([2, 3])])
    assert y.shape == (2, 6)


def test_outside_indices_are_clamped():
    x, i = param("x", tensor("f32", 3)), param("i", tensor("i64", 4))
    (y,) = run_graph(graph("g", [x, i], [ops.gather(x, i)]),
                     [np.arange(3, dtype=np.float32), np.array([-9, -1, 2, 9])])  # fmt: skip
    assert y.tolist() == [0, 2, 2, 2]


def test_messages():
    x, i = param("x", tensor("f32", 5, 4)), param("i", tensor("i64", 3))
    u = param("u", tensor("f32", 3))
    for message, call in {
        "gather: axis 2 is outside a tensor of rank 2": lambda: ops.gather(x, i, axis=2),
        "gather: the indices are f32": lambda: ops.gather(x, u),
        "gather_elements: x has rank 2, the indices 1": lambda: ops.gather_elements(x, i),
        "scatter_nd: index vectors of 3 elements": lambda: ops.scatter_nd(x, i, u),
        r"scatter_axis: the updates have shape \(3\), not \(3, 4\)": lambda: ops.scatter_axis(
            x, i, u, axis=0),
        "scatter_axis: mode 'sum' is not one of": lambda: ops.scatter_axis(
            x, i, param("u", tensor("f32", 3, 4)), mode="sum"),
        "dynamic_slice: starts is": lambda: ops.dynamic_slice(x, i, sizes=(1, 1)),
        r"dynamic_slice: dimension 1 of the window is 5, x.shape\[1\] is 4": lambda: (
            ops.dynamic_slice(x, param("s", tensor("i64", 2)), sizes=(1, 5))),
        "the dimension that is indexed is empty": lambda: ops.gather(
            param("x", tensor("f32", 0)), i),
        "bind_size: x has 3 elements, 1 symbols": lambda: ops.bind_size(i, symbols=(var("k"),)),
    }.items():  # fmt: skip
        with pytest.raises(CompileError, match=message):
            call()


@pytest.mark.parametrize("mode", ops.MODES)
def test_scatters_of_one_place_happen_in_order(mode):
    combine = {"set": lambda a, b: b, "add": np.add, "mul": np.multiply, "min": min, "max": max}
    random = np.random.default_rng(0)
    x, updates = random.normal(size=(3, 4, 5)), random.normal(size=(60, 5))
    at = np.stack([random.integers(0, 3, 60), random.integers(0, 4, 60)], 1)
    wanted = x.copy()
    for (i, j), row in zip(at, updates):
        wanted[i, j] = [combine[mode](a, b) for a, b in zip(wanted[i, j], row)]
    found = ops.scatter_nd.reference(x, at, updates, mode=mode)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shape", [(4, 0), (0, 3)])
def test_scatters_into_nothing_change_nothing(shape):
    x, at = np.zeros(shape), np.array([[1], [3]])
    found = ops.scatter_nd.reference(x, at, np.zeros((2, *shape[1:])), mode="add")
    assert found.shape == shape
