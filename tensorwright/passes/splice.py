"""Write a body out in the graph around it: its results on given operands.

y = call(x, callee='f'), f = <graph (a) -> relu(a)>      ->      y = relu(x)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tensorwright.ir.expr import Expr, as_expr, substitute, sym
from tensorwright.ir.facts import solve
from tensorwright.ir.graph import Graph, Node, bound_symbols
from tensorwright.ir.type import TensorType, leaves
from tensorwright.passes.shapes import in_attr, in_type


def is_plain(body: Graph) -> bool:
    """Whether a body binds no sizes, so that it may be written out, even more than once."""
    return not body.binders and not body.state and not any(bound_symbols(n) for n in body.nodes())


def sizes(body: Graph, args: Sequence[Node]) -> dict[Expr, Expr]:
    """The body's own symbols -> the sizes that the operands have there."""
    pairs = [
        (as_expr(d), as_expr(n))
        for p, a in zip(body.params, args)
        for t, u in zip(leaves(p.type), leaves(a.type))
        if isinstance(t, TensorType)
        for d, n in zip(t.shape, u.shape)
    ]
    pairs = [(d, n) for d, n in pairs if d is not n]
    values: dict[Expr, Expr] = {}
    for step in solve([d for d, _ in pairs]).steps:
        rest, scale = substitute(step.rest, values), substitute(step.scale, values)
        values[sym(step.symbol)] = (pairs[step.source][1] - rest) // scale
    return values


def splice(body: Graph, args: Sequence[Node]) -> list[Node]:
    """The results of a plain body on operands of the graph around it."""
    values = sizes(body, args)
    memo: dict = {}
    new: dict[Node, Node] = dict(zip(body.params, args))
    for n in body.nodes():
        if n in new:
            continue
        operands = tuple(None if a is None else new[a] for a in n.args)
        made = replace(n, args=operands) if n.args else n
        if values:
            made = replace(
                made,
                type=in_type(n.type, values, memo),
                attrs={k: in_attr(v, values, memo) for k, v in n.attrs.items()},
            )
        new[n] = made
    return [new[r] for r in body.results]
