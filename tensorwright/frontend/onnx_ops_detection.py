"""ONNX NonMaxSuppression: boxes are picked one a step, for all batches and classes at once.

    while k < limit and any(scores > -inf):
        best = argmax(scores); scores[best and what overlaps it] = -inf; picks[k] = best
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_ops import Call, converter
from tensorwright.frontend.onnx_ops_control import closed_graph
from tensorwright.frontend.onnx_ops_elementwise import scalar
from tensorwright.frontend.onnx_ops_recurrent import part
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import as_dim, as_expr, maximum, minimum
from tensorwright.ir.graph import Graph, Node, constant, param
from tensorwright.ir.type import Dim, TensorType


def corners(boxes: Node, centered: bool) -> list[Node]:
    """(low y, low x, high y, high x), each [batch, boxes]."""
    a, b, p, q = (ops.reshape(part(boxes, 2, k, k + 1), shape=boxes.shape[:2]) for k in range(4))
    if centered:  # centre x, centre y, width, height
        half = [ops.mul(v, 0.5) for v in (p, q)]
        return [ops.sub(b, half[1]), ops.sub(a, half[0]), ops.add(b, half[1]), ops.add(a, half[0])]
    return [ops.minimum(a, p), ops.minimum(b, q), ops.maximum(a, p), ops.maximum(b, q)]


def area(y0: Node, x0: Node, y1: Node, x1: Node) -> Node:
    return ops.mul(ops.sub(y1, y0), ops.sub(x1, x0))


def overlaps(one: list[Node], many: list[Node], threshold: Node) -> Node:
    """Whether boxes `one` [b, c, 1] overlap `many` [b, 1, n] by more than the threshold."""
    low = [ops.maximum(a, b) for a, b in zip(one[:2], many[:2])]
    high = [ops.minimum(a, b) for a, b in zip(one[2:], many[2:])]
    sides = [ops.maximum(ops.sub(h, v), 0.0) for h, v in zip(high, low)]
    shared = ops.mul(*sides)
    union = ops.sub(ops.add(area(*one), area(*many)), shared)
    some = ops.logical_and(ops.greater(shared, 0.0), ops.greater(union, 0.0))
    return ops.logical_and(some, ops.greater(ops.div(shared, union), threshold))


def step_body(boxes: list[Node], scores: Node, picks: Node, threshold: Node) -> Graph:
    """(k, scores, picks, corners, threshold) -> (k + 1, scores, picks)."""
    k = param("k", TensorType(i64, ()))
    s, p = param("scores", scores.type), param("picks", picks.type)
    own = [param(f"corner_{n}", b.type) for n, b in enumerate(boxes)]
    limit = param("threshold", threshold.type)
    b, c, n = s.shape
    best = ops.argmax(s, axis=2, keepdims=True)
    top = ops.reduce_max(s, axes=(2,), keepdims=True)
    active = ops.greater(top, -math.inf)
    rows = ops.reshape(best, shape=(b, c))
    one = [ops.reshape(ops.gather_elements(e, rows, axis=1), shape=(b, c, 1)) for e in own]
    many = [ops.reshape(e, shape=(b, 1, n)) for e in own]
    gone = ops.logical_or(
        overlaps(one, many, limit),
        ops.equal(ops.iota(shape=(1, 1, n), axis=2, dtype="i64"), best),
    )
    lowest = constant(np.array(-math.inf, s.dtype.numpy))
    left = ops.select(ops.logical_and(active, gone), lowest, s)
    found = ops.select(active, best, constant(np.array(-1)))
    at = ops.concat(constant(np.zeros(2, np.int64)), ops.reshape(k, shape=(1,)), axis=0)
    filled = ops.dynamic_update_slice(p, found, at)
    return closed_graph("pick", [k, s, p, *own, limit], [ops.add(k, 1), left, filled])


def condition(body: Graph, limit: Node) -> tuple[Graph, Graph]:
    """The condition over the operands of the body and the limit, and the body over the same."""
    params = [param(p.name, p.type) for p in (*body.params, limit)]
    left = ops.reduce_any(ops.greater(params[1], -math.inf), axes=(0, 1, 2))
    go = ops.logical_and(ops.less(params[0], params[-1]), left)
    wide = Graph(body.name, (*body.params, param("limit", limit.type)), body.results, body.binders)
    return closed_graph("more", params, [go]), wide


@converter("NonMaxSuppression", since=10)
def non_max_suppression(
    c: Call, boxes: Node, scores: Node, limit: Node | None = None, overlap: Node | None = None,
    score: Node | None = None, *, center_point_box: int = 0,
) -> Node:  # fmt: skip
    if boxes.rank != 3 or scores.rank != 3 or boxes.shape[2] != 4:
        raise c.fail(f"boxes are {boxes.type} and scores {scores.type}")
    b, classes, n = scores.shape
    most: Dim = 0
    if limit is not None:
        given = maximum(as_expr(c.dim(limit, low=None)), as_expr(0))
        most = as_dim(minimum(given, as_expr(n)))
    if most == 0 or n == 0:
        return ops.full(shape=(0, 3), value=0, dtype=i64)
    if score is not None:
        lowest = constant(np.array(-math.inf, scores.dtype.numpy))
        scores = ops.select(ops.greater(scores, scalar(c, score)), scores, lowest)
    threshold = constant(np.zeros((), boxes.dtype.numpy)) if overlap is None else scalar(c, overlap)
    edges = corners(boxes, bool(center_point_box))
    picks = ops.full(shape=(b, classes, most), value=-1, dtype=i64)
    body = step_body(edges, scores, picks, threshold)
    size = ops.reshape(c.sizes((most,)), shape=())
    test, body = condition(body, param("limit", size.type))
    y = ops.loop_while(
        [constant(np.array(0)), scores, picks, *edges, threshold, size], test, body, carried=3
    )
    picked = ops.items(y)[2]
    at = ops.nonzero(ops.greater_equal(picked, 0))  # [3, found]
    found = ops.transpose(at, perm=(1, 0))
    box = ops.gather_nd(picked, found)
    return ops.concat(
        part(found, 1, 0, 2), ops.reshape(box, shape=(found.shape[0], 1)), axis=1
    )
