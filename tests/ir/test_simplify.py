"""The canonical form of index expressions: every rule by enumeration, whole expressions by fuzzing.

Symbols here have small ranges and all kinds of facts, so that all their values can be tried.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorwright.ir import expr, simplify
from tensorwright.ir.dtype import index
from tensorwright.ir.expr import (
    COMPARISONS,
    INDEX_RULES,
    Expr,
    Symbol,
    binary,
    bounds,
    cast,
    compare,
    const,
    load,
    make,
    select,
    substitute,
    sym,
    symbols_of,
    transform,
    var,
)
from tensorwright.ir.facts import evaluate, prove
from tensorwright.ir.scalar import truncdiv
from tensorwright.ir.type import tensor

tensor("f32")  # fills the index rules
N, M = var("n", min=1, max=3), var("m", min=1, max=2)
X, W = var("x", min=-5, max=5), var("w", min=0, max=12, multiple_of=4)
I, J, K = var("i", N), var("j", 4), var("k", N * 4)
SYMBOLS = (N, M, X, W, I, J, K)
ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "min", "max", "truncdiv", "rem")

NAIVE = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "min": min, "max": max, "truncdiv": truncdiv,
    "rem": lambda a, b: a - b * truncdiv(a, b) if b else 0,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
}  # fmt: skip


def values_of(s: Symbol, known: dict) -> list[int]:
    """Every value that the facts of a symbol allow."""
    top = s.max if s.upper is None else evaluate(s.upper, known)
    return [v for v in range(s.min, top + 1) if v % s.multiple_of == 0]


def assignments(symbols: set[Symbol], limit: int = 400):
    """All values of the symbols (and of those in their facts), or a sample if there are many."""
    outer = {u for s in symbols if s.upper is not None for u in symbols_of(s.upper)}
    wanted = sorted(symbols | outer, key=lambda s: s.serial)

    def extend(known, rest):
        if not rest:
            yield known
            return
        for v in values_of(rest[0], known):
            yield from extend({**known, rest[0]: v}, rest[1:])

    found = list(extend({}, wanted))
    return found if len(found) <= limit else random.Random(0).sample(found, limit)


# ---- one rule at a time ------------------------------------------------------------------------


def operands() -> list[Expr]:
    """Sums of one or two scaled symbols, products, quotients, remainders and constants."""
    simple = [*SYMBOLS, I * N, J * 2, K * 2, I * 4 + J, X * 4 + J, K // 4, X % 3, W + J, N * M]
    more = [a * c + d for a, c, d in itertools.product((X, J, I, W), (1, 2, 4, 8, -3), (0, 1, 7))]
    nested = [(X * 4 + J) // 3, (X * 2) % 8, X // 3, I * N + I, N * M * 2 + I, J * M + M - 1, X % N,
              I * N * M + M - 1, J + N * 2, X % (N * 2), (X + 1) % 12]  # fmt: skip
    return [*simple, *more, *nested, *map(const, (-4, -1, 0, 1, 2, 3, 4, 6, 8, 12))]


OPERANDS = operands()
RULES = [(op, rule) for op, rules in simplify.RULES.items() for rule in rules]


@pytest.mark.parametrize("op, rule", RULES, ids=lambda r: getattr(r, "__name__", r))
def test_rule(op, rule):
    """Whatever the rule gives equals what it was given, for all values of the symbols."""
    fired = 0
    for a, b in itertools.product(OPERANDS, OPERANDS):
        result = rule(a, b)
        if result is None or (a.op == b.op == "const" and fired > 50):
            continue
        fired += 1
        for known in assignments(symbols_of(a, b), 60):
            expected = NAIVE[op](evaluate(a, known), evaluate(b, known))
            assert evaluate(result, known) == expected, f"{op}({a}, {b}) -> {result} at {known}"
    assert fired >= 3, f"{rule.__name__} was hardly tried"


def test_rules_by_z3():
    """The identities behind the rules with constant divisors, for all integers."""
    z3 = pytest.importorskip("z3")
    x, r, q = z3.Ints("x r q")
    for c, d in itertools.product((1, 2, 3, 8), (1, 2, 5)):
        claims = (
            (x / c) / d == x / (c * d),
            (x / c + q) / d == (x + c * q) / (c * d),
            z3.Implies(x % (c * d) == 0, x / (c * d) * d == x / c),
            (q - 3 * (x % (c * d))) % c == (q - 3 * x) % c,
            -x % c == (x + c - 1) / c * c - x,
            (x % (c * d)) % c == x % c,
            z3.Implies(z3.And(r >= 0, r < c), (c * q + r) / c == q),
            z3.Implies(z3.And(r >= 0, r < c), (c * q + r) % c == r),
            z3.Implies(z3.And(r >= 0, r < c), (c * x + r) / (c * d) == x / d),
            z3.Implies(z3.And(r >= 0, r < c), (c * x + r) % (c * d) == c * (x % d) + r),
            (x / c) * c + x % c == x,
        )
        for claim in claims:
            solver = z3.Solver()
            solver.add(z3.Not(claim))
            assert solver.check() == z3.unsat, claim


def test_digits_are_put_together():
    """The digits of a position, in any places, are the position again."""
    x = var("x", min=0, max=3135)
    digits = (x // 112, x // 56 % 2, x % 56 // 2, x % 2)
    for scale in (1, 16):
        assert sum(d * k * scale for d, k in zip(digits, (112, 56, 2, 1))) is x * scale
    assert x // 112 * 2 + x // 56 % 2 is x // 56
    assert x % 56 // 2 * 2 + x % 2 is x % 56
    other = x // 112 * 3 + x // 56 % 2  # no digits of one number
    assert [evaluate(other, {x.value: v}) for v in (0, 60, 112, 200)] == [0, 1, 3, 4]


def test_quotient_and_remainder_by_a_symbolic_divisor():
    """x // d * d + x % d = x where d is not 0, or where x has no value if it is."""
    zero = var("p", min=0, max=3)
    rows = var("r", 4 * (zero * 2 + 2))
    within = var("t", M * zero * 2)
    for x, d in ((rows, zero * 2 + 2), (within, zero), (within, zero * 2), (X, N), (X * 3 + J, N)):
        assert (x // d) * d + x % d is x
        assert (x // d) * d * 3 + x % d * 3 + N is x * 3 + N
    far = var("t", zero + 1)
    for x, d in ((far, zero), (X, zero), (X, X), (rows, X * 2)):
        e = (x // d) * d + x % d
        assert e is not x
        for known in assignments(symbols_of(x, d)):
            v, w = evaluate(x, known), evaluate(d, known)
            assert evaluate(e, known) == (v if w else 0)


def test_quotient_and_remainder_in_other_forms():
    """x // d * d + y % d = x where y is x but for multiples of d: subscripts of splits."""
    block = var("block", min=0, max=3135)
    lane = var("lane", min=0, max=15)
    flat = block * 16 + lane
    row, column = flat % 784 // 28, flat % 28
    assert row * 28 + column is block % 49 * 16 + lane
    assert flat // 784 * 784 + row * 28 + column is flat
    assert flat // 784 * 784 * 3 + row * 84 + column * 3 is flat * 3


def test_sizes_of_layers_that_halve():
    """However often a size is halved, one quotient says it, as do those who computed it at once."""
    h = var("h", min=1)
    assert ((h + 1) // 2 + 1) // 2 is (h + 3) // 4
    assert (((h - 1) // 2 + 1 - 1) // 2 + 1 - 1) // 2 + 1 is (h + 7) // 8
    w = var("w", min=0, multiple_of=8)
    assert h + (4 - h % 4) % 4 is (h + 3) // 4 * 4
    assert w // 8 * 4 is w // 2 and w // 4 * 6 + h is w // 2 * 3 + h


# ---- whole expressions -------------------------------------------------------------------------

leaves = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 5, 8, -1, -2, -7]).map(lambda v: ("const", v)),
    st.sampled_from(SYMBOLS).map(lambda s: ("sym", s)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(ARITHMETIC), inner, inner),
        st.tuples(st.just("select"), st.tuples(st.just("lt"), inner, inner), inner, inner),
    ),
    max_leaves=9,
)


def built(t) -> Expr:
    match t:
        case ("const", v):
            return const(v)
        case ("sym", s):
            return s
        case ("select", c, a, b):
            return select(*map(built, (c, a, b)))
    make_ = compare if t[0] in COMPARISONS else binary
    return make_(t[0], built(t[1]), built(t[2]))


def naive(t, known: dict):
    match t:
        case ("const", v):
            return v
        case ("sym", s):
            return known[s.value]
        case ("select", c, a, b):
            return naive(a if naive(c, known) else b, known)
    return NAIVE[t[0]](naive(t[1], known), naive(t[2], known))


def leaves_of(t) -> set[Symbol]:
    if t[0] in ("const", "sym"):
        return {t[1].value} if t[0] == "sym" else set()
    return {s for part in t[1:] for s in leaves_of(part)}


@settings(max_examples=400, deadline=None)
@given(trees)
def test_value_and_bounds(t):
    e = built(t)
    low, high = bounds(e)
    for known in assignments(leaves_of(t), 60):
        value = naive(t, known)
        assert evaluate(e, known) == value, f"{e} at {known}"
        assert low is None or low <= value, f"{e} >= {low}"
        assert high is None or value <= high, f"{e} <= {high}"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(COMPARISONS), trees, trees)
def test_comparisons_and_proofs(op, a, b):
    e = built((op, a, b))
    verdict = prove(make(op, e.dtype, (built(a), built(b))))
    for known in assignments(leaves_of(a) | leaves_of(b), 60):
        value = naive((op, a, b), known)
        assert evaluate(e, known) == value
        assert verdict is None or verdict == value, f"{op}({built(a)}, {built(b)}) is {verdict}"


@settings(max_examples=300, deadline=None)
@given(trees)
def test_idempotent_and_unchanged(t):
    e = built(t)
    assert rebuilt(e) is e
    assert transform(e, lambda _: None) is e
    assert substitute(e, {s: s for s in SYMBOLS}) is e


def rebuilt(e: Expr) -> Expr:
    """`e` built again from its leaves by the constructors."""
    if not e.args:
        return e
    args = tuple(map(rebuilt, e.args))
    if e.op in INDEX_RULES and args[0].dtype is index:
        return INDEX_RULES[e.op](*args)
    return select(*args) if e.op == "select" else make(e.op, e.dtype, args, e.value)


# ---- texts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("e, text", [
    (I * 8 + J + 3 - I * 8, "j + 3"),
    ((I * 4 + J) // 4, "i"),
    ((I * 4 + J) % 4, "j"),
    ((K + 8) % 4, "k % 4"),
    (W // 4 * 4, "w"),
    (W % 4, "0"),
    (X // 3 * 3 + X % 3, "x"),
    ((N * I + N * 2) // N, "i + 2"),
    (N * 4 - 4 * N, "0"),
    (N - 1 - I, "i * -1 + n - 1"),
    (I < N, "True"),
    (K < N * 4, "True"),
    (binary("min", N, N + 1), "n"),
    ((X + 2) * (X - 2), "x * x - 4"),
])  # fmt: skip
def test_text(e, text):
    assert str(e) == text


def test_namesakes_have_one_order():
    a, b = var("i", 8), var("i", 8)
    assert a + b is b + a
    assert a * b is b * a
    assert (a + b) % 3 is (b + a) % 3
    assert a - b is not b - a


def test_casts_and_loads_are_atoms():
    from tensorwright.ir.expr import Buffer

    b = Buffer("b", "i32", (4,))
    e = cast(load(b, (J,)), index)
    assert e + J - e is J
    assert (e * 4 + J) % 4 is J


def test_no_truth():
    with pytest.raises(TypeError, match="not known while compiling"):
        bool(X < 3)


def test_equal_expressions_are_one_object():
    assert sym(X.value) * 2 + 1 is 1 + 2 * sym(X.value)


def test_parts_that_sizes_share_are_printed_once(monkeypatch):
    made, real = [], expr._made_text
    monkeypatch.setattr(expr, "_made_text", lambda e, part: made.append(e) or real(e, part))
    a, b, c = (var(name) for name in "abc")
    shared = a // (b * b + c)
    sizes = [binary("max", shared * c, shared + n) % (shared * b + 7 + n) for n in range(20)]
    assert len({str(s) for s in sizes}) == 20
    assert sum(e is shared for e in made) == 1


def test_what_shares_parts_is_ordered_without_its_text():
    a, b, c = (var(name) for name in "abc")
    e = a
    for n in range(100):  # the text doubles each time
        e = binary("max", e // (b + n), e % (c + n)) + e
    assert len(expr.order_of(e)) < 2 * expr.LONG
    assert e + b is b + e
    assert expr.order_of(e) != expr.order_of(e + 1)
    assert expr.order_of(a * b + c) == str(a * b + c)
