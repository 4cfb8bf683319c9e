"""How far two arrays are apart, in the ways that people ask for.

    difference("y", ours, theirs)  ->  largest absolute and relative error, ulps, cosine, verdict

`error` decides: the largest difference over the largest magnitude of the expected array, so that
noise in small elements of a large tensor does not count; NaN or infinity in one place only, or
another shape, is an infinite error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TOLERANCE = {"f64": 1e-10, "f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}  # of `error`; others: exact
NARROW = 2e-1  # for 8-bit floats
_BITS = {2: np.int16, 4: np.int32, 8: np.int64, 1: np.int8}


@dataclass(frozen=True)
class Difference:
    """One output or layer. `ulps`: percentiles 50, 99 and 100, None for types without them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    ulps: tuple[float, float, float] | None
    cosine: float
    error: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


def tolerance_of(dtype: str) -> float:
    """What is accepted of results of a type."""
    if dtype.startswith("f8"):
        return NARROW
    return TOLERANCE.get(dtype, 0.0)


def difference(
    name: str, ours: np.ndarray, theirs: np.ndarray, dtype: str, tolerance: float | None = None
) -> Difference:
    """All measures at once. `dtype` is our name of the type, which decides the tolerance."""
    allowed = tolerance_of(dtype) if tolerance is None else tolerance
    if ours.shape != theirs.shape:
        note = f"shapes differ: {list(ours.shape)} and {list(theirs.shape)}"
        return incomparable(name, dtype, ours.shape, allowed, note)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        gap = np.where(same, 0.0, np.abs(a - b))
        gap = np.where(np.isnan(gap), np.inf, gap)
        relative = np.where(same, 0.0, gap / np.abs(b))
    odd = int((~np.isfinite(a) ^ ~np.isfinite(b)).sum())
    note = f"{odd} finite in one of them only" if odd else ""
    return Difference(
        name, dtype, ours.shape, _max(gap), _max(relative), ulp_percentiles(ours, theirs),
        cosine(a, b), scaled(gap, b), allowed, note,
    )  # fmt: skip


def incomparable(
    name: str, dtype: str, shape: tuple[int, ...], tolerance: float, note: str
) -> Difference:
    """The row of a tensor that the other side has not, or not of this shape."""
    return Difference(
        name, dtype, shape, math.inf, math.inf, None, 0.0, math.inf, tolerance, note
    )  # fmt: skip


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The deciding measure alone."""
    return difference("", ours, theirs, "").error


def _max(values: np.ndarray) -> float:
    return float(values.max()) if values.size else 0.0


def scaled(gap: np.ndarray, expected: np.ndarray) -> float:
    """The largest gap over the largest magnitude of what was expected."""
    finite = np.abs(expected[np.isfinite(expected)])
    scale = _max(finite)
    largest = _max(gap)
    return largest / scale if scale and math.isfinite(largest) else largest


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two arrays as vectors; 1 for equal ones."""
    x, y = a.reshape(-1), b.reshape(-1)
    with np.errstate(all="ignore"):
        length = np.linalg.norm(x) * np.linalg.norm(y)
        if length == 0 or not np.isfinite(length):
            return 1.0 if np.array_equal(x, y, equal_nan=True) else 0.0
        return float(x @ y / length)


def ulp_percentiles(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float] | None:
    """How many representable numbers lie between, for floats of one type."""
    if ours.dtype != theirs.dtype or not is_float(ours.dtype) or not ours.size:
        return None
    both = ~(np.isnan(ours.astype(np.float64)) | np.isnan(theirs.astype(np.float64)))
    if not both.any():
        return None
    gap = np.abs(ordinal(ours[both]) - ordinal(theirs[both]))
    return tuple(float(np.percentile(gap, q, method="higher")) for q in (50, 99, 100))


def is_float(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


def ordinal(x: np.ndarray) -> np.ndarray:
    """The position of every float among the floats of its type."""
    bits = np.ascontiguousarray(x).view(_BITS[x.dtype.itemsize]).astype(np.float64)
    lowest = -(2.0 ** (8 * x.dtype.itemsize - 1))
    return np.where(bits < 0, lowest - bits, bits)
