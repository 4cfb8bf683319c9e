"""How far two sets of outputs are apart: the one measure used by benchmarks and model tests.

Relative error is the largest difference over the largest magnitude of the reference output, worst
output of all. Invariant: NaN in one place only, a wrong shape or a missing output is infinite.
"""

from collections.abc import Sequence

import numpy as np

TOLERANCE = 1e-4


def relative_error(given: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Worst output's largest difference relative to that output's largest magnitude."""
    if [a.shape for a in given] != [b.shape for b in reference]:
        return float("inf")
    return max((_one(a, b) for a, b in zip(given, reference)), default=0.0)


def _one(given: np.ndarray, reference: np.ndarray) -> float:
    if not reference.size:
        return 0.0
    a, b = given.astype(np.float64), reference.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(same, 0.0, np.abs(a - b)).max()
    finite = np.abs(b[np.isfinite(b)])
    scale = finite.max() if finite.size else 0.0
    if not np.isfinite(difference):
        return float("inf")
    return float(difference / scale) if scale else float(difference)
