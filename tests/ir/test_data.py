"""Sum types, match and function values: types, text form, verification, both interpreters."""

from __future__ import annotations

import numpy as np
import pytest

from tensorwright.base.errors import CompileError, InternalError, RunError
from tensorwright.base.value import Value
from tensorwright.ir.compare import difference
from tensorwright.ir.graph import Graph, graph, param
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import Case, DataType, FunctionType, data_types, tensor
from tensorwright.ir.verify import verify
from tensorwright.ops import prelude
from tensorwright.ops.data import apply, construct, match_on
from tensorwright.ops.elementwise import add
from tensorwright.ops.table import BY_NAME

TREE = """\
@data
class Tree:
    Leaf = case(x=f32[3])
    Node = case(left='Tree', right='Tree')

@graph
def main(t: Tree) -> f32[3]:
    y: f32[3] = call(t, callee='total', type=f32[3])
    return y

@graph
def total(t: Tree) -> f32[3]:
    @graph
    def leaf(x: f32[3]) -> f32[3]:
        return x
    @graph
    def node(l: Tree, r: Tree) -> f32[3]:
        a: f32[3] = call(l, callee='total', type=f32[3])
        b: f32[3] = call(r, callee='total', type=f32[3])
        v0: f32[3] = add(a, b)
        return v0
    y: f32[3] = match(t, Leaf=leaf, Node=node)
    return y
"""

MAP = """\
n = sym()
d = sym()
d_2 = sym()
k = sym()

@data
class List:
    Nil = case()
    Cons = case(head=f32[n], tail='List')

@graph
def main(xs: List, b: f32[()]) -> (List, f32[d]):
    ys: List = call(xs, b, callee='shifted', type=List)
    @graph
    def cons(h: f32[d_2], t: List) -> f32[d_2]:
        return h
    @graph
    def rest() -> f32[0]:
        none: f32[0] = f32([])
        return none
    first: f32[d] = match(ys, symbols=(d,), Cons=cons, orelse=rest, gives=f32[d])
    return (ys, first)

@graph
def shifted(xs: List, b: f32[()]) -> List:
    @graph
    def nil(b: f32[()]) -> List:
        none: List = List.Nil()
        return none
    @graph
    def cons(h: f32[k], t: List, b: f32[()]) -> List:
        more: f32[k] = add(h, b)
        rest: List = call(t, b, callee='shifted', type=List)
        v0: List = List.Cons(more, rest)
        return v0
    ys: List = match(xs, b, Nil=nil, Cons=cons)
    return ys
"""

FUNCTION = """\
@data
class Box:
    Full = case(f=function((f32[2],), f32[2]), x=f32[2])

@graph
def main(x: f32[2], b: f32[2]) -> f32[2]:
    @graph
    def body(a: f32[2], c: f32[2]) -> f32[2]:
        v0: f32[2] = mul(a, c)
        return v0
    f: function((f32[2],), f32[2]) = closure(b, body=body, params=(f32[2],))
    box: Box = Box.Full(f, x)
    y: f32[2] = call(box, callee='run', type=f32[2])
    return y

@graph
def run(box: Box) -> f32[2]:
    @graph
    def full(f: function((f32[2],), f32[2]), x: f32[2]) -> f32[2]:
        once: f32[2] = apply(f, x)
        twice: f32[2] = apply(f, once)
        return twice
    y: f32[2] = match(box, Full=full)
    return y
"""


def leaf(*x):
    return Value("Leaf", (np.array(x, np.float32),))


def node(left, right):
    return Value("Node", (left, right))


def cells(*arrays):
    found = Value("Nil")
    for a in reversed(arrays):
        found = Value("Cons", (np.asarray(a, np.float32), found))
    return found


def run_text(text: str, *args):
    namespace: dict = {}
    exec("from tensorwright.ops.prelude import *\n" + text, namespace)
    return namespace["main"](*args)


@pytest.mark.parametrize("text", [TREE, MAP, FUNCTION])
def test_round_trip(text):
    m = parse(text, BY_NAME)
    verify(m)
    assert to_text(m) == text
    assert not difference(parse(to_text(m), BY_NAME), m)


def test_tree_runs():
    t = node(node(leaf(1, 2, 3), leaf(10, 20, 30)), leaf(100, 200, 300))
    m = parse(TREE, BY_NAME)
    np.testing.assert_array_equal(run_module(m, [t])[0], [111, 222, 333])
    assert run_module(m, [t], precise=True)[0].dtype == np.float64
    np.testing.assert_array_equal(run_text(TREE, t), [111, 222, 333])


def test_fields_have_sizes_of_their_own():
    xs = cells([1, 2], [3], [])
    ys, first = run_module(parse(MAP, BY_NAME), [xs, np.float32(1)])
    assert str(ys) == "Cons([2. 3.], Cons([4.], Cons([], Nil)))"
    np.testing.assert_array_equal(first, [2, 3])
    ys, first = run_text(MAP, cells([5]), np.float32(1))
    np.testing.assert_array_equal(first, [6])
    assert run_module(parse(MAP, BY_NAME), [cells(), np.float32(1)])[1].shape == (0,)


def test_functions_are_values():
    x, b = np.array([1, 2], np.float32), np.array([3, 5], np.float32)
    np.testing.assert_array_equal(run_module(parse(FUNCTION, BY_NAME), [x, b])[0], [9, 50])
    np.testing.assert_array_equal(run_text(FUNCTION, x, b), [9, 50])


def test_types_of_one_name():
    a = parse(TREE, BY_NAME).data_types()["Tree"]
    b = parse(TREE, BY_NAME).data_types()["Tree"]
    assert a == b and a is not b and hash(a) == hash(b)
    other = DataType("Tree", [Case("Leaf", (("x", tensor("f32", 4)),))])
    assert a != other
    two = Graph("main", (param("a", a), param("b", other)), (param("a", a),))
    with pytest.raises(InternalError, match="two data types are named 'Tree'"):
        Module({"main": two}).data_types()


def test_types_are_found_in_fields():
    inner = DataType("Inner", [Case("One", ())])
    outer = DataType("Outer")
    outer.define([Case("Some", (("f", FunctionType((inner,), outer)),))])
    assert [t.name for t in data_types(outer)] == ["Outer", "Inner"]


def test_values_that_do_not_fit():
    m = parse(TREE, BY_NAME)
    for bad, message in (
        (3, "a int is no value of Tree"),
        (Value("Branch"), "Branch is no value of Tree"),
        (Value("Leaf", ()), "Tree.Leaf has 1 fields, not 0"),
        (leaf(1, 2), r"x.shape\[0\] is 2"),
        (node(leaf(1, 2, 3), Value("Leaf", (np.zeros(3),))), "element type f64"),
    ):
        with pytest.raises(RunError, match=message):
            run_module(m, [bad])


def test_wrong_programs():
    tree = DataType("Tree")
    tree.define([Case("Leaf", (("x", tensor("f32", 3)),)), Case("Nil", ())])
    t, x = param("t", tree), param("x", tensor("f32", 4))
    with pytest.raises(CompileError, match=r"the field x is f32\[3\], f32\[4\] is given"):
        construct(x, data=tree, case="Leaf")
    with pytest.raises(CompileError, match="has no case 'Node'"):
        construct(x, data=tree, case="Node")
    arm = graph("arm", [], [construct(data=tree, case="Nil")])
    with pytest.raises(CompileError, match="may be Leaf"):
        match_on(t, [], {"Nil": arm})
    with pytest.raises(CompileError, match="no case Other"):
        match_on(t, [], {"Other": arm, "orelse": arm})
    wrong = graph("arm", [x], [x])
    with pytest.raises(CompileError, match=r"parameter 1 .* is f32\[4\]"):
        match_on(t, [], {"Leaf": wrong, "orelse": arm})
    with pytest.raises(CompileError, match="Tree is no function"):
        apply(t, x)


def test_arms_join_unlike_sizes():
    m = parse(MAP, BY_NAME)
    found = m.main.results[1]
    assert found.op.name == "match" and len(found.attrs["symbols"]) == 1


def test_deep_values_and_recursion():
    deep = cells(*([[1.0]] * 20_000))
    assert str(deep).startswith("Cons([1.], Cons(") and len(str(deep)) < 5000
    with pytest.raises(RunError, match="too deep for the interpreter"):
        run_module(parse(MAP, BY_NAME), [deep, np.float32(1)])


def test_match_with_one_arm_for_the_rest():
    list_ = DataType("List")
    list_.define([Case("Nil", ()), Case("Cons", (("x", tensor("f32")), ("tail", list_)))])
    xs, one = param("xs", list_), param("one", tensor("f32"))
    h, t, c = param("h", tensor("f32")), param("t", list_), param("c", tensor("f32"))
    cons = graph("cons", [h, t, c], [add(h, c)])
    other = param("c", tensor("f32"))
    y = match_on(xs, [one], {"Cons": cons, "orelse": graph("rest", [other], [other])})
    m = Module({"main": graph("main", [xs, one], [y])})
    verify(m)
    assert run_module(m, [cells(3.0), np.float32(1)])[0] == 4
    assert run_module(m, [cells(), np.float32(1)])[0] == 1
    assert "match(xs, one, Cons=cons, orelse=rest)" in to_text(m)
    assert prelude.match(cells(2.0), 5.0, Cons=lambda h, t, c: h + c, orelse=lambda c: c) == 7
