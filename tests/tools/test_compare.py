import numpy as np
import pytest

from tensorwright.base.errors import CompileError, FrontendError
from tensorwright.runtime.artifact import load
from tensorwright.tools.compare import compare, named_values
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
