"""Latency of callables, measured in turn so that none has a quieter machine than another.

    interleaved([f, g], seconds=2)  ->  [Latency(...), Latency(...)]

A pause before each turn lets the spinning threads of the one before go to sleep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS, PAUSE = 5, 0.2


@dataclass(frozen=True)
class Latency:
    """Seconds of one call."""

    runs: int
    least: float
    mean: float
    deviation: float
    p50: float
    p90: float
    p99: float


def interleaved(calls: Sequence[Callable], seconds: float = 2.0) -> list[Latency]:
    """The latency of each, over about `seconds` each."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS):
        for k in range(len(calls)):
            which = (k + turn) % len(calls)
            if len(calls) > 1:
                time.sleep(PAUSE)
            times[which] += timed(calls[which], seconds / ROUNDS)
    return [latency(t) for t in times]


def timed(call: Callable, seconds: float) -> list[float]:
    """Times of single calls for a while, after one to warm up."""
    call()
    found, end = [], time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def latency(times: Sequence[float]) -> Latency:
    t = np.asarray(times)
    p50, p90, p99 = np.percentile(t, (50, 90, 99))
    return Latency(
        t.size, float(t.min()), float(t.mean()), float(t.std()), float(p50), float(p90), float(p99)
    )
