"""Mathematical functions as simpler expressions, with stated accuracy.

`expand_math` rewrites one node, e.g.

    tanh(x)   ->   fma, select and bit operations on x

The result is branch-free and uses only add, sub, mul, div, fma, neg, abs, round, sqrt, select,
compares, cast, bitcast and integer arithmetic, so that it vectorizes; f16 and bf16 are the
caller's business (in f32). Results hold to ULP_BOUNDS over the whole range, with IEEE special
cases, provided that fma rounds once and no fast-math flag lets LLVM reassociate.
"""

from collections.abc import Callable

from tensorwright.codegen import math_exp, math_special, math_trig
from tensorwright.codegen.math_core import FORMATS
from tensorwright.ir.expr import Expr

# (function, float bits) -> largest error in units of the last place, checked by the tests.
ULP_BOUNDS: dict[tuple[str, int], float] = {
    ("exp", 32): 2, ("exp2", 32): 2, ("expm1", 32): 2, ("sigmoid", 32): 2.5, ("tanh", 32): 2,
    ("log", 32): 2, ("log2", 32): 2, ("log1p", 32): 2, ("sin", 32): 1.5, ("cos", 32): 1.5,
    ("tan", 32): 2.5, ("erf", 32): 3.5,
    ("exp", 64): 2, ("exp2", 64): 2, ("expm1", 64): 2, ("sigmoid", 64): 2.5, ("tanh", 64): 2,
    ("log", 64): 2, ("log2", 64): 2, ("log1p", 64): 2,
}  # fmt: skip

EXPANSIONS: dict[str, Callable[..., Expr]] = {
    "exp": math_exp.exp, "exp2": math_exp.exp2, "expm1": math_exp.expm1, "log": math_exp.log,
    "log2": math_exp.log2, "log1p": math_exp.log1p, "sigmoid": math_exp.sigmoid,
    "tanh": math_exp.tanh, "sin": math_trig.sin, "cos": math_trig.cos, "tan": math_trig.tan,
    "erf": math_special.erf,
}  # fmt: skip


def expand_math(e: Expr) -> Expr | None:
    """The node in simpler operations, or None if it is not a float function expanded here."""
    if e.dtype not in FORMATS or (e.op, e.dtype.bits) not in ULP_BOUNDS:
        return None
    return EXPANSIONS[e.op](*e.args)
