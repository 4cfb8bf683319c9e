"""Attention with a state of fixed size, and the short convolutions that go before it.

    y, state = linear_attention(q, k, v, state, decay, beta)    # q: f32[batch, heads, time, depth]

At each step the state [batch, shared heads, depth, value depth] is multiplied by exp(decay), takes
up the outer product of k and v (with beta: of k and beta (v - what the state holds for k)), and is
read with q * scale. Heads of the state are shared by consecutive heads of q.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops.activations import silu
from tensorwright.ops.control import items, make_tuple, scan_
from tensorwright.ops.conv import add_bias, conv_general
from tensorwright.ops.define import composite, require, same_dtype
from tensorwright.ops.elementwise import add, exp, mul, sub
from tensorwright.ops.index import full
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import concat, reshape, slice_axis, transpose
from tensorwright.ops.widen import to_dtype, widened

HEADS = (0, 1)  # batch and shared head


def _check_linear(q, k, v, state=None, decay=None, beta=None, *, scale=None) -> None:
    op = "linear_attention"
    same_dtype(op, q, k, v)
    for name, t in (("q", q), ("k", k), ("v", v)):
        require(t.rank == 4, f"{op}: {name} is {t}; it must be [batch, heads, time, depth]")
    require(q.shape[3] == k.shape[3] and k.shape[:3] == v.shape[:3],
            f"{op}: q {q}, k {k} and v {v} do not fit together")  # fmt: skip
    heads, shared = q.shape[1], k.shape[1]
    require(
        isinstance(heads, int) and isinstance(shared, int) and heads % shared == 0,
        f"{op}: {dim_text(heads)} query heads do not share {dim_text(shared)} heads evenly",
    )
    wanted = (k.shape[0], shared, k.shape[3], v.shape[3])
    require(state is None or state.shape == wanted,
            f"{op}: state is {state}; it must be {TensorType(q.dtype, wanted)}")  # fmt: skip


def _step(h: Node, now: dict, groups: int, scale: float):
    """(state, read) after one step."""
    if "decay" in now:
        h = mul(h, reshape(exp(now["decay"]), shape=(*now["decay"].shape, 1)))
    k, v = now["k"], now["v"]
    if "beta" in now:
        held = dot_general(h, k, batch=(HEADS, HEADS), contract=((2,), (2,)))
        v = mul(sub(v, held), now["beta"])
    outer = mul(reshape(k, shape=(*k.shape, 1)), reshape(v, shape=(*v.shape[:2], 1, v.shape[2])))
    h = add(h, outer)
    q = now["q"]
    rows = reshape(q, shape=(q.shape[0], k.shape[1], groups, q.shape[2]))
    read = dot_general(rows, h, batch=(HEADS, HEADS), contract=((3,), (2,)))
    return h, mul(reshape(read, shape=(*q.shape[:2], v.shape[2])), scale)


def _expand_linear(q, k, v, state=None, decay=None, beta=None, *, scale=None):
    wide = {"q": q, "k": k, "v": v, "decay": decay, "beta": beta}
    wide = {n: transpose(widened(t), perm=(2, 0, 1, 3)) for n, t in wide.items() if t is not None}
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    groups = as_dim(as_expr(q.shape[1]) // k.shape[1])
    dims = (k.shape[0], k.shape[1], k.shape[3], v.shape[3])
    start = widened(state) if state is not None else full(
        shape=dims, value=0, dtype=wide["q"].dtype)  # fmt: skip
    h = param("state", start.type)
    now = {n: param(n, TensorType(t.dtype, t.shape[1:])) for n, t in wide.items()}
    body = graph("linear_attention_step", [h, *now.values()], _step(h, now, groups, scale))
    found = scan_(start, *wide.values(), body=body, carried=1, scanned=len(wide))
    last, y = items(found)
    y = to_dtype(transpose(y, perm=(1, 2, 0, 3)), q.dtype)
    return make_tuple(y, to_dtype(last, q.dtype if state is None else state.dtype))


def _reference_linear(q, k, v, state=None, decay=None, beta=None, scale=None):
    kind, groups = q.dtype, q.shape[1] // k.shape[1]
    scale = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    q, k, v = (t.astype(np.float64) for t in (q, k, v))
    h = np.zeros((*k.shape[:2], k.shape[3], v.shape[3]))
    held_kind = kind if state is None else state.dtype
    h = h if state is None else state.astype(np.float64)
    y = np.zeros((*q.shape[:3], v.shape[3]))
    for t in range(q.shape[2]):
        if decay is not None:
            h = h * np.exp(decay[:, :, t].astype(np.float64))[..., None]
        new = v[:, :, t]
        if beta is not None:
            new = (new - np.einsum("bhdm,bhd->bhm", h, k[:, :, t])) * beta[:, :, t]
        h = h + k[:, :, t, :, None] * new[..., None, :]
        y[:, :, t] = scale * np.einsum("bhd,bhdm->bhm", q[:, :, t], np.repeat(h, groups, 1))
    return y.astype(kind), h.astype(held_kind)


linear_attention = composite(
    "linear_attention", "q, k, v, state?, decay?, beta?", _expand_linear, _check_linear,
    reference=_reference_linear, dtypes=FLOATS,
    samples=("f32[2,2,3,4] f32[2,2,3,4] f32[2,2,3,5]",
             "f32[1,4,3,4] f32[1,2,3,4] f32[1,2,3,5] f32[1,2,4,5] f32[1,2,3,1]@-1:0 "
             "f32[1,2,3,1]@0:1 scale=0.5",
             "f32[b,2,t,4] f32[b,1,t,4] f32[b,1,t,4] - f32[b,1,t,4]@-1:0 b=1 t=1,4"),
    doc="Attention through a state that decays and is corrected; gives (y, state).",
)  # fmt: skip


# ---- causal convolution ------------------------------------------------------------------------


def _check_causal(x, w, bias=None, state=None, *, activation="none") -> None:
    op = "causal_conv"
    same_dtype(op, x, w, bias, state)
    require(x.rank == 3, f"{op}: x is {x}; it must be [batch, channels, time]")
    require(w.rank == 3 and w.shape[:2] == (x.shape[1], 1),
            f"{op}: w is {w}; it must be [{dim_text(x.shape[1])}, 1, window]")  # fmt: skip
    require(activation in ("none", "silu"), f"{op}: activation {activation!r} is not known")


def _expand_causal(x, w, bias=None, state=None, *, activation="none"):
    """Each channel with its own window over the past, which `state` continues."""
    before = as_dim(as_expr(w.shape[2]) - 1)
    if state is None:
        state = full(shape=(x.shape[0], x.shape[1], before), value=0, dtype=x.dtype)
    whole = concat(state, x, axis=2)
    y = add_bias(conv_general(whole, w, groups=x.shape[1]), bias, 1)
    y = silu(y) if activation == "silu" else y
    total = whole.shape[2]
    return make_tuple(y, slice_axis(whole, 2, as_dim(as_expr(total) - before), total))


def _reference_causal(x, w, bias=None, state=None, activation="none"):
    n = w.shape[2] - 1
    state = np.zeros((*x.shape[:2], n), x.dtype) if state is None else state
    whole = np.concatenate([state, x], axis=2)
    wide = whole.astype(np.float64)
    y = sum(wide[:, :, k : k + x.shape[2]] * w[:, 0, k].astype(np.float64)[:, None]
            for k in range(n + 1))  # fmt: skip
    y = y if bias is None else y + bias.astype(np.float64)[:, None]
    y = y / (1 + np.exp(-y)) if activation == "silu" else y
    return y.astype(x.dtype), whole[:, :, whole.shape[2] - n :]


causal_conv = composite(
    "causal_conv", "x, w, bias?, state?", _expand_causal, _check_causal,
    reference=_reference_causal, dtypes=FLOATS,
    samples=("f32[2,3,5] f32[3,1,3] f32[3] f32[2,3,2]", "f32[2,3,5] f32[3,1,3] activation=silu",
             "f32[b,2,t] f32[2,1,4] b=1 t=1,6"),
    doc="A convolution of each channel over its past, with the end of it kept: (y, state).",
)  # fmt: skip
