"""aten operators that draw random numbers.

A compiled program has no global generator: each drawing operator has a key of its own, made from
torch's seed when the model is imported and the operator's number, so every run draws the same
numbers and two operators draw independent ones. The streams are Philox's, not torch's.
"""

from __future__ import annotations

import numpy as np

from tensorwright.frontend.torch_ops import Call, Rows, lift, to
from tensorwright.frontend.torch_ops_shape import filled
from tensorwright.ir.dtype import f32, i64
from tensorwright.ir.graph import Node, constant
from tensorwright.ops import elementwise as ew
from tensorwright.ops import random as rn
from tensorwright.ops import sort as so

RANDOM = Rows()


def key_of(c: Call) -> Node:
    """A fresh key."""
    import torch

    c.sizes.draws += 1
    return constant(np.array([torch.initial_seed() & (2**64 - 1), c.sizes.draws], np.uint64))


def uniform(c: Call, shape, d=f32) -> Node:
    return to(rn.uniform(key_of(c), shape=shape, low=0.0, high=1.0, dtype=f32), d)


@RANDOM.row("rand.default", "rand_like.default")
def _rand(c, like=None, *, dtype=None):
    return uniform(c, c.shape, c.dtype)


@RANDOM.row("randn.default", "randn_like.default")
def _randn(c, like=None, *, dtype=None):
    return to(rn.normal(key_of(c), shape=c.shape, mean=0.0, scale=1.0, dtype=f32), c.dtype)


@RANDOM.row("randperm.default")
def _randperm(c, n, *, dtype=None):
    order = so.argsort(uniform(c, c.shape), axis=0, descending=False, stable=True)
    return to(order, c.dtype)


@RANDOM.row("randint.default")
def _randint(c, high, size, *, dtype=None):
    return _between(c, 0, high)


@RANDOM.row("randint.low")
def _randint_low(c, low, high, size, *, dtype=None):
    return _between(c, low, high)


def _between(c: Call, low, high) -> Node:
    span = ew.sub(lift(high, i64), lift(low, i64))
    scaled = ew.mul(uniform(c, c.shape, "f64"), to(span, "f64"))
    return to(ew.add(to(ew.floor(scaled), i64), lift(low, i64)), c.dtype)


@RANDOM.row("bernoulli.default")
def _bernoulli(c, p):
    return to(ew.less(uniform(c, p.shape), to(p, f32)), c.dtype)


@RANDOM.row("bernoulli.p")
def _bernoulli_p(c, x, p=0.5):
    return to(ew.less(uniform(c, x.shape), lift(p, f32)), c.dtype)


@RANDOM.row("native_dropout.default")
def _native_dropout(c, x, p, train):
    if not train or p == 0:
        mask = filled(Call(c.target, c.sizes, c.fakes[1:]), True)
        return [x, mask]
    mask = ew.greater_equal(uniform(c, x.shape), float(p))
    scale = 0.0 if p == 1 else 1.0 / (1.0 - p)
    return [ew.mul(ew.mul(x, to(mask, x.dtype)), scale), mask]
