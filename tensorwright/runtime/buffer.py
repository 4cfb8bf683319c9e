"""Arrays in and out, without copies: NumPy, DLPack, the buffer protocol, plain Python numbers.

`to_array(value, dtype)` gives a NumPy array over the caller's memory whenever that memory is
C-contiguous and aligned, and a contiguous copy of it otherwise. Types never change silently:
only Python numbers and lists, which have no type of their own, take the one wanted.
"""

import contextlib
import ctypes
import functools
import sys
from typing import Any

import numpy as np

from tensorwright.base.errors import InternalError, RunError
from tensorwright.runtime import guard

ALIGNMENT = 64
SMALL = 1 << 10  # bytes of a result that is copied rather than kept where it is
_BYTE = np.dtype(np.uint8)

_NUMPY = {
    "bool": "bool", "f16": "float16", "f32": "float32", "f64": "float64",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "c64": "complex64", "c128": "complex128",
}  # fmt: skip
_ML_DTYPES = {
    "bf16": "bfloat16", "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
    "f8e4m3": "float8_e4m3", "f8e4m3fnuz": "float8_e4m3fnuz", "f8e5m2fnuz": "float8_e5m2fnuz",
    "f8e4m3b11fnuz": "float8_e4m3b11fnuz", "f8e3m4": "float8_e3m4", "f8e8m0": "float8_e8m0fnu",
    "f4e2m1": "float4_e2m1fn",
    "i4": "int4", "u4": "uint4", "i2": "int2", "u2": "uint2",
}  # fmt: skip

# DLPack's type codes; widths apart from 8 bits are told by `bits`.
_DLPACK_FAMILIES = {0: "i", 1: "u", 2: "f", 4: "bf", 5: "c", 6: "bool"}
_DLPACK_SMALL = {
    7: "f8e3m4", 8: "f8e4m3", 9: "f8e4m3b11fnuz", 10: "f8e4m3fn",
    11: "f8e4m3fnuz", 12: "f8e5m2", 13: "f8e5m2fnuz", 14: "f8e8m0",
}  # fmt: skip
_DEVICES = {
    1: "the CPU", 2: "a CUDA device", 3: "CUDA host memory", 4: "an OpenCL device",
    7: "a Vulkan device", 8: "a Metal device", 10: "a ROCm device", 11: "ROCm host memory",
    13: "CUDA managed memory", 14: "a oneAPI device",
}  # fmt: skip
_ON_CPU = (1, 3, 11)
_USED = b"used_dltensor"  # a capsule refers to its name's bytes, which must outlive it

_addressof, _start_of = ctypes.addressof, ctypes.c_char.from_buffer
_free = ctypes.CDLL(None).free
_free.argtypes, _free.restype = (ctypes.c_void_p,), None


@functools.cache
def numpy_dtype(name: str) -> np.dtype:
    """The NumPy type for a type name of ours: "f32", "bf16", "f8e4m3fn" ..."""
    if name in _NUMPY:
        return np.dtype(_NUMPY[name])
    if name in _ML_DTYPES:
        import ml_dtypes  # only programs that use such types pay for the import

        return np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
    raise InternalError(f"no NumPy type for '{name}'")


def known_dtype(name: str) -> bool:
    return name in _NUMPY or name in _ML_DTYPES


def dtype_name(dtype: np.dtype) -> str:
    """Our name for a NumPy type, or NumPy's where we have none."""
    return _names().get(dtype.name, str(dtype)) if dtype.isnative else str(dtype)


@functools.cache
def _names() -> dict[str, str]:
    return {v: k for k, v in (_NUMPY | _ML_DTYPES).items()}


def is_torch(value: Any) -> bool:
    """Whether a value is a PyTorch tensor, without importing PyTorch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def to_array(value: Any, dtype: np.dtype, what: str) -> np.ndarray:
    """A C-contiguous, aligned array over `value`; `what` names the input in errors."""
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, np.generic):
        array = np.asarray(value)
    elif isinstance(value, (bool, int, float, complex, list, tuple)):
        array = _from_python(value, dtype, what)
    elif hasattr(value, "__dlpack__"):
        array = from_dlpack(value, what)
    else:
        array = _from_buffer(value, what)
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    return np.array(array, order="C", copy=True)


def address(array: np.ndarray) -> int:
    """Where an array's data begins."""
    try:
        return _addressof(_start_of(array))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or not NumPy's own type
        return array.__array_interface__["data"][0]  # takes 2 us rather than 0.5


def byte_view(buffer: Any) -> np.ndarray:
    """The bytes of an array or buffer, without a copy where it is contiguous."""
    if isinstance(buffer, np.ndarray):
        return np.ascontiguousarray(buffer).reshape(-1).view(np.uint8)
    return np.frombuffer(buffer, np.uint8)


def aligned_bytes(buffer: Any) -> np.ndarray:
    """The bytes of a buffer on a 64-byte boundary, copied only if they are not there yet."""
    flat = byte_view(buffer)
    if address(flat) % ALIGNMENT == 0:
        return flat
    copy, _ = aligned_empty(flat.shape, flat.dtype, flat.nbytes)
    copy[:] = flat
    return copy


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> tuple[np.ndarray, int]:
    """A new array on a 64-byte boundary, and its address."""
    try:
        base = np.empty(nbytes + ALIGNMENT, _BYTE)
        start = address(base)
        offset = -start % ALIGNMENT
        return np.ndarray(shape, dtype, base, offset), start + offset
    except (MemoryError, ValueError, OverflowError):  # NumPy has no empty array of huge sizes, too
        raise RunError(f"out of memory (for {nbytes} bytes)") from None


def _from_python(value: Any, dtype: np.dtype, what: str) -> np.ndarray:
    try:
        natural = np.asarray(value)
        if natural.size and not _widens(natural.dtype, dtype):
            raise RunError(
                f"{what}: Python values of type {dtype_name(natural.dtype)} given, "
                f"{dtype_name(dtype)} expected"
            )
        return np.asarray(value, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise RunError(f"{what}: cannot make {dtype_name(dtype)} of it: {error}") from error


def _widens(given: np.dtype, wanted: np.dtype) -> bool:
    # bool < int < float < complex, told by the first letter of our names: all but bool and bf16.
    ranks = {"i": 1, "u": 1, "f": 2, "b": 2, "c": 3}
    name = dtype_name(wanted)
    rank = 0 if name == "bool" else ranks[name[0]]
    return given.kind in "biufc" and (0 if given.kind == "b" else ranks[given.kind]) <= rank


def _from_buffer(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(memoryview(value))
    except (TypeError, ValueError):
        raise RunError(
            f"{what}: cannot read an array from a {type(value).__name__}",
            help="pass a NumPy array, or anything with __dlpack__ or the buffer protocol",
        ) from None


class _Managed(ctypes.Structure):
    """DLManagedTensor: the tensor, and how to give it back."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )  # fmt: skip


def from_dlpack(value: Any, what: str) -> np.ndarray:
    """An array over a DLPack producer's memory, which stays alive as long as the array."""
    with contextlib.suppress(Exception):
        return np.from_dlpack(value)
    # Not on the CPU, not to be had, or of a type NumPy itself does not know.
    kind, place = _device(value)
    if kind not in _ON_CPU:
        raise RunError(
            f"{what}: the data is on {place}, this program runs on the CPU",
            help="copy it to the CPU first (for PyTorch: x.cpu())",
        )
    try:
        capsule = value.__dlpack__()
    except Exception as error:
        raise RunError(
            f"{what}: its owner does not hand it out: {error}",
            help="for a PyTorch tensor that requires a gradient: x.detach()",
        ) from error
    return _view(_Loan(capsule), what)


def _device(value: Any) -> tuple[int, str]:
    """DLPack's number of the device that data is on (0 where it has none), and what that is."""
    try:
        kind = int(value.__dlpack_device__()[0])
    except Exception:
        device = getattr(value, "device", "unknown")
        return 0, f"the device '{device}', which holds no data to read"
    return kind, _DEVICES.get(kind, f"a device of kind {kind}")


class _Loan:
    """A consumed DLPack capsule; the memory goes back to its owner when the loan dies."""

    def __init__(self, capsule: object) -> None:
        api = _capsules()
        self.pointer = api.PyCapsule_GetPointer(capsule, b"dltensor")
        # The renamed capsule no longer frees the tensor: from here on we do.
        api.PyCapsule_SetName(capsule, _USED)
        self.tensor = _Managed.from_address(self.pointer)

    def __del__(self) -> None:
        deleter = self.tensor.deleter
        if deleter:
            # Deleters may touch Python objects, so the interpreter lock is kept.
            ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(deleter)(self.pointer)


class _Memory:
    """Bytes at an address, with whatever keeps them alive, as NumPy wants to be told of them."""

    def __init__(self, start: int, nbytes: int, owner: object) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3, "typestr": "|u1", "shape": (nbytes,), "data": (start, False),
        }  # fmt: skip


def _view(loan: _Loan, what: str) -> np.ndarray:
    t = loan.tensor
    dtype = _dlpack_dtype(t, what)
    shape = tuple(t.shape[: t.ndim])
    if 0 in shape:
        return np.empty(shape, dtype)
    packed = [int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(t.ndim)]
    steps = list(t.strides[: t.ndim]) if t.strides else packed
    low = sum(min(0, s * (n - 1)) for s, n in zip(steps, shape)) * dtype.itemsize
    high = sum(max(0, s * (n - 1)) for s, n in zip(steps, shape)) * dtype.itemsize
    memory = _Memory(t.data + t.byte_offset + low, high - low + dtype.itemsize, loan)
    strides = tuple(s * dtype.itemsize for s in steps)
    return np.ndarray(shape, dtype, np.asarray(memory), -low, strides)


def _dlpack_dtype(t: _Managed, what: str) -> np.dtype:
    if t.lanes == 1 and t.code in _DLPACK_SMALL:
        return numpy_dtype(_DLPACK_SMALL[t.code])
    family = _DLPACK_FAMILIES.get(t.code, "?")
    name = "bool" if family == "bool" else f"{family}{t.bits}"
    if t.lanes != 1 or name not in _NUMPY | _ML_DTYPES or t.bits < 8:
        raise RunError(f"{what}: DLPack type code {t.code}, {t.bits} bits is not supported")
    return numpy_dtype(name)


def native_array(start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array over memory the compiled program allocated; it is freed with its last view. What is
    small is copied, which takes less time than to keep it."""
    nbytes = dtype.itemsize
    for n in shape:
        nbytes *= n
    if nbytes <= SMALL:
        array, own = aligned_empty(shape, dtype, nbytes)
        ctypes.memmove(own, start, nbytes)
        release(start)
        return array
    memory = _Memory(start, nbytes, _Allocation(start))
    return np.ndarray(shape, dtype, np.asarray(memory))


class _Allocation:
    """Memory from the C library's allocator."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __del__(self) -> None:
        release(self.start)


def release(start: int) -> None:
    """Free what a compiled program allocated."""
    guard.free(start) if start in guard.blocks else _free(start)


def to_torch(array: np.ndarray) -> Any:
    """A PyTorch tensor over the same memory; only called once PyTorch is loaded."""
    torch = sys.modules["torch"]
    if array.dtype.isbuiltin == 1:
        return torch.from_dlpack(array)
    # NumPy does not export ml_dtypes by DLPack; the bits travel as integers of the same width.
    carrier = {1: np.uint8, 2: np.int16}[array.dtype.itemsize]
    wanted = getattr(torch, array.dtype.name, None)
    if wanted is None:
        raise RunError(f"PyTorch has no type for {dtype_name(array.dtype)}")
    return torch.from_dlpack(array.view(carrier)).view(wanted)


@functools.cache
def _capsules() -> Any:
    api = ctypes.PyDLL(None)
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    api.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)
    return api
