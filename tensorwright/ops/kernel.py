"""The rows that cross levels: a fused group of nodes, the call of a kernel, of a library function.

    y = fused(x, w, body=<graph>)      after fusion: will become one kernel
    y = call_kernel(x, w, callee="dense_relu", scalars=(n,))      after lowering
    y = call_extern(x, symbol="fft_1d", scalars=(n,), type=f32[n])      a C function, all the way

All are destination-passing once on the host: who calls allocates.
"""

from __future__ import annotations

from tensorwright.ir.type import TupleType
from tensorwright.ops.define import define


def _fused_type(*types, body, sizes=()):
    results = body.result_types
    return results[0] if len(results) == 1 else TupleType(results)


def _declared_type(*types, callee, type, scalars=(), sources=(), inplace=-1):
    return type


fused = define(
    "fused", "*xs", infer=_fused_type,
    doc="A group of nodes that becomes one kernel. sizes: those that its nodes use and none of its "
    "operands and results has, which must be known before.",
)  # fmt: skip
call_kernel = define(
    "call_kernel", "*xs", infer=_declared_type,
    doc="Call a kernel of the module: tensor arguments, then index scalars. The result starts as "
    "the argument `inplace`, and takes its memory, if that is not -1.",
)  # fmt: skip


def _extern_type(*types, symbol, type, scalars=()):
    return type


call_extern = define(
    "call_extern", "*xs", infer=_extern_type,
    doc="Call a C function by name: `void symbol(inputs..., outputs..., int64 scalars...)` on "
    "dense row-major memory, which the caller owns. The name is looked up in the process when the "
    "program is loaded.",
)  # fmt: skip
