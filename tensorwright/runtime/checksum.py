"""A checksum of many bytes on all cores: the SHA-256 of the SHA-256s of their 4 MiB pieces.

checksum(b"abc") == sha256(sha256(b"abc").digest()).hexdigest()
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from tensorwright.runtime import cpu

PIECE = 4 << 20
ALONE = 4 * PIECE  # bytes that one thread does sooner than several


def checksum(data: Any) -> str:
    """Hex digits for a buffer of bytes."""
    view = memoryview(data).cast("B") if data else memoryview(b"")
    return _combined(lambda at: hashlib.sha256(view[at : at + PIECE]).digest(), len(view))


def file_checksum(file: int, start: int, size: int, threads: int | None = None) -> str:
    """The same for a range of a file, by its descriptor; no more of it than the pieces in work is
    in memory at a time. threads: all that are worth having, if not given."""

    def piece(at: int) -> bytes:
        end, found = min(at + PIECE, size), hashlib.sha256()
        while at < end:
            data = os.pread(file, end - at, start + at)
            if not data:
                raise OSError("the file ends early")
            found.update(data)
            at += len(data)
        return found.digest()

    return _combined(piece, size, threads)


def _combined(digest: Callable[[int], bytes], nbytes: int, threads: int | None = None) -> str:
    """The digests of the pieces, by where they begin, as one."""
    starts, threads = range(0, nbytes, PIECE), threads or min(cpu.default_threads(), 8)
    if nbytes <= ALONE or threads < 2:
        parts = map(digest, starts)
    else:
        from concurrent.futures import ThreadPoolExecutor  # 10 ms that small programs do without

        with ThreadPoolExecutor(threads) as pool:  # Python's lock is free while a piece is hashed
            parts = list(pool.map(digest, starts))
    return hashlib.sha256(b"".join(parts)).hexdigest()
