"""Random graphs at many sizes, every buffer between guard pages: reading or writing outside of one
ends the process, so that tests run this file as one of its own.

    python -m tests.fuzz.guarded 40        or        python -m tests.fuzz.guarded overrun
"""

from __future__ import annotations

import ctypes
import random
import sys

import numpy as np

from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.runtime import guard
from tests.fuzz.graphs import Maker
from tests.fuzz.test_fuzz_graphs import allowed, assert_close, input_arrays, symbols
from tests.ops.rows import flat

SIZES = (1, 2, 7, 16, 33)


def check(seed: int) -> int:
    """One graph, compiled once, at all sizes; the number of runs."""
    chosen = random.Random(seed)
    g = Maker(chosen.choice, seed).graph(chosen.randint(2, 9))
    m = Module({"main": g})
    with options(guard=True, cache="off"):
        program = compile(m, threads=1 + seed % 2)
    sizes = SIZES if symbols(g) else SIZES[:1]
    for size in sizes:
        inputs = input_arrays(g, size, np.random.default_rng(seed))
        with np.errstate(all="ignore"):
            expected = flat(run_graph(g, inputs))
            limits = allowed(g, inputs, expected)
        given = flat(program(*map(guard.array, inputs)))
        assert_close(given, expected, limits, f"seed {seed}, size {size}", m)
    return len(sizes)


def overrun() -> None:
    """Read the element behind an array; this is to end the process."""
    a = guard.array(np.zeros(5, np.float32))
    print(ctypes.c_float.from_address(a.ctypes.data + a.nbytes).value)


if __name__ == "__main__":
    if sys.argv[1] == "overrun":
        overrun()
    else:
        print(sum(map(check, range(int(sys.argv[1])))), "runs,", len(guard.blocks), "blocks left")
