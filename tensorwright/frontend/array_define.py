"""What the functions of the array namespace are defined with.

@function
def square(x, /): ...      # takes tensors, arrays and numbers; gives tensors at the user's line
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from tensorwright.frontend.tracer import at_user_line, result_dtype, traced_error, wrap
from tensorwright.ir.dtype import DType, f32
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.graph import Node
from tensorwright.ops import elementwise as ew


def function(f: Callable) -> Callable:
    """A function of the namespace: its nodes carry the user's line, its results are tensors."""

    @functools.wraps(f)
    def traced(*args, **kwargs):
        with at_user_line():
            return _wrapped(f(*args, **kwargs))

    return traced


def _wrapped(value):
    if isinstance(value, Node):
        return wrap(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_wrapped(v) for v in value)
    return value


def axis_of(axis: int, rank: int) -> int:
    if not -max(rank, 1) <= axis < max(rank, 1):
        raise traced_error(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % max(rank, 1)


def axes_of(axis, rank: int) -> tuple[int, ...] | None:
    if axis is None or rank == 0:
        return None
    return tuple(axis_of(a, rank) for a in ((axis,) if isinstance(axis, int) else axis))


def cast(x: Node, d) -> Node:
    return x if d is None or x.dtype is dtype_of(d) else ew.cast(x, dtype=dtype_of(d))


def floating(*xs) -> DType:
    """The type in which a function of real numbers is computed."""
    d = result_dtype(*xs)
    return d if d.is_float else f32


def named(f: Callable, name: str) -> Callable:
    f.__name__ = f.__qualname__ = name
    return function(f)
