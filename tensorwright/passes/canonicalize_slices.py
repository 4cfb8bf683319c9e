"""Rules for slices, pads, concatenations and reads at constant positions.

slice(slice(x, starts=(2,), stops=(9,)), starts=(1,), stops=(3,))  ->  slice(x, (3,), (5,))
gather(x: f32[4,3], 1, axis=0)                  ->   reshape(slice(x, starts=(1,0), ...), (3,))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import as_dim, as_expr, compare, const, is_const
from tensorwright.ir.graph import Node, array_of
from tensorwright.ir.match import A, P, Rest, V, rule
from tensorwright.ir.type import Dim
from tensorwright.ops.movement import broadcast_to, concat, pad, reshape, slice, slice_axis
from tensorwright.ops.positions import full

x, y, c, xs = V("x"), V("y"), V("c", const=True), Rest("xs")


def proved(op: str, a, b) -> bool:
    """Whether the comparison of two dimensions is known to hold."""
    return compare(op, as_expr(a), as_expr(b)) is const(True, boolean)


def steps_of(node: Node) -> tuple[int, ...]:
    return node.attrs["steps"] or (1,) * node.rank


def typed(made: Node, node: Node) -> Node | None:
    """`made`, unless what is known of symbols gives it another type."""
    return made if made.type == node.type else None


# ---- slices ------------------------------------------------------------------------------------


def _is_whole(node: Node, x: Node) -> bool:
    return x.shape == node.shape and all(s == 1 for s in steps_of(node))


def slice_of_slice(node: Node, y: Node, x: Node) -> Node | None:
    outer, inner = steps_of(node), steps_of(y)
    if any(s < 0 for s in (*outer, *inner)):
        return None
    steps = [a * b for a, b in zip(inner, outer)]
    starts = [as_expr(a) + as_expr(b) * s
              for a, b, s in zip(y.attrs["starts"], node.attrs["starts"], inner)]  # fmt: skip
    stops = [as_dim(b + (as_expr(n) - 1) * s + 1) for b, n, s in zip(starts, node.shape, steps)]
    if any(n == 0 for n in node.shape):
        return None
    made = slice(x, starts=tuple(map(as_dim, starts)), stops=tuple(stops), steps=tuple(steps))
    return typed(made, node)


def slice_of_concat(node: Node, xs: Sequence[Node], axis: int) -> Node | None:
    """The slice of only those operands that it reads from."""
    axis %= node.rank
    start, stop = node.attrs["starts"][axis], node.attrs["stops"][axis]
    if steps_of(node)[axis] < 0 or node.shape[axis] == 0:
        return None
    ends = list(accumulate((as_expr(p.shape[axis]) for p in xs), initial=const(0)))
    kept = [k for k, (a, b) in enumerate(pairwise(ends))
            if not (proved("le", b, start) or proved("le", stop, a))]  # fmt: skip
    if len(kept) == len(xs) or not kept or kept[-1] - kept[0] >= len(kept):
        return None
    first = ends[kept[0]]
    whole = xs[kept[0]] if len(kept) == 1 else concat(*(xs[k] for k in kept), axis=axis)
    moved = lambda values: tuple(as_dim(as_expr(v) - first) if a == axis else v
                                 for a, v in enumerate(values))  # fmt: skip
    made = slice(whole, starts=moved(node.attrs["starts"]), stops=moved(node.attrs["stops"]),
                 steps=steps_of(node))  # fmt: skip
    return typed(made, node)


def slice_of_pad(node: Node, y: Node, x: Node) -> Node | None:
    """A slice that stays clear of the padding."""
    if y.attrs["mode"] != "constant" or any(s < 0 for s in steps_of(node)):
        return None
    starts = [as_expr(a) - as_expr(p) for a, p in zip(node.attrs["starts"], y.attrs["low"])]
    stops = [as_expr(a) - as_expr(p) for a, p in zip(node.attrs["stops"], y.attrs["low"])]
    bare = [is_const(a, 0) and is_const(b, 0) for a, b in zip(y.attrs["low"], y.attrs["high"])]
    inside = all(
        whole or (proved("le", 0, a) and proved("le", b, d))
        for whole, a, b, d in zip(bare, starts, stops, x.shape)
    )
    if not inside:
        return None
    made = slice(x, starts=tuple(map(as_dim, starts)), stops=tuple(map(as_dim, stops)),
                 steps=steps_of(node))  # fmt: skip
    return typed(made, node)


def slice_of_broadcast(node: Node, y: Node, x: Node) -> Node | None:
    """Slice what is broadcast, where it is not one element repeated."""
    lead = y.rank - x.rank
    real = [d == y.shape[k + lead] for k, d in enumerate(x.shape)]
    pick = lambda name, other: tuple(v if r else other for v, r in zip(name[lead:], real))
    part = slice(x, starts=pick(node.attrs["starts"], 0), stops=pick(node.attrs["stops"], 1),
                 steps=pick(steps_of(node), 1))  # fmt: skip
    return typed(broadcast_to(part, shape=node.shape), node)


SLICES = (
    rule("slice-of-all", P.slice(x), lambda x: x, when=_is_whole),
    rule("slice-of-slice", P.slice(P.slice(x)),
         lambda node, x: slice_of_slice(node, node.args[0], x)),
    rule("slice-of-concat", P.slice(P.concat(xs, axis=A("axis"))), slice_of_concat),
    rule("slice-of-pad", P.slice(P.pad(x)), lambda node, x: slice_of_pad(node, node.args[0], x)),
    rule("slice-of-broadcast", P.slice(P.broadcast_to(x)),
         lambda node, x: slice_of_broadcast(node, node.args[0], x)),
    rule("slice-of-full", P.slice(P.full(value=A("v"))),
         lambda node, v: full(shape=node.shape, value=v, dtype=node.dtype)),
)  # fmt: skip


# ---- pads --------------------------------------------------------------------------------------


def pad_of_pad(node: Node, y: Node, x: Node) -> Node | None:
    """Two constant pads of one value, none of which crops."""
    a, b = node.attrs, y.attrs
    same = a["mode"] == b["mode"] == "constant" and const(a["value"], x.dtype) is const(
        b["value"], x.dtype)  # fmt: skip
    grows = all(proved("le", 0, v) for v in (*a["low"], *a["high"], *b["low"], *b["high"]))
    if not (same and grows):
        return None
    total = lambda side: tuple(as_dim(as_expr(p) + as_expr(q)) for p, q in zip(a[side], b[side]))
    return typed(pad(x, low=total("low"), high=total("high"), value=a["value"]), node)


def cropping(node: Node, x: Node) -> Node | None:
    """A pad that only takes away is a slice."""
    low, high = node.attrs["low"], node.attrs["high"]
    if not all(isinstance(v, int) and v <= 0 for v in (*low, *high)):
        return None
    starts = tuple(-v for v in low)
    stops = tuple(as_dim(as_expr(d) + h) for d, h in zip(x.shape, high))
    return typed(slice(x, starts=starts, stops=stops), node)


PADS = (
    rule("pad-by-nothing", P.pad(x), lambda x: x,
         when=lambda node: not any(map(bool_of, (*node.attrs["low"], *node.attrs["high"])))),
    rule("pad-of-pad", P.pad(P.pad(x)), lambda node, x: pad_of_pad(node, node.args[0], x)),
    rule("pad-that-crops", P.pad(x), cropping),
)  # fmt: skip


def bool_of(amount: Dim) -> bool:
    return not is_const(amount, 0)


# ---- concatenations ----------------------------------------------------------------------------


def flat_concat(xs: Sequence[Node], axis: int) -> Node | None:
    """Nested concatenations in one, without empty operands."""
    axis %= xs[0].rank
    parts: list[Node] = []
    for p in xs:
        nested = p.op is concat and p.attrs["axis"] % p.rank == axis
        parts += p.args if nested else (p,)
    kept = [p for p in parts if p.shape[axis] != 0] or parts[:1]
    if kept == list(xs):
        return None
    return kept[0] if len(kept) == 1 else concat(*kept, axis=axis)


def rejoined(node: Node, xs: Sequence[Node], axis: int) -> Node | None:
    """Slices of one tensor that follow each other, as one slice."""
    axis %= node.rank
    parts = [xs[0]]
    for p in xs[1:]:
        both = _joined(parts[-1], p, axis)
        parts[-1:] = [parts[-1], p] if both is None else [both]
    if len(parts) == len(xs):
        return None
    return typed(parts[0] if len(parts) == 1 else concat(*parts, axis=axis), node)


def _joined(a: Node, b: Node, axis: int) -> Node | None:
    if a.op is not slice or b.op is not slice or a.args[0] is not b.args[0]:
        return None
    if any(s != 1 for s in (*steps_of(a), *steps_of(b))):
        return None
    rest = lambda n: [v for k, v in enumerate((*n.attrs["starts"], *n.attrs["stops"]))
                      if k % a.rank != axis]  # fmt: skip
    if rest(a) != rest(b) or a.attrs["stops"][axis] != b.attrs["starts"][axis]:
        return None
    stops = tuple(b.attrs["stops"][k] if k == axis else v for k, v in enumerate(a.attrs["stops"]))
    return slice(a.args[0], starts=a.attrs["starts"], stops=stops)


CONCATS = (
    rule("concat-of-one", P.concat(x), lambda x: x),
    rule("flat-concat", P.concat(xs, axis=A("axis")), flat_concat),
    rule("concat-of-slices", P.concat(xs, axis=A("axis")), rejoined),
)  # fmt: skip


# ---- constant positions ------------------------------------------------------------------------


def gather_of_range(node: Node, x: Node, c: Node, axis: int) -> Node | None:
    """Reading evenly spaced rows is a slice."""
    axis %= x.rank
    at = array_of(c).astype(np.int64)
    if at.ndim > 1 or at.size == 0:
        return None
    places = _places(at.reshape(-1), x.shape[axis])
    if places is None:
        return None
    step = _distance(*places[:2]) if len(places) > 1 else 1
    if not isinstance(step, int) or step < 1:
        return None
    if any(_distance(a, b) != step for a, b in pairwise(places[1:])):
        return None
    stop = as_dim(as_expr(places[-1]) + 1)
    part = slice_axis(x, axis, places[0], stop, step)
    return typed(part if at.ndim else reshape(part, shape=node.shape), node)


def _places(at: np.ndarray, extent: Dim) -> list[Dim] | None:
    """Where indices point; None if that is not known of all."""
    if isinstance(extent, int):
        return np.clip(np.where(at < 0, at + extent, at), 0, extent - 1).tolist()
    places = [_place(int(v), extent) for v in at]
    return None if None in places else places


def _distance(a: Dim, b: Dim) -> Dim:
    return b - a if isinstance(a, int) and isinstance(b, int) else as_dim(as_expr(b) - as_expr(a))


def _place(v: int, extent: Dim) -> Dim | None:
    """Where an index points; None if that is not known (it may have to be clamped)."""
    at = as_expr(extent) + v if v < 0 else as_expr(v)
    return as_dim(at) if proved("le", 0, at) and proved("lt", at, extent) else None


def fixed_window(node: Node, x: Node, starts: Sequence[Dim]) -> Node | None:
    """A window at known positions that is known to fit."""
    first: list[Dim] = []
    for v, d, n in zip(starts, x.shape, node.attrs["sizes"]):
        room = as_dim(as_expr(d) - as_expr(n))
        if isinstance(v, int) and isinstance(room, int):
            v = min(max(v, 0), room)
        elif not (proved("le", 0, v) and proved("le", v, room)):
            return None
        first.append(v)
    stops = tuple(as_dim(as_expr(v) + as_expr(n)) for v, n in zip(first, node.attrs["sizes"]))
    return typed(slice(x, starts=tuple(first), stops=stops), node)


POSITIONS = (
    rule("gather-of-range", P.gather(x, c, axis=A("axis")), gather_of_range),
    rule("window-at-constant", P.dynamic_slice(x, c),
         lambda node, x, c: fixed_window(node, x, [int(v) for v in array_of(c)])),
    rule("window-at-sizes", P.dynamic_slice(x, P.size(dims=A("dims"))),
         lambda node, x, dims: fixed_window(node, x, dims)),
)  # fmt: skip

SLICE_RULES = (*SLICES, *PADS, *CONCATS, *POSITIONS)
