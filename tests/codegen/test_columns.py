"""Transposes are shuffled in registers, and right at every size."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from tensorwright.codegen.columns import Columns
from tensorwright.driver.compile import compile
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Symbol, make, sym
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_graph
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


def pointwise(outputs: int, pixels: int, channels: int) -> Module:
    """A product stored with its columns outermost: y[o, p] = sum over c of x[p, c] w[c, o]"""
    w = np.random.default_rng(1).standard_normal((channels, outputs)).astype(np.float32)
    x = param("x", tensor("f32", pixels, channels))
    y = OP["transpose"](OP["dot_general"](x, constant(w, "w"), contract=((1,), (0,))), perm=(1, 0))
    return Module({"main": graph("main", [x], [OP["add"](y, 1.0)])})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(48, 24, 8), (85, 24, 5), (32, 9, 5), (96, 112, 16), (16, 2, 4)])
def test_stored_columns(shape, target: str):
    if missing(find(target).required):
        pytest.skip(f"this CPU does not run {target}")
    m = pointwise(*shape)
    x = np.random.default_rng(0).standard_normal(shape[1:]).astype(np.float32)
    np.testing.assert_allclose(compile(m, target=target)(x), run_graph(m.main, [x])[0], rtol=1e-4,
                               atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("outputs", [96, 85])
def test_no_scatter(outputs: int):
    """Not even of a last vector that holds fewer columns than it has lanes."""
    target = find("x86-64-avx512")
    (kernel,) = run_pipeline(pointwise(outputs, 112, 16), target).kernels.values()
    text = assembly(kernel, target)
    assert "scatter" not in text and "unpcklp" in text, text


def test_a_padded_transpose_reads_nothing_in_front_of_its_operand():
    """The page before the operand may not be read."""
    x = param("x", tensor("f32", 1, 32, 20, 20))
    padded = OP["pad"](x, low=(0, 0, 1, 1), high=(0, 0, 1, 1))
    y = OP["transpose"](padded, perm=(0, 2, 3, 1))
    program = compile(Module({"main": graph("main", [x], [y])}))
    size = 32 * 20 * 20 * 4
    memory = mmap.mmap(-1, mmap.PAGESIZE * (size // mmap.PAGESIZE + 2))
    octets = np.frombuffer(memory, np.uint8)
    value = octets[mmap.PAGESIZE : mmap.PAGESIZE + size].view(np.float32).reshape(1, 32, 20, 20)
    value[:] = np.random.default_rng(0).standard_normal(value.shape)
    protect = ctypes.CDLL(None).mprotect
    assert protect(ctypes.c_void_p(octets.ctypes.data), mmap.PAGESIZE, 0) == 0
    got = program(value)
    expected = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1))).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(got, expected)


def test_loads_are_found_in_the_order_of_the_text():
    x = Buffer("x", f32, (64,))
    block = Columns(None, None)
    e = x[0]
    for k in range(1, 40):
        e = make("add", f32, (e, x[k]))
    assert list(block.loads_of(e)) == [x[k] for k in range(40)]


DTYPES = ("u8", "i16", "bool", "f16", "f32")


def moved(perm, *shape, d: str) -> Module:
    x = param("x", tensor(d, *shape))
    return Module({"main": graph("main", [x], [OP["transpose"](x, perm=perm)])})


def some(shape, d: str) -> np.ndarray:
    value = np.random.default_rng(0).integers(0, 200, shape)
    return value % 3 == 0 if d == "bool" else value.astype(tensor(d, 1).dtype.numpy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("d", DTYPES)
@pytest.mark.parametrize("shape", [(2, 16, 16), (3, 5, 7), (2, 33, 20), (1, 49, 50), (4, 10, 64)])
def test_narrow_elements(shape, d, target: str):
    if missing(find(target).required):
        pytest.skip(f"this CPU does not run {target}")
    x = some(shape, d)
    y = compile(moved((0, 2, 1), *shape, d=d), target=target, threads=2)(x)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("d", DTYPES)
@pytest.mark.parametrize("planes", [2, 3, 4])
@pytest.mark.parametrize("pixels", [(7, 9), (5, 16), (1, 1000), (224, 224), (3, 1)])
def test_planes_side_by_side(pixels, planes, d, target: str):
    if missing(find(target).required):
        pytest.skip(f"this CPU does not run {target}")
    x = some((2, planes, *pixels), d)
    y = compile(moved((0, 2, 3, 1), *x.shape, d=d), target=target, threads=2)(x)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1))


def test_planes_of_symbolic_sizes():
    n, m = sym(Symbol("n", min=1)), sym(Symbol("m", min=1))
    program = compile(moved((1, 2, 0), 3, n, m, d="u8"))
    narrow = compile(moved((0, 2, 1), n, m, 20, d="u8"))
    for shape in ((1, 1), (3, 16), (2, 37), (40, 64)):
        x, y = some((3, *shape), "u8"), some((*shape, 20), "u8")
        np.testing.assert_array_equal(program(x), x.transpose(1, 2, 0))
        np.testing.assert_array_equal(narrow(y), y.transpose(0, 2, 1))


@pytest.mark.parametrize("perm", [(0, 2, 1), (1, 2, 0)])
def test_no_element_of_a_narrow_type_by_itself(perm):
    target = find("x86-64-avx512")
    shape = (16, 32, 64) if perm == (0, 2, 1) else (3, 32, 64)
    (kernel,) = run_pipeline(moved(perm, *shape, d="u8"), target).kernels.values()
    text = assembly(kernel, target)
    assert "gather" not in text and "vpextrb" not in text, text
