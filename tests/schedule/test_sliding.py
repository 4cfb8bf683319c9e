"""What windows see again when they slide over channels: from registers, from the L1 cache."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.graph import constant, graph
from tensorwright.ir.module import Module
from tensorwright.schedule.tiles import Product, kept, tiles_of
from tensorwright.target.host import find
from tensorwright.target.x86 import X86_AVX512
from tests.schedule import test_native as groups
from tests.schedule.assembly import FMA, assembly, inner_loops

STACK = "(%rsp"


def depthwise(size: int, channels: int, window: int, stride: int, weights=None) -> Module:
    x = groups.x_of(1, (size - 1) * stride + window, (size - 1) * stride + window, channels)
    shape = (window, window, 1, channels)
    w = groups.weight(*shape) if weights is None else constant(weights, "w")
    y = groups.OP["conv_general"](x, w, strides=(stride,) * 2, groups=channels, layout="NLAST")
    return Module({"main": graph("main", [x], [y])})


def choices(size: int, channels: int, window: int, stride: int, target: str) -> dict:
    m = depthwise(size, channels, window, stride)
    return tw.compile(m, target=target).schedules().records[-1].choices


@pytest.mark.parametrize("target", ["x86-64-avx512-wide", "x86-64-avx512"])
@pytest.mark.parametrize(
    ("size", "channels", "window", "stride", "order"),
    [
        (14, 384, 3, 1, "around"),
        (28, 240, 5, 1, "around"),
        (14, 192, 3, 2, "around"),
        (56, 96, 7, 1, "around"),
        (28, 128, 3, 1, "around"),
        (14, 512, 3, 1, "inside"),  # pixels 2048 bytes apart: few sets of the L1 cache hold them
        (7, 1024, 3, 1, "inside"),
    ],
)
def test_panels_go_around_rows(size, channels, window, stride, order, target):
    """Where the L1 cache then holds what the next row of results sees again."""
    assert choices(size, channels, window, stride, target)["panels"] == order


def test_parts_of_lines_are_not_read_again():
    """Panels narrower than a line read what lies in a line several times."""
    assert choices(28, 64, 3, 1, "x86-64-sse4.2")["panels"] == "inside"


def test_wide_tiles_where_lines_crowd():
    """Lines in equal steps of 1536 bytes share the sets of the L1 cache, those in 1920 few."""
    assert choices(14, 384, 3, 1, "x86-64-avx512-wide")["tile"] == (7, 2, 16)
    assert choices(14, 480, 3, 1, "x86-64-avx512-wide")["tile"] == (14, 1, 16)


@pytest.mark.parametrize("target", ["x86-64-avx512-wide", "x86-64-avx512", "x86-64-avx2"])
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (5, 3)])
def test_what_is_seen_again_stays_in_registers(window: int, stride: int, target: str):
    """No tile spills, and less is loaded than multiplied."""
    t = find(target)
    m = run_pipeline(depthwise(28, 96, window, stride), t)
    (kernel,) = m.kernels.values()
    found = [b for b in inner_loops(assembly(kernel, t)) if any(x.startswith(FMA) for x in b)]
    assert found
    for body in found:
        assert not [x for x in body if STACK in x], "\n".join(body)


def test_elements_that_wait():
    """With steps of two, of a window of three, every second element is seen again."""
    slid = Product(28, 96, broadcast=False, window=5)
    assert [kept(Product(1, 1, window=w, step=s), 8) for w, s in ((3, 1), (3, 2), (5, 2), (1, 1))] \
        == [7, 7, 14, 0]  # fmt: skip
    assert all(r * v + (r - 1) * v + v + 1 <= 32 for r, v, _ in tiles_of(slid, X86_AVX512, 16))


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-avx2", "x86-64-sse4.2"])
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (5, 2), (5, 3), (7, 1), (2, 3)])
def test_results(window: int, stride: int, target: str):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((window, window, 1, 40)).astype(np.float32)
    m = depthwise(9, 40, window, stride, w)
    size = 8 * stride + window
    x = rng.standard_normal((1, size, size, 40)).astype(np.float32)
    seen = np.lib.stride_tricks.sliding_window_view(x, (window, window), axis=(1, 2))
    wanted = np.einsum("nijcrs,rsc->nijc", seen[:, ::stride, ::stride], w[:, :, 0])
    found = np.asarray(tw.compile(m, target=target)(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
