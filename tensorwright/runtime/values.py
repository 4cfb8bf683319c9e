"""Values of sum types between Python and compiled code.

    codec = Codec(manifest.data);  block, address = codec.encode(tree, "Tree", "input 't'")
    value = codec.decode(address, "Tree")

A value goes in as objects laid out in one block of memory (`layout.py`), which belongs to the
caller: their counts are so high that compiled code never changes or frees them. What is shared in
Python is shared there, and the other way round. A value that cannot change keeps its memory, and
is not converted again. Nothing recurses: lists may be long.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Mapping
from ctypes import string_at
from typing import Any

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.base.value import Value, from_python, to_python
from tensorwright.runtime.buffer import aligned_empty, dtype_name, numpy_dtype, to_array
from tensorwright.runtime.layout import HEADER, OUTSIDE, TAG, place

_NOTHING = 16  # bytes of an object without contents
_BYTE = np.dtype(np.uint8)
_HEAD = struct.Struct("<hhi")


class _Case:
    """One case, prepared: fields by position, and for fixed sizes the whole layout."""

    def __init__(self, owner: str, tag: int, name: str, fields: list, data: Mapping) -> None:
        self.owner, self.tag, self.name, self.fields = owner, tag, name, fields
        self.refs = [(k, f[1]) for k, f in enumerate(fields) if f[1] in data]
        self.tensors = [(k, numpy_dtype(f[1]), tuple(f[2]), f[0])
                        for k, f in enumerate(fields) if f[1] not in data]  # fmt: skip
        dims = [d for _, _, shape, _ in self.tensors for d in shape]
        self.symbols = list(dict.fromkeys(d for d in dims if isinstance(d, str)))
        count = len(self.refs) + len(self.symbols)
        self.head, self.words = struct.Struct(f"<qhhi{count}q"), struct.Struct(f"<{count}q")
        self.places = None if self.symbols else self.place({})

    def place(self, sizes: dict[str, int]) -> tuple[list, int]:
        rows = []
        for _, d, shape, _ in self.tensors:
            known = [sizes[n] if isinstance(n, str) else n for n in shape]
            symbolic = any(isinstance(n, str) for n in shape)
            rows.append((math.prod(known) * d.itemsize, symbolic))
        offsets, size = place(len(self.refs), len(self.symbols), rows)
        return offsets, max(size, _NOTHING)

    def arrays(self, fields: tuple, what: str) -> tuple[list[np.ndarray], dict[str, int]]:
        """(the tensors among the fields of a value, its sizes by symbol)."""
        sizes: dict[str, int] = {}
        found = []
        for k, d, shape, name in self.tensors:
            x = fields[k]
            if type(x) is not np.ndarray:
                x = np.asarray(x, d) if isinstance(x, (bool, int, float)) else to_array(x, d, what)
            if x.shape != shape or x.dtype != d:
                fits = x.dtype == d and x.ndim == len(shape)
                for n, m in zip(shape, x.shape):
                    fits &= (sizes.setdefault(n, m) if isinstance(n, str) else n) == m
                if not fits:
                    raise RunError(
                        f"{what}: {self.owner}.{self.name}.{name} is {_type(x.dtype, x.shape)}, "
                        f"expected {_type(d, shape)}"
                    )
            found.append(x)
        return found, {s: sizes[s] for s in self.symbols} if self.symbols else sizes


class Codec:
    """Knows the data types of one program. keys: by type, what its declaration is: memory that was
    laid out for one program serves every other with the same."""

    def __init__(self, data: Mapping[str, list]) -> None:
        self.types = {
            t: [_Case(t, k, name, fields, data) for k, (name, fields) in enumerate(cases)]
            for t, cases in data.items()
        }
        self.by_name = {t: {c.name: c for c in cases} for t, cases in self.types.items()}
        self.keys = {t: sys.intern(repr((t, cases))) for t, cases in data.items()}
        self.makers: dict[str, Callable[[str, tuple], Any]] = {}

    # ---- from Python ---------------------------------------------------------------------------

    def encode(self, value: Any, type_: str, what: str) -> tuple[Any, int]:
        """(memory that holds the value, address of it). Raises RunError if it is none."""
        value = from_python(value, self.types[type_][0].name)
        native = getattr(value, "native", None)
        if native and native[0] is self.keys[type_]:
            return native[1], native[2]
        places: dict[str, dict[int, int]] = {t: {} for t in self.by_name}
        outside: dict[int, tuple] = {}  # parts that are in memory already
        plan: list[tuple] = []
        todo, size = [(value, type_)], 0
        while todo:
            v, t = todo.pop()
            known, key = places[t], id(v)
            if key in known:
                continue
            native = getattr(v, "native", None)
            if native and native[0] is self.keys[t]:
                outside[key], known[key] = native, native[2]
                continue
            case = self.by_name[t].get(v.case) if isinstance(v, Value) else None
            if case is None or len(v.fields) != len(case.fields):
                raise _no_value(what, v, t, self.by_name[t])
            fields = v.fields
            arrays, sizes = case.arrays(fields, what)
            offsets, bytes_ = case.places or case.place(sizes)
            known[key] = size
            plan.append((case, v, size, arrays, offsets, sizes, bytes_))
            size += (bytes_ + 63) & -64
            for k, name in case.refs:
                todo.append((fields[k], name))
        block, base = aligned_empty((size,), _BYTE, size)
        memory, held = block.data, (block, *(n[1] for n in outside.values()))
        for case, v, at, arrays, offsets, sizes, bytes_ in plan:
            fields, refs = v.fields, []
            for k, name in case.refs:
                key = id(fields[k])
                place = places[name][key]
                refs.append(place if key in outside else base + place)
            if v.native is None:
                v.native = (self.keys[case.owner], held, base + at)
            case.head.pack_into(memory, at, OUTSIDE, case.tag, len(refs), bytes_ >> 6,
                                *refs, *sizes.values())  # fmt: skip
            for x, offset in zip(arrays, offsets):
                start = at + offset
                memory[start : start + x.nbytes] = x.tobytes()
        return held, base

    # ---- to Python -----------------------------------------------------------------------------

    def decode(self, start: int, type_: str) -> Any:
        """The value at an address, everything copied."""
        done: dict[int, Any] = {}
        opened: dict[int, tuple] = {}
        todo = [(start, type_)]
        while todo:
            at, t = todo[-1]
            if at in done:
                todo.pop()
            elif at not in opened:
                tag, _, units = _HEAD.unpack(string_at(at + TAG, 8))
                case = self.types[t][tag]
                memory = bytearray(string_at(at, 64 * units or HEADER))
                words = case.words.unpack_from(memory, HEADER)
                opened[at] = case, words, memory
                todo += [(w, name) for w, (_, name) in zip(words, case.refs) if w not in done]
            else:
                todo.pop()
                done[at] = self.made(*opened.pop(at), done)
        return to_python(done[start], self.types[type_][0].name)

    def made(self, case: _Case, words: tuple, memory: bytearray, done: dict[int, Any]) -> Any:
        """A value from its object's memory; its arrays stay there."""
        fields: list = [None] * len(case.fields)
        for w, (k, _) in zip(words, case.refs):
            fields[k] = done[w]
        sizes = dict(zip(case.symbols, words[len(case.refs) :]))
        offsets, _ = case.places or case.place(sizes)
        for (k, d, shape, _), offset in zip(case.tensors, offsets):
            known = tuple([sizes[n] if isinstance(n, str) else n for n in shape])
            fields[k] = np.ndarray(known, d, memory, offset)
        make = self.makers.get(case.owner, Value)
        return make(case.name, tuple(fields))


def _type(d: np.dtype, shape: tuple) -> str:
    return f"{dtype_name(d)}[{', '.join(map(str, shape)) or '()'}]"


def _no_value(what: str, v: Any, t: str, cases: Mapping) -> RunError:
    if not isinstance(v, Value):
        return RunError(f"{what}: a {type(v).__name__} is given where a {t} is expected")
    if v.case not in cases:
        return RunError(f"{what}: {t} has no case {v.case}: it has {', '.join(cases)}")
    count = len(cases[v.case].fields)
    return RunError(f"{what}: {t}.{v.case} has {count} fields, {len(v.fields)} are given")
