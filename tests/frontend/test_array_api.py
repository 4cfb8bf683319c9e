"""The array namespace against NumPy, in the reference interpreter, static and symbolic."""

import re

import numpy as np
import pytest

from tensorwright.base.errors import FrontendError, TensorwrightError
from tensorwright.frontend import array_api as xp
from tensorwright.frontend.function import load
from tensorwright.frontend.tracer import Size
from tensorwright.ir.interp import run_module

RNG = np.random.default_rng(0)
F = RNG.standard_normal((3, 4)).astype("f4")
G = RNG.standard_normal((4,)).astype("f4")
P = np.abs(F) + np.float32(0.5)
U = np.tanh(F)
I = RNG.integers(-5, 6, (3, 4))
B = F > 0
T = RNG.standard_normal((2, 3, 4)).astype("f4")


def run(f, *args, shapes=None):
    program = load(f, args, shapes)
    results = run_module(program.module, [np.asarray(a) for a in program.flatten(args, {})])
    return program.rebuild(results)


def same(got, expected, check_dtype=True):
    if isinstance(expected, (tuple, list)):
        assert len(got) == len(expected)
        for a, b in zip(got, expected):
            same(a, b, check_dtype)
        return
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    if check_dtype:
        assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, 2e-5, 1e-6)


def dynamic(args):
    """The shape language for arguments whose dimensions are all symbolic, equal sizes alike."""
    return {f"a{k}": ", ".join(f"d{n}" if n > 1 else str(n) for n in a.shape)
            for k, a in enumerate(args) if isinstance(a, np.ndarray) and a.ndim}  # fmt: skip


CASES = {
    **{n: (lambda a0, n=n: getattr(xp, n)(a0), lambda a, n=n: getattr(np, n)(a), x)
       for n, x in {
           "acos": U, "acosh": P + 1, "asin": U, "asinh": F, "atan": F, "atanh": U, "cos": F,
           "cosh": F, "exp": F, "expm1": F, "log": P, "log1p": P, "log2": P, "log10": P, "sin": F,
           "sinh": F, "sqrt": P, "tan": F, "tanh": F, "abs": I, "sign": F, "ceil": F, "floor": F,
           "trunc": F, "round": F * 3, "negative": I, "positive": F, "square": I, "isnan": F,
           "isinf": F, "isfinite": I, "signbit": F, "logical_not": B, "bitwise_invert": I,
       }.items()},
    **{n: (lambda a0, a1, n=n: getattr(xp, n)(a0, a1), lambda a, b, n=n: getattr(np, n)(a, b), x, y)
       for n, (x, y) in {
           "add": (F, G), "subtract": (F, I.astype("f4")), "multiply": (I, I), "divide": (F, P),
           "floor_divide": (F, P), "remainder": (F, P), "pow": (P, G), "maximum": (F, G),
           "minimum": (I, I.T.reshape(3, 4)), "atan2": (F, G), "hypot": (F, G), "copysign": (F, G),
           "logaddexp": (F, G), "equal": (I, I[:1]), "not_equal": (F, F), "less": (F, G),
           "less_equal": (I, I), "greater": (F, G), "greater_equal": (B, B[:1]),
           "logical_and": (B, ~B), "logical_or": (B, B), "logical_xor": (B, B[:1]),
           "bitwise_and": (I, I[:1]), "bitwise_or": (I, I), "bitwise_xor": (B, B[:1]),
           "bitwise_left_shift": (I, abs(I)), "bitwise_right_shift": (I, abs(I)),
           "matmul": (F, F.T.copy()), "outer": (G, G), "vecdot": (F, G),
       }.items()},
    "sum": (lambda a0: a0.sum(axis=-1), lambda a: a.sum(-1), F),
    "sum_bool": (lambda a0: xp.sum(a0), lambda a: a.sum(), B),
    "prod": (lambda a0: xp.prod(a0, axis=(0, 1), keepdims=True),
             lambda a: a.prod(keepdims=True), F),
    "mean": (lambda a0: a0.mean(axis=0), lambda a: a.mean(0), F),
    "var": (lambda a0: xp.var(a0, axis=1, correction=1), lambda a: a.var(1, ddof=1), F),
    "std": (lambda a0: xp.std(a0), lambda a: a.std(), F),
    "max": (lambda a0: a0.max(axis=1), lambda a: a.max(1), F),
    "min": (lambda a0: a0.min(), lambda a: a.min(), I),
    "any": (lambda a0: xp.any(a0, axis=0), lambda a: a.any(0), B),
    "all": (lambda a0: a0.all(), lambda a: a.all(), B),
    "argmax": (lambda a0: xp.argmax(a0), lambda a: a.argmax(), F),
    "argmin": (lambda a0: a0.argmin(axis=1, keepdims=True),
               lambda a: a.argmin(1, keepdims=True), F),
    "cumulative_sum": (lambda a0: xp.cumulative_sum(a0, axis=1), lambda a: a.cumsum(1), F),
    "cumulative_prod": (lambda a0: xp.cumulative_prod(a0, axis=0, include_initial=True),
                        lambda a: np.cumulative_prod(a, axis=0, include_initial=True), F),
    "diff": (lambda a0: xp.diff(a0), np.diff, F),
    "sort": (lambda a0: xp.sort(a0, axis=0), lambda a: np.sort(a, 0), F),
    "sort_down": (lambda a0: xp.sort(a0, descending=True), lambda a: -np.sort(-a), I),
    "argsort": (lambda a0: xp.argsort(a0), lambda a: np.argsort(a, -1), F),
    "searchsorted": (lambda a0, a1: xp.searchsorted(xp.sort(a0), a1),
                     lambda a, b: np.searchsorted(np.sort(a), b), G, F),
    "nonzero": (lambda a0: xp.nonzero(a0), np.nonzero, B),
    "count_nonzero": (lambda a0: xp.count_nonzero(a0, axis=1), lambda a: np.count_nonzero(a, 1), I),
    "where": (lambda a0, a1: xp.where(a0, a1, 0), lambda m, a: np.where(m, a, np.float32(0)), B, F),
    "clip": (lambda a0: a0.clip(-0.5, 0.5), lambda a: a.clip(-0.5, 0.5), F),
    "take": (lambda a0, a1: xp.take(a0, a1, axis=1), lambda a, i: np.take(a, i, 1), F,
             np.array([0, 3, 3])),
    "take_along_axis": (lambda a0, a1: xp.take_along_axis(a0, a1, axis=1),
                        lambda a, i: np.take_along_axis(a, i, 1), F, abs(I) % 4),
    "tril": (lambda a0: xp.tril(a0, k=-1), lambda a: np.tril(a, -1), F),
    "triu": (lambda a0: xp.triu(a0), np.triu, F),
    "concat": (lambda a0, a1: xp.concat([a0, a1], axis=0),
               lambda a, b: np.concatenate([a, b]), F, F),
    "stack": (lambda a0: xp.stack([a0, a0 + 1], axis=1), lambda a: np.stack([a, a + 1], 1), F),
    "flip": (lambda a0: xp.flip(a0, axis=1), lambda a: np.flip(a, 1), F),
    "roll": (lambda a0: xp.roll(a0, (1, -1), axis=(0, 1)),
             lambda a: np.roll(a, (1, -1), (0, 1)), F),
    "roll_flat": (lambda a0: xp.roll(a0, 2), lambda a: np.roll(a, 2), F),
    "repeat": (lambda a0: xp.repeat(a0, 3, axis=0), lambda a: np.repeat(a, 3, 0), F),
    "tile": (lambda a0: xp.tile(a0, (2, 1, 2)), lambda a: np.tile(a, (2, 1, 2)), F),
    "moveaxis": (lambda a0: xp.moveaxis(a0, 0, -1), lambda a: np.moveaxis(a, 0, -1), T),
    "permute_dims": (lambda a0: a0.transpose(2, 0, 1), lambda a: a.transpose(2, 0, 1), T),
    "matrix_transpose": (lambda a0: a0.mT, lambda a: a.swapaxes(1, 2), T),
    "expand_dims": (lambda a0: xp.expand_dims(a0, axis=(0, 2)), lambda a: a[None, :, None], F),
    "squeeze": (lambda a0: a0[None].squeeze(0), lambda a: a, F),
    "reshape": (lambda a0: a0.reshape(-1, a0.shape[0]), lambda a: a.reshape(-1, 3), F),
    "broadcast_arrays": (lambda a0, a1: xp.broadcast_arrays(a0, a1), np.broadcast_arrays, F, G),
    "meshgrid": (lambda a0, a1: xp.meshgrid(a0, a1), np.meshgrid, G, F[:, 0].copy()),
    "tensordot": (lambda a0, a1: xp.tensordot(a0, a1, axes=((1, 2), (0, 1))),
                  lambda a, b: np.tensordot(a, b, ((1, 2), (0, 1))), T, F),
    "einsum": (lambda a0, a1: xp.einsum("bij, ij -> bj", a0, a1),
               lambda a, b: np.einsum("bij,ij->bj", a, b), T, F),
    "softmax": (lambda a0: xp.softmax(a0),
                lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True), F),
    "arange": (lambda a0: xp.arange(a0.shape[0] * 2, dtype=xp.int64), lambda a: np.arange(6), F),
    "eye": (lambda a0: xp.eye(a0.shape[0], a0.shape[1], k=1), lambda a: np.eye(3, 4, 1, dtype="f4"),
            F),
    "full": (lambda a0: xp.full((2, a0.shape[0]), 7), lambda a: np.full((2, 3), 7), F),
    "zeros_like": (lambda a0: xp.zeros_like(a0, dtype=xp.int32),
                   lambda a: np.zeros((3, 4), "i4"), F),
    "astype": (lambda a0: a0.astype(xp.int32), lambda a: a.astype("i4"), F * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_function(name):
    f, numpy_f, *args = CASES[name]
    expected = numpy_f(*args)
    same(run(f, *args), expected)
    if not any(1 in np.shape(a) for a in args) and name != "broadcast_arrays":
        same(run(f, *args, shapes=dynamic(args)), expected)


SUBSCRIPTS = [
    np.s_[1], np.s_[-1], np.s_[1, ..., 2], np.s_[..., None, 0], np.s_[:, 1:, ::2],
    np.s_[::-1, :, -3:-1], np.s_[:, ::-2], np.s_[:, 2:0:-1], np.s_[5:], np.s_[:, :0], np.s_[None],
    np.s_[[0, 1, 1]], np.s_[:, [2, 0]], np.s_[..., [3, -1]], np.s_[[0, 1], :, [2, 3]],
    np.s_[:, [0, 2], [1, 1]], np.s_[1, :, [0, 3]], np.s_[:, 0, [0, 3]], np.s_[[[0], [1]], [0, 2]],
    np.s_[:, None, [0, 2]], np.s_[[1, 0], None, :, 1:3],
]  # fmt: skip


@pytest.mark.parametrize("key", SUBSCRIPTS, ids=str)
def test_subscript(key):
    same(run(lambda x: x[key], T), T[key])
    same(run(lambda x: x[key], T, shapes="x: a, b, c"), T[key])


def test_masks():
    same(run(lambda x: x[x > 0], T), T[T > 0])
    same(run(lambda x, m: x[m], F, B[:, 0]), F[B[:, 0]])


@pytest.mark.parametrize("key", [np.s_[1], np.s_[:, 1:3], np.s_[..., [0, 2]], np.s_[::2, None]],
                         ids=str)  # fmt: skip
def test_update(key):
    expected = T.copy()
    expected[key] = 5
    same(run(lambda x: x.at[key].set(5), T), expected)
    expected = T.copy()
    expected[key] += 2
    same(run(lambda x: x.at[key].add(2), T), expected)
    same(run(lambda x: x.at[x > 0].set(0), T), np.where(T > 0, 0, T).astype("f4"))


@pytest.mark.parametrize("x, y, expected", [
    (np.int32(1), 2, "i4"), (np.int32(1), 2.5, "f4"), (np.float16(1), 2.5, "f2"),
    (np.int8(1), np.uint8(1), "i2"), (np.int64(1), np.float32(1), "f4"), (True, np.int8(1), "i1"),
    (np.float32(1), np.float64(1), "f8"),
])  # fmt: skip
def test_promotion(x, y, expected):
    weak = [isinstance(v, (bool, int, float)) and not isinstance(v, np.generic) for v in (x, y)]
    if weak[1]:
        got = run(lambda a: a + y, np.asarray(x))
    elif weak[0]:
        got = run(lambda b: x + b, np.asarray(y))
    else:
        got = run(lambda a, b: a + b, np.asarray(x), np.asarray(y))
    assert got.dtype == expected


def test_namespace_of_a_tensor():
    same(run(lambda x: x.__array_namespace__().exp(x), F), np.exp(F))


@pytest.mark.parametrize("f, message", [
    (lambda x: x if x.sum() > 0 else -x, "tw.cond"),
    (lambda x: float(x[0, 0]), "keep it a tensor"),
    (lambda x: np.sin(x), "NumPy|ufunc"),
    (lambda x: x[x[0, 0] :], "keep it a tensor|slice bound"),
    (lambda x: [0] * x.shape[0], "is not a number while compiling"),
    (lambda x: x if x.shape[0] == 3 else -x, "is not known while compiling"),
    (lambda x: x @ x, "inner dimensions|dimension"),
])  # fmt: skip
def test_errors_name_the_line(f, message):
    with pytest.raises((TensorwrightError, TypeError)) as caught:
        run(f, F, shapes="x: n, 4")
    assert re.search(message, str(caught.value))
    if isinstance(caught.value, TensorwrightError):
        assert "test_array_api.py:" in str(caught.value)


def test_assignment_is_refused():
    def f(x):
        x[0] = 1
        return x

    with pytest.raises(FrontendError, match=r"x\.at\[index\]\.set"):
        run(f, F)


def test_sizes_are_proved_where_they_can_be():
    def f(x):
        n = x.shape[0]
        assert isinstance(n, Size)
        return x if n >= 2 and 2 * n > n else -x

    same(run(f, F, shapes="x: n[2..9], 4"), F)
