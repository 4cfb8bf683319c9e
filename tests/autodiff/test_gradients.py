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
from tensorwright.ir.graph import Graph, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.type import TensorType, TupleType, tensor
from tensorwright.ops.elementwise import add, exp, mul, sin
from tensorwright.ops.reduce import reduce_sum
from tests.ops.rows import all_rows, build, flat
from tests.ops.samples import Case, cases

STEP = 1e-6


def is_differentiable(op) -> bool:
    return bool(op.samples) and (op.gradient is not None or op.expand is not None)


BY_NAME = {op.name: op for op in all_rows()}
ROWS = [op for op in BY_NAME.values() if is_differentiable(op)]


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
    parts = [BY_NAME["item"](y, index=k) for k in range(len(y.type.items))] if isinstance(
        y.type, TupleType) else [y]  # fmt: skip
    results = [p for p in parts if p.dtype.is_float]
    return graph("row", [p for p in params if p is not None], results)


def usable(case: Case) -> bool:
    return any(o and o.type.dtype is f64 and o.domain != "special" for o in case.operands)


def check(g: Graph, arrays: list[np.ndarray], label: str, tolerance: float = 2e-5) -> None:
    random = np.random.default_rng(7)
    joint = gradient(g, cotangents=True)
    values = [np.asarray(y) for y in flat(run_graph(g, arrays))]
    seeds = [random.standard_normal(y.shape) for y in values]
    floats = [k for k, p in enumerate(g.params) if p.dtype.is_float]
    grads = flat(run_graph(joint, [*arrays, *seeds]))[len(values) :]
    directions = {k: random.standard_normal(arrays[k].shape) for k in floats}

    def moved(h: float) -> float:
        point = [x + h * directions[k] if k in directions else x for k, x in enumerate(arrays)]
        return sum(np.vdot(c, y) for c, y in zip(seeds, flat(run_graph(g, point))))

    expected = (moved(STEP) - moved(-STEP)) / (2 * STEP)
    actual = sum(np.vdot(d, directions[k]) for d, k in zip(grads, floats))
    size = sum(np.abs(c).sum() for c in seeds) + abs(expected)
    assert abs(actual - expected) <= tolerance * max(size, 1.0), (
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
    from tensorwright.ir.expr import var

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
