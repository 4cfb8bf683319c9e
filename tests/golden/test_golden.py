"""Golden files: `# RUN: module.function, ...`, a program, `# ---`, the program that must come out.

Steps name functions Module -> Module below `tensorwright`; those that want a machine, too, get one
with AVX-512; no steps is the round trip of the text
form. Input and output are also interpreted on random data: a file that changes numerics fails.
`--update-golden` rewrites what is below the mark. Dropping a file in makes a test.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

from tensorwright.ir.facts import evaluate
from tensorwright.ir.interp import run_kernel, run_module
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import type_symbols
from tensorwright.ir.verify import verify
from tensorwright.target.host import find
from tests.ops.rows import all_rows
from tests.ops.samples import random_array

HERE = Path(__file__).parent
MARK = "# ---\n"
BY_NAME = {op.name: op for op in all_rows()}


def steps_of(line: str) -> list:
    """The functions that a RUN line names."""
    assert line.startswith("# RUN:"), "a golden file starts with # RUN:"
    found = []
    for name in line[len("# RUN:") :].split(","):
        if name.strip():
            module, _, function = name.strip().rpartition(".")
            step = getattr(importlib.import_module(f"tensorwright.{module}"), function)
            wants = "target" in inspect.signature(step).parameters
            found.append(functools.partial(step, target=find("x86-64-avx512")) if wants else step)
    return found


def inputs_of(m: Module, size: int) -> list[np.ndarray]:
    """Random inputs of the entry, every symbol about `size`."""
    random = np.random.default_rng(0)
    symbols = type_symbols(*(p.type for p in m.main.params))
    values = {s: _allowed(s, size) for s in symbols}
    shapes = [tuple(evaluate(d, values) for d in p.shape) for p in m.main.params]
    return [
        random_array(random, type(p.type)(p.dtype, shape))
        for p, shape in zip(m.main.params, shapes)
    ]


def _allowed(s, size: int) -> int:
    value = max(size, s.min or 0) // s.multiple_of * s.multiple_of or s.multiple_of
    return value if s.max is None else min(value, s.max)


def assert_same_results(before: Module, after: Module) -> None:
    if not before.graphs:
        return
    for size in (1, 3):
        inputs = inputs_of(before, size)
        for a, b in zip(run_module(before, inputs), run_module(after, inputs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", sorted(HERE.rglob("*.ir")), ids=lambda p: p.stem)
def test_golden(path, request):
    text = path.read_text()
    first, _, rest = text.partition("\n")
    given, _, expected = rest.partition(MARK)
    before = parse(given, BY_NAME, name=str(path.name))
    verify(before)
    after = before
    for step in steps_of(first):
        after = step(after)
        verify(after)
    found = to_text(after)
    if request.config.getoption("--update-golden"):
        path.write_text(f"{first}\n{given}{MARK}{found}")
        return
    assert found == expected
    assert to_text(parse(found, BY_NAME, after.constants())) == found
    assert_same_results(before, after)


def test_tiled_kernel():
    """The loop nest of the design page computes relu(x @ w + b), edges included."""
    text = (HERE / "text" / "dense.ir").read_text().partition(MARK)[2]
    k = parse(text, BY_NAME).kernels["dense_relu"]
    random = np.random.default_rng(1)
    w, b = (random.normal(size=s).astype(np.float32) for s in ((64, 32), (32,)))
    for n in (1, 8, 13):
        x = random.normal(size=(n, 64)).astype(np.float32)
        (y,) = run_kernel(k, [x, w, b])
        np.testing.assert_allclose(y, np.maximum(x @ w + b, 0), rtol=1e-4, atol=1e-4)
