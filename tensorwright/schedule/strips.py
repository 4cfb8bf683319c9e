"""Contractions one behind the other, strip by strip (`chain.py`), each on register tiles.

    for strip in parallel:  border;  t' = f(x u) on register tiles;  y = t' w on register tiles

How many strips there are is weighed: few compute little twice, and all threads should have as many
of them. All that are considered stay in the L2 cache. Fusion asks whether the best of them takes
less than it saves; here it is made whatever it takes.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Symbol, as_expr
from tensorwright.ir.loop import For, Kernel, Stmt
from tensorwright.schedule import primitives as p
from tensorwright.schedule.attention import outline
from tensorwright.schedule.chain import Chain, Link, Strips, least_bytes
from tensorwright.schedule.contraction import is_rolled, on_tiles, plan_contraction
from tensorwright.schedule.form import Form
from tensorwright.schedule.maps import in_parallel, share
from tensorwright.schedule.nest import read_nest
from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import cycles_of
from tensorwright.target.target import Target

BEGINNING = 500  # cycles, of a strip
UNEVEN = 0.1  # of a strip, by which some threads end later than others
SHOWN = 0.65  # of the time to store and load again what leaves the L2 cache


def leaves_cache(size: int, target: Target) -> bool:
    """Whether so many bytes between two contractions do not stay in an L2 cache."""
    return size >= target.caches[1]


def pays(chain: Chain, target: Target) -> bool:
    """Whether strips take less time than the contractions one after the other, the threads of which
    begin and wait as well."""
    sizes, held = [least_bytes(b) for b in chain.between], target.caches[1]
    if not all(leaves_cache(n, target) for n in sizes) or chain.weights > held // 8:
        return False
    saved = sum(2 * (n - held) / target.rate(n) for n in sizes) * SHOWN
    return any(lost(s, chain, target) < saved for s in chain.strips if stays_near(s, target))


def stays_near(s: Strips, target: Target) -> bool:
    """Whether what lies between the contractions stays in the L2 cache, beside their weights."""
    return s.kept <= target.caches[1] * 7 // 8


def lost(s: Strips, chain: Chain, target: Target) -> float:
    """Cycles of all cores, for products computed again and where some have a strip less to do."""
    idle = -s.count % target.cores
    return cycles_of(s.again, target) + idle * cycles_of(chain.work, target) / s.count


def cycles(s: Strips, chain: Chain, target: Target) -> float:
    """The same, with what is lost at the beginning and the end of strips."""
    waiting = UNEVEN * cycles_of(chain.work, target) / s.count
    return lost(s, chain, target) + waiting + BEGINNING * s.count


def schedule_chain(form: Form, target: Target, choices: Choices) -> Kernel:
    """The kernel in strips, one task each."""
    chain = form.chain
    near = [s for s in chain.strips if stays_near(s, target)]
    found = {s.count: s for s in near or [min(chain.strips, key=lambda s: s.kept)]}
    best = found[choices.pick("strips", found, lambda n: cycles(found[n], chain, target))]
    of = " of each image" if best.images else ""
    k = form.kernel.with_body(best.body, f"chain of {len(chain.links)} in {best.each} strips{of}")
    for n, (x, v) in enumerate(zip(chain.links, best.nests)):
        k = contract(k, x, v, target, choices.within(f"part{n}"))
    body = vectors_along(k.body, target)
    tasks = [*best.images, best.strip]
    if not in_parallel(as_expr(chain.work), choices, cycles_of(1, target)):
        for v in tasks:
            body = p.set_kind(body, v, "serial")
    return replace(k, body=share(body, tasks, choices))


def contract(k: Kernel, x: Link, v: Symbol, target: Target, choices: Choices) -> Kernel:
    """The kernel with the contraction below loop `v` on register tiles, a function of its own."""
    nest = p.find(k.body, v)
    stage = read_nest(nest)
    plan = plan_contraction(k, stage, target, choices)
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
