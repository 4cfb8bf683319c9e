"""Conversions of narrow floats as integer expressions, on every code and between all of them."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.codegen.legalize import Legalizer
from tensorwright.codegen.narrow import FORMATS, NARROW_FLOATS
from tensorwright.ir import scalar
from tensorwright.ir.dtype import SUBBYTE, bf16, f8e8m0, f16, f32, f64
from tensorwright.ir.expr import Buffer, cast, walk
from tensorwright.target.host import find
from tests.codegen.scalars import Case, Library, kernel, same

TYPES = sorted(NARROW_FLOATS, key=lambda t: t.name)
TARGETS = ("x86-64-sse4.2", "host")


def convert(values: np.ndarray, a, b, target: str) -> np.ndarray:
    case = Case(f"cast_{a}_{b}", a, b, 1, lambda x: cast(x, b), None)
    k = kernel(case, len(values), 16)
    return Library([k], target).run(k, [np.ascontiguousarray(values)])


def codes(t) -> np.ndarray:
    return np.arange(1 << t.bits, dtype=f"u{t.bytes}").view(t.numpy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("t", TYPES, ids=str)
def test_every_code_is_read(t, target: str):
    found = convert(codes(t), t, f32, target)
    with np.errstate(all="ignore"):
        assert same(found, codes(t).astype(np.float32)).all()


def beside(t) -> np.ndarray:
    """Every number of a type, the middles between neighbours, and what is next to both."""
    with np.errstate(all="ignore"):
        numbers = codes(t).astype(np.float64)
        numbers = np.unique(numbers[np.isfinite(numbers)])
        ends = [0.0, np.inf, -np.inf, np.nan, 1e-300, 1e300, t.max * 1.1, -t.max * 1.1]
        points = np.concatenate([numbers, (numbers[1:] + numbers[:-1]) / 2, ends])
        return np.concatenate([points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [f32, f64], ids=str)
@pytest.mark.parametrize("t", [t for t in TYPES if t is not f8e8m0], ids=str)
def test_rounded_once(t, source, target: str):
    with np.errstate(all="ignore"):
        values = beside(t).astype(source.numpy)
        if len(values) > 30000:
            values = values[:: len(values) // 30000]
        expected = np.array([scalar.cast(v, source, t) for v in values], t.numpy)
    ok = same(convert(values, source, t, target), expected)
    ok |= np.isnan(values) & (t in SUBBYTE)  # there is no NaN to give
    assert ok.all(), values[~ok][:5]


def test_powers_of_two():
    values = [1.0, 1.49, 1.5, 2.9, 3.0, 0.0, -1.0, np.nan, np.inf, 2.0**-127, 2.0**-126]
    values = np.array(values, np.float32)
    found = convert(values, f32, f8e8m0, "host").view(np.uint8)
    assert found.tolist() == [127, 127, 128, 128, 129, 255, 255, 255, 254, 0, 1]


def test_instructions_are_used_where_there_are():
    x = Buffer("x", f32, ())[()]
    assert Legalizer(find("x86-64-avx2"))(cast(x, f16)) is cast(x, f16)
    old = Legalizer(find("x86-64-sse4.2"))(cast(x, f16))
    assert all(e.op != "cast" or f16 not in (e.dtype, e.args[0].dtype) for e in walk(old))
    assert f16 in FORMATS and bf16 not in FORMATS
