"""The next token from its scores, inside the compiled program.

    token = sample(logits, temperature, top_k, top_p, key)      # f32[b, vocabulary] -> i64[b]

Nothing is sorted: the least score that top-k and top-p keep is found bit by bit, and the draw is
the greatest score after Gumbel noise (Gumbel 1954; Maddison et al. 2014), which is the same as
drawing from the softmax. Random bits depend on the key and the place in the batch only.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import array_api as tn
from tensorwright.frontend.array_control import cond, scan
from tensorwright.frontend.array_reduce import apply
from tensorwright.ir.dtype import f32, i32, i64, u32
from tensorwright.ops import elementwise as ew
from tensorwright.ops import random as rd

SIGN = np.uint32(1 << 31)
LEAST = np.float32(1e-8)  # of an exponential draw, so that its logarithm is finite


def sample(logits, temperature, top_k, top_p, key):
    """logits: f32[b, v]. For each of the batch: temperature f32[b] (0 takes the greatest score),
    top_k i64[b] (how many scores to keep, 0 for all; equal ones are kept together), top_p f32[b]
    (keep the greatest whose probabilities sum to it; 1 for all). key: u64[2], another for every
    draw. -> i64[b]"""
    logits = logits.astype(f32)
    return cond(
        tn.any(temperature > 0),
        lambda *xs: drawn(*xs),
        lambda x, *rest: greatest(x),
        logits, temperature, top_k, top_p, key,
    )  # fmt: skip


def drawn(logits, temperature, top_k, top_p, key):
    greedy = temperature <= 0
    x = logits / tn.where(greedy, 1.0, temperature)[:, None]
    kept = keep(x, top_k, top_p)
    u = apply(rd.uniform, key, shape=x.node.shape)
    noise = -tn.log(tn.maximum(-tn.log(u), LEAST))
    noisy = tn.where(greedy[:, None], logits, tn.where(kept, x + noise, -tn.inf))
    return greatest(noisy)


def greatest(x):
    """The first place of the greatest of each row, by two reductions that run on vectors."""
    v = x.shape[1]
    top = tn.max(x, axis=1, keepdims=True)
    places = tn.where(x >= top, tn.arange(v, dtype=i32)[None], v - 1)
    return tn.min(places, axis=1).astype(i64)


def keep(x, top_k, top_p):
    """Which scores the two limits leave, top-p counting within what top-k left."""
    v = x.shape[1]
    codes = ordered(x)
    wanted = tn.where(top_k > 0, top_k, v)
    least = threshold(codes, lambda above: tn.sum(above.astype(i64), axis=1) >= wanted)
    kept = codes >= least[:, None]
    weight = tn.where(kept, tn.exp(x - tn.max(x, axis=1, keepdims=True)), 0.0)
    enough = tn.maximum(top_p * tn.sum(weight, axis=1), LEAST)  # the greatest weighs 1, and stays
    masses = lambda above: tn.sum(tn.where(above, weight, 0.0), axis=1)
    least = threshold(codes, lambda above: (masses(above) >= enough) | (top_p >= 1))
    return kept & ((codes >= least[:, None]) | (top_p >= 1)[:, None])


def ordered(x):
    """f32 as u32 in the same order."""
    bits = apply(ew.bitcast, x, dtype=u32)
    return tn.where(bits >= SIGN, ~bits, bits | SIGN)


def threshold(codes, holds):
    """The greatest number for which `holds(codes >= number)`, which is true of 0, for each row."""
    bits = np.uint32(1) << np.arange(31, -1, -1, dtype=np.uint32)

    def step(found, bit):
        tried = found | bit
        return tn.where(holds(codes >= tried[:, None]), tried, found), None

    start = tn.zeros((codes.shape[0],), dtype=u32)
    return scan(step, start, tn.asarray(bits))[0]
