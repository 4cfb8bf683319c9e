"""Complex tensors: pairs of real ones, and the aten operators that take or give them.

    _fft_r2c(x, [1], 0, True)   ->   Pair(real, imaginary) of dft(x, axis=1, onesided=True)
    mul(z, w)                   ->   Pair(a c - b d, a d + b c)

Most operators only move, choose or add elements and act on both parts alike (`LINEAR`); products
are products of parts (`BILINEAR`). The rest has rows of its own. Complex numbers stay inside a
model: its inputs and results are real (`torch.view_as_real`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.torch_ops import Call, Converter, Rows, axis_of, invoke, lift, to
from tensorwright.ir.dtype import DType
from tensorwright.ir.expr import as_dim, as_expr
from tensorwright.ir.graph import Node
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv
from tensorwright.ops.signal import dft

COMPLEX = Rows()


@dataclass(frozen=True)
class Pair:
    """A complex tensor: two real ones of one type."""

    real: Node
    imag: Node


@dataclass(frozen=True)
class Part:
    """What torch says of a complex tensor, said of its parts."""

    dtype: object
    shape: tuple


# Both parts alike; numbers at these positions are values and have parts of their own.
LINEAR = {
    "_unsafe_view.default": (), "alias.default": (), "as_strided.default": (), "cat.default": (),
    "clone.default": (), "constant_pad_nd.default": (2,), "copy.default": (), "cumsum.default": (),
    "detach.default": (), "diagonal.default": (), "expand.default": (), "flip.default": (),
    "full.default": (1,), "full_like.default": (1,), "gather.default": (), "index.Tensor": (),
    "index_put.default": (2,), "index_select.default": (), "lift_fresh_copy.default": (),
    "masked_fill.Scalar": (2,), "mean.default": (), "mean.dim": (), "neg.default": (),
    "pad.default": (3,), "permute.default": (), "repeat.default": (), "reshape.default": (),
    "roll.default": (), "scalar_tensor.default": (0,), "select.int": (),
    "select_scatter.default": (), "slice.Tensor": (), "slice_scatter.default": (),
    "split.Tensor": (), "split_with_sizes.default": (), "squeeze.default": (), "squeeze.dim": (),
    "squeeze.dims": (), "stack.default": (), "sum.default": (), "sum.dim_IntList": (),
    "t.default": (), "transpose.int": (), "tril.default": (), "triu.default": (),
    "unbind.int": (), "unfold.default": (), "unsqueeze.default": (), "view.default": (),
    "where.self": (1, 2), "where.ScalarOther": (1, 2), "where.ScalarSelf": (1, 2),
    "zeros.default": (), "zeros_like.default": (), "empty.memory_format": (),
    "new_zeros.default": (), "add.Tensor": (0, 1), "add.Scalar": (1,), "sub.Tensor": (0, 1),
    "sub.Scalar": (1,), "rsub.Scalar": (1,), "div.Scalar": (),
}  # fmt: skip
BILINEAR = ("mul.Tensor", "mul.Scalar", "mm.default", "bmm.default", "matmul.default",
            "dot.default", "mv.default")  # fmt: skip


def is_complex(fake) -> bool:
    """Whether torch describes a complex tensor (or one of several results is one)."""
    if isinstance(fake, (list, tuple)):
        return any(is_complex(f) for f in fake)
    return bool(getattr(getattr(fake, "dtype", None), "is_complex", False))


def holds_pair(value) -> bool:
    if isinstance(value, (list, tuple)):
        return any(holds_pair(v) for v in value)
    return isinstance(value, (Pair, complex))


def part_of(fake):
    """The description of a part."""
    return Part(fake.dtype.to_real(), tuple(fake.shape)) if is_complex(fake) else fake


def convert(c: Call, name: str, table: dict[str, Converter], schema, args: list, kwargs: dict):
    """The result of an operator that takes or gives complex tensors."""
    c = replace(c, fakes=tuple(part_of(f) for f in c.fakes))
    real = lambda a, k: invoke(table[name], c, schema, a, k)
    if name in COMPLEX.table:
        return invoke(COMPLEX.table[name], c, schema, args, kwargs)
    if name in LINEAR and name in table:
        return _linear(real, LINEAR[name], args, kwargs)
    if name in BILINEAR and name in table:
        return _bilinear(lambda x, y: real([x, y], kwargs), *args)
    if name == "einsum.default" and len(args[1]) == 1:
        return _linear(real, (), args, kwargs)
    if name == "einsum.default" and len(args[1]) == 2:
        return _bilinear(lambda x, y: real([args[0], [x, y]], kwargs), *args[1])
    raise c.fail("complex tensors are not supported here",
                 "compute with the parts, x.real and x.imag")  # fmt: skip


def _linear(real: Callable, values: tuple[int, ...], args: list, kwargs: dict):
    parts = []
    for k in (0, 1):
        pick = [_part(a, k, i in values) for i, a in enumerate(args)]
        named = {n: _part(v, k, n in ("fill_value", "value")) for n, v in kwargs.items()}
        parts.append(real(pick, named))
    if isinstance(parts[0], (list, tuple)):
        return [Pair(a, b) for a, b in zip(*parts)]
    return Pair(*parts)


def _part(value, k: int, is_value: bool):
    """The real (k = 0) or imaginary part of an argument."""
    if isinstance(value, Pair):
        return value.imag if k else value.real
    if isinstance(value, (list, tuple)):
        return [_part(v, k, is_value or holds_pair(value)) for v in value]
    if is_value and isinstance(value, Node):
        return zeros(value) if k else value
    if isinstance(value, complex) or (is_value and isinstance(value, (int, float))):
        return value.imag if k else value.real
    return value.to_real() if getattr(value, "is_complex", False) else value


def zeros(like: Node) -> Node:
    return ix.full(shape=like.shape, value=0, dtype=like.dtype)


def _bilinear(product: Callable, x, y) -> Pair:
    x, y = _numbers(x), _numbers(y)
    if not isinstance(x, tuple):
        return Pair(*(product(x, b) for b in y))
    if not isinstance(y, tuple):
        return Pair(*(product(a, y) for a in x))
    (a, b), (c, d) = x, y
    return Pair(ew.sub(product(a, c), product(b, d)), ew.add(product(a, d), product(b, c)))


def _numbers(v):
    """(real, imaginary) of a Pair or a complex number; anything else as it is."""
    return (v.real, v.imag) if isinstance(v, (Pair, complex)) else v


def pair(x, d: DType) -> Pair:
    """A complex or real tensor, or a number, as a Pair with parts of type `d`."""
    if isinstance(x, (Pair, complex)):
        return Pair(lift(x.real, d), lift(x.imag, d))
    x = lift(x, d)
    return Pair(x, zeros(x))


def times(x: Pair, y: Pair) -> Pair:
    return Pair(ew.sub(ew.mul(x.real, y.real), ew.mul(x.imag, y.imag)),
                ew.add(ew.mul(x.real, y.imag), ew.mul(x.imag, y.real)))  # fmt: skip


def square(z: Pair) -> Node:
    """The square of the magnitude."""
    return ew.add(ew.mul(z.real, z.real), ew.mul(z.imag, z.imag))


def conjugate(z: Pair) -> Pair:
    return Pair(z.real, ew.neg(z.imag))


# ---- made of real tensors, and back ------------------------------------------------------------


@COMPLEX.row("complex.default")
def _complex(c, real, imag):
    shape = c.shape
    return Pair(*(mv.broadcast_to(to(v, c.dtype), shape=shape) for v in (real, imag)))


@COMPLEX.row("polar.default")
def _polar(c, size, angle):
    return Pair(ew.mul(size, ew.cos(angle)), ew.mul(size, ew.sin(angle)))


@COMPLEX.row("view_as_complex.default")
def _view_as_complex(c, x):
    last = x.rank - 1
    part = lambda k: mv.squeeze(mv.slice_axis(x, last, k, k + 1), (last,))
    return Pair(part(0), part(1))


@COMPLEX.row("view_as_real.default")
def _view_as_real(c, z):
    parts = (mv.reshape(v, shape=(*v.shape, 1)) for v in (z.real, z.imag))
    return mv.concat(*parts, axis=z.real.rank)


@COMPLEX.row("real.default")
def _real(c, z):
    return z.real


@COMPLEX.row("imag.default")
def _imag(c, z):
    return z.imag


@COMPLEX.row("_to_copy.default")
def _to_copy(c, x, *, dtype=None):
    if dtype is not None and not dtype.is_complex:
        return to(x.real, c.dtype)
    return pair(x, c.dtype)


# ---- arithmetic --------------------------------------------------------------------------------


@COMPLEX.row("abs.default")
def _abs(c, z):
    return ew.sqrt(square(z))


@COMPLEX.row("angle.default")
def _angle(c, z):
    return ew.atan2(z.imag, z.real)


@COMPLEX.row("_conj.default", "conj_physical.default", "conj.default", "_conj_physical.default")
def _conj(c, z):
    return conjugate(z)


@COMPLEX.row("resolve_conj.default", "resolve_neg.default")
def _same(c, z):
    return z


@COMPLEX.row("div.Tensor")
def _div(c, x, y):
    if not holds_pair(y):
        y = lift(y, c.dtype)
        return Pair(ew.div(x.real, y), ew.div(x.imag, y))
    x, y = pair(x, c.dtype), pair(y, c.dtype)
    z, size = times(x, conjugate(y)), square(y)
    return Pair(ew.div(z.real, size), ew.div(z.imag, size))


@COMPLEX.row("reciprocal.default")
def _reciprocal(c, z):
    size = square(z)
    return Pair(ew.div(z.real, size), ew.neg(ew.div(z.imag, size)))


@COMPLEX.row("exp.default")
def _exp(c, z):
    return _polar(c, ew.exp(z.real), z.imag)


@COMPLEX.row("log.default")
def _log(c, z):
    return Pair(ew.log(_abs(c, z)), _angle(c, z))


@COMPLEX.row("pow.Tensor_Scalar")
def _pow(c, z, power):
    if power != 2:
        raise c.fail(f"complex tensors to the power {power} are not supported")
    return times(z, z)


# ---- Fourier transforms ------------------------------------------------------------------------


def _scaled(c: Call, parts, sizes, mode: int):
    """What a sum over `sizes` elements is divided by: nothing, the root of their number, or it."""
    if mode == 0:
        return parts
    count = as_expr(1)
    for n in sizes:
        count = count * as_expr(n)
    count = lift(as_dim(count), c.dtype)
    count = ew.sqrt(count) if mode == 1 else count
    return [ew.div(p, count) for p in parts]


def _packed(parts) -> Node:
    """Parts along a new last axis."""
    grown = [mv.reshape(p, shape=(*p.shape, 1)) for p in parts]
    return grown[0] if len(grown) == 1 else mv.concat(*grown, axis=grown[0].rank - 1)


def _unpacked(x: Node) -> list[Node]:
    last = x.rank - 1
    return [mv.squeeze(mv.slice_axis(x, last, k, k + 1), (last,)) for k in range(x.shape[last])]


def _along(parts, axis: int, forward: bool, onesided=False, length=None) -> list[Node]:
    """The sums of a transform along one axis, not divided by their length."""
    y = dft(_packed(parts), axis=axis, inverse=not forward, onesided=onesided, length=length)
    if not forward:  # dft divides
        n = y.shape[axis]
        y = ew.mul(y, lift(n, y.dtype))
    return _unpacked(y)


@COMPLEX.row("_fft_r2c.default")
def _fft_r2c(c, x, dim, normalization, onesided):
    x = to(x, c.dtype)
    axes = [axis_of(a, x.rank) for a in dim]
    parts = _along([x], axes[-1], True, onesided=onesided)
    for a in axes[:-1]:
        parts = _along(parts, a, True)
    return Pair(*_scaled(c, parts, [x.shape[a] for a in axes], normalization))


@COMPLEX.row("_fft_c2c.default")
def _fft_c2c(c, z, dim, normalization, forward):
    axes = [axis_of(a, z.real.rank) for a in dim]
    parts = [z.real, z.imag]
    for a in axes:
        parts = _along(parts, a, forward)
    return Pair(*_scaled(c, parts, [z.real.shape[a] for a in axes], normalization))


@COMPLEX.row("_fft_c2r.default")
def _fft_c2r(c, z, dim, normalization, last_dim_size):
    axes = [axis_of(a, z.real.rank) for a in dim]
    parts = [z.real, z.imag]
    for a in axes[:-1]:
        parts = _along(parts, a, False)
    length = as_dim(as_expr(last_dim_size))
    (y,) = _along(parts, axes[-1], False, onesided=True, length=length)
    return _scaled(c, [y], [y.shape[a] for a in axes], normalization)[0]


def refuse_outside(value, what: str) -> None:
    """Complex tensors are no inputs or results of a program."""
    if isinstance(value, Pair):
        raise FrontendError(f"{what} is a complex tensor",
                            help="return torch.view_as_real(x), or its parts")  # fmt: skip
