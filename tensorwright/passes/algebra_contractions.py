"""Fold scales into the constant weights of convolutions and matrix products; products of few rows
as sums.

    mul(conv_general(x, w), k: f32[8,1,1])   ->   conv_general(x, mul(w, reshape(k, (8,1,1,1))))
    mul(add(dot_general(x, w), b), k)        ->   add(dot_general(x, mul(w, k)), mul(b, k))
    dot_general(mul(x, k), w, contract=((1,),(0,)))   ->   dot_general(x, mul(reshape(k), w), ...)
    dot_general(x: f32[1, 512], y: f32[512, 512], ...)   ->   reduce_sum(mul(y, reshape(x)), ...)

A batch normalization after a convolution, once expanded, is such a scale and a shift, so that
nothing of it is left but weights and a bias.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.match import P, V, once, rule
from tensorwright.ir.type import Dim, Shape
from tensorwright.ops.elementwise import add, mul
from tensorwright.ops.linalg import free_axes
from tensorwright.ops.movement import broadcast_to, reshape, transpose
from tensorwright.ops.reduce import reduce_sum
from tensorwright.passes.fold_constants import fold_node
from tensorwright.passes.layout_rules import with_attrs

x, w, b, k = V("x"), V("w", const=True), V("b", const=True), V("k", const=True)
y, z = V("y"), V("z")
SHORTEST = 16  # elements of a row that is worth a sum of its own
LARGE = 1 << 15  # elements of a matrix whose panels take longer than its product
FEW_ROWS = (1, 2)  # that such a matrix is read once for each of
ENDING, ADDING, TURNING = 30, 2, 0.7  # cycles: to end a sum, for a vector of it, to turn an element


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


def product_as_sum(node: Node, y: Node, z: Node) -> Node | None:
    """Few rows against a matrix, or such a product for each step of a batch (one token's scores),
    as a sum: the matrix is read as it lies, where a contraction would turn it first. Constants are
    turned at compile time, and stay."""
    batch = tuple(range(len(node.attrs["batch"][0])))
    plain = all(tuple(axes) == batch for axes in node.attrs["batch"])
    plain = plain and len(node.attrs["contract"][0]) == 1
    if not plain or any(a.rank != len(batch) + 2 or a.dtype is not f32 for a in (y, z)):
        return None
    own = [axis for (axis,) in dot_axes(node)]  # the free one of each
    side = 0 if z.shape[own[1]] == 1 != y.shape[own[0]] else 1
    many, few = (y, z)[side], (y, z)[1 - side]
    rows, last = few.shape[own[1 - side]], many.rank - 1
    ahead, along = many.shape[: len(batch)], own[side] != last
    if many.op is CONST or (rows != 1 and own[1 - side] == last):
        return None
    if not along and is_large(many, ahead) and rows in FEW_ROWS:
        columns = reshape(many, shape=(*ahead, 1, *many.shape[-2:]))
        factors = reshape(few, shape=(*ahead, rows, many.shape[-2], 1))
        return reshape(reduce_sum(mul(columns, factors), axes=(last,)), shape=node.shape)
    if not along or not are_few(rows, many.shape[last], bool(batch)):
        return None
    if rows == 1:
        factors = reshape(few, shape=(*ahead, 1, many.shape[last]))
        return reshape(reduce_sum(mul(many, factors), axes=(last,)), shape=node.shape)
    lines = reshape(many, shape=(*ahead, many.shape[-2], 1, many.shape[last]))
    factors = reshape(few, shape=(*ahead, 1, rows, many.shape[last]))
    sums = reduce_sum(mul(lines, factors), axes=(last + 1,))
    return transpose(sums, perm=(*batch, last, last - 1))


def vector_product_as_sum(node: Node, y: Node, z: Node) -> Node | None:
    """The same for a vector, which is a row."""
    batch = len(node.attrs["batch"][0])
    if {y.rank, z.rank} != {batch + 1, batch + 2}:
        return None
    args, contract = [y, z], [list(axes) for axes in node.attrs["contract"]]
    side = int(z.rank < y.rank)
    args[side] = reshape(args[side], shape=(*args[side].shape[:batch], 1, args[side].shape[batch]))
    contract[side] = [axis % (batch + 1) + 1 for axis in contract[side]]
    made = with_attrs(node, tuple(args), contract=tuple(map(tuple, contract)))
    sums = product_as_sum(made, *args)
    return None if sums is None else reshape(sums, shape=node.shape)


def is_large(many: Node, ahead: Shape) -> bool:
    """Whether a matrix, one alone, takes longer to lay in panels than to multiply."""
    alone = all(d == 1 for d in ahead) and all(isinstance(d, int) for d in many.shape)
    return alone and many.type.size >= LARGE


def are_few(rows: Dim, length: Dim, batched: bool) -> bool:
    """Whether to add up a line for each of the rows takes less than to turn the line for them all.
    A single row without a batch is left to the scheduler, which sums along rows."""
    if not isinstance(rows, int) or not isinstance(length, int) or length < SHORTEST:
        return False
    if rows == 1:
        return batched
    vectors = length / SHORTEST  # in registers a tile multiplies two in a cycle
    return rows * (vectors * ADDING + ENDING) < length * TURNING + rows * vectors / 2


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
    rule(
        "product-as-sum",
        P.dot_general(y, z),
        product_as_sum,
        when=lambda node: node.attrs["dtype"] in (None, f32),
    ),
    rule(
        "vector-product-as-sum",
        P.dot_general(y, z),
        vector_product_as_sum,
        when=lambda node: node.attrs["dtype"] in (None, f32),
    ),
    rule("scale-of-sum", P.mul(once(P.add(once(y), b)), k), distributed),
)
