"""Sampling against sorting in NumPy, with the same random bits."""

import functools

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.nn.sampling import at_least, least_weight, sample, weighed
from tensorwright.ops import random as rd

tn = tw.numpy


@functools.cache
def program(f, v: int):
    rows, counts, numbers = tw.f32["b", v], tw.i64["b"], tw.f32["b"]

    def sampled(x: rows, t: numbers, k: counts, p: numbers, key: tw.u64[2]):
        return sample(x, t, k, p, key)

    def kept(x: rows, k: counts, p: numbers):
        weights = weighed(x, tn.max(x, axis=1), tn.ones_like(p), k)
        return at_least(weights, least_weight(weights, p)) > 0

    return tw.compile(tw.function(sampled if f == "sample" else kept))


def sorted_keep(x, k, p) -> np.ndarray:
    """Which scores stay: the k greatest, of these the greatest until their share reaches p."""
    kept = np.zeros(x.shape, bool)
    for b in range(len(x)):
        order = np.argsort(-x[b], kind="stable")
        order = order[: k[b]] if k[b] else order
        e = np.exp(x[b][order].astype("d") - x[b].max())
        before = np.cumsum(e) - e
        kept[b, order[before < p[b] * e.sum()] if p[b] < 1 else order] = True
    return kept


def oracle(x, t, k, p, key) -> np.ndarray:
    scaled = x / np.where(t > 0, t, 1)[:, None].astype("f")
    weights = np.where(sorted_keep(scaled, k, p), np.exp(scaled.astype("d")), 0)
    share = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    u = rd.uniform.reference(key, shape=t.shape)
    return np.where(t > 0, (share > u[:, None]).argmax(axis=1), x.argmax(axis=1))


CASES = [(0, 1), (1, 1), (5, 1), (0, 0.5), (0, 0.9), (40, 0.8), (500, 0.01)]


@pytest.mark.parametrize("v", [7, 500])
def test_what_is_kept(v):
    rng = np.random.default_rng(v)
    x = (3 * rng.standard_normal((len(CASES), v))).astype("f")
    k, p = np.array([min(c[0], v) for c in CASES]), np.array([c[1] for c in CASES], "f")
    np.testing.assert_array_equal(program("keep", v)(x, k, p), sorted_keep(x, k, p))


def test_the_greatest_stays():
    """Also where top-p asks for no share at all."""
    x = np.array([[1, 3, 2, 0, -1, -2, -3]], "f")
    found = program("keep", 7)(x, np.array([0]), np.zeros(1, "f"))
    np.testing.assert_array_equal(found, x == 3)


def test_equal_scores_stay_together():
    x = np.array([[1, 3, 3, 2, 3, -np.inf, -0.0, 0.0]], "f")
    found = program("keep", 8)(x, np.array([2]), np.ones(1, "f"))
    np.testing.assert_array_equal(found, [[0, 1, 1, 0, 1, 0, 0, 0]])


def test_draws():
    rng = np.random.default_rng(0)
    x = (2 * rng.standard_normal((7, 500))).astype("f")
    t = np.array([0, 0.3, 0.7, 1, 1.5, 0, 1], "f")
    k, p = np.array([c[0] for c in CASES]), np.array([c[1] for c in CASES], "f")
    for seed in range(20):
        key = np.array([seed, 7 * seed], "u8")
        np.testing.assert_array_equal(program("sample", 500)(x, t, k, p, key),
                                      oracle(x, t, k, p, key))  # fmt: skip


def test_draws_have_the_right_frequencies():
    x = np.log(np.array([[0.5, 0.25, 0.15, 0.1, 1e-9, 1e-9, 1e-9]], "f"))
    rows = np.repeat(x, 500, axis=0)
    ones, none = np.ones(500, "f"), np.zeros(500, "i8")
    draws = [program("sample", 7)(rows, ones, none, ones, np.array([3, s], "u8"))
             for s in range(20)]  # fmt: skip
    share = np.bincount(np.concatenate(draws), minlength=7) / 10000
    np.testing.assert_allclose(share, np.exp(x[0]), atol=0.02)
