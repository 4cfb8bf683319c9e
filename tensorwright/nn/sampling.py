"""The next token from its scores, inside the compiled program.

    token = sample(logits, temperature, top_k, top_p, key)      # f32[b, vocabulary] -> i64[b]

Nothing is sorted, and one number for every token is all that is held: how far its score lies below
the greatest, and then, in the same memory, its weight. The limits of top-k and top-p are found bit
by bit, as floats that are not negative have the order of their bits; so is the token, the first
whose weight and those before it exceed a random share of all. Random bits depend on the key and the
place in the batch only.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import array_api as tn
from tensorwright.frontend.array_control import cond, scan
from tensorwright.frontend.array_reduce import apply
from tensorwright.ir.dtype import f32, i32, i64, u32
from tensorwright.ops import elementwise as ew
from tensorwright.ops import random as rd

COLDEST = np.finfo(np.float32).tiny  # a temperature at which all but the greatest weigh nothing
ALL = np.uint32(0xFFFFFFFF)  # no float comes behind it
WHOLE = np.float32(1).view(np.uint32)  # the order of the greatest weight


def sample(logits, temperature, top_k, top_p, key):
    """logits: f32[b, v]. For each of the batch: temperature f32[b] (0 takes the first of the
    greatest scores), top_k i64[b] (how many scores to keep, 0 for all; equal ones are kept
    together), top_p f32[b] (keep the greatest whose probabilities sum to it; 1 for all). key:
    u64[2], another for every draw. -> i64[b]"""
    logits = logits.astype(f32)
    top = tn.max(logits, axis=1)
    return cond(
        tn.any(temperature > 0),
        lambda *xs: drawn(*xs),
        lambda x, top, *rest: first(x >= top[:, None]),
        logits, top, temperature, top_k, top_p, key,
    )  # fmt: skip


def drawn(logits, top, temperature, top_k, top_p, key):
    warm = temperature > 0
    weights = weighed(logits, top, tn.where(warm, temperature, COLDEST), top_k)
    u = apply(rd.uniform, key, shape=temperature.node.shape)
    weights = at_least(weights, least_weight(weights, top_p))
    return choice(weights, tn.where(warm, u, 0.0))


def first(found):
    """The first place of each row at which `found` holds."""
    v = found.shape[1]
    return tn.min(tn.where(found, places(v), v - 1), axis=1).astype(i64)


def places(v):
    return tn.arange(v, dtype=i32)[None]


def weighed(logits, top, temperature, top_k):
    """exp of the scores over the temperature that top-k leaves, 1 for the greatest; 0 for the
    others."""
    below = (top[:, None] - logits) / temperature[:, None]
    farthest = cond(
        tn.any(top_k > 0), kth_least, lambda x, k: tn.full_like(k, ALL, dtype=u32), below, top_k
    )
    return tn.where(order(below) <= farthest[:, None], tn.exp(-below), 0.0)


def kth_least(x, k):
    """The order of the k-th least of each row; of no float for a k of 0."""
    fewer = lambda tried: tn.sum((order(x) < tried[:, None]).astype(i64), axis=1) < k
    return tn.where(k > 0, greatest(fewer, x.shape[0], 31), ALL)


def least_weight(weights, top_p):
    """The order of the least weight of each row that top-p keeps, of those that are left."""
    return cond(tn.any(top_p < 1), nucleus, lambda w, p: order(tn.zeros_like(p)), weights, top_p)


def nucleus(weights, top_p):
    wanted = top_p * tn.sum(weights, axis=1)
    enough = lambda tried: tn.sum(at_least(weights, tried), axis=1) >= wanted
    found = tn.minimum(greatest(enough, weights.shape[0], 30), WHOLE)
    return tn.where(top_p < 1, found, np.uint32(0))


def at_least(weights, least):
    """The weights of an order no less than `least` u32[b], 0 for the others."""
    return tn.where(order(weights) >= least[:, None], weights, 0.0)


def choice(weights, share):
    """The first place of each row whose weight and those before it exceed a share of all."""
    v = weights.shape[1]
    at = places(v).astype(u32)
    wanted = share * tn.sum(weights, axis=1)
    last = tn.max(tn.where(weights > 0, at, np.uint32(0)), axis=1)  # sums may round below the share

    def before(tried):
        mass = tn.sum(tn.where(at < tried[:, None], weights, 0.0), axis=1)
        return (tried <= last) & (mass <= wanted)

    return greatest(before, weights.shape[0], v.bit_length()).astype(i64)


def order(x):
    """f32 that is not negative as u32 in the same order."""
    return apply(ew.bitcast, x, dtype=u32)


def greatest(holds, rows, bits):
    """The greatest number of so many bits for which `holds`, for each row; it holds of all less."""

    def step(found, bit):
        tried = found | bit
        return tn.where(holds(tried), tried, found), None

    steps = np.uint32(1) << np.arange(bits - 1, -1, -1, dtype=np.uint32)
    return scan(step, tn.zeros((rows,), dtype=u32), tn.asarray(steps))[0]
