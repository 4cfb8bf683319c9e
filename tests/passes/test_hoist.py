"""Work that loops need not repeat, against the interpreter on the module as it was."""

from __future__ import annotations

import numpy as np

import tensorwright as tw
from tensorwright import numpy as tnp
from tensorwright.frontend.function import trace
from tensorwright.ir.graph import subgraphs
from tensorwright.ir.interp import run_module
from tensorwright.ir.verify import verify
from tensorwright.passes.hoist import hoist

RNG = np.random.default_rng(0)
W, U = (RNG.standard_normal((4, 4)).astype(np.float32) / 2 for _ in range(2))
B = RNG.standard_normal(4).astype(np.float32)


def hoisted(f, *inputs):
    """(nodes of the main graph after, nodes of its loop after) once results are compared."""
    m = trace(f)
    after = hoist(m)
    verify(after)
    for a, b in zip(run_module(m, inputs), run_module(after, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    loop = next(n for n in after.main.nodes() if n.op.name in ("scan_", "while_"))
    names = lambda g: [n.op.name for n in g.nodes()]
    return names(after.main), names(subgraphs(loop)[-1])


def test_products_of_slices_are_one_product():
    @tw.function
    def rnn(xs: tw.f32["n", 4]):
        step = lambda h, x: (tnp.tanh(x @ W + B + h @ U),) * 2
        return tw.scan(step, np.zeros(4, np.float32), xs)[1]

    for n in (1, 2, 5):
        outside, inside = hoisted(rnn, RNG.standard_normal((n, 4)).astype(np.float32))
    assert outside.count("matmul") == 1 and inside.count("matmul") == 1
    assert outside.count("add") == 1 and inside.count("add") == 1


def test_matrices_from_outside():
    @tw.function
    def rnn(xs: tw.f32["n", 4], w: tw.f32[4, 4]):
        step = lambda h, x: (tnp.tanh(x @ w + h), h)
        return tw.scan(step, np.zeros(4, np.float32), xs)

    xs = RNG.standard_normal((3, 4)).astype(np.float32)
    outside, inside = hoisted(rnn, xs, W)
    assert "matmul" in outside and "matmul" not in inside


def test_what_no_step_changes_is_computed_once():
    @tw.function
    def power(x: tw.f32[4], w: tw.f32[4, 4], n: tw.i64):
        body = lambda s: (s[0] + 1, s[1] @ (w @ w + 1.0))
        return tw.while_loop(lambda s: s[0] < n, body, (tnp.asarray(0), x))[1]

    for n in (0, 3):
        outside, inside = hoisted(power, B, W, np.int64(n))
    assert outside.count("matmul") == 1 and inside.count("matmul") == 1


def test_what_may_fail_stays():
    @tw.function
    def f(x: tw.f32[4], k: tw.i64[1], n: tw.i64):
        body = lambda s: (s[0] + 1, s[1] + tnp.take(x, k))
        return tw.while_loop(lambda s: s[0] < n, body, (tnp.asarray(0), np.zeros(1, np.float32)))

    _outside, inside = hoisted(f, B, np.array([2]), np.int64(2))
    assert len(inside) > 6
    program = tw.compile(f)
    assert program(B, np.array([99]), np.int64(0))[1] == 0  # the loop never looks there


def test_nothing_to_do_changes_nothing():
    @tw.function
    def f(xs: tw.f32["n"]):
        return tw.scan(lambda s, x: (s + x, s), 0.0, xs)

    m = trace(f)
    assert hoist(m) is m
