"""Rewrite scalar expressions into the operations that the LLVM emitter has.

    exp(x: bf16)  ->  cast(<polynomial in f32 of cast(x, f32)>, bf16)

Narrow floats compute in f32 and round after every operation; mathematical functions become
polynomials (`math.py`); 8-bit floats and sub-byte integers are taken apart into integer arithmetic
(`narrow.py`).
"""

from __future__ import annotations

from tensorwright.base.errors import CompileError
from tensorwright.codegen.math import expand_math
from tensorwright.codegen.narrow import expand_cast
from tensorwright.ir.dtype import bf16, boolean, f16, f32, index
from tensorwright.ir.expr import COMPARISONS, PREDICATES, Expr, cast, const, make, rebuild, select

DIRECT = frozenset(
    ["const", "sym", "load", "add", "sub", "mul", "div", "fma", "neg", "abs", "floor", "ceil", "trunc", "round", "sqrt", "min", "max", "select", "cast", "bitcast", "and", "or", "xor", "shl", "shr", "not", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "popcount", "call", "floordiv", "mod", "truncdiv", "rem"]
)
NARROW = (f16, bf16)


class Legalizer:
    """Expression rewriter with a memo that one kernel shares."""

    def __init__(self):
        self.memo: dict[Expr, Expr] = {}

    def __call__(self, e: Expr) -> Expr:
        found = self.memo.get(e)
        if found is None:
            args = tuple(self(a) for a in e.args)
            found = e if not args else self.step(rebuild(e, args))
            self.memo[e] = found
        return found

    def step(self, e: Expr) -> Expr:
        """One node whose arguments are legal already."""
        operand = e.args[0].dtype if e.args else e.dtype
        if e.op == "load" or e.dtype is index:
            return e
        if e.op in ("cast", "bitcast"):
            wider = expand_cast(e)
            return e if wider is None else self(wider)
        if e.dtype in NARROW and e.op not in ("const", "select", "call"):
            wide = make(e.op, f32, tuple(cast(a, f32) for a in e.args), e.value)
            return cast(self.step(wide), e.dtype)
        if operand in NARROW and (e.op in COMPARISONS or e.op in PREDICATES):
            return self.step(make(e.op, e.dtype, tuple(cast(a, f32) for a in e.args)))
        return self.operation(e, operand)

    def operation(self, e: Expr, operand) -> Expr:
        if e.op in ("isinf", "isfinite"):
            limit = make("eq" if e.op == "isinf" else "lt", boolean,
                         (make("abs", operand, e.args), const(float("inf"), operand)))  # fmt: skip
            return limit
        if e.op == "sign":
            return self(_sign(e))
        if operand.is_float:
            expanded = expand_math(e)
            if expanded is not None:
                return self(expanded)
        if e.op == "pow" and operand.is_integer:
            return self(_integer_power(e))
        if e.op in ("reciprocal", "rsqrt"):
            x = e.args[0] if e.op == "reciprocal" else make("sqrt", e.dtype, e.args)
            return make("div", e.dtype, (const(1, e.dtype), x))
        if e.op not in DIRECT:
            raise CompileError(f"no code for {e.op} of {operand}", help="cast the operand to f32")
        return e


def _sign(e: Expr) -> Expr:
    x = e.args[0]
    zero, one = const(0, x.dtype), const(1, x.dtype)
    positive = select(make("gt", boolean, (x, zero)), one, zero if not x.dtype.is_float else x * 0.0)
    if not x.dtype.is_signed:
        return select(make("gt", boolean, (x, zero)), one, zero)
    if not x.dtype.is_float:
        return select(make("lt", boolean, (x, zero)), const(-1, x.dtype), positive)
    result = select(make("lt", boolean, (x, zero)), const(-1, x.dtype),
                    select(make("gt", boolean, (x, zero)), one, x))  # fmt: skip
    return result


def _integer_power(e: Expr) -> Expr:
    """Square and multiply over all bits of the exponent; branch-free."""
    base, exponent = e.args
    t = e.dtype
    one, zero = const(1, t), const(0, t)
    result, square = one, base
    for bit in range(min(t.bits, 6) if t.bits <= 32 else 6):
        used = make("ne", boolean, (make("and", t, (exponent, const(1 << bit, t))), zero))
        result = select(used, make("mul", t, (result, square)), result)
        square = make("mul", t, (square, square))
    if not t.is_signed:
        return result
    odd = make("ne", boolean, (make("and", t, (exponent, one)), zero))
    minus = const(-1, t)
    inverse = select(make("eq", boolean, (base, one)), one,
                     select(make("eq", boolean, (base, minus)), select(odd, minus, one), zero))  # fmt: skip
    return select(make("lt", boolean, (exponent, zero)), inverse, result)



