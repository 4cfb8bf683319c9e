"""`tw.batch`: any function of one example as a function of many, recursion and branches included.

    batched = tw.batch(f)            # f(x: f32[()]) -> f32[()], calling itself
    batched(xs)                      # xs: f32[b] -> f32[b]

Examples may take other branches, run loops for other times and recur to other depths. A function
without any of that is `tw.vmap` of it; else it becomes one loop over a program counter for each
example (`machine.py`). A function over values of a data type takes lists of them, and computes the
equal parts of all together (`structure.py`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.base.value import Value
from tensorwright.batching.forest import list_of, planted
from tensorwright.batching.lanes import Lanes
from tensorwright.batching.machine import DEPTH, batch_program
from tensorwright.batching.rows import moved
from tensorwright.batching.structure import Builder
from tensorwright.batching.vmap import Mapped, mapped
from tensorwright.batching.walkers import edges_of, find_walkers
from tensorwright.frontend import trees
from tensorwright.frontend.data import is_data, typed_value
from tensorwright.frontend.function import Convention, Function, Session, trace_entry
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import Symbol, sym
from tensorwright.ir.graph import Graph, Node, graph, param, subgraphs
from tensorwright.ir.type import DataType, Dim, TensorType
from tensorwright.ops.define import normalize_axis


def batch(f: Callable, in_axes=0, out_axes=0, depth: int = DEPTH) -> Mapped:
    """`f` over examples that lie along `in_axes` of its arguments; an argument of a data type is a
    list of values. `depth`: how many calls of recursive functions may be open in one example; more
    is a RunError that names the depth."""
    known = f.annotations if isinstance(f, Function) else Function(f).annotations
    if any(is_data(a) for k, a in known.items() if k != "return"):
        return _over_values(f, in_axes, out_axes)

    def engine(nodes: list[Node], params, captures, lanes: Lanes) -> list:
        given = [*params, *captures]
        g = graph("example", [p for p, _ in given], nodes)
        if not needs_counter(g, lanes):
            lanes.values = {p: (x, True) for p, x in params}
            lanes.values |= {p: (x, False) for p, x in captures}
            return [lanes.of(n) for n in nodes]
        on = [True] * len(params) + [False] * len(captures)
        found = batch_program(g, on, [x for _, x in given], lanes, depth)
        return [(x, True) for x in found]

    return mapped(f, in_axes, out_axes, engine)


def needs_counter(g: Graph, lanes: Lanes) -> bool:
    """Whether examples may run for different lengths: there are loops or recursive calls."""
    seen: set[str] = set()

    def search(g: Graph) -> bool:
        for n in g.nodes():
            if n.op.name == "while_" or any(map(search, subgraphs(n))):
                return True
            name = n.attrs["callee"] if n.op.name == "call" else None
            if name in seen:
                return True
            if name is not None:
                seen.add(name)
                if search(lanes.graphs[name]):
                    return True
                seen.discard(name)
        return False

    return search(g)


# ---- values of data types ----------------------------------------------------------------------


class OverValues(Mapped):
    """A function over lists of values. It is an entry of a program; nothing else can hold lists."""

    in_axes: tuple = ()
    out_axes: object = 0

    def __call__(self, *args, **kwargs):
        raise FrontendError(
            f"tw.batch({self.name}) takes lists of values, which only a program's caller has",
            help=f"compile it by itself: tw.compile(tw.batch({self.name}), example inputs)",
        )

    def make_entry(self, title: str, examples, shapes, session: Session):
        """(the graph over all examples, how it is called)."""
        own = one_example(self, examples)
        main, call = trace_entry("example", own[0], own[1], shapes, session)
        axes = dict(zip(self.parameters.parameters, self.in_axes))
        if any(name in own[0].static for name in axes):
            raise FrontendError(f"tw.batch({self.name}): static arguments are not supported here")
        lanes = sym(Symbol("examples"))
        names = list(axes)
        types = [p.type for p in main.params]
        found = {n: t for n, t in zip(names, types) if isinstance(t, DataType)}
        inputs = {n: param(n, list_of(t)) for n, t in found.items()}
        counts = [param(f"{n}_count", TensorType(i64, (lanes,))) for n in found]
        walkers = find_walkers(main, session.graphs)
        forest = planted(list(inputs.values()), list(found.values()), [lanes] * len(found),
                         edges_of(walkers, list(found.values())))  # fmt: skip
        given = _tensors(main, names, axes, lanes)
        for w in walkers.values():
            w.shared = {k: given.get(x, x) for k, x in w.shared.items()}
        results = _results(main, Builder(forest, session.graphs, walkers), given, lanes)
        ends = [0] * len(results) if self.out_axes == 0 else trees.flatten(self.out_axes)[0]
        results = [moved(y, 0, normalize_axis("batch", a, y.rank)) for y, a in zip(results, ends)]
        params = [*inputs.values(), *counts, *given.values()]
        made = graph(title, params, results, main.result_names)
        flatten = _flattener(self, names, found)
        return made, Convention(flatten, call.rebuild)


def _over_values(f: Callable, in_axes, out_axes) -> OverValues:
    inner = f.f if isinstance(f, Function) else f

    @functools.wraps(inner)
    def one(*args, **kwargs):
        return f(*args, **kwargs)

    made = OverValues(one)
    made.annotations = f.annotations if isinstance(f, Function) else made.annotations
    count = len(inspect.signature(inner).parameters)
    made.in_axes = tuple(in_axes) if isinstance(in_axes, (tuple, list)) else (in_axes,) * count
    made.out_axes = out_axes
    if len(made.in_axes) != count or not all(a is None or isinstance(a, int) for a in made.in_axes):
        raise FrontendError(f"tw.batch({made.name}): in_axes is one axis or None for each argument")
    return made


def one_example(fn: OverValues, examples) -> tuple[Function, dict]:
    """(the function of one example, example inputs of it)."""
    examples = examples if isinstance(examples, (tuple, list)) else (
        () if examples is None else (examples,))  # fmt: skip
    given = fn.parameters.bind_partial(*examples).arguments if not isinstance(
        examples, dict) else examples  # fmt: skip
    one = Function(fn.f)
    one.annotations = fn.annotations
    found = {}
    for name, axis in zip(fn.parameters.parameters, fn.in_axes):
        note = fn.annotations.get(name)
        if is_data(note):
            found[name] = note
        elif name in given:
            x = np.asarray(given[name])
            found[name] = x if axis is None else np.take(x, 0, axis)
    return one, found


def _tensors(main: Graph, names, axes, lanes) -> dict[Node, Node]:
    """parameter of one example -> that of all, for tensors."""
    found = {}
    for name, p in zip(names, main.params):
        if isinstance(p.type, DataType):
            continue
        axis = axes[name]
        if axis is not None:
            at = normalize_axis("batch", axis, p.rank + 1)
            shape = (*p.shape[:at], lanes, *p.shape[at:])
            found[p] = param(name, TensorType(p.dtype, shape))
        else:
            found[p] = p
    return found


def _results(main: Graph, builder: Builder, given: dict[Node, Node], lanes: Dim) -> list[Node]:
    engine = builder.lanes(lanes, builder.tables())
    roots = iter(builder.forest.roots)
    for p in main.params:
        if isinstance(p.type, DataType):
            engine.values[p] = (next(roots), True)
            continue
        x = given[p]
        on = x is not p
        axis = next((k for k, d in enumerate(x.shape) if d is lanes), 0)
        engine.values[p] = (moved(x, axis, 0) if on else x, on)
    return [engine.with_lanes(engine.of(r)) for r in main.results]


def _flattener(fn: OverValues, names, found) -> Callable:
    end = Value("End")

    def listed(values, t: DataType) -> Value:
        whole = end
        for v in reversed(values):
            whole = Value("One", (typed_value(v, t), whole))
        return whole

    def flatten(args: tuple, kwargs: dict) -> list:
        given = fn.parameters.bind(*args, **kwargs).arguments
        lists = [(t, list(given[n])) for n, t in found.items()]
        counts = [np.zeros(len(values), np.int64) for _, values in lists]
        rest = [given[n] for n in names if n not in found]
        return [*(listed(values, t) for t, values in lists), *counts, *rest]

    return flatten
