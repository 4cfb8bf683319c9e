"""Recurrent layers in one direction, as scans over time.

    y, h, c = lstm(x, w, r, bias, h0, c0)  # x: f32[t, b, i], w: f32[4*h, i], r: f32[4*h, h]

Gates are stacked in w, r and the biases in ONNX's order: input, output, forget, cell for lstm;
update, reset, hidden for gru. The product of all inputs with w is one contraction outside the loop;
each step makes one more, of the state with r. A sequence shorter than the batch's longest (lengths)
keeps its last state and gives 0 after its end. y is [t, b, h].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import FLOATS, INTEGERS, i64
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.type import Dim, TensorType, dim_text
from tensorwright.ops.control import item, items, make_tuple, scan_
from tensorwright.ops.define import composite, require, same_dtype, scalar_like
from tensorwright.ops.elementwise import (
    add, div, exp, less, log1p, maximum, minimum, mul, select, sigmoid, sub, tanh,
)  # fmt: skip
from tensorwright.ops.elementwise import abs as absolute
from tensorwright.ops.index import full, iota
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import slice
from tensorwright.ops.widen import to_dtype

# ---- activations -------------------------------------------------------------------------------


def _softplus(x):
    return add(maximum(x, 0.0), log1p(exp(sub(0.0, absolute(x)) if False else mul(absolute(x), -1.0))))


# name -> (defaults of alpha and beta, function of x, alpha, beta)
ACTIVATIONS: dict[str, tuple[tuple, Callable]] = {
    "sigmoid": ((), lambda x: sigmoid(x)),
    "tanh": ((), lambda x: tanh(x)),
    "relu": ((), lambda x: maximum(x, 0.0)),
    "affine": ((1.0, 0.0), lambda x, a, b: add(mul(x, a), b)),
    "leaky_relu": ((0.01,), lambda x, a: select(less(x, 0.0), mul(x, a), x)),
    "thresholded_relu": ((1.0,), lambda x, a: select(less(a_like(x, a), x), x, a_like(x, 0.0))),
    "scaled_tanh": ((1.0, 1.0), lambda x, a, b: mul(tanh(mul(x, b)), a)),
    "hard_sigmoid": ((0.2, 0.5), lambda x, a, b: maximum(minimum(add(mul(x, a), b), 1.0), 0.0)),
    "elu": ((1.0,), lambda x, a: select(less(x, 0.0), mul(sub(exp(minimum(x, 0.0)), 1.0), a), x)),
    "softsign": ((), lambda x: div(x, add(absolute(x), 1.0))),
    "softplus": ((), _softplus),
}


def a_like(x, value):
    return scalar_like(x, value)


def activate(x: Node, activation) -> Node:
    """An activation given by name, or as (name, alpha, beta)."""
    name, *given = (activation,) if isinstance(activation, str) else activation
    if name not in ACTIVATIONS:
        raise CompileError(f"activation {name!r} is not known",
                           help=f"use one of {', '.join(ACTIVATIONS)}")  # fmt: skip
    defaults, function = ACTIVATIONS[name]
    return function(x, *given[: len(defaults)], *defaults[len(given) :])


_NUMPY: dict[str, Callable] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0), "softsign": lambda x: x / (1 + np.abs(x)),
    "affine": lambda x, a=1.0, b=0.0: a * x + b,
    "leaky_relu": lambda x, a=0.01: np.where(x < 0, a * x, x),
    "thresholded_relu": lambda x, a=1.0: np.where(x > a, x, 0),
    "scaled_tanh": lambda x, a=1.0, b=1.0: a * np.tanh(b * x),
    "hard_sigmoid": lambda x, a=0.2, b=0.5: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a=1.0: np.where(x < 0, a * np.expm1(x), x),
    "softplus": lambda x: np.logaddexp(x, 0),
}  # fmt: skip


def _numpy(activation, x):
    name, *given = (activation,) if isinstance(activation, str) else activation
    return _NUMPY[name](x, *given)


def _clip(x: Node, limit: float) -> Node:
    return minimum(maximum(x, -limit), limit) if limit else x


def _numpy_clip(x, limit):
    return np.clip(x, -limit, limit) if limit else x


# ---- the scan ----------------------------------------------------------------------------------


def _check(op: str, gates: int):
    def check(x, w, r, bias=None, *rest, **attrs) -> None:
        same_dtype(op, x, w, r, bias)
        require(x.rank == 3, f"{op}: x is {x}; it must be [time, batch, input]")
        require(w.rank == 2 and w.shape[1] == x.shape[2],
                f"{op}: w is {w}; it must be [{gates} * hidden, {dim_text(x.shape[2])}]")
        hidden = r.shape[-1]
        stacked = as_dim(as_expr(hidden) * gates)
        require(r.rank == 2 and r.shape[0] == stacked and w.shape[0] == stacked,
                f"{op}: w {w} and r {r} do not hold {gates} gates of {dim_text(hidden)} each")
        require(bias is None or bias.shape == (stacked,),
                f"{op}: bias is {bias}; it must be [{dim_text(stacked)}]")  # fmt: skip

    return check


def gate(t: Node, k: int, hidden: Dim) -> Node:
    """The k-th gate of stacked ones along the last axis."""
    begin, end = (as_dim(as_expr(hidden) * n) for n in (k, k + 1))
    lead = t.rank - 1
    return slice(t, starts=(*(0,) * lead, begin), stops=(*t.shape[:-1], end))


def _inputs(x, w, bias) -> Node:
    """What the inputs of all steps contribute to the gates: [time, batch, gates]."""
    y = dot_general(x, w, contract=((2,), (1,)))
    return y if bias is None else add(y, bias)


def _state(given, x, hidden: Dim) -> Node:
    return full(shape=(x.shape[1], hidden), value=0, dtype=x.dtype) if given is None else given


def _scan(name: str, x, xs, states, lengths, invariants, step: Callable) -> Node:
    """(y, final states): step(states, inputs of the step, invariants) -> new states, whose first is
    the output."""
    operands, scanned = [*states, *xs], len(xs)
    if lengths is not None:
        require(lengths.dtype in INTEGERS and lengths.shape == (x.shape[1],),
                f"{name}: lengths are {lengths.type}, not one integer for each of the batch")
        operands.append(iota(shape=(x.shape[0],), axis=0, dtype=i64))
        scanned += 1
        live = to_dtype(lengths, i64)
        invariants = [*invariants, live]
    params = [param(f"s{k}", s.type) for k, s in enumerate(states)]
    slices = [param(f"x{k}", TensorType(o.dtype, o.shape[1:]))
              for k, o in enumerate(operands[len(states) :])]  # fmt: skip
    held = [param(f"w{k}", v.type) for k, v in enumerate(invariants)]
    new = step(params, slices[: len(xs)], held[: len(held) - (lengths is not None)])
    out = new[0]
    if lengths is not None:
        running = less(slices[-1], held[-1])
        running = _column(running)
        new = [select(running, a, b) for a, b in zip(new, params)]
        out = select(running, out, scalar_like(out, 0))
    body = graph(f"{name}_step", [*params, *slices, *held], [*new, out])
    found = scan_(*operands, *invariants, body=body, carried=len(states), scanned=scanned)
    *last, y = items(found)
    return make_tuple(y, *last)
