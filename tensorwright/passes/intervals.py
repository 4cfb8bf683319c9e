"""What is known of the values of a tensor: bounds that hold for every element that is not NaN.

    sqrt(add(reduce_sum(mul(x, x)), 1e-5))   ->   Interval(0.00316..., inf)
    reduce_sum(exp(sub(x, reduce_max(x))))   ->   Interval(1, inf)     the largest term is 1

Bounds are computed in float64 and widened by a few roundings of the tensor's type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.type import TensorType
from tensorwright.ops.define import normalize_axes, normalize_axis

DEPTH = 12  # operators looked through
WIDER = 1e-5
MONOTONE = {
    "exp": math.exp, "exp2": lambda v: 2.0**v, "tanh": math.tanh, "erf": math.erf,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)) if v > -700 else 0.0,
    "sqrt": lambda v: math.sqrt(max(v, 0.0)), "relu": lambda v: max(v, 0.0),
}  # fmt: skip
KEEPING = frozenset((
    "reshape", "transpose", "broadcast_to", "slice", "gather", "gather_nd", "flip", "dynamic_slice",
    "bind_size",
))  # fmt: skip


@dataclass(frozen=True)
class Interval:
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def join(self, other: Interval) -> Interval:
        return Interval(min(self.low, other.low), max(self.high, other.high))


ANY = Interval()


def interval(node: Node, depth: int = DEPTH) -> Interval:
    """Bounds of the elements of a tensor."""
    if not isinstance(node.type, TensorType) or depth == 0:
        return ANY
    if node.dtype is boolean:
        return Interval(0, 1)
    if node.op is CONST:
        return _of_array(array_of(node))
    found = _of_operator(node, depth)
    if not node.dtype.is_float:  # what leaves the range of the type wraps around
        fits = found.low >= node.dtype.min and found.high <= node.dtype.max
        return found if fits else Interval(node.dtype.min, node.dtype.max)
    if found.low > found.high:
        return ANY
    return Interval(_rounded(found.low, -1, node), _rounded(found.high, 1, node))


def _rounded(v: float, sign: int, node: Node) -> float:
    """v moved outwards by what roundings may have done."""
    slack = WIDER if node.dtype.bits >= 32 else 0.02
    wide = v + sign * abs(v) * slack
    if abs(wide) > node.dtype.max:
        return math.copysign(math.inf, wide)
    return wide


def _of_array(a: np.ndarray) -> Interval:
    if a.size == 0:
        return ANY
    wide = a.astype(np.float64)
    if np.isnan(wide).any():
        return ANY
    return Interval(float(wide.min()), float(wide.max()))


def _of_operator(node: Node, depth: int) -> Interval:
    name = node.op.name
    of = lambda k: interval(node.args[k], depth - 1)
    if name in KEEPING:
        return of(0) if node.args[0].type.size != 0 else ANY
    match name:
        case "abs":
            a = of(0)
            near = 0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
            return Interval(near, max(abs(a.low), abs(a.high)))
        case "mul":
            return _product(node, of)
        case "square":
            return _square(of(0))
        case "add":
            return _sum(of(0), of(1))
        case "sub":
            b = of(1)
            return _sum(of(0), Interval(-b.high, -b.low))
        case "neg":
            a = of(0)
            return Interval(-a.high, -a.low)
        case "maximum":
            a, b = of(0), of(1)
            return Interval(max(a.low, b.low), max(a.high, b.high))
        case "minimum":
            a, b = of(0), of(1)
            return Interval(min(a.low, b.low), min(a.high, b.high))
        case "select":
            return of(1).join(of(2))
        case "cast":
            return of(0) if node.dtype.is_float or _widens(node) else ANY
        case "reduce_max" | "reduce_min":
            return of(0) if all(isinstance(d, int) and d for d in node.args[0].shape) else ANY
        case "clamp":
            return _clamped(node, of(0))
        case "full":
            v = node.attrs["value"]
            return ANY if isinstance(v, Expr) or v != v else Interval(float(v), float(v))
        case "argmax" | "argmin":
            d = node.args[0].shape[normalize_axis(name, node.attrs["axis"], node.args[0].rank)]
            return Interval(0, d - 1) if isinstance(d, int) and d else ANY
        case "iota":
            return _positions(node)
        case "reduce_sum":
            return _total(node, depth)
        case "softmax":
            return Interval(0, 1)
    f = MONOTONE.get(name)
    return ANY if f is None else _monotone(f, of(0))


def _widens(node: Node) -> bool:
    """Whether a cast keeps every integer that it is given."""
    narrow, wide = node.args[0].dtype, node.dtype
    integers = narrow.is_integer and wide.is_integer
    return integers and wide.min <= narrow.min and narrow.max <= wide.max


def _positions(node: Node) -> Interval:
    """start + step * i along the axis of an iota."""
    d = node.shape[node.attrs["axis"]] if node.rank else 1
    start, step = node.attrs["start"], node.attrs["step"]
    if not all(isinstance(v, int) for v in (d, start, step)) or d == 0:
        return ANY
    return Interval(*sorted((start, start + (d - 1) * step)))


def _monotone(f, a: Interval) -> Interval:
    def at(v: float) -> float:
        try:
            return f(v)
        except OverflowError:
            return math.inf

    return Interval(at(a.low), at(a.high))


def _sum(a: Interval, b: Interval) -> Interval:
    low, high = a.low + b.low, a.high + b.high
    return ANY if math.isnan(low) or math.isnan(high) else Interval(low, high)


def _product(node: Node, of) -> Interval:
    if node.args[0] is node.args[1]:
        return _square(of(0))
    a, b = of(0), of(1)
    ends = [x * y if x and y else 0.0 for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(ends), max(ends))


def _square(a: Interval) -> Interval:
    high = max(abs(a.low), abs(a.high))
    return Interval(0.0 if a.low <= 0 <= a.high else min(a.low**2, a.high**2), high * high)


def _clamped(node: Node, a: Interval) -> Interval:
    low, high = node.attrs["low"], node.attrs["high"]
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    return Interval(min(max(a.low, low), high), min(max(a.high, low), high))


def _total(node: Node, depth: int) -> Interval:
    """A sum of n terms in [low, high]. That of exp(x - max(x)) has a term 1."""
    x = node.args[0]
    axes = normalize_axes("sum", node.attrs["axes"], x.rank)
    counts = [x.shape[a] for a in axes]
    a = interval(x, depth - 1)
    if a.low >= 0 and is_shifted_exp(x, axes):
        return Interval(1.0, math.inf)
    if not all(isinstance(d, int) for d in counts):
        return Interval(0.0 if a.low >= 0 else -math.inf, 0.0 if a.high <= 0 else math.inf)
    n = math.prod(counts)
    return Interval(n * a.low if a.low else 0.0, n * a.high if a.high else 0.0) if n else ANY


def is_shifted_exp(node: Node, axes: tuple[int, ...]) -> bool:
    """exp(x - max of x over the axes), which are not empty."""
    if node.op.name != "exp" or node.args[0].op.name != "sub":
        return False
    x, top = node.args[0].args
    if top.op.name != "reduce_max" or top.args[0] is not x or not top.attrs["keepdims"]:
        return False
    return x.shape == node.shape and normalize_axes("max", top.attrs["axes"], x.rank) == axes
