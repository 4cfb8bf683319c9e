"""The loads in expressions: which, and in which order."""

from tensorwright.ir.dtype import f32, index
from tensorwright.ir.expr import Buffer, cast, const, fma, sym, walk
from tensorwright.ir.loop import loop_symbol
from tensorwright.ir.reads import loads_in, reads

I = sym(loop_symbol("i", const(0), const(8)))
X, Y = Buffer("x", f32, (8,)), Buffer("y", "i32", (8,))


def test_loads_come_in_the_order_of_a_walk():
    inner = Y[I + 1]
    outer = X[cast(inner, index)]
    whole = fma(outer, X[I], outer) + X[0] * outer
    assert loads_in(whole) == [inner, outer, X[I], X[0]]
    assert loads_in(whole) == [e for e in walk(whole) if e.op == "load"]
    assert loads_in(X[I], whole) == [X[I], inner, outer, X[0]]


def test_sums_of_loop_variables_read_nothing():
    assert not reads(I * 3 + 1) and loads_in(I, const(2)) == []
    assert reads(cast(Y[0], index) + I)


def test_long_chains_are_no_recursion():
    e = X[0]
    for k in range(5000):
        e = e + X[k % 8]
    assert len(loads_in(e)) == 8
