"""Maps that take every n-th element along a row from the same operand, and turn what they read
(phases of a spread-out convolution, whose channels lie together, joined in rows).

    for c: for w: y[c, w] = a[w // 2, c] if w % 2 < 1 else b[w // 2, c]
->  for co: for wo: for l in vector(16): for i in unroll(8): y[16 co + l, 8 wo + i] = ...

Vectors run along what lies together where it is read. Each step of a block that is written out
knows which operand it reads, and the block is turned in registers (`codegen/columns.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, Symbol, is_const, sym, walk
from tensorwright.ir.loop import Stmt, Store
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import affine, flat_index, is_near
from tensorwright.schedule.space import Choices

QUAD = 4  # elements that are turned together
LANES = (16, 8, 4)
MOST_STEPS = 16  # of a block
NEW_BLOCK = 0.5  # what a block costs, in turned quads


@dataclass(frozen=True)
class Interleaved:
    """last: the loop along which operands take turns; along: the one along which all of them lie in
    memory; lanes: of vectors that divide it; blocks: numbers of steps of `last`, each a number of
    whole turns that divides it."""

    last: Symbol
    along: Symbol
    lanes: int
    blocks: tuple[int, ...]


def interleaved(body: Stmt, loops: list[Symbol], widest: int) -> Interleaved | None:
    """How a map reads operands that take turns and lie along another loop; None where it does not
    or nothing divides its loops."""
    last, store = p.find(body, loops[-1]), p.find(body, loops[-1]).body
    if not isinstance(store, Store) or store.buffer.dtype.bytes != 4 or not is_const(last.extent):
        return None
    period = period_of(last.var, store.value)
    along = next((v for v in loops[:-1] if lies_along(v, last.var, store)), None)
    if period == 1 or along is None or not is_const(p.find(body, along).extent):
        return None
    length, size = last.extent.value, p.find(body, along).extent.value
    blocks = [n for n in range(QUAD, MOST_STEPS + 1) if n % period == 0 and length % n == 0]
    lanes = next((n for n in LANES if n <= widest and size % n == 0), None)
    return Interleaved(last.var, along, lanes, tuple(blocks)) if lanes and blocks else None


def period_of(v: Symbol, value: Expr) -> int:
    """The number by which every division of a loop's variable divides; 1 if there is none such."""
    divided = [e for e in walk(value) if e.op in ("floordiv", "mod") and sym(v) in walk(e)]
    by = {e.args[1] for e in divided}
    alone = all(e.args[0] is sym(v) for e in divided)
    return by.pop().value if alone and len(by) == 1 and all(map(is_const, by)) else 1


def lies_along(v: Symbol, last: Symbol, store: Store) -> bool:
    """Whether a step of `v` is the next element of all that changes along `last` where it is read,
    and of nothing that is written."""
    written = affine(flat_index(store.buffer, store.indices), sym(v))
    flats = [(e, flat_index(e.value, e.args)) for e in ir.loads(store)]
    turned = [affine(flat, sym(v)) for _, flat in flats if sym(last) in walk(flat)]
    others = [affine(flat, sym(v)) for _, flat in flats if sym(last) not in walk(flat)]
    known = all(a is not None and is_const(a) for a in (written, *turned, *others))
    return (known and bool(turned) and written.value > 1 and all(a.value == 1 for a in turned)
            and all(map(is_near, others)))  # fmt: skip


def in_blocks(
    body: Stmt, loops: list[Symbol], found: Interleaved, choices: Choices
) -> tuple[Stmt, list[Symbol]]:
    """The map in blocks, and the loops around them."""

    def quads(n: int) -> float:
        return (-(-n // QUAD) + NEW_BLOCK) / n

    block = choices.pick("block", found.blocks, quads)
    body, steps, step = p.split(body, found.last, block)
    body, vectors, lane = p.split(body, found.along, found.lanes)
    others = [v for v in loops if v not in (found.last, found.along)]
    body = p.reorder(body, [*others, vectors, steps, lane, step])
    return p.set_kind(p.set_kind(body, lane, "vector"), step, "unroll"), [*others, vectors]
