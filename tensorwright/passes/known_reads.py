"""Reads at computed positions that are known: slices, repeats, or one number.

    gather(x: f32[512,8], slice(arange, starts=(0,), stops=(n,)))   ->   slice(x, stops=(n, 8))
    gather_nd(m: bool[b,s], grid of all positions: i64[b,1,1,s,2])  ->   reshape(m, shape=(b,1,1,s))
    gather(t: f32[2,8], full(shape=(b,s), value=0))                 ->   broadcast_to(slice(t), ...)
    gather(x: f32[c,2], [0, 0, 0, 1, 1, 1], axis=1)                 ->   broadcast_to(x: f32[c,2,1])
    gather(x: f32[c,3], [0, 0, 0, 1, 1, 2], axis=1), weighted       ->   concat(x[:1], twice, x[2:])

Positions are followed through the graph as index expressions (`elements`); what is not proved to
lie inside the tensor stays a gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.ir.expr import Expr, as_dim, as_expr, const, is_const
from tensorwright.ir.graph import CONST, Node, array_of
from tensorwright.ir.match import P, Rest, rule
from tensorwright.ir.type import Dim
from tensorwright.ops.elementwise import add, mul
from tensorwright.ops.index import gather
from tensorwright.ops.movement import broadcast_to, concat, reshape, slice, transpose
from tensorwright.ops.positions import full
from tensorwright.passes.canonicalize_slices import proved
from tensorwright.passes.elements import element, positions
from tensorwright.passes.pointwise import shrunk
from tensorwright.schedule.maps import MAX_STRIDE


@dataclass(frozen=True)
class Span:
    """Elements [start, start + length) of one dimension, along axis `out` of the result (None: the
    one element serves all)."""

    start: Dim
    length: Dim
    out: int | None


def span_of(e: Expr | None, at: Sequence[Expr], shape, extent: Dim) -> Span | None:
    """How a position that is constant, or runs along one axis of the result, walks a dimension."""
    if e is None:
        return None
    axes = [k for k, i in enumerate(at) if not is_const(i) and i in _parts(e)]
    if len(axes) > 1:
        return None
    out = axes[0] if axes else None
    start = e - at[out] if axes else e
    if axes and at[out] in _parts(start):
        return None
    length = shape[out] if axes else 1
    inside = proved("le", 0, start) and proved("le", start + as_expr(length), extent)
    return Span(as_dim(start), length, out) if inside else None


def _parts(e: Expr) -> set[Expr]:
    found, todo = set(), [e]
    while todo:
        x = todo.pop()
        found.add(x)
        todo.extend(x.args)
    return found


def box(x: Node, spans: Sequence[Span], shape) -> Node | None:
    """The elements of x in the spans, as a result of the given shape."""
    used = [s.out for s in spans if s.out is not None]
    if len(set(used)) != len(used):
        return None
    starts = tuple(s.start for s in spans)
    stops = tuple(as_dim(as_expr(s.start) + as_expr(s.length)) for s in spans)
    part = slice(x, starts=starts, stops=stops)
    order = sorted(range(len(spans)), key=lambda k: -1 if spans[k].out is None else spans[k].out)
    part = transpose(part, perm=tuple(order))
    aligned = tuple(d if k in used else 1 for k, d in enumerate(shape))
    return broadcast_to(reshape(part, shape=aligned), shape=shape)


def known_gather(node: Node) -> Node | None:
    x, indices = node.args
    axis = node.attrs["axis"] % x.rank
    at = positions(node.shape)
    own = at[axis : axis + indices.rank]
    e = _wrapped(element(indices, own), x.shape[axis])
    found = span_of(e, at, node.shape, x.shape[axis])
    if found is None:
        return None
    shift = indices.rank - 1
    spans = [Span(0, d, k if k < axis else k + shift) for k, d in enumerate(x.shape)]
    spans[axis] = found
    return box(x, spans, node.shape)


def repeated(node: Node) -> Node | None:
    """x with each of its positions along an axis several times in a row (scaled up by a whole
    number), if that is what the indices say."""
    x, indices = node.args
    axis = node.attrs["axis"] % x.rank
    d = x.shape[axis]
    if indices.op is not CONST or indices.rank != 1 or not isinstance(d, int) or d < 1:
        return None
    times = indices.shape[0] // d
    if times < 2 or not np.array_equal(array_of(indices), np.repeat(np.arange(d), times)):
        return None
    return copies(x, axis, times)


def copies(x: Node, axis: int, times: int) -> Node:
    """x with each of its positions along an axis several times in a row."""
    before, d, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    apart = reshape(x, shape=(*before, d, 1, *after))
    several = broadcast_to(apart, shape=(*before, d, times, *after))
    return reshape(several, shape=(*before, d * times, *after))


def repeated_between_ends(node: Node) -> Node | None:
    """The same of what is read along the last axis, with a few more of the first and the last
    element."""
    x, indices = node.args
    d = x.shape[-1]
    if node.attrs["axis"] % x.rank != x.rank - 1 or indices.op is not CONST or indices.rank != 1:
        return None
    at = array_of(indices)
    steps = np.flatnonzero(np.diff(at)) + 1  # where another element begins
    if len(steps) < 3 or not isinstance(d, int) or at.min() < 0 or at.max() >= d:
        return None
    times = steps[1] - steps[0]
    begin = steps[0] - times if steps[0] >= times else steps[0]
    end = steps[-1] + times if len(at) - steps[-1] >= times else steps[-1]
    between = np.repeat(np.arange(at[begin], at[end - 1] + 1), times)
    short = max(begin, len(at) - end) < times
    if not (short and 1 < times <= MAX_STRIDE and np.array_equal(at[begin:end], between)):
        return None

    def part(first: int, last: int) -> Node:
        starts = (*(0,) * (x.rank - 1), int(at[first]))
        return slice(x, starts=starts, stops=(*x.shape[:-1], int(at[last - 1]) + 1))

    first, last = (
        [broadcast_to(part(a, b), shape=(*x.shape[:-1], int(b - a)))] if a < b else []
        for a, b in ((0, begin), (end, len(at)))
    )
    middle = copies(part(begin, end), x.rank - 1, int(times))
    return concat(*first, middle, *last, axis=-1) if first or last else middle


def interpolated(node: Node) -> Node | None:
    """A weighted sum of two neighbours each (scaled up by linear interpolation), both of which are
    repeated: whole vectors are read between the ends, which both have at the same places. Of more
    neighbours they have not, and what is cut into more parts was slower."""
    made = []
    for product in node.args:
        if product.op is not mul or product.args[0].op is not gather:
            return None
        made.append(repeated_between_ends(product.args[0]))
    if None in made:
        return None
    return add(*(mul(x, product.args[1]) for x, product in zip(made, node.args)))


def known_gather_elements(node: Node) -> Node | None:
    x, indices = node.args
    axis = node.attrs["axis"] % x.rank
    at = positions(node.shape)
    e = _wrapped(element(indices, at), x.shape[axis])
    found = span_of(e, at, node.shape, x.shape[axis])
    if found is None:
        return None
    spans = [Span(0, d, k) for k, d in enumerate(node.shape)]
    spans[axis] = found
    return box(x, spans, node.shape)


def known_gather_nd(node: Node) -> Node | None:
    x, indices = node.args
    if node.attrs["batch_dims"] != 0 or indices.shape[-1] != x.rank:
        return None
    at = positions(node.shape)
    spans = []
    for k, d in enumerate(x.shape):
        e = _wrapped(element(indices, (*at, const(k))), d)
        spans.append(span_of(e, at, node.shape, d))
    return None if None in spans else box(x, spans, node.shape)


def _wrapped(e: Expr | None, extent: Dim) -> Expr | None:
    """A negative constant position counts from the end."""
    return e + as_expr(extent) if e is not None and is_const(e) and e.value < 0 else e


def from_uniform(node: Node) -> Node | None:
    """Whatever is read from a tensor of one number is that number."""
    x = node.args[0]
    if x.op.name == "full":
        value = x.attrs["value"]
    elif x.op is CONST and x.type.size and shrunk(x).rank == 0:
        value = array_of(x).flat[0].item()
    else:
        return None
    return full(shape=node.shape, value=value, dtype=node.dtype)


READS = (
    *(rule("read-of-one-number", getattr(P, op)(Rest("xs")), from_uniform)
      for op in ("gather", "gather_elements", "gather_nd", "slice")),
    rule("known-gather", P.gather(Rest("xs")), known_gather),
    rule("known-gather", P.gather_elements(Rest("xs")), known_gather_elements),
    rule("known-gather", P.gather_nd(Rest("xs")), known_gather_nd),
)  # fmt: skip
REPEATS = (
    rule("gather-of-repeats", P.gather(Rest("xs")), repeated),
    rule("interpolation-of-repeats", P.add(Rest("xs")), interpolated),
)
