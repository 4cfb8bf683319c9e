"""Calls that are timed in turns, so that what else the machine does hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

REST = 0.005  # seconds


def clock_of(threads: int) -> Callable[[], float]:
    """CPU time with one thread, which other programs disturb least; more only the wall's shows."""
    return time.process_time if threads == 1 else time.perf_counter


def rest_of(threads: int) -> float:
    """What a peer should rest before its turn: threads of some look for work for a while after a
    call and would take a core from whoever comes next."""
    return 0.0 if threads == 1 else REST


def in_turns(
    calls: Mapping[str, Callable[[], object]], clock: Callable[[], float], rounds: int,
    seconds: float = 0.0, rest: float = 0.0,
) -> dict[str, list[float]]:  # fmt: skip
    """Times of each call: in every round each has its turn, another one first. At least `rounds`
    of them, and more until `seconds` passed. After a rest comes a call that is not timed."""
    found = {name: [] for name in calls}
    order, turn, end = list(calls), 0, time.perf_counter() + seconds
    while turn < rounds or time.perf_counter() < end:
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            if rest:
                time.sleep(rest)
                calls[name]()
            start = clock()
            calls[name]()
            found[name].append(clock() - start)
        turn += 1
    return found
