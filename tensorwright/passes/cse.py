"""Merge nodes that compute the same: one operator on the same operands with equal attributes.

    a = exp(x); b = exp(x); y = add(a, b)   ->   a = exp(x); y = add(a, a)

Constants with equal contents are one. A node that binds symbols stays, for its symbols are its own.
"""

from __future__ import annotations

import struct

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, bound_symbols, rebuild, with_args
from tensorwright.ir.module import Module, digest, map_graphs

PROBE = 64  # bytes compared before whole contents are


def merge_equal(m: Module) -> Module:
    """`m` without repeated computations in a graph, and without repeated constants at all."""
    constants = _Constants()
    return map_graphs(m, lambda g: merge_graph(g, constants))


def merge_graph(g: Graph, constants: _Constants) -> Graph:
    first: dict[tuple, Node] = {}

    def visit(node: Node, args: tuple) -> Node:
        node = with_args(node, args)
        if node.op is PARAM or bound_symbols(node):
            return node
        found = constants.first(node) if node.op is CONST else first.setdefault(_key(node), node)
        if found is node or not trace.burn():
            return node
        trace.fired("merge-equal", node)
        return found

    return rebuild(g, visit)


def _key(node: Node) -> tuple:
    attrs = tuple(sorted((k, attr_key(v)) for k, v in node.attrs.items()))
    return (node.op, tuple(map(id, node.args)), attrs)


def attr_key(value):
    """What two attribute values must share to be the same; unlike `==`, 1, 1.0 and True differ."""
    if isinstance(value, (tuple, list)):
        return (len(value), tuple(map(attr_key, value)))
    if isinstance(value, float):
        return ("float", struct.pack("<d", value))
    if isinstance(value, (bool, int, str, type(None))):
        return (type(value).__name__, str(value))
    if isinstance(value, np.ndarray):
        return ("array", digest(value))
    return ("id", id(value))  # interned: dtypes, expressions; by identity: graphs


class _Constants:
    """The constants of a module by contents; only those that look alike are compared whole."""

    def __init__(self) -> None:
        self.alike: dict[tuple, list[Node]] = {}

    def first(self, node: Node) -> Node:
        """The first constant of the same type and bits, `node` itself if it is the first."""
        array = node.attrs["value"]
        others = self.alike.setdefault(_probe(array), [])
        for other in others:
            if other is node or _same_bits(array, other.attrs["value"]):
                return other
        others.append(node)
        return node


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    views = [x.reshape(-1).view(np.uint8) for x in (a, b)]
    return a is b or np.array_equal(*views)


def _probe(array: np.ndarray) -> tuple:
    flat = array.reshape(-1).view(np.uint8)
    return (str(array.dtype), array.shape, bytes(flat[:PROBE]), bytes(flat[-PROBE:]))
