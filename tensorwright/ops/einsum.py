"""Contractions written as an equation: `einsum`.

    einsum(x, w, equation="bij,bjk->bik")  ->  dot_general(x, w, batch=((0,), (0,)), contract=...)

Operands are contracted from left to right. A label met twice in one operand takes its diagonal; one
that only one operand has and the result lacks is summed first. `...` stands for leading dimensions
that broadcast.
"""

from __future__ import annotations

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import NUMERIC, i64
from tensorwright.ir.graph import Node
from tensorwright.ir.type import TensorType, dim_text
from tensorwright.ops.define import (
    broadcast_shapes,
    check_dtype,
    define,
    require,
    same_dtype,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import equal, mul, select
from tensorwright.ops.index import iota
from tensorwright.ops.linalg import dot_general
from tensorwright.ops.movement import broadcast_to, reshape, transpose
from tensorwright.ops.reduce import reduce_sum

MAX_ELLIPSIS = 8


def parse_equation(equation: str, ranks: tuple[int, ...]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, `...` written out."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    require(
        len(terms) == len(ranks),
        f"einsum: {equation!r} has {len(terms)} operands, {len(ranks)} are given",
    )
    depth = 0
    expanded = []
    for k, (term, rank) in enumerate(zip(terms, ranks)):
        named = term.replace("...", "")
        if named and not named.isalpha():
            raise CompileError(f"einsum: {term!r} in {equation!r} is not made of letters")
        missing = rank - len(named)
        fits = missing >= 0 if "..." in term else missing == 0
        require(fits, f"einsum: {term!r} does not fit operand {k + 1}, which has rank {rank}")
        require(missing <= MAX_ELLIPSIS, "einsum: `...` stands for too many dimensions")
        depth = max(depth, missing)
        expanded.append(_expand_ellipsis(term, missing))
    if arrow:
        result = _expand_ellipsis(right, depth)
    else:  # labels met once, in alphabetical order
        letters = "".join(terms).replace("...", "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        result = _expand_ellipsis("...", depth) + "".join(once)
    for c in set(result):
        require(
            result.count(c) == 1 and any(c in t for t in expanded),
            f"einsum: label {c!r} of the result of {equation!r} repeats or has no operand",
        )
    return expanded, result


def _expand_ellipsis(term: str, count: int) -> str:
    """`...` as private labels (digits, which no equation has), aligned at the right."""
    digits = "".join(str(count - 1 - k) for k in range(count))
    return term.replace("...", digits)


def _sizes(op: str, types, terms) -> dict:
    """label -> its dimension; those of `...` broadcast."""
    found: dict = {}
    for t, term in zip(types, terms):
        for label, d in zip(term, t.shape):
            if label not in found:
                found[label] = d
            elif label.isdigit():
                found[label] = broadcast_shapes(op, (found[label],), (d,))[0]
            else:
                require(
                    found[label] == d,
                    f"einsum: label {label!r} is {dim_text(found[label])} and {dim_text(d)}",
                )
    return found


def _infer_einsum(*xs: TensorType, equation: str) -> TensorType:
    require(len(xs) > 0, "einsum: there are no operands")
    dtype = same_dtype("einsum", *xs)
    for x in xs:
        check_dtype("einsum", x, NUMERIC)
    terms, result = parse_equation(equation, tuple(x.rank for x in xs))
    sizes = _sizes("einsum", xs, terms)
    return TensorType(dtype, tuple(sizes[c] for c in result))


def _reference_einsum(*xs, equation: str):
    wide = np.int64 if xs[0].dtype.kind in "iu" else np.float64
    return np.asarray(np.einsum(equation, *(x.astype(wide) for x in xs))).astype(xs[0].dtype)


def _diagonal(x: Node, term: str) -> tuple[Node, str]:
    """x with each label once: only elements where the repeated ones are equal count."""
    for label in dict.fromkeys(term):
        while term.count(label) > 1:
            a, b = term.index(label), term.rindex(label)
            place = [reshape(iota(shape=(x.shape[k],), axis=0, dtype=i64),
                             shape=tuple(d if n == k else 1 for n, d in enumerate(x.shape)))
                     for k in (a, b)]  # fmt: skip
            x = reduce_sum(select(equal(*place), x, scalar_like(x, 0)), axes=(b,))
            term = term[:b] + term[b + 1 :]
    return x, term


def _arrange(x: Node, term: str, wanted: str) -> Node:
    """x with its dimensions in the order of `wanted`, 1 where it has no such label."""
    order = tuple(term.index(c) for c in wanted if c in term)
    if order != tuple(range(x.rank)):
        x = transpose(x, perm=order)
    dims = iter(x.shape)
    shape = tuple(next(dims) if c in term else 1 for c in wanted)
    return x if shape == x.shape else reshape(x, shape=shape)


def _pair(x: Node, a: str, w: Node, b: str, kept: set[str]) -> tuple[Node, str]:
    """The product of two operands, summed over shared labels that nothing else needs."""
    shared = [c for c in a if c in b]
    batch = "".join(c for c in shared if c in kept)
    summed = "".join(c for c in shared if c not in kept)
    if not summed:
        wanted = batch + "".join(c for c in a + b if c not in batch)
        return mul(_arrange(x, a, wanted), _arrange(w, b, wanted)), wanted
    axes = lambda labels: (tuple(map(a.index, labels)), tuple(map(b.index, labels)))
    y = dot_general(x, w, batch=axes(batch), contract=axes(summed))
    return y, batch + "".join(c for c in a + b if c not in shared)


def _expand_einsum(*xs, equation: str):
    terms, result = parse_equation(equation, tuple(x.rank for x in xs))
    sizes = _sizes("einsum", [x.type for x in xs], terms)
    parts = []
    for k, (x, term) in enumerate(zip(xs, terms)):
        shape = tuple(sizes[c] for c in term)
        x = x if shape == x.shape else broadcast_to(x, shape=shape)
        x, term = _diagonal(x, term)
        others = set(result).union(*(t for n, t in enumerate(terms) if n != k))
        lonely = tuple(n for n, c in enumerate(term) if c not in others)
        if lonely:
            x = reduce_sum(x, axes=lonely)
            term = "".join(c for c in term if c in others)
        parts.append((x, term))
    while len(parts) > 1:
        (x, a), (w, b), *rest = parts
        kept = set(result).union(*(t for _, t in rest))
        parts = [_pair(x, a, w, b, kept), *rest]
    x, term = parts[0]
    return _arrange(x, term, result)


einsum = define(
    "einsum", "*xs", infer=_infer_einsum, reference=_reference_einsum, expand=_expand_einsum,
    dtypes=NUMERIC, onnx="Einsum",
    samples=("f32[2,3,4] f32[2,4,5] equation='bij,bjk->bik'", "f32[3,4] equation='ij->ji'",
             "f32[3,3] equation='ii->i'", "f32[3,3] equation='ii'", "f32[3,4] equation='ij->i'",
             "f32[n,4] f32[n,4] equation='ni,ni->n' n=1,3", "f32[3] f32[4] equation='i,j->ij'",
             "f32[2,1,3,4] f32[5,4,6] equation='...ij,...jk->...ik'",
             "f32[2,3] f32[3,4] f32[4,2] equation='ij,jk,kl->il'",
             "f32[3,4] f32[4] equation='ij,j'",
             "i32[2,3] i32[3,2] equation='ij,jk->ik'", "f32[2,3,4] equation='...i->...'",
             "f32[2,3] f32[2,3] equation='ij,ij->'"),
    doc="The sum of products that an equation over labelled dimensions describes.",
)  # fmt: skip
