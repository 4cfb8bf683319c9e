"""Sequence models of the zoo: a 2-layer LSTM classifier, a Llama-style decoder, Wav2Vec2.

The decoder is written out: rotary embedding, RMSNorm, grouped-query attention and SwiGLU over a
key/value cache given and returned as stacked tensors. Prefill starts from an empty past, decode
appends one token.
"""

from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from benchmarks.nets.seeding import Net, noise, seeded, tokens
from benchmarks.nets.text import Hidden


class LSTMClassifier(nn.Module):
    """Embedding, stacked LSTM, last state, linear head."""

    def __init__(self, vocab: int, width: int, hidden: int, classes: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(input_ids))
        return self.head(states[:, -1])


def lstm2(small: bool = False) -> Net:
    vocab, width, hidden, length = (100, 16, 24, 8) if small else (10_000, 256, 512, 128)
    module = seeded(lambda: LSTMClassifier(vocab, width, hidden, 5))
    return Net(module, {"input_ids": tokens(vocab, 1, length)}, ("logits",))


@dataclass(frozen=True)
class DecoderSizes:
    vocab: int = 16_000
    width: int = 1024
    layers: int = 8
    heads: int = 16
    kv_heads: int = 4
    ffn: int = 2816

    @property
    def head(self) -> int:
        return self.width // self.heads


SMALL = DecoderSizes(vocab=96, width=64, layers=2, heads=4, kv_heads=2, ffn=96)


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin


class DecoderLayer(nn.Module):
    """Pre-norm attention with shared key/value heads, then SwiGLU."""

    def __init__(self, sizes: DecoderSizes):
        super().__init__()
        self.sizes = sizes
        width, kv = sizes.width, sizes.kv_heads * sizes.head
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = nn.Linear(width, kv, bias=False), nn.Linear(width, kv, bias=False)
        self.gate = nn.Linear(width, sizes.ffn, bias=False)
        self.up = nn.Linear(width, sizes.ffn, bias=False)
        self.down = nn.Linear(sizes.ffn, width, bias=False)

    def forward(self, x, cos, sin, mask, past) -> tuple[Tensor, Tensor, Tensor]:
        attended, keys, values = self.attend(self.norm1(x), cos, sin, mask, past)
        x = x + attended
        y = self.norm2(x)
        return x + self.down(silu(self.gate(y)) * self.up(y)), keys, values

    def attend(self, x, cos, sin, mask, past) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        split = lambda t, heads: t.view(batch, length, heads, self.sizes.head).transpose(1, 2)
        query = rotate(split(self.q(x), self.sizes.heads), cos, sin)
        key = rotate(split(self.k(x), self.sizes.kv_heads), cos, sin)
        value = split(self.v(x), self.sizes.kv_heads)
        keys, values = key, value
        if past is not None:
            keys, values = (torch.cat(pair, 2) for pair in zip(past, (key, value)))
        shared = self.sizes.heads // self.sizes.kv_heads
        spread = lambda t: t.repeat_interleave(shared, 1)
        out = scaled_dot_product_attention(query, spread(keys), spread(values), attn_mask=mask)
        return self.o(out.transpose(1, 2).reshape(batch, length, -1)), keys, values


class Decoder(nn.Module):
    """Tokens and stacked past to logits and stacked present."""

    def __init__(self, sizes: DecoderSizes):
        super().__init__()
        self.embed = nn.Embedding(sizes.vocab, sizes.width)
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.layers))
        self.norm = RMSNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.vocab, bias=False)
        exponent = torch.arange(0, sizes.head, 2).float() / sizes.head
        self.register_buffer("frequency", 10_000.0**-exponent)

    def forward(self, input_ids: Tensor, past_k=None, past_v=None) -> tuple[Tensor, ...]:
        start, length = 0 if past_k is None else past_k.shape[3], input_ids.shape[1]
        position = torch.arange(start, start + length)
        angle = torch.outer(position.float(), self.frequency)
        angle = torch.cat([angle, angle], -1)
        mask = torch.arange(start + length)[None, :] <= position[:, None]
        x, keys, values = self.embed(input_ids), [], []
        for i, layer in enumerate(self.layers):
            past = None if past_k is None else (past_k[i], past_v[i])
            x, key, value = layer(x, angle.cos(), angle.sin(), mask, past)
            keys.append(key)
            values.append(value)
        return self.head(self.norm(x)), torch.stack(keys), torch.stack(values)


def _llama(small: bool, length: int, past: int) -> Net:
    sizes = SMALL if small else DecoderSizes()
    inputs, dynamic = {"input_ids": tokens(sizes.vocab, 1, length)}, None
    if past:
        stacked = noise(2, sizes.layers, 1, sizes.kv_heads, past, sizes.head)
        inputs |= {"past_k": stacked[0], "past_v": stacked[1]}
        dynamic = {"input_ids": {}, "past_k": {3: "past"}, "past_v": {3: "past"}}
    outputs = ("logits", "present_k", "present_v")
    return Net(seeded(lambda: Decoder(sizes)), inputs, outputs, dynamic)


def llama_prefill(small: bool = False) -> Net:
    return _llama(small, 8 if small else 64, 0)


def llama_decode(small: bool = False) -> Net:
    """One token over a past of symbolic length (128 in the example)."""
    return _llama(small, 1, 16 if small else 128)


def wav2vec2_base(small: bool = False) -> Net:
    return wav2vec2({}, small)


def wav2vec2(sizes: dict, small: bool) -> Net:
    """Wav2Vec2 of some sizes, unless it is small, on a second of speech."""
    if small:
        sizes = {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "conv_dim": (32,) * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        }
    config = transformers.Wav2Vec2Config(**sizes)
    fields = ("logits",)
    module = seeded(lambda: Hidden(transformers.Wav2Vec2ForCTC(config), ("input_values",), fields))
    return Net(module, {"input_values": noise(1, 4000 if small else 16_000, scale=0.5)}, fields)
