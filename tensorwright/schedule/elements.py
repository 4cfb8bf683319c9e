"""Products with one element of a vector, where the target multiplies so (NEON's FMLA by element).

    for k in n: acc[:] += x[i, k] * w[k, :]                       a load of x for every step
->  for ko in n // 4: { held[0:4] = x[i, ko * 4 :+ 4]             one vector for four
                        for ki in unroll(4): acc[:] += held[ki] * w[ko * 4 + ki, :] }
    for k in n % 4: as before

Several groups of four may be written out in a row, so that counting the loop costs less. The
registers of a tile then hold, beside its results and a row of weights, a vector of the other
operand for each row.
"""

from __future__ import annotations

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, Symbol, is_const, sym, transform
from tensorwright.ir.loop import Alloc, For, Stmt, Store, loop_symbol, seq
from tensorwright.schedule import legal
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import depends, is_near, loads_of, nest_of, stride_of
from tensorwright.schedule.roles import Tile
from tensorwright.schedule.space import Choices

GROUPS = (4, 2, 1)  # of as many steps as a vector has elements, that may be written out
REACH = 64  # vectors of weights that loads of two at a time reach from one pointer
COUNTING = 4  # instructions of a loop beside its work
UNKNOWN = 64  # steps, where their number varies
DECODING = 0.25  # cycles of an instruction


def hold(root: Stmt, v: Symbol, e: Expr) -> Stmt:
    """Compute what an unrolled loop's iterations need of an expression before the loop, on vectors
    along it: for v: .. e .. -> held[:] = e; for v: .. held[v] ..  Legal if the loop changes nothing
    that the expression reads."""
    s = p.find(root, v)
    for b in {x.value for x in loads_of(e)}:
        legal.check_not_stored(s, b)
    inside = [f for f in ir.statements(s.body) if isinstance(f, For) and depends(e, sym(f.var))]
    around = [*inside, s]  # vectors are the last axis
    held = Buffer("held", e.dtype, [f.extent.value for f in around], "local", 64)
    copies = [loop_symbol(f.var.name, f.begin, f.extent) for f in around]
    there = {sym(f.var): sym(c) for f, c in zip(around, copies)}
    places = tuple(sym(c) - f.begin for f, c in zip(around, copies))
    fill: Stmt = Store(held, places, transform(e, there.get))
    for f, c in zip(reversed(around), reversed(copies)):
        fill = For(c, f.begin, f.extent, fill, "vector" if f is s else "unroll")
    own = held[tuple(sym(f.var) - f.begin for f in around)]
    body = ir.map_expressions(s.body, lambda x: transform(x, lambda t: own if t is e else None))
    return p.replace_loop(root, v, lambda s: seq(Alloc(held), fill, ir.with_children(s, (body,))))


def element_loops(body: Stmt) -> list[For]:
    """The loops over steps of a product whose rows lie along these steps."""
    return [s for s in ir.statements(body) if isinstance(s, For) and broadcast_of(s) is not None]


def multiply_by_element(body: Stmt, found: list[For], tile: Tile, choices: Choices) -> Stmt:
    """These innermost loops of tiles in groups of as many steps as a vector has elements."""
    extent = found[0].extent
    n = extent.value if is_const(extent) else UNKNOWN
    groups = [tile.lanes * g for g in GROUPS]
    groups = [g for g in groups if g * tile.vectors <= REACH and g <= n]

    def cycles(group: int) -> float:
        """Beside multiply-adds and loads of weights. A step alone loads an element of every row."""
        if group == 1:
            return DECODING * n * (tile.rows + COUNTING)
        vectors = n // tile.lanes * tile.rows + n % tile.lanes * (tile.rows + COUNTING)
        return DECODING * (vectors + COUNTING * (n // group + n % group // tile.lanes))

    group = choices.pick("steps", [*groups, 1], cycles)
    for s in found if group > 1 else ():
        body = in_groups(body, s.var, group, tile.lanes)
    return body


def broadcast_of(s: For) -> Expr | None:
    """The operand that all lanes of a tile's vectors multiply with, in the loop over its steps: one
    that lies in a row along these steps."""
    inner: Stmt = s.body
    while isinstance(inner, For) and inner.kind in ("unroll", "vector"):
        lane, inner = inner, inner.body
    if s.kind != "serial" or not isinstance(inner, Store) or inner is s.body:
        return None
    reduced = ir.update(inner)
    if lane.kind != "vector" or reduced is None or reduced[0] != "fma":
        return None
    own = [e for e in inner.value.args[:2] if not depends(e, sym(lane.var))]
    if len(own) != 1 or not depends(own[0], sym(s.var)):
        return None
    steps = [stride_of(x, sym(s.var)) for x in loads_of(own[0])]
    return own[0] if steps and all(map(is_near, steps)) else None


def in_groups(body: Stmt, v: Symbol, group: int, lanes: int) -> Stmt:
    """One of these loops in groups; of what is left over, whole vectors first."""
    rest = p.find(body, v).extent % group
    if not is_const(rest, 0):
        body, v, left = p.partition(body, v, p.find(body, v).extent // group * group)
        if group > lanes and not (is_const(rest) and rest.value < lanes):
            body = in_groups(body, left, lanes, lanes)
    body, _, step = p.split(body, v, group)
    if group > lanes:
        body, _, step = p.split(p.set_kind(body, step, "unroll"), step, lanes)
    own = broadcast_of(p.find(body, step))
    body = p.set_kind(body, step, "unroll")
    around = [f.var for f in nest_of(p.find(body, step).body) if f.kind == "unroll"]
    if len(around) > 1:  # rows inside: few weights at a time
        body = p.reorder(body, around[::-1])
    return hold(body, step, own)
