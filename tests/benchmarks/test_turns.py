"""Calls timed in turns."""

from __future__ import annotations

import time

from benchmarks.turns import REST, clock_of, in_turns, rest_of


def test_another_one_begins_every_round():
    seen = []
    times = in_turns({k: lambda k=k: seen.append(k) for k in "abc"}, time.perf_counter, 3)
    assert "".join(seen) == "abcbcacab"
    assert {k: len(t) for k, t in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_call_after_a_rest_is_not_timed():
    seen = []
    call = lambda: seen.append(time.perf_counter())
    times = in_turns({"a": call}, time.perf_counter, 2, rest=0.02)
    assert len(seen) == 4 and len(times["a"]) == 2
    assert seen[2] - seen[1] >= 0.02


def test_rounds_go_on_until_the_time_is_over():
    times = in_turns({"a": lambda: time.sleep(0.002)}, time.perf_counter, 1, seconds=0.02)
    assert 2 <= len(times["a"]) <= 12 and min(times["a"]) >= 0.002


def test_one_thread_is_timed_by_the_work_it_does():
    assert clock_of(1) is time.process_time and clock_of(2) is time.perf_counter
    assert rest_of(1) == 0 and rest_of(2) == REST
