"""Matrix product with seven multiplications of quarters instead of eight: Strassen's algorithm.

    y = strassen(x: f32[1,128,768], u: f32[7,384,1536])     # f32[1,128,3072]
    y = strassen(x: f32[1,128,768], u: f32[7,384,1504], columns=3000)

Rows go in pairs, the first of which are the upper half of the matrix; the sum and the columns go in
halves. Seven sums of quarters of x (`INTO`) are multiplied by seven sums of quarters of the weights
(`WEIGHTS`, known beforehand), and the quarters of y are sums of these products (`BACK`), as with
Winograd's convolutions (`ops/winograd.py`). The matrices are Strassen's own ("Gaussian elimination
is not optimal", 1969): they take more sums than Winograd's variant of them, which the few here
hide, and have the smaller error (Higham, "Accuracy and Stability of Numerical Algorithms", section
23.2.2).

One level saves an eighth of the multiply-adds. An element's rounding error is of the size of the
largest of its pair of rows and of both halves, where that of a plain product is of its own row's:
on normally distributed data 1.4 times as large. An infinity or NaN reaches both rows of a pair.
"""

from __future__ import annotations

from itertools import product as pairs

import numpy as np

from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Expr, as_dim, as_expr, compare, const, fma, minimum
from tensorwright.ir.loop import Alloc, If, Stmt, loops, seq, store
from tensorwright.ir.type import Dim, Shape, TensorType, product
from tensorwright.ops.define import accumulate, check_dtype, define, require
from tensorwright.ops.winograd import Lets, combination

POINTS = 7
# by point: what of the quarters 11, 12, 21, 22 is multiplied
INTO = ((1, 0, 0, 1), (0, 0, 1, 1), (1, 0, 0, 0), (0, 0, 0, 1), (1, 1, 0, 0), (-1, 0, 1, 0),
        (0, 1, 0, -1))  # fmt: skip
WEIGHTS = ((1, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, -1), (-1, 0, 1, 0), (0, 0, 0, 1), (1, 1, 0, 0),
           (0, 0, 1, 1))  # fmt: skip
# by quarter: what of the products is added up
BACK = ((1, 0, 0, 1, -1, 0, 1), (0, 0, 1, 0, 1, 0, 0), (0, 1, 0, 1, 0, 0, 0),
        (1, -1, 1, 0, 0, 1, 0))  # fmt: skip


def transformed_weights(w: np.ndarray, half: int) -> np.ndarray:
    """u[7, K / 2, half] of w[K, N], whose second half has N - half columns and is filled up with
    zeros."""
    depth = len(w)
    u = np.zeros((POINTS, depth // 2, half), w.dtype)
    for point, row in zip(u, WEIGHTS):
        for factor, (i, j) in zip(row, np.ndindex(2, 2)):
            quarter = w[i * depth // 2 : (i + 1) * depth // 2, j * half : (j + 1) * half]
            if factor:
                part = point[:, : quarter.shape[1]]
                (np.add if factor > 0 else np.subtract)(part, quarter, out=part)
    return u


def _infer(x: TensorType, u: TensorType, *, columns=None):
    op = "strassen"
    check_dtype(op, x, (f32,))
    check_dtype(op, u, (f32,))
    require(x.rank >= 2 and u.rank == 3, f"{op}: x has rank {x.rank}, u {u.rank}")
    require(all(isinstance(d, int) for d in (x.shape[-1], *u.shape)),
            f"{op}: the sizes of the weights must be known")  # fmt: skip
    parts = [d for d in x.shape[:-1] if d != 1][1:]
    require(all(isinstance(d, int) for d in parts), f"{op}: x is {x.shape}, of unknown parts")
    points, depth, half = u.shape
    said = f"{op}: u is {u.shape} for rows of {x.shape[-1]}"
    require(points == POINTS and 2 * depth == x.shape[-1], said)
    columns = 2 * half if columns is None else columns
    require(half < columns <= 2 * half, f"{op}: {columns} columns in two halves of {half}")
    return TensorType(f32, (*x.shape[:-1], columns))


def place_of(row: Expr, lead: Shape) -> tuple[Expr, ...]:
    """The subscripts of a row, counted over all dimensions that lead."""
    found = [const(0)] * len(lead)
    *inner, first = [axis for axis, d in reversed([*enumerate(lead)]) if d != 1] or [0]
    for axis in inner:
        found[axis], row = row % lead[axis], row // lead[axis]
    found[first] = row
    return tuple(found)


def _lower(out: Buffer, x: Buffer, u: Buffer, *, columns=None) -> Stmt:
    """Three nests over pairs of rows: sums of what is given, products, sums of these."""
    lead, (points, depth, half), t = x.shape[:-1], u.shape, out.dtype
    rows: Dim = product(lead)
    count = as_dim((as_expr(rows) + 1) // 2)
    even, full = as_expr(rows) % 2 is const(0), out.shape[-1] == 2 * half
    v = Buffer("inputs", t, (points, count, depth), "temp")
    m = Buffer("products", t, (points, count, half), "temp")

    def inputs(t: Expr, c: Expr) -> Stmt:
        row = lambda i: 2 * t + i if even else minimum(2 * t + i, as_expr(rows) - 1)
        body = Lets()
        seen = [body.let(x[(*place_of(row(i), lead), c + j * depth)]) for i, j in QUARTERS]
        return body.then(store(v, (p, t, c), sum_of(a, seen)) for p, a in enumerate(INTO))

    def products(p: Expr, t: Expr, o: Expr) -> Stmt:
        step = lambda acc, c: fma(v[p, t, c], u[p, c, o], acc)
        return accumulate(m, (p, t, o), 0, [depth], step)

    def results(t: Expr, o: Expr) -> Stmt:
        body = Lets()
        seen = [body.let(m[p, t, o]) for p in range(points)]

        def result(i: int, j: int, row: tuple[int, ...]) -> Stmt:
            at, column = 2 * t + i, o + j * half
            s = store(out, (*place_of(at, lead), column), sum_of(row, seen))
            s = s if full or j == 0 else If(compare("lt", column, as_expr(out.shape[-1])), s)
            return s if even or i == 0 else If(compare("lt", at, as_expr(rows)), s)

        return body.then(result(*at, row) for at, row in zip(QUARTERS, BACK))

    return seq(
        Alloc(v), Alloc(m), loops(("t", "c"), (count, depth), inputs),
        loops(("p", "t", "o"), m.shape, products), loops(("t", "o"), (count, half), results),
    )  # fmt: skip


QUARTERS = tuple(pairs((0, 1), (0, 1)))


def sum_of(row: tuple[int, ...], values: list[Expr]) -> Expr:
    """The values that a row of factors picks, those to be subtracted last."""
    picked = sorted(((float(f), k) for k, f in enumerate(row) if f), reverse=True)
    return combination(tuple(picked), values)


def _reference(x, u, columns=None):
    depth, half = u.shape[1:]
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    rows = np.concatenate([rows, rows[-1:] if len(rows) % 2 else rows[:0]])  # the last one twice
    quarters = rows.reshape(-1, 2, 2, depth).transpose(1, 2, 0, 3).reshape(4, -1, depth)
    v = np.einsum("pq,qtc->ptc", INTO, quarters)
    y = np.einsum("qp,pto->qto", BACK, v @ u.astype(np.float64))
    y = y.reshape(2, 2, -1, half).transpose(2, 0, 1, 3).reshape(len(rows), 2 * half)
    columns = 2 * half if columns is None else columns
    count = int(np.prod(x.shape[:-1]))
    return y[:count, :columns].reshape(*x.shape[:-1], columns).astype(x.dtype)


strassen = define(
    "strassen", "x, u", infer=_infer, reference=_reference, lower=_lower, dtypes=(f32,),
    samples=(
        "f32[6,8] f32[7,4,5]",
        "f32[5,4] f32[7,2,3]",
        "f32[2,3,6] f32[7,3,4] columns=7",
        "f32[1,h,6] f32[7,3,16] columns=20 h=1,5",
        "f32[b,3,2] f32[7,1,2] b=0,3",
    ),
    doc="Rows times a matrix, by seven products of its quarters instead of eight; u holds their "
        "sums, `columns` counts those of the matrix where they are an odd number or half of them "
        "are filled up.",
)  # fmt: skip
