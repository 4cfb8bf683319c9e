"""Contractions one behind the other, strip by strip (`chain.py`), each on register tiles.

    for strip in parallel:  border;  t' = f(x u) on register tiles;  y = t' w on register tiles

How many strips there are is weighed: few compute little twice, and all threads should have as many
of them. All that are considered stay in the L2 cache.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Symbol, as_expr
from tensorwright.ir.loop import For, Kernel, Stmt
from tensorwright.schedule import primitives as p
from tensorwright.schedule.attention import outline
from tensorwright.schedule.chain import Link, Strips, candidates, read_links
from tensorwright.schedule.contraction import cycles_of, is_rolled, on_tiles, plan_contraction
from tensorwright.schedule.form import Form
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.maps import in_parallel, share, total
from tensorwright.schedule.nest import read_nest
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

BEGINNING = 500  # cycles, of a strip
UNEVEN = 0.1  # of a strip, by which some threads end later than others


def schedule_chain(form: Form, target: Target, choices: Choices) -> Kernel:
    """The kernel in strips, one task each."""
    links = read_links(form.stages)
    work = sum(total([*x.stage.spatial, *x.stage.reduce]).value for x in links)
    found = {s.count: s for s in candidates(links)}
    best = found[choices.pick("strips", found, lambda n: cycles(found[n], work, target))]
    k = form.kernel.with_body(best.body, f"chain of {len(links)} in {best.count} strips")
    for n, (x, v) in enumerate(zip(links, best.nests)):
        k = contract(k, x, v, target, choices.within(f"part{n}"))
    body = vectors_along(k.body, target)
    if not in_parallel(as_expr(work), choices, cycles_of(1, target)):
        body = p.set_kind(body, best.strip, "serial")
    return replace(k, body=share(body, [best.strip], choices))


def cycles(s: Strips, work: int, target: Target) -> float:
    """What depends on the number of strips: products computed again, waiting for other threads."""
    idle = (-s.count % target.cores) / target.cores + UNEVEN
    waiting = cycles_of(work, target) * idle / s.count
    return cycles_of(s.again, target) + waiting + BEGINNING * s.count


def contract(k: Kernel, x: Link, v: Symbol, target: Target, choices: Choices) -> Kernel:
    """The kernel with the contraction below loop `v` on register tiles, a function of its own."""
    nest = p.find(k.body, v)
    stage = read_nest(nest)
    plan = plan_contraction(k, stage, target, choices)
    if plan is None:
        raise ScheduleError(f"the contraction below loop {v} is not one for register tiles")
    rolled = x.inside is not None and is_rolled(x.inside, choices)
    if rolled:
        nest = p.stage_result(nest, stage.out)
    k, done = on_tiles(k, nest, plan, target, choices)
    if rolled:
        done = p.roll(done, stage.out)
    return replace(k, body=p.replace_loop(k.body, v, lambda _: outline(done)))


def vectors_along(body: Stmt, target: Target) -> Stmt:
    """Borders in vectors along their last axis."""
    loops = [s for s in ir.statements(body) if isinstance(s, For) and is_border(s)]
    for s in loops:
        body, _ = p.vectorize(body, s.var, target.lanes(s.body.buffer.dtype))
    return body


def is_border(s: For) -> bool:
    return s.kind == "serial" and isinstance(s.body, ir.Store) and s.body.value.op == "const"
