"""Operators that move elements without computing: every result element is one element of x.

Subscripts are canonical index expressions, so that a chain of these simplifies to one when fused:

    reshape(x: f32[n, 12], shape=(n, 3, 4))  ->  y[i, j, k] = x[i, j*4 + k]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import Buffer, Expr, all_of, as_dim, as_expr, compare, const
from tensorwright.ir.expr import maximum as max_of
from tensorwright.ir.expr import minimum as min_of
from tensorwright.ir.expr import select as select_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import Stmt
from tensorwright.ir.type import Dim, Shape, TensorType, brief_text, dim_text, product, shape_of
from tensorwright.ops.define import (
    broadcast_dims,
    broadcast_load,
    compute,
    define,
    normalize_axes,
    normalize_axis,
    require,
    same_dtype,
)  # fmt: skip
from tensorwright.ops.elementwise import maximum, minimum, mod, sub
from tensorwright.ops.index import scatter_axis
from tensorwright.ops.positions import full, iota

PAD_MODES = ("constant", "edge", "reflect", "wrap")


def text(shape: Shape) -> str:
    """For messages, with dots in place of what is too long to be read."""
    return f"({', '.join(map(brief_text, shape))})"


# ---- broadcast, reshape, transpose -------------------------------------------------------------


def _infer_broadcast(x: TensorType, *, shape: Shape) -> TensorType:
    shape = shape_of(shape)
    require(not any(isinstance(d, int) and d < 0 for d in shape),
            f"broadcast_to: {text(shape)} has a negative dimension")  # fmt: skip
    tail = shape[len(shape) - x.rank :]
    fits = len(tail) == x.rank and all(broadcast_dims(a, b) == b for a, b in zip(x.shape, tail))
    require(fits, f"broadcast_to: {text(x.shape)} does not broadcast to {text(shape)}")
    return TensorType(x.dtype, shape)


broadcast_to = define(
    "broadcast_to", "x", infer=_infer_broadcast,
    lower=lambda out, x, *, shape: compute(out, lambda *i: broadcast_load(x, i)),
    reference=lambda x, shape: np.broadcast_to(x, shape), gradient=lambda g, y, x, shape: (g,),
    torch="expand.default",
    samples=("f32[3,1] shape=(2,3,4)", "f32[n,1] shape=(n,5) n=1,3", "f64[] shape=(2,n) n=1,3",
             "i8[4] shape=(0,4)", "bool[1] shape=(1,)", "f64[1,3] shape=(2,3)"),
    doc="x repeated along new leading dimensions and those of size 1.",
)  # fmt: skip


def _infer_reshape(x: TensorType, *, shape: Shape) -> TensorType:
    shape = _resolve(x, shape_of(shape))
    want, have = as_expr(product(shape)), as_expr(x.size)
    same = compare("eq", want, have)
    if same is const(False, boolean):
        raise CompileError(f"reshape: x has {dim_text(x.size)} elements, shape {text(shape)} "
                           f"has {dim_text(as_dim(want))}")  # fmt: skip
    require(same is const(True, boolean),
            f"reshape: {text(x.shape)} and {text(shape)} are not known to have equally many "
            "elements", "state what is known of the symbols, as in n = 4*k")  # fmt: skip
    return TensorType(x.dtype, shape)


def _resolve(x: TensorType, shape: Shape) -> Shape:
    """`shape` with the one dimension that is -1 computed from the others."""
    unknown = [k for k, d in enumerate(shape) if d == -1]
    if not unknown:
        return shape
    require(len(unknown) == 1, f"reshape: shape {text(shape)} has more than one -1")
    rest = as_expr(product(d for d in shape if d != -1))
    require(rest is not const(0), f"reshape: -1 in {text(shape)} could be any size")
    size = as_dim(as_expr(x.size) // rest)
    return tuple(size if d == -1 else d for d in shape)


def segments(a: Shape, b: Shape) -> list[tuple[range, range]]:
    """Consecutive dimensions of `a` and `b`, in the smallest groups of equal products."""
    left = [as_dim(as_expr(p)) for p in accumulate(a, lambda p, d: product((p, d)))]
    right = [as_dim(as_expr(p)) for p in accumulate(b, lambda p, d: product((p, d)))]
    groups, i, j = [], 0, 0
    for k, p in enumerate(left[:-1]):
        found = next((m for m in range(j, len(right) - 1) if right[m] == p), None)
        if found is not None:
            groups.append((range(i, k + 1), range(j, found + 1)))
            i, j = k + 1, found + 1
    return [*groups, (range(i, len(a)), range(j, len(b)))]


def linear_position(indices: Sequence[Expr], shape: Sequence[Dim]) -> Expr:
    """The row-major position of an element."""
    position = const(0)
    for i, d in zip(indices, shape):
        if d != 1:
            position = position * as_expr(d) + i
    return position


def split_position(position: Expr, shape: Sequence[Dim]) -> list[Expr]:
    """The subscripts of the element at a row-major position."""
    indices = []
    for k, d in enumerate(shape):
        after = as_expr(product(shape[k + 1 :]))
        outermost = all(e == 1 for e in shape[:k])
        i = position // after
        indices.append(const(0) if d == 1 else i if outermost else i % as_expr(d))
    return indices


def _lower_reshape(out: Buffer, x: Buffer, *, shape) -> Stmt:
    groups = segments(out.shape, x.shape)

    def element(*i: Expr) -> Expr:
        indices: list[Expr] = []
        for mine, theirs in groups:
            at = linear_position([i[k] for k in mine], [out.shape[k] for k in mine])
            indices += split_position(at, [x.shape[k] for k in theirs])
        return x[tuple(indices)]

    return compute(out, element)


reshape = define(
    "reshape", "x", infer=_infer_reshape, lower=_lower_reshape,
    reference=lambda x, shape: x.reshape(shape),
    gradient=lambda g, y, x, shape: (reshape(g, shape=x.shape),), torch="view.default",
    samples=("f32[3,4] shape=(4,3)", "f64[2,n,6] shape=(2*n,2,3) n=1,5", "i32[2,1,3] shape=(6,)",
             "f32[n,6] shape=(n,-1,2) n=1,4", "f32[0,3] shape=(3,0,2)", "f32[] shape=(1,1)",
             "bool[1,5,1] shape=(5,)", "f16[6] shape=(1,2,1,3)", "f32[4,6] shape=(8,3)",
             "u8[2,n,3,4] shape=(2,n,12) n=1,3", "f32[6,35] shape=(10,21)",
             "f32[n*m,4] shape=(n,m,4) n=1,3 m=2,3", "f32[1] shape=()"),
    doc="The same elements, in row-major order, under another shape; one size may be -1.",
)  # fmt: skip


def _infer_transpose(x: TensorType, *, perm: tuple[int, ...]) -> TensorType:
    require(sorted(perm) == list(range(x.rank)),
            f"transpose: {perm} is not a permutation of the {x.rank} dimensions of x")  # fmt: skip
    return TensorType(x.dtype, tuple(x.shape[p] for p in perm))


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=lambda k: perm[k]))


def _lower_transpose(out: Buffer, x: Buffer, *, perm) -> Stmt:
    back = inverse(perm)
    return compute(out, lambda *i: x[tuple(i[k] for k in back)])


transpose = define(
    "transpose", "x", infer=_infer_transpose, lower=_lower_transpose,
    reference=lambda x, perm: np.transpose(x, perm),
    gradient=lambda g, y, x, perm: (transpose(g, perm=inverse(perm)),), torch="permute.default",
    samples=("f32[3,4] perm=(1,0)", "f64[2,n,3] perm=(1,2,0) n=1,4", "f32[] perm=()",
             "i8[0,3] perm=(1,0)", "f16[5] perm=(0,)", "bool[2,3,4] perm=(2,0,1)"),
    doc="Dimension k of the result is dimension perm[k] of x.",
)  # fmt: skip

# ---- slices ------------------------------------------------------------------------------------


def _check_lengths(op: str, x: TensorType, **lists) -> None:
    for name, values in lists.items():
        require(
            len(values) == x.rank,
            f"{op}: {name} has {len(values)} entries for a tensor of rank {x.rank}",
        )


def _infer_slice(x: TensorType, *, starts, stops, steps=None) -> TensorType:
    steps = steps or (1,) * x.rank
    _check_lengths("slice", x, starts=starts, stops=stops, steps=steps)
    bounds = zip(x.shape, starts, stops, steps)
    return TensorType(x.dtype, tuple(_extent(k, *b) for k, b in enumerate(bounds)))


def _extent(k: int, d: Dim, start: Dim, stop: Dim, step: int) -> Dim:
    """The length of a slice; what is known to leave the dimension is an error."""
    require(isinstance(step, int) and step != 0, f"slice: steps[{k}] is {step}")
    start, stop, d = as_expr(start), as_expr(stop), as_expr(d)
    length = (stop - start + (step - 1 if step > 0 else step + 1)) // step if step > 0 else (
        (start - stop - step - 1) // -step)  # fmt: skip
    length = max_of(length, 0)
    first, last = start, start + (length - 1) * step
    inside = [compare("le", e, d - 1) for e in (first, last)] + [
        compare("le", const(0), e) for e in (first, last)]  # fmt: skip
    outside = any(c is const(False, boolean) for c in inside)
    require(length is const(0) or not outside,
            f"slice: {start}:{stop}:{step} leaves dimension {k} of x, which is {d}",
            "clamp starts and stops into the dimension")  # fmt: skip
    return as_dim(length)


def _lower_slice(out: Buffer, x: Buffer, *, starts, stops, steps) -> Stmt:
    steps = steps or (1,) * x.rank
    place = lambda i: tuple(as_expr(b) + v * s for b, v, s in zip(starts, i, steps))
    return compute(out, lambda *i: x[place(i)])


def _reference_slice(x, starts, stops, steps=None):
    parts = zip(starts, stops, steps or (1,) * x.ndim)
    return x[tuple(np.s_[a : (None if b < 0 else b) : s] for a, b, s in parts)]


def _slice_gradient(g, y, x, *, starts, stops, steps):
    """Padding puts a dense slice back; other steps scatter along their dimension."""
    steps = steps or (1,) * x.rank
    dense = [s == 1 for s in steps]
    low = [b if one else 0 for b, one in zip(starts, dense)]
    rest = zip(x.shape, starts, y.shape, dense)
    high = [as_dim(as_expr(d) - b - n) if one else 0 for d, b, n, one in rest]
    if any(dense):
        g = pad(g, low=tuple(low), high=tuple(high))
    for axis, step in enumerate(steps):
        if step != 1:
            at = iota(shape=(y.shape[axis],), start=starts[axis], step=step)
            shape = tuple(x.shape[k] if k == axis else d for k, d in enumerate(g.shape))
            zeros = full(shape=shape, value=0, dtype=g.dtype)
            g = scatter_axis(zeros, at, g, axis=axis, mode="add")
    return (g,)


slice = define(
    "slice", "x", infer=_infer_slice, lower=_lower_slice, reference=_reference_slice,
    gradient=_slice_gradient,
    samples=("f32[5,4] starts=(1,0) stops=(4,4) steps=(1,2)", "f64[6] starts=(5,) stops=(-1,) "
             "steps=(-2,)", "f32[n,3] starts=(0,1) stops=(n,2) steps=(1,1) n=1,4",
             "f64[n] starts=(0,) stops=(n-1,) n=1,4", "i32[4] starts=(2,) stops=(2,) steps=(1,)",
             "bool[] starts=() stops=() steps=()", "f64[7,2] starts=(1,1) stops=(7,-1) "
             "steps=(3,-1)", "bf16[0,2] starts=(0,0) stops=(0,2)"),
    doc="Every steps-th element from starts (included) to stops (excluded), per dimension.",
)  # fmt: skip


def _infer_flip(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
    normalize_axes("flip", axes, x.rank)
    return x


def _lower_flip(out: Buffer, x: Buffer, *, axes) -> Stmt:
    flipped = {a % x.rank for a in axes}

    def element(*i: Expr) -> Expr:
        return x[tuple(as_expr(d) - 1 - v if k in flipped else v
                       for k, (v, d) in enumerate(zip(i, x.shape)))]  # fmt: skip

    return compute(out, element)


flip = define(
    "flip", "x", infer=_infer_flip, lower=_lower_flip, reference=lambda x, axes: np.flip(x, axes),
    gradient=lambda g, y, x, axes: (flip(g, axes=axes),), torch="flip.default",
    samples=("f32[3,4] axes=(0,)", "f64[n,3] axes=(0,-1) n=1,4", "i32[5] axes=(0,)",
             "bool[0,2] axes=(1,)", "f16[2,3] axes=()"),
    doc="The order of elements reversed along the axes.",
)  # fmt: skip

# ---- pad ---------------------------------------------------------------------------------------


def _infer_pad(x: TensorType, *, low, high, value=0.0, mode="constant") -> TensorType:
    _check_lengths("pad", x, low=low, high=high)
    require(mode in PAD_MODES, f"pad: mode {mode!r} is not one of {', '.join(PAD_MODES)}")
    shape = []
    for k, (a, d, b) in enumerate(zip(low, x.shape, high)):
        total = as_expr(a) + as_expr(d) + as_expr(b)
        require(compare("le", const(0), total) is not const(False, boolean),
                f"pad: dimension {k} of x is {dim_text(d)}, cropping leaves {total}")  # fmt: skip
        require(mode == "constant" or d != 0 or total is const(0),
                f"pad: dimension {k} of x is empty, there is nothing to repeat")  # fmt: skip
        shape.append(as_dim(total))
    return TensorType(x.dtype, tuple(shape))


def _source(j: Expr, d: Expr, mode: str) -> Expr:
    """The index in x that padding by `mode` repeats at index j, which may lie outside."""
    if mode == "edge":
        return max_of(min_of(j, d - 1), 0)
    if mode == "wrap":
        return j % d
    period = max_of((d - 1) * 2, 1)
    return min_of(j % period, period - j % period)


def _lower_pad(out: Buffer, x: Buffer, *, low, high, value, mode) -> Stmt:
    moved = [a != 0 or b != 0 for a, b in zip(low, high)]

    def element(*i: Expr) -> Expr:
        at = [v - as_expr(a) for v, a in zip(i, low)]
        if mode != "constant":
            sources = zip(at, x.shape, moved)
            return x[tuple(_source(j, as_expr(d), mode) if m else j for j, d, m in sources)]
        inside = [c for v, a, d, m in zip(i, low, x.shape, moved) if m
                  for c in (compare("le", as_expr(a), v),
                            compare("lt", v, as_expr(a) + as_expr(d)))]  # fmt: skip
        return select_expr(all_of(inside), x[tuple(at)], const(value, x.dtype))

    return compute(out, element)


def _reference_pad(x, low, high, value=0.0, mode="constant"):
    for axis, (a, b) in enumerate(zip(low, high)):
        if a == b == 0:
            continue
        d = x.shape[axis]
        if mode == "constant":
            shape = list(x.shape)
            shape[axis] = max(d + a + b, 0)
            made = np.full(shape, value, x.dtype)
            kept = range(max(-a, 0), d - max(-b, 0))
            if kept and shape[axis]:
                inside = np.moveaxis(made, axis, 0)[max(a, 0) :][: len(kept)]
                inside[...] = np.moveaxis(x, axis, 0)[kept.start : kept.stop]
            x = made
        else:
            table = np.pad(np.arange(d), (max(a, 0), max(b, 0)), mode=mode)
            x = np.take(x, table[max(-a, 0) : len(table) - max(-b, 0)], axis)
    return x


def _pad_gradient(g, y, x, *, low, high, value, mode):
    """Cropping undoes constant padding; repeated elements collect their copies."""
    if mode == "constant":
        back = lambda amounts: tuple(as_dim(-as_expr(a)) for a in amounts)
        return (pad(g, low=back(low), high=back(high)),)
    for axis, d in enumerate(x.shape):
        if low[axis] == 0 and high[axis] == 0:
            continue
        j = iota(shape=(y.shape[axis],), start=as_dim(-as_expr(low[axis])))
        shape = tuple(d if k == axis else n for k, n in enumerate(g.shape))
        zeros = full(shape=shape, value=0, dtype=g.dtype)
        g = scatter_axis(zeros, _source_tensor(j, d, mode), g, axis=axis, mode="add")
    return (g,)


def _source_tensor(j: Node, d: Dim, mode: str) -> Node:
    """`_source` on a tensor of positions."""
    number = lambda e: full(shape=(), value=as_dim(e), dtype=i64)
    if mode == "edge":
        return maximum(minimum(j, number(as_expr(d) - 1)), 0)
    if mode == "wrap":
        return mod(j, number(d))
    period = number(max_of((as_expr(d) - 1) * 2, 1))
    around = mod(j, period)
    return minimum(around, sub(period, around))


pad = define(
    "pad", "x", infer=_infer_pad, lower=_lower_pad, reference=_reference_pad,
    gradient=_pad_gradient,
    samples=("f32[3,4] low=(1,0) high=(2,3)", "f64[n,2] low=(0,1) high=(2,0) value=-1.5 n=1,4",
             "f64[5] low=(-1,) high=(-2,)", "f32[5] low=(-2,) high=(3,) value=7.0",
             "f64[4,3] low=(2,1) high=(1,2) mode=edge", "f64[5] low=(4,) high=(3,) mode=reflect",
             "f64[n] low=(2,) high=(1,) mode=reflect n=3,4", "f64[4,2] low=(3,0) high=(5,1) "
             "mode=wrap", "f64[n] low=(1,) high=(0,) mode=edge n=1,3", "f32[0] low=(2,) high=(0,)",
             "f64[3] low=(5,) high=(6,) mode=reflect", "f64[6] low=(-1,) high=(2,) mode=reflect",
             "i32[2] low=(0,) high=(n,) value=3 n=0,2", "bool[] low=() high=()",
             "f32[1] low=(2,) high=(2,) mode=reflect", "f16[3] low=(1,) high=(1,) value=-inf"),
    doc="x with elements added around it (or cropped, by negative amounts).",
)  # fmt: skip

# ---- concat, tile ------------------------------------------------------------------------------


def _infer_concat(*xs: TensorType, axis: int = 0) -> TensorType:
    require(len(xs) > 0, "concat: there are no operands")
    axis = normalize_axis("concat", axis, xs[0].rank)
    total = as_expr(xs[0].shape[axis])
    for n, x in enumerate(xs[1:], 1):
        require(x.rank == xs[0].rank, f"concat: operand 1 has rank {xs[0].rank}, operand {n + 1} "
                f"has rank {x.rank}")  # fmt: skip
        for k, (a, b) in enumerate(zip(xs[0].shape, x.shape)):
            require(k == axis or a == b, f"concat: dimension {k} is {dim_text(a)} in operand 1 and "
                    f"{dim_text(b)} in operand {n + 1}")  # fmt: skip
        total = total + as_expr(x.shape[axis])
    shape = list(xs[0].shape)
    shape[axis] = as_dim(total)
    return TensorType(same_dtype("concat", *xs), tuple(shape))


def _lower_concat(out: Buffer, *xs: Buffer, axis: int) -> Stmt:
    axis %= out.rank
    starts = list(accumulate((as_expr(x.shape[axis]) for x in xs), initial=const(0)))

    parts = list(zip(xs, starts))
    return compute(out, lambda *i: _element_among(parts, axis, i))


def _element_among(parts: list[tuple[Buffer, Expr]], axis: int, i: tuple[Expr, ...]) -> Expr:
    """The element at i of operands that start along an axis at some places: a balanced tree keeps
    expressions shallow."""
    if len(parts) == 1:
        ((x, start),) = parts
        return x[(*i[:axis], i[axis] - start, *i[axis + 1 :])]
    first, last = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    before = compare("lt", i[axis], last[0][1])
    return select_expr(before, _element_among(first, axis, i), _element_among(last, axis, i))


def _concat_gradient(g, y, *xs, axis):
    return tuple(split(g, [x.shape[axis] for x in xs], axis))


concat = define(
    "concat", "*xs", infer=_infer_concat, lower=_lower_concat,
    reference=lambda *xs, axis=0: np.concatenate(xs, axis), gradient=_concat_gradient,
    onnx="Concat", torch="cat.default",
    samples=("f32[2,3] f32[1,3]", "f64[2,n] f64[2,3] f64[2,1] axis=1 n=1,4", "i32[4] i32[0]",
             "f64[3,1] f64[3,2] axis=-1", "f32[5]", "bool[n] bool[m] n=1,2 m=0,3",
             "f32[2] f32[0] f32[3] f32[n] f32[1] n=0,2"),
    doc="The operands one after the other along an axis.",
)  # fmt: skip


def _infer_tile(x: TensorType, *, repeats: Shape) -> TensorType:
    _check_lengths("tile", x, repeats=repeats)
    require(all(not isinstance(r, int) or r >= 0 for r in repeats),
            f"tile: negative repeats {text(repeats)}")  # fmt: skip
    return TensorType(x.dtype, tuple(product(p) for p in zip(x.shape, repeats)))


def _expand_tile(x: Node, *, repeats) -> Node:
    ones = tuple(n for d in x.shape for n in (1, d))
    many = tuple(n for d, r in zip(x.shape, repeats) for n in (r, d))
    copies = broadcast_to(reshape(x, shape=ones), shape=many)
    return reshape(copies, shape=tuple(product(p) for p in zip(x.shape, repeats)))


tile = define(
    "tile", "x", infer=_infer_tile, expand=_expand_tile,
    reference=lambda x, repeats: np.tile(x, repeats),
    samples=("f32[2,3] repeats=(2,1)", "f64[n] repeats=(3,) n=1,4", "f32[2] repeats=(0,)",
             "i32[] repeats=()", "f64[2,2] repeats=(2,3)", "f32[3] repeats=(n,) n=1,2"),
    doc="x repeated as a whole along each dimension.",
)  # fmt: skip

# ---- combinations ------------------------------------------------------------------------------


def expand_dims(x: Node, axis: int | Sequence[int]) -> Node:
    """x with dimensions of size 1 at `axis` of the result."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    rank = x.rank + len(axes)
    new = normalize_axes("expand_dims", axes, rank)
    dims = iter(x.shape)
    return reshape(x, shape=tuple(1 if k in new else next(dims) for k in range(rank)))


def squeeze(x: Node, axes: Sequence[int] | None = None) -> Node:
    """x without the given dimensions of size 1 (None: without any)."""
    if axes is None:
        axes = [k for k, d in enumerate(x.shape) if d == 1]
    gone = normalize_axes("squeeze", axes, x.rank)
    for k in gone:
        require(x.shape[k] == 1, f"squeeze: dimension {k} is {dim_text(x.shape[k])}, not 1")
    return reshape(x, shape=tuple(d for k, d in enumerate(x.shape) if k not in gone))


def slice_axis(x: Node, axis: int, start: Dim, stop: Dim, step: int = 1) -> Node:
    """x[start:stop:step] along one axis."""
    axis = normalize_axis("slice_axis", axis, x.rank)
    pick = lambda value, others: tuple(value if k == axis else o for k, o in enumerate(others))
    return slice(x, starts=pick(start, (0,) * x.rank), stops=pick(stop, x.shape),
                 steps=pick(step, (1,) * x.rank))  # fmt: skip


def split(x: Node, sizes: Sequence[Dim], axis: int) -> list[Node]:
    """Consecutive slices of the given sizes along an axis, which they fill."""
    axis = normalize_axis("split", axis, x.rank)
    ends = list(accumulate((as_expr(n) for n in sizes), initial=const(0)))
    require(as_dim(ends[-1]) == x.shape[axis],
            f"split: the sizes add up to {ends[-1]}, x.shape[{axis}] is "
            f"{dim_text(x.shape[axis])}")  # fmt: skip
    return [slice_axis(x, axis, as_dim(a), as_dim(b)) for a, b in pairwise(ends)]


def flatten(x: Node, axis: int = 1) -> Node:
    """x as a matrix: the dimensions before `axis` by those from it on."""
    axis = axis + x.rank if axis < 0 else axis
    return reshape(x, shape=(product(x.shape[:axis]), product(x.shape[axis:])))


def swap_axes(x: Node, a: int = -1, b: int = -2) -> Node:
    """x with two dimensions exchanged."""
    perm = list(range(x.rank))
    perm[a], perm[b] = perm[b], perm[a]
    return transpose(x, perm=tuple(perm))


def stack(xs: Sequence[Node], axis: int = 0) -> Node:
    """Tensors of one shape along a new dimension."""
    return concat(*(expand_dims(x, axis) for x in xs), axis=axis)
