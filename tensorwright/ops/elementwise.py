"""Elementwise operators: arithmetic, comparison, logic, mathematical functions, casts.

Operands broadcast by NumPy's rules and must have one element type; the result at an index is one
scalar expression of the operands there. The meaning of every scalar is at the top of `ir/expr.py`.
A gradient rule gives cotangents of the broadcast shape; autodiff sums them down.

    add(x: f32[n, 4], y: f32[4])  ->  z[i, j] = x[i, j] + y[j]
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import (
    FLOATS,
    FLOATS8,
    INTEGERS,
    NUMERIC,
    DType,
    bf16,
    boolean,
    f8e5m2,
    f32,
    index,
)  # fmt: skip
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    all_of,
    any_of,
    binary,
    call,
    compare,
    const,
    join,
    unary,
)
from tensorwright.ir.expr import bitcast as bitcast_expr
from tensorwright.ir.expr import cast as cast_expr
from tensorwright.ir.expr import select as select_expr
from tensorwright.ir.loop import Stmt
from tensorwright.ir.type import TensorType
from tensorwright.ops import reference as ref
from tensorwright.ops.define import (
    broadcast_load,
    broadcast_shapes,
    compute,
    define,
    elementwise,
    predicate,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip

BITS = (*INTEGERS, boolean)

UNARY = ("f32[3,4]", "f32[n,5] n=1,7", "f32[0,3]", "f32[]", "f64[2,3]", "f16[9]", "bf16[9]")
INTS = ("i32[7]", "i8[2,3]", "i64[0]", "u8[5]", "i16[n] n=1,4")
ABOVE_0 = tuple(s.replace("]", "]@0.1:3") for s in UNARY)
WITHIN_1 = tuple(s.replace("]", "]@-0.9:0.9") for s in UNARY)
ABOVE_1 = tuple(s.replace("]", "]@1.1:4") for s in UNARY)
SHAPES = (
    "f32[3,4] f32[3,4]", "f32[n,4] f32[4] n=1,5", "f32[2,1,3] f32[4,1]", "f32[0,2] f32[2]",
    "f32[] f32[5]", "f64[3,2] f64[3,1]", "f16[9] f16[9]", "bf16[9] bf16[9]",
)  # fmt: skip
BINARY_INTS = ("i32[7] i32[7]", "i8[20] i8[20]", "u8[20] u8[]", "i64[n,1] i64[3] n=1,2")
DIVISOR = tuple(s + "@0.3:2" if " n=" not in s else s.replace(" n=", "@0.3:2 n=") for s in SHAPES)
LOGIC = ("bool[3,4] bool[4]", "bool[n] bool[n] n=1,9", "bool[0] bool[]")


# ---- one operand -------------------------------------------------------------------------------


def _math(name: str, function=None, gradient=None, samples=UNARY, reference=None, **columns):
    """A function of floats: the scalar operation `name`, with NumPy's as the oracle."""
    return elementwise(
        name, lambda x: unary(name, x), reference=reference or ref.oracle(function),
        gradient=gradient, dtypes=FLOATS, samples=samples, onnx=columns.pop("onnx", name.title()),
        torch=columns.pop("torch", f"{name}.default"), **columns,
    )  # fmt: skip


def _flat(name: str, function, **columns):
    """A function of numbers whose gradient is zero almost everywhere; rounding leaves integers."""
    return elementwise(
        name, lambda x: unary(name, x) if x.dtype.is_float or name == "sign" else x,
        reference=ref.quiet(function), dtypes=NUMERIC,
        gradient=lambda g, y, x: (None,), torch=f"{name}.default", samples=(*UNARY, *INTS),
        **columns,
    )  # fmt: skip


neg = elementwise(
    "neg", lambda x: unary("neg", x), reference=ref.quiet(np.negative), dtypes=NUMERIC,
    gradient=lambda g, y, x: (neg(g),), onnx="Neg", torch="neg.default",
    samples=(*UNARY, *INTS), doc="The negative; wraps around on integers.",
)  # fmt: skip
abs = elementwise(
    "abs", lambda x: unary("abs", x), reference=ref.quiet(np.abs), dtypes=NUMERIC,
    gradient=lambda g, y, x: (mul(g, sign(x)),), onnx="Abs", torch="abs.default",
    samples=(*UNARY, *INTS), doc="The magnitude; the smallest integer stays as it is.",
)  # fmt: skip
sign = _flat("sign", np.sign, onnx="Sign", doc="-1, 0 or 1 by the sign of x; NaN stays NaN.")
floor = _flat("floor", np.floor, onnx="Floor", doc="Rounded to minus infinity.")
ceil = _flat("ceil", np.ceil, onnx="Ceil", doc="Rounded to plus infinity.")
trunc = _flat("trunc", np.trunc, doc="Rounded to zero.")
round = _flat("round", np.round, onnx="Round", doc="Rounded to the nearest integer, half to even.")

sqrt = _math(
    "sqrt", np.sqrt, lambda g, y, x: (div(g, add(y, y)),), ABOVE_0, doc="The square root.",
)  # fmt: skip
rsqrt = _math(
    "rsqrt", lambda x: 1 / np.sqrt(x), lambda g, y, x: (mul(mul(g, y), div(-0.5, x)),), ABOVE_0,
    onnx="", doc="One over the square root.",
)  # fmt: skip
reciprocal = _math(
    "reciprocal", lambda x: 1 / x, lambda g, y, x: (neg(mul(g, mul(y, y))),), ABOVE_0,
    doc="One over x.",
)  # fmt: skip
exp = _math("exp", np.exp, lambda g, y, x: (mul(g, y),), doc="e to the power of x.")
exp2 = _math(
    "exp2", np.exp2, lambda g, y, x: (mul(g, mul(y, math.log(2))),), onnx="",
    doc="Two to the power of x.",
)  # fmt: skip
expm1 = _math(
    "expm1", np.expm1, lambda g, y, x: (mul(g, add(y, 1.0)),), onnx="",
    doc="exp(x) - 1, exact near 0.",
)  # fmt: skip
log = _math("log", np.log, lambda g, y, x: (div(g, x),), ABOVE_0, doc="The natural logarithm.")
log2 = _math(
    "log2", np.log2, lambda g, y, x: (div(g, mul(x, math.log(2))),), ABOVE_0, onnx="",
    doc="The logarithm to base 2.",
)  # fmt: skip
log1p = _math(
    "log1p", np.log1p, lambda g, y, x: (div(g, add(x, 1.0)),), ABOVE_0, onnx="",
    doc="log(1 + x), exact near 0.",
)  # fmt: skip
sin = _math("sin", np.sin, lambda g, y, x: (mul(g, cos(x)),), doc="The sine.")
cos = _math("cos", np.cos, lambda g, y, x: (neg(mul(g, sin(x))),), doc="The cosine.")
tan = _math(
    "tan", np.tan, lambda g, y, x: (mul(g, add(mul(y, y), 1.0)),), WITHIN_1, doc="The tangent.",
)  # fmt: skip
asin = _math(
    "asin", np.arcsin, lambda g, y, x: (mul(g, rsqrt(_one_minus_square(x))),), WITHIN_1,
    doc="The inverse of the sine.",
)  # fmt: skip
acos = _math(
    "acos", np.arccos, lambda g, y, x: (neg(mul(g, rsqrt(_one_minus_square(x)))),), WITHIN_1,
    doc="The inverse of the cosine.",
)  # fmt: skip
atan = _math(
    "atan", np.arctan, lambda g, y, x: (div(g, add(mul(x, x), 1.0)),),
    doc="The inverse of the tangent.",
)  # fmt: skip
sinh = _math("sinh", np.sinh, lambda g, y, x: (mul(g, cosh(x)),), doc="The hyperbolic sine.")
cosh = _math("cosh", np.cosh, lambda g, y, x: (mul(g, sinh(x)),), doc="The hyperbolic cosine.")
tanh = _math(
    "tanh", np.tanh, lambda g, y, x: (mul(g, _one_minus_square(y)),), doc="The hyperbolic tangent.",
)  # fmt: skip
asinh = _math(
    "asinh", np.arcsinh, lambda g, y, x: (mul(g, rsqrt(add(mul(x, x), 1.0))),),
    doc="The inverse of sinh.",
)  # fmt: skip
acosh = _math(
    "acosh", np.arccosh, lambda g, y, x: (mul(g, rsqrt(sub(mul(x, x), 1.0))),), ABOVE_1,
    doc="The inverse of cosh.",
)  # fmt: skip
atanh = _math(
    "atanh", np.arctanh, lambda g, y, x: (div(g, _one_minus_square(x)),), WITHIN_1,
    doc="The inverse of tanh.",
)  # fmt: skip
erf = _math(
    "erf", None, lambda g, y, x: (mul(g, _erf_slope(x)),), reference=ref.erf,
    doc="The error function.",
)  # fmt: skip
erfc = _math(
    "erfc", None, lambda g, y, x: (neg(mul(g, _erf_slope(x))),), reference=ref.erfc, onnx="",
    doc="1 - erf(x), exact for large x.",
)  # fmt: skip
sigmoid = _math(
    "sigmoid", None, lambda g, y, x: (mul(g, mul(y, sub(1.0, y))),), reference=ref.sigmoid,
    doc="1 / (1 + exp(-x)).",
)  # fmt: skip
lgamma = _math(
    "lgamma", None, lambda g, y, x: (mul(g, digamma(x)),), ABOVE_0, reference=ref.lgamma, onnx="",
    doc="The logarithm of the absolute value of the gamma function.",
)  # fmt: skip
digamma = _math(
    "digamma", None, None, ABOVE_0, reference=ref.digamma, onnx="",
    doc="The derivative of lgamma.",
)  # fmt: skip


def _one_minus_square(x):
    return sub(1.0, mul(x, x))


def _erf_slope(x):
    return mul(exp(neg(mul(x, x))), 2 / math.sqrt(math.pi))


logical_not = elementwise(
    "logical_not", lambda x: unary("not", x), reference=np.logical_not, dtypes=(boolean,),
    onnx="Not", torch="logical_not.default", samples=("bool[3,4]", "bool[n] n=1,3", "bool[0]"),
    doc="False for true, true for false.",
)  # fmt: skip
bitwise_not = elementwise(
    "bitwise_not", lambda x: unary("not", x), reference=np.invert, dtypes=BITS,
    onnx="BitwiseNot", torch="bitwise_not.default", samples=(*INTS, "bool[4]"),
    doc="Every bit flipped.",
)  # fmt: skip
population_count = elementwise(
    "population_count", lambda x: unary("popcount", x), reference=ref.population_count,
    dtypes=INTEGERS, samples=INTS, doc="The number of bits that are set.",
)  # fmt: skip

SPECIAL = ("f32[3,4]@special", "f32[n] n=1,9", "f32[0]", "f64[8]@special", "f16[8]@special")
is_nan = predicate(
    "is_nan", lambda x: unary("isnan", x), reference=np.isnan, dtypes=FLOATS, onnx="IsNaN",
    torch="isnan.default", samples=SPECIAL, doc="Whether x is not a number.",
)  # fmt: skip
is_finite = predicate(
    "is_finite", lambda x: unary("isfinite", x), reference=np.isfinite, dtypes=FLOATS,
    samples=SPECIAL, doc="Whether x is neither infinite nor NaN.",
)  # fmt: skip


def _is_inf(x: Expr, *, detect_positive: bool = True, detect_negative: bool = True) -> Expr:
    if detect_positive and detect_negative:
        return unary("isinf", x)
    infinities = [math.inf] * detect_positive + [-math.inf] * detect_negative
    return any_of(compare("eq", x, const(v, x.dtype)) for v in infinities)


is_inf = predicate(
    "is_inf", _is_inf, dtypes=FLOATS, onnx="IsInf", torch="isinf.default",
    reference=lambda x, detect_positive=True, detect_negative=True: (
        np.isinf(x) & np.where(x > 0, detect_positive, detect_negative)),
    samples=(*SPECIAL, "f32[8]@special detect_positive=False",
             "bf16[8]@special detect_negative=False"),
    doc="Whether x is infinite, with either sign or one of them.",
)  # fmt: skip

# ---- two operands ------------------------------------------------------------------------------


def _arithmetic(name: str, op: str, function, dtypes=NUMERIC, samples=(*SHAPES, *BINARY_INTS),
                params: str = "x, y", **columns):  # fmt: skip
    return elementwise(
        name, lambda x, y: binary(op, x, y), params, reference=ref.quiet(function), dtypes=dtypes,
        samples=samples, **columns,
    )  # fmt: skip


add = _arithmetic(
    "add", "add", np.add, gradient=lambda g, z, x, y: (g, g), onnx="Add", torch="add.Tensor",
    doc="The sum.",
)  # fmt: skip
sub = _arithmetic(
    "sub", "sub", np.subtract, gradient=lambda g, z, x, y: (g, neg(g)), onnx="Sub",
    torch="sub.Tensor", doc="The difference.",
)  # fmt: skip
mul = _arithmetic(
    "mul", "mul", np.multiply, gradient=lambda g, z, x, y: (mul(g, y), mul(g, x)), onnx="Mul",
    torch="mul.Tensor", doc="The product.",
)  # fmt: skip
div = _arithmetic(
    "div", "div", np.divide, FLOATS, DIVISOR,
    gradient=lambda g, z, x, y: (div(g, y), neg(mul(g, div(z, y)))), torch="div.Tensor",
    doc="The quotient of floats; integers have floor_div and trunc_div.",
)  # fmt: skip


def _floor_div(x: Expr, y: Expr) -> Expr:
    """On floats the exact multiple below x, divided: x / y itself may round up to an integer."""
    if not x.dtype.is_float:
        return binary("floordiv", x, y)
    r, zero = binary("rem", x, y), const(0, x.dtype)
    quotient = binary("div", binary("sub", x, r), y)
    below = all_of((compare("ne", r, zero), compare("ne", _less(r, zero), _less(y, zero))))
    lower = select_expr(below, binary("sub", quotient, const(1, x.dtype)), quotient)
    return select_expr(compare("eq", y, zero), binary("div", x, y), unary("round", lower))


def _less(a: Expr, b: Expr) -> Expr:
    return compare("lt", a, b)


def _trunc_div(x: Expr, y: Expr) -> Expr:
    if not x.dtype.is_float:
        return binary("truncdiv", x, y)
    exact = binary("div", binary("sub", x, binary("rem", x, y)), y)
    usable = unary("isfinite", exact)
    return select_expr(usable, unary("round", exact), unary("trunc", binary("div", x, y)))


floor_div = elementwise(
    "floor_div", _floor_div, "x, y", reference=ref.floor_div, dtypes=NUMERIC,
    gradient=lambda g, z, x, y: (None, None),
    torch="floor_divide.default", samples=(*DIVISOR, *BINARY_INTS),
    doc="The quotient rounded down; an integer divided by 0 gives 0.",
)  # fmt: skip
trunc_div = elementwise(
    "trunc_div", _trunc_div, "x, y", reference=ref.trunc_div, dtypes=NUMERIC,
    gradient=lambda g, z, x, y: (None, None),
    samples=(*DIVISOR, *BINARY_INTS),
    doc="The quotient rounded to zero; an integer divided by 0 gives 0.",
)  # fmt: skip
mod = _arithmetic(
    "mod", "mod", ref.mod, samples=(*DIVISOR, *BINARY_INTS), torch="remainder.Tensor",
    gradient=lambda g, z, x, y: (g, neg(mul(g, floor_div(x, y)))),
    doc="The floored remainder, with the sign of the divisor; by 0 it is 0 on integers.",
)  # fmt: skip
rem = _arithmetic(
    "rem", "rem", ref.rem, samples=(*DIVISOR, *BINARY_INTS), torch="fmod.Tensor",
    gradient=lambda g, z, x, y: (g, neg(mul(g, trunc_div(x, y)))),
    doc="The truncated remainder, with the sign of the dividend; by 0 it is 0 on integers.",
)  # fmt: skip


def _pow_gradient(g, z, x, y):
    positive = greater(x, scalar_like(x, 0))
    log_x = log(select(positive, x, scalar_like(x, 1)))
    return mul(g, mul(y, pow(x, sub(y, 1.0)))), mul(g, mul(z, log_x))


pow = _arithmetic(
    "pow", "pow", ref.power, gradient=_pow_gradient, torch="pow.Tensor_Tensor",
    samples=(*(s.replace("]", "]@0.2:2") for s in SHAPES), "f32[5] f32[]@2:2", "i32[9] i32[9]@0:4",
             "i8[20]@-2:2 i8[20]@-3:3", "u8[4] u8[4]@0:2"),
    doc="x to the power of y; an integer to a negative power is 0 unless it is 1 or -1.",
)  # fmt: skip


def _extremum_gradient(wins):
    """The winner takes the cotangent; equal operands halve it."""

    def rule(g, z, x, y):
        half = select(equal(x, y), mul(g, 0.5), scalar_like(g, 0))
        return select(wins(x, y), g, half), select(wins(y, x), g, half)

    return rule


minimum = _arithmetic(
    "minimum", "min", np.minimum, gradient=_extremum_gradient(lambda a, b: less(a, b)),
    torch="minimum.default", doc="The smaller; NaN if either is.",
)  # fmt: skip
maximum = _arithmetic(
    "maximum", "max", np.maximum, gradient=_extremum_gradient(lambda a, b: greater(a, b)),
    torch="maximum.default", doc="The larger; NaN if either is.",
)  # fmt: skip


def _atan2_gradient(g, z, y, x):
    scaled = div(g, add(mul(x, x), mul(y, y)))
    return mul(scaled, x), neg(mul(scaled, y))


atan2 = _arithmetic(
    "atan2", "atan2", ref.oracle(np.arctan2), FLOATS, DIVISOR, "y, x", gradient=_atan2_gradient,
    torch="atan2.default", doc="The angle of the point (x, y).",
)  # fmt: skip


def _logical(name: str, op: str, function, onnx: str):
    return elementwise(
        name, lambda x, y: binary(op, x, y), "x, y", reference=function, dtypes=(boolean,),
        onnx=onnx, torch=f"{name}.default", samples=LOGIC, doc=f"Boolean {op}.",
    )  # fmt: skip


def _bitwise(name: str, op: str, function, onnx: str, torch: str):
    return elementwise(
        name, lambda x, y: binary(op, x, y), "x, y", reference=function, dtypes=BITS, onnx=onnx,
        torch=torch, samples=(*BINARY_INTS, "bool[5] bool[]"), doc=f"Bit by bit {op}.",
    )  # fmt: skip


logical_and = _logical("logical_and", "and", np.logical_and, "And")
logical_or = _logical("logical_or", "or", np.logical_or, "Or")
logical_xor = _logical("logical_xor", "xor", np.logical_xor, "Xor")
bitwise_and = _bitwise("bitwise_and", "and", np.bitwise_and, "BitwiseAnd", "bitwise_and.Tensor")
bitwise_or = _bitwise("bitwise_or", "or", np.bitwise_or, "BitwiseOr", "bitwise_or.Tensor")
bitwise_xor = _bitwise("bitwise_xor", "xor", np.bitwise_xor, "BitwiseXor", "bitwise_xor.Tensor")

SHIFTS = ("i32[9] i32[9]@0:40", "u8[20] u8[20]@0:9", "i8[20] i8[]@0:3", "u64[n] u64[1]@0:70 n=1,4")
shift_left = _arithmetic(
    "shift_left", "shl", ref.shift_left, INTEGERS, SHIFTS,
    torch="bitwise_left_shift.Tensor", doc="x * 2**y; 0 from the width on.",
)  # fmt: skip
shift_right = _arithmetic(
    "shift_right", "shr", ref.shift_right, INTEGERS, SHIFTS, torch="bitwise_right_shift.Tensor",
    doc="x // 2**y, arithmetic on signed types; 0 or -1 from the width on.",
)  # fmt: skip


def _comparison(name: str, op: str, function, onnx: str, torch: str, doc: str):
    return predicate(
        name, lambda x, y: compare(op, x, y), "x, y", reference=function, onnx=onnx, torch=torch,
        dtypes=(*NUMERIC, boolean), doc=doc, samples=(*SHAPES, *BINARY_INTS, *LOGIC,
                                                      "f32[8]@special f32[8]@special"),
    )  # fmt: skip


equal = _comparison("equal", "eq", np.equal, "Equal", "eq.Tensor", "Whether x = y.")
not_equal = _comparison("not_equal", "ne", np.not_equal, "", "ne.Tensor", "Whether x differs.")
less = _comparison("less", "lt", np.less, "Less", "lt.Tensor", "Whether x < y.")
less_equal = _comparison(
    "less_equal", "le", np.less_equal, "LessOrEqual", "le.Tensor", "Whether x <= y."
)
greater = _comparison("greater", "gt", np.greater, "Greater", "gt.Tensor", "Whether x > y.")
greater_equal = _comparison(
    "greater_equal", "ge", np.greater_equal, "GreaterOrEqual", "ge.Tensor", "Whether x >= y."
)

# ---- choice and conversion ---------------------------------------------------------------------


def _infer_select(cond: TensorType, x: TensorType, y: TensorType) -> TensorType:
    require(cond.dtype is boolean, f"select: the condition is {cond.dtype}, not bool",
            "compare it with zero: not_equal(cond, 0)")  # fmt: skip
    shape = broadcast_shapes("select", cond.shape, x.shape, y.shape)
    return TensorType(same_dtype("select", x, y), shape)


def _lower_select(out: Buffer, *ins: Buffer) -> Stmt:
    return compute(out, lambda *i: select_expr(*(broadcast_load(b, i) for b in ins)))


def _select_gradient(g, z, cond, x, y):
    zero = scalar_like(g, 0)
    return None, select(cond, g, zero), select(cond, zero, g)


select = define(
    "select", "cond, x, y", infer=_infer_select, reference=np.where, lower=_lower_select,
    gradient=_select_gradient, onnx="Where", torch="where.self",
    samples=("bool[3,4] f32[3,4] f32[4]", "bool[n,1] f32[n,4] f32[] n=1,3", "bool[] i32[5] i32[5]",
             "bool[0] f64[0] f64[0]", "bool[6] bf16[6] bf16[6]", "bool[2,3] f64[2,3] f64[3]"),
    doc="x where the condition holds, else y.",
)  # fmt: skip


def _infer_cast(
    x: TensorType, *, dtype: DType, saturate: bool = True, flush: bool = False
) -> TensorType:  # fmt: skip
    if dtype_of(dtype) is index:
        raise CompileError("cast: index is not the element type of a tensor", help="use i64")
    return TensorType(dtype_of(dtype), x.shape)


def _lower_cast(
    out: Buffer, x: Buffer, *, dtype: DType, saturate: bool = True, flush: bool = False
) -> Stmt:  # fmt: skip
    if flush and (x.dtype, out.dtype) == (f32, bf16):
        return compute(out, lambda *i: call("round_bf16", bf16, (x[i],)))
    return compute(out, lambda *i: convert(x[i], out.dtype, saturate))


def convert(e: Expr, to: DType, saturate: bool = True) -> Expr:
    """`e` as `to`. Into an 8-bit float, as ONNX has it: what rounds beyond the largest number
    becomes that number if `saturate`, else infinity or, in types that have none, NaN."""
    if to not in FLOATS8 or e.dtype.max <= to.max:
        return cast_expr(e, to)
    if saturate:
        low, high = const(to.min, e.dtype), const(to.max, e.dtype)
        return cast_expr(binary("max", binary("min", e, high), low), to)
    if to is f8e5m2 or not e.dtype.is_float:
        return cast_expr(e, to)
    limit, included = _rounding_limit(to)
    size = unary("abs", e)
    beyond = compare("gt" if included else "ge", size, const(limit, e.dtype))
    return select_expr(beyond, const(math.nan, to), cast_expr(e, to))


def _rounding_limit(to: DType) -> tuple[float, bool]:
    """Half a step above the largest number of a type, and whether a tie there rounds down."""
    largest = np.asarray(to.max, to.numpy)
    bits = largest.view(np.uint8)
    below = float((bits - np.uint8(1)).view(to.numpy))
    return to.max + (to.max - below) / 2, int(bits) % 2 == 0


def _cast_gradient(g, y, x, *, dtype, saturate=True, flush=False):
    return (cast(g, dtype=x.dtype) if x.dtype.is_float and y.dtype.is_float else None,)


cast = define(
    "cast", "x", infer=_infer_cast, lower=_lower_cast, gradient=_cast_gradient,
    reference=lambda x, dtype, saturate=True, flush=False: ref.cast(x, dtype_of(dtype), saturate),
    onnx="Cast",
    samples=(
        "f32[3,4] dtype=f16", "f32[n] dtype=bf16 n=1,5", "f64[2,3] dtype=f64", "f32[9] dtype=i32",
        "f32[16]@special dtype=i32", "f32[16]@special dtype=u8", "f64[16]@special dtype=i64",
        "f32[16]@-300:300 dtype=i8", "f32[16]@-9:300 dtype=u8", "f16[8]@special dtype=i8",
        "f32[16]@-999:999 dtype=f8e4m3fn", "f32[16]@special dtype=f8e4m3fn saturate=False",
        "f32[16]@special dtype=f8e5m2", "f16[9]@special dtype=f8e4m3fnuz",
        "f8e8m0[9]@1:8 dtype=f32",
        "f32[9] dtype=f8e5m2fnuz", "f32[40]@-600:600 dtype=f8e4m3fn saturate=False",
        "f32[40]@-300:300 dtype=f8e4m3fnuz saturate=False", "f64[9]@-8:8 dtype=bf16",
        "f32[16]@special dtype=f8e5m2 saturate=False",
        "f8e4m3fn[9] dtype=f32", "f8e5m2[9] dtype=f16", "f8e4m3fnuz[9] dtype=bf16",
        "i32[9] dtype=f32", "i64[9] dtype=i8", "i32[9] dtype=u16", "u8[9] dtype=i8",
        "i32[9] dtype=bool", "f32[9]@special dtype=bool", "bool[9] dtype=f32", "bool[0] dtype=i64",
        "i8[9]@-8:7 dtype=i4", "i4[9] dtype=f32", "u4[9] dtype=i32", "i32[9]@0:15 dtype=u4",
        "f32[3,40] dtype=bf16 flush=True", "f32[16]@special dtype=bf16 flush=True",
        "f32[9] dtype=f4e2m1", "f4e2m1[9] dtype=f32", "f16[n] dtype=f32 n=1,4", "bf16[9] dtype=f64",
    ),
    doc="x converted to another element type, by the rules at the top of ir/expr.py; with flush, a "
        "bf16 below the normal range may come out as 0.",
)  # fmt: skip


def _infer_bitcast(x: TensorType, *, dtype: DType) -> TensorType:
    to = dtype_of(dtype)
    if (x.dtype.bits, to.bits) == (16, 32) and x.shape[-1:] == (2,):
        return TensorType(to, x.shape[:-1])
    require(to.bits == x.dtype.bits and boolean not in (to, x.dtype),
            f"bitcast: {x.dtype} has {x.dtype.bits} bits, {to} has {to.bits}",
            "bitcast between types of one width, or a last dimension of two of 16 bits to 32",
            )  # fmt: skip
    return TensorType(to, x.shape)


def _lower_bitcast(out: Buffer, x: Buffer, *, dtype: DType) -> Stmt:
    if x.rank == out.rank:
        return compute(out, lambda *i: bitcast_expr(x[i], out.dtype))
    return compute(out, lambda *i: bitcast_expr(join(x[(*i, 0)], x[(*i, 1)]), out.dtype))


def _reference_bitcast(x, dtype):
    shape = x.shape if x.dtype.itemsize == dtype_of(dtype).bytes else x.shape[:-1]
    return np.ascontiguousarray(x).view(dtype_of(dtype).numpy).reshape(shape)


bitcast = define(
    "bitcast", "x", infer=_infer_bitcast, lower=_lower_bitcast, reference=_reference_bitcast,
    samples=("f32[3,4] dtype=u32", "i64[n] dtype=f64 n=1,3", "bf16[5] dtype=u16", "u8[0] dtype=i8",
             "f8e4m3fn[6] dtype=u8", "f32[] dtype=i32", "bf16[3,2] dtype=u32",
             "i16[n,2] dtype=f32 n=1,3"),
    doc="The bits of x read as another type; two of 16 along the last dimension as one of 32.",
)  # fmt: skip
