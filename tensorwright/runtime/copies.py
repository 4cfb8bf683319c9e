"""Copy large arrays on all cores.

    copy_all([(target, source), ...])

NumPy copies outside of Python's lock, and one core reaches neither the bandwidth of memory nor, for
transposed sources, more than a fraction of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from tensorwright.runtime import cpu

PIECE = 4 << 20
ALONE = 2 * PIECE  # bytes that one thread does sooner than several

Pair = tuple[np.ndarray, np.ndarray]


def copy_all(pairs: Iterable[Pair]) -> None:
    """Copy each second array to the first, which has its shape and type; none overlap."""
    pairs = list(pairs)
    if sum(target.nbytes for target, _ in pairs) <= ALONE:
        for target, source in pairs:
            target[...] = source
        return
    in_threads(partial(np.copyto, *pair) for pair in _pieces(pairs))


def in_threads(jobs: Iterable[Callable[[], object]]) -> None:
    """Run jobs that NumPy does outside of Python's lock, on all cores."""
    threads = min(cpu.default_threads(), 8)
    if threads < 2:
        for job in jobs:
            job()
        return
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that small programs do without

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


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
