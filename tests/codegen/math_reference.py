"""References for the math tests: each function in a wider type, sample points, errors in ulps.

f32 is compared with double precision, f64 with x87's extended or with mpmath.
"""

import math

import mpmath
import numpy as np

from tensorwright.ir.dtype import DType, f32, f64
from tensorwright.ir.expr import Buffer, Expr, load

WIDE = {f32: np.float64, f64: np.longdouble}
HAS_EXTENDED = np.finfo(np.longdouble).nmant >= 63
BINARY = ("atan2", "pow", "rem", "mod")


def inputs(op: str, d: DType) -> list[Expr]:
    """Loads standing for the operands."""
    return [load(Buffer(n, d, (1,)), (0,)) for n in ("xy" if op in BINARY else "x")]


def _each(f):
    """A scalar function over an array; domain errors are NaN, overflow and poles infinite."""

    def one(v):
        try:
            return f(float(v))
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return lambda x: np.array([one(v) for v in x], np.float64)


def _exactly(f):
    """An mpmath function over an array of f64, to extended precision."""

    def one(v):
        if math.isnan(v):
            return np.longdouble(v)
        try:
            value = f(mpmath.mpf(float(v)))
        except ValueError:
            return np.longdouble(math.nan)
        high = float(value)
        if not math.isfinite(high):
            return np.longdouble(high)
        return np.longdouble(high) + np.longdouble(float(value - high))

    def over(x):
        with mpmath.workprec(160):
            return np.array([one(v) for v in x], np.longdouble)

    return over


def _erfc_exact(v):
    return mpmath.erfc(v) if v < 30 else mpmath.mpf(0)


def _digamma_exact(v):
    return mpmath.nan if v < 0 and v == mpmath.floor(v) else mpmath.digamma(v)


def _digamma_f64(x):
    return np.where(x == 0, -1 / x, _exactly(_digamma_exact)(x))


def _lgamma_exact(v):
    if v <= 0 and v == mpmath.floor(v):
        return mpmath.inf
    return mpmath.re(mpmath.loggamma(v)) if v > 0 else mpmath.log(abs(mpmath.gamma(v)))


def _lgamma(v):
    """math.lgamma, with infinity at the poles and without its domain error."""
    return math.inf if v <= 0 and v == math.floor(v) else math.lgamma(v)


def _digamma(x):
    """Recurrence to 20 and the asymptotic series, in extended precision."""
    x = x.astype(np.longdouble)
    y, total = np.where(x < 0, 1 - x, x), 0
    for _ in range(20):
        total = total + np.where(y < 20, 1 / y, 0)
        y = np.where(y < 20, y + 1, y)
    z = 1 / (y * y)
    series = z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z / 132))))
    value = np.log(y) - 1 / (2 * y) - series - total
    rest = x - np.rint(x)
    reflected = value - np.pi / np.tan(np.longdouble(np.pi) * rest)
    return np.where(x < 0, np.where(rest == 0, np.nan, reflected), value)


COMMON = {
    "reciprocal": lambda x: 1 / x, "rsqrt": lambda x: 1 / np.sqrt(x), "exp": np.exp,
    "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log1p": np.log1p,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2,
    "pow": np.power, "rem": np.fmod, "mod": np.mod,
}  # fmt: skip
SPECIAL = {
    f32: {"erf": _each(math.erf), "erfc": _each(math.erfc), "lgamma": _each(_lgamma),
          "digamma": _digamma},
    f64: {"erf": _exactly(mpmath.erf), "erfc": _exactly(_erfc_exact),
          "lgamma": _exactly(_lgamma_exact), "digamma": _digamma_f64},
}  # fmt: skip
SLOW = tuple(SPECIAL[f64])


def reference(op: str, d: DType, *x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        wide = [v.astype(WIDE[d]) for v in x]
        if op in SPECIAL[d]:
            return SPECIAL[d][op](wide[0])
        return COMMON[op](*wide)


def specials(d: DType) -> np.ndarray:
    info = np.finfo(d.numpy)
    values = [0, 0.5, 1, 1.5, 2, 3, 4, 10, 100, 2.0**23 + 1, np.inf, info.max, info.tiny,
              info.smallest_subnormal, info.eps]  # fmt: skip
    return np.array([*values, *(-v for v in values), np.nan], d.numpy)


def points(op: str, d: DType, stride: int = 4001, seed: int = 0) -> list[np.ndarray]:
    """Operands: all exponents, the ranges where functions have their shape, special values."""
    random = np.random.default_rng(seed)
    special = specials(d)
    if op in BINARY:
        a, b = (v.ravel() for v in np.meshgrid(special, special))
        count = 60000
        shapes = [(_patterns(d, count, random), _patterns(d, count, random))]
        for near in (3.0, 50.0, 1e4):
            shapes.append(tuple(random.uniform(-near, near, (2, count))))
        shapes.append((random.integers(-30, 30, count), random.integers(-30, 30, count)))
        shapes.append((1 + random.uniform(-0.01, 0.01, count), random.uniform(-6e4, 6e4, count)))
        columns = zip((a, b), *shapes)
        return [np.concatenate([np.asarray(p, d.numpy) for p in column]) for column in columns]
    count = 200000
    if d is f64 and op in SLOW:
        count = 700
    every = _patterns(d, count, random)
    if d is f32:
        patterns = np.arange(random.integers(stride), 1 << 32, stride, dtype=np.uint64)
        every = patterns.astype(np.uint32).view(np.float32)
    if op in ("lgamma", "digamma") and d is f64:  # mpmath takes very long on huge arguments
        every = every[np.abs(every) < 1e6]
    near = [random.uniform(-r, r, count) for r in (1.2, 6, 30, 110)]
    return [np.concatenate([special, every, *(v.astype(d.numpy) for v in near)])]


def _patterns(d: DType, count: int, random: np.random.Generator) -> np.ndarray:
    kind = np.uint32 if d is f32 else np.uint64
    return random.integers(0, 1 << d.bits, count, dtype=kind).view(d.numpy)


def ulp_error(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in units of the last place of the rounded exact value; infinite if y is a NaN,
    an infinity or a number where the reference is another kind."""
    info = np.finfo(y.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        top = info.max * info.dtype.type(0.75)  # of the same binade: spacing(max) is infinite
        unit = np.spacing(np.minimum(np.abs(rounded), top)).astype(exact.dtype)
        # one rounding beyond the largest number is infinity: measure both there
        big = exact.dtype.type(info.max) + unit
        value = np.where(np.isinf(y), np.copysign(big, y), y.astype(exact.dtype))
        error = np.abs(value - np.clip(exact, -big, big)) / unit
    same = np.isnan(y) & np.isnan(rounded)
    return np.where(same, 0, np.where(np.isnan(error), np.inf, error)).astype(np.float64)
