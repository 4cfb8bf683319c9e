"""A checksum of many bytes on all cores: the SHA-256 of the SHA-256s of their 4 MiB pieces.

    checksum(b"abc") == sha256(sha256(b"abc").digest()).hexdigest()
"""

from __future__ import annotations

import hashlib
from typing import Any

from tensorwright.runtime import cpu

PIECE = 4 << 20
ALONE = 4 * PIECE  # bytes that one thread does sooner than several


def checksum(data: Any) -> str:
    """Hex digits for a buffer of bytes."""
    view = memoryview(data).cast("B") if data else memoryview(b"")
    pieces = [view[at : at + PIECE] for at in range(0, len(view), PIECE)]
    whole = hashlib.sha256()
    for digest in _digests(pieces, len(view)):
        whole.update(digest)
    return whole.hexdigest()


def _digests(pieces: list[memoryview], nbytes: int):
    threads = min(cpu.default_threads(), 8)
    if nbytes <= ALONE or threads < 2:
        return map(_digest, pieces)
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that small programs do without

    with ThreadPoolExecutor(threads) as pool:  # Python's lock is free while a piece is hashed
        return list(pool.map(_digest, pieces))


def _digest(piece: memoryview) -> bytes:
    return hashlib.sha256(piece).digest()
