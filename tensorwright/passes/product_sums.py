"""Products of few rows as sums, where the target is faster so.

    dot_general(x: f32[1, 512], y: f32[512, 512], ...)   ->   reduce_sum(mul(y, reshape(x)), ...)

A contraction reads its second operand in panels, into which it is turned when it is computed: the
matrix goes through memory three times instead of once. Whether that pays is asked here, as a sum
is fused with other operators than a contraction. What it takes follows from the target's vectors
and caches; the numbers were measured with vectors of 16.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2

from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import CONST, Node
from tensorwright.ir.match import P, Rule, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim, Shape
from tensorwright.ops.elementwise import mul
from tensorwright.ops.movement import reshape, transpose
from tensorwright.ops.reduce import reduce_sum
from tensorwright.passes.algebra_contractions import dot_axes
from tensorwright.passes.layout_rules import with_attrs
from tensorwright.passes.simplify import simplify
from tensorwright.target.target import Target

LARGE = 4  # L1 caches that a matrix fills whose panels take longer than its product
FEW_ROWS = (1, 2)  # that such a matrix is read once for each of
TURNING = 0.7  # cycles to turn an element
HALVING = 7.5  # cycles to add one half of a vector to the other
ADDING = 1.5  # operations on vectors: what one of a sum takes more than one of a tile in registers


def sum_products(m: Module, target: Target) -> Module:
    """`m` with products of few rows as sums, simplified again; the same object without any."""
    rules = [sum_rule(name, build, target) for name, build in FORMS.items()]
    changed = map_graphs(m, lambda g: rewrite(g, rules))
    return m if changed is m else simplify(changed)


def sum_rule(name: str, build: Callable[..., Node | None], target: Target) -> Rule:
    return rule(
        name,
        P.dot_general(V("y"), V("z")),
        lambda node, y, z: build(node, y, z, target),
        when=lambda node: node.attrs["dtype"] in (None, f32),
    )


def product_as_sum(node: Node, y: Node, z: Node, target: Target) -> Node | None:
    """Few rows against a matrix, or such a product for each step of a batch (one token's scores),
    as a sum: the matrix is read as it lies, where a contraction would turn it first. Constants are
    turned at compile time, and stay."""
    batch = tuple(range(len(node.attrs["batch"][0])))
    if not is_plain(node) or any(a.rank != len(batch) + 2 or a.dtype is not f32 for a in (y, z)):
        return None
    own = [axis for (axis,) in dot_axes(node)]  # the free one of each
    side = 0 if z.shape[own[1]] == 1 != y.shape[own[0]] else 1
    many, few = (y, z)[side], (y, z)[1 - side]
    rows, last = few.shape[own[1 - side]], many.rank - 1
    ahead, along = many.shape[: len(batch)], own[side] != last
    if many.op is CONST or (rows != 1 and own[1 - side] == last):
        return None
    if not along and is_read_once(many, ahead, rows, target):
        columns = reshape(many, shape=(*ahead, 1, *many.shape[-2:]))
        factors = reshape(few, shape=(*ahead, rows, many.shape[-2], 1))
        return reshape(reduce_sum(mul(columns, factors), axes=(last,)), shape=node.shape)
    if not along or not are_few(rows, many.shape[last], bool(batch), target):
        return None
    if rows == 1:
        factors = reshape(few, shape=(*ahead, 1, many.shape[last]))
        return reshape(reduce_sum(mul(many, factors), axes=(last,)), shape=node.shape)
    lines = reshape(many, shape=(*ahead, many.shape[-2], 1, many.shape[last]))
    factors = reshape(few, shape=(*ahead, 1, rows, many.shape[last]))
    sums = reduce_sum(mul(lines, factors), axes=(last + 1,))
    return transpose(sums, perm=(*batch, last, last - 1))


def vector_product_as_sum(node: Node, y: Node, z: Node, target: Target) -> Node | None:
    """The same for a vector, which is a row."""
    batch = len(node.attrs["batch"][0])
    if not is_plain(node) or {y.rank, z.rank} != {batch + 1, batch + 2}:
        return None
    args, contract = [y, z], [list(axes) for axes in node.attrs["contract"]]
    side = int(z.rank < y.rank)
    args[side] = reshape(args[side], shape=(*args[side].shape[:batch], 1, args[side].shape[batch]))
    contract[side] = [axis % (batch + 1) + 1 for axis in contract[side]]
    made = with_attrs(node, tuple(args), contract=tuple(map(tuple, contract)))
    sums = product_as_sum(made, *args, target)
    return None if sums is None else reshape(sums, shape=node.shape)


def is_plain(node: Node) -> bool:
    """Whether a product sums along one axis, and its batch comes first in both operands."""
    batch = tuple(range(len(node.attrs["batch"][0])))
    first = all(tuple(axes) == batch for axes in node.attrs["batch"])
    return first and len(node.attrs["contract"][0]) == 1


FORMS = {"product-as-sum": product_as_sum, "vector-product-as-sum": vector_product_as_sum}


def is_read_once(many: Node, ahead: Shape, rows: Dim, target: Target) -> bool:
    """Whether a matrix takes longer to lay in panels than to multiply: a large one, or one of a
    batch that meets a single row."""
    if not all(isinstance(d, int) for d in many.shape):
        return False
    if any(d != 1 for d in ahead):
        return rows == 1
    return rows in FEW_ROWS and many.type.size * f32.bytes >= LARGE * target.caches[0]


def are_few(rows: Dim, length: Dim, batched: bool, target: Target) -> bool:
    """Whether to add up a line for each of the rows takes less than to turn the line for them all.
    A single row without a batch is left to the scheduler, which sums along rows."""
    lanes = target.lanes(f32)
    if not isinstance(rows, int) or not isinstance(length, int) or length < lanes:
        return False
    if rows == 1:
        return batched
    operation = max(target.vector_bits / target.cycle_bits, 0.5)  # cycles; two start at once
    ending = HALVING * log2(lanes)
    return rows * (length / lanes * ADDING * operation + ending) < length * TURNING
