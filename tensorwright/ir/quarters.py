"""Sums of the quarters of a matrix, of which Strassen's algorithm multiplies seven.

    sums_of_quarters(w[768, 3072], half=1536)     # [7, 384, 1536]

See `ops/strassen.py`; here are the sums that a kernel's caller lays in panels (`loop.Pack`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

POINTS = 7
QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))
# by point: what of the four quarters is multiplied
WEIGHTS = ((1, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, -1), (-1, 0, 1, 0), (0, 0, 0, 1), (1, 1, 0, 0),
           (0, 0, 1, 1))  # fmt: skip


def sums_of_quarters(w: np.ndarray, half: int) -> np.ndarray:
    """[7, K / 2, half] of w[K, N], whose second half has N - half columns and is filled up with
    zeros."""
    u = np.empty((POINTS, len(w) // 2, half), w.dtype)
    for p in range(POINTS):
        lay_sum(w, half, p, u[p][:, None, :])
    return u


def lay_sum(w: np.ndarray, half: int, point: int, panels: np.ndarray) -> None:
    """One of the sums, in panels [K / 2, panels, width]."""
    panels[...] = 0
    depth = len(w) // 2
    for factor, (i, j) in zip(WEIGHTS[point], QUARTERS):
        if factor:
            quarter = w[i * depth : (i + 1) * depth, j * half : (j + 1) * half]
            for part, to in in_panels(quarter, panels):
                (np.add if factor > 0 else np.subtract)(to, part, out=to)


def in_panels(
    quarter: np.ndarray, panels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Which parts of columns lie where: those of whole panels, and the last ones."""
    (depth, columns), width = quarter.shape, panels.shape[-1]
    whole, rest = divmod(columns, width)
    yield quarter[:, : columns - rest].reshape(depth, whole, width), panels[:, :whole]
    if rest:
        yield quarter[:, columns - rest :], panels[:, whole, :rest]
