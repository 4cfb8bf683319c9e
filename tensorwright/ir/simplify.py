"""The canonical form of index expressions, kept as they are built.

A canonical index expression is a constant plus a sum of `atom * coefficient` terms, where an atom
is a symbol, a cast, a load or an irreducible product, `//`, `%`, `min`, `max` or `select`; terms
are ordered by their text, symbols first, so that printing and parsing give the same sum back.

    (i * 8 + j) // 8  ->  i      if 0 <= j < 8
    (i * 8 + j) % 8   ->  j      if 0 <= j < 8

`RULES` are the identities behind `//`, `%`, `min`, `max` and comparisons, each a function from the
operands to a simpler expression or None; the tests prove every one by enumeration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from tensorwright.ir.dtype import boolean, index
from tensorwright.ir.expr import INDEX_RULES, Expr, bounds, const, make, order_of, walk

MOST = 1 << 31  # of a number that comes from several: expressions are evaluated in 64 bits
Linear = tuple[dict[Expr, int], int]  # atoms with their non-zero coefficients, and the constant


def linear(e: Expr) -> Linear:
    """The terms of a canonical index expression; the dict is the caller's."""
    terms, constant = terms_of(e)
    return dict(terms), constant


def terms_of(e: Expr) -> Linear:
    """`linear`, computed once a node; nobody changes the dict."""
    found = e._linear
    if found is None:
        found = e._linear = _linear(e)
    return found


def _linear(e: Expr) -> Linear:
    terms: dict[Expr, int] = {}
    constant = 0
    stack = [e]
    while stack:
        t = stack.pop()
        if t.op == "add":
            stack.extend((t.args[1], t.args[0]))
        elif t.op == "const":
            constant += t.value
        elif t.op == "mul" and t.args[1].op == "const":
            terms[t.args[0]] = terms.get(t.args[0], 0) + t.args[1].value
        else:
            terms[t] = terms.get(t, 0) + 1
    return terms, constant


def from_linear(terms: dict[Expr, int], constant: int = 0) -> Expr:
    """The canonical sum of the terms."""
    atoms = [a for a, c in terms.items() if c]
    for a in atoms:
        if a.op == "floordiv" and a.args[1].op == "const":
            more = _recombine(a, terms)
            if more is not None:
                return _add(more, const(constant))
        elif a.op == "mod" and a.args[1].op != "const":
            more = _recombine_symbolic(a, terms)
            if more is not None:
                return _add(more, const(constant))
    result = None
    for atom in _in_order(atoms):
        c = terms[atom]
        term = atom if c == 1 else make("mul", index, (atom, const(c)))
        result = term if result is None else make("add", index, (result, term))
    if result is None:
        return const(constant)
    return result if constant == 0 else make("add", index, (result, const(constant)))


def _recombine(quotient: Expr, terms: dict[Expr, int]) -> Expr | None:
    """The sum after x // d * (c*d) + x % d * c = x * c, or x // d * (c*g) = x // (d/g) * c if d
    divides x and g divides d; None if neither applies to `quotient`, which may be one of a
    quotient: x // d // e."""
    (x, d), c = quotient.args, terms[quotient]
    if d.value == 0:
        return None
    if d.value > 0 and multiple_of(x) % d.value == 0 and (g := math.gcd(c, d.value)) > 1:
        rest = {a: k for a, k in terms.items() if a is not quotient}
        return _add(from_linear(rest), _mul(_floordiv(x, const(d.value // g)), const(c // g)))
    ways = [p.args for p in terms if p.op == "mod" and p.args[0].op == "floordiv"]
    for a, b in (quotient.args, *(way for way in ways if _floordiv(*way) is quotient)):
        if b.op != "const" or c % b.value:
            continue
        left = {t: k for t, k in terms.items() if t is not quotient}
        for remainder in (make("mod", index, (a, b)), _mod(a, b)):  # in any form that it may have
            parts, constant = terms_of(_mul(remainder, const(c // b.value)))
            if not constant and all(left.get(t) == k for t, k in parts.items()):
                rest = from_linear({t: k for t, k in left.items() if t not in parts})
                return _add(rest, _mul(a, const(c // b.value)))
    return None


def _recombine_symbolic(remainder: Expr, terms: dict[Expr, int]) -> Expr | None:
    """The sum after x // d * d * c + x % d * c = x * c for a symbolic d that is not 0 wherever x
    has a value; None where the first term, whose product is distributed, is not all there."""
    (x, d), c = remainder.args, terms[remainder]
    if not (_is_above(d, 0) or _is_empty_without(x, d)):
        return None
    whole, constant = terms_of(_mul(_mul(_floordiv(x, d), d), const(c)))
    if constant or not whole or any(terms.get(a) != k for a, k in whole.items()):
        return None
    rest = {a: k for a, k in terms.items() if a is not remainder and a not in whole}
    return _add(from_linear(rest), _mul(x, const(c)))


def _is_above(e: Expr, least: int) -> bool:
    low = bounds(e)[0]
    return low is not None and low > least


def _is_empty_without(x: Expr, d: Expr) -> bool:
    """Whether x contains a loop variable that takes no value where d is 0: its loop has a multiple
    of d iterations."""
    return any(
        a.op == "sym" and a.value.min == 0 and a.value.upper is not None
        and _is_multiple(_add(a.value.upper, const(1)), d)
        for a in walk(x)
    )  # fmt: skip


def _is_multiple(e: Expr, d: Expr) -> bool:
    """Whether e is q * d, distributed, for a single term q."""
    (te, _), (td, _) = terms_of(e), terms_of(d)
    ((first, scale), *_) = td.items()
    for atom, c in te.items():
        left = factors(atom)
        if c % scale or any(f not in left for f in factors(first)):
            continue
        for f in factors(first):
            left.remove(f)
        q = const(c // scale)
        for f in left:
            q = _mul(q, f)
        if _mul(q, d) is e:
            return True
    return False


def _order(atom: Expr) -> tuple:
    """A stable order of atoms: by text, so that printing and parsing give the same sum."""
    return (len(atom.args) > 0, order_of(atom))


def _in_order(atoms: list[Expr]) -> list[Expr]:
    """Atoms by `_order`; those of the same text, which mention different symbols of one name, by
    age of the symbols."""
    if len(atoms) < 2:
        return atoms
    ordered = sorted(atoms, key=_order)
    if any(a._key == b._key for a, b in pairwise(ordered)):
        ordered.sort(key=lambda a: (_order(a), _ages(a)))
    return ordered


def _ages(e: Expr) -> tuple[int, ...]:
    return tuple(a.value.serial for a in walk(e) if a.op == "sym")


def _add(a: Expr, b: Expr) -> Expr:
    if a.op == "const" and b.op == "const":
        return const(a.value + b.value)
    if b.op == "const" and b.value == 0:
        return a
    if a.op == "const":
        if a.value == 0:
            return b
        a, b = b, a
    if b.op == "const":  # the terms stay as they are
        if a.op == "add" and a.args[1].op == "const":
            a, b = a.args[0], const(a.args[1].value + b.value)
        return a if b.value == 0 else make("add", index, (a, b))
    terms, constant = terms_of(a)
    more, other = terms_of(b)
    terms = dict(terms)
    for atom, c in more.items():
        terms[atom] = terms.get(atom, 0) + c
    return from_linear(terms, constant + other)


def _sub(a: Expr, b: Expr) -> Expr:
    return const(0) if a is b else _add(a, _mul(b, const(-1)))


def _mul(a: Expr, b: Expr) -> Expr:
    if a.op == "const":
        a, b = b, a
    if b.op == "const":
        if a.op == "const":
            return const(a.value * b.value)
        if b.value in (0, 1):
            return a if b.value else const(0)
        terms, constant = terms_of(a)
        return from_linear({t: c * b.value for t, c in terms.items()}, constant * b.value)
    return _product(a, b)


def _product(a: Expr, b: Expr) -> Expr:
    """The product of two non-constants, distributed over sums."""
    (ta, ca), (tb, cb) = terms_of(a), terms_of(b)
    if len(ta) == 1 and ca == 0 and len(tb) == 1 and cb == 0:
        (x, cx), (y, cy) = *ta.items(), *tb.items()
        ordered = _in_order([*factors(x), *factors(y)])
        atom = ordered[0]
        for f in ordered[1:]:
            atom = make("mul", index, (atom, f))
        return from_linear({atom: cx * cy})
    result = const(ca * cb)
    for x, cx in [*ta.items(), (None, ca)]:
        for y, cy in [*tb.items(), (None, cb)]:
            if (x is None and y is None) or cx * cy == 0:
                continue
            term = y if x is None else x if y is None else _product(x, y)
            result = _add(result, _mul(term, const(cx * cy)))
    return result


def factors(atom: Expr) -> list[Expr]:
    """The factors of a product of non-constants."""
    if atom.op == "mul" and atom.args[1].op != "const":
        return [*factors(atom.args[0]), atom.args[1]]
    return [atom]


# ---- rules ------------------------------------------------------------------------------------

Rule = Callable[[Expr, Expr], Expr | None]
RULES: dict[str, list[Rule]] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register an identity for `ops`; the docstring states it."""

    def register(f: Rule) -> Rule:
        for op in ops:
            RULES.setdefault(op, []).append(f)
        return f

    return register


def multiple_of(e: Expr) -> int:
    """A positive integer known to divide `e` (0 divides only zero)."""
    terms, constant = terms_of(e)
    result = abs(constant)
    for atom, c in terms.items():
        result = math.gcd(result, known_multiple(atom, c))
    return result


def _divides(e: Expr, d: Expr) -> Expr | None:
    """e / d if d divides every term of e, for a symbolic d."""
    terms, constant = terms_of(e)
    (td, cd) = terms_of(d)
    if cd or len(td) != 1:
        return const(1) if e is d else None
    ((atom, scale),) = td.items()
    wanted = factors(atom)
    out: dict[Expr, int] = {}
    if constant:
        return None
    for t, c in terms.items():
        left = factors(t)
        for f in wanted:
            if f not in left:
                return None
            left.remove(f)
        if c % scale:
            return None
        rest = const(1)
        for f in left:
            rest = _mul(rest, f)
        key = rest if left else None
        out[key] = out.get(key, 0) + c // scale
    unit = out.pop(None, 0)
    return from_linear(out, unit)


def known_multiple(atom: Expr, c: int) -> int:
    """A number known to divide atom * c."""
    if atom.op == "sym":
        return c * atom.value.multiple_of
    return c * math.prod(map(multiple_of, factors(atom))) if atom.op == "mul" else c


def _split_by(a: Expr, d: int) -> tuple[Expr, Expr]:
    """a = d * quotient + rest, taking into the quotient every term that d divides."""
    terms, constant = terms_of(a)
    quotient, rest = {}, {}
    for t, c in terms.items():
        if c % d == 0:
            quotient[t] = c // d
        else:
            rest[t] = c
    low = constant % d
    return from_linear(quotient, (constant - low) // d), from_linear(rest, low)


@rule("floordiv")
def div_constants(a, b):
    """c1 // c2, and x // 0 = 0"""
    if b.op == "const":
        if b.value == 0:
            return const(0)
        if b.value == 1:
            return a
        if a.op == "const":
            return const(a.value // b.value)
    return None


@rule("mod")
def mod_constants(a, b):
    """c1 % c2, and x % 0 = 0"""
    if b.op == "const":
        if b.value in (0, 1, -1):
            return const(0)
        if a.op == "const":
            return const(a.value % b.value)
    return None


@rule("floordiv")
def div_splits_multiples(a, b):
    """(d*q + r) // d = q + r // d; r // d = 0 if 0 <= r < d"""
    if b.op != "const" or b.value <= 0:
        return None
    quotient, rest = _split_by(a, b.value)
    lo, hi = bounds(rest)
    if lo is not None and hi is not None and lo // b.value == hi // b.value:
        return _add(quotient, const(lo // b.value))
    if quotient.op == "const" and quotient.value == 0:
        return None
    return _add(quotient, _floordiv(rest, b))


@rule("mod")
def mod_drops_multiples(a, b):
    """(d*q + r) % d = r % d; r % d = r if 0 <= r < d"""
    if b.op != "const" or b.value <= 0:
        return None
    terms, constant = terms_of(a)
    rest = {t: c for t, c in terms.items() if known_multiple(t, c) % b.value}
    dropped = len(rest) < len(terms) or not 0 <= constant < b.value
    rest = from_linear(rest, constant % b.value)
    lo, hi = bounds(rest)
    if lo is not None and hi is not None and lo // b.value == hi // b.value:
        return _add(rest, const(-b.value * (lo // b.value)))
    return _mod(rest, b) if dropped else None


@rule("floordiv")
def div_common_factor(a, b):
    """(g*x + s) // (g*d) = x // d if 0 <= s < g"""
    if b.op != "const" or b.value <= 1:
        return None
    terms, constant = terms_of(a)
    coefficients = [math.gcd(c, b.value) for c in terms.values()]
    for g in sorted({c for c in coefficients if c > 1}, reverse=True):
        outer = {t: c // g for t, c in terms.items() if c % g == 0}
        inner = from_linear({t: c for t, c in terms.items() if c % g}, constant % g)
        lo, hi = bounds(inner)
        if lo is not None and hi is not None and lo >= 0 and hi < g:
            return _floordiv(from_linear(outer, constant // g), const(b.value // g))
    return None


@rule("mod")
def mod_common_factor(a, b):
    """(g*x + s) % (g*d) = g * (x % d) + s if 0 <= s < g"""
    if b.op != "const" or b.value <= 1:
        return None
    terms, constant = terms_of(a)
    for g in sorted({math.gcd(c, b.value) for c in terms.values()} - {1}, reverse=True):
        outer = {t: c // g for t, c in terms.items() if c % g == 0}
        inner = from_linear({t: c for t, c in terms.items() if c % g}, constant % g)
        lo, hi = bounds(inner)
        if lo is not None and hi is not None and lo >= 0 and hi < g and g < b.value:
            x = _mod(from_linear(outer, constant // g), const(b.value // g))
            return _add(_mul(x, const(g)), inner)
    return None


@rule("floordiv")
def div_of_div(a, b):
    """(x // c1 + k) // c2 = (x + c1*k) // (c1 * c2) for c2 > 0, while the numbers are so small that
    what is made of them fits 64 bits"""
    if b.op != "const" or b.value <= 0:
        return None
    terms, k = terms_of(a)
    inner = next(iter(terms)) if list(terms.values()) == [1] else a
    if inner.op != "floordiv" or inner.args[1].op != "const":
        return None
    x, c = inner.args[0], inner.args[1].value
    if max(abs(c * k), c * b.value) > MOST:
        return None
    return _floordiv(_add(x, const(c * k)), const(c * b.value))


@rule("floordiv")
def div_of_mod(a, b):
    """(x % (c1*c2)) // c1 stays; (x % c) // c = 0 for c > 0"""
    if a.op == "mod" and a.args[1] is b and bounds(b)[0] is not None and bounds(b)[0] > 0:
        return const(0)
    return None


@rule("mod")
def mod_of_mod(a, b):
    """(s + k * (x % m)) % c = (s + k * x) % c for c > 0, if c divides k * m"""
    if b.op != "const" or b.value <= 0:
        return None
    terms, constant = terms_of(a)
    within = [t for t, k in terms.items() if t.op == "mod" and t.args[1].op == "const"
              and t.args[1].value > 0 and k * t.args[1].value % b.value == 0]  # fmt: skip
    if not within:
        return None
    total = from_linear({t: c for t, c in terms.items() if t not in within}, constant)
    for t in within:
        total = _add(total, _mul(t.args[0], const(terms[t])))
    return _mod(total, b)


@rule("mod")
def mod_of_negative(a, b):
    """-x % c = (x + c - 1) // c * c - x for c > 0: what is missing to a multiple of c"""
    if b.op != "const" or b.value <= 0:
        return None
    terms, constant = terms_of(a)
    if constant % b.value or not terms or any(c > 0 for c in terms.values()):
        return None
    x = from_linear({t: -c for t, c in terms.items()})
    up = _floordiv(_add(x, const(b.value - 1)), b)
    return _sub(_mul(up, b), x)


@rule("floordiv")
def div_symbolic_multiple(a, b):
    """(d*q + r) // d = q if 0 <= r < d, d symbolic"""
    return _symbolic_divmod(a, b, lambda quotient, rest: quotient)


@rule("mod")
def mod_symbolic_multiple(a, b):
    """(d*q + r) % d = r if 0 <= r < d, d symbolic"""
    return _symbolic_divmod(a, b, lambda quotient, rest: rest)


def _symbolic_divmod(a, b, pick):
    if b.op == "const":
        return None
    terms, constant = terms_of(a)
    quotient, rest = const(0), const(constant)
    for t, c in terms.items():
        term = from_linear({t: c})
        q = _divides(term, b)
        if q is None:
            rest = _add(rest, term)
        else:
            quotient = _add(quotient, q)
    if not _within(rest, b):  # which shows that b is positive too
        return None
    return pick(quotient, rest)


def _within(rest: Expr, d: Expr) -> bool:
    """Whether 0 <= rest < d is known, through the upper bounds of symbols."""
    lo = bounds(rest)[0]
    return lo is not None and lo >= 0 and is_positive(_sub(d, rest))


def is_positive(e: Expr) -> bool:
    """Whether e > 0 is known: by its bounds, or after replacing symbols by their upper bounds."""
    for _ in range(6):
        lo = bounds(e)[0]
        if lo is not None and lo > 0:
            return True
        for t, c in terms_of(e)[0].items():
            worst = _worst(t, c)
            if worst is not None:
                e = _add(_sub(e, from_linear({t: c})), worst)
                break
        else:
            return False
    return False


def _worst(t: Expr, c: int) -> Expr | None:
    """Something that t * c is never below, without `t`."""
    if t.op == "floordiv" and t.args[1].op == "const" and t.args[1].value > 0:
        return _worst_quotient(t.args[0], t.args[1].value, c)
    if c >= 0:
        return None
    parts = factors(t)
    for k, f in enumerate(parts):
        if f.op == "sym" and f.value.upper is not None:
            rest = const(c)
            for other in parts[:k] + parts[k + 1 :]:
                low = bounds(other)[0]
                if low is None or low < 0:
                    return None
                rest = _mul(rest, other)
            return _mul(rest, f.value.upper)
    if t.op == "mod" and bounds(t.args[1])[0] is not None and bounds(t.args[1])[0] > 0:
        return _mul(_sub(t.args[1], const(1)), const(c))
    return None


def _worst_quotient(x: Expr, d: int, c: int) -> Expr | None:
    """The same for x // d * c: x - d < x // d * d <= x, and x // d grows with x."""
    if c % d == 0:
        return _mul(x if c < 0 else _sub(x, const(d - 1)), const(c // d))
    if c > 0:
        return None
    terms, constant = terms_of(x)
    top = const(constant)
    for t, k in terms.items():
        if k > 0 and t.op == "sym" and t.value.upper is not None:
            top = _add(top, _mul(t.value.upper, const(k)))
            continue
        end = bounds(t)[1 if k > 0 else 0]
        top = _add(top, from_linear({t: k}) if end is None else const(end * k))
    return None if top is x else _mul(_floordiv(top, const(d)), const(c))


@rule("min")
def min_of_ordered(a, b):
    """min(a, b) = a if a <= b"""
    return a if _nonnegative(_sub(b, a)) else b if _nonnegative(_sub(a, b)) else None


@rule("max")
def max_of_ordered(a, b):
    """max(a, b) = b if a <= b"""
    return b if _nonnegative(_sub(b, a)) else a if _nonnegative(_sub(a, b)) else None


def _nonnegative(e: Expr) -> bool:
    return is_positive(_add(e, const(1)))


@rule("lt")
def lt_decided(a, b):
    """a < b by bounds"""
    if is_positive(_sub(b, a)):
        return const(True, boolean)
    return const(False, boolean) if _nonnegative(_sub(a, b)) else None


@rule("le")
def le_decided(a, b):
    """a <= b by bounds"""
    if _nonnegative(_sub(b, a)):
        return const(True, boolean)
    return const(False, boolean) if is_positive(_sub(a, b)) else None


@rule("eq")
def eq_decided(a, b):
    """a == b by canonical form and bounds"""
    return _equality(a, b, True)


@rule("ne")
def ne_decided(a, b):
    """a != b by canonical form and bounds"""
    return _equality(a, b, False)


def _equality(a, b, when_equal):
    d = _sub(a, b)
    if d.op == "const":
        return const((d.value == 0) == when_equal, boolean)
    terms, constant = terms_of(d)
    g = 0
    for t, c in terms.items():
        g = math.gcd(g, c * (t.value.multiple_of if t.op == "sym" else 1))
    if is_positive(d) or is_positive(_mul(d, const(-1))) or (g > 1 and constant % g):
        return const(not when_equal, boolean)
    return None


def _apply(op: str, a: Expr, b: Expr) -> Expr | None:
    for f in RULES[op]:
        result = f(a, b)
        if result is not None:
            return result
    return None


def _floordiv(a: Expr, b: Expr) -> Expr:
    result = _apply("floordiv", a, b)
    return make("floordiv", index, (a, b)) if result is None else result


def _mod(a: Expr, b: Expr) -> Expr:
    result = _apply("mod", a, b)
    return make("mod", index, (a, b)) if result is None else result


def _commutative(op: str):
    def build(a: Expr, b: Expr) -> Expr:
        result = _apply(op, a, b)
        if result is not None:
            return result
        return make(op, index, tuple(sorted((a, b), key=_order)))

    return build


def _comparison(op: str):
    def build(a: Expr, b: Expr) -> Expr:
        result = _apply(op, a, b)
        return make(op, boolean, (a, b)) if result is None else result

    return build


def _truncdiv(a: Expr, b: Expr) -> Expr:
    if bounds(a)[0] is not None and bounds(a)[0] >= 0 and (bounds(b)[0] or 0) > 0:
        return _floordiv(a, b)
    return make("truncdiv", index, (a, b))


def _rem(a: Expr, b: Expr) -> Expr:
    if bounds(a)[0] is not None and bounds(a)[0] >= 0 and (bounds(b)[0] or 0) > 0:
        return _mod(a, b)
    return make("rem", index, (a, b))


_CACHE_SIZE = 1 << 14
_MEMOS: list[dict] = []


@contextmanager
def forgetting() -> Iterator[None]:
    """Let go at the end of remembered results, and with them of symbols and where they are from."""
    try:
        yield
    finally:
        for memo in _MEMOS:
            memo.clear()


def _cached(f: Rule) -> Rule:
    """`f` remembering its results, until there are too many of them."""
    memo: dict[tuple[Expr, Expr], Expr] = {}
    _MEMOS.append(memo)

    def apply(a: Expr, b: Expr) -> Expr:
        found = memo.get((a, b))
        if found is None:
            found = f(a, b)
            if len(memo) >= _CACHE_SIZE:
                memo.clear()
            memo[(a, b)] = found
        return found

    return apply


_add, _sub, _mul = _cached(_add), _cached(_sub), _cached(_mul)
_floordiv, _mod = _cached(_floordiv), _cached(_mod)
_lt, _le = _cached(_comparison("lt")), _cached(_comparison("le"))

INDEX_RULES.update(
    add=_add, sub=_sub, mul=_mul, floordiv=_floordiv, mod=_mod, truncdiv=_truncdiv, rem=_rem,
    min=_cached(_commutative("min")), max=_cached(_commutative("max")),
    lt=_lt, le=_le, eq=_cached(_comparison("eq")), ne=_cached(_comparison("ne")),
    gt=lambda a, b: _lt(b, a), ge=lambda a, b: _le(b, a),
)  # fmt: skip
