"""Layouts: which transposes are left, and that results stay, on small nets and random graphs."""

import numpy as np
import pytest

from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ops.activations import relu
from tensorwright.ops.control import item
from tensorwright.ops.conv import conv_general
from tensorwright.ops.cumulative import cumsum
from tensorwright.ops.elementwise import add, exp, greater, mul, select, sigmoid
from tensorwright.ops.index import gather
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import (
    broadcast_to,
    concat,
    expand_dims,
    flip,
    pad,
    reshape,
    slice_axis,
    transpose,
)  # fmt: skip
from tensorwright.ops.reduce import argmax, reduce_max, reduce_sum
from tensorwright.ops.sort import top_k
from tensorwright.ops.window import reduce_window
from tensorwright.passes.canonicalize import canonicalize
from tensorwright.passes.fold_constants import fold_constants
from tensorwright.passes.layout import assign_layouts, is_forced
from tensorwright.passes.minimum_cut import Network
from tests.passes.equivalence import assert_equal_results, module, op_names, x_of

RNG = np.random.default_rng(3)
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def weight(*shape):
    return constant(RNG.standard_normal(shape).astype(np.float32), "w")


def conv(x, outputs, window=3, **attrs):
    """A convolution of a weight of its own, padded so that sizes stay."""
    n = x.rank - 2
    groups = attrs.get("groups", 1)
    padding = attrs.pop("padding", ((window // 2, window // 2),) * n)
    w = weight(outputs, x.shape[1] // groups, *(window,) * n)
    return conv_general(x, w, padding=padding, **attrs)


def check(result, *params, transposes, **how):
    """Results stay and `transposes` are left after cleaning up; a second run changes nothing."""
    before = module(result, *params)
    after = assign_layouts(before)
    assert_equal_results(before, after, **{"tol": 1e-4, **how})
    clean = canonicalize(fold_constants(canonicalize(fold_constants(after))))
    assert_equal_results(before, clean, **{"tol": 1e-4, **how})
    assert op_names(clean).count("transpose") == transposes
    assert assign_layouts(clean) is clean
    assert not any(map(is_forced, clean.main.nodes()))
    return clean


def test_one_convolution():
    x = x_of(2, 3, 6, 6)
    check(conv(x, 4), x, transposes=2)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 4, 3)])
def test_other_ranks(shape):
    x = x_of(*shape)
    check(reduce_sum(relu(conv(conv(x, 4), 4)), axes=tuple(range(2, len(shape)))), x, transposes=1)


def test_residual_net():
    x = x_of(1, 3, 8, 8)
    y = relu(add(conv(x, 8, strides=(2, 2)), reshape(weight(8), shape=(8, 1, 1))))
    y = reduce_window(y, window=(1, 1, 3, 3), strides=(1, 1, 2, 2), op="max",
                      padding=((0, 0), (0, 0), (1, 1), (1, 1)))  # fmt: skip
    y = relu(add(conv(relu(conv(y, 8)), 8), y))
    y = relu(add(conv(conv(y, 16, strides=(2, 2)), 16), conv(y, 16, 1, strides=(2, 2))))
    y = reshape(reduce_sum(y, axes=(2, 3), keepdims=True), shape=(1, 16))
    check(dot_general(y, weight(16, 5), contract=((1,), (0,))), x, transposes=1)


def test_dense_block():
    x = x_of(1, 4, 5, 5)
    parts = [conv(x, 4)]
    for _ in range(3):
        both = concat(*parts, axis=1)
        k = reshape(weight(both.shape[1]), shape=(both.shape[1], 1, 1))
        parts.append(conv(relu(add(mul(both, k), k)), 4))
    check(reduce_max(concat(*parts, axis=1), axes=(2, 3)), x, transposes=1)


def test_squeeze_and_excite():
    x = x_of(2, 4, 5, 5)
    y = conv(x, 4)
    s = reduce_sum(y, axes=(2, 3), keepdims=True)
    s = sigmoid(conv(relu(conv(s, 2, 1)), 4, 1))
    check(conv(mul(y, s), 3), x, transposes=2)
    s = dot_general(reduce_sum(y, axes=(2, 3)), weight(4, 4), contract=((1,), (0,)))
    check(conv(mul(y, reshape(sigmoid(s), shape=(2, 4, 1, 1))), 3), x, transposes=2)


def test_grouped_and_depthwise():
    x = x_of(1, 6, 5, 5)
    check(conv(conv(x, 6, groups=6), 4, groups=2), x, transposes=2)


def test_depthwise_along_rows():
    x = x_of(1, 8, 40, 40)
    step = {"strides": (2, 2), "padding": ((1, 1), (1, 1)), "groups": 8}
    alone = conv_general(x, weight(8, 1, 3, 3), **step)
    m = check(alone, x, transposes=0)
    assert [n.attrs["layout"] for n in m.main.nodes() if n.op is conv_general] == ["NC"]
    between = conv_general(conv(x, 8, padding=((1, 1), (1, 1))), weight(8, 1, 3, 3), **step)
    m = check(conv(between, 4), x, transposes=2)
    kept = [n.attrs["layout"] for n in m.main.nodes() if n.op is conv_general]
    assert kept == ["NLAST"] * 3


@pytest.mark.parametrize("groups, window, order", [
    (8, 1, "NC"), (4, 1, "NC"), (2, 1, "NLAST"), (8, 3, "NLAST"), (1, 1, "NLAST"),
])  # fmt: skip
def test_groups_of_few_channels_along_rows(groups, window, order):
    """Of 2, 4 and 8 of 16 channels: where vectors of channels fill their lanes they are better."""
    x, pad = x_of(1, 16, 20, 20), ((window // 2,) * 2,) * 2
    y = conv_general(x, weight(16, 16 // groups, window, window), padding=pad, groups=groups)
    m = check(y, x, transposes=0 if order == "NC" else 2)
    assert [n.attrs["layout"] for n in m.main.nodes() if n.op is conv_general] == [order]


def test_tokens_from_patches():
    """Flattened and transposed, channels are last already."""
    x = x_of(2, 3, 8, 8)
    y = conv_general(x, weight(5, 3, 4, 4), strides=(4, 4))
    y = transpose(reshape(y, shape=(2, 5, 4)), perm=(0, 2, 1))
    check(add(y, weight(4, 5)), x, transposes=1)


def test_channels_last_model():
    """A model that transposes around every convolution itself."""
    x = x_of(1, 6, 6, 3)
    y = transpose(conv(transpose(x, perm=NCHW), 4), perm=NHWC)
    y = add(y, weight(4))
    y = transpose(conv(transpose(relu(y), perm=NCHW), 4), perm=NHWC)
    check(y, x, transposes=0)


def test_channel_split_and_shuffle():
    x = x_of(1, 4, 4, 4)
    y = conv(x, 4)
    a, b = slice_axis(y, 1, 0, 2), slice_axis(y, 1, 2, 4)
    y = concat(a, conv(b, 2), axis=1)
    y = reshape(transpose(reshape(y, shape=(1, 2, 2, 4, 4)), perm=(0, 2, 1, 3, 4)), shape=y.shape)
    check(conv(y, 4), x, transposes=3)


def test_group_norm():
    x = x_of(2, 6, 4, 4)
    y = conv(x, 6)
    parts = reshape(y, shape=(2, 3, 2, 4, 4))
    parts = mul(parts, reduce_max(parts, axes=(2, 3, 4), keepdims=True))
    check(conv(reshape(parts, shape=y.shape), 2), x, transposes=2)


def test_positions_and_pads():
    x = x_of(1, 3, 5, 5)
    y = pad(conv(x, 4), low=(0, 0, 1, 2), high=(0, 1, 0, 0), value=-1.0)
    y = gather(flip(y, axes=(2, -1)), constant(np.array([0, 2, 1, 3, 3])), axis=3)
    y = select(greater(y, 0.0), y, cumsum(y, axis=1))
    y = mul(y, broadcast_to(weight(5, 1, 1), shape=y.shape))
    check(conv(y, 2), x, transposes=2)


def test_reductions_in_any_order():
    x = x_of(2, 3, 5, 4)
    y = conv(x, 4)
    check((reduce_sum(y, axes=(1,)), argmax(y, axis=1), reduce_max(y, axes=(0, 2, 3))), x,
          transposes=1)  # fmt: skip
    check(reduce_sum(y, axes=(2,)), x, transposes=2)


def test_contraction_reads_channels_last():
    x = x_of(2, 3, 4, 4)
    y = conv(x, 5)
    check(dot_general(y, weight(5, 7), contract=((1,), (0,))), x, transposes=1)
    check(dot_general(y, weight(4, 7), contract=((3,), (0,))), x, transposes=2)


def test_what_cannot_follow():
    x = x_of(2, 3, 4, 4)
    y = conv(x, 4)
    check(item(top_k(reshape(y, shape=(2, 64)), k=3), index=0), x, transposes=2)


def test_symbolic_batch_and_image():
    n, h = var("n", min=1), var("h", min=4)
    x = x_of(n, 3, h, h)
    y = relu(conv(conv(x, 4), 4))
    y = transpose(reshape(y, shape=(n, 4, h * h)), perm=(0, 2, 1))
    check(y, x, transposes=1, sizes={"n": 2, "h": 5})


def test_transposes_without_convolutions():
    x = x_of(2, 3, 4)
    y = transpose(exp(add(transpose(x, perm=(0, 2, 1)), weight(4, 3))), perm=(0, 2, 1))
    check(y, x, transposes=0)
    m = module(exp(transpose(x, perm=(0, 2, 1))), x)
    assert assign_layouts(m) is m
    y = transpose(x, perm=(0, 2, 1))
    m = module((exp(y), transpose(sigmoid(y), perm=(0, 2, 1))), x)
    check(m.main.results, x, transposes=1)


def test_heads_taken_apart_and_joined():
    x = x_of(2, 5, 12)
    y = transpose(reshape(x, shape=(2, 5, 3, 4)), perm=(0, 2, 1, 3))
    y = reshape(transpose(mul(y, weight(3, 1, 4)), perm=(0, 2, 1, 3)), shape=(2, 5, 12))
    check(y, x, transposes=0)


# ---- random graphs -----------------------------------------------------------------------------


def grow(rng, values):
    """One more node on randomly chosen values of rank 3 to 5."""
    x = values[rng.integers(len(values))]
    same = [v for v in values if v.shape == x.shape]
    other = same[rng.integers(len(same))]
    axis = int(rng.integers(x.rank))
    match rng.integers(16):
        case 0 | 1:
            return conv(x, int(rng.integers(1, 4)))
        case 2:
            return add(x, other)
        case 3:
            return mul(x, weight(*(x.shape[k] if rng.integers(2) else 1 for k in range(x.rank))))
        case 4:
            return add(x, weight(*x.shape[rng.integers(1, x.rank) :]))
        case 5:
            return transpose(x, perm=tuple(int(v) for v in rng.permutation(x.rank)))
        case 6:
            return reduce_max(x, axes=(axis,), keepdims=bool(rng.integers(2)) or x.rank == 3)
        case 7:
            return concat(x, other, axis=axis)
        case 8:
            return slice_axis(x, axis, 0, max(x.shape[axis] - 1, 1))
        case 9:
            return pad(x, low=tuple(int(k == axis) for k in range(x.rank)), high=(0,) * x.rank)
        case 10:
            merged = (*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]) \
                if axis + 1 < x.rank and x.rank > 3 else x.shape  # fmt: skip
            return reshape(x, shape=merged)
        case 11:
            even = x.shape[axis] % 2 == 0 and x.rank < 5
            split = (*x.shape[:axis], 2, x.shape[axis] // 2, *x.shape[axis + 1 :])
            return reshape(x, shape=split if even else x.shape)
        case 12:
            return expand_dims(x, axis) if x.rank < 5 else relu(x)
        case 13:
            return mul(x, reduce_sum(x, axes=(axis,), keepdims=True))
        case 14:
            return flip(x, axes=(axis,))
        case _:
            return relu(x)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed):
    rng = np.random.default_rng(seed)
    params = [x_of(2, 4, 3, 4, name="x"), x_of(1, 2, 6, name="y")]
    values = list(params)
    for _ in range(25):
        new = grow(rng, values)
        if np.prod(new.shape) < 3000:
            values.append(new)
    before = module(values[-3:], *params)
    after = assign_layouts(before)
    assert_equal_results(before, after, tol=1e-3)
    clean = canonicalize(fold_constants(canonicalize(fold_constants(after))))
    assert_equal_results(before, clean, tol=1e-3)
    assert cost(assign_layouts(clean)) <= cost(clean)


def cost(m) -> int:
    return sum(n.type.size for n in m.main.nodes()
               if n.op.name == "transpose" and n.args[0].op.name != "const")  # fmt: skip


# ---- the cut -----------------------------------------------------------------------------------


def test_cheapest_cut():
    n = Network()
    for u, v, c in ((n.SOURCE, "a", 3), (n.SOURCE, "b", 2), ("a", "b", 1), ("a", n.SINK, 2),
                    ("b", n.SINK, 3)):  # fmt: skip
        n.edge(u, v, c)
    side = n.cut()
    assert side <= {"a", "b"}


@pytest.mark.parametrize("seed", range(20))
def test_cut_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    names = "abcdef"
    ends = ["source", *names, "sink"]
    edges = [(u, v, int(rng.integers(1, 9))) for u in ends for v in ends
             if u != v and u != "sink" and v != "source" and rng.integers(3) == 0]  # fmt: skip
    n = Network()
    for e in edges:
        n.edge(*e)

    def price(side):
        side = side | {"source"}
        return sum(c for u, v, c in edges if u in side and v not in side)

    best = min(price({x for k, x in enumerate(names) if bits >> k & 1}) for bits in range(64))
    assert price(n.cut() & set(names)) == best
