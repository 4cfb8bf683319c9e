"""Errors of the parser, whole texts; and what its grammar allows beyond what the printer writes."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.ir.compare import difference, same
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, ceildiv, const, var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.loop import Kernel, Let, loop, seq, store
from tensorwright.ir.module import Module
from tensorwright.ir.parse_expr import ParseError
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import tensor
from tests.ops.rows import all_rows

OPS = {op.name: op for op in all_rows()}
HEAD = "n = sym()\n\n@graph\ndef main(x: f32[n]) -> f32[n]:\n"


def error(text: str) -> str:
    with pytest.raises(ParseError) as caught:
        parse(text, OPS, name="sample.ir")
    return str(caught.value)


def test_undefined_value():
    assert error(HEAD + "    y: f32[n] = neg(v1)  # mlp.py:13\n    return y\n") == (
        "sample.ir:5:21: error: 'v1' is not defined\n"
        "    y: f32[n] = neg(v1)  # mlp.py:13\n"
        "                    ^^\n"
        "    note: defined so far: x"
    )


@pytest.mark.parametrize("line, message, under", [
    ("y: f32[n] = relux(x)", "no operator is named 'relux'", "relux"),
    ("y: f32[n] = neg(x", "'(' was never closed", "("),
    ("y: f32[n] = neg(x, axis=1)", "neg() has no attribute axis", "neg(x, axis=1)"),
    ("y: f32[n] = add(x)", "add() needs the operand y", "add(x)"),
    ("y: f32[n, 2] = neg(x)", "this operator gives f32[n]", "f32[n, 2]"),
    ("y: f32[m] = neg(x)", "'m' is not defined", "m"),
    ("y: q32[n] = neg(x)", "a type such as f32[n, 64] is expected", "q32[n]"),
    ("y = neg(x)", "a binding `name: type = op(...)` is expected", "y = neg(x)"),
    ("y: f32[3] = const('w')", "there is no constant 'w'", "'w'"),
    ("x: f32[n] = neg(x)", "'x' is bound twice", "x"),
])  # fmt: skip
def test_errors(line, message, under):
    text = error(HEAD + f"    {line}\n    return y\n")
    first, shown, carets, *_ = text.splitlines()
    assert first.endswith(f"error: {message}")
    start = carets.index("^")
    assert shown[start : start + len(under)] == under
    assert carets.strip("^ ") == "" and carets.count("^") in (len(under), 1)


@pytest.mark.parametrize("line, message", [
    ("y[i] = z[i]", "'z' is no buffer"),
    ("y[i, 0] = 1.0", "2 subscripts for y: f32[n]"),
    ("y[i] = k", "'k' is not defined"),
    ("y[i] = x[i] + i", "operands have different types"),
    ("y[i] = i", "f32 is expected, this is index"),
    ("y[i] = 0.0 < x[i] < 1.0", "one comparison at a time"),
    ("y[i] = frob(x[i])", "no scalar function frob"),
    ("y[i] /= 2.0", "an update is one of"),
    ("return", "no statement of a kernel"),
])  # fmt: skip
def test_kernel_errors(line, message):
    text = "n = sym()\n\n@kernel\ndef k(x: f32[n], y: out[f32[n]]):\n    for i in serial(n):\n"
    assert message in error(f"{text}        {line}\n")


def test_unicode_columns():
    text = HEAD + "    y: f32[n] = neg(größe)\n    return y\n"
    assert error(text).splitlines()[2] == "                    ^^^^^"


def test_numbers_take_the_type_beside_them():
    text = """
@kernel
def k(x: f16[3], c: i32[3], y: out[f16[3]]):
    for i in serial(3):
        if c[i] * 2 > 3:
            y[i] = x[i] * 0.1 + 1
"""
    printed = to_text(parse(text, OPS))
    assert "if c[i] * i32(2) > i32(3):" in printed
    assert "y[i] = x[i] * f16(0.0999755859375) + f16(1.0)" in printed


def test_names_of_the_user():
    w = constant(np.ones((2, 20), np.float32), "fc1.weight")
    x = param("input.1", tensor("f32", 20))
    p = param("relu", tensor("f32", 20))
    first = OPS["add"](w, x)
    named = type(first)(first.op, first.args, first.attrs, first.type, "if", ("m.onnx", "node 7"))
    m = Module({"main": graph("main", [x, p], [OPS["add"](named, p)], ("out:0",))})
    text = to_text(m)
    assert "@graph(params={'input_1': 'input.1'}, results=('out:0',))" in text
    assert "fc1_weight: f32[2, 20] = const('fc1.weight')" in text
    assert "if_: f32[2, 20] = add(fc1_weight, input_1)  # m.onnx, node 7" in text
    back = parse(text, OPS, m.constants())
    assert same(back, m) and to_text(back) == text
    assert back.main.params[0].name == "input.1"
    assert back.constants().keys() == m.constants().keys()


def test_namesakes_in_kernels():
    n = var("n", min=1)
    x, y = Buffer("x", "f32", (n, 8, 8)), Buffer("y", "f32", (n, 8, 8))
    i, j = var("t"), var("t")

    def body(a):
        return loop("i", 8, lambda b: loop("n", 8, lambda c: seq(
            Let(i.value, b + a), Let(j.value, c + b),
            store(y, (a, b, c), x[a, (i + j + b) % 8, (j + i * 2 + c * 3 + b) % 8]))))  # fmt: skip

    k = Kernel("k", (x, y), 1, loop("i", n, body), (n.value,))
    m = Module({}, {"k": k})
    text = to_text(m)
    assert "for i_2 in serial(8):" in text and "for n_2 in" in text
    back = parse(text, OPS)
    assert to_text(back) == text
    assert not difference(back, m)


def test_kernel_metadata():
    text = """n = sym(min=1)
m = sym(min=1)

@kernel(name='a.b', packs=((0, 1, 16, (), (0,), -1),), work=(n * 2, n * 8 + 4), symbols=(m, n))
def a_b(x: aligned(f32[1, n, 16], 64), y: out[f32[n, m]]):
    # source: net.py:3 Linear
    # schedule: split i 8
    # schedule: vectorize j
    pass
"""
    m = parse(text, OPS)
    k = m.kernels["a.b"]
    assert to_text(m) == text
    assert k.schedule == ("split i 8", "vectorize j") and k.sources == ("net.py:3 Linear",)
    assert [s.name for s in k.symbols] == ["m", "n"]


def test_siblings_share_names():
    y = Buffer("y", "f32", (8,))
    part = [loop("i", 8, lambda i: store(y, i, const(0.0, f32))) for _ in range(2)]
    text = to_text(Kernel("k", (y,), 1, seq(*part)))
    assert text.count("for i in serial(8):") == 2


def test_differences_are_found():
    n = var("n", min=1)
    x, y = Buffer("x", "f32", (n,)), Buffer("y", "f32", (n,))

    def kernel(extent, kind="serial"):
        body = loop("i", extent, lambda i: store(y, i, x[i]), kind)
        return Kernel("k", (x, y), 1, body, (n.value,))

    assert same(kernel(n), kernel(n))
    assert "kind" in difference(kernel(n), kernel(n, "vector"))
    assert "extent" in difference(kernel(n), kernel(ceildiv(n, 2))) or difference(
        kernel(n), kernel(ceildiv(n, 2))
    )
    a, b = (graph("g", [p := param("x", tensor("f32", n))], [OPS[o](p)]) for o in ("neg", "exp"))
    assert difference(a, b) == "g: node 1: neg and exp"


def test_size_of_the_work_is_linear():
    """Deep graphs print and parse without recursion."""
    p = param("x", tensor("f32", var("n")))
    y = p
    for _ in range(3000):
        y = OPS["neg"](y)
    text = to_text(graph("main", [p], [y]))
    assert to_text(parse(text, OPS)) == text
