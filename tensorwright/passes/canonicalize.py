"""Bring movement and trivial operators to one form: fewer of them, nearer to where data is.

    y = slice(concat(a: f32[2,3], b: f32[5,3], axis=0), starts=(2,0), stops=(7,3))   ->   y = b
    z = add(broadcast_to(c: f32[3], shape=(7,3)), x: f32[7,3])                 ->   z = add(c, x)

Every rule removes an operator, moves one to a smaller tensor, or replaces a computed position by a
constant one; none changes a bit of any result.
"""

from __future__ import annotations

from tensorwright.ir.dtype import DType, boolean, dtype, f8e8m0
from tensorwright.ir.graph import Node, array_of
from tensorwright.ir.match import A, P, Rest, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ops.define import normalize_axes
from tensorwright.ops.elementwise import cast, select
from tensorwright.ops.movement import broadcast_to, flip, inverse, reshape, transpose
from tensorwright.ops.positions import full
from tensorwright.passes.canonicalize_slices import SLICE_RULES, typed
from tensorwright.passes.known_reads import REPEATS
from tensorwright.passes.layout_rules import RULES as LAYOUTS
from tensorwright.passes.layout_rules import build_reading, identity, reads
from tensorwright.passes.movement_chain import simplify_chain
from tensorwright.passes.pointwise import BROADCASTING

x, y, z, xs = V("x"), V("y"), V("z"), Rest("xs")
RESHAPE = LAYOUTS["reshape"]
REDUCTIONS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_any", "reduce_all",
              "reduce_mean")  # fmt: skip


def canonicalize(m: Module) -> Module:
    """`m` with its movement operators in canonical form."""
    return map_graphs(m, lambda g: rewrite(g, RULES))


# ---- reshape, transpose, broadcast, flip -------------------------------------------------------


def transpose_of_broadcast(node: Node, x: Node, perm) -> Node | None:
    """Permute what is broadcast instead, which is smaller."""
    lead = node.rank - x.rank
    padded = x if not lead else reshape(x, shape=((1,) * lead + x.shape))
    return typed(broadcast_to(transpose(padded, perm=perm), shape=node.shape), node)


def transpose_of_regrouped_broadcast(node: Node, y: Node, x: Node, perm) -> Node | None:
    """The same under a reshape that takes no dimension apart in another order."""
    needed = RESHAPE.needs(y, perm)
    if needed is None:
        return None
    wide = y.args[0]
    turned = transpose_of_broadcast(transpose(wide, perm=needed[0]), x, needed[0])
    return None if turned is None else reshape(turned, shape=node.shape)


def without_leading_ones(node: Node, x: Node, y: Node) -> Node | None:
    """`node`, a broadcast of y = reshape(x), on x if y only has more leading dimensions of 1."""
    lead = y.rank - x.rank
    if lead <= 0 or y.shape[lead:] != x.shape or any(d != 1 for d in y.shape[:lead]):
        return None
    return broadcast_to(x, shape=node.shape)


def contraction_of_transpose(node: Node) -> Node | None:
    """The contraction with its axes renamed, where it keeps the order of its result."""
    orders, args = [], []
    for k, a in enumerate(node.args):
        order = inverse(a.attrs["perm"]) if a.op is transpose else identity(a.rank)
        fits = a.op is transpose and reads(node, k, order)
        orders.append(order if fits else identity(a.rank))
        args.append(a.args[0] if fits else a)
    if all(a is b for a, b in zip(args, node.args)):
        return None
    return build_reading(node, orders, args)


def flipped(node: Node, x: Node, axes) -> Node | None:
    """A flip of the axes that are longer than 1, or none."""
    moved = tuple(a for a in normalize_axes("flip", axes, x.rank) if x.shape[a] != 1)
    if moved == tuple(axes):
        return x if not moved else None
    return flip(x, axes=moved)


def flip_of_flip(x: Node, axes, more) -> Node:
    a, b = ({v % x.rank for v in found} for found in (axes, more))
    return flip(x, axes=tuple(sorted(a ^ b)))


MOVEMENT = (
    rule("movement-chain", P.reshape(x), simplify_chain),
    rule("movement-chain", P.transpose(x), simplify_chain),
    rule("transpose-of-broadcast", P.transpose(P.broadcast_to(x), perm=A("perm")),
         transpose_of_broadcast),
    rule("transpose-of-regrouped-broadcast",
         P.transpose(P.reshape(P.broadcast_to(x)), perm=A("perm")),
         lambda node, x, perm: transpose_of_regrouped_broadcast(node, node.args[0], x, perm)),
    rule("transpose-of-full", P.transpose(P.full(value=A("v"))),
         lambda node, v: full(shape=node.shape, value=v, dtype=node.dtype)),
    rule("reshape-of-full", P.reshape(P.full(value=A("v"))),
         lambda node, v: full(shape=node.shape, value=v, dtype=node.dtype)),
    rule("broadcast-of-full", P.broadcast_to(P.full(value=A("v"))),
         lambda node, v: full(shape=node.shape, value=v, dtype=node.dtype)),
    rule("broadcast-to-itself", P.broadcast_to(x), lambda x: x,
         when=lambda node, x: node.shape == x.shape),
    rule("broadcast-adds-ones", P.broadcast_to(x), lambda node, x: reshape(x, shape=node.shape),
         when=lambda node, x: node.shape == (*(1,) * (node.rank - x.rank), *x.shape)),
    rule("broadcast-of-broadcast", P.broadcast_to(P.broadcast_to(x)),
         lambda node, x: broadcast_to(x, shape=node.shape)),
    rule("broadcast-of-expanded", P.broadcast_to(P.reshape(x)),
         lambda node, x: without_leading_ones(node, x, node.args[0])),
    rule("contraction-of-transpose", P.dot_general(P.transpose(x), y),
         lambda node: contraction_of_transpose(node)),
    rule("contraction-of-transpose", P.dot_general(x, P.transpose(y)),
         lambda node: contraction_of_transpose(node)),
    rule("flip-short", P.flip(x, axes=A("axes")), flipped),
    rule("flip-of-flip", P.flip(P.flip(x, axes=A("axes")), axes=A("more")), flip_of_flip),
)  # fmt: skip


# ---- casts and choices -------------------------------------------------------------------------


def is_lossless(a: DType, b: DType) -> bool:
    """Whether every value of type a is one of type b: a detour through b changes nothing."""
    if a is boolean or a is b:
        return a is b or b.is_integer or (b.is_float and b.bits >= 16)
    if a.is_integer and b.is_integer:
        return b.min <= a.min and a.max <= b.max
    if a.is_float and b.is_float and b.bits >= 16:
        return b.bits >= (32 if a is f8e8m0 else 2 * a.bits)
    return False


def cast_of_cast(x: Node, to, over, saturate) -> Node | None:
    if not is_lossless(x.dtype, dtype(over)):
        return None
    return cast(x, dtype=to, saturate=saturate)


def chosen(node: Node, c: Node, x: Node, y: Node) -> Node | None:
    """The arm that a constant condition takes everywhere."""
    values = array_of(c)
    if values.size == 0 or values.min() != values.max():
        return None
    arm = x if values.flat[0] else y
    return arm if arm.shape == node.shape else broadcast_to(arm, shape=node.shape)


CHOICES = (
    rule("cast-to-itself", P.cast(x, dtype=A("to")), lambda x: x,
         when=lambda x, to: dtype(to) is x.dtype),
    rule("cast-of-cast", P.cast(P.cast(x, dtype=A("over")), dtype=A("to"), saturate=A("saturate")),
         cast_of_cast),
    rule("select-by-constant", P.select(V("c", const=True), x, y), chosen),
    rule("select-of-same", P.select(V("c"), x, x), lambda node, x: (
        x if x.shape == node.shape else broadcast_to(x, shape=node.shape))),
    rule("select-by-not", P.select(P.logical_not(z), x, y), lambda x, y, z: select(z, y, x)),
    rule("not-of-not", P.logical_not(P.logical_not(x)), lambda x: x),
    rule("neg-of-neg", P.neg(P.neg(x)), lambda x: x),
    rule("item-of-tuple", P.item(P.make_tuple(xs), index=A("k")), lambda xs, k: xs[k]),
)  # fmt: skip


# ---- reductions --------------------------------------------------------------------------------


def reduction_of_ones(node: Node, x: Node, axes) -> Node | None:
    """A reduction over dimensions of size 1 is a reshape."""
    axes = normalize_axes(node.op.name, axes, x.rank)
    if any(x.shape[a] != 1 for a in axes):
        return None
    return x if node.shape == x.shape else reshape(x, shape=node.shape)


REDUCED = tuple(
    rule("reduction-of-ones", getattr(P, name)(x, axes=A("axes")), reduction_of_ones)
    for name in REDUCTIONS
)

RULES = (*MOVEMENT, *SLICE_RULES, *CHOICES, *REDUCED, *BROADCASTING, *REPEATS)
