"""Choose Winograd's algorithm for convolutions by 3x3 windows, where it is faster and right enough.

    conv_general(x, w: f32[3,3,64,32], padding=((1,1),(1,1)))     # f32[1,14,14,32]
->  winograd(pad(x, low=(0,1,1,0), high=(0,3,3,0)), u: f32[36,64,32], tile=4, size=(14,14))

The weights are transformed here, so they must be constant. Which tile is taken, or none, follows
from cycles estimated for each, at usual sizes where they vary: multiply-adds, vectors that the
transforms load, compute and store, and weights that come from memory. What rounding errors are
accepted is the option `fast_math`. An infinity or NaN reaches all results of the tiles that it
lies in.
"""

from __future__ import annotations

from math import prod

from tensorwright.base import trace
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import CONST, Node, array_of, constant
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim
from tensorwright.ops.movement import pad
from tensorwright.ops.winograd import (
    ERROR,
    TILES,
    WINDOW,
    padded_size,
    reach,
    tiles,
    transformed_weights,
    winograd,
)
from tensorwright.passes.convolutions import Windows, is_last
from tensorwright.target.target import Target

x, w = V("x"), V("w")
# fast_math -> root mean square error of a result, of the size of results
ACCEPTED = (0.0, 1e-6, 1e-5)
FAST_MATH = range(len(ACCEPTED))
FEWEST = 8  # channels
BYTES_A_CYCLE = 8  # of weights, from where they lie to where they are used
USUAL = 32  # the size of a dimension that varies
GAIN = 0.9  # of the cycles of the direct form, what another must stay below


def choose_algorithms(m: Module, target: Target) -> Module:
    """`m` with convolutions on transformed tiles where that pays."""

    def replaced(node: Node, x: Node, w: Node) -> Node | None:
        return on_tiles(node, x, w, target)

    rules = (rule("winograd", P.conv_general(x, w), replaced, when=is_last),)
    return map_graphs(m, lambda g: rewrite(g, rules))


def on_tiles(node: Node, x: Node, w: Node, target: Target) -> Node | None:
    accepted = ACCEPTED[target.fast_math]
    if node.rank != 4 or node.args[1].shape[:2] != (WINDOW, WINDOW):
        return None
    reason = obstacle(node, w) or ("" if accepted else "fast_math is 0")
    if reason:
        trace.decision("winograd", node, "no", reason)
        return None
    size, (batch, channels, outputs) = node.shape[1:3], (x.shape[0], w.shape[2], w.shape[3])
    usual = [usual_size(d) for d in (batch, *size)]
    direct = direct_cycles(prod(usual), channels, outputs, target)
    cycles = {m: tiled_cycles(m, usual[0], usual[1:], channels, outputs, target)
              for m in TILES if ERROR[m] <= accepted}  # fmt: skip
    best = min(cycles, key=cycles.get)
    told = ", ".join(f"F({m},3) {c / direct:.2f}" for m, c in cycles.items())
    told = f"cycles, of those of the direct form: {told}"
    if cycles[best] > GAIN * direct:
        trace.decision("winograd", node, "no", told)
        return None
    told = f"{told}; rounding error {ERROR[best]:.1e} of the results"
    trace.decision("winograd", node, f"F({best},3)", told)
    (top, _), (left, _) = Windows(node).padding
    whole = padded_size(size, best)
    low = (0, top, left, 0)
    high = (0, whole[0] - x.shape[1] - top, whole[1] - x.shape[2] - left, 0)
    around = pad(x, low=low, high=high) if any((*low, *high)) else x
    u = constant(transformed_weights(array_of(w), best), w.name)
    return winograd(around, u, tile=best, size=tuple(size))


def obstacle(node: Node, w: Node) -> str:
    """Why the algorithm does not apply to a convolution by a 3x3 window; "" if it does."""
    a = Windows(node)
    if node.attrs["groups"] != 1:
        return f"{node.attrs['groups']} groups"
    if any(s != 1 for s in (*a.strides, *a.dilation, *a.spread)):
        return "its window moves or spreads by more than one"
    if not (node.dtype is f32 and node.args[0].dtype is f32):
        return f"it computes in {node.dtype}"
    if w.op is not CONST:
        return "its weights are not constant"
    if min(w.shape[2:]) < FEWEST:
        return f"{min(w.shape[2:])} channels fill no vector"
    return "it is empty" if 0 in node.shape else ""


def usual_size(d: Dim) -> int:
    """A size, for estimates."""
    if isinstance(d, int):
        return d
    values = {}
    for s in symbols_of(d):
        size = max(USUAL if s.max is None else min(USUAL, s.max), s.min or 0, s.multiple_of)
        values[s] = size // s.multiple_of * s.multiple_of
    return max(evaluate(d, values), 1)


# ---- costs -------------------------------------------------------------------------------------


def direct_cycles(points: int, channels: int, outputs: int, target: Target) -> float:
    """Two multiply-adds of vectors a cycle, each of two products of bf16 where those are asked for
    (transformed tiles stay in f32: their rounding would grow)."""
    lanes = target.lanes(f32)
    pairs = 2 if target.precision == "bf16" and "bf16" in target.dots else 1
    macs = points * -(-outputs // lanes) * channels * WINDOW**2 / 2
    return max(macs, WINDOW**2 * channels * outputs * 4 / BYTES_A_CYCLE) / pairs


def tiled_cycles(m: int, batch: int, size, channels: int, outputs: int, target: Target) -> float:
    """Products of whole tiles, against weights that must be read; transforms."""
    lanes, points = target.lanes(f32), reach(m) ** 2
    count = batch * prod(tiles(size, m))
    inputs, results = -(-channels // lanes), -(-outputs // lanes)
    products = count * points * channels * results / 2
    weights = points * channels * outputs * 4 / BYTES_A_CYCLE
    return max(products, weights) + count * (inputs + results) * transform_cycles(m)


def transform_cycles(m: int) -> float:
    """Of one vector of one tile: a load, about two operations and a store (which take two cycles)
    for each point in each direction."""
    return 4.5 * reach(m) ** 2
