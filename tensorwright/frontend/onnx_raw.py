"""Large tensors of an ONNX file, taken out of its bytes before they are parsed.

    rest, taken = take_out(data)       # rest: the model with a token for each large tensor
    taken[token]                       # the tensor's bytes, a view of `data`

A parser copies what it parses and Python copies it again, which for weights costs more than the
rest of an import. Bytes that are no well-formed message come back whole, for the parser to judge.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tensorwright.runtime.pages import constant_empty

LARGE = 4096  # bytes of a tensor that is worth taking out
TOKEN = 24  # bytes that stand for a tensor, most of them random
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto, TensorProto
BYTES = 2  # the wire type of what has a length
FIXED = {1: 8, 5: 4}  # wire type -> bytes


@dataclass(frozen=True)
class Field:
    """A field of a message: all of it is [start, end), its contents are [inner, end)."""

    number: int
    wire: int
    start: int
    inner: int
    end: int


def take_out(data: memoryview) -> tuple[bytes, dict[bytes, memoryview]]:
    """(the model's bytes with tokens, token -> bytes of the tensor)."""
    taken: dict[bytes, memoryview] = {}
    try:
        rest = _model(data, secrets.token_bytes(TOKEN - 4), taken)
    except (ValueError, IndexError):
        return bytes(data), {}
    return (rest, taken) if taken else (bytes(data), {})


def aligned_copy(data: memoryview) -> np.ndarray:
    """The bytes in memory of their own, where native code wants them."""
    copy = constant_empty((len(data),), np.dtype(np.uint8))
    copy[:] = np.frombuffer(data, np.uint8)
    return copy


def _model(data: memoryview, nonce: bytes, taken: dict[bytes, memoryview]) -> bytes:
    out = bytearray()
    for f in _fields(data, 0, len(data)):
        if f.number == GRAPH and f.wire == BYTES:
            _append(out, GRAPH, _graph(data, f, nonce, taken))
        else:
            out += data[f.start : f.end]
    return bytes(out)


def _graph(data: memoryview, graph: Field, nonce: bytes, taken: dict[bytes, memoryview]) -> bytes:
    out = bytearray()
    for f in _fields(data, graph.inner, graph.end):
        if f.number == INITIALIZER and f.wire == BYTES and f.end - f.inner > LARGE:
            _append(out, INITIALIZER, _tensor(data, f, nonce, taken))
        else:
            out += data[f.start : f.end]
    return out


def _tensor(data: memoryview, tensor: Field, nonce: bytes, taken: dict[bytes, memoryview]) -> bytes:
    out = bytearray()
    for f in _fields(data, tensor.inner, tensor.end):
        if f.number == RAW_DATA and f.wire == BYTES and f.end - f.inner > LARGE:
            token = nonce + len(taken).to_bytes(4, "little")
            taken[token] = data[f.inner : f.end]
            _append(out, RAW_DATA, token)
        else:
            out += data[f.start : f.end]
    return out


def _append(out: bytearray, number: int, contents: bytes) -> None:
    """Add a field with a length."""
    out.append(number << 3 | BYTES)
    size = len(contents)
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    out += contents


def _fields(data: memoryview, at: int, end: int) -> Iterator[Field]:
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        wire = tag & 7
        inner = at
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire == BYTES:
            size, inner = _varint(data, at, end)
            at = inner + size
        elif wire in FIXED:
            at += FIXED[wire]
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            raise ValueError("a field ends behind its message")
        yield Field(tag >> 3, wire, start, inner, at)


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """(number, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number does not end")
