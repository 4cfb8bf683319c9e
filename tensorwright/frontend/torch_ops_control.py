"""torch.cond, torch.while_loop and scan: graphs inside the graph.

The bodies come as graph modules; each becomes a graph of ours whose parameters are everything that
it reads. A size that a body needs is passed through the shapes of its operands.

    cond(p, true_graph, false_graph, [x])   ->   if_(p, x, then=..., orelse=...)
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.frontend.torch_ops import Call, Rows, lift, to
from tensorwright.frontend.torch_ops_reduce import items
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import Graph, Node, graph, param
from tensorwright.ir.type import TupleType
from tensorwright.ops import control as ct

CONTROL = Rows()


def body_of(c: Call, name: str, gm, operands: Sequence) -> Graph:
    """A graph held by the model, on parameters of the operands' types."""
    params, inputs = [], []
    for k, x in enumerate(operands):
        if isinstance(x, Node):
            params.append(param(f"{name}_{k}", x.type))
            inputs.append(params[-1])
        else:
            inputs.append(x)
    results = [lift(r, i64) if isinstance(r, (int, Expr)) else r for r in c.subgraph(gm, inputs)]
    return graph(name, params, results)


def tensors(values: Sequence) -> list[Node]:
    return [v for v in values if isinstance(v, Node)]


def taken_apart(node: Node) -> list[Node]:
    if isinstance(node.type, TupleType):
        return items(node, len(node.type.items))
    return [node]


@CONTROL.row("cond")
def _cond(c, pred, true_graph, false_graph, operands=()):
    then = body_of(c, "then", true_graph, operands)
    orelse = body_of(c, "orelse", false_graph, operands)
    if isinstance(pred, bool):
        pred = lift(pred, boolean)
    done = ct.if_(to(pred, boolean), *tensors(operands), then=then, orelse=orelse)
    return taken_apart(done)


@CONTROL.row("while_loop")
def _while_loop(c, cond_graph, body_graph, carried, extra=()):
    state = [lift(v, i64) if isinstance(v, (int, Expr)) else v for v in carried]
    everything = [*state, *extra]
    cond = body_of(c, "cond", cond_graph, everything)
    body = body_of(c, "body", body_graph, everything)
    operands = tensors(everything)
    done = ct.while_(*operands, cond=cond, body=body, carried=len(state))
    return taken_apart(done)


@CONTROL.row("scan")
def _scan(c, combine_graph, init, xs, extra=()):
    """torch scans along axis 0; the combine function gives the new carry, then the slices."""
    carried = list(init)
    rows = [slice_type(x) for x in xs]
    body = scan_body(c, combine_graph, carried, rows, extra)
    done = ct.scan_(*carried, *xs, *tensors(extra), body=body, carried=len(carried),
                    scanned=len(xs), length=xs[0].shape[0] if xs else 1)  # fmt: skip
    return taken_apart(done)


def slice_type(x: Node) -> Node:
    """A parameter of the type that one step sees of a scanned operand."""
    return param("row", type(x.type)(x.dtype, x.shape[1:]))


def scan_body(c: Call, gm, carried, rows, extra) -> Graph:
    return body_of(c, "step", gm, [*carried, *rows, *extra])


@CONTROL.row("invoke_subgraph")
def _invoke_subgraph(c, gm, name, *operands):
    return c.subgraph(gm, list(operands))
