"""Llama and its relatives: decoder transformers of any size, by configuration.

    model = Llama(LlamaConfig(vocab=512, width=64, inner=172, layers=5, heads=8, shared=4))
    program = tw.compile(model)
    token, logits, keys, values = program.prefill(tokens, past, table, keys, values, ...)
    token, logits, keys, values = program.decode(token, past, table, keys, values, ...)

One program, two entries that share the weights: `prefill` takes the tokens of one sequence, behind
what its cache holds already, `decode` one new token of each of several sequences. Both give the
next token. Parameters are named as in the files of the `transformers` library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend import array_api as tn
from tensorwright.ir.dtype import DType, f32, i32, i64, u64
from tensorwright.nn.attention import Attention, Cache, angle_tables
from tensorwright.nn.layers import Embedding, Linear, RMSNorm, SwiGLU
from tensorwright.nn.module import Module, entry
from tensorwright.nn.sampling import sample

STATE = ("keys", "values")


@dataclass(frozen=True)
class LlamaConfig:
    """vocab: tokens. width: of a token's vector; inner: of the feed-forward layer. heads: of the
    queries, of `depth` each; shared: of keys and values. window: see `Attention`, one a layer."""

    vocab: int
    width: int
    inner: int
    layers: int
    heads: int
    shared: int
    depth: int = 0
    epsilon: float = 1e-6
    theta: float = 10000.0
    scaling: dict = field(default_factory=dict)
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False  # the last layer is the embedding
    windows: tuple[int, ...] = ()

    @property
    def head_depth(self) -> int:
        return self.depth or self.width // self.heads


class Step(NamedTuple):
    """What an entry gives: the next token i64[b], its scores f32[b, vocab], and the cache."""

    token: object
    logits: object
    keys: object
    values: object


class TransformerBlock(Module):
    def __init__(self, c: LlamaConfig, layer: int, dtype: DType = f32) -> None:
        window = c.windows[layer] if c.windows else 0
        self.input_layernorm = RMSNorm(c.width, c.epsilon, dtype)
        self.self_attn = Attention(c.width, c.heads, c.shared, c.head_depth, c.qkv_bias, c.out_bias,
                                   window, layer, dtype)  # fmt: skip
        self.post_attention_layernorm = RMSNorm(c.width, c.epsilon, dtype)
        self.mlp = SwiGLU(c.width, c.inner, c.mlp_bias, dtype)

    def forward(self, x, angles, cache: Cache | None = None):
        y = self.self_attn(self.input_layernorm(x), angles, cache)
        y, cache = (y, None) if cache is None else y
        x = x + y
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x if cache is None else (x, cache)


class Llama(Module):
    """max_batch: sequences that `decode` takes at once. max_length: tokens that one may have, at
    most. page: tokens of a page of the cache."""

    def __init__(
        self, config: LlamaConfig, max_batch: int = 1, max_length: int = 2048, page: int = 16,
        dtype: DType = f32,
    ) -> None:  # fmt: skip
        c = self.config = config
        if c.heads % c.shared:
            raise FrontendError(f"{c.heads} query heads do not share {c.shared} key heads evenly")
        self.max_batch, self.page = max_batch, page
        self.max_length = -(-max_length // page) * page
        self.embed_tokens = Embedding(c.vocab, c.width, dtype)
        self.layers = [TransformerBlock(c, k, dtype) for k in range(c.layers)]
        self.norm = RMSNorm(c.width, c.epsilon, dtype)
        self.lm_head = None if c.tied else Linear(c.width, c.vocab, dtype=dtype)
        self.dtype = dtype
        self.tables = angle_tables(c.head_depth, self.max_length, c.theta, c.scaling)

    def forward(self, tokens):
        """Scores of the token behind each of [b, s]: f32[b, s, vocab]."""
        x = self.embed_tokens(tokens)
        angles = self.angles(tn.arange(tokens.shape[1])[None])
        for block in self.layers:
            x = block(x, angles)
        return self.scores(x)

    def scores(self, x):
        x = self.norm(x)
        return x @ tn.asarray(self.embed_tokens.weight).T if self.config.tied else self.lm_head(x)

    def angles(self, positions):
        """Cosines and sines [b, 1, s, depth / 2] for positions [b, s]."""
        at = tn.clip(positions, 0, self.max_length - 1)
        return [tn.take(tn.asarray(t), at, axis=0)[:, None].astype(self.dtype) for t in self.tables]

    # ---- entries -------------------------------------------------------------------------------

    def prefill(self, tokens, past, table, keys, values, temperature, top_k, top_p, key):
        """The token behind `tokens` i64[1, s], which follow `past` i64[1] tokens in the cache."""
        held = tn.size_from(past[0], name="held", max=self.max_length - 1)
        x, cache = self.run(tokens, Cache(keys, values, table, past, held))
        return self.results(x[:, -1:], cache, temperature, top_k, top_p, key)

    def decode(self, tokens, past, table, keys, values, temperature, top_k, top_p, key):
        """The token behind `tokens` i64[b], each the next of a sequence of `past` i64[b]."""
        x, cache = self.run(tokens[:, None], Cache(keys, values, table, past))
        return self.results(x, cache, temperature, top_k, top_p, key)

    def run(self, tokens, cache: Cache):
        x = self.embed_tokens(tokens)
        angles = self.angles(cache.past[:, None] + tn.arange(tokens.shape[1]))
        for block in self.layers:
            x, cache = block(x, angles, cache)
        return x, cache

    def results(self, x, cache: Cache, *sampling):
        logits = tn.reshape(self.scores(x), (x.shape[0], self.config.vocab)).astype(f32)
        return Step(sample(logits, *sampling), logits, cache.keys, cache.values)

    def tw_entries(self):
        self.named()
        prompt = i64[1, f"s[1..{self.max_length}]"]
        batch = 1 if self.max_batch == 1 else f"b[1..{self.max_batch}]"
        return {
            "prefill": entry(self.prefill, self.types(1, prompt), STATE),
            "decode": entry(self.decode, self.types(batch, i64[batch,]), STATE),
        }

    def types(self, batch, tokens) -> dict:
        c, d, page = self.config, self.config.head_depth, self.page
        pages = "pages[1..]"
        return {
            "tokens": tokens, "past": i64[batch,], "table": i32[batch, self.max_length // page],
            "keys": self.dtype[c.layers, pages, c.shared, d, page],
            "values": self.dtype[c.layers, pages, c.shared, page, d],
            "temperature": f32[batch,], "top_k": i64[batch,], "top_p": f32[batch,], "key": u64[2,],
        }  # fmt: skip

    def new_cache(self, pages: int) -> tuple[np.ndarray, np.ndarray]:
        """Empty keys and values for so many pages."""
        c, d = self.config, self.config.head_depth
        shape = (c.layers, pages, c.shared)
        return (np.zeros((*shape, d, self.page), self.dtype.numpy),
                np.zeros((*shape, self.page, d), self.dtype.numpy))  # fmt: skip
