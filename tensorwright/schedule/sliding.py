"""Windows that slide over vectors of channels (depthwise convolutions), and what they see again.

    for i: for j: y[i, j, c] = sum x[i + r, j + s, c] * w[r, s, c]

Along a row, a vector of x serves neighbouring results from a register: the window is written out.
What the next row of results sees again comes from the L1 cache if little else is read meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd, prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, is_const, sym
from tensorwright.ir.loop import For, Stmt
from tensorwright.ir.type import Dim
from tensorwright.schedule import primitives as p
from tensorwright.schedule.maps import LINE_BYTES, SET_BYTES
from tensorwright.schedule.nest import Stage, affine, depends, extent_of, operand_bytes, stride_of
from tensorwright.schedule.pairs import uncast
from tensorwright.schedule.roles import Roles
from tensorwright.target.target import Target

NEARER, BANKED, BANKS = 0.9, 1.2, 1024  # times what lines cost that are read one after another:
# those of a panel, and those of a panel so many bytes apart, which few banks of the L2 cache give
# (3x3, 1 core of a Zen 5: 28 x 28 x 128 row by row 13.3 us, panel by panel 11.6; 14 x 14 x 256 7.3
# and 8.6, x 512 20 and 27)
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


@dataclass(frozen=True)
class Slid:
    """What a step of the innermost outer loop touches, where the next one sees some of it again:
    elements of `size` bytes, so many `read` and `stored` for each column, in lines that are a
    multiple of `apart` bytes from each other."""

    size: int
    read: int
    stored: int
    apart: int

    def crowding(self, columns: int, target: Target) -> float:
        """Which part of it leaves the L1 cache before the next step, so many columns at a time: the
        more, the more there is of it. Lines in equal steps share few of its sets."""
        width = columns * self.size
        held = target.caches[0] * min(max(width, LINE_BYTES) / self.apart, 1)
        full = (self.read + self.stored) * width / held
        return full / (1 + full)


def slid_by(roles: Roles, inner: Iterable[For]) -> Slid | None:
    """The same of the loops inside of a step."""
    read = slid_over(roles)
    if read is None or roles.row is None or not roles.outer:
        return None
    around, column = sym(roles.outer[-1].var), sym(roles.column.var)
    loops = {sym(f.var): f for f in inner if extent_of(f) > 1 and f.var is not roles.column.var}
    if not any(depends(i, around) and depends(i, v) for i in read.args for v in loops):
        return None
    places = [(i, d) for i, d in zip(read.args, read.value.shape) if not depends(i, column)]
    size, steps = read.value.dtype.bytes, [stride_of(read, v) for v in loops]
    apart = gcd(SET_BYTES, *(s.value * size for s in steps if s is not None and is_const(s)))
    return Slid(size, prod(reach(i, loops, d) for i, d in places), extent_of(roles.row), apart)


def reach(i: Expr, loops: Mapping[Expr, For], size: Dim) -> int:
    """How many elements of a dimension lie between the first and the last that loops touch."""
    moves = {v: affine(i, v) for v in loops if depends(i, v)}
    if all(m is not None and is_const(m) for m in moves.values()):
        return 1 + sum(abs(m.value) * (extent_of(loops[v]) - 1) for v, m in moves.items())
    return size if isinstance(size, int) else 1


def seen_again(body: Stmt, roles: Roles, columns: int, target: Target) -> float:
    """Cycles to read again what steps of the innermost outer loop see, so many columns at a time,
    and lines of which fewer columns take a part."""
    if not roles.outer:
        return 0
    inner = ir.statements(p.find(body, roles.outer[-1].var).body)
    slid = slid_by(roles, [s for s in inner if isinstance(s, For)])
    if slid is None:
        return 0
    size, steps = operand_bytes(roles.other), prod(map(extent_of, roles.outer))
    read = steps * slid.read * extent_of(roles.column) * slid.size
    seen = max(read - size, 0) * slid.crowding(columns, target)
    if columns < extent_of(roles.column):
        seen *= NEARER if slid.apart < BANKS else BANKED
        seen += size * (max(LINE_BYTES / (columns * slid.size), 1) - 1)  # parts of lines
    return seen / target.rate(size)
