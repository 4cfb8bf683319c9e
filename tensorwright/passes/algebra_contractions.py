"""Fold scales into the constant weights of convolutions and matrix products.

    mul(conv_general(x, w), k: f32[8,1,1])   ->   conv_general(x, mul(w, reshape(k, (8,1,1,1))))
    mul(add(dot_general(x, w), b), k)        ->   add(dot_general(x, mul(w, k)), mul(b, k))
    dot_general(mul(x, k), w, contract=((1,),(0,)))   ->   dot_general(x, mul(reshape(k), w), ...)

A batch normalization after a convolution, once expanded, is such a scale and a shift, so that
nothing of it is left but weights and a bias.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.match import P, V, once, rule
from tensorwright.ops.elementwise import add, mul
from tensorwright.ops.linalg import free_axes
from tensorwright.ops.movement import broadcast_to, reshape
from tensorwright.passes.fold_constants import fold_node
from tensorwright.passes.layout_rules import with_attrs

x, w, b, k = V("x"), V("w", const=True), V("b", const=True), V("k", const=True)
y = V("y")


def is_ordinary(k: Node) -> bool:
    """Whether a constant holds only numbers by which weights can be scaled safely."""
    a = np.abs(array_of(k).astype(np.float64))
    return k.dtype.is_float and bool(((a == 0) | ((a > 1e-18) & (a < 1e18))).all())


def per_axis(k: Node, shape, axis: int) -> Node | None:
    """The constant k, which broadcasts to `shape`, as a vector along `axis`; None if it varies
    along another."""
    lead = len(shape) - k.rank
    if lead < 0 or any(d != 1 for i, d in enumerate(k.shape, lead) if i != axis):
        return None
    if not isinstance(shape[axis], int):
        return None
    vector = fold_node(reshape(k, shape=(k.type.size,)))
    if k.type.size == shape[axis]:
        return vector
    return fold_node(broadcast_to(vector, shape=(shape[axis],)))


def scaled(w: Node, k: Node) -> Node:
    return fold_node(mul(w, fold_node(k)))


def along(vector: Node, axis: int, rank: int) -> Node:
    return reshape(vector, shape=(*vector.shape, *(1,) * (rank - 1 - axis)))


def conv_axes(node: Node) -> tuple[int, int, int]:
    """The channel axis of the result, and the output and input axes of the weights."""
    if node.attrs["layout"] == "NC":
        return 1, 0, 1
    return node.rank - 1, node.rank - 1, node.rank - 2


def scaled_conv(node: Node, x: Node, w: Node, k: Node) -> Node | None:
    conv = node.args[0]
    channel, out, _ = conv_axes(conv)
    vector = per_axis(k, node.shape, channel) if node.shape == conv.shape else None
    if vector is None or not is_ordinary(k) or not conv.dtype.is_float or conv.dtype is not w.dtype:
        return None
    return with_attrs(conv, (x, scaled(w, along(vector, out, w.rank))))


def conv_of_scaled(node: Node, x: Node, w: Node, k: Node) -> Node | None:
    """A scale for each input channel before a convolution; its zeros stay zeros."""
    channel, _, taken = conv_axes(node)
    product = node.args[0]
    vector = per_axis(k, product.shape, channel) if product.shape == x.shape else None
    if vector is None or node.attrs["groups"] != 1 or not is_ordinary(k) or x.dtype is not w.dtype:
        return None
    return with_attrs(node, (x, scaled(w, along(vector, taken, w.rank))))


def dot_axes(dot: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The free axes of x and of w."""
    batch, contract = dot.attrs["batch"], dot.attrs["contract"]
    free = [free_axes(a.rank, [i % a.rank for i in batch[s]], [i % a.rank for i in contract[s]])
            for s, a in enumerate(dot.args)]  # fmt: skip
    return free[0], free[1]


def scaled_dot(node: Node, x: Node, w: Node, k: Node) -> Node | None:
    """A scale that varies only along one free axis of w (or not at all)."""
    dot = node.args[0]
    if node.shape != dot.shape or not is_ordinary(k) or dot.dtype is not w.dtype:
        return None
    first = dot.rank - len(dot_axes(dot)[1])
    if k.type.size == 1:
        return with_attrs(dot, (x, scaled(w, reshape(k, shape=()))))
    for position, axis in enumerate(dot_axes(dot)[1], first):
        vector = per_axis(k, node.shape, position)
        if vector is not None:
            return with_attrs(dot, (x, scaled(w, along(vector, axis, w.rank))))
    return None


def dot_of_scaled(node: Node, x: Node, w: Node, k: Node) -> Node | None:
    """A scale along one contracted axis."""
    product = node.args[0]
    if product.shape != x.shape or not is_ordinary(k) or x.dtype is not w.dtype:
        return None
    for mine, theirs in zip(*node.attrs["contract"]):
        vector = per_axis(k, x.shape, mine % x.rank)
        if vector is not None:
            return with_attrs(node, (x, scaled(w, along(vector, theirs % w.rank, w.rank))))
    return None


def is_weighted(node: Node) -> bool:
    """A contraction with constant weights."""
    return node.op.name in ("conv_general", "dot_general") and node.args[1].op is CONST


def distributed(y: Node, b: Node, k: Node) -> Node | None:
    """(y + b) * k as y * k + b * k, where the product with y will go into weights."""
    return add(mul(y, k), fold_node(mul(b, k))) if is_weighted(y) and is_ordinary(k) else None


CONTRACTIONS = (
    rule("scale-into-convolution", P.mul(once(P.conv_general(x, w)), k), scaled_conv),
    rule("scale-before-convolution", P.conv_general(once(P.mul(x, k)), w), conv_of_scaled),
    rule("scale-into-product", P.mul(once(P.dot_general(x, w)), k), scaled_dot),
    rule("scale-before-product", P.dot_general(once(P.mul(x, k)), w), dot_of_scaled),
    rule("scale-of-sum", P.mul(once(P.add(once(y), b)), k), distributed),
)
