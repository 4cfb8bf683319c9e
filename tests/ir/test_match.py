"""Patterns and rewriting: binding, conditions, fixed points, what a replacement inherits."""

from __future__ import annotations

import pytest

from tensorwright.base import config, trace
from tensorwright.base.errors import InternalError
from tensorwright.ir.build import location
from tensorwright.ir.expr import var
from tensorwright.ir.graph import graph, param
from tensorwright.ir.match import A, P, Rest, V, once, rewrite, rule
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import tensor
from tests.ops.rows import all_rows

OPS = {op.name: op for op in all_rows()}
neg, exp, add, mul, transpose, concat = (
    OPS[o] for o in ("neg", "exp", "add", "mul", "transpose", "concat")
)
x, y, p, q = V("x"), V("y"), A("p"), A("q")

RULES = (
    rule("neg-neg", P.neg(P.neg(x)), lambda x: x),
    rule("transposes", P.transpose(P.transpose(x, perm=p), perm=q),
         lambda x, p, q: transpose(x, perm=tuple(p[i] for i in q))),
    rule("transpose-identity", P.transpose(x, perm=p), lambda x: x,
         when=lambda p: p == tuple(range(len(p)))),
    rule("exp-of-transpose", P.exp(once(P.transpose(x, perm=p))),
         lambda x, p: transpose(exp(x), perm=p)),
    rule("add-zero", P.add(x, 0.0), lambda x: x, when=lambda x, node: x.type == node.type),
)  # fmt: skip


N = var("n")


def source():
    return param("a", tensor("f32", N, 3))


def body(g) -> list[str]:
    return [line.strip() for line in to_text(g).splitlines() if line.startswith("    v")]


def test_to_a_fixed_point():
    a = source()
    t = transpose(exp(transpose(add(neg(neg(a)), 0.0), perm=(1, 0))), perm=(1, 0))
    g = rewrite(graph("main", [a], [t]), RULES)
    assert body(g) == ["v0: f32[n, 3] = exp(a)"]


def test_unchanged_is_the_same_object():
    a = source()
    g = graph("main", [a], [exp(neg(a))])
    assert rewrite(g, RULES) is g


def test_once_looks_at_other_uses():
    a = source()
    t = transpose(a, perm=(1, 0))
    g = graph("main", [a], [exp(t), neg(t)])
    assert rewrite(g, RULES) is g


def test_same_variable_is_the_same_node():
    a, b = source(), source()
    double = rule("double", P.add(x, x), lambda x: mul(x, 2.0))
    g = graph("main", [a, b], [add(a, a), add(a, b)])
    assert len([n for n in rewrite(g, [double]).nodes() if n.op is mul]) == 1


def test_rest_and_constants():
    a = source()
    single = rule("single-concat", P.concat(x, Rest("more")), lambda x: x,
                  when=lambda more: not more)  # fmt: skip
    g = rewrite(graph("main", [a], [concat(concat(a, axis=0), a, axis=0)]), [single])
    assert len(g.nodes()) == 2
    found = []
    spy = rule("spy", P.mul(x, V("c", const=True)), lambda c: found.append(c))
    g = graph("main", [a], [mul(mul(a, 2.0), a)])
    assert rewrite(g, [spy]) is g
    assert len(found) == 1


def test_name_and_place_are_inherited():
    a = source()
    with location("net.py:3", "Linear"):
        node = exp(transpose(a, perm=(1, 0)))
    named = type(node)(node.op, node.args, node.attrs, node.type, "hidden", node.loc)
    (result,) = rewrite(graph("main", [a], [named]), RULES).results
    assert (result.op.name, result.name, result.loc) == ("transpose", "hidden", node.loc)
    assert result.args[0].loc == node.loc


def test_wrong_types_name_the_rule():
    a = source()
    bad = rule("flip-it", P.neg(x), lambda x: transpose(x, perm=(1, 0)))
    with pytest.raises(InternalError, match=r"rule flip-it replaces f32\[n, 3\] by f32\[3, n\]"):
        rewrite(graph("main", [a], [neg(a)]), [bad])


def test_endless_rules_are_stopped():
    a = source()
    rules = [rule("there", P.neg(x), lambda x: exp(x)), rule("back", P.exp(x), lambda x: neg(x))]
    with pytest.raises(InternalError, match="rewriting does not end"):
        rewrite(graph("main", [a], [neg(a)]), rules)


def test_unknown_names_in_a_rule():
    with pytest.raises(TypeError, match="rule r: z is not in the pattern"):
        rule("r", P.neg(x), lambda z: z)


def test_firings_are_recorded_and_fuel_ends():
    a = source()
    g = graph("main", [a], [neg(neg(neg(neg(a))))])
    with trace.recording() as t, trace.running("simplify"):
        rewrite(g, RULES)
    assert t.counts() == {("simplify", "neg-neg"): 2}
    with config.options(fuel=1), trace.recording():
        assert len(rewrite(g, RULES).nodes()) == 3


def test_time_is_linear():
    """Ten thousand nodes and many rules; deep graphs need no recursion."""
    a = source()
    node = a
    for _ in range(3000):
        node = exp(neg(neg(node)))
    g = rewrite(graph("main", [a], [node]), RULES)
    assert len(g.nodes()) == 3001
