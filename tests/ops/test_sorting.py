"""Keys stand in the order of elements; what sorts them, compiled, against the references."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.frontend.array_reduce import apply
from tensorwright.ir.dtype import f32, f64, u8
from tensorwright.ir.expr import var
from tensorwright.ops.control import item
from tensorwright.ops.sort import argsort, top_k
from tensorwright.ops.sorting import have_keys

EXTREMES = {
    "f32": [np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 1.0, np.nan],
    "f16": [np.inf, -np.inf, np.nan, 0.0, -0.0, 6e-8, -6e-8, 65504, -65504, 1.0, 1.0],
    "f64": [1e300, -1e300, np.nan, 0.0, -0.0, np.inf, 1.0],
    "i32": [2**31 - 1, -(2**31), 0, -1, 1, 0, 2**31 - 1, -(2**31)],
    "u32": [2**32 - 1, 0, 2**31, 2**31 - 1, 1, 2**32 - 1, 0],
    "i8": [127, -128, 0, -1, 127, 5],
    "u8": [255, 0, 128, 127, 255, 3],
}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_in_order(name, descending):
    kind = getattr(tw, name)
    data = np.array(EXTREMES[name] * 3).astype(tw.ir.dtype.dtype(name).numpy)

    @tw.function
    def f(x: kind[data.size]):
        return apply(argsort, x, descending=descending)

    wanted = argsort.reference(data, descending=descending)
    np.testing.assert_array_equal(tw.compile(f, threads=1)(data), wanted)


def best_of(x: np.ndarray, **attrs):
    kind = {"f": tw.f32, "i": tw.i32}[x.dtype.kind]

    @tw.function
    def f(x: kind[x.shape]):
        y = apply(top_k, x, **attrs)
        return apply(item, y, index=0), apply(item, y, index=1)

    return tw.compile(f, threads=1)(x)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("shape, axis, k", [((3, 700), 1, 300), ((90, 7), 0, 40), ((2, 99), 1, 33),
                                            ((4, 50), 1, 49), ((1, 4000), 1, 100)])  # fmt: skip
def test_many_of_the_best(shape, axis, k, largest):
    rng, attrs = np.random.default_rng(3), {"k": k, "axis": axis, "largest": largest}
    special = rng.choice(np.float32([np.nan, np.inf, -np.inf, -0.0, 0.0, 1]), shape)
    few = rng.integers(-4, 4, shape).astype(np.int32)
    for x in (rng.standard_normal(shape).astype(np.float32), special, few):
        for got, wanted in zip(best_of(x, **attrs), top_k.reference(x, **attrs)):
            np.testing.assert_array_equal(got, wanted)


def test_what_has_keys():
    n = var("n", min=0)
    assert have_keys(f32, 100)
    assert have_keys(u8, 1 << 32)
    assert not have_keys(f32, (1 << 32) + 1)
    assert not have_keys(f64, 100)
    assert not have_keys(f32, n)
