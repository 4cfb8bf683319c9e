"""Windows that slide over vectors of channels (depthwise convolutions), and what they see again.

    for i: for j: y[i, j, c] = sum x[i + r, j + s, c] * w[r, s, c]

Along a row, a vector of x serves neighbouring results from a register: the window is written out.
What the next row of results sees again comes from the L1 cache if little else is read meanwhile.
"""

from __future__ import annotations

from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, is_const, sym
from tensorwright.ir.loop import For, Stmt
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import Stage, affine, depends, extent_of, operand_bytes, stride_of
from tensorwright.schedule.pairs import uncast
from tensorwright.schedule.roles import Roles
from tensorwright.target.target import Target

MAX_WINDOW = 7  # of a depthwise convolution whose inputs stay in registers


def sliding_window(stage: Stage, roles: Roles) -> For | None:
    """The reduction loop along which rows see the other operand's vectors again, one later (a
    depthwise convolution that moves by one): written out, so that each is loaded once."""
    read = slid_over(roles)
    if roles.row is None or read is None:
        return None
    step = stride_of(read, sym(roles.row.var))
    for f in stage.reduce:
        moves = stride_of(read, sym(f.var))
        slides = moves is not None and moves is step and not is_const(step, 0)
        if is_const(f.extent) and 1 < f.extent.value <= MAX_WINDOW and slides:
            return f
    return None


def slid_over(roles: Roles) -> Expr | None:
    """What moves with the columns as the weights do, if it is a plain load."""
    if roles.broadcast or roles.other is None:
        return None
    read = uncast(roles.other)
    return read if read.op == "load" else None


def seen_again(body: Stmt, roles: Roles, columns: int, target: Target) -> float:
    """Cycles to read what the steps of the innermost outer loop see again, where what one of them
    reads and stores for so many columns leaves the L1 cache."""
    read = slid_over(roles)
    if read is None or roles.row is None or not roles.outer:
        return 0
    around = roles.outer[-1]
    inner = [s for s in ir.statements(p.find(body, around.var).body) if isinstance(s, For)]
    together = lambda i, f: depends(i, sym(around.var)) and depends(i, sym(f.var))
    if not any(together(i, f) for i in read.args for f in inner):
        return 0
    sizes = {sym(f.var): extent_of(f) for f in inner}
    steps, each = prod(map(extent_of, roles.outer)), span(read, sizes)
    stored = extent_of(roles.row) * columns * read.value.dtype.bytes
    held = span(read, sizes | {sym(roles.column.var): columns}) + stored
    if held <= target.caches[0]:
        return 0
    size = operand_bytes(read)
    return max(steps * each - size, 0) / target.rate(size)


def span(read: Expr, sizes: dict[Expr, int]) -> int:
    """Bytes from the first to the last element, along each dimension, that loops of so many steps
    read."""
    count = 1
    for i, d in zip(read.args, read.value.shape):
        moves = {v: affine(i, v) for v in sizes if depends(i, v)}
        if all(m is not None and is_const(m) for m in moves.values()):
            count *= 1 + sum(abs(m.value) * (sizes[v] - 1) for v, m in moves.items())
        else:
            count *= d if isinstance(d, int) else 1
    return count * read.value.dtype.bytes
