"""Nests replaced by instructions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorwright.base.config import options
from tensorwright.codegen.engine import assembly
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.driver.compile import build_native
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import i8, i32, u8
from tensorwright.ir.expr import Buffer, cast, const, fma
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_kernel
from tensorwright.ir.loop import Kernel, Store, seq
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.kernel import call_kernel
from tensorwright.runtime.cpu import missing
from tensorwright.schedule import primitives as p
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.tensorize import dot_u8i8, tensorize
from tensorwright.target.host import find
from tests.schedule.nests import loop_of

TARGETS = ("x86-64-avx512-vnni", "x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2")


def product(m: int, n: int, k: int, panel: int = 16) -> Kernel:
    """z[i, j] = sum over r of x[i, r] * w[j // panel, r // 4, j % panel, r % 4], in i32"""
    x, z = Buffer("x", u8, (m, k)), Buffer("z", i32, (m, n))
    w = Buffer("w", i8, (n // panel, k // 4, panel, 4))

    def body(i, jo):
        zero = ir.loop("q", panel, lambda l: Store(z, (i, jo * panel + l), const(0, i32)))

        def step(ro):
            def update(l, r):
                at = (i, jo * panel + l)
                a, b = cast(x[i, ro * 4 + r], i32), cast(w[jo, ro, l, r], i32)
                return Store(z, at, fma(a, b, z[at]))

            return ir.loops("lr", (panel, 4), update)

        return seq(zero, ir.loop("ro", k // 4, step))

    nest = ir.loops(("i", "jo"), (m, n // panel), body)
    return Kernel("product", (x, w, z), 1, nest)


def operands(k: Kernel, seed=0):
    rng = np.random.default_rng(seed)
    x, w = k.inputs
    return (rng.integers(0, 256, x.shape).astype(np.uint8),
            rng.integers(-128, 128, w.shape).astype(np.int8))  # fmt: skip


def expected(x, w):
    wide = w.astype(np.int64).transpose(0, 2, 1, 3).reshape(-1, x.shape[1])
    return (x.astype(np.int64) @ wide.T).astype(np.int32)


def run_native(k: Kernel, inputs, target) -> np.ndarray:
    params = [param(b.name, tensor(b.dtype, *b.shape)) for b in k.inputs]
    z = k.results[0]
    y = call_kernel(*params, callee=k.name, type=tensor(z.dtype, *z.shape), scalars=())
    m = Module({"main": graph("main", params, [y])}, {k.name: k})
    if missing(target.required):
        pytest.skip(f"this machine is no {target.name}")
    with options(cache="off"):
        return np.asarray(build_native(m, target, "product", 1)(*inputs))


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_interpreted(lanes):
    k = product(2, 2 * lanes, 8, lanes)
    after = replace(k, body=tensorize(k.body, loop_of(k, "l"), dot_u8i8(lanes)))
    x, w = operands(k)
    for kernel in (k, after):
        np.testing.assert_array_equal(run_kernel(kernel, [x, w])[0], expected(x, w))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_native(name, lanes):
    k = product(3, 2 * lanes, 12, lanes)
    after = replace(k, body=tensorize(k.body, loop_of(k, "l"), dot_u8i8(lanes)))
    x, w = operands(k)
    x[0], w[0] = 255, -128  # products of bytes do not saturate on the way
    np.testing.assert_array_equal(run_native(after, [x, w], find(name)), expected(x, w))


def test_is_one_instruction():
    k = product(2, 16, 8)
    after = replace(k, body=tensorize(k.body, loop_of(k, "l"), dot_u8i8()))
    for name in TARGETS:
        target, module = find(name), ModuleText()
        emit_kernel(after, module, target)
        text = assembly(module.text(target.triple), target)
        assert ("vpdpbusd" in text) is dot_u8i8().is_native(target)


@pytest.mark.parametrize("change, why", [
    (lambda k: p.split(k.body, loop_of(k, "l"), 8)[0], "runs"),
    (lambda k: p.reorder(k.body, [loop_of(k, "r"), loop_of(k, "l")]), "runs|moves"),
    (lambda k: ir.replace_buffers(k.body, {k.params[0]: Buffer("x", i8, (2, 8))}), "holds"),
], ids=["split", "reordered", "signed"])  # fmt: skip
def test_refuses(change, why):
    k = product(2, 16, 8)
    body = change(k)
    inner = [s for s in ir.statements(body) if isinstance(s, ir.For)]
    first = next(s for s in inner if s.var.name in ("l", "lo", "r"))
    with pytest.raises(ScheduleError, match=why):
        tensorize(body, first.var, dot_u8i8())


def test_refuses_other_layouts():
    """Weights whose four bytes are not neighbours."""
    k = product(2, 16, 8)
    w = k.params[1]
    other = Buffer("w", i8, (1, 2, 4, 16))
    body = p.relayout(k.body, w, other, lambda i: (i[0], i[1], i[3], i[2]))
    with pytest.raises(ScheduleError, match="moves by"):
        tensorize(body, loop_of(k, "l"), dot_u8i8())
