"""`@tw.function`: Python functions over arrays, traced into graphs.

    @tw.function
    def mlp(x: tw.f32["n", 64], w: tw.f32[64, 8]):
        return np.maximum(x @ w, 0)

A function is traced once for the types of its arguments (annotations win over the examples). A call
of one from another is a `call` node of a graph of the module, so functions may be recursive: the
type of the result is declared by the annotation, or found by tracing the branch that ends the
recursion first. A call whose result has a size that only its body knows is inlined.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.base.value import Value
from tensorwright.frontend import array_api, trees  # noqa: F401  (array_api adds the methods)
from tensorwright.frontend.array_control import Unknown, cond, scan, while_loop
from tensorwright.frontend.data import (
    argument_node,
    dtype_in,
    field_type,
    is_annotation,
    is_callable_type,
    is_data,
    typed_node,
    typed_value,
    value_type,
)  # fmt: skip
from tensorwright.frontend.shapes import Shapes
from tensorwright.frontend.tracer import (
    Size,
    Tensor,
    Trace,
    at_user_line,
    current_trace,
    node_of,
    result_dtype,
    traced_error,
    tracing,
    typed,
    wrap,
)  # fmt: skip
from tensorwright.ir.dtype import DType
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import Expr, as_dim, as_expr, substitute, var
from tensorwright.ir.graph import Graph, Node, graph, param
from tensorwright.ir.module import Module, unique
from tensorwright.ir.type import FunctionType, TensorType, TupleType, Type, type_symbols
from tensorwright.ops import control as ct
from tensorwright.runtime.program import Program as RuntimeProgram

__all__ = ["Function", "Program", "cond", "function", "load", "scan", "trace", "while_loop"]


@dataclass
class Signature:
    """One specialization of a function: the types it takes, and its graph once it is traced."""

    name: str
    types: tuple[TensorType, ...]
    result: tuple[TensorType, ...] | None = None  # known before the end of tracing if declared
    spec: object = None
    graph: Graph | None = None
    is_open: bool = True  # being traced
    recursive: bool = False


@dataclass
class Session:
    """The graphs made while one module is traced."""

    graphs: dict[str, Graph] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"main"})  # names of entries
    signatures: dict[tuple, Signature] = field(default_factory=dict)


class Function:
    """A Python function over arrays that can be compiled, and called from others like it.
    make_entry(title, example_inputs, shapes, session): what `trace_entry` does, in another way."""

    make_entry: Callable | None = None

    def __init__(
        self, f: Callable, static: tuple[str, ...] = (), state: tuple[str, ...] = (),
        scope: Mapping[str, object] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        functools.update_wrapper(self, f)
        self.f, self.static, self.state = f, static, state
        self.name = f.__name__ if f.__name__.isidentifier() else "function"
        self.parameters = inspect.signature(f)
        self.annotations = annotations_of(f, scope)

    def __repr__(self) -> str:
        return f"tw.function({self.name})"

    def __call__(self, *args, **kwargs):
        if current_trace() is None:
            raise FrontendError(
                f"{self.name} is a traced function and does not run by itself",
                help=f"compile it first: program = tw.compile({self.name}, (example inputs)), "
                "then call program(...)",
            )
        with at_user_line():
            return call(self, args, kwargs)


def function(
    f: Callable | None = None, *, static: tuple[str, ...] = (), state: tuple[str, ...] = ()
):
    """Make `f` a traced function. `static`: arguments that are Python values, not arrays. `state`:
    arguments that are given up, their new values being the last results, in order: a program
    computes those in the memory of the old ones."""
    scope = sys._getframe(1).f_locals  # annotations that are text may name what is there
    if f is None:
        return lambda g: Function(g, static, state, scope)
    return Function(f, static, state, scope)


def annotations_of(f: Callable, scope: Mapping[str, object]) -> dict:
    """Annotations that are types of arguments, by parameter name."""
    try:
        hints = typing.get_type_hints(f)
    except Exception:
        found = getattr(f, "__annotations__", {})
        hints = {k: evaluated(f, v, scope) for k, v in found.items()}
    return {k: v for k, v in hints.items() if is_annotation(v)}


def evaluated(f: Callable, annotation, scope: Mapping[str, object]):
    """An annotation that is text, as what it means where the function was made, if it is known."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {**f.__globals__, **scope})
    except Exception:
        return annotation


# ---- the entry ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Convention:
    """How a Python call maps onto a graph."""

    flatten: Callable  # (args, kwargs) -> arrays for the parameters, in order
    rebuild: Callable  # results of the module -> what the function returns


@dataclass(frozen=True)
class Program(Convention):
    """A traced module and how a Python call maps onto its entries."""

    module: Module
    others: dict[str, Convention] = field(default_factory=dict)  # all but the main entry


def trace(fn, example_inputs=None, shapes=None) -> Module:
    """The module of a function for example inputs (or annotated types)."""
    return load(fn, example_inputs, shapes).module


def load(fn, example_inputs=None, shapes=None) -> Program:
    """`trace` together with the calling convention of the function."""
    session = Session()
    main, call = trace_entry("main", fn, example_inputs, shapes, session)
    return Program(call.flatten, call.rebuild, Module({"main": main, **session.graphs}))


def load_entries(functions: dict, examples: dict | None = None, shapes=None) -> Program:
    """Several functions as the entries of one program, by name; the first is the main one.
    `examples` and `shapes` are by entry."""
    for name in functions:
        if not name.isidentifier() or hasattr(RuntimeProgram, name):
            raise FrontendError(f"an entry cannot be named {name!r}",
                                help="give it a name that is no method of a program")  # fmt: skip
    session = Session(taken=set(functions))
    examples, shapes = examples or {}, shapes or {}
    for given, what in ((examples, "example inputs"), (shapes, "shapes")):
        if not isinstance(given, dict) or not set(given) <= set(functions):
            raise FrontendError(f"{what} of a program with several entries are a dict by entry: "
                                f"{', '.join(functions)}")  # fmt: skip
    graphs, calls = {}, {}
    for name, fn in functions.items():
        graphs[name], calls[name] = trace_entry(
            name, fn, examples.get(name), shapes.get(name), session
        )
    first, *_ = functions
    module = Module({**graphs, **session.graphs}, {}, first, tuple(functions))
    main = calls.pop(first)
    return Program(main.flatten, main.rebuild, module, calls)


def trace_entry(
    title: str, fn, example_inputs, shapes, session: Session
) -> tuple[Graph, Convention]:
    """The graph `title` of one function, and how it is called."""
    fn = fn if isinstance(fn, Function) else Function(fn)
    if fn.make_entry is not None:
        return fn.make_entry(title, example_inputs, shapes, session)
    fn, arguments = bind_examples(fn, example_inputs)
    names, leaves, spec = named_leaves(fn, arguments)
    language = shapes_of(fn, shapes, names, leaves)
    types = example_types(fn, names, leaves, language)
    params, inputs = [], []
    for name, leaf, t in zip(names, leaves, types):
        if t is None:
            inputs.append(leaf)
            continue
        params.append(param(name, t))
        inputs.append(params[-1])
    entry = Trace(None, session)
    with tracing(entry):
        values = [wrap(v) if isinstance(v, Node) else v for v in inputs]
        result = run(fn, trees.rebuild(spec, values))
        found, result_spec = trees.flatten(result)
        declared = declared_result(fn, language)
        nodes = typed_results(fn, found, declared)
    made = graph(title, params, nodes, result_names(result_spec, len(nodes)),
                 state_pairs(fn, spec, types, params, nodes))  # fmt: skip
    return made, Convention(_flattener(fn, spec, types),
                            lambda results: trees.rebuild(result_spec, results))  # fmt: skip


def state_pairs(fn: Function, spec, types, params, nodes) -> tuple[tuple[int, int], ...]:
    """(parameter, result) of the arguments that are states: the last results are their values."""
    unknown = [n for n in fn.state if n not in spec[1]]
    if unknown:
        raise FrontendError(f"{fn.name}: the state {unknown[0]!r} is no argument")
    found, leaf, position = [], 0, 0
    for argument, part in zip(spec[1], spec[2]):
        for _ in range(trees.count(part)):
            if types[leaf] is not None:
                found += [position] if argument in fn.state else []
                position += 1
            leaf += 1
    first = len(nodes) - len(found)
    for p, k in enumerate(found):
        if first < 0 or nodes[first + p].type != params[k].type:
            given = nodes[first + p].type if first >= 0 else "missing"
            raise FrontendError(
                f"{fn.name}: the state {params[k].name} is {params[k].type} and its new value "
                f"{given}", help="return the new values of all states last, in their order",
            )  # fmt: skip
    return tuple((k, first + p) for p, k in enumerate(found))


def run(fn: Function, arguments: dict):
    """The Python function on an argument dict, with variadic parameters put back."""
    args, kwargs = [], {}
    for name, p in fn.parameters.parameters.items():
        if name not in arguments:
            continue
        value = arguments[name]
        if p.kind is p.VAR_POSITIONAL:
            args.extend(value)
        elif p.kind is p.VAR_KEYWORD:
            kwargs.update(value)
        elif p.kind is p.KEYWORD_ONLY:
            kwargs[name] = value
        else:
            args.append(value)
    return fn.f(*args, **kwargs)


def bind_examples(fn: Function, example_inputs) -> tuple[Function, dict]:
    """(the function, example arguments by parameter name). Annotated parameters need no example;
    those left at their default are constants."""
    if isinstance(example_inputs, dict):
        args, kwargs = (), example_inputs
    elif isinstance(example_inputs, (tuple, list)):
        args, kwargs = tuple(example_inputs), {}
    else:
        args, kwargs = (() if example_inputs is None else (example_inputs,)), {}
    try:
        bound = fn.parameters.bind_partial(*args, **kwargs)
    except TypeError as e:
        raise FrontendError(f"{fn.name}: the example inputs do not fit: {e}") from None
    constants = []
    for name, p in fn.parameters.parameters.items():
        if name in bound.arguments or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if name in fn.annotations:
            bound.arguments[name] = fn.annotations[name]
        elif p.default is not p.empty:
            bound.arguments[name] = p.default
            constants.append(name)
        else:
            raise FrontendError(
                f"{fn.name}: nothing is known of the argument {name!r}",
                help='give example inputs, or annotate it: x: tw.f32["n", 4]',
            )
    order = [n for n in fn.parameters.parameters if n in bound.arguments]
    if constants:
        fn = copy.copy(fn)
        fn.static = (*fn.static, *constants)
    return fn, {n: bound.arguments[n] for n in order}


def named_leaves(fn: Function, arguments: dict):
    """(names, leaves, spec) of the arguments, in the order of the parameters."""
    names, leaves, specs = [], [], []
    for name, value in arguments.items():
        if name in fn.static or isinstance(value, (str, bytes, Value)) or callable(value) or (
                is_data(fn.annotations.get(name))):  # fmt: skip
            found, spec = [value], trees.LEAF
        else:
            found, spec = trees.flatten(value)
        names += [name] if spec == trees.LEAF else [f"{name}_{k}" for k in range(len(found))]
        leaves += found
        specs.append(spec)
    return names, leaves, ("dict", tuple(arguments), tuple(specs))


def _is_array(fn: Function, name: str, leaf) -> bool:
    if name in fn.static or leaf is None or isinstance(leaf, (str, bytes)):
        return False
    if is_data(leaf) or is_callable_type(leaf) or is_data(fn.annotations.get(name)):
        return True
    if callable(leaf) and not isinstance(leaf, Tensor):
        return is_callable_type(fn.annotations.get(name))
    return (isinstance(leaf, (Value, bool, int, float)) or is_annotation(leaf)
            or hasattr(leaf, "shape"))  # fmt: skip


def shapes_of(fn: Function, shapes, names, leaves) -> Shapes:
    """The shape language over the array arguments: `shapes` wins over annotations."""
    arrays = [n for n, leaf in zip(names, leaves) if _is_array(fn, n, leaf)
              and value_type(fn.annotations.get(n), n, leaf) is None]  # fmt: skip
    given = {n: v for n, v in ((n, _dims_of(fn.annotations.get(n))) for n in arrays)
             if v is not None}  # fmt: skip
    if isinstance(shapes, (tuple, list)):
        shapes = dict(zip(arrays, shapes))
    if isinstance(shapes, str):
        shapes = {k: v for k, v in Shapes(shapes, arrays).given.items()}
    return Shapes({**given, **(shapes or {})}, arrays)


def _dims_of(annotation):
    """The dimensions that an annotation states, in the shape language."""
    if isinstance(annotation, TensorType):
        return annotation.shape
    dims = getattr(annotation, "dims", None)
    return None if dims is None or isinstance(annotation, DType) else tuple(dims)


def example_types(fn: Function, names, leaves, language: Shapes) -> list[TensorType | None]:
    """The type of each array argument, None for static ones."""
    found: list[TensorType | None] = []
    for name, leaf in zip(names, leaves):
        if not _is_array(fn, name, leaf):
            found.append(None)
            continue
        special = value_type(fn.annotations.get(name), name, leaf)
        if isinstance(special, FunctionType):
            raise FrontendError(
                f"{fn.name}: the argument {name!r} is a function",
                help="a program takes tensors and values: "
                "make it static, or choose among functions inside",
            )
        if special is not None:
            found.append(special)
            continue
        annotation = fn.annotations.get(name)
        d = dtype_in(annotation) or dtype_in(leaf) or typed(leaf)
        if isinstance(leaf, (bool, int, float)) and not is_annotation(leaf):
            d = dtype_in(annotation) or result_dtype(leaf)
        own = None if is_annotation(leaf) else list(np.shape(leaf))
        if own is None and name not in language.given:
            own = []
        found.append(TensorType(d, language.shape_of(name, own)))
    return found


def result_names(spec, count: int) -> tuple[str, ...]:
    if spec != trees.LEAF and spec[0] == "dict" and all(p == trees.LEAF for p in spec[2]):
        return tuple(map(str, spec[1]))
    if spec != trees.LEAF and hasattr(spec[0], "_fields") and trees.count(spec) == len(spec[2]):
        return spec[0]._fields
    return tuple(f"output_{k}" if count > 1 else "output" for k in range(count))


def _flattener(fn: Function, spec, types) -> Callable:
    def flatten(args: tuple, kwargs: dict) -> list:
        bound = fn.parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {n: bound.arguments[n] for n in spec[1]}
        leaves = []
        for part, value in zip(spec[2], given.values()):
            leaves += [value] if part == trees.LEAF else trees.flatten(value)[0]
        return [typed_value(leaf, t) for leaf, t in zip(leaves, types) if t is not None]

    return flatten


# ---- results -----------------------------------------------------------------------------------


def declared_result(fn: Function, language: Shapes) -> tuple[TensorType, ...] | None:
    """The types that the return annotation states."""
    annotation = fn.annotations.get("return")
    if annotation is None:
        return None
    parts = annotation if isinstance(annotation, tuple) else (annotation,)
    return tuple(annotation_type(a, language) for a in parts)


def annotation_type(a, language: Shapes) -> Type:
    if is_data(a) or is_callable_type(a):
        return field_type(a, language, "the annotation")
    if isinstance(a, TensorType):
        return a
    if isinstance(a, DType):
        return TensorType(a, ())
    extra = Shapes({"result": tuple(a.dims)}, ["result"])
    extra.symbols = {**extra.symbols, **language.symbols}
    return TensorType(dtype_of(a.dtype), extra.shape_of("result", [None] * len(a.dims)))


def typed_results(fn: Function, leaves, declared) -> list[Node]:
    """The results as nodes, in the declared types if there are any."""
    if not leaves:
        raise FrontendError(f"{fn.name} returns no array")
    if declared is None:
        bare = [v for v in leaves if callable(v) and not isinstance(v, Tensor)]
        if bare:
            raise FrontendError(
                f"{fn.name} returns a function of unknown type",
                help="annotate it: -> collections.abc.Callable[[...], ...]",
            )
        return [node_of(v) for v in leaves]
    if len(declared) != len(leaves):
        raise FrontendError(f"{fn.name} declares {len(declared)} results and returns {len(leaves)}")
    nodes = [typed_node(v, t) for v, t in zip(leaves, declared)]
    for n, t in zip(nodes, declared):
        if type(n.type) is not type(t) or (
                n.shape != t.shape if isinstance(t, TensorType) else n.type != t):  # fmt: skip
            raise FrontendError(f"{fn.name} declares its result as {t}, but returns {n.type}")
    return nodes


# ---- calls between functions -------------------------------------------------------------------


def call(fn: Function, args: tuple, kwargs: dict):
    """A call of a traced function from another one."""
    bound = fn.parameters.bind(*args, **kwargs)
    bound.apply_defaults()
    names, leaves, spec = named_leaves(fn, dict(bound.arguments))
    arrays = [isinstance(v, (Tensor, np.ndarray, Size, Value)) or (
        _is_array(fn, n, v) and n in fn.annotations) for n, v in zip(names, leaves)]  # fmt: skip
    nodes = [argument_node(fn.annotations.get(n), n, v)
             for v, n, is_one in zip(leaves, names, arrays) if is_one]  # fmt: skip
    signature, values = specialize(fn, names, leaves, arrays, nodes, spec)
    if signature.result is None or (signature.graph is not None and _hides_sizes(signature)):
        return run(fn, trees.rebuild(spec, leaves))  # inlined
    return _call_node(signature, nodes, values)


def specialize(fn: Function, names, leaves, arrays, nodes, spec):
    """(the signature for these argument types, caller's dimension of each of its symbols)."""
    session = current_trace().session
    types, values = generic_types(fn, names, arrays, nodes)
    static = tuple(repr(v) for v, is_one in zip(leaves, arrays) if not is_one)
    key = (id(fn), tuple((t.dtype, _pattern(t, types)) if isinstance(t, TensorType) else t
                         for t in types), static)  # fmt: skip
    signature = session.signatures.get(key)
    if signature is None:
        name = unique(fn.name if fn.name != "main" else "main_function",
                      {s.name for s in session.signatures.values()} | session.taken)  # fmt: skip
        signature = session.signatures[key] = Signature(name, tuple(types))
        language = Shapes({}, [])
        language.symbols = {e.value.name: e for t in types for e in t.shape
                            if isinstance(e, Expr) and e.op == "sym"}  # fmt: skip
        trace_callee(fn, signature, spec, leaves, arrays, declared_result(fn, language))
    elif signature.is_open:
        signature.recursive = True
        if signature.result is None:
            raise Unknown(signature)
        types = signature.types
    _, values = match(signature.types, nodes)
    return signature, values


def generic_types(fn: Function, names, arrays, nodes):
    """The callee's parameter types: each different symbolic dimension is a symbol of its own, named
    as in the annotation if there is one."""
    seen: dict[Expr, Expr] = {}
    taken = [n for n, is_one in zip(names, arrays) if is_one]
    types = []
    for name, node in zip(taken, nodes):
        if not isinstance(node.type, TensorType):
            types.append(node.type)
            continue
        dims_ = _dims_of(fn.annotations.get(name))
        shape = []
        for axis, d in enumerate(node.shape):
            wish = dims_[axis] if dims_ is not None and axis < len(dims_) else None
            named = wish.split("[")[0].split("{")[0].strip() if isinstance(wish, str) else None
            if isinstance(d, int) and not (named and named.isidentifier() and named != "_"):
                shape.append(d)
                continue
            key = named if named and named.isidentifier() else d
            if key not in seen:
                fallback = d.value.name if isinstance(d, Expr) and d.op == "sym" else "n"
                seen[key] = var(named or fallback, min=0)
            shape.append(seen[key])
        types.append(TensorType(node.dtype, tuple(shape)))
    return types, None


def _pattern(t: TensorType, types) -> tuple:
    """A shape up to the names of its symbols."""
    order: dict = {}
    for u in types:
        for d in u.shape:
            if isinstance(d, Expr):
                order.setdefault(d, len(order))
    return tuple(d if isinstance(d, int) else ("s", order[d]) for d in t.shape)


def match(types, nodes) -> tuple[None, dict[Expr, Expr]]:
    """The caller's dimension for every symbol of the callee's parameter types."""
    values: dict[Expr, Expr] = {}
    for t, n in zip(types, nodes):
        for ours, theirs in zip(t.shape, n.shape):
            if isinstance(ours, Expr) and values.setdefault(ours, as_expr(theirs)) != as_expr(
                theirs
            ):
                raise traced_error(f"the size {ours} of the called function has two values: "
                                   f"{values[ours]} and {theirs}")  # fmt: skip
    return None, values


def trace_callee(fn: Function, signature: Signature, spec, leaves, arrays, declared) -> None:
    """Trace the body of a called function into a graph of the module; twice if a recursion had to
    be guessed the type of."""
    session = current_trace().session
    signature.result = declared
    guess = None
    for _ in range(3):
        signature.recursive = False
        params, nodes, result_spec = _trace_body(fn, signature, spec, leaves, arrays, declared)
        types = tuple(n.type for n in nodes)
        signature.spec = result_spec
        if not signature.recursive or types == signature.result:
            break
        signature.result = guess = types
    else:
        raise traced_error(f"the type of {fn.name}'s result cannot be found: {guess}",
                           help=f'declare it: def {fn.name}(...) -> tw.f32["n", 4]')  # fmt: skip
    signature.result = types
    signature.graph = graph(signature.name, params, nodes, ())
    signature.is_open = False
    if not _hides_sizes(signature):
        session.graphs[signature.name] = signature.graph


def _trace_body(fn: Function, signature: Signature, spec, leaves, arrays, declared):
    session = current_trace().session
    taken = iter(signature.types)
    params = [param(f"a{k}", next(taken)) for k, is_one in enumerate(arrays) if is_one]
    rest = iter(params)
    body = Trace(None, session)
    with tracing(body):
        values = [wrap(next(rest)) if is_one else v for v, is_one in zip(leaves, arrays)]
        try:
            result = run(fn, trees.rebuild(spec, values))
        except Unknown as e:
            raise traced_error(
                f"{fn.name} calls itself before the type of its result is known",
                help=f'declare it: def {fn.name}(...) -> tw.f32["n", 4], or put the recursive call '
                "into one branch of a tw.cond",
            ) from e
        found, result_spec = trees.flatten(result)
        nodes = typed_results(fn, found, declared)
    return params, nodes, result_spec


def _hides_sizes(signature: Signature) -> bool:
    """Whether a size of the result is known to the body only."""
    return bool(type_symbols(*signature.result) - type_symbols(*signature.types))


def _call_node(signature: Signature, nodes, values):
    """The call and its results; sizes of the result in the caller's terms."""
    types = [TensorType(t.dtype, tuple(
        as_dim(substitute(d, values)) if isinstance(d, Expr) else d for d in t.shape))
        if isinstance(t, TensorType) else t for t in signature.result]  # fmt: skip
    kind = types[0] if len(types) == 1 else TupleType(tuple(types))
    node = ct.call(*nodes, callee=signature.name, type=kind)
    results = [wrap(v) for v in ct.items(node)]
    spec = signature.spec
    if spec is None:  # still open: the declared result is one tensor or a flat tuple
        spec = trees.LEAF if len(results) == 1 else ("tuple", None, (trees.LEAF,) * len(results))
    return trees.rebuild(spec, results)
