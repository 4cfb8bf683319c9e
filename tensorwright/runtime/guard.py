"""Memory that ends at a page which nobody may touch: for finding code that leaves its buffers.

With the option `guard`, every buffer of a program is a block of its own from here. A block ends (up
to a cache line) where an inaccessible page begins and another one lies before it, so that reading
or writing past it ends the process; a fresh block holds 0xFF bytes, NaN as floats, so that what is
read before it is written shows in the results; a freed block is no longer accessible at all.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

PAGE = max(mmap.PAGESIZE, 4096)
LINE = 64
POISON = 0xFF

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_NO_MAPPING = ctypes.c_void_p(-1).value

blocks: dict[int, tuple[int, int]] = {}  # first byte -> what was mapped for it


def allocate(align: int, size: int) -> int:
    """A block of `size` bytes on a cache line, 0 where there is no memory."""
    size = -(-max(size, 1) // LINE) * LINE
    inside = -(-size // PAGE) * PAGE
    base = _libc.mmap(None, inside + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE,
                      mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)  # fmt: skip
    if base in (None, _NO_MAPPING):
        return 0
    ctypes.memset(base + PAGE, POISON, inside)
    for page in (base, base + PAGE + inside):
        _libc.mprotect(page, PAGE, 0)
    start = base + PAGE + inside - size
    blocks[start] = base, inside + 2 * PAGE
    return start


def free(start: int | None) -> None:
    """Give a block back."""
    if start:
        _libc.munmap(*blocks.pop(start))


ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)(allocate)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(free)


def symbol(name: str) -> int | None:
    """What compiled code calls instead of a function of the C library."""
    found = {"aligned_alloc": ALLOCATE, "free": FREE}.get(name)
    return None if found is None else ctypes.cast(found, ctypes.c_void_p).value


def array(a: np.ndarray) -> np.ndarray:
    """A copy of an array in a block of its own, which ends with the array (up to a cache line). It
    lasts as long as the process."""
    start = allocate(LINE, a.nbytes)
    place = (ctypes.c_uint8 * (-(-max(a.nbytes, 1) // LINE) * LINE)).from_address(start)
    shift = len(place) - a.nbytes if a.nbytes % a.itemsize == 0 else 0
    made = np.frombuffer(place, a.dtype, a.size, shift).reshape(a.shape)
    made[...] = a
    return made
