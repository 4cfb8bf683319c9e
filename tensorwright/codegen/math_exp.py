"""exp and log, and what follows from them: sigmoid, tanh, sinh, cosh, expm1, log1p, ...

Each function takes one f32 or f64 expression and returns one; the ulp bounds are in math.py.

    sigmoid(x)   ->   e = exp(-|x|); select(x < 0, e, 1) / (1 + e)
"""

import math

from tensorwright.codegen.math_core import (
    NAN,
    absolute,
    at_least,
    at_most,
    bits_of,
    clamp,
    exp2_in_range,
    exp_in_range,
    exp_near_scaled,
    exp_reduced,
    exp_scaled,
    format_of,
    horner,
    log1p_tail,
    log_of,
    log_special,
    negative_absolute,
    quotient,
    scale_bits,
    split_exponent,
    with_sign_of,
)
from tensorwright.ir.expr import Expr, bitcast, const, fma, select, unary


def exp(x: Expr) -> Expr:
    """Reduction by even multiples of ln2, degree 7 (f32) or 14 (f64) on |r| <= ln2."""
    return exp_in_range(clamp(x, *format_of(x).exp_range))


def exp_by_scaling(x: Expr) -> Expr:
    """As exp, with instructions for powers of two and their 16th roots: degree 3 (f32) on
    |r| <= ln2/32."""
    return exp_scaled(clamp(x, *format_of(x).exp_range))


def exp_near(x: Expr) -> Expr:
    """As exp_by_scaling, with 1 + r in place of exp(r) on |r| <= ln2/32."""
    return exp_near_scaled(clamp(x, *format_of(x).exp_range))


def exp2(x: Expr) -> Expr:
    """As exp; the reduction is exact. 2**f = 1 + f P(f), degree 7 or 14 on |f| <= 1."""
    return exp2_in_range(clamp(x, *format_of(x).exp2_range))


def expm1(x: Expr) -> Expr:
    """2**n (e**r - 1) + (2**n - 1) with |r| <= ln2/2, computed at half size against overflow."""
    F = format_of(x)
    c = clamp(x, -F.mantissa * 0.8, F.exp_range[1])
    offset = F.magic + F.bias - 1
    t = fma(c, F(F.log2e[0]), F(offset))
    n = t - offset
    r = fma(n, F(-F.ln2[1]), fma(n, F(-F.ln2[0]), c))
    s = scale_bits(t)
    return select(absolute(x) < F.tiny**2, x, fma(exp_reduced(r), s, s - 0.5) * 2.0)


def sigmoid(x: Expr) -> Expr:
    """exp(-|x|) over 1 + exp(-|x|), or 1 over it: relative accuracy on both sides."""
    F = format_of(x)
    e = exp_in_range(at_least(negative_absolute(x), F.exp_range[0]))
    d = e + 1.0
    return quotient(select(x < 0.0, e, 1.0), d, e - (d - 1.0))


def sigmoid_by_scaling(x: Expr) -> Expr:
    """exp(x) over 1 + exp(x), from where on it is 1 within rounding with that x: where exp(x) is
    near enough, neither a choice of the numerator nor a correction is needed."""
    F = format_of(x)
    e = exp_scaled(clamp(x, F.exp_range[0], math.log(2) * (F.mantissa + 2)))
    return e / (e + 1.0)


def tanh(x: Expr) -> Expr:
    """-e / (2 + e) with e = expm1(-2 |x|), whose denominator lies in [1, 2].

    One term of ln2 is enough: the error n * (ln2 - float(ln2)) is scaled by 2**n.
    """
    F = format_of(x)
    y = at_least(negative_absolute(x + x), -2 * F.tanh_end)
    t = fma(y, F(F.log2e[0]), F(F.magic + F.bias))
    r = fma(t - (F.magic + F.bias), F(-sum(F.ln2)), y)
    s = scale_bits(t)
    e = fma(exp_reduced(r), s, s - 1.0)
    return with_sign_of(absolute(e / (e + 2.0)), x)


def log(x: Expr) -> Expr:
    """x = 2**k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); f32: degree 10 in f, f64: atanh series."""
    split = split_exponent(x, denormals=True)
    return log_special(x, log_of(split, split.m - 1.0))


def log2(x: Expr) -> Expr:
    """As log; the product with log2(e) carries the constant's second word."""
    F = format_of(x)
    split = split_exponent(x, denormals=True)
    f = split.m - 1.0
    high, low = F.log2e
    small = fma(log1p_tail(f), F(high), f * low)
    return log_special(x, split.k + fma(f, F(high), small))


def log1p(x: Expr) -> Expr:
    """log of u = 1 + x, where 2**-k scales x itself so that the rounding of u does not count."""
    F = format_of(x)
    u = x + 1.0
    split = split_exponent(u, denormals=False)
    scale = bitcast(F.pattern(1.0) - split.shifted_k, F.dtype)
    f = select(x > 2.0 ** (F.mantissa + 2), split.m - 1.0, fma(scale, x, scale - 1.0))
    return select(absolute(x) < F.tiny**2, x, log_special(u, log_of(split, f)))


def sinh(x: Expr) -> Expr:
    """sinh(r) cosh(n ln2) + (1 + c) sinh(n ln2), where c = cosh(r) - 1 is small."""
    F, a = format_of(x), absolute(x)
    s, c, up, down = _hyperbolic(a)
    even, odd = up + down, up - down
    value = (odd + fma(s, even, c * odd)) * 2.0
    return with_sign_of(select(a < F.tiny, a, value), x)


def cosh(x: Expr) -> Expr:
    s, c, up, down = _hyperbolic(absolute(x))
    even, odd = up + down, up - down
    return (even + fma(s, odd, c * even)) * 2.0


def _hyperbolic(a: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """sinh(r), cosh(r) - 1, 2**(n - 2), 2**(-n - 2) for a = n ln2 + r >= 0."""
    F = format_of(a)
    a = at_most(a, (F.bias + 2.2) * math.log(2))  # n <= bias + 2; beyond lies infinity
    offset = F.magic + F.bias - 2
    t = fma(a, F(F.log2e[0]), F(offset))
    n = t - offset
    r = fma(n, F(-F.ln2[1]), fma(n, F(-F.ln2[0]), a))
    r2 = r * r
    s = fma(horner(F.tables["sinh"], r2), r2 * r, r)
    c = horner((0.5, *F.tables["cosh"]), r2) * r2
    up = scale_bits(t)
    reflected = const((2 * (F.bias - 2)) << F.mantissa, F.bits) - bits_of(up)
    down = select(n > float(F.mantissa + 8), 0.0, bitcast(reflected, F.dtype))
    return s, c, up, down


def asinh(x: Expr) -> Expr:
    """log1p(a + a**2 / (1 + sqrt(1 + a**2))), or log(a) + ln2 for large a = |x|."""
    a = absolute(x)
    square = a * a
    u = a + square / (unary("sqrt", square + 1.0) + 1.0)
    return with_sign_of(_log1p_or_log_of_double(u, a), x)


def acosh(x: Expr) -> Expr:
    """log1p(t + sqrt(t (t + 2))) with t = x - 1, or log(x) + ln2 for large x."""
    t = x - 1.0
    u = t + unary("sqrt", t * (t + 2.0))
    return select(x < 1.0, format_of(x)(NAN), _log1p_or_log_of_double(u, x))


def _log1p_or_log_of_double(u: Expr, x: Expr) -> Expr:
    F = format_of(x)
    large = x > 2.0 ** (F.mantissa + 4)
    return log1p(select(large, x, u)) + select(large, F(math.log(2)), 0.0)


def atanh(x: Expr) -> Expr:
    """log1p(2 a / (1 - a)) / 2."""
    a = absolute(x)
    return with_sign_of(log1p((a + a) / (1.0 - a)) * 0.5, x)
