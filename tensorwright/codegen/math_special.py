"""The error function, its complement, lgamma and digamma.

erf(x)   ->   x P(|x| - 2.22)            (f32; where numbers are looked up, x P[n](|x| - n/4))
erfc(x)  ->   exp(-x**2) P((x - 3) / (x + 3)) / (1 + 2 x), x >= 0
"""

import math

from tensorwright.codegen.math_core import (
    INF,
    NAN,
    absolute,
    at_most,
    bits_of,
    exp_in_range,
    format_of,
    horner,
    product_error,
    with_sign_of,
)
from tensorwright.codegen.math_exp import log
from tensorwright.codegen.math_tables import (
    ERF_CENTER,
    ERF_END,
    ERF_LAST,
    ERFC_SCALE,
    NEAR_CENTER,
    NEAR_END,
)  # fmt: skip
from tensorwright.codegen.math_trig import sin_cos_pi
from tensorwright.ir.dtype import f32, f64
from tensorwright.ir.expr import Expr, call, cast, eq, fma, select

ERF_DEGREE = 5  # where coefficients are looked up
ERFC_END = 27.3  # from where on erfc is 0 in f64
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
# B(2k) / (2k (2k - 1)) and B(2k) / (2k) for k = 1, 2, ... with Bernoulli's numbers B
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400,
            43867 / 244188, -174611 / 125400)  # fmt: skip
PSI_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160,
              43867 / 14364, -174611 / 6600)  # fmt: skip


def erf(x: Expr) -> Expr:
    """f32: x P(|x| - c), degree 16 on |x| <= 3.85, where erf reaches 1; no division, one path.

    c lies right of the middle: that balances the rounding errors of both ends. f64: x P(x**2) up
    to 3/4 and 1 - erfc(x) beyond.
    """
    F, a = format_of(x), absolute(x)
    if F.dtype is f32:
        a = at_most(a, ERF_END)
        return with_sign_of(a * horner(F.tables["erf"], a - ERF_CENTER), x)
    small = a * horner(F.tables["erf_small"], a * a)
    return with_sign_of(select(a > 0.75, 1.0 - _erfc_positive(a), small), x)


def erf_by_lookup(x: Expr) -> Expr:
    """f32: x P(|x| - n/4) with n/4 next to |x|, degree 5; one of 16 polynomials for each n."""
    F, a = format_of(x), at_most(absolute(x), ERF_LAST)
    t = a + F.magic / 4
    p = [call(f"erf{k}", F.dtype, (bits_of(t),)) for k in range(ERF_DEGREE + 1)]
    return with_sign_of(a * horner(p, a - (t - F.magic / 4)), x)


def erf_near(x: Expr) -> Expr:
    """f32 to 3e-5 of 1: the same form, degree 8 on |x| <= 3.25; at its end within 5e-6 of 1, so
    that 1 + erf(x) is as small as that for all x below."""
    F, a = format_of(x), at_most(absolute(x), NEAR_END)
    return with_sign_of(a * horner(F.tables["erf_near"], a - NEAR_CENTER), x)


def erfc(x: Expr) -> Expr:
    """The form of Shepherd and Laframboise (1981), degree 10 or 23 in (a - 3) / (a + 3).

    f32: in f64, with coefficients for f32, since six roundings do not fit in 4 ulp. f64: below
    1/2 it is 1 - erf(x).
    """
    F = format_of(x)
    if F.dtype is f32:
        y = cast(x, f64)
        value = _erfc_positive(absolute(y), "_single")
        return cast(select(y < 0.0, 2.0 - value, value), f32)
    a, value = absolute(x), _erfc_positive(absolute(x))
    near = fma(-x, horner(F.tables["erf_small"], x * x), F(1))
    return select(a < 0.5, near, select(x < 0.0, 2.0 - value, value))


def _erfc_positive(a: Expr, tables: str = "") -> Expr:
    """exp(-a**2) with the rounding error of a**2 made good, times P / (1 + 2 a)."""
    F = format_of(a)
    a = at_most(a, ERFC_END)
    square = a * a
    error = product_error(a, a)
    p = horner(F.tables["erfc" + tables], (a - ERFC_SCALE) / (a + ERFC_SCALE)) / fma(a, F(2), F(1))
    return exp_in_range(-square, "exp_wide" + tables) * fma(p, -error, p)


def lgamma(x: Expr) -> Expr:
    """log |gamma(x)|; f32 in f64.

    x in [1, 2]: (x - 1) (x - 2) P(x - 3/2), degree 21. Below 1 and up to 8 the recurrence leads
    there, above is Stirling's series. x < 0: reflection, -log(sin(pi |x|) / pi) - lgamma(1 + |x|),
    whose error is absolute near the zeros.
    """
    if x.dtype is f32:
        return cast(lgamma(cast(x, f64)), f32)
    F = format_of(x)
    z = select(x < 0.0, 1.0 - x, x)
    # y - 1 and y - 2 of the argument y in [1, 2] that the recurrence leads to
    above, product = select(z < 1.0, z, z - 1.0), F(1)
    for _ in range(6):
        step = above >= 1.0
        product = select(step, product * above, product)
        above = select(step, above - 1.0, above)
    shape = above * (above - 1.0) * horner(F.tables["lgamma"], above - 0.5)
    large = z >= 8.0
    logarithm = log(select(large, z, select(z < 1.0, z, product)))
    inverse = 1.0 / z
    series = horner(STIRLING, inverse * inverse) * inverse
    stirling = fma(z - 0.5, logarithm - 1.0, series + (HALF_LOG_TWO_PI - 0.5))
    value = select(large, stirling, shape + select(z < 1.0, -logarithm, logarithm))
    sine, _ = sin_cos_pi(x)
    reflected = -log(absolute(sine) * (1 / math.pi)) - value
    pole = eq(absolute(x), INF) | ((x < 0.0) & eq(sine, 0.0))
    return select(pole, INF, select(x < 0.0, reflected, value))


def digamma(x: Expr) -> Expr:
    """log(y) - 1/(2y) - series(1/y**2) at y = x + n >= 8, less the sum of 1/(x + i); f32 in f64.

    The sum is kept as one fraction. x < 0: reflection, digamma(1 - x) - pi / tan(pi x). Near the
    zeros the error is absolute.
    """
    if x.dtype is f32:
        return cast(digamma(cast(x, f64)), f32)
    F = format_of(x)
    y, top, bottom = select(x < 0.0, 1.0 - x, x), F(0), F(1)
    for _ in range(8):
        step = y < 8.0
        top = select(step, fma(top, y, bottom), top)
        bottom = select(step, bottom * y, bottom)
        y = select(step, y + 1.0, y)
    inverse = 1.0 / y
    square = inverse * inverse
    tail = fma(horner(PSI_SERIES, square), square, inverse * 0.5)
    value = log(y) - tail - top / bottom
    s, c = sin_cos_pi(x)
    s = select(eq(s, 0.0), NAN, s)  # the poles
    return select(x < 0.0, value - c * math.pi / s, value)
