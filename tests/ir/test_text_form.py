"""The text form of every row of the operator table: round trip, verification, running as Python.

Each sample gives a graph of one node and, for primitives, a kernel. Printing, parsing and printing
again changes nothing; the parsed program is the same; the text itself runs under plain Python.
"""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.ir.compare import difference
from tensorwright.ir.dtype import dtype
from tensorwright.ir.expr import Buffer
from tensorwright.ir.graph import graph
from tensorwright.ir.interp import run_graph, run_kernel
from tensorwright.ir.loop import Kernel, free_symbols
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.scalar import is_narrow
from tensorwright.ir.type import TupleType, leaves
from tensorwright.ir.verify import verify
from tensorwright.ops import prelude
from tests.ops.rows import all_rows
from tests.ops.samples import Case, cases

ROWS = all_rows()
BY_NAME = {op.name: op for op in ROWS}
_SIZE = 4000  # plain Python is slow: larger samples only make the round trip


def graph_of(case: Case):
    params = case.params()
    return graph("main", [p for p in params if p is not None], [case.op(*params, **case.attrs)])


def kernel_of(case: Case) -> Kernel:
    params = case.params()
    type_ = case.op(*params, **case.attrs).type
    outs = tuple(Buffer(f"y{k}", t.dtype, t.shape) for k, t in enumerate(leaves(type_)))
    ins = [p and Buffer(p.name, p.dtype, p.shape) for p in params]
    body = case.op.lower(outs if isinstance(type_, TupleType) else outs[0], *ins, **case.attrs)
    buffers = tuple(b for b in ins if b is not None)
    return Kernel(case.op.name, (*buffers, *outs), len(outs), body, tuple(free_symbols(body)))


def check_round_trip(m: Module) -> str:
    verify(m)
    text = to_text(m)
    parsed = parse(text, BY_NAME, m.constants())
    assert to_text(parsed) == text
    assert not difference(parsed, m), text
    assert not difference(m, parsed), text
    verify(parsed)
    return text


def load(text: str) -> dict:
    """The text run as the body of a Python file."""
    names = {name: getattr(prelude, name) for name in prelude.__all__}
    exec(compile(text, "<dump>", "exec", dont_inherit=True), names)
    return names


def flat(results) -> list[np.ndarray]:
    if isinstance(results, (list, tuple)):
        return [a for r in results for a in flat(r)]
    return [np.asarray(results)]


def assert_equal(found, expected, text: str) -> None:
    for a, b in zip(flat(found), flat(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, text
        if a.dtype not in (np.float32, np.float64) and is_narrow(dtype(a.dtype)):
            a, b = a.astype(np.float32), b.astype(np.float32)
        np.testing.assert_array_equal(a, b, err_msg=text)


def solvable(m: Module) -> bool:
    """Whether the symbols of the entry can be found from its parameters."""
    try:
        verify(m)
    except Exception as e:
        return "cannot be found" not in str(e) and "not bound" not in str(e)
    return True


@pytest.mark.parametrize("op", [op for op in ROWS if op.samples], ids=lambda op: op.name)
def test_graph(op):
    for case in cases(op):
        g = graph_of(case)
        m = Module({"main": g})
        if not solvable(m):
            continue
        text = check_round_trip(m)
        arrays = [a for a in case.arrays() if a is not None]
        if sum(a.size for a in arrays) < _SIZE:
            assert_equal(load(text)["main"](*arrays), run_graph(g, arrays), text)


@pytest.mark.parametrize("op", [op for op in ROWS if op.samples and op.lower], ids=lambda o: o.name)
def test_kernel(op):
    for case in cases(op):
        k = kernel_of(case)
        text = check_round_trip(Module({}, {k.name: k}))
        arrays = [a for a in case.arrays() if a is not None]
        if sum(a.size for a in arrays) < 300:
            with np.errstate(all="ignore"):
                expected = run_kernel(k, arrays, case.values)
            name = text.partition("\ndef ")[2].partition("(")[0]
            outputs = [np.zeros_like(e) for e in expected]
            numbers = [case.values[s] for s in k.symbols]
            load(text)[name](*arrays, *outputs, *numbers)
            assert_equal(outputs, expected, text)
