"""Groups become kernels: names, sharing, sources, symbols, and the same results."""

from dataclasses import replace

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.type import tensor
from tensorwright.ops.control import if_
from tensorwright.ops.elementwise import add, exp, mul, neg
from tensorwright.ops.kernel import fused
from tensorwright.ops.movement import reshape, transpose
from tensorwright.ops.reduce import reduce_sum
from tensorwright.passes.fuse import fuse
from tensorwright.passes.lower import define_kernel, lower
from tensorwright.target.host import find
from tests.ops.rows import all_rows
from tests.passes.equivalence import assert_equal_results, module, op_names, x_of

HOST = find("host")


def test_one_kernel_for_equal_groups():
    x, y = x_of(3, 4), x_of(3, 4, name="y")
    m = lower(fuse(module((neg(exp(x)), neg(exp(y))), x, y), HOST))
    assert list(m.kernels) == ["exp_neg"] and op_names(m) == ["call_kernel"] * 2


def test_different_shapes_are_different_kernels():
    x, y = x_of(3, 4), x_of(4, 3, name="y")
    m = lower(module((exp(x), exp(y)), x, y))
    assert len(m.kernels) == 2 and len(set(m.kernels)) == 2


def test_symbolic_sizes_become_scalars():
    n = var("n", min=0, max=9)
    x = x_of(n, 4)
    m = lower(module(exp(x), x))
    (k,) = m.kernels.values()
    assert [s.name for s in k.symbols] == ["n"]
    (call,) = m.main.results
    assert len(call.attrs["scalars"]) == 1
    (y,) = run_module(m, [np.ones((2, 4), np.float32)])
    np.testing.assert_allclose(y, np.e, rtol=1e-6)


def test_the_size_of_what_is_reduced_is_a_scalar_too():
    n = var("n", min=1, max=9)
    x = x_of(n)
    y = reduce_sum(mul(x, x))
    (k,) = lower(fuse(module(y, x), HOST)).kernels.values()
    assert [s.name for s in k.symbols] == ["n"]


def test_views_and_control_flow_stay_on_the_host():
    c, x = param("c", tensor("bool")), x_of(2, 3)
    p, q = x_of(2, 3, name="p"), x_of(2, 3, name="q")
    y = if_(c, x, then=graph("a", [p], [neg(p)]), orelse=graph("b", [q], [exp(q)]))
    m = lower(module(reshape(y, shape=(6,)), c, x))
    assert op_names(m) == ["if_", "reshape"]
    assert sorted(m.kernels) == ["exp", "neg"]


def test_temporaries_are_allocated_in_the_kernel():
    x = x_of(4)
    inner = x_of(4, name="p")
    k = define_kernel("chain", graph("g", [inner], [neg(exp(inner))]))
    scopes = [b.scope for b in (s.buffer for s in ir.statements(k.body) if isinstance(s, ir.Alloc))]
    assert scopes == ["temp"] and k.outputs == 1
    after = lower(module(fused(x, body=graph("g", [inner], [neg(exp(inner))])), x))
    assert_equal_results(module(neg(exp(x)), x), after)


def test_kernels_remember_where_they_come_from():
    x = x_of(4)
    a = replace(exp(x), loc=("layer.0",))
    b = replace(neg(a), loc=("layer.1",))
    (k,) = lower(fuse(module(b, x), HOST)).kernels.values()
    assert k.sources == ("layer.0", "layer.1")


def test_scalar_constants_are_literals():
    x = x_of(4)
    m = lower(fuse(module(add(exp(x), constant(np.float32(2.0))), x), HOST))
    (k,) = m.kernels.values()
    assert [p.shape for p in k.params] == [(4,), (4,)]


def test_what_has_no_kernel_is_named():
    softmax = {op.name: op for op in all_rows()}["softmax"]
    x = x_of(3, 4)
    with pytest.raises(CompileError, match="softmax has no kernel"):
        lower(module(softmax(x, axis=1), x))


def test_work_is_counted():
    x = x_of(10, 20)
    (k,) = lower(module(transpose(x, perm=(1, 0)), x)).kernels.values()
    assert int(k.work[1].value) == 2 * 4 * 200
