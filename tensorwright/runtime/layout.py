"""Where the parts of a heap object lie: agreed between compiled code and the runtime.

    i64 count | i16 tag, i16 references, i32 size / 64 | references | sizes | tensors

`references` are words that refer to objects; `sizes` are the dimensions that each value has for
itself, one word a symbol of its case; tensors follow, those of a line or more (and those of unknown
size) aligned to lines of 64 bytes. The same arithmetic places constants and index expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COUNT, TAG, REFS, UNITS, HEADER = 0, 8, 10, 12, 16
LINE = 64
OUTSIDE = 1 << 40  # the count of objects that belong to the caller: never unique, never freed


def place(refs: int, sizes: int, tensors: Sequence[tuple[Any, bool]]) -> tuple[list, Any]:
    """(offset of each tensor, bytes of the object). tensors: (bytes, whether the declaration gives
    them a symbolic size). 0 bytes for a case without any fields, which needs no memory."""
    at = HEADER + 8 * (refs + sizes)
    if at == HEADER and not tensors:
        return [], 0
    offsets = []
    for size, symbolic in tensors:
        align = LINE if symbolic or size >= LINE else 8
        at = (at + (align - 1)) // align * align
        offsets.append(at)
        at = at + size
    return offsets, (at + (LINE - 1)) // LINE * LINE
