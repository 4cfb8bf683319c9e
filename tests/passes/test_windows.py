"""Large windows step by step: one dimension after another, windows of windows, padding apart."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.ir.expr import var
from tensorwright.ir.interp import run_graph
from tensorwright.ops.pool import avg_pool
from tensorwright.ops.window import reduce_window
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.windows import separate_windows
from tests.passes.equivalence import check_pass, module, op_names, x_of


def window_module(shape, *, d="f32", **attrs):
    x = x_of(*shape, d=d)
    return module(reduce_window(x, **attrs), x)


CASES = (
    ((2, 9, 11), {"window": (1, 5, 5), "padding": ((0, 0), (2, 2), (2, 2))}, (5, 5)),
    ((2, 9, 15), {"window": (1, 6, 7), "dilation": (1, 1, 2)}, (6, 7)),
    ((20, 37), {"window": (13, 13), "padding": ((6, 6), (5, 7))}, None),
    ((150,), {"window": (100,), "strides": (2,)}, None),
    ((80,), {"window": (37,)}, None),
    ((7, 8, 9), {"window": (3, 3, 3), "padding": ((1, 1), (1, 1), (1, 1))}, (3, 3, 3)),
    ((21, 23), {"window": (7, 7), "strides": (2, 2), "padding": ((3, 3), (3, 3))}, (7, 7)),
)


@pytest.mark.parametrize("op", ["max", "min", "sum"])
@pytest.mark.parametrize(("shape", "attrs", "sizes"), CASES)
def test_large_windows_in_steps(shape, attrs, sizes, op):
    m = window_module(shape, op=op, **attrs)
    made = check_pass(separate_windows, m, special=op != "sum", tol=0 if op != "sum" else 1e-4)
    windows = [n.attrs["window"] for n in made.main.nodes() if n.op is reduce_window]
    if sizes is not None:
        assert tuple(max(w) for w in windows) == sizes
    assert all(sum(v > 1 for v in w) == 1 for w in windows)


def test_extremes_overlap_and_sums_do_not():
    assert op_names(separate_windows(window_module((99,), window=(37,), op="max"))) == [
        "reduce_window", "reduce_window"]  # fmt: skip
    assert op_names(separate_windows(window_module((99,), window=(37,), op="sum"))) == [
        "reduce_window"]  # fmt: skip


@pytest.mark.parametrize("attrs", [
    {"window": (1, 3, 3), "padding": ((0, 0), (1, 1), (1, 1))},
    {"window": (1, 3, 3), "strides": (1, 2, 2), "padding": ((0, 0), (1, 1), (1, 1))},
    {"window": (1, 7, 7), "strides": (1, 7, 7)},
])  # fmt: skip
def test_small_windows_and_those_apart_stay(attrs):
    m = window_module((2, 14, 14), op="max", **attrs)
    assert separate_windows(m) is m


def test_long_windows_have_their_padding_written_out():
    m = window_module((4, 30), op="max", window=(1, 5), padding=((0, 0), (2, 2)))
    made = check_pass(separate_windows, m, ["pad", "reduce_window"], special=True, tol=0)
    (padded, _) = made.main.nodes()[1:]
    assert padded.attrs["value"] == -np.inf


def test_narrow_sums_are_rounded_once():
    m = window_module((30, 30), d="f16", op="sum", window=(8, 8))
    check_pass(separate_windows, m, ["cast", "reduce_window", "reduce_window", "cast"], tol=1e-3)


@pytest.mark.parametrize("d", ["i8", "u8", "i64"])
@pytest.mark.parametrize("op", ["max", "min"])
def test_extremes_of_integers(d, op):
    attrs = {"window": (6, 6), "padding": ((3, 2), (2, 3))}
    check_pass(separate_windows, window_module((9, 12), d=d, op=op, **attrs), tol=0)


def test_symbolic_sizes():
    h, w = var("h", min=8), var("w", min=8)
    attrs = {"window": (5, 7), "padding": ((2, 2), (3, 3))}
    m = window_module((h, w), op="max", **attrs)
    check_pass(separate_windows, m, ["pad", "reduce_window", "reduce_window"], tol=0,
               sizes={"h": 11, "w": 9})  # fmt: skip


@pytest.mark.parametrize("target", ["x86-64-avx512", "x86-64-sse4.2"])
@pytest.mark.parametrize(
    ("window", "stride", "size"),
    [((13, 13), 1, (20, 21)), ((5, 5), 1, (20, 20)), ((7, 7), 7, (14, 21)), ((1, 41), 1, (3, 90))],
)
@pytest.mark.parametrize("count_padding", [True, False])
def test_compiled(window, stride, size, count_padding, target):
    x = x_of(2, 3, *size)
    padding = tuple(((w - 1) // 2 if stride == 1 else 0,) * 2 for w in window)
    attrs = {"window": window, "strides": (stride, stride), "padding": padding}
    mean = avg_pool(x, count_padding=count_padding, **attrs)
    full = {k: ((0, 0) if k == "padding" else 1,) * 2 + v for k, v in attrs.items()}
    m = module([mean, reduce_window(x, op="max", **full)], x)
    value = np.random.default_rng(3).standard_normal((2, 3, *size)).astype(np.float32)
    value[0, 0, 1, 2] = np.nan
    program = tw.compile(m, target=target, threads=2)
    told = [line for k in program.lowered.kernels.values() for line in k.schedule]
    assert not any("as defined" in line for line in told)
    expected = run_graph(expand_composites(m).main, [value])
    for found, e in zip(program(value), expected, strict=True):
        np.testing.assert_allclose(found, e, rtol=1e-5, atol=1e-5)


def test_nothing_to_see():
    """Windows over no elements at all, which padding alone would not fill."""
    m = window_module((0, 9), op="max", window=(5, 5), padding=((2, 2), (2, 2)))
    check_pass(separate_windows, m, ["reduce_window"], tol=0)
