"""Large windows step by step: a dimension after another, long ones by windows of windows.

    reduce_window(x, window=(5, 5))
        ->   reduce_window(reduce_window(x, window=(5, 1)), window=(1, 5))
    reduce_window(x, window=(64,))
        ->   reduce_window(reduce_window(x, window=(8,)), window=(8,), dilation=(8,))
    reduce_window(x, window=(7,), padding=((3, 3),))
        ->   reduce_window(pad(x, -inf), window=(7,))

Extremes of 5 x 5 elements take 10 comparisons so, not 25. Extremes of windows that overlap are
exact; sums are taken of windows that do not. Padding of what reaches far is written out, so that no
vector tests for borders.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from tensorwright.base import trace
from tensorwright.ir.expr import is_const
from tensorwright.ir.graph import Node
from tensorwright.ir.match import P, V, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ops.conv import per_axis
from tensorwright.ops.define import accumulator
from tensorwright.ops.elementwise import cast
from tensorwright.ops.movement import pad
from tensorwright.ops.window import identity_of, reduce_window
from tensorwright.passes.layout_rules import with_attrs

x = V("x")
PASS = 4  # elements that a window may see in the time of one more kernel's loads and stores
LONG = 5  # elements of a window whose border is a large part of short rows


def separate_windows(m: Module) -> Module:
    """`m` with its large windows computed step by step."""
    return map_graphs(m, lambda g: rewrite(g, RULES))


class Step(NamedTuple):
    """A window along one dimension."""

    axis: int
    window: int
    stride: int
    dilation: int


def by_steps(node: Node, x: Node) -> Node | None:
    """The same by windows along one dimension each, where these see fewer elements altogether."""
    windows, strides, dilation = (every(node, name) for name in ("window", "strides", "dilation"))
    if not all(isinstance(v, int) for v in windows) or 0 in (*x.shape, *node.shape):
        return None
    steps = [step for axis in sorted(range(x.rank), key=lambda k: -strides[k])
             for step in _steps(Step(axis, windows[axis], strides[axis], dilation[axis]),
                                node.attrs["op"])]  # fmt: skip
    if len(steps) > 1 and _cost(steps) < prod(windows):
        trace.decision("window", node, "step by step", " ".join(f"{s.window}" for s in steps))
        return _computed(_padded(node, x), steps, node)
    if any(w >= LONG and is_padded for w, is_padded in zip(windows, _are_padded(node))):
        trace.decision("window", node, "padding written out", f"{windows}")
        return with_attrs(node, (_padded(node, x),), padding=None)
    return None


def every(node: Node, name: str) -> tuple:
    """An attribute of a window along every dimension."""
    default = (0, 0) if name == "padding" else 1
    return per_axis("reduce_window", node.attrs[name], default, node.rank)


def _are_padded(node: Node) -> list[bool]:
    return [not all(is_const(v, 0) for v in pair) for pair in every(node, "padding")]


def _padded(node: Node, x: Node) -> Node:
    """x with what lies outside of it written out."""
    if not any(_are_padded(node)):
        return x
    low, high = zip(*every(node, "padding"))
    return pad(x, low=low, high=high, value=identity_of(node.attrs["op"], x.dtype))


def _cost(steps: list[Step]) -> int:
    """Elements that are seen for one result."""
    scale, cost = prod(s.stride for s in steps), 0  # what of a step's results lies below one
    for s in steps:
        scale //= s.stride
        cost += scale * (s.window + PASS)
    return cost


def _steps(whole: Step, op: str) -> list[Step]:
    """The window as one of windows, where that is less; as it is elsewhere."""
    if whole.window == 1 and whole.stride == 1:
        return []
    found = [[whole]]
    for first in range(2, whole.window):
        for apart in [first] if op == "sum" else range(first, 0, -1):
            if (whole.window - first) % apart == 0:
                count = (whole.window - first) // apart + 1
                inner = whole._replace(window=first, stride=1)
                found.append([inner, whole._replace(window=count,
                              dilation=apart * whole.dilation)])  # fmt: skip
                break
    return min(found, key=_cost)


def _computed(x: Node, steps: list[Step], node: Node) -> Node:
    op, dtype = node.attrs["op"], node.dtype
    wide = accumulator(dtype) if op == "sum" else dtype  # sums are rounded once
    y = x if wide is dtype else cast(x, dtype=wide)
    for s in steps:
        only = lambda v: tuple(v if k == s.axis else 1 for k in range(node.rank))  # noqa: B023
        y = reduce_window(y, op=op, window=only(s.window), strides=only(s.stride),
                          dilation=only(s.dilation))  # fmt: skip
    return y if wide is dtype else cast(y, dtype=dtype)


RULES = (rule("window-by-steps", P.reduce_window(x), by_steps),)
