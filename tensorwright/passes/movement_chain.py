"""The normal form of a chain of reshapes and transposes: split dimensions, permute, merge.

    transpose(reshape(transpose(x: f32[2,8,6], perm=(1,0,2)), shape=(2,4,2,6)), perm=(2,0,1,3))
    ->  transpose(reshape(x, shape=(2,2,4,6)), perm=(0,1,2,3))  ->  reshape(x, shape=(2,2,4,6))

Dimensions are taken apart into atoms that no member of the chain cuts. A chain is replaced only
by one with fewer transposes, or as many and fewer operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tensorwright.ir.expr import Expr, as_dim, as_expr, const, is_const, order_of
from tensorwright.ir.graph import Node
from tensorwright.ir.simplify import factors, linear
from tensorwright.ir.type import Dim, Shape, product
from tensorwright.ops.movement import reshape, transpose

LONGEST = 16  # terms of a quotient of symbolic sizes


@dataclass(eq=False)
class Atom:
    """A factor of a dimension; once cut, its parts stand for it."""

    size: Dim
    parts: list[Atom] = field(default_factory=list)

    def leaves(self) -> list[Atom]:
        return [leaf for p in self.parts for leaf in p.leaves()] if self.parts else [self]


Dims = list[list[Atom]]  # the atoms of each dimension; none for one of size 1


def simplify_chain(node: Node) -> Node | None:
    """An equal but cheaper chain for a reshape or transpose, None if there is none."""
    chain = [node]
    while chain[-1].args[0].op.name in ("reshape", "transpose"):
        chain.append(chain[-1].args[0])
    for first in reversed(range(len(chain))):
        members = chain[first::-1]
        made = normal_form(members[0].args[0], members)
        if made is not None:
            found = _cheaper(members, made)
            if found is not None:
                return found
    return None


def _cheaper(members: Sequence[Node], made: list) -> Node | None:
    old = (sum(n.op.name == "transpose" for n in members), len(members))
    new = (sum(op is transpose for op, _ in made), len(made))
    if new >= old:
        return None
    y = members[0].args[0]
    for op, attrs in made:
        y = op(y, **attrs)
    return y


def normal_form(x: Node, members: Sequence[Node]) -> list | None:
    """[(operator, attributes), ...] that do to `x` what the members do; None if one of them cuts
    across dimensions."""
    traced = trace_chain(x.shape, members)
    if traced is None:
        return None
    before, after = traced
    forms = [_form(x.shape, members[-1].shape, before, after, coarse, units)
             for coarse in (False, True) for units in (True, False)]  # fmt: skip
    return min((f for f in forms if f is not None), key=len)


def trace_chain(shape: Shape, members: Sequence[Node]) -> tuple[Dims, Dims] | None:
    """The atoms of each dimension of `shape`, and of each dimension of the chain's result."""
    if any(d == 0 for n in members for d in (*n.shape, *shape)):
        return None
    before: Dims = [[Atom(d)] if d != 1 else [] for d in shape]
    now = before
    for n in members:
        if n.op.name == "transpose":
            now = [now[p] for p in n.attrs["perm"]]
        else:
            regrouped = _regroup([a for d in now for a in d], n.shape)
            if regrouped is None:
                return None
            now = regrouped
    flat = lambda dims: [[leaf for a in d for leaf in a.leaves()] for d in dims]
    return flat(before), flat(now)


def _regroup(atoms: list[Atom], shape: Shape) -> Dims | None:
    """The atoms, in order, as the dimensions of `shape`, cutting atoms where one begins inside."""
    queue = [leaf for a in reversed(atoms) for leaf in reversed(a.leaves())]
    result: Dims = []
    for d in shape:
        taken: list[Atom] = []
        while d != 1:
            if not queue:
                return None
            a = queue.pop()
            rest = divide(d, a.size)
            if rest is None:
                inner = divide(a.size, d)
                if inner is None:
                    return None
                a.parts = [Atom(d), Atom(inner)]
                queue.append(a.parts[1])
                a, rest = a.parts[0], 1
            taken.append(a)
            d = rest
        result.append(taken)
    return None if queue else result


def divide(a: Dim, b: Dim) -> Dim | None:
    """a / b if that is known to be exact."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if b == 0:
        return None
    quotient, rest = const(0), as_expr(a)
    for _ in range(LONGEST):
        if is_const(rest, 0):
            return as_dim(quotient)
        part = _leading_quotient(rest, as_expr(b))
        if part is None:
            return None
        quotient, rest = quotient + part, rest - part * as_expr(b)
    return None


def _leading_quotient(a: Expr, b: Expr) -> Expr | None:
    """The quotient of the leading terms of two polynomials."""
    (left, c), (right, d) = _leading(a), _leading(b)
    for f in right:
        if f not in left:
            return None
        left.remove(f)
    if c % d:
        return None
    result = const(c // d)
    for f in left:
        result = result * f
    return result


def _leading(e: Expr) -> tuple[list[Expr], int]:
    """The factors and the coefficient of the term of highest degree."""
    terms, constant = linear(e)
    if not terms:
        return [], constant
    atom = max(terms, key=lambda t: (len(factors(t)), order_of(t)))
    return factors(atom), terms[atom]


def _form(start: Shape, end: Shape, before: Dims, after: Dims, coarse: bool, units: bool):
    """The chain on groups of atoms that stay together: those of one dimension on both sides, or
    (coarse) all. With `units`, dimensions of size 1 go along if there are equally many."""
    if units:
        ones = [Atom(1) for d in before if not d]
        if len(ones) != sum(not d for d in after):
            return None
        before, after = _with_units(before, ones), _with_units(after, ones)
    groups = _groups(before, after, coarse)
    head = {g[0]: g for g in groups}
    ordered = [head[a] for d in after for a in d if a in head]
    position = {g[0]: k for k, g in enumerate(groups)}
    perm = tuple(position[g[0]] for g in ordered)
    sizes = tuple(product(a.size for a in g) for g in groups)
    permuted = tuple(sizes[p] for p in perm)
    if _keeps_order(perm, sizes):
        return [] if start == end else [(reshape, {"shape": end})]
    steps = [] if sizes == start else [(reshape, {"shape": sizes})]
    steps.append((transpose, {"perm": perm}))
    return steps if permuted == end else [*steps, (reshape, {"shape": end})]


def _keeps_order(perm: tuple[int, ...], sizes: tuple[Dim, ...]) -> bool:
    moved = [p for p in perm if sizes[p] != 1]
    return moved == sorted(moved)


def _with_units(dims: Dims, ones: list[Atom]) -> Dims:
    left = iter(ones)
    return [d or [next(left)] for d in dims]


def _groups(before: Dims, after: Dims, coarse: bool) -> list[list[Atom]]:
    """Runs of atoms that follow each other on both sides, in the order of `before`."""
    follows = {b: a for a, b in _neighbours(after, coarse)}
    pairs = set(_neighbours(before, coarse))
    groups: list[list[Atom]] = []
    for a in (a for d in before for a in d):
        last = groups[-1][-1] if groups else None
        if last is not None and (last, a) in pairs and follows.get(a) is last:
            groups[-1].append(a)
        else:
            groups.append([a])
    return groups


def _neighbours(dims: Dims, across: bool):
    runs = [[a for d in dims for a in d]] if across else dims
    return [(a, b) for run in runs for a, b in pairwise(run)]
