"""Contractions of bf16 by instructions that multiply pairs and add both products in f32.

    for k: acc = fma(cast(x[i, k], f32), cast(w[k, j], f32), acc)
->  for k in n // 2: acc = call("dot_bf16", f32, acc, w[k, j], join(x[i, 2 * k], x[i, 2 * k + 1]))
    for k in n % 2:  acc = call("dot_bf16", f32, acc, w[n // 2, j], join(x[i, n - 1], 0))

w comes packed in words of two neighbours along k, an odd one joined to zeros; where the other
operand's neighbours lie side by side, `join` is one load. The semantics are those of the nest, in
another order of summation; like the instruction they take numbers below the normal range for 0.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import bf16, f32
from tensorwright.ir.expr import Buffer, Expr, as_expr, call, const, is_const, join, sym, transform
from tensorwright.ir.loop import For, Kernel, Pack, Stmt, Store, loop_symbol, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.nest import Stage, depends
from tensorwright.schedule.roles import Roles, packed_buffer, packed_index, reduction_order
from tensorwright.target.target import Target


def pair_variable(stage: Stage, roles: Roles, target: Target) -> Expr | None:
    """The reduction variable along which pairs are multiplied; None where the target has no such
    instruction, or the nest is of another form."""
    value = stage.step.value
    if "bf16" not in target.dots or roles.other is None:
        return None
    if not roles.broadcast and roles.run == 1:  # nor groups of columns that see the same pairs
        return None
    sides = [uncast(roles.weights), uncast(roles.other)]
    if value.dtype is not f32 or any(e.op != "load" or e.dtype is not bf16 for e in sides):
        return None
    if not stage.reduce:
        return None
    r = reduction_order(stage, roles)[-1]
    loop = next(f for f in stage.reduce if sym(f.var) is r)
    weights, other = sides
    if not is_const(loop.begin, 0) or not depends(other, r) or is_const(loop.extent, 1):
        return None
    own = [i for i in weights.args if depends(i, r)]
    if len(own) != 1 or (own[0] is not r and not is_const(loop.extent % 2, 0)):
        return None
    first = own[0] - r  # where pairs begin: an even place
    return r if not depends(first, r) and is_const(first % 2, 0) else None


def pack_pairs(k: Kernel, stage: Stage, roles: Roles, pairs: Expr, pack: Pack) -> Kernel:
    """The kernel with a contraction in pairs, its streamed parameter provided in words."""
    old = k.params[pack.param]
    new = packed_buffer(old, pack)
    body = multiply_pairs(k.body, pairs, roles, new, pack)
    params = tuple(new if b is old else b for b in k.params)
    return replace(k, body=body, params=params, packs=(*k.packs, pack))


def uncast(e: Expr) -> Expr:
    while e.op == "cast":
        e = e.args[0]
    return e


def multiply_pairs(body: Stmt, r: Expr, roles: Roles, new: Buffer, pack: Pack) -> Stmt:
    """The nest with the loop over `r` in steps of two, reading words of the packed operand `new`.
    Legal for a loop of a reduction as `pair_variable` finds it, around nothing but the window that
    slides."""
    loop = p.find(body, r.value)
    window = loop.body if isinstance(loop.body, For) else None
    step = loop.body if window is None else window.body
    weights, other = uncast(roles.weights), uncast(roles.other)
    acc = step.buffer[step.indices]

    # What is spread comes last, where it may come from memory: 98 instead of 74 % of the peak
    # where each is multiplied once (Zen 4).
    def product(left: Expr, word: Expr) -> Stmt:
        at = tuple((i - r) // 2 + word if depends(i, r) else i for i in weights.args)
        made = Store(step.buffer, step.indices, call("dot_bf16", f32, (
            acc, new[packed_index(at, pack)], left)))  # fmt: skip
        return made if window is None else replace(window, body=made)

    def side(at: Expr) -> Expr:
        return transform(other, {r: as_expr(at)}.get)

    whole, rest = loop.extent // 2, loop.extent % 2
    parts: list[Stmt] = []
    k = loop_symbol(f"{r.value.name}p", const(0), whole)
    pair = join(side(sym(k) * 2), side(sym(k) * 2 + 1))
    parts.append(For(k, const(0), whole, product(pair, sym(k))))
    odd = product(join(side(loop.extent - 1), const(0, bf16)), whole)
    if is_const(rest, 1):
        parts.append(odd)
    elif not is_const(rest):
        parts.append(ir.loop("odd", rest, lambda _: odd))
    return p.replace_loop(body, r.value, lambda _: seq(*parts))
