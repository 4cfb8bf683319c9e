"""Every row, compiled for this machine, on its own samples, against its reference.

What the compiler refuses with a CompileError is skipped with its message; anything else must match.
"""

from __future__ import annotations

import signal

import numpy as np
import pytest

from tensorwright.base.config import options
from tensorwright.base.errors import CompileError
from tensorwright.driver.compile import compile
from tensorwright.ir.facts import solve
from tensorwright.ir.graph import graph
from tensorwright.ir.module import Module
from tensorwright.ir.op import OpDef
from tensorwright.ops.control import items
from tensorwright.runtime.program import Program
from tests.codegen.rows import MEMORY, undefined
from tests.ops.rows import all_rows, assert_same, build, flat, run_reference
from tests.ops.samples import Case, cases

SECONDS_A_ROW = 60  # of computing, whatever else the machine does


@pytest.fixture(autouse=True)
def time_limit():
    """Code that grows exponentially must fail, not stop the suite."""

    def expire(*_):
        raise TimeoutError(f"compiling and running a row took more than {SECONDS_A_ROW} s")

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_A_ROW)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.fixture(autouse=True)
def no_cache():
    """What is tested is this compiler, not what an earlier one left."""
    with options(cache="off"):
        yield


def closed(case: Case) -> Case:
    """The case, made static if the inputs' shapes do not tell its symbols."""
    dims = [d for t in case.types() if t for d in t.shape]
    known = {step.symbol for step in solve(dims).steps}
    return case if set(case.values) <= known else case.static()


def compile_case(case: Case, programs: dict[str, Program], **how) -> Program:
    """The program of a sample; choices of values for its symbols share one."""
    case = closed(case)
    if case.values and case.text in programs:
        return programs[case.text]
    params = case.params()
    present = [p for p in params if p is not None]
    g = graph("main", present, items(build(case, params)))
    program = programs[case.text] = compile(Module({"main": g}), threads=1, **how)
    assert undefined(program._objects) <= MEMORY, case.name
    return program


def run_native(case: Case, arrays, programs: dict[str, Program], **how) -> list[np.ndarray]:
    results = compile_case(case, programs, **how)(*[a for a in arrays if a is not None])
    return [np.asarray(r) for r in flat(results)]


@pytest.mark.parametrize(
    "op", [op for op in all_rows() if op.samples and op.reference], ids=lambda op: op.name
)
def test_compiled_row(op: OpDef):
    refused: list[str] = []
    programs: dict[str, Program] = {}
    for case in cases(op):
        arrays = case.arrays()
        try:
            found = run_native(case, arrays, programs)
        except CompileError as e:
            refused.append(f"{case.name}: {e.message}")
            continue
        assert_same(found, run_reference(case, arrays), case.name, scale=4)
    if refused:
        pytest.skip(f"{len(refused)} samples not compiled, the first: {refused[0]}")
