"""Choose the algorithm of convolutions: direct, or Winograd's on tiles.

    conv_general(x, w: f32[3,3,64,32], padding=((1,1),(1,1)))     # f32[1,14,14,32]
->  winograd(pad(x, low=(0,1,1,0), high=(0,3,3,0)), u: f32[36,64,32], tile=(4,4), window=(3,3), ..)

Windows of 3, 5 or 7 elements, square or along one dimension, that move by one or two, or move by
one and are dilated. A sequence is an image one element high, and a window of k x 3 x 3 is one of
3 x 3 over k frames, whose channels lie beside each other. Tiles may differ along the two dimensions
of an image.

The weights are transformed here, so they must be constant. The algorithm is a choice of the
convolution's schedule like those of kernels: `direct`, `F(2,3)`, `F(4x2,3)`, `F(4,3)/2` and so on,
as far as the option `fast_math` accepts their rounding errors. The default is that of the least
cycles, estimated at usual sizes where they vary: multiply-adds, vectors that the transforms load,
compute and store, and weights, which come from memory unless a cache holds those of the whole
model. An infinity or NaN reaches all results of the tiles that it lies in.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tensorwright.base import trace
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import symbols_of
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import CONST, Node, array_of, constant
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import Dim, product
from tensorwright.ops.movement import concat, pad, reshape, slice
from tensorwright.ops.winograd import (
    ERROR,
    SAME,
    Along,
    in_groups,
    name_of,
    transformed_weights,
    winograd,
)
from tensorwright.passes.algorithms import DIRECT, Algorithms, Chosen
from tensorwright.passes.convolutions import Windows, is_last
from tensorwright.passes.unmet import share_met
from tensorwright.schedule.records import ALGORITHM
from tensorwright.target.target import Target

x, w = V("x"), V("w")
# fast_math -> root mean square error of a result, of the size of results
ACCEPTED = (0.0, 1e-6, 1e-5)
FAST_MATH = range(len(ACCEPTED))
FEWEST = 8  # channels of a group
USUAL = 32  # the size of a dimension that varies
NARROW = 1.4  # times what multiply-adds take: in groups narrower than a vector
TRANSFORMED = 4  # times the bytes of a window's weights: those of F(4,3)
GAIN = 0.9  # of the cycles of the direct form, what another must stay below
WINDOWS = {a.window for a in ERROR}

Both = tuple[Along, Along]  # what is done along the two dimensions of an image


def choose_algorithms(m: Module, target: Target, chosen: Chosen | None = None) -> Module:
    """`m` with convolutions on transformed tiles where that pays. `chosen` is told of each
    algorithm that had an alternative."""
    algorithms = Algorithms(ALGORITHM, "convolution", target, chosen)
    rate = weights_rate(m, target)

    def replaced(node: Node, x: Node, w: Node) -> Node | None:
        if not has_window(w):
            return None
        reason = obstacle(node, w)
        if reason:
            trace.decision("winograd", node, "no", reason)
            return None
        both = algorithm(node, w, target, rate, algorithms)
        return None if both is None else on_tiles(node, x, w, both)

    rules = (rule("winograd", P.conv_general(x, w), replaced, when=is_last),)
    made = map_graphs(m, lambda g: rewrite(g, rules))
    algorithms.report_unused()
    return made


def image_window(w: Node) -> tuple[Dim, ...]:
    """Height and width of the window of weights [.., h, w, I, O] or [w, I, O]."""
    return w.shape[-4:-2] if w.rank > 3 else (1, *w.shape[:1])


def has_window(w: Node) -> bool:
    """Whether there are algorithms for windows of this shape: square ones, and along one
    dimension."""
    sizes = set(image_window(w))
    return 3 <= w.rank <= 5 and (len(sizes) == 1 or 1 in sizes) and bool(sizes & WINDOWS)


def candidates(node: Node, w: Node, accepted: float) -> dict[str, Both]:
    """Algorithms by name, of rounding errors that are accepted."""
    tiled = [a for a in ERROR if (a.window, a.stride) == moving(node, w)]
    dilation = (1, *Windows(node).dilation)[-2:]
    along = [[SAME] if size == 1 else [a._replace(dilation=d) for a in tiled]
             for size, d in zip(image_window(w), dilation)]  # fmt: skip
    every = ((high, wide) for wide in along[1] for high in along[0])
    return {name_of_both(both): both for both in every if error_of(both) <= accepted}


def name_of_both(both: Both) -> str:
    """F(4,3), F(4,3)/2; of tiles that are not square F(4x2,3)."""
    high, wide = both
    if SAME in both or high.tile == wide.tile:
        return name_of(max(both))
    return name_of(high).replace(f"({high.tile},", f"({high.tile}x{wide.tile},")


def moving(node: Node, w: Node) -> tuple[Dim, Dim] | None:
    """The size of the window along dimensions in which it has more than one element, and the steps
    by which it moves; None if it moves by others elsewhere."""
    window = image_window(w)
    strides = (1, *Windows(node).strides)[-2:]
    steps = {s for s, size in zip(strides, window) if size > 1}
    still = all(s == 1 for s, size in zip(strides, window) if size == 1)
    return (max(window), *steps) if len(steps) == 1 and still else None


def error_of(both: Both) -> float:
    """Of the results, the root mean square; of tiles that are not square, that of the larger one
    on both sides, which is more."""
    return max(ERROR[a.plain][SAME not in both] for a in both if a != SAME)


def algorithm(
    node: Node, w: Node, target: Target, rate: int, algorithms: Algorithms
) -> Both | None:  # fmt: skip
    """What to do along both dimensions; None for the direct form. rate: bytes of weights that come
    in a cycle."""
    found = candidates(node, w, ACCEPTED[target.fast_math])
    cycles = cycles_of(node, w, found, target, rate)
    name = algorithms.pick(node, {n: GAIN * c if n == DIRECT else c for n, c in cycles.items()})
    told = ", ".join(f"{n} {cycles[n] / cycles[DIRECT]:.2f}" for n in found)
    none = f"none has rounding errors that fast_math = {target.fast_math} accepts"
    none = none if target.fast_math else "fast_math is 0"
    told = f"cycles, of those of the direct form: {told}" if told else none
    if name != DIRECT:
        told = f"{told}; rounding error {error_of(found[name]):.1e} of the results"
    trace.decision("winograd", node, name if name != DIRECT else "no", told)
    return found.get(name)


def on_tiles(node: Node, x: Node, w: Node, both: Both) -> Node:
    """The convolution on transformed tiles."""
    a, weights, groups = Windows(node), array_of(w), node.attrs["groups"]
    n = min(node.rank, 4) - 2  # dimensions with windows that go through transforms
    along, size = both[-n:], node.shape[1:-1][-n:]
    low, high = map(list, zip((0, 0), *a.padding, (0, 0)))
    for axis, f, d in zip(range(-n - 1, -1), along, size):
        high[axis] = f.padded(d) - x.shape[axis] - low[axis]
    around = pad(x, low=tuple(low), high=tuple(high)) if any((*low, *high)) else x
    if node.rank == 5:
        around = beside_each_other(node, around)
        weights = np.moveaxis(weights, 0, 2).reshape(*weights.shape[1:3], -1, w.shape[-1])
    u = transformed_weights(weights, *both)
    u = constant(u if groups == 1 else in_groups(u, groups), w.name)
    tile, window, stride, dilation = zip(*along)
    dilation = dilation if max(dilation) > 1 else None
    y = winograd(around, u, tile=tile, window=window, size=tuple(size), stride=stride,
                 dilation=dilation)  # fmt: skip
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
    """Why no algorithm applies to a convolution by such a window; "" if one does."""
    a = Windows(node)
    if moving(node, w) not in {(f.window, f.stride) for f in ERROR}:
        return f"its window moves by {' and '.join(map(str, a.strides[-2:]))}"
    if any(s != 1 for s in a.spread):
        return "what it sees is spread"
    if any(s > 1 and d > 1 for s, d in zip(a.strides[-2:], a.dilation[-2:])):
        return "its window is dilated and skips results"
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


def weights_rate(m: Module, target: Target) -> int:
    """Bytes of weights that come in a cycle: from a cache, if that holds those of the whole model
    from one run to the next, transformed as they may be."""
    nodes = (n for g in m.graphs.values() for n in g.nodes() if n.op is CONST)
    size = sum(prod(n.shape) * n.dtype.bits for n in nodes) // 8
    return target.rate(TRANSFORMED * size)


def cycles_of(
    node: Node, w: Node, found: dict[str, Both], target: Target, rate: int
) -> dict[str, float]:  # fmt: skip
    """Cycles of the direct form and of algorithms, by name."""
    *window, taken, outputs = w.shape
    channels, groups = prod(window[:-2]) * taken, node.attrs["groups"]
    image = image_window(w)
    *lead, high, wide = (1, *(usual_size(d) for d in node.shape[:-1]))
    batch = prod(lead)
    depth = prod(image) * channels
    met = share_met(node, node.args[0])
    direct = direct_cycles(met * batch * high * wide, depth, outputs, groups, target, rate)
    size, on = f32.bytes * channels * outputs, {DIRECT: direct}
    for name, (over, across) in found.items():
        points, own = over.reach * across.reach, over.weights * across.weights
        count = batch * over.tiles(high) * across.tiles(wide)
        products = product_cycles(count * points, channels, outputs, groups, target)
        weights = own * size / rate + (points - own) * size / target.rate(2 * size)
        transforms = transform_cycles(channels * groups, outputs, target)
        on[name] = max(products, weights) + count * points * transforms
    return on


def vector_cycles(lanes: int, target: Target) -> float:
    """Of an operation on vectors of so many elements."""
    return max(lanes * f32.bits / target.cycle_bits, 0.5)


def direct_cycles(
    points: float, depth: int, outputs: int, groups: int, target: Target, rate: int
) -> float:  # fmt: skip
    """Multiply-adds of vectors, each of two products of bf16 where those are asked for (transformed
    tiles stay in f32: their rounding would grow). depth: products that a result adds up."""
    lanes = target.lanes(f32)
    pairs = 2 if target.precision == "bf16" and "bf16" in target.dots else 1
    macs = points * -(-outputs // lanes) * depth * vector_cycles(lanes, target)
    if groups > 1 and outputs // groups < lanes:
        macs *= NARROW
    return max(macs, depth * outputs * f32.bytes / rate) / pairs


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
