"""Reading ONNX files: every claim of a file is checked."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx_model import read_model
from tensorwright.frontend.onnx_tensor import TensorReader


def model(nodes, inputs, outputs, initializers=(), opset=18, functions=()):
    g = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(g, opset_imports=imports, functions=list(functions))


def value(name, *dims, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, list(dims))


def relu(x="x", y="y"):
    return helper.make_node("Relu", [x], [y], name="/relu")


def test_records():
    m = read_model(model([relu()], [value("x", "n", 3)], [value("y", "n", 3)]))
    (node,) = m.graph.nodes
    assert (node.op, node.inputs, node.outputs) == ("Relu", ("x",), ("y",))
    assert m.graph.inputs[0].shape == ("n", 3)
    assert m.opsets[""] == 18


@pytest.mark.parametrize(
    "nodes, message",
    [
        ([relu("z")], "defines its input 'z'"),
        ([relu("b", "a"), relu("a", "b"), relu("a", "y")], "cyclic"),
        ([relu(), relu()], "defined twice"),
        ([helper.make_node("Relu", ["x"], ["z"])], "nothing computes output 'y'"),
        ([helper.make_node("", ["x"], ["y"])], "names no operator"),
    ],
)
def test_malformed_graphs(nodes, message):
    with pytest.raises(FrontendError, match=message):
        read_model(model(nodes, [value("x", 3)], [value("y", 3)]))


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_truncated(cut):
    raw = model([relu()], [value("x", 3)], [value("y", 3)]).SerializeToString()
    with pytest.raises(FrontendError):
        read_model(raw[:-cut])


def test_not_a_model():
    for junk in (b"", b"\x00" * 64, b"not a model at all"):
        with pytest.raises(FrontendError):
            read_model(junk)
    with pytest.raises(FrontendError, match="cannot be read"):
        read_model("/nonexistent/model.onnx")
    with pytest.raises(FrontendError):
        read_model(3)


def test_deep_nesting():
    g = helper.make_graph([relu()], "g", [value("x", 3)], [value("y", 3)])
    for _ in range(28):
        node = helper.make_node("Loop", ["m"], ["y"], body=g)
        g = helper.make_graph([node], "g", [value("m", kind=7)], [value("y", 3)])
    with pytest.raises(FrontendError, match="nested"):
        read_model(helper.make_model(g).SerializeToString())


# ---- tensors ------------------------------------------------------------------------------------


NUMBERS = (*range(1, 8), *range(9, 14), *range(16, 24))


@pytest.mark.parametrize("number", NUMBERS)
def test_element_types_survive(number):
    d = np.dtype(helper.tensor_dtype_to_np_dtype(number))
    if d.kind == "c":
        pytest.skip("complex numbers have no element type here")
    a = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(d)
    found = TensorReader(None).read(numpy_helper.from_array(a, "t"))
    assert found.dtype == d
    assert np.array_equal(found.astype(np.float64), a.astype(np.float64))


TYPED = (
    (TensorProto.FLOAT, [1.5, -2.0]),
    (TensorProto.INT64, [1, -2]),
    (TensorProto.FLOAT16, [1.0, 2.0]),
    (TensorProto.BOOL, [1, 0]),
    (TensorProto.UINT32, [1, 4000000000]),
    (TensorProto.INT4, [-8, 7]),
)


@pytest.mark.parametrize("kind, values", TYPED)
def test_typed_fields(kind, values):
    found = TensorReader(None).read(helper.make_tensor("t", kind, [2], values))
    assert found.astype(np.float64).tolist() == [float(v) for v in values]


def test_sizes_are_checked():
    t = numpy_helper.from_array(np.zeros(4, np.float32), "t")
    t.dims[0] = 1 << 50
    with pytest.raises(FrontendError, match=r"needs .* bytes and has 16"):
        TensorReader(None).read(t)
    t.dims[0] = -4
    with pytest.raises(FrontendError, match="negative"):
        TensorReader(None).read(t)
    with pytest.raises(FrontendError, match="too large"):
        TensorReader(None).read(TensorProto(data_type=1, dims=[0, (1 << 63) - 1]))
    with pytest.raises(FrontendError, match="element type 77"):
        TensorReader(None).read(TensorProto(data_type=77))


def test_sparse():
    values = numpy_helper.from_array(np.array([5.0, 7.0], np.float32))
    flat = helper.make_sparse_tensor(values, helper.make_tensor("i", 7, [2], [1, 5]), [2, 3])
    pairs = helper.make_sparse_tensor(
        values, helper.make_tensor("i", 7, [2, 2], [0, 1, 1, 2]), [2, 3]
    )
    for s in (flat, pairs):
        assert TensorReader(None).read_sparse(s).tolist() == [[0, 5, 0], [0, 0, 7]]
    flat.dims[0] = 1 << 50
    with pytest.raises(FrontendError, match="too large"):
        TensorReader(None).read_sparse(flat)
    outside = helper.make_sparse_tensor(values, helper.make_tensor("i", 7, [2], [1, 6]), [2, 3])
    with pytest.raises(FrontendError, match="outside"):
        TensorReader(None).read_sparse(outside)


# ---- external data ------------------------------------------------------------------------------


def external(location, **more):
    t = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    t.data_location = TensorProto.EXTERNAL
    for k, v in {"location": location, **more}.items():
        t.external_data.add(key=k, value=v)
    return t


def test_external_data(tmp_path):
    data = np.arange(6, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(data.tobytes())
    m = model([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", 4)], [value("y", 4)],
              [external("w.bin", offset="8", length="16")])  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(m.SerializeToString())
    found = read_model(tmp_path / "m.onnx").graph.initializers["w"]
    assert found.tolist() == [2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    "location, more, message",
    [
        ("/etc/hostname", {}, "absolute"),
        ("../w.bin", {}, "leaves"),
        ("a/../../w.bin", {}, "leaves"),
        ("C:\\w.bin", {}, "absolute"),
        ("", {}, "no location"),
        ("missing", {}, "missing"),
        ("w.bin", {"offset": "20"}, "bytes"),
        ("w.bin", {"offset": "-8"}, "offset"),
        ("w.bin", {"length": "99999999999"}, "ends at byte"),
        ("link/secret.bin", {}, "leads out"),
    ],
)
def test_external_data_is_confined(tmp_path, location, more, message):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "w.bin").write_bytes(bytes(16))
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(FrontendError, match=message):
        TensorReader(inside).read(external(location, **more))


def test_external_data_needs_a_folder():
    with pytest.raises(FrontendError, match="not read from a file"):
        TensorReader(None).read(external("w.bin"))
