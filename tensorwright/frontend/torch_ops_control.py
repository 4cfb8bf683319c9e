"""torch.cond, while_loop, scan and map: graphs inside the graph.

The bodies come as graph modules; each becomes a graph of ours whose parameters are everything that
it reads. A size that a body needs is passed through the shapes of its operands.

    cond(p, true_graph, false_graph, [x])   ->   if_(p, x, then=..., orelse=...)
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.frontend.torch_ops import Call, Rows, lift, to
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import Graph, Node, graph, param
from tensorwright.ir.type import TensorType
from tensorwright.ops import control as ct
from tensorwright.ops import movement as mv

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


@CONTROL.row("cond")
def _cond(c, pred, true_graph, false_graph, operands=()):
    if isinstance(pred, bool):
        return c.subgraph(true_graph if pred else false_graph, operands)
    then = body_of(c, "then", true_graph, operands)
    orelse = body_of(c, "orelse", false_graph, operands)
    pred = to(mv.reshape(pred, shape=()), boolean)
    return list(ct.items(ct.conditional(pred, tensors(operands), then, orelse)))


@CONTROL.row("while_loop")
def _while_loop(c, cond_graph, body_graph, carried, extra=()):
    everything = [*(lift(v, i64) if isinstance(v, (int, Expr)) else v for v in carried), *extra]
    cond = body_of(c, "cond", cond_graph, everything)
    condition = [to(mv.reshape(r, shape=()), boolean) for r in cond.results]
    cond = graph("cond", cond.params, condition)
    body = body_of(c, "body", body_graph, everything)
    return list(ct.items(ct.loop_while(tensors(everything), cond, body, len(carried))))


@CONTROL.row("scan")
def _scan(c, combine_graph, init, xs, extra=()):
    """torch scans along axis 0; the combine function gives the new carry, then the slices."""
    rows = [param(f"row_{k}", TensorType(x.dtype, x.shape[1:])) for k, x in enumerate(xs)]
    body = body_of(c, "step", combine_graph, [*init, *rows, *extra])
    operands = [*init, *xs, *tensors(extra)]
    return list(ct.items(ct.scan(operands, body, carried=len(init), scanned=len(xs))))


@CONTROL.row("map_impl")
def _map(c, body_graph, xs, extra=()):
    """A function of the slices along axis 0, its results stacked."""
    rows = [param(f"row_{k}", TensorType(x.dtype, x.shape[1:])) for k, x in enumerate(xs)]
    body = body_of(c, "step", body_graph, [*rows, *extra])
    return list(ct.items(ct.scan([*xs, *tensors(extra)], body, scanned=len(xs))))


@CONTROL.row("invoke_subgraph")
def _invoke_subgraph(c, gm, name, *operands):
    return c.subgraph(gm, list(operands))
