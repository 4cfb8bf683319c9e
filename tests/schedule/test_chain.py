"""What strips of a chain of contractions need of each, and which chains are worth it."""

from __future__ import annotations

import pytest

from tensorwright.ir.graph import graph, param
from tensorwright.ir.type import tensor
from tensorwright.ops.conv import conv_general
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import pad, reshape
from tensorwright.passes.lower import define_kernel
from tensorwright.schedule.chain import candidates, in_strips, read_chain, read_links
from tensorwright.schedule.form import inline_maps
from tensorwright.schedule.nest import stages


def product(x, w):
    return dot_general(x, w, contract=((1,), (0,)))


def stages_of(size: int, channels: int, wide: int, stride: int = 1, window: int = 3):
    """An expansion of pixels to `wide` channels, and a window over each of these, padded."""
    x = param("x", tensor("f32", size * size, channels))
    u = param("u", tensor("f32", channels, wide))
    w = param("w", tensor("f32", window, window, 1, wide))
    y = reshape(product(x, u), shape=(1, size, size, wide))
    side = window // 2
    y = pad(y, low=(0, side, side, 0), high=(0, side, side, 0))
    y = conv_general(y, w, layout="NLAST", groups=wide, strides=(stride, stride))
    k = define_kernel("k", graph("g", [x, u, w], [y]))
    return stages(inline_maps(k).body)


def test_strips_of_overlapping_windows():
    """4 strips of 4 rows see 6 rows each; the first and the last one compute a row that they do not
    see in place of the border, which lies beside the others."""
    found = in_strips(read_links(stages_of(16, 8, 24)), 4)
    assert found.count == 4 and len(found.nests) == 2
    assert found.again == 16 * 8 * 24 * (4 * 6 - 16)
    assert found.kept == (1 + 6 + 1) * 18 * 24 * 4


def test_strips_of_windows_side_by_side():
    found = in_strips(read_links(stages_of(16, 8, 24, stride=2)), 4)
    assert found.again == 16 * 8 * 24 * (4 * 5 - 16)


def test_strips_are_blocks_of_rows():
    """16 rows of 16 are not 3 strips."""
    counts = [s.count for s in candidates(read_links(stages_of(16, 8, 24)))]
    assert counts == [4, 8, 16]


def test_large_tensors_are_worth_it():
    assert read_chain(stages_of(112, 16, 96, stride=2)) is not None


@pytest.mark.parametrize("why, size, channels, wide, stride", [
    ("stays in the L2 cache", 28, 32, 192, 1),
    ("few rows of many are border", 56, 24, 144, 1),
    ("weights are read for every strip", 112, 320, 96, 2),
])  # fmt: skip
def test_others_are_not(why, size, channels, wide, stride):
    assert read_chain(stages_of(size, channels, wide, stride)) is None, why


def test_strips_stay_in_the_cache():
    for s in candidates(read_links(stages_of(112, 16, 96, stride=2))):
        assert s.kept <= 1 << 20 and 112 // 2 % s.count == 0


def test_what_is_read_once_is_no_chain():
    x = param("x", tensor("f32", 64, 8))
    u, w = param("u", tensor("f32", 8, 16)), param("w", tensor("f32", 16, 4))
    k = define_kernel("k", graph("g", [x, u, w], [product(product(x, u), w)]))
    assert read_links(stages(k.body)) is None
