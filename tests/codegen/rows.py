"""Many rows of the operator table as one program, so that a target is tried by few compilations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorwright.ir.graph import graph, param
from tensorwright.ir.module import Module
from tensorwright.ops.control import items
from tensorwright.runtime import elf
from tests.ops.rows import all_rows, assert_same, flat, run_reference
from tests.ops.samples import Case, cases

LARGEST = 1 << 14  # elements of an operand
# What a compiled program may take from outside: memory, and what the support code needs.
MEMORY = {"memcpy", "memmove", "memset"}


@dataclass
class Batch:
    """Cases side by side in one graph: their operands, and what each should give."""

    module: Module
    arrays: list[np.ndarray]
    cases: list[tuple[Case, list, int]]  # with operands and the number of results

    def check(self, results) -> None:
        results, wrong = flat(results), []
        for case, arrays, count in self.cases:
            found, results = results[:count], results[count:]
            try:
                assert_same(found, run_reference(case, arrays), case.name, scale=8)
            except AssertionError as e:
                wrong.append(str(e)[:400])
        assert not wrong, "\n".join(wrong)


def batch(chosen: list[Case]) -> Batch:
    params, results, arrays, done = [], [], [], []
    for n, case in enumerate(chosen):
        case = case.static()
        own = case.arrays()
        inputs = [t and param(f"x{n}_{k}", t) for k, t in enumerate(case.types())]
        made = items(case.op(*inputs, **case.attrs))
        params += [p for p in inputs if p is not None]
        arrays += [a for a in own if a is not None]
        results += made
        done.append((case, own, len(made)))
    return Batch(Module({"main": graph("main", params, results)}), arrays, done)


def chosen_cases(count: int) -> list[Case]:
    """Up to `count` samples of every row, spread over its list."""
    chosen: list[Case] = []
    for op in all_rows():
        if op.samples and op.reference:
            found = [c for c in cases(op) if is_small(c)]
            step = max(1, len(found) // count)
            chosen += found[::step][:count]
    return chosen


def is_small(case: Case) -> bool:
    return all(np.prod(t.shape, initial=1) <= LARGEST for t in case.static().types() if t)


def undefined(objects) -> set[str]:
    """Names that the objects of a program take from outside of it; those of the support code, which
    is the last, are its own affair."""
    parsed = [elf.parse(bytes(o)) for o in objects]
    defined = {s.name for o in parsed for s in o.symbols if s.section != elf.UNDEFINED}
    return {s.name for o in parsed[:-1] for s in o.symbols
            if s.section == elf.UNDEFINED and s.name} - defined  # fmt: skip
