"""ONNX RNN, GRU and LSTM: one canonical layer a direction, put together here."""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, Floats, Strings, converter
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Dim

# ONNX name -> (our name, which of alpha and beta it takes)
ACTIVATIONS = {
    "sigmoid": ("sigmoid", ""), "tanh": ("tanh", ""), "relu": ("relu", ""),
    "affine": ("affine", "ab"), "leakyrelu": ("leaky_relu", "a"),
    "thresholdedrelu": ("thresholded_relu", "a"), "scaledtanh": ("scaled_tanh", "ab"),
    "hardsigmoid": ("hard_sigmoid", "ab"), "elu": ("elu", "a"), "softsign": ("softsign", ""),
    "softplus": ("softplus", ""),
}  # fmt: skip
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def activations_of(
    c: Call, names: Strings, alpha: Floats, beta: Floats, default: Strings, count: int
) -> list[tuple]:
    """The activations of each direction, with the parameters that each takes in turn."""
    names = names or default * count
    if len(names) != len(default) * count:
        raise c.fail(f"{len(names)} activations for {count} directions")
    alpha, beta, found = list(alpha), list(beta), []
    for name in names:
        if name.lower() not in ACTIVATIONS:
            raise c.fail(f"activation {name!r} is not supported")
        own, takes = ACTIVATIONS[name.lower()]
        given = [values.pop(0) for values, key in ((alpha, "a"), (beta, "b"))
                 if key in takes and values]  # fmt: skip
        found.append((own, *given) if given else own)
    return [tuple(found[k * len(default) : (k + 1) * len(default)]) for k in range(count)]


def part(x: Node, axis: int, start: Dim, stop: Dim) -> Node:
    starts, stops = [0] * x.rank, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return ops.slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)


def nth(x: Node | None, k: int, axis: int = 0) -> Node | None:
    """Direction k of a stacked operand."""
    if x is None:
        return None
    cut = part(x, axis, k, k + 1)
    return ops.reshape(cut, shape=tuple(d for a, d in enumerate(x.shape) if a != axis))


def reversed_in_time(c: Call, x: Node, lengths: Node | None) -> Node:
    """x[t, b, ...] with each sequence of the batch backwards; what lies after its end stays."""
    if lengths is None:
        return ops.flip(x, axes=(0,))
    at = ops.iota(shape=x.shape[:2], axis=0, dtype="i64")
    last = ops.reshape(ops.cast(lengths, dtype=i64), shape=(1, x.shape[1]))
    source = ops.select(ops.less(at, last), ops.sub(ops.sub(last, 1), at), at)
    source = ops.reshape(source, shape=(*x.shape[:2], *(1,) * (x.rank - 2)))
    return ops.gather_elements(x, ops.broadcast_to(source, shape=x.shape), axis=0)


def layers(
    c: Call, x: Node, w: Node, states: list[Node | None], lengths: Node | None, direction: str,
    layout: int, run: Callable,
) -> tuple:  # fmt: skip
    """(Y, final states) of run(k, x, states of direction k) -> (y, final states)."""
    if direction.lower() not in DIRECTIONS:
        raise c.fail(f"direction is {direction!r}")
    if x.rank != 3 or w.rank != 3:
        raise c.fail(f"the input has rank {x.rank} and the weights rank {w.rank}, not 3")
    backwards = DIRECTIONS[direction.lower()]
    if w.shape[0] != len(backwards):
        raise c.fail(f"the weights have {w.shape[0]} directions, not {len(backwards)}")
    if layout:
        x = ops.transpose(x, perm=(1, 0, 2))
        states = [s and ops.transpose(s, perm=(1, 0, 2)) for s in states]
    ys, finals = [], []
    for k, back in enumerate(backwards):
        own = reversed_in_time(c, x, lengths) if back else x
        y, *last = ops.items(run(k, own, [nth(s, k) for s in states]))
        ys.append(reversed_in_time(c, y, lengths) if back else y)
        finals.append(last)
    y = stacked(ys, 1)
    ends = [stacked(list(column), 0) for column in zip(*finals)]
    if layout:
        y = ops.transpose(y, perm=(2, 0, 1, 3))
        ends = [ops.transpose(e, perm=(1, 0, 2)) for e in ends]
    return (y, *ends)


def stacked(xs: list[Node], axis: int) -> Node:
    parts = [ops.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in xs]
    return parts[0] if len(parts) == 1 else ops.concat(*parts, axis=axis)


def biases(bias: Node | None, k: int) -> tuple[Node | None, Node | None]:
    """The input and the recurrent biases of direction k."""
    own = nth(bias, k)
    if own is None:
        return None, None
    half = as_dim(as_expr(own.shape[0]) // 2)
    return part(own, 0, 0, half), part(own, 0, half, own.shape[0])


def summed(bias: Node | None, k: int) -> Node | None:
    own, recurrent = biases(bias, k)
    return None if own is None else ops.add(own, recurrent)


@converter("RNN")
def rnn(
    c: Call, x: Node, w: Node, r: Node, bias: Node | None = None, lengths: Node | None = None,
    h0: Node | None = None, *, activations: Strings = (), activation_alpha: Floats = (),
    activation_beta: Floats = (), clip: float = 0.0, direction: str = "forward",
    hidden_size: int | None = None, layout: int = 0, output_sequence: int = 0,
) -> tuple:  # fmt: skip
    count = len(DIRECTIONS.get(direction.lower(), ()))
    own = activations_of(c, activations, activation_alpha, activation_beta, ("Tanh",), count)

    def run(k: int, x: Node, states: list) -> Node:
        return ops.rnn(
            x, nth(w, k), nth(r, k), summed(bias, k), states[0], lengths, activation=own[k][0],
            clip=clip,
        )  # fmt: skip

    return layers(c, x, w, [h0], lengths, direction, layout, run)


@converter("GRU")
def gru(
    c: Call, x: Node, w: Node, r: Node, bias: Node | None = None, lengths: Node | None = None,
    h0: Node | None = None, *, activations: Strings = (), activation_alpha: Floats = (),
    activation_beta: Floats = (), clip: float = 0.0, direction: str = "forward",
    hidden_size: int | None = None, layout: int = 0, linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> tuple:  # fmt: skip
    count = len(DIRECTIONS.get(direction.lower(), ()))
    default = ("Sigmoid", "Tanh")
    own = activations_of(c, activations, activation_alpha, activation_beta, default, count)

    def run(k: int, x: Node, states: list) -> Node:
        whole, hidden = summed(bias, k), None
        if linear_before_reset and bias is not None:
            inner, recurrent = biases(bias, k)
            both = as_dim(as_expr(nth(r, k).shape[1]) * 2)
            total = inner.shape[0]
            hidden = part(recurrent, 0, both, total)
            outer = ops.add(part(inner, 0, 0, both), part(recurrent, 0, 0, both))
            whole = ops.concat(outer, part(inner, 0, both, total), axis=0)
        return ops.gru(
            x, nth(w, k), nth(r, k), whole, states[0], hidden, lengths, activations=own[k],
            clip=clip, linear_before_reset=bool(linear_before_reset),
        )  # fmt: skip

    return layers(c, x, w, [h0], lengths, direction, layout, run)


@converter("LSTM")
def lstm(
    c: Call, x: Node, w: Node, r: Node, bias: Node | None = None, lengths: Node | None = None,
    h0: Node | None = None, c0: Node | None = None, peephole: Node | None = None, *,
    activations: Strings = (), activation_alpha: Floats = (), activation_beta: Floats = (),
    clip: float = 0.0, direction: str = "forward", hidden_size: int | None = None,
    input_forget: int = 0, layout: int = 0, output_sequence: int = 0,
) -> tuple:  # fmt: skip
    count = len(DIRECTIONS.get(direction.lower(), ()))
    default = ("Sigmoid", "Tanh", "Tanh")
    own = activations_of(c, activations, activation_alpha, activation_beta, default, count)

    def run(k: int, x: Node, states: list) -> Node:
        return ops.lstm(
            x, nth(w, k), nth(r, k), summed(bias, k), *states, nth(peephole, k), lengths,
            activations=own[k], clip=clip, input_forget=bool(input_forget),
        )  # fmt: skip

    return layers(c, x, w, [h0, c0], lengths, direction, layout, run)
