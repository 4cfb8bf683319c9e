"""Reductions of a few elements each (windows, short rows), with the maps around them.

    for i: y[i] = -inf; for r in 3: y[i] = max(y[i], x[2 i + r - 1] if 1 <= 2 i + r else -inf)
->  for i in 1: ...; for io: for l in vector(16): acc[l] = max(acc[l], x[2 (16 io + l) + ...])

Such rows are too short for vectors of their own, so vectors run along the last axis of the result,
whose neighbours read neighbours or every second, third, fourth element. The loop along it is cut
where a window leaves what it slides over, so that vectors test nothing.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product as combinations

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Symbol, const, is_const, sym
from tensorwright.ir.loop import Alloc, For, Kernel, Stmt, loop_symbol, seq
from tensorwright.ir.simplify import linear
from tensorwright.schedule import primitives as p
from tensorwright.schedule.form import Form
from tensorwright.schedule.maps import (
    choose_cuts,
    choose_lanes,
    conditions,
    first_turn,
    in_parallel,
    share,
    total,
    whole_vectors,
)
from tensorwright.schedule.nest import Stage
from tensorwright.schedule.rows import shrink
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

FEW_PARTS = 8  # of the loop along which vectors run


def schedule_windows(form: Form, target: Target, choices: Choices) -> Kernel:
    """One nest over the results: their reductions in registers, unrolled, then the maps."""
    k, first = form.kernel, form.stages[0]
    shared = [loop_symbol(f.var.name, const(0), f.extent) for f in first.spatial]
    body = seq(*(at_result(s, shared) for s in form.stages))
    for v, f in reversed(list(zip(shared, first.spatial))):
        body = For(v, const(0), f.extent, body)
    body, private = shrink(body, [Alloc(b) for b in temps(form)], len(shared))
    front = seq(*(Alloc(b) for b in private))
    body = p.replace_loop(body, shared[-1], lambda s: replace(s, body=seq(front, s.body)))
    parallel = in_parallel(total([*first.spatial, *first.reduce]), choices)
    if parallel:
        for v in shared:
            body = p.set_kind(body, v, "parallel")
    innermost = p.find(body, shared[-1])
    lanes = choose_lanes(body, innermost.extent, target, choices, decoding=0)
    points = choose_cuts(innermost, turning_points(innermost), choices)
    body, parts = p.cut(p.set_kind(body, shared[-1], "serial"), shared[-1], points)
    for v in parts:
        body = whole_vectors(body, v, lanes)
    if parallel and len(shared) > 1:
        body = share(body, shared[:-1], choices)
    return k.with_body(body, f"windows: vectors of {lanes}, in {len(parts)} parts")


def temps(form: Form) -> list:
    return [s.out for s in form.stages if s.out.scope == "temp"]


def at_result(s: Stage, shared: list[Symbol]) -> Stmt:
    """What a stage does for one result, its reduction in a private scalar and unrolled."""
    root = s.root
    if not s.is_map and s.acc is s.out:
        root = p.cache_write(root, s.init)
    for f in s.reduce:
        root = p.set_kind(root, f.var, "unroll")
    for v in shared:
        root = ir.substitute(root.body, {sym(root.var): sym(v)})
    return root


def turning_points(s: For) -> list[int]:
    """Where along a loop a condition on it and on unrolled loops inside turns, for some of their
    iterations. None if the loop has no constant length, or if they are many."""
    if not is_const(s.extent):
        return []
    v, found = sym(s.var), set()
    unrolled = {sym(x.var): x for x in ir.statements(s) if isinstance(x, For)}
    for c in conditions(s):
        terms, constant = linear(c.args[1] - c.args[0])  # 0 < this, or 0 <= it
        step = terms.pop(v, 0)
        if step == 0 or any(t not in unrolled or not is_const(unrolled[t].extent) for t in terms):
            continue
        for at in combinations(*(range(unrolled[t].extent.value) for t in terms)):
            rest = constant + sum(a * b for a, b in zip(at, terms.values()))
            found.add(first_turn(step, rest - (c.op == "lt")))
    inner = sorted(at for at in found if 0 < at < s.extent.value)
    return inner if len(inner) < FEW_PARTS else []
