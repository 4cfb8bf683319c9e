"""The operator table: every row of every file of this folder.

    BY_NAME["add"], BY_ONNX["Add"], BY_TORCH["add.Tensor"]

A row is found because its file is listed here; `incomplete` says what a row lacks.
"""

from __future__ import annotations

from types import ModuleType

from tensorwright.ir.op import OpDef
from tensorwright.ops import (
    activations,
    attention,
    caches,
    control,
    conv,
    cumulative,
    data,
    einsum,
    elementwise,
    forest,
    index,
    kernel,
    linalg,
    linear_attention,
    losses,
    movement,
    ngrams,
    norm,
    patches,
    pool,
    positions,
    quantize,
    random,
    recurrent,
    reduce,
    resample,
    signal,
    sort,
    statistics,
    strassen,
    vision,
    window,
    winograd,
)  # fmt: skip

MODULES: tuple[ModuleType, ...] = (
    elementwise, activations, positions, index, movement, cumulative, reduce, statistics, linalg,
    einsum, strassen, conv, winograd, window, pool, norm, losses, control, data, forest, sort,
    attention, caches, linear_attention,
    recurrent, quantize, resample, patches, vision, signal, ngrams, random, kernel,
)  # fmt: skip


def _rows() -> tuple[OpDef, ...]:
    found: dict[OpDef, None] = {}
    for module in MODULES:
        found |= {v: None for v in vars(module).values() if isinstance(v, OpDef)}
    return tuple(found)


OPS: tuple[OpDef, ...] = _rows()
BY_NAME: dict[str, OpDef] = {op.name: op for op in OPS}
BY_ONNX: dict[str, OpDef] = {op.onnx: op for op in OPS if op.onnx}
BY_TORCH: dict[str, OpDef] = {name: op for op in OPS for name in op.torch}

# rows that the host compiler or the passes handle by name
BY_HAND = frozenset(v.name for m in (control, data, forest, kernel) for v in vars(m).values()
                    if isinstance(v, OpDef)) | {"bind_size"}  # fmt: skip


def incomplete(op: OpDef) -> list[str]:
    """The columns that a row should have and lacks."""
    lacks = [] if op.doc else ["doc"]
    if op.name in BY_HAND:
        return lacks
    lacks += [] if op.samples else ["samples"]
    lacks += [] if op.reference is not None else ["reference"]
    return lacks + ([] if op.lower is not None or op.expand is not None else ["lower or expand"])
