import ml_dtypes
import numpy as np
import pytest

from tensorwright.tools.numbers import cosine, difference, ordinal, tolerance_of

X = np.array([1.0, -2.0, 4.0], np.float32)


def test_equal():
    d = difference("x", X, X.copy(), "f32")
    assert d.ok and d.error == d.max_abs == d.max_rel == 0
    assert d.ulps == (0, 0, 0) and d.cosine == pytest.approx(1)


def test_error_is_relative_to_the_largest_magnitude():
    d = difference("x", X + np.float32(4e-4), X, "f32")
    assert d.error == pytest.approx(1e-4, rel=1e-2) and d.max_rel == pytest.approx(4e-4, rel=1e-2)


def test_one_ulp():
    assert difference("x", np.nextafter(X, np.inf), X, "f32").ulps == (1, 1, 1)
    values = np.array([-1e-45, 0.0, 1e-45], np.float32)
    assert np.diff(ordinal(values)).tolist() == [1, 1]


def test_nan_in_one_place_only():
    bad = X.copy()
    bad[1] = np.nan
    d = difference("x", bad, X, "f32")
    assert not d.ok and d.error == np.inf and "1 finite" in d.note
    assert difference("x", bad, bad.copy(), "f32").ok


def test_shapes_differ():
    d = difference("x", X, X[:2], "f32")
    assert not d.ok and "shapes differ" in d.note


def test_integers_are_exact():
    a = np.arange(4)
    assert difference("x", a, a, "i64").ok and not difference("x", a, a + 1, "i64").ok


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_have_ulps(dtype):
    assert difference("x", X.astype(dtype), X.astype(dtype), "f16").ulps == (0, 0, 0)


def test_tolerances():
    assert tolerance_of("f64") < tolerance_of("f32") < tolerance_of("f16") < tolerance_of("bf16")
    assert tolerance_of("f8e4m3fn") > 0 and tolerance_of("i32") == 0


def test_cosine_of_zeros():
    assert cosine(np.zeros(3), np.zeros(3)) == 1 and cosine(np.zeros(3), np.ones(3)) == 0


def test_empty():
    assert difference("x", X[:0], X[:0], "f32").ok
