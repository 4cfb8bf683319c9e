import pickle

import pytest

from tensorwright.base import errors

WHOLE = """\
error: matmul: inner dimensions differ: x.shape[1] is 16, w.shape[0] is 8
  at mlp.onnx, node "/fc1/MatMul"
  note: n: 1..4096
  note: x: f32[n, 16]
        w: f32[8, 16]
  help: transpose w"""


def whole() -> errors.CompileError:
    return errors.CompileError(
        "matmul: inner dimensions differ: x.shape[1] is 16, w.shape[0] is 8",
        notes=("n: 1..4096", "x: f32[n, 16]\nw: f32[8, 16]"),
        help="transpose w",
        location='mlp.onnx, node "/fc1/MatMul"',
    )


def test_an_error_renders_all_its_parts():
    assert str(whole()) == WHOLE


def test_a_bare_error_is_one_line():
    assert str(errors.RunError("no")) == "error: no"
    assert str(errors.InternalError("ours")) == "internal error: ours"


@pytest.mark.parametrize(
    "kind",
    [
        errors.FrontendError,
        errors.CompileError,
        errors.RunError,
        errors.ArtifactError,
        errors.InternalError,
    ],
)
def test_all_kinds_share_one_base(kind):
    assert issubclass(kind, errors.TensorwrightError)


def test_errors_cross_process_borders():
    assert str(pickle.loads(pickle.dumps(whole()))) == WHOLE
