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
from tensorwright.ops import activations as rows
from tensorwright.ops.control import items, make_tuple, scan_
from tensorwright.ops.define import composite, require, same_dtype, scalar_like
from tensorwright.ops.elementwise import add, less, mul, select, sigmoid, sub, tanh
from tensorwright.ops.index import full, iota
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import reshape, slice
from tensorwright.ops.widen import to_dtype

# ---- activations -------------------------------------------------------------------------------


def _with(row, *names: str) -> Callable:
    """`row` (or its reference) applied with its attributes given in order."""
    return lambda f, x, *values: f(row)(x, **dict(zip(names, values)))


# name -> (defaults of alpha and beta, function of the form wanted of a row, x, alpha, beta)
ACTIVATIONS: dict[str, tuple[tuple, Callable]] = {
    "sigmoid": ((), _with(sigmoid)),
    "tanh": ((), _with(tanh)),
    "relu": ((), _with(rows.relu)),
    "affine": ((1.0, 0.0), lambda f, x, a, b: f(add)(f(mul)(x, a), b)),
    "leaky_relu": ((0.01,), _with(rows.leaky_relu, "alpha")),
    "thresholded_relu": ((1.0,), _with(rows.thresholded_relu, "alpha")),
    "scaled_tanh": ((1.0, 1.0), lambda f, x, a, b: f(mul)(f(tanh)(f(mul)(x, b)), a)),
    "hard_sigmoid": ((0.2, 0.5), _with(rows.hard_sigmoid, "alpha", "beta")),
    "elu": ((1.0,), _with(rows.elu, "alpha")),
    "softsign": ((), _with(rows.softsign)),
    "softplus": ((), _with(rows.softplus)),
}


def activate(x, activation, form: Callable = lambda row: row):
    """An activation given by name, or as (name, alpha, beta)."""
    name, *given = (activation,) if isinstance(activation, str) else activation
    if name not in ACTIVATIONS:
        raise CompileError(f"activation {name!r} is not known",
                           help=f"use one of {', '.join(ACTIVATIONS)}")  # fmt: skip
    defaults, function = ACTIVATIONS[name]
    return function(form, x, *given[: len(defaults)], *defaults[len(given) :])


def _numpy(x, activation):
    return activate(x, activation, lambda row: row.reference)


def _clip(x: Node, limit: float) -> Node:
    return rows.clamp(x, low=-limit, high=limit) if limit else x


def _numpy_clip(x, limit):
    return np.clip(x, -limit, limit) if limit else x


# ---- the scan ----------------------------------------------------------------------------------


def _check(op: str, gates: int):
    def check(x, w, r, bias=None, *rest, **attrs) -> None:
        *states, lengths = rest
        same_dtype(op, x, w, r, bias, *states)
        require(x.rank == 3, f"{op}: x is {x}; it must be [time, batch, input]")
        require(
            w.rank == 2 and w.shape[1] == x.shape[2],
            f"{op}: w is {w}; it must be [{gates} * hidden, {dim_text(x.shape[2])}]",
        )
        hidden = r.shape[-1]
        stacked = as_dim(as_expr(hidden) * gates)
        require(
            r.rank == 2 and r.shape[0] == stacked and w.shape[0] == stacked,
            f"{op}: w {w} and r {r} do not hold {gates} gates of {dim_text(hidden)} each",
        )
        require(bias is None or bias.shape == (stacked,),
                f"{op}: bias is {bias}; it must be [{dim_text(stacked)}]")  # fmt: skip
        require(
            lengths is None or (lengths.dtype in INTEGERS and lengths.shape == x.shape[1:2]),
            f"{op}: lengths are {lengths}, not one integer for each of the batch",
        )

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
        operands.append(iota(shape=(x.shape[0],), axis=0, dtype=i64))
        scanned += 1
        invariants = [*invariants, to_dtype(lengths, i64)]
    params = [param(f"s{k}", s.type) for k, s in enumerate(states)]
    slices = [param(f"x{k}", TensorType(o.dtype, o.shape[1:]))
              for k, o in enumerate(operands[len(states) :])]  # fmt: skip
    held = [param(f"w{k}", v.type) for k, v in enumerate(invariants)]
    new = step(params, slices[: len(xs)], held[: len(held) - (lengths is not None)])
    out = new[0]
    if lengths is not None:
        running = reshape(less(slices[-1], held[-1]), shape=(x.shape[1], 1))
        new = [select(running, a, b) for a, b in zip(new, params)]
        out = select(running, out, scalar_like(out, 0))
    body = graph(f"{name}_step", [*params, *slices, *held], [*new, out])
    found = scan_(*operands, *invariants, body=body, carried=len(states), scanned=scanned)
    *last, y = items(found)
    return make_tuple(y, *last)


def _project(h, r) -> Node:
    return dot_general(h, r, contract=((1,), (1,)))


# ---- layers ------------------------------------------------------------------------------------


def _expand_rnn(x, w, r, bias=None, h0=None, lengths=None, *, activation="tanh", clip=0.0):
    def step(states, inputs, held):
        (h,), (xw,), (r,) = states, inputs, held
        return [activate(_clip(add(xw, _project(h, r)), clip), activation)]

    start = _state(h0, x, r.shape[1])
    return _scan("rnn", x, [_inputs(x, w, bias)], [start], lengths, [r], step)


def _steps(x, lengths):
    """For each step, which rows of the batch it still concerns."""
    for t in range(x.shape[0]):
        yield t, np.ones((x.shape[1], 1), bool) if lengths is None else t < lengths[:, None]


def _reference_layer(states: int, step: Callable):
    """A layer in NumPy: step(x[t] @ w' + bias, states, r, **attrs) -> new states."""

    def reference(x, w, r, bias=None, *rest, **attrs):
        kind, hidden = x.dtype, r.shape[1]
        x, w, r = (v.astype(np.float64) for v in (x, w, r))
        bias = 0 if bias is None else bias.astype(np.float64)
        rest = [*rest, *[None] * 9]
        h = [np.zeros((x.shape[1], hidden)) if s is None else s.astype(np.float64)
             for s in rest[:states]]  # fmt: skip
        extra, lengths = [None, *rest[states:]][:2] if step is _numpy_rnn else rest[states:][:2]
        y = np.zeros((*x.shape[:2], hidden))
        for t, live in _steps(x, lengths):
            new = step(x[t] @ w.T + bias, h, r, extra, **attrs)
            y[t] = np.where(live, new[0], 0)
            h = [np.where(live, a, b) for a, b in zip(new, h)]
        return tuple(v.astype(kind) for v in (y, *h))

    return reference


def _numpy_rnn(xw, h, r, extra, activation="tanh", clip=0.0):
    return [_numpy(_numpy_clip(xw + h[0] @ r.T, clip), activation)]


rnn = composite(
    "rnn", "x, w, r, bias?, h0?, lengths?", _expand_rnn, _check("rnn", 1),
    reference=_reference_layer(1, _numpy_rnn), dtypes=FLOATS,
    samples=("f32[3,2,4] f32[5,4] f32[5,5] f32[5]", "f32[3,2,4] f32[5,4] f32[5,5] - f32[2,5] "
             "i64[2]@1:3 activation=relu", "f32[t,b,4] f32[5,4] f32[5,5] t=1,4 b=2",
             "f32[2,1,3] f32[4,3] f32[4,4] activation=('affine',0.5,0.1) clip=0.5"),
    doc="h[t] = activation(x[t] w' + h[t-1] r' + bias); gives (y, h).",
)  # fmt: skip


def _expand_gru(
    x, w, r, bias=None, h0=None, hidden_bias=None, lengths=None, *,
    activations=("sigmoid", "tanh"), clip=0.0, linear_before_reset=False,
):  # fmt: skip
    """hidden_bias is the recurrent bias of the hidden gate, which linear_before_reset puts inside
    the reset; otherwise it belongs in bias."""
    hidden = r.shape[1]
    outer, inner = activations
    both = as_dim(as_expr(hidden) * 2)

    def step(states, inputs, held):
        (h,), (xw,) = states, inputs
        part = lambda t, k: gate(t, k, hidden)
        hr = _project(h, held[0])
        z, reset = (_gate(add(part(xw, k), part(hr, k)), outer, clip) for k in (0, 1))
        if linear_before_reset:
            last = part(hr, 2) if hidden_bias is None else add(part(hr, 2), held[1])
            new = _gate(add(part(xw, 2), mul(reset, last)), inner, clip)
        else:
            new = _gate(add(part(xw, 2), _project(mul(reset, h), held[1])), inner, clip)
        return [add(mul(one_minus(z), new), mul(z, h))]

    if linear_before_reset:
        held = [r] if hidden_bias is None else [r, hidden_bias]
    else:
        cut = lambda a, b: slice(r, starts=(a, 0), stops=(b, hidden))
        held = [cut(0, both), cut(both, r.shape[0])]
    start = _state(h0, x, hidden)
    return _scan("gru", x, [_inputs(x, w, bias)], [start], lengths, held, step)


def _gate(x: Node, activation, clip: float) -> Node:
    return activate(_clip(x, clip), activation)


def one_minus(x: Node) -> Node:
    return sub(scalar_like(x, 1), x)


def _numpy_gru(
    xw, h, r, hidden_bias, activations=("sigmoid", "tanh"), clip=0.0, linear_before_reset=False
):  # fmt: skip
    (h,), n = h, r.shape[1]
    run = lambda v, f: _numpy(_numpy_clip(v, clip), f)
    z, reset = (run(xw[:, k * n : k * n + n] + h @ r[k * n : k * n + n].T, activations[0])
                for k in (0, 1))  # fmt: skip
    if linear_before_reset:
        inner = h @ r[2 * n :].T + (0 if hidden_bias is None else hidden_bias)
        new = run(xw[:, 2 * n :] + reset * inner, activations[1])
    else:
        new = run(xw[:, 2 * n :] + (reset * h) @ r[2 * n :].T, activations[1])
    return [(1 - z) * new + z * h]


gru = composite(
    "gru", "x, w, r, bias?, h0?, hidden_bias?, lengths?", _expand_gru, _check("gru", 3),
    reference=_reference_layer(1, _numpy_gru), dtypes=FLOATS,
    samples=("f32[3,2,4] f32[15,4] f32[15,5] f32[15]", "f32[3,2,4] f32[15,4] f32[15,5] f32[15] "
             "f32[2,5] f32[5] i64[2]@1:3 linear_before_reset=True",
             "f32[t,b,4] f32[15,4] f32[15,5] t=1,4 b=2", "f32[2,1,3] f32[6,3] f32[6,2] clip=0.3",
             "f32[2,1,3] f32[6,3] f32[6,2] activations=('hard_sigmoid','softsign')"),
    doc="A gated recurrent layer; gates update, reset, hidden. Gives (y, h).",
)  # fmt: skip


def _expand_lstm(
    x, w, r, bias=None, h0=None, c0=None, peephole=None, lengths=None, *,
    activations=("sigmoid", "tanh", "tanh"), clip=0.0, input_forget=False,
):  # fmt: skip
    hidden = r.shape[1]
    outer, inner, last = activations

    def step(states, inputs, held):
        (h, c), (xw,) = states, inputs
        gates = add(xw, _project(h, held[0]))
        parts = [gate(gates, k, hidden) for k in range(4)]

        def peep(k: int, cell: Node) -> Node:
            return parts[k] if peephole is None else add(parts[k], mul(cell, held[1 + k]))

        i = _gate(peep(0, c), outer, clip)
        f = one_minus(i) if input_forget else _gate(peep(2, c), outer, clip)
        new = add(mul(f, c), mul(i, _gate(parts[3], inner, clip)))
        o = _gate(peep(1, new), outer, clip)
        return [mul(o, activate(new, last)), new]

    held = [r] if peephole is None else [r, *(gate(peephole, k, hidden) for k in range(3))]
    states = [_state(h0, x, hidden), _state(c0, x, hidden)]
    return _scan("lstm", x, [_inputs(x, w, bias)], states, lengths, held, step)


def _numpy_lstm(
    xw, state, r, peephole, activations=("sigmoid", "tanh", "tanh"), clip=0.0, input_forget=False
):  # fmt: skip
    (h, c), n = state, r.shape[1]
    p = np.zeros(3 * n) if peephole is None else peephole.astype(np.float64)
    i, o, f, g = np.split(xw + h @ r.T, 4, axis=1)
    run = lambda v, k: _numpy(_numpy_clip(v, clip), activations[k])
    i = run(i + p[:n] * c, 0)
    f = 1 - i if input_forget else run(f + p[2 * n :] * c, 0)
    new = f * c + i * run(g, 1)
    return [run(o + p[n : 2 * n] * new, 0) * _numpy(new, activations[2]), new]


lstm = composite(
    "lstm", "x, w, r, bias?, h0?, c0?, peephole?, lengths?", _expand_lstm, _check("lstm", 4),
    reference=_reference_layer(2, _numpy_lstm), dtypes=FLOATS,
    samples=("f32[3,2,4] f32[20,4] f32[20,5] f32[20]", "f32[3,2,4] f32[20,4] f32[20,5] f32[20] "
             "f32[2,5] f32[2,5] f32[15] i64[2]@1:3", "f32[t,b,4] f32[20,4] f32[20,5] t=1,4 b=2",
             "f32[2,1,3] f32[8,3] f32[8,2] clip=0.3 input_forget=True",
             "f16[2,1,3] f16[8,3] f16[8,2]"),
    doc="A long short-term memory layer; gates input, output, forget, cell. Gives (y, h, c).",
)  # fmt: skip
