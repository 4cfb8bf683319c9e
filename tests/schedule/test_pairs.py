"""Contractions of bf16 in pairs, against NumPy in f64 on the same bf16 numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tensorwright.base.config import options
from tensorwright.codegen.engine import assembly
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.driver.compile import compile
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import Node, constant, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import tensor
from tensorwright.ops import table
from tensorwright.runtime.cpu import missing
from tensorwright.target.host import find

OP = table.BY_NAME
BF16 = ml_dtypes.bfloat16
NATIVE = "x86-64-avx512-bf16"
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_cache():
    with options(cache="off"):
        yield


def numbers(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(BF16)


def needs_target(name: str = NATIVE):
    target = find(name)
    if missing(target.required):
        pytest.skip(f"this machine is no {name}")
    return target


def traces(program) -> str:
    return "\n".join(t for k in program.lowered.kernels.values() for t in k.schedule)


def product(m, k, n: int, weights: np.ndarray | None) -> Module:
    x = param("x", tensor("bf16", m, k))
    w = param("w", tensor("bf16", k, n)) if weights is None else constant(weights)
    y = OP["dot_general"](x, w, contract=((1,), (0,)), dtype=f32)
    return Module({"main": graph("main", (x,) if weights is not None else (x, w), (y,))})


def close(found, x, w) -> None:
    wanted = x.astype(np.float64) @ w.astype(np.float64)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("is_constant", [True, False], ids=["constant", "packed_at_run_time"])
@pytest.mark.parametrize("m, k, n", [
    (6, 32, 64), (1, 32, 64), (1, 33, 100), (7, 1, 35), (7, 2, 3), (7, 3, 35), (13, 19, 1),
    (48, 64, 197), (5, 128, 16), (3, 7, 8),
])  # fmt: skip
def test_products(m, k, n, is_constant):
    target = needs_target()
    x, w = numbers(m, k), numbers(k, n)
    program = compile(product(m, k, n, w if is_constant else None), target=target, threads=1)
    close(program(x) if is_constant else program(x, w), x, w)
    if k > 1 and n > 1:
        assert "pairs of bf16" in traces(program)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_symbolic_rows_and_sums(size):
    target = needs_target()
    rows = sym(Symbol("m", 1))
    w = numbers(9, 40)
    x = numbers(size, 9)
    close(compile(product(rows, 9, 40, w), target=target, threads=1)(x), x, w)
    summed = sym(Symbol("k", 1))
    x, w = numbers(5, size), numbers(size, 40)
    program = compile(product(5, summed, 40, None), target=target, threads=1)
    assert "pairs of bf16" in traces(program)
    close(program(x, w), x, w)


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_of_unknown_number_in_a_batch(batch):
    """The loops over both become one."""
    target = needs_target()
    x, w = numbers(batch, 5, 32), numbers(32, 40)
    rows = param("x", tensor("bf16", batch, sym(Symbol("m", 1)), 32))
    y = OP["dot_general"](rows, constant(w), contract=((2,), (0,)), dtype=f32)
    program = compile(Module({"main": graph("main", (rows,), (y,))}), target=target, threads=1)
    assert "pairs of bf16" in traces(program)
    close(program(x), x, w)


def test_what_follows_an_odd_row_is_not_read():
    """The neighbour of the last element of a row is no part of the sum, not even times zero."""
    target = needs_target()
    x, w = numbers(4, 5), numbers(5, 20)
    x[1, 0] = np.inf
    found = compile(product(4, 5, 20, w), target=target, threads=1)(x)
    assert np.isfinite(found[[0, 2, 3]]).all() and not np.isfinite(found[1]).any()


def convolution(channels: int, stride: int, outputs: int = 24) -> tuple[Module, Node, Node]:
    x = param("x", tensor("bf16", 1, channels, 9, 9))
    w = constant(numbers(outputs, channels, 3, 3))
    y = OP["conv_general"](x, w, strides=(stride, stride), padding=((1, 1), (1, 1)), dtype=f32)
    return Module({"main": graph("main", (x,), (y,))}), x, w


@pytest.mark.parametrize("channels, stride", [(3, 2), (8, 1), (5, 1), (16, 2)])
def test_convolutions(channels, stride):
    target = needs_target()
    m, _, w = convolution(channels, stride)
    x = numbers(1, channels, 9, 9)
    program = compile(m, target=target, threads=1)
    assert "pairs of bf16" in traces(program)
    wanted = OP["conv_general"].reference(
        x.astype(np.float64), w.attrs["value"].astype(np.float64), strides=(stride, stride),
        padding=((1, 1), (1, 1)))  # fmt: skip
    np.testing.assert_allclose(program(x), wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("channels, outputs", [(4, 4), (8, 8), (16, 32), (16, 4), (3, 8), (24, 24)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups(channels, outputs, stride):
    """Pairs within a group: spread over its columns, from memory or by a permutation."""
    target = needs_target()
    how = {"strides": (stride, stride), "padding": ((1, 1), (1, 1)), "groups": 6}
    x, w = numbers(1, 6 * channels, 9, 9), numbers(6 * outputs, channels, 3, 3)
    node = param("x", tensor("bf16", *x.shape))
    y = OP["conv_general"](node, constant(w), dtype=f32, **how)
    program = compile(Module({"main": graph("main", (node,), (y,))}), target=target, threads=1)
    assert "pairs of bf16" in traces(program)
    exact = OP["conv_general"].reference(x.astype(np.float64), w.astype(np.float64), **how)
    np.testing.assert_allclose(program(x), exact, rtol=0, atol=2e-6 * np.abs(exact).max())


@pytest.mark.parametrize("keys", [16, 33])
def test_attention(keys):
    target = needs_target()
    shapes = [(1, 2, 20, 16), (1, 2, keys, 16), (1, 2, keys, 16)]
    params = [param(n, tensor("bf16", *s)) for n, s in zip("qkv", shapes)]
    m = Module({"main": graph("main", params, (OP["attention"](*params),))})
    arrays = [numbers(*s) for s in shapes]
    program = compile(m, target=target, threads=1)
    assert any("attention" in t for t in traces(program).split("\n"))
    (wanted,) = run_module(m, arrays)
    np.testing.assert_allclose(program(*arrays).astype(np.float32), wanted.astype(np.float32),
                               rtol=0, atol=0.02)  # fmt: skip


@pytest.mark.parametrize("name", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
def test_targets_without_the_instruction(name):
    target = needs_target(name)
    x, w = numbers(7, 19), numbers(19, 35)
    program = compile(product(7, 19, 35, w), target=target, threads=1)
    assert "pairs" not in traces(program)
    close(program(x), x, w)


def lowered(m: Module):
    return run_pipeline(m, find(NATIVE))


def test_scheduled_kernels_run_in_the_interpreter_and_print():
    x, w = numbers(7, 5), numbers(5, 20)
    m = lowered(product(7, 5, 20, None))
    (found,) = run_module(m, [x, w])
    close(found, x, w)
    again = parse(to_text(m), table.BY_NAME, m.constants())
    assert to_text(again) == to_text(m)
    close(run_module(again, [x, w])[0], x, w)


def test_inner_loop_is_products_of_pairs():
    """The pairs of a row are broadcast from memory; nothing is converted, nothing is spilled."""
    m = lowered(product(48, 64, 64, numbers(64, 64)))
    (k,) = m.kernels.values()
    module = ModuleText()
    emit_kernel(k, module, find(NATIVE))
    text = assembly(module.text(find(NATIVE).triple), find(NATIVE))
    lines = [line.split()[0] for line in text.splitlines() if line.startswith("\t")]
    assert lines.count("vdpbf16ps") >= 24
    assert "vpinsrw" not in lines and "vpslld" not in lines and "vpunpcklwd" not in lines


def test_heads_within_a_row():
    """The keys of all heads lie in one row; a head's pairs begin at an even place of it."""
    target = needs_target()
    q = param("q", tensor("bf16", 10, 3, 8))
    k = param("k", tensor("bf16", 12, 24))
    heads = OP["reshape"](k, shape=(12, 3, 8))
    y = OP["dot_general"](q, heads, batch=((1,), (1,)), contract=((2,), (2,)), dtype=f32)
    program = compile(Module({"main": graph("main", (q, k), (y,))}), target=target, threads=1)
    assert "pairs of bf16" in traces(program)
    left, right = numbers(10, 3, 8), numbers(12, 24)
    wanted = np.einsum("qhd,khd->hqk", left.astype(float), right.reshape(12, 3, 8).astype(float))
    np.testing.assert_allclose(program(left, right), wanted, rtol=0, atol=1e-5)
