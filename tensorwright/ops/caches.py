"""Key/value caches in pages, and attention of one new token over them.

    keys: f32[layers, pages, heads, depth, page]      values: f32[layers, pages, heads, page, depth]
    table: i32[b, m]      the pages of each sequence, in order;      past: i64[b]      its tokens

A page holds `page` tokens of one sequence, for all heads of a layer: sequences of any length share
one memory without gaps (Kwon et al. 2023, "Efficient memory management for large language model
serving with PagedAttention"). Keys lie with their tokens along the last axis, so that scores are
computed for a vector of tokens at a time. `layer` is an operand, so that all layers share a kernel.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import FLOATS, INTEGERS, f32, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_dim,
    as_expr,
    cast,
    ceildiv,
    compare,
    const,
    fma,
    maximum,
    minimum,
    select,
    sym,
    unary,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, For, Let, Stmt, loop, loops, seq, store
from tensorwright.ir.type import Dim, TensorType, dim_text, shape_of
from tensorwright.ops.define import compute, define, require, same_dtype


def _check_cache(op: str, cache: TensorType, table: TensorType, layer: TensorType) -> None:
    require(cache.rank == 5, f"{op}: the cache is {cache}; it must be [layers, pages, heads, ...]")
    require(table.rank == 2 and table.dtype in INTEGERS,
            f"{op}: the table is {table}; it must be integers, [batch, pages]")  # fmt: skip
    require(layer.rank == 0 and layer.dtype in INTEGERS, f"{op}: the layer is {layer}")


def _check_counts(op: str, counts: TensorType, table: TensorType) -> None:
    require(counts.dtype in INTEGERS and counts.shape == table.shape[:1],
            f"{op}: {counts} are not one for each sequence of {table}")  # fmt: skip


def _clamped(e: Expr, extent: Dim) -> Expr:
    """A computed subscript, kept inside so that a wrong table reads wrong numbers, never wrong
    memory."""
    return minimum(maximum(cast(e, index), 0), as_expr(extent) - 1)


# ---- writing and reading -----------------------------------------------------------------------


def _infer_write(cache, rows, table, past, layer, *, transposed: bool = False) -> TensorType:
    op = "page_write"
    _check_cache(op, cache, table, layer)
    _check_counts(op, past, table)
    same_dtype(op, cache, rows)
    heads, *page = cache.shape[2:]
    depth = page[0] if transposed else page[1]
    require(rows.rank == 4 and rows.shape[:2] == (table.shape[0], heads) and rows.shape[3] == depth,
            f"{op}: the rows are {rows}; they must be [{dim_text(table.shape[0])}, "
            f"{dim_text(heads)}, tokens, {dim_text(depth)}]")  # fmt: skip
    return cache


def _lower_write(out: Buffer, cache: Buffer, rows: Buffer, table: Buffer, past: Buffer,
                 layer: Buffer, *, transposed: bool) -> Stmt:  # fmt: skip
    size = cache.shape[4 if transposed else 3]

    def update(b: Expr, t: Expr, g: Expr, d: Expr) -> Stmt:
        at = cast(past[b], index) + t
        page = _clamped(table[b, _clamped(at // size, table.shape[1])], cache.shape[1])
        place = (d, at % size) if transposed else (at % size, d)
        return store(out, (_clamped(layer[()], cache.shape[0]), page, g, *place), rows[b, g, t, d])

    b, g, t, d = rows.shape
    return seq(compute(out, lambda *i: cache[i]), loops("btgd", (b, t, g, d), update))


def _reference_write(cache, rows, table, past, layer, transposed=False):
    cache = cache.copy()
    size = cache.shape[4 if transposed else 3]
    for b in range(rows.shape[0]):
        for t in range(rows.shape[2]):
            at = int(past[b]) + t
            page = cache[int(layer), int(table[b, min(at // size, table.shape[1] - 1)])]
            if transposed:
                page[:, :, at % size] = rows[b, :, t]
            else:
                page[:, at % size] = rows[b, :, t]
    return cache


page_write = define(
    "page_write", "cache, rows, table, past, layer", infer=_infer_write, lower=_lower_write,
    reference=_reference_write,
    samples=("f32[2,3,2,4,8] f32[2,2,1,8] i32[2,1]@0:2 i64[2]@0:3 i64[]@0:1",
             "f32[2,3,2,8,4] f32[1,2,s,8] i32[1,2]@0:2 i64[1]@0:3 i64[]@1:1 transposed=True s=1,3"),
    doc="A cache with tokens of each sequence written behind those that it has.",
)  # fmt: skip


def _infer_read(cache, table, layer, *, length: Dim, transposed: bool = False) -> TensorType:
    _check_cache("page_read", cache, table, layer)
    depth = cache.shape[3] if transposed else cache.shape[4]
    return TensorType(cache.dtype, shape_of((table.shape[0], cache.shape[2], length, depth)))


def _lower_read(out: Buffer, cache: Buffer, table: Buffer, layer: Buffer, *, length,
                transposed: bool) -> Stmt:  # fmt: skip
    size = cache.shape[4 if transposed else 3]

    def element(b: Expr, g: Expr, t: Expr, d: Expr) -> Expr:
        page = _clamped(table[b, _clamped(t // size, table.shape[1])], cache.shape[1])
        place = (d, t % size) if transposed else (t % size, d)
        return cache[(_clamped(layer[()], cache.shape[0]), page, g, *place)]

    return compute(out, element)


def _reference_read(cache, table, layer, length, transposed=False):
    pages = cache[int(layer)][table]  # b, m, heads, ...
    pages = pages.swapaxes(3, 4) if transposed else pages
    b, m, g, size, d = pages.shape
    return pages.transpose(0, 2, 1, 3, 4).reshape(b, g, m * size, d)[:, :, :length].copy()


page_read = define(
    "page_read", "cache, table, layer", infer=_infer_read, lower=_lower_read,
    reference=_reference_read, once=True,
    samples=("f32[2,3,2,4,8] i32[2,2]@0:2 i64[]@0:1 length=5",
             "f32[2,3,2,8,4] i32[1,2]@0:2 i64[]@0:1 length=n transposed=True n=1,8"),
    doc="The first tokens of each sequence from a cache: [batch, heads, length, depth].",
)  # fmt: skip


# ---- attention ---------------------------------------------------------------------------------


def _infer_decode(q, keys, values, table, lengths, layer, *, scale: float = 0.0, window: int = -1
                  ) -> TensorType:  # fmt: skip
    op = "decode_attention"
    _check_cache(op, keys, table, layer)
    _check_counts(op, lengths, table)
    same_dtype(op, q, keys, values)
    layers, pages, heads, depth, size = keys.shape
    require(values.shape == (layers, pages, heads, size, depth),
            f"{op}: the keys are {keys}, the values {values}; the last two dimensions of the one "
            "are those of the other, exchanged")  # fmt: skip
    require(q.rank == 3 and q.shape[0] == table.shape[0] and q.shape[2] == depth,
            f"{op}: q is {q}; it must be [batch, heads, {dim_text(depth)}]")  # fmt: skip
    static = all(isinstance(d, int) for d in (q.shape[1], heads, depth, size))
    require(static and q.shape[1] % heads == 0,
            f"{op}: {dim_text(q.shape[1])} query heads do not share {dim_text(heads)} key heads "
            "evenly, or a page has no fixed size")  # fmt: skip
    return q


LOWEST = const(-math.inf, f32)
ZERO = const(0.0, f32)


def _lower_decode(
    out: Buffer,
    q: Buffer,
    keys: Buffer,
    values: Buffer,
    table: Buffer,
    lengths: Buffer,
    layer: Buffer,
    *,
    scale: float,
    window: int,
) -> Stmt:
    return loops("bg", (q.shape[0], keys.shape[2]), lambda b, g: _Heads(
        out, q, keys, values, b, g, scale or 1 / math.sqrt(q.shape[2]), window
    ).row(table, lengths, layer))  # fmt: skip


class _Heads:
    """The query heads of one sequence that share a key head `g`, page by page, with a running
    maximum and sum (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax").
    Scores are kept in f32."""

    def __init__(self, out, q, keys, values, b: Expr, g: Expr, scale: float, window: int) -> None:
        self.out, self.q, self.keys, self.values = out, q, keys, values
        self.b, self.g, self.scale, self.window = b, g, scale, window
        _, self.pages, heads, self.depth, self.size = keys.shape
        self.group = q.shape[1] // heads
        private = lambda name, *shape: Buffer(name, f32, (self.group, *shape), "local", 64)
        self.scores, self.sums = private("scores", self.size), private("sums", self.depth)
        self.old = private("old", self.depth)
        self.top, self.total, self.shrink, self.best, self.part = map(
            private, ("top", "total", "shrink", "best", "part")
        )
        self.n, self.first = Symbol("n", min=0), Symbol("first", min=0)
        self.page, self.layer = Symbol("page", min=0), Symbol("layer", min=0)

    def rows(self, f) -> Stmt:
        return loop("r", self.group, f)

    def cached(self, b: Buffer, *i: Expr) -> Expr:
        return cast(b[(sym(self.layer), sym(self.page), self.g, *i)], f32)

    def row(self, table: Buffer, lengths: Buffer, layer: Buffer) -> Stmt:
        n, held = sym(self.n), as_dim(as_expr(table.shape[1]) * self.size)
        begin = maximum(n - 1 - self.window, 0) // self.size if self.window >= 0 else const(0)
        count = ceildiv(n, self.size) - sym(self.first)
        p = ir.loop_symbol("p", sym(self.first), count)
        fill = lambda b, value: compute(b, lambda *i: value)
        own = (self.scores, self.top, self.total, self.shrink, self.sums, self.old, self.best,
               self.part)  # fmt: skip
        return seq(
            *map(Alloc, own),
            Let(self.n, minimum(maximum(cast(lengths[self.b], index), 0), held)),
            Let(self.layer, _clamped(layer[()], self.keys.shape[0])),
            Let(self.first, begin),
            fill(self.top, LOWEST), fill(self.total, ZERO), fill(self.sums, ZERO),
            For(p, sym(self.first), count, seq(
                Let(self.page, _clamped(table[self.b, sym(p)], self.pages)),
                *self.score(sym(p)), *self.renormalize(), *self.add())),
            compute(self.total, lambda r: select(
                compare("eq", self.total[(r,)], ZERO), const(1.0, f32), self.total[(r,)])),
            loops("rd", (self.group, self.depth), self.finish),
        )  # fmt: skip

    def score(self, p: Expr) -> tuple[Stmt, ...]:
        """q k' of the tokens of a page; -inf for those that are not to be seen."""
        s, q = self.scores, lambda r, d: cast(self.q[self.b, self.g * self.group + r, d], f32)
        n, position = sym(self.n), lambda j: p * self.size + j

        def visible(r: Expr, j: Expr) -> Expr:
            x = select(compare("lt", position(j), n), s[r, j] * const(self.scale, f32), LOWEST)
            if self.window < 0:
                return x
            return select(compare("le", n - 1 - self.window, position(j)), x, LOWEST)

        return (
            loops("rj", s.shape, lambda r, j: seq(
                store(s, (r, j), ZERO),
                loop("d", self.depth, lambda d: store(s, (r, j), fma(
                    q(r, d), self.cached(self.keys, d, j), s[r, j]))))),
            compute(s, visible),
        )  # fmt: skip

    def renormalize(self) -> tuple[Stmt, ...]:
        """Scores become exponentials below the largest so far; `shrink` is what that does to sums
        made before."""
        s, top, best, part, shrink = self.scores, self.top, self.best, self.part, self.shrink
        return (
            self.rows(lambda r: seq(store(best, (r,), LOWEST), loop("j", self.size, lambda j: store(
                best, (r,), maximum(best[(r,)], s[r, j]))))),
            compute(best, lambda r: maximum(best[(r,)], top[(r,)])),
            compute(shrink, lambda r: unary("exp", top[(r,)] - best[(r,)])),
            compute(top, lambda r: best[(r,)]),
            compute(s, lambda r, j: unary("exp", s[r, j] - top[(r,)])),
            self.rows(lambda r: seq(store(part, (r,), ZERO), loop("j", self.size, lambda j: store(
                part, (r,), part[(r,)] + s[r, j])))),
            compute(self.total, lambda r: fma(self.total[(r,)], shrink[(r,)], part[(r,)])),
        )  # fmt: skip

    def add(self) -> tuple[Stmt, ...]:
        """sums = sums * shrink + scores v."""
        s, y = self.scores, self.sums
        return (
            compute(self.old, lambda r, d: y[r, d] * self.shrink[(r,)]),
            loops("rd", y.shape, lambda r, d: seq(
                store(y, (r, d), self.old[r, d]),
                loop("j", self.size, lambda j: store(y, (r, d), fma(
                    s[r, j], self.cached(self.values, j, d), y[r, d]))))),
        )  # fmt: skip

    def finish(self, r: Expr, d: Expr) -> Stmt:
        value = cast(self.sums[r, d] / self.total[(r,)], self.out.dtype)
        return store(self.out, (self.b, self.g * self.group + r, d), value)


def _reference_decode(q, keys, values, table, lengths, layer, scale=0.0, window=-1):
    k = _reference_read(keys, table, layer, table.shape[1] * keys.shape[4], True)
    v = _reference_read(values, table, layer, table.shape[1] * keys.shape[4])
    per, depth = q.shape[1] // k.shape[1], q.shape[2]
    q64, k, v = (t.astype(np.float64) for t in (q, np.repeat(k, per, 1), np.repeat(v, per, 1)))
    scores = np.einsum("bhd,bhnd->bhn", q64, k) * (scale or 1 / math.sqrt(depth))
    place, n = np.arange(k.shape[2]), np.clip(lengths, 0, k.shape[2])[:, None]
    keep = place < n
    keep = keep & (place >= n - 1 - window) if window >= 0 else keep
    scores = np.where(keep[:, None], scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=-1, keepdims=True)
    y = np.einsum("bhn,bhnd->bhd", e / np.where(total == 0, 1, total), v)
    return y.astype(q.dtype)


decode_attention = define(
    "decode_attention", "q, keys, values, table, lengths, layer", infer=_infer_decode,
    lower=_lower_decode, reference=_reference_decode, dtypes=FLOATS,
    samples=("f32[2,4,8] f32[2,3,2,8,4] f32[2,3,2,4,8] i32[2,2]@0:2 i64[2]@0:8 i64[]@0:1",
             "f32[b,2,16] f32[1,3,2,16,16] f32[1,3,2,16,16] i32[b,2]@0:2 i64[b]@1:32 i64[]@0:0 "
             "b=1,3",
             "f32[3,6,4] f32[2,4,2,4,8] f32[2,4,2,8,4] i32[3,3]@0:3 i64[3]@0:24 i64[]@1:1 "
             "window=5 scale=0.3"),
    doc="softmax(q keys' scale) values over the tokens that each sequence has in a cache.",
)  # fmt: skip
