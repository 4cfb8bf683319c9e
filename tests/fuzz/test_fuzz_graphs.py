"""Random graphs three ways: interpreted, compiled as defined, compiled with all passes.

What is allowed to differ is measured: the interpreter runs again in double precision and on inputs
moved by a rounding error, and results may differ by a small multiple of what that changes.
"""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.ir.dtype import dtype
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import Graph
from tensorwright.ir.interp import run_graph
from tensorwright.ir.module import Module
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import type_symbols
from tests.codegen.unscheduled import compile_as_defined
from tests.fuzz.graphs import Maker
from tests.ops.rows import flat

ROUNDING = {"f64": 1e-13, "f32": 1e-6, "f16": 2e-3, "bf16": 2e-2}
EXAMPLES = 70


def run_compiled(m: Module, inputs) -> list[np.ndarray]:
    with options(cache="off"):
        return flat(compile(m, threads=2, verify=True)(*inputs))


def input_arrays(g: Graph, size: int, random) -> list[np.ndarray]:
    arrays = []
    for p in g.params:
        shape = [evaluate(d, dict.fromkeys(symbols(g), size)) for d in p.shape]
        values = random.uniform(-2, 2, shape) if p.dtype.is_float else random.integers(-4, 5, shape)
        arrays.append(values.astype(p.dtype.numpy))
    return arrays


def symbols(g: Graph) -> set:
    return type_symbols(*(p.type for p in g.params))


def allowed(g: Graph, inputs, expected) -> list[np.ndarray]:
    """How far from `expected` each element may be."""

    def moved(a, sign):
        rounding = ROUNDING.get(dtype(a.dtype).name, 0.0)
        return (a.astype(np.float64) * (1 + sign * rounding)).astype(a.dtype) if rounding else a

    tries = [[moved(a, s) for a in inputs] for s in (1, -1)]
    others = [flat(run_graph(g, t)) for t in tries]
    others.append(flat(run_graph(g, inputs, precise=True)))
    worst = max((ROUNDING.get(n.dtype.name, 0) for n in g.nodes()), default=0)
    limits = []
    for k, e in enumerate(expected):
        wide = e.astype(np.float64)
        scale = np.abs(wide[np.isfinite(wide)]).max(initial=1e-6)
        spread = max_of(np.abs(np.asarray(o[k]).astype(np.float64) - wide) for o in others)
        floats = dtype(e.dtype).is_float
        limits.append(
            40 * np.nan_to_num(spread, nan=np.inf) + (20 * worst * scale if floats else 0)
        )
    return limits


def max_of(arrays):
    arrays = list(arrays)
    with np.errstate(invalid="ignore"):
        return np.maximum.reduce(arrays)


def assert_close(found, expected, limits, what: str, m: Module) -> None:
    for f, e, limit in zip(found, expected, limits, strict=True):
        assert f.shape == e.shape and f.dtype == e.dtype, f"{what}\n{to_text(m)}"
        wide_f, wide_e = f.astype(np.float64), e.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = (wide_f == wide_e) | (np.isnan(wide_f) & np.isnan(wide_e))
            near = np.abs(wide_f - wide_e) <= limit
        unsure = ~np.isfinite(limit) | (~np.isfinite(wide_e) & (limit > 0))
        bad = ~(same | near | unsure)
        assert not bad.any(), (
            f"{what}: {f[bad][:3]}, expected {e[bad][:3]} +- {limit[bad][:3]}\n{to_text(m)}"
        )


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.data(), st.integers(0, 1 << 16), st.integers(1, 9), st.sampled_from([1, 2, 7, 16, 19]))
def test_compiled_graphs(data, seed: int, steps: int, size: int):
    g = Maker(lambda options: data.draw(st.sampled_from(list(options))), seed).graph(steps)
    check(g, size, seed)


def check(g: Graph, size: int, seed: int) -> None:
    m = Module({"main": g})
    inputs = input_arrays(g, size, np.random.default_rng(seed))
    with np.errstate(all="ignore"):
        expected = flat(run_graph(g, inputs))
        limits = allowed(g, inputs, expected)
    assert_close(flat(compile_as_defined(m)(*inputs)), expected, limits, "as defined", m)
    assert_close(run_compiled(m, inputs), expected, limits, "compiled", m)
