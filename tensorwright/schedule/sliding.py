"""Windows that slide over vectors of channels (depthwise convolutions), and what they see again.

    for i: for j: y[i, j, c] = sum x[i + r, j + s, c] * w[r, s, c]

Along a row, a vector of x serves neighbouring results from a register: the window is written out.
What the next row of results sees again comes from the L1 cache if little else is read meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, is_const, sym
from tensorwright.ir.loop import For, Stmt
from tensorwright.schedule import primitives as p
from tensorwright.schedule.maps import LINE_BYTES
from tensorwright.schedule.nest import Stage, affine, depends, extent_of, operand_bytes, stride_of
from tensorwright.schedule.pairs import uncast
from tensorwright.schedule.roles import Roles
from tensorwright.target.target import Target

WAY = 4096  # bytes: lines as far apart are in one set of an L1 cache, as if it were a page
MAX_WINDOW = 7  # of a depthwise convolution whose inputs stay in registers


def sliding_window(stage: Stage, roles: Roles) -> For | None:
    """The reduction loop along which rows see the other operand's vectors again, fewer further than
    the window is long (a depthwise convolution): written out, so that each is loaded once."""
    for f in stage.reduce:
        size = f.extent.value if is_const(f.extent) else 0
        if 1 < size <= MAX_WINDOW and window_step(f, roles) < size:
            return f
    return None


def window_step(window: For, roles: Roles) -> int:
    """How many elements of a window further the next row's window begins; more than any window has
    if that is no whole number or not known."""
    read = slid_over(roles)
    if roles.row is None or read is None:
        return MAX_WINDOW + 1
    step, one = (stride_of(read, sym(f.var)) for f in (roles.row, window))
    if step is not None and step is one and not is_const(step, 0):
        return 1
    known = None not in (step, one) and is_const(step) and is_const(one) and one.value > 0
    if not known or step.value < 1 or step.value % one.value:
        return MAX_WINDOW + 1
    return step.value // one.value


def slid_over(roles: Roles) -> Expr | None:
    """What moves with the columns as the weights do, if it is a plain load."""
    if roles.broadcast or roles.other is None:
        return None
    read = uncast(roles.other)
    return read if read.op == "load" else None


def seen_again(body: Stmt, roles: Roles, columns: int, target: Target) -> float:
    """Cycles to read again what steps of the innermost outer loop see, so many columns at a time,
    and lines of which fewer columns take a part."""
    read = slid_over(roles)
    if read is None or roles.row is None or not roles.outer:
        return 0
    around = roles.outer[-1]
    inner = [s for s in ir.statements(p.find(body, around.var).body) if isinstance(s, For)]
    together = lambda i, f: depends(i, sym(around.var)) and depends(i, sym(f.var))
    if not any(together(i, f) for i in read.args for f in inner):
        return 0
    size, width = operand_bytes(read), columns * read.value.dtype.bytes
    steps = prod(map(extent_of, roles.outer))
    seen = max(steps * span(read, {sym(f.var): extent_of(f) for f in inner}) - size, 0)
    parted = size * (max(LINE_BYTES / width, 1) - 1)
    return (seen * crowding(inner, roles, columns, target) + parted) / target.rate(size)


def crowding(inner: Sequence[For | None], roles: Roles, columns: int, target: Target) -> float:
    """Which part of what the loops of a step read, so many columns at a time, leaves the L1 cache
    before the next step: the more, the more of it they read and store. Lines in equal steps share
    few of its sets. 0 where nothing slides."""
    read = slid_over(roles)
    if read is None or roles.row is None:
        return 0
    sizes = {sym(f.var): extent_of(f) for f in inner if extent_of(f) > 1}
    each, column = read.value.dtype.bytes, sym(roles.column.var)
    held = span(read, sizes | {column: columns}) + extent_of(roles.row) * columns * each
    steps = [stride_of(read, v) for v in sizes if v is not column]
    apart = gcd(WAY, *(s.value * each for s in steps if s is not None and is_const(s)))
    full = held / target.caches[0] / min(max(columns * each, LINE_BYTES) / apart, 1)
    return full / (1 + full)


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
