"""The memory plan of a compiled program, as data: when and where every buffer lives.

Offsets and sizes are index expressions; `place` evaluates them for given sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorwright.ir import facts
from tensorwright.ir.expr import Expr, Symbol, as_expr, is_const, symbols_of, text_of
from tensorwright.ir.loop import Alloc, Kernel, statements
from tensorwright.memory.plan import intervals
from tensorwright.runtime.program import Program


@dataclass(frozen=True)
class Placed:
    """A buffer of the arena: bytes [offset, offset + size), statements [first, last]."""

    name: str
    type: str
    first: int
    last: int
    offset: Expr
    size: Expr


def frame_of(k: Kernel) -> Expr | None:
    """Bytes that a host function takes for its buffers."""
    for s in statements(k.body):
        if isinstance(s, Alloc) and s.buffer.scope == "frame":
            return as_expr(s.buffer.shape[0])
    return None


def frame_sizes(program: Program) -> int | str | None:
    """Bytes of the entry's frame: a number, a text if symbolic, None where it is not known."""
    built = getattr(program, "built", None)
    if built is None:
        return None
    frame = frame_of(built.host[0])
    if frame is None:
        return 0
    return frame.value if is_const(frame) else text_of(frame)


def placed(k: Kernel) -> list[Placed]:
    """Where the buffers of a planned host function lie."""
    offsets = {
        s.buffer: s.offset
        for s in statements(k.body)
        if isinstance(s, Alloc) and s.buffer.scope == "arena" and s.offset is not None
    }
    return [
        Placed(i.buffer.name, str(i.buffer), i.first, i.last, offsets[i.buffer], i.size)
        for i in intervals(k)
        if i.buffer in offsets
    ]


def evaluate(e: Expr, sizes: Mapping[str, int]) -> int:
    """The value of an expression for named sizes."""
    values: dict[Symbol, int] = {s: sizes[s.name] for s in symbols_of(e)}
    return facts.evaluate(e, values)
