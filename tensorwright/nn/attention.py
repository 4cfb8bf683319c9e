"""Grouped-query attention with rotary positions, alone or over a cache in pages.

    y = Attention(width=64, heads=8, shared=2)(x, angles)        # all tokens are here
    y, cache = attention(x, angles, cache)                       # behind those of a cache

`angles` are cosines and sines for the positions of x (Su et al. 2021, "RoFormer").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend import array_api as tn
from tensorwright.frontend.array_reduce import apply
from tensorwright.frontend.tracer import dim_of
from tensorwright.ir.dtype import DType, f32
from tensorwright.nn.layers import Linear
from tensorwright.nn.module import Module
from tensorwright.ops import attention as at
from tensorwright.ops import caches


@dataclass(frozen=True)
class Cache:
    """The pages of all layers, and where the sequences at hand lie in them (see `ops/caches.py`).

    `held`: how many tokens the one sequence has, as a size; None if each brings one new token."""

    keys: object
    values: object
    table: object
    past: object
    held: object = None

    def append(self, layer, k, v) -> Cache:
        """The cache with new tokens [b, heads, s, depth] in a layer."""
        where = (self.table, self.past, layer)
        keys = apply(caches.page_write, self.keys, k, *where, transposed=True)
        return replace(self, keys=keys, values=apply(caches.page_write, self.values, v, *where))

    def read(self, layer, length):
        """Keys and values of the first tokens: [b, heads, length, depth]."""
        n = dim_of(length)
        keys = apply(caches.page_read, self.keys, self.table, layer, length=n, transposed=True)
        return keys, apply(caches.page_read, self.values, self.table, layer, length=n)


class Attention(Module):
    """heads: of the queries; shared: key and value heads, each for heads/shared neighbours. window:
    how many tokens a query sees, itself included; 0 for all before it."""

    def __init__(
        self, width: int, heads: int, shared: int = 0, depth: int = 0, bias: bool = False,
        out_bias: bool = False, window: int = 0, layer: int = 0, dtype: DType = f32,
    ) -> None:  # fmt: skip
        self.heads, self.shared, self.depth = heads, shared or heads, depth or width // heads
        self.window, self.layer = window, layer
        inner = self.shared * self.depth
        self.q_proj = Linear(width, heads * self.depth, bias, dtype)
        self.k_proj = Linear(width, inner, bias, dtype)
        self.v_proj = Linear(width, inner, bias, dtype)
        self.o_proj = Linear(heads * self.depth, width, out_bias, dtype)

    def forward(self, x, angles=None, cache: Cache | None = None):
        b, s, _ = x.shape
        split = lambda t, n: tn.permute_dims(tn.reshape(t, (b, s, n, self.depth)), (0, 2, 1, 3))
        q = rotate(split(self.q_proj(x), self.heads), angles)
        k = rotate(split(self.k_proj(x), self.shared), angles)
        v = split(self.v_proj(x), self.shared)
        y, cache = self.attend(q, k, v, cache)
        y = self.o_proj(tn.reshape(tn.permute_dims(y, (0, 2, 1, 3)), (b, s, -1)))
        return y if cache is None else (y, cache)

    def attend(self, q, k, v, cache: Cache | None):
        left = self.window - 1 if self.window else -1
        if cache is None:
            return apply(at.attention, q, k, v, causal=True, window=(left, -1)), None
        layer = tn.asarray(np.int64(self.layer))
        cache = cache.append(layer, k, v)
        if cache.held is None:
            b, heads, _, depth = q.shape
            y = apply(caches.decode_attention, tn.reshape(q, (b, heads, depth)), cache.keys,
                      cache.values, cache.table, cache.past + 1, layer, window=left)  # fmt: skip
            return tn.reshape(y, (b, heads, 1, depth)), cache
        k, v = cache.read(layer, cache.held + q.shape[2])
        start = dim_of(cache.held)
        return apply(at.attention, q, k, v, causal=True, start=start, window=(left, -1)), cache


def rotate(x, angles):
    """x: [b, heads, s, depth] turned by the angles of its positions, [b, 1, s, depth / 2]."""
    return x if angles is None else apply(at.rotary_embedding, x, *angles)


def angle_tables(depth: int, length: int, theta: float, scaling: dict | None = None):
    """Cosines and sines f32[length, depth / 2] of all positions; computed in f32, as models are
    trained with."""
    step = np.arange(0, depth, 2, dtype=np.float32) / np.float32(depth)
    frequency = scaled(1.0 / np.float32(theta) ** step, scaling or {})
    angle = np.arange(length, dtype=np.float32)[:, None] * frequency.astype(np.float32)
    return np.cos(angle), np.sin(angle)


def scaled(frequency: np.ndarray, scaling: dict) -> np.ndarray:
    """Frequencies for longer texts than a model was first trained on."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return frequency
    if kind == "linear":
        return frequency / scaling["factor"]
    if kind == "llama3":  # slow ones are divided by the factor, fast ones kept, between: blended
        length, factor = scaling["original_max_position_embeddings"], scaling["factor"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = length * frequency / (2 * math.pi)
        part = np.clip((turns - low) / (high - low), 0, 1)
        return (1 - part) * frequency / factor + part * frequency
    raise FrontendError(f"rotary positions of type {kind!r} are not supported",
                        help="default, linear and llama3 are")  # fmt: skip
