"""The converter table of the ONNX front end, and what a converter sees of its node.

    @converter("Softmax", since=13)
    def softmax(c: Call, x: Node, *, axis: int = -1) -> Node:
        return norm.softmax(x, axis=axis)

A converter is a function from operands to nodes: positional parameters are the node's inputs (None
where left out), keyword-only ones its attributes with the defaults of that opset; annotations are
checked. `since` is the first opset version it is right for; the newest one not above the model's
applies. Type promotion and opset history live in converters, never below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx_model import GraphRecord, NodeRecord, ValueRecord
from tensorwright.ir.dtype import DType
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import Node, array_of
from tensorwright.ir.type import DataType, Dim, TensorType

Value = object  # Node | SequenceValue | OptionalValue | StringValue | None
Array = np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceValue:
    """A sequence whose length and elements are known while importing."""

    items: tuple[Node, ...]
    dtype: DType | None = None


@dataclass(frozen=True, eq=False)
class OptionalValue:
    """An optional that is known to hold `item`, or (None) nothing."""

    item: Node | SequenceValue | None


@dataclass(frozen=True, eq=False)
class StringValue:
    """A constant tensor of strings."""

    array: np.ndarray


@dataclass(frozen=True, eq=False)
class Converter:
    function: Callable
    since: int
    values: bool  # takes sequences, optionals and strings, not only tensors
    pure: bool  # constant operands give a constant result

    @cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """Those of operands and attributes."""
        return list(inspect.signature(self.function).parameters.values())[1:]


CONVERTERS: dict[tuple[str, str], list[Converter]] = {}


def converter(
    *names: str, since: int = 1, domain: str = "", values: bool = False, pure: bool = True
) -> Callable[[Callable], Callable]:
    """Register a function as the meaning of these operators from opset `since` on."""

    def register(f: Callable) -> Callable:
        for name in names:
            rows = CONVERTERS.setdefault((domain, name), [])
            rows.append(Converter(f, since, values, pure))
            rows.sort(key=lambda row: row.since)
        return f

    return register


def find_converter(domain: str, op: str, opset: int) -> Converter | None:
    """The newest converter of the operator that is not newer than the opset."""
    fitting = [row for row in CONVERTERS.get((domain, op), ()) if row.since <= opset]
    return fitting[-1] if fitting else None


@dataclass
class Call:
    """One model node being converted: its record, its opset, and the importer's services."""

    record: NodeRecord
    opset: int
    importer: object
    scope: object = None
    attrs: dict = field(default_factory=dict)

    def wants(self, k: int) -> bool:
        """Whether output k has a name, so somebody may read it."""
        return k < len(self.record.outputs) and self.record.outputs[k] != ""

    @property
    def outputs(self) -> int:
        return len(self.record.outputs)

    def array(self, x: Node | None, what: str) -> np.ndarray | None:
        """The value of an operand that has to be known while compiling; None stays None."""
        if x is None:
            return None
        found = array_of(x)
        if found is None:
            found = self.importer.symbolic.constant(x)
        if found is None:
            raise FrontendError(
                f"{self.record.op}: the {what} has to be known while compiling",
                help=f"make {what} a constant of the model, or give its value: "
                f'import_onnx(model, constants={{"{self.name_of(x)}": ...}})',
            )
        return found

    def ints(self, x: Node | None, what: str) -> tuple[int, ...] | None:
        """`array` as a tuple of ints."""
        found = self.array(x, what)
        return None if found is None else tuple(int(v) for v in found.reshape(-1))

    def number(self, x: Node | None, what: str, default=None):
        """`array` of one element as a Python number."""
        found = self.array(x, what)
        if found is None:
            return default
        if found.size != 1:
            raise FrontendError(f"{self.record.op}: {what} has {found.size} elements, not one")
        return found.reshape(-1)[0].item()

    def dims(self, x: Node, low: int | None = 0) -> tuple[Dim, ...]:
        """The elements of an integer tensor as dimensions: ints and expressions where they are
        known, else symbols (not below `low`) that the program reads from the tensor."""
        return self.importer.symbolic.dims(x, low, self.name_of(x))

    def dim(self, x: Node, low: int | None = 0) -> Dim:
        """`dims` of a tensor of one element."""
        found = self.dims(x, low)
        if len(found) != 1:
            raise FrontendError(f"{self.record.op}: an operand has {len(found)} elements, not one")
        return found[0]

    def known(self, x: Node) -> np.ndarray | None:
        """The elements as ints and expressions (an array of objects), if they are known."""
        return self.importer.symbolic.known(x)

    def sizes(self, dims: Sequence[Dim] | np.ndarray, dtype: DType | None = None) -> Node:
        """An i64 tensor of the values of index expressions."""
        return self.importer.symbolic.node(np.array(dims, dtype=object), dtype)

    def name_of(self, x: Node) -> str:
        """What the model calls an operand."""
        for name in self.record.inputs:
            if name and self.scope is not None and self.scope.find(name) is x:
                return name
        return x.name or "operand"

    def fail(self, message: str, help: str = "") -> FrontendError:
        return FrontendError(f"{self.record.op}: {message}", help=help)


# ---- binding a record to a converter's parameters -----------------------------------------------

_KINDS: dict[str, tuple[type | UnionType, str]] = {
    "int": (int, "an int"), "float": (float, "a float"), "str": (str, "a string"),
    "Number": (int | float, "a number"),
    "Ints": (int, "ints"), "Floats": (float, "floats"), "Strings": (str, "strings"),
    "Array": (np.ndarray, "a tensor"), "Body": (GraphRecord, "a graph"),
    "TypeOf": (ValueRecord, "a type"),
}  # fmt: skip
Number = int | float
Ints = tuple[int, ...]
Floats = tuple[float, ...]
Strings = tuple[str, ...]
Body = GraphRecord
TypeOf = ValueRecord


def bind(row: Converter, record: NodeRecord, args: Sequence[Value], attrs: dict) -> tuple:
    """(positional, keyword) arguments of the converter; FrontendError where the node does not fit
    the operator's signature."""
    parameters = row.parameters
    fixed = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(args) > len(fixed) and not variadic:
        raise FrontendError(f"{record.op} has {len(args)} inputs, at most {len(fixed)} are known")
    for k, p in enumerate(fixed):
        optional = p.default is not p.empty or "None" in str(p.annotation)
        if not optional and (k >= len(args) or args[k] is None):
            raise FrontendError(f"{record.op} lacks its input {p.name!r}")
    if variadic and any(a is None for a in args[len(fixed) :]) and not row.values:
        raise FrontendError(f"{record.op} lacks an input")
    if not row.values:
        for a in args:
            if a is not None and not (isinstance(a, Node) and isinstance(a.type, TensorType)):
                raise FrontendError(f"{record.op} of {value_kind(a)} is not supported")
    return tuple(args), _bind_attrs(record, attrs, parameters)


def _bind_attrs(record: NodeRecord, attrs: dict, parameters) -> dict:
    known = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in attrs:
        if name not in known and not rest:
            raise FrontendError(f"{record.op} has no attribute {name!r} in this opset")
    for name, p in known.items():
        if name not in attrs:
            if p.default is p.empty:
                raise FrontendError(f"{record.op} lacks its attribute {name!r}")
            continue
        kind = str(p.annotation).split(" ")[0]
        if kind in _KINDS and not _is_kind(attrs[name], kind):
            raise FrontendError(f"{record.op}: attribute {name!r} is not {_KINDS[kind][1]}")
    return attrs


def _is_kind(value, kind: str) -> bool:
    element = _KINDS[kind][0]
    if kind in ("Ints", "Floats", "Strings"):
        return isinstance(value, tuple) and all(isinstance(v, element) for v in value)
    if kind == "Array" and isinstance(value, np.ndarray):
        return value.dtype != object
    return isinstance(value, element)


def value_kind(value) -> str:
    """What a value is, for messages."""
    if isinstance(value, SequenceValue):
        return "a sequence"
    if isinstance(value, OptionalValue):
        return "an optional"
    if isinstance(value, StringValue):
        return "strings"
    if isinstance(value, Node) and isinstance(value.type, DataType):
        return "an optional" if value.type.name.startswith("Optional") else "a sequence"
    return "this value"


def is_static(dims: Sequence[Dim]) -> bool:
    return not any(isinstance(d, Expr) for d in dims)
