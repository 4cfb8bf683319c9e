"""ONNX attention and rotary embeddings, in their [batch, heads, length, depth] form."""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, converter
from tensorwright.frontend.onnx_ops_elementwise import tensor_dtype
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import as_dim, as_expr, compare, is_const
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Dim

SCORES = {0: "raw", 1: "capped", 2: "biased", 3: "weights"}


def split_heads(c: Call, x: Node, heads: int | None, what: str) -> Node:
    """[batch, length, heads * depth] as [batch, heads, length, depth]; rank 4 as it is."""
    if x.rank == 4:
        return x
    if x.rank != 3:
        raise c.fail(f"{what} has rank {x.rank}, not 3 or 4")
    if heads is None or heads < 1:
        raise c.fail(f"{what} has rank 3, and the number of heads is not given")
    b, n, width = x.shape
    depth = as_dim(as_expr(width) // heads)
    return ops.transpose(ops.reshape(x, shape=(b, n, heads, depth)), perm=(0, 2, 1, 3))


def merge_heads(x: Node) -> Node:
    """[batch, heads, length, depth] as [batch, length, heads * depth]."""
    b, h, n, d = x.shape
    joined = as_dim(as_expr(h) * as_expr(d))
    return ops.reshape(ops.transpose(x, perm=(0, 2, 1, 3)), shape=(b, n, joined))


def extended_mask(mask: Node | None, keys: Dim) -> Node | None:
    """A mask for fewer keys than there are hides the others."""
    if mask is None or mask.rank == 0 or mask.shape[-1] in (keys, 1):
        return mask
    missing = as_expr(keys) - as_expr(mask.shape[-1])
    if is_const(compare("le", missing, as_expr(0)), True):
        return mask
    high = (*(0,) * (mask.rank - 1), as_dim(missing))
    hidden = False if mask.dtype is boolean else -np.inf
    return ops.pad(mask, low=(0,) * mask.rank, high=high, value=hidden)


@converter("Attention", since=23)
def attention(
    c: Call, q: Node, k: Node, v: Node, mask: Node | None = None, past_key: Node | None = None,
    past_value: Node | None = None, valid: Node | None = None, *, is_causal: int = 0,
    kv_num_heads: int | None = None, q_num_heads: int | None = None,
    left_window_size: int = -1, right_window_size: int = -1, qk_matmul_output_mode: int = 0,
    scale: float | None = None, softcap: float = 0.0, softmax_precision: int | None = None,
) -> tuple:  # fmt: skip
    rank = q.rank
    q = split_heads(c, q, q_num_heads, "Q")
    k, v = split_heads(c, k, kv_num_heads, "K"), split_heads(c, v, kv_num_heads, "V")
    if (past_key is None) != (past_value is None):
        raise c.fail("past_key and past_value belong together")
    start: Dim = 0
    if past_key is not None:
        start = past_key.shape[2]
        k = ops.concat(past_key, k, axis=2)
        v = ops.concat(past_value, v, axis=2)
    offset = None
    if valid is not None and past_key is None:
        queries = ops.reshape(c.sizes((q.shape[2],)), shape=())
        offset = ops.sub(ops.cast(valid, dtype=i64), queries)
    if qk_matmul_output_mode not in SCORES:
        raise c.fail(f"qk_matmul_output_mode is {qk_matmul_output_mode}")
    operands = (q, k, v, extended_mask(mask, k.shape[2]), offset, valid)
    attrs = {
        "scale": scale, "causal": bool(is_causal), "start": start, "softcap": softcap,
        "window": (left_window_size, right_window_size),
        "precision": tensor_dtype(c, softmax_precision) if softmax_precision else None,
    }  # fmt: skip
    scores = None
    if c.wants(3):
        parts = ops.attention_parts(*operands, **attrs)
        y, scores = parts["y"], parts[SCORES[qk_matmul_output_mode]]
    else:
        y = ops.attention(*operands, **attrs)
    return (merge_heads(y) if rank == 3 else y), k, v, scores


@converter("RotaryEmbedding", since=23)
def rotary_embedding(
    c: Call, x: Node, cos: Node, sin: Node, position_ids: Node | None = None, *,
    interleaved: int = 0, num_heads: int = 0, rotary_embedding_dim: int = 0,
) -> Node:  # fmt: skip
    rank = x.rank
    x = split_heads(c, x, num_heads or None, "X")
    cos, sin = (angles(c, t, position_ids) for t in (cos, sin))
    y = ops.rotary_embedding(
        x, cos, sin, interleaved=bool(interleaved), depth=rotary_embedding_dim or None
    )
    return merge_heads(y) if rank == 3 else y


def angles(c: Call, cache: Node, position_ids: Node | None) -> Node:
    """cos or sin for each position, as [batch, 1, length, depth / 2]."""
    if position_ids is not None:
        cache = ops.gather(cache, position_ids, axis=0)
    if cache.rank != 3:
        raise c.fail(f"a cache has rank {cache.rank} for the positions, not 3")
    return ops.reshape(cache, shape=(cache.shape[0], 1, *cache.shape[1:]))
