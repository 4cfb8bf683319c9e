"""Every row of the table on its own samples: batched over lanes it gives the stack of its results.

For each sample the lanes are on all operands, and on each operand alone.
"""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.batching.control import CONTROL
from tensorwright.batching.lanes import batch_graph
from tensorwright.batching.rules import FEW, RULES
from tensorwright.driver.compile import compile
from tensorwright.ir.expr import var
from tensorwright.ir.graph import Graph, graph, param
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import tensor
from tensorwright.ops.control import items
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.positions import bind_size, full
from tests.ops.rows import all_rows, assert_same, build, flat
from tests.ops.samples import Case, cases

LANES = 3
ROWS = [op for op in all_rows() if op.samples]
STRUCTURE = ("item", "make_tuple", "call")  # taken apart by the engine itself
WALKS = ("census", "plant", "read_rows")  # over values of data types, which have no lanes


def row_graph(case: Case) -> Graph:
    params = case.params()
    y = build(case, params)
    return graph("main", [p for p in params if p is not None], items(y))


def patterns(count: int) -> list[tuple[bool, ...]]:
    """Which operands have lanes: all, and each of them alone."""
    alone = [tuple(j == k for j in range(count)) for k in range(count)]
    return list(dict.fromkeys([(True,) * count, *alone]))


def lanes_of(case: Case) -> list[list[np.ndarray]]:
    """As many sets of operands as there are lanes."""
    return [[a for a in case.arrays(seed) if a is not None] for seed in range(LANES)]


def batched_inputs(lanes, on) -> list[np.ndarray]:
    return [np.stack([lane[k] for lane in lanes]) if one else lanes[0][k]
            for k, one in enumerate(on)]  # fmt: skip


def expected(g: Graph, lanes, on) -> list[np.ndarray]:
    each = [flat(run_graph(g, [lane[k] if one else lanes[0][k] for k, one in enumerate(on)]))
            for lane in lanes]  # fmt: skip
    return [np.stack(column) for column in zip(*each)]


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
def test_batched_row(op: OpDef):
    for case in (c.static() for c in cases(op)):
        g, lanes = row_graph(case), lanes_of(case)
        for on in patterns(len(g.params)):
            if not on:
                continue
            found = flat(run_graph(batch_graph(g, on, LANES), batched_inputs(lanes, on)))
            assert_same(found, expected(g, lanes, on), f"{case.name} lanes on {on}", scale=8)


def test_every_primitive_has_a_rule():
    lacking = [op.name for op in all_rows() if op.expand is None and op.params and op not in RULES
               and op.name not in (*CONTROL, *STRUCTURE, *WALKS)]  # fmt: skip
    assert not lacking


NATIVE = [op for op in ROWS if op in RULES and op.expand is None and len(op.samples) < 14][::3]


@pytest.mark.parametrize("op", NATIVE, ids=lambda op: op.name)
def test_compiled(op: OpDef):
    case = next(cases(op)).static()
    g, lanes = row_graph(case), lanes_of(case)
    if not g.params:
        pytest.skip("no operands")
    on = (True,) * len(g.params)
    program = compile(Module({"main": batch_graph(g, on, LANES)}), threads=1)
    found = [np.asarray(y) for y in flat(program(*batched_inputs(lanes, on)))]
    assert_same(found, expected(g, lanes, on), case.name, scale=8)


def test_a_size_of_each_example_is_refused():
    n = var("n", min=0)
    x = param("x", tensor("i64"))
    bind_size(x, symbols=(n,))
    g = graph("main", [x], [full(shape=(n,), value=0, dtype="f32")])
    with pytest.raises(CompileError, match="size of a value that differs"):
        batch_graph(g, [True], 3)


@pytest.mark.parametrize("size", [1, 3, FEW, None])
def test_a_shared_matrix_times_vectors(size):
    """Few vectors are the first operand, so that nothing moves behind the product."""
    w, x = param("w", tensor("f32", 5, 4)), param("x", tensor("f32", 4))
    lanes = size or var("lanes", min=1)
    product = dot_general(w, x, batch=((), ()), contract=((1,), (-1,)))
    g = batch_graph(graph("main", [w, x], [product]), (False, True), lanes)
    names = [n.op.name for n in g.nodes()]
    assert ("transpose" in names) == (size in (1, FEW, None))
    random = np.random.default_rng(0)
    a, b = random.random((5, 4), np.float32), random.random((size or 2, 4), np.float32)
    np.testing.assert_allclose(flat(run_graph(g, [a, b]))[0], b @ a.T, rtol=1e-6)
