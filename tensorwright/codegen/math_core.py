"""The parts that the expansions of math.py are made of, for f32 and f64 alike.

Invariant: everything is branch-free (selects), uses only operations that a target has directly,
and is correct under IEEE 754 without fast-math flags: several steps rely on the exact value of a
rounded intermediate. `magic` stands for 1.5 * 2**mantissa: adding it rounds to an integer that
can be read off the low bits of the sum, without a float-to-integer conversion:

    t = fma(x, 1/ln2, magic); n = t - magic; two_to_n = bitcast(bitcast(t, i32) << 23, f32)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.codegen.math_tables import F32, F64, LOOKUPS
from tensorwright.ir.dtype import DType, f32, f64, i32, i64
from tensorwright.ir.expr import Expr, binary, bitcast, call, cast, const, eq, fma, select, unary

INF, NAN = float("inf"), float("nan")
ROOTS = len(LOOKUPS["root"])


@dataclass(frozen=True)
class Format:
    """A float type and the constants that depend on it; all numbers are exact in the type."""

    dtype: DType
    bits: DType  # the signed integer of the same width
    mantissa: int  # stored bits
    bias: int
    tables: dict[str, tuple[float, ...]]
    ln2: tuple[float, float]  # high part short enough that n * high is exact, low part
    log2e: tuple[float, float]  # rounded to the type, and the remainder
    half_pi: tuple[float, float]
    exp_range: tuple[float, float]  # beyond which exp is 0 or infinite
    exp2_range: tuple[float, float]
    tanh_end: float  # from which on tanh rounds to 1

    def __call__(self, value: float) -> Expr:
        return const(value, self.dtype)

    @property
    def magic(self) -> float:
        return 1.5 * 2.0**self.mantissa

    @property
    def sign_bit(self) -> int:
        return 1 << (self.bits.bits - 1)

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def largest(self) -> float:
        return (2.0 - 2.0**-self.mantissa) * 2.0**self.bias

    @property
    def tiny(self) -> float:
        """Below it, an odd function with slope 1 at 0 rounds to its argument."""
        return 2.0 ** -(self.mantissa // 2 + 1)

    def pattern(self, value: float) -> int:
        """The bits of a number of this type, as a non-negative integer."""
        code = "fI" if self.dtype is f32 else "dQ"
        return struct.unpack(code[1], struct.pack(code[0], value))[0]


SINGLE = Format(
    f32, i32, 23, 127, F32,
    ln2=(0.693359375, -0.00021219444170128554),
    log2e=(1.4426950216293335, 1.925963033500011e-08),
    half_pi=(1.5707963705062866, -4.371139000186241e-08),
    exp_range=(-104.0, 89.0), exp2_range=(-151.0, 129.0), tanh_end=9.02,
)  # fmt: skip
DOUBLE = Format(
    f64, i64, 52, 1023, F64,
    ln2=(0.6931471803691238, 1.9082149292705877e-10),
    log2e=(1.4426950408889634, 2.0355273740931033e-17),
    half_pi=(1.5707963267948966, 6.123233995736766e-17),
    exp_range=(-746.0, 710.0), exp2_range=(-1076.0, 1025.0), tanh_end=19.07,
)  # fmt: skip
FORMATS = {f32: SINGLE, f64: DOUBLE}


def format_of(x: Expr) -> Format:
    return FORMATS[x.dtype]


def horner(coefficients: Sequence[float | Expr], v: Expr) -> Expr:
    """The polynomial with these coefficients (lowest first) at v, by Horner's rule in fmas."""
    *others, total = [c if isinstance(c, Expr) else const(c, v.dtype) for c in coefficients]
    for c in reversed(others):
        total = fma(total, v, c)
    return total


def product_error(a: Expr, b: Expr) -> Expr:
    """a b less its rounded value: exact. `math.py` knows this shape where there is no fma."""
    return fma(a, b, -(a * b))


def at_least(x: Expr, low: float) -> Expr:
    """max(x, low) that keeps NaN; one instruction where `max` with its NaN rule takes three."""
    return select(const(low, x.dtype) > x, low, x)


def at_most(x: Expr, high: float) -> Expr:
    return select(const(high, x.dtype) < x, high, x)


def clamp(x: Expr, low: float, high: float) -> Expr:
    return at_most(at_least(x, low), high)


def absolute(x: Expr) -> Expr:
    return unary("abs", x)


def bits_of(x: Expr) -> Expr:
    return bitcast(x, format_of(x).bits)


def xor(a: Expr, b) -> Expr:
    return binary("xor", a, b)


def shl(a: Expr, count: int) -> Expr:
    return binary("shl", a, count)


def shr(a: Expr, count: int) -> Expr:
    return binary("shr", a, count)


def negative_absolute(x: Expr) -> Expr:
    """-|x| by one bit operation."""
    F = format_of(x)
    return bitcast(bits_of(x) | F.sign_bit, F.dtype)


def with_sign_of(magnitude: Expr, x: Expr) -> Expr:
    """`magnitude`, whose sign bit is clear, with the sign of x."""
    F = format_of(x)
    return bitcast(bits_of(magnitude) | (bits_of(x) & F.sign_bit), F.dtype)


def flip_sign(x: Expr, sign: Expr) -> Expr:
    """x negated where the top bit of the integer `sign` is set."""
    F = format_of(x)
    return bitcast(xor(bits_of(x), sign & F.sign_bit), F.dtype)


def float_of(k: Expr, F: Format) -> Expr:
    """A small integer as a float; 64-bit lanes have no conversion instruction everywhere."""
    if F.dtype is f32:
        return cast(k, f32)
    return bitcast(k + F.pattern(F.magic), f64) - F.magic


def quotient(n: Expr, d: Expr, d_low: Expr) -> Expr:
    """n / (d + d_low) for d in [1, 2], corrected by its remainder, for which 1 / d is near enough
    to (3 - d) / 2. The division runs beside multiplications; an estimate of 1 / d and its
    correction instead of it took twice as long."""
    F = format_of(d)
    q = n / d
    rest = fma(-q, d_low, fma(-q, d, n))
    return fma(rest, fma(d, F(-0.5), F(1.5)), q)


def exp_reduced(r: Expr, name: str = "exp") -> Expr:
    """exp(r) - 1 = r + r**2 q(r); `exp` fits |r| <= ln2/2, `exp_wide` |r| <= ln2;
    `exp_root` |r| <= ln2/32."""
    return fma(horner(format_of(r).tables[name], r), r * r, r)


def scale_bits(t: Expr) -> Expr:
    """2**n from t = n + bias + magic."""
    F = format_of(t)
    return bitcast(shl(bits_of(t), F.mantissa), F.dtype)


def exp_in_range(x: Expr, table: str = "exp_wide") -> Expr:
    """exp of x within `exp_range`: exp(x) = 2**m * 2**m * exp(r), |r| <= ln2.

    Halving the exponent keeps both factors normal; overflow and denormals come out of the last
    product, correctly rounded.
    """
    F = format_of(x)
    t = fma(x, F(F.log2e[0] / 2), F(F.magic + F.bias))
    m = t - (F.magic + F.bias)
    r = fma(m, F(-2 * F.ln2[1]), fma(m, F(-2 * F.ln2[0]), x))
    s = scale_bits(t)
    return fma(exp_reduced(r, table), s, s) * s


def exp_scaled(x: Expr) -> Expr:
    """exp of x within `exp_range` where a target scales by powers of two in one step and looks up
    their roots: exp(x) = 2**floor(n) 2**(j/16) (1 + (r + r**2 q(r))), where n is a multiple of 1/16
    with the fraction j/16 and |r| <= ln2/32, degree 3 in f32 (Tang 1989)."""
    F = format_of(x)
    n, root = split_roots(x)
    r = fma(n, F(-F.ln2[1]), fma(n, F(-F.ln2[0]), x))
    return call("scale", F.dtype, (fma(exp_reduced(r, "exp_root"), root, root), n))


def exp_near_scaled(x: Expr) -> Expr:
    """The same with 1 + r for exp(r): to (ln2/32)**2 / 2 of the result."""
    F = format_of(x)
    n, root = split_roots(x)
    r = fma(n, F(-math.log(2)), x)
    return call("scale", F.dtype, (fma(r, root, root), n))


def split_roots(x: Expr) -> tuple[Expr, Expr]:
    """n, the multiple of 1/16 next to x / ln2, and 2 to the power of its fraction."""
    F = format_of(x)
    t = fma(x, F(F.log2e[0]), F(F.magic / ROOTS))
    return t - F.magic / ROOTS, call("root", F.dtype, (bits_of(t),))


def exp2_in_range(x: Expr, rest: Expr | None = None) -> Expr:
    """2**(x + rest), x within `exp2_range`, |rest| small: as exp, with 2**f = 1 + f P(f), |f| <= 1.

    The reduction is exact.
    """
    F = format_of(x)
    t = fma(x, F(0.5), F(F.magic + F.bias))
    f = fma(t - (F.magic + F.bias), F(-2), x)
    f = f if rest is None else f + rest
    s = scale_bits(t)
    return fma(f * horner(F.tables["exp2_wide"], f), s, s) * s


@dataclass(frozen=True)
class Split:
    """x = 2**k * m with m in [sqrt(1/2), sqrt(2)); k as float, k << mantissa as integer."""

    k: Expr
    m: Expr
    shifted_k: Expr


def split_exponent(x: Expr, denormals: bool) -> Split:
    """The split of a positive finite x; `denormals` says whether x may be one."""
    F = format_of(x)
    base = F.pattern(0.5**0.5)
    if denormals:
        small = x < F.smallest_normal
        x = select(small, x * 2.0 ** (F.mantissa + 2), x)
    k = shr(bits_of(x) - base, F.mantissa)
    shifted = shl(k, F.mantissa)
    m = bitcast(bits_of(x) - shifted, F.dtype)
    kf = float_of(k, F)
    if denormals:
        kf = select(small, kf - float(F.mantissa + 2), kf)
    return Split(kf, m, shifted)


def log1p_tail(f: Expr) -> Expr:
    """log(1 + f) - f for f in [sqrt(1/2) - 1, sqrt(2) - 1].

    f32: f**2 (f P(f) - 1/2). f64: with s = f / (2 + f), log(1 + f) = 2 atanh(s), and the
    identity 2 s = f - f**2/2 + s f**2/2 keeps the leading term free of the division's error.
    """
    F = format_of(f)
    if F.dtype is f32:
        return f * f * horner((-0.5, *F.tables["log"]), f)
    s = f / (f + 2.0)
    s2 = s * s
    half = f * f * 0.5
    return fma(s, fma(horner(F.tables["atanh"], s2), s2, half), -half)


def log_of(split: Split, f: Expr) -> Expr:
    """k ln2 + log(1 + f)."""
    F = format_of(f)
    y = fma(split.k, F(F.ln2[1]), log1p_tail(f))
    return fma(split.k, F(F.ln2[0]), f + y)


def log_special(x: Expr, result: Expr) -> Expr:
    """The result of a logarithm of x where x is positive and finite, else -inf, inf or NaN."""
    F = format_of(x)
    finite = select(x < INF, result, x)
    return select(x > 0.0, finite, select(eq(x, 0.0), F(-INF), NAN))
