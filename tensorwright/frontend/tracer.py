"""Tracing: tensors that record what is done to them.

    with Trace(): y = x * 2 + b      # x, b: Tensor        ->   nodes mul, add behind y

A `Tensor` wraps a node and belongs to the `Trace` of one graph. Used inside the body of a branch or
loop, a tensor of an enclosing graph becomes a parameter of the body (a capture), so bodies see
their own parameters only. Python numbers are weak: they take the type of the tensor they meet.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.base.value import Value
from tensorwright.ir.build import location
from tensorwright.ir.dtype import DType, boolean, f32, i64, promote
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import Expr, as_dim, as_expr, compare
from tensorwright.ir.graph import Node, constant, param
from tensorwright.ir.type import Dim, TensorType
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv

NOT_THE_USERS = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))), contextlib.__file__)


class Trace:
    """The recording of one graph; `captures` maps nodes of enclosing graphs to parameters here."""

    def __init__(self, parent: Trace | None = None, session=None) -> None:
        self.parent = parent
        self.session = session if session is not None or parent is None else parent.session
        self.captures: dict[Node, Node] = {}

    def capture(self, tensor: Tensor) -> Node:
        """The node by which a tensor of this or an enclosing trace is known here."""
        if tensor.trace is self or tensor.trace is None:
            return tensor.node
        if self.parent is None:
            raise traced_error(
                "a traced tensor is used outside of the function that made it",
                help="return it, or pass it as an argument",
            )
        outer = self.parent.capture(tensor)
        if outer not in self.captures:
            self.captures[outer] = param(f"capture_{len(self.captures)}", outer.type)
        return self.captures[outer]


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace | None:
    return _CURRENT.get()


@contextmanager
def tracing(trace: Trace):
    """Record into `trace`."""
    token = _CURRENT.set(trace)
    try:
        yield trace
    finally:
        _CURRENT.reset(token)


# ---- the user's place --------------------------------------------------------------------------


def user_frame():
    """The innermost frame outside of this package, None if there is none."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(NOT_THE_USERS):
        frame = frame.f_back
    return frame


def user_place() -> str:
    """`model.py:12` of the user's line that is being traced."""
    frame = user_frame()
    if frame is None:
        return ""
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def traced_error(message: str, help: str = "") -> FrontendError:
    """A FrontendError at the user's line, with its text."""
    frame = user_frame()
    notes = ()
    if frame is not None:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        notes = (f"the line is: {line}",) if line else ()
    return FrontendError(message, notes, help, user_place())


# ---- sizes -------------------------------------------------------------------------------------


class Size:
    """A dimension that is only known when the program runs. Arithmetic gives sizes; a comparison
    gives a bool where it can be proved and an error where it cannot."""

    __slots__ = ("expr",)

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    def __repr__(self) -> str:
        return str(self.expr)

    def __hash__(self) -> int:
        return hash(self.expr)

    def __index__(self):
        raise traced_error(
            f"the size {self} is not a number while compiling",
            help="use it in shapes and arithmetic only, or give the dimension a fixed size",
        )

    __int__ = __index__

    def _decide(self, relation: str, other) -> bool | Relation:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        e = compare(relation, self.expr, as_expr(dim_of(other)))
        return bool(e.value) if e.op == "const" else Relation(relation, self, other)

    def __eq__(self, other) -> bool | Relation:
        if isinstance(other, (int, Size)) and self.expr is as_expr(dim_of(other)):
            return True
        return self._decide("eq", other)


class Relation:
    """A comparison of sizes that is only decided when the program runs: a condition for tw.cond."""

    __slots__ = ("left", "relation", "right")

    def __init__(self, relation: str, left, right) -> None:
        self.relation, self.left, self.right = relation, left, right

    def __repr__(self) -> str:
        return f"{self.left} {SYMBOLS[self.relation]} {self.right}"

    def __bool__(self):
        raise traced_error(
            f"whether {self} is not known while compiling",
            help="state a range in `shapes` or the annotation, or decide with tw.cond",
        )

    def node(self) -> Node:
        rows = {"eq": ew.equal, "lt": ew.less, "le": ew.less_equal, "gt": ew.greater,
                "ge": ew.greater_equal}  # fmt: skip
        return rows[self.relation](node_of(self.left, i64), node_of(self.right, i64))


SYMBOLS = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _add_size_methods() -> None:
    def arithmetic(f, flipped: bool):
        def method(self, other):
            if isinstance(other, Tensor) or not isinstance(other, (int, Size)):
                return NotImplemented
            a, b = self.expr, as_expr(dim_of(other))
            return size_of(f(b, a) if flipped else f(a, b))

        return method

    operators = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
                 "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b}  # fmt: skip
    for name, f in operators.items():
        setattr(Size, f"__{name}__", arithmetic(f, False))
        setattr(Size, f"__r{name}__", arithmetic(f, True))
    for relation in ("lt", "le", "gt", "ge"):
        setattr(Size, f"__{relation}__", lambda self, o, r=relation: self._decide(r, o))
    Size.__neg__ = lambda self: size_of(self.expr * -1)


def size_of(d: Dim):
    """What the user sees of a dimension: an int, or a Size."""
    d = as_dim(d)
    return d if isinstance(d, int) else Size(d)


def dim_of(value) -> Dim:
    """The dimension that the user means by an int or a Size."""
    if isinstance(value, Size):
        return as_dim(value.expr)
    if isinstance(value, Expr):
        return as_dim(value)
    if isinstance(value, Tensor):
        raise traced_error(
            "a size cannot be taken from a traced tensor",
            help="use tw.numpy.size_from(x) to let a tensor be a size",
        )
    return int(value)


def shape_from(shape) -> tuple[Dim, ...]:
    """A shape given as one size or several."""
    if isinstance(shape, (int, Size, np.integer)):
        shape = (shape,)
    return tuple(dim_of(d) for d in shape)


# ---- tensors -----------------------------------------------------------------------------------


class Tensor:
    """A tensor of the graph that is being traced. Operators and methods are added by array_api."""

    __slots__ = ("node", "trace")
    __array_ufunc__ = None  # NumPy gives way: `array + tensor` is our __radd__
    __array_priority__ = 1000

    def __init__(self, node: Node, trace: Trace | None) -> None:
        self.node, self.trace = node, trace

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def shape(self) -> tuple:
        return tuple(size_of(d) for d in self.node.shape)

    @property
    def ndim(self) -> int:
        return self.node.rank

    @property
    def size(self):
        return size_of(self.node.type.size)

    @property
    def device(self) -> str:
        return "cpu"

    def __repr__(self) -> str:
        return f"Tensor({self.node.type})"

    __hash__ = None

    def __len__(self) -> int:
        if not self.ndim or isinstance(self.node.shape[0], Expr):
            raise traced_error("the length of this tensor is not known while compiling",
                               help="use x.shape[0]")  # fmt: skip
        return self.node.shape[0]

    def __bool__(self):
        raise traced_error(
            "whether a traced tensor is true is not known while compiling",
            help="use tw.cond(pred, f, g, *operands) to branch, tw.while_loop to repeat, "
            "or tw.numpy.where to choose element by element",
        )

    def _number(self):
        raise traced_error(
            "the value of a traced tensor is not known while compiling",
            help="keep it a tensor; use tw.numpy.size_from(x) where it is to be a size",
        )

    __int__ = __float__ = __index__ = __complex__ = _number

    def __array__(self, *args, **kwargs):
        raise traced_error(
            "a traced tensor has no elements yet, so NumPy cannot compute with it",
            help="use the functions of tw.numpy, or the tensor's own methods",
        )

    def __setitem__(self, key, value):
        raise traced_error(
            "traced tensors cannot be changed in place",
            help="write x = x.at[index].set(value) (also add, multiply, min, max)",
        )


class Object(Tensor):
    """A value of a data type, or a function, of the graph that is being traced."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Object({self.node.type})"

    def match(self, **arms):
        """`tw.match` on this value."""
        return MATCH(self, **arms)

    def __call__(self, *args):
        return APPLY(self, args)


def _unset(*args, **arms):
    raise RuntimeError("import tensorwright.frontend.data first")


MATCH = APPLY = MAKE = CLOSE = _unset  # set by frontend/data.py, which is above


_add_size_methods()


def wrap(node: Node) -> Tensor:
    kind = Tensor if isinstance(node.type, TensorType) else Object
    return kind(node, current_trace())


def node_of(x, d: DType | None = None) -> Node:
    """Anything the user may pass for a tensor, as a node (of type `d`)."""
    if isinstance(x, Tensor):
        trace = current_trace()
        node = x.node if trace is None else trace.capture(x)
    elif isinstance(x, Node):
        node = x
    elif isinstance(x, Relation):
        node = x.node()
    elif isinstance(x, (Size, Expr)):
        node = mv.reshape(ix.size(dims=(dim_of(x),)), shape=())
    elif isinstance(x, (bool, int, float)):
        return constant(np.asarray(x).astype((d or weak_dtype(x)).numpy))
    elif isinstance(x, Value):
        return MAKE(x)
    elif isinstance(x, (np.ndarray, np.generic)):
        node = constant(np.asarray(x))
    elif isinstance(x, (list, tuple)):
        return _stacked(x, d)
    elif hasattr(x, "__tensor__"):  # a parameter: the same constant wherever it is used
        return node_of(x.__tensor__(), d)
    elif hasattr(x, "__array__"):
        node = constant(np.asarray(x))
    else:
        raise traced_error(f"a {type(x).__name__} cannot be used as a tensor")
    return node if d is None or node.dtype is d else ew.cast(node, dtype=d)


def _stacked(xs, d: DType | None) -> Node:
    """A nested list of numbers, or of tensors, as one tensor."""
    if not any(isinstance(v, (Tensor, Size)) for v in _flat(xs)):
        array = np.asarray(xs)
        if d is None:
            d = f32 if array.dtype.kind == "f" else dtype_of(array.dtype)
        return constant(array.astype(d.numpy))
    parts = [node_of(v, d) for v in xs]
    parts = [ew.cast(p, dtype=result_dtype(*xs)) for p in parts] if d is None else parts
    return mv.concat(*[mv.reshape(p, shape=(1, *p.shape)) for p in parts], axis=0)


def _flat(xs):
    for v in xs:
        if isinstance(v, (list, tuple)):
            yield from _flat(v)
        else:
            yield v


def weak_dtype(x) -> DType:
    """The type of a Python number on its own."""
    if isinstance(x, bool):
        return boolean
    return f32 if isinstance(x, float) else i64


_KIND = {"bool": 0, "uint": 1, "int": 1, "float": 2}


def is_weak(x) -> bool:
    return isinstance(x, (bool, int, float, Size, Expr)) and not isinstance(x, np.generic)


def result_dtype(*xs) -> DType:
    """The array API's common type; numbers give way unless they are of a higher kind."""
    strong = [x if isinstance(x, DType) else typed(x) for x in xs if not is_weak(x)]
    result = None
    for d in strong:
        result = d if result is None else promote(result, d)
    for x in xs:
        if is_weak(x):
            d = weak_dtype(x if isinstance(x, (bool, int, float)) else 0)
            if result is None or _KIND[d.kind] > _KIND[result.kind]:
                result = d
    return result


def typed(x) -> DType:
    if isinstance(x, (Tensor, Node)):
        return x.dtype
    if hasattr(x, "__tensor__"):
        return x.__tensor__().dtype
    if isinstance(x, (list, tuple)):
        return result_dtype(*_flat(x))
    return dtype_of(np.asarray(x).dtype)


def together(*xs, dtype: DType | None = None) -> list[Node]:
    """The operands as nodes of one type."""
    d = dtype or result_dtype(*xs)
    return [node_of(x, d) for x in xs]


@contextmanager
def at_user_line():
    """Nodes built inside are at the user's line."""
    place = user_place()
    with location(*((place,) if place else ())):
        yield
