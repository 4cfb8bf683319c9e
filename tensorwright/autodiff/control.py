"""Gradients of control flow: of a branch by the gradients of both, of a scan by a scan backwards.

    h, ys = scan_(h0, xs, w)   ->   h, ys, hs = scan_(...)  with hs the state before each step;
    d_h0, d_w, d_xs = scan_(d_h, 0, hs, xs, d_ys, w, reverse)

A rule gets the cotangents of all results (None is zero) and gives those of all operands. A body is
differentiated by `differentiate`, which is `backward.gradient`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import Graph, Node, graph, param
from tensorwright.ir.type import TensorType, Type
from tensorwright.ops.control import if_, item, items, scan_
from tensorwright.ops.elementwise import add
from tensorwright.ops.index import full

Rule = Callable[[Node, Sequence[Node | None], Callable], list[Node | None]]


def is_float(t: Type) -> bool:
    return isinstance(t, TensorType) and t.dtype.is_float


def zeros(t: TensorType) -> Node:
    return full(shape=t.shape, value=0, dtype=t.dtype)


def _filled(cotangents: Sequence[Node | None], types: Sequence[Type]) -> list[Node]:
    """The cotangents of the float results, zeros where nothing came back."""
    pairs = zip(cotangents, types)
    return [zeros(t) if c is None else c for c, t in pairs if is_float(t)]


def _check_sizes(node: Node) -> None:
    if node.attrs.get("symbols"):
        raise CompileError(
            f"gradient: {node.op.name} has results whose sizes are known only at run time",
            help="give its results the same shape in every branch and step",
        )


def _spread(grads: Sequence[Node], operands: Sequence[Node]) -> list[Node | None]:
    """Gradients of the float operands, in their places."""
    left = iter(grads)
    return [next(left) if is_float(a.type) else None for a in operands]


# ---- if ----------------------------------------------------------------------------------------


def _if_rule(node: Node, got: Sequence[Node | None], differentiate: Callable) -> list:
    _check_sizes(node)
    cond, *captures = node.args
    bodies = [node.attrs["then"], node.attrs["orelse"]]
    seeds = _filled(got, bodies[0].result_types)
    if not seeds or not any(is_float(c.type) for c in captures):
        return [None] * len(node.args)
    backward = [_gradients_only(b, differentiate) for b in bodies]
    found = if_(cond, *captures, *seeds, then=backward[0], orelse=backward[1])
    return [None, *_spread(items(found), captures)]


def _gradients_only(body: Graph, differentiate: Callable) -> Graph:
    """(params, cotangents of the float results) -> gradients of the float params."""
    joint = differentiate(body, cotangents=True)
    return graph(joint.name, joint.params, joint.results[len(body.results) :])


# ---- scan --------------------------------------------------------------------------------------


def saves_states(node: Node) -> bool:
    """Whether a scan's last results are its states before each step."""
    carried, body = node.attrs["carried"], node.attrs["body"]
    return body.results[len(body.results) - carried :] == body.params[:carried] and (
        len(body.results) >= 2 * carried)  # fmt: skip


def save_states(node: Node, args: Sequence[Node]) -> Node:
    """A scan that also collects its states; a single result stays a single value."""
    body, carried = node.attrs["body"], node.attrs["carried"]
    _check_sizes(node)
    longer = graph(body.name, body.params, (*body.results, *body.params[:carried]))
    new = scan_(*args, **{**node.attrs, "body": longer})
    return item(new, index=0) if len(body.results) == 1 else new


def _scan_rule(node: Node, got: Sequence[Node | None], differentiate: Callable) -> list:
    a = node.attrs
    carried, scanned = a["carried"], a["scanned"]
    saved_at = len(a["body"].results) - carried
    unused = all(c is None for c in got[saved_at:])
    original = _without_saved(a["body"], carried) if unused else a["body"]
    states, xs = node.args[:carried], node.args[carried : carried + scanned]
    rest = node.args[carried + scanned :]
    count = len(original.results)
    last = _filled(got[:carried], original.result_types[:carried])
    stacked = _filled(got[carried:count], [t for t in node.type.items[carried:count]])
    saved = [item(node, index=saved_at + k) for k in range(carried)]
    totals = [zeros(r.type) for r in rest if is_float(r.type)]
    body = _backward_body(original, carried, scanned, differentiate)
    found = scan_(*last, *totals, *saved, *xs, *stacked, *rest, body=body,
                  carried=len(last) + len(totals), scanned=carried + scanned + len(stacked),
                  length=a["length"], reverse=not a["reverse"])  # fmt: skip
    grads = items(found)
    n, m = len(last), len(last) + len(totals)
    return [*_spread(grads[:n], states), *_spread(grads[m:], xs), *_spread(grads[n:m], rest)]


def _without_saved(body: Graph, carried: int) -> Graph:
    return graph(body.name, body.params, body.results[: len(body.results) - carried])


def _backward_body(body: Graph, carried: int, scanned: int, differentiate: Callable) -> Graph:
    """(d_state, totals; states, xs, d_ys; rest) -> (d_state before, totals; d_xs)."""
    joint = differentiate(body, cotangents=True)
    seeds = joint.params[len(body.params) :]
    grads = _spread(joint.results[len(body.results) :], body.params)
    floats = sum(is_float(t) for t in body.result_types[:carried])
    rest = body.params[carried + scanned :]
    totals = {k: param(f"total_{p.name}", p.type) for k, p in enumerate(rest) if is_float(p.type)}
    summed = [add(totals[k], grads[carried + scanned + k]) for k in totals]
    params = (*seeds[:floats], *totals.values(), *body.params[: carried + scanned],
              *seeds[floats:], *rest)  # fmt: skip
    flows = [[g for g in part if g is not None]
             for part in (grads[:carried], grads[carried : carried + scanned])]  # fmt: skip
    return graph(joint.name, params, (*flows[0], *summed, *flows[1]))


def _refuse(reason: str, way_out: str) -> Rule:
    def rule(node: Node, got, differentiate) -> list:
        raise CompileError(f"gradient: {node.op.name} {reason}", help=way_out)

    return rule


RULES: dict[str, Rule] = {
    "if_": _if_rule,
    "scan_": _scan_rule,
    "while_": _refuse("runs an unknown number of steps", "use scan_, whose steps are counted"),
    "call": _refuse("names a graph of the module", "inline the call before differentiating"),
}
