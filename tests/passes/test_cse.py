"""Merging equal computations."""

import numpy as np

from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant
from tensorwright.ops.elementwise import add, exp, mul
from tensorwright.ops.movement import transpose
from tensorwright.ops.positions import bind_size, iota
from tensorwright.ops.reduce import reduce_sum
from tensorwright.passes.cse import attr_key, merge_equal
from tests.passes.equivalence import check_pass, module, op_names, x_of


def test_equal_nodes_merge():
    x = x_of(2, 3)
    m = module(add(mul(exp(x), 2.0), mul(exp(x), 2.0)), x)
    after = check_pass(merge_equal, m, ["exp", "mul", "add"], special=True)
    a, b = after.main.results[0].args
    assert a is b


def test_different_attributes_stay():
    x = x_of(3, 3)
    m = module((reduce_sum(x, axes=(0,)), reduce_sum(x, axes=(1,))), x)
    assert merge_equal(m) is m


def test_large_constants_that_differ_in_the_middle():
    a, b = np.zeros(400, np.float32), np.zeros(400, np.float32)
    b[200] = 1
    x = x_of(400)
    m = module(mul(mul(x, constant(a)), constant(b)), x)
    assert merge_equal(m) is m
    m = module(mul(mul(x, constant(a)), constant(a.copy())), x)
    after = merge_equal(m)
    assert len([n for n in after.main.nodes() if n.op.name == "const"]) == 1


def test_empty_constants():
    x = x_of(0, 2)
    m = module(add(add(x, constant(np.zeros((0, 2), "f"))), constant(np.zeros((0, 2), "f"))), x)
    check_pass(merge_equal, m)


def test_binders_stay_apart():
    k = x_of(d="i64", name="k")
    n, m_ = var("n", min=0), var("m", min=0)
    bind_size(k, symbols=(n,))
    bind_size(k, symbols=(m_,))
    m = module((iota(shape=(n,)), iota(shape=(m_,))), k)
    assert op_names(merge_equal(m)).count("bind_size") == 2


def test_keys_tell_types_apart():
    assert len({attr_key(v) for v in (1, 1.0, True, "1", -0.0, 0.0, None, (1,), (1.0,))}) == 9
    assert attr_key(float("nan")) == attr_key(float("nan"))


def test_users_of_merged_nodes_merge():
    x = x_of(2, 3)
    m = module((transpose(exp(x), perm=(1, 0)), transpose(exp(x), perm=(1, 0))), x)
    after = check_pass(merge_equal, m, ["exp", "transpose"])
    assert after.main.results[0] is after.main.results[1]
