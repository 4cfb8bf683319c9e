"""Forms of convolutions: products, explicit padding, phases."""

import itertools

import numpy as np
import pytest

from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ops.activations import relu
from tensorwright.ops.conv import conv_general, conv_transpose
from tensorwright.ops.elementwise import add, mul
from tensorwright.passes.canonicalize import canonicalize
from tensorwright.passes.convolutions import shape_convolutions
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fold_constants import fold_constants
from tensorwright.passes.layout import assign_layouts
from tests.passes.equivalence import assert_equal_results, check_pass, module, op_names, x_of

RNG = np.random.default_rng(5)


def weight(*shape):
    return constant(RNG.standard_normal(shape).astype(np.float32), "w")


def check(y, *params, ops=None, **how):
    return check_pass(shape_convolutions, module(y, *params), ops, tol=1e-4, **how)


def last(x, w, **attrs):
    return conv_general(x, w, layout="NLAST", **attrs)


def test_window_of_one_is_a_product():
    x = x_of(2, 5, 4, 3)
    check(last(x, weight(1, 1, 3, 6)), x, ops=["reshape", "reshape", "dot_general", "reshape"])
    y = last(x, weight(1, 1, 3, 6), strides=(2, 3))
    check(y, x, ops=["slice", "reshape", "reshape", "dot_general", "reshape"])


def test_grouped_window_of_one_stays():
    x = x_of(2, 5, 4, 4)
    check(last(x, weight(1, 1, 2, 4), groups=2), x, ops=["conv_general"])


def test_groups_of_one_are_products_along_rows():
    """What follows stays with the product, what it repeats along channels or rows as well."""
    x, bias, plane = x_of(1, 30, 4, 7), weight(30, 1, 1), weight(4, 7)
    y = conv_general(x, weight(30, 10, 1, 1), groups=3)
    check(y, x, ops=["reshape", "reshape", "dot_general", "reshape"])
    for operand in (bias, plane, weight(1, 30, 4, 7), weight(1)):
        after = check(relu(mul(y, operand)), x)
        assert op_names(after)[-3:] == ["mul", "relu", "reshape"]
    apart = check(mul(y, weight(7)), x)  # along a part of what is one dimension there
    assert op_names(apart)[-2:] == ["reshape", "mul"]
    for attrs in ({"strides": (2, 1)}, {"padding": ((1, 0), (0, 0))}):
        check(conv_general(x, weight(30, 10, 1, 1), groups=3, **attrs), x, ops=["conv_general"])
    two = x_of(2, 30, 4, 7)
    check(conv_general(two, weight(30, 10, 1, 1), groups=3), two, ops=["conv_general"])


def test_padding_is_written_out():
    x = x_of(2, 5, 4, 3)
    y = last(x, weight(3, 3, 3, 6), padding=((1, 1), (0, 2)), strides=(2, 1))
    check(y, x, ops=["pad", "conv_general"])
    check(last(x, weight(3, 3, 3, 6), padding=((-1, 1), (0, 0))), x, ops=["pad", "conv_general"])
    y = last(x, weight(1, 1, 3, 6), padding=((1, 1), (0, 2)))
    check(y, x, ops=["pad", "reshape", "reshape", "dot_general", "reshape"])


@pytest.mark.parametrize(("extent", "window", "attrs", "written"), [
    ((197,), (31,), {"padding": ((15, 15),)}, True),
    ((3000,), (7,), {"padding": ((3, 3),)}, False),  # one row in 500 results leaves it
    ((28, 28), (3, 3), {"padding": ((2, 2), (2, 2)), "dilation": (2, 2)}, True),
    ((112, 112), (3, 3), {"padding": ((1, 1), (1, 1))}, False),
    ((28, 28), (5, 5), {"padding": ((2, 2), (2, 2)), "strides": (2, 2)}, True),
    ((56, 56), (3, 3), {"padding": ((1, 1), (1, 1)), "strides": (2, 2)}, False),
    ((20, 20), (5, 1), {"padding": ((2, 2), (0, 0))}, False),  # no row is left
])  # fmt: skip
def test_padding_of_rows_where_tests_would_cost_more(extent, window, attrs, written):
    x = x_of(1, 3, *extent)
    y = conv_general(x, weight(3, 1, *window), groups=3, **attrs)
    check(y, x, ops=["pad", "conv_general"] if written else ["conv_general"])


def test_no_spatial_dimensions():
    x = x_of(4, 3)
    check(conv_general(x, weight(5, 3)), x, ops=["dot_general"])
    check(last(x, weight(3, 5)), x, ops=["dot_general"])


@pytest.mark.parametrize("features", [2, 9])
@pytest.mark.parametrize(
    ("window", "spread", "padding"),
    list(itertools.product((1, 2, 3, 4, 5), (2, 3), ((0, 0), (1, 1), (2, 0), (3, 4), (-1, 2)))),
)
def test_phases_in_one_dimension(window, spread, padding, features):
    x = x_of(2, 6, 3)
    y = last(x, weight(window, 3, features), lhs_dilation=(spread,), padding=(padding,))
    after = check(y, x)
    assert all(n.attrs["lhs_dilation"] in (None, (1,)) for n in after.main.nodes()
               if n.op.name == "conv_general")  # fmt: skip


@pytest.mark.parametrize(("groups", "features"), [(1, 6), (1, 12), (2, 6)])
@pytest.mark.parametrize(("window", "pad"), [(2, 1), (4, 2), (3, 1), (3, 2), (1, 0)])
def test_phases_in_two_dimensions(window, pad, groups, features):
    x = x_of(1, 4, 5, 4)
    w = weight(window, window, 4 // groups, features)
    y = last(x, w, lhs_dilation=(2, 2), padding=((pad, pad), (pad, pad)), groups=groups)
    check(y, x)


def test_phases_share_one_padded_operand():
    """A phase that needs no padding reads the operand itself."""
    x = x_of(1, 4, 5, 8)
    y = last(x, weight(4, 4, 8, 12), lhs_dilation=(2, 2), padding=((2, 2), (2, 2)))
    ops = op_names(check(y, x))
    assert ops.count("pad") == 1 and ops.count("conv_general") == 4
    y = last(x, weight(3, 3, 8, 12), lhs_dilation=(2, 2), padding=((1, 2), (1, 2)))
    ops = op_names(check(y, x))
    assert ops.count("pad") == 1 and ops.count("slice") == 4 + 3


def test_few_channels_are_sums_of_one_product():
    x = x_of(2, 4, 5, 8)
    y = last(x, weight(4, 4, 8, 3), lhs_dilation=(2, 2), padding=((2, 2), (2, 2)))
    ops = op_names(check(y, x))
    assert ops.count("dot_general") == 1 and "conv_general" not in ops
    assert ops.count("add") == 4 * 3


@pytest.mark.parametrize(("window", "padding", "attrs"), [
    ((4, 4), ((3, 3), (3, 3)), {}),
    ((4, 3), ((2, 3), (1, 1)), {}),
    ((4, 4), ((2, 2), (2, 2)), {"lhs_dilation": (2, 2)}),
    ((5,), ((3, 2),), {"lhs_dilation": (3,)}),
])  # fmt: skip
def test_a_single_element_is_multiplied_with_the_window(window, padding, attrs):
    """The first layer of a generator of images."""
    x = x_of(2, *(1 for _ in window), 3)
    after = check(last(x, weight(*window, 3, 5), padding=padding, **attrs), x)
    ops = op_names(after)
    assert ops.count("dot_general") == 1 and "conv_general" not in ops and "pad" not in ops


@pytest.mark.parametrize(("padding", "attrs"), [
    (((4, 3),), {}),
    (((3, 4),), {}),
    (((3, 3),), {"strides": (2,)}),
    (((3, 3),), {"dilation": (2,)}),
])  # fmt: skip
def test_a_single_element_that_some_results_do_not_see_stays(padding, attrs):
    x = x_of(2, 1, 3)
    check(last(x, weight(4, 3, 5), padding=padding, **attrs), x, ops=["pad", "conv_general"])


def test_equal_phases_are_one_product():
    """The usual upsampling by 2 with a window of 2."""
    x, w = x_of(1, 4, 6, 6), weight(4, 3, 2, 2)
    m = expand_composites(module(conv_transpose(x, w, strides=(2, 2)), x))
    clean = lambda m: canonicalize(fold_constants(canonicalize(fold_constants(m))))
    after = clean(shape_convolutions(clean(assign_layouts(clean(m)))))
    assert_equal_results(m, after, tol=1e-4)
    assert op_names(after).count("dot_general") == 1
    assert op_names(after).count("transpose") == 2
    assert "conv_general" not in op_names(after)


def test_strided_spread_is_written_out():
    x = x_of(2, 6, 3)
    y = last(x, weight(3, 3, 2), lhs_dilation=(3,), strides=(2,), padding=((2, 1),))
    check(y, x, ops=["reshape", "pad", "reshape", "pad", "pad", "conv_general"])
    y = last(x, weight(3, 3, 2), lhs_dilation=(2,), dilation=(2,), padding=((2, 1),))
    check(y, x, ops=["reshape", "pad", "reshape", "pad", "pad", "conv_general"])


def test_symbolic_sizes():
    n, h = var("n", min=1), var("h", min=3)
    x = x_of(n, h, h, 3)
    check(last(x, weight(1, 1, 3, 4)), x, sizes={"n": 2, "h": 5})
    check(last(x, weight(3, 3, 3, 4), padding=((1, 1), (1, 1))), x, sizes={"n": 2, "h": 5})
    for features in (4, 12):
        y = last(x, weight(4, 4, 3, features), lhs_dilation=(2, 2), padding=((2, 2), (2, 2)))
        check(y, x, sizes={"n": 2, "h": 5})


def test_what_follows_a_product_stays_a_matrix():
    x = x_of(2, 5, 4, 3)
    y = relu(add(last(x, weight(1, 1, 3, 3)), weight(3)))
    y = add(last(y, weight(1, 1, 3, 3)), mul(x, 2.0))
    after = canonicalize(fold_constants(check(y, x)))
    assert_equal_results(module(y, x), after, tol=1e-4)
    assert op_names(after) == ["reshape", "dot_general", "add", "relu", "dot_general", "mul",
                               "reshape", "add", "reshape"]  # fmt: skip


def test_what_follows_a_convolution_stays_with_it():
    x = x_of(2, 5, 4, 3)
    y = add(
        relu(last(x, weight(3, 3, 3, 3), padding=((1, 1), (1, 1)))), last(x, weight(1, 1, 3, 3))
    )
    after = check(y, x)
    assert after.main.results[0].op.name == "add" and after.main.results[0].rank == 4
