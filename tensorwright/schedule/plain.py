"""Kernels that have no form: as their definition says, on threads and vectors where that is plain.

for i: y[i] = x[i]                            a map like any other
for u: for j: y[at[u], j] = e[u, j]           vectors along j, the rows that an update writes
for b: { found = 0; for l in 32: found = max(found, e[l]); if found > 0: ... }
                                              the short sum in vectors
"""

from __future__ import annotations

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import is_const, sym, walk
from tensorwright.ir.loop import For, If, Kernel, Seq, Stmt, Store, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import why_not_parallel
from tensorwright.schedule.maps import (
    PARALLEL_WORK,
    iterations,
    lanes_for,
    schedule_map,
    vectorize_innermost,
)
from tensorwright.schedule.nest import accesses, affine, read_nest, runs_along
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target


def schedule_plain(
    k: Kernel, target: Target, choices: Choices, trace: str = "as defined"
) -> Kernel:
    """Run outermost loops in parallel where their iterations are independent and many."""
    nests = (part(k, s, target, choices.within(f"nest{n}")) for n, s in enumerate(parts(k.body)))
    return k.with_body(seq(*nests), trace)


def parts(s: Stmt) -> list[Stmt]:
    """What follows each other, without loops of one step around several statements."""
    if isinstance(s, Seq):
        return [x for part in s.body for x in parts(part)]
    if isinstance(s, For) and is_const(s.extent, 1) and isinstance(s.body, Seq):
        return parts(ir.substitute(s.body, {sym(s.var): s.begin}))
    return [s]


def part(k: Kernel, s: Stmt, target: Target, choices: Choices) -> Stmt:
    if is_plain_map(s):
        return schedule_map(k.with_body(s), read_nest(s).spatial, target, choices).body
    if isinstance(s, For) and iterations(s) >= PARALLEL_WORK and not why_not_parallel(s):
        s = p.set_kind(s, s.var, "parallel")
    return vectors_inside(reductions_inside(s, target), target)


def is_plain_map(s: Stmt) -> bool:
    """A nest of independent loops around a store, all places of which are known beforehand."""
    nest = read_nest(s) if isinstance(s, For) else None
    if nest is None or not nest.is_map or any(map(why_not_parallel, nest.spatial)):
        return False
    places = [*nest.final.indices, *(i for e in ir.loads(s) for i in e.args)]
    return not any(e.op == "load" for e in walk(*places))


def reductions_inside(s: Stmt, target: Target) -> Stmt:
    """Reductions of a known number of neighbours to a value of the kernel's own, in vectors."""
    inside = [x for x in ir.statements(s) if isinstance(x, For)]
    for f in inside:
        lanes = lanes_for(f, target)
        if is_short_reduction(f) and 1 < lanes <= f.extent.value:
            s = p.rfactor(s, f.var, lanes)[0]
    return s


def is_short_reduction(f: For) -> bool:
    step = f.body
    if not is_const(f.extent) or not isinstance(step, Store) or ir.update(step) is None:
        return False
    return step.buffer.scope == "local" and not step.indices and runs_along(f)


def vectors_inside(s: Stmt, target: Target) -> Stmt:
    """Vectors for the innermost loop of a nest if its steps are independent and next to each other
    in memory: the rows that an update writes."""
    f = s
    while isinstance(f, (For, If)) and not (isinstance(f, For) and isinstance(f.body, Store)):
        if isinstance(f, If) and f.orelse is not None:
            return s
        f = f.body if isinstance(f, For) else f.then
    if not isinstance(f, For) or f.kind != "serial" or why_not_parallel(f):
        return s
    if not runs_along(f) or not is_const(affine(accesses(f)[-1], sym(f.var)), 1):
        return s
    return vectorize_innermost(s, f.var, target)[0]
