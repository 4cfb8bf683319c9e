"""Importing ONNX models: names, places, shape arithmetic, errors."""

import numpy as np
import onnx
import pytest

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx import import_onnx
from tensorwright.ir.graph import CONST
from tensorwright.ir.interp import run_module

HEADER = '<ir_version: 8, opset_import: ["" : 18, "own" : 1]>\n'


def parse(text):
    return onnx.parser.parse_model(HEADER + text)


def imported(text, **more):
    return import_onnx(parse(text), **more)


def run(text, *inputs, **more):
    return run_module(imported(text, **more), inputs)


def ops(m):
    return [n.op.name for n in m.main.nodes() if n.op is not CONST and n.args]


MLP = """mlp (float[n, 3] x) => (float[n, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}>
{
  [fc1] h = MatMul (x, w)
  y = Relu (h)
}"""


def test_names_and_places():
    m = imported(MLP)
    (x,), (y,) = m.main.params, m.main.results
    assert (x.name, str(x.type)) == ("x", "f32[n, 3]")
    assert m.main.result_names == ("y",)
    assert str(y.type) == "f32[n, 2]"
    h, w = y.args[0], y.args[0].args[1]
    assert (h.name, w.name, w.op) == ("h", "w", CONST)
    assert h.loc == ('model.onnx node "fc1" (MatMul)',)
    assert y.loc == ('model.onnx node "y" (Relu)',)


def test_one_size_may_be_empty_where_two_may_not():
    """A target of 0 rows would keep the 4 of what is reshaped: some size must be at least 1, and
    it is not the past, without which no result is empty."""
    text = """net (float[seq, 2] x, float[past, 2] old) => (float[all, 2] y, float[seq, 2] z)
    {
        k = Concat <axis = 0> (old, x)
        n = Shape <start = 0, end = 1> (k)
        two = Constant <value_ints = [2]> ()
        four = Constant <value_ints = [4]> ()
        axes = Constant <value_ints = [1]> ()
        to = Concat <axis = 0> (four, n, two)
        more = Expand (k, to)
        back = Concat <axis = 0> (n, four, two)
        same = Reshape (more, back)
        y = ReduceSum <keepdims = 0> (same, axes)
        z = Relu (x)
    }"""
    x, old = imported(text).main.params
    (seq, _), (past, _) = x.type.shape, old.type.shape
    assert (seq.value.min, past.value.min) == (1, 0)
    x, old = np.ones((3, 2), np.float32), np.ones((0, 2), np.float32)
    np.testing.assert_array_equal(run(text, x, old)[0], np.full((3, 2), 4))


def test_every_layer_may_say_more_of_a_size():
    """Slice k fits the convolution beside it if the length is at least 2 ** (k + 1)."""
    layers = "".join(
        f"""c{k} = Conv <dilations = [{1 << k}]> (x{k}, w)
        b{k} = Constant <value_ints = [{1 << k}]> ()
        s{k} = Slice (x{k}, b{k}, end, axis)
        x{k + 1} = Add (c{k}, s{k})
        """
        for k in range(6)
    )
    text = """net (float[1, 1, n] x0) => (float[1, 1, m] x6)
    <float[1, 1, 2] w = {0, 0}, int64[1] end = {9223372036854775807}, int64[1] axis = {2}>
    { %s }"""
    m = imported(text % layers)
    assert m.main.params[0].shape[2].value.min >= 64
    x = np.arange(70, dtype=np.float32).reshape(1, 1, 70)
    np.testing.assert_array_equal(run_module(m, [x])[0], x[:, :, 63:])


def test_tables_bound_the_sizes_that_slice_them():
    """Rows of a table up to a size that layers have halved, where another size must equal it."""
    text = """net (float[n] x, float[10] table) => (float[m] y) <int64[1] one = {1}>
    {
      zero = Constant <value_ints = [0]> ()
      halved = MaxPool <kernel_shape = [1], strides = [8]> (x3)
      three = Constant <value_ints = [1, 1, -1]> ()
      x3 = Reshape (x, three)
      flat = Constant <value_ints = [-1]> ()
      h = Reshape (halved, flat)
      size = Shape (h)
      rows = Slice (table, zero, size)
      y = Add (h, rows)
    }"""
    lines = text.splitlines()
    order = [0, 1, 2, 4, 5, 3, *range(6, len(lines))]
    m = imported("\n".join(lines[k] for k in order))
    x, table = np.arange(33, dtype=np.float32), np.ones(10, np.float32)
    np.testing.assert_array_equal(run_module(m, [x, table])[0], x[::8] + 1)
    assert m.main.params[0].shape[0].value.max == 80


def test_a_masked_write_as_exporters_write_it():
    """The count of what the mask selects is a sum of its own; NonZero does not know of it."""
    text = """net (float[n, 4] x) => (float[n, 4] y)
    <float one = {1}, float zero = {0}, int64[1] all = {-1}, int64[1] axis = {0}>
    {
      mask = Greater (x, one)
      flat = Reshape (mask, all)
      ints = Cast <to = 7> (flat)
      count = ReduceSum <keepdims = 1> (ints, axis)
      zeros = Expand (zero, count)
      where = NonZero (mask)
      at = Transpose <perm = [1, 0]> (where)
      y = ScatterND (x, at, zeros)
    }"""
    x = np.random.default_rng(0).normal(1, 1, (5, 4)).astype(np.float32)
    for given in (x, x * 0, x * 0 + 5):
        np.testing.assert_array_equal(run(text, given)[0], np.where(given > 1, 0, given))


def test_a_cast_like_a_size_is_a_size():
    text = """net (float[n, 6] x) => (float[m, 3] y)
    <int32 two = {2}, int64[1] three = {3}, int64 zero = {0}, int64[1] axis = {0}>
    {
      all = Shape (x)
      n = Gather <axis = 0> (all, zero)
      like = CastLike (two, n)
      doubled = Mul (n, like)
      one = Unsqueeze (doubled, axis)
      shape = Concat <axis = 0> (one, three)
      y = Reshape (x, shape)
    }"""
    assert run(text, np.zeros((5, 6), np.float32))[0].shape == (10, 3)


def test_shapes_and_constants():
    assert str(imported(MLP, shapes={"x": "b[2..8], 3"}).main.params[0].type) == "f32[b, 3]"
    assert imported(MLP, shapes="4, 3").main.results[0].shape == (4, 2)
    m = imported(MLP, constants={"x": np.ones((1, 3), np.float32)})
    assert m.main.params == ()
    assert run_module(m, [])[0].tolist() == [[9.0, 12.0]]
    with pytest.raises(FrontendError, match="no inputs"):
        imported(MLP, constants={"z": 1})
    with pytest.raises(FrontendError, match="type"):
        imported(MLP, constants={"x": np.ones((1, 3))})


FLATTEN = """f (float[n, 3, h, w] x) => (float[n, k] y)
<int64[1] minus = {-1}, int64[1] zero = {0}, int64[1] one = {1}>
{
  s = Shape (x)
  n = Slice (s, zero, one)
  t = Concat <axis = 0> (n, minus)
  y = Reshape (x, t)
}"""


def test_shape_arithmetic_disappears():
    m = imported(FLATTEN)
    assert ops(m) == ["reshape"]
    n, _, h, w = m.main.params[0].shape
    assert m.main.results[0].shape == (n, h * w * 3)


def test_dimension_arithmetic():
    text = """f (float[n, h] x) => (float[a, b] y) <int64[2] two = {2, 3}, int64[1] one = {1}>
    {
      s = Shape (x)
      d = Mul (s, two)
      e = Sub (d, one)
      z = ConstantOfShape <value = float[1] {2.5}> (e)
      y = Identity (z)
    }"""
    m = imported(text)
    n, h = m.main.params[0].shape
    assert m.main.results[0].shape == (n * 2 - 1, h * 3 - 1)
    assert run_module(m, [np.zeros((2, 1), np.float32)])[0].tolist() == [[2.5, 2.5]] * 3


def test_expand_pattern_of_exporters():
    """Where(Equal(shape, -1), 1, shape), as torch writes expand()."""
    text = """f (float[n, 1] x, float[n, m] like) => (float[n, m] y)
    <int64[2] minus = {-1, -1}, int64[1] one = {1}, int64[1] two = {2}>
    {
      s = Shape (like)
      ones = ConstantOfShape <value = int64[1] {1}> (two)
      q = Equal (s, minus)
      t = Where (q, ones, s)
      y = Expand (x, t)
    }"""
    assert ops(imported(text)) == ["broadcast_to"]


def test_data_dependent_shape():
    text = """f (float[12] x, int64[2] s) => (float[a, b] y) { y = Reshape (x, s) }"""
    x = np.arange(12, dtype=np.float32)
    for s in ([3, 4], [-1, 6], [2, -1]):
        assert run(text, x, np.array(s))[0].tolist() == x.reshape(s).tolist()
    with pytest.raises(Exception, match="the input has 12 elements, its new shape 10"):
        run(text, x, np.array([5, 2]))


def test_one_hot_of_values_of_unknown_number():
    text = """f (int64[3] x, float[n] values) => (float[3, 4] y)
    <int64 depth = {4}> { y = OneHot (x, depth, values) }"""
    x = np.array([1, -1, 9])
    expected = [[0, 5, 0, 0], [0, 0, 0, 5], [0, 0, 0, 0]]
    assert run(text, x, np.array([0, 5], np.float32))[0].tolist() == expected
    with pytest.raises(Exception, match="the input has 1 elements, its new shape 2"):
        run(text, x, np.array([0], np.float32))


def test_data_dependent_size_is_one_symbol():
    """Two uses of the same computed size agree."""
    text = """f (float[8] x, int64 k) => (float[a] y)
    <int64[1] zero = {0}, int64[1] one = {1}>
    {
      k1 = Reshape (k, one)
      a = Slice (x, zero, k1)
      b = ConstantOfShape <value = float[1] {1.0}> (k1)
      y = Expand (b, k1)
    }"""
    x = np.arange(8, dtype=np.float32)
    assert run(text, x, np.array(3))[0].tolist() == [1.0, 1.0, 1.0]


def test_model_functions_are_inlined():
    m = onnx.parser.parse_model(
        HEADER
        + """f (float[n] x) => (float[n] y) { y = own.scaled <by = 3.0> (x) }
        <domain: "own", opset_import: ["" : 18]>
        scaled <by> (a) => (b) { s = Constant <value_float: float = @by> () b = Mul (a, s) }"""
    )
    found = import_onnx(m)
    assert run_module(found, [np.array([2.0], np.float32)])[0].tolist() == [6.0]
    assert [p.split()[-1] for p in found.main.results[0].loc] == ["(scaled)", "(Mul)"]


def test_recursive_functions():
    m = onnx.parser.parse_model(
        HEADER
        + """f (float[n] x) => (float[n] y) { y = own.g (x) }
        <domain: "own", opset_import: ["" : 18, "own" : 1]> g (a) => (b) { b = own.g (a) }"""
    )
    with pytest.raises(FrontendError, match="calls itself"):
        import_onnx(m)


def test_every_unsupported_node_is_named():
    text = """f (float[n] x) => (float[n] y) {
      [one] a = own.Mystery (x)
      [two] b = Frobnicate (a)
      [three] y = own.Other (b)
    }"""
    with pytest.raises(FrontendError) as e:
        imported(text)
    shown = str(e.value)
    for part in ('"one" (Mystery)', '"two" (Frobnicate)', '"three" (Other)', "domain own, opset 1",
                 "domain ai.onnx, opset 18"):  # fmt: skip
        assert part in shown


def test_errors_name_the_node():
    text = """f (float[n, 3] x, float[4, 2] w) => (float[n, 2] y) { [fc] y = MatMul (x, w) }"""
    with pytest.raises(Exception, match="inner") as e:
        imported(text)
    assert 'model.onnx node "fc" (MatMul)' in str(e.value)


@pytest.mark.parametrize(
    "node, message",
    [
        ("y = Softmax <axis = 7> (x)", "axis 7"),
        ("y = Softmax <axis = 1.5> (x)", "not an int"),
        ("y = Softmax <beam = 2> (x)", "no attribute 'beam'"),
        ("y = Softmax (x, x)", "2 inputs"),
        ("y = Add (x)", "lacks its input"),
        ("y = Cast (x)", "lacks its attribute 'to'"),
        ("y = Cast <to = 8> (x)", "strings"),
        ("y = Cast <to = 99> (x)", "element type 99"),
        ('y = LpPool <kernel_shape = [2], p = "two"> (x)', "'p' is not a number"),
        ("y = GlobalLpPool <p = 0> (x)", "no norm of p = 0"),
        ("d = Constant <value_int = 4> () y = OneHot (x, d, x)", "off and on"),
        ("s = Constant <value_ints = [3, -4]> () y = Expand (x, s)", "element -4"),
        ("s = SequenceConstruct (x) y = Relu (s)", "a sequence"),
    ],
)
def test_malformed_nodes(node, message):
    with pytest.raises(FrontendError, match=message):
        imported("f (float[n, 3] x) => (float[n, 3] y) { " + node + " }")


def test_opset_decides():
    old = onnx.parser.parse_model(
        '<ir_version: 4, opset_import: ["" : 11]>\n'
        "f (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }"
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (y,) = run_module(import_onnx(old), [x])
    assert np.allclose(y.reshape(2, -1).sum(1), 1)
    with pytest.raises(FrontendError, match="newest known"):
        import_onnx(onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 99]> f (float[1] x) => (float[1] y) '
            "{ y = Relu (x) }"
        ))  # fmt: skip


def test_sequences_are_resolved():
    text = """f (float[4, 2] x) => (float[2, 2] y, int64 n) <int64 two = {2}, int64 one = {1}>
    {
      s = SplitToSequence <axis = 0> (x, two)
      y = SequenceAt (s, one)
      n = SequenceLength (s)
    }"""
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    y, n = run(text, x)
    assert y.tolist() == x[2:].tolist() and n == 2


def test_inputs_that_are_no_tensors():
    with pytest.raises(FrontendError, match="strings"):
        imported("f (string[n] x) => (string[n] y) { y = Identity (x) }")
    with pytest.raises(FrontendError, match="a sequence of something else"):
        imported("f (seq(string[n]) x) => (int64 y) { y = SequenceLength (x) }")


def test_dead_nodes_do_not_matter():
    text = "f (float[n] x) => (float[n] y) { y = Relu (x)  z = own.Mystery (x) }"
    assert ops(imported(text)) == ["relu"]
