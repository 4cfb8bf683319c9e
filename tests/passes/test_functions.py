"""Calls written out and specialized, against the interpreter on the module as it was."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.interp import run_module
from tensorwright.ir.parser import parse
from tensorwright.ir.verify import verify
from tensorwright.ops.table import BY_NAME
from tensorwright.passes.functions import resolve_functions
from tests.ir.test_data import FUNCTION, MAP, TREE, cells, leaf, node

SIZES = """\
n = sym()
m = sym()

@graph
def main(x: f32[n], y: f32[2*n]) -> (f32[n], f32[2*n]):
    a: f32[n] = call(x, callee='twice', type=f32[n])
    b: f32[2*n] = call(y, callee='twice', type=f32[2*n])
    return (a, b)

@graph
def twice(x: f32[m]) -> f32[m]:
    y: f32[m] = add(x, x)
    return y
"""


def names(m):
    return {n.op.name for g in m.all_graphs() for n in g.nodes()}


@pytest.mark.parametrize("text, inputs", [
    (TREE, [node(leaf(1, 2, 3), leaf(4, 5, 6))]),
    (MAP, [cells([1, 2], [3]), np.float32(1)]),
    (FUNCTION, [np.float32([1, 2]), np.float32([3, 5])]),
    (SIZES, [np.float32([1]), np.float32([2, 3])]),
])  # fmt: skip
def test_results_stay(text, inputs):
    m = parse(text, BY_NAME)
    after = resolve_functions(m)
    verify(after)
    for a, b in zip(run_module(m, inputs), run_module(after, inputs), strict=True):
        assert str(a) == str(b)


def test_calls_are_written_out():
    after = resolve_functions(parse(SIZES, BY_NAME))
    assert list(after.graphs) == ["main"] and "call" not in names(after)


def test_recursion_stays():
    after = resolve_functions(parse(TREE, BY_NAME))
    assert list(after.graphs) == ["main", "total"]


def test_functions_in_values_become_data():
    after = resolve_functions(parse(FUNCTION, BY_NAME))
    assert not names(after) & {"closure", "apply"}
    data = after.data_types()
    assert repr(data["Box"].case("Full").types[0]) == "Function"
    assert [c.name for c in data["Function"].cases] == ["F0"]


def test_programs_take_no_functions():
    text = """\
@graph
def main(f: function((f32[2],), f32[2]), x: f32[2]) -> f32[2]:
    y: f32[2] = apply(f, x)
    return y
"""
    with pytest.raises(CompileError, match="main takes or gives a function"):
        resolve_functions(parse(text, BY_NAME))
