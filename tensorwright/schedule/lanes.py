"""Kernels that go along an axis and carry something with them, for many neighbours at once.

    for i: for j: { acc = 0; for r: { acc = acc + x[i, r, j]; y[i, r, j] = acc } }
->  for i, jo in parallel: { acc[:] = 0; for r: for jv: for l in vector(16): { acc[jv, l] += ...

What is carried along one line of the axis is a value; along lines that lie next to each other in
memory it is vectors of values. Strips of lines are so wide that rows of them are long runs of
memory and what they carry stays in the L1 cache, or in registers where that is more than a value.
"""

from __future__ import annotations

from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Symbol, const, is_const, sym, walk
from tensorwright.ir.loop import Alloc, For, Kernel, Seq, Stmt, Store
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import why_not_parallel
from tensorwright.schedule.maps import are_as_one, in_parallel, iterations, share
from tensorwright.schedule.nest import runs_along
from tensorwright.schedule.rows import NEW_RUN
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target

WRITTEN_OUT = 8  # vectors of a strip that are written out
LATENCY = 4  # cycles of a step that waits for the one before
CACHED = 4  # of which part of the L1 cache is for what is carried


def schedule_lanes(k: Kernel, target: Target, choices: Choices) -> Kernel | None:
    """Vectors along the innermost of the independent loops; None if the kernel is none such."""
    outer, s = [], k.body
    while isinstance(s, For):
        outer.append(s)
        s = s.body
    if not outer or not carries(s) or any(map(why_not_parallel, outer)):
        return None
    body, loops = joined(k.body, [f.var for f in outer])
    lines = p.find(body, loops[-1])
    if not lie_together(lines):
        return None
    held = [x.buffer for x in ir.statements(s) if isinstance(x, Alloc)]
    steps = max(map(iterations, s.body))
    shared = in_parallel(const(iterations(body) * steps), choices)
    for v in loops if shared else ():
        body = p.set_kind(body, v, "parallel")
    far = iterations(lines) * steps * held[0].dtype.bytes > target.caches[1]
    parts = target.cores if shared and len(loops) == 1 else 1
    width = choose_width(lines, held, far, parts, target, choices)
    lanes = lanes_of(held, target)
    body, strips = in_vectors(body, loops[-1], width, lanes)
    loops = loops[:-1] or strips
    body = share(body, loops, choices) if shared and loops else body
    return k.with_body(body, f"lanes: strips of {width}, vectors of {lanes}")


def carries(s: Stmt) -> bool:
    """Values of its own, and loops of known or unknown length that change them; nothing else."""
    parts = list(ir.statements(s))
    plain = all(isinstance(x, (Alloc, Store, For, Seq)) for x in parts)
    own = {x.buffer for x in parts if isinstance(x, Alloc)}
    loops = [x for x in parts if isinstance(x, For)]
    local = all(b.scope == "local" and all(isinstance(d, int) for d in b.shape) for b in own)
    return plain and bool(own) and local and any(ir.stored_buffers(f) & own for f in loops)


def lie_together(lines: For) -> bool:
    """Whether neighbours read and store next to each other, and all go equally far."""
    v = sym(lines.var)
    held = {x.buffer for x in ir.statements(lines) if isinstance(x, Alloc)}
    inside = [x for x in ir.statements(lines.body) if isinstance(x, For)]
    if any(v in set(walk(f.begin, f.extent)) for f in inside):
        return False
    stores = [x for x in ir.statements(lines) if isinstance(x, Store) and x.buffer not in held]
    return runs_along(lines) and all(any(v in set(walk(i)) for i in x.indices) for x in stores)


def joined(body: Stmt, loops: list[Symbol]) -> tuple[Stmt, list[Symbol]]:
    """The innermost loops as one, as long as its steps are seen to lie next to each other."""
    while len(loops) > 1:
        outer, inner = p.find(body, loops[-2]), p.find(body, loops[-1])
        if outer.body is not inner or not are_as_one(inner, outer, inner):
            break
        longer, both = p.fuse(body, outer.var, inner.var)
        if not lie_together(p.find(longer, both)):
            break
        body, loops = longer, [*loops[:-2], both]
    return body, loops


def choose_width(
    lines: For, held: list[Buffer], far: bool, parts: int, target: Target, choices: Choices
) -> int:
    """Lines of a strip, about as many in all of them, of which there are `parts` at least: so many
    that what they carry just stays in the L1 cache, or a vector of them, which carry it in
    registers. far: what is read comes from beyond the L2 cache, where each run of memory has to be
    waited for."""
    lanes = lanes_of(held, target)
    each = sum(prod(b.shape) * b.dtype.bytes for b in held)
    most = max(target.caches[0] // CACHED // each // lanes, 1) * lanes
    if is_const(lines.extent):
        count = max(-(-lines.extent.value // most), parts)
        most = max(lines.extent.value // count // lanes, 1) * lanes

    def cycles(width: int) -> float:
        moved = LATENCY if width == lanes else len(held)
        return moved + (far * NEW_RUN * lanes / width)

    return choices.pick("strip", dict.fromkeys((most, lanes)), cycles)


def lanes_of(held: list[Buffer], target: Target) -> int:
    return min(target.lanes(b.dtype) for b in held)


def in_vectors(body: Stmt, v: Symbol, width: int, lanes: int) -> tuple[Stmt, list[Symbol]]:
    """Whole strips, then what is left in vectors, the last of them masked. Returns the loop over
    whole strips, if there are any."""
    extent = p.find(body, v).extent
    whole = extent // width * width
    if is_const(whole, 0):
        return in_strips(body, v, least(extent.value, lanes), lanes)[0], []
    if is_const(extent - whole, 0):
        body, jo = in_strips(body, v, width, lanes)
        return body, [jo]
    body, v, rest = p.partition(body, v, whole)
    body, jo = in_strips(body, v, width, lanes)
    left = p.find(body, rest).extent
    few = least(left.value, lanes) if is_const(left) else lanes
    return in_strips(p.set_kind(body, rest, "serial"), rest, few, lanes)[0], [jo]


def least(n: int, lanes: int) -> int:
    """Elements of a vector that `n` of them fill to more than a half."""
    while lanes > 1 and n <= lanes // 2:
        lanes //= 2
    return lanes


def in_strips(body: Stmt, v: Symbol, width: int, lanes: int) -> tuple[Stmt, Symbol]:
    """A loop over lines in strips of `width`, vector by vector through each step of the axis."""
    body, jo, ji = p.split(body, v, width, guard=p.guard_carried)
    body, jv, jl = p.split(body, ji, min(width, lanes))
    body = p.fission(p.set_kind(body, jl, "vector"), jl)
    few = width // lanes <= WRITTEN_OUT
    body = p.set_kind(body, jv, "unroll" if few else "serial")
    return p.fission(body, jv, steps=False), jo
