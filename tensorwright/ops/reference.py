"""NumPy definitions of the scalar functions, in the semantics that `ir/expr.py` states.

    oracle(np.exp)(x)  ->  exp computed in float64 and rounded once to x's element type

These are oracles for tests, the interpreter and constant folding: plain, slow and quiet (floating
point warnings are off); nothing here is ever part of a compiled program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import DType, dtype

NARROW = ("float16", "bfloat16")


def quiet(f: Callable) -> Callable:
    """`f` with floating-point and division warnings off."""

    @functools.wraps(f, updated=())
    def wrapped(*arrays, **attrs):
        with np.errstate(all="ignore"):
            return f(*arrays, **attrs)

    return wrapped


def oracle(f: Callable) -> Callable:
    """`f` evaluated in float64 and rounded to the operands' type; anything but floats as it is."""

    @functools.wraps(f, updated=())
    def wrapped(*arrays, **attrs):
        kind = next(a.dtype for a in arrays if is_float(a))
        wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
        with np.errstate(all="ignore"):
            return np.asarray(f(*wide, **attrs)).astype(kind)

    return wrapped


def is_float(x) -> bool:
    return dtype(x.dtype).is_float


def is_integer(x) -> bool:
    return dtype(x.dtype).is_integer


def _pointwise(f: Callable[[float], float]) -> Callable:
    vector = np.frompyfunc(f, 1, 1)
    return lambda x: np.asarray(vector(x)).astype(np.float64)


def _lgamma(x: float) -> float:
    if math.isinf(x) or math.isnan(x):
        return abs(x)
    return math.inf if x <= 0 and x == math.floor(x) else math.lgamma(x)


def _digamma(x: float) -> float:
    """Recurrence up to 10, then the asymptotic series; reflection below 0 (DLMF 5.5, 5.11)."""
    if math.isnan(x) or x == -math.inf:
        return math.nan
    if x <= 0 and x == math.floor(x):
        return math.copysign(math.inf, -x) if x == 0 else math.nan
    if x < 0:
        return _digamma(1 - x) - math.pi / math.tan(math.pi * (x - math.floor(x)))
    shift = 0.0
    while x < 10:
        shift, x = shift - 1 / x, x + 1
    r = 1 / (x * x)
    tail = 1 / 240 - r * (1 / 132 - r * 691 / 32760)
    series = 1 / 12 - r * (1 / 120 - r * (1 / 252 - r * tail))
    return shift + math.log(x) - 0.5 / x - r * series


erf = oracle(_pointwise(math.erf))
erfc = oracle(_pointwise(math.erfc))
lgamma = oracle(_pointwise(_lgamma))
digamma = oracle(_pointwise(_digamma))


@oracle
def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))


@quiet
def sign(x):
    return np.sign(x)


def population_count(x):
    unsigned = x.view(np.dtype(f"uint{8 * x.dtype.itemsize}"))
    return np.bitwise_count(unsigned).astype(x.dtype)


@quiet
def divide(x, y):
    """The quotient of floats, rounded once."""
    return np.divide(x, y)


@quiet
def floor_div(x, y):
    """The quotient rounded down."""
    if is_float(x):
        return oracle(np.floor_divide)(x, y)
    return np.floor_divide(x, y)


@quiet
def trunc_div(x, y):
    """The quotient rounded to zero; by zero it is 0."""
    if is_float(x):
        return oracle(_trunc_div_float)(x, y)
    x, y = np.broadcast_arrays(x, y)
    floored = np.floor_divide(x, y)
    inexact = (np.remainder(x, y) != 0) & ((x < 0) != (y < 0))
    return floored + inexact.astype(x.dtype)


def _trunc_div_float(x, y):
    exact = (x - np.fmod(x, y)) / y
    return np.where(np.isfinite(exact), np.round(exact), np.trunc(x / y))


@quiet
def mod(x, y):
    """The floored remainder, with the sign of the divisor."""
    return oracle(np.remainder)(x, y) if is_float(x) else np.remainder(x, y)


@quiet
def rem(x, y):
    """The truncated remainder, with the sign of the dividend."""
    return oracle(np.fmod)(x, y) if is_float(x) else np.fmod(x, y)


@quiet
def power(x, y):
    if is_float(x):
        return oracle(np.power)(x, y)
    x, y = np.broadcast_arrays(x, y)
    if not dtype(x.dtype).is_signed:
        return np.power(x, y)
    positive = np.power(x, np.maximum(y, 0))
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0))
    return np.where(y < 0, inverse, positive).astype(x.dtype)


@quiet
def shift_left(x, y):
    return np.left_shift(x, y)


@quiet
def shift_right(x, y):
    return np.right_shift(x, y)


@quiet
def cast(x, dtype, saturate=True):
    """`x` converted as `ir/expr.py` says; `saturate` clamps on the way into 8-bit floats."""
    to = dtype
    if to.kind == "bool":
        return x != 0
    if to.is_float:
        if saturate and to.bits == 8 and to.min < 0:
            x = np.clip(x.astype(np.float64), to.min, to.max)
        return _round_to_float(x, to)
    return float_to_integer(x, to) if is_float(x) else x.astype(to.numpy)


def _round_to_float(x, to: DType):
    """One rounding: through float32 the small formats would round twice."""
    wide = x.astype(np.float64) if to.bits < 32 and is_float(x) else x
    return wide.astype(to.numpy)


def float_to_integer(x, to: DType):
    """Truncated, saturated to the range of `to`; NaN gives 0."""
    wide = np.nan_to_num(np.trunc(x.astype(np.float64)), nan=0.0, posinf=np.inf, neginf=-np.inf)
    inside = (wide > to.min - 1.0) & (wide < to.max + 1.0)
    middle = np.where(inside, wide, 0.0)
    carrier = np.uint64 if to.kind == "uint" else np.int64
    limits = np.where(wide > 0, np.array(to.max, carrier), np.array(to.min, carrier))
    return np.where(inside, middle.astype(carrier), limits).astype(to.numpy)
