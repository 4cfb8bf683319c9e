"""Choose the algorithm of convolutions by 3x3 windows: direct, or Winograd's on tiles.

    conv_general(x, w: f32[3,3,64,32], padding=((1,1),(1,1)))     # f32[1,14,14,32]
->  winograd(pad(x, low=(0,1,1,0), high=(0,3,3,0)), u: f32[36,64,32], tile=4, size=(14,14))

A window of k x 3 x 3 is one of 3 x 3 over k frames, whose channels lie beside each other. Windows
that move by two have tiles of their own, `F(4,3)/2`.

The weights are transformed here, so they must be constant. The algorithm is a choice of the
convolution's schedule like those of kernels: `direct`, `F(2,3)`, `F(4,3)` and so on, as far as
the option `fast_math` accepts their rounding errors. The default is that of the least cycles,
estimated at usual sizes where they vary: multiply-adds, vectors that the transforms load, compute
and store, and weights that come from memory. An infinity or NaN reaches all results of the tiles
that it lies in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import CONST, Graph, Node, array_of, constant, param, with_args
from tensorwright.ir.loop import Kernel
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim, product
from tensorwright.ops.movement import concat, pad, reshape, slice
from tensorwright.ops.winograd import (
    ERROR,
    STRIDES,
    WINDOW,
    count_of_weights,
    in_groups,
    padded_size,
    reach,
    tile_sizes,
    tiles,
    transformed_weights,
    winograd,
)
from tensorwright.passes.convolutions import Windows, is_last
from tensorwright.passes.lower import define_kernel
from tensorwright.schedule.records import ALGORITHM, Record, identity, recorded, report_unused
from tensorwright.schedule.space import ChoiceError, Choices
from tensorwright.target.target import Target

x, w = V("x"), V("w")
# fast_math -> root mean square error of a result, of the size of results
ACCEPTED = (0.0, 1e-6, 1e-5)
FAST_MATH = range(len(ACCEPTED))
FEWEST = 8  # channels of a group
USUAL = 32  # the size of a dimension that varies
NARROW = 1.4  # times what multiply-adds take: in groups narrower than a vector
GAIN = 0.9  # of the cycles of the direct form, what another must stay below
DIRECT = 0


def choose_algorithms(
    m: Module, target: Target, chosen: Callable[[Record], object] | None = None
) -> Module:
    """`m` with convolutions on transformed tiles where that pays. `chosen` is told of each
    algorithm that had an alternative."""
    seen: list[Kernel] = []

    def replaced(node: Node, x: Node, w: Node) -> Node | None:
        if node.rank not in (4, 5) or w.shape[-4:-2] != (WINDOW, WINDOW):
            return None
        reason = obstacle(node, w)
        if reason:
            trace.decision("winograd", node, "no", reason)
            return None
        tile = algorithm(node, w, target, seen, chosen)
        return None if tile == DIRECT else on_tiles(node, x, w, tile)

    rules = (rule("winograd", P.conv_general(x, w), replaced, when=is_last),)
    made = map_graphs(m, lambda g: rewrite(g, rules))
    keys = (identity(k, ALGORITHM) for k in seen) if target.schedules else ()
    report_unused(keys, target, ALGORITHM)
    return made


def algorithm(
    node: Node, w: Node, target: Target, seen: list[Kernel],
    chosen: Callable[[Record], object] | None,
) -> int:  # fmt: skip
    """The size of the tiles, or DIRECT."""
    accepted, stride = ACCEPTED[target.fast_math], stride_of(node)
    fine = {DIRECT, *(m for m in tile_sizes(stride) if ERROR[m, stride] <= accepted)}
    cycles = {m: c for m, c in cycles_of(node, w, target).items() if m in fine}
    names = {m: name_of(m, stride) for m in cycles}
    cost = {names[m]: GAIN * c if m == DIRECT else c for m, c in cycles.items()}
    given = {}
    if target.schedules or chosen is not None:
        seen.append(alone(node))
        given = recorded(seen[-1], target, ALGORITHM)
    choices = Choices(given)
    try:
        name = choices.pick(ALGORITHM, cost, cost.get)
    except ChoiceError as e:
        raise e.located((f"convolution {node.name or node.op.name}", *node.loc[:1])) from None
    tile = next(m for m in cycles if names[m] == name)
    told = ", ".join(f"{names[m]} {c / cycles[DIRECT]:.2f}" for m, c in cycles.items() if m)
    told = f"cycles, of those of the direct form: {told}" if told else "fast_math is 0"
    if tile != DIRECT:
        told = f"{told}; rounding error {ERROR[tile, stride]:.1e} of the results"
    trace.decision("winograd", node, name if tile != DIRECT else "no", told)
    if chosen is not None and len(cost) > 1:
        chosen(Record.of_algorithm(seen[-1], target, choices, f"convolution: {name}"))
    return tile


def name_of(tile: int, stride: int) -> str:
    """Of an algorithm, as schedules and explanations write it."""
    if tile == DIRECT:
        return "direct"
    return f"F({tile},{WINDOW})" + (f"/{stride}" if stride > 1 else "")


def stride_of(node: Node) -> int:
    """Of both dimensions of an image; `obstacle` says where they differ."""
    return Windows(node).strides[-1]


def alone(node: Node) -> Kernel:
    """The kernel that the convolution defines, without what will be computed beside it."""
    operands = [param(f"x{k}", a.type) for k, a in enumerate(node.args)]
    return define_kernel("conv", Graph("conv", tuple(operands), (with_args(node, operands),)))


def on_tiles(node: Node, x: Node, w: Node, tile: int) -> Node:
    """The convolution on transformed tiles."""
    size, groups, stride = node.shape[-3:-1], node.attrs["groups"], stride_of(node)
    *over_frames, (top, _), (left, _) = Windows(node).padding
    whole = padded_size(size, tile, stride)
    low = (0, *(first for first, _ in over_frames), top, left, 0)
    beyond = (whole[0] - x.shape[-3] - top, whole[1] - x.shape[-2] - left)
    high = (0, *(last for _, last in over_frames), *beyond, 0)
    around = pad(x, low=low, high=high) if any((*low, *high)) else x
    weights = array_of(w)
    if node.rank == 5:
        around = beside_each_other(node, around)
        weights = np.moveaxis(weights, 0, 2).reshape(WINDOW, WINDOW, -1, w.shape[-1])
    u = transformed_weights(weights, tile, stride)
    u = constant(u if groups == 1 else in_groups(u, groups), w.name)
    y = winograd(around, u, tile=tile, size=tuple(size), stride=stride)
    return y if y.shape == node.shape else reshape(y, shape=node.shape)


def beside_each_other(node: Node, x: Node) -> Node:
    """[N * frames of the result, H, W, k * C] of the padded x[N, frames, H, W, C]: for each frame
    of the result the channels of the k frames that its window sees."""
    a, count = Windows(node), node.shape[1]
    parts = []
    for k in range(a.sizes[0]):
        first = k * a.dilation[0]
        stop = first + (count - 1) * a.strides[0] + 1
        starts, stops = (0, first, *(0,) * 3), (x.shape[0], stop, *x.shape[2:])
        parts.append(slice(x, starts=starts, stops=stops, steps=(1, a.strides[0], 1, 1, 1)))
    seen = parts[0] if len(parts) == 1 else concat(*parts, axis=-1)
    return reshape(seen, shape=(product(seen.shape[:2]), *seen.shape[2:]))


def obstacle(node: Node, w: Node) -> str:
    """Why the algorithm does not apply to a convolution by a 3x3 window; "" if it does."""
    a = Windows(node)
    if a.strides[-2] != a.strides[-1] or a.strides[-1] not in STRIDES:
        return f"its window moves by {a.strides[-2]} and {a.strides[-1]}"
    if any(s != 1 for s in (*a.dilation[-2:], *a.spread)):
        return "its window or what it sees is spread"
    if a.sizes[0] > 1 and node.rank == 5 and node.attrs["groups"] > 1:
        return "its groups see several frames"
    if not (node.dtype is f32 and node.args[0].dtype is f32):
        return f"it computes in {node.dtype}"
    if w.op is not CONST:
        return "its weights are not constant"
    fewest = min(w.shape[-2], w.shape[-1] // node.attrs["groups"])
    if fewest < FEWEST:
        return (
            f"{fewest} channels {'of a group ' if node.attrs['groups'] > 1 else ''}fill no vector"
        )
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


def cycles_of(node: Node, w: Node, target: Target) -> dict[int, float]:
    """Tile -> cycles; DIRECT for the direct form."""
    channels, outputs = prod(w.shape[:-4]) * w.shape[-2], w.shape[-1]
    *lead, high, wide = (usual_size(d) for d in node.shape[:-1])
    batch, usual, stride = prod(lead), (high, wide), stride_of(node)
    groups = node.attrs["groups"]
    direct = direct_cycles(batch * prod(usual), channels, outputs, groups, target)
    size, on = f32.bytes * channels * outputs, {}
    for m in tile_sizes(stride):
        points, count = reach(m, stride) ** 2, batch * prod(tiles(usual, m))
        products = product_cycles(count * points, channels, outputs, groups, target)
        own = count_of_weights(m, stride)
        weights = own * size / target.memory_rate + (points - own) * size / target.rate(2 * size)
        transforms = transform_cycles(channels * groups, outputs, target)
        on[m] = max(products, weights) + count * points * transforms
    return {DIRECT: direct, **on}


def vector_cycles(lanes: int, target: Target) -> float:
    """Of an operation on vectors of so many elements."""
    return max(lanes * f32.bits / target.cycle_bits, 0.5)


def direct_cycles(points: int, channels: int, outputs: int, groups: int, target: Target) -> float:
    """Multiply-adds of vectors, each of two products of bf16 where those are asked for (transformed
    tiles stay in f32: their rounding would grow). channels: those of a group."""
    lanes = target.lanes(f32)
    pairs = 2 if target.precision == "bf16" and "bf16" in target.dots else 1
    macs = points * -(-outputs // lanes) * channels * WINDOW**2 * vector_cycles(lanes, target)
    if groups > 1 and outputs // groups < lanes:
        macs *= NARROW
    return max(macs, WINDOW**2 * channels * outputs * 4 / target.memory_rate) / pairs


def product_cycles(
    points: int, channels: int, outputs: int, groups: int, target: Target
) -> float:  # fmt: skip
    """Of whole tiles that are known at so many points, in vectors of one group. channels: those of
    a group."""
    lanes, wide = target.lanes(f32), outputs // groups
    held = min(lanes, 1 << (wide - 1).bit_length())
    return points * channels * groups * -(-wide // held) * vector_cycles(held, target)


def transform_cycles(channels: int, outputs: int, target: Target) -> float:
    """Of one point of a tile, in vectors of channels there and back: a load, about four operations,
    a store that takes as long as two."""
    lanes = target.lanes(f32)
    return (-(-channels // lanes) + -(-outputs // lanes)) * (6 * vector_cycles(lanes, target) + 1)
