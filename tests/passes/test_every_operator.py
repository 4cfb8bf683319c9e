"""All graph passes, one after the other, on every operator's own samples and on random graphs.

An operator is wrapped so that the passes have something to do: its first operand arrives through a
transpose there and back, and what is constant in it may be folded.
"""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.ir.dtype import dtype
from tensorwright.ir.facts import solve
from tensorwright.ir.graph import Node, constant, graph
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import TensorType, TupleType, leaves
from tensorwright.ir.verify import verify
from tensorwright.ops.control import item
from tensorwright.ops.movement import transpose
from tensorwright.passes.attention import recognise_attention
from tensorwright.passes.convolutions import shape_convolutions
from tensorwright.passes.expand import expand_composites
from tensorwright.passes.layout import assign_layouts
from tensorwright.passes.narrow import narrow
from tensorwright.passes.shapes import simplify_shapes
from tensorwright.passes.simplify import clean, simplify
from tests.ops.rows import all_rows, build
from tests.ops.samples import Case, cases
from tests.passes.equivalence import assert_equal_results, module
from tests.passes.test_layout import grow, x_of

PASSES = (
    simplify_shapes, clean, recognise_attention, expand_composites, simplify, narrow,
    assign_layouts, clean, shape_convolutions, clean,
)  # fmt: skip
TOLERANCE = {"f64": 1e-5, "f32": 2e-4, "f16": 2e-2, "bf16": 8e-2}
RANDOM = ("random_bits", "uniform", "normal", "bernoulli", "multinomial", "dropout")
ROWS = [op for op in all_rows() if op.samples and op.name not in RANDOM]


def turned(x: Node | None) -> Node | None:
    """x, through two transposes that cancel."""
    if x is None or not isinstance(x.type, TensorType) or x.rank < 2:
        return x
    back = tuple(reversed(range(x.rank)))
    return transpose(transpose(x, perm=back), perm=back)


def wrapped(case: Case, fixed: dict[int, np.ndarray]) -> Module | None:
    """The operator on parameters, those in `fixed` being constants."""
    params = case.params()
    operands = [constant(fixed[k]) if k in fixed else p for k, p in enumerate(params)]
    y = build(case, (turned(operands[0]), *operands[1:]) if operands else ())
    results = [y]
    if isinstance(y.type, TupleType):
        results = [item(y, index=k) for k in range(len(y.type.items))]
    own = [p for k, p in enumerate(params) if p is not None and k not in fixed]
    found = {step.symbol for step in solve([d for p in own for d in p.shape]).steps}
    if set(case.values) - found:  # a symbol that no parameter would give
        return None
    return Module({"main": graph("main", own, results)})


def run_passes(m: Module) -> Module:
    for f in PASSES:
        m = f(m)
        verify(m)
    return m


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)
def test_operator_keeps_its_meaning(op):
    for case in cases(op):
        arrays = case.arrays()
        static = {k: a for k, a in enumerate(arrays) if k and a is not None}
        for fixed in ({}, static) if static and not case.values else ({},):
            m = wrapped(case, fixed)
            if m is None:
                continue
            inputs = [a for k, a in enumerate(arrays) if a is not None and k not in fixed]
            expected, found = run_module(m, inputs), run_module(run_passes(m), inputs)
            for e, f, r in zip(expected, found, m.main.results, strict=True):
                assert_close(np.asarray(f), np.asarray(e), leaves(r.type)[0].dtype, case.name)


def assert_close(found, expected, d, what: str) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape, what
    if not dtype(d).is_float:
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    tol = TOLERANCE.get(d.name, 0.3)
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=tol, atol=tol, err_msg=what)


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed):
    rng = np.random.default_rng(100 + seed)
    params = [x_of(2, 4, 3, 4, name="x"), x_of(1, 2, 6, name="y")]
    values = list(params)
    for _ in range(25):
        new = grow(rng, values)
        if np.prod(new.shape) < 3000:
            values.append(new)
    before = module(values[-3:], *params)
    assert_equal_results(before, run_passes(before), tol=1e-3)
