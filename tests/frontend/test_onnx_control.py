"""If, Loop and Scan against ONNX Runtime."""

import numpy as np
import onnx
import pytest

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx import import_onnx
from tensorwright.ir.interp import run_module

onnxruntime = pytest.importorskip("onnxruntime")

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'


def check(text, *inputs, expect=()):
    model = onnx.parser.parse_model(HEADER + text)
    m = import_onnx(model)
    names = [n.op.name for n in m.main.nodes()]
    assert all(op in names for op in expect), names
    feeds = dict(zip((v.name for v in model.graph.input), inputs))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, feeds)
    for a, b in zip(run_module(m, inputs), expected, strict=True):
        assert a.shape == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("flag", [True, False])
def test_if_captures(flag):
    check("""f (float[2, 3] x, bool c) => (float[2, 3] y) {
      z = Neg (x)
      y = If (c) <then_branch = a () => (float[2, 3] u) { u = Mul (x, z) },
                  else_branch = b () => (float[2, 3] v) { w = Add (x, x) v = Add (w, z) }>
    }""", X, np.array(flag), expect=["if_"])  # fmt: skip


@pytest.mark.parametrize("flag", [True, False])
def test_if_with_different_shapes(flag):
    check("""f (float[n, 3] x, bool c) => (float[m, 3] y) {
      y = If (c) <then_branch = a () => (float[k, 3] u) { u = Concat <axis = 0> (x, x) },
                  else_branch = b () => (float[k, 3] v) { v = Identity (x) }>
    }""", X, np.array(flag))  # fmt: skip


def test_if_of_a_known_condition_leaves_nothing():
    text = """f (float[2, 3] x) => (float[2, 3] y) <int64 one = {1}> {
      r = Size (x)
      c = Greater (r, one)
      y = If (c) <then_branch = a () => (float[2, 3] u) { u = Relu (x) },
                  else_branch = b () => (float[2, 3] v) { v = Neg (x) }>
    }"""
    m = import_onnx(onnx.parser.parse_model(HEADER + text))
    assert [n.op.name for n in m.main.nodes()] == ["param", "relu"]


def test_loop_that_makes_all_steps():
    check("""f (float[2, 3] x, int64 n) => (float[2, 3] last, float[k, 2, 3] all) {
      go = Constant <value = bool {1}> ()
      last, all = Loop (n, go, x) <body = b (int64 i, bool c, float[2, 3] s)
        => (bool c2, float[2, 3] t, float[2, 3] u) {
          c2 = Identity (c)
          f = Cast <to = 1> (i)
          t = Add (s, f)
          u = Mul (t, x)
        }>
    }""", X, np.array(4), expect=["scan_"])  # fmt: skip


def test_loop_as_often_as_a_size_says():
    """The number of collected rows is the size, so that they can be joined with what has it."""
    check("""f (float[2, 3] x) => (float[2, 4] y) {
      go = Constant <value = bool {1}> ()
      n = Shape <start = 0, end = 1> (x)
      sums = Loop (n, go) <body = b (int64 i, bool c) => (bool c2, float[1] s) {
        c2 = Identity (c)
        row = Gather (x, i)
        s = ReduceSum <keepdims = 1> (row)
      }>
      y = Concat <axis = 1> (x, sums)
    }""", X)  # fmt: skip


@pytest.mark.parametrize("limit, trips", [(10.0, 20), (1e9, 3), (-5.0, 4)])
def test_loop_that_stops_early(limit, trips):
    check("""f (float[3] x, float top, int64 n) => (float[3] last, float[k, 3] all) {
      go = Constant <value = bool {1}> ()
      last, all = Loop (n, go, x) <body = b (int64 i, bool c, float[3] s)
        => (bool c2, float[3] t, float[3] u) {
          t = Add (s, x)
          m = ReduceMax <keepdims = 0> (t)
          c2 = Less (m, top)
          u = Identity (t)
        }>
    }""", X[1], np.array(limit, np.float32), np.array(trips), expect=["while_"])  # fmt: skip


def test_loop_without_a_trip_count():
    check("""f (float[3] x, float top) => (float[3] last, float[k, 3] all) {
      go = Constant <value = bool {1}> ()
      last, all = Loop ("", go, x) <body = b (int64 i, bool c, float[3] s)
        => (bool c2, float[3] t, float[3] u) {
          t = Add (s, x)
          m = ReduceMax <keepdims = 0> (t)
          c2 = Less (m, top)
          u = Neg (s)
        }>
    }""", X[1], np.array(17.0, np.float32), expect=["while_"])  # fmt: skip


def test_loop_that_grows_its_state():
    check("""f (float[2, 3] x, int64 n) => (float[k, 3] last) {
      go = Constant <value = bool {1}> ()
      last = Loop (n, go, x) <body = b (int64 i, bool c, float[j, 3] s)
        => (bool c2, float[l, 3] t) { c2 = Identity (c)  t = Concat <axis = 0> (s, x) }>
    }""", X, np.array(3))  # fmt: skip


@pytest.mark.parametrize("options, axis", [("", 0), ("scan_input_directions = [1],", 0),
                                           ("scan_input_axes = [1], scan_output_axes = [1],", 1),
                                           ("scan_output_directions = [1],", 0)])  # fmt: skip
def test_scan(options, axis):
    state = np.zeros(X.shape[1 - axis], np.float32)
    size = len(state)
    check(f"""f (float[{size}] h, float[2, 3] x, float[{size}] w)
      => (float[{size}] last, float[a, b] all) {{
      last, all = Scan <num_scan_inputs = 1, {options} body = b (float[{size}] s, float[{size}] r)
        => (float[{size}] t, float[{size}] u) {{
          t = Add (s, r)
          u = Mul (t, w)
        }}> (h, x)
    }}""", state, X, np.arange(size, dtype=np.float32))  # fmt: skip


def test_nested_bodies_capture_through_each_other():
    check("""f (float[3] x, int64 n, bool c) => (float[3] y) {
      go = Constant <value = bool {1}> ()
      y = Loop (n, go, x) <body = b (int64 i, bool c1, float[3] s) => (bool c2, float[3] t) {
        c2 = Identity (c1)
        t = If (c) <then_branch = p () => (float[3] u) { u = Add (s, x) },
                    else_branch = q () => (float[3] v) { v = Sub (s, x) }>
      }>
    }""", X[1], np.array(3), np.array(False))  # fmt: skip


def test_branches_of_different_rank_say_what_decides():
    text = """f (float[2, n] x) => (float[m] y) <int64 one = {1}, int64[1] axis = {1}> {
      s = Shape <start = 1> (x)
      c = Equal (s, one)
      q = Squeeze (c)
      y = If (q) <then_branch = a () => (float[k] u) { u = Squeeze (x, axis) },
                  else_branch = b () => (float[k, l] v) { v = Identity (x) }>
    }"""
    with pytest.raises(FrontendError, match=r"n == 1") as e:
        import_onnx(onnx.parser.parse_model(HEADER + text))
    assert "fix the sizes" in str(e.value)
