"""The names that make a printed program run under plain Python, to step through it with a debugger.

    from tensorwright.ops.prelude import *
    ... the text of a module ...
    constants.update(np.load("weights.npz"))
    y = main(x)

Graphs run operator by operator on NumPy arrays, kernels as the loops they are. While a function
runs, the shape symbols it binds are plain ints under their global names.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping

import numpy as np

import tensorwright.ops
from tensorwright.base.errors import RunError
from tensorwright.base.value import Value
from tensorwright.ir import dtype as dtypes
from tensorwright.ir import facts, heap, scalar, source
from tensorwright.ir import graph as graphs
from tensorwright.ir.dtype import DTYPES, DType
from tensorwright.ir.expr import ARITHMETIC, BITWISE, PREDICATES, UNARY, Expr, Symbol
from tensorwright.ir.expr import sym as symbol_expr
from tensorwright.ir.interp import bind_types, packed, run_node
from tensorwright.ir.loop import KINDS, Pack
from tensorwright.ir.op import OpDef
from tensorwright.ir.type import (
    DataType,
    FunctionType,
    TensorType,
    TupleType,
    shape_of,
    tensor,
)  # fmt: skip

constants: dict[str, np.ndarray] = {}
inf, nan = float("inf"), float("nan")


# ---- types and symbols -------------------------------------------------------------------------


class ElementType:
    """`f32[n, 64]` is a type, `f32(0.5)` a number, `f32([1.0, 2.0])` an array."""

    def __init__(self, d: DType):
        self.dtype = d

    def __getitem__(self, shape) -> TensorType:
        return TensorType(self.dtype, shape_of(shape if isinstance(shape, tuple) else (shape,)))

    def __call__(self, value):
        if self.dtype is dtypes.index:
            return int(value)
        return np.asarray(value, self.dtype.numpy)[()]


class Wrapper:
    """`out[f32[n]]`, `temp[f32[n]]`: how a kernel uses a buffer. Called: a buffer of its own."""

    def __init__(self, role: str):
        self.role = role

    def __getitem__(self, inner):
        roles, type_ = inner if isinstance(inner, tuple) else ((), inner)
        return ((self.role, *roles), type_)

    def __call__(self, type_, offset=None):
        if self.role == "const":
            if isinstance(type_, TensorType):
                return list(constants.values())[offset]
            if type_ not in constants:
                raise RunError(f"the constant {type_!r} is missing", help="fill `constants`")
            return constants[type_]
        shape = tuple(facts.evaluate(d, {}) for d in type_.shape)
        made = scalar.undefined(shape, type_.dtype)
        return made.view(Reference) if self.role == "reference" else made


class Reference(np.ndarray):
    """A word that refers to an object: views of it are views of the object."""


def new(target: Reference, size: int, tag: int, refs: int) -> None:
    heap.HEAP.new(target, size, tag, refs)


def retain(target: Reference) -> None:
    heap.HEAP.count(target, 1)


def release(target: Reference) -> None:
    heap.HEAP.count(target, -1)


def aligned(type_: TensorType, align: int) -> TensorType:
    return type_


def sym(**known) -> Expr:
    """A shape symbol; it takes its name from the global variable that holds it."""
    return symbol_expr(Symbol("?", **known))


def function(params, result):
    return FunctionType((), TupleType(()))  # the type of a function value: nothing to run


# ---- functions ---------------------------------------------------------------------------------

_RUNNING: list[dict] = []  # globals of the functions that are running, innermost last


def _symbol_names(names: dict) -> dict[Symbol, str]:
    """Symbol -> global name, found once a file."""
    if "__symbols__" not in names:
        found = {v.value: k for k, v in names.items() if isinstance(v, Expr) and v.op == "sym"}
        for s, name in found.items():
            s.name = name
        names["__symbols__"] = found
    return names["__symbols__"]


def _assign(values: Mapping[Symbol, int]) -> None:
    """Give the running function's symbols their values."""
    names = _RUNNING[-1]
    table = _symbol_names(names)
    for s, v in values.items():
        names[table[s]] = v


class Function:
    """A graph or kernel definition: binds the symbols in its annotations, then runs the body."""

    def __init__(self, f: Callable):
        self.f = f
        self.__name__ = f.__name__
        self.globals = f.__globals__
        self.types = {k: v for k, v in f.__annotations__.items() if k != "return"}

    def run(self, values: Mapping[Symbol, int], args: list):
        table = _symbol_names(self.globals)
        before = {name: self.globals[name] for name in table.values()}
        _RUNNING.append(self.globals)
        try:
            _assign(values)
            with np.errstate(all="ignore"):
                return self.f(*args)
        finally:
            _RUNNING.pop()
            self.globals.update(before)


class GraphFunction(Function):
    def __call__(self, *args):
        _symbol_names(self.globals)
        args = [_array(a) for a in args]
        types = [_tuple_type(t) for t in self.types.values()]
        return self.run(bind_types(types, args, list(self.types), {}), args)


class KernelFunction(Function):
    """Called with all buffers and its index arguments, or with its inputs alone. The entry of a
    program declares its buffers itself and is called with the inputs."""

    def __init__(self, f: Callable, symbols: tuple | None, packs: tuple = ()):
        super().__init__(f)
        self.packs = [Pack(*p) for p in packs]
        split = {k: t if isinstance(t, tuple) else ((), t) for k, t in self.types.items()}
        self.types = {k: t for k, (_, t) in split.items()}
        self.outputs = [k for k, (roles, _) in split.items() if "out" in roles]
        self.free = [k for k, (roles, _) in split.items() if "free" in roles]
        self.symbols = symbols

    def __call__(self, *args):
        if not self.types:
            return self.program(args)
        table = _symbol_names(self.globals)
        names = [k for k in self.types if k not in self.free]
        buffers = [a for a in args if isinstance(a, np.ndarray)]
        for p in self.packs:
            if buffers[p.param].ndim < self.types[names[p.param]].rank:
                buffers[p.param] = packed(buffers[p.param], p)
        scalars = args[len(buffers) :]
        types = [self.types[k] for k in names]
        order = [e.value for e in self.symbols or ()] or _in_order(types)
        given = dict(zip(order, scalars)) if scalars else {}
        values = bind_types(types[: len(buffers)], buffers, names, given)
        for name in names[len(buffers) :]:
            t = self.types[name]
            shape = tuple(facts.evaluate(d, values) for d in t.shape)
            buffers.append(scalar.undefined(shape, t.dtype))
        free = [constants[k] for k in self.free]
        self.run({s: v for s, v in values.items() if s in table}, [*buffers, *free])
        results = buffers[len(names) - len(self.outputs) :]
        return results[0] if len(results) == 1 else tuple(results)

    def program(self, inputs):
        PROGRAMS.append(source.Program([np.array(x, order="C") for x in inputs], []))
        try:
            self.run({}, [])
            outputs = PROGRAMS[-1].outputs
        finally:
            PROGRAMS.pop()
        return tuple(outputs[k] for k in sorted(outputs))


PROGRAMS: list[source.Program] = []  # the programs that are running, innermost last


def program_input(position: int) -> np.ndarray:
    return PROGRAMS[-1].inputs[position]


def program_shape(type_: TensorType, position: int) -> np.ndarray:
    return np.array(PROGRAMS[-1].inputs[position].shape, np.int64)


def program_output(type_: TensorType, position: int) -> np.ndarray:
    shape = tuple(facts.evaluate(d, {}) for d in type_.shape)
    return PROGRAMS[-1].output(shape, type_.dtype, position)


def _in_order(types) -> list[Symbol]:
    found: dict[Symbol, None] = {}
    for t in types:
        for d in t.shape:
            if isinstance(d, Expr):
                found.update(dict.fromkeys(sorted(facts.symbols_of(d), key=lambda s: s.name)))
    return list(found)


def _array(a):
    if isinstance(a, Value) or callable(a):
        return a
    return tuple(map(_array, a)) if isinstance(a, tuple) else np.asarray(a)


def _tuple_type(t):
    if isinstance(t, DataClass):
        return t.type
    return TupleType(tuple(map(_tuple_type, t))) if isinstance(t, tuple) else t


class DataClass:
    """A sum type: `Tree.Leaf(x)` makes a value, `match(t, Leaf=f, Node=g)` takes it apart."""

    def __init__(self, cls: type, name: str):
        self.type = DataType(name or cls.__name__)
        self.own = {k: v for k, v in vars(cls).items() if isinstance(v, dict)}

    def __getattr__(self, case: str) -> Callable:
        if case not in self.own:
            raise AttributeError(f"{self.type} has no case {case}")
        return lambda *fields: Value(case, fields)


def data(cls=None, *, name=""):
    return (lambda c: DataClass(c, name)) if cls is None else DataClass(cls, name)


def case(**fields):
    return fields


def graph(f=None, *, name="", params=None, results=(), state=()):
    if f is None:
        return lambda f: _define(GraphFunction(f), name)
    return _define(GraphFunction(f), name)


def kernel(f=None, *, name="", symbols=None, packs=(), streams=(), turn=None, work=()):
    if f is None:
        return lambda f: _define(KernelFunction(f, symbols, packs), name)
    return _define(KernelFunction(f, symbols, packs), name)


def _define(f: Function, name: str) -> Function:
    f.globals.setdefault("__functions__", {})[name or f.__name__] = f
    return f


def _callee(name: str) -> Callable:
    return _RUNNING[-1]["__functions__"][name]


# ---- graph operators ---------------------------------------------------------------------------


def _plain(value):
    """An attribute as the operators know it."""
    if isinstance(value, ElementType):
        return value.dtype
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value


def _operator(op: OpDef) -> Callable:
    def run(*args, **attrs):
        scalars = SCALARS.get(op.name)
        if scalars is not None and not any(isinstance(a, (np.ndarray, tuple)) for a in args):
            return scalars(*args, **attrs)
        arrays = [None if a is None else _array(a) for a in args]
        operands = [a if a is None else graphs.param("x", _type_of(a)) for a in arrays]
        node = op(*operands, **{k: _plain(v) for k, v in attrs.items()})
        return run_node(node, arrays)

    run.__name__ = op.name
    return run


def _type_of(a):
    if isinstance(a, tuple):
        return TupleType(tuple(map(_type_of, a)))
    return tensor(a.dtype, *a.shape)


def _bound(result, symbols, gives):
    """Bind the symbols that a node declares by the shapes of its result."""
    if symbols:
        found = bind_types([_tuple_type(gives)], [_array(result)], ["the result"], {})
        _assign({s: v for s, v in found.items() if s in {e.value for e in symbols}})
    return result


def _control(op: OpDef) -> Callable:
    """Control flow: the row's own reference, on Python functions as bodies."""

    def run(*args, symbols=(), gives=None, **attrs):
        full = {**op.defaults, **attrs}
        full.pop("symbols", None)
        return _bound(op.reference(*args, **full), symbols, gives)

    return run


def call(*args, callee="", type=None, symbols=(), gives=None, **_):
    """A graph of the module (or, in kernels, a scalar function by name)."""
    if args and isinstance(args[0], str):
        return source.FUNCTIONS[args[0]](*args[2:])
    return _bound(_callee(callee)(*args), symbols, gives)


def fused(*args, body, **_):
    return body(*args)


def bind_size(x, symbols, checks=()):
    _assign({e.value: int(v) for e, v in zip(symbols, np.asarray(x).reshape(-1))})
    return x


# ---- kernels -----------------------------------------------------------------------------------


def call_kernel(*args, callee="", scalars=(), type=None, sources=()):
    """In a graph: tensors, and `callee`. In a kernel: a name, its buffers, its indices."""
    if args and isinstance(args[0], str):
        name, buffers, *rest = args
        _callee(name)(*buffers, *rest)
        return None
    return _callee(callee)(*args, *scalars)


def call_extern(name: str, buffers: tuple, *scalars: int):
    raise RunError(f"plain Python cannot call the extern function {name}")


def assert_(cond: bool, message: str, *args: int) -> None:
    if not cond:
        source.fail(message, *args)


def copy(target: np.ndarray, origin: np.ndarray) -> None:
    target.reshape(-1)[:] = origin.reshape(-1)


def prefetch(element: object) -> None:
    """Nothing that a result depends on."""


def view(base: np.ndarray, start: int, type_: TensorType, scope: str = "") -> np.ndarray:
    shape = tuple(facts.evaluate(d, {}) for d in type_.shape)
    if isinstance(base, Reference):
        return heap.HEAP.view(base, start, shape, type_.dtype.numpy)
    return source.view(base, start, shape, type_.dtype.numpy)


def _loop(*bounds: int, **known) -> range:
    return range(*bounds)


def _dtype_of(args) -> DType:
    """The type of scalar operands: that of a NumPy scalar, else of the Python number."""
    for a in args:
        if isinstance(a, np.generic):
            return tensor(a.dtype).dtype
    a = args[0]
    if isinstance(a, bool):
        return dtypes.boolean
    return dtypes.index if isinstance(a, int) else dtypes.f32


def _scalar(op: str) -> Callable:
    def run(*args):
        d = _dtype_of(args)
        typed = args if d in (dtypes.index, dtypes.boolean) else [d.numpy.type(a) for a in args]
        return scalar.function(op, d)(*typed)

    return run


def _cast(x, to):
    return scalar.cast(x, _dtype_of([x]), _plain(to))


def _bitcast(x, to):
    return scalar.bitcast(x, _dtype_of([x]), _plain(to))


def _rows() -> dict[str, OpDef]:
    """The operator table. Collected here because the table itself imports every file."""
    found: dict[str, OpDef] = {}
    for file in pkgutil.iter_modules(tensorwright.ops.__path__):
        if file.name not in ("prelude", "table"):
            module = importlib.import_module(f"tensorwright.ops.{file.name}")
            found |= {v.name: v for v in vars(module).values() if isinstance(v, OpDef)}
    return found


_TEXT_NAMES = {"pow": "power", "and": "bit_and", "or": "bit_or", "not": "not_"}
SCALARS: dict[str, Callable] = {
    _TEXT_NAMES.get(op, op): _scalar(op)
    for op in (*ARITHMETIC, *BITWISE, *UNARY, *PREDICATES, "fma")
}
SCALARS.update(cast=_cast, bitcast=_bitcast, select=lambda c, a, b: a if c else b)

_TYPES = {d.name: ElementType(d) for d in DTYPES}
_CONTROL = ("if_", "while_", "scan_", "item", "make_tuple", "match", "closure", "apply")
_OPERATORS = {
    name: _control(op) if name in _CONTROL else _operator(op) for name, op in _rows().items()
}
_LOOPS = dict.fromkeys(KINDS, _loop)
_WRAPPERS = {
    w: Wrapper(w)
    for w in (
        "out",
        "free",
        "const",
        "temp",
        "local",
        "arena",
        "param",
        "frame",
        "dynamic",
        "reference",
    )
}
_OWN = ["aligned", "assert_", "bind_size", "call", "call_extern", "call_kernel", "case",
        "constants", "copy", "data", "function", "fused", "graph", "inf", "kernel", "nan", "new",
        "prefetch", "program_input", "program_output", "program_shape", "release", "retain",
        "sym", "view"]  # fmt: skip
_ALL = {**SCALARS, **_OPERATORS, **_TYPES, **_LOOPS, **_WRAPPERS}
_ALL.update({name: globals()[name] for name in _OWN})

__all__ = sorted(_ALL)


def __getattr__(name: str):
    """Names that would hide what this file itself uses (`bool`, `max`) exist only from outside."""
    if name in _ALL:
        return _ALL[name]
    raise AttributeError(name)
