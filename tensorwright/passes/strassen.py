"""Choose the algorithm of matrix products by constant weights: direct, or Strassen's.

    dot_general(x, w: f32[768,3072], contract=((2,),(0,)))     # f32[1,128,3072]
->  strassen(x, u: f32[7,384,1536])

An eighth of the multiply-adds goes, for sums of what is given and made, and for weights that are
7/4 as large: they are transformed here, so they must be constant. The algorithm is a choice of the
product's schedule, by estimated cycles, and none of `fast_math` = 0.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import CONST, Node, array_of, constant
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ops.strassen import POINTS, strassen, transformed_weights
from tensorwright.passes.algorithms import DIRECT, Algorithms, Chosen
from tensorwright.passes.winograd import direct_cycles, vector_cycles, weights_rate
from tensorwright.schedule.records import PRODUCT
from tensorwright.target.target import Target

x, w = V("x"), V("w")
FEWEST = 8  # vectors of columns of a half, and elements of half a sum for each
GAIN = 0.95  # of the cycles of the direct form, what the other must stay below
# vectors that are loaded, added and stored for one of a pair of rows, of what is given and made
INPUTS, RESULTS = 18, 20
SHARE = 0.7  # of the time for multiply-adds, what reading weights may take
WIDEST = 12  # vectors in a tile, or several: halves that are filled up anyway are whole ones
NAME = "strassen"


def choose_products(m: Module, target: Target, chosen: Chosen | None = None) -> Module:
    """`m` with matrix products by Strassen's algorithm where that pays. chosen: as in
    `Algorithms`."""
    algorithms = Algorithms(PRODUCT, "matrix product", target, chosen)
    rate = weights_rate(m, target)

    def replaced(node: Node, x: Node, w: Node) -> Node | None:
        if not is_product_of_rows(node, x, w):
            return None
        reason = obstacle(x, w, target)
        if reason:
            trace.decision(NAME, node, "no", reason)
            return None
        matrix = weights_of(node, w)
        cycles = cycles_of(prod(x.shape[:-1]), *matrix.shape, target, rate)
        name = algorithms.pick(node, {n: GAIN * c if n == DIRECT else c for n, c in cycles.items()})
        told = f"cycles, of those of the direct form: {cycles[NAME] / cycles[DIRECT]:.2f}"
        trace.decision(NAME, node, "yes" if name == NAME else "no", told)
        return by_quarters(x, matrix, w.name, target) if name == NAME else None

    made = map_graphs(m, lambda g: rewrite(g, (rule(NAME, P.dot_general(x, w), replaced),)))
    algorithms.report_unused()
    return made


def is_product_of_rows(node: Node, x: Node, w: Node) -> bool:
    """Whether each row of x, along its last dimension, is multiplied by the constant matrix w."""
    a = node.attrs
    (left, right), (batch, _) = a["contract"], a["batch"]
    plain = w.op is CONST and w.rank == 2 and x.rank >= 2 and not batch
    return plain and left == (x.rank - 1,) and len(right) == 1


def obstacle(x: Node, w: Node, target: Target) -> str:
    """Why the algorithm does not apply to products by such weights; "" if it does."""
    if target.fast_math == 0:
        return "fast_math is 0"
    if not x.dtype is w.dtype is f32:
        return f"it computes in {x.dtype}"
    if target.precision == "bf16":
        return "products of bf16 are faster"
    if not all(isinstance(d, int) for d in x.shape):
        return "the number of rows is not known"
    return "its sums have an odd number of products" if x.shape[-1] % 2 else ""


def weights_of(node: Node, w: Node) -> np.ndarray:
    """w[K, N]"""
    (axis,) = node.attrs["contract"][1]
    return array_of(w).T if axis else array_of(w)


def by_quarters(x: Node, w: np.ndarray, name: str, target: Target) -> Node:
    half = half_of(w.shape[1], target)
    u = constant(transformed_weights(w, half), name)
    return strassen(x, u, columns=None if w.shape[1] == 2 * half else w.shape[1])


def half_of(columns: int, target: Target) -> int:
    """Columns of a half: vectors, of many ones whole tiles."""
    lanes = target.lanes(f32)
    step = lanes if columns % (2 * lanes) == 0 else lanes * WIDEST
    return -(-columns // (2 * step)) * step


def cycles_of(
    rows: int, depth: int, columns: int, target: Target, rate: int
) -> dict[str, float]:  # fmt: skip
    """Cycles of the direct form and of quarters, by name."""
    lanes = target.lanes(f32)
    half, count = half_of(columns, target), -(-rows // 2)
    found = {DIRECT: direct_cycles(rows, depth, columns, 1, target, rate)}
    products = POINTS * direct_cycles(count, depth // 2, half, 1, target, 1 << 40)
    reading = POINTS * depth // 2 * half * f32.bytes / rate
    sums = INPUTS * -(-depth // 2 // lanes) + RESULTS * half // lanes
    found[NAME] = max(products, reading / SHARE) + count * sums * 2 * vector_cycles(lanes, target)
    return found
