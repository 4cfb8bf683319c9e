"""Suppression with a count known at run time; centring."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.patches import center_crop_pad
from tensorwright.ops.vision import nms_indices, non_max_suppression


def test_suppression_keeps_the_better_of_two_that_overlap():
    n = var("n", min=1)
    types = (("boxes", "f32", (1, n, 4)), ("scores", "f32", (1, 1, n)), ("limit", "i64", ()),
             ("overlap", "f32", ()), ("threshold", "f32", ()))  # fmt: skip
    params = [param(name, tensor(d, *shape)) for name, d, shape in types]
    y = non_max_suppression(*params)
    boxes = np.float32([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 2, 1, 3]]])
    scores = np.float32([[[0.5, 0.9, 0.7]]])
    inputs = [boxes, scores, np.int64(5), np.float32(0.5), np.float32(0.0)]
    (got,) = run_graph(graph("main", params, [y]), inputs)
    assert got.tolist() == [[0, 0, 1], [0, 0, 2]]
    inputs[2] = np.int64(1)
    assert run_graph(graph("main", params, [y]), inputs)[0].tolist() == [[0, 0, 1]]


def test_suppression_agrees_with_itself_on_corners_in_any_order():
    rng = np.random.default_rng(3)
    boxes = rng.random((1, 20, 4)).astype(np.float32)
    turned = boxes[..., [2, 3, 0, 1]]
    scores = rng.random((1, 2, 20)).astype(np.float32)
    rest = (scores, np.int64(9), np.float32(0.2), np.float32(0.1))
    a, b = (nms_indices.reference(v, *rest) for v in (boxes, turned))
    np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize("size, wanted", [(5, 8), (8, 5), (4, 4), (5, 4), (4, 5)])
def test_centring(size, wanted):
    data = np.arange(1, size + 1, dtype=np.float32)
    low = (wanted - size) // 2 if wanted > size else -((size - wanted) // 2)
    padded = np.pad(data, (max(low, 0), max(wanted - size - low, 0)))
    expected = padded[max(-low, 0) :][:wanted]
    n = var("n", min=1)
    for d in (size, n):
        x = param("x", tensor("f32", d))
        (got,) = run_graph(graph("main", [x], [center_crop_pad(x, (wanted,))]), [data])
        np.testing.assert_array_equal(got, expected)
