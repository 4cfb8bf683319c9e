"""Every differentiable row against finite differences, in float64, in one random direction.

For a random cotangent c and direction v of the float operands,
    <c, (f(x + h v) - f(x - h v)) / 2h>   must equal   <gradient(f)(x, c), v>.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorwright.autodiff.backward import gradient
from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import DType, f64
from tensorwright.ir.expr import var
from tensorwright.ir.graph import Graph, constant, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import TensorType, TupleType, tensor
from tensorwright.ops.control import if_, item, items, scan_, while_
from tensorwright.ops.elementwise import add, exp, less, mul, sin
from tensorwright.ops.reduce import reduce_sum
from tests.ops.rows import all_rows, build, flat
from tests.ops.samples import Case, cases

STEP = 1e-6


def is_differentiable(op) -> bool:
    return bool(op.samples) and (op.gradient is not None or op.expand is not None)


ROWS = [op for op in all_rows() if is_differentiable(op)]


def in_float64(case: Case) -> Case:
    """The case, static, with every float type replaced by f64."""
    static = case.static()
    operands = tuple(
        o and replace(o, type=TensorType(wide(o.type.dtype), o.type.shape)) for o in static.operands
    )
    attrs = {k: wide(v) if isinstance(v, DType) else v for k, v in static.attrs.items()}
    return replace(static, operands=operands, attrs=attrs)


def wide(d: DType) -> DType:
    return f64 if d.is_float and d.bits >= 16 else d


def row_graph(case: Case) -> Graph:
    """The row as a graph with its float results, tuples taken apart."""
    params = case.params()
    y = build(case, params)
    parts = [item(y, index=k) for k in range(len(y.type.items))] if isinstance(
        y.type, TupleType) else [y]  # fmt: skip
    results = [p for p in parts if p.dtype is f64]
    return graph("row", [p for p in params if p is not None], results)


def usable(case: Case) -> bool:
    """Some operand to differentiate by, none of them at a point chosen for being singular."""
    floats = [o for o in case.operands if o and o.type.dtype is f64]
    return bool(floats) and all(o.domain not in ("special", "0:0") for o in floats)


def evaluate(g: Graph, arrays) -> list[np.ndarray]:
    return [np.asarray(y) for y in flat(run_graph(g, arrays))]


def inner(pairs) -> float:
    return float(sum(np.vdot(a, b) for a, b in pairs))


def check(g: Graph, arrays: list[np.ndarray], label: str, tolerance: float = 2e-5) -> None:
    random = np.random.default_rng(7)
    floats = [k for k, p in enumerate(g.params) if p.dtype is f64]
    along = {k: random.standard_normal(arrays[k].shape) for k in floats}

    def moved(h: float) -> list[np.ndarray]:
        return evaluate(g, [x + h * along[k] if k in along else x for k, x in enumerate(arrays)])

    with np.errstate(invalid="ignore"):
        slopes = [(a - b) / (2 * STEP) for a, b in zip(moved(STEP), moved(-STEP))]
    smooth = [np.isfinite(d) for d in slopes]  # not at infinities and edges of a domain
    seeds = [np.where(s, random.standard_normal(s.shape), 0.0) for s in smooth]
    expected = inner((c, np.where(s, d, 0.0)) for c, s, d in zip(seeds, smooth, slopes))
    grads = evaluate(gradient(g, floats, cotangents=True), [*arrays, *seeds])[len(slopes) :]
    actual = inner((d, along[k]) for d, k in zip(grads, floats))
    size = max(sum(np.abs(c).sum() for c in seeds), abs(expected), 1.0)
    assert abs(actual - expected) <= tolerance * size, (
        f"{label}: gradient {actual}, finite difference {expected}"
    )


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
def test_gradient_of_row(op):
    for case in map(in_float64, cases(op)):
        if not usable(case):
            continue
        try:
            g = row_graph(case)
        except CompileError:  # the row does not take f64 there (a cast from a narrow type)
            continue
        if g.results:
            check(g, [a for a in case.arrays() if a is not None], case.name)


def test_a_shared_node_collects_both_paths():
    x = param("x", tensor("f64", 3))
    y = exp(x)
    loss = reduce_sum(add(mul(y, y), sin(y)))
    check(graph("g", [x], [loss]), [np.array([0.1, -0.4, 0.9])], "shared")


def test_scalar_loss_needs_no_cotangent():
    x = param("x", tensor("f64", 3))
    joint = gradient(graph("g", [x], [reduce_sum(mul(x, x))]))
    assert joint.result_names == ("y0", "d_x") and joint.params == (x,)
    _, dx = run_graph(joint, [np.arange(3.0)])
    np.testing.assert_array_equal(dx, 2 * np.arange(3.0))


def test_symbolic_shapes_and_unused_parameters():
    n = var("n", min=1)
    x, b, unused = (param(name, tensor("f64", *s)) for name, s in
                    (("x", (n, 4)), ("b", (4,)), ("unused", (n,))))  # fmt: skip
    joint = gradient(graph("g", [x, b, unused], [mul(exp(x), b)]), wrt=["b", "unused"])
    arrays = [np.ones((2, 4)), np.ones(4), np.ones(2), np.ones((2, 4))]
    y, db, zero = run_graph(joint, arrays)
    np.testing.assert_allclose(db, 2 * np.e * np.ones(4))
    assert zero.tolist() == [0.0, 0.0] and y.shape == (2, 4)


def test_errors_name_the_parameter():
    x, k = param("x", tensor("f32", 3)), param("k", tensor("i64", 3))
    g = graph("g", [x, k], [mul(x, x)])
    with pytest.raises(CompileError, match="no parameter 'w'"):
        gradient(g, wrt=["w"])
    with pytest.raises(CompileError, match="k is i64"):
        gradient(g, wrt=["k"])
    with pytest.raises(CompileError, match="one float result of one element"):
        gradient(g, cotangents=False)


def vector(name: str, *shape):
    return param(name, tensor("f64", *shape))


def test_branches():
    c, x, w = param("c", tensor("bool")), vector("x", 3), vector("w", 3)
    a, b = vector("a", 3), vector("b", 3)
    p, q = vector("p", 3), vector("q", 3)
    then = graph("then", [a, b], [mul(a, exp(b)), sin(a)])
    orelse = graph("orelse", [p, q], [q, mul(p, p)])
    y = if_(c, x, w, then=then, orelse=orelse)
    g = graph("g", [c, x, w], [item(y, index=0), item(y, index=1)])
    for taken in (True, False):
        check(g, [np.array(taken), np.array([0.3, -0.4, 1.0]), np.array([1.0, 2.0, -1.0])], "if_")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("collected", ["nothing", "new", "old"])
def test_scan(reverse, collected):
    n = var("n", min=0)
    h0, xs, w = vector("h0", 2), vector("xs", n, 2), vector("w", 2)
    h, x, v = vector("h", 2), vector("x", 2), vector("v", 2)
    after = sin(add(mul(h, v), x))
    more = {"nothing": [], "new": [mul(after, x)], "old": [h]}[collected]
    y = scan_(h0, xs, w, body=graph("body", [h, x, v], [after, *more]), carried=1, scanned=1,
              reverse=reverse)  # fmt: skip
    g = graph("g", [h0, xs, w], items(y))
    random = np.random.default_rng(1)
    for steps in (0, 1, 4):
        arrays = [random.standard_normal(s) for s in ((2,), (steps, 2), (2,))]
        if steps or collected == "nothing":  # nothing collected has no elements to stack
            check(g, arrays, f"scan_ of {steps} steps")


def test_a_loop_of_unknown_length_has_no_gradient():
    x, a, b = vector("x"), vector("a"), vector("b")
    limit = constant(np.float64(3.0))
    y = while_(x, cond=graph("cond", [a], [less(a, limit)]),
               body=graph("body", [b], [mul(b, 2.0)]), carried=1)  # fmt: skip
    with pytest.raises(CompileError, match="while_ runs an unknown number of steps"):
        gradient(graph("g", [x], [y]))
