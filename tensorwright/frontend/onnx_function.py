"""Operators that ONNX defines by other operators: their bodies, read from the installed `onnx`.

An operator without a converter is imported through its function body, if its schema has one; a body
that depends on types and attributes is built by `onnx` for the node at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tensorwright.frontend.onnx_model import (
    FunctionRecord,
    GraphRecord,
    ModelReader,
    NodeRecord,
    ValueRecord,
)
from tensorwright.frontend.onnx_tensor import TensorReader
from tensorwright.ir.type import TensorType


def function_of(
    record: NodeRecord, attrs: Mapping, opset: int, types: Sequence[TensorType | None] | None,
    probe: bool = False,
) -> FunctionRecord | bool | None:  # fmt: skip
    """The body of an operator by its schema; with `probe`, only whether there may be one."""
    import onnx
    from onnx import defs

    try:
        schema = defs.get_schema(record.op, opset, record.domain)
    except defs.SchemaError:
        return None
    fixed, dependent = schema.has_function, schema.has_context_dependent_function
    if probe:
        return True if fixed or dependent else None
    if dependent:
        raw = _context_body(onnx, schema, record, attrs, opset, types)
    else:
        raw = _fixed_body(schema, opset)
    if not raw:
        return None
    proto = onnx.FunctionProto()
    proto.ParseFromString(raw)
    reader = ModelReader(f"function {record.op}", TensorReader(None))
    found = reader.function(proto, {record.domain: opset})
    given = {
        name: reader.attribute(a.default_value, 0)
        for name, a in schema.attributes.items() if a.default_value.name
    }  # fmt: skip
    opsets = {"": defs.onnx_opset_version(), **found.opsets}
    return replace(found, defaults={**given, **found.defaults}, opsets=opsets)


def _fixed_body(schema, opset: int) -> bytes:
    versions = [v for v in schema.function_opset_versions if v <= opset]
    return schema.get_function_with_opset_version(versions[-1]) if versions else b""


def _context_body(onnx, schema, record, attrs, opset, types) -> bytes:
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if not versions:
        return b""
    node = onnx.helper.make_node(
        record.op, list(record.inputs), list(record.outputs), domain=record.domain
    )
    for name, value in attrs.items():
        proto = _attribute(onnx, name, value, record)
        if proto is not None:
            node.attribute.append(proto)
    protos = [
        onnx.TypeProto() if t is None else _type(onnx, t) for t in types
    ]  # fmt: skip
    return schema.get_context_dependent_function_with_opset_version(
        versions[-1], node.SerializeToString(), [p.SerializeToString() for p in protos]
    )


def _attribute(onnx, name: str, value, record: NodeRecord):
    original = {a.name: a for a in record.proto.attribute}.get(name)
    if isinstance(value, (np.ndarray, GraphRecord, ValueRecord)) or value == ():
        return original  # has the kind that an empty list does not show
    return onnx.helper.make_attribute(name, value)


def _type(onnx, t: TensorType):
    dims = [d if isinstance(d, int) else str(d) for d in t.shape]
    return onnx.helper.make_tensor_type_proto(t.dtype.onnx, dims)
