"""Scalar functions that some targets have an instruction for (`expr.call` by name).

    call("dot_u8i8", i32, c, a, b)  ->  VPDPBUSD on <16 x i32>, else shifts, products and sums

Each has an expansion into plain operations, for targets without it and for lanes that it does not
come in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorwright.codegen.math_tables import LOOKUPS
from tensorwright.codegen.operations import literal
from tensorwright.ir.dtype import bf16, f32, i32, u16, u32
from tensorwright.ir.expr import Expr, binary, bitcast, cast, const, eq, fma, select, unary

Operands = tuple[tuple[str, str], ...]  # LLVM's type and value of each


@dataclass(frozen=True)
class Instruction:
    """features: what a target needs; name: LLVM's, by the number of lanes; expand: the same in
    plain operations; words: what LLVM calls the parts of a word, and how many it has; around: the
    operands before and behind the others that do not change, by the number of lanes; resizes:
    whether other numbers of lanes are computed as parts of those it comes in, or by several."""

    features: tuple[str, ...]
    name: dict[int, str]
    expand: Callable[..., Expr]
    words: tuple[str, int] = ("i32", 1)
    around: Callable[[int], tuple[Operands, Operands]] = lambda lanes: ((), ())
    resizes: bool = False


def expand_dot(c: Expr, a: Expr, b: Expr) -> Expr:
    """c + the four products of the bytes of a (unsigned) and b (signed)."""
    a = bitcast(a, u32)
    for k in range(4):
        left = (a if k == 0 else _shift("shr", a, 8 * k)) & const(255, u32)
        right = _shift("shr", b if k == 3 else _shift("shl", b, 24 - 8 * k), 24)
        c = c + bitcast(left, i32) * right
    return c


def expand_dot_bf16(c: Expr, a: Expr, b: Expr) -> Expr:
    """c + the two products of the bf16 halves of a and b."""

    def halves(e: Expr) -> tuple[Expr, Expr]:
        return bitcast(_shift("shl", e, 16), f32), bitcast(e & const(0xFFFF0000, u32), f32)

    (a0, a1), (b0, b1) = halves(a), halves(b)
    return fma(a1, b1, fma(a0, b0, c))


def expand_join(low: Expr, high: Expr) -> Expr:
    """The bits of two values of 16 bits as one number."""
    low, high = (cast(bitcast(e, u16), u32) for e in (low, high))
    return low | _shift("shl", high, 16)


def expand_scale(x: Expr, n: Expr) -> Expr:
    """x 2**floor(n) for n in [-252, 256], rounded once: by two powers, of which the first leaves
    x a normal number (of magnitude 1/2 to 2)."""
    power = cast(unary("floor", n), i32)
    half = _shift("shr", power, 1)
    for part in (half, power - half):
        x = x * bitcast(_shift("shl", part + 127, 23), f32)
    return x


def expand_lookup(table: tuple[float, ...], t: Expr) -> Expr:
    """The number of a table that the low bits of an integer count to."""
    if len(table) == 1:
        return const(table[0], f32)
    half = len(table) // 2
    low, high = expand_lookup(table[:half], t), expand_lookup(table[half:], t)
    return select(eq(t & half, 0), low, high)


def _every_lane(lanes: int) -> tuple[Operands, Operands]:
    """No lane kept from another vector, rounded as everything else is."""
    mode = (("i32", "4"),) if lanes == 16 else ()
    kept = (f"<{lanes} x float>", "zeroinitializer")
    return (), (kept, (f"i{max(lanes, 8)}", "-1"), *mode)


def _halves(table: tuple[float, ...], lanes: int) -> tuple[Operands, Operands]:
    """One table, or its halves."""
    tables = [(f"<{lanes} x float>",
               f"<{', '.join(f'float {literal(v, f32)}' for v in table[k : k + lanes])}>")
              for k in range(0, len(table), lanes)]  # fmt: skip
    return tuple(tables[:1]), tuple(tables[1:])


def _lookup(table: tuple[float, ...]) -> Instruction:
    """Of the low four bits of an integer."""
    return Instruction(
        ("avx512f", "avx512vl"),
        {8: "llvm.x86.avx512.vpermi2var.ps.256", 16: "llvm.x86.avx512.permvar.sf.512"},
        lambda t: expand_lookup(table, t),
        around=lambda lanes: _halves(table, lanes),
        resizes=True,
    )


def _shift(op: str, x: Expr, by: int) -> Expr:
    return binary(op, x, const(by, x.dtype))


INSTRUCTIONS: dict[str, Instruction] = {
    "dot_u8i8": Instruction(
        ("avx512vnni",),
        {lanes: f"llvm.x86.avx512.vpdpbusd.{32 * lanes}" for lanes in (4, 8, 16)},
        expand_dot,
    ),
    "dot_bf16": Instruction(
        ("avx512bf16",),
        {lanes: f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}" for lanes in (4, 8, 16)},
        expand_dot_bf16,
        ("bfloat", 2),
    ),
    # numbers below the normal range become 0
    "round_bf16": Instruction(
        ("avx512bf16",),
        {lanes: f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * lanes}" for lanes in (8, 16)},
        lambda x: cast(x, bf16),
    ),
    # x 2**floor(n), whatever n
    "scale": Instruction(
        ("avx512f", "avx512vl"),
        {lanes: f"llvm.x86.avx512.mask.scalef.ps.{32 * lanes}" for lanes in (4, 8, 16)},
        expand_scale,
        around=_every_lane,
        resizes=True,
    ),
    **{name: _lookup(table) for name, table in LOOKUPS.items()},
    "join": Instruction((), {}, expand_join),  # one load where both lie side by side
}
