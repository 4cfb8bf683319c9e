"""`tw.vmap`: a function of one example as a function of many.

    batched = tw.vmap(f, in_axes=(0, None))        # f(x: f32[3], w: f32[3]) -> f32[]
    batched(xs, w)                                 # xs: f32[b, 3], w: f32[3] -> f32[b]

It may be used inside traced functions and compiled by itself, and nests. `in_axes` says for each
argument (or each tensor in it) along which axis the examples lie, None where all share it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace

from tensorwright.batching.lanes import Lanes
from tensorwright.batching.rows import moved
from tensorwright.frontend import trees
from tensorwright.frontend.function import Function
from tensorwright.frontend.tracer import (
    Tensor,
    Trace,
    at_user_line,
    current_trace,
    node_of,
    traced_error,
    tracing,
    wrap,
)  # fmt: skip
from tensorwright.ir.graph import Node, param
from tensorwright.ir.type import Dim, TensorType, dim_text
from tensorwright.ops.define import normalize_axis


class Mapped(Function):
    """A function over examples. A call of it is put in place, so that it may use what is around."""

    def __call__(self, *args, **kwargs):
        return super().__call__() if current_trace() is None else self.f(*args, **kwargs)


def vmap(f: Callable, in_axes=0, out_axes=0) -> Mapped:
    """`f` over examples that lie along `in_axes` of its arguments; its results have them along
    `out_axes`. Both are an axis, None (the same for all examples), or nested like the arguments
    and the results. Raises FrontendError where the arguments do not have equally many examples."""
    return mapped(f, in_axes, out_axes, _by_rules)


def _by_rules(nodes: list[Node], params, captures, lanes: Lanes) -> list:
    lanes.values = {p: (x, True) for p, x in params}
    lanes.values |= {p: (x, False) for p, x in captures}
    return [lanes.of(n) for n in nodes]


def mapped(f: Callable, in_axes, out_axes, engine: Callable) -> Mapped:
    """`f` over examples by engine(results of one example, its (parameter, operand) pairs, the
    (capture, operand) pairs, lanes), which gives a (node, has lanes) pair for each result."""
    inner = f.f if isinstance(f, Function) else f

    @functools.wraps(inner)
    def over_examples(*args, **kwargs):
        bound = inspect.signature(inner).bind(*args, **kwargs)
        with at_user_line():
            return _call(inner, bound.args, bound.kwargs, in_axes, out_axes, engine)

    over_examples.__name__ = getattr(inner, "__name__", "function")
    over_examples.__annotations__ = _annotations(f, in_axes)
    return Mapped(over_examples, f.static if isinstance(f, Function) else ())


def _annotations(f: Callable, in_axes) -> dict:
    """The annotations of single tensors, with the examples as one more dimension."""
    known = f.annotations if isinstance(f, Function) else Function(f).annotations
    names = [n for n in inspect.signature(f).parameters if n != "return"]
    axes = in_axes if isinstance(in_axes, (tuple, list)) else (in_axes,) * len(names)
    found = {}
    for name, axis in zip(names, axes):
        note = known.get(name)
        dims = getattr(note, "dims", getattr(note, "shape", ()) if note is not None else None)
        if axis is None and note is not None:
            found[name] = note
        elif isinstance(axis, int) and dims is not None:
            at = normalize_axis("vmap", axis, len(dims) + 1)
            kind = getattr(note, "dtype", note)
            found[name] = SimpleNamespace(dims=(*dims[:at], "examples", *dims[at:]), dtype=kind)
    return found


def _call(f: Callable, args: tuple, kwargs: dict, in_axes, out_axes, engine: Callable):
    leaves, spec = trees.flatten((args, kwargs))
    axes = _spread(in_axes, spec[2][0], "in_axes") + [0] * trees.count(spec[2][1])
    lanes, own, tensors = None, Trace(current_trace()), []
    params: list[tuple[Node, Node]] = []  # of one example, and the operand for all
    for leaf, axis in zip(leaves, axes):
        if axis is None or not _has_examples(leaf):
            tensors.append(leaf)
            continue
        x = node_of(leaf)
        x = moved(x, _axis_of(x, axis), 0)
        lanes = _same(lanes, x.shape[0])
        p = param(f"x{len(params)}", TensorType(x.dtype, x.shape[1:]))
        params.append((p, x))
        tensors.append(Tensor(p, own))
    if lanes is None:
        raise traced_error("tw.vmap: no argument has examples", help="give one an axis in in_axes")
    with tracing(own):
        given, named = trees.rebuild(spec, tensors)
        found, result_spec = trees.flatten(f(*given, **named))
        nodes = [node_of(v) for v in found]
    ends = _spread(out_axes, result_spec, "out_axes")
    captures = [(p, outer) for outer, p in own.captures.items()]
    engine_lanes = Lanes(lanes, own.session.graphs)
    values = engine(nodes, params, captures, engine_lanes)
    results = [_placed(engine_lanes, v, axis) for v, axis in zip(values, ends)]
    return trees.rebuild(result_spec, [wrap(v) for v in results])


def _placed(lanes: Lanes, value, axis: int | None) -> Node:
    """A result with its examples along an axis."""
    if axis is None:
        if value[1]:
            raise traced_error("tw.vmap: a result differs between examples, but its out_axes is "
                               "None", help="give it an axis")  # fmt: skip
        return value[0]
    y = lanes.with_lanes(value)
    return moved(y, 0, normalize_axis("vmap", axis, y.rank))


def _has_examples(leaf) -> bool:
    return hasattr(leaf, "shape") and len(leaf.shape) > 0


def _axis_of(x: Node, axis: int) -> int:
    return normalize_axis("vmap", axis, x.rank)


def _same(known: Dim | None, d: Dim) -> Dim:
    if known is not None and known != d:
        raise traced_error(
            f"tw.vmap: one argument has {dim_text(known)} examples, another {dim_text(d)}",
            help="give the dimension of examples one name, or None in in_axes to what is shared",
        )
    return d


def _spread(axes, spec, what: str) -> list:
    """One axis for each leaf of a tree of that spec; an axis stands for all that is under it."""
    if axes is None or isinstance(axes, int):
        return [axes] * trees.count(spec)
    if spec == trees.LEAF:
        raise traced_error(f"tw.vmap: {what} is nested where there is one tensor: {axes}")
    kind, keys, parts = spec
    given = [axes[k] for k in keys] if kind == "dict" else list(axes)
    if len(given) != len(parts):
        raise traced_error(f"tw.vmap: {what} has {len(given)} entries for {len(parts)} values")
    return [a for g, p in zip(given, parts) for a in _spread(g, p, what)]
