import numpy as np
import pytest

from tensorwright.ir import facts
from tensorwright.ir.dtype import f32, i64
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.activations import relu
from tensorwright.ops.elementwise import add, exp
from tensorwright.ops.index import gather
from tensorwright.ops.linalg import matmul
from tensorwright.passes.cost import kernel_cost
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.lower import lower

N = Symbol("n", 1)


def cost(result, *params, n=1):
    """(flops, bytes) of the only kernel of a graph."""
    m = lower(expand_composites(Module({"main": graph("main", params, [result])})))
    (k,) = m.kernels.values()
    return tuple(facts.evaluate(e, {N: n}) for e in kernel_cost(k))


@pytest.mark.parametrize("n", [1, 5, 64])
def test_matmul(n):
    x, w = param("x", tensor(f32, sym(N), 64)), param("w", tensor(f32, 64, 32))
    flops, moved = cost(matmul(x, w), x, w, n=n)
    assert flops == 2 * n * 64 * 32
    assert moved == 4 * (n * 64 + 64 * 32 + n * 32)


def test_elementwise():
    x = param("x", tensor(f32, 10))
    assert cost(exp(x), x) == (10, 80)


def test_gather_counts_what_is_read():
    table, ids = param("table", tensor(f32, 30000, 8)), param("ids", tensor(i64, 4))
    assert cost(gather(table, ids, axis=0), table, ids)[1] == 4 * 8 * 4 * 2 + 4 * 8


def test_gather_of_more_than_the_table_counts_the_table():
    table, ids = param("table", tensor(f32, 2, 8)), param("ids", tensor(i64, 100))
    assert cost(gather(table, ids, axis=0), table, ids)[1] == 2 * 8 * 4 + 100 * 8 * 4 + 100 * 8


def test_work_reaches_the_manifest():
    from tensorwright.driver.compile import compile

    x, w = param("x", tensor(f32, sym(N), 8)), param("w", tensor(f32, 8, 8))
    program = compile(Module({"main": graph("main", [x, w], [relu(add(matmul(x, w), 1.0))])}))
    profile = program.profile(np.ones((4, 8), np.float32), np.ones((8, 8), np.float32))
    row = next(r for r in profile.rows if "dot_general" in r.kernel)
    assert row.gflops * row.time_ns == pytest.approx(row.calls * (2 * 4 * 8 * 8 + 2 * 4 * 8))
