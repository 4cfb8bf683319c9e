"""Batching rules of control flow.

A branch on a value that all lanes share stays a branch; one that differs computes both sides and
chooses by lane. A loop whose condition differs runs as long as any lane needs it, and lanes that
are done keep their state. A scan is one over the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorwright.base.errors import CompileError
from tensorwright.batching.rows import moved
from tensorwright.ir.graph import Graph, Node, bound_symbols, graph, param
from tensorwright.ir.type import TupleType
from tensorwright.ops.control import if_, item, items, scan_, while_
from tensorwright.ops.elementwise import logical_and, select
from tensorwright.ops.movement import reshape
from tensorwright.ops.reduce import reduce_any


def choose(mask: Node, x: Node, y: Node) -> Node:
    """x in the lanes where the mask holds, y in the others; all of them have lanes."""
    if x is y:
        return x
    wide = reshape(mask, shape=(*mask.shape, *(1,) * (x.rank - 1))) if x.rank > 1 else mask
    return select(wide, x, y)


def _check_sizes(node: Node) -> None:
    if bound_symbols(node):
        raise CompileError(
            "vmap: the sizes of a result differ between examples",
            help="give the result one shape in every branch and step",
        ).located(node.loc)


def _single(node: Node, values: Sequence) -> tuple:
    """Values of the results as the value of a node that may have one."""
    return tuple(values) if isinstance(node.type, TupleType) else values[0]


# ---- if ----------------------------------------------------------------------------------------


def _if(lanes, node: Node):
    cond, *captures = (lanes.values[a] for a in node.args)
    bodies = (node.attrs["then"], node.attrs["orelse"])
    if cond[1]:
        return _select(lanes, node, cond[0], captures, bodies)
    on = [one for _, one in captures]
    flags = [lanes.body(g, on)[1] for g in bodies]
    wanted = [any(pair) for pair in zip(*flags)]
    then, orelse = (lanes.body(g, on, wanted)[0] for g in bodies)
    y = if_(cond[0], *(c for c, _ in captures), then=then, orelse=orelse,
            symbols=node.attrs["symbols"])  # fmt: skip
    return _single(node, list(zip(items(y), wanted)))


def _select(lanes, node: Node, cond: Node, captures, bodies: Sequence[Graph]):
    """Both sides for all lanes."""
    _check_sizes(node)
    sides = []
    for g in bodies:
        inner = lanes.block()
        inner.values = dict(zip(g.params, captures))
        sides.append([inner.with_lanes(inner.of(r)) for r in g.results])
    return _single(node, [(choose(cond, x, y), True) for x, y in zip(*sides)])


# ---- loops -------------------------------------------------------------------------------------


def _settled(lanes, body: Graph, state: Sequence[bool], rest: Sequence[bool]) -> list[bool]:
    """Which states have lanes, once a step gives none to any other."""
    while True:
        found = lanes.body(body, [*state, *rest])[1][: len(state)]
        after = [a or b for a, b in zip(state, found)]
        if after == list(state):
            return after
        state = after


def _while(lanes, node: Node):
    count = node.attrs["carried"]
    values = [lanes.values[a] for a in node.args]
    rest = [on for _, on in values[count:]]
    cond, body = node.attrs["cond"], node.attrs["body"]
    state = _settled(lanes, body, [on for _, on in values[:count]], rest)
    test, (differs,) = lanes.body(cond, [*state, *rest])
    shared = [v for v, _ in values[count:]]
    if differs:
        _check_sizes(node)
        return _masked_while(lanes, node, values, rest)
    step, _ = lanes.body(body, [*state, *rest], state)
    init = [lanes.with_lanes(v) if on else v[0] for v, on in zip(values, state)]
    y = while_(*init, *shared, cond=test, body=step, carried=count, symbols=node.attrs["symbols"])
    return _single(node, list(zip(items(y), state)))


def _masked_while(lanes, node: Node, values, rest: Sequence[bool]):
    """The lanes that go on are one more state, so that the condition is computed once a step."""
    count = node.attrs["carried"]
    cond, body = node.attrs["cond"], node.attrs["body"]
    kept = [a is b for a, b in zip(body.params[:count], body.results)]
    on = [not k or v[1] for k, v in zip(kept, values)]
    first = lanes.block()
    first.values = dict(zip(cond.params, values))
    go = first.with_lanes(first.of(cond.results[0]))
    init = [lanes.with_lanes(v) if one else v[0] for v, one in zip(values, on)]
    types = [x.type for x in (go, *init, *(v for v, _ in values[count:]))]
    params = [param(f"s{k}", t) for k, t in enumerate(types)]
    mask, own = params[0], list(zip(params[1:], [*on, *rest]))
    step = lanes.block()
    step.values = dict(zip(body.params, own))
    after = [p[0] if k else choose(mask, step.with_lanes(step.of(r)), p[0])
             for r, p, k in zip(body.results, own, kept)]  # fmt: skip
    again = lanes.block()
    again.values = dict(zip(cond.params, [*zip(after, on), *own[count:]]))
    going = logical_and(mask, again.with_lanes(again.of(cond.results[0])))
    tested = [param(f"s{k}", t) for k, t in enumerate(types)]
    test = graph(cond.name, tested, [reduce_any(tested[0])])
    y = while_(go, *init, *(v for v, _ in values[count:]), cond=test,
               body=graph(body.name, params, [going, *after]), carried=count + 1)  # fmt: skip
    return _single(node, [(item(y, index=k + 1), one) for k, one in enumerate(on)])


def _scan(lanes, node: Node):
    """Steps stay in front of the lanes in what is sliced and what is collected."""
    a = node.attrs
    carried, scanned, body = a["carried"], a["scanned"], a["body"]
    values = [lanes.values[x] for x in node.args]
    rest = [on for _, on in values[carried:]]
    state = _settled(lanes, body, [on for _, on in values[:carried]], rest)
    step, flags = lanes.body(body, [*state, *rest])
    wanted = [*state, *flags[carried:]]
    step, _ = lanes.body(body, [*state, *rest], wanted)
    init = [lanes.with_lanes(v) if on else v[0] for v, on in zip(values, state)]
    slices = [moved(x, 0, 1) if on else x for x, on in values[carried : carried + scanned]]
    y = scan_(*init, *slices, *(v for v, _ in values[carried + scanned :]),
              **{**a, "body": step})  # fmt: skip
    found = [moved(x, 1, 0) if on and k >= carried else x
             for k, (x, on) in enumerate(zip(items(y), wanted))]  # fmt: skip
    return _single(node, list(zip(found, wanted)))


def _refuse(reason: str) -> Callable:
    def rule(lanes, node: Node):
        raise CompileError(f"vmap: {node.op.name} {reason}").located(node.loc)

    return rule


CONTROL: dict[str, Callable] = {
    "if_": _if,
    "while_": _while,
    "scan_": _scan,
    "fused": _refuse("is a group of nodes; batch before fusing"),
    "call_kernel": _refuse("is compiled already; batch before lowering"),
    "call_extern": _refuse("is a library function for one example"),
}
