"""ONNX random operators: pure functions of a key made of the node's seed and name.

A node without a seed gets a key from its name, so a program gives the same numbers on every call.
"""

from __future__ import annotations

import zlib

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_elementwise import tensor_dtype
from tensorwright.ir.graph import Node, constant


def key_of(c: Call, seed: float | None) -> Node:
    """The key of the node's random numbers."""
    name = c.record.name or next((o for o in c.record.outputs if o), "")
    low = 0 if seed is None else int(np.float64(seed).view(np.uint64))
    words = [low, 0 if seed is not None else zlib.crc32(name.encode())]
    return constant(np.array(words, dtype=np.uint64))


def dims_of(c: Call, shape: Ints) -> Ints:
    if any(d < 0 for d in shape):
        raise c.fail(f"shape is {list(shape)}")
    return shape


@converter("RandomNormal", pure=False)
def random_normal(
    c: Call, *, shape: Ints, dtype: int = 1, mean: float = 0.0, scale: float = 1.0,
    seed: float | None = None,
) -> Node:  # fmt: skip
    return ops.normal(
        key_of(c, seed), shape=dims_of(c, shape), mean=mean, scale=scale,
        dtype=tensor_dtype(c, dtype),
    )  # fmt: skip


@converter("RandomNormalLike", pure=False)
def random_normal_like(
    c: Call, x: Node, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0,
    seed: float | None = None,
) -> Node:  # fmt: skip
    to = x.dtype if dtype is None else tensor_dtype(c, dtype)
    return ops.normal(key_of(c, seed), shape=x.shape, mean=mean, scale=scale, dtype=to)


@converter("RandomUniform", pure=False)
def random_uniform(
    c: Call, *, shape: Ints, dtype: int = 1, low: float = 0.0, high: float = 1.0,
    seed: float | None = None,
) -> Node:  # fmt: skip
    return ops.uniform(
        key_of(c, seed), shape=dims_of(c, shape), low=low, high=high, dtype=tensor_dtype(c, dtype)
    )


@converter("RandomUniformLike", pure=False)
def random_uniform_like(
    c: Call, x: Node, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0,
    seed: float | None = None,
) -> Node:  # fmt: skip
    to = x.dtype if dtype is None else tensor_dtype(c, dtype)
    return ops.uniform(key_of(c, seed), shape=x.shape, low=low, high=high, dtype=to)


@converter("Bernoulli", pure=False)
def bernoulli(c: Call, p: Node, *, dtype: int | None = None, seed: float | None = None) -> Node:
    to = p.dtype if dtype is None else tensor_dtype(c, dtype)
    return ops.bernoulli(key_of(c, seed), p, dtype=to)


@converter("Multinomial", pure=False)
def multinomial(
    c: Call, logits: Node, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None
) -> Node:
    if logits.dtype.bits < 32:
        logits = ops.cast(logits, dtype="f32")
    return ops.multinomial(
        key_of(c, seed), logits, samples=sample_size, dtype=tensor_dtype(c, dtype)
    )


@converter("Dropout")
def dropout_legacy(
    c: Call, x: Node, *, ratio: float = 0.5, is_test: int = 0, consumed_inputs: object = None
) -> tuple:
    return kept(x)


@converter("Dropout", since=12, pure=False)
def dropout(
    c: Call, x: Node, ratio: Node | None = None, training_mode: Node | None = None, *,
    seed: int | None = None,
) -> tuple:  # fmt: skip
    """Identity, except in training mode."""
    training = training_mode is not None and c.number(training_mode, "training_mode")
    rate = c.number(ratio, "ratio", 0.5) if training else 0.0
    if rate == 0:
        return kept(x)
    if not 0 <= rate < 1:
        raise c.fail(f"ratio is {rate}")
    drawn = ops.uniform(key_of(c, seed), shape=x.shape, low=0.0, high=1.0, dtype="f32")
    mask = ops.greater_equal(drawn, rate)
    zero = constant(np.zeros((), x.dtype.numpy))
    return ops.select(mask, ops.mul(x, 1.0 / (1.0 - rate)), zero), mask


def kept(x: Node) -> tuple:
    """What dropout gives outside training: x, and a mask that keeps everything."""
    return x, ops.full(shape=x.shape, value=True, dtype="bool")
