"""Programs with every buffer between guard pages."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.ir.expr import var
from tensorwright.runtime import guard
from tests.memory.test_steady_state import layers

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.fuzz.guarded", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_an_overrun_ends_the_process():
    assert run("overrun").returncode < 0


def test_single_elements_behind_whole_vectors():
    done = run("tails")
    assert done.returncode == 0, done.stderr[-2000:]


def test_random_graphs_stay_within_their_buffers():
    done = run("25")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 25


def test_what_programs_allocate_comes_and_goes():
    x = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)
    plain = compile(layers(var("n", min=1)), threads=1)(x)
    with options(guard=True, cache="off"):
        program = compile(layers(var("n", min=1)), threads=1)
    found = program(guard.array(x))
    held = len(guard.blocks)
    for _ in range(3):
        assert all(map(np.array_equal, program(x), plain))
    assert len(guard.blocks) == held  # what calls take, they give back
    del found
    assert len(guard.blocks) == held - 2  # and results are freed as blocks


def test_fresh_memory_is_poisoned():
    start = guard.allocate(64, 100)
    try:
        held = np.frombuffer((guard.ctypes.c_uint8 * 100).from_address(start), np.uint8)
        assert (held == guard.POISON).all() and np.isnan(held.view(np.float32)).all()
    finally:
        guard.free(start)
    assert start not in guard.blocks
