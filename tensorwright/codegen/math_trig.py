"""sin, cos, tan and their inverses; the reduction of large angles is in math_reduce.py.

asin(x)   ->   select(|x| > 1/2, pi/2 - 2 p, p),  p = w + w**3 P(w**2),
               w = select(|x| > 1/2, sqrt((1 - |x|) / 2), |x|)
"""

import math
from dataclasses import dataclass

from tensorwright.codegen.math_core import (
    INF,
    absolute,
    bits_of,
    flip_sign,
    format_of,
    horner,
    shl,
    with_sign_of,
)
from tensorwright.codegen.math_reduce import Turn, reduce_turn
from tensorwright.ir.dtype import f64
from tensorwright.ir.expr import Expr, const, eq, fma, select, unary

TAN_EIGHTH, TAN_THREE_EIGHTHS = math.sqrt(2) - 1, math.sqrt(2) + 1  # of pi


def _sin_kernel(turn: Turn) -> Expr:
    """sin(r) for |r| <= pi/4: r + r**3 P(r**2), and r_low times the derivative."""
    r = turn.r
    r2 = r * r
    tail = horner(format_of(r).tables["sin"], r2) * (r2 * r)
    if turn.r_low is not None:
        tail = fma(fma(r2, const(-0.5, r.dtype), const(1.0, r.dtype)), turn.r_low, tail)
    return r + tail


def _cos_kernel(turn: Turn) -> Expr:
    """cos(r) for |r| <= pi/4: 1 - r**2/2 + r**4 P(r**2), and r_low times the derivative."""
    F, r2 = format_of(turn.r), turn.r * turn.r
    series = horner((-0.5, *F.tables["cos"]), r2)
    if turn.r_low is None:
        return fma(series, r2, F(1))
    half = r2 * 0.5
    w = 1.0 - half
    rest = ((1.0 - w) - half) + fma(horner(F.tables["cos"], r2), r2 * r2, -turn.r * turn.r_low)
    return w + rest


def _sin_cos(x: Expr, two_words: bool) -> tuple[Expr, Expr, Expr]:
    """sin and cos of the rest, exchanged in odd quarters; and k."""
    turn = reduce_turn(x, two_words)
    s, c = _sin_kernel(turn), _cos_kernel(turn)
    even = eq(turn.k & 1, 0)
    return select(even, s, c), select(even, c, s), turn.k


def sin(x: Expr) -> Expr:
    """The kernel of the quarter turn, its sign from bit 1 of k."""
    F = format_of(x)
    value, _, k = _sin_cos(x, F.dtype is f64)
    return select(absolute(x) < F.tiny, x, flip_sign(value, shl(k, F.bits.bits - 2)))


def cos(x: Expr) -> Expr:
    F = format_of(x)
    _, value, k = _sin_cos(x, F.dtype is f64)
    return flip_sign(value, shl(k + 1, F.bits.bits - 2))


def tan(x: Expr) -> Expr:
    """sin / cos, or -cos / sin in odd quarters."""
    F = format_of(x)
    s, c, k = _sin_cos(x, True)
    return select(absolute(x) < F.tiny, x, flip_sign(s / c, shl(k, F.bits.bits - 1)))


def sin_cos_pi(x: Expr) -> tuple[Expr, Expr]:
    """sin and cos of pi f where f = x - round(x), exact, lies in [-1/2, 1/2]."""
    f = x - unary("round", x)
    g = absolute(f)
    far = g > 0.25
    turn = Turn(bits_of(f), select(far, 0.5 - g, g) * math.pi)
    s, c = _sin_kernel(turn), _cos_kernel(turn)
    return with_sign_of(select(far, c, s), f), select(far, s, c)


def _half_angle(x: Expr) -> tuple[Expr, Expr, Expr]:
    """|x| > 1/2; w = sqrt((1 - |x|) / 2) there, |x| here; p with asin(w) = w + w p."""
    F, a = format_of(x), absolute(x)
    big = a > 0.5
    z = select(big, 0.5 - a * 0.5, a * a)
    w = select(big, unary("sqrt", z), a)
    return big, w, z * horner(F.tables["asin"], z)


def asin(x: Expr) -> Expr:
    """asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2)) above 1/2; degree 11 (f32) or 27 in w."""
    F = format_of(x)
    big, w, p = _half_angle(x)
    high, low = F.half_pi
    large = high - (w + w + fma(w + w, p, F(-low)))
    return with_sign_of(select(big, large, fma(w, p, w)), x)


def acos(x: Expr) -> Expr:
    """As asin; where x > 1/2, the small result is not formed as a difference."""
    F = format_of(x)
    big, w, p = _half_angle(x)
    high, low = F.half_pi
    double = fma(w + w, p, w + w)
    outer = select(x < 0.0, 2 * high - (double - 2 * low), double)
    return select(big, outer, high - (x + fma(x, p, F(-low))))


def atan(x: Expr) -> Expr:
    """The arc whose tangent is |x| / 1."""
    F = format_of(x)
    arc = _arc(absolute(x), F(1))
    return with_sign_of(arc.low + arc.high, x)


def atan2(y: Expr, x: Expr) -> Expr:
    """The arc of |y| / |x|, mirrored where x is negative; equal infinities count as equal sides."""
    F = format_of(x)
    a, b = absolute(y), absolute(x)
    both = eq(a, INF) & eq(b, INF)
    scale = select((a > F.largest / 4) | (b > F.largest / 4), F(0.25), 1.0)  # a + b stays finite
    arc = _arc(select(both, 1.0, a * scale), select(both, 1.0, b * scale))
    left = bits_of(x) < 0
    high, low = (const(2 * c, F.dtype) for c in F.half_pi)
    mirrored = (high - arc.high) + (low - arc.low)
    return with_sign_of(select(left, mirrored, arc.high + arc.low), y)


@dataclass(frozen=True)
class Arc:
    """An angle as a multiple of pi/4 and a rest."""

    high: Expr
    low: Expr


def _arc(a: Expr, b: Expr) -> Arc:
    """atan(a / b) for a, b >= 0: at pi/2 it is the angle of -b : a, at pi/4 of a - b : a + b.

    The rest has a tangent below sqrt(2) - 1: t + t**3 P(t**2), degree 9 (f32) or 23.
    """
    F = format_of(a)
    middle, upper = a > b * TAN_EIGHTH, a > b * TAN_THREE_EIGHTHS
    numerator = select(upper, -b, select(middle, a - b, a))
    denominator = select(upper, a, select(middle, a + b, b))
    origin = eq(a, 0.0) & eq(b, 0.0)
    t = select(origin, 0.0, numerator / denominator)
    high, low = F.half_pi
    base = select(upper, F(high), select(middle, F(high / 2), 0.0))
    rest = select(upper, F(low), select(middle, F(low / 2), 0.0))
    t2 = t * t
    return Arc(base, t + fma(horner(F.tables["atan"], t2), t2 * t, rest))
