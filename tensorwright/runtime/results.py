"""Memory of large results, kept for the next one when the caller has let go of it.

    array, start = result_empty((8192, 2048), np.dtype("float32"), 64 << 20)

The C library gives blocks of 32 MiB and more back to the system at once and gets new ones page by
page, each cleared first: for results of simple programs that takes as long as computing them. A
result of `LARGE` bytes and more therefore lies in a block of its own, on 2 MiB pages; when the last
view of the array is gone, the block waits for a result of about its size. While it waits, the
system may take its pages for others (`MADV_FREE`), so that it does not count against a limit.
Smaller ones go back as well where many are let go of together, as the caches of a decoder are: a
result of `MIDDLE` bytes and more waits for one of the same size, `MOST_BYTES` of them in all.
Blocks are taken and kept by single operations on a list: any thread may do both at any time.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.runtime.buffer import address, aligned_empty
from tensorwright.runtime.pages import PAGE, region

LARGE = 32 << 20  # bytes of a result for which this is worth while
SMALL_PAGE = 4 << 10
MIDDLE = 64 << 10  # bytes of a result whose memory is kept, on pages as they come
MOST = 8  # large blocks that wait
MOST_BYTES = 64 << 20  # of smaller blocks that wait
SPARE = 4  # a block may be larger than what it is taken for by 1 / SPARE

_waiting: list[Block] = []
_shelves: dict[int, Shelf] = {}  # smaller blocks that wait, by their size


class Block:
    """Some memory on large pages."""

    def __init__(self, nbytes: int) -> None:
        self.flat = region(nbytes)
        self.start = address(self.flat)
        at = -self.start % PAGE
        self.start += at
        self.nbytes = nbytes
        self.memory = self.flat[at : at + nbytes].view(_Memory)

    def rest(self) -> None:
        """Let the system have the pages if it needs them; what they hold is lost then."""
        memory = self.flat.base.obj
        if hasattr(mmap, "MADV_FREE"):
            with contextlib.suppress(OSError, ValueError):
                memory.madvise(mmap.MADV_FREE)


class Piece:
    """Some memory of less than `LARGE` bytes, from the beginning of a page on: a load waits for a
    store before it whose address ends in the same 12 bits, so what is stored must not lie a little
    further on in its page than what is loaded, and arrays of NumPy begin 0 to 64 bytes into one."""

    def __init__(self, nbytes: int) -> None:
        size = nbytes + SMALL_PAGE
        self.flat, self.start = aligned_empty((size,), np.dtype(np.uint8), size)
        at = -self.start % SMALL_PAGE
        self.start += at
        self.nbytes = nbytes
        self.memory = self.flat[at : at + nbytes].view(_Memory)


class Shelf(list):
    """Pieces of one size that wait; most: how many were when they were last counted."""

    most = 0


class _Memory(np.ndarray):
    """The bytes of a block. A type of its own: of a view of a view of plain arrays NumPy keeps only
    the array that both look at, and would forget the one in between that tells of the end."""


class _Held(np.ndarray):
    """What arrays over a block look at; the block waits again when the last of them dies."""

    __slots__ = ("block",)

    def __del__(self) -> None:
        keep(self.block)


def result_empty(shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> tuple[np.ndarray, int]:
    """A new array on a 64-byte boundary, and its address."""
    if nbytes < MIDDLE:
        return aligned_empty(shape, dtype, nbytes)
    block = _piece(nbytes) if nbytes < LARGE else _take(nbytes) or _new(nbytes)
    held = block.memory.view(_Held)
    held.block = block
    return np.ndarray(shape, dtype, held), block.start


def keep(block: Block | Piece) -> None:
    """A block that nobody uses waits; the one that has waited longest goes if there are many, or
    those of the size that was first seen."""
    if type(block) is Piece:
        _put(block)
        return
    block.rest()
    _waiting.append(block)
    if len(_waiting) > MOST:
        with contextlib.suppress(IndexError):
            _waiting.pop(0)


def _put(piece: Piece) -> None:
    """Bytes are counted where more of a size wait than ever before."""
    shelf = _shelves.get(piece.nbytes)
    if shelf is None:
        shelf = _shelves.setdefault(piece.nbytes, Shelf())
    shelf.append(piece)
    if len(shelf) <= shelf.most:
        return
    shelf.most = len(shelf)
    while sum(n * other.most for n, other in list(_shelves.items())) > MOST_BYTES:
        _shelves.pop(next(iter(_shelves), 0), None)


def forget() -> None:
    """Give all blocks that wait back to the system."""
    _waiting.clear()
    _shelves.clear()


def _piece(nbytes: int) -> Piece:
    """A block of this size that waits, or a new one."""
    try:
        return _shelves[nbytes].pop()
    except LookupError:
        return Piece(nbytes)


def _take(nbytes: int) -> Block | None:
    """The last block of about this size that waits."""
    for block in reversed(_waiting[:]):
        if nbytes <= block.nbytes <= nbytes + nbytes // SPARE:
            with contextlib.suppress(ValueError):  # another thread was faster
                _waiting.remove(block)
                return block
    return None


def _new(nbytes: int) -> Block:
    try:
        return Block(nbytes)
    except RunError:
        forget()
        return Block(nbytes)
