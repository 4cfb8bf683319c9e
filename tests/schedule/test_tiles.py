"""Register tiles: which one a product gets."""

from __future__ import annotations

from tensorwright.schedule.space import Choices
from tensorwright.schedule.tiles import Product, choose_tile
from tensorwright.target.x86 import X86_AVX512


def chosen(product: Product) -> tuple[int, ...]:
    return choose_tile(product, X86_AVX512, 16, Choices())


def test_tiles_are_high_and_narrow_where_weights_come_from_memory():
    assert chosen(Product(8, 256, 256)) == (4, 4, 16)
    assert chosen(Product(8, 256, 256, far=1.0)) == (8, 2, 16)


def test_few_columns_narrow_the_vectors():
    assert chosen(Product(100, 8, 64)).lanes == 8


def test_one_vector_has_as_many_rows_as_hide_its_load_where_they_fall_into_several_sets():
    assert chosen(Product(3136, 16, 512, apart=True)) == (14, 1, 16)
    assert chosen(Product(3136, 16, 1024)) == (8, 1, 16)
    assert chosen(Product(3136, 32, 512, apart=True)) == (8, 2, 16)


def test_rates_are_those_of_the_nearest_memory_that_holds_the_bytes():
    t = X86_AVX512
    sizes = (t.caches[1], t.caches[1] + 1, t.caches[2] + 1)
    assert tuple(map(t.rate, sizes)) == (t.l2_rate, t.l3_rate, t.memory_rate)
