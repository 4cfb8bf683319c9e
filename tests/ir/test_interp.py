"""The reference interpreter: symbols, control flow, float64 mode, and the semantics of kernels."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from tensorwright.base.errors import InternalError, RunError
from tensorwright.ir.dtype import dtype, f32, i8, i32, index
from tensorwright.ir.expr import (
    Buffer,
    binary,
    cast,
    compare,
    const,
    load,
    make,
    select,
    unary,
    var,
)
from tensorwright.ir.graph import graph, param
from tensorwright.ir.interp import packed, run_graph, run_kernel, run_module
from tensorwright.ir.loop import (
    Alloc,
    Assert,
    Call,
    If,
    Kernel,
    Let,
    Pack,
    View,
    While,
    loop,
    loops,
    seq,
    store,
)
from tensorwright.ir.parser import parse
from tensorwright.ir.type import tensor
from tests.ops.rows import all_rows

OPS = {op.name: op for op in all_rows()}
N = var("n", min=1)


def ones(*shape):
    return np.ones(shape, np.float32)


# ---- graphs ------------------------------------------------------------------------------------


def test_symbols_are_solved_and_checked():
    x, b = param("x", tensor("f32", 4 * N + 1, 3)), param("b", tensor("f32", N))
    g = graph("main", [x, b], [OPS["exp"](x), OPS["neg"](b)])
    (y, _) = run_graph(g, [ones(9, 3), ones(2)])
    np.testing.assert_allclose(y, np.full((9, 3), math.e), rtol=1e-6)
    for inputs, message in [
        ([ones(8, 3), ones(2)], r"x.shape\[0\] is 8, expected n \* 4 \+ 1 = 9"),
        ([ones(9, 2), ones(2)], r"x.shape\[1\] is 2, expected 3"),
        ([ones(1, 3), ones(0)], r"n is 0 \(from b.shape\[0\]\), but must be at least 1"),
        ([ones(9), ones(2)], "x has rank 1"),
        ([np.ones((9, 3)), ones(2)], "x has element type f64"),
        ([ones(9, 3)], "takes 2 inputs, 1 were given"),
    ]:
        with pytest.raises(RunError, match=message):
            run_graph(g, inputs)


def test_not_divisible():
    g = graph("main", [x := param("x", tensor("f32", 4 * N + 1))], [OPS["neg"](x)])
    with pytest.raises(RunError, match=r"x.shape\[0\] is 8, which is not n \* 4 \+ 1 for any n"):
        run_graph(g, [ones(8)])


def test_precise_mode_keeps_float64():
    x = param("x", tensor("f32", 3))
    g = graph("main", [x], [OPS["exp"](x)])
    (y,) = run_graph(g, [np.array([0.1, 1, 2], np.float32)], precise=True)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, np.exp(np.array([0.1, 1, 2], np.float32).astype(float)))


def test_narrow_floats_round_once():
    x = param("x", tensor("bf16", 2))
    g = graph("main", [x], [OPS["add"](x, x)])
    (y,) = run_graph(g, [np.array([1.5, 2.0], ml_dtypes.bfloat16)])
    assert y.dtype == ml_dtypes.bfloat16 and y.astype(float).tolist() == [3.0, 4.0]


def test_recursion_and_while():
    text = """
@graph
def main(n: i64[()]) -> i64[()]:
    y: i64[()] = call(n, callee='factorial', type=i64[()])
    return y

@graph
def factorial(n: i64[()]) -> i64[()]:
    c: i64[()] = i64(1)
    stop: bool[()] = less_equal(n, c)
    @graph
    def then(n: i64[()]) -> i64[()]:
        c: i64[()] = i64(1)
        return c
    @graph
    def orelse(n: i64[()]) -> i64[()]:
        c: i64[()] = i64(1)
        less: i64[()] = sub(n, c)
        rest: i64[()] = call(less, callee='factorial', type=i64[()])
        y: i64[()] = mul(n, rest)
        return y
    y: i64[()] = if_(stop, n, then=then, orelse=orelse)
    return y
"""
    assert run_module(parse(text, OPS), [np.array(5)])[0] == 120


def test_sizes_known_at_run_time():
    text = """
m = sym()

@graph
def main(k: i64[()]) -> i64[m]:
    k2: i64[()] = bind_size(k, symbols=(m,))
    y: i64[m] = iota(shape=(m,), axis=0, dtype=i64)
    return y
"""
    m = parse(text, OPS)
    assert run_module(m, [np.array(3)])[0].tolist() == [0, 1, 2]
    with pytest.raises(RunError, match="m is -1"):
        run_module(m, [np.array(-1)])


def test_wrong_reference_is_found():
    op = OPS["neg"]
    broken = type(op)(op.name, op.params, op.infer, reference=lambda x: x[:1])
    x = param("x", tensor("f32", 3))
    with pytest.raises(InternalError, match=r"neg gave shape \(1,\) for f32\[3\]"):
        run_graph(graph("main", [x], [broken(x)]), [ones(3)])


# ---- kernels -----------------------------------------------------------------------------------


def scalar_kernel(e, d, *inputs):
    """The kernel y[()] = e, for expressions over loads of the input buffers."""
    y = Buffer("y", d, ())
    return run_kernel(Kernel("k", (*inputs, y), 1, store(y, (), e)), [np.array(1, b.dtype.numpy)
                      for b in inputs])[0][()]  # fmt: skip


def value(e):
    return scalar_kernel(e, e.dtype)


@pytest.mark.parametrize("op, a, b, d, expected", [
    ("floordiv", -7, 2, i32, -4), ("mod", -7, 2, i32, 1), ("truncdiv", -7, 2, i32, -3),
    ("rem", -7, 2, i32, -1), ("floordiv", 5, 0, i32, 0), ("mod", 5, 0, i32, 0),
    ("floordiv", -128, -1, i8, -128), ("add", 127, 1, i8, -128), ("mul", 64, 4, i8, 0),
    ("shl", 1, 40, i32, 0), ("shr", -8, 40, i32, -1), ("shl", 1, 31, i32, -(2**31)),
    ("pow", 2, -1, i32, 0), ("pow", -1, -3, i32, -1), ("pow", 3, 4, i32, 81),
    ("min", math.nan, 1.0, f32, math.nan), ("max", 1.0, math.nan, f32, math.nan),
    ("mod", -7.5, 2.0, f32, 0.5), ("rem", -7.5, 2.0, f32, -1.5), ("div", 1.0, 0.0, f32, math.inf),
])  # fmt: skip
def test_binary(op, a, b, d, expected):
    np.testing.assert_equal(float(value(make(op, d, (const(a, d), const(b, d))))), float(expected))


@pytest.mark.parametrize("number, source, to, expected", [
    (3.9, "f32", "i32", 3), (-3.9, "f32", "i32", -3), (3e9, "f32", "i32", 2**31 - 1),
    (math.nan, "f32", "i32", 0), (-math.inf, "f32", "u8", 0), (300, "i32", "u8", 44),
    (200, "i32", "i8", -56), (0.5, "f32", "bool", True), (1e6, "f32", "f16", math.inf),
    (1e6, "f32", "f8e4m3fn", 448.0), (1e6, "f32", "f8e5m2", math.inf), (2.5, "f32", "i4", 2),
    (100.0, "f32", "i4", 7), (True, "bool", "f32", 1.0), (1.00390625, "f32", "bf16", 1.0),
])  # fmt: skip
def test_cast(number, source, to, expected):
    e = make("cast", dtype(to), (const(number, dtype(source)),))
    assert float(value(e)) == float(expected)


def test_round_is_half_to_even():
    assert [float(value(unary("round", const(v, f32)))) for v in (0.5, 1.5, 2.5, -0.5)] == [
        0.0, 2.0, 2.0, -0.0]  # fmt: skip


def test_select_takes_one_arm():
    x, y = Buffer("x", "f32", (N,)), Buffer("y", "f32", (N,))
    body = loop("i", N, lambda i: store(y, i, select(i < N - 1, x[i + 1], const(0.0, f32))))
    (found,) = run_kernel(Kernel("k", (x, y), 1, body, (N.value,)), [np.arange(3, dtype="f")])
    assert found.tolist() == [1.0, 2.0, 0.0]


def test_negative_subscripts_are_errors():
    x, y = Buffer("x", "f32", (N,)), Buffer("y", "f32", (N,))
    body = loop("i", N, lambda i: store(y, i, x[i - 1]))
    with pytest.raises(InternalError, match="subscript -1 is negative"):
        run_kernel(Kernel("k", (x, y), 1, body, (N.value,)), [ones(3)])


def test_statements():
    x, y = Buffer("x", "f32", (4, 2)), Buffer("y", "f32", (8,))
    flat, t = Buffer("flat", "f32", (8,)), Buffer("t", "i32", (), "local")
    half = var("half")
    one = const(1, i32)
    body = seq(
        View(flat, x, const(0)),
        Alloc(t),
        store(t, (), const(0, i32)),
        Let(half.value, cast(load(t, ()), index) + 4),
        While(
            compare("lt", load(t, ()), const(8, i32)),
            seq(
                If(
                    cast(load(t, ()), index) < half,
                    store(y, cast(load(t, ()), index), flat[cast(load(t, ()), index)]),
                    store(y, cast(load(t, ()), index), const(-1.0, f32)),
                ),
                store(t, (), load(t, ()) + one),
            ),
        ),
    )
    (found,) = run_kernel(Kernel("k", (x, y), 1, body), [np.arange(8, dtype="f").reshape(4, 2)])
    assert found.tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


def test_calls_and_asserts():
    x, y = Buffer("x", "f32", (N,)), Buffer("y", "f32", (N,))
    twice = Kernel("twice", (x, y), 1, loop("i", N, lambda i: store(y, i, x[i] + x[i])), (N.value,))
    check = Assert(compare("lt", N, const(5)), "n is {0}, too large", (N,))
    host = Kernel("host", (x, y), 1, seq(check, Call("twice", (x, y), (N,))), (N.value,))
    assert run_kernel(host, [ones(3)], kernels={"twice": twice})[0].tolist() == [2, 2, 2]
    with pytest.raises(RunError, match="n is 6, too large"):
        run_kernel(host, [ones(6)], kernels={"twice": twice})
    extern = Kernel("host", (x, y), 1, Call("fill", (y,), (N,), True), (N.value,))

    def fill(array, n):
        array[:] = n

    assert run_kernel(extern, [ones(3)], externs={"fill": fill})[0].tolist() == [3, 3, 3]


def test_deep_nests_and_shared_expressions():
    y = Buffer("y", "f32", (1,) * 25)
    body = loops([f"i{k}" for k in range(25)], (1,) * 25, lambda *i: store(y, i, const(2.0, f32)))
    assert run_kernel(Kernel("k", (y,), 1, body), [])[0].item() == 2.0
    x, z = Buffer("x", "f32", ()), Buffer("z", "f32", ())
    e = load(x, ())
    for _ in range(60):
        e = binary("add", e, e)  # 2**60 leaves as a tree
    assert scalar_kernel(e, f32, x) == 2.0**60
    assert z


def test_long_chains():
    x = Buffer("x", "f32", ())
    e = load(x, ())
    for _ in range(300):
        e = unary("neg", e)
    assert scalar_kernel(e, f32, x) == 1.0


def test_packing():
    x = np.arange(12.0).reshape(3, 4)
    found = packed(x, Pack(0, 1, 3, (), (0,)))
    assert found.shape == (2, 3, 3)
    np.testing.assert_array_equal(found[0], x[:, :3])
    np.testing.assert_array_equal(found[1], np.pad(x[:, 3:], ((0, 0), (0, 2))))


def test_kernels_of_a_module():
    text = """
n = sym(min=1)

@graph
def main(x: f32[n]) -> f32[n]:
    y: f32[n] = call_kernel(x, scalars=(n,), callee='twice', type=f32[n])
    return y

@kernel
def twice(x: f32[n], y: out[f32[n]]):
    for i in vector(n):
        y[i] = x[i] * 2.0
"""
    m = parse(text, OPS)
    assert run_module(m, [ones(2)])[0].tolist() == [2, 2]
