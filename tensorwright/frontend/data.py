"""Sum types and functions as values in Python: `tw.data`, `tw.match`, `tw.List`.

    @tw.data
    class Tree:
        class Leaf:
            x: tw.f32[64]
        class Node:
            left: "Tree"
            right: "Tree"

    t = Tree.Node(Tree.Leaf(x), Tree.Leaf(y))
    y = tw.match(t, Leaf=lambda x: x, Node=lambda left, right: f(left) + f(right))

Outside of traced functions values are plain Python objects, whose arrays are their own and never
change, and `match` just calls an arm: a program reads the same value again without conversion. A
named dimension of a field is each value's own. A function value is annotated as
`collections.abc.Callable[[tw.f32[4]], tw.f32[4]]`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

from tensorwright.base.errors import CompileError, FrontendError
from tensorwright.base.value import CHANGES, Value, fold, frozen, is_frozen
from tensorwright.frontend import tracer, trees
from tensorwright.frontend.array_control import (
    Body,
    Unknown,
    attempt,
    captures_of,
    common_dtype,
    provisional,
    same_structure,
)  # fmt: skip
from tensorwright.frontend.shapes import Shapes
from tensorwright.frontend.tracer import (
    Tensor,
    at_user_line,
    current_trace,
    node_of,
    traced_error,
    wrap,
)  # fmt: skip
from tensorwright.ir.dtype import DType
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import Expr, var
from tensorwright.ir.graph import Node
from tensorwright.ir.type import Case, DataType, FunctionType, TensorType, TupleType, Type
from tensorwright.ops import control as ct
from tensorwright.ops import data as ops

# ---- declarations ------------------------------------------------------------------------------


class DataValue(Value):
    """Base class of the values of declared types; the cases are its subclasses."""

    __slots__ = ()
    _scope: object = None  # where the names in annotations are looked up
    _cases: ClassVar[dict[str, dict]] = {}
    _type: DataType | None = None

    def __init__(self, *fields, **named) -> None:
        fields = self.arrange(fields, named)
        if current_trace() is None:
            fields = tuple(map(frozen, fields))
        super().__init__(self.case_name, fields)
        if all(map(is_frozen, fields)):
            self.native = None

    case_name = ""

    @classmethod
    def arrange(cls, fields: tuple, named: dict) -> tuple:
        names = cls.__match_args__
        if len(fields) + len(named) != len(names) or set(named) - set(names[len(fields) :]):
            raise TypeError(f"{cls.__qualname__} takes {', '.join(names) or 'no fields'}")
        return (*fields, *(named[n] for n in names[len(fields) :]))

    def __new__(cls, *fields, **named):
        if not cls.case_name:
            raise TypeError(f"{cls.__name__} is made by one of its cases: {', '.join(cls._cases)}")
        if current_trace() is None:
            return super().__new__(cls)
        with at_user_line():
            return wrap(build(cls, cls.arrange(fields, named)))

    def match(self, **arms):
        return match(self, **arms)

    @classmethod
    def remake(cls, case: str, fields: tuple) -> Value:
        """A value that a program gave."""
        made = object.__new__(getattr(cls, case))
        made.case, made.fields, made.native = case, fields, CHANGES
        return made


def data(cls: type) -> type:
    """Declare a sum type: the classes inside `cls` are its cases, their annotations the fields."""
    inner = {k: v for k, v in vars(cls).items() if isinstance(v, type)}
    methods = {k: v for k, v in vars(cls).items()
               if k not in inner and k not in ("__dict__", "__weakref__")}  # fmt: skip
    cases = {k: dict(inspect.get_annotations(v)) for k, v in inner.items()}
    return declare(cls.__name__, cases, sys._getframe(1), methods)


def declare(name: str, cases: dict[str, dict], scope, methods: dict | None = None) -> type:
    """The class of a sum type with cases {name: {field: annotation}}."""
    own = {**(methods or {}), "_cases": cases, "_scope": scope, "_type": None, "__slots__": ()}
    base = type(name, (DataValue,), own)
    for case, fields in cases.items():
        members: dict = {"__slots__": (), "case_name": case, "__match_args__": tuple(fields)}
        for k, f in enumerate(fields):
            members[f] = property(lambda self, k=k: self.fields[k])
        sub = type(case, (base,), members)
        sub.__qualname__ = f"{name}.{case}"
        setattr(base, case, sub)
    return base


def type_of_class(cls: type) -> DataType:
    """The IR's type of a declared class."""
    base = next(c for c in cls.__mro__ if "_cases" in vars(c))
    if base._type is None:
        base._type = DataType(base.__name__, origin=base)
        try:
            base._type.define(cases_of(base))
            ops.check_data(base._type)
        except CompileError as e:
            base._type = None
            raise FrontendError(e.message, help=e.help) from None
        except FrontendError:
            base._type = None
            raise
        base._scope = None
    return base._type


def cases_of(base: type) -> list[Case]:
    symbols = Shapes({}, [])
    rows = []
    for name, fields in base._cases.items():
        what = f"{base.__name__}.{name}"
        rows.append(Case(name, tuple((f, field_type(resolve(a, base), symbols, f"{what}.{f}"))
                                     for f, a in fields.items())))  # fmt: skip
    return rows


def resolve(annotation, base: type):
    """An annotation, evaluated where the class was declared if it is text."""
    frame, found = base._scope, annotation
    while isinstance(found, str):
        try:
            found = eval(found, {**frame.f_globals, **frame.f_locals, base.__name__: base})
        except Exception as e:
            raise FrontendError(f"{base.__name__}: {annotation!r} is unknown: {e}") from e
    return found


def field_type(a, symbols: Shapes, what: str) -> Type:
    """The type that the annotation of a field states; `symbols` has its named sizes."""
    if is_data(a):
        return type_of_class(a)
    if is_callable_type(a):
        params, result = function_parts(a)
        return FunctionType(tuple(field_type(p, symbols, what) for p in params),
                            field_type(result, symbols, what))  # fmt: skip
    if isinstance(a, (TensorType, FunctionType)):
        return a
    if isinstance(a, DType):
        return TensorType(a, ())
    if not hasattr(a, "dims"):
        raise FrontendError(f"{what}: {a!r} is no type of a field",
                            help='write tw.f32["n", 4], tw.f32 or a tw.data class')  # fmt: skip
    extra = Shapes({"field": tuple(a.dims)}, ["field"])
    extra.symbols = symbols.symbols
    shape = extra.shape_of("field", [None] * len(a.dims))
    own = symbols.renamed  # sizes of values: any, 0 as well
    return TensorType(a.dtype, tuple(
        own.setdefault(d.value.name, var(d.value.name, min=0))
        if isinstance(d, Expr) and d.op == "sym" else d for d in shape))  # fmt: skip


def is_data(a) -> bool:
    return isinstance(a, type) and issubclass(a, DataValue)


def is_callable_type(a) -> bool:
    return getattr(a, "__origin__", None) is Callable


def function_parts(a) -> tuple[tuple, object]:
    """(parameters, result) of collections.abc.Callable[[...], ...]."""
    *params, result = a.__args__
    return tuple(params), result


class _ListMaker:
    """`tw.List[tw.f32[4]]`: the type of lists, one class for each element type."""

    def __init__(self) -> None:
        self.known: dict = {}

    def __getitem__(self, element) -> type:
        found = self.known.get(element if is_data(element) else repr(element))
        if found is None:
            name = "List" if not self.known else f"List{len(self.known) + 1}"
            fields = {"head": element}
            cases = {"Nil": {}, "Cons": fields}
            found = declare(name, cases, sys._getframe(1), {"of": classmethod(_list_of),
                                                           "__iter__": _list_iter,
                                                           "__len__": _list_len})  # fmt: skip
            fields["tail"] = found
            found.Cons.__match_args__ = ("head", "tail")
            found.Cons.tail = property(lambda self: self.fields[1])
            self.known[element if is_data(element) else repr(element)] = found
        return found


def _list_of(cls, items: Sequence):
    """The list of these elements."""
    found = cls.Nil()
    for x in reversed(list(items)):
        found = cls.Cons(x, found)
    return found


def _list_iter(self):
    while self.case == "Cons":
        yield self.fields[0]
        self = self.fields[1]


def _list_len(self) -> int:
    return sum(1 for _ in self)


List = _ListMaker()


class _OptionMaker:
    """`tw.Option[tw.f32[4]]`: a value or none."""

    def __init__(self) -> None:
        self.known: dict = {}

    def __getitem__(self, element) -> type:
        key = element if is_data(element) else repr(element)
        if key not in self.known:
            name = "Option" if not self.known else f"Option{len(self.known) + 1}"
            cases = {"Nothing": {}, "Some": {"value": element}}
            self.known[key] = declare(name, cases, sys._getframe(1))
        return self.known[key]


Option = _OptionMaker()


# ---- arguments of functions --------------------------------------------------------------------


def is_annotation(v) -> bool:
    if is_data(v) or is_callable_type(v):
        return True
    if isinstance(v, tuple):
        return bool(v) and all(is_annotation(x) for x in v)
    return isinstance(v, (DType, TensorType)) or (hasattr(v, "dims") and hasattr(v, "dtype"))


def dtype_in(annotation) -> DType | None:
    if isinstance(annotation, DType):
        return annotation
    if is_data(annotation) or is_callable_type(annotation):
        return None
    d = getattr(annotation, "dtype", None)
    if d is None or not is_annotation(annotation):
        return dtype_of(str(d).removeprefix("torch.")) if d is not None else None
    return dtype_of(d)


def value_type(annotation, name: str, leaf) -> Type | None:
    """The type of an argument that is a value of a data type or a function; None for others."""
    if is_callable_type(annotation) or is_callable_type(leaf):
        return field_type(annotation or leaf, Shapes({}, []), name)
    for a in (annotation, leaf, type(leaf)):
        if is_data(a):
            return type_of_class(a)
    return None


def argument_node(annotation, name: str, v) -> Node:
    special = value_type(annotation, name, v)
    if special is not None:
        return typed_node(v, special)
    return node_of(v, dtype_in(annotation))


def typed_value(leaf, t: Type):
    """An argument; a Python list where a list is expected is one."""
    origin = getattr(t, "origin", None)
    if origin is not None and isinstance(leaf, (list, tuple)) and hasattr(origin, "of"):
        return origin.of(leaf)
    return leaf


# ---- values in traced functions ----------------------------------------------------------------


def build(cls: type, fields: tuple) -> Node:
    """The node that makes a value of a case."""
    t = type_of_class(cls)
    case = t.case(cls.case_name)
    nodes = [typed_node(x, f) for x, f in zip(fields, case.types)]
    return ops.construct(*nodes, data=t, case=case.name)


def typed_node(x, t: Type) -> Node:
    """What the user passes where a type is expected."""
    if isinstance(t, TensorType):
        return node_of(x, t.dtype)
    if isinstance(t, FunctionType) and not isinstance(x, (Tensor, Node)):
        return closure_of(x, t)
    origin = getattr(t, "origin", None)
    if isinstance(x, (list, tuple)) and hasattr(origin, "of"):
        return node_of(origin.of(x))
    return node_of(x)


def make(value: Value) -> Node:
    """A Python value as nodes."""
    if not isinstance(value, DataValue):
        raise traced_error(f"{value} is of no declared type")
    return fold(value, lambda v, fields: build(type(v), tuple(fields)))


def closure_of(f: Callable, t: FunctionType) -> Node:
    """A Python function as a function value; what it captures goes with it."""
    if not callable(f):
        raise traced_error(f"a {type(f).__name__} is given where a function is expected: {t}")
    body = Body(f, ("tuple", None, (trees.LEAF,) * len(t.params)), t.params, "body")
    if body.spec != trees.LEAF:
        raise traced_error("a function value gives one result",
                           help="put several into a data type")  # fmt: skip
    results = body.results([t.result.dtype])
    captures = captures_of(body)
    return ops.closure(*captures, params=TupleType(t.params), body=body.graph(results, captures))


def apply(f: Tensor, args: tuple):
    with at_user_line():
        node = node_of(f)
        if not isinstance(node.type, FunctionType):
            raise traced_error(f"a {node.type} cannot be called")
        if len(args) != len(node.type.params):
            raise traced_error(f"{node.type} is called with {len(args)} arguments")
        nodes = [typed_node(x, t) for x, t in zip(args, node.type.params)]
        return wrap(ops.apply(node, *nodes))


# ---- match -------------------------------------------------------------------------------------


def match(value, orelse: Callable | None = None, /, **arms: Callable):
    """The arm of the value's case, called with its fields: `Leaf=lambda x: ...`. `orelse`, by
    position or name, is called without arguments for the cases that have no arm."""
    orelse = arms.pop("orelse", orelse)
    if isinstance(value, Value):  # known while tracing, or no tracing at all
        arm = arms.get(value.case)
        if arm is None and orelse is None:
            raise FrontendError(f"match has no arm for {value.case}", help="add one, or `orelse`")
        return orelse() if arm is None else arm(*value.fields)
    with at_user_line():
        node = node_of(value)
        if not isinstance(node.type, DataType):
            raise traced_error(f"match takes a value of a data type, this is a {node.type}")
        return matched(node, orelse, arms)


def matched(node: Node, orelse: Callable | None, arms: dict[str, Callable]):
    t: DataType = node.type
    unknown = [k for k in arms if t.case(k) is None]
    if unknown:
        raise traced_error(f"{t} has no case {', '.join(unknown)}: it has "
                           + ", ".join(c.name for c in t.cases))  # fmt: skip
    missing = [c.name for c in t.cases if c.name not in arms]
    if missing and orelse is None:
        raise traced_error(f"match has no arm for {', '.join(missing)}", help="or give `orelse`")
    tried = {}
    for c in t.cases:
        if c.name in arms:
            spec = ("tuple", None, (trees.LEAF,) * len(c.fields))
            tried[c.name] = attempt(arms[c.name], spec, own_types(c), c.name.lower())
    if missing:
        tried["orelse"] = attempt(orelse, ("tuple", None, ()), (), "rest")
    bodies = {k: b for k, b in tried.items() if not isinstance(b, Unknown)}
    if len(bodies) < len(tried):
        return provisional(*tried.values())
    first = next(iter(bodies.values()))
    for b in bodies.values():
        same_structure("the arms", first.spec, b.spec)
    columns = list(zip(*(b.leaves for b in bodies.values())))
    dtypes = [common_dtype(*row) for row in columns]
    results = {k: b.results(dtypes) for k, b in bodies.items()}
    captures = captures_of(*bodies.values())
    graphs = {k: b.graph(results[k], captures) for k, b in bodies.items()}
    found = ops.match_on(node, captures, graphs)
    return trees.rebuild(first.spec, [wrap(v) for v in ct.items(found)])


def own_types(c: Case) -> list[Type]:
    """The types of an arm's parameters: sizes are symbols of its own."""
    own: dict[Expr, Expr] = {}

    def dim(d):
        return own.setdefault(d, var(d.value.name, min=0)) if isinstance(d, Expr) else d

    return [TensorType(t.dtype, tuple(map(dim, t.shape))) if isinstance(t, TensorType) else t
            for t in c.types]  # fmt: skip


tracer.MATCH, tracer.APPLY, tracer.MAKE, tracer.CLOSE = match, apply, make, typed_node

__all__ = ["List", "Option", "data", "match"]
