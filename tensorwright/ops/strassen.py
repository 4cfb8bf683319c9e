"""Matrix product with seven multiplications of quarters instead of eight: Strassen's algorithm.

    y = strassen(x: f32[1,128,768], w: f32[768,3072], half=1536)     # f32[1,128,3072]

Rows go in pairs, the first of which are the upper half of the matrix; the sum and the columns go in
halves, the second of which may be shorter. Seven sums of quarters of x (`INTO`) are multiplied by
seven sums of quarters of w (`WEIGHTS`), and the quarters of y are sums of these products (`BACK`),
as with Winograd's convolutions (`ops/winograd.py`). The sums of w are those of constants, and laid
in panels by who calls the kernel (`loop.Pack`). The matrices are Strassen's own ("Gaussian
elimination is not optimal", 1969): they take more sums than Winograd's variant of them, which the
few here hide, and have the smaller error (Higham, "Accuracy and Stability of Numerical Algorithms",
section 23.2.2).

One level saves an eighth of the multiply-adds. An element's rounding error is of the size of the
largest of its pair of rows and of both halves, where that of a plain product is of its own row's:
on normally distributed data 1.4 times as large. An infinity or NaN reaches both rows of a pair.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    as_dim,
    as_expr,
    compare,
    const,
    fma,
    minimum,
    select,
)
from tensorwright.ir.loop import Alloc, If, Stmt, loops, seq, store
from tensorwright.ir.quarters import POINTS, QUARTERS, WEIGHTS
from tensorwright.ir.type import Dim, Shape, TensorType, product
from tensorwright.ops.define import accumulate, check_dtype, define, require
from tensorwright.ops.winograd import Lets, combination

# by point: what of the quarters of x is multiplied
INTO = ((1, 0, 0, 1), (0, 0, 1, 1), (1, 0, 0, 0), (0, 0, 0, 1), (1, 1, 0, 0), (-1, 0, 1, 0),
        (0, 1, 0, -1))  # fmt: skip
# by quarter: what of the products is added up
BACK = ((1, 0, 0, 1, -1, 0, 1), (0, 0, 1, 0, 1, 0, 0), (0, 1, 0, 1, 0, 0, 0),
        (1, -1, 1, 0, 0, 1, 0))  # fmt: skip


def _infer(x: TensorType, w: TensorType, *, half):
    op = "strassen"
    check_dtype(op, x, (f32,))
    check_dtype(op, w, (f32,))
    require(x.rank >= 2 and w.rank == 2, f"{op}: x has rank {x.rank}, w {w.rank}")
    require(all(isinstance(d, int) for d in (x.shape[-1], *w.shape)),
            f"{op}: the sizes of the weights must be known")  # fmt: skip
    parts = [d for d in x.shape[:-1] if d != 1][1:]
    require(all(isinstance(d, int) for d in parts), f"{op}: x is {x.shape}, of unknown parts")
    depth, columns = w.shape
    require(depth == x.shape[-1], f"{op}: w is {w.shape} for rows of {x.shape[-1]}")
    require(depth % 2 == 0, f"{op}: sums of {depth} products have no halves")
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


def _lower(out: Buffer, x: Buffer, w: Buffer, *, half) -> Stmt:
    """Four nests: sums of what is given, and of the weights, products, sums of these."""
    lead, (depth, columns), t = x.shape[:-1], (w.shape[0] // 2, w.shape[1]), out.dtype
    rows: Dim = product(lead)
    count = as_dim((as_expr(rows) + 1) // 2)
    even, full = as_expr(rows) % 2 is const(0), columns == 2 * half
    v = Buffer("inputs", t, (POINTS, count, depth), "temp")
    u = Buffer("weights", t, (POINTS, depth, half), "temp")
    m = Buffer("products", t, (POINTS, count, half), "temp")

    def inputs(t: Expr, c: Expr) -> Stmt:
        row = lambda i: 2 * t + i if even else minimum(2 * t + i, as_expr(rows) - 1)
        body = Lets()
        seen = [body.let(x[(*place_of(row(i), lead), c + j * depth)]) for i, j in QUARTERS]
        return body.then(store(v, (p, t, c), sum_of(a, seen)) for p, a in enumerate(INTO))

    def weights(c: Expr, o: Expr) -> Stmt:
        def quarter(i: int, j: int) -> Expr:
            row, column = c + i * depth, o + j * half
            if full or j == 0:
                return w[row, column]
            here = w[row, minimum(column, const(columns - 1))]
            return select(compare("lt", column, const(columns)), here, const(0, t))

        body = Lets()
        seen = [body.let(quarter(i, j)) for i, j in QUARTERS]
        return body.then(store(u, (p, c, o), sum_of(a, seen)) for p, a in enumerate(WEIGHTS))

    def products(p: Expr, t: Expr, o: Expr) -> Stmt:
        step = lambda acc, c: fma(v[p, t, c], u[p, c, o], acc)
        return accumulate(m, (p, t, o), 0, [depth], step)

    def results(t: Expr, o: Expr) -> Stmt:
        body = Lets()
        seen = [body.let(m[p, t, o]) for p in range(POINTS)]

        def result(i: int, j: int, row: tuple[int, ...]) -> Stmt:
            at, column = 2 * t + i, o + j * half
            s = store(out, (*place_of(at, lead), column), sum_of(row, seen))
            s = s if full or j == 0 else If(compare("lt", column, const(columns)), s)
            return s if even or i == 0 else If(compare("lt", at, as_expr(rows)), s)

        return body.then(result(*at, row) for at, row in zip(QUARTERS, BACK))

    return seq(
        Alloc(v), Alloc(u), Alloc(m), loops(("t", "c"), (count, depth), inputs),
        loops(("c", "o"), (depth, half), weights), loops(("p", "t", "o"), m.shape, products),
        loops(("t", "o"), (count, half), results),
    )  # fmt: skip


def sum_of(row: tuple[int, ...], values: list[Expr]) -> Expr:
    """The values that a row of factors picks, those to be subtracted last."""
    picked = sorted(((float(f), k) for k, f in enumerate(row) if f), reverse=True)
    return combination(tuple(picked), values)


def _reference(x, w, half):
    return (x.astype(np.float64) @ w.astype(np.float64)).astype(x.dtype)


strassen = define(
    "strassen", "x, w", infer=_infer, reference=_reference, lower=_lower, dtypes=(f32,),
    samples=(
        "f32[6,8] f32[8,10] half=5",
        "f32[5,4] f32[4,6] half=3",
        "f32[2,3,6] f32[6,7] half=4",
        "f32[1,h,6] f32[6,20] half=16 h=1,5",
        "f32[b,3,2] f32[2,32] half=16 b=0,3",
        "f32[64,6] f32[6,128] half=64",
        "f32[1,9,8,6] f32[6,100] half=64",
    ),
    doc="Rows times a matrix, by seven products of its quarters instead of eight; the columns go "
        "in halves, the first of `half`.",
)  # fmt: skip
