"""Minimax polynomials and rationals by the Remez exchange, in multiple precision (mpmath).

`polynomial(g, w, a, b, n)` gives the coefficients (lowest first) of the degree-n polynomial P
that minimises max |w(v) (g(v) - P(v))| over [a, b], and that maximum; `rational` the same for a
quotient whose denominator starts with 1. The search runs over a dense Chebyshev grid.
"""

from collections.abc import Callable

from mpmath import lu_solve, matrix, mp, mpf

Function = Callable[[mpf], mpf]
mp.prec = 160


def polynomial(g: Function, w: Function, a, b, n: int) -> tuple[list[mpf], mpf]:
    """Coefficients and weighted error of the best polynomial of degree n."""
    p, _, error = rational(g, w, a, b, n, 0)
    return p, error


def rational(g: Function, w: Function, a, b, m: int, n: int) -> tuple[list, list, mpf]:
    """Numerator (degree m), denominator (degree n, constant term 1) and weighted error."""
    a, b = mpf(a), mpf(b)
    count = 24 * (m + n + 2)
    grid = _chebyshev(a, b, count)
    samples = [(v, g(v), w(v)) for v in grid]
    reference = [round(i * (count - 1) / (m + n + 1)) for i in range(m + n + 2)]
    p, q, error = [], [mpf(1)] + [mpf(0)] * n, mpf(0)
    for _ in range(60):
        p, q = _level(samples, reference, m, q)
        residual = [s[2] * (s[1] - _value(p, s[0]) / _value(q, s[0])) for s in samples]
        error = max(abs(e) for e in residual)
        new = _alternating_extrema(residual, m + n + 2)
        if new is None or new == reference:
            break
        reference = new
    return p, q, error


def _chebyshev(a: mpf, b: mpf, count: int) -> list[mpf]:
    return [(a + b - (b - a) * mp.cos(mp.pi * i / (count - 1))) / 2 for i in range(count)]


def _value(coefficients: list, v: mpf) -> mpf:
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * v + c
    return total


def _level(samples: list, reference: list, m: int, q: list) -> tuple[list, list]:
    """Coefficients whose error has one size and alternating sign on the reference points."""
    n = len(q) - 1
    for _ in range(1 if n == 0 else 12):
        size = len(reference)
        rows, right = matrix(size, size), matrix(size, 1)
        for i, k in enumerate(reference):
            v, g, w = samples[k]
            for j in range(m + 1):
                rows[i, j] = w * v**j
            for j in range(1, n + 1):
                rows[i, m + j] = -w * g * v**j
            rows[i, size - 1] = (-1) ** i * _value(q, v)
            right[i] = w * g
        solution = lu_solve(rows, right)
        new = [mpf(1), *(solution[m + j] for j in range(1, n + 1))]
        moved = max((abs(x - y) for x, y in zip(new, q)), default=0)
        q = new
        if moved < mpf(2) ** -80:
            break
    return [solution[j] for j in range(m + 1)], q


def _alternating_extrema(residual: list, needed: int) -> list[int] | None:
    """Indices of the largest `needed` neighbouring extrema of alternating sign."""
    runs: list[int] = []
    for i, e in enumerate(residual):
        if runs and (residual[runs[-1]] > 0) == (e > 0):
            if abs(e) > abs(residual[runs[-1]]):
                runs[-1] = i
        else:
            runs.append(i)
    while len(runs) > needed:
        if len(runs) - needed == 1 or abs(residual[runs[0]]) < abs(residual[runs[-1]]):
            runs.pop(0 if abs(residual[runs[0]]) < abs(residual[runs[-1]]) else -1)
        else:
            runs.pop()
    return runs if len(runs) == needed else None
