"""Counting sequences of numbers in a text of numbers, as `TfIdfVectorizer` does.

    ngram_counts(x, grams=((1, 2), (5, 6)), columns=(0, 1), width=2)

A gram of n items is looked for at every place of a row, with its items `skip` + 1 apart for every
skip up to `skips`; a gram of one item is counted once.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import INTEGERS, f32
from tensorwright.ir.expr import as_dim, as_expr, bounds
from tensorwright.ir.expr import maximum as max_expr
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import TensorType
from tensorwright.ops.define import define, require, scalar_like
from tensorwright.ops.elementwise import add, cast, equal, greater, logical_and, mul, select
from tensorwright.ops.index import full, scatter_axis
from tensorwright.ops.movement import reshape, slice_axis
from tensorwright.ops.reduce import reduce_sum

MODES = ("TF", "IDF", "TFIDF")


def _infer(
    x: TensorType, *, grams=(), columns=(), width=1, skips=0, mode="TF", weights=()
) -> TensorType:  # fmt: skip
    op = "ngram_counts"
    require(x.dtype in INTEGERS, f"{op}: x is {x.dtype}; words must be numbers")
    require(1 <= x.rank <= 2, f"{op}: x is {x}; it must be [words] or [batch, words]")
    require(mode in MODES, f"{op}: mode {mode!r} is not one of {', '.join(MODES)}")
    require(len(grams) == len(columns), f"{op}: {len(grams)} grams have {len(columns)} columns")
    return TensorType(f32, (*x.shape[:-1], width))


def _reference(x, grams=(), columns=(), width=1, skips=0, mode="TF", weights=()):
    rows = x.reshape(-1, x.shape[-1])
    counts = np.zeros((len(rows), width))
    for gram, column in zip(grams, columns):
        for gap in range(1, 2 if len(gram) == 1 else skips + 2):
            for start in range(rows.shape[1] - gap * (len(gram) - 1)):
                counts[:, column] += (rows[:, start : start + gap * len(gram) : gap][:, : len(gram)]
                                      == gram).all(axis=1)  # fmt: skip
    by_column = _weights(columns, width, weights)
    if mode == "IDF":
        counts = (counts > 0) * by_column
    elif mode == "TFIDF":
        counts = counts * by_column
    return counts.reshape(*x.shape[:-1], width).astype(np.float32)


def _weights(columns, width: int, weights) -> np.ndarray:
    found = np.ones(width, np.float32)
    if weights:
        found[: len(weights)] = weights
    return found


def _expand(x, *, grams, columns, width, skips, mode, weights):
    rows = reshape(x, shape=(1, *x.shape)) if x.rank == 1 else x
    total = full(shape=(rows.shape[0], width), value=0, dtype=f32)
    for size in sorted({len(g) for g in grams}):
        chosen = [k for k, g in enumerate(grams) if len(g) == size]
        pool = np.array([grams[k] for k in chosen], x.dtype.numpy)
        found = None
        for gap in range(1, 2 if size == 1 else skips + 2):
            hits = _hits(rows, pool, gap)
            if hits is not None:
                found = hits if found is None else add(found, hits)
        if found is not None:
            at = constant(np.array([columns[k] for k in chosen], np.int64))
            total = scatter_axis(total, at, found, axis=1, mode="add")
    by_column = constant(_weights(columns, width, weights))
    if mode == "IDF":
        total = select(greater(total, 0.0), by_column, scalar_like(total, 0))
    elif mode == "TFIDF":
        total = mul(total, by_column)
    return reshape(total, shape=(*x.shape[:-1], width))


def _hits(rows: Node, pool: np.ndarray, gap: int) -> Node | None:
    """How often each row of `pool` stands in each row, its items `gap` apart: f32[rows, pool]."""
    grams, size = pool.shape
    places = as_dim(max_expr(as_expr(rows.shape[1]) - gap * (size - 1), 0))
    if bounds(as_expr(places))[1] == 0:
        return None
    same = None
    for k in range(size):
        part = slice_axis(rows, 1, k * gap, as_dim(as_expr(places) + k * gap))
        part = reshape(part, shape=(rows.shape[0], 1, places))
        item = constant(np.ascontiguousarray(pool[:, k].reshape(grams, 1)))
        met = equal(part, item)
        same = met if same is None else logical_and(same, met)
    return reduce_sum(cast(same, dtype=f32), axes=(2,))


ngram_counts = define(
    "ngram_counts", "x", infer=_infer, reference=_reference, expand=_expand,
    samples=("i32[12]@0:3 grams=((1,),(2,),(1,2),(3,0)) columns=(0,2,1,3) width=4",
             "i64[3,9]@0:2 grams=((0,1),(1,1),(2,0,1)) columns=(2,0,1) width=3 skips=2",
             "i64[2,6]@0:1 grams=((0,),(0,1)) columns=(0,1) width=2 mode=TFIDF weights=(2.0,3.0)",
             "i64[2,6]@0:3 grams=((0,),(0,1)) columns=(0,1) width=2 mode=IDF weights=(2.0,3.0)",
             "i64[4]@0:1 grams=((0,1,1,0,1),) columns=(0,) width=1"),
    doc="How often each of a set of n-grams occurs in rows of numbers.",
)  # fmt: skip
