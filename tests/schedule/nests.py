"""Small loop nests to schedule, and whether two kernels compute the same."""

from __future__ import annotations

import numpy as np

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Symbol, as_dim, as_expr, const, fma, sym
from tensorwright.ir.interp import run_kernel
from tensorwright.ir.loop import Alloc, For, Kernel, Stmt, Store, loops, seq

N = Symbol("n", min=1)
Dim = int | str  # "n" is the symbolic size


def dim(d: Dim):
    return sym(N) if d == "n" else d


def map_kernel(*sizes: Dim) -> Kernel:
    """y[i, j] = 2 x[i, j] + x[i, 0]"""
    shape = [dim(d) for d in sizes]
    x, y = Buffer("x", f32, shape), Buffer("y", f32, shape)

    def body(*i):
        return Store(y, i, x[i] * 2.0 + x[(*i[:-1], const(0))])

    return kernel("double", [x], y, loops("ijk", shape, body))


def product_kernel(m: Dim, n: Dim, k: Dim) -> Kernel:
    """z[i, j] = sum over r of x[i, r] w[r, j]"""
    m, n, k = dim(m), dim(n), dim(k)
    x, w, z = Buffer("x", f32, (m, k)), Buffer("w", f32, (k, n)), Buffer("z", f32, (m, n))

    def body(i, j):
        def step(r):
            return Store(z, (i, j), fma(x[i, r], w[r, j], z[i, j]))

        return seq(Store(z, (i, j), const(0.0, f32)), ir.loop("r", k, step))

    return kernel("product", [x, w], z, loops("ij", (m, n), body))


def sum_of_two_kernel(m: Dim, outer: Dim, inner: Dim) -> Kernel:
    """s[i] = sum over q and r of x[i, q, r]"""
    m, outer, inner = dim(m), dim(outer), dim(inner)
    x, s = Buffer("x", f32, (m, outer, inner)), Buffer("s", f32, (m,))

    def body(i):
        add = lambda q, r: Store(s, (i,), s[(i,)] + x[i, q, r])
        step = ir.loop("q", outer, lambda q: ir.loop("r", inner, lambda r: add(q, r)))
        return seq(Store(s, (i,), const(0.0, f32)), step)

    return kernel("total", [x], s, loops("i", (m,), body))


def sum_kernel(m: Dim, k: Dim, op: str = "add") -> Kernel:
    """s[i] = sum (or another reduction) over r of x[i, r]"""
    from tensorwright.ir.expr import binary

    m, k = dim(m), dim(k)
    x, s = Buffer("x", f32, (m, k)), Buffer("s", f32, (m,))
    start = const({"add": 0.0, "mul": 1.0, "max": -9.0, "min": 9.0}[op], f32)

    def body(i):
        step = ir.loop("r", k, lambda r: Store(s, (i,), binary(op, s[(i,)], x[i, r])))
        return seq(Store(s, (i,), start), step)

    return kernel("total", [x], s, loops("i", (m,), body))


def chain_kernel(m: Dim, n: Dim) -> Kernel:
    """t = -x; y[i, j] = t[i, j] * t[i, n - 1 - j], through a temporary"""
    m, n = dim(m), dim(n)
    x, y = Buffer("x", f32, (m, n)), Buffer("y", f32, (m, n))
    t = Buffer("t", f32, (m, n), "temp")
    first = loops("ij", (m, n), lambda i, j: Store(t, (i, j), -x[i, j]))
    last = as_expr(n) - 1
    second = loops("ij", (m, n), lambda i, j: Store(y, (i, j), t[i, j] * t[i, last - j]))
    return kernel("chain", [x], y, seq(Alloc(t), first, second))


def kernel(name: str, inputs, out: Buffer, body: Stmt) -> Kernel:
    symbols = tuple(s for s in ir.free_symbols(body))
    return Kernel(name, (*inputs, out), 1, body, symbols)


def loop_of(k: Kernel, name: str, which: int = 0) -> Symbol:
    """The variable of a loop, by its name."""
    found = [s.var for s in ir.statements(k.body) if isinstance(s, For) and s.var.name == name]
    return found[which]


def operands(k: Kernel, size: int, seed: int = 0) -> list[np.ndarray]:
    """Integers, so that sums are exact in every order."""
    random = np.random.default_rng(seed)
    shapes = [[size if not isinstance(as_dim(d), int) else as_dim(d) for d in b.shape]
              for b in k.inputs]  # fmt: skip
    return [random.integers(-4, 5, s).astype(np.float32) for s in shapes]


def assert_same(before: Kernel, body: Stmt, size: int = 5, **changed) -> None:
    """`body` in place of the kernel's own gives the same results."""
    from dataclasses import replace

    after = replace(before, body=body, **changed)
    given = operands(before, size)
    values = {s: size for s in before.symbols}
    expected = run_kernel(before, given, values)
    for a, e in zip(run_kernel(after, given, values), expected):
        np.testing.assert_array_equal(a, e)
