"""Host programs: sizes bound and checked, results in place, branches, loops, calls; interpreted."""

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import CompileError, RunError
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_module, run_program
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.memory.plan import plan_memory
from tensorwright.ops.control import call, if_, item, scan_, while_
from tensorwright.ops.elementwise import add, exp, less, mul, neg
from tensorwright.ops.movement import concat, reshape, slice
from tensorwright.ops.positions import bind_size, iota
from tensorwright.passes.host import lower_entry, lower_function
from tensorwright.passes.lower import lower
from tests.passes.equivalence import module, x_of


def host(m: Module):
    """(entry, constants, everything that it may call)."""
    m = lower(m)
    constants: dict = {}
    entry = lower_entry(m, constants)
    others = [lower_function(m, g, constants) for n, g in m.graphs.items() if n != m.entry]
    functions = {f.name: plan_memory(f) for f in others}
    arrays = [n.attrs["value"] for n in constants]
    return plan_memory(entry), arrays, {**m.kernels, **functions}


def run(m: Module, *inputs) -> list[np.ndarray]:
    entry, constants, functions = host(m)
    return run_program(entry, list(inputs), constants, functions)


def check(m: Module, *inputs) -> list[np.ndarray]:
    """The host program gives what the graph says."""
    found = run(m, *inputs)
    for a, b in zip(found, run_module(m, list(inputs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    return found


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)


def statements(m: Module, kind: type) -> list:
    return [s for s in ir.statements(host(m)[0].body) if isinstance(s, kind)]


def test_parts_of_a_result_are_computed_in_it():
    """Tensors one behind the other that something else needs as well."""
    n = var("n", min=0)
    x, y = x_of(n, 2), x_of(n + 1, 2, name="y")
    a, b = neg(x), exp(y)
    rows = slice(y, starts=(1, 0), stops=(n + 1, 2), steps=(1, 1))
    c = mul(a, rows)
    m = module((concat(a, b, c, axis=0), add(a, rows), exp(b), mul(c, a)), x, y)
    assert "concat" not in lower(m).kernels
    for size in (0, 1, 5):
        check(m, floats(size, 2), floats(size + 1, 2))
    m = module((concat(x, a, axis=0), exp(a)), x)  # nothing makes the parameter
    assert "concat" in lower(m).kernels
    check(m, floats(3, 2))
    m = module((concat(a, neg(a), axis=1), exp(a)), x)  # not one behind the other
    assert "concat" in lower(m).kernels
    check(m, floats(3, 2))


# ---- sizes ---------------------------------------------------------------------------------------


def test_sizes_come_from_the_inputs():
    n = var("n", min=1)
    x, y = x_of(n, 2), x_of(2 * n + 1, name="y")
    m = module((neg(x), exp(y)), x, y)
    check(m, floats(3, 2), floats(7))
    with pytest.raises(RunError, match=r"dimension 0 of input 'y' is 8, expected n \* 2 \+ 1 = 7"):
        run(m, floats(3, 2), floats(8))


def test_a_size_known_only_through_a_multiple():
    n = var("n", min=0)
    x = x_of(4 * n)
    m = module(neg(x), x)
    check(m, floats(8))
    with pytest.raises(RunError, match=r"is 6, which is not n \* 4"):
        run(m, floats(6))


@pytest.mark.parametrize(
    ("facts", "size", "message"),
    [
        ({"min": 2}, 1, "least value is 2"),
        ({"min": 1, "max": 4}, 5, "largest value is 4"),
        ({"min": 0, "multiple_of": 8}, 12, "not a multiple of 8"),
        ({"values": (2, 4)}, 3, "not one of 2, 4"),
    ],
)
def test_promises_are_checked(facts, size, message):
    x = x_of(var("n", **facts))
    with pytest.raises(RunError, match=message):
        run(module(neg(x), x), floats(size))


def test_a_size_that_no_input_gives_is_refused():
    n, k = var("n", min=1), var("k", min=1)
    x = x_of(n + k)
    with pytest.raises(CompileError, match="cannot be found from the shapes"):
        host(module(neg(x), x))


def test_a_size_computed_while_running():
    k = x_of(d="i64", name="k")
    n = var("n", min=0, max=100)
    bind_size(k, symbols=(n,))
    m = module(mul(iota(shape=(n,)), 2), k)
    (y,) = check(m, np.array(4))
    assert y.tolist() == [0, 2, 4, 6]


# ---- results -------------------------------------------------------------------------------------


def test_results_are_computed_in_place():
    x = x_of(4)
    assert not statements(module(neg(exp(x)), x), ir.Copy)


def test_an_input_as_a_result_is_copied():
    x = x_of(4)
    m = module((x, neg(x)), x)
    assert len(statements(m, ir.Copy)) == 1
    check(m, floats(4))


def test_one_value_as_two_results():
    x = x_of(4)
    y = neg(x)
    a, b = check(module((y, y, reshape(y, shape=(2, 2))), x), floats(4))[:2]
    assert not np.shares_memory(a, b)


def test_a_constant_as_a_result():
    check(module(constant(floats(3), "c")))


def test_views_copy_nothing():
    x = x_of(2, 6)
    m = module(neg(reshape(exp(x), shape=(3, 4))), x)
    assert statements(m, ir.View) and not statements(m, ir.Copy)
    check(m, floats(2, 6))


# ---- control flow --------------------------------------------------------------------------------


def test_if():
    c, x = param("c", tensor("bool")), x_of(3)
    p, q = x_of(3, name="p"), x_of(3, name="q")
    m = module(if_(c, x, then=graph("t", [p], [neg(p)]), orelse=graph("e", [q], [q])), c, x)
    for flag in (True, False):
        check(m, np.array(flag), floats(3))


def test_branches_of_different_sizes():
    c, x = param("c", tensor("bool")), x_of(3)
    p, q = x_of(3, name="p"), x_of(3, name="q")
    n = var("n", min=0, max=3)
    short = slice(p, starts=(0,), stops=(2,))
    then, orelse = graph("t", [p], [add(short, short)]), graph("e", [q], [neg(q)])
    m = module(if_(c, x, then=then, orelse=orelse, symbols=(n,)), c, x)
    program = tw.compile(m)
    for flag in (True, False):
        (expected,) = run_module(m, [np.array(flag), floats(3)])
        np.testing.assert_allclose(program(np.array(flag), floats(3)), expected)


def test_while_and_scan():
    n, x = x_of(d="i64", name="n"), x_of(3)
    p = [param("n", n.type), param("x", x.type)]
    q = [param("n", n.type), param("x", x.type)]
    t = while_(n, x, cond=graph("cond", p, [less(p[0], 5)]),
               body=graph("body", q, [add(q[0], 1), mul(q[1], q[1])]), carried=2)  # fmt: skip
    m = module((item(t, index=0), item(t, index=1)), n, x)
    for start in (0, 4, 9):
        check(m, np.array(start), floats(3))
    h, xs = x_of(2, name="h"), x_of(5, 2, name="xs")
    r = [param(k, h.type) for k in ("h", "x")]
    s = scan_(
        h, xs, body=graph("body", r, [add(r[0], r[1]), mul(r[0], r[1])]), carried=1, scanned=1
    )
    check(module((item(s, index=0), item(s, index=1)), h, xs), floats(2), floats(5, 2))


def test_swapped_state_is_not_overwritten_before_it_is_read():
    n, a, b = x_of(d="i64", name="n"), x_of(2, name="a"), x_of(2, name="b")
    state = lambda: [param(x.name, x.type) for x in (n, a, b)]
    p, q = state(), state()
    t = while_(n, a, b, cond=graph("cond", p, [less(p[0], 3)]),
               body=graph("body", q, [add(q[0], 1), q[2], q[1]]), carried=3)  # fmt: skip
    m = module((item(t, index=1), item(t, index=2)), n, a, b)
    check(m, np.array(0), floats(2), floats(2) + 5)


def test_calls_are_functions_of_the_host():
    n = var("n", min=1)
    p = x_of(n, name="p")
    double = graph("double", [p], [add(p, p)])
    x, y = x_of(3), x_of(5, name="y")
    made = [call(v, callee="double", type=v.type) for v in (x, y)]
    m = Module({"main": graph("main", [x, y], made), "double": double})
    _, _, functions = host(m)
    assert "graph_double" in functions
    check(m, floats(3), floats(5))
