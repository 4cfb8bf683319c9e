"""ONNX If, Loop and Scan as structured control flow over graphs.

A body becomes a graph whose parameters are its inputs and what it captures. A loop that cannot stop
early is a scan; one that can keeps its collected outputs in buffers of the trip count, cut to the
steps that were made, or grown a step at a time where there is no trip count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorwright.frontend import onnx_rows as ops
from tensorwright.frontend.onnx_model import GraphRecord
from tensorwright.frontend.onnx_ops import Body, Call, Ints, converter, value_kind
from tensorwright.frontend.onnx_ops_movement import axis_of
from tensorwright.frontend.onnx_ops_sequence import as_node, is_tensor, joined, kind_of_value
from tensorwright.frontend.onnx_scope import POISON, Scope, closed_graph
from tensorwright.frontend.onnx_sequences import kind_of
from tensorwright.ir.dtype import boolean, i64
from tensorwright.ir.expr import Expr, Symbol, as_dim, as_expr, maximum, sym
from tensorwright.ir.graph import CONST, Graph, Node, array_of, constant, param
from tensorwright.ir.type import Dim, TensorType

MAX_UNROLLED = 64
ENDLESS = (1 << 62) - 1


class Broken(Exception):
    """A body could not be imported; the problems are noted already."""


# ---- bodies as graphs ---------------------------------------------------------------------------


@dataclass
class Part:
    """An imported body: its own parameters, its results, and its scope (which has the captures)."""

    params: list[Node]
    results: list[Node]
    scope: Scope

    def graph(self, name: str, captured: Sequence[Node]) -> Graph:
        """The graph over the own parameters and one for each captured node."""
        own = self.scope.captures
        taken = [own.get(n) or param(f"unused_{k}", n.type) for k, n in enumerate(captured)]
        return closed_graph(name, [*self.params, *taken], self.results)


def imported(c: Call, body: GraphRecord, params: list[Node], args: list | None = None) -> Part:
    """The body on its parameters; every result must be a tensor, a sequence or an optional."""
    results, scope = c.importer.body(body, c.scope, params if args is None else args)
    for k, r in enumerate(results):
        if r is POISON:
            raise Broken
        if not isinstance(r, Node) and kind_of_value(r) is None:
            raise c.fail(f"result {k} of a body is {value_kind(r)}, not a tensor")
    return Part(params, results, scope)


def captures_of(*parts: Part) -> list[Node]:
    """The nodes that any of the bodies captures."""
    found: dict[Node, None] = {}
    for p in parts:
        found.update(dict.fromkeys(p.scope.captures))
    return list(found)


# ---- If -----------------------------------------------------------------------------------------


@converter("If", values=True)
def if_(c: Call, condition: Node, *, then_branch: Body, else_branch: Body) -> object:
    if not isinstance(condition, Node) or condition.dtype is not boolean:
        raise c.fail("the condition is not a truth value")
    known = c.importer.symbolic.constant(condition)
    fixed = array_of(condition) if known is None else known
    if fixed is not None and fixed.size == 1:
        taken = then_branch if fixed.reshape(-1)[0] else else_branch
        return c.importer.inline(taken, c.scope, [])
    try:
        then, orelse = (imported(c, b, []) for b in (then_branch, else_branch))
    except Broken:
        return [POISON] * c.outputs
    for k, pair in enumerate(zip(then.results, orelse.results)):
        kind = joined(pair)
        if kind is not None:
            then.results[k], orelse.results[k] = (as_node(v, kind) for v in pair)
    check_branches(c, condition, then, orelse)
    captured = captures_of(then, orelse)
    y = ops.conditional(
        truth(condition), captured, then.graph("then", captured), orelse.graph("orelse", captured)
    )
    return ops.items(y)


def check_branches(c: Call, condition: Node, then: Part, orelse: Part) -> None:
    """Branches may give other sizes, not another number of dimensions: exporters write that where
    they did not know a size (`squeeze`), which then has to be known."""
    for k, (a, b) in enumerate(zip(then.results, orelse.results)):
        if a.rank == b.rank:
            continue
        known = c.known(condition)
        why = ""
        if known is not None and known.size == 1:
            e = known.reshape(-1)[0]
            why = f", by {e}"
            c.importer.demands.require(e)  # the first is what is meant for the sizes it is for
        raise c.fail(
            f"the branches give {a.type} and {b.type} for result {k}{why}",
            help='fix the sizes that decide it, as in shapes={"x": "1, 512"}',
        )


def truth(x: Node) -> Node:
    return x if x.rank == 0 else ops.reshape(x, shape=())


# ---- Loop ---------------------------------------------------------------------------------------


@converter("Loop", values=True)
def loop(
    c: Call, trips: Node | None = None, condition: Node | None = None, *state: object, body: Body
) -> list:
    if len(body.inputs) != len(state) + 2:
        raise c.fail(f"the body has {len(body.inputs)} inputs for {len(state)} carried values")
    trips = None if trips is None else number_of(c, trips)
    condition = None if condition is None else truth(condition)
    if any(not is_tensor(s) for s in state) or _carries_sequences(body):
        found = unrolled(c, trips, condition, list(state), body)
        if found is not None:
            return found
    try:
        state, part = stable_body(c, body, list(state))
    except Broken:
        return [POISON] * c.outputs
    again = c.importer.symbolic.constant(part.results[0])
    first = None if condition is None else array_of(condition)
    always = condition is None or (first is not None and bool(first))
    if trips is not None and always and again is not None and bool(again.reshape(-1)[0]):
        return counted(c, trips, list(state), part)
    return guarded(c, trips, condition, list(state), part)


def number_of(c: Call, trips: Node) -> Node:
    """i64[]: a trip count, which stays known where the model computes it from shapes."""
    known = c.known(trips)
    if known is None:
        return ops.reshape(ops.cast(trips, dtype=i64), shape=())
    return c.sizes(known.reshape(()))


def _carries_sequences(body: GraphRecord) -> bool:
    return any(v.kind in ("sequence", "optional") for v in (*body.inputs, *body.outputs))


def stable_body(c: Call, body: GraphRecord, state: list) -> tuple[list[Node], Part]:
    """(the state, the body on parameters whose types its results keep): a dimension that a step
    changes gets a symbol of its own, a sequence a type that has room for what a step puts into it.
    While a step runs the condition holds."""
    kinds = [kind_of_value(s) for s in state]
    types = [s.type if k is None else k.type for s, k in zip(state, kinds)]
    own: set[Expr] = set()
    for _ in range(8):
        before = len(c.importer.problems)
        count = param("iteration", TensorType(i64, ()))
        params = [param(v.name, t) for v, t in zip(body.inputs[2:], types)]
        args = [ranked(count, body.inputs[0]), ranked(constant(np.array(True)), body.inputs[1])]
        part = imported(c, body, [count, *params], [*args, *params])
        results = part.results[1 : 1 + len(state)]
        part.results[0] = truth(part.results[0])
        kinds = [joined([p, r]) for p, r in zip(params, results)]
        later = [_loosened(t, r.type, own) if k is None else k.type
                 for t, r, k in zip(types, results, kinds)]  # fmt: skip
        if later == types:
            settled = [r if k is None else as_node(r, k) for r, k in zip(results, kinds)]
            part.results[1 : 1 + len(state)] = settled
            return [s if k is None else as_node(s, k) for s, k in zip(state, kinds)], part
        types = later
        del c.importer.problems[before:]
    raise c.fail("the types of the carried values do not settle")


def ranked(x: Node, declared) -> Node:
    """A scalar, as a vector of one element where the body declares it so."""
    return ops.reshape(x, shape=(1,)) if declared.shape is not None and len(declared.shape) else x


def _loosened(before: TensorType, after: TensorType, own: set[Expr]) -> TensorType:
    """`before` with a fresh symbol, noted in `own`, in each dimension that a step changes."""
    if before.rank != after.rank:
        return before  # the type rule of the loop explains it
    shape = []
    for k, (a, b) in enumerate(zip(before.shape, after.shape)):
        if a != b and a not in own:
            a = sym(Symbol(f"d{k}"))
            own.add(a)
        shape.append(a)
    return TensorType(before.dtype, tuple(shape))


def counted(c: Call, trips: Node, state: list[Node], part: Part) -> list[Node]:
    """A loop that makes all its steps, as a scan."""
    count, *params = part.params
    captured = captures_of(part)
    one = ops.add(count, 1)
    body = Part([count, *params], [one, *part.results[1:]], part.scope).graph("body", captured)
    length = as_dim(maximum(as_expr(c.dim(trips, low=None)), as_expr(0)))
    y = ops.scan(
        [constant(np.array(0)), *state, *captured], body, carried=1 + len(state), length=length
    )
    return list(ops.items(y))[1:]


def guarded(c: Call, trips, condition, state: list[Node], part: Part) -> list[Node]:
    """A loop that may stop early: state is the count, the condition, the values, the buffers."""
    n = len(state)
    limit = None if trips is None else c.known(trips)
    limit = None if limit is None else limit.reshape(-1)[0]
    endless = trips is None or (isinstance(limit, int) and limit >= ENDLESS)
    size = None if endless else as_dim(maximum(as_expr(c.dim(trips, low=None)), as_expr(0)))
    collected = part.results[1 + n :]
    starts = [empty(size, r.type) for r in collected]
    count, *params = part.params
    go = param("go", TensorType(boolean, ()))
    buffers = [
        param(f"buffer_{k}", TensorType(b.dtype, (b.shape[0] if size is not None else
              sym(Symbol(f"steps_{k}")), *b.shape[1:]))) for k, b in enumerate(starts)
    ]  # fmt: skip
    grown = [
        write(b, count, r) if size is not None else append(b, r) for b, r in zip(buffers, collected)
    ]
    captured = captures_of(part)
    whole = Part(
        [count, go, *params, *buffers],
        [ops.add(count, 1), part.results[0], *part.results[1 : 1 + n], *grown], part.scope,
    )  # fmt: skip
    body = whole.graph("body", captured)
    test = _condition_graph(body, None if endless else trips)
    first = constant(np.array(True)) if condition is None else condition
    operands = [constant(np.array(0)), first, *state, *starts, *captured]
    extra = [] if endless or trips.op is CONST else [trips]
    if extra:
        body = Graph(body.name, (*body.params, param("trips", trips.type)), body.results,
                     body.binders, body.result_names)  # fmt: skip
    y = ops.items(ops.loop_while([*operands, *extra], test, body, carried=2 + n + len(starts)))
    results = list(y[2:])
    if size is not None and starts:
        steps = c.importer.symbolic.bind(y[0], 0, "steps").reshape(-1)[0]
        results[n:] = [head(b, steps) for b in results[n:]]
    return results


def _condition_graph(body: Graph, trips: Node | None) -> Graph:
    """count < trips and go."""
    params = [param(p.name, p.type) for p in body.params]
    result = params[1]
    if trips is not None:
        limit = trips
        if trips.op is not CONST:
            limit = param("trips", trips.type)
            params.append(limit)
        result = ops.logical_and(result, ops.less(params[0], limit))
    return Graph("condition", tuple(params), (result,))


def empty(size: Dim | None, t: TensorType) -> Node:
    shape = (0 if size is None else size, *t.shape)
    return ops.full(shape=shape, value=0, dtype=t.dtype)


def write(buffer: Node, at: Node, value: Node) -> Node:
    """The buffer with `value` at position `at` of its first dimension."""
    starts = ops.concat(
        ops.reshape(at, shape=(1,)), constant(np.zeros(value.rank, np.int64)), axis=0
    )
    return ops.dynamic_update_slice(buffer, ops.reshape(value, shape=(1, *value.shape)), starts)


def append(buffer: Node, value: Node) -> Node:
    return ops.concat(buffer, ops.reshape(value, shape=(1, *value.shape)), axis=0)


def head(x: Node, count: Dim) -> Node:
    rest = x.shape[1:]
    return ops.slice(x, starts=(0,) * x.rank, stops=(count, *rest), steps=(1,) * x.rank)


def unrolled(c: Call, trips, condition, state: list, body: GraphRecord) -> list | None:
    """A loop over sequences whose steps are known while importing; None for any other."""
    symbolic = c.importer.symbolic
    limit = None if trips is None else symbolic.constant(trips)
    if limit is None or int(limit) > MAX_UNROLLED or any(kind_of(s) for s in nodes(state)):
        return None
    go = True if condition is None else symbolic.constant(condition)
    before = len(c.importer.problems)
    collected: list[list[Node]] = [[] for _ in range(len(body.outputs) - 1 - len(state))]
    for k in range(int(limit)):
        if go is None:
            return None
        if not go:
            break
        args = [ranked(constant(np.array(k)), body.inputs[0]),
                ranked(constant(np.array(True)), body.inputs[1])]  # fmt: skip
        results = c.importer.inline(body, c.scope, [*args, *state])
        if any(r is POISON for r in results):
            del c.importer.problems[before:]  # the loop itself will say it
            return None
        go = symbolic.constant(results[0])
        state = results[1 : 1 + len(state)]
        for column, value in zip(collected, results[1 + len(state) :]):
            column.append(ops.reshape(value, shape=(1, *value.shape)))
    if any(not column for column in collected):
        raise c.fail("a loop of no steps collects tensors")
    return [*state, *(v[0] if len(v) == 1 else ops.concat(*v, axis=0) for v in collected)]


def nodes(values: Sequence) -> list[Node]:
    return [v for v in values if isinstance(v, Node)]


# ---- Scan ---------------------------------------------------------------------------------------


@converter("Scan", since=9)
def scan(
    c: Call, *operands: Node, body: Body, num_scan_inputs: int, scan_input_axes: Ints = (),
    scan_input_directions: Ints = (), scan_output_axes: Ints = (),
    scan_output_directions: Ints = (),
) -> list[Node]:  # fmt: skip
    n = num_scan_inputs
    if not 0 < n <= len(operands):
        raise c.fail(f"{n} scanned inputs of {len(operands)}")
    states, xs = list(operands[: len(operands) - n]), list(operands[len(operands) - n :])
    axes = scan_input_axes or (0,) * n
    back = scan_input_directions or (0,) * n
    if len(axes) != n or len(back) != n:
        raise c.fail("scan_input_axes or scan_input_directions have a wrong length")
    xs = [to_front(c, x, a, d) for x, a, d in zip(xs, axes, back)]
    try:
        results = scanned(c, c.scope, body, states, xs)
    except Broken:
        return [POISON] * c.outputs
    ys = results[len(states) :]
    axes = scan_output_axes or (0,) * len(ys)
    back = scan_output_directions or (0,) * len(ys)
    if len(axes) != len(ys) or len(back) != len(ys):
        raise c.fail("scan_output_axes or scan_output_directions have a wrong length")
    return [*results[: len(states)], *(from_front(c, y, a, d) for y, a, d in zip(ys, axes, back))]


def scanned(c: Call, scope: Scope, body: GraphRecord, states, xs) -> list[Node]:
    """The body over the leading slices of xs."""
    if len(body.inputs) != len(states) + len(xs):
        raise c.fail(f"the body has {len(body.inputs)} inputs for {len(states) + len(xs)} values")
    types = [s.type for s in states] + [TensorType(x.dtype, x.shape[1:]) for x in xs]
    params = [param(v.name, t) for v, t in zip(body.inputs, types)]
    inner = Call(c.record, c.opset, c.importer, scope, c.attrs)
    part = imported(inner, body, params)
    captured = captures_of(part)
    y = ops.scan(
        [*states, *xs, *captured], part.graph("body", captured), carried=len(states),
        scanned=len(xs),
    )  # fmt: skip
    return list(ops.items(y))


def to_front(c: Call, x: Node, axis: int, reverse: int) -> Node:
    if x.rank == 0:
        raise c.fail("a scanned input is a scalar")
    axis = axis_of(c, axis, x.rank)
    if axis:
        x = ops.transpose(x, perm=(axis, *(k for k in range(x.rank) if k != axis)))
    return ops.flip(x, axes=(0,)) if reverse else x


def from_front(c: Call, y: Node, axis: int, reverse: int) -> Node:
    axis = axis_of(c, axis, y.rank)
    y = ops.flip(y, axes=(0,)) if reverse else y
    if not axis:
        return y
    return ops.transpose(y, perm=(*range(1, axis + 1), 0, *range(axis + 1, y.rank)))


@converter("Scan", since=8)
def scan_in_batches(
    c: Call, lengths: Node | None = None, *operands: Node, body: Body, num_scan_inputs: int,
    directions: Ints = (),
) -> list[Node]:  # fmt: skip
    """Opset 8: every operand has a leading batch dimension, over which the scan runs too."""
    if lengths is not None:
        raise c.fail("sequence_lens is not supported")
    n = num_scan_inputs
    if not 0 < n <= len(operands):
        raise c.fail(f"{n} scanned inputs of {len(operands)}")
    states, xs = operands[: len(operands) - n], operands[len(operands) - n :]
    xs = [to_front_of_batch(x) if d else x for x, d in zip(xs, directions or (0,) * n)]
    outer = Scope(parent=c.scope)
    params = [param(f"slice_{k}", TensorType(v.dtype, v.shape[1:]))
              for k, v in enumerate((*states, *xs))]  # fmt: skip
    try:
        results = scanned(c, outer, body, params[: len(states)], params[len(states) :])
    except Broken:
        return [POISON] * c.outputs
    captured = list(outer.captures)
    g = closed_graph("batch", [*params, *outer.captures.values()], results)
    return list(ops.items(ops.scan([*states, *xs, *captured], g, scanned=len(params))))


def to_front_of_batch(x: Node) -> Node:
    return ops.flip(x, axes=(1,))
