"""`tw.random`: random numbers from a key, the same for the same key.

    key = tw.random.key(seed, stream)       # numbers or tensors
    u = tw.random.uniform(key, shape=(3,))

A key is u64[2], the generator's key and a stream; different draws need different streams.
"""

from __future__ import annotations

from tensorwright.frontend.array_define import function
from tensorwright.frontend.tracer import node_of, shape_from
from tensorwright.ir.dtype import DType, f32, u64
from tensorwright.ir.graph import Node
from tensorwright.ops import movement as mv
from tensorwright.ops import random as rd

__all__ = ["key", "normal", "uniform"]


@function
def key(seed, stream=0) -> Node:
    """The key of a seed and a stream, both integers."""
    parts = [mv.reshape(node_of(v, u64), shape=(1,)) for v in (seed, stream)]
    return mv.concat(*parts, axis=0)


@function
def uniform(key, shape=(), low: float = 0.0, high: float = 1.0, dtype: DType = f32) -> Node:
    """Uniform in [low, high)."""
    return rd.uniform(node_of(key, u64), shape=shape_from(shape), low=low, high=high, dtype=dtype)


@function
def normal(key, shape=(), mean: float = 0.0, scale: float = 1.0, dtype: DType = f32) -> Node:
    """Normal with that mean and standard deviation."""
    return rd.normal(node_of(key, u64), shape=shape_from(shape), mean=mean, scale=scale,
                     dtype=dtype)  # fmt: skip
