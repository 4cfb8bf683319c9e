"""The reference interpreter: graphs through `OpDef.reference`, kernels as Python loops.

    run_graph(g, [x])  ->  [y]          run_kernel(k, [x], {n: 8})  ->  [y]

Slow and plain on purpose: every pass and every generated program is compared with it. Symbols are
found from the shapes of the inputs and checked; every result is checked against its node's type.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np

from tensorwright.base.errors import InternalError, RunError
from tensorwright.base.value import Value, fold, from_python, to_python
from tensorwright.ir import facts, scalar, source
from tensorwright.ir.dtype import DType, dtype, f64
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_expr, symbols_of
from tensorwright.ir.graph import CONST, Graph, Node, bound_symbols, param
from tensorwright.ir.graph import graph as make_graph
from tensorwright.ir.loop import Call, Kernel, Pack
from tensorwright.ir.module import Module
from tensorwright.ir.quarters import sums_of_quarters
from tensorwright.ir.type import Case, DataType, FunctionType, TensorType, TupleType, leaves

# Operators whose result depends on the bits of their operands, or whose draws depend on the type:
# never computed in another one.
_EXACT = ("bitcast", "random_bits", "uniform", "normal", "bernoulli", "multinomial",
          "dropout")  # fmt: skip

DEPTH = 50_000  # of Python calls, for programs that recurse
MOST_BYTES = 1 << 47  # of an address space

Values = dict[Symbol, int]


def run_module(m: Module, inputs: Sequence[np.ndarray], precise: bool = False) -> list[np.ndarray]:
    """The results of the module's entry on `inputs`, which stay as they are."""
    return run_graph(m.main, inputs, m.graphs, precise, m.kernels)


def run_graph(
    g: Graph,
    inputs: Sequence[np.ndarray],
    graphs: Mapping[str, Graph] = {},
    precise: bool = False,
    kernels: Mapping[str, Kernel] = {},
) -> list[np.ndarray]:
    """The results of `g`, one entry a result (a tuple for a result of tuple type). `graphs` and
    `kernels` are what calls find by name; `precise` computes all floats in float64, except in
    kernels."""
    with np.errstate(all="ignore"), deep_stack():
        results = _Run(graphs, precise, kernels).graph(g, _convert(g, inputs, precise), {})
    return [to_python(y, r.type.cases[0].name) if isinstance(r.type, DataType) else y
            for r, y in zip(g.results, results)]  # fmt: skip


def run_node(node: Node, values: Sequence):
    """The value of one node of static type on the values of its operands."""
    with np.errstate(all="ignore"):
        return _Run({}, False, {}).node(node, list(values), {})


def _convert(g: Graph, inputs: Sequence, precise: bool) -> list:
    if len(inputs) != len(g.params):
        raise RunError(f"{g.name} takes {len(g.params)} inputs, {len(inputs)} were given")
    return [_input(p.name, p.type, x, precise) for p, x in zip(g.params, inputs)]


def _input(name: str, type_, x, precise: bool):
    if isinstance(type_, TupleType):
        return tuple(
            _input(f"{name}[{k}]", t, v, precise) for k, (t, v) in enumerate(zip(type_.items, x))
        )
    if isinstance(type_, DataType):
        return _input_value(name, type_, x, precise)
    if isinstance(type_, FunctionType):
        raise RunError(f"{name} is a function: the inputs of a program are tensors and values")
    x = np.asarray(x, type_.dtype.numpy if isinstance(x, (bool, int, float)) else None)
    if x.ndim != type_.rank:
        raise RunError(f"{name} has rank {x.ndim}, expected {type_}")
    if dtype(x.dtype) is not type_.dtype:
        raise RunError(f"{name} has element type {dtype(x.dtype)}, expected {type_}")
    return x.astype(np.float64) if precise and type_.dtype.is_float else x


def _input_value(name: str, type_: DataType, value, precise: bool) -> Value:
    """A value with its fields as arrays, checked against the declaration."""
    value = from_python(value, type_.cases[0].name)
    wanted: dict[int, tuple[DataType, Case]] = {}
    todo = [(type_, value)]
    while todo:
        t, v = todo.pop()
        c = t.case(v.case) if isinstance(v, Value) else None
        if c is None:
            what = v.case if isinstance(v, Value) else f"a {type(v).__name__}"
            raise RunError(f"{name}: {what} is no value of {t}")
        if len(v.fields) != len(c.fields):
            raise RunError(f"{name}: {t}.{c.name} has {len(c.fields)} fields, not {len(v.fields)}")
        if id(v) not in wanted:
            wanted[id(v)] = (t, c)
            todo += [(f, x) for f, x in zip(c.types, v.fields) if isinstance(f, DataType)]

    def make(v: Value, fields: list) -> Value:
        t, c = wanted[id(v)]
        where = f"{name}: {t}.{c.name}"
        found = [x if isinstance(f, DataType) else _input(f"{where}.{k}", f, x, precise)
                 for (k, f), x in zip(c.fields, fields)]  # fmt: skip
        bind_types(c.types, found, [k for k, _ in c.fields], {})
        return Value(c.name, found)

    return fold(value, make)


def limit_depth(most: int) -> None:
    """From now on programs may recurse to `most` Python calls; for a process in which each of them
    takes room on the C stack."""
    global DEPTH
    DEPTH = min(DEPTH, most)


@contextmanager
def deep_stack():
    """Room for programs that recurse; RunError when it is used up."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEPTH))
    try:
        yield
    except RecursionError:
        raise RunError("the recursion of the program is too deep for the interpreter") from None
    finally:
        sys.setrecursionlimit(before)


def check_size(node: Node, symbols: Values) -> None:
    """RunError if no machine could hold the result, or a size is negative, as far as sizes are
    known before it. NumPy refuses such shapes with errors of many kinds, even where one size is
    0."""
    for t in leaves(node.type):
        if not isinstance(t, TensorType) or set(symbols_of(*map(as_expr, t.shape))) - set(symbols):
            continue
        sizes = [facts.evaluate(d, symbols) for d in t.shape]
        if any(s < 0 for s in sizes):
            shown = ", ".join(map(str, sizes))
            raise RunError(f"{_where(node)}: {t} would be of negative size, ({shown})")
        if prod(s or 1 for s in sizes) * t.dtype.bytes > MOST_BYTES:
            raise RunError(f"{_where(node)}: out of memory for {t}")


class _Run:
    """One evaluation: the callable graphs and whether floats are computed in float64."""

    def __init__(self, graphs: Mapping[str, Graph], precise: bool, kernels: Mapping[str, Kernel]):
        self.graphs, self.precise, self.kernels = graphs, precise, kernels

    def graph(self, g: Graph, inputs: Sequence, outer: Values) -> list:
        """Results of `g`; `outer` are symbols it may mention beyond those of its parameters."""
        symbols = bind_types([p.type for p in g.params], inputs, [p.name for p in g.params], outer)
        values: dict[Node, object] = dict(zip(g.params, inputs))
        nodes = g.nodes()
        last = {a: k for k, n in enumerate(nodes) for a in n.args}
        keep = set(g.results)
        for k, node in enumerate(nodes):
            if node not in values:
                values[node] = self.node(node, [values.get(a) for a in node.args], symbols)
            for a in node.args:
                if a is not None and last[a] == k and a not in keep:
                    values.pop(a, None)
        return [values[r] for r in g.results]

    def node(self, node: Node, args: list, symbols: Values):
        """The value of one node; binds its symbols in `symbols`."""
        if node.op is CONST:
            value = node.attrs["value"]
            return value.astype(np.float64) if self.precise and node.dtype.is_float else value
        special = _CONTROL.get(node.op.name)
        if special is not None:
            result = special(self, node, args, symbols)
        else:
            result = self.operator(node, args, symbols)
        return self.checked(node, result, symbols)

    def checked(self, node: Node, result, symbols: Values):
        own = bound_symbols(node)
        if own and node.op.name != "bind_size":
            symbols.update(_result_symbols(node, result, symbols))
        types, found = leaves(node.type), _leaves(result)
        if len(types) != len(found):
            raise InternalError(f"{_where(node)} gave {len(found)} values for {node.type}")
        for t, x in zip(types, found):
            if not isinstance(t, TensorType):
                continue
            shape = tuple(facts.evaluate(d, symbols) for d in t.shape)
            if x.shape != shape:
                raise InternalError(f"{_where(node)} gave shape {x.shape} for {t}, that is {shape}")
        return result

    def operator(self, node: Node, args: list, symbols: Values):
        check_size(node, symbols)
        attrs = {k: evaluate_attr(v, symbols) for k, v in node.attrs.items()}
        exact = node.op.name in _EXACT
        if self.precise and exact:
            args = [_narrow(a, n and n.type) for a, n in zip(args, node.args)]
        if node.op.reference is not None:
            return self.reference(node, args, attrs, exact)
        if node.op.expand is not None:
            return self.expansion(node, args, attrs)
        if node.op.lower is not None:
            return self.lowering(node, args, attrs, symbols)
        raise InternalError(f"{node.op.name} has no reference, expand or lower")

    def reference(self, node: Node, args: list, attrs: dict, exact: bool):
        if self.precise:
            attrs = {k: _wide_dtype(v) for k, v in attrs.items()} if not exact else attrs
        elif not exact:
            args = [scalar.widen(a) if isinstance(a, np.ndarray) else a for a in args]
        try:
            result = node.op.reference(*args, **attrs)
        except IndexError as e:
            raise RunError(f"{node.op.name}: {e}").located(node.loc) from None
        return self.fit(node.type, result)

    def fit(self, type_, result):
        """`result` as arrays of the node's element types (float64 for floats if precise)."""
        if isinstance(type_, TupleType):
            return tuple(self.fit(t, r) for t, r in zip(type_.items, result, strict=True))
        d = f64 if self.precise and type_.dtype.is_float else type_.dtype
        array = np.asarray(result)
        return array if array.dtype == d.numpy else array.astype(d.numpy)

    def expansion(self, node: Node, args: list, attrs: dict):
        """A composite through its definition, on the types that the operands really have."""
        params = [
            None if a is None else param(f"x{k}", _concrete(n.type, a))
            for k, (n, a) in enumerate(zip(node.args, args))
        ]
        result = node.op.expand(*params, **attrs)
        results = result if isinstance(result, tuple) else (result,)
        g = make_graph(node.op.name, [p for p in params if p is not None], results)
        found = self.graph(g, [a for a in args if a is not None], {})
        return tuple(found) if isinstance(result, tuple) else found[0]

    def lowering(self, node: Node, args: list, attrs: dict, symbols: Values):
        """A primitive without a reference through its loop nest, in its own types."""
        types = [_evaluate_type(t, symbols) for t in leaves(node.type)]
        outs = tuple(Buffer(f"y{k}", t.dtype, t.shape) for k, t in enumerate(types))
        arrays = [_narrow(a, n and n.type) for a, n in zip(args, node.args)]
        ins = [
            None if a is None else Buffer(f"x{k}", n.type.dtype, a.shape)
            for k, (n, a) in enumerate(zip(node.args, arrays))
        ]
        out = outs if isinstance(node.type, TupleType) else outs[0]
        body = node.op.lower(out, *ins, **attrs)
        present = tuple(b for b in ins if b is not None)
        kernel = Kernel(node.op.name, (*present, *outs), len(outs), body)
        found = run_kernel(kernel, [a for a in arrays if a is not None])
        result = tuple(found) if isinstance(node.type, TupleType) else found[0]
        return self.fit(node.type, result)

    # ---- control flow --------------------------------------------------------------------------

    def if_(self, node: Node, args: list, symbols: Values):
        taken = node.attrs["then" if bool(np.asarray(args[0]).reshape(())) else "orelse"]
        return _single(self.graph(taken, args[1:], symbols))

    def while_(self, node: Node, args: list, symbols: Values):
        carried = node.attrs["carried"]
        state, rest = list(args[:carried]), list(args[carried:])
        while bool(
            np.asarray(self.graph(node.attrs["cond"], state + rest, symbols)[0]).reshape(())
        ):
            state = self.graph(node.attrs["body"], state + rest, symbols)
        return _single(state)

    def scan_(self, node: Node, args: list, symbols: Values):
        a = node.attrs
        carried, scanned, body = a["carried"], a["scanned"], a["body"]
        state = list(args[:carried])
        xs, rest = args[carried : carried + scanned], list(args[carried + scanned :])
        length = facts.evaluate(a["length"], symbols) if a.get("length") is not None else len(xs[0])
        steps = range(length - 1, -1, -1) if a.get("reverse") else range(length)
        collected: list[list] = [[] for _ in body.results[carried:]]
        for k in steps:
            found = self.graph(body, [*state, *(x[k] for x in xs), *rest], symbols)
            state = found[:carried]
            for column, value in zip(collected, found[carried:]):
                column.append(value)
        if a.get("reverse"):
            collected = [c[::-1] for c in collected]
        types = [r.type for r in body.results[carried:]]
        return _single([*state, *map(self.stack, collected, types, [symbols] * len(types))])

    def stack(self, values: list, type_: TensorType, symbols: Values) -> np.ndarray:
        if values:
            return np.stack(values)
        d = f64 if self.precise and type_.dtype.is_float else type_.dtype
        return np.empty((0, *(facts.evaluate(n, symbols) for n in type_.shape)), d.numpy)

    def call(self, node: Node, args: list, symbols: Values):
        callee = self.graphs.get(node.attrs["callee"])
        if callee is None:
            raise InternalError(f"no graph is named {node.attrs['callee']!r}")
        for name in node.attrs["hot"]:
            hot = self.graphs[name]
            if all(map(_fits, hot.params, args)):
                callee = hot
                break
        return _single(self.graph(callee, args, {}))

    def construct(self, node: Node, args: list, symbols: Values):
        return Value(node.attrs["case"], args)

    def match(self, node: Node, args: list, symbols: Values):
        value, *captures = args
        arm = node.attrs.get(value.case)
        if arm is None:
            return _single(self.graph(node.attrs["orelse"], captures, symbols))
        return _single(self.graph(arm, [*value.fields, *captures], symbols))

    def closure(self, node: Node, args: list, symbols: Values):
        return _Closure(node.attrs["body"], tuple(args), dict(symbols))

    def apply(self, node: Node, args: list, symbols: Values):
        f, *rest = args
        return _single(self.graph(f.body, [*rest, *f.captures], f.symbols))

    def fused(self, node: Node, args: list, symbols: Values):
        return _single(self.graph(node.attrs["body"], args, symbols))

    def call_kernel(self, node: Node, args: list, symbols: Values):
        k = self.kernels.get(node.attrs["callee"])
        if k is None:
            raise InternalError(f"no kernel is named {node.attrs['callee']!r}")
        scalars = evaluate_attr(node.attrs["scalars"], symbols)
        arrays = [_narrow(a, n.type) for a, n in zip(args, node.args)]
        at = node.attrs["inplace"]
        first = [np.array(arrays.pop(at), order="C")] if at >= 0 else None
        for p in k.packs:
            if arrays[p.param].ndim < k.params[p.param].rank:  # nobody packed it before
                arrays[p.param] = packed(arrays[p.param], p)
        found = run_kernel(k, arrays, dict(zip(k.symbols, scalars)), self.kernels,
                           outputs=first)  # fmt: skip
        is_tuple = isinstance(node.type, TupleType)
        return self.fit(node.type, tuple(found) if is_tuple else found[0])

    def item(self, node: Node, args: list, symbols: Values):
        return args[0][node.attrs["index"]]

    def make_tuple(self, node: Node, args: list, symbols: Values):
        return tuple(args)

    def bind_size(self, node: Node, args: list, symbols: Values):
        own, sizes = bound_symbols(node), [int(v) for v in np.asarray(args[0]).reshape(-1)]
        symbols |= zip(own, sizes, strict=True)
        for holds, says, values in evaluate_attr(node.attrs.get("checks", ()), symbols):
            if not holds:
                raise RunError(says.format(*values))
        for s, value in zip(own, sizes):
            facts.check_facts(s, value, symbols, node.name or "a size computed by the model")
        return args[0]


@dataclass(frozen=True)
class _Closure:
    """A function as a value: what it captured, and the sizes known where it was made."""

    body: Graph
    captures: tuple
    symbols: Values


_CONTROL: dict[str, Callable] = {
    "if_": _Run.if_, "while_": _Run.while_, "scan_": _Run.scan_, "call": _Run.call,
    "construct": _Run.construct, "match": _Run.match, "closure": _Run.closure,
    "apply": _Run.apply, "item": _Run.item, "make_tuple": _Run.make_tuple,
    "bind_size": _Run.bind_size, "fused": _Run.fused, "call_kernel": _Run.call_kernel,
}  # fmt: skip


def _single(results: Sequence):
    return results[0] if len(results) == 1 else tuple(results)


def _leaves(value) -> list[np.ndarray]:
    if isinstance(value, tuple):
        return [x for v in value for x in _leaves(v)]
    return [value]


def _where(node: Node) -> str:
    return f"{node.op.name} ({node.name})" if node.name else node.op.name


def bind_types(types: Sequence, values: Sequence, names: Sequence[str], outer: Values) -> Values:
    """`outer` and the symbols that make the types fit the shapes of the values."""
    dims, actual, places = [], [], []
    for t, v, name in zip(types, values, names):
        found = leaves(t)
        for k, (leaf, array) in enumerate(zip(found, _leaves(v))):
            if not isinstance(leaf, TensorType):
                continue
            item = f"{name}[{k}]" if len(found) > 1 else name
            if array.ndim != leaf.rank:
                raise RunError(f"{item} has rank {array.ndim}, expected {leaf}")
            dims += leaf.shape
            actual += array.shape
            places += [(item, axis) for axis in range(leaf.rank)]
    if not any(isinstance(d, Expr) for d in dims) and tuple(dims) == tuple(actual):
        return dict(outer)
    return facts.bind(dims, actual, lambda k: "{}.shape[{}]".format(*places[k]), outer)


def _result_symbols(node: Node, result, symbols: Values) -> Values:
    own = set(bound_symbols(node))
    known = {s: v for s, v in symbols.items() if s not in own}
    name = node.name or node.op.name
    return bind_types([node.type], [result], [name], known)


def evaluate_attr(value, symbols: Values):
    """An attribute with its index expressions as ints."""
    if isinstance(value, Expr):
        return facts.evaluate(value, symbols)
    if isinstance(value, (tuple, list)):
        return tuple(evaluate_attr(v, symbols) for v in value)
    return value


def _evaluate_type(t: TensorType, symbols: Values) -> TensorType:
    return TensorType(t.dtype, tuple(facts.evaluate(d, symbols) for d in t.shape))


def _concrete(t, value):
    if isinstance(t, TupleType):
        return TupleType(tuple(map(_concrete, t.items, value)))
    if not isinstance(t, TensorType):
        return t
    return TensorType(t.dtype, value.shape)


def _wide_dtype(value):
    """In float64 mode an attribute that names a float type names f64."""
    return f64 if isinstance(value, DType) and value.is_float and value.bits >= 16 else value


def _fits(p: Node, array) -> bool:
    """Whether an array has a size that the parameter takes."""
    try:
        facts.bind(p.shape, np.shape(array), str)
    except RunError:
        return False
    return True


def _narrow(value, type_):
    """A value of float64 mode in the type that its node has."""
    if isinstance(value, np.ndarray) and value.dtype != type_.dtype.numpy:
        return value.astype(type_.dtype.numpy)
    return value


# ---- kernels -----------------------------------------------------------------------------------


def run_kernel(
    k: Kernel,
    inputs: Sequence[np.ndarray],
    symbols: Mapping[Symbol, int] | None = None,
    kernels: Mapping[str, Kernel] = {},
    externs: Mapping[str, Callable] = {},
    outputs: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """The outputs of `k` on fresh arrays, or what it makes of the arrays `outputs`. Symbols not
    given are found from the input shapes. `kernels` and `externs` are what its Calls find by name;
    an extern gets arrays and ints."""
    values = dict(symbols or {})
    dims = [d for b in k.inputs for d in b.shape]
    places = [(b.name, axis) for b in k.inputs for axis in range(b.rank)]
    arrays = [_kernel_input(b, x) for b, x in zip(k.inputs, inputs, strict=True)]
    actual = [n for x in arrays for n in x.shape]
    values = facts.bind(dims, actual, lambda p: "{}.shape[{}]".format(*places[p]), values)
    if outputs is None:
        outputs = [
            scalar.undefined(tuple(facts.evaluate(d, values) for d in b.shape), b.dtype)
            for b in k.results
        ]
    linker = _Linker(kernels, externs)
    with np.errstate(all="ignore"):
        linker.compiled(k)(*arrays, *outputs, *(values[s] for s in k.symbols))
    return list(outputs)


def run_program(
    entry: Kernel,
    inputs: Sequence[np.ndarray],
    constants: Sequence[np.ndarray],
    kernels: Mapping[str, Kernel],
    externs: Mapping[str, Callable] = {},
) -> list[np.ndarray]:
    """The outputs of a program's entry, a host function that takes its buffers by position.
    `kernels` are the kernels and the other host functions; memory is placed as it was planned."""
    program = source.Program([np.array(x, order="C") for x in inputs], list(constants))
    with np.errstate(all="ignore"):
        _Linker(kernels, externs, program).compiled(entry)()
    return [program.outputs[k] for k in range(entry.outputs)]


def packed(x: np.ndarray, p: Pack) -> np.ndarray:
    """`x` in the layout that a kernel wants."""
    if p.half:
        x = sums_of_quarters(x, p.half)
    if p.words >= 0:
        x = np.ascontiguousarray(np.moveaxis(x, p.words, -1)).view(np.uint16)
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] % 2)])
        x = np.moveaxis(x.view(np.uint32), -1, p.words)
    panels = -(-x.shape[p.axis] // p.width)
    pad = [(0, 0)] * x.ndim
    pad[p.axis] = (0, panels * p.width - x.shape[p.axis])
    shape = (*x.shape[: p.axis], panels, p.width, *x.shape[p.axis + 1 :])
    place = [d + (d > p.axis) for d in range(x.ndim)]  # where the dimensions are in `shape`
    order = [*(place[d] for d in p.lead), p.axis, *(place[d] for d in p.rest), p.axis + 1]
    return np.ascontiguousarray(np.pad(x, pad).reshape(shape).transpose(order))


def _kernel_input(b: Buffer, x) -> np.ndarray:
    array = np.array(x, order="C")  # a copy: a kernel may use an input's memory
    if array.dtype != b.dtype.numpy or array.ndim != b.rank:
        raise RunError(f"{b.name} is {dtype(array.dtype)} of rank {array.ndim}, expected {b}")
    return array


class _Linker:
    """Compiles kernels on first use, so that Calls may be recursive."""

    def __init__(
        self,
        kernels: Mapping[str, Kernel],
        externs: Mapping[str, Callable],
        program: source.Program | None = None,
    ):
        self.kernels, self.externs, self.program = kernels, externs, program
        self.done: dict[str, Callable] = {}

    def compiled(self, k: Kernel) -> Callable:
        return source.compile_kernel(k, self.find, self.program)

    def find(self, call: Call) -> Callable:
        table = self.externs if call.extern else self.kernels
        if call.callee not in table:
            kind = "extern" if call.extern else "kernel"
            raise InternalError(f"no {kind} is named {call.callee!r}")
        if call.extern:
            return self.externs[call.callee]

        def run(*args):
            if call.callee not in self.done:
                self.done[call.callee] = self.compiled(self.kernels[call.callee])
            return self.done[call.callee](*args)

        return run
