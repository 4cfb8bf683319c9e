"""The shape language of inputs."""

import pytest

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.demands import Demands
from tensorwright.frontend.shapes import Shapes
from tensorwright.ir.expr import eq, var


def shape(spec, declared=(None, 3), name="x", names=("x",)):
    s = Shapes(spec, names)
    s.learn(name, declared)
    return s.shape_of(name, declared)


def facts(d):
    s = d.value
    return s.name, s.min, s.max, s.multiple_of, s.values


def test_declared_dimensions_stay():
    n, three = shape(None, ("n", 3))
    assert facts(n) == ("n", 1, None, 1, None)
    assert three == 3


def test_names_with_facts():
    n, s, h, w = shape({"x": "n[1..64], s[8..4096%8], h{320,224}, w=h"}, (None,) * 4)
    assert facts(n) == ("n", 1, 64, 1, None)
    assert facts(s) == ("s", 8, 4096, 8, None)
    assert facts(h) == ("h", 224, 320, 1, (224, 320))
    assert w == h


@pytest.mark.parametrize(
    "text, low, high, step",
    [("n[..9]", 1, 9, 1), ("n[0..]", 0, None, 1), ("n[%4]", 1, None, 4), ("n[5]", 5, 5, 1)],
)
def test_bounds(text, low, high, step):
    assert facts(shape(text, (None,))[0]) == ("n", low, high, step, None)


def test_expressions_unknowns_and_kept():
    n, m, own, fresh = shape("n, 2*n + 1, _, ?", (None, None, "k", 7))
    assert str(m) == str(n * 2 + 1)
    assert own.value.name == "k"
    assert fresh.value.name == "x_3"


def test_whole_string_shares_names():
    s = Shapes("x: n, 3; y: n", ("x", "y"))
    assert s.shape_of("x", (None, None))[0] == s.shape_of("y", (None,))[0]


def test_bare_string_is_the_only_input():
    assert shape("2, 3", (None, None)) == (2, 3)
    with pytest.raises(FrontendError, match="several"):
        Shapes("2, 3", ("x", "y"))


def test_renamed_dimensions_follow():
    s = Shapes({"x": "4, _"}, ("x", "y"))
    s.learn("x", ("batch", "k"))
    s.learn("y", ("batch",))
    assert s.shape_of("x", ("batch", "k"))[0] == 4
    assert s.shape_of("y", ("batch",)) == (4,)


def test_axes_and_sequences():
    assert shape({"x": {0: 5}}, ("n", 3)) == (5, 3)
    assert shape({"x": [2, None]}, ("n", 3)) == (2, 3)


def test_torch_dimensions():
    class Dim:
        __name__, min, max = "batch", 2, 16

    assert facts(shape({"x": (Dim(), 3)}, ("n", 3))[0]) == ("batch", 2, 16, 1, None)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"z": "n"}, "no input"),
        ({"x": "n"}, "1 dimensions"),
        ({"x": "n, -1"}, "not a dimension|cannot be"),
        ({"x": "n, 3, import os"}, "3 dimensions"),
        ({"x": "n, f(3)"}, "not a dimension"),
        ({"x": "n[5..2], 3"}, "no size"),
        ({"x": "n[1..4] , n[1..5]"}, "different facts"),
        ({"x": {7: 1}}, "no axis"),
        ({"x": 3}, "no shape"),
        ("x n", "several|dimensions|not a dimension"),
    ],
)
def test_errors(spec, message):
    with pytest.raises(FrontendError, match=message):
        shape(spec)


def test_unknown_rank_needs_a_shape():
    with pytest.raises(FrontendError, match="rank"):
        shape(None, None)
    assert shape("n, 3", None)[1] == 3


def test_relations_of_the_model_are_kept():
    s = Shapes(None, ("ids", "past", "mask", "image", "odd"), least=0)
    shapes = {
        "ids": ("b", "s"),
        "past": ("b", "past"),
        "mask": ("b", "past + s"),
        "image": ("16*h", "w*w", "a*c"),
        "odd": ("past-", "2"),
    }
    for name, own in shapes.items():
        s.learn(name, own)
    found = {name: s.shape_of(name, own) for name, own in shapes.items()}
    assert found["mask"][1] == found["past"][1] + found["ids"][1]
    assert str(found["image"][0]) == "h * 16"
    assert [d.op for d in found["image"][1:]] == ["sym", "sym"]  # sizes do not tell w, a and c
    assert found["odd"][0].op == "sym" and facts(found["past"][1])[1] == 0


def test_relations_follow_renaming():
    s = Shapes("past: b, p[..9]; mask: _, _", ("past", "mask"))
    for name, own in (("past", ("b", "past")), ("mask", ("b", "past + 1"))):
        s.learn(name, own)
    assert str(s.shape_of("mask", ("b", "past + 1"))[1]) == "p + 1"


def test_facts_meet_what_the_model_demands():
    demands = Demands()
    demands.add("n", 10, 100)
    assert facts(Shapes("n", ("x",), demands).shape_of("x", (None,))[0])[:3] == ("n", 10, 100)
    within = Shapes("n[20..50]", ("x",), demands).shape_of("x", (None,))[0]
    assert facts(within)[:3] == ("n", 20, 50)
    few = Shapes("n{5, 20, 40}", ("x",), demands).shape_of("x", (None,))[0]
    assert facts(few)[:3] == ("n", 20, 40)
    for text, word in (("n[1..200]", "at most 100"), ("n[1..9]", "at least 10")):
        with pytest.raises(FrontendError, match=word):
            Shapes(text, ("x",), demands)


@pytest.mark.parametrize(
    "condition, low, high",
    [
        (lambda n: n >= 400, 400, None),
        (lambda n: n // 128 >= 3, 384, None),
        (lambda n: eq(n // 128, 4), 512, 639),
        (lambda n: n <= 77, 0, 77),
        (lambda n: n * 3 >= 30_000, 10_000, None),
    ],
)
def test_conditions_become_bounds(condition, low, high):
    n = var("n", min=0)
    demands = Demands()
    assert demands.require(condition(n))
    assert (demands.bounds["n"].low, demands.bounds["n"].high) == (low, high)


def test_conditions_that_are_no_bounds():
    n, m = var("n", min=0), var("m", min=0)
    demands = Demands()
    for condition in (n >= 0, n < 0, n >= m, eq(n * 2, 3)):
        assert not demands.require(condition)
    assert not demands
