"""Every invariant has a program that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorwright.base.errors import InternalError
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, cast, const, load, make, sym, var
from tensorwright.ir.graph import Graph, graph, param
from tensorwright.ir.loop import Alloc, Call, For, If, Kernel, Prefetch, Store, loop, seq, store
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ir.verify import verify
from tests.ops.rows import all_rows

OPS = {op.name: op for op in all_rows()}
N = var("n", min=1)
X, Y = Buffer("x", "f32", (N, 3)), Buffer("y", "f32", (N, 3))
ZERO = const(0.0, f32)


def kernel(body, symbols=(N.value,)) -> Kernel:
    return Kernel("k", (X, Y), 1, body, symbols)


def message(program) -> str:
    with pytest.raises(InternalError) as caught:
        verify(program)
    return str(caught.value)


def copy(kind="serial"):
    inner = lambda i: loop("j", 3, lambda j: store(Y, (i, j), X[i, j]))
    return loop("i", N, inner, kind)


def test_valid():
    verify(kernel(copy("parallel")))


def broken_bodies():
    i = var("i", 3)
    other = Buffer("z", "f32", (3,))
    t = Buffer("t", "f32", (3,), "local")
    yield "the symbol i is not bound here", Store(Y, (const(0), i), ZERO)
    yield "the buffer z is not declared here", store(other, 0, ZERO)
    yield "the buffer z is not declared here", store(Y, (0, 0), other[0])
    yield "1 subscripts for y", Store(Y, (const(0),), ZERO)
    yield "is f32, expected index", Store(Y, (const(0), ZERO), ZERO)
    yield "is index, expected f32", Store(Y, (const(0), const(0)), N)
    yield "is index, expected bool", If(N, store(Y, (0, 0), ZERO))
    yield "no loop kind 'warp'", copy("warp")
    yield "n is no place in memory", Prefetch(N, const(0))
    yield "is outside x", Prefetch(X[0, 3], const(0))
    yield "expected index", Prefetch(X[0, 0], ZERO)
    yield "expected bool", Prefetch(X[0, 0], const(0), (N, N, N))
    yield "is outside y", store(Y, (0, 3), ZERO)
    yield "is outside x", store(Y, (0, 0), X[0, N + 2])
    yield "is negative", store(Y, (0, 0), X[-1, 0])
    yield "store to one place", loop("i", N, lambda i: store(Y, (0, 0), X[i, 0]), "parallel")
    yield "the symbol i is bound already", For(i.value, const(0), const(3), seq(
        For(i.value, const(0), const(3), store(Y, (0, i), ZERO))))  # fmt: skip
    yield "the buffer t is declared already", seq(Alloc(t), Alloc(t))
    inner = loop("i", 3, lambda i: Alloc(t))
    yield "the buffer t is not declared here", seq(inner, store(t, 0, ZERO))


@pytest.mark.parametrize("text, body", list(broken_bodies()))
def test_kernels(text, body):
    found = message(kernel(body))
    assert text in found
    assert "^^^" in found


def test_guards_and_private_buffers_are_fine():
    t = Buffer("t", "f32", (3,), "local")
    guarded = If(cast(load(X, (0, 0)), "bool"), store(Y, (0, 0), X[0, 7]))
    verify(kernel(guarded))
    private = loop("i", N, lambda i: seq(Alloc(t), store(t, 0, ZERO), store(Y, (i, 0), t[0])),
                   "parallel")  # fmt: skip
    verify(kernel(private))
    m = var("m")
    empty = Buffer("e", "f32", (m,))
    body = loop("i", m, lambda i: store(empty, i, ZERO))
    verify(Kernel("k", (empty,), 1, body, (m.value,)))


def test_free_symbols_and_calls():
    assert "the symbol n is not bound here" in message(kernel(copy(), ()))
    call = Kernel("host", (X, Y), 1, Call("k", (X,), ()), (N.value,))
    m = Module({}, {"k": kernel(copy()), "host": call})
    assert "k takes 2 buffers, 1 indices" in message(m)
    assert "'k' is not in the module" in message(Module({}, {"host": call}))


def test_graphs():
    x = param("x", tensor("f32", N, 3))
    y = OPS["neg"](x)
    verify(graph("main", [x], [y]))
    wrong = replace(y, type=tensor("f32", N, 4))
    text = message(graph("main", [x], [OPS["exp"](wrong)]))
    assert "    v0: f32[n, 4] = neg(x)\n" in text
    assert "    ^^^ the type is f32[n, 4], the operator gives f32[n, 3]" in text
    assert "'x' is a parameter of another graph" in message(graph("main", [], [y]))
    twice = [x, param("x", tensor("f32", N))]
    assert "two parameters are named 'x'" in message(Graph("main", tuple(twice), (y,)))
    free = OPS["full"](shape=(var("q"),), value=0.0, dtype=f32)
    assert "the symbol q is not bound here" in message(graph("main", [x], [free]))
    product = param("p", tensor("f32", N * var("m", min=1)))
    assert "cannot be found from the parameters' shapes" in message(
        graph("main", [product], [OPS["neg"](product)])
    )
    assert "the operand y is missing" in message(
        graph("main", [x], [replace(OPS["add"](x, x), args=(x, None))])
    )


def test_modules():
    x = param("x", tensor("f32", 3))
    call = OPS["call"](x, callee="missing", type=tensor("f32", 3))
    assert "'missing' is not in the module" in message(Module({"main": graph("main", [x], [call])}))
    assert "the entry 'main' is not in the module" in message(
        Module({"step": graph("step", [x], [x])})
    )


def test_indices_are_no_tensors():
    e = make("cast", f32, (sym(N.value),))
    verify(kernel(store(Y, (0, 0), e)))
