"""Scalar functions that some targets have an instruction for (`expr.call` by name).

    call("dot_u8i8", i32, c, a, b)  ->  VPDPBUSD on <16 x i32>, else shifts, products and sums

Each has an expansion into plain operations, for targets without it and for lanes that it does not
come in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorwright.ir.dtype import i32, u32
from tensorwright.ir.expr import Expr, binary, bitcast, const


@dataclass(frozen=True)
class Instruction:
    """features: what a target needs; name: LLVM's, by the number of lanes; expand: the same in
    plain operations."""

    features: tuple[str, ...]
    name: dict[int, str]
    expand: Callable[..., Expr]


def expand_dot(c: Expr, a: Expr, b: Expr) -> Expr:
    """c + the four products of the bytes of a (unsigned) and b (signed)."""
    a = bitcast(a, u32)
    for k in range(4):
        left = (a if k == 0 else _shift("shr", a, 8 * k)) & const(255, u32)
        right = _shift("shr", b if k == 3 else _shift("shl", b, 24 - 8 * k), 24)
        c = c + bitcast(left, i32) * right
    return c


def _shift(op: str, x: Expr, by: int) -> Expr:
    return binary(op, x, const(by, x.dtype))


INSTRUCTIONS: dict[str, Instruction] = {
    "dot_u8i8": Instruction(
        ("avx512vnni",),
        {lanes: f"llvm.x86.avx512.vpdpbusd.{32 * lanes}" for lanes in (4, 8, 16)},
        expand_dot,
    ),
}
