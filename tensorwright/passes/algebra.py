"""Simplify arithmetic: constants combine, powers and divisions become products.

    mul(mul(x, 0.5), 4.0) -> mul(x, 2.0)    pow(x, 2.0) -> mul(x, x)    div(x, 8.0) -> mul(x, 0.125)
    reciprocal(sqrt(v)) -> rsqrt(v)         div(e: f32[n,64], s: f32[n,1]) -> mul(e, reciprocal(s))

Signs of zeros, infinities and NaN stay as they are. Combined constants and a reciprocal for many
divisions change the last bits; both are done only where the values are known to be in safe range.
"""

from __future__ import annotations

import numpy as np

from tensorwright.ir.graph import Graph, Node, array_of, constant
from tensorwright.ir.match import P, V, once, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import product
from tensorwright.ops.activations import clamp, relu
from tensorwright.ops.elementwise import add, mul, neg, reciprocal, rsqrt, sqrt, sub
from tensorwright.passes.algebra_contractions import CONTRACTIONS
from tensorwright.passes.fold_constants import fold_node
from tensorwright.passes.intervals import interval
from tensorwright.passes.pointwise import broadcasted

x, y, b, c, d = V("x"), V("y"), V("b"), V("c", const=True), V("d", const=True)
COMMUTATIVE = ("add", "mul", "minimum", "maximum", "logical_and", "logical_or", "logical_xor",
               "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "not_equal")  # fmt: skip
# Between these a number and its reciprocal are both normal in f32 and bf16.
SAFE_LOW, SAFE_HIGH = 1e-30, 1e30


def simplify_algebra(m: Module) -> Module:
    """`m` with simpler arithmetic; composites have been expanded before."""
    return map_graphs(m, simplify_graph)


def simplify_graph(g: Graph) -> Graph:
    return rewrite(g, RULES)


# ---- constants ---------------------------------------------------------------------------------


def is_all(node: Node, value: float, sign: bool | None = None) -> bool:
    """Whether all elements of a constant are `value` (with the given sign, for zeros)."""
    a = array_of(node)
    if a.size == 0 or not (a == np.asarray(value, a.dtype)).all():
        return False
    return sign is None or bool((np.signbit(a.astype(np.float64)) == sign).all())


def has_no_negative_zero(node: Node, depth: int = 4) -> bool:
    """Whether no element can be -0.0."""
    if not node.dtype.is_float:
        return True
    name = node.op.name
    if name in ("exp", "exp2", "sigmoid", "abs", "square"):
        return True
    if name == "mul" and node.args[0] is node.args[1]:
        return True
    if name == "cast" and not node.args[0].dtype.is_float:
        return True
    through = ("reshape", "transpose", "broadcast_to", "slice", "sqrt")
    return name in through and depth > 0 and has_no_negative_zero(node.args[0], depth - 1)


def adds_nothing(x: Node, c: Node) -> bool:
    """x + c is x for every x: -0.0 is the neutral element, 0.0 is one unless x may be -0.0."""
    if not x.dtype.is_float:
        return is_all(c, 0)
    return is_all(c, 0.0, sign=True) or (is_all(c, 0.0) and has_no_negative_zero(x))


def shaped(x: Node, node: Node) -> Node:
    """x in the shape of what it replaces."""
    return broadcasted(x, node.shape)


def combined(op, c: Node, d: Node) -> Node | None:
    """c op d as one constant, if every element is zero or of ordinary size."""
    with np.errstate(all="ignore"):
        value = np.asarray(op.reference(array_of(c), array_of(d))).astype(c.dtype.numpy)
    if c.dtype.is_float:
        wide = np.abs(value.astype(np.float64))
        zero = wide == 0
        if op is mul and (zero & (array_of(c) != 0) & (array_of(d) != 0)).any():
            return None
        if not (zero | ((wide > SAFE_LOW) & (wide < SAFE_HIGH))).all():
            return None
    return constant(value, c.name) if value.size <= max(c.type.size, d.type.size) else None


def add_of_add(node: Node, x: Node, c: Node, d: Node) -> Node | None:
    both = combined(add, c, d)
    return None if both is None else shaped(add(x, both), node)


def mul_of_mul(node: Node, x: Node, c: Node, d: Node) -> Node | None:
    both = combined(mul, c, d)
    return None if both is None else shaped(mul(x, both), node)


def reciprocal_of(c: Node) -> Node | None:
    """1 / c, if every element is a power of two whose reciprocal is one as well."""
    a = array_of(c)
    if not c.dtype.is_float or a.size == 0:
        return None
    wide = a.astype(np.float64)
    with np.errstate(all="ignore"):
        mantissa, _ = np.frexp(wide)
        inverse = (1 / wide).astype(a.dtype)
    tiny = float(np.finfo(np.float32).tiny) if c.dtype.bits >= 16 else 1.0
    exact = (np.abs(mantissa) == 0.5) & (np.abs(inverse.astype(np.float64)) >= tiny)
    exact &= np.isfinite(inverse.astype(np.float64))
    same = (1 / inverse.astype(np.float64)) == wide if exact.all() else exact
    return constant(inverse, c.name) if exact.all() and np.all(same) else None


def by_power_of_two(x: Node, c: Node) -> Node | None:
    inverse = reciprocal_of(c)
    return None if inverse is None else mul(x, inverse)


CONSTANTS = (
    *(rule("constant-last", getattr(P, op)(c, x), lambda node, c, x: _swapped(node, x, c),
           when=lambda x: array_of(x) is None) for op in COMMUTATIVE),
    rule("add-nothing", P.add(x, c), lambda node, x: shaped(x, node), when=adds_nothing),
    rule("sub-nothing", P.sub(x, c), lambda node, x: shaped(x, node),
         when=lambda x, c: is_all(c, 0, sign=False if x.dtype.is_float else None)),
    rule("mul-by-one", P.mul(x, c), lambda node, x: shaped(x, node), when=lambda c: is_all(c, 1)),
    rule("div-by-one", P.div(x, c), lambda node, x: shaped(x, node), when=lambda c: is_all(c, 1)),
    rule("and-true", P.logical_and(x, c), lambda node, x: shaped(x, node),
         when=lambda c: is_all(c, True)),
    rule("or-false", P.logical_or(x, c), lambda node, x: shaped(x, node),
         when=lambda c: is_all(c, False)),
    rule("mul-by-minus-one", P.mul(x, c), lambda node, x: shaped(neg(x), node),
         when=lambda x, c: x.dtype.is_signed and is_all(c, -1)),
    rule("add-of-add", P.add(once(P.add(x, c)), d), add_of_add),
    rule("mul-of-mul", P.mul(once(P.mul(x, c)), d), mul_of_mul),
    rule("mul-of-neg", P.mul(once(P.neg(x)), c), lambda x, c: mul(x, fold_node(neg(c)))),
    rule("sub-constant", P.sub(x, c), lambda x, c: add(x, fold_node(neg(c))),
         when=lambda x: x.dtype.is_float and array_of(x) is None),
    rule("div-by-power-of-two", P.div(x, c), by_power_of_two),
)  # fmt: skip


def _swapped(node: Node, x: Node, c: Node) -> Node:
    return node.op(x, c)


# ---- signs, powers, limits ---------------------------------------------------------------------


def is_not_negative(x: Node) -> bool:
    return interval(x).low >= 0


def power(node: Node, x: Node, c: Node) -> Node | None:
    """Small powers as products and roots. A root of what may be negative stays a power, which is
    another number there."""
    exponent = float(array_of(c).flat[0])
    if not x.dtype.is_float or not is_all(c, exponent):
        return None
    match exponent:
        case 1.0:
            made = x
        case 2.0:
            made = mul(x, x)
        case 3.0:
            made = mul(mul(x, x), x)
        case -1.0:
            made = reciprocal(x)
        case 0.5 if is_not_negative(x):
            made = sqrt(x)
        case -0.5 if is_not_negative(x):
            made = rsqrt(x)
        case _:
            return None
    return shaped(made, node)


def zero_of(x: Node) -> Node:
    return constant(np.zeros((), x.dtype.numpy))


def limited(x: Node, c: Node, d: Node) -> Node | None:
    """max then min with numbers is one clamp."""
    if array_of(c).size != 1 or array_of(d).size != 1 or max(c.rank, d.rank) > x.rank:
        return None
    low, high = array_of(c).item(), array_of(d).item()
    return clamp(x, low=low, high=high) if low == low and high == high else None


FORMS = (
    rule("add-of-neg", P.add(x, P.neg(y)), lambda x, y: sub(x, y)),
    rule("add-of-neg", P.add(P.neg(y), x), lambda x, y: sub(x, y)),
    rule("sub-of-neg", P.sub(x, P.neg(y)), lambda x, y: add(x, y)),
    rule("power", P.pow(x, c), power, when=lambda c: array_of(c).size > 0),
    rule("reciprocal-of-root", P.reciprocal(P.sqrt(x)), lambda x: rsqrt(x)),
    rule("one-over-root", P.div(1, P.sqrt(x)), lambda node, x: shaped(rsqrt(x), node)),
    rule("one-over", P.div(1, x), lambda node, x: shaped(reciprocal(x), node)),
    rule("maximum-with-zero", P.maximum(x, c), lambda x: relu(x),
         when=lambda node, x, c: node.shape == x.shape and is_all(c, 0)),
    rule("limits", P.minimum(once(P.maximum(x, c)), d), limited),
    rule("limits", P.minimum(once(P.relu(x)), d), lambda x, d: limited(x, zero_of(x), d)),
)  # fmt: skip


# ---- divisions by few --------------------------------------------------------------------------


def divide_by_few(node: Node, x: Node, y: Node) -> Node | None:
    """One reciprocal for all elements that are divided by the same number, where the numbers are
    known to be of ordinary size (or NaN, or infinite)."""
    few, many = product(y.shape), product(x.shape)
    is_fewer = few * 8 <= many if isinstance(few, int) and isinstance(many, int) else (
        _is_repeated(y, x))  # fmt: skip
    if array_of(y) is not None or not is_fewer or interval(y).low < SAFE_LOW:
        return None
    if y.op.name == "sqrt":
        return mul(x, rsqrt(y.args[0]))
    return mul(x, reciprocal(y))


def _is_repeated(y: Node, x: Node) -> bool:
    """Whether y has size 1 in a dimension in which x is long."""
    tail = x.shape[x.rank - y.rank :]
    return any(a == 1 and (not isinstance(n, int) or n >= 8) for a, n in zip(y.shape, tail))


DIVISIONS = (rule("divide-by-few", P.div(x, y), divide_by_few),)

RULES = (*CONSTANTS, *FORMS, *DIVISIONS, *CONTRACTIONS)
