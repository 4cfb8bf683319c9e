"""TensorProto -> NumPy array: raw, typed-field, packed sub-byte, sparse and external data.

A declared size is believed only if the bytes are there: nothing is allocated for dimensions that
the data does not fill. External files are mapped, must lie in the model's folder (no absolute path,
no `..`, no link that leads out) and are read only between their declared offset and length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx_raw import TOKEN, aligned_copy
from tensorwright.ir.dtype import DTYPES, SUBBYTE, DType, boolean
from tensorwright.runtime.pages import LARGE as MAPPED  # bytes of what programs copy

STRING = 8  # TensorProto.STRING
MOST_ELEMENTS = 1 << 58  # so many of 16 bytes are what NumPy can tell apart
MAX_DENSE = 1 << 28  # bytes of a sparse tensor written out
BY_NUMBER: dict[int, DType] = {d.onnx: d for d in DTYPES if d.onnx}
# Fields that hold typed data, by the element types that use them.
_INT32_TYPES = (
    "i32", "i16", "i8", "u16", "u8", "bool", "f16", "bf16", "f8e4m3fn", "f8e4m3fnuz", "f8e5m2",
    "f8e5m2fnuz", "f8e8m0", "f4e2m1", "i4", "u4", "i2", "u2",
)  # fmt: skip
FIELD = {
    "f32": "float_data", "f64": "double_data", "i64": "int64_data", "u64": "uint64_data",
    "u32": "uint64_data", **dict.fromkeys(_INT32_TYPES, "int32_data"),
}  # fmt: skip


def element_type(number: int) -> DType | str | None:
    """The element type of a TensorProto.DataType number; "string" for strings."""
    if number == STRING:
        return "string"
    found = BY_NUMBER.get(number)
    if found is None:
        raise FrontendError(f"element type {number} is not supported")
    return found


class TensorReader:
    """Reads the tensors of one file; `folder` is where its external data may lie, `taken` the bytes
    of large tensors by the tokens that stand for them."""

    def __init__(self, folder: Path | None, taken: Mapping[bytes, memoryview] | None = None):
        self.folder, self.taken = folder, taken or {}
        self.maps: dict[Path, np.memmap] = {}

    def read(self, t) -> np.ndarray:
        """The array of a TensorProto (dtype object for strings)."""
        dims = tuple(t.dims)
        if any(d < 0 for d in dims):
            raise FrontendError(f"a tensor has negative dimensions {dims}")
        kind = element_type(t.data_type)
        count = math.prod(dims)
        if math.prod(max(d, 1) for d in dims) > MOST_ELEMENTS:
            raise FrontendError(f"a tensor has dimensions {dims}, too large for any machine")
        if kind == "string":
            if len(t.string_data) != count:
                raise _wrong_size(dims, count, len(t.string_data), "strings")
            return np.array([s.decode(errors="replace") for s in t.string_data],
                            dtype=object).reshape(dims)  # fmt: skip
        if t.data_location == type(t).EXTERNAL:
            return _from_bytes(self.external(t), kind, dims)
        if t.HasField("raw_data"):
            return _from_bytes(self.raw(t.raw_data), kind, dims)
        return _from_field(getattr(t, FIELD[kind.name]), kind, dims)

    def raw(self, data: bytes) -> np.ndarray:
        """Large tensors stay where the file is mapped: most are copied once more anyway, into the
        layout that a kernel wants, and a program copies the others to memory of its own."""
        taken = self.taken.get(data) if len(data) == TOKEN else None
        if taken is not None and len(taken) < MAPPED:
            return aligned_copy(taken)
        return np.frombuffer(data if taken is None else taken, np.uint8)

    def read_sparse(self, s) -> np.ndarray:
        """A SparseTensorProto written out densely."""
        values, indices = self.read(s.values), self.read(s.indices)
        dims = tuple(s.dims)
        count = math.prod(dims)
        if any(d < 0 for d in dims) or values.dtype == object:
            raise FrontendError(f"a sparse tensor has dimensions {dims}")
        if count * values.dtype.itemsize > MAX_DENSE:
            raise FrontendError(f"a sparse tensor of {count} elements is too large to write out")
        if values.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise FrontendError("a sparse tensor has malformed values or indices")
        if indices.ndim == 2 and indices.shape == (len(values), len(dims)):
            inside = np.all((indices >= 0) & (indices < np.array(dims, np.int64)))
            flat = np.ravel_multi_index(tuple(indices.T), dims) if inside and dims else None
        else:
            flat = indices if indices.shape == values.shape else None
        if flat is None or np.any(flat < 0) or np.any(flat >= count):
            raise FrontendError("a sparse tensor has indices outside its dimensions")
        dense = np.zeros(count, values.dtype)
        dense[flat] = values
        return dense.reshape(dims)

    def external(self, t) -> np.ndarray:
        """The bytes of a tensor that lies in another file."""
        entries = {e.key: e.value for e in t.external_data}
        if not all(isinstance(v, str) for v in entries.values()):
            raise FrontendError("external data is described by what is not UTF-8")
        path = self.external_path(entries.get("location", ""))
        data = self.maps.get(path)
        if data is None:
            if path.stat().st_size == 0:
                data = np.zeros(0, np.uint8)
            else:
                data = np.memmap(path, np.uint8, "r")
            self.maps[path] = data
        offset = _natural(entries.get("offset", "0"), "offset")
        length = _natural(entries.get("length", str(max(len(data) - offset, 0))), "length")
        if offset + length > len(data):
            raise FrontendError(
                f"external data ends at byte {offset + length} of {path.name}, which has "
                f"{len(data)} bytes"
            )
        return data[offset : offset + length]

    def external_path(self, location: str) -> Path:
        """The file of external data, which must lie in the model's folder."""
        pure = PurePosixPath(location.replace("\\", "/"))
        refused = "" if location else "no location"
        if pure.is_absolute() or ":" in location or "\0" in location:
            refused = "an absolute path"
        elif ".." in pure.parts:
            refused = "a path that leaves the model's folder"
        if refused:
            raise FrontendError(f"external data gives {refused}: {location!r}")
        if self.folder is None:
            raise FrontendError(
                f"the model keeps data in {location!r}, and was not read from a file",
                help="pass the path of the model instead of its bytes",
            )
        root = self.folder.resolve()
        try:
            path = (root / pure).resolve()
            found = path.is_file()
        except (OSError, RuntimeError) as e:  # too long a name, links in a circle
            raise FrontendError(f"external data {location[:200]!r}: {e}") from None
        if not path.is_relative_to(root):
            raise FrontendError(f"external data leads out of the model's folder: {location!r}")
        if not found:
            raise FrontendError(f"external data {location!r} is missing")
        return path


def _natural(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise FrontendError(f"external data has {what} {text!r}")
    return int(text)


def _from_bytes(data: np.ndarray, kind: DType, dims: tuple[int, ...]) -> np.ndarray:
    count = math.prod(dims)
    if kind in SUBBYTE:
        return _unpack(data, kind, dims)
    if len(data) != count * kind.bytes:
        raise _wrong_size(dims, count * kind.bytes, len(data), "bytes")
    if kind is boolean:
        return (np.asarray(data) != 0).reshape(dims)
    return data.view(kind.numpy).reshape(dims)


def _unpack(data: np.ndarray, kind: DType, dims: tuple[int, ...]) -> np.ndarray:
    """Elements of less than a byte, packed from the low bits up."""
    count, per_byte = math.prod(dims), 8 // kind.bits
    if len(data) != -(-count // per_byte):
        raise _wrong_size(dims, -(-count // per_byte), len(data), "bytes")
    shifts = np.arange(per_byte, dtype=np.uint8) * kind.bits
    codes = (data[:, None] >> shifts & ((1 << kind.bits) - 1)).reshape(-1)[:count]
    if kind.is_float:
        return codes.astype(np.uint8).view(kind.numpy).reshape(dims)
    if kind.kind == "int":
        signed = codes.astype(np.int8)
        codes = np.where(signed >= 1 << (kind.bits - 1), signed - (1 << kind.bits), signed)
    return codes.astype(kind.numpy).reshape(dims)


def _from_field(values, kind: DType, dims: tuple[int, ...]) -> np.ndarray:
    count = math.prod(dims)
    if kind in SUBBYTE:
        return _unpack(np.array(values, np.int64).astype(np.uint8), kind, dims)
    if len(values) != count:
        raise _wrong_size(dims, count, len(values), "values")
    if kind.name in ("f32", "f64", "i64", "u64", "i32"):
        return np.array(values, kind.numpy).reshape(dims)
    wide = np.array(values, np.uint64 if kind.name == "u32" else np.int64)
    if kind is boolean:
        return (wide != 0).reshape(dims)
    if kind.is_float:  # bit patterns
        return wide.astype(f"uint{kind.bytes * 8}").view(kind.numpy).reshape(dims)
    return wide.astype(kind.numpy).reshape(dims)


def _wrong_size(dims, expected: int, found: int, unit: str) -> FrontendError:
    return FrontendError(
        f"a tensor of shape {list(dims)} needs {expected} {unit} and has {found}",
        help="is the file complete?",
    )
