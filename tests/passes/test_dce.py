"""Dropping unused symbols and captures."""

import numpy as np

from tensorwright.ir.expr import var
from tensorwright.ir.graph import Graph, constant, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.type import tensor
from tensorwright.ops.control import if_, item, scan_, while_
from tensorwright.ops.elementwise import add, less, mul
from tensorwright.ops.positions import bind_size, iota
from tensorwright.ops.reduce import reduce_sum
from tensorwright.passes.dce import drop_dead
from tests.passes.equivalence import check_pass, module, op_names, x_of


def test_unused_binder():
    k, x = x_of(d="i64", name="k"), x_of(2)
    n = var("n", min=0)
    bound = bind_size(k, symbols=(n,))
    m = module((iota(shape=(n,)), x), k, x)
    assert drop_dead(m) is m
    m = m.with_graphs({"main": Graph("main", (k, x), (add(x, 1.0),), (bound,))})
    assert op_names(drop_dead(m)) == ["add"]


def test_chain_of_binders():
    k = x_of(d="i64", name="k")
    n, m_ = var("n", min=0), var("m", min=0)
    bind_size(k, symbols=(n,))
    bind_size(reduce_sum(iota(shape=(n,))), symbols=(m_,))
    m = module(iota(shape=(m_,)), k)
    assert drop_dead(m) is m
    assert run_module(m, [np.array(3)])[0].tolist() == [0, 1, 2]


def test_captures_of_if():
    c, a, b = param("c", tensor("bool")), x_of(2, name="a"), x_of(2, name="b")

    def branch(f):
        p = [param(n, a.type) for n in "ab"]
        return graph("branch", p, [f(*p)])

    y = if_(c, a, b, then=branch(lambda a, b: add(b, 1.0)), orelse=branch(lambda a, b: b))
    after = check_pass(drop_dead, module(y, c, a, b))
    assert [x.name for x in after.main.results[0].args] == ["c", "b"]


def test_invariants_of_loops():
    n, x, unused = x_of(d="i64", name="n"), x_of(2), x_of(2, name="unused")

    def state():
        return [param("n", n.type), param("x", x.type), param("u", x.type), param("v", x.type)]

    p, q = state(), state()
    cond = graph("cond", p, [less(p[0], 5)])
    body = graph("body", q, [add(q[0], 1), mul(q[1], q[3])])
    t = while_(n, x, unused, x, cond=cond, body=body, carried=2)
    after = check_pass(drop_dead, module(item(t, index=1), n, x, unused))
    loop = after.main.results[0].args[0]
    assert [a.name for a in loop.args] == ["n", "x", "x"]


def test_invariants_of_scan():
    h, xs, w = x_of(2, name="h"), x_of(3, 2, name="xs"), x_of(2, name="w")
    p = [param(k, h.type) for k in ("h", "x", "w", "u")]
    body = graph("body", p, [add(p[0], p[1]), mul(p[1], p[2])])
    t = scan_(h, xs, w, constant(np.ones(2, np.float32)), body=body, carried=1, scanned=1)
    after = check_pass(drop_dead, module((item(t, index=0), item(t, index=1)), h, xs, w))
    assert len(after.main.results[0].args[0].args) == 3
