"""LSTM, GRU and simple recurrent layers: all layers and directions of a torch call.

torch.export would unroll a layer over time, and so fix the number of steps. `whole_layers` makes
the layers of a module appear as operators of our own (`tensorwright.lstm`) while it is exported.

Gates are stacked as torch has them (lstm: input, forget, cell, output; gru: reset, update, new) and
reordered to those of our rows (input, output, forget, cell; update, reset, hidden).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from tensorwright.frontend.torch_ops import Call, Rows, slice_axis, take_one, transposed, with_axis
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node, array_of, constant
from tensorwright.ops import control as ct
from tensorwright.ops import elementwise as ew
from tensorwright.ops import movement as mv
from tensorwright.ops import recurrent as rc

RECURRENT = Rows()

LSTM_GATES, GRU_GATES = (0, 3, 1, 2), (1, 0, 2)


def reordered(t: Node, order: Sequence[int]) -> Node:
    """Stacked gates in another order; done at once on constants."""
    array = array_of(t)
    if array is not None:
        parts = np.split(array, len(order))
        return constant(np.concatenate([parts[k] for k in order]), t.name)
    size = as_expr(t.shape[0]) // len(order)
    cuts = [(as_dim(size * k), as_dim(size * (k + 1))) for k in order]
    return mv.concat(*[slice_axis(t, 0, *cut) for cut in cuts], axis=0)


def summed(a: Node | None, b: Node | None) -> Node | None:
    """The sum of two biases."""
    if a is None or b is None:
        return a
    one, two = array_of(a), array_of(b)
    return ew.add(a, b) if one is None or two is None else constant(one + two, a.name)


def _lstm_layer(x, w, r, b, rb, states):
    w, r = reordered(w, LSTM_GATES), reordered(r, LSTM_GATES)
    bias = summed(b, rb)
    bias = None if bias is None else reordered(bias, LSTM_GATES)
    return ct.items(rc.lstm(x, w, r, bias, *states))


def _gru_layer(x, w, r, b, rb, states):
    w, r = reordered(w, GRU_GATES), reordered(r, GRU_GATES)
    if b is None:
        return ct.items(rc.gru(x, w, r, None, *states, linear_before_reset=True))
    hidden = r.shape[1]
    b, rb = reordered(b, GRU_GATES), reordered(rb, GRU_GATES)
    two, three = as_dim(as_expr(hidden) * 2), as_dim(as_expr(hidden) * 3)
    inside = slice_axis(rb, 0, two, three)  # the recurrent bias of the new gate: under the reset
    outside = mv.pad(slice_axis(rb, 0, 0, two), low=(0,), high=(hidden,))
    bias = ew.add(b, outside)
    return ct.items(rc.gru(x, w, r, bias, *states, inside, linear_before_reset=True))


def _rnn_layer(activation: str) -> Callable:
    def layer(x, w, r, b, rb, states):
        return ct.items(rc.rnn(x, w, r, summed(b, rb), *states, activation=activation))

    return layer


def stacked_layers(
    c: Call, layer: Callable, x: Node, states: Sequence[Node], params: Sequence[Node],
    has_biases: bool, layers: int, dropout: float, train: bool, bidirectional: bool,
    batch_first: bool,
) -> list[Node]:  # fmt: skip
    """[y, final states...] of all layers and directions."""
    if train and dropout:
        raise c.fail("dropout is on", "call model.eval() before compiling")
    directions, each = 1 + bool(bidirectional), 4 if has_biases else 2
    if len(params) != layers * directions * each:
        raise c.fail("projections (proj_size) are not supported")
    unbatched = x.rank == 2
    if unbatched:
        x, states = with_axis(x, 1), [with_axis(s, 1) for s in states]
    elif batch_first:
        x = transposed(x, (1, 0, 2))
    last: list[list[Node]] = [[] for _ in states]
    for k in range(layers):
        outputs = []
        for d in range(directions):
            at = k * directions + d
            w, r, *biases = params[at * each : (at + 1) * each]
            b, rb = biases or (None, None)
            start = [take_one(s, 0, at) for s in states]
            y, *final = layer(mv.flip(x, axes=(0,)) if d else x, w, r, b, rb, start)
            outputs.append(mv.flip(y, axes=(0,)) if d else y)
            for kept, f in zip(last, final):
                kept.append(with_axis(f, 0))
        x = outputs[0] if directions == 1 else mv.concat(*outputs, axis=2)
    finals = [v[0] if len(v) == 1 else mv.concat(*v, axis=0) for v in last]
    if unbatched:
        return [mv.reshape(v, shape=(v.shape[0], v.shape[2])) for v in (x, *finals)]
    return [transposed(x, (1, 0, 2)) if batch_first else x, *finals]


@RECURRENT.row("lstm.input", "tensorwright.lstm.default")
def _lstm(c, x, states, params, has_biases, layers, dropout, train, bidirectional, batch_first):
    return stacked_layers(c, _lstm_layer, x, states, params, has_biases, layers, dropout, train,
                          bidirectional, batch_first)  # fmt: skip


def _one_state(layer: Callable) -> Callable:
    def convert(c, x, state, params, has_biases, layers, dropout, train, bidirectional,
                batch_first):  # fmt: skip
        return stacked_layers(c, layer, x, [state], params, has_biases, layers, dropout, train,
                              bidirectional, batch_first)  # fmt: skip

    return convert


RECURRENT.add(_one_state(_gru_layer), "gru.input", "tensorwright.gru.default")
for _name in ("tanh", "relu"):
    RECURRENT.add(_one_state(_rnn_layer(_name)), f"rnn_{_name}.input",
                  f"tensorwright.rnn_{_name}.default")  # fmt: skip


# ---- layers as operators of their own during export --------------------------------------------

KINDS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_REST = "Tensor[] params, bool has_biases, int layers, float dropout, bool train, " \
        "bool bidirectional, bool batch_first"  # fmt: skip


@contextmanager
def whole_layers(torch) -> Iterator[None]:
    """Inside, recurrent layers of torch modules call operators of our own, which export keeps
    whole. Layers with projections and packed sequences stay as they are."""
    library = torch._VF
    own = {kind: getattr(library, kind) for kind in KINDS}
    for kind in KINDS:
        setattr(library, kind, _kept(own[kind], _operator(torch, kind, own[kind])))
    try:
        yield
    finally:
        for kind in KINDS:
            delattr(library, kind)


def _kept(own: Callable, operator: Callable) -> Callable:
    def call(*args):
        plain = len(args) == 9 and isinstance(args[3], bool)
        each = (4 if args[3] else 2) * (2 if args[7] else 1) * args[4] if plain else -1
        return operator(*args) if plain and len(args[2]) == each else own(*args)

    return call


def _operator(torch, kind: str, own: Callable) -> Callable:
    """The custom operator of a layer, made on first use."""
    packet = getattr(torch.ops.tensorwright, kind, None)
    if packet is not None:
        return packet.default
    state = "Tensor[] hx" if kind == "lstm" else "Tensor hx"
    results = "(Tensor, Tensor, Tensor)" if kind == "lstm" else "(Tensor, Tensor)"
    made = torch.library.custom_op(
        f"tensorwright::{kind}", lambda *args: tuple(v.clone() for v in own(*args)),
        mutates_args=(), schema=f"(Tensor x, {state}, {_REST}) -> {results}",
    )  # fmt: skip

    @made.register_fake
    def shapes(x, hx, params, has_biases, layers, dropout, train, bidirectional, batch_first):
        states = hx if isinstance(hx, (list, tuple)) else [hx]
        width = params[1].shape[1] * (2 if bidirectional else 1)
        y = x.new_empty((*x.shape[:-1], width))
        return (y, *(s.new_empty(s.shape) for s in states))

    return getattr(torch.ops.tensorwright, kind).default
