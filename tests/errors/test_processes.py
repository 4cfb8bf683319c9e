"""Processes, threads and signals: forks, interruptions, programs that come and go."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import RunError
from tests.errors.models import network

SETUP = """
import numpy as np, tensorwright as tw
from tests.errors.models import network
p = tw.compile(network(72))
x = np.random.default_rng(0).random((128, 72), np.float32)
assert np.allclose(p(x), x, atol=1e-4)
"""


def identity(program, rows: int, width: int, seed: int = 0) -> bool:
    x = np.random.default_rng(seed).random((rows, width), np.float32)
    return np.allclose(program(x), x, atol=1e-4)


def _child(answers, program) -> None:
    program = tw.compile(network(56)) if program is None else program
    answers.put(all(identity(program, 128, program.inputs[0].shape[1], k) for k in range(5)))


@pytest.mark.parametrize("method, fresh", [("fork", False), ("fork", True), ("spawn", True)])
def test_children(method, fresh):
    program = tw.compile(network(64))
    assert identity(program, 128, 64)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    given = (answers, None if fresh else program)
    children = [context.Process(target=_child, args=given) for _ in range(2)]
    for c in children:
        c.start()
    assert [answers.get(timeout=60) for _ in children] == [True, True]
    for c in children:
        c.join(30)
        assert c.exitcode == 0
    assert identity(program, 128, 64)


def test_threads_share_programs():
    programs = [tw.compile(network(64, rows="n")), tw.compile(network(64)),
                tw.compile(network(32, 5, "n"))]  # fmt: skip
    wrong = []

    def work(k: int) -> None:
        for i in range(60):
            which = (k + i) % 3
            rows = 128 if which == 1 else 1 + (37 * i + k) % 150
            if not identity(programs[which], rows, 32 if which == 2 else 64, i):
                wrong.append((k, i))
            if i % 7 == 0:
                try:
                    programs[0](np.ones((3, 5), np.float32))
                    wrong.append("no error")
                except RunError:
                    continue

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_programs_come_and_go():
    program, stop, wrong = tw.compile(network(64)), threading.Event(), []

    def run() -> None:
        while not stop.is_set():
            if not identity(program, 128, 64):
                wrong.append(1)

    t = threading.Thread(target=run)
    t.start()
    for k in range(8):
        other = tw.compile(network(32, 1 + k % 2))
        assert identity(other, 128, 32)
        del other
        gc.collect()
    stop.set()
    t.join()
    assert not wrong


def python(code: str, cache, **more) -> subprocess.Popen:
    environment = {**os.environ, "TW_CACHE": str(cache), **more}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_processes_share_a_cache(tmp_path):
    running = [python(SETUP, tmp_path) for _ in range(3)]
    for p in running:
        _, errors = p.communicate(timeout=100)
        assert p.returncode == 0, errors
    assert not list(tmp_path.rglob("*.tmp"))
    assert list(tmp_path.rglob("*.o"))


def test_home_that_is_not_there():
    p = python(SETUP, "", HOME="/proc/nothing", XDG_CACHE_HOME="/proc/nothing")
    _, errors = p.communicate(timeout=100)
    assert p.returncode == 0, errors


def test_exit_while_threads_run(tmp_path):
    code = (
        SETUP
        + """
import threading, time
def run():
    while True: p(x)
for _ in range(4): threading.Thread(target=run, daemon=True).start()
time.sleep(0.1)
"""
    )
    for _ in range(3):
        p = python(code, tmp_path)
        _, errors = p.communicate(timeout=100)
        assert p.returncode == 0, errors


@pytest.mark.parametrize("delay", [0.2, 0.8, 1.6])
def test_interrupted_compilation(tmp_path, delay):
    code = """
import numpy as np, tensorwright as tw
from tests.errors.models import network
import onnx
print("ready", flush=True)
try:
    for k in range(8, 200): tw.compile(network(k, 40))
except KeyboardInterrupt:
    print("interrupted", flush=True)
p = tw.compile(network(72))
x = np.ones((128, 72), np.float32)
print(np.array_equal(p(x), x))
"""
    p = python(code, tmp_path)
    p.stdout.readline()
    time.sleep(delay)
    p.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert p.stdout.readline() == "interrupted\n"
    assert time.monotonic() - start < 5
    out, errors = p.communicate(timeout=100)
    assert (out, p.returncode) == ("True\n", 0), errors
    assert not list(tmp_path.rglob("*.tmp"))
