"""Convolution of 3x3 windows with fewer multiplications: Winograd's F(m x m, 3 x 3).

    y = winograd(x: f32[1,18,18,64], u: f32[36,64,32], tile=4, size=(14,14))
    y = winograd(x: f32[1,18,18,64], u: f32[36,8,8,4], tile=4, size=(14,14))     8 groups
    y = winograd(x: f32[1,33,33,64], u: f32[36,64,32], tile=4, size=(14,14), stride=2)

A tile of m x m results needs (m + 2)^2 products a pair of channels instead of 9 m^2: its inputs d
and the weights g go through small fixed matrices, y = A' [(G g G') * (B' d B)] A (Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", sections 3 and 4), so that the products of all
tiles are (m + 2)^2 matrix products. The matrices come from polynomials known at m + 1 points and
infinity (Toom and Cook). What is lost is accuracy: rounding errors grow with the entries of the
matrices. Points that are inverse to each other up to a little, and exact in f32, keep them least.

A window that moves by two sees even inputs with its first and last weight, odd ones with the middle
one: along one dimension a convolution by two weights and one by a single weight, neither of which
skips anything. m + 1 and m products instead of 3 m, 0.56 of them in two dimensions for m = 4. The
single weight is the same for m points, so that there are fewer weights than points.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np

from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    all_of,
    as_dim,
    as_expr,
    compare,
    const,
    fma,
    maximum,
    minimum,
)
from tensorwright.ir.loop import Alloc, If, Stmt, loops, seq, store
from tensorwright.ir.type import Dim, Shape, TensorType, product, shape_of
from tensorwright.ops.define import accumulate, check_dtype, define, require

WINDOW = 3
COLUMNS = 1024  # of weights that are transformed at a time: few enough for one thread
# (tile, stride) -> finite points, in eighths, of the phase with most weights
EIGHTHS = {
    (2, 1): (0, 8, -8), (4, 1): (0, 5, -5, 13, -13), (6, 1): (0, 4, -4, 8, -8, 16, -16),
    (2, 2): (0, 8), (4, 2): (4, -4, 10, -10),
}  # fmt: skip
# measured: root mean square error of a result over that of the results, on normally distributed
# data with 64 channels (direct: 2e-7). With points 0, 1, 2 and their negatives, F(4,3) has 1.6e-6
ERROR = {(2, 1): 2.5e-7, (4, 1): 7e-7, (6, 1): 3.5e-6, (2, 2): 2.5e-7, (4, 2): 4e-7}
STRIDES = tuple(dict.fromkeys(stride for _, stride in EIGHTHS))

Matrix = tuple[tuple[Fraction, ...], ...]


def tile_sizes(stride: int) -> tuple[int, ...]:
    """Of a window that moves by so many."""
    return tuple(tile for tile, moved in EIGHTHS if moved == stride)


def reach(tile: int, stride: int) -> int:
    """Inputs that a tile of results needs along one dimension, and points that it is known at."""
    return (tile - 1) * stride + WINDOW


@functools.cache
def matrices(tile: int, stride: int) -> tuple[Matrix, Matrix, Matrix]:
    """A' [tile, reach], G [n, 3] and B' [reach, reach]: those of every phase of inputs and weights,
    one after another. The last point of a G of fewer rows is that of all further ones."""
    points = tuple(Fraction(e, 8) for e in EIGHTHS[tile, stride])
    back, g, into = [()] * tile, [], []
    for phase in range(stride):
        taps = len(range(phase, WINDOW, stride))
        parts = phase_matrices(tile, taps, points[: tile + taps - 2])
        back = [(*row, *more) for row, more in zip(back, parts[0])]
        g += [with_gaps(row, phase, stride, WINDOW) for row in parts[1]]
        into += [with_gaps(row, phase, stride, reach(tile, stride)) for row in parts[2]]
    return tuple(back), tuple(g), tuple(into)


def phase_matrices(tile: int, taps: int, points: Sequence[Fraction]) -> tuple:
    """A' [tile, n], G [n, taps] and B' [n, n] of a window of `taps` weights that skips no input,
    with n = tile + taps - 1. A single weight multiplies all inputs as they are: G is [1, 1]."""
    last = lambda n: tuple(Fraction(k == n - 1) for k in range(n))
    if taps == 1:
        same = tuple(tuple(Fraction(k == i) for k in range(tile)) for i in range(tile))
        return same, ((Fraction(1),),), same
    values = [tuple(p**k for k in range(tile)) for p in points] + [last(tile)]
    others = [[q for q in points if q != p] for p in points]
    scale = [np.prod([p - q for q in rest]) for p, rest in zip(points, others)]
    g = [tuple(p**k / s for k in range(taps)) for p, s in zip(points, scale)] + [last(taps)]
    b = [(*polynomial(rest), Fraction(0)) for rest in others] + [polynomial(points)]
    return tuple(zip(*values)), tuple(g), tuple(b)


def with_gaps(row: Sequence[Fraction], first: int, step: int, length: int) -> tuple:
    """`row` at every `step`-th of `length` places, zeros between."""
    found = [Fraction(0)] * length
    found[first::step] = row
    return tuple(found)


def polynomial(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - root), lowest first."""
    found = [Fraction(1)]
    for r in roots:
        shifted, scaled = [Fraction(0), *found], [*(r * c for c in found), Fraction(0)]
        found = [a - b for a, b in zip(shifted, scaled)]
    return tuple(found)


@functools.cache
def points_of(tile: int, stride: int) -> tuple[tuple[int, int], ...]:
    """The points of both dimensions at which products are made, those with the same weights one
    after another, and last those that share them with most."""
    last = len(matrices(tile, stride)[1]) - 1
    shared = lambda a: 1 if a < last else reach(tile, stride) - last
    key = lambda at: (shared(at[0]) * shared(at[1]), *(min(a, last) for a in at))
    return tuple(sorted(np.ndindex(*[reach(tile, stride)] * 2), key=key))


def weights_at(p: Expr, tile: int, stride: int) -> Expr:
    """The number of the weights of point p: up to n^2 points have their own, then there are 2 n
    weights of `tile` points, then one of all others."""
    if stride == 1:
        return p
    n = len(matrices(tile, stride)[1]) - 1
    return minimum(minimum(p, n * n + maximum(p - n * n, const(0)) // tile), const(n * (n + 2)))


def transformed_weights(w: np.ndarray, tile: int, stride: int) -> np.ndarray:
    """u[n, I, O] = G w G' of w[3, 3, I, O], computed in f64, in the order of `points_of`."""
    g = np.array(matrices(tile, stride)[1], np.float64)
    last = len(g) - 1
    pairs = dict.fromkeys((min(a, last), min(b, last)) for a, b in points_of(tile, stride))
    both, flat = np.array([np.kron(g[a], g[b]) for a, b in pairs]), w.reshape(WINDOW**2, -1)
    u = np.empty((len(both), flat.shape[1]), w.dtype)
    for at in range(0, flat.shape[1], COLUMNS):  # what is in f64 stays in the cache
        u[:, at : at + COLUMNS] = both @ flat[:, at : at + COLUMNS].astype(np.float64)
    return u.reshape(-1, *w.shape[2:])


def count_of_weights(tile: int, stride: int) -> int:
    return len(matrices(tile, stride)[1]) ** 2


def in_groups(u: np.ndarray, groups: int) -> np.ndarray:
    """u[n, groups, I, O / groups] of u[n, I, O], each output channel in one group."""
    points, taken, outputs = u.shape
    split = u.reshape(points, taken, groups, outputs // groups)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3))


def tiles(size: Sequence[Dim], tile: int) -> tuple[Dim, Dim]:
    """Tiles along both dimensions of a result."""
    return tuple((d + (tile - 1)) // tile for d in size)


def padded_size(size: Sequence[Dim], tile: int, stride: int) -> Shape:
    """What x must be along both dimensions, so that every tile is whole."""
    return shape_of(n * (tile * stride) + (WINDOW - stride) for n in tiles(size, tile))


# ---- the operator ------------------------------------------------------------------------------


def _infer(x: TensorType, u: TensorType, *, tile, size, stride=1) -> TensorType:
    op = "winograd"
    check_dtype(op, x, (f32,))
    check_dtype(op, u, (f32,))
    require((tile, stride) in EIGHTHS, f"{op}: there are no tiles of {tile} x {tile} with stride "
            f"{stride}, only (tile, stride) {', '.join(map(str, EIGHTHS))}")  # fmt: skip
    require(x.rank == 4 and u.rank in (3, 4), f"{op}: x has rank {x.rank}, u has rank {u.rank}")
    require(all(isinstance(d, int) for d in (x.shape[3], *u.shape)),
            f"{op}: the numbers of channels must be known")  # fmt: skip
    needed = padded_size(size, tile, stride)
    require(x.shape[1:3] == needed, f"{op}: x is {x.shape[1:3]}; {size} results need {needed}")
    weights, *groups, taken, outputs = u.shape
    channels = product((*groups, taken))
    known = (count_of_weights(tile, stride), x.shape[3])
    said = f"{op}: u is {u.shape}; tiles of {tile} on {x.shape[3]} channels need {known}"
    require((weights, channels) == known, said)
    return TensorType(f32, (x.shape[0], *size, product((*groups, outputs))))


def _lower(out: Buffer, x: Buffer, u: Buffer, *, tile, size, stride) -> Stmt:
    """Three nests over the tiles: inputs transformed, products, results transformed back."""
    grid = (x.shape[0], *tiles(size, tile))
    count, a, t = product(grid), reach(tile, stride), out.dtype
    rows, columns = map(as_expr, grid[1:])
    v = Buffer("inputs", t, (a * a, count, x.shape[3]), "temp")
    *groups, taken, wide = u.shape[1:]
    m = Buffer("products", t, (a * a, count, *groups, wide), "temp")
    back, _, into = matrices(tile, stride)
    points = points_of(tile, stride)
    number_of = {at: p for p, at in enumerate(points)}

    def number(n: Expr, i: Expr, j: Expr) -> Expr:
        return (n * grid[1] + i) * grid[2] + j

    def inputs(t: Expr, c: Expr) -> Stmt:
        """By number: with sizes that vary, that each has a place of its own is plain to see."""
        n, i, j = t // (rows * columns), t // columns % rows, t % columns
        h, w = i * (tile * stride), j * (tile * stride)
        body = Lets()
        found = body.both(into, [[x[n, h + r, w + k, c] for k in range(a)] for r in range(a)])
        return body.then(store(v, (p, t, c), found[i][j]) for p, (i, j) in enumerate(points))

    def products(p: Expr, i: Expr, *o: Expr) -> Stmt:
        *g, last = o
        first = g[0] * taken if g else const(0)
        own = weights_at(p, tile, stride)
        step = lambda acc, c: fma(v[p, i, first + c], u[own, *g, c, last], acc)
        return accumulate(m, (p, i, *o), 0, [taken], step)

    def results(n: Expr, i: Expr, j: Expr, o: Expr) -> Stmt:
        h, w, t = i * tile, j * tile, number(n, i, j)
        body = Lets()
        at = (o // wide, o % wide) if groups else (o,)
        found = body.both(back, [[m[number_of[r, k], t, *at] for k in range(a)] for r in range(a)])
        return body.then(
            inside((h + r, w + k), size, (r, k), tile, store(out, (n, h + r, w + k, o), e))
            for r, row in enumerate(found) for k, e in enumerate(row)
        )  # fmt: skip

    return seq(
        Alloc(v), Alloc(m), loops(("t", "c"), (count, x.shape[3]), inputs),
        loops(("p", "t", *("g" for _ in groups), "o"), m.shape, products),
        loops(("n", "i", "j", "o"), (*grid, out.shape[3]), results),
    )  # fmt: skip


def inside(place, size, offset, tile: int, s: Stmt) -> Stmt:
    """`s` where a result of a tile exists: the last tiles may be cut off."""
    unsure = [compare("lt", i, as_expr(d)) for i, d, k in zip(place, size, offset)
              if not _is_whole(as_dim(as_expr(d) % tile), k)]  # fmt: skip
    return If(all_of(unsure), s) if unsure else s


def _is_whole(rest: Dim, offset: int) -> bool:
    """Whether every tile has results at an offset, if the last one has `rest` (0: it is whole)."""
    return isinstance(rest, int) and not 0 < rest <= offset


class Lets:
    """Statements that name intermediate values, each in a local scalar."""

    def __init__(self):
        self.parts: list[Stmt] = []

    def let(self, e: Expr) -> Expr:
        if e.op == "load" and e.value.scope == "local":
            return e
        b = Buffer("t", e.dtype, (), "local")
        self.parts += [Alloc(b), store(b, (), e)]
        return b[()]

    def then(self, rest) -> Stmt:
        return seq(*self.parts, *rest)

    def both(self, matrix: Matrix, values: list[list[Expr]]) -> list[list[Expr]]:
        """matrix @ values @ matrix', the results not yet named."""
        steps = steps_of(matrix)
        columns = [list(map(self.let, self.product(steps, c))) for c in zip(*values)]
        return [self.product(steps, row) for row in zip(*columns)]

    def product(self, steps: Steps, values: Sequence[Expr]) -> list[Expr]:
        """The product of a matrix and values."""
        values = list(map(self.let, values))
        for k, n in steps.joined:
            a, b = values[k], values[n]
            values[k], values[n] = self.let(a + b), self.let(a - b)
        found: dict[int, Expr] = {}
        for s in steps.rows:
            total = combination(s.even, values)
            if s.twin is None:
                found[s.at] = total
                continue
            even, half = self.let(total), self.let(combination(s.odd, values))
            found[s.at], found[s.twin] = plus(even, s.factor, half), plus(even, -s.factor, half)
        return [found[i] for i in range(len(found))]


# ---- products with a matrix ---------------------------------------------------------------------

Terms = tuple[tuple[float, int], ...]  # factors, and the numbers of the values that they are of


@dataclass(frozen=True)
class Rows:
    """Row `at` of a product, even + factor * odd, and row `twin`, even - factor * odd. One without
    a twin has an even part only."""

    at: int
    even: Terms
    twin: int | None = None
    factor: float = 1.0
    odd: Terms = ()


@dataclass(frozen=True)
class Steps:
    """How a matrix is multiplied by values. joined: pairs of values that meet as a sum and a
    difference first."""

    joined: tuple[tuple[int, int], ...]
    rows: tuple[Rows, ...]


@functools.cache
def steps_of(matrix: Matrix) -> Steps:
    """A product in few operations: columns that are alike up to signs meet; rows that are alike up
    to signs share their halves."""
    columns, joined, rows = list(zip(*matrix)), [], []
    for k, n in combinations(range(len(columns)), 2):
        old, other = columns[k], columns[n]
        if are_twins(old, other):
            joined.append((k, n))
            columns[k] = tuple(c if c == d else Fraction(0) for c, d in zip(old, other))
            columns[n] = tuple(Fraction(0) if c == d else c for c, d in zip(old, other))
    matrix = tuple(zip(*columns))
    done: set[int] = set()
    for i, row in enumerate(matrix):
        if i in done:
            continue
        used = [k for k, c in enumerate(row) if c]
        twin = next((k for k in range(i + 1, len(matrix)) if are_twins(row, matrix[k])), None)
        if twin is None:
            rows.append(Rows(i, terms(row, used)))
            continue
        done.add(twin)
        same = [k for k in used if row[k] == matrix[twin][k]]
        odd = [k for k in used if k not in same]
        factor = row[odd[-1]]
        half = terms([c / factor for c in row], odd)
        rows.append(Rows(i, terms(row, same), twin, float(factor), half))
    return Steps(tuple(joined), tuple(rows))


def terms(row: Sequence[Fraction], kept: Sequence[int]) -> Terms:
    """The entries of a row at some places, those that are 1 first."""
    return tuple(sorted(((float(row[k]), k) for k in kept), key=lambda t: t[0] != 1))


def are_twins(a: Sequence[Fraction], b: Sequence[Fraction]) -> bool:
    """Whether both have the same entries up to signs, some alike and some opposite."""
    signs = {x == y for x, y in zip(a, b) if x}
    return signs == {True, False} and all(abs(x) == abs(y) for x, y in zip(a, b))


def plus(a: Expr, factor: float, b: Expr) -> Expr:
    """a + factor * b"""
    if abs(factor) == 1:
        return a + b if factor > 0 else a - b
    return fma(const(factor, a.dtype), b, a)


def combination(row: Terms, values: Sequence[Expr]) -> Expr:
    """The sum of factors times values."""
    (first, k), *rest = row
    total = values[k]
    if first != 1:
        total = total * const(first, total.dtype)
    for factor, k in rest:
        total = plus(total, factor, values[k])
    return total


def _reference(x, u, tile, size, stride):
    back, _, into = (np.array(m, np.float64) for m in matrices(tile, stride))
    a, step, (rows, columns) = reach(tile, stride), tile * stride, tiles(size, tile)
    wide = x.astype(np.float64)
    d = np.array([[wide[:, i * step : i * step + a, j * step : j * step + a]
                   for j in range(columns)] for i in range(rows)])  # fmt: skip
    d = d.reshape(rows, columns, x.shape[0], a, a, x.shape[3])
    v = np.einsum("pi,qj,rsnijc->pqrsnc", into, into, d)
    u = u.reshape(len(u), -1, *u.shape[-2:]).astype(np.float64)
    m = np.empty((a, a, rows, columns, x.shape[0], *u.shape[1::2]))
    for p, at in enumerate(points_of(tile, stride)):
        taken = v[at].reshape(*v.shape[2:5], *u.shape[1:3])
        m[at] = np.einsum("rsngc,gco->rsngo", taken, u[weights_at(as_expr(p), tile, stride).value])
    y = np.einsum("ip,jq,pqrsngo->nrisjgo", back, back, m)
    y = y.reshape(x.shape[0], rows * tile, columns * tile, u.shape[1] * u.shape[3])
    return y[:, : size[0], : size[1]].astype(x.dtype)


winograd = define(
    "winograd", "x, u", infer=_infer, reference=_reference, lower=_lower, dtypes=(f32,),
    samples=(
        "f32[1,6,6,3] f32[16,3,5] tile=2 size=(4,3)", "f32[2,6,10,4] f32[36,4,3] tile=4 size=(4,7)",
        "f32[1,10,6,2] f32[36,2,20] tile=4 size=(5,1)",
        "f32[1,6,6,6] f32[16,3,2,4] tile=2 size=(4,3)",
        "f32[2,(h+3)//4*4+2,10,4] f32[36,4,3] tile=4 size=(h,7) h=3,4",
        "f32[1,8,14,2] f32[64,2,3] tile=6 size=(6,8)", "f32[0,6,6,1] f32[36,1,1] tile=4 size=(4,4)",
        "f32[1,9,5,2] f32[16,2,3] tile=2 size=(3,2) stride=2",
        "f32[2,9,17,6] f32[36,3,2,4] tile=4 size=(4,7) stride=2",
        "f32[1,(h+3)//4*8+1,9,3] f32[36,3,4] tile=4 size=(h,3) stride=2 h=2,5",
    ),
    doc="Channels-last convolution by 3x3 windows, which move by `stride`, on tiles of results; x "
        "is padded, u transformed, its second of four dimensions, if it has four, counts groups.",
)  # fmt: skip
