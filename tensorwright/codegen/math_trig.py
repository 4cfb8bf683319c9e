"""sin, cos, tan and their inverses.

Arguments of f32 are reduced in f64, over the whole range, without a second path for large ones:
x * 2/pi = k + f with the bits of 2/pi that matter for the exponent of x picked by selects.
"""

from dataclasses import dataclass

from tensorwright.codegen.math_core import (
    DOUBLE,
    absolute,
    bits_of,
    flip_sign,
    format_of,
    horner,
    shl,
)
from tensorwright.codegen.math_tables import TWO_OVER_PI_F32
from tensorwright.ir.dtype import f32, f64, i32
from tensorwright.ir.expr import Expr, cast, const, eq, fma, select, unary


@dataclass(frozen=True)
class Turn:
    """x = (4 n + k) pi/2 + r with |r| <= pi/4; only the two low bits of k count."""

    r: Expr
    k: Expr


def reduce_turn(x: Expr) -> Turn:
    return _reduce_f32(x)


def _reduce_f32(x: Expr) -> Turn:
    """x * (c1 + c2 + c3), the first two products exact, the first modulo 4.

    Good to 2**-53 of a turn, where the closest an f32 comes to a multiple of pi/2 is 2**-29.
    """
    c1, c2, c3 = (_by_size(absolute(x), column) for column in (1, 2, 3))
    y = cast(x, f64)
    p = y * c1
    p = fma(unary("round", p * 0.25), DOUBLE(-4), p)
    t = fma(y, c2, p) + DOUBLE.magic
    k = t - DOUBLE.magic
    f = fma(y, c3, fma(y, c2, p - k))
    return Turn(cast(f * DOUBLE.half_pi[0], f32), cast(bits_of(t), i32))


def _by_size(size: Expr, column: int) -> Expr:
    """The constant of the first row of the table whose limit exceeds `size`."""
    *rows, last = TWO_OVER_PI_F32
    chosen = const(last[column], f64)
    for row in reversed(rows):
        chosen = select(size < row[0], row[column], chosen)
    return chosen


def sin_kernel(r: Expr) -> Expr:
    """sin(r) for |r| <= pi/4: r + r**3 P(r**2)."""
    r2 = r * r
    return fma(horner(format_of(r).tables["sin"], r2), r2 * r, r)


def cos_kernel(r: Expr) -> Expr:
    """cos(r) for |r| <= pi/4: 1 - r**2/2 + r**4 P(r**2)."""
    return horner((1.0, -0.5, *format_of(r).tables["cos"]), r * r)


def sin(x: Expr) -> Expr:
    """The kernel of the octant, its sign from bit 1 of k."""
    F, turn = format_of(x), reduce_turn(x)
    value = select(eq(turn.k & 1, 0), sin_kernel(turn.r), cos_kernel(turn.r))
    value = flip_sign(value, shl(turn.k, F.bits.bits - 2))
    return select(absolute(x) < F.tiny, x, value)


def cos(x: Expr) -> Expr:
    F, turn = format_of(x), reduce_turn(x)
    value = select(eq(turn.k & 1, 0), cos_kernel(turn.r), sin_kernel(turn.r))
    return flip_sign(value, shl(turn.k + 1, F.bits.bits - 2))


def tan(x: Expr) -> Expr:
    """sin / cos, or -cos / sin in odd octants."""
    F, turn = format_of(x), reduce_turn(x)
    s, c = sin_kernel(turn.r), cos_kernel(turn.r)
    even = eq(turn.k & 1, 0)
    value = flip_sign(select(even, s, c) / select(even, c, s), shl(turn.k, F.bits.bits - 1))
    return select(absolute(x) < F.tiny, x, value)
