"""Core ATen: at least 95 % of the operators agree with torch on their sample calls."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

from tests.conformance.torch_ops import coverage, markdown

UNSUPPORTED = {"_fft_c2r.default", "_fft_r2c.default"}  # complex numbers


@pytest.mark.filterwarnings("ignore")
def test_core_aten_coverage():
    rows = coverage()
    good = [r for r in rows if r.is_supported]
    bad = {r.name: r.problem for r in rows if not r.is_supported and r.name not in UNSUPPORTED}
    assert len(good) >= 0.95 * len(rows), bad
    assert "| `add.Tensor` |" in markdown(rows)
