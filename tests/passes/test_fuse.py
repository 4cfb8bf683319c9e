"""What fuses with what, inferred from loop nests; and that fused groups mean the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.base import trace
from tensorwright.ir.expr import var
from tensorwright.ir.graph import PARAM, graph
from tensorwright.ir.module import Module
from tensorwright.ops.elementwise import add, exp, maximum, mul, neg, tanh
from tensorwright.ops.index import gather
from tensorwright.ops.linalg import matmul
from tensorwright.ops.movement import broadcast_to, concat, flip, reshape, slice, transpose
from tensorwright.ops.reduce import reduce_max, reduce_sum
from tensorwright.ops.window import reduce_window
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.fuse import MAX_GROUP, fuse
from tensorwright.passes.lower import lower
from tensorwright.target.host import find
from tests.ops.rows import all_rows
from tests.passes.equivalence import assert_equal_results, module, op_names, x_of

HOST = find("host")

OPS = {op.name: op for op in all_rows()}


def groups(m: Module) -> list[list[str]]:
    """The operators of each kernel, in order."""
    found = []
    for n in m.main.nodes():
        if n.op.name == "fused":
            inside = n.attrs["body"].nodes()
            found.append([i.op.name for i in inside if i.op.name not in ("param", "const")])
        elif n.op.name not in ("param", "const"):
            found.append([n.op.name])
    return found


def fused_groups(result, *params) -> list[list[str]]:
    """Groups of a graph, checked to compute the same before and after."""
    before = expand_composites(module(result, *params))
    after = fuse(before, HOST)
    assert_equal_results(before, lower(after))
    return groups(after)


def test_elementwise_chain_is_one_kernel():
    x, y = x_of(3, 5), x_of(5, name="y")
    assert fused_groups(tanh(add(exp(x), y)), x, y) == [["exp", "add", "tanh"]]


def test_epilogue_joins_its_contraction():
    x, w, b = x_of(4, 6), x_of(6, 8, name="w"), x_of(8, name="b")
    (only,) = fused_groups(maximum(add(matmul(x, w), b), 0.0), x, w, b)
    assert only[0] == "dot_general" and only[-1] == "maximum"


def test_epilogue_prefers_its_contraction():
    """To a window, which would compute it again for each result, and to what moves it."""
    x, w, b = x_of(4, 6), x_of(6, 8, name="w"), x_of(8, name="b")
    y = maximum(add(matmul(x, w), b), 0.0)
    window = reduce_window(y, window=(3, 1), strides=(1, 1), padding=((1, 1), (0, 0)), op="max")
    assert fused_groups(window, x, w, b) == [["dot_general", "add", "maximum"], ["reduce_window"]]
    z = x_of(4, 8, name="z")
    shuffled = transpose(reshape(concat(y, z, axis=1), shape=(4, 8, 2)), perm=(2, 0, 1))
    first, *_ = fused_groups(shuffled, x, w, b, z)
    assert first == ["dot_general", "add", "maximum"]


def test_what_a_contraction_cannot_store_stays():
    """More elements than it has, or two users."""
    x, w = x_of(4, 6), x_of(6, 1, name="w")
    wide = mul(matmul(x, w), x_of(4, 9, name="z"))
    found = fused_groups(reduce_max(wide, axes=(1,)), x, w, wide.args[1])
    assert found[0] == ["dot_general"] and "mul" in found[-1]


@pytest.mark.parametrize("columns", [
    lambda w: slice(w, starts=(0, 0), stops=(8, 40), steps=(1, 2)),
    lambda w: flip(w, axes=(1,)),
    lambda w: reshape(transpose(reshape(w, shape=(8, 4, 10)), perm=(0, 2, 1)), shape=(8, 40)),
], ids=["every_second", "from_the_last", "in_turns"])  # fmt: skip
def test_what_panels_are_made_of_is_computed_before(columns):
    """A contraction streams what lies along its columns, or a parameter, which is put in panels."""
    x, w = x_of(6, 8), x_of(8, 40, name="w")
    *before, last = fused_groups(matmul(x, columns(w)), x, w)
    assert before and [op for op in last if op != "reshape"] == ["dot_general"]


def test_reduction_and_what_follows_row_by_row():
    x = x_of(7, 33)
    assert len(fused_groups(OPS["softmax"](x, axis=1), x)) == 1
    total = reduce_sum(mul(x, x), axes=(1,), keepdims=True)
    assert len(fused_groups(mul(x, total), x)) == 1


def test_two_contractions_are_two_kernels():
    x, w, v = x_of(4, 6), x_of(6, 8, name="w"), x_of(8, 3, name="v")
    found = fused_groups(matmul(neg(matmul(x, w)), v), x, w, v)
    assert [g.count("dot_general") for g in found] == [1, 1]


def test_attention_is_one_kernel():
    q, k, v = (x_of(2, 16, 8, name=n) for n in "qkv")
    scores = OPS["softmax"](matmul(q, transpose(k, perm=(0, 2, 1))), axis=2)
    found = fused_groups(matmul(scores, v), q, k, v)
    assert max(g.count("dot_general") for g in found) == 2


def test_a_product_of_what_another_product_leads_to():
    x, w = x_of(4, 6), x_of(6, 6, name="w")
    a = neg(matmul(x, w))
    found = fused_groups(matmul(add(matmul(a, w), tanh(a)), w), x, w)
    assert [g.count("dot_general") for g in found] == [1, 1, 1]


def test_what_two_kernels_need_is_computed_once():
    x, w, v = x_of(4, 6), x_of(6, 8, name="w"), x_of(6, 8, name="v")
    shared = exp(x)
    found = fused_groups((matmul(shared, w), matmul(shared, v)), x, w, v)
    assert sum(g.count("exp") for g in found) == 1


def test_results_stay_results():
    x = x_of(3)
    y = exp(x)
    assert fused_groups((neg(y), y), x) == [["exp"], ["neg"]]


def test_groups_are_bounded():
    x = x_of(4)
    y = x
    for _ in range(2 * MAX_GROUP):
        y = tanh(y)
    found = fused_groups(y, x)
    assert len(found) == 2 and max(map(len, found)) == MAX_GROUP


def test_views_cost_no_kernel():
    x, w = x_of(2, 3, 4), x_of(4, 5, name="w")
    m = fuse(expand_composites(module(matmul(reshape(x, shape=(6, 4)), w), x, w)), HOST)
    assert op_names(m).count("reshape") <= 1 and not m.kernels


def test_scalar_constants_become_literals():
    x = x_of(3)
    m = fuse(module(mul(exp(x), 2.0), x), HOST)
    (node,) = m.main.results
    assert [a.op for a in node.args] == [PARAM]


def test_why_not_is_recorded():
    x = x_of(4, 6)
    shared = exp(x)
    m = module((reduce_sum(shared, axes=(0,)), reduce_max(shared, axes=(1,))), x)
    with trace.recording() as seen:
        fuse(m, HOST)
    assert any(d.subject is shared and "several kernels" in d.reason for d in seen.decisions)


UNARY, BINARY = (exp, neg, tanh), (add, mul, maximum)


@st.composite
def random_graphs(draw):
    """A small graph of maps, reductions, products and movements over one symbolic extent."""
    n = var("n", min=1, max=64)
    x, w = x_of(n, 4), x_of(4, 4, name="w")
    values = [x]
    for _ in range(draw(st.integers(1, 8))):
        a, b = (draw(st.sampled_from(values)) for _ in "ab")
        kind = draw(st.integers(0, 5))
        if kind == 0:
            y = draw(st.sampled_from(UNARY[1:]))(a)
        elif kind == 1:
            y = draw(st.sampled_from(BINARY))(a, b)
        elif kind == 2:
            y = broadcast_to(reduce_max(a, axes=(1,), keepdims=True), shape=(n, 4))
        elif kind == 3:
            y = tanh(matmul(a, w))
        elif kind == 4:
            y = transpose(neg(transpose(a, perm=(1, 0))), perm=(1, 0))
        else:
            y = broadcast_to(reduce_sum(tanh(b), axes=(0,), keepdims=True), shape=(n, 4))
        values.append(y)
    extra = draw(st.sampled_from(values[1:]))
    return graph("main", [x, w], [values[-1], extra])


@settings(max_examples=40, deadline=None)
@given(random_graphs(), st.integers(1, 9))
def test_fused_graphs_mean_the_same(g, n):
    before = expand_composites(Module({"main": g}))
    assert_equal_results(before, lower(fuse(before, HOST)), {"n": n}, tol=1e-4)


def test_elements_are_picked_once():
    x, i, j = x_of(5, 6), x_of(7, d="i64", name="i"), x_of(9, d="i64", name="j")
    rows = gather(neg(gather(x, i, axis=1)), j, axis=0)
    before = module(rows, x, i, j)
    assert groups(fuse(before, HOST)) == [["gather"], ["neg", "gather"]]
    few = gather(neg(gather(x, j, axis=1)), x_of(2, d="i64", name="k"), axis=0)
    assert len(groups(fuse(module(few, x, j, few.args[1]), HOST))) == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_joins_maps(axis):
    x, i = x_of(5, 6), x_of(3, d="i64", name="i")
    m = fuse(module(neg(gather(x, i, axis=axis)), x, i), HOST)
    assert groups(m) == [["gather", "neg"]]
    from tensorwright.ir.interp import run_module

    data = np.arange(30, dtype=np.float32).reshape(5, 6)
    (y,) = run_module(lower(m), [data, np.array([0, 2, 1])])
    np.testing.assert_array_equal(y, -data.take([0, 2, 1], axis))
