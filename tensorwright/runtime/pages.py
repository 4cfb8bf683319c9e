"""Memory for weights on 2 MiB pages: one pool, from which large arrays are cut.

    array = constant_empty((768, 3072), np.dtype("float32"))

A program that streams its weights reads them about 1.5 times as fast from 2 MiB pages as from 4 KiB
ones, which cost a page walk every 4 KiB. Linux gives them to anonymous memory that asks for them
(`madvise`); a mapped file never has any. Arrays of 1 MiB and more are cut from regions that lie on
a 2 MiB boundary; a region is given back with the last array in it. Where the system has no such
pages, the same memory has ordinary ones.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.runtime.buffer import address, aligned_bytes, aligned_empty, byte_view
from tensorwright.runtime.copies import copy_all

PAGE = 2 << 20
REGION = 32 << 20  # bytes of a region, unless one array needs more
LARGE = 1 << 20  # bytes of an array that is worth a place in a region
LINE = 64


class Region(mmap.mmap):
    """Anonymous memory with room for a range that begins on a large page."""


def constant_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array for a constant, on a cache line; a large one in the pool."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return aligned_empty(shape, dtype, nbytes)[0]
    return _pool.cut(nbytes).view(dtype).reshape(shape)


def constants(buffers: Iterable[Any]) -> tuple[np.ndarray, ...]:
    """The bytes of some buffers where a program reads them fast, copied if they are not there."""
    found, copies = [], []
    for buffer in buffers:
        flat = byte_view(buffer)
        if flat.nbytes < LARGE or is_pooled(flat):
            found.append(aligned_bytes(flat))
        else:
            found.append(_pool.cut(flat.nbytes))
            copies.append((found[-1], flat))
    copy_all(copies)
    return tuple(found)


def is_pooled(array: np.ndarray) -> bool:
    """Whether an array lies in a region."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, Region)


class Pool:
    """Cuts arrays from regions; regions live as long as their arrays."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.region: weakref.ref | None = None  # the last one; only its arrays keep it
        self.used = 0

    def cut(self, nbytes: int) -> np.ndarray:
        """`nbytes` new bytes on a cache line, in a region."""
        with self.lock:
            memory = None if self.region is None else self.region()
            start = -(-self.used // LINE) * LINE
            if memory is None or start + nbytes > memory.nbytes:
                memory = region(max(nbytes, REGION))
                self.region, start = weakref.ref(memory), -address(memory) % PAGE
            self.used = start + nbytes
            return memory[start : start + nbytes]


def region(nbytes: int) -> np.ndarray:
    """New bytes, from the first large page of which on there are `nbytes`, which have asked to be
    large pages; whole and never a view, so that it lives as long as what is cut from it."""
    size = -(-nbytes // PAGE) * PAGE
    try:
        mapped = Region(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError):
        raise RunError(f"out of memory (for {nbytes} bytes)") from None
    flat = np.frombuffer(mapped, np.uint8)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages: ordinary ones then
            mapped.madvise(mmap.MADV_HUGEPAGE, -address(flat) % PAGE, size)
    return flat


_pool = Pool()


def _new_lock() -> None:
    _pool.lock = threading.Lock()  # a parent may have been holding it


os.register_at_fork(after_in_child=_new_lock)
