"""aten operators that work element by element: arithmetic, comparison, logic, activations, casts.

Results have the type that torch says; operands are brought to the type that torch computes in.
"""

from __future__ import annotations

import math

from tensorwright.frontend.torch_ops import (
    Call,
    Rows,
    dtype_of,
    lift,
    number,
    to,
    together,
    wide,
)  # fmt: skip
from tensorwright.ir.dtype import boolean, f32
from tensorwright.ir.graph import Node, constant
from tensorwright.ops import activations as act
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv

POINTWISE = Rows()

FLOAT_UNARY = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "erfc", "exp", "exp2",
    "expm1", "log", "log1p", "log2", "reciprocal", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan",
    "tanh", "lgamma", "digamma",
)  # fmt: skip
SAME_UNARY = ("abs", "neg", "floor", "ceil", "trunc", "sign")
COMPARISONS = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
               "ge": "greater_equal"}  # fmt: skip
LOGICAL = ("and", "or", "xor")


def _float_unary(name: str):
    return lambda c, x: getattr(ew, name)(to(x, c.dtype))


def _same_unary(name: str):
    def convert(c: Call, x):
        if x.dtype is boolean or (not x.dtype.is_float and name in ("floor", "ceil", "trunc")):
            return x
        return getattr(ew, name)(x)

    return convert


def _comparison(name: str):
    def convert(c: Call, x, y):
        x, y = together(x, y)
        if x.dtype is boolean:  # order of False and True
            x, y = (ew.cast(v, dtype="u8") for v in (x, y))
        return getattr(ew, name)(x, y)

    return convert


def truth(x) -> Node:
    """A tensor or number as a condition: x != 0."""
    return to(x, boolean) if isinstance(x, Node) else constant(number(bool(x), boolean))


def _logical(name: str):
    return lambda c, x, y: getattr(ew, f"logical_{name}")(truth(x), truth(y))


def _bitwise(name: str):
    def convert(c: Call, x, y):
        x, y = together(x, y)
        family = "logical" if x.dtype is boolean else "bitwise"
        return getattr(ew, f"{family}_{name}")(x, y)

    return convert


def _fill_tables() -> None:
    for name in FLOAT_UNARY:
        POINTWISE.add(_float_unary(name), f"{name}.default")
    for name in SAME_UNARY:
        POINTWISE.add(_same_unary(name), f"{name}.default")
    POINTWISE.add(_same_unary("sign"), "sgn.default")
    for name, ours in COMPARISONS.items():
        POINTWISE.add(_comparison(ours), f"{name}.Tensor", f"{name}.Scalar")
    for name in LOGICAL:
        POINTWISE.add(_logical(name), f"logical_{name}.default")
        POINTWISE.add(_bitwise(name), f"bitwise_{name}.Tensor", f"bitwise_{name}.Scalar")
    for name, ours in (("isnan", "is_nan"), ("isinf", "is_inf"), ("isfinite", "is_finite")):
        POINTWISE.add(_predicate(ours), f"{name}.default")


def _predicate(name: str):
    def convert(c: Call, x):
        if not x.dtype.is_float:
            return ix.full(shape=x.shape, value=name == "is_finite", dtype=boolean)
        return getattr(ew, name)(x)

    return convert


@POINTWISE.row("add.Tensor", "add.Scalar")
def _add(c, x, y, alpha=1):
    if c.dtype is boolean:
        return ew.logical_or(truth(x), truth(y))
    x, y = together(x, y, dtype=c.dtype)
    return ew.add(x, _scaled(c, y, alpha))


@POINTWISE.row("sub.Tensor", "sub.Scalar")
def _sub(c, x, y, alpha=1):
    x, y = together(x, y, dtype=c.dtype)
    return ew.sub(x, _scaled(c, y, alpha))


@POINTWISE.row("rsub.Tensor", "rsub.Scalar")
def _rsub(c, x, y, alpha=1):
    return _sub(c, y, x, alpha=alpha)


def _scaled(c: Call, y: Node, alpha) -> Node:
    return y if isinstance(alpha, (int, float)) and alpha == 1 else ew.mul(y, lift(alpha, c.dtype))


@POINTWISE.row("mul.Tensor", "mul.Scalar")
def _mul(c, x, y):
    if c.dtype is boolean:
        return ew.logical_and(truth(x), truth(y))
    return ew.mul(*together(x, y, dtype=c.dtype))


@POINTWISE.row("div.Tensor", "div.Scalar")
def _div(c, x, y):
    return ew.div(*together(x, y, dtype=c.dtype))


@POINTWISE.row("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(c, x, y, *, rounding_mode=None):
    x, y = together(x, y, dtype=c.dtype)
    if rounding_mode is None:
        return ew.div(x, y)
    if not c.dtype.is_float:
        return (ew.floor_div if rounding_mode == "floor" else ew.trunc_div)(x, y)
    if rounding_mode == "trunc":
        return ew.trunc(ew.div(x, y))
    return _floor_divided(x, y)


def _floor_divided(x: Node, y: Node) -> Node:
    """floor(x / y) as torch and Python do it: from the exact remainder, so that a quotient which
    rounds up to an integer is not taken for it."""
    quotient = ew.div(ew.sub(x, ew.mod(x, y)), y)
    rounded = ew.floor(quotient)
    nearest = ew.select(ew.greater(ew.sub(quotient, rounded), 0.5), ew.add(rounded, 1.0), rounded)
    exact = ew.div(x, y)
    return ew.select(ew.equal(y, 0.0), exact, nearest)


@POINTWISE.row("floor_divide.default", "floor_divide.Scalar")
def _floor_divide(c, x, y):
    return _div_mode(c, x, y, rounding_mode="floor")


@POINTWISE.row("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def _remainder(c, x, y):
    return ew.mod(*together(x, y, dtype=c.dtype))


@POINTWISE.row("fmod.Tensor", "fmod.Scalar")
def _fmod(c, x, y):
    return ew.rem(*together(x, y, dtype=c.dtype))


@POINTWISE.row("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def _pow(c, x, y):
    if isinstance(y, (int, float)) and isinstance(x, Node) and c.dtype.is_float:
        simple = _simple_power(to(x, c.dtype), y)
        if simple is not None:
            return simple
    return ew.pow(*together(x, y, dtype=c.dtype))


def _simple_power(x: Node, y: float) -> Node | None:
    """Powers that need no logarithm."""
    match y:
        case 0.5:
            return ew.sqrt(x)
        case -0.5:
            return ew.rsqrt(x)
        case 1:
            return x
        case 2:
            return ew.mul(x, x)
        case 3:
            return ew.mul(ew.mul(x, x), x)
        case -1:
            return ew.reciprocal(x)
    return None


@POINTWISE.row("maximum.default")
def _maximum(c, x, y):
    return _extreme(c, ew.maximum, ew.logical_or, x, y)


@POINTWISE.row("minimum.default")
def _minimum(c, x, y):
    return _extreme(c, ew.minimum, ew.logical_and, x, y)


def _extreme(c: Call, op, on_bool, x, y) -> Node:
    x, y = together(x, y, dtype=c.dtype)
    return (on_bool if c.dtype is boolean else op)(x, y)


@POINTWISE.row("fmax.default")
def _fmax(c, x, y):
    x, y = together(x, y, dtype=c.dtype)
    both = _maximum(c, x, y)
    return _ignoring_nan(both, x, y)


@POINTWISE.row("fmin.default")
def _fmin(c, x, y):
    x, y = together(x, y, dtype=c.dtype)
    return _ignoring_nan(_minimum(c, x, y), x, y)


def _ignoring_nan(both: Node, x: Node, y: Node) -> Node:
    if not x.dtype.is_float:
        return both
    return ew.select(ew.is_nan(x), y, ew.select(ew.is_nan(y), x, both))


@POINTWISE.row("atan2.default")
def _atan2(c, x, y):
    return ew.atan2(*together(x, y, dtype=c.dtype))


@POINTWISE.row("atan2.out")
def _atan2_out(c, x, y, *, out):
    return _atan2(c, x, y)


@POINTWISE.row("copysign.Tensor", "copysign.Scalar")
def _copysign(c, x, y):
    x, y = together(x, y, dtype=c.dtype)
    bits = {64: "i64", 32: "i32", 16: "i16"}[x.dtype.bits]
    negative = ew.less(ew.bitcast(y, dtype=bits), 0)
    return ew.select(negative, ew.neg(ew.abs(x)), ew.abs(x))


@POINTWISE.row("logical_not.default")
def _logical_not(c, x):
    return ew.logical_not(truth(x))


@POINTWISE.row("bitwise_not.default")
def _bitwise_not(c, x):
    return ew.logical_not(x) if x.dtype is boolean else ew.bitwise_not(x)


@POINTWISE.row("bitwise_left_shift.Tensor", "bitwise_left_shift.Tensor_Scalar",
               "__lshift__.Tensor", "__lshift__.Scalar")  # fmt: skip
def _shift_left(c, x, y):
    return ew.shift_left(*together(x, y, dtype=c.dtype))


@POINTWISE.row("bitwise_right_shift.Tensor", "bitwise_right_shift.Tensor_Scalar",
               "__rshift__.Tensor", "__rshift__.Scalar")  # fmt: skip
def _shift_right(c, x, y):
    return ew.shift_right(*together(x, y, dtype=c.dtype))


@POINTWISE.row("log10.default")
def _log10(c, x):
    x = to(x, wide(c.dtype) if c.dtype.is_float else f32)
    return to(ew.mul(ew.log2(x), math.log10(2.0)), c.dtype)


@POINTWISE.row("round.default")
def _round(c, x):
    return ew.round(x) if x.dtype.is_float else x


@POINTWISE.row("round.decimals")
def _round_decimals(c, x, *, decimals=0):
    if not x.dtype.is_float or decimals == 0:
        return _round(c, x)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return ew.div(ew.round(ew.mul(x, scale)), scale)
    return ew.mul(ew.round(ew.div(x, scale)), scale)


@POINTWISE.row("square.default")
def _square(c, x):
    return ew.mul(x, x)


@POINTWISE.row("where.self", "where.Scalar", "where.ScalarSelf", "where.ScalarOther")
def _where(c, cond, x, y):
    x, y = together(x, y, dtype=c.dtype)
    return ew.select(truth(cond), x, y)


@POINTWISE.row("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(c, x, mask, value):
    return ew.select(mask, lift(value, x.dtype), x)


@POINTWISE.row("clamp.default", "clamp.Tensor", "clip.default", "hardtanh.default")
def _clamp(c, x, low=None, high=None):
    x = to(x, c.dtype)
    if low is not None:
        x = ew.maximum(x, lift(low, c.dtype))
    return x if high is None else ew.minimum(x, lift(high, c.dtype))


@POINTWISE.row("clamp_min.default", "clamp_min.Tensor")
def _clamp_min(c, x, low):
    return _clamp(c, x, low)


@POINTWISE.row("clamp_max.default", "clamp_max.Tensor")
def _clamp_max(c, x, high):
    return _clamp(c, x, None, high)


# ---- activations -------------------------------------------------------------------------------


@POINTWISE.row("relu.default")
def _relu(c, x):
    return ew.maximum(x, 0) if not x.dtype.is_float else act.relu(x)


@POINTWISE.row("relu6.default")
def _relu6(c, x):
    return _clamp(c, x, 0, 6)


@POINTWISE.row("leaky_relu.default")
def _leaky_relu(c, x, slope=0.01):
    return act.leaky_relu(x, alpha=float(slope))


@POINTWISE.row("elu.default")
def _elu(c, x, alpha=1.0, scale=1.0, input_scale=1.0):
    if scale == 1 and input_scale == 1:
        return act.elu(x, alpha=float(alpha))
    low = ew.mul(ew.expm1(ew.mul(x, float(input_scale))), float(alpha) * float(scale))
    return ew.select(ew.greater(x, 0.0), ew.mul(x, float(scale)), low)


@POINTWISE.row("celu.default")
def _celu(c, x, alpha=1.0):
    return act.celu(x, alpha=float(alpha))


@POINTWISE.row("gelu.default")
def _gelu(c, x, *, approximate="none"):
    return act.gelu(x, approximate=approximate)


@POINTWISE.row("silu.default")
def _silu(c, x):
    return act.silu(x)


@POINTWISE.row("mish.default")
def _mish(c, x):
    return act.mish(x)


@POINTWISE.row("hardsigmoid.default")
def _hardsigmoid(c, x):
    return act.hard_sigmoid(x, alpha=1.0 / 6.0, beta=0.5)


@POINTWISE.row("hardswish.default")
def _hardswish(c, x):
    return act.hard_swish(x)


@POINTWISE.row("softplus.default")
def _softplus(c, x, beta=1.0, threshold=20.0):
    scaled = x if beta == 1 else ew.mul(x, float(beta))
    soft = act.softplus(scaled)
    soft = soft if beta == 1 else ew.div(soft, float(beta))
    return ew.select(ew.greater(scaled, float(threshold)), x, soft)


@POINTWISE.row("prelu.default", "_prelu_kernel.default")
def _prelu(c, x, slope):
    if slope.rank == 1 and x.rank > 1:  # one slope a channel
        slope = mv.reshape(slope, shape=(*slope.shape, *([1] * (x.rank - 2))))
    return ew.select(ew.greater(x, 0.0), x, ew.mul(x, slope))


@POINTWISE.row("threshold.default")
def _threshold(c, x, threshold, value):
    return ew.select(ew.less_equal(x, lift(threshold, x.dtype)), lift(value, x.dtype), x)


@POINTWISE.row("softshrink.default")
def _softshrink(c, x, bound=0.5):
    bound = float(bound)
    low = ew.select(ew.less(x, -bound), ew.add(x, bound), ew.mul(x, 0.0))
    return ew.select(ew.greater(x, bound), ew.sub(x, bound), low)


@POINTWISE.row("lerp.Tensor", "lerp.Scalar")
def _lerp(c, x, end, weight):
    x, end, weight = together(x, end, weight, dtype=c.dtype)
    return ew.add(x, ew.mul(weight, ew.sub(end, x)))


@POINTWISE.row("addcmul.default")
def _addcmul(c, x, a, b, *, value=1):
    x, a, b = together(x, a, b, dtype=c.dtype)
    return ew.add(x, _scaled(c, ew.mul(a, b), value))


@POINTWISE.row("addcdiv.default")
def _addcdiv(c, x, a, b, *, value=1):
    x, a, b = together(x, a, b, dtype=c.dtype)
    return ew.add(x, _scaled(c, ew.div(a, b), value))


# ---- copies and casts --------------------------------------------------------------------------


@POINTWISE.row("_to_copy.default", "to.dtype_layout")
def _to_copy(c, x, *, dtype=None):
    return convert_dtype(x, c.dtype)


@POINTWISE.row("to.dtype", "type_as.default", "to.other")
def _to(c, x, how=None):
    return convert_dtype(x, c.dtype)


@POINTWISE.row("prims.convert_element_type.default")
def _convert_element_type(c, x, dtype):
    return convert_dtype(x, dtype_of(dtype))


def convert_dtype(x: Node, d) -> Node:
    """torch's conversion; float to a narrow unsigned type goes through i64, so that it wraps."""
    if x.dtype.is_float and d.is_integer and d.bits < 64:
        return to(ew.cast(x, dtype="i64"), d)
    return to(x, d)


@POINTWISE.row("clone.default", "alias.default", "detach.default", "contiguous.default",
               "lift_fresh_copy.default", "lift_fresh.default", "alias_copy.default",
               "detach_copy.default", "positive.default", "conj.default", "_conj.default",
               "resolve_conj.default", "resolve_neg.default", "real.default")  # fmt: skip
def _same(c, x):
    return x


@POINTWISE.row("dropout.default", "alpha_dropout.default", "feature_dropout.default")
def _dropout(c, x, p, train):
    if train and p:
        raise c.fail("dropout is on", "call model.eval() before compiling")
    return x


@POINTWISE.row("copy.default")
def _copy(c, x, source):
    return mv.broadcast_to(convert_dtype(source, x.dtype), shape=x.shape)


@POINTWISE.row("fill.Scalar", "fill.Tensor")
def _fill(c, x, value):
    return mv.broadcast_to(lift(value, x.dtype), shape=x.shape)


@POINTWISE.row("hypot.default")
def _hypot(c, x, y):
    x, y = (ew.abs(v) for v in together(x, y, dtype=c.dtype))
    high, low = ew.maximum(x, y), ew.minimum(x, y)
    ratio = ew.div(low, high)  # squares of large numbers overflow
    size = ew.mul(high, ew.sqrt(ew.add(ew.mul(ratio, ratio), lift(1.0, c.dtype))))
    plain = ew.logical_or(ew.equal(high, lift(0.0, c.dtype)), ew.is_inf(high))
    return ew.select(plain, high, size)


@POINTWISE.row("rrelu_with_noise_functional.default", "rrelu_with_noise.default")
def _rrelu(c, x, noise, lower=0.125, upper=1 / 3, training=False):
    if training:
        raise c.fail("slopes are random in training", "call model.eval() before compiling")
    y = act.leaky_relu(x, alpha=(float(lower) + float(upper)) / 2)
    return [y, noise] if len(c.fakes) == 2 else y


@POINTWISE.row("logaddexp.default")
def _logaddexp(c, x, y):
    x, y = together(x, y, dtype=c.dtype)
    high, low = ew.maximum(x, y), ew.minimum(x, y)
    equal_infinite = ew.logical_and(ew.equal(x, y), ew.is_inf(x))
    return ew.select(equal_infinite, x, ew.add(high, ew.log1p(ew.exp(ew.sub(low, high)))))


_fill_tables()
