"""Rewrite scalar expressions into the operations that the LLVM emitter has.

    exp(x: bf16)  ->  cast(<polynomial in f32 of cast(x, f32)>, bf16)

Narrow floats compute in f32 and round after every operation; mathematical functions become
polynomials (`math.py`); 8-bit floats and sub-byte integers are taken apart into integer arithmetic
(`narrow.py`).
"""

from __future__ import annotations

from tensorwright.base.errors import CompileError
from tensorwright.codegen.instructions import INSTRUCTIONS
from tensorwright.codegen.math import expand_math, expand_near
from tensorwright.codegen.narrow import NARROW_FLOATS, NIBBLES, expand_cast, low_bits
from tensorwright.ir.dtype import DType, boolean, dtype, f16, f32, i32, index, u32
from tensorwright.ir.expr import (
    COMPARISONS,
    PREDICATES,
    Expr,
    cast,
    const,
    make,
    rebuild,
    select,
)  # fmt: skip
from tensorwright.ir.sums import is_affine
from tensorwright.target.target import Target

DIRECT = frozenset(
    [
        "const",
        "sym",
        "load",
        "add",
        "sub",
        "mul",
        "div",
        "fma",
        "neg",
        "abs",
        "floor",
        "ceil",
        "trunc",
        "round",
        "sqrt",
        "min",
        "max",
        "select",
        "cast",
        "bitcast",
        "and",
        "or",
        "xor",
        "shl",
        "shr",
        "not",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "isnan",
        "popcount",
        "call",
        "floordiv",
        "mod",
        "truncdiv",
        "rem",
    ]
)


class Legalizer:
    """Expression rewriter with a memo that one kernel shares."""

    def __init__(self, target: Target | None = None):
        self.memo: dict[Expr, Expr] = {}
        self.fused = target is None or target.fma
        self.features = frozenset(() if target is None else (*target.features, *target.required))
        self.scaling = self.features.issuperset(INSTRUCTIONS["scale"].features)
        self.native = frozenset((f16,) if target is None else map(dtype, target.conversions))

    def __call__(self, e: Expr) -> Expr:
        memo = self.memo
        stack = [e]
        while stack:  # deep expressions must not meet Python's limit on recursion
            part = stack[-1]
            if part not in memo:
                if not part.args or (part.dtype is index and is_affine(part)):
                    memo[part] = part
                else:
                    args = self.operands(part)
                    missing = [a for a in args if a not in memo]
                    if missing:
                        missing.reverse()
                        stack += missing
                        continue
                    found = self.step(rebuild(part, tuple([memo[a] for a in args])))
                    memo[part] = memo[found] = found
            stack.pop()
        return memo[e]

    def operands(self, e: Expr) -> tuple[Expr, ...]:
        """What a node is computed of, as exact as it needs to be."""
        if e.op == "call" and e.value == "round_bf16":
            return (expand_near(e.args[0], self.fused, self.scaling),)
        return e.args

    def step(self, e: Expr) -> Expr:
        """One node whose arguments are legal already."""
        operand = e.args[0].dtype if e.args else e.dtype
        if e.op == "call" and e.value in INSTRUCTIONS:
            known = INSTRUCTIONS[e.value]
            return e if self.features.issuperset(known.features) else self(known.expand(*e.args))
        if e.op in ("load", "const", "select", "call") or e.dtype is index:
            return e
        if e.op in ("cast", "bitcast"):
            simpler = expand_cast(e, self.native)
            return e if simpler is None else self(simpler)
        wide = wider(operand)
        if wide is not None and e.op == "popcount":
            return self(cast(make("popcount", u32, (low_bits(e.args[0]),)), e.dtype))
        if wide is not None:
            by_result = e.op not in COMPARISONS and e.op not in PREDICATES
            new = make(e.op, wide if by_result else e.dtype, tuple(cast(a, wide) for a in e.args))
            return self(cast(new, e.dtype))
        return self.operation(e, operand)

    def operation(self, e: Expr, operand) -> Expr:
        if e.op in ("isinf", "isfinite"):
            size = make("abs", operand, e.args)
            kind = "eq" if e.op == "isinf" else "lt"
            return make(kind, boolean, (size, const(float("inf"), operand)))
        if e.op == "sign":
            return self(_sign(e))
        if operand.is_float:
            expanded = expand_math(e, self.fused, self.scaling)
            if expanded is not None:
                return self(expanded)
            if e.op in ("floordiv", "truncdiv"):
                rounding = "floor" if e.op == "floordiv" else "trunc"
                return make(rounding, e.dtype, (make("div", e.dtype, e.args),))
        if e.op == "pow" and operand.is_integer:
            return self(_integer_power(e))
        if operand.is_integer and e.op in ("floor", "ceil", "trunc", "round"):
            return e.args[0]
        if operand.is_integer and e.op == "div":
            return make("truncdiv", e.dtype, e.args)
        if e.op not in DIRECT:
            raise CompileError(f"no code for {e.op} of {operand}", help="cast the operand to f32")
        return e


def wider(operand: DType) -> DType | None:
    """The type in which operations on a narrow one are computed; None for those that are not."""
    if operand in NARROW_FLOATS:
        return f32
    if operand in NIBBLES:
        return i32 if operand.is_signed else u32
    return None


def _sign(e: Expr) -> Expr:
    x = e.args[0]
    zero, one = const(0, x.dtype), const(1, x.dtype)
    positive = select(
        make("gt", boolean, (x, zero)), one, zero if not x.dtype.is_float else x * 0.0
    )
    if not x.dtype.is_signed:
        return select(make("gt", boolean, (x, zero)), one, zero)
    if not x.dtype.is_float:
        return select(make("lt", boolean, (x, zero)), const(-1, x.dtype), positive)
    result = select(make("lt", boolean, (x, zero)), const(-1, x.dtype),
                    select(make("gt", boolean, (x, zero)), one, x))  # fmt: skip
    return result


def _integer_power(e: Expr) -> Expr:
    """Square and multiply over the bits of the exponent; branch-free."""
    base, exponent = e.args
    t = e.dtype
    one, zero = const(1, t), const(0, t)
    result, square = one, base
    for bit in range(_exponent_bits(exponent)):
        used = make("ne", boolean, (make("and", t, (exponent, const(1 << bit, t))), zero))
        result = make("mul", t, (result, select(used, square, one)))
        square = make("mul", t, (square, square))
    if not t.is_signed:
        return result
    odd = make("ne", boolean, (make("and", t, (exponent, one)), zero))
    minus = const(-1, t)
    sign = select(make("eq", boolean, (base, minus)), select(odd, minus, one), zero)
    inverse = select(make("eq", boolean, (base, one)), one, sign)
    return select(make("lt", boolean, (exponent, zero)), inverse, result)


def _exponent_bits(exponent: Expr) -> int:
    """How many bits of an exponent may be set, the sign apart."""
    if exponent.op == "const":
        return max(exponent.value, 0).bit_length()
    while exponent.op == "cast" and exponent.args[0].dtype.is_integer:
        exponent = exponent.args[0]
    t = exponent.dtype
    return t.bits - t.is_signed
