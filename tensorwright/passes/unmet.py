"""Leave out products of elements of windows with padding.

    conv_general(x: f32[1,1,9,9,8], w: f32[3,1,1,8,4], padding=((1,1), ...))   ->   by w[1:2]
    conv_general(x: f32[1,32,32,64], w: f32[3,3,64,64], dilation=(24,24), padding=((24,24), ...))
->  add(pad(dot_general(x[:, :8, :8], w[2, 2])), ...)     # 64 rows, not 1024

Elements that meet padding only, wherever the window stands, are cut off. Where most of the others
meet padding at most places (a window dilated to nearly the size of an image), the convolution is a
sum of products, one for each element of the window with the rows that it meets.
"""

from __future__ import annotations

import itertools
from functools import reduce
from math import prod

from tensorwright.base import trace
from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import Node
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim
from tensorwright.ops.elementwise import add
from tensorwright.ops.movement import pad, slice
from tensorwright.passes.convolutions import Windows, is_last
from tensorwright.passes.layout_rules import with_attrs
from tensorwright.passes.windows import every

x, w = V("x"), V("w")
FEWER = 0.7  # of all products, as few must be left: parts of operands and results are copied
FEWEST = 64  # channels that hide that
SAVED = 1 << 21  # products: as many make up for calls of more kernels
MOST = 9  # elements of a window, each of which is a kernel to compile


def drop_unmet(m: Module) -> Module:
    """`m` with windows cut to the elements that meet more than padding. What is cut would multiply
    zeros only: frames beside a single one, the outer ring of a window dilated beyond an image."""
    return map_graphs(m, lambda g: rewrite(g, UNMET))


def separate_places(m: Module) -> Module:
    """`m` with windows whose elements mostly meet padding as sums of products."""
    return map_graphs(m, lambda g: rewrite(g, PLACES))


def without_unmet(node: Node, x: Node, w: Node) -> Node | None:
    a = Windows(node)
    if a.is_spread or not all(isinstance(size, int) for size in a.sizes):
        return None
    kept = [elements_met(met, size) for met, size in zip(results_met(node, x), a.sizes)]
    if all(len(taps) == size for taps, size in zip(kept, a.sizes)):
        return None
    starts, stops = tuple(t.start for t in kept), tuple(t.stop for t in kept)
    inner = slice(w, starts=(*starts, 0, 0), stops=(*stops, *w.shape[-2:]), steps=(1,) * w.rank)
    trace.decision("convolution", node, "cut window", f"{a.sizes} to {inner.shape[:-2]}")
    padding = tuple(map(cut, a.padding, kept, a.sizes, a.dilation))
    return with_attrs(node, (x, inner), padding=padding)


def pooled_without_unmet(node: Node, x: Node) -> Node | None:
    """Pooling by a window larger than its operand, as some models write a global one."""
    window, strides, dilation, padding = (
        every(node, name) for name in ("window", "strides", "dilation", "padding")
    )
    if not all(isinstance(size, int) for size in window):
        return None
    lows = [low for low, _ in padding]
    met = map(met_along, x.shape, node.shape, window, strides, dilation, lows)
    kept = [elements_met(m, size) for m, size in zip(met, window)]
    if all(len(taps) == size for taps, size in zip(kept, window)):
        return None
    trace.decision("window", node, "cut", f"{window} to {tuple(map(len, kept))}")
    return with_attrs(node, (x,), window=tuple(map(len, kept)),
                      padding=tuple(map(cut, padding, kept, window, dilation)))  # fmt: skip


def elements_met(met: dict[int, range] | None, size: int) -> range:
    """The elements of a window between the first and the last that meet anything."""
    return range(min(met), max(met) + 1) if met else range(size)


def cut(padding: tuple[Dim, Dim], kept: range, size: int, step: int) -> tuple[Dim, Dim]:
    """The padding that those elements of a window see."""
    low, high = padding
    return low - kept.start * step, high - (size - kept.stop) * step


def results_met(node: Node, x: Node) -> list[dict[int, range] | None]:
    """For each dimension the elements of the window that meet more than padding, and the results
    for which they do; None where sizes vary."""
    a = Windows(node)
    lows = [low for low, _ in a.padding]
    extents = zip(x.shape[1:-1], node.shape[1:-1], a.sizes, a.strides, a.dilation, lows)
    return [met_along(*each) for each in extents]


def met_along(
    extent: Dim, n: Dim, size: Dim, stride: int, step: int, low: Dim
) -> dict[int, range] | None:  # fmt: skip
    """Of a window of that size that moves by `stride` over that extent, for n results."""
    if not all(isinstance(v, int) for v in (extent, n, size, low)):
        return None
    first, last = -((n - 1) * stride - low) // step, (extent - 1 + low) // step
    near = {k: low - k * step for k in range(max(0, first), min(size, last + 1))}
    met = {k: range(max(0, -(-before // stride)), min(n, (extent - 1 + before) // stride + 1))
           for k, before in near.items()}  # fmt: skip
    return {k: results for k, results in met.items() if results}


# ---- elements that meet padding at most places --------------------------------------------------


def share_met(node: Node, x: Node) -> float:
    """Of all products, those that are computed: fewer where elements that meet little go apart."""
    a, channels = Windows(node), (x.shape[-1], node.shape[-1])
    if a.is_spread or node.attrs["groups"] > 1 or node.dtype is not f32:
        return 1.0
    met = results_met(node, x)
    if None in met or prod(a.sizes) > MOST or not all(isinstance(c, int) for c in channels):
        return 1.0
    found = prod(sum(map(len, each.values())) for each in met) * prod(channels)
    every = prod(a.sizes) * prod(node.shape[1:-1]) * prod(channels)
    pays = min(channels) >= FEWEST and every - found >= SAVED and 0 < found <= FEWER * every
    return found / every if pays else 1.0


def sum_of_places(node: Node, x: Node, w: Node) -> Node | None:
    """A product for each element of the window that meets anything."""
    share = share_met(node, x)
    if share == 1:
        return None
    a, met = Windows(node), results_met(node, x)
    parts = []
    for at in itertools.product(*met):
        results = [each[k] for each, k in zip(met, at)]
        first = [r.start * s + k * d - low for r, s, k, d, (low, _)
                 in zip(results, a.strides, at, a.dilation, a.padding)]  # fmt: skip
        stops = [f + (len(r) - 1) * s + 1 for f, r, s in zip(first, results, a.strides)]
        seen = slice(x, starts=(0, *first, 0), stops=(x.shape[0], *stops, x.shape[-1]),
                     steps=(1, *a.strides, 1))  # fmt: skip
        own = slice(w, starts=(*at, 0, 0), stops=(*(k + 1 for k in at), *w.shape[-2:]))
        part = with_attrs(node, (seen, own), padding=None, dilation=None, strides=None)
        before = (r.start for r in results)
        behind = (size - r.stop for r, size in zip(results, node.shape[1:-1]))
        parts.append(pad(part, low=(0, *before, 0), high=(0, *behind, 0)))
    trace.decision("convolution", node, "places", f"{share:.2f} of all products meet no padding")
    return reduce(add, parts)


UNMET = (
    rule("window-beyond-operand", P.conv_general(x, w), without_unmet, when=is_last),
    rule("pooling-beyond-operand", P.reduce_window(x), pooled_without_unmet),
)
PLACES = (rule("window-by-places", P.conv_general(x, w), sum_of_places, when=is_last),)
