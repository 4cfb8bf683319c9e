"""Transforms: lengths that split, and inverses that undo."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops.signal import dft, frames, transform


@pytest.mark.parametrize("n", [1, 2, 36, 48, 64, 97, 100, 360, 400])
def test_split_lengths(n):
    x = param("x", tensor("f64", 2, n))
    real, imaginary = transform((x, None), -1)
    data = np.random.default_rng(n).standard_normal((2, n))
    got = run_graph(graph("main", [x], [real, imaginary]), [data])
    expected = np.fft.fft(data)
    np.testing.assert_allclose(got[0] + 1j * got[1], expected, rtol=0, atol=1e-10 * n)


def test_a_length_with_divisors_needs_small_matrices():
    x = param("x", tensor("f32", 400))
    nodes = graph("g", [x], list(transform((x, None), -1))).nodes()
    assert max(n.args[1].size for n in map(_Sized, nodes) if n.is_product) <= 400


class _Sized:
    def __init__(self, node):
        self.is_product = node.op.name == "dot_general"
        self.args = [_Shape(a) for a in node.args if a is not None]


class _Shape:
    def __init__(self, node):
        self.size = int(np.prod(node.type.shape))


@pytest.mark.parametrize("n", [8, 9])
def test_the_real_inverse_undoes_the_one_sided_transform(n):
    x = param("x", tensor("f64", 3, n, 1))
    y = dft(dft(x, onesided=True), inverse=True, onesided=True, length=n)
    data = np.random.default_rng(n).standard_normal((3, n, 1))
    (got,) = run_graph(graph("main", [x], [y]), [data])
    np.testing.assert_allclose(got, data, atol=1e-12)


def test_frames_overlap():
    x = param("x", tensor("f32", 1, 7))
    data = np.arange(7, dtype=np.float32).reshape(1, 7)
    (got,) = run_graph(graph("main", [x], [frames(x, 3, 2)]), [data])
    assert got.tolist() == [[[0, 1, 2], [2, 3, 4], [4, 5, 6]]]


def test_messages():
    with pytest.raises(CompileError, match="only a real signal has a one-sided transform"):
        dft(param("x", tensor("f32", 4, 2)), onesided=True)
    with pytest.raises(CompileError, match="the last axis holds real and imaginary parts"):
        dft(param("x", tensor("f32", 4, 2)), axis=-1)
