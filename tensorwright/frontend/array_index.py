"""Subscripts of traced tensors: x[1, ..., ::2, None, i], masks, and x.at[...] updates.

    x[:, 1:n, i]  ->  slice, then gather     x.at[i].add(v)  ->  scatter_nd of v at the positions

Subscripts follow NumPy: integer arrays broadcast together, and their axes stand where the first one
stood if they are neighbours, else in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.frontend.size_checks import checked_by_data
from tensorwright.frontend.tracer import (
    Size,
    Tensor,
    at_user_line,
    dim_of,
    node_of,
    size_of,
    traced_error,
    wrap,
)  # fmt: skip
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import as_dim, as_expr, bounds, maximum, minimum
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv
from tensorwright.ops.define import broadcast_shapes


@dataclass
class Subscript:
    """One entry: `axis` of x it applies to (None for a new axis), and what it selects."""

    axis: int | None
    kind: str  # "new" | "slice" | "number" | "tensor"
    value: object = None


def entries(x: Node, key) -> list[Subscript]:
    """The subscripts of `key`, one an axis of x (and new axes between)."""
    key = list(key) if isinstance(key, tuple) else [key]
    key = [node_of(k) if _is_array(k) else k for k in key]
    used = sum(_axes_used(k) for k in key)
    if used > x.rank:
        raise traced_error(f"{used} subscripts for a tensor of rank {x.rank}")
    if not any(k is Ellipsis for k in key):
        key.append(Ellipsis)
    at = next(p for p, k in enumerate(key) if k is Ellipsis)
    key[at : at + 1] = [slice(None)] * (x.rank - used)
    found, axis = [], 0
    for k in key:
        if k is None:
            found.append(Subscript(None, "new"))
        elif isinstance(k, slice):
            found.append(Subscript(axis, "slice", k))
            axis += 1
        elif isinstance(k, Node):
            for one in _positions(x, k, axis):
                found.append(Subscript(axis, "tensor", one))
                axis += 1
        elif isinstance(k, (int, Size, np.integer)) and not isinstance(k, bool):
            found.append(Subscript(axis, "number", dim_of(k)))
            axis += 1
        else:
            raise traced_error(f"a tensor cannot be indexed by {k!r}")
    return found


def _is_array(k) -> bool:
    return isinstance(k, (Tensor, np.ndarray, list)) or (
        isinstance(k, np.generic) and not isinstance(k, np.integer))  # fmt: skip


def _axes_used(k) -> int:
    if k is None or k is Ellipsis:
        return 0
    return k.rank if isinstance(k, Node) and k.dtype is boolean else 1


def _positions(x: Node, k: Node, axis: int) -> list[Node]:
    """A mask as the positions it selects; integers as they are."""
    if k.dtype is not boolean:
        if not k.dtype.is_integer:
            raise traced_error(f"a tensor cannot be indexed by a tensor of {k.dtype}")
        return [k]
    if k.rank == 0:
        raise traced_error("a mask of rank 0 is not supported", help="use tw.numpy.where")
    found = ix.nonzero(k)
    count = found.shape[1]
    return [mv.reshape(mv.slice(found, starts=(a, 0), stops=(a + 1, count), steps=(1, 1)),
                       shape=(count,)) for a in range(k.rank)]  # fmt: skip


# ---- reading -----------------------------------------------------------------------------------


def get_item(x: Node, key) -> Node:
    """x[key]."""
    found = entries(x, key)
    x = _sliced(x, found)
    tensors = [s for s in found if s.kind == "tensor"]
    if tensors:
        return _advanced(x, found, tensors)
    shape, axis = [], 0
    for s in found:
        if s.kind == "new":
            shape.append(1)
            continue
        if s.kind == "slice":
            shape.append(x.shape[axis])
        axis += 1
    return x if tuple(shape) == x.shape else mv.reshape(x, shape=tuple(shape))


def _sliced(x: Node, found: list[Subscript]) -> Node:
    """x cut by the slices and numbers; axes of numbers keep size 1."""
    starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    flips = []
    for s in found:
        if s.kind == "slice":
            starts[s.axis], stops[s.axis], steps[s.axis] = slice_bounds(s.value, x.shape[s.axis])
        elif s.kind == "number":
            start = number_position(s.value, x.shape[s.axis])
            starts[s.axis], stops[s.axis] = start, as_dim(as_expr(start) + 1)
    for axis, step in enumerate(steps):
        if step < 0:  # walk backwards: flip, then step forwards
            flips.append(axis)
    if flips:
        x = mv.flip(x, axes=tuple(flips))
        for a in flips:
            n = as_expr(x.shape[a])
            starts[a], stops[a] = as_dim(n - 1 - starts[a]), as_dim(n - 1 - stops[a])
            steps[a] = -steps[a]
    if all(a == 0 for a in starts) and tuple(stops) == x.shape and all(s == 1 for s in steps):
        return x
    return mv.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def slice_bounds(s: slice, extent: Dim) -> tuple[Dim, Dim, int]:
    """(start, stop, step) of a slice, normalized; a negative step may stop at -1."""
    step = 1 if s.step is None else s.step
    if not isinstance(step, int) or step == 0:
        raise traced_error(f"a slice cannot step by {step}")
    low, high = (0, extent) if step > 0 else (-1, as_dim(as_expr(extent) - 1))
    first = (low if step > 0 else high) if s.start is None else _bound(s.start, extent, low, high)
    last = (high if step > 0 else low) if s.stop is None else _bound(s.stop, extent, low, high)
    if step > 0 and isinstance(first, int) and isinstance(last, int):
        last = max(first, last)
    elif isinstance(first, int) and isinstance(last, int):
        last = min(first, last)
    elif step > 0:
        last = as_dim(maximum(as_expr(last), as_expr(first)))
    return first, last, step


def _bound(value, extent: Dim, low: Dim, high: Dim) -> Dim:
    if isinstance(value, Tensor):
        raise traced_error(
            "a slice bound cannot be a traced tensor: the size of the result would not be known",
            help="use tw.numpy.take, or tw.numpy.size_from(x) to make the tensor a size",
        )
    d = dim_of(value)
    least = bounds(as_expr(d))
    if least[1] is not None and least[1] < 0:
        d = as_dim(as_expr(d) + extent)
    if isinstance(d, int) and isinstance(low, int) and isinstance(high, int):
        return min(max(d, low), high)
    return as_dim(minimum(maximum(as_expr(d), as_expr(low)), as_expr(high)))


def number_position(d: Dim, extent: Dim) -> Dim:
    """An integer subscript counted from the start; one that data tells is checked at run time."""
    high = bounds(as_expr(d))[1]
    start = as_dim(as_expr(d) + extent) if high is not None and high < 0 else d
    if isinstance(start, int) and isinstance(extent, int) and not 0 <= start < extent:
        raise traced_error(f"index {size_of(d)} is outside an axis of size {extent}")
    return checked_by_data(start, as_dim(as_expr(start) + 1), extent)[0]


def _advanced(x: Node, found: list[Subscript], tensors: list[Subscript]) -> Node:
    """x (already sliced) at integer tensors; numbers broadcast with them, as in NumPy."""
    axes = [s.axis for s in found if s.kind in ("tensor", "number")]
    indices = [s.value if s.kind == "tensor" else None for s in found if s.axis in axes]
    lone = len(axes) == 1 and not any(s.kind == "new" for s in found)
    if lone:
        return ix.gather(x, indices[0], axis=axes[0])
    shape = broadcast_shapes("index", *(s.value.shape for s in tensors))
    # An axis cut by a number has size 1 now: its position is 0.
    zero = constant(np.zeros((), np.int64))
    parts = [zero if i is None else i for i in indices]
    front, stacked, order = _front(x, axes, parts, shape)
    picked = ix.gather_nd(front, stacked)
    places = [k for k, s in enumerate(found) if s.kind in ("tensor", "number")]
    together = places == list(range(places[0], places[0] + len(places)))
    first = places[0] if together else 0
    before = [s for s in found[:first]]
    lead = sum(s.kind == "slice" for s in before)
    n = len(shape)
    perm = [n + k for k in range(lead)] + list(range(n))
    perm += [n + k for k in range(lead, picked.rank - n)]
    picked = mv.transpose(picked, perm=tuple(perm)) if perm != sorted(perm) else picked
    del order
    return _with_new_axes(picked, found, places, first, n)


def _with_new_axes(y: Node, found, places, first: int, n: int) -> Node:
    """Insert the axes that None asked for."""
    if not any(s.kind == "new" for s in found):
        return y
    shape, axis = [], 0

    def block():
        nonlocal axis
        shape.extend(y.shape[axis : axis + n])
        axis += n

    together = places == list(range(places[0], places[0] + len(places)))
    if not together:
        block()
    for k, s in enumerate(found):
        if together and k == first:
            block()
        if s.kind == "new":
            shape.append(1)
        elif s.kind == "slice":
            shape.append(y.shape[axis])
            axis += 1
    return mv.reshape(y, shape=tuple(shape))


def _front(x: Node, axes: list[int], parts: list[Node], shape):
    """(x with `axes` first, stacked index vectors, the permutation used)."""
    n = len(shape)
    stacked = mv.concat(
        *[mv.reshape(mv.broadcast_to(ew.cast(p, dtype=i64), shape=shape), shape=(*shape, 1))
          for p in parts], axis=n)  # fmt: skip
    order = (*axes, *(k for k in range(x.rank) if k not in axes))
    front = x if order == tuple(range(x.rank)) else mv.transpose(x, perm=order)
    return front, stacked, order


# ---- updates -----------------------------------------------------------------------------------


class _At:
    """x.at[key].set(value): a copy of x with the part at `key` replaced or combined."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.key = tensor, None

    def __getitem__(self, key) -> _At:
        found = _At(self.tensor)
        found.key = key
        return found

    def _update(self, value, mode: str) -> Tensor:
        with at_user_line():
            x = node_of(self.tensor)
            return wrap(updated(x, self.key, node_of(value, x.dtype), mode))

    def set(self, value) -> Tensor:
        return self._update(value, "set")

    def add(self, value) -> Tensor:
        return self._update(value, "add")

    def multiply(self, value) -> Tensor:
        return self._update(value, "mul")

    def min(self, value) -> Tensor:
        return self._update(value, "min")

    def max(self, value) -> Tensor:
        return self._update(value, "max")


def at_of(tensor: Tensor) -> _At:
    return _At(tensor)


def updated(x: Node, key, value: Node, mode: str) -> Node:
    """A copy of x whose part x[key] is combined with `value`."""
    if isinstance(key, (Tensor, np.ndarray)) and node_of(key).dtype is boolean and value.rank == 0:
        return _masked(x, node_of(key), value, mode)
    size = x.type.size
    places = mv.reshape(ix.iota(shape=(size,), axis=0, dtype=i64), shape=x.shape)
    picked = get_item(places, key)
    spread = mv.broadcast_to(value, shape=picked.shape)
    count = picked.type.size
    flat = [mv.reshape(v, shape=(n,)) for v, n in ((x, size), (picked, count), (spread, count))]
    done = ix.scatter_elements(*flat, axis=0, mode=mode)
    return mv.reshape(done, shape=x.shape)


def _masked(x: Node, mask: Node, value: Node, mode: str) -> Node:
    mask = mv.reshape(mask, shape=(*mask.shape, *(1,) * (x.rank - mask.rank)))
    rows = {"add": ew.add, "mul": ew.mul, "min": ew.minimum, "max": ew.maximum}
    return ew.select(mask, value if mode == "set" else rows[mode](x, value), x)
