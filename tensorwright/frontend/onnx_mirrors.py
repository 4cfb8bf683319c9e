"""The mirrors of operators that compute shapes: arrays of ints and index expressions.

    Gather([n, 3, h], 2)  ->  h        Add([n], [1])  ->  [n + 1]        Where(n == -1, 1, n)  ->  n

A rule takes the mirrors of the operands (None where left out) and the attributes, and gives the
mirror of the result, or None where it does not know it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import (
    Expr,
    as_expr,
    binary,
    bounds,
    compare,
    maximum,
    minimum,
    mod,
    select,
)
from tensorwright.ir.expr import cast as cast_expr

MAX_MIRROR = 1024  # elements; larger integer tensors are data, not shapes

RULES: dict[str, Callable] = {}


def rule(*names: str, passes_on: int = 0):
    """Register the mirror of operators: (arrays of ints and Exprs, attributes) -> array or None.

    passes_on: the result's elements are those of that many first operands, so what is asked of it
    is asked of them.
    """

    def register(f):
        f.passes_on = passes_on
        for name in names:
            RULES[name] = f
        return f

    return register


def as_mirror(array: np.ndarray) -> np.ndarray:
    """Ints (bools for a bool array) as an array of objects."""
    return objects(array.reshape(-1).tolist(), array.shape)


def objects(values: list, shape) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out.reshape(shape)


def _each(f: Callable, *arrays: np.ndarray) -> np.ndarray:
    """`f` over the elements of broadcast arrays."""
    arrays = np.broadcast_arrays(*arrays)
    values = [f(*e) for e in zip(*(a.reshape(-1) for a in arrays))]
    return objects(values, arrays[0].shape)


def _index(v) -> Expr:
    if isinstance(v, Expr) and v.dtype is boolean:
        return cast_expr(v, "index")
    return as_expr(int(v) if not isinstance(v, Expr) else v)


def _lift(f: Callable) -> Callable:
    """A function of index expressions on mirror elements."""

    def lifted(*values):
        result = f(*map(_index, values))
        if result.op == "const":
            return result.value
        return result

    return lifted


def _binary(f: Callable):
    return lambda m, attrs: _each(_lift(f), *m) if len(m) == 2 else None


def _fold(f: Callable):
    def mirror(m, attrs):
        result = m[0]
        for other in m[1:]:
            result = _each(_lift(f), result, other)
        return result

    return mirror


def _divide(a: Expr, b: Expr) -> Expr:
    """ONNX divides integers rounding to zero."""
    low_a, low_b = bounds(a)[0], bounds(b)[0]
    if low_a is not None and low_a >= 0 and low_b is not None and low_b >= 0:
        return a // b
    return binary("truncdiv", a, b)


rule("Add", "Sum")(_fold(lambda a, b: a + b))
rule("Sub")(_binary(lambda a, b: a - b))
rule("Mul")(_binary(lambda a, b: a * b))
rule("Div")(_binary(_divide))
rule("Min")(_fold(minimum))
rule("Max")(_fold(maximum))
rule("Equal")(_binary(lambda a, b: compare("eq", a, b)))
rule("Less")(_binary(lambda a, b: compare("lt", a, b)))
rule("LessOrEqual")(_binary(lambda a, b: compare("le", a, b)))
rule("Greater")(_binary(lambda a, b: compare("gt", a, b)))
rule("GreaterOrEqual")(_binary(lambda a, b: compare("ge", a, b)))


@rule("Mod")
def _mod(m, attrs):
    return None if attrs.get("fmod") else _each(_lift(mod), *m)


@rule("Neg")
def _neg(m, attrs):
    return _each(_lift(lambda a: -a), m[0])


@rule("Abs")
def _abs(m, attrs):
    return _each(_lift(lambda a: maximum(a, -a)), m[0])


@rule("Not")
def _not(m, attrs):
    if any(isinstance(v, Expr) for v in m[0].flat):
        return None
    return _each(lambda a: not a, m[0])


@rule("And")
def _and(m, attrs):
    return _truth(m, lambda a, b: a and b)


@rule("Or")
def _or(m, attrs):
    return _truth(m, lambda a, b: a or b)


def _truth(m, f):
    if any(isinstance(v, Expr) for a in m for v in a.flat):
        return None
    return _each(lambda a, b: bool(f(a, b)), *m)


@rule("Identity", passes_on=1)
def _identity(m, attrs):
    return m[0]


@rule("Cast", passes_on=1)
def _cast(m, attrs):
    if attrs.get("to") in (6, 7, 12, 13):
        return _each(_lift(lambda a: a), m[0])
    if attrs.get("to") == 9 and not any(isinstance(v, Expr) for v in m[0].flat):
        return _each(bool, m[0])
    return None


@rule("Where")
def _where(m, attrs):
    def pick(c, a, b):
        if not isinstance(c, Expr):
            return a if c else b
        if c.dtype is not boolean:
            return None
        return _lift(lambda x, y: select(c, x, y))(a, b)

    result = _each(pick, *m)
    return None if any(v is None for v in result.flat) else result


@rule("Concat", passes_on=MAX_MIRROR)
def _concat(m, attrs):
    return np.concatenate(m, axis=attrs.get("axis", 0)) if all(a.ndim for a in m) else None


@rule("Gather", passes_on=1)
def _gather(m, attrs):
    data, indices = m
    axis = attrs.get("axis", 0)
    if any(isinstance(v, Expr) for v in indices.flat) or not -data.ndim <= axis < data.ndim:
        return None
    at = np.array(indices.tolist(), dtype=np.int64).reshape(indices.shape)
    if at.size and not (-data.shape[axis] <= at.min() and at.max() < data.shape[axis]):
        return None
    return _array(np.take(data, at, axis=axis))


@rule("Unsqueeze", passes_on=1)
def _unsqueeze(m, attrs):
    axes = _axes(m, attrs)
    if axes is None:
        return None
    rank = m[0].ndim + len(axes)
    if any(not -rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        return None
    return np.expand_dims(m[0], tuple(axes))


@rule("Squeeze", passes_on=1)
def _squeeze(m, attrs):
    axes = _axes(m, attrs)
    rank = m[0].ndim
    if axes is None:
        axes = [a for a, d in enumerate(m[0].shape) if d == 1] if len(m) == 1 else None
    if axes is None or any(not -rank <= a < rank or m[0].shape[a] != 1 for a in axes):
        return None
    return m[0].reshape([d for a, d in enumerate(m[0].shape) if a not in {x % rank for x in axes}])


def _axes(m, attrs) -> list[int] | None:
    if "axes" in attrs:
        return list(attrs["axes"])
    if len(m) < 2 or m[1] is None or any(isinstance(v, Expr) for v in m[1].flat):
        return None
    return [int(v) for v in m[1].flat]


@rule("Reshape", passes_on=1)
def _reshape(m, attrs):
    if len(m) != 2 or any(isinstance(v, Expr) for v in m[1].flat):
        return None
    shape = [int(v) for v in m[1].flat]
    if 0 in shape:
        return None
    try:
        return m[0].reshape(shape)
    except ValueError:
        return None


@rule("Slice", passes_on=1)
def _slice(m, attrs):
    if "starts" in attrs:
        starts, ends = list(attrs["starts"]), list(attrs["ends"])
        axes, steps = list(attrs.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        given = [None if a is None else [v for v in a.flat] for a in m[1:]]
        if len(given) < 2 or any(isinstance(v, Expr) for g in given if g for v in g):
            return None
        starts, ends = given[0], given[1]
        axes = given[2] if len(given) > 2 and given[2] is not None else range(len(starts))
        steps = given[3] if len(given) > 3 and given[3] is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    at = [slice(None)] * m[0].ndim
    for s, e, a, step in zip(starts, ends, axes, steps):
        if not -m[0].ndim <= a < m[0].ndim or step == 0:
            return None
        at[a] = slice(s, None if step < 0 and e < -m[0].shape[a] else e, step)
    return m[0][tuple(at)]


@rule("ConstantOfShape")
def _constant_of_shape(m, attrs):
    shape, value = [*m[0].flat], attrs.get("value")
    if any(isinstance(v, Expr) or v < 0 for v in shape) or np.prod(shape or [1]) > MAX_MIRROR:
        return None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.size != 1:
        return None
    return objects([int(value.reshape(-1)[0])] * int(np.prod(shape)), shape)


@rule("Expand", passes_on=1)
def _expand(m, attrs):
    if any(isinstance(v, Expr) for v in m[1].flat):
        return None
    try:
        shape = np.broadcast_shapes(m[0].shape, tuple(int(v) for v in m[1].flat))
    except ValueError:
        return None
    return np.broadcast_to(m[0], shape) if np.prod(shape) <= MAX_MIRROR else None


@rule("Range")
def _range(m, attrs):
    values = [v for a in m for v in a.flat]
    if len(values) != 3 or any(isinstance(v, Expr) for v in values) or values[2] == 0:
        return None
    r = range(*values)
    return objects(list(r), (len(r),)) if len(r) <= MAX_MIRROR else None


@rule("ReduceProd")
def _reduce_prod(m, attrs):
    return _reduced(m, attrs, lambda a, b: a * b, 1)


@rule("ReduceSum")
def _reduce_sum(m, attrs):
    return _reduced(m, attrs, lambda a, b: a + b, 0)


@rule("ReduceMax")
def _reduce_max(m, attrs):
    return _reduced(m, attrs, maximum, None)


@rule("ReduceMin")
def _reduce_min(m, attrs):
    return _reduced(m, attrs, minimum, None)


def _reduced(m, attrs, f, init):
    axes = _axes(m, attrs)
    if m[0].ndim != 1 or (len(m) > 1 and m[1] is not None and axes is None):
        return None
    if axes not in (None, [0], [-1]) or (init is None and not m[0].size):
        return None
    values = list(m[0]) if init is None else [init, *m[0]]
    result = values[0]
    for v in values[1:]:
        result = _lift(f)(result, v)
    return objects([result], (1,) if attrs.get("keepdims", 1) else ())


@rule("Transpose", passes_on=1)
def _transpose(m, attrs):
    return m[0].transpose(attrs.get("perm")) if m[0].ndim < 2 else None


def piece_rule(start: int, stop: int) -> Callable:
    """The mirror of the elements start..stop of a vector."""

    def mirror(m, attrs):
        return m[0][start:stop]

    mirror.passes_on = 1
    return mirror


def _array(x) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else objects([x], ())
