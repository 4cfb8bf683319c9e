"""Casts to and from types without machine arithmetic, as branch-free integer expressions.

    cast(x: f8e5m2, f32)  ->  the bits of x moved to their place in an f32, times a power of two
    cast(x: f64, bf16)    ->  cast(x rounded to odd in f32, bf16): one rounding in effect
    cast(x: i32, i4)      ->  the four low bits, kept in a byte

Every conversion goes through f32, which holds all narrower types exactly. In memory and registers
a type below 8 bits is a byte of which only its own low bits count; the others are written as 0. A
`bitcast` between such a type and u8 reads or makes that byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.ir.dtype import (
    SUBBYTE,
    DType,
    bf16,
    boolean,
    f4e2m1,
    f8e4m3fn,
    f8e4m3fnuz,
    f8e5m2,
    f8e5m2fnuz,
    f8e8m0,
    f16,
    f32,
    f64,
    i8,
    i32,
    index,
    u8,
    u16,
    u32,
)  # fmt: skip
from tensorwright.ir.expr import (
    Expr,
    binary,
    cast,
    compare,
    const,
    make,
    maximum,
    minimum,
    select,
    unary,
)  # fmt: skip

NIBBLES = tuple(t for t in SUBBYTE if not t.is_float)
F32_INFINITY = 0x7F800000


@dataclass(frozen=True)
class Format:
    """A float type as bits: its stored mantissa bits and exponent bias, the codes of its largest
    number and of NaN (None: it has none), without the sign. `infinite`: the code after the largest
    number is infinity. `unsigned_zero`: a zero with a sign is NaN."""

    bits: DType
    mantissa: int
    bias: int
    largest: int
    nan: int | None
    infinite: bool = False
    unsigned_zero: bool = False

    @property
    def shift(self) -> int:
        """From a mantissa's place here to its place in an f32."""
        return 23 - self.mantissa

    def sign_bit(self, t: DType) -> int:
        return 1 << (t.bits - 1)


FORMATS = {
    f16: Format(u16, 10, 15, 0x7BFF, 0x7E00, infinite=True),
    f8e5m2: Format(u8, 2, 15, 0x7B, 0x7E, infinite=True),
    f8e4m3fn: Format(u8, 3, 7, 0x7E, 0x7F),
    f8e5m2fnuz: Format(u8, 2, 16, 0x7F, 0x80, unsigned_zero=True),
    f8e4m3fnuz: Format(u8, 3, 8, 0x7F, 0x80, unsigned_zero=True),
    f4e2m1: Format(u8, 1, 1, 0x7, None),
}
NARROW_FLOATS = frozenset((*FORMATS, bf16, f8e8m0))


def expand_cast(e: Expr, native: frozenset[DType] = frozenset((f16,))) -> Expr | None:
    """A cast or bitcast in terms of ones that the emitter has; None if it has this one. native: the
    types that the target converts from and to f32 by instructions."""
    x, to = e.args[0], e.dtype
    source = x.dtype
    if e.op == "bitcast":
        return _bitcast(x, source, to)
    if source in NIBBLES:
        return cast(_integer(x), to)
    if to in NIBBLES:
        return _to_nibble(x, source, to)
    if source in NARROW_FLOATS:
        if to is f32:
            return None if source in native and source is not bf16 else decode(x)
        return cast(cast(x, f32), to)
    if to in NARROW_FLOATS:
        if source is not f32:
            return cast(to_f32(x, to), to)
        return None if to in native else encode(x, to)
    return None


def _bitcast(x: Expr, source: DType, to: DType) -> Expr | None:
    """Between types below 8 bits through the byte; bytes are read and made directly."""
    narrow = [t for t in (source, to) if t in SUBBYTE]
    return raw(byte(x), to) if len(narrow) == 2 else None


def byte(x: Expr) -> Expr:
    """The bits of a narrow value as an unsigned integer of the width that it has in memory."""
    return make("bitcast", u16 if x.dtype.bits == 16 else u8, (x,))


def raw(bits: Expr, to: DType) -> Expr:
    """The narrow value with these bits."""
    return make("bitcast", to, (bits,))


def float_of(bits: Expr) -> Expr:
    return make("bitcast", f32, (bits,))


def bits_of(x: Expr) -> Expr:
    return make("bitcast", u32, (x,))


# ---- integers below 8 bits ---------------------------------------------------------------------


def low_bits(x: Expr) -> Expr:
    """The bits of a 2- or 4-bit integer, as a number."""
    return cast(byte(x) & ((1 << x.dtype.bits) - 1), u32)


def _integer(x: Expr) -> Expr:
    """The value of a 2- or 4-bit integer in a byte: its other bits may be anything."""
    t = x.dtype
    if not t.is_signed:
        return byte(x) & ((1 << t.bits) - 1)
    up = const(8 - t.bits, i8)
    return binary("shr", binary("shl", make("bitcast", i8, (byte(x),)), up), up)


def _to_nibble(x: Expr, source: DType, to: DType) -> Expr:
    """Floats saturate, integers wrap."""
    if source.is_float:
        wide = cast(x, i32)  # saturates, and NaN gives 0
        x = maximum(minimum(wide, const(to.max, i32)), const(to.min, i32))
    return raw(cast(x, u8) & ((1 << to.bits) - 1), to)


# ---- floats ------------------------------------------------------------------------------------


def to_f32(x: Expr, to: DType) -> Expr:
    """`x`, not narrower than f32 or an integer, as an f32 that rounds to `to` as x itself would."""
    source = x.dtype
    exact = source is boolean or (source is not index and source.bits <= 16)
    small = to is not bf16 and to is not f8e8m0  # 2**24 and more, where f32 rounds, overflows there
    if not source.is_float and (exact or small):
        return cast(x, f32)
    return round_to_odd(x if source is f64 else cast(x, f64))


def round_to_odd(x: Expr) -> Expr:
    """An f64 as the f32 beside it with an odd last bit, unless it is exact: rounding that again to
    a type with at least two bits less is rounding once."""
    near = cast(x, f32)
    back = cast(near, f64)
    beyond = compare("gt", unary("abs", back), unary("abs", x))
    bits = bits_of(near)
    toward_zero = bits - cast(beyond, u32)
    exact = compare("eq", back, x) | _not_finite(bits)
    return float_of(select(exact, bits, toward_zero | 1))


def _not_finite(bits: Expr) -> Expr:
    return compare("ge", bits & 0x7FFFFFFF, const(F32_INFINITY, u32))


def decode(x: Expr) -> Expr:
    """A narrow float as f32: mantissa and exponent move to their place, and a multiplication, which
    is exact, corrects the bias and normalizes what is below the normal range."""
    if x.dtype is f8e8m0:
        return _decode_power(x)
    if x.dtype is bf16:
        return float_of(binary("shl", cast(byte(x), u32), const(16, u32)))
    f = FORMATS[x.dtype]
    sign = f.sign_bit(x.dtype)
    code = cast(byte(x), u32) & (2 * sign - 1)
    size = code & (sign - 1)
    moved = binary("shl", size, const(f.shift, u32))
    value = bits_of(float_of(moved) * const(2.0 ** (127 - f.bias), f32))
    if f.infinite:
        value = select(compare("gt", size, const(f.largest, u32)), moved | F32_INFINITY, value)
    elif f.nan is not None:
        value = select(compare("eq", code if f.unsigned_zero else size, const(f.nan, u32)),
                       const(0x7FC00000, u32), value)  # fmt: skip
    return float_of(value | binary("shl", code & sign, const(32 - x.dtype.bits, u32)))


def encode(x: Expr, to: DType) -> Expr:
    """An f32 as a narrow float, rounded to nearest even; beyond the largest number infinity, or the
    largest number where there is none."""
    if to is bf16:
        return _encode_bf16(x)
    if to is f8e8m0:
        return _encode_power(x)
    f = FORMATS[to]
    bits = bits_of(x)
    size = bits & 0x7FFFFFFF
    unit = const(2.0 ** (f.shift + 1 - f.bias), f32)  # its last bit is worth the least number
    below = bits_of(float_of(size) + unit) - bits_of_const(unit)
    rebias = const((127 - f.bias) << f.mantissa, u32)
    smallest = const((128 - f.bias) << 23, u32)
    code = select(compare("lt", size, smallest), below, _rounded(size, f.shift) - rebias)
    code = minimum(code, const(f.largest + f.infinite, u32))
    sign = binary("shr", bits, const(31, u32))
    signed = code | binary("shl", sign, const(to.bits - 1, u32))
    if f.unsigned_zero:
        signed = select(compare("eq", code, const(0, u32)), code, signed)
    nan = const(f.sign_bit(to) if f.nan is None else f.nan, u32)  # without NaN, it becomes -0
    result = select(compare("gt", size, const(F32_INFINITY, u32)), nan, signed)
    return raw(cast(result, f.bits), to)


def bits_of_const(x: Expr) -> Expr:
    return const(int(x.dtype.numpy.type(x.value).view("uint32")), u32)


def _rounded(size: Expr, shift: int) -> Expr:
    """size / 2**shift, to nearest even."""
    last = binary("shr", size, const(shift, u32)) & 1
    return binary("shr", size + ((1 << (shift - 1)) - 1) + last, const(shift, u32))


def _encode_bf16(x: Expr) -> Expr:
    bits = bits_of(x)
    quiet = binary("shr", bits, const(16, u32)) | 0x40
    nan = compare("gt", bits & 0x7FFFFFFF, const(F32_INFINITY, u32))
    return raw(cast(select(nan, quiet, _rounded(bits, 16)), u16), bf16)


def _decode_power(x: Expr) -> Expr:
    """f8e8m0 holds the biased exponent of an f32; code 0 is below the normal range."""
    code = cast(byte(x), u32)
    normal = binary("shl", code, const(23, u32))
    bits = select(compare("eq", code, const(0, u32)), const(0x400000, u32), normal)
    return float_of(select(compare("eq", code, const(255, u32)), const(0x7FC00000, u32), bits))


def _encode_power(x: Expr) -> Expr:
    """The nearest power of two, the larger one of two; NaN for what is not positive."""
    bits = bits_of(x)
    normal = minimum(binary("shr", bits + 0x400000, const(23, u32)), const(254, u32))
    tiny = cast(compare("gt", bits, const(0x600000, u32)), u32)
    code = select(compare("lt", bits, const(0x800000, u32)), tiny, normal)
    positive = compare(
        "le", bits - 1, const(F32_INFINITY - 1, u32)
    )  # neither zero, NaN nor negative
    return raw(cast(select(positive, code, const(255, u32)), u8), f8e8m0)
