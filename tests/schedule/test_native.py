"""Scheduled kernels against unscheduled ones, both native, at sizes around those of vectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import Node, constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops import table
from tensorwright.runtime import cpu
from tensorwright.target.host import TARGETS
from tests.codegen.unscheduled import compile_as_defined
from tests.ops.rows import flat

OP = table.BY_NAME
SIZES = (1, 2, 15, 16, 17, 31, 64, 97)
RANDOM = np.random.default_rng(0)
NUMBERS = itertools.count()


def weight(*shape: int) -> Node:
    return constant(RANDOM.integers(-3, 4, shape).astype(np.float32))


def x_of(*shape, d: str = "f32") -> Node:
    return param(f"x{next(NUMBERS)}", tensor(d, *shape))


def relu_of_sum(n):
    x = x_of(n, 13)
    return x, OP["relu"](OP["add"](OP["mul"](x, 2.0), weight(13)))


def transposed(n):
    x = x_of(7, n, 5)
    return x, OP["neg"](OP["transpose"](x, perm=(2, 0, 1)))


def softmax_of_rows(n):
    x = x_of(9, n)
    return x, OP["softmax"](x, axis=1)


def normalized(n):
    x = x_of(n, 37)
    return x, OP["layer_norm"](x, weight(37), weight(37), axes=(1,))


def largest_of_columns(n):
    x = x_of(11, n)
    return x, OP["reduce_max"](x, axes=(0,))


def total(n):
    x = x_of(n, 3)
    return x, OP["reduce_sum"](x, axes=(0, 1))


def dense(n):
    x = x_of(n, 19)
    return x, OP["relu"](OP["linear"](x, weight(35, 19), weight(35)))


def wide_product(n):
    x = x_of(6, 19)
    return x, OP["matmul"](x, weight(19, n)) if isinstance(n, int) else None


def batched(n):
    x = x_of(3, n, 8)
    return x, OP["matmul"](x, OP["transpose"](x, perm=(0, 2, 1)))


def convolution(n):
    x = x_of(2, 5, n, 9)
    return x, OP["relu"](OP["conv"](x, weight(18, 5, 3, 3), weight(18), padding=((1, 1), (1, 1))))


def depthwise(n):
    x = x_of(1, n, 10, 19)
    if not isinstance(n, int):
        return x, None
    return x, OP["conv"](x, weight(n, 1, 3, 3), groups=n, padding=((1, 1), (1, 1)), strides=(2, 2))


def pooled(n):
    x = x_of(1, 3, n, 18)
    return x, OP["max_pool"](x, window=(1, 3), strides=(1, 2), padding=((0, 0), (1, 1)))


def bytes_to_floats(n):
    x = x_of(n, 21, d="u8")
    return x, OP["mul"](OP["cast"](x, dtype=f32), 0.5)


def halves(n):
    x = x_of(n, 21, d="bf16")
    return x, OP["reduce_sum"](OP["sigmoid"](x), axes=(1,))


GROUPS = (relu_of_sum, transposed, softmax_of_rows, normalized, largest_of_columns, total,
          dense, wide_product, batched, convolution, depthwise, pooled, bytes_to_floats,
          halves)  # fmt: skip
ON = [t.name for t in TARGETS if t.triple.startswith("x86") and not cpu.missing(t.required)]
ON = [n for n in ON if n in ("x86-64-avx2", "x86-64-sse4.2")]


def compiled(m: Module, **how):
    with options(cache="off"):
        return compile(m, **how)


def operand(x: Node, size: int) -> np.ndarray:
    shape = [d if isinstance(d, int) else size for d in x.shape]
    return RANDOM.integers(0 if x.dtype.kind == "uint" else -3, 4, shape).astype(x.dtype.numpy)


def assert_same(found, expected, what) -> None:
    for a, e in zip(flat(found), flat(expected), strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype, what
        tolerance = 1e-5 if a.dtype == np.float32 else 2e-2
        np.testing.assert_allclose(a.astype(np.float64), e.astype(np.float64), tolerance, tolerance,
                                   err_msg=str(what))  # fmt: skip


@pytest.mark.parametrize("make", GROUPS, ids=lambda f: f.__name__)
def test_symbolic_size(make):
    x, y = make(sym(Symbol("n", min=1)))
    if y is None:
        pytest.skip("the size is that of a constant")
    m = Module({"main": graph("main", [x], [y])})
    plain = compile_as_defined(m)
    programs = {"host": compiled(m, threads=2, verify=True)}
    programs |= {t: compiled(m, target=t, threads=1) for t in ON}
    for size in SIZES:
        given = operand(x, size)
        expected = plain(given)
        for target, program in programs.items():
            assert_same(program(given), expected, (target, size))


@pytest.mark.parametrize("size", SIZES)
def test_static_sizes(size: int):
    """All groups of one size as one program a target."""
    made = [make(size) for make in GROUPS]
    m = Module({"main": graph("main", [x for x, _ in made], [y for _, y in made])})
    given = [operand(x, size) for x, _ in made]
    expected = compile_as_defined(m)(*given)
    for target in ("host", *ON):
        assert_same(compiled(m, target=target, threads=2)(*given), expected, (target, size))
