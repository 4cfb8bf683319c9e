"""Calls with wrong inputs, and values at the edges of what operators take."""

from __future__ import annotations

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import RunError
from tensorwright.frontend.size_checks import checked_by_data
from tensorwright.frontend.tracer import dim_of, wrap
from tensorwright.ir.compare import difference
from tensorwright.ir.interp import run_module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ops import movement as mv
from tensorwright.ops.table import BY_NAME
from tests.errors.models import BOOL, I64, array, model, node, unary, value

tn = tw.numpy

A = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def program():
    return tw.compile(unary(shape=["n", 3]))


def refused(program, *args, words, **named) -> None:
    with pytest.raises(RunError) as caught:
        program(*args, **named)
    for word in words:
        assert word in str(caught.value)
    assert np.array_equal(program(A), A)  # the next call works


def test_wrong_shapes(program):
    refused(program, A[0], words=("'x'", "1 dimensions", "expected 2", "f32[n, 3]"))
    refused(program, A.T, words=("'x'", "dimension 1 is 2, expected 3"))
    assert program(A[:0]).shape == (0, 3)


@pytest.mark.parametrize("kind", ["f8", "i4", ">f4", "O", "U1", "M8[s]", [("a", "<f4")]])
def test_wrong_types(program, kind):
    refused(program, np.zeros((2, 3), kind), words=("'x'", "expected f32[n, 3]", "astype"))


def test_wrong_names_and_counts(program):
    refused(program, A, A, words=("2 inputs given, 1 expected",))
    refused(program, words=("missing input: x",))
    refused(program, z=A, words=("no input 'z'",))
    refused(program, A, x=A, words=("'x' is given twice",))


@pytest.mark.parametrize("what", [
    None, "abc", b"abc", {"x": A}, object(), [[1, 2, 3], [1]], [[10**400, 1, 1]], (k for k in "a"),
], ids=range(8))  # fmt: skip
def test_what_is_no_array(program, what):
    refused(program, what, words=("'x'",))


def misaligned(a: np.ndarray) -> np.ndarray:
    out = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    out[:] = a
    return out


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize("array", [
    np.asfortranarray(A), A[::-1, ::-1][::-1, ::-1], misaligned(A), read_only(A), A.tolist(),
    np.ma.array(A), np.repeat(A, 2, 1)[:, ::2],
], ids=range(7))  # fmt: skip
def test_unusual_arrays(program, array):
    assert np.array_equal(program(array), A)


def test_torch_tensors(program):
    torch = pytest.importorskip("torch")
    assert torch.equal(program(torch.ones(3, 2).T), torch.ones(2, 3))
    refused(program, torch.ones(2, 3, requires_grad=True), words=("'x'", "x.detach()"))
    refused(program, torch.ones(2, 3, device="meta"), words=("'x'", "meta"))
    refused(program, torch.ones(2, 3).to_sparse(), words=("'x'",))
    refused(program, torch.ones(2, 3).double(), words=("f64", "x.to(torch.float32)"))


def test_symbols_that_disagree():
    m = model([node("Add", ["x", "z"], ["y"])], [value("x", ["n", 3]), value("z", ["n", 3])],
              [value("y", None)])  # fmt: skip
    with pytest.raises(RunError, match=r"dimension 0 of input 'z' is 3, expected n = 2"):
        tw.compile(m)(A, np.ones((3, 3), np.float32))


@pytest.mark.parametrize("rows, words", [(5, "n is 5, its largest value is 4"),
                                         (3, "n is 3, not a multiple of 2")])  # fmt: skip
def test_symbols_outside_their_promise(rows, words):
    program = tw.compile(unary(shape=["n", 3]), shapes="x: n[1..4%2], 3")
    with pytest.raises(RunError, match=words):
        program(np.ones((rows, 3), np.float32))


def data_sizes(op: str):
    """(model, inputs that fit, inputs that do not, what the message says)."""
    x = value("x", ["n"])
    if op == "Reshape":
        m = model([node("Reshape", ["x", "s"], ["y"], name="here")], [x, value("s", [2], I64)],
                  [value("y", None)])  # fmt: skip
        return m, (A[0], [3, 1]), (A[0], [2, 2]), "the input has 3 elements, its new shape 4"
    if op == "TopK":
        m = model([node("TopK", ["x", "k"], ["y", "i"], name="here")], [x, value("k", [1], I64)],
                  [value("y", None), value("i", None, I64)])  # fmt: skip
        return m, (A[0], [3]), (A[0], [9]), "k is 9, more than the 3 elements of axis 0"
    if op == "Split":
        m = model([node("Split", ["x", "s"], ["y", "z"], name="here")], [x, value("s", [2], I64)],
                  [value("y", None), value("z", None)])  # fmt: skip
        words = "the sum of the pieces of dimension 0 is 4, expected 3"
        return m, (A[0], [2, 1]), (A[0], [2, 2]), words
    m = model([node("NonZero", ["x"], ["i"]), node("Add", ["i", "w"], ["y"], name="here")],
              [x, value("w", [1, "m"], I64)], [value("y", None, I64)])  # fmt: skip
    return m, (A[0], [[5, 5]]), (A[0], [[5] * 3]), "dimension -1 of an operand is 2, expected 3"


@pytest.mark.parametrize("op", ["Reshape", "TopK", "Split", "Add"])
def test_sizes_of_data_that_do_not_fit(op):
    """The message has the dimension, both values and the node."""
    m, fit, unfit, words = data_sizes(op)
    program = tw.compile(m)
    with pytest.raises(RunError, match=f'{words} .*node "here"'):
        program(*map(np.asarray, unfit))
    program(*map(np.asarray, fit))
    with pytest.raises(RunError, match=words):
        run_module(program.module, list(map(np.asarray, unfit)))


def test_equal_pieces_need_enough_elements():
    m = model([node("Split", ["x"], list("abcd"), name="here", num_outputs=4)],
              [value("x", ["n"])], [value(v, None) for v in "abcd"])  # fmt: skip
    program = tw.compile(m)
    assert [len(piece) for piece in program(np.ones(7, np.float32))] == [2, 2, 2, 1]
    with pytest.raises(RunError, match=r'0 of 5 elements does not split into 4 of 2 .*node "here"'):
        program(np.ones(5, np.float32))


def test_a_subscript_of_data_stays_in_its_axis():
    @tw.function
    def pick(x: tw.f32["n"], at: tw.i64):
        return x[tw.numpy.size_from(at)]

    program = tw.compile(pick)
    assert program(A[0], 2) == 2
    with pytest.raises(RunError, match="a slice from 3 to 4 leaves its dimension, which is 3"):
        program(A[0], 3)


def test_one_statement_checks_sizes_each_with_its_message():
    """Each comparison has its own words and values; the text form reads as it was."""

    @tw.function
    def part(x: tw.f32["n"], start: tw.i64, stop: tw.i64):
        first = tn.size_from(start, name="start", min=None)
        last = tn.size_from(stop, name="stop", min=None)
        begin, end = checked_by_data(*map(dim_of, (first, last, x.shape[0])))
        return wrap(mv.slice(x.node, starts=(begin,), stops=(end,), steps=(1,)))

    program = tw.compile(part, verify=True)
    np.testing.assert_array_equal(program(A[0], 1, 3), A[0][1:3])
    for start, stop, words in (
        (-2, 1, "a slice from -2 to 1 begins before its dimension, which is 3"),
        (2, 1, "a slice from 2 to 1 ends before it begins"),
        (1, 9, "a slice from 1 to 9 leaves its dimension, which is 3"),
    ):
        with pytest.raises(RunError, match=words):
            program(A[0], start, stop)
        with pytest.raises(RunError, match=words):
            run_module(program.module, [A[0], np.asarray(start), np.asarray(stop)])
    text = to_text(program.module)
    assert "checks=((0 <= start, 'a slice from {0} to {1} begins before" in text
    assert not difference(program.module, parse(text, BY_NAME, program.module.constants()))


@pytest.mark.parametrize("to, low, high", [
    (3, -128, 127), (2, 0, 255), (6, -(2**31), 2**31 - 1), (12, 0, 2**32 - 1),
    (7, -(2**63), 2**63 - 1), (13, 0, 2**64 - 1),
])  # fmt: skip
def test_casts_of_what_does_not_fit(to, low, high):
    m = model([node("Cast", ["x"], ["y"], to=to)], [value("x", ["n"])], [value("y", None, to)])
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3.7], np.float32)
    assert tw.compile(m)(x).tolist() == [0, high, low, high, low, 3]


@pytest.mark.parametrize("kind, number", [("i4", 6), ("i8", 7), ("i1", 3), ("u1", 2), ("u8", 13)])
@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integer_division_by_zero(op, kind, number):
    m = model([node(op, ["x", "z"], ["y"])], [value(n, ["k"], number) for n in "xz"],
              [value("y", None, number)])  # fmt: skip
    low = np.iinfo(kind).min
    y = tw.compile(m)(np.array([1, 0, low, 7], kind), np.array([0, 0, -1 if low else 1, 2], kind))
    assert y[3] == (3 if op == "Div" else 1)


@pytest.mark.parametrize("index, nearest", [(3, 3), (-4, 0), (4, 3), (-5, 0), (2**62, 3),
                                            (-(2**63), 0)])  # fmt: skip
@pytest.mark.parametrize("op", ["Gather", "GatherElements", "GatherND"])
def test_indices_that_are_computed_are_clamped(op, index, nearest):
    shape = ["k", 1] if op == "GatherND" else ["k"]
    m = model([node(op, ["x", "i"], ["y"])], [value("x", [4]), value("i", shape, I64)],
              [value("y", None)])  # fmt: skip
    x, i = np.arange(4, dtype=np.float32), np.array([index])
    assert tw.compile(m)(x, i[:, None] if op == "GatherND" else i) == [nearest]


def test_reshape_that_does_not_fit():
    m = model([node("Reshape", ["x", "s"], ["r"]), node("Sin", ["r"], ["y"])],
              [value("x", ["n"]), value("s", [2], I64)], [value("y", None)])  # fmt: skip
    program, x = tw.compile(m), np.zeros(4, np.float32)
    for wrong in ([3, 2], [-2, -2], [2**62, 4]):
        with pytest.raises(RunError, match=r"Reshape|out of memory"):
            program(x, np.array(wrong))
    assert program(x, np.array([-1, 2])).shape == (2, 2)


def branches():
    """A result whose size depends on the branch that was taken."""
    from onnx import helper

    then = helper.make_graph([node("Relu", ["x"], ["o"])], "t", [], [value("o", None)])
    cut = node("Slice", ["x", "one", "big"], ["o"])
    other = helper.make_graph([cut], "e", [], [value("o", None)])
    choose = node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return model([choose], [value("c", [], BOOL), value("x", ["n"])], [value("y", None)],
                 [array("one", [1]), array("big", [1000])])  # fmt: skip


def resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def calls():
    x = [np.ones(k, np.float32) for k in (4, 1, 300, 77)]
    total = [node("Sin", ["x"], ["z"]), node("CumSum", ["z", "a"], ["y"])]
    two = [value("x", ["n"]), value("z", ["n"])]
    sized = [value("x", [1]), value("s", [1], I64)]
    yield unary(), [(x[0],)]
    yield model(total, two[:1], [value("y", None)], [array("a", 0)]), [(a,) for a in x]
    add = model([node("Add", ["x", "z"], ["y"])], two, [value("y", None)])
    yield add, [(x[0], x[1]), (x[2], x[2])]
    yield (model([node("Expand", ["x", "s"], ["y"])], sized, [value("y", ["k"])]),
           [(x[1], np.array([2**45])), (x[1], np.array([5]))])  # fmt: skip
    yield branches(), [(np.array(True), x[0]), (np.array(False), x[0])]


@pytest.mark.parametrize("case", range(5))
def test_calls_do_not_leak(case):
    """Some stretch of 5,000 calls leaves the process as large as it was: what else grows in it now
    and then is not the calls'."""
    m, given = list(calls())[case]
    program, growth = tw.compile(m), []
    for _ in range(5):
        start = resident()
        for k in range(5000):
            try:
                program(*given[k % len(given)])
            except RunError:
                continue
        growth.append(resident() - start)
    assert min(growth[1:]) < 1 << 15, growth
