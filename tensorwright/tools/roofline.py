"""How near each kernel comes to what the machine can do.

    4096 operations, 2048 bytes, 100 ns; 200 GFLOP/s, 50 GB/s  ->  limit 41 ns, 41 %, memory

A kernel can be no faster than its arithmetic at the peak and its compulsory bytes at the bandwidth
of the smallest level that holds them. Both are lower bounds, so the share is one as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from tensorwright.runtime.dims import evaluate
from tensorwright.runtime.profile import Profile, ProfileRow
from tensorwright.target.target import Target
from tensorwright.tools.machine import Machine


@dataclass(frozen=True)
class Point:
    """A kernel on the roofline. seconds: of one call; limit: the least that it could take; bound:
    what that limit is made of, empty where the work is not known."""

    kernel: str
    calls: int
    seconds: float
    share: float
    flops: int
    bytes: int
    limit: float
    bound: str
    sources: tuple[str, ...]

    @property
    def intensity(self) -> float:
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def gflops(self) -> float:
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def of_limit(self) -> float:
        """Share of the limit that is reached, 0 to 1."""
        return self.limit / self.seconds if self.seconds else 0.0


def points(profile: Profile, machine: Machine, target: Target) -> list[Point]:
    """A point for every row of a profile, in its order."""
    return [_point(row, profile, machine, target) for row in profile.rows]


def _point(row: ProfileRow, profile: Profile, machine: Machine, target: Target) -> Point:
    info = next((k for k in profile.kernels if k.name == row.kernel), None)
    work = (0, 0) if info is None else (info.flops, info.bytes)
    flops, moved = (evaluate(n, profile.sizes) or 0 for n in work)
    arithmetic = flops / machine.gflops / 1e9
    memory = moved / machine.gbytes[level(moved, machine, target)] / 1e9
    bound = "" if not flops and not moved else "arithmetic" if arithmetic >= memory else "memory"
    return Point(
        row.kernel, row.calls, row.time_ns / max(row.calls, 1) / 1e9, row.share, flops, moved,
        max(arithmetic, memory), bound, row.sources,
    )  # fmt: skip


def level(count: int, machine: Machine, target: Target) -> str:
    """The smallest level that holds so many bytes; what a kernel reads was seldom left in L1."""
    if count <= target.caches[1] * machine.threads:
        return "L2"
    return "L3" if count <= target.caches[2] else "memory"
