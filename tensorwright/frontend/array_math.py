"""The array namespace: functions element by element.

Functions of real numbers compute integers in f32; arithmetic keeps the promoted type; comparisons
and predicates give bool.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tensorwright.frontend.array_define import floating, function, named
from tensorwright.frontend.tracer import node_of, result_dtype, together
from tensorwright.ir.dtype import boolean, i8, i16, i32, i64, u8
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix

# name here -> (row, how operands are typed): "float" functions of real numbers, "same" keeps the
# type, "order" compares, "logic" works on truth values, "bits" on integers or bools.
_UNARY = {
    "acos": "float", "acosh": "float", "asin": "float", "asinh": "float", "atan": "float",
    "atanh": "float", "cos": "float", "cosh": "float", "exp": "float", "expm1": "float",
    "log": "float", "log1p": "float", "log2": "float", "sin": "float", "sinh": "float",
    "sqrt": "float", "tan": "float", "tanh": "float", "erf": "float", "sigmoid": "float",
    "rsqrt": "float", "reciprocal": "float", "exp2": "float", "abs": "same", "sign": "same",
}  # fmt: skip
_BINARY = {
    "add": "add", "subtract": "sub", "multiply": "mul", "maximum": "maximum", "minimum": "minimum",
    "floor_divide": "floor_div", "remainder": "mod", "pow": "pow",
    "bitwise_left_shift": "shift_left", "bitwise_right_shift": "shift_right",
}  # fmt: skip
_COMPARE = {
    "equal": "equal", "not_equal": "not_equal", "less": "less", "less_equal": "less_equal",
    "greater": "greater", "greater_equal": "greater_equal",
}  # fmt: skip


def _unary(name: str, kind: str) -> Callable:
    row = getattr(ew, name)

    def f(x, /):
        x = node_of(x, floating(x) if kind == "float" else None)
        return x if x.dtype is boolean else row(x)

    return named(f, name)


def _binary(name: str, row: str) -> Callable:
    def f(x, y, /):
        d = result_dtype(x, y)
        if d is boolean and name in _ON_BOOL:
            return getattr(ew, _ON_BOOL[name])(*together(x, y))
        if name == "floor_divide" and d.is_float:
            x, y = together(x, y)
            return ew.floor(ew.div(ew.sub(x, ew.mod(x, y)), y))
        return getattr(ew, row)(*together(x, y, dtype=i8 if d is boolean else d))

    return named(f, name)


_ON_BOOL = {"add": "logical_or", "multiply": "logical_and", "maximum": "logical_or",
            "minimum": "logical_and"}  # fmt: skip


def _compare(name: str, row: str) -> Callable:
    def f(x, y, /):
        d = result_dtype(x, y)
        return getattr(ew, row)(*together(x, y, dtype=u8 if d is boolean else d))

    return named(f, name)


def _bitwise(name: str) -> Callable:
    def f(x, y, /):
        d = result_dtype(x, y)
        family = "logical" if d is boolean else "bitwise"
        return getattr(ew, f"{family}_{name}")(*together(x, y, dtype=d))

    return named(f, f"bitwise_{name}")


def _logical(name: str) -> Callable:
    def f(x, y, /):
        return getattr(ew, f"logical_{name}")(node_of(x, boolean), node_of(y, boolean))

    return named(f, f"logical_{name}")


def _predicate(name: str, row: str) -> Callable:
    def f(x, /):
        x = node_of(x)
        if not x.dtype.is_float:
            return ix.full(shape=x.shape, value=name == "isfinite", dtype=boolean)
        return getattr(ew, row)(x)

    return named(f, name)


globals().update({n: _unary(n, k) for n, k in _UNARY.items()})
globals().update({n: _binary(n, row) for n, row in _BINARY.items()})
globals().update({n: _compare(n, row) for n, row in _COMPARE.items()})
globals().update({f"bitwise_{n}": _bitwise(n) for n in ("and", "or", "xor")})
globals().update({f"logical_{n}": _logical(n) for n in ("and", "or", "xor")})
isnan, isinf, isfinite = (_predicate(n, r) for n, r in (
    ("isnan", "is_nan"), ("isinf", "is_inf"), ("isfinite", "is_finite")))  # fmt: skip


@function
def divide(x, y, /):
    return ew.div(*together(x, y, dtype=floating(x, y)))


def _rounding(name: str) -> Callable:
    def f(x, /):
        x = node_of(x)
        return getattr(ew, name)(x) if x.dtype.is_float else x

    return named(f, name)


ceil, floor, trunc, round = (_rounding(n) for n in ("ceil", "floor", "trunc", "round"))


@function
def negative(x, /):
    return ew.neg(node_of(x))


@function
def positive(x, /):
    return node_of(x)


@function
def square(x, /):
    x = node_of(x)
    return ew.mul(x, x)


@function
def log10(x, /):
    return ew.mul(ew.log2(node_of(x, floating(x))), math.log10(2.0))


@function
def logaddexp(x, y, /):
    x, y = together(x, y, dtype=floating(x, y))
    high, low = ew.maximum(x, y), ew.minimum(x, y)
    same = ew.logical_and(ew.equal(x, y), ew.is_inf(x))
    return ew.select(same, x, ew.add(high, ew.log1p(ew.exp(ew.sub(low, high)))))


@function
def hypot(x, y, /):
    x, y = together(x, y, dtype=floating(x, y))
    high = ew.maximum(ew.abs(x), ew.abs(y))
    low = ew.minimum(ew.abs(x), ew.abs(y))
    ratio = ew.div(low, ew.select(ew.equal(high, 0.0), node_of(1.0, high.dtype), high))
    return ew.mul(high, ew.sqrt(ew.add(ew.mul(ratio, ratio), 1.0)))


@function
def atan2(x, y, /):
    return ew.atan2(*together(x, y, dtype=floating(x, y)))


@function
def signbit(x, /):
    x = node_of(x)
    if not x.dtype.is_float:
        return ew.less(x, 0)
    return ew.less(ew.bitcast(x, dtype={64: i64, 32: i32, 16: i16}[x.dtype.bits]), 0)


@function
def copysign(x, y, /):
    x, y = together(x, y, dtype=floating(x, y))
    minus = ew.less(ew.bitcast(y, dtype={64: i64, 32: i32, 16: i16}[y.dtype.bits]), 0)
    return ew.select(minus, ew.neg(ew.abs(x)), ew.abs(x))


@function
def logical_not(x, /):
    return ew.logical_not(node_of(x, boolean))


@function
def bitwise_invert(x, /):
    x = node_of(x)
    return ew.logical_not(x) if x.dtype is boolean else ew.bitwise_not(x)


@function
def clip(x, /, min=None, max=None):
    x = node_of(x)
    if min is not None:
        x = ew.maximum(x, node_of(min, x.dtype))
    return x if max is None else ew.minimum(x, node_of(max, x.dtype))


@function
def where(condition, x, y, /):
    x, y = together(x, y)
    return ew.select(node_of(condition, boolean), x, y)
