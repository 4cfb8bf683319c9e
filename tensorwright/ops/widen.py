"""Element types inside composites: f16 and bf16 are computed in f32 and rounded once at the end.

y = narrow(f(widened(x)), x)
"""

from __future__ import annotations

from tensorwright.ir.dtype import DType
from tensorwright.ops.define import accumulator
from tensorwright.ops.elementwise import cast


def to_dtype(x, dtype: DType):
    """x as `dtype`; x itself where it has it already."""
    return x if x.dtype is dtype else cast(x, dtype=dtype)


def widened(x):
    """x in the type in which sums of its elements are kept."""
    return to_dtype(x, accumulator(x.dtype))
