"""Products with padding that are left out: whole elements of windows, and single places."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.ir.expr import var
from tensorwright.ops.activations import relu
from tensorwright.ops.window import reduce_window
from tensorwright.passes.unmet import drop_unmet, separate_places
from tests.passes.equivalence import assert_equal_results, check_pass, module, x_of
from tests.passes.test_convolutions import last, weight

RNG = np.random.default_rng(9)


@pytest.mark.parametrize(("extent", "window", "attrs", "left"), [
    ((1,), 3, {"padding": ((1, 1),)}, 1),
    ((14,), 3, {"padding": ((18, 18),), "dilation": (18,)}, 1),
    ((14,), 3, {"padding": ((12, 12),), "dilation": (12,)}, 3),
    ((2,), 5, {"padding": ((2, 2),)}, 3),
    ((1,), 3, {"padding": ((1, 1),), "strides": (2,)}, 1),
    ((4,), 7, {"padding": ((3, 0),)}, 4),
    ((1, 6), 3, {"padding": ((1, 1), (1, 1))}, 1),
    ((3,), 2, {"padding": ((5, 5),)}, 2),
])  # fmt: skip
def test_windows_are_cut_to_what_meets_the_operand(extent, window, attrs, left):
    x = x_of(2, *extent, 3)
    y = last(x, weight(*(window for _ in extent), 3, 6), **attrs)
    m = module(y, x)
    after = drop_unmet(m)
    assert_equal_results(m, after, tol=1e-4)
    (found,) = (n for n in after.main.nodes() if n.op.name == "conv_general")
    assert found.args[1].shape[0] == left


def test_windows_that_see_only_padding_stay():
    """A result may be zeros; sizes that vary may be large."""
    x = x_of(1, 1, 3)
    y = last(x, weight(2, 3, 6), padding=((4, -1),))
    assert drop_unmet(module(y, x)).main.results[0].args[1].shape[0] == 2
    x = x_of(1, var("n", min=1), 3)
    y = last(x, weight(3, 3, 6), padding=((1, 1),))
    assert drop_unmet(module(y, x)).main.results[0].args[1].shape[0] == 3
    x, w = x_of(1, 1, 3), x_of(var("n", min=1), 3, 6, name="w")
    y = last(x, w, padding=((1, 1),))
    assert drop_unmet(module(y, x, w)).main.results[0].args[1] is w


def test_windows_that_nothing_could_hold_are_cut_at_once():
    x, w = x_of(1, 6, 3), x_of(1 << 40, 3, 6, name="w")
    y = last(x, w, padding=(((1 << 40) - 1, 0),))
    (found,) = drop_unmet(module(y, x, w)).main.results
    assert found.args[1].shape[0] == 6


# ---- elements that meet padding at most places --------------------------------------------------


def products(m):
    return [n for n in m.main.nodes() if n.op.name == "conv_general"]


@pytest.mark.parametrize(("size", "attrs", "rows"), [
    ((16, 16), {"dilation": (12, 12), "padding": ((12, 12), (12, 12))}, 24 * 24),
    ((20, 16), {"dilation": (9, 12), "padding": ((9, 9), (12, 12))}, 42 * 24),
    ((16, 16), {"dilation": (12, 12), "padding": ((12, 12), (12, 12)), "strides": (2, 2)}, 12 * 12),
    ((21, 18), {"dilation": (14, 13), "padding": ((20, 14), (13, 10))}, (7 + 21 + 13) * 22),
])  # fmt: skip
def test_elements_that_meet_little_are_products_of_their_own(size, attrs, rows):
    x = x_of(2, *size, 128)
    y = last(x, weight(3, 3, 128, 128), **attrs)
    after = check_pass(separate_places, module(y, x), tol=2e-3)
    found = products(after)
    assert len(found) == 9 and all(n.args[1].shape[:2] == (1, 1) for n in found)
    assert sum(np.prod(n.shape[1:-1]) for n in found) == rows


@pytest.mark.parametrize(("shape", "window", "attrs"), [
    ((1, 32, 32, 128), (3, 3), {"dilation": (4, 4), "padding": ((4, 4), (4, 4))}),  # they meet most
    ((1, 16, 16, 32), (3, 3), {"dilation": (12, 12), "padding": ((12, 12), (12, 12))}),
    ((1, 3, 3, 64), (3, 3), {"padding": ((1, 1), (1, 1))}),  # too little work
    ((1, 16, 16, 256), (5, 5), {"dilation": (7, 7), "padding": ((14, 14), (14, 14))}),
    ((1, var("n", min=1), 16, 256), (3, 3),
     {"dilation": (12, 12), "padding": ((12, 12), (12, 12))}),
])  # fmt: skip
def test_other_windows_stay_whole(shape, window, attrs):
    x = x_of(*shape)
    m = module(last(x, weight(*window, shape[-1], 128), **attrs), x)
    assert [n.args[1].shape[:2] for n in products(separate_places(m))] == [window]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("size", "dilation"), [(32, 24), (16, 12), (2, 1)])
def test_compiled_as_torch_computes_it(size, dilation, threads):
    torch = pytest.importorskip("torch")
    channels = 512 if size == 2 else 96
    x, w = x_of(1, size, size, channels), weight(3, 3, channels, channels)
    y = relu(last(x, w, dilation=(dilation,) * 2, padding=((dilation,) * 2,) * 2))
    program = tw.compile(module(y, x), threads=threads)
    assert not any("conv_general" in name for name in program.lowered.kernels)
    value = RNG.standard_normal(x.shape).astype(np.float32)
    a = torch.tensor(value).permute(0, 3, 1, 2).double()
    b = torch.tensor(w.attrs["value"]).permute(3, 2, 0, 1).double()
    exact = torch.nn.functional.conv2d(a, b, padding=dilation, dilation=dilation)
    exact = torch.relu(exact).permute(0, 2, 3, 1).numpy()
    assert np.abs(np.asarray(program(value)) - exact).max() < 5e-6 * np.abs(exact).max()


# ---- pooling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["sum", "max"])
@pytest.mark.parametrize(("extent", "window", "attrs", "left"), [
    (7, 1280, {"padding": (0, 1273), "strides": 1280}, (7, (0, 0))),
    (7, 9, {"padding": (4, 4)}, (9, (4, 4))),
    (3, 9, {"padding": (4, 4)}, (5, (2, 2))),
    (3, 4, {"padding": (6, 3), "dilation": 3}, (1, (0, 0))),
    (2, 5, {"padding": (9, 3), "strides": 4}, (2, (8, 1))),
])  # fmt: skip
def test_pooling_is_cut_to_what_meets_the_operand(op, extent, window, attrs, left):
    x = x_of(2, extent, 3)
    full = {"padding": ((0, 0), attrs["padding"], (0, 0))}
    full |= {k: (1, attrs[k], 1) for k in ("strides", "dilation") if k in attrs}
    y = reduce_window(x, op=op, window=(1, window, 1), **full)
    after = check_pass(drop_unmet, module(y, x))
    (found,) = (n for n in after.main.nodes() if n.op is reduce_window)
    assert (found.attrs["window"][1], found.attrs["padding"][1]) == left


def test_pooling_of_any_size_stays():
    x = x_of(2, var("n", min=1), 3)
    y = reduce_window(x, op="sum", window=(1, 5, 1), padding=((0, 0), (2, 2), (0, 0)))
    m = module(y, x)
    assert drop_unmet(m) is m
