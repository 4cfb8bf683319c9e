"""Evaluate nodes whose operands are constants, by the operators' own references.

    w: f32[2] = const('w'); k = rsqrt(add(w, 0.5)); y = mul(x, k)   ->   y = mul(x, const('w'))

A result that would be much larger than what it is made of stays a computation (a broadcast costs
less to repeat than to store), and random operators and control flow are never evaluated.
"""

from __future__ import annotations

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import CONST, PARAM, Graph, Node, constant, rebuild, users, with_args
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import TensorType, leaves

NEVER = frozenset((
    "bind_size", "if_", "while_", "scan_", "call", "call_kernel", "match", "apply", "fused",
    "random_bits", "uniform",
    "normal", "bernoulli", "multinomial", "dropout",
))  # fmt: skip
CONTRACTIONS = ("dot_general", "matmul")
SMALL = 64 << 10  # bytes that any constant may have
GROWTH = 2  # how many times its operands a larger result may be
LIMIT = 64 << 20  # bytes beyond which a result must not be larger than its operands


def fold_constants(m: Module) -> Module:
    """`m` with everything computed that can be before running."""
    return map_graphs(m, fold_graph)


def fold_graph(g: Graph) -> Graph:
    left = turned_weights(g)
    return rebuild(g, lambda node, args: (
        with_args(node, args) if node in left else fold_node(with_args(node, args))))  # fmt: skip


def turned_weights(g: Graph) -> set[Node]:
    """Transposes of constants that only contractions read, which can do so in any order: a copy
    would cost memory for nothing."""
    found = {n for n in g.nodes() if n.op.name == "transpose" and n.args[0].op is CONST
             and n.type.is_static and _bytes(n.type) > SMALL}  # fmt: skip
    if not found:
        return found
    uses = users(g)
    return {n for n in found if n not in g.results
            and all(u.op.name in CONTRACTIONS for u in uses[n])}  # fmt: skip


def fold_node(node: Node) -> Node:
    """The constant that `node` is, or `node` itself."""
    if not _can_fold(node) or not _worth_storing(node) or not trace.burn():
        return node
    (value,) = run_graph(Graph("constants", (), (node,)), [])
    trace.fired("fold-constant", node)
    return constant(value, node.name or _only_name(node))


def _can_fold(node: Node) -> bool:
    if node.op in (CONST, PARAM) or not isinstance(node.type, TensorType):
        return False
    producer = node.args[0] if node.op.name == "item" else node
    return (
        producer.op.name not in NEVER
        and producer.op is not PARAM
        and all(a is None or a.op is CONST for a in producer.args)
        and not any(map(_is_open, producer.attrs.values()))
        and node.type.is_static
    )


def _is_open(value) -> bool:
    """Whether an attribute has symbols or bodies in it."""
    if isinstance(value, (tuple, list)):
        return any(map(_is_open, value))
    return isinstance(value, (Expr, Graph))


def _worth_storing(node: Node) -> bool:
    producer = node.args[0] if node.op.name == "item" else node
    made = sum(_bytes(t) for t in leaves(producer.type))
    used = sum(_bytes(a.type) for a in dict.fromkeys(producer.args) if a is not None)
    return made <= SMALL or made <= (used if made > LIMIT else GROWTH * used)


def _bytes(t: TensorType) -> int:
    return int(np.prod(t.shape, dtype=object)) * t.dtype.bytes


def _only_name(node: Node) -> str:
    """The name of the one operand that is a tensor, if there is just one."""
    names = {a.name for a in node.args if a is not None and a.op is CONST and a.rank and a.name}
    return names.pop() if len(names) == 1 else ""
