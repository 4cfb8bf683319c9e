"""Casts to and from types without machine arithmetic, as integer expressions.

    cast(x: bf16, f16)  ->  cast(cast(x, f32), f16)
"""

from __future__ import annotations

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import FLOATS8, SUBBYTE, bf16, f8e8m0, f16, f32, f64
from tensorwright.ir.expr import Expr, cast


def expand_cast(e: Expr) -> Expr | None:
    """A cast or bitcast in terms of ones that the emitter has; None if it has this one."""
    source, to = e.args[0].dtype, e.dtype
    if source in (*FLOATS8, *SUBBYTE, f8e8m0) or to in (*FLOATS8, *SUBBYTE, f8e8m0):
        raise CompileError(f"no code for {e.op} from {source} to {to}")
    if {source, to} == {f16, bf16}:
        return cast(cast(e.args[0], f32), to)
    if source is f64 and to in (f16, bf16):
        return None
    return None
