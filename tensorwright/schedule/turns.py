"""Weights that a loop reads in each step, read from the other end in every second one.

    for jo in 32: ... w[jo]   ->   for jo in 32: at = 31 - jo if turn % 2 else jo; ... w[at]

Weights larger than the L2 cache, read from their beginning each time, are never there: by the time
a step comes to a part of them, what it read since has driven that out. Begun where the last step
ended, a step finds there what that read last. (In C, one row by 512x2048 122 -> 138 GB/s, by
384x1536 115 -> 151, by 256x1024 168 -> 203; an LSTM of 512 12.9 -> 10.2 ms; 1 core of a Zen 5.)
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Expr, ceildiv, is_const, minimum, sym
from tensorwright.ir.loop import For, Kernel, Let, Stmt, loop_symbol, seq
from tensorwright.ir.type import TensorType
from tensorwright.schedule.space import Choices
from tensorwright.schedule.streams import size
from tensorwright.target.target import Target


def leaves_cache(type_: TensorType, target: Target) -> bool:
    """Whether threads that share a tensor of known shape read more of it than the half of their L2
    caches holds, which other data leave it."""
    known = isinstance(type_, TensorType) and type_.is_static and bool(target.caches)
    return known and type_.size * type_.dtype.bytes > kept_bytes(target)


def kept_bytes(target: Target) -> int:
    return target.cores * target.caches[1] // 2


def seen_in_turns(k: Kernel, target: Target) -> Target:
    """The target as it is for a kernel that a loop calls: what the last cache holds is read from
    there, not from memory."""
    known = (size(b) for b in k.inputs if all(isinstance(d, int) for d in b.shape))
    if k.turn is None or max(known, default=0) > target.caches[-1]:
        return target
    return replace(target, memory_rate=target.l3_rate)


def read_in_turns(k: Kernel, target: Target, choices: Choices) -> Kernel:
    """The kernel with its outermost loop, whose iterations are independent, backwards in every
    second call: each thread its own part, so that it keeps what it has."""
    if k.turn is None or not isinstance(k.body, For) or not is_const(k.body.begin, 0):
        return k
    kept = kept_bytes(target)
    cycles = {"forward": kept / target.l3_rate, "alternating": kept / target.l2_rate}
    if choices.pick("turns", cycles, cycles.get) == "forward":
        return k
    return k.with_body(alternating(k.body, sym(k.turn), target.cores), "alternating turns")


def alternating(s: For, turn: Expr, parts: int) -> Stmt:
    """The loop with each of so many parts backwards where `turn` is odd."""
    v, size = sym(s.var), ceildiv(s.extent, parts)
    first = v // size * size
    back = first + minimum(first + size, s.extent) - 1 - v
    at = loop_symbol(f"{s.var.name}_turned", s.begin, s.extent)
    body = ir.substitute(s.body, {v: sym(at)})
    return For(s.var, s.begin, s.extent, seq(Let(at, v + turn % 2 * (back - v)), body), s.kind)
