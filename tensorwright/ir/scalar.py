"""The scalar semantics of `ir/expr.py` in NumPy: one function an operation and dtype.

    function("shl", i32)(np.int32(1), np.int32(40))  ->  np.int32(0)

Values of a data type are NumPy scalars of that type; index values are Python ints. Narrow floats
are computed in f32 and rounded once an operation; transcendental functions are computed in f64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import ml_dtypes
import numpy as np

from tensorwright.base.errors import InternalError
from tensorwright.ir.dtype import SUBBYTE, DType, boolean, f32, f64, i64, index


def wrap(value: int, to: DType):
    """`value` modulo 2**bits as a scalar of an integer type (index is never wrapped)."""
    if to is index:
        return value
    value &= (1 << to.bits) - 1
    if to.kind == "int" and value >> (to.bits - 1):
        value -= 1 << to.bits
    return to.numpy.type(value)


def digamma(x: float) -> float:
    """The logarithmic derivative of gamma; NaN at the poles -1, -2, ..., -inf at 0."""
    if x == 0.0:
        return math.copysign(math.inf, -x)
    if not math.isfinite(x):
        return x if x > 0 else math.nan
    if x < 0:
        if x == math.floor(x):
            return math.nan
        return digamma(1.0 - x) - math.pi / math.tan(math.pi * math.fmod(x, 1.0))
    shift = 0.0
    while x < 12.0:
        shift -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    tail = y * (
        1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y * (1 / 132 - y * 691 / 32760))))
    )
    return shift + math.log(x) - 0.5 / x - tail


def lgamma(x: float) -> float:
    """log |gamma(x)|; infinite at the poles."""
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow on either side."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _elementwise(f: Callable[[float], float]) -> Callable:
    return np.vectorize(f, otypes=[np.float64])


# One function of float64 arrays an operation; also what the text form's prelude calls.
FLOAT_UNARY: dict[str, Callable] = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "round": np.rint, "sqrt": np.sqrt, "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "reciprocal": lambda x: 1.0 / x, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": _elementwise(math.erf), "erfc": _elementwise(math.erfc), "sigmoid": sigmoid,
    "lgamma": _elementwise(lgamma), "digamma": _elementwise(digamma),
}  # fmt: skip
_POINTWISE = {"erf": math.erf, "erfc": math.erfc, "lgamma": lgamma, "digamma": digamma}


def cast(value, source: DType, to: DType):
    """`value` converted by the rules of `expr.cast`."""
    if to is boolean:
        return bool(value != 0)
    if to.is_float:
        return _cast_to_float(value, to)
    if source.is_float:
        if value != value:
            return wrap(0, to)
        limits = i64 if to is index else to
        wide = float(value)
        if math.isinf(wide) or not limits.min <= wide <= limits.max:
            return wrap(limits.max if wide > 0 else limits.min, to)
        return wrap(int(wide), to)
    return wrap(int(value), to)


_NO_INFINITY = ("f8e4m3fn", "f8e4m3fnuz", "f8e5m2fnuz", "f8e8m0", "f4e2m1")


def _cast_to_float(value, to: DType):
    kind = to.numpy.type
    if to.bits >= 32:
        return kind(value)
    wide = float(value)
    if to.name in _NO_INFINITY and abs(wide) > to.max:
        return kind(math.copysign(to.max, wide))
    return kind(wide) if to.name == "f16" else kind(_odd_f32(wide))


def _odd_f32(x: float) -> np.float32:
    """x in f32, rounded to odd, so that a second rounding to a narrower type is exact."""
    near = np.float32(x)
    if float(near) == x or not math.isfinite(x) or not np.isfinite(near):
        return near
    bits = near.view(np.uint32)
    if abs(float(near)) > abs(x):
        bits -= np.uint32(1)
    return (bits | np.uint32(1)).view(np.float32)


def bitcast(value, source: DType, to: DType):
    """The bits of `value` as a scalar of another type of the same width."""
    return np.asarray(value, source.numpy).view(to.numpy)[()]


def _float_unary(op: str, d: DType) -> Callable:
    kind = d.numpy.type
    f = _POINTWISE.get(op, FLOAT_UNARY[op])
    if op in ("neg", "abs"):
        return f
    if op in _POINTWISE:
        return lambda x: kind(f(float(x)))
    return lambda x: kind(f(np.float64(x)))


def _int_unary(op: str, d: DType) -> Callable:
    bits = d.bits
    f = {
        "neg": lambda x: -x,
        "abs": abs,
        "sign": lambda x: (x > 0) - (x < 0),
        "not": lambda x: ~x,
        "popcount": lambda x: (x & ((1 << bits) - 1)).bit_count(),
        "floor": lambda x: x, "ceil": lambda x: x, "trunc": lambda x: x, "round": lambda x: x,
    }.get(op)  # fmt: skip
    if f is None:
        raise InternalError(f"no scalar operation {op} on {d}")
    return lambda x: wrap(int(f(int(x))), d)


def truncdiv(a: int, b: int) -> int:
    """a / b rounded to zero, 0 for b = 0."""
    if b == 0:
        return 0
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def power(a: int, b: int, bits: int) -> int:
    """a ** b modulo 2**bits; a negative exponent gives 0 unless a is 1 or -1."""
    if b >= 0:
        return pow(a, b, 1 << bits)
    return a if a == 1 or (a == -1 and b % 2) else 1 if a == -1 else 0


_INT_BINARY: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda a, b, n: a + b,
    "sub": lambda a, b, n: a - b,
    "mul": lambda a, b, n: a * b,
    "div": lambda a, b, n: truncdiv(a, b),
    "floordiv": lambda a, b, n: a // b if b else 0,
    "mod": lambda a, b, n: a % b if b else 0,
    "truncdiv": lambda a, b, n: truncdiv(a, b),
    "rem": lambda a, b, n: a - b * truncdiv(a, b) if b else 0,
    "pow": power,
    "min": lambda a, b, n: min(a, b),
    "max": lambda a, b, n: max(a, b),
    "and": lambda a, b, n: a & b,
    "or": lambda a, b, n: a | b,
    "xor": lambda a, b, n: a ^ b,
    "shl": lambda a, b, n: a << b if 0 <= b < n else 0,
    "shr": lambda a, b, n: a >> (b if 0 <= b < n else n),
}


def minimum(a, b):
    return a if a != a else b if b != b else a if a <= b else b


def maximum(a, b):
    return a if a != a else b if b != b else a if a >= b else b


_FLOAT_BINARY: dict[str, Callable] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b, "floordiv": lambda a, b: np.floor(a / b), "mod": np.mod,
    "truncdiv": lambda a, b: np.trunc(a / b), "rem": np.fmod, "min": minimum, "max": maximum,
}  # fmt: skip
_FLOAT_WIDE = {"pow": np.power, "atan2": np.arctan2}
_COMPARE = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip
_PREDICATES = {
    "isnan": lambda a: a != a,
    "isinf": lambda a: abs(float(a)) == math.inf,
    "isfinite": lambda a: math.isfinite(float(a)),
}
_BOOL = {
    "and": lambda a, b: bool(a) and bool(b), "or": lambda a, b: bool(a) or bool(b),
    "xor": lambda a, b: bool(a) != bool(b), "mul": lambda a, b: bool(a) and bool(b),
    "add": lambda a, b: bool(a) or bool(b), "min": lambda a, b: bool(a) and bool(b),
    "max": lambda a, b: bool(a) or bool(b), "not": lambda a: not a,
}  # fmt: skip


def _narrow(f: Callable, d: DType) -> Callable:
    """`f` computed in f32 and rounded to a narrower float."""
    kind = d.numpy.type
    return lambda *args: kind(f(*map(np.float32, args)))


def fma(d: DType) -> Callable:
    """a * b + c in a wider type, rounded once (twice for f64, which has none)."""
    kind = d.numpy.type
    if not d.is_float:
        return lambda a, b, c: wrap(int(a) * int(b) + int(c), d)
    if d is f64:
        return lambda a, b, c: a * b + c
    return lambda a, b, c: kind(np.float64(a) * np.float64(b) + np.float64(c))


@cache
def function(op: str, d: DType) -> Callable:
    """The scalar function of `op` on operands of type `d`."""
    if op in _COMPARE:
        return _COMPARE[op]
    if op in _PREDICATES:
        return _PREDICATES[op]
    if op == "fma":
        return fma(d)
    if d is boolean and op in _BOOL:
        return _BOOL[op]
    if d.is_float:
        return _float_function(op, d)
    if op in _INT_BINARY:
        f, bits = _INT_BINARY[op], d.bits
        return lambda a, b: wrap(f(int(a), int(b), bits), d)
    return _int_unary(op, d)


def _float_function(op: str, d: DType) -> Callable:
    if op in _FLOAT_WIDE:
        f, kind = _FLOAT_WIDE[op], d.numpy.type
        return lambda a, b: kind(f(np.float64(a), np.float64(b)))
    if op in _FLOAT_BINARY:
        f = _FLOAT_BINARY[op]
        exact = d in (f32, f64) or op in ("min", "max")
        return f if exact else _narrow(f, d)
    if op in FLOAT_UNARY:
        return _float_unary(op, d)
    raise InternalError(f"no scalar operation {op} on {d}")


def undefined(shape: tuple[int, ...], d: DType) -> np.ndarray:
    """A fresh array whose contents nobody should rely on: NaN, or a number that stands out."""
    array = np.empty(shape, d.numpy)
    if d.is_float:
        array.fill(np.nan if d.name != "f4e2m1" else 6.0)
    elif d in SUBBYTE or d is boolean:
        array.fill(1)
    else:
        array.view(np.uint8).fill(0x5A) if array.ndim and array.size else array.fill(0x5A)
    return array


def is_narrow(d: DType) -> bool:
    """Whether NumPy operands of this type are better computed in a wider one."""
    return (d.is_float and d.bits < 32) or d in SUBBYTE


def widen(array: np.ndarray) -> np.ndarray:
    """Narrow floats as f32 and sub-byte integers as bytes; other arrays unchanged."""
    d = array.dtype
    if d == np.float16 or (d.kind == "V" and _is_float(d)):
        return array.astype(np.float32)
    if d.kind == "V":
        return array.astype(np.uint8 if ml_dtypes.iinfo(d).min == 0 else np.int8)
    return array


@cache
def _is_float(d: np.dtype) -> bool:
    try:
        ml_dtypes.finfo(d)
    except ValueError:
        return False
    return True


def join(low, high) -> np.uint32:
    """The bits of two values of 16 bits as one number."""
    return np.array([low, high]).view(np.uint32)[0]


def round_bf16(x):
    """x in bf16, to nearest even."""
    return ml_dtypes.bfloat16(x)


def dot_bf16(c, a, b) -> np.float32:
    """c + the two products of the bf16 halves of a and b, each rounded to f32."""
    left, right = (np.array([v], "<u4").view(ml_dtypes.bfloat16).astype(np.float32) for v in (a, b))
    low, high = left * right
    return np.float32(np.float32(c) + low) + high


def dot_u8i8(c, a, b) -> np.int32:
    """c + the four products of the bytes of a (unsigned) and of b (signed)."""
    left = np.array([a], "<i4").view("u1").astype(np.int64)
    right = np.array([b], "<i4").view("i1").astype(np.int64)
    return np.array([int(c) + int(left @ right)]).astype(np.int32)[0]
