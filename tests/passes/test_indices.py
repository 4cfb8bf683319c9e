"""Indices of rows are checked at run time, those of single elements clamped."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import clamp
from tensorwright.ops.control import if_
from tensorwright.ops.index import gather
from tensorwright.ops.movement import reshape
from tensorwright.ops.positions import iota
from tensorwright.ops.reduce import argmax
from tensorwright.passes.indices import check_indices
from tests.passes.equivalence import module, x_of

TABLE = constant(np.arange(160, dtype=np.float32).reshape(10, 16), "table")


def lookup(indices, axis: int = 0, table=TABLE):
    return module(gather(table, indices, axis=axis), indices)


def ids(*shape, d: str = "i64"):
    return param("ids", tensor(d, *shape))


@pytest.mark.parametrize("wrong", [10, -11, 1 << 40, -(1 << 62)])
def test_a_wrong_index_is_an_error(wrong):
    program = tw.compile(lookup(ids(var("n", min=0))))
    with pytest.raises(tw.errors.RunError, match=f"index is {wrong}"):
        program(np.array([0, wrong, 1]))
    np.testing.assert_array_equal(program(np.array([9, -10]))[:, 0], [144, 0])
    assert program(np.zeros(0, np.int64)).shape == (0, 16)


def test_where_it_happened_is_named():
    from dataclasses import replace

    i = ids(2)
    m = module(replace(gather(TABLE, i), loc=("words/Gather",)), i)
    with pytest.raises(tw.errors.RunError, match=r"its largest value is 9 \(at words/Gather\)"):
        tw.compile(m)(np.array([3, 12]))


def test_what_is_known_to_fit_is_not_checked():
    assert check_indices(lookup(ids(3))).main.binders
    small = param("ids", tensor("u8", 3))
    assert check_indices(module(gather(x := x_of(256, 16), small), x, small)).main.binders == ()
    i = ids(3)
    assert check_indices(module(gather(TABLE, clamp(i, low=0, high=9)), i)).main.binders == ()


def test_unsigned_indices_have_one_end():
    i = ids(3, d="u8")
    assert len(check_indices(lookup(i)).main.binders) == 1


def test_equal_checks_are_made_once():
    i = ids(3)
    other = constant(np.ones((10, 32), np.float32))
    m = check_indices(module((gather(TABLE, i), gather(other, i)), i))
    assert len(m.main.binders) == 2


def test_single_elements_are_clamped():
    row = reshape(TABLE, shape=(160,))
    m = lookup(ids(2), table=row)
    assert check_indices(m) is m
    assert tw.compile(m)(np.array([1000, -1000])).tolist() == [159, 0]


def test_branches_check_theirs():
    c, i = param("c", tensor("bool")), ids(2)
    p, q = ids(2), ids(2)
    then = graph("then", [p], [gather(TABLE, p)])
    other = graph("other", [q], [gather(TABLE, clamp(q, low=0, high=9))])
    program = tw.compile(module(if_(c, i, then=then, orelse=other), c, i))
    program(np.array(False), np.array([0, 99]))
    with pytest.raises(tw.errors.RunError, match="index is 99"):
        program(np.array(True), np.array([0, 99]))


def test_positions_and_winners_are_known_to_fit():
    scores = x_of(4, 10)
    m = module(gather(TABLE, argmax(scores, axis=1)), scores)
    assert check_indices(m) is m
    m = module(gather(TABLE, iota(shape=(10,))))
    assert check_indices(m) is m
