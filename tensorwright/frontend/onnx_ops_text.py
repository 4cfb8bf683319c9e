"""ONNX TfIdfVectorizer over integer tokens: counting the n-grams of a fixed pool.

An n-gram with skip s at position i is x[i], x[i + s + 1], x[i + 2 (s + 1)] ...; windows of x are
compared with every n-gram of the pool of that length, and the hits are summed.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Floats, Ints, Strings, converter
from tensorwright.frontend.onnx_ops_recurrent import part
from tensorwright.ir.graph import Node, constant

MODES = ("TF", "IDF", "TFIDF")


def grams_of(c: Call, pool: Ints, counts: Ints) -> dict[int, tuple[int, np.ndarray]]:
    """length -> (index of its first n-gram, the n-grams [count, length])."""
    if list(counts) != sorted(counts) or not counts or counts[0] != 0 or counts[-1] > len(pool):
        raise c.fail(f"ngram_counts is {list(counts)} for a pool of {len(pool)}")
    found, first = {}, 0
    for length, (begin, end) in enumerate(zip(counts, (*counts[1:], len(pool))), 1):
        if (end - begin) % length:
            raise c.fail(f"{end - begin} tokens do not make n-grams of {length}")
        grams = np.array(pool[begin:end], np.int64).reshape(-1, length)
        found[length] = (first, grams)
        first += len(grams)
    return found


def hits(x: Node, grams: np.ndarray, skip: int) -> Node | None:
    """How often each n-gram occurs in each row of x[rows, tokens]: f32[rows, grams]."""
    rows, tokens = x.shape
    length, stride = grams.shape[1], skip + 1
    places = tokens - (length - 1) * stride
    if places <= 0 or not len(grams):
        return None
    found = None
    for k in range(length):
        window = part(x, 1, k * stride, k * stride + places)
        window = ops.reshape(window, shape=(rows, places, 1))
        same = ops.equal(window, constant(grams[:, k].astype(x.dtype.numpy)))
        found = same if found is None else ops.logical_and(found, same)
    return ops.reduce_sum(ops.cast(found, dtype="f32"), axes=(1,))


@converter("TfIdfVectorizer", since=9)
def tf_idf_vectorizer(
    c: Call, x: Node, *, max_gram_length: int, max_skip_count: int, min_gram_length: int,
    mode: str, ngram_counts: Ints, ngram_indexes: Ints, pool_int64s: Ints = (),
    pool_strings: Strings = (), weights: Floats = (),
) -> Node:  # fmt: skip
    if pool_strings or not pool_int64s or not x.dtype.is_integer:
        raise c.fail("only integer tokens are supported")
    if mode not in MODES or x.rank not in (1, 2) or not isinstance(x.shape[-1], int):
        raise c.fail(f"mode {mode!r} on {x.type} is not supported")
    pools = grams_of(c, pool_int64s, ngram_counts)
    total = sum(len(g) for _, g in pools.values())
    if len(ngram_indexes) != total or (weights and len(weights) != total) or total == 0:
        raise c.fail(f"{total} n-grams, {len(ngram_indexes)} indexes, {len(weights)} weights")
    if min(ngram_indexes) < 0 or max_gram_length - min_gram_length > 64 or max_skip_count > 1024:
        raise c.fail("its attributes are out of range")
    rows = ops.reshape(x, shape=(1, *x.shape)) if x.rank == 1 else x
    columns: list[Node | None] = [None] * len(pools)
    for k, (length, (_, grams)) in enumerate(pools.items()):
        if not min_gram_length <= length <= max_gram_length:
            continue
        skips = range(1 if length == 1 else max_skip_count + 1)
        for n in filter(None, (hits(rows, grams, s) for s in skips)):
            columns[k] = n if columns[k] is None else ops.add(columns[k], n)
    empty = lambda count: ops.full(shape=(rows.shape[0], count), value=0, dtype="f32")
    counts = [empty(len(g)) if n is None else n
              for n, (_, g) in zip(columns, pools.values()) if len(g)]  # fmt: skip
    whole = counts[0] if len(counts) == 1 else ops.concat(*counts, axis=1)
    if mode == "IDF":
        whole = ops.cast(ops.greater(whole, 0.0), dtype="f32")
    if mode != "TF" and weights:
        whole = ops.mul(whole, constant(np.array(weights, np.float32)))
    y = placed(whole, ngram_indexes)
    return ops.reshape(y, shape=y.shape[1:]) if x.rank == 1 else y


def placed(counts: Node, indexes: Ints) -> Node:
    """Column k of `counts` as column indexes[k] of the result."""
    width = max(indexes) + 1
    source = np.full(width, counts.shape[1], np.int64)
    source[list(indexes)] = np.arange(len(indexes))
    zeros = ops.full(shape=(counts.shape[0], 1), value=0, dtype="f32")
    return ops.gather(ops.concat(counts, zeros, axis=1), constant(source), axis=1)
