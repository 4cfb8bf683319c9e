"""Values of sum types as Python sees them: which case, and its fields.

    Value("Node", (Value("Leaf", (x,)), Value("Leaf", (y,))))

The classes that users declare with `tw.data` are subclasses; a field is an array or a value.
Nesting may be deeper than Python's stack: nothing here recurses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

CHANGES = False


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
