"""Schedule every kernel for the target, and give it its operands in the layout that it wants.

    y = call_kernel(x, w, callee="dense")   ->   y = call_kernel(x, w_packed, callee="dense")

A constant is packed now; anything else by a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tensorwright.ir.dtype import u32
from tensorwright.ir.expr import as_dim, as_expr, ceildiv
from tensorwright.ir.graph import (
    CONST,
    PARAM,
    Graph,
    Node,
    constant,
    param,
    rebuild,
    subgraphs,
    with_args,
)  # fmt: skip
from tensorwright.ir.loop import Kernel, Pack
from tensorwright.ir.module import Module
from tensorwright.ir.quarters import POINTS, QUARTERS, WEIGHTS, lay_sum
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import add, bitcast, sub
from tensorwright.ops.kernel import call_kernel, fused
from tensorwright.ops.movement import concat, pad, reshape, transpose
from tensorwright.ops.movement import slice as cut
from tensorwright.passes.lower import lower_to_kernel
from tensorwright.runtime.copies import copy_all, in_threads
from tensorwright.runtime.pages import constant_empty
from tensorwright.schedule.records import identity, report_unused
from tensorwright.schedule.rules import schedule
from tensorwright.target.target import Target

Scheduler = Callable[[Kernel, Target], Kernel]


def schedule_kernels(
    m: Module, target: Target, schedule: Scheduler = schedule,
    ready: Callable[[Kernel], object] = lambda k: None,
) -> Module:  # fmt: skip
    """`m` with every kernel scheduled for the target. `ready` is told of those that will stay as
    they are while others are still to come."""
    kernels: dict[str, Kernel] = {}
    seen: list[Kernel] = []

    def scheduled(k: Kernel) -> Kernel:
        seen.append(k)
        return schedule(k, target)

    shared = readers_of_shared(m)
    for name, k in m.kernels.items():
        kernels[name] = scheduled(k)
        if name not in shared:
            ready(kernels[name])
    kernels |= shared_panels(m, kernels, scheduled)
    wanted = {name: k.packs for name, k in kernels.items() if k.packs}
    made: dict[str, Kernel] = dict(kernels)
    done: dict[tuple[Node, Pack], Node] = {}
    copies: list[tuple[np.ndarray, np.ndarray]] = []
    known: dict[tuple, str] = {}

    def visit(node: Node, args: tuple) -> Node:
        node = with_args(node, args)
        if node.op is call_kernel and node.attrs["callee"] in wanted:
            operands = list(node.args)
            for spec in wanted[node.attrs["callee"]]:
                key = (operands[spec.param], replace(spec, param=0))
                if key not in done:
                    done[key] = pack_operand(key[0], spec, made, known, copies)
                operands[spec.param] = done[key]
            return replace(node, args=tuple(operands))
        if subgraphs(node):
            attrs = {k: rebuild(v, visit) if isinstance(v, Graph) else v
                     for k, v in node.attrs.items()}  # fmt: skip
            return replace(node, attrs=attrs)
        return node

    graphs = {name: rebuild(g, visit) for name, g in m.graphs.items()}
    copy_all(copies)
    made.update((n, scheduled(k)) for n, k in made.items() if n not in kernels)
    report_unused(map(identity, seen) if target.schedules else (), target)
    return replace(m, graphs=graphs, kernels=made)


def readers_of_shared(m: Module) -> set[str]:
    """The kernels that read a constant which another one reads too."""
    first: dict[Node, str] = {}
    found: set[str] = set()
    for g in m.all_graphs():
        for node in g.nodes():
            if node.op is call_kernel:
                name = node.attrs["callee"]
                for a in node.args:
                    if a is not None and a.op is CONST and first.setdefault(a, name) != name:
                        found |= {name, first[a]}
    return found


Place = tuple[str, int]  # a kernel and the position of one of its parameters


def shared_panels(m: Module, kernels: dict[str, Kernel], schedule) -> dict[str, Kernel]:
    """Kernels scheduled again, for panels as wide as those of others that read the same constants,
    so that these are stored once (the entries of a program may want them differently). Narrow ones
    are tried first: a wide tile reads several panels at once, at no cost that could be measured,
    but a narrow tile reads every row of a wide panel in parts (measured: a tenth of the time)."""
    changed: dict[str, Kernel] = {}
    for places in readers_of_constants(m, kernels):
        widths = {pack_of(kernels[name], at).width for name, at in places}
        for width in sorted(widths) if len(widths) > 1 else ():
            tried = {}
            for name, at in places:
                k = tried.get(name, changed.get(name, kernels[name]))
                packs = [replace(p, width=width) if p.param == at else p for p in k.packs]
                tried[name] = schedule(replace(m.kernels[name], packs=tuple(packs)))
                if tried[name].packs != tuple(packs):
                    break
            else:
                changed |= tried
                break
    return changed


def pack_of(k: Kernel, at: int) -> Pack:
    return next(p for p in k.packs if p.param == at)


def readers_of_constants(m: Module, kernels: dict[str, Kernel]) -> list[list[Place]]:
    """The places at which kernels want constants in panels, those together that read the same ones
    in layouts that differ in the width of the panels only."""
    group: dict[Place, list[Place]] = {}
    first: dict[tuple[Node, Pack], Place] = {}
    for g in m.all_graphs():
        for node in g.nodes():
            if node.op is not call_kernel or node.attrs["inplace"] >= 0:
                continue
            name = node.attrs["callee"]
            for p in kernels[name].packs:
                if node.args[p.param].op is not CONST:
                    continue
                place = (name, p.param)
                mine = group.setdefault(place, [place])
                other = first.setdefault((node.args[p.param], replace(p, param=0, width=0)), place)
                if group[other] is not mine:
                    mine += group[other]
                    group.update(dict.fromkeys(group[other], mine))
    return list({id(places): places for places in group.values()}.values())


def pack_operand(
    x: Node, pack: Pack, kernels: dict[str, Kernel], known: dict[tuple, str],
    copies: list[tuple[np.ndarray, np.ndarray]],
) -> Node:  # fmt: skip
    """`x` in the layout that a kernel wants: at compile time for a constant, by a kernel
    otherwise. What is still to be copied for that goes to `copies`."""
    if x.op is CONST:
        made = pack_constant(x.attrs["value"], pack, copies)
        return constant(made, f"{x.name}.packed" if x.name else "")
    inner = param("x", x.type)
    return lower_to_kernel(
        fused(x, body=Graph("pack", (inner,), (packed(inner, pack),))), kernels, known
    )


def pack_constant(
    value: np.ndarray, pack: Pack, copies: list[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """An array in panels: those that are full straight from the array, the last one padded."""
    type_ = packed(param("w", tensor(value.dtype, *value.shape)), pack).type
    made = constant_empty(type_.shape, type_.dtype.numpy)  # where programs read it from
    if pack.half:
        order = [*pack.lead, "panel", *pack.rest, "place"]
        sums = made.transpose([order.index(at) for at in (0, 1, "panel", "place")])
        in_threads(partial(lay_sum, value, pack.half, p, sums[p]) for p in range(POINTS))
        return made
    size = value.shape[pack.axis]
    full = size // pack.width * pack.width
    for begin, end in ((0, full), (full, size)):
        if begin == end:
            continue
        part = value[(slice(None),) * pack.axis + (slice(begin, end),)]
        laid = evaluate(packed(param("w", tensor(part.dtype, *part.shape)), pack), part)
        panels = slice(begin // pack.width, -(-end // pack.width))
        target = made[(slice(None),) * len(pack.lead) + (panels,)]
        if np.may_share_memory(laid, part):
            copies.append((target, laid))
        else:  # a copy already, which should not wait for all the others
            copy_all([(target, laid)])
    return made


def packed(x: Node, pack: Pack) -> Node:
    """The nodes of the transformation: sums of quarters, pad, reshape, transpose, join to words."""
    x = quarters_added(x, pack.half) if pack.half else x
    axis, width, words = pack.axis, pack.width, pack.words
    panels = ceildiv(as_expr(x.shape[axis]), width)
    shape = list(x.shape)
    shape[axis] = as_dim(panels * width)
    if words >= 0:
        shape[words] = as_dim(ceildiv(as_expr(x.shape[words]), 2) * 2)
    if tuple(shape) != x.shape:
        high = tuple(as_dim(as_expr(to) - as_expr(d)) for to, d in zip(shape, x.shape))
        x = pad(x, low=(0,) * x.rank, high=high)
    parts = [[d] for d in shape]
    parts[axis] = [as_dim(panels), width]
    if words >= 0:
        parts[words] = [as_dim(as_expr(shape[words]) // 2), 2]
    place = [sum(map(len, parts[:a])) for a in range(x.rank)]
    x = reshape(x, shape=tuple(d for part in parts for d in part))
    perm = [place[a] for a in (*pack.lead, axis, *pack.rest)] + [place[axis] + 1]
    if words >= 0:
        perm.append(place[words] + 1)
    if perm != list(range(x.rank)):
        x = transpose(x, perm=tuple(perm))
    return bitcast(x, dtype=u32) if words >= 0 else x


def quarters_added(x: Node, half: int) -> Node:
    """[7, K / 2, half] of x[K, N], as `ir.quarters.sums_of_quarters`."""
    depth, columns = x.shape[0] // 2, x.shape[1]
    x = pad(x, low=(0, 0), high=(0, 2 * half - columns)) if columns < 2 * half else x
    quarters = [cut(x, starts=(i * depth, j * half), stops=((i + 1) * depth, (j + 1) * half),
                      steps=(1, 1)) for i, j in QUARTERS]  # fmt: skip
    sums = []
    for row in WEIGHTS:
        first, *others = sorted(((f, q) for f, q in zip(row, quarters) if f), key=lambda t: -t[0])
        total = first[1]
        for factor, q in others:
            total = add(total, q) if factor > 0 else sub(total, q)
        sums.append(reshape(total, shape=(1, depth, half)))
    return concat(*sums, axis=0)


def evaluate(result: Node, value: np.ndarray) -> np.ndarray:
    """The value of a chain of unary operators on an array; most often a view of it."""
    chain = []
    while result.op is not PARAM:
        chain.append(result)
        result = result.args[0]
    for node in reversed(chain):
        value = node.op.reference(value, **node.attrs)
    return value
