"""Engines over a sequence of shapes: processes that can be stopped, and compilations counted."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import dynamic, sequence
from benchmarks.sequence import Job, Run, contest, inductor, run_alone

JOB = Job("bert_any", "ort", 1, 3, small=True)


def test_a_slow_process_is_stopped_with_all_that_it_started(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 100 & echo $! > {tmp_path}/child\nwait\n")
    script.chmod(0o755)
    monkeypatch.setattr(sequence.sys, "executable", str(script))
    begin = time.perf_counter()
    found = run_alone(JOB, 1, tmp_path / "answers.npz")
    assert found.stopped and found.failure == "over 1 s" and time.perf_counter() - begin < 10
    assert gone(int((tmp_path / "child").read_text()))


def gone(pid: int) -> bool:
    """Whether it ends within two seconds (one that nobody waits for stays as a zombie)."""
    state = Path(f"/proc/{pid}/stat")
    for _ in range(200):
        if not state.exists() or state.read_text().split()[2] == "Z":
            return True
        time.sleep(0.01)
    os.kill(pid, 9)
    return False


def test_failures_are_told(tmp_path):
    found = run_alone(Job("bert_any", "no engine", 1, 3, small=True), 60, tmp_path / "a.npz")
    assert found.failure.startswith("KeyError") and not found.stopped


def test_who_was_stopped_is_not_run_again(monkeypatch):
    def run(jobs, limit):
        return [Run(j, failure="over", stopped=j.engine == "inductor") for j in jobs]

    monkeypatch.setattr(dynamic, "contest", run)
    found = dynamic.sequences(JOB, [1, 2], ["ort", "inductor"], 1)
    assert [(r.job.engine, r.job.threads) for r in found] == [
        ("tensorwright", 1), ("ort", 1), ("inductor", 1),
        ("tensorwright", 2), ("ort", 2), ("inductor", 2),
    ]  # fmt: skip
    assert [r.failure for r in found].count("not run") == 1 and found[-1].failure == "not run"


def test_other_answers_are_a_failure(monkeypatch):
    def run(job, limit, answers):
        np.savez(answers, np.full(3, 2.0 if job.engine == "wrong" else 1.0))
        return Run(job)

    monkeypatch.setattr(sequence, "run_alone", run)
    found = contest([Job("net", engine, 1, 3) for engine in ("first", "same", "wrong")], 1)
    assert [r.failure for r in found] == ["", "", "differs by 1e+00"]


def test_recompilations_of_torch_are_counted(monkeypatch):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    feeds = lambda n: {"x": np.ones((n, 2), np.float32)}
    model = SimpleNamespace(
        small=True, row=SimpleNamespace(net=lambda small: SimpleNamespace(module=torch.nn.ReLU())),
        artifact=SimpleNamespace(inputs=feeds(5)),
    )  # fmt: skip
    with torch.no_grad():  # the engine sets it for its process
        engine = inductor(model, torch.get_num_threads())
        before = engine.compilations()
        for n in (4, 7, 9):
            engine.run(feeds(n))
        assert engine.compilations() == before == 1
        engine.run(feeds(1))  # a size that is always taken for itself
        assert engine.compilations() == 2
