"""Mathematical functions as simpler expressions, with stated accuracy.

`expand_math` rewrites one node, e.g.

    tanh(x)   ->   fma, select and bit operations on x

The result is branch-free and uses only add, sub, mul, div, fma, neg, abs, round, sqrt, select,
compares, cast, bitcast and integer arithmetic, and where a target has it the instruction `scale`,
so that it vectorizes; f16 and bf16 are the caller's business (in f32). Results hold to ULP_BOUNDS
over the whole range, with IEEE special cases, provided that no fast-math flag lets LLVM reassociate
or contract.
"""

from collections.abc import Callable

from tensorwright.codegen import math_exp, math_power, math_special, math_trig
from tensorwright.codegen.math_core import FORMATS
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Expr, rebuild, transform, unary, walk

# function -> largest error in units of the last place for f32 and f64, checked by the tests.
_BOUNDS: dict[str, tuple[float, float]] = {
    "reciprocal": (0.5, 0.5), "rsqrt": (1.5, 1.5), "exp": (2, 2), "exp2": (2, 2), "expm1": (2, 2),
    "log": (1, 1), "log2": (1.5, 1), "log1p": (2, 2), "sigmoid": (3, 3), "tanh": (3, 3),
    "sinh": (2, 2), "cosh": (2.5, 2), "asinh": (2.5, 2.5), "acosh": (2.5, 2.5), "atanh": (2.5, 2.5),
    "sin": (2, 1), "cos": (2, 1), "tan": (2.5, 2.5), "asin": (2, 2), "acos": (1.5, 1.5),
    "atan": (2, 2), "atan2": (2.5, 2), "erf": (3.25, 2), "erfc": (1, 4), "lgamma": (1, 4),
    "digamma": (1, 4), "pow": (1, 2.5), "rem": (0, 0), "mod": (0.5, 0.5),
}  # fmt: skip
ULP_BOUNDS: dict[tuple[str, int], float] = {
    (name, bits): bound for name, pair in _BOUNDS.items() for bits, bound in zip((32, 64), pair)
}

# f64 results within this of the exact one count too: functions that cross zero with rounded parts.
ABSOLUTE_BOUNDS = {("lgamma", 64): 3e-15, ("digamma", 64): 3e-15}

EXPANSIONS: dict[str, Callable[..., Expr]] = {
    "reciprocal": lambda x: 1.0 / x,
    "rsqrt": lambda x: 1.0 / unary("sqrt", x),
    "exp": math_exp.exp, "exp2": math_exp.exp2, "expm1": math_exp.expm1, "log": math_exp.log,
    "log2": math_exp.log2, "log1p": math_exp.log1p, "sigmoid": math_exp.sigmoid,
    "tanh": math_exp.tanh, "sinh": math_exp.sinh, "cosh": math_exp.cosh, "asinh": math_exp.asinh,
    "acosh": math_exp.acosh, "atanh": math_exp.atanh, "sin": math_trig.sin, "cos": math_trig.cos,
    "tan": math_trig.tan, "asin": math_trig.asin, "acos": math_trig.acos, "atan": math_trig.atan,
    "atan2": math_trig.atan2, "erf": math_special.erf, "erfc": math_special.erfc,
    "lgamma": math_special.lgamma, "digamma": math_special.digamma, "pow": math_power.power,
    "rem": math_power.remainder, "mod": math_power.modulo,
}  # fmt: skip


# Of f32, where a target multiplies by powers of two and looks up one of 16 numbers in one
# instruction each.
BY_SCALING: dict[str, Callable[..., Expr]] = {
    "exp": math_exp.exp_by_scaling, "sigmoid": math_exp.sigmoid_by_scaling,
    "erf": math_special.erf_by_lookup,
}  # fmt: skip


# Of f32, where the result is rounded to bf16 at once: their error, of 1 or of larger results.
NEAR: dict[str, Callable[..., Expr]] = {"erf": math_special.erf_near}
NEAR_BY_SCALING: dict[str, Callable[..., Expr]] = {**NEAR, "exp": math_exp.exp_near}
NEAR_BOUNDS = {"erf": 3e-5, "exp": 2.5e-4}  # rounding to bf16 costs up to 2e-3
LINEAR = ("add", "sub", "mul", "fma", "neg")


def expand_math(e: Expr, fused: bool = True, scaling: bool = False) -> Expr | None:
    """The node in simpler operations, or None if it is not a float function expanded here.

    fused: whether the target has an fma that rounds once. If not, the result contains none, and
    its errors may exceed the bounds by 1 ulp. scaling: whether it has the instructions of
    `BY_SCALING`.
    """
    if e.dtype not in FORMATS or (e.op, e.dtype.bits) not in ULP_BOUNDS:
        return None
    shorter = BY_SCALING.get(e.op) if scaling and e.dtype is f32 else None
    expanded = (shorter or EXPANSIONS[e.op])(*e.args)
    return expanded if fused else without_fma(expanded, e.args)


def expand_near(e: Expr, fused: bool = True, scaling: bool = False) -> Expr:
    """What is rounded to bf16, with the functions of `NEAR` that only sums and products lie behind
    expanded so; `e` itself where there are none."""
    known = NEAR_BY_SCALING if scaling else NEAR

    def near(part: Expr) -> Expr | None:
        if part.op in known and part.dtype is f32:
            expanded = known[part.op](*part.args)
            return expanded if fused else without_fma(expanded, part.args)
        return None if part.op in LINEAR else part

    return transform(e, near)


def without_fma(e: Expr, operands: tuple[Expr, ...]) -> Expr:
    """e with fma(a, b, -(a b)), an exact error, split into words, and any other fma in two."""
    new = {a: a for a in operands}
    for node in walk(e):
        if node not in new:
            args = tuple(new.get(a, a) for a in node.args)
            new[node] = _unfused(*args) if node.op == "fma" else rebuild(node, args)
    return new[e]


def _unfused(a: Expr, b: Expr, c: Expr) -> Expr:
    product = a * b
    if c.op != "neg" or c.args[0] is not product:
        return product + c
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    rest = (a_high * b_high - product) + a_high * b_low + a_low * b_high
    return rest + a_low * b_low


def _halves(a: Expr) -> tuple[Expr, Expr]:
    """a as a sum of two numbers of half the bits (Veltkamp)."""
    t = a * (2.0 ** ((FORMATS[a.dtype].mantissa + 2) // 2) + 1)
    high = t - (t - a)
    return high, a - high
