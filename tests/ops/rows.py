"""Running one row of the operator table in its several definitions, and comparing results."""

from __future__ import annotations

import numpy as np

from tensorwright.ir import scalar
from tensorwright.ir.dtype import dtype
from tensorwright.ir.expr import Buffer, Symbol, sym
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.interp import run_graph, run_kernel
from tensorwright.ir.loop import Kernel, free_symbols
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import TensorType, TupleType, leaves, tensor
from tensorwright.ops.table import OPS
from tests.ops.samples import Case

# Relative tolerance of one rounding in a type, with room for a few of them.
TOLERANCE = {"f64": 1e-12, "f32": 2e-6, "f16": 2e-3, "bf16": 1.6e-2}


def all_rows() -> list[OpDef]:
    """Every row of the table."""
    return list(OPS)


def build(case: Case, params) -> Node:
    return case.op(*params, **case.attrs)


def run_reference(case: Case, arrays, precise: bool = False) -> list[np.ndarray]:
    """Through the interpreter, which also checks shapes against the type rule."""
    params = case.params()
    return run_nodes(case, params, [build(case, params)], arrays, precise)


def run_expansion(case: Case, arrays) -> list[np.ndarray]:
    """A composite through the references of what it expands to."""
    params = case.params()
    result = case.op.expand(*params, **case.attrs)
    return run_nodes(case, params, result if isinstance(result, tuple) else (result,), arrays)


def run_nodes(case: Case, params, results, arrays, precise: bool = False) -> list[np.ndarray]:
    """The results on the arrays; one more operand a symbol tells its value."""
    sizes = [param(f"size_of_{s.name}", tensor("bool", sym(s))) for s in case.values]
    known = [np.zeros(v, bool) for v in case.values.values()]
    g = graph("row", [p for p in params if p is not None] + sizes, results)
    return flat(run_graph(g, [a for a in arrays if a is not None] + known, precise=precise))


def run_lowering(case: Case, arrays, values: dict[Symbol, int]) -> list[np.ndarray]:
    """A primitive through its loop nest."""
    params = case.params()
    type_ = build(case, params).type
    outs = tuple(Buffer(f"y{k}", t.dtype, t.shape) for k, t in enumerate(leaves(type_)))
    ins = [p and Buffer(p.name, p.dtype, p.shape) for p in params]
    body = case.op.lower(outs if isinstance(type_, TupleType) else outs[0], *ins, **case.attrs)
    buffers = tuple(b for b in ins if b is not None)
    scalars = [s for s in free_symbols(body) if s in values]
    kernel = Kernel(case.op.name, (*buffers, *outs), len(outs), body, tuple(scalars))
    return run_kernel(kernel, [a for a in arrays if a is not None], values)


def flat(results) -> list[np.ndarray]:
    if isinstance(results, (list, tuple)):
        return [a for r in results for a in flat(r)]
    return [results]


def assert_same(actual: list, expected: list, what: str, scale: float = 1.0) -> None:
    """Equal up to rounding: floats by the tolerance of their type, the rest exactly."""
    assert len(actual) == len(expected), what
    for a, e in zip(actual, expected):
        assert a.shape == e.shape, f"{what}: shape {a.shape}, expected {e.shape}"
        assert a.dtype == e.dtype, f"{what}: type {a.dtype}, expected {e.dtype}"
        name = dtype(a.dtype).name
        tolerance = TOLERANCE.get(name, 0.0) * scale
        a, e = (comparable(v) for v in (a, e))
        if tolerance:
            finite = np.abs(e[np.isfinite(e)]).astype(np.float64)
            size = max(finite.max(initial=0.0), 1e-30)
            np.testing.assert_allclose(a, e, tolerance, tolerance * min(size, 1e6), err_msg=what)
        else:
            np.testing.assert_array_equal(a, e, err_msg=what)


def comparable(array: np.ndarray) -> np.ndarray:
    """Narrow floats in a type that NumPy compares and prints well."""
    return array.astype(np.float32) if dtype(array.dtype).is_float and array.itemsize < 4 else array


def natural_types(case: Case, arrays) -> list[np.dtype]:
    """The types of what the reference itself gives on the operands as they are."""
    with np.errstate(all="ignore"):
        return [np.asarray(r).dtype for r in flat(case.op.reference(*arrays, **case.attrs))]


def is_wide(t: TensorType) -> bool:
    return not scalar.is_narrow(t.dtype)
