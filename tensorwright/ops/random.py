"""Random numbers from a counter: Philox 4x32-10 (Salmon et al. 2011, "Random numbers: as easy as
1, 2, 3"), so that an element depends on the key and its position only, never on an order.

A key is u64[2]: the generator's key, and a stream that fills the upper half of the counter; the
lower half is the row-major position. Callers give different draws different streams.

    random_bits(key, shape=(n,))  ->  y[i] = first word of philox(counter=(i, key[1]), key=key[0])
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, INTEGERS, DType, f32, f64, i64, u32, u64
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import Buffer, Expr, binary, const
from tensorwright.ir.expr import cast as cast_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import Stmt
from tensorwright.ir.type import Dim, Shape, TensorType, shape_of
from tensorwright.ops.cumulative import cumsum
from tensorwright.ops.define import check_dtype, compute, define, require
from tensorwright.ops.elementwise import (
    add,
    bitwise_and,
    cast,
    cos,
    div,
    exp,
    greater_equal,
    less,
    log,
    minimum,
    mul,
    select,
    shift_right,
    sqrt,
    sub,
)  # fmt: skip
from tensorwright.ops.movement import expand_dims, linear_position, slice_axis
from tensorwright.ops.reduce import reduce_max, reduce_sum

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def _low(e: Expr) -> Expr:
    return cast_expr(e, u32)


def _high(e: Expr) -> Expr:
    return cast_expr(binary("shr", e, const(32, u64)), u32)


def philox(counter: list[Expr], key: list[Expr]) -> list[Expr]:
    """Four words of 32 bits from a counter of four and a key of two, all u32."""
    for r in range(ROUNDS):
        products = [cast_expr(counter[2 * k], u64) * const(m, u64)
                    for k, m in enumerate(MULTIPLIERS)]  # fmt: skip
        keys = [k + const(r * step, u32) for k, step in zip(key, KEY_STEPS)]
        xor = lambda *es: binary("xor", binary("xor", es[0], es[1]), es[2])
        counter = [
            xor(_high(products[1]), counter[1], keys[0]), _low(products[1]),
            xor(_high(products[0]), counter[3], keys[1]), _low(products[0]),
        ]  # fmt: skip
    return counter


def _philox_arrays(counter: list, key: list) -> list:
    """The same on arrays of u64 that hold 32 bits each."""
    for r in range(ROUNDS):
        products = [counter[2 * k] * np.uint64(m) for k, m in enumerate(MULTIPLIERS)]
        keys = [np.uint64((int(k) + r * step) & MASK) for k, step in zip(key, KEY_STEPS)]
        high = [p >> np.uint64(32) for p in products]
        low = [p & np.uint64(MASK) for p in products]
        counter = [high[1] ^ counter[1] ^ keys[0], low[1], high[0] ^ counter[3] ^ keys[1], low[0]]
    return counter


def _infer_bits(key: TensorType, *, shape: Shape, dtype: DType = u32) -> TensorType:
    require(key.dtype is u64 and key.shape[-1:] == (2,),
            f"random_bits: the key is {key}, not u64[2] or several of them")  # fmt: skip
    require(dtype_of(dtype) in (u32, u64), f"random_bits: bits are u32 or u64, not {dtype}")
    return TensorType(dtype_of(dtype), (*key.shape[:-1], *shape_of(shape)))


def _check_key(op: str, key: TensorType) -> None:
    require(key.dtype is u64 and key.shape == (2,), f"{op}: the key is {key}, not u64[2]")


def _lower_bits(out: Buffer, key: Buffer, *, shape, dtype) -> Stmt:
    lead = key.rank - 1

    def element(*i: Expr) -> Expr:
        own = i[:lead]
        position = cast_expr(linear_position(i[lead:], out.shape[lead:]), u64)
        words = [position, key[(*own, const(1))], key[(*own, const(0))]]
        *counter, k0, k1 = (half(w) for w in words for half in (_low, _high))
        low, high, *_ = philox(counter, [k0, k1])
        if out.dtype is u32:
            return low
        upper = binary("shl", cast_expr(high, u64), const(32, u64))
        return binary("or", cast_expr(low, u64), upper)

    return compute(out, element)


def _reference_bits(key, shape, dtype=u32):
    if key.ndim > 1:
        each = [_reference_bits(k, shape, dtype) for k in key.reshape(-1, 2)]
        kind = dtype_of(dtype).numpy
        return np.asarray(each, kind).reshape(*key.shape[:-1], *shape)
    position = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    halves = lambda w: [w & np.uint64(MASK), w >> np.uint64(32)]
    stream = [np.full_like(position, h) for h in halves(np.uint64(key[1]))]
    low, high, *_ = _philox_arrays([*halves(position), *stream], halves(np.uint64(key[0])))
    bits = low if dtype_of(dtype) is u32 else low | high << np.uint64(32)
    return bits.astype(dtype_of(dtype).numpy)


random_bits = define(
    "random_bits", "key", infer=_infer_bits, reference=_reference_bits, lower=_lower_bits,
    gradient=lambda g, y, key, **attrs: (None,), once=True,
    samples=("u64[2] shape=(3,4)", "u64[2] shape=(n,2) dtype=u64 n=1,5", "u64[2] shape=()",
             "u64[2]@0:0 shape=(4,)", "u64[2] shape=(0,)", "u64[n,2] shape=(3,) n=1,4"),
    doc="Uniform random words, one for each position; several keys give as many tensors.",
)  # fmt: skip

# ---- distributions -----------------------------------------------------------------------------


def _infer_draw(op: str, key: TensorType, shape: Shape, dtype: DType) -> TensorType:
    _check_key(op, key)
    result = TensorType(dtype_of(dtype), shape_of(shape))
    check_dtype(op, result, FLOATS)
    return result


def unit(bits: Node, dtype: DType, open_at_zero: bool = False) -> Node:
    """Words as multiples of 2**-p in [0, 1), or in (0, 1]; p: 24 for u32, 53 for u64."""
    keep = 24 if bits.dtype is u32 else 53
    top = shift_right(bits, bits.dtype.bits - keep)
    value = cast(top, dtype=dtype)
    if open_at_zero:
        value = add(value, 1.0)
    return mul(value, 2.0**-keep)


def _computed_in(dtype: DType) -> DType:
    return f64 if dtype_of(dtype) is f64 else f32


def _infer_uniform(key: TensorType, *, shape: Shape, low: float = 0.0, high: float = 1.0,
                   dtype: DType = f32) -> TensorType:  # fmt: skip
    return _infer_draw("uniform", key, shape, dtype)


def _expand_uniform(key: Node, *, shape, low, high, dtype) -> Node:
    wide = _computed_in(dtype)
    value = unit(random_bits(key, shape=shape, dtype=u64 if wide is f64 else u32), wide)
    if (low, high) != (0.0, 1.0):
        value = add(mul(value, high - low), low)
    if dtype_of(dtype) is wide:
        return value
    # rounding to a narrower type must not reach `high` itself
    below = float(np.nextafter(np.asarray(high, dtype_of(dtype).numpy),
                               np.asarray(low, dtype_of(dtype).numpy)))  # fmt: skip
    return minimum(cast(value, dtype=dtype), below)


def _reference_uniform(key, shape, low=0.0, high=1.0, dtype=f32):
    wide = _computed_in(dtype)
    bits = _reference_bits(key, shape, u64 if wide is f64 else u32)
    keep = 53 if wide is f64 else 24
    value = (bits >> (8 * bits.itemsize - keep)).astype(wide.numpy) * wide.numpy.type(2.0**-keep)
    if (low, high) != (0.0, 1.0):
        value = value * wide.numpy.type(high - low) + wide.numpy.type(low)
    kind = dtype_of(dtype).numpy
    below = np.nextafter(np.asarray(high, kind), np.asarray(low, kind))
    return np.minimum(value.astype(kind), below) if dtype_of(dtype) is not wide else value


uniform = define(
    "uniform", "key", infer=_infer_uniform, expand=_expand_uniform, reference=_reference_uniform,
    gradient=lambda g, y, key, **attrs: (None,),
    samples=("u64[2] shape=(3,4)", "u64[2] shape=(n,) low=-2.0 high=3.0 n=1,6",
             "u64[2] shape=(5,) dtype=f64", "u64[2] shape=(40,) dtype=f16",
             "u64[2] shape=(40,) dtype=bf16", "u64[2] shape=(0,2)", "u64[2] shape=()"),
    doc="Uniform in [low, high), in steps of 2**-24 of the interval (2**-53 in f64).",
)  # fmt: skip


def _infer_normal(key: TensorType, *, shape: Shape, mean: float = 0.0, scale: float = 1.0,
                  dtype: DType = f32) -> TensorType:  # fmt: skip
    return _infer_draw("normal", key, shape, dtype)


def _expand_normal(key: Node, *, shape, mean, scale, dtype) -> Node:
    """Box and Muller's transform of the two halves of one word of 64 bits."""
    wide = _computed_in(dtype)
    bits = random_bits(key, shape=shape, dtype=u64)
    radius_bits = cast(shift_right(bits, 32), dtype=u32)
    angle_bits = cast(bitwise_and(bits, MASK), dtype=u32)
    radius = sqrt(mul(log(_fraction(radius_bits, wide, 1.0)), -2.0))
    value = mul(radius, cos(mul(_fraction(angle_bits, wide, 0.0), 2 * math.pi)))
    if (mean, scale) != (0.0, 1.0):
        value = add(mul(value, scale), mean)
    return value if dtype_of(dtype) is wide else cast(value, dtype=dtype)


def _fraction(bits: Node, dtype: DType, shift: float) -> Node:
    """All 32 bits in f64, the upper 24 in f32, of a word as a fraction of 1."""
    if dtype is f32:
        return unit(bits, f32, shift == 1.0)
    value = cast(bits, dtype=f64)
    return mul(add(value, 1.0) if shift else value, 2.0**-32)


def _reference_normal(key, shape, mean=0.0, scale=1.0, dtype=f32):
    wide = _computed_in(dtype)
    bits = _reference_bits(key, shape, u64)
    keep = 32 if wide is f64 else 24
    top = lambda words: (words >> np.uint64(32 - keep)).astype(np.float64)
    radius = (top(bits >> np.uint64(32)) + 1) * 2.0**-keep
    angle = top(bits & np.uint64(MASK)) * 2.0**-keep
    value = np.sqrt(-2 * np.log(radius)) * np.cos(2 * math.pi * angle)
    return (value * scale + mean).astype(dtype_of(dtype).numpy)


normal = define(
    "normal", "key", infer=_infer_normal, expand=_expand_normal, reference=_reference_normal,
    gradient=lambda g, y, key, **attrs: (None,),
    samples=("u64[2] shape=(3,4)", "u64[2] shape=(n,) mean=2.0 scale=0.5 n=1,6",
             "u64[2] shape=(5,) dtype=f64", "u64[2] shape=(9,) dtype=f16", "u64[2] shape=(0,)",
             "u64[2] shape=() dtype=bf16"),
    doc="Normal with the given mean and standard deviation.",
)  # fmt: skip


def _infer_bernoulli(key: TensorType, p: TensorType, *, dtype: DType | None = None) -> TensorType:
    _check_key("bernoulli", key)
    check_dtype("bernoulli", p, FLOATS)
    return TensorType(p.dtype if dtype is None else dtype_of(dtype), p.shape)


def _expand_bernoulli(key: Node, p: Node, *, dtype) -> Node:
    wide = _computed_in(p.dtype)
    draw = uniform(key, shape=p.shape, dtype=wide)
    chance = p if p.dtype is wide else cast(p, dtype=wide)
    return cast(less(draw, chance), dtype=p.dtype if dtype is None else dtype)


def _reference_bernoulli(key, p, dtype=None):
    draw = _reference_uniform(key, p.shape, dtype=_computed_in(p.dtype))
    return (draw < p).astype(p.dtype if dtype is None else dtype_of(dtype).numpy)


bernoulli = define(
    "bernoulli", "key, p", infer=_infer_bernoulli, expand=_expand_bernoulli,
    reference=_reference_bernoulli, gradient=lambda g, y, key, p, **attrs: (None, None),
    samples=("u64[2] f32[3,4]@0:1", "u64[2] f64[n]@0:1 dtype=bool n=1,6",
             "u64[2] f32[9]@0:1 dtype=i32", "u64[2] f16[9]@0:1 dtype=f32", "u64[2] f32[0]"),
    doc="1 with probability p, else 0.",
)  # fmt: skip


def _infer_dropout(x: TensorType, key: TensorType, *, ratio: float = 0.5) -> TensorType:
    _check_key("dropout", key)
    check_dtype("dropout", x, FLOATS)
    require(0 <= ratio < 1, f"dropout: ratio {ratio} is outside [0, 1)")
    return x


def _expand_dropout(x: Node, key: Node, *, ratio) -> Node:
    draw = uniform(key, shape=x.shape, dtype=_computed_in(x.dtype))
    return select(greater_equal(draw, ratio), mul(x, 1 / (1 - ratio)), mul(x, 0.0))


def _reference_dropout(x, key, ratio=0.5):
    draw = _reference_uniform(key, x.shape, dtype=_computed_in(x.dtype))
    return np.where(draw >= draw.dtype.type(ratio), x * x.dtype.type(1 / (1 - ratio)), 0 * x)


dropout = define(
    "dropout", "x, key", infer=_infer_dropout, expand=_expand_dropout,
    reference=_reference_dropout,
    samples=("f32[3,4] u64[2]", "f64[n,3] u64[2] ratio=0.2 n=1,4", "f32[0] u64[2]"),
    doc="x with elements zeroed with probability ratio, the others scaled by 1 / (1 - ratio).",
)  # fmt: skip


def _infer_multinomial(key: TensorType, logits: TensorType, *, samples: Dim = 1,
                       dtype: DType = i64) -> TensorType:  # fmt: skip
    _check_key("multinomial", key)
    check_dtype("multinomial", logits, (f32, f64))
    require(logits.rank == 2, f"multinomial: the logits have rank {logits.rank}, not 2")
    require(dtype_of(dtype) in INTEGERS, f"multinomial: indices cannot be {dtype}")
    return TensorType(dtype_of(dtype), shape_of((logits.shape[0], samples)))


def _expand_multinomial(key: Node, logits: Node, *, samples, dtype) -> Node:
    """Invert the distribution: how many partial sums the draw has reached."""
    weights = exp(sub(logits, reduce_max(logits, axes=(1,), keepdims=True)))
    sums = cumsum(weights, axis=1)
    total = slice_axis(sums, 1, _last(logits), logits.shape[1])
    draw = uniform(key, shape=(logits.shape[0], samples), dtype=logits.dtype)
    # the last class is what remains, so a draw that rounds to the total stays inside
    partial = slice_axis(div(sums, total), 1, 0, _last(logits))
    reached = greater_equal(expand_dims(draw, 2), expand_dims(partial, 1))
    return reduce_sum(cast(reached, dtype=dtype), axes=(2,))


def _last(logits: Node) -> Dim:
    return shape_of([logits.shape[1] - 1])[0]


def _reference_multinomial(key, logits, samples=1, dtype=i64):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    sums = np.cumsum(weights, axis=1)
    draw = _reference_uniform(key, (len(logits), samples), dtype=dtype_of(logits.dtype))
    partial = (sums / sums[:, -1:])[:, :-1]
    return (draw[:, :, None] >= partial[:, None, :]).sum(2).astype(dtype_of(dtype).numpy)


multinomial = define(
    "multinomial", "key, logits", infer=_infer_multinomial, expand=_expand_multinomial,
    reference=_reference_multinomial, gradient=lambda g, y, key, logits, **attrs: (None, None),
    samples=("u64[2] f32[2,5] samples=7", "u64[2] f64[n,3] samples=4 dtype=i32 n=1,3",
             "u64[2] f32[1,1]", "u64[2] f32[0,3] samples=2", "u64[2] f32[2,c] samples=3 c=2,6"),
    doc="Indices of classes, drawn by their unnormalized log-probabilities.",
)  # fmt: skip
