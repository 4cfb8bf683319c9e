"""Contractions keep their tile in registers: the machine code of the inner loop is counted."""

from __future__ import annotations

import pytest

from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import graph
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.target.host import find
from tensorwright.target.target import Target
from tests.schedule import test_native as groups
from tests.schedule.assembly import FMA, assembly, inner_loops

TARGETS = ("x86-64-avx512", "x86-64-avx2")


def product(rows, columns: int, depth: int, target: Target) -> Kernel:
    """The kernel of relu(x w + b)."""
    op = groups.OP
    x = groups.x_of(rows, depth)
    made = op["matmul"](x, groups.weight(depth, columns))
    y = op["relu"](op["add"](made, groups.weight(columns)))
    lowered = run_pipeline(Module({"main": graph("main", [x], [y])}), target)
    (kernel,) = (k for k in lowered.kernels.values() if k.schedule[0].startswith("contraction"))
    return kernel


@pytest.mark.parametrize("columns", [768, 1000, 257])
@pytest.mark.parametrize("rows", [1, 6, 128, sym(Symbol("n", min=1))], ids=str)
@pytest.mark.parametrize("name", TARGETS)
def test_tiles_live_in_registers(name: str, rows, columns: int):
    target = find(name)
    found = inner_loops(assembly(product(rows, columns, 768, target), target))
    assert found
    for body in found:
        assert not [x for x in body if x.startswith("v") and "(%rsp" in x], "\n".join(body)
        fmas = sum(x.startswith(FMA) for x in body)
        assert fmas >= 0.25 * len(body), "\n".join(body)
