"""What strips of a chain of contractions need of each, and how a chain can be cut."""

from __future__ import annotations

import pytest

from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import graph, param
from tensorwright.ir.type import tensor
from tensorwright.ops.conv import conv_general
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import pad, reshape
from tensorwright.passes.lower import define_kernel
from tensorwright.schedule.chain import Chain, Strips, in_strips, read_chain, read_links, row_loops
from tensorwright.schedule.form import inline_maps
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.nest import stages


def product(x, w):
    return dot_general(x, w, contract=((1,), (0,)))


def read(size: int, channels: int, wide: int, stride: int = 1, window: int = 3, images=1):
    """The kernel and the stages of an expansion of pixels to `wide` channels, and of a window over
    each of these, padded."""
    x = param("x", tensor("f32", images * size * size, channels))
    u = param("u", tensor("f32", channels, wide))
    w = param("w", tensor("f32", window, window, 1, wide))
    y = reshape(product(x, u), shape=(images, size, size, wide))
    side = window // 2
    y = pad(y, low=(0, side, side, 0), high=(0, side, side, 0))
    y = conv_general(y, w, layout="NLAST", groups=wide, strides=(stride, stride))
    return stages_of(graph("g", [x, u, w], [y]))


def stages_of(g):
    k = inline_maps(define_kernel("k", g))
    return k, stages(k.body)


def cut(count: int, *sizes, **more) -> Strips:
    """The innermost loop that may be cut, in so many strips."""
    links = read_links(*read(*sizes, **more))
    return in_strips(links, row_loops(links[-1].stage)[-1], count)


def chain_of(*sizes, **more) -> Chain:
    return read_chain(*read(*sizes, **more))


def test_strips_of_overlapping_windows():
    """4 strips of 4 rows see 6 rows each; the first and the last one compute a row that they do not
    see in place of the border, which lies beside the others."""
    found = cut(4, 16, 8, 24)
    assert found.count == 4 and len(found.nests) == 2
    assert found.again == 16 * 8 * 24 * (4 * 6 - 16)
    assert found.kept == (1 + 6 + 1) * 18 * 24 * 4


def test_strips_of_windows_side_by_side():
    assert cut(4, 16, 8, 24, stride=2).again == 16 * 8 * 24 * (4 * 5 - 16)


def test_strips_are_blocks_of_rows():
    """16 rows of 16 are not 3 strips."""
    assert [s.count for s in chain_of(16, 8, 24).strips] == [4, 8, 16]


@pytest.mark.parametrize("images, many", [
    (3, 3), (sym(Symbol("n", min=1)), 1), (sym(Symbol("n", min=2)), 2),
], ids=str)  # fmt: skip
def test_each_image_goes_in_strips(images, many):
    """As many, of as many rows, as those of one; images of unknown number count as the fewest."""
    one, found = cut(4, 16, 8, 24), cut(4, 16, 8, 24, images=images)
    assert len(found.images) == 1 and found.each == one.each and found.kept == one.kept
    assert found.count == one.count * many and found.again == one.again * many


def test_a_strip_of_several_images():
    """Has all of their rows, so that nothing is computed twice; others are rows of one image."""
    found = chain_of(16, 8, 24, images=8).strips
    assert [(s.count, bool(s.images)) for s in found] == [
        (4, False), (8, False), (32, True), (64, True), (128, True)]  # fmt: skip
    assert [s.again for s in found[:2]] == [0, 0] and found[0].kept == 2 * 18 * 18 * 24 * 4


def test_strips_of_images_of_unknown_size_are_none():
    x = param("x", tensor("f32", 1, 16, sym(Symbol("n", min=1, max=64)), 8))
    u, w = param("u", tensor("f32", 1, 1, 8, 16)), param("w", tensor("f32", 3, 3, 1, 16))
    y = conv_general(conv_general(x, u, layout="NLAST"), w, layout="NLAST", groups=16)
    links = read_links(*stages_of(graph("g", [x, u, w], [y])))
    with pytest.raises(ScheduleError, match="are not known"):
        in_strips(links, row_loops(links[-1].stage)[-1], 7)


def test_what_is_read_once_is_no_chain():
    x = param("x", tensor("f32", 64, 8))
    u, w = param("u", tensor("f32", 8, 16)), param("w", tensor("f32", 16, 4))
    g = graph("g", [x, u, w], [product(product(x, u), w)])
    assert read_links(*stages_of(g)) is None
