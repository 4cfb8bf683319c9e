"""Say causal masks by position, where they are used.

    m: bool[n, n] = const('m'); y = select(m, x, -inf)
    ->  y = select(less_equal(iota(axis=1), iota(axis=0)), x, -inf)

    m = less_equal([0, 1, 2, ...], add([[0], [1], ...], offset))    the same, constants as iota

Comparing costs a kernel less than reading the mask, and its schedule sees which keys no row of a
tile looks at. Each choice gets nodes of its own: shared ones would be computed once, and read.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.build import build
from tensorwright.ir.dtype import i64
from tensorwright.ir.graph import CONST, Graph, Node, array_of, rebuild, with_args
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Shape
from tensorwright.ops.elementwise import add, less_equal
from tensorwright.ops.index import iota, size
from tensorwright.ops.movement import reshape
from tensorwright.passes.attention import causal_start

CONDITIONS = ("logical_and", "less_equal")
POSITIONS = (*CONDITIONS, "less", "add")


def place_masks(m: Module) -> Module:
    """`m` with the choices of scores or -inf by a causal mask made by comparing positions."""
    known: dict[Node, object] = {}
    return map_graphs(m, lambda g: in_graph(g, known))


def in_graph(g: Graph, known: dict[Node, object]) -> Graph:
    def visit(node: Node, args: tuple) -> Node:
        new = with_args(node, args)
        if not is_masked(node):
            return new
        mask = node.args[0]
        if mask not in known:
            known[mask] = causal_start(mask, node.shape)
        start = known[mask]
        if start is None and mask.op.name in CONDITIONS:
            return build(node.op, (repeated(args[0]), *args[1:]), node.attrs)
        if start is None or start is True:
            return new
        trace.decision("masks", node, "yes", f"keys up to {start} behind the query")
        return build(node.op, (compared(mask.shape, start), *args[1:]), node.attrs)

    return rebuild(g, visit)


def repeated(node: Node) -> Node:
    """The condition in nodes of its own, positions among its constants as such."""
    if node.op is CONST:
        return as_positions(node)
    if node.op.name not in POSITIONS:
        return node
    return replace(node, args=tuple(map(repeated, node.args)))


def as_positions(node: Node) -> Node:
    """0, 1, 2 ... along one axis as `iota`."""
    axes = [a for a, d in enumerate(node.shape) if d != 1]
    if len(axes) != 1 or node.dtype is not i64:
        return node
    if not np.array_equal(array_of(node).ravel(), np.arange(node.type.size)):
        return node
    return iota(shape=node.shape, axis=axes[0], dtype=i64)


def is_masked(node: Node) -> bool:
    """select(mask, x, -inf) with a mask over the last two axes of x."""
    if node.op.name != "select" or not node.dtype.is_float:
        return False
    mask, _, low = node.args
    if low.op is not CONST or mask.rank < 2 or mask.shape[-2:] != node.shape[-2:]:
        return False
    return low.type.size == 1 and array_of(low).item() == -math.inf and 1 not in mask.shape[-2:]


def compared(shape: Shape, start) -> Node:
    """bool[shape]: where key j <= query i + start."""
    rank = len(shape)
    query, key = (
        iota(shape=tuple(shape[a] if a == axis else 1 for a in range(rank)), axis=axis, dtype=i64)
        for axis in (rank - 2, rank - 1)
    )
    if start != 0:
        query = add(query, reshape(size(dims=(start,)), shape=()))
    return less_equal(key, query)
