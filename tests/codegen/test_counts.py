"""Instructions of AArch64 as they are executed: products spend them on multiply-adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import counts
from benchmarks.schedules import model
from tensorwright.ir.interp import run_module
from tensorwright.target.host import find

pytestmark = pytest.mark.skipif(counts.IS_MISSING, reason=counts.NEEDED)


def test_a_product_is_multiply_adds(tmp_path):
    """Tiles of 7 and 6 rows, with a bias and a maximum behind each."""
    m, arrays, _ = model("matmul", (34, 256, 96))
    (found,), functions = counts.counted(m, arrays, tmp_path)
    np.testing.assert_allclose(found, run_module(m, arrays)[0], 1e-5, 1e-5)
    loops = counts.hot_loops(functions)
    assert sum(c.multiply_adds for c in loops) == 34 * 256 * 96 // 4
    assert counts.joined(loops).share >= 0.85
    assert not any(c.spills for c in loops)


def test_a_convolution_is_multiply_adds(tmp_path):
    m, arrays, _ = model("direct convolution", (10, 64, 64, 3, 1))
    direct = replace(find("aarch64"), fast_math=0)
    (found,), functions = counts.counted(m, arrays, tmp_path, direct)
    np.testing.assert_allclose(found, run_module(m, arrays)[0], 1e-4, 1e-4)
    loops = counts.hot_loops(functions)
    assert counts.joined(loops).share >= 0.85
    assert not any(c.spills for c in loops)


def test_loops():
    """The innermost of two loops; a branch ahead makes none."""
    text = [(0, "mov", ""), (4, "fmla", "v0.4s, v1.4s, v2.s[0]"), (8, "b.lt", "4 <f+0x4>"),
            (12, "cbz", "x0, 20 <f+0x14>"), (16, "b", "0 <f>"), (20, "ret", "")]  # fmt: skip
    times = [2, 10, 10, 2, 1, 1]
    code = counts.Code(tuple(counts.Instruction(*t, n) for t, n in zip(text, times)))
    (inner,) = code.loops()
    assert [i.address for i in inner.body] == [4, 8]
    assert (inner.executed, inner.multiply_adds, inner.share) == (20, 10, 0.5)
