"""Expressions evaluated by NumPy with IEEE semantics, fma included, one rounding an operation.

evaluate(e, {x: values})  ->  array, bit for bit what a machine with fma computes
"""

import numpy as np

from tensorwright.codegen.math_tables import LOOKUPS
from tensorwright.ir.expr import Expr, walk

OPERATIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc,
    "round": np.rint, "select": np.where, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "shl": np.left_shift, "shr": np.right_shift, "eq": np.equal,
    "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip


def evaluate(e: Expr, inputs: dict[Expr, np.ndarray]) -> np.ndarray:
    values = dict(inputs)
    with np.errstate(all="ignore"):
        for node in walk(e):
            if node not in values:
                values[node] = _node(node, [values[a] for a in node.args])
    shape = next(iter(inputs.values())).shape
    return np.broadcast_to(values[e], shape)


def _node(e: Expr, a: list[np.ndarray]) -> np.ndarray:
    kind = e.dtype.numpy
    if e.op == "const":
        return np.array(e.value, kind)
    if e.op == "fma":
        return fma(*np.broadcast_arrays(*a))
    if e.op == "bitcast":
        return np.asarray(a[0]).view(kind)
    if e.op == "cast":
        return np.asarray(a[0]).astype(kind)
    if e.op == "call" and e.value == "scale":
        return np.ldexp(a[0], np.floor(np.nan_to_num(a[1])).astype(np.int32))
    if e.op == "call" and e.value in LOOKUPS:
        return np.array(LOOKUPS[e.value], kind)[a[0] & 15]
    return np.asarray(OPERATIONS[e.op](*a)).astype(kind, copy=False)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a b + c, rounded once: a wider sum rounded to odd, then rounded (Boldo, Melquiond 2008)."""
    if a.dtype == np.float32:
        wide = a.astype(np.float64) * b
        total, error = _two_sum(wide, c.astype(np.float64))
        return _to_odd(total, error).astype(np.float32)
    high, low = _two_product(a, b)
    total, error = _two_sum(high, c)
    rest = _to_odd(*_two_sum(error, low))
    fused = total + rest
    return np.where(np.isfinite(fused), fused, a * b + c)


def _two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a, b):
    """a b and its rounding error, by Veltkamp's splitting (Dekker), for moderate sizes."""

    def split(x):
        t = x * 134217729.0
        high = t - (t - x)
        return high, x - high

    p = a * b
    (ah, al), (bh, bl) = split(a), split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _to_odd(total, error):
    """`total`, moved towards the error to the neighbour with an odd last bit, if inexact."""
    even = (total.view(np.int64) & 1) == 0
    inexact = np.isfinite(error) & (error != 0) & even
    return np.where(inexact, np.nextafter(total, np.copysign(np.inf, error)), total)
