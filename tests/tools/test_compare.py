import numpy as np
import pytest

from tensorwright.base.errors import CompileError, FrontendError, RunError
from tensorwright.runtime.artifact import load
from tensorwright.tools.compare import compare, compared, named_values, tensors
from tensorwright.tools.program import compile
from tests.tools.modules import DIGITS, mlp

X = np.ones((3, 64), np.float32)


@pytest.fixture(scope="module")
def program():
    return compile(mlp())


def test_against_the_reference(program):
    found = program.compare("reference", X)
    assert found.ok and [d.name for d in found.outputs] == ["probabilities", "squashed"]
    assert "within tolerance" in str(found)


def test_random_inputs(program):
    assert compare(program).ok


def test_layers_are_what_kernels_leave(program):
    found = compare(program, "reference", X, layers=True)
    names = [d.name for d in found.layers]
    assert "logits" in names and "sum" not in names and all(d.ok for d in found.layers)


def test_layers_have_the_order_of_the_model():
    """Convolutions inside the program keep channels last."""
    program = compile(str(DIGITS))
    found = compare(program, "reference", layers=True)
    shapes = {d.name: d.shape for d in found.layers}
    assert shapes["r2"] == (1, 32, 8, 8) and shapes["p"] == (1, 32, 4, 4)
    assert found.first_bad_layer is None


def test_all_layers(program):
    found = compare(program, "reference", X, layers="all")
    assert [d.name for d in found.layers] == list(named_values(program.module.main))


def test_layers_match_by_onnx_names():
    pytest.importorskip("onnxruntime")
    found = compare(compile(str(DIGITS)), "onnxruntime", layers="all")
    assert found.ok and {"c1", "r1", "p", "logits"} <= {d.name for d in found.layers}
    assert found.first_bad_layer is None


def test_too_strict(program):
    found = compare(program, "reference", np.random.default_rng(0).random((3, 64)).astype("f4"),
                    tolerance=0.0)  # fmt: skip
    assert not found.ok and "OUTSIDE" in str(found)


def test_what_cannot_be_compared(program, tmp_path):
    with pytest.raises(FrontendError, match="runs ONNX models"):
        compare(program, "onnxruntime", X)
    with pytest.raises(FrontendError, match="can only run torch modules"):
        compare(program, "torch", X)
    with pytest.raises(CompileError, match="no engine 'mxnet'"):
        compare(program, "mxnet", X)
    program.save(tmp_path / "p.tw")
    with pytest.raises(FrontendError, match="does not hold"):
        compare(load(tmp_path / "p.tw"), "reference", X)


def test_sequences_are_compared_by_element():
    from onnx import helper

    from tests.errors.models import array, model, node, value

    m = model([node("SplitToSequence", ["x", "at"], ["s"]), node("SequenceAt", ["s", "k"], ["y"])],
              [value("x", [4, 3]), helper.make_tensor_value_info("k", 7, [])],
              [helper.make_value_info("s", helper.make_sequence_type_proto(
                  helper.make_tensor_type_proto(1, None)))], [array("at", 2)])  # fmt: skip
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = compile(m).compare("reference", x, np.int64(0))
    assert found.ok and [d.name for d in found.outputs] == ["s[0]", "s[1]"]
    assert list(tensors(["s"], [[x, [x[0]], None]])) == ["s[0]", "s[1][0]"]


def test_a_tensor_that_one_side_does_not_have(program):
    row = compared(program, "s[1]", X, None, None)
    assert not row.ok and row.shape == X.shape and row.note == "only in ours"
    row = compared(program, "s[1]", None, X, None)
    assert not row.ok and row.shape == X.shape and row.note == "only in the other"


def test_values_of_data_types_are_not_made_up():
    from onnx import helper

    from tests.errors.models import model, node

    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [3]))
    m = model([node("SequenceLength", ["s"], ["y"])], [helper.make_value_info("s", kind)],
              [helper.make_tensor_value_info("y", 7, [])])  # fmt: skip
    program = compile(m)
    with pytest.raises(RunError, match="no value is made up"):
        program.compare("reference")
    assert program.compare("reference", [np.ones(3, np.float32)] * 2).ok
