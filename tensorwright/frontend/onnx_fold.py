"""Constants computed while importing, by the operators' own references.

Only small results are computed: they are the axes, sizes and scales that attributes are made of.
Weights are left to the compiler's folding pass.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.dtype import dtype
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import CONST, Graph, Node, constant
from tensorwright.ir.type import TensorType

MAX_RESULT = 4096  # elements
MAX_STEP = 1 << 18


def fold(node: Node) -> Node:
    """The constant that a node of constants is, if it is small; else the node itself."""
    if node.op is CONST or not _small(node, MAX_RESULT):
        return node
    value = evaluate(node, {})
    if value is None or not isinstance(value, np.ndarray):
        return node
    if dtype(value.dtype) is not node.dtype or value.shape != node.shape:
        return node
    return constant(value)


def evaluate(root: Node, done: dict):
    """The value of a node whose leaves are constants, or None."""
    stack = [root]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        waiting = [a for a in node.args if a is not None and a not in done]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        args = [None if a is None else done[a] for a in node.args]
        broken = any(v is None and a is not None for v, a in zip(args, node.args))
        done[node] = None if broken else _apply(node, args, done)
    return done[root]


def _apply(node: Node, args: list, done: dict):
    if node.op is CONST:
        return node.attrs["value"]
    if node.op.name == "item":
        return args[0][node.attrs["index"]]
    plain = not any(_open(v) for v in node.attrs.values())
    if not plain or not _small(node, MAX_STEP):
        return None
    with np.errstate(all="ignore"):
        if node.op.reference is not None:
            try:
                return _typed(node, node.op.reference(*args, **node.attrs))
            except (ValueError, IndexError, ArithmeticError, MemoryError):
                return None  # left to the program, whose results are the operator's business
        if node.op.expand is not None:
            leaves = [None if a is None else constant(v) for a, v in zip(node.args, args)]
            return evaluate(node.op.expand(*leaves, **node.attrs), {})
    return None


def _typed(node: Node, value):
    if isinstance(node.type, TensorType):
        return np.asarray(value).astype(node.dtype.numpy, copy=False)
    return tuple(value)


def _open(value) -> bool:
    """Whether an attribute has symbols or bodies in it."""
    if isinstance(value, (tuple, list)):
        return any(map(_open, value))
    return isinstance(value, (Expr, Graph))


def _small(node: Node, limit: int) -> bool:
    types = [node.type] if isinstance(node.type, TensorType) else node.type.items
    return all(isinstance(t, TensorType) and t.is_static and t.size <= limit for t in types)
