import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tensorwright.frontend.onnx_model import read_model
from tensorwright.frontend.onnx_raw import LARGE, TOKEN, take_out


def model(*arrays: np.ndarray) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(a, f"w{k}") for k, a in enumerate(arrays)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    g = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y], weights)
    return helper.make_model(g, producer_name="test")


ARRAYS = (
    np.arange(5000, dtype=np.float32).reshape(50, 100), np.ones(3, np.int64),
    np.arange(9000) % 7 == 0, np.arange(LARGE + 1, dtype=np.uint8).reshape(1, -1),
    np.full(3000, -3, np.float16),
)  # fmt: skip


def test_large_tensors_are_taken_out():
    data = model(*ARRAYS).SerializeToString()
    rest, taken = take_out(memoryview(data))
    assert len(taken) == 4 and len(rest) < 2000
    parsed = onnx.ModelProto.FromString(rest)
    assert parsed.producer_name == "test"
    for t, a in zip(parsed.graph.initializer, ARRAYS):
        assert list(t.dims) == list(a.shape)
        assert taken.get(t.raw_data, t.raw_data) == a.tobytes()


@pytest.mark.parametrize("as_file", [True, False])
def test_weights_are_read(tmp_path, as_file):
    data = model(*ARRAYS).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    found = read_model(tmp_path / "m.onnx" if as_file else data).graph.initializers
    (tmp_path / "m.onnx").unlink()
    for k, a in enumerate(ARRAYS):
        assert found[f"w{k}"].dtype == a.dtype and np.array_equal(found[f"w{k}"], a)
        if a.nbytes > LARGE and a.dtype != bool:
            assert found[f"w{k}"].ctypes.data % 64 == 0


def test_a_model_of_small_tensors_comes_back_whole():
    data = model(ARRAYS[1]).SerializeToString()
    assert take_out(memoryview(data)) == (data, {})


@given(st.integers(0, 400), st.integers(0, 255))
def test_damaged_bytes_never_fail_here(at, byte):
    data = bytearray(model(ARRAYS[0]).SerializeToString())
    data[at % len(data)] = byte
    rest, taken = take_out(memoryview(data))
    assert taken or rest == bytes(data)
    assert all(len(token) == TOKEN for token in taken)


def test_a_cut_file_comes_back_whole():
    data = model(ARRAYS[0]).SerializeToString()
    for size in (1, 40, len(data) - 1):
        assert take_out(memoryview(data)[:size]) == (data[:size], {})
