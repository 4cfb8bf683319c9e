"""ONNX protobuf -> plain frozen records, with every claim of the file checked.

    ModelRecord(graph=GraphRecord(nodes=(NodeRecord("/fc1/MatMul", "MatMul", ...), ...), ...), ...)

A file is hostile until proved otherwise: sizes are compared with the bytes that are there, external
data stays inside the model's folder, names are unique, every value is defined before it is used.
Whatever is wrong is a FrontendError. Nothing above this file touches protobuf.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.onnx_raw import take_out
from tensorwright.frontend.onnx_tensor import TensorReader, element_type
from tensorwright.ir.dtype import DType

MAX_NESTING = 24  # bodies inside bodies; keeps recursion far from Python's limit
MAX_FILE_NODES = 2_000_000
MAX_OPSET = 28  # of the default domain
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class ValueRecord:
    """A declared value. kind: tensor, string, sequence, optional, map, sparse or unknown; dims are
    ints, the names of symbolic dimensions, or None; `shape` is None where the rank is unknown."""

    name: str
    kind: str = "unknown"
    dtype: DType | None = None
    shape: tuple[int | str | None, ...] | None = None
    element: ValueRecord | None = None


@dataclass(frozen=True)
class AttributeReference:
    """Inside a function: the value of the attribute `name` of the call."""

    name: str


@dataclass(frozen=True)
class NodeRecord:
    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, object]
    overload: str = ""
    proto: object = None  # for context-dependent function bodies, which onnx builds from it


@dataclass(frozen=True)
class GraphRecord:
    name: str
    nodes: tuple[NodeRecord, ...]
    inputs: tuple[ValueRecord, ...]
    outputs: tuple[ValueRecord, ...]
    initializers: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionRecord:
    domain: str
    name: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: Mapping[str, object]
    nodes: tuple[NodeRecord, ...]
    opsets: Mapping[str, int]


@dataclass(frozen=True)
class ModelRecord:
    file: str
    graph: GraphRecord
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], FunctionRecord]


def read_model(model) -> ModelRecord:
    """The records of a path, the bytes of a file, or a ModelProto."""
    import onnx
    from google.protobuf.message import DecodeError

    folder, name, taken = None, "model.onnx", {}
    if isinstance(model, (str, Path)):
        path = Path(model)
        folder, name = path.parent, path.name
        try:
            model = mapped(path)
        except (OSError, ValueError) as e:
            reason = getattr(e, "strerror", None) or e
            raise FrontendError(f"{str(path)!r} cannot be read: {reason}") from None
    if isinstance(model, (bytes, bytearray, memoryview, mmap.mmap)):
        proto = onnx.ModelProto()
        rest, taken = take_out(memoryview(model))
        try:
            proto.ParseFromString(rest)
        except (DecodeError, ValueError, RecursionError) as e:
            raise FrontendError(
                f"{name} is not an ONNX model: {e}", help="is the file complete?"
            ) from None
        model = proto
    if not isinstance(model, onnx.ModelProto):
        raise FrontendError(
            f"an ONNX model is a path, bytes or a ModelProto, not {type(model).__name__}"
        )
    return ModelReader(name, TensorReader(folder, taken)).model(model)


def mapped(path: Path) -> bytes | mmap.mmap:
    """The bytes of a file, read where they are looked at."""
    with path.open("rb") as f:
        try:
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # an empty file, or one that is no regular file
            return f.read()


def normal_domain(domain: str) -> str:
    return "" if domain in STANDARD_DOMAINS else domain


class ModelReader:
    """Turns the messages of one file into records."""

    def __init__(self, file: str, tensors: TensorReader):
        self.file, self.tensors = file, tensors
        self.nodes_left = MAX_FILE_NODES

    def model(self, proto) -> ModelRecord:
        if not proto.HasField("graph"):
            raise FrontendError(f"{self.file} holds no graph", help="is it an ONNX model?")
        opsets = self.opsets(proto.opset_import)
        functions = {}
        for f in proto.functions:
            record = self.function(f, opsets)
            key = (record.domain, record.name, record.overload)
            if key in functions:
                raise FrontendError(f"function {record.domain}.{record.name} is defined twice")
            functions[key] = record
        graph = self.graph(proto.graph, 0)
        check_names(graph, frozenset(), self.file)
        for f in functions.values():
            check_function(f, self.file)
        return ModelRecord(self.file, graph, opsets, functions)

    def opsets(self, imports) -> dict[str, int]:
        found: dict[str, int] = {}
        for o in imports:
            self.text(o.domain)
            domain = normal_domain(o.domain)
            if found.setdefault(domain, o.version) != o.version:
                raise FrontendError(f"{self.file} imports domain {domain!r} in two versions")
            if o.version < 1:
                raise FrontendError(f"{self.file} imports opset {o.version} of {domain!r}")
            if o.version > (MAX_OPSET if domain == "" else MAX_OPSET << 8):
                raise FrontendError(
                    f"{self.file} imports opset {o.version}, opset {MAX_OPSET} is the newest known",
                    help=f"export the model with opset {MAX_OPSET} or below",
                )
        return found

    def graph(self, proto, depth: int) -> GraphRecord:
        if depth > MAX_NESTING:
            raise FrontendError(f"{self.file}: bodies are nested more than {MAX_NESTING} deep")
        initializers: dict[str, np.ndarray] = {}
        for t in proto.initializer:
            self.add_initializer(initializers, t.name, lambda t=t: self.tensors.read(t))
        for s in proto.sparse_initializer:
            self.add_initializer(
                initializers, s.values.name, lambda s=s: self.tensors.read_sparse(s)
            )
        self.text(proto.name)
        return GraphRecord(
            proto.name,
            tuple(self.node(n, depth) for n in proto.node),
            tuple(self.value(v) for v in proto.input),
            tuple(self.value(v) for v in proto.output),
            initializers,
        )

    def add_initializer(self, found: dict, name: str, read) -> None:
        self.text(name)
        if not name:
            raise FrontendError(f"{self.file}: an initializer has no name")
        if name in found:
            raise FrontendError(f"{self.file}: initializer {name!r} is defined twice")
        try:
            found[name] = read()
        except FrontendError as e:
            raise e.located((f'{self.file} initializer "{name}"',)) from None

    def node(self, proto, depth: int) -> NodeRecord:
        self.nodes_left -= 1
        if self.nodes_left < 0:
            raise FrontendError(f"{self.file} has more than {MAX_FILE_NODES} nodes")
        attrs: dict[str, object] = {}
        self.text(proto.name, proto.op_type, proto.domain, proto.overload, *proto.input,
                  *proto.output)  # fmt: skip
        where = f'{self.file} node "{proto.name}" ({proto.op_type})'
        if not proto.op_type:
            raise FrontendError("a node names no operator").located((where,))
        for a in proto.attribute:
            if a.name in attrs:
                raise FrontendError(f"attribute {a.name!r} is given twice").located((where,))
            try:
                attrs[a.name] = self.attribute(a, depth)
            except FrontendError as e:
                raise e.located((where,)) from None
        return NodeRecord(
            proto.name, proto.op_type, normal_domain(proto.domain), tuple(proto.input),
            tuple(proto.output), attrs, proto.overload, proto,
        )  # fmt: skip

    def text(self, *strings) -> None:
        """FrontendError unless these strings of the file are text (else they come as bytes)."""
        for s in strings:
            if not isinstance(s, str):
                raise FrontendError(f"{self.file} holds a name that is not UTF-8: {s!r}")

    def attribute(self, a, depth: int):
        self.text(a.name, a.ref_attr_name)
        if a.ref_attr_name:
            return AttributeReference(a.ref_attr_name)
        kinds = type(a).AttributeType
        kind = kinds.Name(a.type) if a.type in kinds.values() else "UNDEFINED"
        if kind == "UNDEFINED":
            kind = _guess_kind(a)
        match kind:
            case "FLOAT":
                return float(a.f)
            case "INT":
                return int(a.i)
            case "STRING":
                return _text(a.s)
            case "TENSOR":
                return self.tensors.read(a.t)
            case "SPARSE_TENSOR":
                return self.tensors.read_sparse(a.sparse_tensor)
            case "GRAPH":
                return self.graph(a.g, depth + 1)
            case "TYPE_PROTO":
                return self.value_type("", a.tp)
            case "FLOATS":
                return tuple(map(float, a.floats))
            case "INTS":
                return tuple(map(int, a.ints))
            case "STRINGS":
                return tuple(map(_text, a.strings))
            case "TENSORS":
                return tuple(self.tensors.read(t) for t in a.tensors)
            case "GRAPHS":
                return tuple(self.graph(g, depth + 1) for g in a.graphs)
        raise FrontendError(f"attribute {a.name!r} has a kind that is not understood ({kind})")

    def value(self, proto) -> ValueRecord:
        return self.value_type(proto.name, proto.type)

    def value_type(self, name: str, proto, depth: int = 0) -> ValueRecord:
        self.text(name)
        kind = proto.WhichOneof("value")
        if depth > MAX_NESTING:
            raise FrontendError(f"{self.file}: type of {name!r} is nested too deeply")
        if kind in ("tensor_type", "sparse_tensor_type"):
            t = getattr(proto, kind)
            found = element_type(t.elem_type) if t.elem_type else None
            shape = tuple(map(self.dim, t.shape.dim)) if t.HasField("shape") else None
            if kind == "sparse_tensor_type":
                return ValueRecord(name, "sparse", None, shape)
            if found == "string":
                return ValueRecord(name, "string", None, shape)
            return ValueRecord(name, "tensor" if found else "unknown", found, shape)
        if kind in ("sequence_type", "optional_type"):
            inner = self.value_type("", getattr(proto, kind).elem_type, depth + 1)
            return ValueRecord(name, kind.removesuffix("_type"), element=inner)
        return ValueRecord(name, "map" if kind == "map_type" else "unknown")

    def dim(self, d) -> int | str | None:
        if d.HasField("dim_value"):
            if d.dim_value < 0:
                return None  # written by old exporters for an unknown size
            return int(d.dim_value)
        self.text(d.dim_param)
        return d.dim_param or None

    def function(self, proto, opsets: dict[str, int]) -> FunctionRecord:
        self.text(proto.name, proto.domain, proto.overload, *proto.input, *proto.output,
                  *proto.attribute)  # fmt: skip
        own = self.opsets(proto.opset_import) or dict(opsets)
        defaults = {a.name: self.attribute(a, 1) for a in proto.attribute_proto}
        return FunctionRecord(
            normal_domain(proto.domain), proto.name, proto.overload, tuple(proto.input),
            tuple(proto.output), (*proto.attribute, *defaults), defaults,
            tuple(self.node(n, 1) for n in proto.node), own,
        )  # fmt: skip


def _guess_kind(a) -> str:
    """The kind of an attribute from files older than the field that says it."""
    for name, kind in (("f", "FLOAT"), ("i", "INT"), ("s", "STRING"), ("t", "TENSOR"),
                       ("g", "GRAPH")):  # fmt: skip
        if a.HasField(name):
            return kind
    for name in ("floats", "ints", "strings", "tensors", "graphs"):
        if len(getattr(a, name)):
            return name.upper()
    return "UNDEFINED"


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def check_names(g: GraphRecord, outer: frozenset[str], file: str) -> None:
    """FrontendError unless each value of the graph is defined once, before it is used."""
    defined: set[str] = set()
    for v in g.inputs:
        if not v.name or v.name in defined:
            raise FrontendError(f"{file}: graph {g.name!r} has two inputs named {v.name!r}")
        defined.add(v.name)
    defined |= set(g.initializers)
    _check_nodes(g.nodes, defined, outer, file)
    for v in g.outputs:
        if v.name and v.name not in defined and v.name not in outer:
            raise FrontendError(f"{file}: nothing computes output {v.name!r} of {g.name!r}")


def check_function(f: FunctionRecord, file: str) -> None:
    """The same check for the body of a function, which sees only its inputs."""
    defined = set(f.inputs)
    _check_nodes(f.nodes, defined, frozenset(), file)
    for name in f.outputs:
        if name not in defined:
            raise FrontendError(f"{file}: nothing computes output {name!r} of function {f.name!r}")


def _check_nodes(
    nodes: Iterable[NodeRecord], defined: set[str], outer: frozenset[str], file: str
) -> None:
    for n in nodes:
        where = (f'{file} node "{n.name}" ({n.op})',)
        for name in n.inputs:
            if name and name not in defined and name not in outer:
                raise FrontendError(
                    f"nothing before the node defines its input {name!r}",
                    help="the graph is cyclic, not in topological order, or was cut",
                ).located(where)
        for value in n.attrs.values():
            for body in value if isinstance(value, tuple) else (value,):
                if isinstance(body, GraphRecord):
                    check_names(body, outer | defined, file)
        for name in n.outputs:
            if name and name in defined:
                raise FrontendError(f"value {name!r} is defined twice").located(where)
            defined.add(name)
