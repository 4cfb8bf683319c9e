"""A few seconds of mutated ONNX models; `python -m tests.fuzz.fuzz_onnx` runs for longer."""

import pytest

from tests.fuzz.fuzz_onnx import fuzz


@pytest.mark.filterwarnings("ignore")
def test_mutated_models_end_in_typed_errors():
    counts, findings = fuzz(8, seed=3)
    assert not findings, list(findings)
    assert counts["ok"] and counts["FrontendError"]
