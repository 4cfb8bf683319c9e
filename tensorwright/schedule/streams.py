"""Results that no cache holds: their whole vectors are stored past the caches.

    y[b * 16 + l] = x[b * 16 + l]        `y` as large as the last cache   ->   kernel.streams = (1,)

A store through the caches first reads the line that it is about to overwrite and later writes it
back: twice the traffic. Stored past them, a result is written once, but whoever reads it next reads
memory. So it is worth while for what would have left the caches by then anyway.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer
from tensorwright.ir.loop import Kernel
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target


def stream_results(k: Kernel, target: Target, choices: Choices) -> Kernel:
    """The kernel with the choice made for its results. What it reads again itself stays cached."""
    if not target.store_fence:
        return k
    read = {e.value for e in ir.loads(k.body)}
    first = len(k.params) - k.outputs
    written = [n for n, b in enumerate(k.results, first) if b not in read and is_far(b, target)]
    if not written:
        return k
    sizes = [size(k.params[n]) for n in written]
    last = target.caches[-1]
    cycles = {
        "cached": sum(n / (target.l3_rate if n < last else target.memory_rate / 2) for n in sizes),
        "past": sum((2 if n < last else 1) * n / target.memory_rate for n in sizes),
    }
    if choices.pick("stores", cycles, cycles.get) == "cached":
        return k
    return replace(k, streams=tuple(written), schedule=(*k.schedule, "stored past the caches"))


def is_far(b: Buffer, target: Target) -> bool:
    """Whether a buffer is known not to fit the L2 cache."""
    return all(isinstance(d, int) for d in b.shape) and size(b) > target.caches[1]


def size(b: Buffer) -> int:
    """Bytes of a buffer of fixed shape."""
    return prod(b.shape) * b.dtype.bytes
