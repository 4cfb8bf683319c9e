"""Kernels that differ only in how much they sum up, or where windows begin, are one; no others."""

import numpy as np
import pytest

from tensorwright.driver.compile import compile
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import tensor
from tensorwright.ir.verify import verify
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general, conv_transpose
from tensorwright.ops.elementwise import add, mul
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import reshape, slice
from tensorwright.ops.table import BY_NAME
from tensorwright.passes.fuse import fuse
from tensorwright.passes.lower import lower
from tensorwright.target.host import find

RANDOM = np.random.default_rng(0)


HOST = find("host")


def weights(*shape) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def layer(x, columns: int, reduced: int):
    """relu(x @ w + b) of all rows, as convolutions by 1x1 windows are written."""
    rows = x.shape[1] * x.shape[2]
    flat = reshape(x, shape=(rows, reduced))
    y = dot_general(flat, constant(weights(reduced, columns)), contract=((1,), (0,)))
    y = relu(add(y, constant(weights(columns))))
    return reshape(y, shape=(1, *x.shape[1:3], columns))


def growing(sizes=(16, 24, 40, 64), columns=32) -> Module:
    xs = [param(f"x{k}", tensor("f32", 1, 3, 5, k)) for k in sizes]
    return Module({"main": graph("main", xs, [layer(x, columns, x.shape[3]) for x in xs])})


def arrays(m: Module) -> list[np.ndarray]:
    return [weights(*p.shape) for p in m.main.params]


def test_one_kernel_for_all_depths():
    m = growing()
    low = lower(fuse(m, HOST))
    (k,) = low.kernels.values()
    (depth,) = k.symbols
    assert (depth.min, depth.max, depth.multiple_of) == (16, 64, 8)
    assert k.work[0].value == 15 * (2 * 32 * 36 + 2 * 32)  # 36: the depth in the mean
    verify(low)
    calls = [n for n in low.main.nodes() if n.op.name == "call_kernel"]
    assert [c.attrs["scalars"][0] for c in calls] == [16, 24, 40, 64]
    text = to_text(low)
    assert to_text(parse(text, BY_NAME, low.constants())) == text
    values = arrays(m)
    for a, b in zip(run_module(m, values), run_module(low, values)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["model", "bf16"])
def test_it_computes_the_same(precision):
    m = growing((7, 16, 33, 64), 40)
    values = arrays(m)
    found = compile(m, threads=2, precision=precision)(*values)
    tolerance = 2e-5 if precision == "model" else 0.1
    for a, b in zip(run_module(m, values), found):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(a).max())


def test_few_kernels_stay_apart():
    assert len(lower(fuse(growing((16, 24)), HOST)).kernels) == 2


def test_columns_decide_about_tiles():
    xs = [param(f"x{k}", tensor("f32", 1, 3, 5, 16)) for k in range(4)]
    ys = [layer(x, 16 * (k + 1), 16) for k, x in enumerate(xs)]
    m = Module({"main": graph("main", xs, ys)})
    assert len(lower(fuse(m, HOST)).kernels) == 4


def test_what_others_see_is_no_depth():
    """An operand that is scaled before the product."""
    xs = [param(f"x{k}", tensor("f32", 4, k)) for k in (16, 24, 40)]
    ys = [dot_general(mul(x, x), constant(weights(x.shape[1], 8)), contract=((1,), (0,)))
          for x in xs]  # fmt: skip
    assert len(lower(fuse(Module({"main": graph("main", xs, ys)}), HOST)).kernels) >= 3


def test_sizes_known_only_when_running_stay_as_they_are():
    n = var("depth", min=1, max=9)
    xs = [param(f"x{k}", tensor("f32", n, k)) for k in (16, 24, 40)]
    ys = [add(dot_general(x, constant(weights(x.shape[1], 8)), contract=((1,), (0,))), 1.0)
          for x in xs]  # fmt: skip
    m = Module({"main": graph("main", xs, ys)})
    low = lower(fuse(m, HOST))
    (k,) = low.kernels.values()
    assert len(k.symbols) == 2
    values = [weights(5, k) for k in (16, 24, 40)]
    for a, b in zip(run_module(m, values), compile(m, threads=1)(*values)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def windows(starts, channels=8) -> Module:
    """Convolutions of what lies in one operand from several places on."""
    x = param("x", tensor("f32", 2, 7, 9, 16))
    ends = (2, 6, 8, channels)
    parts = [
        slice(x, starts=s, stops=tuple(a + d for a, d in zip(s, ends)), steps=(1,) * 4)
        for s in starts
    ]
    ys = [conv_general(p, constant(weights(2, 2, channels, 16)), layout="NLAST") for p in parts]
    return Module({"main": graph("main", [x], ys)})


def test_one_kernel_wherever_windows_begin():
    m = windows([(0, i, j, 0) for i in (0, 1) for j in (0, 1)])
    low = lower(fuse(m, HOST))
    (k,) = low.kernels.values()
    assert [(s.min, s.max) for s in k.symbols] == [(0, 1), (0, 1)]
    verify(low)
    calls = [n.attrs["scalars"] for n in low.main.nodes() if n.op.name == "call_kernel"]
    assert calls == [(0, 0), (0, 1), (1, 0), (1, 1)]
    text = to_text(low)
    assert to_text(parse(text, BY_NAME, low.constants())) == text
    values = arrays(m)
    for threads in (1, 2):
        for a, b in zip(run_module(m, values), compile(m, threads=threads)(*values)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_windows_that_begin_at_other_channels_stay_apart():
    assert len(lower(fuse(windows([(0, 0, 0, c) for c in (0, 4, 8)]), HOST)).kernels) == 3


def test_phases_of_a_transposed_convolution_are_one_kernel():
    x, w = param("x", tensor("f32", 1, 16, 7, 7)), constant(weights(16, 32, 4, 4))
    y = conv_transpose(x, w, strides=(2, 2), padding=((1, 1), (1, 1)))
    kernels = compile(Module({"main": graph("main", [x], [y])}), threads=1).lowered.kernels
    assert sum("conv_general" in name for name in kernels) == 1
