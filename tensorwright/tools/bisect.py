"""Where numbers go wrong: the first pass, then the smallest part of the program that shows it.

    found = bisect(module, target, inputs)     ->     pass "schedule", value "p", 2 operators

The module is run after each pass, by the interpreter while that is quick and natively in the end.
Then single operators, and growing slices of the graph, are put through the pipeline alone, until
one of them fails by itself. What is judged is the compiler: the imported module in the interpreter
is right by definition, unless `expected` says otherwise. A pass that raises has failed as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensorwright.base.errors import TensorwrightError
from tensorwright.driver.compile import build_native
from tensorwright.driver.pipeline import PIPELINE, stages
from tensorwright.driver.textfile import write_text
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import TensorType
from tensorwright.runtime.buffer import dtype_name
from tensorwright.target.target import Target
from tensorwright.tools.numbers import Difference, difference, tolerance_of
from tensorwright.tools.slices import Slice, node_values, slice_at, tensors
from tensorwright.tools.work import total_flops

PASSES = tuple(name for name, _ in PIPELINE)
NATIVE = "native"  # the stage behind the last pass: code generation, host program, memory plan
IMPORT = "import"
INTERPRETED = 2_000_000  # operations of kernels that are worth interpreting
DEPTHS = (1, 2, 3, 4, 6, 9, 14, 20, 1000)
SECONDS = 120  # to look for a small part
Tell = Callable[[str], None]
Results = list[np.ndarray] | TensorwrightError


@dataclass(frozen=True)
class Culprit:
    """stage: the pass (or import, native). worst: the value that is wrong and how far. part: the
    smallest slice that fails alone, None if only the whole program does."""

    stage: str
    worst: Difference
    part: Slice | None
    note: str = ""

    @property
    def title(self) -> str:
        if self.part is None:
            return f"{self.stage}: {self.worst.name} is wrong in the whole program only"
        operators = ", ".join(self.part.operators)
        return f"{self.stage}: {self.worst.name} is wrong, from {operators}"


def bisect(
    m: Module, target: Target, inputs: Sequence[np.ndarray], expected: Sequence | None = None,
    tolerance: float | None = None, tell: Tell = lambda text: None,
) -> Culprit | None:  # fmt: skip
    """The first stage whose results leave the tolerance, reduced; None if none does."""
    search = _Search(target, tolerance, tell)
    truth = run_module(m, inputs)
    names = m.main.result_names or tuple(r.name or f"out{k}" for k, r in enumerate(m.main.results))
    if expected is not None:
        found = search.worst(names, truth, expected)
        if found is not None:
            return Culprit(IMPORT, found, None, "the import differs from what was expected")
    for stage, results in search.results(m, inputs):
        tell(f"after {stage}")
        found = search.worst(names, results, truth)
        if found is not None:
            return search.reduce(m, stage, inputs, found)
    return None


class _Search:
    def __init__(self, target: Target, tolerance: float | None, tell: Tell):
        self.target, self.tolerance, self.tell = target, tolerance, tell

    def worst(self, names, ours: Results, theirs: Sequence) -> Difference | None:
        """The worst result outside its tolerance, if any is."""
        if isinstance(ours, TensorwrightError):
            return failed(names[0], ours)
        rows = [self.compare(n, a, b) for n, a, b in zip(names, ours, theirs)]
        bad = [d for d in rows if not d.ok]
        return max(bad, key=lambda d: d.error, default=None)

    def compare(self, name: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
        theirs = np.asarray(theirs)
        kind, asked, allowed = dtype_name(theirs.dtype), self.target.precision, self.tolerance
        if allowed is None and kind == "f32" and asked != "model":
            allowed = tolerance_of(asked)
        return difference(name, np.asarray(ours), theirs, kind, allowed)

    def results(self, m: Module, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, Results]]:
        """(stage, results or error) of every stage that can be run, the native program last."""
        last, stage = m, PASSES[0]
        try:
            for stage, last in stages(m, self.target):
                if not last.kernels or total_flops(last, inputs) <= INTERPRETED:
                    yield stage, run_module(last, inputs)
            stage = NATIVE
            yield stage, self.native(last, inputs)
        except TensorwrightError as e:
            yield stage, e

    def native(self, lowered: Module, inputs: Sequence[np.ndarray]) -> list:
        program = build_native(lowered, self.target, "bisect")
        found = program(*inputs)
        return list(found) if isinstance(found, tuple) else [found]

    # ---- reduction -----------------------------------------------------------------------------

    def reduce(self, m: Module, stage: str, inputs, found: Difference) -> Culprit:
        """The smallest slice of `m` that fails in the pipeline, within the time there is."""
        values = node_values(m, inputs)
        candidates, seen = [n for n in tensors(m) if n in values], set()
        end = time.monotonic() + SECONDS
        for depth in DEPTHS:
            self.tell(f"parts of depth {depth}")
            for node in candidates:
                part = self.part(m, node, depth, values)
                if part is None or part.shape in seen:
                    continue
                seen.add(part.shape)
                bad = self.fails(part)
                if bad is not None:
                    return Culprit(*bad, part)
                if time.monotonic() > end:
                    return Culprit(stage, found, None)
        return Culprit(stage, found, None)

    def part(self, m: Module, node, depth: int, values) -> Slice | None:
        """The slice, None where its sizes cannot be found from its parameters."""
        try:
            part = slice_at(m, node, depth, values)
            if not all(isinstance(p.type, TensorType) for p in part.module.main.params):
                return None
            run_module(part.module, part.inputs)
        except (TensorwrightError, KeyError):
            return None
        return part

    def fails(self, part: Slice) -> tuple[str, Difference] | None:
        """(stage, difference) where the slice alone goes wrong."""
        name = part.root.name or part.root.op.name
        for stage, results in self.results(part.module, part.inputs):
            found = self.worst([name], results, [part.expected])
            if found is not None:
                return stage, found
        return None


def failed(name: str, error: TensorwrightError) -> Difference:
    """An error as a difference."""
    return Difference(name, "", (), *[math.inf] * 2, None, 0.0, math.inf, 0.0, error.message)


def write_culprit(found: Culprit, path: Path) -> None:
    """The smallest failing module as text that parses, its inputs and expected results beside."""
    part = found.part
    comment = f"{found.title}\nerror {found.worst.error:.2e}, tolerance {found.worst.tolerance:.0e}"
    extra = {f"input:{p.name}": x for p, x in zip(part.module.main.params, part.inputs)}
    write_text(part.module, path, comment, {**extra, "expected": part.expected})
