"""Operators computed element by element, and rules for operands that repeat along a dimension.

add(x: f32[4,3], broadcast_to(c: f32[3], shape=(4,3)))   ->   add(x, c)
exp(broadcast_to(c: f32[3], shape=(4,3)))                ->   broadcast_to(exp(c), shape=(4,3))
mul(x: f32[4,3], const(f32[4,3], all 2.0))               ->   mul(x, 2.0)
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.build import build
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import CONST, Node, array_of, constant
from tensorwright.ir.match import P, Rest, rule
from tensorwright.ir.op import OpDef
from tensorwright.ops import activations, elementwise
from tensorwright.ops.define import broadcast_shapes
from tensorwright.ops.movement import broadcast_to, reshape

POINTWISE = tuple(
    dict.fromkeys(
        op
        for file in (elementwise, activations)
        for op in vars(file).values()
        if isinstance(op, OpDef) and op.lower is not None and not op.is_composite
    )
)
NAMES = frozenset(op.name for op in POINTWISE)


def is_pointwise(node: Node) -> bool:
    """Whether each result element is a function of the operands' elements at its place."""
    return node.op.name in NAMES


def narrow_operands(node: Node) -> Node | None:
    """`node` on operands without the dimensions along which they only repeat."""
    small = tuple(map(_unrepeated, node.args))
    if all(a is b for a, b in zip(small, node.args)):
        return None
    needed = broadcast_shapes(node.op.name, *(a.shape for a in small))
    if needed == node.shape:
        return build(node.op, small, node.attrs)
    kept = _keep_shape(node, small)
    if any(a is not b for a, b in zip(kept, node.args)):
        return build(node.op, kept, node.attrs)
    return broadcast_to(build(node.op, small, node.attrs), shape=node.shape)


def _keep_shape(node: Node, small: tuple[Node, ...]) -> list[Node]:
    """As many of `small` as the result's shape allows, from the first operand on."""
    kept = list(node.args)
    for k, a in enumerate(small):
        shapes = [a.shape if j == k else b.shape for j, b in enumerate(kept)]
        if broadcast_shapes(node.op.name, *shapes) == node.shape:
            kept[k] = a
    return kept


def _unrepeated(node: Node) -> Node:
    """What `node` repeats, `node` itself if nothing."""
    if node.op is broadcast_to:
        return node.args[0]
    if node.op.name == "full" and not isinstance(node.attrs["value"], Expr):
        return constant(np.full((), node.attrs["value"], node.dtype.numpy))
    if node.op is CONST:
        return shrunk(node)
    if node.op is reshape and _adds_leading_ones(node):
        return node.args[0]
    return node


def _adds_leading_ones(node: Node) -> bool:
    x = node.args[0]
    lead = node.rank - x.rank
    return lead > 0 and node.shape == (*(1,) * lead, *x.shape)


def shrunk(node: Node) -> Node:
    """A constant without dimensions along which all its elements are the same bits."""
    array = array_of(node)
    if array.size == 0:
        return node
    for axis, d in enumerate(array.shape):
        if d > 1 and _repeats(array, axis):
            array = _only(array, 0, axis)
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return node if array.shape == node.shape else constant(array, node.name)


def _repeats(array: np.ndarray, axis: int) -> bool:
    first, second = _only(array, 0, axis), _only(array, 1, axis)
    return _same_bits(first, second) and _same_bits(np.broadcast_to(first, array.shape), array)


def _only(array: np.ndarray, at: int, axis: int) -> np.ndarray:
    """One position of an axis, as a view: `take` copies all of what lies unaligned in a file."""
    return array[(slice(None),) * axis + (slice(at, at + 1),)]


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    kind = f"u{a.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(a).view(kind), np.ascontiguousarray(b).view(kind))


def broadcasted(x: Node, shape) -> Node:
    """x, repeated to `shape` if it has another."""
    return x if x.shape == tuple(shape) else broadcast_to(x, shape=shape)


BROADCASTING = tuple(
    rule("narrow-operands", getattr(P, op.name)(Rest("xs")), narrow_operands) for op in POINTWISE
)
