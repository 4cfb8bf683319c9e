"""Attention in the forms of domain com.microsoft: packed weights, packed heads, caches."""

from __future__ import annotations

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_contrib import DOMAIN
from tensorwright.frontend.onnx_ops import Call, Ints, converter
from tensorwright.frontend.onnx_ops_attention import merge_heads, split_heads
from tensorwright.frontend.onnx_ops_recurrent import part
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import as_dim, as_expr, maximum
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim


def slot(x: Node, axis: int, k: int) -> Node:
    """x at position k of an axis, which goes."""
    cut = part(x, axis, k, k + 1)
    return ops.reshape(cut, shape=tuple(d for a, d in enumerate(x.shape) if a != axis))


def additive(keep: Node, value: float, like: Node) -> Node:
    """0 where an integer mask is set, else `value`, in the type of `like`."""
    zero, low = (constant(np.array(v, like.dtype.numpy)) for v in (0.0, value))
    return ops.select(ops.not_equal(keep, 0), zero, low)


def padding_mask(c: Call, mask: Node, queries: Dim, keys: Dim, value: float, like: Node) -> Node:
    """A com.microsoft mask as a float mask over [batch, heads, queries, keys]."""
    if mask.rank == 1:  # the number of keys of each sequence
        at = ops.iota(shape=(1, 1, 1, keys), axis=3, dtype="i64")
        count = ops.reshape(ops.cast(mask, dtype=i64), shape=(mask.shape[0], 1, 1, 1))
        keep = ops.cast(ops.less(at, count), dtype="i32")
    elif mask.rank == 2:
        keep = ops.reshape(mask, shape=(mask.shape[0], 1, 1, mask.shape[1]))
    elif mask.rank == 3:
        keep = ops.reshape(mask, shape=(mask.shape[0], 1, *mask.shape[1:]))
    elif mask.rank == 4:  # [batch, 1, longest, longest]
        first = as_dim(as_expr(keys) - as_expr(queries))
        keep = part(part(mask, 2, first, keys), 3, 0, keys)
    else:
        raise c.fail(f"the mask is {mask.type}")
    return additive(keep, value, like)


def summed(*masks: Node | None) -> Node | None:
    present = [m for m in masks if m is not None]
    total = present[0] if present else None
    for m in present[1:]:
        total = ops.add(total, m)
    return total


def head_bias(bias: Node, x: Node) -> Node:
    """A bias of [heads * depth] for x[batch, heads, length, depth]."""
    _, heads, _, depth = x.shape
    return ops.reshape(bias, shape=(1, heads, 1, depth))


@converter("Attention", domain=DOMAIN)
def attention(
    c: Call, x: Node, weights: Node, bias: Node | None = None, mask: Node | None = None,
    past: Node | None = None, added: Node | None = None, past_length: Node | None = None, *,
    num_heads: int, unidirectional: int = 0, qkv_hidden_sizes: Ints = (),
    scale: float | None = None, do_rotary: int = 0, mask_filter_value: float = -10000.0,
    past_present_share_buffer: int = 0, rotary_embedding_dim: int = 0,
) -> tuple:  # fmt: skip
    if do_rotary or past_present_share_buffer or past_length is not None:
        raise c.fail("rotary embeddings and shared buffers are not supported")
    width = weights.shape[-1]
    if not isinstance(width, int) or num_heads < 1 or x.rank != 3:
        raise c.fail(f"the input is {x.type}, the weights {weights.type}")
    sizes = qkv_hidden_sizes or (width // 3,) * 3
    if len(sizes) != 3 or sum(sizes) != width:
        raise c.fail(f"qkv_hidden_sizes is {list(sizes)} for {width} columns")
    y = ops.matmul(x, weights)
    y = y if bias is None else ops.add(y, bias)
    stops = (sizes[0], sizes[0] + sizes[1], width)
    q, k, v = (split_heads(c, part(y, 2, stop - n, stop), num_heads, "the input")
               for n, stop in zip(sizes, stops))  # fmt: skip
    start: Dim = 0
    if past is not None:
        start = past.shape[3]
        k, v = (ops.concat(slot(past, 0, n), t, axis=2) for n, t in enumerate((k, v)))
    if mask is not None:
        mask = padding_mask(c, mask, q.shape[2], k.shape[2], mask_filter_value, q)
    y = ops.attention(
        q, k, v, summed(mask, added), scale=scale or None, causal=bool(unidirectional), start=start
    )
    present = None
    if c.wants(1):
        present = ops.concat(*(ops.reshape(t, shape=(1, *t.shape)) for t in (k, v)), axis=0)
    return merge_heads(y), present


@converter("MultiHeadAttention", domain=DOMAIN)
def multi_head_attention(
    c: Call, q: Node, k: Node | None = None, v: Node | None = None, bias: Node | None = None,
    mask: Node | None = None, added: Node | None = None, past_key: Node | None = None,
    past_value: Node | None = None, past_length: Node | None = None,
    beams: Node | None = None, *, num_heads: int, mask_filter_value: float = -10000.0,
    scale: float | None = None, unidirectional: int = 0,
) -> tuple:  # fmt: skip
    if past_length is not None or beams is not None:
        raise c.fail("shared buffers and beam search are not supported")
    if k is None:  # [batch, length, heads, 3, depth]
        if q.rank != 5:
            raise c.fail(f"there are no keys, and the query is {q.type}")
        q, k, v = (ops.transpose(slot(q, 3, n), perm=(0, 2, 1, 3)) for n in range(3))
    elif v is None:  # [batch, length, heads, 2, depth]
        if k.rank != 5:
            raise c.fail(f"there are no values, and the keys are {k.type}")
        k, v = (ops.transpose(slot(k, 3, n), perm=(0, 2, 1, 3)) for n in range(2))
    q, k, v = (split_heads(c, t, num_heads, what)
               for t, what in ((q, "query"), (k, "key"), (v, "value")))  # fmt: skip
    if bias is not None:
        widths = [as_dim(as_expr(t.shape[1]) * as_expr(t.shape[3])) for t in (q, k, v)]
        at, added_to = 0, []
        for t, n in zip((q, k, v), widths):
            stop = as_dim(as_expr(at) + as_expr(n))
            added_to.append(ops.add(t, head_bias(part(bias, 0, at, stop), t)))
            at = stop
        q, k, v = added_to
    start: Dim = 0
    if past_key is not None and past_value is not None:
        start = past_key.shape[2]
        k, v = ops.concat(past_key, k, axis=2), ops.concat(past_value, v, axis=2)
    if mask is not None:
        mask = padding_mask(c, mask, q.shape[2], k.shape[2], mask_filter_value, q)
    y = ops.attention(
        q, k, v, summed(mask, added), scale=scale or None, causal=bool(unidirectional), start=start
    )
    return merge_heads(y), k, v


def turned(
    c: Call, x: Node, cos: Node, sin: Node, positions: Node, interleaved: int, depth: int | None
) -> Node:
    """x[batch, heads, length, depth] with rotary embeddings at positions[batch, length]."""
    angles = [ops.cast(ops.gather(t, positions, axis=0), dtype=x.dtype) for t in (cos, sin)]
    angles = [ops.reshape(t, shape=(t.shape[0], 1, *t.shape[1:])) for t in angles]
    half = angles[0].shape[-1]
    own = depth or as_dim(as_expr(half) * 2)
    return ops.rotary_embedding(x, *angles, interleaved=bool(interleaved), depth=own)


@converter("RotaryEmbedding", domain=DOMAIN)
def rotary_embedding(
    c: Call, x: Node, positions: Node, cos: Node, sin: Node, *, interleaved: int = 0,
    num_heads: int = 0, rotary_embedding_dim: int = 0, scale: float = 1.0,
    is_packed_batching: int = 0,
) -> Node:  # fmt: skip
    if is_packed_batching or scale != 1.0:
        raise c.fail("packed batches and a scale are not supported")
    rank, heads = x.rank, num_heads
    if rank == 3 and not heads:
        depth = rotary_embedding_dim or as_dim(as_expr(cos.shape[-1]) * 2)
        width = x.shape[2]
        if not isinstance(width, int) or not isinstance(depth, int):
            raise c.fail("the number of heads is not known")
        heads = width // depth
    x = split_heads(c, x, heads, "the input")
    if positions.rank <= 1:  # the position of the first element
        at = ops.iota(shape=(1, x.shape[2]), axis=1, dtype="i64")
        positions = ops.add(at, ops.reshape(ops.cast(positions, dtype=i64), shape=(1, 1)))
    y = turned(c, x, cos, sin, positions, interleaved, rotary_embedding_dim or None)
    return merge_heads(y) if rank == 3 else y


@converter("GroupQueryAttention", domain=DOMAIN)
def group_query_attention(
    c: Call, q: Node, k: Node | None, v: Node | None, past_key: Node | None,
    past_value: Node | None, last: Node, total: Node, cos: Node | None = None,
    sin: Node | None = None, positions: Node | None = None, added: Node | None = None,
    sink: Node | None = None, *, num_heads: int, kv_num_heads: int, scale: float | None = None,
    do_rotary: int = 0, rotary_interleaved: int = 0, local_window_size: int = -1,
    softcap: float = 0.0, smooth_softmax: int = 0, qk_output: int = 0, k_quant_type: str = "NONE",
    v_quant_type: str = "NONE", kv_cache_bit_width: int = 0,
) -> tuple:  # fmt: skip
    """`last` is the position of each sequence's last key; new keys go where the past ones end."""
    if sink is not None or smooth_softmax > 0 or kv_cache_bit_width:
        raise c.fail("attention sinks, smooth softmax and quantized caches are not supported")
    if k is None or v is None:
        q, k, v = unpacked(c, q, num_heads, kv_num_heads)
    else:
        q = split_heads(c, q, num_heads, "the query")
        k, v = (split_heads(c, t, kv_num_heads, "the key") for t in (k, v))
    batch, _, length, _ = q.shape
    valid = ops.add(ops.cast(ops.reshape(last, shape=(batch,)), dtype=i64), 1)
    before = ops.sub(valid, ops.reshape(c.sizes((length,)), shape=()))
    if do_rotary:
        if cos is None or sin is None:
            raise c.fail("do_rotary is set, and there are no caches of angles")
        if positions is None:
            at = ops.iota(shape=(1, length), axis=1, dtype="i64")
            positions = ops.add(at, ops.reshape(ops.maximum(before, 0), shape=(batch, 1)))
        q, k = (turned(c, t, cos, sin, positions, rotary_interleaved, None) for t in (q, k))
    keys, values = k, v
    if past_key is not None and past_value is not None:
        room = as_dim(maximum(as_expr(past_key.shape[2]), as_expr(c.dim(total))))
        keys, values = (cached(p, t, before, room) for p, t in ((past_key, k), (past_value, v)))
    else:
        before = None
    y = ops.attention(
        q, keys, values, added, before, valid, scale=scale or None, causal=True, softcap=softcap,
        window=(local_window_size - 1 if local_window_size > 0 else -1, -1),
    )  # fmt: skip
    return merge_heads(y), keys, values


def unpacked(c: Call, x: Node, heads: int, shared: int) -> tuple[Node, Node, Node]:
    """Query, key and value that lie side by side: [batch, length, (heads + 2 shared) depth]."""
    width = x.shape[-1]
    if not isinstance(width, int) or x.rank != 3 or width % (heads + 2 * shared):
        raise c.fail(f"the packed query is {x.type}")
    depth = width // (heads + 2 * shared)
    stops = (heads * depth, (heads + shared) * depth, width)
    starts = (0, *stops[:2])
    counts = (heads, shared, shared)
    return tuple(split_heads(c, part(x, 2, a, b), n, "the query")
                 for a, b, n in zip(starts, stops, counts))  # fmt: skip


def cached(past: Node, new: Node, at: Node, room: Dim) -> Node:
    """The cache with `room` places and the new entries written from position `at` on."""
    extra = as_dim(as_expr(room) - as_expr(past.shape[2]))
    if extra != 0:
        past = ops.pad(past, low=(0,) * 4, high=(0, 0, extra, 0))
    return ops.tensor_scatter(past, new, at, axis=2)
