"""pow, and the remainders of a float division, exact for every quotient.

pow(x, y)   ->   sign * exp2(y * log2(|x|)), the logarithm in two words (f64) or in f64 (f32)
rem(x, y)   ->   (mx * (2**(ex - ey) mod my) mod my) * 2**ey on integer significands in f64
"""

from tensorwright.codegen.math_core import (
    DOUBLE,
    INF,
    NAN,
    absolute,
    bits_of,
    clamp,
    exp2_in_range,
    format_of,
    horner,
    log1p_tail,
    product_error,
    shl,
    shr,
    split_exponent,
    with_sign_of,
)
from tensorwright.codegen.math_reduce import two_sum
from tensorwright.ir.dtype import f32, f64, i64
from tensorwright.ir.expr import (
    Expr,
    all_of,
    any_of,
    bitcast,
    cast,
    const,
    eq,
    fma,
    ne,
    select,
    unary,
)

LOG2E = DOUBLE.log2e
TWO_THIRDS = (2 / 3, 3.700743415417188e-17)


def power(x: Expr, y: Expr) -> Expr:
    """C99 pow: odd integer powers keep the sign of x, pow(x, 0) = pow(1, y) = 1 even for NaN."""
    if x.dtype is f32:
        return cast(_power_f64(cast(x, f64), cast(y, f64), _log2_rounded), f32)
    return _power_f64(x, y, _log2_two_words)


def _power_f64(x: Expr, y: Expr, log2) -> Expr:
    F, a = DOUBLE, absolute(x)
    high, low = log2(a)
    p = y * high
    inside = absolute(p) < F.exp2_range[1] + 100
    rest = select(inside, product_error(y, high) + y * low, 0.0)
    size = exp2_in_range(clamp(p, *F.exp2_range), rest)
    size = select(eq(a, 1.0), select(eq(y, y), 1.0, y), size)
    whole = eq(unary("trunc", y), y)
    odd = all_of((whole, ne(unary("trunc", y * 0.5) * 2.0, y)))
    signed = select(odd, with_sign_of(size, x), size)
    undefined = all_of((x < 0.0, x > -INF, ne(unary("trunc", y), y)))
    result = select(undefined, F(NAN), signed)
    return select(any_of((eq(x, 1.0), eq(y, 0.0))), 1.0, result)


def _log2_special(a: Expr, high: Expr) -> Expr:
    """-inf at 0; infinity and NaN as they are."""
    return select(a < INF, select(a > 0.0, high, -INF), a)


def _log2_rounded(a: Expr) -> tuple[Expr, Expr]:
    """log2(a) to 1 ulp."""
    split = split_exponent(a, denormals=False)
    f = split.m - 1.0
    small = fma(log1p_tail(f), DOUBLE(LOG2E[0]), f * LOG2E[1])
    return _log2_special(a, split.k + fma(f, DOUBLE(LOG2E[0]), small)), DOUBLE(0)


def _log2_two_words(a: Expr) -> tuple[Expr, Expr]:
    """log2(a) to about 2**-65: 2 s + s u (2/3 + u P(u)), s = f / (2 + f), u = s**2, in two words.

    The part under P is 2**-12 of the whole and needs one word only.
    """
    split = split_exponent(a, denormals=True)
    f = split.m - 1.0
    d = f + 2.0
    s = f / d
    s_low = fma(-s, f - (d - 2.0), (f - s * d) - product_error(s, d)) / d
    u = _product(s, s_low, s, s_low)
    c = _fast_sum(DOUBLE(TWO_THIRDS[0]), u[0] * horner(DOUBLE.tables["atanh_second"], u[0]))
    c = (c[0], c[1] + TWO_THIRDS[1])
    tail = _product(s, s_low, *_product(*u, *c))
    high, low = _fast_sum(s + s, tail[0])
    high, low = _fast_sum(high, low + (tail[1] + (s_low + s_low)))
    high, low = _product(high, low, DOUBLE(LOG2E[0]), DOUBLE(LOG2E[1]))
    total, error = two_sum(split.k, high)
    high, low = _fast_sum(total, error + low)
    return _log2_special(a, high), select(a < INF, select(a > 0.0, low, 0.0), 0.0)


def _product(a: Expr, a_low: Expr, b: Expr, b_low: Expr) -> tuple[Expr, Expr]:
    """The product of two numbers of two words each."""
    high = a * b
    low = product_error(a, b) + fma(a, b_low, a_low * b)
    return _fast_sum(high, low)


def _fast_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b rounded, and its error, for |a| >= |b| (Dekker)."""
    s = a + b
    return s, b - (s - a)


def remainder(x: Expr, y: Expr) -> Expr:
    """C's fmod: x - trunc(x / y) y, exact."""
    F = format_of(x)
    a, b = absolute(cast(x, f64)), absolute(cast(y, f64))
    denormals, steps = F.dtype is f64, (6 if F.dtype is f64 else 3)
    ma, ea = _significand(a, denormals)
    mb, eb = _significand(b, denormals)
    modulus = Modulus(mb)
    distance = ea - eb
    r = modulus.product(modulus.center(ma), modulus.power_of_two(distance, steps))
    r = select(r < 0.0, r + mb, r)
    value = select(a < b, a, _scale(r, eb))
    undefined = any_of((eq(b, 0.0), eq(a, INF), ne(a, a), ne(b, b)))
    return with_sign_of(cast(select(undefined, DOUBLE(NAN), value), F.dtype), x)


def modulo(x: Expr, y: Expr) -> Expr:
    """Python's %: the remainder with the sign of y."""
    r = remainder(x, y)
    differs = ne(r < 0.0, y < 0.0)
    return select(eq(r, 0.0), with_sign_of(absolute(r), y), select(differs, r + y, r))


def _significand(a: Expr, denormals: bool) -> tuple[Expr, Expr]:
    """a = m * 2**(e - 1075) with m an integer in [2**52, 2**53), for finite a > 0."""
    if denormals:
        small = a < DOUBLE.smallest_normal
        a = select(small, a * 2.0**54, a)
    bits = bits_of(a)
    m = bitcast((bits & ((1 << 52) - 1)) | (1075 << 52), f64)
    e = shr(bits, 52)
    return m, select(small, e - 54, e) if denormals else e


def _scale(r: Expr, e: Expr) -> Expr:
    """r * 2**(e - 1075): exact, in two steps because the factor may be denormal."""
    half = shr(e - 1075, 1)
    factors = (half, e - 1075 - half)
    for exponent in factors:
        r = r * bitcast(shl(exponent + 1023, 52), f64)
    return r


class Modulus:
    """Arithmetic modulo an integer m < 2**53 held in f64, on representatives in [-m/2, m/2]."""

    def __init__(self, m: Expr):
        self.m, self.half = m, m * 0.5

    def center(self, r: Expr) -> Expr:
        """The representative of r, |r| <= 3/2 m or 0 <= r < 2 m."""
        r = select(r > self.half, r - self.m, r)
        r = select(r > self.half, r - self.m, r)
        return select(r < -self.half, r + self.m, r)

    def product(self, a: Expr, b: Expr) -> Expr:
        """a b - q m, whose two words are subtracted exactly since it is below m."""
        p = a * b
        q = unary("round", p / self.m)
        low = product_error(a, b) - product_error(q, self.m)
        return self.center((p - q * self.m) + low)

    def power_of_two(self, exponent: Expr, steps: int) -> Expr:
        """2**exponent by squaring; the first factor, 2**(exponent >> steps), is below m / 2."""
        first = select(exponent < 0, const(0, i64), shr(exponent, steps))
        r = bitcast(shl(first + 1023, 52), f64)
        for i in reversed(range(steps)):
            r = self.product(r, r)
            doubled = self.center(r + r)
            r = select(ne(shr(exponent, i) & 1, 0), doubled, r)
        return r
