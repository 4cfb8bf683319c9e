"""Take out of loops what every iteration computes alike, or all iterations may compute at once.

    scan_(h, xs, body=<graph (h, x): tanh(x @ w + h @ u)>)
        ->   ys = xs @ w;  scan_(h, ys, body=<graph (h, y): tanh(y + h @ u)>)

A node that only reads what the loop captures is computed before it. In a scan, a product of a slice
with a matrix that the loop does not change, and what is added to that, become one product of all
slices: the matrix is read once, not once a step. Only operators that cannot fail move, since the
loop may not run at all.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.base import trace
from tensorwright.ir.graph import CONST, Graph, Node, bound_symbols, param, rebuild, with_args
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import TensorType, type_symbols
from tensorwright.ops.linalg import matmul
from tensorwright.passes.bodies import captures_from

CALM = frozenset((
    "matmul", "dot_general", "transpose", "reshape", "broadcast_to", "concat", "cast", "add", "sub",
    "mul", "div", "neg", "exp", "log", "sqrt", "tanh", "sigmoid", "maximum", "minimum", "select",
    "reduce_sum", "reduce_max", "reduce_min", "slice",
))  # fmt: skip
ROWWISE = ("add", "sub", "mul")  # of a product of slices and a vector: the same for all at once


def hoist(m: Module) -> Module:
    """`m` with less work in its loops."""
    return map_graphs(m, lambda g: rebuild(g, lambda n, args: hoist_node(with_args(n, args))))


def hoist_node(n: Node) -> Node:
    if n.op.name not in ("while_", "scan_"):
        return n
    n = invariants_out(n)
    return slices_out(n) if n.op.name == "scan_" else n


def movable(n: Node, known: dict[Node, Node], outside: set) -> bool:
    return (
        n.op.name in CALM
        and isinstance(n.type, TensorType)
        and (n.op.name != "div" or n.dtype.is_float)
        and not bound_symbols(n)
        and type_symbols(n.type) <= outside
        and all(a is not None and (a in known or a.op is CONST) for a in n.args)
        and any(a in known for a in n.args)
    )


def invariants_out(loop: Node) -> Node:
    """The loop with what it computes from its captures alone among its captures."""
    first, own = captures_from(loop)
    body: Graph = loop.attrs["body"]
    start = own["body"]
    known = dict(zip(body.params[start:], loop.args[first:]))
    outside = type_symbols(*(a.type for a in loop.args))
    for n in body.nodes():
        if n not in known and movable(n, known, outside):
            known[n] = replace(n, args=tuple(known.get(a, a) for a in n.args))
    captures = set(body.params[start:])
    found = [n for n in used_by_others(body, known) if n not in captures]
    if not found:
        return loop
    new = {n: param(f"before_{k}", n.type) for k, n in enumerate(found)}
    attrs = dict(loop.attrs)
    attrs["body"] = with_values(body, new, (*body.params, *new.values()))
    if "cond" in own:
        cond = attrs["cond"]
        unused = tuple(param(f"before_{k}", n.type) for k, n in enumerate(found))
        attrs["cond"] = replace(cond, params=(*cond.params, *unused))
    for n in found:
        trace.fired("out-of-loop", n)
    return replace(loop, args=(*loop.args, *(known[n] for n in found)), attrs=attrs)


def used_by_others(body: Graph, known: dict[Node, Node]) -> list[Node]:
    """The known nodes that the rest of a body reads."""
    read: dict[Node, None] = {}
    for n in body.nodes():
        if n not in known:
            read.update(dict.fromkeys(a for a in n.args if a in known))
    read.update(dict.fromkeys(r for r in body.results if r in known))
    return list(read)


def with_values(body: Graph, values: dict[Node, Node], params: tuple[Node, ...]) -> Graph:
    """The body with other nodes in place of some, and other parameters."""
    new: dict[Node, Node] = {**{p: p for p in body.params}, **values}
    for n in body.nodes():
        if n not in new:
            new[n] = with_args(n, tuple(None if a is None else new[a] for a in n.args))
    return replace(body, params=params, results=tuple(new[r] for r in body.results),
                   binders=tuple(new[b] for b in body.binders))  # fmt: skip


def slices_out(loop: Node) -> Node:
    """The scan with products of its slices computed before it, for all steps at once."""
    carried, scanned = loop.attrs["carried"], loop.attrs["scanned"]
    body: Graph = loop.attrs["body"]
    slices = dict(zip(body.params[carried : carried + scanned], loop.args[carried:]))
    fixed = dict(zip(body.params[carried + scanned :], loop.args[carried + scanned :]))
    outside = type_symbols(*(a.type for a in loop.args))
    whole: dict[Node, Node] = {}  # nodes of the body -> the same for all steps

    def outer(a: Node) -> Node | None:
        return a if a.op is CONST else fixed.get(a)

    for n in body.nodes():
        if not isinstance(n.type, TensorType) or n.rank != 1 or not type_symbols(n.type) <= outside:
            continue
        if n.op is matmul and n.args[0] in slices and n.args[0].rank == 1:
            w = outer(n.args[1])
            if w is not None and w.rank == 2:
                whole[n] = matmul(slices[n.args[0]], w)
        elif n.op.name in ROWWISE and any(a in whole for a in n.args):
            both = [whole.get(a) or outer(a) for a in n.args]
            if None not in both and all(a.rank <= 1 for a in n.args):
                whole[n] = n.op(*both)
    found = used_by_others(body, whole)
    if not found:
        return loop
    new = {n: param(f"row_{k}", n.type) for k, n in enumerate(found)}
    at = carried + scanned
    params = (*body.params[:at], *new.values(), *body.params[at:])
    for n in found:
        trace.fired("slices-at-once", n)
    attrs = {**loop.attrs, "body": with_values(body, new, params), "scanned": scanned + len(found)}
    args = (*loop.args[:at], *(whole[n] for n in found), *loop.args[at:])
    return replace(loop, args=args, attrs=attrs)
