"""Kernels that go step by step: what is inside is scheduled, and computes what it did."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.frontend.array_reduce import apply
from tensorwright.ops import caches

LAYERS, PAGES, HEADS, M = 2, 12, 2, 5


def program(group: int, depth: int, size: int, **attrs):
    rows, counts, tables = tw.f32["b", HEADS * group, depth], tw.i64["b"], tw.i32["b", M]
    keys = tw.f32[LAYERS, PAGES, HEADS, depth, size]
    values = tw.f32[LAYERS, PAGES, HEADS, size, depth]

    @tw.function
    def f(q: rows, k: keys, v: values, table: tables, n: counts, layer: tw.i64[()]):
        return apply(caches.decode_attention, q, k, v, table, n, layer, **attrs)

    return tw.compile(f, threads=2)


@pytest.mark.parametrize("group, depth, size", [(1, 8, 16), (4, 64, 16), (3, 24, 8), (2, 16, 64)])
@pytest.mark.parametrize("attrs", [{}, {"window": 9, "scale": 0.4}])
def test_attention_over_pages(group, depth, size, attrs):
    rng = np.random.default_rng(3)
    f = program(group, depth, size, **attrs)
    q = rng.standard_normal((3, HEADS * group, depth)).astype("f")
    k = rng.standard_normal((LAYERS, PAGES, HEADS, depth, size)).astype("f")
    v = rng.standard_normal((LAYERS, PAGES, HEADS, size, depth)).astype("f")
    table = rng.integers(0, PAGES, (3, M)).astype("i4")
    for n in ([1, 2, M * size], [0, size, size + 1], [7, 3 * size - 1, 2 * size]):
        wanted = caches.decode_attention.reference(q, k, v, table, np.array(n), 1, **attrs)
        found = f(q, k, v, table, np.array(n), 1)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_its_parts_are_on_vectors():
    (k,) = program(4, 64, 16).lowered.kernels.values()
    assert "steps: 2 parallel loops" in k.schedule[-1]
    text = program(4, 64, 16).text(after="schedule")
    assert text.count("for d in serial(64)") == 1 and "in vector(16)" in text
