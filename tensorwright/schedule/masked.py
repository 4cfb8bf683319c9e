"""Keys that no row of a tile may look at: neither multiplied nor exponentiated.

    s = q k'; m = max(s[j] if j <= i + e else -inf); p = exp((s[j] if ...) - m); y = p v
->  scores of the first `last row + e + 1` keys; row i of its first i + e + 1; zeros up to where the
    others of the tile end; as many products with values

A key behind the limit has the weight exp(-inf - m), which is 0 unless the row has a NaN anyway; so
what is left out are products of 0 with values, which are supposed finite, as they are when a fused
attention of any library hides them. The limit may depend on sizes and offsets known when running.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import INTEGERS, index
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    as_expr,
    bounds,
    cast,
    ceildiv,
    compare,
    const,
    is_const,
    maximum,
    minimum,
    substitute,
    sym,
    transform,
    walk,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, For, Let, Seq, Stmt, Store, loop_symbol, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import Stage, depends, read_nest

SCORES = 64  # keys whose scores are computed together
STEP = 16  # keys that are multiplied together with values


@dataclass(frozen=True)
class Limit:
    """Row `place` may look at keys j <= place + ahead; `sure` if that is never none."""

    ahead: Expr
    sure: bool


def skip_masked(body: Stmt, parts: Sequence[For], place: Expr) -> Stmt:
    """`parts` are the loops over the rows of a tile: scores, softmax, products with values; `place`
    is the row of the second one. They run over the keys that rows may look at, if a comparison of
    positions says which."""
    scores, rows, values = parts
    made, used = read_nest(scores), read_nest(values)
    stages = [read_nest(s) for s in statements_of(rows)]
    if None in (made, used, *stages) or not used.reduce or not is_masked_softmax(stages):
        return body
    keys = made.spatial[-1].extent
    if any(key_loop(s).extent is not keys for s in stages) or used.reduce[-1].extent is not keys:
        return body
    limits = [limit_of(s, sym(rows.var), place) for s in stages[:2]]
    if None in limits or limits[0] != limits[1]:
        return body
    last = substitute(place, {sym(rows.var): rows.extent - 1})
    seen = named("seen", minimum(maximum(last + limits[0].ahead + 1, 1), keys))
    scored = named("scored", steps(sym(seen.var), keys, SCORES))
    weighed = named("weighed", steps(sym(seen.var), keys, STEP))
    own = named("own", minimum(maximum(place + limits[0].ahead + 1, 1), keys))
    end = extent(weighed, keys, STEP)
    for s, n in ((made.spatial[-1], extent(scored, keys, SCORES)), (used.reduce[-1], end),
                 *((key_loop(s), sym(own.var)) for s in stages)):  # fmt: skip
        body = p.replace_loop(body, s.var, lambda f, n=n: replace(f, extent=n))
    inner = p.find(body, rows.var).body
    if limits[0].sure:
        inner = without_condition(inner, limits[0], place)
    weights = [s for s in stages if s.is_map][-1]
    inner = seq(own, inner, zeros(weights, sym(own.var), end))
    body = p.replace_loop(body, rows.var, lambda s: replace(s, body=inner))
    first = p.find(body, scores.var)

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq) and first in s.body:
            return seq(seen, scored, weighed, s)
        return None

    return ir.rewrite(body, visit)


def named(name: str, value: Expr) -> Let:
    """A number that several loops end at."""
    return Let(Symbol(name, *bounds(value)), value)


def steps(n: Expr, keys: Expr, step: int) -> Expr:
    """Steps that hold `n` keys."""
    return minimum(ceildiv(n, step), ceildiv(keys, step))


def extent(count: Let, keys: Expr, step: int) -> Expr:
    """Keys in so many steps, the last of which may be shorter."""
    n = sym(count.var) * step
    return n if is_const(keys % step, 0) else minimum(n, keys)


def statements_of(s: For) -> list[Stmt]:
    """The nests in a loop, but for numbers that are stored between them."""
    parts = s.body.body if isinstance(s.body, Seq) else (s.body,)
    return [x for x in parts if not isinstance(x, Alloc | Store)]


def key_loop(s: Stage) -> For:
    return s.spatial[-1] if s.is_map else s.reduce[-1]


def zeros(s: Stage, begin: Expr, end: Expr) -> For:
    """Weights of the keys that the row does not see and others of its tile do."""
    v = loop_symbol("z", begin, end - begin)
    at = tuple(substitute(i, {sym(key_loop(s).var): sym(v)}) for i in s.final.indices)
    return For(v, begin, end - begin, Store(s.out, at, const(0, s.out.dtype)))


# ---- what is recognised ------------------------------------------------------------------------


def is_masked_softmax(stages: Sequence[Stage]) -> bool:
    """Max, exponentials, sum, and maps of these that give 0 for 0."""
    if len(stages) < 3 or any(not (s.spatial if s.is_map else s.reduce) for s in stages):
        return False
    top, powers, total, *rest = stages
    kinds = [s if s.is_map else ir.update(s.step)[0] for s in (top, powers, total)]
    if kinds != ["max", powers, "add"] or power(powers).op != "exp":
        return False
    if power(powers).args[0].op != "sub":
        return False
    made = powers
    for s in (total, *rest):
        if s is not total and not s.is_map:
            return False
        value = ir.update(s.step)[1] if s is total else s.final.value
        if not is_zero_at_zero(value, made, sym(key_loop(s).var)):
            return False
        made = s if s.is_map else made
    return True


def power(s: Stage) -> Expr:
    """What a map stores, before it is rounded."""
    e = s.final.value
    return e.args[0] if e.op == "call" and e.value == "round_bf16" else e


def is_zero_at_zero(e: Expr, made: Stage, j: Expr) -> bool:
    """Whether an expression is 0 where the element of `made` is, by which alone it depends on j."""
    if e.op == "load":
        return e.value is made.out and depends(e, j)
    if e.op == "cast" or (e.op == "call" and e.value == "round_bf16"):
        return is_zero_at_zero(e.args[0], made, j)
    if e.op == "mul":
        a, b = e.args if depends(e.args[0], j) else e.args[::-1]
        return not depends(b, j) and is_zero_at_zero(a, made, j)
    if e.op == "div":
        return not depends(e.args[1], j) and is_zero_at_zero(e.args[0], made, j)
    if e.op == "select":
        c, a, b = e.args
        return not depends(c, j) and is_const(a, 0) and is_zero_at_zero(b, made, j)
    return False


def limit_of(s: Stage, row: Expr, place: Expr) -> Limit | None:
    """Up to which key an element of the stage is not that of a masked one."""
    value = power(s).args[0].args[0] if s.is_map else ir.update(s.step)[1]
    while value.op == "cast":
        value = value.args[0]
    if not is_choice(value):
        return None
    return limit_in(value.args[0], sym(key_loop(s).var), row, place)


def is_choice(e: Expr) -> bool:
    return e.op == "select" and is_const(e.args[2]) and e.args[2].value == -math.inf


def limit_in(cond: Expr, j: Expr, row: Expr, place: Expr) -> Limit | None:
    """The limit that the condition j <= place + ahead says, alone or among others."""
    if cond.op == "and":
        found = [x for x in (limit_in(c, j, row, place) for c in cond.args) if x is not None]
        return replace(found[0], sure=False) if found else None
    a, b = (as_index(e) for e in cond.args) if cond.op == "le" else (None, None)
    if a is None or b is None:
        return None
    ahead = b - a + j - place
    if depends(ahead, j) or depends(ahead, row):
        return None
    if any(e.op == "load" and e.value.scope != "param" for e in walk(ahead)):
        return None
    return Limit(ahead, is_const(compare("le", const(0), ahead), True))


def as_index(e: Expr) -> Expr | None:
    """Integer arithmetic on indices, as index arithmetic."""
    if e.dtype is index:
        return e
    if e.dtype not in INTEGERS:
        return None
    if e.op == "const":
        return as_expr(int(e.value))
    if e.op == "load":
        return cast(e, index)
    if e.op == "cast":
        return as_index(e.args[0])
    if e.op in ("add", "sub"):
        a, b = (as_index(x) for x in e.args)
        if a is None or b is None:
            return None
        return a + b if e.op == "add" else a - b
    return None


def without_condition(body: Stmt, limit: Limit, place: Expr) -> Stmt:
    """`body` with what is chosen below the limit, where all loops end."""

    def leaf(e: Expr) -> Expr | None:
        if is_choice(e):
            a, b = (as_index(x) for x in e.args[0].args) if e.args[0].op == "le" else (None, None)
            if a is not None and b is not None and a - b + limit.ahead + place in found:
                return e.args[1]
        return None

    found = {sym(f.var) for f in ir.statements(body) if isinstance(f, For)}
    return ir.map_expressions(body, lambda e: transform(e, leaf))
