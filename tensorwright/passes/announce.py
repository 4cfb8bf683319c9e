"""Tell kernels what the program reads after them, so that they ask for it in time.

    dense(x, w1, y)   ->   announce(w2, 98304)
    dense(y, w2, z)        dense(x, w1, y)
                           announce(w1, 98304)
                           dense(y, w2, z)

A kernel asks for the panel that follows the one that it multiplies (`schedule/ahead.py`); in its
last panel, for the first one of the next kernel that reads many weights, in each thread for that
from which this thread will begin there. The last kernel asks for what the next call of the program
reads first. (Products of 64 rows by 384x384 from memory 237 -> 254 GFLOP/s; 1 core of a Zen 5.)
"""

from __future__ import annotations

import math
from dataclasses import replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, Symbol, symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Announce, Call, For, If, Kernel, Let, Prefetch, Seq, Stmt, View
from tensorwright.ir.reads import loads_in
from tensorwright.ir.type import product
from tensorwright.memory.plan import USUAL
from tensorwright.schedule.nest import flat_index
from tensorwright.target.target import Target


def announce(f: Kernel, kernels: dict[str, Kernel], target: Target) -> Kernel:
    """A host function that announces to kernels that ask for it what those after them read."""
    return replace(f, body=ir.rewrite(f.body, lambda s: _block(s, kernels, target)))


def _block(s: Stmt, kernels: dict[str, Kernel], target: Target) -> Stmt | None:
    """The statements of a block; what runs again, or is called again, begins with its first."""
    if not isinstance(s, Seq):
        return None
    calls = [c for c in s.body if isinstance(c, Call) and c.callee in kernels]
    bases = {v.buffer: v.base for v in s.body if isinstance(v, View)}
    read = {c: found for c in calls if (found := large_constant(c, bases, target))}
    if not read:
        return None
    before: dict[Call, Announce] = {}
    following = next(iter(read))
    for c in reversed(calls):
        if asks(kernels[c.callee]):
            position, b = read[following]
            stride = distance(kernels[following.callee], position, target.cores)
            before[c] = Announce(b, stride * b.dtype.bytes)
        following = c if c in read else following
    return ir.seq(*(part for c in s.body for part in (before.get(c), c)))


def asks(k: Kernel) -> bool:
    """Whether a kernel asks for what the program has announced."""
    return any(isinstance(s, Prefetch) and s.beyond for s in ir.statements(k.body))


def large_constant(
    c: Call, bases: dict[Buffer, Buffer], target: Target
) -> tuple[int, Buffer] | None:
    """The largest constant that a call reads, with its position, if it leaves the L1 cache."""
    sizes = {}
    for k, b in enumerate(c.buffers):
        b = bases.get(b, b)
        if b.scope == "const":
            sizes[k, b] = product(b.shape) * b.dtype.bytes
    most = max(sizes, key=sizes.get, default=None)
    return most if most and target.caches and sizes[most] > target.caches[0] else None


def distance(k: Kernel, position: int, threads: int) -> int:
    """How many elements of a parameter lie between where two threads begin to read it; 0 if both
    begin at the same one, or that is not known before the kernel runs. (The number of rows does not
    matter as long as they are many.)"""
    b, sizes = k.params[position], dict.fromkeys(k.symbols, USUAL)
    first, second = (first_read(k.body, b, dict(sizes), n / threads) for n in (0, 1))
    return 0 if first is None or second is None else max(0, second - first)


def first_read(s: Stmt, b: Buffer, values: dict[Symbol, int], share: float) -> int | None:
    """Which element of `b` a thread reads first that runs parallel loops from this share of their
    iterations on; None if it reads none, or one that other data tell."""
    match s:
        case Seq(body=body):
            for part in body:
                found = first_read(part, b, values, share)
                if found is not None:
                    return found
            return None
        case Prefetch():
            return None
        case Let(var=v, value=value):
            values[v] = known(value, values)
        case For(var=v, begin=begin, extent=extent, kind=kind):
            begin, extent = known(begin, values), known(extent, values)
            if kind == "parallel" and None not in (begin, extent):
                begin, share = begin + math.ceil(extent * share), 0
            values[v] = begin
            return first_read(s.body, b, values, share)
        case If(cond=cond, then=then, orelse=orelse):
            arm = orelse if known(cond, values) == 0 else then
            return arm and first_read(arm, b, values, share)
    read = next((e for e in loads_in(*ir.expressions(s)) if e.value is b), None)
    return None if read is None else known(flat_index(b, read.args), values)


def known(e: Expr, values: dict[Symbol, int | None]) -> int | None:
    """The value of an expression, if it does not hang on data or on sizes that are not known."""
    unknown = loads_in(e) or any(values.get(v) is None for v in symbols_of(e))
    return None if unknown else evaluate(e, values)
