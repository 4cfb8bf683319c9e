"""How one aten operator becomes our nodes: tables of converters and what they are written with.

    @POINTWISE.row("add.Tensor", "add.Scalar")
    def _add(c, x, y, *, alpha=1): ...

A converter takes the `Call` (what torch says of the result) and the operands in the order of the
operator's schema; keyword-only arguments by name. What it does not accept must have its default
value, so nothing the user wrote is dropped in silence. Promotion follows torch: tensors of rank 0
and Python numbers give way to tensors of the same kind.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.size_checks import checked_by_data
from tensorwright.frontend.torch_symbols import Sizes, size_scalar
from tensorwright.ir.dtype import DTYPES, DType, boolean, f32, f64, i64
from tensorwright.ir.dtype import promote as promote_kinds
from tensorwright.ir.expr import Expr, as_dim, as_expr, bounds, maximum, minimum
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim, Shape
from tensorwright.ops import elementwise as ew
from tensorwright.ops import movement as mv

BY_TORCH = {d.torch: d for d in DTYPES if d.torch}

# Arguments that say how torch stores a tensor, not what it holds.
STORAGE = {"layout", "device", "pin_memory", "memory_format", "non_blocking", "copy", "generator",
           "implicit", "sparse_grad", "sparse", "scale_grad_by_freq", "assume_unique", "out_int32",
           "cudnn_enable", "cudnn_enabled", "is_coalesced", "requires_grad"}  # fmt: skip


@dataclass
class Call:
    """One call in a torch graph: its name and the types that torch gave its results."""

    target: str
    sizes: Sizes
    fakes: tuple = ()  # torch's description of each result (None for an absent one)
    operands: tuple = ()  # torch's descriptions of the operands, by position
    subgraph: Callable | None = None  # imports a graph held by the model (control flow)

    @property
    def dtype(self) -> DType:
        return dtype_of(self.fakes[0].dtype)

    @property
    def shape(self) -> Shape:
        return self.sizes.shape(self.fakes[0].shape)

    def dtypes(self) -> tuple[DType, ...]:
        return tuple(dtype_of(f.dtype) for f in self.fakes)

    def fail(self, message: str, help: str = "") -> FrontendError:
        return FrontendError(f"{self.target}: {message}", help=help)


@dataclass(frozen=True)
class Converter:
    function: Callable
    positional: tuple[str, ...]
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """A table of converters, filled by `row`."""

    table: dict[str, Converter] = field(default_factory=dict)

    def row(self, *targets: str) -> Callable:
        def register(function: Callable) -> Callable:
            self.add(function, *targets)
            return function

        return register

    def add(self, function: Callable, *targets: str) -> None:
        parameters = list(inspect.signature(function).parameters.values())[1:]
        names = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        keywords = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        for target in targets:
            self.table[target] = Converter(function, names, keywords)


def invoke(converter: Converter, c: Call, schema, args: Sequence, kwargs: dict):
    """Call a converter with the operands of `schema`, defaults filled in."""
    positional, keyword, taken = [], {}, 0
    for k, a in enumerate(schema):
        if not a.kwarg_only and k < len(args):
            value = args[k]
        else:
            value = kwargs.get(a.name, a.default_value)
        named = (*converter.keywords, *(converter.positional if a.kwarg_only else ()))
        if a.name in named and a.name not in STORAGE:
            keyword[a.name] = value
        elif not a.kwarg_only and _takes(converter, taken, a.name):
            positional.append(value)
            taken += 1
        elif a.name not in STORAGE and not _is_default(value, a.default_value):
            raise c.fail(f"the argument {a.name}={value!r} is not supported")
    return converter.function(c, *positional, **keyword)


def _takes(converter: Converter, position: int, name: str) -> bool:
    """Whether an operand goes to the converter's next parameter."""
    if position >= len(converter.positional):
        return False
    return name not in STORAGE or converter.positional[position] == name


def _is_default(value, default) -> bool:
    if isinstance(value, Node) or isinstance(default, Node):
        return value is default
    return value is default or value == default or value in (None, [], ())


# ---- element types -----------------------------------------------------------------------------


def dtype_of(torch_dtype) -> DType:
    """Our dtype of a torch dtype."""
    name = str(torch_dtype).removeprefix("torch.")
    if name not in BY_TORCH:
        raise FrontendError(
            f"tensors of type {torch_dtype} are not supported",
            help="complex tensors may be inside a model only; pass torch.view_as_real(x)"
            if "complex" in name
            else "",
        )
    return BY_TORCH[name]


def torch_name(d: DType) -> str:
    return d.torch


_KIND = {"bool": 0, "uint": 1, "int": 1, "index": 1, "float": 2}


def promote(a: DType, b: DType) -> DType:
    """torch.promote_types."""
    if a is not b and a.is_float and b.is_float and a.bits == b.bits == 16:
        return f32
    return promote_kinds(a, b)


def _scalar_dtype(x) -> DType:
    if isinstance(x, bool):
        return boolean
    return i64 if isinstance(x, (int, Expr)) else f32


def common_dtype(*operands) -> DType:
    """The type in which torch computes an operation on these operands."""
    groups: list[DType | None] = [None, None, None]  # tensors, rank 0, numbers
    for x in operands:
        if x is None:
            continue
        k, d = (0 if x.rank else 1, x.dtype) if isinstance(x, Node) else (2, _scalar_dtype(x))
        groups[k] = d if groups[k] is None else promote(groups[k], d)
    result = None
    for d in groups:
        if d is not None and (result is None or _KIND[d.kind] > _KIND[result.kind]):
            result = d
    return result


def to(x: Node, d: DType) -> Node:
    """`x` in type `d`."""
    return x if x.dtype is d else ew.cast(x, dtype=d)


def lift(x, d: DType) -> Node:
    """A tensor, a number or a size as a tensor of type `d`."""
    if isinstance(x, Node):
        return to(x, d)
    if isinstance(x, Expr):
        return to(size_scalar(x), d)
    return constant(number(x, d))


def number(x, d: DType) -> np.ndarray:
    """A Python number as an array of rank 0; integers wrap as in C."""
    if d.is_integer and not d.min <= int(x) <= d.max:
        return np.asarray(int(x) & ((1 << d.bits) - 1), dtype=f"u{d.bytes}").view(d.numpy)
    return np.asarray(x).astype(d.numpy)


def together(*operands, dtype: DType | None = None) -> list[Node]:
    """The operands as tensors of their common type."""
    d = dtype or common_dtype(*operands)
    return [lift(x, d) for x in operands]


def wide(d: DType) -> DType:
    """The type that statistics of `d` are computed in: never narrower than f32."""
    return d if d in (f32, f64) or not d.is_float else f32


# ---- sizes -------------------------------------------------------------------------------------


def dims(values: Sequence) -> tuple[Dim, ...]:
    return tuple(as_dim(v) for v in values)


def axis_of(axis: int, rank: int) -> int:
    return axis % max(rank, 1)


def axes_of(axes, rank: int) -> tuple[int, ...] | None:
    """Normalized axes; None and () mean all."""
    if axes is None:
        return None
    if rank == 0:
        return None
    axes = [axes] if isinstance(axes, int) else list(axes)
    return tuple(axis_of(a, rank) for a in axes) or None


def clamped(position: Dim, extent: Dim) -> Dim:
    """A slice boundary counted from the end if negative and brought into [0, extent]."""
    if isinstance(position, int) and isinstance(extent, int):
        return min(max(position + (extent if position < 0 else 0), 0), extent)
    if isinstance(position, int) and position < 0:
        return as_dim(maximum(as_expr(extent) + position, 0))
    if isinstance(position, int) and position >= 1 << 62:
        return extent
    low = bounds(as_expr(position))[0]
    if low is None or low < 0:
        position = as_dim(maximum(as_expr(position), 0))
    return as_dim(minimum(as_expr(position), as_expr(extent)))


def slice_axis(x: Node, axis: int, start: Dim, stop: Dim, step: int = 1) -> Node:
    """x[..., start:stop:step, ...] with boundaries already normalized."""
    if start == 0 and stop == x.shape[axis] and step == 1:
        return x
    if step == 1:
        start, stop = checked_by_data(start, stop, x.shape[axis])
    starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return mv.slice(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def take_one(x: Node, axis: int, position: Dim) -> Node:
    """x[..., position, ...] without that axis."""
    part = slice_axis(x, axis, position, as_dim(as_expr(position) + 1))
    return mv.reshape(part, shape=x.shape[:axis] + x.shape[axis + 1 :])


def with_axis(x: Node, axis: int) -> Node:
    """`x` with an axis of size 1 inserted."""
    return mv.reshape(x, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


def flat(x: Node) -> Node:
    return x if x.rank == 1 else mv.reshape(x, shape=(x.type.size,))


def transposed(x: Node, perm: Sequence[int]) -> Node:
    perm = tuple(perm)
    return x if perm == tuple(range(x.rank)) else mv.transpose(x, perm=perm)


def is_empty(x: Node) -> bool:
    return any(d == 0 for d in x.shape)


def log_base(base: float) -> float:
    return math.log(base)
