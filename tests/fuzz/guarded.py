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
from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import cast, sub
from tensorwright.ops.reduce import reduce_max
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


def tails() -> None:
    """Rows of 33 narrow elements, whose last one is behind two vectors and ends the buffer."""
    for d in ("bf16", "f16", "i8", "u8", "i16"):
        x = param("x", tensor("f32", var("n", min=1), 33))  # results of known size are NumPy's
        centred = sub(x, reduce_max(x, axes=(1,), keepdims=True))
        m = Module({"main": graph("main", [x], [cast(centred, dtype=d)])})
        with options(guard=True, cache="off"):
            program = compile(m, threads=1)
        given = np.random.default_rng(0).integers(0, 9, (64, 33)).astype(np.float32)
        found = np.asarray(program(guard.array(given))).astype(np.float32)
        wanted = flat(run_graph(m.main, [given]))[0].astype(np.float32)
        assert np.array_equal(found, wanted), d


if __name__ == "__main__":
    if sys.argv[1] == "overrun":
        overrun()
    elif sys.argv[1] == "tails":
        tails()
    else:
        print(sum(map(check, range(int(sys.argv[1])))), "runs,", len(guard.blocks), "blocks left")
