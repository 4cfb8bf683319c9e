"""Instructions of bf16, and what stands for them, against the interpreter's functions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tensorwright.base.config import options
from tensorwright.codegen.engine import assembly
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.driver.compile import build_native
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import bf16, f32, u32
from tensorwright.ir.expr import Buffer, call, join, unary
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import run_kernel
from tensorwright.ir.loop import Kernel, Store
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.kernel import call_kernel
from tensorwright.runtime.cpu import missing
from tensorwright.target.host import TARGETS, find

X86 = [t.name for t in TARGETS if t.name.startswith("x86")]
BF16 = ml_dtypes.bfloat16
N = 16
RANDOM = np.random.default_rng(0)


def native(k: Kernel, inputs, name: str) -> np.ndarray:
    target = find(name)
    if missing(target.required):
        pytest.skip(f"this machine is no {name}")
    params = [param(b.name, tensor(b.dtype, *b.shape)) for b in k.inputs]
    z = k.results[0]
    y = call_kernel(*params, callee=k.name, type=tensor(z.dtype, *z.shape), scalars=())
    m = Module({"main": graph("main", params, [y])}, {k.name: k})
    with options(cache="off"):
        return np.asarray(build_native(m, target, k.name, 1)(*inputs))


def kernel(value, out, *inputs: Buffer, lanes: int = N) -> Kernel:
    """out[l] = value(l), in a vector of `lanes` (0: one after another)."""
    body = ir.loop("l", N, lambda l: Store(out, (l,), value(l)))
    if lanes:
        body = ir.loop(
            "o",
            N // lanes,
            lambda o: ir.loop(
                "l", lanes, lambda l: Store(out, (o * lanes + l,), value(o * lanes + l)), "vector"
            ),
        )
    return Kernel("k", (*inputs, out), 1, body)


def products(lanes: int) -> Kernel:
    a, b, c = Buffer("a", u32, (N,)), Buffer("b", u32, (N,)), Buffer("c", f32, (N,))
    out = Buffer("out", f32, (N,))
    return kernel(lambda l: call("dot_bf16", f32, (c[l], a[l], b[l])), out, a, b, c, lanes=lanes)


def pairs(strided: bool, lanes: int) -> Kernel:
    x, out = Buffer("x", bf16, (2 * N,)), Buffer("out", u32, (N,))
    apart = N if strided else 1
    at = (lambda l: l) if strided else (lambda l: l * 2)
    return kernel(lambda l: join(x[at(l)], x[at(l) + apart]), out, x, lanes=lanes)


def words() -> np.ndarray:
    return RANDOM.standard_normal(2 * N).astype(BF16).view(np.uint32)


@pytest.mark.parametrize("name", X86)
@pytest.mark.parametrize("lanes", [0, 4, 8, 16])
def test_dot(name, lanes):
    k = products(lanes)
    inputs = [words(), words(), RANDOM.standard_normal(N).astype(np.float32)]
    wanted = run_kernel(k, inputs)[0]
    np.testing.assert_allclose(native(k, inputs, name), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", X86)
@pytest.mark.parametrize("strided", [False, True], ids=["neighbours", "apart"])
@pytest.mark.parametrize("lanes", [0, 8, 16])
def test_join(name, strided, lanes):
    k = pairs(strided, lanes)
    x = RANDOM.standard_normal(2 * N).astype(BF16)
    np.testing.assert_array_equal(native(k, [x], name), run_kernel(k, [x])[0])


@pytest.mark.parametrize("name", X86)
@pytest.mark.parametrize("lanes", [0, 4, 8, 16])
def test_rounding(name, lanes):
    """To nearest even, infinities and NaN kept, ties both ways."""
    x, out = Buffer("x", f32, (N,)), Buffer("out", bf16, (N,))
    k = kernel(lambda l: call("round_bf16", bf16, (x[l],)), out, x, lanes=lanes)
    bits = np.array(
        [
            0x3F808000,
            0x3F818000,
            0x3F807FFF,
            0x3F808001,
            0xBF808000,
            0x7F7FFFFF,
            0x7F800000,
            0xFF800000,
            0x7FC00001,
            0x7F800001,
            0,
            0x80000000,
        ],
        np.uint32,
    )
    values = np.concatenate([bits.view(np.float32), np.float32([1e30, -1e-30, 3.3, -7.7])])
    found = native(k, [values], name)
    wanted = values.astype(BF16)
    np.testing.assert_array_equal(found.astype(np.float32), wanted.astype(np.float32))
    assert np.isnan(found.astype(np.float32)[8:10]).all()


def test_are_instructions():
    target = find("x86-64-avx512-bf16")
    x, out = Buffer("x", f32, (N,)), Buffer("out", bf16, (N,))
    rounding = kernel(lambda l: call("round_bf16", bf16, (x[l],)), out, x)
    for k, name in ((products(16), "vdpbf16ps"), (rounding, "vcvtneps2bf16")):
        module = ModuleText()
        emit_kernel(k, module, target)
        assert name in assembly(module.text(target.triple), target)


@pytest.mark.parametrize("name", X86)
def test_near_functions(name):
    """What is rounded to bf16 at once has fewer terms, and comes out as rounded but for ties."""
    x, out = Buffer("x", f32, (N,)), Buffer("out", bf16, (N,))
    k = kernel(lambda l: call("round_bf16", bf16, (x[l] * (unary("erf", x[l]) + 1.0),)), out, x)
    values = np.float32([-20, -4, -2, -1.3, -0.7, -0.1, -1e-3, 0, 1e-3, 0.1, 0.5, 1, 2, 3, 4, 9])
    wanted = run_kernel(k, [values])[0].astype(np.float32)
    found = native(k, [values], name).astype(np.float32)
    np.testing.assert_allclose(found, wanted, rtol=2**-7, atol=2e-4)
    exact = kernel(lambda l: x[l] * (unary("erf", x[l]) + 1.0), Buffer("out", f32, (N,)), x)
    sizes = []
    for each in (k, exact):
        module = ModuleText()
        emit_kernel(each, module, find(name))
        code = assembly(module.text(find(name).triple), find(name))
        sizes.append(sum(map(code.count, ("vfm", "mulps", "vperm"))))
    assert sizes[0] < sizes[1]
