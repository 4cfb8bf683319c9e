"""Element types: one row per dtype with everything the other floors ask about it.

A dtype is interned: `f32 is dtype("f32")`. `index` is the type of shapes, loop variables and
subscripts: 64 bits wide, assumed never to overflow, and never the element type of a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class Annotation:
    """An element type with dimensions in the shape language: ints, names, expressions of names."""

    dtype: DType
    dims: tuple


@dataclass(frozen=True, eq=False)
class DType:
    name: str
    kind: str  # "float" | "int" | "uint" | "bool" | "index"
    bits: int
    numpy: np.dtype
    llvm: str  # type of a value in registers
    onnx: int  # TensorProto.DataType number, 0 if none
    torch: str  # attribute of the torch module, "" if none

    @property
    def bytes(self) -> int:
        """Storage size of one element (sub-byte types are stored one to a byte)."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_signed(self) -> bool:
        return self.kind in ("int", "float", "index")

    @property
    def min(self):
        """Smallest finite value."""
        if self.kind == "bool":
            return False
        info = ml_dtypes.finfo(self.numpy) if self.is_float else ml_dtypes.iinfo(self.numpy)
        return float(info.min) if self.is_float else int(info.min)

    @property
    def max(self):
        """Largest finite value."""
        if self.kind == "bool":
            return True
        info = ml_dtypes.finfo(self.numpy) if self.is_float else ml_dtypes.iinfo(self.numpy)
        return float(info.max) if self.is_float else int(info.max)

    def __getitem__(self, dims) -> Annotation:
        """`f32["n", 4]`: the type of an argument, as annotations write it."""
        return Annotation(self, dims if isinstance(dims, tuple) else (dims,))

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self):
        return (dtype, (self.name,))


def _np(name) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


f64 = DType("f64", "float", 64, _np("float64"), "double", 11, "float64")
f32 = DType("f32", "float", 32, _np("float32"), "float", 1, "float32")
f16 = DType("f16", "float", 16, _np("float16"), "i16", 10, "float16")
bf16 = DType("bf16", "float", 16, _np("bfloat16"), "i16", 16, "bfloat16")
f8e4m3fn = DType("f8e4m3fn", "float", 8, _np("float8_e4m3fn"), "i8", 17, "float8_e4m3fn")
f8e4m3fnuz = DType("f8e4m3fnuz", "float", 8, _np("float8_e4m3fnuz"), "i8", 18, "float8_e4m3fnuz")
f8e5m2 = DType("f8e5m2", "float", 8, _np("float8_e5m2"), "i8", 19, "float8_e5m2")
f8e5m2fnuz = DType("f8e5m2fnuz", "float", 8, _np("float8_e5m2fnuz"), "i8", 20, "float8_e5m2fnuz")
f8e8m0 = DType("f8e8m0", "float", 8, _np("float8_e8m0fnu"), "i8", 24, "float8_e8m0fnu")
f4e2m1 = DType("f4e2m1", "float", 4, _np("float4_e2m1fn"), "i8", 23, "")
i64 = DType("i64", "int", 64, _np("int64"), "i64", 7, "int64")
i32 = DType("i32", "int", 32, _np("int32"), "i32", 6, "int32")
i16 = DType("i16", "int", 16, _np("int16"), "i16", 5, "int16")
i8 = DType("i8", "int", 8, _np("int8"), "i8", 3, "int8")
i4 = DType("i4", "int", 4, _np("int4"), "i8", 22, "")
i2 = DType("i2", "int", 2, _np("int2"), "i8", 26, "")
u64 = DType("u64", "uint", 64, _np("uint64"), "i64", 13, "uint64")
u32 = DType("u32", "uint", 32, _np("uint32"), "i32", 12, "uint32")
u16 = DType("u16", "uint", 16, _np("uint16"), "i16", 4, "uint16")
u8 = DType("u8", "uint", 8, _np("uint8"), "i8", 2, "uint8")
u4 = DType("u4", "uint", 4, _np("uint4"), "i8", 21, "")
u2 = DType("u2", "uint", 2, _np("uint2"), "i8", 25, "")
boolean = DType("bool", "bool", 8, _np("bool"), "i1", 9, "bool")
index = DType("index", "index", 64, _np("int64"), "i64", 0, "")

DTYPES = (
    f64, f32, f16, bf16, f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz, f8e8m0, f4e2m1,
    i64, i32, i16, i8, i4, i2, u64, u32, u16, u8, u4, u2, boolean, index,
)  # fmt: skip
FLOATS = (f64, f32, f16, bf16)
FLOATS8 = (f8e4m3fn, f8e4m3fnuz, f8e5m2, f8e5m2fnuz)
INTEGERS = (i64, i32, i16, i8, u64, u32, u16, u8)
SUBBYTE = (i4, i2, u4, u2, f4e2m1)
NUMERIC = FLOATS + INTEGERS

_BY_NAME = {d.name: d for d in DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES if d is not index}


def dtype(spec) -> DType:
    """The dtype named by a DType, one of our names, or anything NumPy takes for a dtype."""
    if isinstance(spec, DType):
        return spec
    if isinstance(spec, str) and spec in _BY_NAME:
        return _BY_NAME[spec]
    found = _BY_NUMPY.get(np.dtype(spec))
    if found is None:
        raise TypeError(f"no element type corresponds to {spec!r}")
    return found


def promote(a: DType, b: DType) -> DType:
    """The common type of two operands, by the array API's promotion table (same kind: the wider;
    bool gives way to anything; an integer gives way to a float)."""
    if a is b:
        return a
    rank = {"bool": 0, "uint": 1, "int": 1, "index": 1, "float": 2}
    if rank[a.kind] != rank[b.kind]:
        return a if rank[a.kind] > rank[b.kind] else b
    return dtype(np.promote_types(a.numpy, b.numpy))
