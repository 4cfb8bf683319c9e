"""Functions of their own for hot sizes."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import CompileError, FrontendError
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.interp import run_module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.verify import verify
from tensorwright.ops.elementwise import add, mul
from tensorwright.ops.linalg import matmul
from tensorwright.ops.reduce import reduce_sum
from tensorwright.ops.table import BY_NAME
from tensorwright.passes.specialize import specialize
from tests.passes.equivalence import module, x_of

HOT = Symbol("s", min=1, max=64, hot=(16, "%8"))


def net(s: Symbol = HOT):
    """x[s, 8] and w[8, 8] to two results."""
    x, w = x_of(sym(s), 8), x_of(8, 8, name="w")
    y = matmul(x, w)
    return module((add(y, 1.0), reduce_sum(mul(y, y), axes=(0,))), x, w)


def arrays(n: int) -> list[np.ndarray]:
    r = np.random.default_rng(n)
    return [r.standard_normal(s).astype(np.float32) for s in ((n, 8), (8, 8))]


def expected(x, w):
    y = x.astype(np.float64) @ w
    return y + 1, (y * y).sum(0)


def test_a_function_for_every_hot_size():
    m = specialize(net())
    verify(m)
    assert set(m.graphs) == {"main", "main_any", "main_s16", "main_s8x"}
    assert str(m.graphs["main_s8x"].params[0].type) == "f32[s * 8, 8]"
    assert to_text(parse(to_text(m), BY_NAME)) == to_text(m)
    for n in (1, 8, 16, 17, 24):
        for a, b in zip(run_module(m, arrays(n)), expected(*arrays(n))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_program_chooses_while_it_runs():
    p = tw.compile(net())
    kernels = {k.name for k in p.manifest.kernels}
    for n in (1, 3, 8, 16, 17, 24, 64):
        x, w = arrays(n)
        for a, b in zip(p(x, w), expected(x, w)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    ran = {n: {r.kernel for r in p.profile(*arrays(n)).rows if r.kernel in kernels}
           for n in (16, 24, 17)}  # fmt: skip
    assert len(set(map(frozenset, ran.values()))) == 3  # each has kernels of its own


def test_two_hot_dimensions():
    a, b = Symbol("a", min=1, hot=(4,)), Symbol("b", min=1, hot=(8,))
    x = x_of(sym(a), sym(b))
    m = specialize(module(add(x, 1.0), x))
    assert m.main.results[0].attrs["hot"] == ("main_a4_b8", "main_a4", "main_b8")
    for shape in ((4, 8), (4, 5), (3, 8), (3, 5)):
        assert (run_module(m, [np.ones(shape, np.float32)])[0] == 2).all()


def test_what_cannot_be_specialized():
    with pytest.raises(CompileError, match="none that it takes"):
        specialize(net(Symbol("s", min=1, max=8, hot=(9,))))
    many = [Symbol(f"n{k}", min=1, hot=(1, 2)) for k in range(3)]
    x = x_of(*map(sym, many))
    with pytest.raises(CompileError, match="combinations"):
        specialize(module(add(x, 1.0), x))


def test_the_shape_language_declares_hot_sizes():
    @tw.function
    def f(x: tw.f32["n", 8]):
        return x * 2

    p = tw.compile(f, shapes="x: n[1..512]*{128, %16}, 8")
    assert set(p.lowered.graphs) == {"main", "main_any", "main_n128", "main_n16x"}
    for n in (128, 32, 5):
        assert p(np.ones((n, 8), np.float32)).shape == (n, 8)
    with pytest.raises(FrontendError, match="lists no hot"):
        tw.compile(f, shapes="x: n*{%0}, 8")
