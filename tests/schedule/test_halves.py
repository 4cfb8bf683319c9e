"""Two rows that share the last vector of a tile: where they do, and that results stay the same."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import graph
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.ops.conv import conv_general
from tensorwright.target.host import find
from tests.schedule.assembly import FMA, assembly, inner_loops
from tests.schedule.test_contraction import product
from tests.schedule.test_native import OP, weight, x_of

WIDE = "x86-64-avx512-wide"


def shares(k: Kernel) -> bool:
    return "halves" in str(k.body)


def sums(k: Kernel, name: str) -> int:
    """Multiply-adds of the largest tile in a step."""
    return max(
        sum(x.startswith(FMA) for x in body) for body in inner_loops(assembly(k, find(name)))
    )


@pytest.mark.parametrize("columns, count", [(24, 12), (20, 12), (40, 20), (32, 16), (26, 16)])
def test_what_a_step_multiplies(columns: int, count: int):
    """Eight rows by one and a half vectors are twelve."""
    k = product(800, columns, 96, find(WIDE))
    assert k.schedule[0].startswith("contraction: 8 x ") and sums(k, WIDE) == count


@pytest.mark.parametrize("name, columns", [
    (WIDE, 48), (WIDE, 120), (WIDE, 8), ("x86-64-avx512", 24), ("x86-64-sse4.2", 6),
    ("aarch64", 6),
])  # fmt: skip
def test_where_no_vector_is_half_empty_or_halves_take_half_the_time(name: str, columns: int):
    assert not shares(product(800, columns, 96, find(name)))


@pytest.mark.parametrize("rows", [2, 7, 13, 50, "n"])
@pytest.mark.parametrize("columns", [17, 20, 24, 40, 56])
def test_results_stay_the_same(rows, columns: int):
    n = sym(Symbol("n", min=1)) if rows == "n" else rows
    x, r, w, b = x_of(n, 33), x_of(n, columns), weight(33, columns), weight(columns)
    y = OP["relu"](OP["add"](OP["add"](OP["matmul"](x, w), b), r))
    program = tw.compile(Module({"main": graph("main", [x, r], [y])}), threads=2)
    values = [n.attrs["value"] for n in (w, b)]
    for count in (1, 9, 20) if rows == "n" else (rows,):
        a, c = (np.random.default_rng(0).integers(-4, 5, (count, k)).astype(np.float32)
                for k in (33, columns))  # fmt: skip
        want = np.maximum(a @ values[0] + values[1] + c, 0)
        np.testing.assert_array_equal(program(a, c), want)


@pytest.mark.parametrize("size", [13, 14])
def test_convolutions(size: int):
    x, w = x_of(1, size, size, 5), weight(3, 3, 5, 24)
    m = Module({"main": graph("main", [x], [conv_general(x, w, layout="NLAST")])})
    a = np.random.default_rng(0).integers(-4, 5, (1, size, size, 5)).astype(np.float32)
    k = w.attrs["value"]
    want = sum(
        a[:, i : i + size - 2, j : j + size - 2] @ k[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_array_equal(tw.compile(m, threads=2)(a), want)


@pytest.mark.parametrize("name", [WIDE, "x86-64-avx2"])
def test_turned_results(name: str):
    r, k = x_of(50, 33), weight(33, 20)
    turned = OP["transpose"](OP["matmul"](r, k), perm=(1, 0))
    a = np.random.default_rng(0).integers(-4, 5, (50, 33)).astype(np.float32)
    program = tw.compile(Module({"main": graph("main", [r], [turned])}), target=name, threads=2)
    np.testing.assert_array_equal(program(a), (a @ k.attrs["value"]).T)
