"""Scaled dot-product attention and what surrounds it in a transformer.

    y = attention(q, k, v, causal=True)  # f32[b, h, l, d], f32[b, g, s, d] twice -> f32[b, h, l, d]

Query i may look at key j if i + offset - left <= j <= i + offset (causal) or + right, if j is below
the number of valid keys, and if a bool mask says so; a float mask is added. Heads of k and v are
shared by consecutive heads of q. Scores are kept in f32. `guard` says what a query that may look at
nothing gives: 0 ("empty"), 0 as does one with a score of NaN ("nan"), or NaN ("none").
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, INTEGERS, boolean, i64
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Dim, TensorType, dim_text
from tensorwright.ops.define import (
    accumulator,
    broadcasts_to,
    composite,
    known_positive,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import (
    add,
    div,
    equal,
    exp,
    is_nan,
    less,
    less_equal,
    logical_and,
    mul,
    rsqrt,
    select,
    sub,
    tanh,
)  # fmt: skip
from tensorwright.ops.elementwise import mod as modulo
from tensorwright.ops.index import iota, scatter_elements, size
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import broadcast_to, concat, reshape, slice
from tensorwright.ops.norm import softmax
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.ops.widen import to_dtype

SHARED = (0, 1)  # batch and key head
GUARDS = ("empty", "nan", "none")


# ---- checks ------------------------------------------------------------------------------------


def _check_attention(q, k, v, mask=None, offset=None, valid=None, *, guard="empty", **attrs):
    op = "attention"
    require(guard in GUARDS, f"{op}: guard {guard!r} is not one of {', '.join(GUARDS)}")
    same_dtype(op, q, k, v)
    for name, t in (("q", q), ("k", k), ("v", v)):
        require(t.rank == 4, f"{op}: {name} is {t}; it must be [batch, heads, length, depth]")
    require(q.shape[0] == k.shape[0] == v.shape[0], f"{op}: batch sizes differ: {q}, {k}, {v}")
    require(k.shape[1] == v.shape[1] and k.shape[2] == v.shape[2],
            f"{op}: k {k} and v {v} differ in heads or length")  # fmt: skip
    require(q.shape[3] == k.shape[3],
            f"{op}: depths differ: q.shape[3] is {dim_text(q.shape[3])}, k.shape[3] is "
            f"{dim_text(k.shape[3])}")  # fmt: skip
    heads, shared = q.shape[1], k.shape[1]
    require(
        not (isinstance(heads, int) and isinstance(shared, int)) or heads % shared == 0,
        f"{op}: {dim_text(heads)} query heads do not share {dim_text(shared)} key heads evenly",
    )
    if mask is not None:
        wanted = (*q.shape[:3], k.shape[2])
        require(
            broadcasts_to(mask.shape, wanted),
            f"{op}: mask {mask} does not broadcast to {TensorType(mask.dtype, wanted)}",
        )
        require(mask.dtype is boolean or mask.dtype.is_float,
                f"{op}: the mask is {mask.dtype}, neither bool nor float")  # fmt: skip
    for name, t in (("offset", offset), ("valid", valid)):
        require(
            t is None or (t.dtype in INTEGERS and t.shape in ((), (q.shape[0],))),
            f"{op}: {name} is {t}; it must be one integer, or one for each of the batch",
        )


# ---- attention ---------------------------------------------------------------------------------


def _position(shape, axis: int) -> Node:
    """Positions along one axis of the scores, shaped to broadcast."""
    ones = tuple(shape[axis] if a == axis else 1 for a in range(len(shape)))
    return iota(shape=ones, axis=axis, dtype=i64)


def _per_batch(t: Node, rank: int) -> Node:
    t = to_dtype(t, i64)
    return t if t.rank == 0 else reshape(t, shape=(*t.shape, *(1,) * (rank - 1)))


def _allowed(shape, offset, valid, causal: bool, start: Dim, window) -> Node | None:
    """Which keys each query may look at, by position; None if all."""
    left, right = window
    conditions = []
    if causal or left >= 0 or right >= 0:
        place = _position(shape, len(shape) - 2)
        if offset is not None:
            place = add(place, _per_batch(offset, len(shape)))
        elif start != 0:
            place = add(place, reshape(size(dims=(start,)), shape=()))
        key = _position(shape, len(shape) - 1)
        if causal:
            conditions.append(less_equal(key, place))
        if left >= 0:
            conditions.append(less_equal(sub(place, key), left))
        if right >= 0:
            conditions.append(less_equal(sub(key, place), right))
    if valid is not None:
        key = _position(shape, len(shape) - 1)
        conditions.append(less(key, _per_batch(valid, len(shape))))
    result = None
    for c in conditions:
        result = c if result is None else logical_and(result, c)
    return result


def _grouped_mask(mask: Node, groups) -> Node:
    """A mask over [batch, heads, length, keys] for scores whose heads are split in two."""
    mask = reshape(mask, shape=(*(1,) * (4 - mask.rank), *mask.shape)) if mask.rank < 4 else mask
    if groups is None:
        return mask
    shared, per = groups
    heads = (1, 1) if mask.shape[1] == 1 else (shared, per)
    return reshape(mask, shape=(mask.shape[0], *heads, *mask.shape[2:]))


def _masked_softmax(scores: Node) -> Node:
    """Softmax over the last axis in which a row of -inf gives zeros."""
    last = {"axes": (scores.rank - 1,), "keepdims": True}
    top = reduce_max(scores, **last)
    top = select(equal(top, -math.inf), scalar_like(top, 0), top)
    e = exp(sub(scores, top))
    total = reduce_sum(e, **last)
    return div(e, select(equal(total, 0), scalar_like(total, 1), total))


def _forgiving_softmax(scores: Node) -> Node:
    """Softmax over the last axis in which a row that has NaN, or is all -inf, gives zeros."""
    last = {"axes": (scores.rank - 1,), "keepdims": True}
    e = exp(sub(scores, reduce_max(scores, **last)))
    total = reduce_sum(e, **last)
    return select(is_nan(total), scalar_like(total, 0), div(e, total))


def _weights(scores: Node, safe: bool, guard: str) -> Node:
    """Softmax over the last axis; `safe` if no row is empty."""
    if guard == "nan":
        return _forgiving_softmax(scores)
    return softmax(scores, axis=-1) if safe or guard == "none" else _masked_softmax(scores)


def attention_parts(
    q, k, v, mask=None, offset=None, valid=None, *, scale=None, causal=False, start=0,
    window=(-1, -1), softcap=0.0, precision=None, guard="empty",
) -> dict[str, Node]:  # fmt: skip
    """Every intermediate of attention by name: `raw`, `capped` and `biased` scores, `weights` (all
    [batch, heads, length, keys]) and the result `y`."""
    wide = accumulator(q.dtype)
    b, heads, length, depth = q.shape
    shared = k.shape[1]
    groups = None if heads == shared else (shared, as_dim(as_expr(heads) // shared))
    rows = q if groups is None else reshape(q, shape=(b, *groups, length, depth))
    last = rows.rank - 1
    raw = dot_general(rows, k, batch=(SHARED, SHARED), contract=((last,), (3,)), dtype=wide)
    raw = mul(raw, _scale(raw, depth) if scale is None else scale)
    capped = raw if softcap <= 0 else mul(tanh(div(raw, softcap)), softcap)
    allowed = _allowed(raw.shape, offset, valid, causal, start, window)
    biased = capped
    if mask is not None and mask.dtype is not boolean:
        biased = add(biased, to_dtype(_grouped_mask(mask, groups), wide))
    elif mask is not None:
        mask = _grouped_mask(mask, groups)
        allowed = mask if allowed is None else logical_and(allowed, mask)
    if allowed is not None:
        biased = select(allowed, biased, scalar_like(biased, -math.inf))
    inner = biased if precision is None else to_dtype(biased, dtype_of(precision))
    # with a causal limit alone every query sees at least the first key
    safe = mask is None and valid is None and offset is None and max(window) < 0
    safe = safe and (start == 0 or known_positive(start))
    weights = _weights(inner, safe, guard)
    y = dot_general(to_dtype(weights, q.dtype), v, batch=(SHARED, SHARED), contract=((last,), (2,)))
    found = {"raw": raw, "capped": capped, "biased": biased, "weights": weights}
    found = {n: to_dtype(reshape(s, shape=(b, heads, *s.shape[-2:])) if groups else s, q.dtype)
             for n, s in found.items()}  # fmt: skip
    return {**found, "y": reshape(y, shape=(b, heads, length, v.shape[3])) if groups else y}


def _scale(like: Node, depth: Dim):
    if isinstance(depth, int):
        return 1 / math.sqrt(depth) if depth else 1.0
    return rsqrt(to_dtype(reshape(size(dims=(depth,)), shape=()), like.dtype))


def _expand_attention(
    q, k, v, mask=None, offset=None, valid=None, *, scale=None, causal=False, start=0,
    window=(-1, -1), softcap=0.0, precision=None, guard="empty",
):  # fmt: skip
    return attention_parts(
        q, k, v, mask, offset, valid, scale=scale, causal=causal, start=start, window=window,
        softcap=softcap, precision=precision, guard=guard,
    )["y"]  # fmt: skip


def _reference_attention(
    q, k, v, mask=None, offset=None, valid=None, scale=None, causal=False, start=0,
    window=(-1, -1), softcap=0.0, precision=None, guard="empty",
):  # fmt: skip
    kind, (_, heads, length, depth) = q.dtype, q.shape
    per = heads // k.shape[1]
    q, k, v = (a.astype(np.float64) for a in (q, np.repeat(k, per, 1), np.repeat(v, per, 1)))
    s = q @ k.swapaxes(2, 3) * (1 / np.sqrt(depth) if scale is None else scale)
    s = softcap * np.tanh(s / softcap) if softcap > 0 else s
    place = np.arange(length)[:, None] + (start if offset is None else
                                          np.reshape(offset, (-1, 1, 1, 1)))  # fmt: skip
    key = np.arange(k.shape[2])
    keep = np.ones((1, 1, 1, 1), bool)
    keep = keep & (key <= place) if causal else keep
    keep = keep & (place - key <= window[0]) if window[0] >= 0 else keep
    keep = keep & (key - place <= window[1]) if window[1] >= 0 else keep
    keep = keep if valid is None else keep & (key < np.reshape(valid, (-1, 1, 1, 1)))
    if mask is not None and mask.dtype == bool:
        keep = keep & mask
    elif mask is not None:
        s = s + mask.astype(np.float64)
    s = np.where(keep, s, -np.inf)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)
    if guard != "none":
        top = np.where(np.isneginf(top), 0, top)
    e = np.exp(s - top)
    total = e.sum(axis=-1, keepdims=True)
    if guard == "nan":
        e, total = np.where(np.isnan(total), 0, e), np.where(np.isnan(total), 1, total)
    if guard != "none":
        total = np.where(total == 0, 1, total)
    return (e / total @ v).astype(kind)


attention = composite(
    "attention", "q, k, v, mask?, offset?, valid?", _expand_attention, _check_attention,
    reference=_reference_attention, dtypes=FLOATS,
    samples=(
        "f32[2,3,4,8] f32[2,3,5,8] f32[2,3,5,6]",
        "f32[1,2,4,4] f32[1,2,4,4] f32[1,2,4,4] causal=True",
        "f32[2,4,3,8] f32[2,2,5,8] f32[2,2,5,8] causal=True start=2",
        "f32[b,4,n,8] f32[b,2,s,8] f32[b,2,s,8] bool[n,s] b=1 n=1,3 s=2,5",
        "f32[2,2,3,4] f32[2,2,5,4] f32[2,2,5,4] f32[2,1,3,5]",
        "f32[2,2,3,4] f32[2,2,5,4] f32[2,2,5,4] - i64[2]@0:3 i64[2]@0:5 causal=True",
        "f32[1,1,6,4] f32[1,1,6,4] f32[1,1,6,4] window=(1,0)",
        "f32[1,2,3,4] f32[1,1,3,4] f32[1,1,3,4] bool[1,2,3,3] softcap=2.0 scale=0.3",
        "f16[1,2,3,8] f16[1,2,3,8] f16[1,2,3,8]",
        "f32[1,2,3,4] f32[1,2,3,4] f32[1,2,3,4] bool[1,2,3,3] guard='nan'",
        "f32[1,2,3,4]@special f32[1,2,3,4] f32[1,2,3,4] guard='nan'",
        "f32[1,2,3,4] f32[1,2,3,4] f32[1,2,3,4] f32[1,2,3,3]@-2:2 guard='none'",
    ),
    doc="softmax(q k' * scale + mask) v over [batch, heads, length, depth].",
)  # fmt: skip


# ---- positions ---------------------------------------------------------------------------------


def _check_rotary(x, cos, sin, *, interleaved=False, depth=None) -> None:
    same_dtype("rotary_embedding", x, cos, sin)
    turned = x.shape[-1] if depth is None else depth
    half = as_dim(as_expr(turned) // 2)
    require(cos.shape == sin.shape, f"rotary_embedding: cos {cos} and sin {sin} differ")
    require(cos.shape[-1] == half,
            f"rotary_embedding: cos has {dim_text(cos.shape[-1])} angles, {dim_text(half)} pairs "
            "are turned")  # fmt: skip


def _expand_rotary(x, cos, sin, *, interleaved=False, depth=None):
    """Each pair (a, b) becomes (a cos - b sin, a sin + b cos); what exceeds `depth` stays."""
    total = x.shape[-1]
    depth = total if depth is None else depth
    half = as_dim(as_expr(depth) // 2)
    lead = x.shape[:-1]
    part = lambda t, a, b: slice(t, starts=(*(0,) * (t.rank - 1), a), stops=(*t.shape[:-1], b))
    turned = x if depth == total else part(x, 0, depth)
    if interleaved:
        pairs = reshape(turned, shape=(*lead, half, 2))
        a, b = (reshape(part(pairs, k, k + 1), shape=(*lead, half)) for k in (0, 1))
    else:
        a, b = part(turned, 0, half), part(turned, half, depth)
    left, right = sub(mul(a, cos), mul(b, sin)), add(mul(a, sin), mul(b, cos))
    if interleaved:
        left, right = (reshape(t, shape=(*lead, half, 1)) for t in (left, right))
        y = reshape(concat(left, right, axis=-1), shape=(*lead, depth))
    else:
        y = concat(left, right, axis=-1)
    return y if depth == total else concat(y, part(x, depth, total), axis=-1)


def _reference_rotary(x, cos, sin, interleaved=False, depth=None):
    depth = x.shape[-1] if depth is None else depth
    y = x.astype(np.float64).copy()
    half = depth // 2
    a, b = np.s_[0:depth:2, 1:depth:2] if interleaved else np.s_[:half, half:depth]
    y[..., a] = x[..., a] * cos.astype(np.float64) - x[..., b] * sin.astype(np.float64)
    y[..., b] = x[..., a] * sin.astype(np.float64) + x[..., b] * cos.astype(np.float64)
    return y.astype(x.dtype)


rotary_embedding = composite(
    "rotary_embedding", "x, cos, sin", _expand_rotary, _check_rotary, reference=_reference_rotary,
    dtypes=FLOATS,
    samples=("f32[2,3,4,8] f32[4,4] f32[4,4]", "f32[2,3,4,8] f32[2,1,4,4] f32[2,1,4,4] "
             "interleaved=True", "f32[2,3,n,8] f32[n,2] f32[n,2] depth=4 n=1,5",
             "f16[1,1,4,4] f16[4,2] f16[4,2]"),
    doc="Pairs of elements along the last axis turned by angles given as cosine and sine.",
)  # fmt: skip


# ---- caches ------------------------------------------------------------------------------------


def _check_tensor_scatter(cache, update, at=None, *, axis=-2, circular=False) -> None:
    same_dtype("tensor_scatter", cache, update)
    require(cache.rank == update.rank, f"tensor_scatter: ranks differ: {cache} and {update}")
    require(at is None or at.shape == (cache.shape[0],),
            f"tensor_scatter: positions {at} are not one for each of the batch")  # fmt: skip


def _expand_tensor_scatter(cache, update, at=None, *, axis=-2, circular=False):
    axis %= cache.rank
    place = _position(update.shape, axis)
    if at is not None:
        place = add(place, _per_batch(at, cache.rank))
    if circular:
        place = modulo(place, reshape(size(dims=(cache.shape[axis],)), shape=()))
    place = broadcast_to(place, shape=update.shape)
    return scatter_elements(cache, place, update, axis=axis)


def _reference_tensor_scatter(cache, update, at=None, axis=-2, circular=False):
    y, axis = cache.copy(), axis % cache.ndim
    for i in np.ndindex(update.shape):
        place = i[axis] + (0 if at is None else int(at[i[0]]))
        place = place % cache.shape[axis] if circular else min(place, cache.shape[axis] - 1)
        y[(*i[:axis], place, *i[axis + 1 :])] = update[i]
    return y


tensor_scatter = composite(
    "tensor_scatter", "cache, update, at?", _expand_tensor_scatter, _check_tensor_scatter,
    reference=_reference_tensor_scatter,
    samples=("f32[2,3,6,4] f32[2,3,2,4] i64[2]@0:4", "f32[2,6,4] f32[2,n,4] n=1,3",
             "f32[2,6,4] f32[2,3,4] i64[2]@0:5 circular=True"),
    doc="A cache with rows written from a position of its own for each of the batch.",
)  # fmt: skip
