"""Hostile ONNX models: one typed error, or the right answer; never anything else."""

from __future__ import annotations

import os
import random
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorwright as tw
from tensorwright.base.errors import CompileError, FrontendError, RunError
from tests.errors.models import (
    F32,
    I64,
    array,
    chain,
    dynamic_size,
    model,
    nested,
    network,
    node,
    unary,
    value,
)  # fmt: skip

X = np.arange(4, dtype=np.float32)
ONE = [value("x", [4])], [value("y", [4])]


def refused(m, *words: str, kind=FrontendError) -> None:
    with pytest.raises(kind) as caught:
        tw.compile(m)
    for word in words:
        assert word in str(caught.value)


def test_truncated_files():
    found = Counter()
    for m in (nested(2), network(8, 2)):
        raw = m.SerializeToString()
        for end in range(0, len(raw), 7):
            try:
                tw.compile(raw[:end])
                found["ok"] += 1
            except FrontendError:
                found["refused"] += 1
    assert found["refused"] > 50 and found["ok"] < 5


def test_random_bytes():
    rng = random.Random(1)
    for _ in range(200):
        with pytest.raises(FrontendError):
            tw.compile(rng.randbytes(rng.randrange(200)))


@pytest.mark.parametrize("nodes, word", [
    ([node("Add", ["x", "y"], ["a"]), node("Relu", ["a"], ["y"])], "'y'"),
    ([node("Add", ["x", "q"], ["y"])], "'q'"),
    ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], "defined twice"),
    ([node("Softmax", ["x"], ["y"], axis="a")], "axis"),
    ([node("Softmax", ["x"], ["y"], axis=1.5)], "axis"),
    ([node("Transpose", ["x"], ["y"], perm=3)], "perm"),
    ([node("Transpose", ["x"], ["y"], perm=[2**40])], "perm"),
    ([node("Relu", ["x"], ["a"])], "nothing computes output 'y'"),
])  # fmt: skip
def test_malformed_graphs(nodes, word):
    refused(model(nodes, *ONE), word)


@pytest.mark.parametrize("tensor, word", [
    (TensorProto(name="w", data_type=F32, dims=[5], float_data=[1, 2, 3, 4]), "needs 5"),
    (TensorProto(name="w", data_type=F32, dims=[2**40], raw_data=b"abcd"), "needs 4398046511104"),
    (TensorProto(name="w", data_type=F32, dims=[-4], raw_data=b""), "negative"),
    (TensorProto(name="w", data_type=99, dims=[1], raw_data=b"abcd"), "element type 99"),
])  # fmt: skip
def test_malformed_initializers(tensor, word):
    refused(model([node("Add", ["x", "w"], ["y"])], *ONE, [tensor]), word, '"w"')


@pytest.mark.parametrize("location, offset, length, word", [
    ("/etc/passwd", None, None, "absolute"), ("../secret", None, None, "leaves"),
    ("link", None, None, "out of the model's folder"), ("folder", None, None, "missing"),
    ("nothing", None, None, "missing"), ("a" * 5000, None, None, "too long"),
    ("", None, None, "no location"), ("w.bin", 8, None, "needs 16 bytes"),
    ("w.bin", 100, None, "16 bytes"), ("w.bin", 2**62, None, "offset"),
    ("w.bin", -4, None, "offset"), ("w.bin", 0, 2**63, "length"), ("w.bin", 0, 8, "needs 16"),
])  # fmt: skip
def test_external_data(tmp_path, location, offset, length, word):
    (tmp_path / "secret").write_bytes(bytes(64))
    folder = tmp_path / "models"
    (folder / "folder").mkdir(parents=True)
    (folder / "w.bin").write_bytes(X.tobytes())
    os.symlink("../secret", folder / "link")
    t = TensorProto(name="w", data_type=F32, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, given in (("location", location), ("offset", offset), ("length", length)):
        if given is not None:
            t.external_data.add(key=key, value=str(given))
    m = model([node("Add", ["x", "w"], ["y"])], *ONE, [t])
    (folder / "m.onnx").write_bytes(m.SerializeToString())
    refused(folder / "m.onnx", word, '"w"')


@pytest.mark.parametrize("sizes", [[2**40], [2**31, 2**31, 4], [2**62, 8], [2**63 - 1]])
def test_gigantic_inputs_compile(sizes):
    """No such array exists, so that the program can only refuse what it is given."""
    with pytest.raises(RunError, match="input 'x'"):
        tw.compile(unary("Softmax", sizes))(X)


@pytest.mark.parametrize("sizes", [[2**40], [2**40, 2**40], [2**63 - 1]])
def test_gigantic_results(sizes):
    m = model([node("Expand", ["x", "s"], ["y"])], [value("x", [1])], [value("y", None)],
              [array("s", sizes)])  # fmt: skip
    with pytest.raises(RunError, match="out of memory"):
        tw.compile(m)(X[:1])


def test_gigantic_and_empty():
    """NumPy refuses the shape of an empty array whose other sizes have too large a product."""
    m = model([node("Reshape", ["x", "s"], ["y"], allowzero=1)], [value("x", [0, 4])],
              [value("y", None)], [array("s", [2, 2**63 - 1, 0])])  # fmt: skip
    with pytest.raises(RunError, match="out of memory"):
        tw.compile(m)(np.zeros((0, 4), np.float32))


def test_gigantic_intermediate_value():
    nodes = [node("Expand", ["x", "s"], ["e"]), node("CumSum", ["e", "axis"], ["f"]),
             node("CumSum", ["f", "axis"], ["g"]), node("ReduceMax", ["g"], ["y"])]  # fmt: skip
    m = model(nodes, [value("x", [1])], [value("y", None)], [array("s", [2**50]), array("axis", 0)])
    with pytest.raises(RunError, match="out of memory"):
        tw.compile(m)(X[:1])


def test_negative_sizes():
    m = model([node("ConstantOfShape", ["s"], ["y"])], [], [value("y", None)], [array("s", [-3])])
    refused(m, "-3", "ConstantOfShape")
    program = tw.compile(unary(shape=[-5]))  # an unknown size in files of old exporters
    assert np.array_equal(program(X), X)


def test_deep_nesting():
    assert np.array_equal(tw.compile(nested(20))(np.array(True), X), X)
    refused(nested(30), "nested")


def field(number: int, data: bytes) -> bytes:
    """A protobuf field of bytes."""
    size, key = b"", number << 3 | 2
    n = len(data)
    while n > 127:
        size, n = size + bytes([n & 127 | 128]), n >> 7
    return bytes([key]) + size + bytes([n]) + data


def test_nesting_beyond_protobuf():
    g = nested(0).graph.SerializeToString()
    for _ in range(1000):
        attribute = field(1, b"then_branch") + field(6, g) + b"\xa0\x01\x05"
        g = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    refused(field(7, g), "not an ONNX model")


@pytest.mark.parametrize("op, operands", [("Relu", 1), ("Sin", 1), ("Add", 2)])
def test_long_chains(op, operands):
    y = tw.compile(chain(op, 3000, operands))(np.zeros(4, np.float32))
    assert np.array_equal(y, np.zeros(4))


@pytest.mark.parametrize("count", [200, 1000])
def test_deep_sizes(count):
    """Sizes that are computed in very many steps compile, or are refused."""
    nodes = [node("Shape", ["x"], ["s0"])]
    for k in range(count):
        nodes.append(node("Div", [f"s{k}", "two"], [f"t{k}"]))
        nodes.append(node("Add", [f"t{k}", "three"], [f"s{k + 1}"]))
    nodes.append(node("Expand", ["one", f"s{count}"], ["y"]))
    m = model(nodes, [value("x", ["n"]), value("one", [1])], [value("y", None)],
              [array("two", [2]), array("three", [3])])  # fmt: skip
    try:
        assert len(tw.compile(m)(X, X[:1])) == 5
    except (FrontendError, CompileError) as e:
        assert "nested too deeply" in e.message


def test_unknown_operators_in_one_report():
    nodes = [node("Foo", ["x"], ["a"], name="n1"), node("Bar", ["a"], ["b"], domain="my"),
             node("Baz", ["x"], ["c"], name="n3")]  # fmt: skip
    m = model(nodes, [value("x", [4])], [value("b", [4]), value("c", [4])])
    refused(m, "n1", "Foo", "Bar", "domain my", "n3", "Baz", "3 nodes")


@pytest.mark.parametrize("opset, word", [(99, "opset 99"), (0, "opset 0"), (None, "no version")])
def test_operator_set_versions(opset, word):
    m = unary()
    if opset is None:
        del m.opset_import[:]
    else:
        m.opset_import[0].version = opset
    refused(m, word)


def test_degenerate_graphs():
    assert tw.compile(model([], [], []))() == ()
    assert tw.compile(model([node("Relu", ["x"], ["y"])], [value("x", [4])], []))(X) == ()
    same = tw.compile(model([], [value("x", [4])], [value("x", [4]), value("x", [4])]))(X)
    assert all(np.array_equal(y, X) for y in same)
    weights = array("w", X, "float32")
    y = tw.compile(model([], [], [value("w", [4])], [weights]))()
    assert np.array_equal(y, X)
    y[:] = 7  # the program's own copy is not what callers get
    unused = [value("x", [4]), value("z", ["m"])]
    m = model([node("Relu", ["x"], ["y"])], unused, [value("y", [4])])
    assert np.array_equal(tw.compile(m)(X, np.zeros(3, np.float32)), X)


def test_constants_are_not_handed_out():
    program = tw.compile(model([], [], [value("w", [4])], [array("w", X, "float32")]))
    program()[:] = 7
    assert np.array_equal(program(), X)


def test_results_are_not_inputs():
    program = tw.compile(model([], [value("x", [4])], [value("x", [4])]))
    x = X.copy()
    program(x)[:] = 7
    assert np.array_equal(x, X)


def test_sizes_of_zero():
    for op, result in (("ReduceSum", 0), ("ReduceMax", -np.inf)):
        m = model([node(op, ["x"], ["y"], keepdims=0)], [value("x", [0, 3])], [value("y", [])])
        assert tw.compile(m)(np.zeros((0, 3), np.float32)) == result
    m = model([node("MatMul", ["x", "z"], ["y"])], [value("x", [2, 0]), value("z", [0, 3])],
              [value("y", [2, 3])])  # fmt: skip
    y = tw.compile(m)(np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32))
    assert np.array_equal(y, np.zeros((2, 3)))


@pytest.mark.parametrize("name", [
    'ü/é "q" \n {0} %s \\', "x" * 20000, "0", "def", 'a"b', "@x", "\0\1", "{", "{0}", "a}b",
    "日本語",
], ids=range(11))  # fmt: skip
def test_odd_names(name):
    nodes = [node("Relu", [name], [name + "r"], name=name),
             node("MatMul", [name + "r", name + "r"], [name + "o"], name=name)]  # fmt: skip
    m = model(nodes, [value(name, ["n", "n"])], [value(name + "o", None)])
    eye = np.eye(3, dtype=np.float32)
    assert np.array_equal(tw.compile(m)(eye), eye)


@pytest.mark.parametrize("name", ["ü", "a b", "n+1", "9", "{0}", "%", "if", "-", "n" * 5000, "n\n"])
def test_odd_names_of_dimensions(name):
    m = model([node("Add", ["x", "z"], ["y"])], [value("x", [name]), value("z", [name])],
              [value("y", [name])])  # fmt: skip
    assert np.array_equal(tw.compile(m)(X, X), X + X)


def test_inputs_of_no_known_type():
    relu = [node("Relu", ["x"], ["y"])]
    refused(model(relu, [onnx.ValueInfoProto(name="x")], ONE[1]), "'x'")
    refused(model(relu, [value("x", None)], ONE[1]), "rank", "'x'")
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [2])
    refused(model([node("Identity", ["x"], ["y"])], [text], [text]), "strings")


def test_index_of_a_constant_beyond_the_end():
    m = model([node("Gather", ["x", "i"], ["y"])], [value("x", [4])], [value("y", None)],
              [array("i", [1, 4])])  # fmt: skip
    refused(m, "index 4", "4 elements")


@pytest.mark.parametrize("op", ["Expand", "ConstantOfShape"])
@pytest.mark.parametrize("size", [2**38, 2**62, 2**63 - 1])
def test_sizes_from_data_without_memory(op, size):
    program = tw.compile(dynamic_size(op))
    given = (X[:1],) if op == "Expand" else ()
    for _ in range(3):
        with pytest.raises(RunError, match="out of memory"):
            program(*given, np.array([size]))
        assert program(*given, np.array([3])).shape == (3,)


@pytest.mark.parametrize("op", ["Expand", "ConstantOfShape"])
def test_negative_sizes_from_data(op):
    given = (X[:1],) if op == "Expand" else ()
    with pytest.raises(RunError, match=op):
        tw.compile(dynamic_size(op))(*given, np.array([-1], np.int64))


def test_frame_without_memory():
    nodes = [node("MatMul", ["x", "z"], ["e"]), node("Softmax", ["e"], ["f"]),
             node("ReduceMax", ["f"], ["y"])]  # fmt: skip
    m = model(nodes, [value("x", ["n", 1]), value("z", [1, "n"])], [value("y", None)])
    program, n = tw.compile(m), 1 << 21
    with pytest.raises(RunError, match="out of memory"):
        program(np.ones((n, 1), np.float32), np.ones((1, n), np.float32))
    assert program(np.ones((2, 1), np.float32), np.ones((1, 2), np.float32)) == 0.5


@pytest.mark.parametrize("what", [None, 3, "nothing.onnx", "a\0.onnx", "", "nothing.py", "."])
def test_what_is_no_model(what):
    refused(what)


@pytest.mark.parametrize("options, word", [
    ({"target": "zzz"}, "zzz"), ({"threads": -1}, "threads"), ({"threads": "a"}, "threads"),
    ({"threads": 10**9}, "threads"), ({"precision": "zzz"}, "zzz"),
])  # fmt: skip
def test_wrong_options(options, word):
    with pytest.raises(CompileError, match=word):
        tw.compile(unary(), **options)


@pytest.mark.parametrize("shapes", [
    "y: 4", "x:", "x: n[", "x: n[5..1]", "x: -1", {"x": 4}, 3, "x: 4, 4", "x: 2**70", {"q": "3"},
])  # fmt: skip
def test_wrong_shapes(shapes):
    with pytest.raises(FrontendError, match="shapes"):
        tw.compile(unary(), shapes=shapes)


def test_sizes_read_from_indices_of_wrong_type():
    m = model([node("Gather", ["x", "i"], ["y"])], [value("x", [4]), value("i", [2])], ONE[1])
    refused(m, "Gather", kind=(FrontendError, CompileError))
    m = model([node("Gather", ["x", "i"], ["y"])], [value("x", [0]), value("i", [2], I64)], ONE[1])
    refused(m, "Gather", kind=(FrontendError, CompileError))
