"""Choose the algorithm of matrix products by constant weights: direct, or Strassen's.

    dot_general(x, w: f32[768,3072], contract=((2,),(0,)))     # f32[1,128,3072]
->  strassen(x, w, half=1536)

An eighth of the multiply-adds goes, for sums of what is given and made, and for weights that are
7/4 as large: the sums of their quarters, so they must be constant. The algorithm is a choice of the
product's schedule, by estimated cycles, and none of `fast_math` = 0.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.quarters import POINTS
from tensorwright.ir.type import tensor
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.strassen import strassen
from tensorwright.passes.algorithms import DIRECT, Algorithms, Chosen
from tensorwright.passes.winograd import direct_cycles, vector_cycles, weights_rate
from tensorwright.schedule.records import PRODUCT
from tensorwright.target.target import Target

x, w = V("x"), V("w")
FEWEST = 32  # rows, for each of which a weight is read
GAIN = 0.95  # of the cycles of the direct form, what the other must stay below
# vectors that are loaded, added and stored for one of a pair of rows, of what is given and made
INPUTS, RESULTS = 18, 20
SHARE = 0.7  # of the time for multiply-adds, what reading weights may take
WIDTHS = (12, 8, 6, 4, 3, 2)  # vectors in tiles, and in several
FILLED = 0.01  # of the columns, what may be filled up so that tiles of such widths divide them
NAME = "strassen"


def choose_products(m: Module, target: Target, chosen: Chosen | None = None) -> Module:
    """`m` with matrix products by Strassen's algorithm where that pays. chosen: as in
    `Algorithms`."""
    algorithms = Algorithms(PRODUCT, "matrix product", target, chosen)
    rate = weights_rate(m, target)
    direct = read_directly(m, target, rate)

    def replaced(node: Node, x: Node, w: Node) -> Node | None:
        if not is_product_of_rows(node, x, w):
            return None
        reason = obstacle(x, w, target)
        if reason:
            trace.decision(NAME, node, "no", reason)
            return None
        matrix, cycles = rows_first(node, w), cycles_of(node, x, w, target, rate)
        stays = w in direct or not gains(cycles)
        name = algorithms.pick(node, {**cycles, DIRECT: 0.0} if stays else cycles)
        told = f"cycles, of those of the direct form: {cycles[NAME] / cycles[DIRECT]:.2f}"
        told += "; others read its weights as they are" if w in direct else ""
        trace.decision(NAME, node, "yes" if name == NAME else "no", told)
        if name != NAME:
            return None
        if matrix is not array_of(w):  # turned, and not copied: it is only read to add up quarters
            w = replace(w, attrs={"value": matrix}, type=tensor(w.dtype, *matrix.shape))
        return strassen(x, w, half=half_of(matrix.shape[1], target))

    made = map_graphs(m, lambda g: rewrite(g, (rule(NAME, P.dot_general(x, w), replaced),)))
    algorithms.report_unused()
    return made


def read_directly(m: Module, target: Target, rate: int) -> set[Node]:
    """Constants that something reads as they are: their sums would be stored beside them. Tables of
    embeddings, and the weights of programs that take many tokens and then one after another."""
    is_quartered = lambda node, x, w: (
        is_product_of_rows(node, x, w)
        and not obstacle(x, w, target)
        and gains(cycles_of(node, x, w, target, rate))
    )
    found = set()
    for node in (n for g in m.all_graphs() for n in g.nodes()):
        if node.op is not dot_general or not is_quartered(node, *node.args):
            found.update(a for a in node.args if a is not None and a.op is CONST)
    return found


def gains(cycles: dict[str, float]) -> bool:
    return cycles[NAME] < GAIN * cycles[DIRECT]


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
    if prod(x.shape[:-1]) < FEWEST:
        return f"weights are read for fewer than {FEWEST} rows"
    return "its sums have an odd number of products" if x.shape[-1] % 2 else ""


def rows_first(node: Node, w: Node) -> np.ndarray:
    """w[K, N]"""
    (axis,) = node.attrs["contract"][1]
    return array_of(w).T if axis else array_of(w)


def half_of(columns: int, target: Target) -> int:
    """Columns of a half: whole vectors, and as many of them as tiles of several widths divide,
    where few columns are filled up for that."""
    lanes = target.lanes(f32)
    halves = [-(-columns // (2 * n * lanes)) * n * lanes for n in WIDTHS]
    least = -(-columns // (2 * lanes)) * lanes
    return next((h for h in halves if h <= least * (1 + FILLED)), least)


def cycles_of(
    node: Node, x: Node, w: Node, target: Target, rate: int
) -> dict[str, float]:  # fmt: skip
    """Cycles of the direct form and of quarters, by name. rate: bytes of weights that come in a
    cycle."""
    rows, (depth, columns) = prod(x.shape[:-1]), rows_first(node, w).shape
    lanes = target.lanes(f32)
    half, count = half_of(columns, target), -(-rows // 2)
    found = {DIRECT: direct_cycles(rows, depth, columns, 1, target, rate)}
    products = POINTS * direct_cycles(count, depth // 2, half, 1, target, 1 << 40)
    reading = POINTS * depth // 2 * half * f32.bytes / rate
    sums = INPUTS * -(-depth // 2 // lanes) + RESULTS * half // lanes
    found[NAME] = max(products, reading / SHARE) + count * sums * 2 * vector_cycles(lanes, target)
    return found
