"""Fit the coefficients of tensorwright/codegen/math_tables.py and write that file.

    python scripts/fit_math.py            # print the fits and their errors in ulps
    python scripts/fit_math.py --write    # and rewrite the table

Each row names a function g(v), the weight that makes the error relative to the final result, the
interval, and the degree for f32 and f64 (None: not used in that precision).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from minimax import Function, polynomial
from mpmath import mp, mpf

TARGET = Path(__file__).parent.parent / "tensorwright/codegen/math_tables.py"
HALF_LN2 = mp.log(2) / 2 * mpf("1.0005")
SQRT_HALF, SQRT2 = mp.sqrt(mpf("0.5")), mp.sqrt(2)
ROOTS = [float(np.float32(2 ** (j / 16))) for j in range(16)]  # `exp_root` reaches between them
EIGHTH_TURN = mp.pi / 4 * mpf("1.016")


@dataclass(frozen=True)
class Fit:
    """One table: P ~ g on [low, high], of the least |weight * (g - P)|; exact at `through`."""

    name: str
    g: Function
    weight: Function
    low: mpf
    high: mpf
    f32: int | None
    f64: int | None
    through: mpf | None = None


def tail(f: Function, first, power: int, odd: bool = False) -> Function:
    """v -> (f(x) - first(x)) / x**power, with x = sqrt(v) for even/odd functions."""

    def g(v):
        x = mp.sqrt(abs(v)) if odd else mpf(v)
        if abs(x) < mpf("1e-9"):  # the quotient is smooth: step off the removable singularity
            x = mpf("1e-9")
        with mp.extraprec(60 + 40 * power):
            return (f(x) - first(x)) / x**power

    return g


def relative(f: Function, power: int, odd: bool = False) -> Function:
    """v -> x**power / f(x): the weight that makes errors relative to f."""

    def w(v):
        x = mp.sqrt(abs(v)) if odd else mpf(v)
        x = mpf("1e-9") if abs(x) < mpf("1e-9") else x
        return x**power / f(x)

    return w


def erf_over_x(x):
    return mp.erf(x) / x if abs(x) > mpf("1e-15") else 2 / mp.sqrt(mp.pi)


def erfcx_of_t(t):
    """(1 + 2 a) exp(a**2) erfc(a) with a = 3 (1 + t) / (1 - t)."""
    a = ERFC_SCALE * (1 + t) / (1 - t)
    with mp.extraprec(60):
        return (1 + 2 * a) * mp.erfc(a) * mp.exp(a * a)


def atanh_second(u):
    """(2 atanh(s) / s - 2 - 2/3 s**2) / s**4 with u = s**2."""
    s = mp.sqrt(max(u, mpf("1e-12")))
    with mp.extraprec(200):
        return (2 * mp.atanh(s) / s - 2 - s * s * 2 / 3) / s**4


def lgamma_shape(v):
    """lgamma(y) / ((y - 1) (y - 2)), y = v + 3/2."""
    y = v + mpf("1.5")
    if min(abs(y - 1), abs(y - 2)) < mpf("1e-25"):
        y += mpf("1e-25")
    with mp.extraprec(200):
        return mp.loggamma(y) / ((y - 1) * (y - 2))


def two_to(x):
    return mpf(2) ** x


def erf_over_root(u):
    return erf_over_x(mp.sqrt(abs(u)))


# exact in f32, and chosen among their neighbours for the smallest error after rounding
ERF_CENTER, ERF_END = mpf(float(np.float32(2.22))), mpf(float(np.float32(3.85)))
ERF_LAST = mpf(float(np.float32(3.84)))  # of the pieces: none of their results exceeds 1
ERF_PIECES, ERF_DEGREE = 16, 5  # around multiples of a quarter
NEAR_CENTER, NEAR_END = mpf("1.75"), mpf("3.25")
ERFC_SCALE, ERFC_LAST = mpf(3), mpf("27.3")
ODD = (lambda x: x, 3, True)

FITS = (
    Fit("exp_wide", tail(mp.exp, lambda x: 1 + x, 2), relative(mp.exp, 2),
        -2 * HALF_LN2, 2 * HALF_LN2, 5, 12),
    Fit("exp", tail(mp.exp, lambda x: 1 + x, 2), relative(mp.expm1, 2),
        -HALF_LN2, HALF_LN2, 5, 10),
    Fit("exp_root", tail(mp.exp, lambda x: 1 + x, 2), relative(mp.exp, 2),
        -HALF_LN2 / len(ROOTS), HALF_LN2 / len(ROOTS), 1, None),
    Fit("exp2_wide", tail(two_to, lambda x: 1, 1), relative(two_to, 1), mpf(-1), mpf(1), 7, 13),
    Fit("log", tail(mp.log1p, lambda x: x - x * x / 2, 3), relative(mp.log1p, 3),
        SQRT_HALF - 1, SQRT2 - 1, 7, None),
    Fit("atanh", tail(lambda x: 2 * mp.atanh(x), lambda x: 2 * x, 3, True),
        relative(mp.atanh, 3, True), mpf(0), mpf("0.02945"), None, 6),
    Fit("sin", tail(mp.sin, *ODD), relative(mp.sin, 3, True), mpf(0), EIGHTH_TURN**2, 2, 5),
    Fit("cos", tail(mp.cos, lambda x: 1 - x * x / 2, 4, True), relative(mp.cos, 4, True),
        mpf(0), EIGHTH_TURN**2, 2, 5),
    Fit("erf", lambda v: erf_over_x(v + ERF_CENTER), lambda v: 1 / erf_over_x(v + ERF_CENTER),
        -ERF_CENTER, ERF_END - ERF_CENTER, 16, None),
    Fit("erf_near", lambda v: erf_over_x(v + NEAR_CENTER), lambda v: v + NEAR_CENTER,
        -NEAR_CENTER, NEAR_END - NEAR_CENTER, 8, None, through=NEAR_END - NEAR_CENTER),
    Fit("erf_small", erf_over_root, lambda u: 1 / erf_over_root(u),
        mpf(0), mpf("0.5625"), None, 10),
    Fit("erfc", erfcx_of_t, lambda t: 1 / erfcx_of_t(t), mpf(-1),
        (ERFC_LAST - ERFC_SCALE) / (ERFC_LAST + ERFC_SCALE), None, 23),
    Fit("erfc_single", erfcx_of_t, lambda t: 1 / erfcx_of_t(t), mpf(-1),
        (11 - ERFC_SCALE) / (11 + ERFC_SCALE), None, 10),
    Fit("exp_wide_single", tail(mp.exp, lambda x: 1 + x, 2), relative(mp.exp, 2),
        -2 * HALF_LN2, 2 * HALF_LN2, None, 6),
    Fit("asin", tail(mp.asin, *ODD), relative(mp.asin, 3, True), mpf(0), mpf("0.25"), 4, 12),
    Fit("atan", tail(mp.atan, *ODD), relative(mp.atan, 3, True), mpf(0), mpf("0.1716"), 4, 10),
    Fit("sinh", tail(mp.sinh, *ODD), relative(mp.sinh, 3, True), mpf(0), HALF_LN2**2, 2, 4),
    Fit("cosh", tail(mp.cosh, lambda x: 1 + x * x / 2, 4, True), relative(mp.cosh, 4, True),
        mpf(0), HALF_LN2**2, 1, 4),
    Fit("atanh_second", atanh_second, lambda u: u * u, mpf(0), mpf("0.02945"), None, 6),
    Fit("lgamma", lgamma_shape, lambda v: 1 / lgamma_shape(v), mpf("-0.5"), mpf("0.5"), None, 21),
)  # fmt: skip


def fit(row: Fit, degree: int, bits: int) -> tuple[tuple[float, ...], float]:
    """Coefficients rounded to the type, and the error of the exact ones in ulps (2**-bits)."""
    if row.through is None:
        p, error = polynomial(row.g, row.weight, row.low, row.high, degree)
    else:
        p, error = polynomial_through(row, row.through, degree)
    kind = np.float32 if bits == 24 else np.float64
    return tuple(float(kind(mp.nstr(c, 40))) for c in p), float(error * mpf(2) ** bits)


def polynomial_through(row: Fit, t: mpf, degree: int) -> tuple[list[mpf], mpf]:
    """The best of those with P(t) = g(t): P = g(t) + (v - t) Q."""
    at = row.g(t)

    def step(v):  # off the removable singularity
        return v - t if abs(v - t) > mpf("1e-9") else mpf("-1e-9")

    slope, weight = lambda v: (row.g(t + step(v)) - at) / step(v), lambda v: row.weight(v) * step(v)
    q, error = polynomial(slope, weight, row.low, row.high, degree - 1)
    return [a - t * b for a, b in zip([at, *q], [*q, mpf(0)])], error


def erf_pieces() -> tuple[list[tuple[float, ...]], float]:
    """For each power of v the coefficients of all pieces of erf_over_x(n / 4 + v), and their
    largest error in ulps."""
    pieces, largest = [], 0.0
    for n in range(ERF_PIECES):
        at = mpf(n) / 4
        piece = Fit("erf", lambda v, at=at: erf_over_x(at + v),
                    lambda v, at=at: 1 / erf_over_x(at + v),
                    max(at - mpf("0.125"), mpf(0)) - at, min(at + mpf("0.125"), ERF_LAST) - at,
                    ERF_DEGREE, None)  # fmt: skip
        coefficients, error = fit(piece, ERF_DEGREE, 24)
        pieces.append(coefficients)
        largest = max(largest, error)
    return list(zip(*pieces)), largest


def lookups() -> dict[str, tuple[float, ...]]:
    """Tables of 16 numbers that instructions choose from."""
    tables, error = erf_pieces()
    print(f"F32 {'erf pieces':<12} degree {ERF_DEGREE:2}  error {error:.4f} ulp")
    return {"root": tuple(ROOTS), **{f"erf{k}": table for k, table in enumerate(tables)}}


def two_over_pi_f32() -> list[tuple[float, ...]]:
    """Rows (limit, c1, c2, c3) of 2/pi for 24-bit x below limit in magnitude, above the row before.

    Bits whose product with any such x is a multiple of 4 are left out. c1, c2 have 29 bits, so
    that x c1 and x c2 are exact in f64; c3 has 53, and x c3 < 2**-7.
    """
    rows = []
    for low, limit in ((0, 50), (50, 76), (76, 102), (102, None)):
        top = 0 if low == 0 else low - 25  # the first bit kept has weight 2**-(top + 1)
        with mp.workprec(400):
            rest = mp.frac(2 / mp.pi * mpf(2) ** top)
        parts = []
        for bits in (29, 29):
            with mp.workprec(400):
                head = mp.floor(rest * mpf(2) ** bits)
                parts.append(float(head * mpf(2) ** (-bits - top)))
                rest, top = rest * mpf(2) ** bits - head, top + bits
        rows.append((2.0**limit if limit else float("inf"), *parts,
                     float(rest * mpf(2) ** -top)))  # fmt: skip
    return rows


def two_over_pi_f64() -> list[tuple[float, ...]]:
    """Rows (limit, c1 .. c5) for 53-bit x, as above, of 53 bits each.

    From the second row on the constants are multiplied by 2**300, and x by 2**-300.
    """
    rows = []
    for i in range(11):
        low, limit = (0, 150) if i == 0 else (54 + 96 * i, 150 + 96 * i)
        top, scale = (0, 0) if i == 0 else (low - 54, 300)
        with mp.workprec(2000):
            rest = mp.frac(2 / mp.pi * mpf(2) ** top) * mpf(2) ** -top
            parts = []
            for _ in range(5):
                parts.append(float(rest * mpf(2) ** scale))
                rest -= mpf(parts[-1]) * mpf(2) ** -scale
        rows.append((2.0**limit if limit < 1024 else float("inf"), *parts))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="rewrite the table")
    write = parser.parse_args().write
    tables: dict[str, dict] = {"F32": {}, "F64": {}}
    for row in FITS:
        for table, degree, bits in (("F32", row.f32, 24), ("F64", row.f64, 53)):
            if degree is not None:
                tables[table][row.name], error = fit(row, degree, bits)
                print(f"{table} {row.name:<12} degree {degree:2}  error {error:.4f} ulp")
    looked_up = lookups()
    if write:
        TARGET.write_text(render(tables, looked_up))


def render(tables: dict[str, dict], looked_up: dict[str, tuple[float, ...]]) -> str:
    """The module text: one tuple per fit, lowest degree first."""
    lines = ['"""Minimax coefficients, lowest degree first; written by scripts/fit_math.py.', "",
             "`LOOKUPS` are numbers that instructions choose from: 2**(j / 16), and of erf's 16",
             "polynomials the coefficients of each degree.", "",
             "What each approximates is said in the row of that name there, and at its use in",
             "math_core.py.", '"""', ""]  # fmt: skip
    lines += [f"ERF_CENTER = {float(ERF_CENTER)!r}", f"ERF_END = {float(ERF_END)!r}",
              f"ERF_LAST = {float(ERF_LAST)!r}",
              f"NEAR_CENTER = {float(NEAR_CENTER)!r}", f"NEAR_END = {float(NEAR_END)!r}",
              f"ERFC_SCALE = {float(ERFC_SCALE)!r}", ""]  # fmt: skip
    for name, rows in (("F32", two_over_pi_f32()), ("F64", two_over_pi_f64())):
        lines += [f"TWO_OVER_PI_{name} = ("]
        lines += [f"    ({', '.join(map(repr, row))}),".replace("inf", 'float("inf")')
                  for row in rows]  # fmt: skip
        lines += [")", ""]
    for table, rows in {"LOOKUPS": looked_up, **tables}.items():
        lines.append(f"{table}: dict[str, tuple[float, ...]] = {{")
        for name, values in rows.items():
            lines.append(f'    "{name}": (')
            lines += [f"        {v!r}," for v in values]
            lines.append("    ),")
        lines += ["}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
