"""Convolution with fewer multiplications: Winograd's F(m, r), along one dimension or two.

    y = winograd(x: f32[1,18,18,64], u: f32[36,64,32], tile=(4,4), window=(3,3), size=(14,14))
    y = winograd(x: f32[1,18,18,64], u: f32[36,8,8,4], ..)                     8 groups
    y = winograd(x: f32[1,33,33,64], u: f32[36,64,32], .., stride=(2,2))
    y = winograd(x: f32[1,18,64], u: f32[6,64,32], tile=(4,), window=(3,), size=(16,))
    y = winograd(x: f32[1,20,20,64], u: f32[24,64,32], tile=(4,2), .., size=(16,16), dilation=(2,2))

A tile of m results needs m + r - 1 products a pair of channels instead of m r: its inputs d and the
weights g go through small fixed matrices, y = A' (G g * B' d) (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", sections 3 and 4), so that the products of all tiles are m + r - 1
matrix products; with two dimensions, the square of that, as all three go through the matrices of
both. The matrices come from polynomials known at m + r - 2 points and infinity (Toom and Cook).
What is lost is accuracy: rounding errors grow with the entries of the matrices. Points that are
inverse to each other up to a little, and exact in f32, keep them least.

A window that moves by two sees even inputs with its even weights and odd ones with the others: two
convolutions, neither of which skips anything. For r = 3, the first takes m + 1 products and the
second, by a single weight, m, instead of 3 m: 0.56 of them in two dimensions for m = 4. The single
weight is the same for m points, so that there are fewer weights than points.

A window dilated by d sees every d-th element: the results are those of d images (d * d, in two
dimensions) that lie between each other, each with a window that is not dilated. So tiles read and
write every d-th element, and are as many as those of the d images.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

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
from tensorwright.ir.type import Dim, TensorType, product, shape_of
from tensorwright.ops.define import accumulate, check_dtype, define, require

COLUMNS = 1024  # of weights that are transformed at a time: few enough for one thread
# The finite points, by their number, in eighths.
EIGHTHS = {
    2: (0, 8), 3: (0, 8, -8), 4: (4, -4, 10, -10), 5: (0, 5, -5, 13, -13),
    6: (4, -4, 8, -8, 16, -16), 7: (0, 4, -4, 8, -8, 16, -16),
}  # fmt: skip

Matrix = tuple[tuple[Fraction, ...], ...]


class Along(NamedTuple):
    """F(tile, window) along one dimension, of a window that moves by `stride` or is dilated. By
    default the dimension stays as it is."""

    tile: int = 1
    window: int = 1
    stride: int = 1
    dilation: int = 1

    @property
    def plain(self) -> Along:
        """The same of a window that is not dilated: it has the same matrices and errors."""
        return self._replace(dilation=1)

    @property
    def reach(self) -> int:
        """Inputs that a tile of results needs, and points that it is known at."""
        return (self.tile - 1) * self.stride + self.window

    @property
    def weights(self) -> int:
        """Points that have weights of their own; all further ones share those of the last."""
        return len(matrices(self)[1])

    def tiles(self, size: Dim) -> Dim:
        """Of a result of this size: as many of each image as of the longest."""
        step = self.tile * self.dilation
        return (size + (step - 1)) // step * self.dilation

    def padded(self, size: Dim) -> Dim:
        """What x must be along the dimension, so that every tile is whole."""
        around = (self.window - self.stride) * self.dilation
        return self.tiles(size) * (self.tile * self.stride) + around

    def first(self, tile: Expr) -> Expr:
        """The first result of a tile; the others follow by steps of the dilation."""
        d = self.dilation
        return tile // d * (self.tile * d) + tile % d


# Root mean square error of a result over that of the results, along one dimension and along two, on
# normally distributed data with 64 channels (direct: 2e-7), measured. With the points 0, 1, 2 and
# their negatives, F(4,3) has 1.6e-6 along two.
ERROR = {
    Along(2, 3): (1.9e-7, 2.5e-7), Along(4, 3): (3.5e-7, 7e-7), Along(6, 3): (7e-7, 3.5e-6),
    Along(2, 3, 2): (1.9e-7, 2.5e-7), Along(4, 3, 2): (2.3e-7, 4e-7),
    Along(6, 3, 2): (5.5e-7, 1.9e-6),
    Along(2, 5): (3.6e-7, 8.7e-7), Along(4, 5): (6.8e-7, 3.1e-6),
    Along(2, 5, 2): (2e-7, 2.8e-7), Along(4, 5, 2): (3.2e-7, 6.6e-7),
    Along(2, 7): (7.6e-7, 3.9e-6), Along(4, 7, 2): (5.1e-7, 1.7e-6),
}  # fmt: skip
SAME = Along()


@functools.cache
def matrices(a: Along) -> tuple[Matrix, Matrix, Matrix]:
    """A' [tile, reach], G [weights, window] and B' [reach, reach]: those of every phase of inputs
    and weights, one after another."""
    back, g, into = [()] * a.tile, [], []
    for phase in range(a.stride):
        taps = len(range(phase, a.window, a.stride))
        parts = phase_matrices(a.tile, taps)
        back = [(*row, *more) for row, more in zip(back, parts[0])]
        g += [with_gaps(row, phase, a.stride, a.window) for row in parts[1]]
        into += [with_gaps(row, phase, a.stride, a.reach) for row in parts[2]]
    return tuple(back), tuple(g), tuple(into)


def phase_matrices(tile: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """A' [tile, n], G [n, taps] and B' [n, n] of a window of `taps` weights that skips no input,
    with n = tile + taps - 1. A single weight multiplies all inputs as they are: G is [1, 1]."""
    last = lambda n: tuple(Fraction(k == n - 1) for k in range(n))
    if taps == 1:
        same = tuple(tuple(Fraction(k == i) for k in range(tile)) for i in range(tile))
        return same, ((Fraction(1),),), same
    points = [Fraction(e, 8) for e in EIGHTHS[tile + taps - 2]]
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
def points_of(high: Along, wide: Along) -> tuple[tuple[int, int], ...]:
    """The points of both dimensions at which products are made, those with the same weights one
    after another, and last those that share them with most."""
    shared = lambda a, k: 1 if k < a.weights - 1 else a.reach - a.weights + 1
    key = lambda at: (shared(high, at[0]) * shared(wide, at[1]), *own_weights(high, wide, at))
    return tuple(sorted(np.ndindex(high.reach, wide.reach), key=key))


def own_weights(high: Along, wide: Along, at: tuple[int, int]) -> tuple[int, int]:
    """The rows of both matrices G that make the weights of a point."""
    return min(at[0], high.weights - 1), min(at[1], wide.weights - 1)


def weights_at(p: Expr, high: Along, wide: Along) -> Expr:
    """The number of the weights of point p: it grows by one with every point first, then ever more
    slowly, so that it is the least of several lines."""
    shared = Counter(own_weights(high, wide, at) for at in points_of(high, wide))
    found, first, at = None, 0, 0
    for length, alike in itertools.groupby(shared.values()):
        count = len(list(alike))
        line = first + (maximum(p - at, const(0)) if at else p) // length
        found = line if found is None else minimum(found, line if count > 1 else const(first))
        first, at = first + count, at + count * length
    return found


@functools.cache
def weights_matrix(high: Along, wide: Along) -> np.ndarray:
    """[n, h * w]: the weights of every point, in the order of `points_of`, from a window's."""
    over, across = (np.array(matrices(a)[1], np.float64) for a in (high, wide))
    pairs = dict.fromkeys(own_weights(high, wide, at) for at in points_of(high, wide))
    return np.array([np.kron(over[i], across[j]) for i, j in pairs])


def transformed_weights(w: np.ndarray, high: Along, wide: Along) -> np.ndarray:
    """u[n, I, O] = G w G' of w[.., I, O], computed in f64."""
    both = weights_matrix(high, wide)
    flat = w.reshape(both.shape[1], -1)
    u = np.empty((len(both), flat.shape[1]), w.dtype)
    for at in range(0, flat.shape[1], COLUMNS):  # what is in f64 stays in the cache
        u[:, at : at + COLUMNS] = both @ flat[:, at : at + COLUMNS].astype(np.float64)
    return u.reshape(-1, *w.shape[-2:])


def in_groups(u: np.ndarray, groups: int) -> np.ndarray:
    """u[n, groups, I, O / groups] of u[n, I, O], each output channel in one group."""
    points, taken, outputs = u.shape
    split = u.reshape(points, taken, groups, outputs // groups)
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3))


def algorithms(tile, window, stride, dilation) -> tuple[Along, Along]:
    """Those of both dimensions of an image; a sequence is one that is one element high."""
    return (SAME, *map(Along, tile, window, stride, dilation or (1,) * len(tile)))[-2:]


# ---- the operator ------------------------------------------------------------------------------


def _infer(x: TensorType, u: TensorType, *, tile, window, size, stride, dilation=None):
    op = "winograd"
    check_dtype(op, x, (f32,))
    check_dtype(op, u, (f32,))
    require(x.rank in (3, 4) and u.rank in (3, 4), f"{op}: x has rank {x.rank}, u {u.rank}")
    lengths = {len(a) for a in (tile, window, size, stride, dilation or size)}
    require(lengths == {x.rank - 2}, f"{op}: x has {x.rank - 2} dimensions with windows")
    both = algorithms(tile, window, stride, dilation)
    known = ", ".join(map(name_of, ERROR))
    for a in both:
        require(a == SAME or a.plain in ERROR, f"{op}: there is no {name_of(a)}, only {known}")
        require(1 in (a.stride, a.dilation), f"{op}: a dilated window moves by {a.stride}")
    require(all(isinstance(d, int) for d in (x.shape[-1], *u.shape)),
            f"{op}: the numbers of channels must be known")  # fmt: skip
    needed = shape_of(a.padded(d) for a, d in zip(both[-len(size) :], size))
    require(x.shape[1:-1] == needed, f"{op}: x is {x.shape[1:-1]}; {size} results need {needed}")
    weights, *groups, taken, outputs = u.shape
    channels = product((*groups, taken))
    wanted = (both[0].weights * both[1].weights, x.shape[-1])
    said = f"{op}: u is {u.shape}; tiles of {tile} on {x.shape[-1]} channels need {wanted}"
    require((weights, channels) == wanted, said)
    return TensorType(f32, (x.shape[0], *size, product((*groups, outputs))))


def name_of(a: Along) -> str:
    """As schedules and explanations write it: F(4,3), F(4,3)/2."""
    return f"F({a.tile},{a.window})" + (f"/{a.stride}" if a.stride > 1 else "")


def _lower(
    out: Buffer, x: Buffer, u: Buffer, *, tile, window, size, stride, dilation=None
) -> Stmt:  # fmt: skip
    """Three nests over the tiles: inputs transformed, products, results transformed back."""
    high, wide = algorithms(tile, window, stride, dilation)
    size = (1, *size)[-2:]
    grid = (x.shape[0], high.tiles(size[0]), wide.tiles(size[1]))
    points, count, t = points_of(high, wide), product(grid), out.dtype
    rows, columns = map(as_expr, grid[1:])
    v = Buffer("inputs", t, (len(points), count, x.shape[-1]), "temp")
    *groups, taken, outputs = u.shape[1:]
    m = Buffer("products", t, (len(points), count, *groups, outputs), "temp")
    (back, _, into), (back_wide, _, into_wide) = matrices(high), matrices(wide)
    number_of = {at: p for p, at in enumerate(points)}

    def place(n: Expr, h: Expr, w: Expr, c: Expr) -> tuple[Expr, ...]:
        """Of an element of x or of the result."""
        return (n, w, c) if x.rank == 3 else (n, h, w, c)

    def inputs(t: Expr, c: Expr) -> Stmt:
        """By number: with sizes that vary, that each has a place of its own is plain to see."""
        n, i, j = t // (rows * columns), t // columns % rows, t % columns
        h, w = high.first(i) * high.stride, wide.first(j) * wide.stride
        body = Lets()
        seen = [[x[place(n, h + r * high.dilation, w + k * wide.dilation, c)]
                 for k in range(wide.reach)] for r in range(high.reach)]  # fmt: skip
        found = body.both(into, into_wide, seen)
        return body.then(store(v, (p, t, c), found[i][j]) for p, (i, j) in enumerate(points))

    def products(p: Expr, i: Expr, *o: Expr) -> Stmt:
        *g, last = o
        first = g[0] * taken if g else const(0)
        own = weights_at(p, high, wide)
        step = lambda acc, c: fma(v[p, i, first + c], u[own, *g, c, last], acc)
        return accumulate(m, (p, i, *o), 0, [taken], step)

    def results(n: Expr, *at: Expr) -> Stmt:
        *at, o = at
        i, j = (const(0), *numbers_of(at, along))[-2:]
        h, w, t = high.first(i), wide.first(j), (n * grid[1] + i) * grid[2] + j
        body = Lets()
        column = (o // outputs, o % outputs) if groups else (o,)
        seen = [[m[number_of[r, k], t, *column] for k in range(wide.reach)]
                for r in range(high.reach)]  # fmt: skip
        found = body.both(back, back_wide, seen)

        def result(r: int, k: int) -> Stmt:
            at = h + r * high.dilation, w + k * wide.dilation
            s = store(out, place(n, *at, o), found[r][k])
            return inside(at, size, (high, wide), (r, k), s)

        return body.then(itertools.starmap(result, np.ndindex(high.tile, wide.tile)))

    along = (high, wide)[4 - out.rank :]
    names, extents = loops_over(along, grid[5 - out.rank :])
    return seq(
        Alloc(v), Alloc(m), loops(("t", "c"), (count, x.shape[-1]), inputs),
        loops(("p", "t", *("g" for _ in groups), "o"), m.shape, products),
        loops(("n", *names, "o"), (grid[0], *extents, out.shape[-1]), results),
    )  # fmt: skip


def loops_over(along: Sequence[Along], tiles: Sequence[Dim]) -> tuple[list[str], list[Dim]]:
    """Names and extents of loops over so many tiles along dimensions: of dilated windows, over the
    places of tiles and over images, whose results never meet."""
    names, extents = [], []
    for name, a, count in zip("ij"[-len(along) :], along, tiles):
        names += [name, "image"][: 1 + (a.dilation > 1)]
        extents += [count // a.dilation, a.dilation][: 1 + (a.dilation > 1)]
    return names, extents


def numbers_of(at: Sequence[Expr], along: Sequence[Along]) -> list[Expr]:
    """The numbers of tiles along dimensions, of what goes through `loops_over` them."""
    left = iter(at)
    image = lambda a: next(left) if a.dilation > 1 else 0
    return [next(left) * a.dilation + image(a) for a in along]


def inside(place, size, along, number, s: Stmt) -> Stmt:
    """`s` where a result of a tile, of this number, exists: the last tiles may be cut off."""
    unsure = [compare("lt", i, as_expr(d)) for i, d, a, k in zip(place, size, along, number)
              if not _is_whole(d, a, k)]  # fmt: skip
    return If(all_of(unsure), s) if unsure else s


def _is_whole(size: Dim, a: Along, number: int) -> bool:
    """Whether every tile has a result of this number."""
    rest = as_dim(as_expr(size) % (a.tile * a.dilation))  # of the last tiles of all images
    return isinstance(rest, int) and not 0 < rest < (number + 1) * a.dilation


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

    def both(self, high: Matrix, wide: Matrix, values: list[list[Expr]]) -> list[list[Expr]]:
        """high @ values @ wide', the results not yet named."""
        over, across = steps_of(high), steps_of(wide)
        columns = [list(map(self.let, self.product(over, c))) for c in zip(*values)]
        return [self.product(across, row) for row in zip(*columns)]

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


def _reference(x, u, tile, window, size, stride, dilation=None):
    high, wide = algorithms(tile, window, stride, dilation)
    (back, _, into), (back_wide, _, into_wide) = (
        tuple(np.array(m, np.float64) for m in matrices(a)) for a in (high, wide)
    )
    whole = (1, *size)[-2:]
    rows, columns = high.tiles(whole[0]), wide.tiles(whole[1])
    exact = (x if x.ndim == 4 else x[:, None]).astype(np.float64)
    seen = lambda a, t: np.arange(a.reach) * a.dilation + a.first(as_expr(t)).value * a.stride
    d = np.array([[exact[:, seen(high, i)[:, None], seen(wide, j)]
                   for j in range(columns)] for i in range(rows)])  # fmt: skip
    d = d.reshape(rows, columns, x.shape[0], high.reach, wide.reach, x.shape[-1])
    v = np.einsum("pi,qj,rsnijc->pqrsnc", into, into_wide, d)
    u = u.reshape(len(u), -1, *u.shape[-2:]).astype(np.float64)
    m = np.empty((high.reach, wide.reach, rows, columns, x.shape[0], *u.shape[1::2]))
    for p, at in enumerate(points_of(high, wide)):
        taken = v[at].reshape(*v.shape[2:5], *u.shape[1:3])
        m[at] = np.einsum("rsngc,gco->rsngo", taken, u[weights_at(as_expr(p), high, wide).value])
    # tiles count by first place, then by image; results by first place, number in tile, image
    images = high.dilation, wide.dilation
    places = rows // images[0], images[0], columns // images[1], images[1]
    m = m.reshape(*m.shape[:2], *places, *m.shape[4:])
    y = np.einsum("ip,jq,pqrasbngo->nriasjbgo", back, back_wide, m)
    outputs = u.shape[1] * u.shape[3]
    y = y.reshape(x.shape[0], rows * high.tile, columns * wide.tile, outputs)
    return y[:, : whole[0], : whole[1]].reshape(len(x), *size, outputs).astype(x.dtype)


winograd = define(
    "winograd", "x, u", infer=_infer, reference=_reference, lower=_lower, dtypes=(f32,),
    samples=(
        "f32[1,6,6,3] f32[16,3,5] tile=(2,2) window=(3,3) size=(4,3) stride=(1,1)",
        "f32[2,6,10,4] f32[36,4,3] tile=(4,4) window=(3,3) size=(4,7) stride=(1,1)",
        "f32[1,10,6,2] f32[36,2,20] tile=(4,4) window=(3,3) size=(5,1) stride=(1,1)",
        "f32[1,6,6,6] f32[16,3,2,4] tile=(2,2) window=(3,3) size=(4,3) stride=(1,1)",
        "f32[2,(h+3)//4*4+2,10,4] f32[36,4,3] "
        "tile=(4,4) window=(3,3) size=(h,7) stride=(1,1) h=3,4",
        "f32[1,8,14,2] f32[64,2,3] tile=(6,6) window=(3,3) size=(6,8) stride=(1,1)",
        "f32[0,6,6,1] f32[36,1,1] tile=(4,4) window=(3,3) size=(4,4) stride=(1,1)",
        "f32[1,9,5,2] f32[16,2,3] tile=(2,2) window=(3,3) size=(3,2) stride=(2,2)",
        "f32[2,9,17,6] f32[36,3,2,4] tile=(4,4) window=(3,3) size=(4,7) stride=(2,2)",
        "f32[1,(h+3)//4*8+1,9,3] f32[36,3,4] "
        "tile=(4,4) window=(3,3) size=(h,3) stride=(2,2) h=2,5",
        "f32[2,10,4] f32[6,4,3] tile=(4,) window=(3,) size=(7,) stride=(1,)",
        "f32[1,(h+5)//6*6+2,3,4] f32[8,2,2,5] "
        "tile=(6,1) window=(3,1) size=(h,3) stride=(1,1) h=5,12",
        "f32[2,17,3] f32[6,3,4] tile=(4,) window=(3,) size=(7,) stride=(2,)",
        "f32[1,6,8,3] f32[36,3,4] tile=(2,2) window=(5,5) size=(2,3) stride=(1,1)",
        "f32[1,19,3] f32[11,3,4] tile=(4,) window=(5,) size=(7,) stride=(2,)",
        "f32[1,1,13,3] f32[13,3,4] tile=(1,4) window=(1,7) size=(1,4) stride=(1,2)",
        "f32[2,12,14,3] f32[24,3,4] tile=(2,4) window=(3,3) size=(7,9) stride=(1,1) "
        "dilation=(2,1)",
        "f32[1,(h+11)//12*12+6,8,2] f32[24,2,3] tile=(4,2) window=(3,3) size=(h,4) stride=(1,1) "
        "dilation=(3,2) h=5,13",
        "f32[2,32,3] f32[8,3,4] tile=(4,) window=(5,) size=(9,) stride=(1,) dilation=(4,)",
    ),
    doc="Channels-last convolution on tiles of results; x is padded, u transformed, its second of "
        "four dimensions, if it has four, counts groups of channels.",
)  # fmt: skip
