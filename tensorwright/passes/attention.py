"""Recognise attention that a model spells out, whatever its exporter made of it.

    s = matmul(mul(q, 0.35), mul(transpose(k, perm=(0,1,3,2)), 0.35)); p = softmax(add(s, mask))
    y = matmul(select(is_nan(p), 0.0, p), v)
    ->  y = attention(q, k, v, mask, scale=0.125, guard="nan")

Scales may sit on either factor, the scores or both; heads of k and v that were repeated for groups
of query heads are taken once; a mask that is the causal triangle becomes `causal`. Rows without
keys and rows with NaN give what they gave, except that a NaN behind a mask of -inf now stays
hidden. Scores are rounded as often or less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.build import build
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import Expr, as_dim, as_expr, compare, const
from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.match import P, Rest, V, once, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ops.attention import attention
from tensorwright.ops.define import broadcasts_to
from tensorwright.ops.elementwise import add, cast, div, less, logical_and, logical_not, mul
from tensorwright.ops.index import iota, size
from tensorwright.ops.linalg import dot_general, free_axes, matmul
from tensorwright.ops.movement import broadcast_to, reshape, transpose
from tensorwright.passes.canonicalize import RULES as CANONICAL
from tensorwright.passes.elements import element, positions
from tensorwright.passes.movement_chain import divide

NEVER = -1e30  # a finite mask value at and below which a key surely has no weight
MOVES = ("reshape", "transpose", "broadcast_to")


def recognise_attention(m: Module) -> Module:
    """`m` with attention as one operator."""
    return map_graphs(m, lambda g: rewrite(g, RULES))


# ---- parts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """scale * q k' (capped), plus masks; `keep` are bool masks."""

    q: Node
    k: Node
    scale: float = 1.0
    softcap: float = 0.0
    masks: tuple[Node, ...] = ()
    keep: tuple[Node, ...] = ()


def number(node: Node) -> float | None:
    """The number that a constant is everywhere."""
    if node.op is not CONST or array_of(node).size == 0 or not node.dtype.is_float:
        return None
    a = array_of(node).astype(np.float64)
    return float(a.flat[0]) if (a == a.flat[0]).all() else None


def same_shape(node: Node, x: Node) -> bool:
    return node.shape == x.shape


def scaled(node: Node) -> tuple[Node, float]:
    """(x, s) with node = s * x: numbers taken out of products, also from under movements."""
    if node.op is mul or node.op is div:
        for x, other in (node.args, node.args[::-1])[: 2 if node.op is mul else 1]:
            s = number(other)
            if s is not None and same_shape(node, x) and math.isfinite(s) and s != 0:
                inner, t = scaled(x)
                return inner, t * s if node.op is mul else t / s
    if node.op.name in MOVES:
        inner, s = scaled(node.args[0])
        if s != 1.0:
            return build(node.op, (inner,), node.attrs), s
    return node, 1.0


def factors(node: Node) -> tuple[Node, Node] | None:
    """(x, w) with node = x @ w over equal leading dimensions, by NumPy's rules."""
    if node.op is matmul and node.rank >= 3:
        x, w = node.args
        return (x, w) if x.shape[:-2] == w.shape[:-2] else None
    if node.op is not dot_general:
        return None
    x, w = node.args
    (xb, wb), (xc, wc) = node.attrs["batch"], node.attrs["contract"]
    xf, wf = free_axes(x.rank, xb, xc), free_axes(w.rank, wb, wc)
    if not xb or len(xc) != 1 or len(xf) != 1 or len(wf) != 1:
        return None
    return transpose(x, perm=(*xb, *xf, *xc)), transpose(w, perm=(*wb, *wc, *wf))


def without_casts(node: Node) -> Node:
    """Through conversions among floats, which attention does in its own way."""
    while node.op is cast and node.dtype.is_float and node.args[0].dtype.is_float:
        node = node.args[0]
    return node


# ---- scores ------------------------------------------------------------------------------------


def scores_of(node: Node, outer: float = 1.0) -> Scores | None:
    """`outer` times the node, taken apart as scores."""
    node = without_casts(node)
    found = _product(node) or _masked(node) or _chosen(node) or _capped(node)
    if found is not None:
        return found if outer == 1.0 else _times(found, outer)
    inner, s = scaled(node)
    return scores_of(inner, outer * s) if s != 1.0 else None


def _times(s: Scores, scale: float) -> Scores | None:
    """A scale outside of masks and caps has no place in attention."""
    return None if s.masks or s.keep or s.softcap else replace(s, scale=s.scale * scale)


def _product(node: Node) -> Scores | None:
    pair = factors(node)
    if pair is None:
        return None
    (q, a), (k, b) = scaled(pair[0]), scaled(pair[1])
    perm = (*range(k.rank - 2), k.rank - 1, k.rank - 2)
    return Scores(q, transpose(k, perm=perm), a * b)


def _masked(node: Node) -> Scores | None:
    if node.op is not add:
        return None
    for x, mask in (node.args, node.args[::-1]):
        if same_shape(node, x) and mask.dtype is x.dtype:
            inner = scores_of(x)
            if inner is not None:
                return None if inner.keep else replace(inner, masks=(*inner.masks, mask))
    return None


def _chosen(node: Node) -> Scores | None:
    """select(keep, scores, -inf); a finite stand-in for -inf does if no row is empty."""
    if node.op.name != "select":
        return None
    cond, x, y = node.args
    for keep, scores, fill in ((cond, x, y), (None, y, x)):
        low = number(fill)
        if low is None or low > NEVER or not same_shape(node, scores):
            continue
        keep = logical_not(cond) if keep is None else keep
        inner = scores_of(scores)
        if inner is None or (low != -math.inf and (inner.masks or not has_keys(keep, node))):
            return None
        return replace(inner, keep=(*inner.keep, keep))
    return None


def _capped(node: Node) -> Scores | None:
    """tanh(scores / cap) * cap"""
    inner, cap = scaled(node)
    if inner.op.name != "tanh" or cap <= 0:
        return None
    scores, s = scaled(without_casts(inner.args[0]))
    found = scores_of(scores)
    if found is None or found.masks or found.keep or found.softcap:
        return None
    return replace(found, scale=found.scale * s * cap, softcap=cap)


def has_keys(keep: Node, scores: Node) -> bool:
    """Whether every query may look at some key, by a mask known now."""
    if keep.op is CONST:
        return bool(np.broadcast_to(array_of(keep), (1, *array_of(keep).shape)).any(axis=-1).all())
    triangle = causal_start(keep, scores.shape)
    return triangle is not None


# ---- masks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mask:
    """What is left to say of the masks: one operand, or the causal limit."""

    node: Node | None = None
    causal: bool = False
    start: object = 0


def mask_of(s: Scores, shape) -> Mask | None:
    """The masks as one; None if attention cannot say them."""
    floats = [m for m in map(_plain, s.masks) if number(m) != 0.0]
    keep = list(s.keep)
    for m in list(floats):
        limit = _float_triangle(m, shape)
        if limit is not None and len(floats) == 1 and not keep:
            return Mask(causal=limit is not True, start=0 if limit is True else limit)
        if is_infinite_choice(m):
            floats.remove(m)
            keep.append(m.args[0])
    if floats and keep:
        return None
    if floats:
        total = floats[0]
        for m in floats[1:]:
            total = add(total, m)
        return Mask(total)
    if len(keep) == 1 and (start := causal_start(keep[0], shape)) is not None:
        return Mask(causal=start is not True, start=0 if start is True else start)
    total = None
    for m in keep:
        total = m if total is None else logical_and(total, m)
    return Mask(total)


def _plain(mask: Node) -> Node:
    return without_casts(mask)


def is_infinite_choice(mask: Node) -> bool:
    """Whether a float mask is select(keep, 0, -inf)."""
    if mask.op.name != "select":
        return False
    return number(mask.args[1]) == 0.0 and number(mask.args[2]) == -math.inf


def _float_triangle(mask: Node, shape):
    """The start of a float mask that is 0 up to the diagonal and very low behind it."""
    if mask.op.name == "select":
        keep, *ends = mask.args
        if number(ends[1]) == 0.0:
            keep, ends = logical_not(keep), ends[::-1]
        low = number(ends[1])
        if number(ends[0]) == 0.0 and low is not None and low <= NEVER:
            return causal_start(keep, shape)
        return None
    if mask.op is not CONST:
        return None
    a = array_of(mask).astype(np.float64)
    if not ((a == 0) | (a <= NEVER)).all():
        return None
    return _constant_triangle(a == 0, shape)


def causal_start(keep: Node, shape):
    """e if the mask keeps key j for query i exactly where j <= i + e (and e >= 0); True if it keeps
    all keys; None otherwise."""
    if keep.op is CONST:
        return _constant_triangle(array_of(keep), shape)
    if keep.op is logical_not and keep.args[0].op is CONST:
        return _constant_triangle(~array_of(keep.args[0]), shape)
    at = positions(shape)
    truth = element(keep, at[len(shape) - keep.rank :] if keep.rank else ())
    if truth is None or truth.dtype is not boolean:
        return None
    if truth is const(True, boolean):
        return True
    i, j = at[-2:]
    return _start_in(truth, i, j)


def _start_in(truth: Expr, i: Expr, j: Expr):
    """e of the comparison j <= i + e, in whatever form it was written."""
    if truth.op not in ("le", "lt", "ge", "gt"):
        return None
    a, b = truth.args if truth.op in ("le", "lt") else truth.args[::-1]
    e = b - a + j - i - (1 if truth.op in ("lt", "gt") else 0)
    if compare("le", j, i + e) is not compare("le", a, b) and truth.op == "le":
        return None
    free = not ({i, j} & set(_atoms(e)))
    return as_dim(e) if free and compare("le", const(0), e) is const(True, boolean) else None


def _atoms(e: Expr):
    todo = [e]
    while todo:
        x = todo.pop()
        yield x
        todo.extend(x.args)


def _constant_triangle(keep: np.ndarray, shape):
    length, keys = shape[-2:]
    if keep.all():
        return True
    if not (isinstance(length, int) and isinstance(keys, int)) or keep.ndim < 2:
        return None
    if keep.shape[-2:] != (length, keys):
        return None
    rows = keep.reshape(-1, length, keys)
    start = int(rows[0, 0].sum()) - 1
    wanted = np.arange(keys) <= np.arange(length)[:, None] + start
    return start if start >= 0 and (rows == wanted).all() else None


def triangle(node: Node, x: Node, y: Node) -> Node | None:
    """trilu(c) == 0 for a number c that is not 0, as exporters make masks: by position."""
    source = x.args[0] if x.op.name == "broadcast_to" else x
    low = number(y)
    if low != 0 or number(source) in (None, 0.0) or y.type.size != 1:
        return None
    upper, k = node.args[0].attrs["upper"], node.args[0].attrs["k"]
    query, key = (
        iota(shape=tuple(node.shape[a] if a == axis else 1 for a in range(node.rank)), axis=axis,
             dtype=i64)
        for axis in (node.rank - 2, node.rank - 1)
    )  # fmt: skip
    query = add(query, reshape(size(dims=(k,)), shape=()))
    outside = less(key, query) if upper else less(query, key)
    return outside if outside.shape == node.shape else broadcast_to(outside, shape=node.shape)


# ---- the whole ---------------------------------------------------------------------------------


def guarded_softmax(p: Node) -> tuple[Node, str] | None:
    """(scores, guard) of softmax over the last axis, with NaN replaced by 0 or not."""
    p = without_casts(p)
    guard = "none"
    if p.op.name == "select" and p.args[0].op.name == "is_nan" and number(p.args[1]) == 0.0:
        if without_casts(p.args[0].args[0]) is not without_casts(p.args[2]):
            return None
        p, guard = without_casts(p.args[2]), "nan"
    if p.op.name != "softmax" or p.attrs["axis"] % p.rank != p.rank - 1:
        return None
    return p.args[0], guard


def recognised(node: Node, p: Node, v: Node) -> Node | None:
    """node = p @ v as attention."""
    pair = factors(node)
    soft = None if pair is None or pair[0].rank not in (3, 4) else guarded_softmax(p)
    if soft is None or pair[0].shape != p.shape:
        return None
    scores, guard = soft
    found = scores_of(scores)
    if found is None or found.q.dtype is not v.dtype:
        return None
    q, k, v = (_heads(t) for t in (found.q, found.k, pair[1]))
    if k.shape[:3] != v.shape[:3] or q.shape[:2] != k.shape[:2]:
        return None
    shape = (*q.shape[:3], k.shape[2])
    mask = mask_of(found, shape)
    if mask is None or (mask.node is not None and not _fits(mask.node, p, shape)):
        trace.decision("attention", node, "no", "the mask has another form")
        return None
    operand = mask.node if mask.node is None or p.rank == 4 else _heads(mask.node, p.rank)
    y = attention(q, k, v, operand, scale=found.scale, causal=mask.causal, start=mask.start,
                  softcap=found.softcap, guard=guard)  # fmt: skip
    return y if y.shape == node.shape else reshape(y, shape=node.shape)


def _heads(t: Node, rank: int | None = None) -> Node:
    """A tensor of rank 3 with one head for each of the batch."""
    if t.rank == 4 or (rank is not None and t.rank < rank):
        return t
    return reshape(t, shape=(t.shape[0], 1, *t.shape[1:]))


def _fits(mask: Node, p: Node, shape) -> bool:
    return mask.rank <= p.rank and broadcasts_to(mask.shape, p.shape)


# ---- shared heads ------------------------------------------------------------------------------


def once_each(t: Node) -> Node | None:
    """x if t is x[b, g, s, d] with each head repeated for a group of neighbours."""
    if t.op is not reshape or t.args[0].op is not broadcast_to:
        return None
    wide = t.args[0]
    x = wide.args[0]
    b, heads, s, d = t.shape
    if wide.rank != 5 or x.type.size == wide.type.size:
        return None
    g, r = wide.shape[1:3]
    if wide.shape != (b, g, r, s, d) or as_dim(as_expr(g) * as_expr(r)) != heads:
        return None
    lead = (1,) * (5 - x.rank) + x.shape
    if lead != (b, g, 1, s, d):
        return None
    return reshape(x, shape=(b, g, s, d))


def shared_heads(node: Node) -> Node | None:
    q, k, v, *rest = node.args
    one_k, one_v = once_each(k), once_each(v)
    if one_k is None or one_v is None or one_k.shape[:3] != one_v.shape[:3]:
        return None
    if divide(q.shape[1], one_k.shape[1]) is None:
        return None
    return build(attention, (q, one_k, one_v, *rest), node.attrs)


p, v, x, y = once(V("p")), V("v"), V("x"), V("y")
RULES = (
    rule("triangle", P.equal(P.trilu(x), y), triangle),
    rule("attention", P.matmul(p, v), recognised),
    rule("attention", P.dot_general(p, v), recognised),
    rule("shared-heads", P.attention(Rest("xs")), shared_heads),
    *CANONICAL,
)
