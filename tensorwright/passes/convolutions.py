"""Bring channels-last convolutions to the forms that have fast kernels.

    conv_general(x, w: f32[1,1,8,4])   ->   reshape(dot_general(reshape(x), reshape(w)))
    conv_general(x, w, padding=((1,1),(1,1)))   ->   conv_general(pad(x, low=(0,1,1,0), ...), w)
    conv_general(x, w: f32[4,8,4], lhs_dilation=(2,))   ->   convolutions by w[0::2] and w[1::2],
                                                             their results interleaved

A window of one element is a matrix product, and so is one over a single element. Padding is written
out, so that no kernel tests for borders. A convolution of a spread-out tensor is one for each phase
of the result, without zeros, or (to few channels) the sum of what each element adds at all places
of the window.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

from tensorwright.base import trace
from tensorwright.ir.expr import as_dim, as_expr, is_const
from tensorwright.ir.graph import Node
from tensorwright.ir.match import P, Rest, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim, product
from tensorwright.ops.conv import conv_general, per_axis
from tensorwright.ops.define import broadcast_shapes
from tensorwright.ops.elementwise import add
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import concat, flip, pad, reshape, slice, transpose
from tensorwright.ops.positions import full
from tensorwright.ops.winograd import winograd
from tensorwright.passes.layout_rules import with_attrs
from tensorwright.passes.pointwise import POINTWISE, is_pointwise

x, w = V("x"), V("w")
FEW_CHANNELS = 8
SOME_CHANNELS = 9  # of a group that is multiplied faster in tiles, its operand laid in panels
TESTED = 3  # elements that are copied in the time of one that a window sees behind tests


def shape_convolutions(m: Module) -> Module:
    """`m` with its channels-last convolutions as matrix products or plain, unpadded windows."""
    return map_graphs(m, lambda g: rewrite(g, RULES))


class Windows:
    """The spatial attributes of a convolution, one entry a dimension."""

    def __init__(self, node: Node):
        n = node.rank - 2
        every = lambda name, default: per_axis("conv_general", node.attrs[name], default, n)
        self.strides, self.dilation = every("strides", 1), every("dilation", 1)
        self.padding, self.spread = every("padding", (0, 0)), every("lhs_dilation", 1)
        last = node.attrs["layout"] == "NLAST"
        self.sizes = node.args[1].shape[:n] if last else node.args[1].shape[2:]

    @property
    def is_padded(self) -> bool:
        return not all(is_const(v, 0) for pair in self.padding for v in pair)

    @property
    def is_spread(self) -> bool:
        return any(s != 1 for s in self.spread)


def is_last(node: Node) -> bool:
    return node.attrs["layout"] == "NLAST" and node.rank > 2


def along_rows(node: Node) -> bool:
    return node.attrs["layout"] == "NC" and node.rank > 2


# ---- matrix products ---------------------------------------------------------------------------


def without_window(node: Node, x: Node, w: Node) -> Node | None:
    """A convolution without spatial dimensions is a product with w[O, I] or w[I, O]."""
    if node.rank != 2 or node.attrs["groups"] != 1:
        return None
    axis = 0 if node.attrs["layout"] == "NLAST" else 1
    return dot_general(x, w, contract=((1,), (axis,)), dtype=node.attrs["dtype"])


def pointwise_product(node: Node, x: Node, w: Node) -> Node | None:
    """A window of one element: rows are the positions, columns the output channels."""
    a = Windows(node)
    if node.attrs["groups"] != 1 or a.is_padded or a.is_spread or any(d != 1 for d in a.sizes):
        return None
    if any(s != 1 for s in a.strides):
        x = slice(x, starts=(0,) * x.rank, stops=x.shape, steps=(1, *a.strides, 1))
    channels, outputs = w.shape[-2:]
    rows = reshape(x, shape=(product(x.shape[:-1]), channels))
    y = dot_general(rows, reshape(w, shape=(channels, outputs)), contract=((1,), (0,)),
                    dtype=node.attrs["dtype"])  # fmt: skip
    return reshape(y, shape=node.shape)


def products_of_groups(node: Node, x: Node, w: Node) -> Node | None:
    """Groups of some channels each, which a window of one element takes along rows: a product for
    each group, whose columns are the positions."""
    a, groups = Windows(node), node.attrs["groups"]
    outputs, channels = w.shape[:2]
    if a.is_padded or a.is_spread or any(d != 1 for d in (*a.sizes, *a.strides)):
        return None
    if groups == 1 or x.shape[0] != 1 or not isinstance(channels, int) or channels < SOME_CHANNELS:
        return None
    columns = reshape(x, shape=(groups, channels, product(x.shape[2:])))
    rows = reshape(w, shape=(groups, outputs // groups, channels))
    y = dot_general(rows, columns, batch=((0,), (0,)), contract=((2,), (1,)),
                    dtype=node.attrs["dtype"])  # fmt: skip
    return reshape(y, shape=node.shape)


def product_of_element(node: Node, x: Node, w: Node) -> Node | None:
    """What slides over a single element (the first layer of a generator of images) meets it with
    one element of the window at each place: columns are places and output channels."""
    a = Windows(node)
    if node.attrs["groups"] != 1 or any(not is_const(d, 1) for d in x.shape[1:-1]):
        return None
    if any(s != 1 or d != 1 for s, d in zip(a.strides, a.dilation)):
        return None
    places, lows = node.shape[1:-1], [low for low, _ in a.padding]
    if not all(isinstance(v, int) for v in (*places, *lows, *a.sizes)) or product(places) == 1:
        return None
    if any(low >= size or low < n - 1 for low, n, size in zip(lows, places, a.sizes)):
        return None  # places that meet nothing
    rank, (channels, outputs) = len(places), w.shape[-2:]
    starts = tuple(low - n + 1 for low, n in zip(lows, places))
    met = slice(w, starts=(*starts, 0, 0), stops=(*(low + 1 for low in lows), channels, outputs))
    met = transpose(flip(met, axes=tuple(range(rank))), perm=(rank, *range(rank), rank + 1))
    met = reshape(met, shape=(channels, product((*places, outputs))))
    rows = reshape(x, shape=(x.shape[0], channels))
    y = dot_general(rows, met, contract=((1,), (0,)), dtype=node.attrs["dtype"])
    trace.decision("convolution", node, "product", f"one element meets {places} of the window")
    return reshape(y, shape=node.shape)


# ---- padding -----------------------------------------------------------------------------------


def padded_first(node: Node, x: Node, w: Node) -> Node | None:
    a = Windows(node)
    if not a.is_padded or a.is_spread:
        return None
    low, high = zip(*a.padding)
    around = padded(x, (0, *low, 0), (0, *high, 0))
    return with_attrs(node, (around, w), padding=((0, 0),) * len(low))


def padded(x: Node, low: tuple, high: tuple) -> Node:
    """pad(x), with few channels that come first (an image) before they are moved last: rows are
    copied then, and the convolution reads its single elements from wherever they lie."""
    few = isinstance(x.shape[-1], int) and x.shape[-1] < FEW_CHANNELS
    if x.op is not transpose or not few:
        return pad(x, low=low, high=high)
    perm = x.attrs["perm"]
    back = tuple(perm.index(k) for k in range(len(perm)))
    inner = pad(x.args[0], low=tuple(low[k] for k in back), high=tuple(high[k] for k in back))
    return transpose(inner, perm=perm)


def padded_rows(node: Node, x: Node, w: Node) -> Node | None:
    """The same for one that runs along rows, where testing the border costs more than a copy does:
    results whose windows leave a row are computed one by one."""
    a = Windows(node)
    n, size, step, dilation = x.shape[-1], a.sizes[-1], a.strides[-1], a.dilation[-1]
    low, high = zip(*a.padding)
    known = (n, size, *a.sizes, low[-1], high[-1])
    if not a.is_padded or a.is_spread or not all(isinstance(v, int) for v in known):
        return None
    begins = range(-low[-1], n + high[-1] - (size - 1) * dilation, step)
    leaving = sum(b < 0 or b + (size - 1) * dilation >= n for b in begins)
    copied = (n + low[-1] + high[-1]) * (a.strides[-2] if len(a.strides) > 1 else 1)
    if TESTED * leaving * product(a.sizes) <= copied:
        return None
    trace.decision("convolution", node, "padded", f"{leaving} of {len(begins)} leave a row")
    around = pad(x, low=(0, 0, *low), high=(0, 0, *high))
    return with_attrs(node, (around, w), padding=((0, 0),) * len(low))


# ---- spread-out tensors (transposed convolutions) ----------------------------------------------


class Taps(NamedTuple):
    """What a phase of the result sees, in one dimension: every spread-th element of the window from
    `first` on, `count` of them; the first meets x `shift` elements from the result's."""

    first: int
    count: int
    shift: int


class Phases(NamedTuple):
    """Result positions q * spread + r, for each r: `taps` for each of them, last dimension fastest;
    extents: how many q there are."""

    taps: list[list[Taps]]
    extents: list[Dim]

    @property
    def are_alike(self) -> bool:
        """Whether the windows of all of them lie alike in x."""
        return len({tuple((t.count, t.shift) for t in each) for each in self.taps}) == 1


def phases_of(node: Node, a: Windows) -> Phases | None:
    """None for what is not spread out, or not only, or by windows of sizes that vary."""
    plain = all(s == 1 and d == 1 for s, d in zip(a.strides, a.dilation))
    known = all(isinstance(v, int) for v in (*a.sizes, *itertools.chain(*a.padding)))
    if not (a.is_spread and plain and known):
        return None
    extents = [as_dim((as_expr(d) + s - 1) // s) for d, s in zip(node.shape[1:-1], a.spread)]
    every = itertools.product(*map(range, a.spread))
    taps = [[_taps(*v) for v in zip(r, a.padding, a.sizes, a.spread)] for r in every]
    return Phases(taps, extents)


def by_phases(node: Node, x: Node, w: Node) -> Node | None:
    """A convolution for each phase of the result, by every spread-th element of the window."""
    a = Windows(node)
    phases = phases_of(node, a)
    if phases is None:
        return None
    taps, extents = phases
    if phases.are_alike and node.attrs["groups"] == 1:
        y = _joint(node, x, w, a, taps, extents)
    else:
        shared = _padded_for_all(x, taps, extents)
        parts = [_phase(node, x, w, a, t, extents, shared) for t in taps]
        y = _interleaved(parts, a.spread, extents)
    trace.decision("convolution", node, "phases", f"{len(taps)} of {a.spread}")
    return _as_result(y, node, phases, a.spread)


def by_overlaps(node: Node, x: Node, w: Node) -> Node | None:
    """To few channels, which fill no vector: one product gives what each element of x adds at each
    place of the window, for all channels; a result is the sum of those that overlap there."""
    a = Windows(node)
    phases, few = phases_of(node, a), node.shape[-1]
    if phases is None or node.attrs["groups"] != 1 or node.dtype.bits < 32:  # sums are not rounded
        return None
    if not isinstance(few, int) or few >= FEW_CHANNELS or phases.are_alike:
        return None
    taps, extents = phases
    around, low = _padded_for_all(x, taps, extents)
    batch, *size, channels = around.shape
    rank = len(size)
    rows = reshape(around, shape=(product((batch, *size)), channels))
    places = transpose(w, perm=(rank, *range(rank), rank + 1))
    places = reshape(places, shape=(channels, product((*a.sizes, few))))
    added = dot_general(rows, places, contract=((1,), (0,)), dtype=node.attrs["dtype"])
    added = transpose(added, perm=(1, 0))  # so that rows of the result are sums of rows
    added = reshape(added, shape=(*a.sizes, few, batch, *size))
    parts = [_overlap(added, each, low, phases, a.spread) for each in taps]
    trace.decision("convolution", node, "overlaps", f"{few} channels at {a.sizes} places")
    return _as_result(_interleaved(parts, a.spread, extents), node, phases, a.spread)


def _overlap(
    added: Node, each: list[Taps], low: Sequence[int], phases: Phases, spread: Sequence[int]
) -> Node:
    """[N, q0, q1, ..., C]: one phase, the sum of what is added at each of its places."""
    rank = len(each)
    few, batch = added.shape[rank : rank + 2]
    sums = full(shape=(few, batch, *phases.extents), value=0, dtype=added.dtype)
    for n, place in enumerate(itertools.product(*(range(t.count) for t in each))):
        at = [t.first + k * s for t, k, s in zip(each, place, spread)]
        starts = [before + t.shift + k for before, t, k in zip(low, each, place)]
        stops = [as_dim(as_expr(v) + d) for v, d in zip(starts, phases.extents)]
        part = slice(added, starts=(*at, 0, 0, *starts), steps=(1,) * added.rank,
                     stops=(*(v + 1 for v in at), few, batch, *stops))  # fmt: skip
        part = reshape(part, shape=sums.shape)
        sums = add(sums, part) if n else part
    return transpose(sums, perm=(*range(1, sums.rank), 0))


def _as_result(y: Node, node: Node, phases: Phases, spread: Sequence[int]) -> Node:
    """[N, q0, r0, q1, r1, ..., C] in the shape of the node, without what lies behind its end."""
    whole = tuple(product(p) for p in zip(phases.extents, spread))
    y = reshape(y, shape=(node.shape[0], *whole, node.shape[-1]))
    return y if y.shape == node.shape else slice(y, starts=(0,) * y.rank, stops=node.shape)


def _taps(r: int, padding: tuple[int, int], window: int, spread: int) -> Taps:
    first = (padding[0] - r) % spread
    return Taps(first, len(range(first, window, spread)), (r + first - padding[0]) // spread)


def _part_of_window(w: Node, taps, spread) -> Node:
    starts = (*(first for first, _, _ in taps), 0, 0)
    stops = tuple(min(d, first + (count - 1) * s + 1)
                  for d, (first, count, _), s in zip(w.shape, taps, spread))  # fmt: skip
    return slice(w, starts=starts, stops=(*stops, *w.shape[-2:]), steps=(*spread, 1, 1))


def _phase_padding(x: Node, taps, extents) -> tuple:
    pairs = []
    for d, (_, count, shift), wanted in zip(x.shape[1:-1], taps, extents):
        pairs.append((-shift, as_dim(as_expr(wanted) - as_expr(d) + shift + count - 1)))
    return tuple(pairs)


def _padded_for_all(x: Node, taps, extents) -> tuple[Node, tuple[int, ...]]:
    """x with the padding of all phases, and how much of that is in front of it."""
    low, high = [], []
    for d, wanted, found in zip(x.shape[1:-1], extents, zip(*taps)):
        reach = max(shift + count for _, count, shift in found)
        low.append(max(-shift for _, _, shift in found))
        high.append(as_dim(as_expr(wanted) - as_expr(d) + reach - 1))
    return padded(x, (0, *low, 0), (0, *high, 0)), tuple(low)


def _phase(node: Node, x: Node, w: Node, a: Windows, taps, extents, shared) -> Node:
    """One phase, of what its windows see of the padded operand, or of the operand if that is all of
    it."""
    if any(count == 0 for _, count, _ in taps):
        return full(shape=(node.shape[0], *extents, node.shape[-1]), value=0, dtype=node.dtype)
    if any(not is_const(v, 0) for pair in _phase_padding(x, taps, extents) for v in pair):
        around, low = shared
        starts = [before + shift for before, (_, _, shift) in zip(low, taps)]
        stops = [as_dim(as_expr(at) + wanted + count - 1)
                 for at, wanted, (_, count, _) in zip(starts, extents, taps)]  # fmt: skip
        x = slice(around, starts=(0, *starts, 0), steps=(1,) * x.rank,
                  stops=(x.shape[0], *stops, x.shape[-1]))  # fmt: skip
    return with_attrs(node, (x, _part_of_window(w, taps, a.spread)), lhs_dilation=None,
                      padding=((0, 0),) * len(extents))  # fmt: skip


def _joint(node: Node, x: Node, w: Node, a: Windows, taps, extents) -> Node:
    """All phases at once, as groups of output channels, where their windows lie alike."""
    parts = [_part_of_window(w, t, a.spread) for t in taps]
    y = with_attrs(node, (x, concat(*parts, axis=-1)), lhs_dilation=None,
                   padding=_phase_padding(x, taps[0], extents))  # fmt: skip
    y = reshape(y, shape=(node.shape[0], *extents, *a.spread, node.shape[-1]))
    n = len(extents)
    order = (0, *itertools.chain(*((1 + k, 1 + n + k) for k in range(n))), 2 * n + 1)
    return transpose(y, perm=order)


def _interleaved(parts: Sequence[Node], spread: Sequence[int], extents: Sequence[Dim]) -> Node:
    """[N, q0, r0, q1, r1, ..., C] from the phases [N, q0, q1, ..., C], last phase index fastest."""
    n = len(extents)
    ones = tuple(v for e in extents for v in (e, 1))
    level = [reshape(p, shape=(p.shape[0], *ones, p.shape[-1])) for p in parts]
    for k in reversed(range(n)):
        level = [concat(*level[i : i + spread[k]], axis=2 + 2 * k)
                 for i in range(0, len(level), spread[k])]  # fmt: skip
    return level[0]


def spread_first(node: Node, x: Node, w: Node) -> Node | None:
    """Zeros written between the elements of x."""
    a = Windows(node)
    if not a.is_spread:
        return None
    for axis, s in enumerate(a.spread, 1):
        if s == 1:
            continue
        lead, rest = x.shape[: axis + 1], x.shape[axis + 1 :]
        cell = reshape(x, shape=(*lead, 1, *rest))
        only = lambda v, at: tuple(v if k == at else 0 for k in range(cell.rank))  # noqa: B023
        cell = pad(cell, low=only(0, 0), high=only(s - 1, axis + 1))
        x = reshape(cell, shape=(*lead[:-1], product((lead[-1], s)), *rest))
        crop = tuple(1 - s if k == axis else 0 for k in range(x.rank))
        x = pad(x, low=(0,) * x.rank, high=crop)
    return with_attrs(node, (x, w), lhs_dilation=None)


# ---- views behind products ---------------------------------------------------------------------


def sink_reshape(node: Node) -> Node | None:
    """f(reshape(x), c) -> reshape(f(x, c)): what follows a product stays in the product's shape,
    of fewer dimensions: between products of as many it would go to and fro."""
    views = [a.args[0] for a in node.args if a.op is reshape and a.shape == node.shape]
    target = next((x.shape for x in views if x.rank < node.rank and is_product(x)), None)
    if target is None:
        return None
    args = [_as_shape(a, node, target) for a in node.args]
    if any(a is None for a in args):
        return None
    return reshape(with_attrs(node, args), shape=node.shape)


def is_product(node: Node) -> bool:
    """Whether the node is a contraction in the form of a matrix or on tiles, or computed from one
    alone."""
    rank = node.rank
    while is_pointwise(node) and node.rank == rank:
        node = node.args[0]
    matrix = rank == 2 + len(node.attrs["batch"][0]) if node.op is dot_general else False
    return node.rank == rank and (node.op is winograd or matrix)


def _as_shape(a: Node, node: Node, target: tuple[Dim, ...]) -> Node | None:
    """An operand for a result whose shape is `target` instead of the node's; None if the operand
    belongs to a convolution, which it should stay with, or repeats along other dimensions."""
    kept = 0
    while kept < len(target) and target[-1 - kept] == node.shape[node.rank - 1 - kept]:
        kept += 1
    if a.rank <= kept and broadcast_shapes("sink", target, a.shape) == target:
        return a
    if a.shape != node.shape:
        shape = _regrouped(a.shape, node.shape, target)
        return None if shape is None else reshape(a, shape=shape)
    if is_epilogue(a):
        return None
    return a.args[0] if a.op is reshape and a.args[0].shape == target else reshape(a, shape=target)


def _regrouped(
    shape: tuple[Dim, ...], whole: tuple[Dim, ...], target: tuple[Dim, ...]
) -> tuple[Dim, ...] | None:
    """The shape of an operand that repeats along dimensions of `whole`, where these are joined and
    parted to be `target`; None if it repeats along some part of what is one dimension there, or
    sizes vary."""
    if not all(isinstance(d, int) and d > 0 for d in (*whole, *target)):
        return None
    before, after = list(itertools.accumulate(whole, mul)), list(itertools.accumulate(target, mul))
    ends = sorted({*before} & {*after})  # of what is joined and parted by itself

    def parts(dims: tuple[int, ...], totals: list[int]) -> list[list[int]]:
        found = [[] for _ in ends]
        for d, total in zip(dims, totals):
            found[bisect_left(ends, total)].append(d)
        return found

    aligned, found = (1,) * (len(whole) - len(shape)) + shape, []
    for own, old, new in zip(parts(aligned, before), parts(whole, before), parts(target, after)):
        if own != old and any(d != 1 for d in own):
            return None
        found += new if own == old else [1] * len(new)
    return tuple(found)


def is_epilogue(node: Node) -> bool:
    while is_pointwise(node):
        node = max(node.args, key=lambda a: a.rank)
    return node.op is conv_general


RULES = (
    rule("product-without-window", P.conv_general(x, w), without_window),
    rule("window-over-element", P.conv_general(x, w), product_of_element, when=is_last),
    rule("convolution-by-overlaps", P.conv_general(x, w), by_overlaps, when=is_last),
    rule("convolution-by-phases", P.conv_general(x, w), by_phases, when=is_last),
    rule("spread-written-out", P.conv_general(x, w), spread_first, when=is_last),
    rule("padding-written-out", P.conv_general(x, w), padded_first, when=is_last),
    rule("groups-of-one", P.conv_general(x, w), products_of_groups, when=along_rows),
    rule("padding-of-rows", P.conv_general(x, w), padded_rows, when=along_rows),
    rule("window-of-one", P.conv_general(x, w), pointwise_product, when=is_last),
    *(rule("sink-reshape", getattr(P, op.name)(Rest("xs")), sink_reshape) for op in POINTWISE),
)
