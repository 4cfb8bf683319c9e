"""Reduction of angles modulo pi/2, over the whole range of f32 and f64, on one path.

    x  ->  k, r   with   x = (4 n + k) pi/2 + r,   |r| <= pi/4 (1.01)

2/pi is held as a few words for each range of exponents, those bits left out whose product with x
is a multiple of 4 (after Payne and Hanek, 1983); selects pick the row. x * 2/pi modulo 4 is then
a sum of exact products.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tensorwright.codegen.math_core import DOUBLE, absolute, bits_of, product_error
from tensorwright.codegen.math_tables import TWO_OVER_PI_F32, TWO_OVER_PI_F64
from tensorwright.ir.dtype import f32, f64, i32
from tensorwright.ir.expr import Expr, cast, const, fma, select, unary


@dataclass(frozen=True)
class Turn:
    """The rest r + r_low of an angle, and k, of which only the two low bits count."""

    k: Expr
    r: Expr
    r_low: Expr | None = None


def reduce_turn(x: Expr, two_words: bool) -> Turn:
    """The reduction of x; `two_words` asks for r_low (f64 arguments always get it)."""
    return _reduce_f32(x, two_words) if x.dtype is f32 else _reduce_f64(x)


def _reduce_f32(x: Expr, two_words: bool) -> Turn:
    """In f64: x (c1 + c2 + c3), the first two products exact, the first modulo 4.

    Good to 2**-53 of a turn, where the closest an f32 comes to a multiple of pi/2 is 2**-29.
    """
    c1, c2, c3 = _row(absolute(x), TWO_OVER_PI_F32)
    y = cast(x, f64)
    p = _modulo_4(y * c1)
    t = fma(y, c2, p) + DOUBLE.magic
    k = t - DOUBLE.magic
    f = fma(y, c3, fma(y, c2, p - k))
    exact = f * DOUBLE.half_pi[0]
    r = cast(exact, f32)
    return Turn(cast(bits_of(t), i32), r, cast(exact - cast(r, f64), f32) if two_words else None)


def _reduce_f64(x: Expr) -> Turn:
    """Five words, products split by fma, then a sum in three-fold precision.

    Good to 2**-115 of a turn, where the closest an f64 comes to a multiple of pi/2 is 2**-62.
    """
    a = absolute(x)
    words = _row(a, TWO_OVER_PI_F64)
    y = select(a < TWO_OVER_PI_F64[0][0], x, x * 2.0**-300)
    products = [y * c for c in words]
    parts = [products[0]]
    for after, c in zip(products[1:], words):
        parts += [product_error(y, c), after]
    parts = [_modulo_4(p) for p in parts[:5]] + parts[5:]
    t = (parts[0] + parts[1]) + (parts[2] + parts[3]) + (parts[4] + parts[5]) + DOUBLE.magic
    k = t - DOUBLE.magic
    high, low = _sum([parts[0] - k, *parts[1:]])
    pi_high, pi_low = (DOUBLE(c) for c in DOUBLE.half_pi)
    r = high * pi_high
    r_low = product_error(high, pi_high) + fma(high, pi_low, low * pi_high)
    return Turn(bits_of(t), r, r_low)


def _row(size: Expr, table: Sequence[tuple[float, ...]]) -> list[Expr]:
    """The constants of the first row whose limit exceeds `size`."""
    *rows, (_, *last) = table
    chosen = [const(c, f64) for c in last]
    for limit, *words in reversed(rows):
        here = size < limit
        chosen = [select(here, const(w, f64), c) for w, c in zip(words, chosen)]
    return chosen


def _modulo_4(p: Expr) -> Expr:
    """p less the nearest multiple of 4: exact."""
    return fma(unary("round", p * 0.25), DOUBLE(-4), p)


def _sum(terms: list[Expr]) -> tuple[Expr, Expr]:
    """The sum as high + low, as if in three-fold precision (Ogita, Rump, Oishi 2005: SumK)."""
    for _ in range(2):
        terms = _distill(terms)
    rest = terms[0]
    for term in terms[1:-1]:
        rest = rest + term
    return two_sum(terms[-1], rest)


def _distill(terms: list[Expr]) -> list[Expr]:
    """The rounding errors of summing from left to right, then the rounded sum itself."""
    total, errors = terms[0], []
    for term in terms[1:]:
        total, error = two_sum(total, term)
        errors.append(error)
    return [*errors, total]


def two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b rounded, and its error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)
