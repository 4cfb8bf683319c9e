"""Transposes are shuffled in registers, and right at every size."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops import table
from tensorwright.runtime.cpu import missing
from tensorwright.target.host import find
from tests.schedule.assembly import assembly

OP = table.BY_NAME
TARGETS = ("x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2")


def turned(*shape) -> Module:
    """y[k, i, j] = 2 x[i, j, k] + 1"""
    x = param("x", tensor("f32", *shape))
    y = OP["add"](OP["mul"](OP["transpose"](x, perm=(2, 0, 1)), 2.0), 1.0)
    return Module({"main": graph("main", [x], [y])})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 5, 7), (2, 33, 20), (5, 197, 64), (2, 64, 3)])
def test_values(shape, target: str):
    if missing(find(target).required):
        pytest.skip(f"this CPU does not run {target}")
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    y = compile(turned(*shape), target=target)(x)
    np.testing.assert_array_equal(y, x.transpose(2, 0, 1) * 2 + 1)


def test_symbolic_sizes():
    n, m = sym(Symbol("n", min=1)), sym(Symbol("m", min=1))
    program = compile(turned(n, 24, m))
    for shape in ((1, 24, 1), (3, 24, 16), (2, 24, 37), (40, 24, 64)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(program(x), x.transpose(2, 0, 1) * 2 + 1)


@pytest.mark.parametrize("name", TARGETS[:2])
def test_no_gather(name: str):
    target = find(name)
    (kernel,) = run_pipeline(turned(2, 64, 32), target).kernels.values()
    text = assembly(kernel, target)
    assert "gather" not in text and "unpcklp" in text, text
