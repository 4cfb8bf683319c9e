"""Sequences and optionals that only the run tells, against ONNX Runtime and natively."""

import numpy as np
import onnx
import pytest

import tensorwright as tw
from tensorwright.base.errors import FrontendError, RunError
from tensorwright.frontend.onnx import import_onnx
from tensorwright.frontend.onnx_sequences import SequenceKind, any_patterns
from tensorwright.ir.compare import difference
from tensorwright.ir.dtype import f32
from tensorwright.ir.interp import run_module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ops.table import BY_NAME

onnxruntime = pytest.importorskip("onnxruntime")

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'


def same(a, b):
    if isinstance(a, list) or isinstance(b, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def model_of(text):
    return onnx.parser.parse_model(HEADER + text)


def check(text, *calls):
    """Both ways of running a model give for each call what ONNX Runtime gives."""
    model = model_of(text)
    module = import_onnx(model)
    assert not difference(parse(to_text(module), BY_NAME, module.constants()), module)
    program = tw.compile(module, threads=1)
    names = [v.name for v in model.graph.input]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for inputs in calls:
        wanted = session.run(None, dict(zip(names, inputs)))
        same(run_module(module, inputs), wanted)
        found = program(*inputs)
        same(list(found) if len(wanted) > 1 else [found], wanted)


def rows(*sizes):
    random = np.random.default_rng(0)
    return [random.standard_normal((n, 3), dtype=np.float32) for n in sizes]


K = [np.array(k) for k in range(-3, 4)]


def test_elements_by_position():
    check("f (seq(float[n, 3]) s, int64 k) => (float[m, 3] y) { y = SequenceAt (s, k) }",
          *([rows(2, 1, 4), k] for k in K[:6]))  # fmt: skip


def test_changes_by_position():
    check("""f (seq(float[n, 3]) s, float[q, 3] x, int64 k)
      => (seq(float[n, 3]) a, seq(float[n, 3]) b, seq(float[n, 3]) c, int64 d) {
      a = SequenceInsert (s, x, k)
      b = SequenceErase (s, k)
      c = SequenceInsert (s, x)
      d = SequenceLength (a)
    }""", *([rows(2, 1, 4), rows(5)[0], k] for k in K[:6]))  # fmt: skip


@pytest.mark.parametrize("position", [3, -4, 1 << 40])
def test_positions_are_checked(position):
    text = "f (seq(float[n, 3]) s, int64 k) => (float[m, 3] y) { y = SequenceAt (s, k) }"
    program = tw.compile(model_of(text))
    with pytest.raises(RunError, match=f"no position {position} in a sequence of 3"):
        program(rows(2, 1, 4), np.array(position))
    same(program(rows(2, 1, 4), np.array(2)), rows(2, 1, 4)[2])


def test_joined():
    check("""f (seq(float[n, 3]) s) => (float[m, 3] y) {
      y = ConcatFromSequence <axis = 0> (s)
    }""", [rows(2, 1, 4)], [rows(1)], [rows(0, 3)])  # fmt: skip
    check("""f (seq(float[n, 3]) s) => (float[k, n, 3] y) {
      y = ConcatFromSequence <axis = -3, new_axis = 1> (s)
    }""", [rows(2, 2, 2)], [rows(3)])  # fmt: skip


@pytest.mark.parametrize(
    "sizes, message",
    [((), "length is 0"), ((2, 3, 2), "dimension 1 of an element is 3, expected 2")],
)
def test_joined_only_what_fits(sizes, message):
    program = tw.compile(
        model_of("""f (seq(float[n, 3]) s) => (float[k, n, 3] y) {
      y = ConcatFromSequence <axis = 0, new_axis = 1> (s)
    }""")
    )
    with pytest.raises(RunError, match=message):
        program(rows(*sizes))


@pytest.mark.parametrize("patterns, name", [
    (any_patterns(), "Sequence_f32_any"),
    (any_patterns()[1:], "Sequence_f32_rank1to8"),
    (any_patterns()[1:3], "Sequence_f32_n_nxn"),
    (((), (None,), (None, 3)), "Sequence_f32_s_n_nx3"),
])  # fmt: skip
def test_names_of_types_are_short(patterns, name):
    assert SequenceKind(f32, patterns).type.name == name


def test_split_by_data():
    check("""f (float[n, 3] x, int64 size) => (seq(float[m, 3]) y, int64 k) {
      y = SplitToSequence <axis = 0> (x, size)
      k = SequenceLength (y)
    }""", *([rows(n)[0], np.array(k)] for n, k in ((7, 3), (6, 2), (1, 9))))  # fmt: skip
    check("""f (float[n, 3] x, int64[k] sizes) => (seq(float[m, 3]) y) {
      y = SplitToSequence <axis = 0> (x, sizes)
    }""", [rows(7)[0], np.array([3, 4])], [rows(6)[0], np.array([1, 2, 3])])  # fmt: skip
    check("""f (float[n, 3] x) => (seq(float[3]) y) {
      y = SplitToSequence <axis = 0, keepdims = 0> (x)
    }""", [rows(7)[0]], [rows(1)[0]])  # fmt: skip


def test_split_must_cover_all():
    program = tw.compile(
        model_of("""f (float[n, 3] x, int64[k] sizes) => (seq(float[m, 3]) y) {
      y = SplitToSequence <axis = 0> (x, sizes)
    }""")
    )
    with pytest.raises(RunError, match="the sum of the pieces of dimension 0 is 6, expected 7"):
        program(rows(7)[0], np.array([3, 3]))


GROW = """f (float[3] x, int64 n, float top) => (seq(float[k]) all, float[m] joined) {
  none = SequenceEmpty <dtype = 1> ()
  go = Constant <value = bool {1}> ()
  last, all = Loop (n, go, x, none) <body = b (int64 i, bool c, float[p] s, seq(float[k]) q)
    => (bool more, float[p2] t, seq(float[k]) r) {
      t = Concat <axis = 0> (s, s)
      r = SequenceInsert (q, t)
      sum = ReduceSum <keepdims = 0> (t)
      more = Less (sum, top)
    }>
  joined = ConcatFromSequence <axis = 0> (all)
}"""


def test_grown_by_a_loop_that_data_ends():
    x = np.array([1, 2, 3], np.float32)
    check(GROW, [x, np.array(5), np.array(1e9, "f")], [x, np.array(9), np.array(30, "f")])


def test_mapped():
    check("""f (seq(float[n]) s, float[n] x) => (seq(float[n]) y, seq(int64[k]) z) {
      y, z = SequenceMap (s, x) <body = b (float[n] a, float[n] x1) => (float[n] c, int64[k] d) {
        c = Mul (a, x1)
        d = Shape (c)
      }>
    }""", [[np.full(4, k, np.float32) for k in range(3)], np.arange(4, dtype=np.float32)],
          [[], np.arange(2, dtype=np.float32)])  # fmt: skip


def test_optional_of_a_branch():
    text = """f (bool c, float[n] x) => (optional(float[n]) y) {
      y = If (c) <then_branch = a () => (optional(float[n]) u) { u = Optional (x) },
                  else_branch = b () => (optional(float[n]) v) {
                    v = Optional <type = float[n]> () }>
    }"""
    model = model_of(text)
    x = np.arange(3, dtype=np.float32)
    for run in (lambda *a: run_module(import_onnx(model), a)[0], tw.compile(model)):
        same(run(np.array(True), x), x)
        assert run(np.array(False), x) is None


def test_content_of_an_optional_is_checked():
    program = tw.compile(
        model_of("""f (optional(seq(float[n])) s) => (int64 y, bool b) {
      t = OptionalGetElement (s)
      y = SequenceLength (t)
      b = OptionalHasElement (s)
    }""")
    )
    same(list(program([np.ones(2, "f"), np.ones(1, "f")])), [np.array(2), np.array(True)])
    with pytest.raises(RunError, match="elements_of_optional is 0"):
        program(None)


def test_rank_is_said_by_the_user():
    model = model_of("f (seq(float) s) => (float[n] y) { y = ConcatFromSequence <axis = 0> (s) }")
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.ClearField("shape")
    with pytest.raises(FrontendError, match="rank of the elements is 0 or 1"):
        tw.compile(model)
    program = tw.compile(model, shapes={"s": "n, 3"})
    same(program(rows(2, 1)), np.concatenate(rows(2, 1)))
    with pytest.raises(RunError, match="no case Element1"):
        program([np.ones(3, np.float32)])


def test_saved_programs_take_lists(tmp_path):
    program = tw.compile(model_of(GROW))
    program.save(tmp_path / "grow.tw")
    x = np.array([1, 2, 3], np.float32)
    for found, wanted in zip(tw.load(tmp_path / "grow.tw")(x, np.array(3), np.array(1e9, "f")),
                             program(x, np.array(3), np.array(1e9, "f"))):  # fmt: skip
        same(found, wanted)
