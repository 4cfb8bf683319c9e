"""Rows of a softmax whose weights are multiplied: divided by their sums behind the products.

    e[j] = exp(s[j] - m); d = sum(e); p[j] = e[j] * (1 / d); y[l] = sum(p[j] * v[j, l])
->  e[j] = exp(s[j] - m); d = sum(e); r = 1 / d; y[l] = sum(e[j] * v[j, l]) * r

and where the weights are rounded to bf16

    p[j] = bf16(exp(s[j] - m)); d = sum(p); r = 1 / d; y[l] = sum(p[j] * v[j, l]) * r

A row is written once instead of twice, and the sum is that of what is multiplied. The greatest
exponential of a row is 1: so no sum is 0, and none overflows. What lies behind is rounded in
another order (FlashAttention, arXiv 2205.14135, divides there too).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    call,
    cast,
    compare,
    is_const,
    select,
    sym,
    transform,
    walk,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, For, Stmt, Store, seq


@dataclass(frozen=True, eq=False)
class Softmax:
    """Its stores, one a nest: e[j] = exp(s[j] - m), d = d + e[j], p[j] = e[j] * inverse or that in
    bf16, 0 where the row is `hidden`."""

    powers: Store
    sums: Store
    shares: Store
    inverse: Expr
    hidden: Expr | None


def divide_behind(row: For) -> For:
    """The loop over the rows of attention, all stages of a row in it, dividing behind the products;
    as it is where something else happens to the weights."""
    parts = row.body.body
    nests = [s for s in parts if not isinstance(s, Alloc)]
    found = read_softmax(nests[1:-1])
    if found is None or not any(map(is_result(nests[-1]), stores(nests[-1]))):
        return row
    powers, sums, shares = found.powers, found.sums, found.shares
    new: dict[Stmt, Stmt] = {}
    if shares.value.op == "call":
        narrow = call("round_bf16", shares.buffer.dtype, (powers.value,))
        element = cast(shares.buffer[ir.update(sums)[1].args], sums.buffer.dtype)
        new[powers] = replace(powers, buffer=shares.buffer, value=narrow)
        new[sums] = replace(sums, value=sums.value.args[0] + element)
    inverse = Buffer("inverse", found.inverse.dtype, (), "local")
    for s in filter(is_result(nests[-1]), stores(nests[-1])):
        new[s] = replace(s, value=transform(s.value, divided(nests[-1], found, inverse)))
    *front, made, summed, _, products = nests
    allocs = [*(s for s in parts if isinstance(s, Alloc)), Alloc(inverse)]
    done = [exchanged(made, new), exchanged(summed, new), Store(inverse, (), found.inverse),
            exchanged(products, new)]  # fmt: skip
    return replace(row, body=seq(*allocs, *front, *done))


def read_softmax(between: Sequence[Stmt]) -> Softmax | None:
    """The softmax that ends what is done to a row between the contractions."""
    if len(between) < 4 or not any(reduces(s, "max") for s in stores(between[-4])):
        return None
    made, summed, divided = map(stores, between[-3:])
    added = [s for s in summed if reduces(s, "add")]
    if [len(s) for s in (made, added, divided)] != [1, 1, 1]:
        return None
    (powers,), (sums,), (shares,) = made, added, divided
    share, hidden = shares.value, None
    narrow = share.op == "call" and share.value == "round_bf16"
    share = share.args[0] if narrow else share
    if share.op == "select" and is_const(share.args[1], 0):
        hidden, _, share = share.args
    if powers.value.op != "exp" or share.op != "mul":
        return None
    element, inverse = share.args
    term = ir.update(sums)[1]
    if any(e.op != "load" or e.value is not powers.buffer for e in (element, term)):
        return None
    moving = {sym(s.var) for s in ir.statements(between[-1]) if isinstance(s, For)}
    if moving & set(walk(inverse, *([] if hidden is None else [hidden]))):
        return None
    whole = element.args == shares.indices and powers.buffer.shape == shares.buffer.shape
    known = whole and (narrow or shares.buffer is powers.buffer)
    return Softmax(powers, sums, shares, inverse, hidden) if known else None


def stores(s: Stmt) -> list[Store]:
    return [x for x in ir.statements(s) if isinstance(x, Store)]


def reduces(s: Store, op: str) -> bool:
    found = ir.update(s)
    return found is not None and found[0] == op


def accumulated(products: Stmt) -> Buffer:
    """What a contraction adds up in."""
    return next(s.buffer for s in stores(products) if ir.update(s) is not None)


def is_result(products: Stmt) -> Callable[[Store], bool]:
    """Whether a store of a contraction is one of its results, made of its sum."""
    acc = accumulated(products)
    return lambda s: s.buffer is not acc and any(e.value is acc for e in ir.loads(s))


def divided(products: Stmt, by: Softmax, inverse: Buffer) -> Callable[[Expr], Expr | None]:
    """The sum of a contraction as that of weights which are divided."""
    acc = accumulated(products)

    def leaf(e: Expr) -> Expr | None:
        if e.op != "load" or e.value is not acc:
            return None
        y = e * inverse[()]
        return y if by.hidden is None else select(by.hidden, 0.0, y)

    return leaf


def exchanged(root: Stmt, new: Mapping[Stmt, Stmt]) -> Stmt:
    return ir.rewrite(root, new.get)


def greatest_number(row: For) -> For:
    """The stages of a row, in vectors, that look for its greatest element without a look at NaN
    where exponentials of all elements, less that one, are summed: NaN makes the sum NaN."""
    found = stores(row)
    tops = {s.buffer for s in found if reduces(s, "max")}
    powers = [e for s in found for e in walk(s.value) if e.op == "exp" and e.args[0].op == "sub"]
    if not any(e.op == "load" and e.value in tops for power in powers for e in power.args[0].args):
        return row

    def greater(s: Stmt) -> Stmt | None:
        """A lane's greatest element by one comparison."""
        if not isinstance(s, Store) or s.buffer.shape in ((), (1,)):
            return None

        def leaf(e: Expr) -> Expr | None:
            if e.op == "max" and e.args[0].op == "load" and e.args[0].value is s.buffer:
                return select(compare("gt", *e.args), *e.args)
            return None

        value = transform(s.value, leaf)
        return None if value is s.value else replace(s, value=value)

    return ir.rewrite(row, greater)
