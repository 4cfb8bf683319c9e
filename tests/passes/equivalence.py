"""Whether a pass keeps the meaning of a graph: both sides interpreted on the same random data."""

from __future__ import annotations

import numpy as np

import tensorwright.ir.build  # noqa: F401  (makes operators callable)
from tensorwright.ir.dtype import dtype
from tensorwright.ir.facts import evaluate
from tensorwright.ir.graph import Graph, Node, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.type import leaves, tensor, type_symbols
from tensorwright.ir.verify import verify

SPECIAL = (0.0, -0.0, 1.5, -2.5, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-40)


def module(results, *params: Node) -> Module:
    """A module of one graph."""
    results = results if isinstance(results, (list, tuple)) else (results,)
    return Module({"main": graph("main", params, results)})


def x_of(*shape, d="f32", name="x") -> Node:
    return param(name, tensor(d, *shape))


def op_names(m: Module) -> list[str]:
    """Operators of the main graph in order, without parameters and constants."""
    return [n.op.name for n in m.main.nodes() if n.op.name not in ("param", "const")]


def random_inputs(g: Graph, rng, sizes: dict | None = None, special: bool = False) -> list:
    """One array a parameter; symbols take the values of `sizes` (by name) or small ones."""
    values = {}
    for p in g.params:
        for s in sorted(type_symbols(p.type), key=lambda s: s.name):
            low = max(s.min or 0, 2)
            values[s] = (sizes or {}).get(s.name, low - low % -s.multiple_of)
    return [_value(leaves(p.type)[0], values, rng, special) for p in g.params]


def _value(t, values, rng, special: bool):
    shape = [evaluate(d, values) for d in t.shape]
    if t.dtype.kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if t.dtype.is_float:
        plain = rng.uniform(-2, 2, shape)
        odd = rng.choice(np.array(SPECIAL), shape)
        mixed = np.where(rng.uniform(size=shape) < 0.4, odd, plain) if special else plain
        with np.errstate(all="ignore"):
            return mixed.astype(t.dtype.numpy)
    return rng.integers(0 if t.dtype.kind == "uint" else -5, 6, shape).astype(t.dtype.numpy)


def assert_equal_results(
    before: Module, after: Module, sizes: dict | None = None, special=False, tol=1e-5, seed=0
) -> None:
    """Both modules are valid and give the same on random inputs. `special` mixes in infinities,
    NaN, and zeros of both signs; with tol=0 the signs of zeros must agree too."""
    verify(after)
    known = type_symbols(*(p.type for p in before.main.params))
    for a, b in zip(after.main.result_types, before.main.result_types, strict=True):
        assert a == b or type_symbols(b) - known, f"{b} became {a}"
    inputs = random_inputs(before.main, np.random.default_rng(seed), sizes, special)
    expected = run_module(before, inputs)
    found = run_module(after, inputs)
    for e, f in zip(expected, found, strict=True):
        compare(np.asarray(f), np.asarray(e), tol)


def compare(found: np.ndarray, expected: np.ndarray, tol: float) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if not dtype(expected.dtype).is_float:
        np.testing.assert_array_equal(found, expected)
        return
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=tol, atol=tol)
    if tol == 0:
        signs = [np.signbit(np.nan_to_num(v, nan=0.0)) for v in (found, expected)]
        np.testing.assert_array_equal(*signs)


def check_pass(f, before: Module, ops: list[str] | None = None, **how) -> Module:
    """Apply a pass: results stay, `ops` are what is left, and a second time changes nothing."""
    after = f(before)
    assert_equal_results(before, after, **how)
    if ops is not None:
        assert op_names(after) == ops
    again = f(after)
    assert again is after, f"not idempotent: {op_names(after)} -> {op_names(again)}"
    return after
