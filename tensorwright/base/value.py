"""Values of sum types as Python sees them: which case, and its fields.

    Value("Node", (Value("Leaf", (x,)), Value("Leaf", (y,))))

The classes that users declare with `tw.data` are subclasses; a field is an array or a value.
Nesting may be deeper than Python's stack: nothing here recurses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

CHANGES = False
# Types whose first case is named so are Python's own sequences and optionals: programs take and
# give lists for them, and None for what is absent. A sequence is its last element and those before.
#     NoElement | Element1(count, last: f32[n], rest) | Element2(...)                 by rank
#     Absent | Present1(value: f32[n]) | Present2(...) | Present(value: a sequence)
NO_ELEMENT, ELEMENT = "NoElement", "Element"
ABSENT, PRESENT = "Absent", "Present"


class Value:
    """One value of a sum type. native: for the runtime, what the value is in memory, once it was
    given to a program; `CHANGES` where its arrays may still change, so that this is not kept."""

    __slots__ = ("case", "fields", "native")

    def __init__(self, case: str, fields: Sequence = ()) -> None:
        self.case, self.fields, self.native = case, tuple(fields), CHANGES

    def __repr__(self) -> str:
        return text_of(self)

    def __iter__(self) -> Iterator:
        return iter(self.fields)


def frozen(field):
    """A field that nobody else can change: arrays are copied once, when a value is made. Anything
    else comes back as it is."""
    if not hasattr(field, "__array__"):
        return field
    array = np.array(field.detach() if hasattr(field, "detach") else field)
    array.flags.writeable = False
    return array


def is_frozen(field) -> bool:
    if isinstance(field, Value):
        return field.native is not CHANGES
    return isinstance(field, (np.ndarray, bool, int, float))


def text_of(value: Value, most: int = 200) -> str:
    """`Node(Leaf(0.5), Leaf(1.0))`, cut off after `most` parts."""
    parts: list[str] = []
    stack: list = [value]
    while stack:
        if len(parts) >= most:
            return "".join(parts) + "..."
        v = stack.pop()
        if type(v) is str:
            parts.append(v)
        elif isinstance(v, Value):
            inner = [x for f in v.fields for x in (", ", f)][1:]
            parts.append(v.case)
            stack += reversed(["(", *inner, ")"] if inner else [])
        else:
            parts.append(str(v).replace("\n", ""))
    return "".join(parts)


def fold(value: Value, make: Callable[[Value, list], object]):
    """`make(v, fields)` from the leaves up, values among the fields replaced by what they became;
    parts that are shared are made once."""
    done: dict[int, object] = {}
    stack: list[tuple[Value, bool]] = [(value, False)]
    while stack:
        v, ready = stack.pop()
        if id(v) in done:
            continue
        if not ready:
            stack.append((v, True))
            stack += [(f, False) for f in v.fields if isinstance(f, Value)]
        else:
            done[id(v)] = make(v, [done[id(f)] if isinstance(f, Value) else f for f in v.fields])
    return done[id(value)]


# ---- sequences and optionals -------------------------------------------------------------------


def from_python(x, first: str):
    """A Python list, None or array as a value of the type whose first case is `first`; anything
    that is none of these comes back as it is."""
    if isinstance(x, Value):
        return x
    if first == NO_ELEMENT and isinstance(x, (list, tuple)):
        found = Value(NO_ELEMENT)
        for k, item in enumerate(x):
            found = Value(f"{ELEMENT}{_rank(item)}", (np.array(k + 1), item, found))
        return found
    if first == ABSENT:
        if x is None:
            return Value(ABSENT)
        if isinstance(x, (list, tuple)):
            return Value(PRESENT, (from_python(x, NO_ELEMENT),))
        return Value(f"{PRESENT}{_rank(x)}", (x,))
    return x


def _rank(x) -> int:
    return len(x.shape) if hasattr(x, "shape") else np.ndim(x)


def to_python(value: Value, first: str):
    """The list, None or array that a value of the type whose first case is `first` is; a value of
    another type comes back as it is."""
    if first == ABSENT:
        found = value.fields[0] if value.fields else None
        return to_python(found, NO_ELEMENT) if isinstance(found, Value) else found
    if first != NO_ELEMENT:
        return value
    found = []
    while value.fields:
        _, last, value = value.fields
        found.append(last)
    return found[::-1]
