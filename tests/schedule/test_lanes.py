"""What is carried along an axis, and what has no form: the same results, in vectors."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.frontend.array_reduce import apply
from tensorwright.ops import cumulative, sort
from tensorwright.ops.control import item
from tensorwright.ops.index import scatter_nd

TARGETS = ("host", "x86-64-sse4.2", "x86-64-avx2")


def compiled(op, shape, target: str = "host", **attrs):
    @tw.function
    def f(x: tw.f32[shape]):
        y = apply(op, x, **attrs)
        return tuple(apply(item, y, index=n) for n in (0, 1)) if op is sort.top_k else y

    return tw.compile(f, threads=2, target=target)


def rule(f) -> str:
    return " ".join(line for k in f.lowered.kernels.values() for line in k.schedule)


def awkward(shape) -> np.ndarray:
    """Few different numbers, so that many are equal; both zeros, infinities and NaN."""
    values = np.float32([-2, -1, -0.0, 0.0, 1, 2, np.inf, -np.inf, np.nan])
    return np.random.default_rng(5).choice(values, shape)


@pytest.mark.parametrize(("threads", "width"), [(1, 992), (2, 496), (4, 240)])
def test_strips_for_each_thread(threads, width):
    @tw.function
    def f(x: tw.f32[1000, 1000]):
        return apply(cumulative.cumsum, x, axis=0)

    f = tw.compile(f, threads=threads, target="x86-64-avx512")
    assert rule(f) == f"lanes: strips of {width}, vectors of 16"


SHAPES = [((3, 5, 7), 1), ((9, 33), 0), ((2, 40, 3, 17), 1), ((4, 5000), 0), ((70, 2, 2), 0)]


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("attrs", [{}, {"exclusive": True}, {"reverse": True}])
def test_running_sums(shape, axis, attrs):
    x = np.random.default_rng(1).integers(-9, 9, shape).astype(np.float32)
    wanted = cumulative.cumsum.reference(x, axis=axis, **attrs)
    np.testing.assert_array_equal(compiled(cumulative.cumsum, shape, axis=axis, **attrs)(x), wanted)


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("largest", [True, False])
def test_the_best_of_an_axis(shape, axis, largest):
    x, attrs = awkward(shape), {"k": 3, "axis": axis, "largest": largest}
    wanted = sort.top_k.reference(x, **attrs)
    for got, w in zip(compiled(sort.top_k, shape, **attrs)(x), wanted):
        np.testing.assert_array_equal(got, w)


@pytest.mark.parametrize("n", [5, 20, 21, 37, 1000])
@pytest.mark.parametrize("largest", [True, False])
def test_the_best_of_rows(n, largest):
    x, attrs = awkward((3, n)), {"k": 5, "axis": 1, "largest": largest}
    wanted = sort.top_k.reference(x, **attrs)
    for got, w in zip(compiled(sort.top_k, (3, n), **attrs)(x), wanted):
        np.testing.assert_array_equal(got, w)


@pytest.mark.parametrize("shape, width", [((8, 3, 4, 40), 240), ((5, 2, 3, 4, 32), 384)])
def test_all_loops_inside_of_the_axis_are_one(shape, width):
    x = np.random.default_rng(3).integers(-9, 9, shape).astype(np.float32)
    f = compiled(cumulative.cumsum, shape, axis=0)
    assert f"lanes: strips of {width}" in rule(f)
    np.testing.assert_array_equal(f(x), x.cumsum(0))


def test_sizes_that_vary():
    sums = compiled(cumulative.cumsum, ("n", 6, "m"), axis=1)
    best = compiled(sort.top_k, ("n", "m"), k=2, axis=0)
    for n, m in ((2, 1), (3, 16), (2, 45), (7, 300)):
        x = np.random.default_rng(m).integers(-9, 9, (n, 6, m)).astype(np.float32)
        np.testing.assert_array_equal(sums(x), x.cumsum(1))
        wanted = sort.top_k.reference(x[:, 0], k=2, axis=0)
        for got, w in zip(best(np.ascontiguousarray(x[:, 0])), wanted):
            np.testing.assert_array_equal(got, w)


@pytest.mark.parametrize("target", TARGETS)
def test_vectors_of_each_target(target):
    x = awkward((30, 45))
    x[np.isinf(x)] = 3
    for op, attrs in ((cumulative.cumsum, {}), (sort.top_k, {"k": 4})):
        f = compiled(op, x.shape, target, axis=0, **attrs)
        assert "lanes: strips of" in rule(f)
        wanted = op.reference(x, axis=0, **attrs)
        got = f(x)
        for g, w in zip(*((got, wanted) if op is sort.top_k else ((got,), (wanted,)))):
            np.testing.assert_array_equal(g, w)


def test_rows_put_into_a_copy():
    @tw.function
    def f(x: tw.f32[50, 33], at: tw.i64[7, 1], e: tw.f32[7, 33]):
        return apply(scatter_nd, x, at, e)

    rng = np.random.default_rng(2)
    x, e = (rng.standard_normal(s).astype(np.float32) for s in ((50, 33), (7, 33)))
    at = np.int64([3, -1, 3, 0, 49, -50, 12])[:, None]
    wanted = scatter_nd.reference(x, at, e)
    np.testing.assert_array_equal(tw.compile(f, threads=2)(x, at, e), wanted)
