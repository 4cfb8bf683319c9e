"""Copy large arrays on all cores.

    copy_all([(target, source), ...])

NumPy copies outside of Python's lock, and one core reaches neither the bandwidth of memory nor, for
transposed sources, more than a fraction of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from tensorwright.runtime import cpu

PIECE = 4 << 20
ALONE = 2 * PIECE  # bytes that one thread does sooner than several

Pair = tuple[np.ndarray, np.ndarray]


def copy_all(pairs: Iterable[Pair]) -> None:
    """Copy each second array to the first, which has its shape and type; none overlap."""
    pairs = list(pairs)
    threads = min(cpu.default_threads(), 8)
    if sum(target.nbytes for target, _ in pairs) <= ALONE or threads < 2:
        for target, source in pairs:
            target[...] = source
        return
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that small programs do without

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda pair: np.copyto(*pair), _pieces(pairs)):
            pass


def _pieces(pairs: list[Pair]) -> Iterator[Pair]:
    """The arrays in parts along their first axis, so that all threads end at about the same
    time."""
    for target, source in pairs:
        rows = len(target) if target.ndim else 0
        parts = min(rows, -(-target.nbytes // PIECE))
        if parts <= 1:
            yield target, source
            continue
        cuts = [rows * k // parts for k in range(parts + 1)]
        yield from ((target[a:b], source[a:b]) for a, b in pairwise(cuts))
