"""Random rows: the published test vectors of Philox, and that distributions are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import u32, u64
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import tensor
from tensorwright.ops import random as ops

# From the authors' distribution (kat_vectors): counter, key, result.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip
KEY = np.array([0x9E3779B97F4A7C15, 3], np.uint64)


@pytest.mark.parametrize("counter, key, expected", VECTORS)
def test_philox_vectors(counter, key, expected):
    found = ops._philox_arrays([np.uint64(c) for c in counter], list(key))
    assert tuple(int(w) for w in found) == expected


def draw(row, *operands, **attrs) -> np.ndarray:
    params = [param(f"x{k}", tensor(a.dtype, *a.shape)) for k, a in enumerate(operands)]
    (y,) = run_graph(graph("g", params, [row(*params, **attrs)]), list(operands))
    return y


def test_bits_depend_on_key_stream_and_position_only():
    bits = draw(ops.random_bits, KEY, shape=(4, 6))
    np.testing.assert_array_equal(bits.reshape(-1), draw(ops.random_bits, KEY, shape=(24,)))
    np.testing.assert_array_equal(bits[0], draw(ops.random_bits, KEY, shape=(6,)))
    other = draw(ops.random_bits, KEY + np.array([0, 1], np.uint64), shape=(4, 6))
    assert (bits != other).all()
    wide = draw(ops.random_bits, KEY, shape=(4, 6), dtype=u64)
    np.testing.assert_array_equal((wide & np.uint64(0xFFFFFFFF)).astype(u32.numpy), bits)


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "bf16"])
def test_uniform(kind):
    y = draw(ops.uniform, KEY, shape=(40000,), dtype=param("x", tensor(kind)).dtype)
    y = y.astype(np.float64)
    assert y.min() >= 0 and y.max() < 1
    assert abs(y.mean() - 0.5) < 0.01 and abs(y.var() - 1 / 12) < 0.002


def test_normal():
    y = draw(ops.normal, KEY, shape=(40000,), mean=1.0, scale=2.0).astype(np.float64)
    assert np.isfinite(y).all()
    assert abs(y.mean() - 1) < 0.05 and abs(y.std() - 2) < 0.05
    assert abs((np.abs(y - 1) < 2).mean() - 0.6827) < 0.01


def test_bernoulli_dropout_multinomial():
    p = np.full(20000, 0.3, np.float32)
    assert abs(draw(ops.bernoulli, KEY, p).mean() - 0.3) < 0.02
    kept = draw(ops.dropout, np.ones(20000, np.float32), KEY, ratio=0.25)
    assert abs(kept.mean() - 1) < 0.03 and set(np.unique(kept)) == {0, np.float32(4 / 3)}
    logits = np.log(np.array([[0.1, 0.6, 0.3]], np.float32))
    drawn = draw(ops.multinomial, KEY, logits, samples=20000)
    np.testing.assert_allclose(np.bincount(drawn[0]) / 20000, [0.1, 0.6, 0.3], atol=0.02)


def test_a_key_is_two_words():
    with pytest.raises(CompileError, match=r"uniform: the key is u64\[3\], not u64\[2\]"):
        ops.uniform(param("key", tensor("u64", 3)), shape=(2,))
