"""Branches and loops over traced tensors: `tw.cond`, `tw.while_loop`, `tw.scan`.

    y = tw.cond(p, lambda x: x + b, lambda x: x - b, x)  # b, from outside, is captured

State, operands and results may be nested tuples, lists and dicts. A loop may change the sizes of
its state: such a dimension is a fresh symbol in the body and in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorwright.base.value import Value
from tensorwright.frontend import tracer, trees
from tensorwright.frontend.tracer import (
    Object,
    Trace,
    at_user_line,
    current_trace,
    dim_of,
    is_weak,
    node_of,
    result_dtype,
    traced_error,
    tracing,
    typed,
    wrap,
)  # fmt: skip
from tensorwright.ir.dtype import DType, boolean
from tensorwright.ir.expr import Expr, var
from tensorwright.ir.graph import Graph, Node, graph, param
from tensorwright.ir.type import FunctionType, TensorType
from tensorwright.ops import control as ct
from tensorwright.ops import elementwise as ew
from tensorwright.ops import movement as mv

ROUNDS = 4  # how often a loop body is traced again to find the types of its state


class Unknown(Exception):
    """A recursive call whose result type is not known yet."""

    def __init__(self, function) -> None:
        super().__init__(function)
        self.function = function


class Body:
    """One traced body: parameters of the given types, results, captures, how results nest."""

    def __init__(self, f: Callable, spec, types: Sequence[TensorType], name: str) -> None:
        self.name, self.trace = name, Trace(current_trace())
        self.params = [param(f"{name}_{k}", t) for k, t in enumerate(types)]
        with tracing(self.trace):
            tree = f(*trees.rebuild(spec, [wrap(p) for p in self.params]))
            self.leaves, self.spec = trees.flatten(tree)

    def results(self, types: Sequence[DType | FunctionType | None]) -> list[Node]:
        """The results in these element types; Python functions as values of function types."""
        with tracing(self.trace):
            return [tracer.CLOSE(v, d) if isinstance(d, FunctionType) else node_of(v, d)
                    for v, d in zip(self.leaves, types)]  # fmt: skip

    def nodes(self) -> list[Node]:
        with tracing(self.trace):
            return [node_of(v) for v in self.leaves]

    def graph(self, results: Sequence[Node], captures: Sequence[Node]) -> Graph:
        """The body as a graph over its parameters and all of `captures` (outer nodes)."""
        own = self.trace.captures
        extra = [own[c] if c in own else param(f"unused_{k}", c.type)
                 for k, c in enumerate(captures)]  # fmt: skip
        return graph(self.name, [*self.params, *extra], results)


def captures_of(*bodies: Body) -> list[Node]:
    return list(dict.fromkeys(c for b in bodies for c in b.trace.captures))


def condition(x) -> Node:
    """A predicate as a bool of rank 0."""
    x = node_of(x, boolean)
    if x.type.size != 1:
        raise traced_error(
            f"a condition must be a single truth value, this one is {x.type}",
            help="reduce it with tw.numpy.any or tw.numpy.all, or choose by element with where",
        )
    return x if x.rank == 0 else mv.reshape(x, shape=())


def _operands(tree) -> tuple[list[Node], object]:
    leaves, spec = trees.flatten(tree)
    return [node_of(v) for v in leaves], spec


def cond(pred, true_fn: Callable, false_fn: Callable, *operands):
    """true_fn(*operands) where `pred` holds, else false_fn(*operands); only one of them runs."""
    with at_user_line():
        nodes, spec = _operands(operands)
        types = [n.type for n in nodes]
        pred = condition(pred)
        then = attempt(true_fn, spec, types, "then")
        orelse = attempt(false_fn, spec, types, "orelse")
        if isinstance(then, Unknown) or isinstance(orelse, Unknown):
            return provisional(then, orelse)
        same_structure("the branches", then.spec, orelse.spec)
        dtypes = [common_dtype(a, b) for a, b in zip(then.leaves, orelse.leaves)]
        captures = captures_of(then, orelse)
        bodies = [(b, b.results(dtypes)) for b in (then, orelse)]
        captures = captures_of(then, orelse)
        graphs = [b.graph(results, captures) for b, results in bodies]
        node = ct.conditional(pred, [*nodes, *captures], *graphs)
        return trees.rebuild(then.spec, [wrap(v) for v in ct.items(node)])


def common_dtype(*values) -> DType | FunctionType | None:
    """The common element type of results: tensors decide strongly, Python numbers weakly. None if
    one of them is a value of a data type; the type of functions that one of them has."""
    functions = [v.node.type for v in values if isinstance(v, Object)]
    functions = [t for t in functions if isinstance(t, FunctionType)]
    if functions:
        return functions[0]
    if any(isinstance(v, (Object, Value)) for v in values):
        return None
    return result_dtype(*(v if is_weak(v) else typed(v) for v in values))


def attempt(f: Callable, spec, types, name: str):
    try:
        return Body(f, spec, types, name)
    except Unknown as e:
        return e


def provisional(*bodies):
    """Results of the type of a branch that is known, while a recursion waits for its own type."""
    known = next((b for b in bodies if not isinstance(b, Unknown)), bodies[0])
    if isinstance(known, Unknown):
        raise known
    return trees.rebuild(known.spec, [wrap(param("pending", n.type)) for n in known.nodes()])


def same_structure(what: str, a, b) -> None:
    if a != b:
        raise traced_error(f"{what} give results of different structure: "
                           f"{trees.describe(a)} and {trees.describe(b)}")  # fmt: skip


def while_loop(cond_fn: Callable, body_fn: Callable, init):
    """The state after `state = body_fn(state)` for as long as cond_fn(state) holds."""
    with at_user_line():
        leaves, spec = trees.flatten(init)
        single = ("tuple", None, (spec,))
        nodes = [node_of(v) for v in leaves]
        nodes, body, types = _settled(body_fn, single, nodes, leaves, len(leaves))
        same_structure("the start and the body", spec, body.spec)
        results = body.results([t.dtype for t in types])
        test = Body(cond_fn, single, types, "cond")
        with tracing(test.trace):
            found = [condition(test.leaves[0])]
        captures = captures_of(body, test)
        node = ct.loop_while([*nodes, *captures], test.graph(found, captures),
                             body.graph(results, captures), len(nodes))  # fmt: skip
        return trees.rebuild(spec, [wrap(v) for v in ct.items(node)])


def _settled(f: Callable, spec, nodes: list[Node], leaves, carried: int, extra=()):
    """(start values, body, types of its state) with types that the body keeps."""
    types = [n.type for n in nodes]
    own: set[Expr] = set()  # symbols of dimensions that a step changes
    for _ in range(ROUNDS):
        body = Body(f, spec, [*types, *extra], "body")
        if len(body.leaves) < carried:
            return nodes, body, types  # the caller reports the structure
        new = [_joined(t, v, is_weak(leaf) or leaf is None, own)
               for t, v, leaf in zip(types, _first(body, carried), leaves)]  # fmt: skip
        if new == types:
            return nodes, body, types
        nodes = [n if n.dtype is t.dtype else ew.cast(n, dtype=t.dtype)
                 for n, t in zip(nodes, new)]  # fmt: skip
        types = new
    raise traced_error(
        "the state of the loop changes its type in every step",
        help="cast it with astype so that the body gives back what it takes",
    )


def _first(body: Body, carried: int) -> list:
    with tracing(body.trace):
        return [v if is_weak(v) else node_of(v) for v in body.leaves[:carried]]


def _joined(before: TensorType, after, weak: bool, own: set[Expr]) -> TensorType:
    """The type of a state that is `before` at the start and `after` after a step."""
    if isinstance(after, Node) and (type(before), type(after.type)) != (TensorType, TensorType):
        if before != after.type:
            raise traced_error(
                f"the state of the loop is {before} before and {after.type} after a step"
            )
        return before
    if not isinstance(after, Node):
        after = TensorType(result_dtype(before.dtype, after), ())
    else:
        after = after.type
    if before.rank != after.rank:
        raise traced_error(f"the state of the loop is {before} before and {after} after a step")
    shape = []
    for a, b in zip(before.shape, after.shape):
        if a != b and a not in own:
            a = var("d", min=0)
            own.add(a)
        shape.append(a)
    if before.dtype is not after.dtype and not weak:
        raise traced_error(
            f"the state of the loop is {before} before and {after} after a step",
            help="start from the type that the body gives, or cast its result",
        )
    return TensorType(after.dtype, tuple(shape))


def scan(f: Callable, init, xs=None, length=None, reverse: bool = False):
    """(last state, stacked ys) of `state, y = f(state, x)` for the slices x of xs along axis 0."""
    with at_user_line():
        leaves, spec = trees.flatten(init)
        nodes = [node_of(v) for v in leaves]
        rows, rows_spec = _operands(xs)
        if not rows and length is None:
            raise traced_error("scan needs xs or a length")
        steps = rows[0].shape[0] if rows else dim_of(length)
        slices = [TensorType(r.dtype, r.shape[1:]) for r in rows]
        both = ("tuple", None, (spec, rows_spec))
        step = _checked_step(f)
        nodes, body, types = _settled(step, both, nodes, leaves, len(nodes), slices)
        given, ys_spec = body.spec[2] if body.spec != trees.LEAF else (None, None)
        same_structure("the start and the body", spec, given)
        dtypes = [t.dtype for t in types] + [typed(v) if not is_weak(v) else result_dtype(v)
                                             for v in body.leaves[len(nodes) :]]  # fmt: skip
        results = body.results(dtypes)
        captures = captures_of(body)
        node = ct.scan(
            [*nodes, *rows, *captures],
            body.graph(results, captures),
            carried=len(nodes),
            scanned=len(rows),
            length=steps,
            reverse=reverse,
        )
        found = [wrap(v) for v in ct.items(node)]
        return (trees.rebuild(spec, found[: len(nodes)]),
                trees.rebuild(ys_spec, found[len(nodes) :]))  # fmt: skip


def _checked_step(f: Callable) -> Callable:
    def step(state, x):
        found = f(state, x)
        if not isinstance(found, tuple) or len(found) != 2:
            raise traced_error("the function given to scan must return (state, y)")
        return found

    return step
