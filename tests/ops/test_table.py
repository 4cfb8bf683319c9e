"""Every row of the operator table, on its own samples.

infer against what really comes out; the loop nest against the reference, with symbolic and with
static shapes; a composite's expansion against its reference.
"""

from __future__ import annotations

import pytest

from tensorwright.base.errors import CompileError
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import leaves
from tensorwright.ops.table import incomplete
from tests.ops.rows import (
    all_rows,
    assert_same,
    build,
    is_wide,
    natural_types,
    run_expansion,
    run_lowering,
    run_reference,
)
from tests.ops.samples import cases, parse

ROWS = all_rows()
by_name = pytest.mark.parametrize("op", ROWS, ids=lambda op: op.name)


def test_names_are_unique():
    names = [op.name for op in ROWS]
    assert sorted(names) == sorted(set(names))


def test_one_to_one_names_are_unique():
    onnx = [op.onnx for op in ROWS if op.onnx]
    torch = [name for op in ROWS for name in op.torch]
    assert len(onnx) == len(set(onnx)) and len(torch) == len(set(torch))


@by_name
def test_row_is_complete(op: OpDef):
    assert op.doc and "\n" not in op.doc
    assert incomplete(op) == []


@by_name
def test_infer_agrees_with_reference(op: OpDef):
    """The interpreter compares shapes; element types of the plain NumPy result count as well."""
    for case in cases(op):
        arrays = case.arrays()
        if op.reference is None:
            continue
        results = run_reference(case, arrays)
        static = case.static()
        types = leaves(build(static, static.params()).type)
        assert [r.shape for r in results] == [t.shape for t in types], case.name
        if all(is_wide(t) for t in (*types, *filter(None, case.types()))):
            expected = [t.dtype.numpy for t in types]
            assert natural_types(static, arrays) == expected, case.name


@by_name
def test_lowering_agrees_with_reference(op: OpDef):
    for case in cases(op) if op.lower and op.reference else ():
        arrays = case.arrays()
        expected = run_reference(case, arrays)
        assert_same(run_lowering(case, arrays, case.values), expected, case.name)
        if case.values:
            static = case.static()
            assert_same(run_lowering(static, arrays, {}), expected, f"{case.name}, static")


def extremes(op: OpDef):
    """The symbolic samples with every symbol 0 and 1, where the type rule takes that."""
    for text in op.samples:
        first = next(parse(op, text))
        names = [s.name for s in first.values]
        if names:
            words = [w for w in text.split() if w.split("=")[0] not in names]
            yield from parse(op, " ".join([*words, *(f"{n}=0,1" for n in names)]))


@by_name
def test_empty_and_single_extents(op: OpDef):
    for case in extremes(op) if op.lower and op.reference else ():
        try:
            build(case, case.params())
            types = leaves(build(case.static(), case.static().params()).type)
            if any(d < 0 for t in types for d in t.shape):  # a window wider than what it slides on
                continue
            arrays = case.arrays()
            expected = run_reference(case.static(), arrays)
        except (CompileError, ValueError, IndexError):  # refused, or NumPy has no answer either
            continue
        assert_same(run_lowering(case, arrays, case.values), expected, case.name)


@by_name
def test_float64_mode_agrees(op: OpDef):
    """The interpreter's precise mode, which error bounds are measured against."""
    for case in cases(op) if op.reference else ():
        if not_only_rounding(case):
            continue
        arrays = case.arrays()
        precise = run_reference(case, arrays, precise=True)
        expected = run_reference(case, arrays)
        found = [p.astype(e.dtype) for p, e in zip(precise, expected, strict=True)]
        assert_same(found, expected, case.name, scale=8)


def not_only_rounding(case) -> bool:
    """A conversion changes values on purpose, and special values overflow differently."""
    converts = case.op.name in ("cast", "bitcast") or "dtype" in case.attrs
    return converts or any(o and o.domain == "special" for o in case.operands)


@by_name
def test_expansion_agrees_with_reference(op: OpDef):
    for case in cases(op) if op.expand and op.reference else ():
        arrays = case.arrays()
        assert_same(run_expansion(case, arrays), run_reference(case, arrays), case.name, scale=4)
