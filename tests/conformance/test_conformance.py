"""The ONNX backend tests through the reference interpreter, and a sample of them natively."""

import pytest

from tests.conformance.cases import load_cases
from tests.conformance.run import PROMISED, check, executor

LEAST = 0.98  # of the cases on tensors
# One case an operator and a few of each kind of trouble: narrow types, sizes computed from data.
NATIVE = (
    "test_add_bcast", "test_conv_with_strides_padding", "test_gemm_all_attributes",
    "test_reshape_negative_dim", "test_slice_negative_axes", "test_nonzero_example",
    "test_loop11", "test_if", "test_scan9_sum", "test_lstm_with_peepholes",
    "test_attention_4d_gqa_causal", "test_qlinearconv", "test_cast_FLOAT_to_FLOAT8E4M3FN",
    "test_dequantizelinear_int4", "test_top_k_negative_axis", "test_einsum_batch_matmul",
    "test_resize_upsample_scales_linear", "test_nonmaxsuppression_two_classes",
    "test_unique_sorted_with_axis", "test_range_float_type_positive_delta",
)  # fmt: skip


@pytest.fixture(scope="module")
def cases():
    return load_cases(["node", "simple", "pytorch-operator", "pytorch-converted"])


@pytest.mark.filterwarnings("ignore")
def test_reference(cases):
    prepare = executor("reference")
    promised = [c for c in cases if c.group == PROMISED]
    outcomes = {c.name: check(c, prepare) for c in promised}
    bad = {n: r.get("why") for n, r in outcomes.items() if r["status"] in ("wrong", "crash")}
    assert not bad
    passed = sum(r["status"] == "pass" for r in outcomes.values())
    assert passed >= LEAST * len(promised)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.filterwarnings("ignore")
def test_native(cases, name):
    (case,) = [c for c in cases if c.name == name]
    outcome = check(case, executor("native"))
    assert outcome["status"] == "pass", outcome
