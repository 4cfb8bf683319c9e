"""Many values of data types as tensors: each case's fields as rows, generation after generation.

    Node(Leaf(a), Node(Leaf(b), Leaf(c))), Leaf(d)
->  Leaf: x = [d, a, b, c]    Node: left = [1, 2], right = [5, 3]    generations of Node: 1, 1

A value's slot is its row, behind the rows of the cases before its own. The parts of what is in one
generation are the next one, so a case's rows of a generation lie together, and those of a field's
parts in the order of their owners. What is shared between values gets a row for each place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base.errors import RunError
from tensorwright.base.value import Value
from tensorwright.ir.type import DataType, TensorType


@dataclass
class Rows:
    """A case of a data type: its fields of tensor type and its parts, by position."""

    data: DataType
    name: str
    tensors: dict[int, TensorType]
    parts: dict[int, DataType]

    @property
    def key(self) -> tuple[str, str]:
        return (self.data.name, self.name)


@dataclass
class Layout:
    """The cases of the types that values consist of; slots of a type count through its cases."""

    rows: list[Rows] = field(default_factory=list)

    def of(self, data: DataType) -> list[Rows]:
        return [r for r in self.rows if r.data == data]

    def growing(self) -> list[Rows]:
        """The cases that have parts."""
        return [r for r in self.rows if r.parts]


def layout_of(types: Sequence[DataType]) -> Layout:
    """The layout of values of these types and of all that they consist of."""
    found, todo = Layout(), list(types)
    seen: list[DataType] = []
    while todo:
        t = todo.pop(0)
        if t in seen:
            continue
        seen.append(t)
        for c in t.cases:
            tensors = {k: f for k, f in enumerate(c.types) if isinstance(f, TensorType)}
            parts = {k: f for k, f in enumerate(c.types) if isinstance(f, DataType)}
            found.rows.append(Rows(t, c.name, tensors, parts))
            todo += parts.values()
    return found


@dataclass
class Forest:
    """fields[k][j]: field j of the rows of case k; parts[k][j]: the slots of its parts; table:
    i64[generations, growing cases, 2], first row and number of rows, the last generation first;
    widest: the most rows of a generation, by growing case; roots: the slots of the values."""

    fields: list[dict[int, np.ndarray]]
    parts: list[dict[int, np.ndarray]]
    counts: list[int]
    table: np.ndarray
    widest: list[int]
    roots: list[np.ndarray]


def plant(layout: Layout, values: Sequence[tuple[DataType, Sequence[Value]]]) -> Forest:
    """The rows of lists of values, each list of one type. Raises RunError for what is no value."""
    rows = layout.rows
    tags = {r.key: k for k, r in enumerate(rows)}
    members: list[list[Value]] = [[] for _ in rows]
    parts: list[dict[int, list]] = [{j: [] for j in r.parts} for r in rows]
    spans: list[list[tuple[int, int]]] = []
    found = [_place(t, list(vs), tags, members) for t, vs in values]
    roots = found
    begin = [0] * len(rows)
    while any(len(m) > b for m, b, r in zip(members, begin, rows) if r.parts):
        end = [len(m) for m in members]
        spans.append([(begin[k], end[k] - begin[k]) for k, r in enumerate(rows) if r.parts])
        for k, r in enumerate(rows):
            young = members[k][begin[k] : end[k]]
            for j, t in r.parts.items():
                parts[k][j].append(_place(t, [v.fields[j] for v in young], tags, members))
        begin = end
    base = _bases(layout, [len(m) for m in members])
    slots = lambda placed: base[placed[0]] + placed[1]
    table = np.array(spans[::-1], np.int64).reshape(len(spans), len(layout.growing()), 2)
    return Forest(
        [{j: _stacked(m, j, t, r) for j, t in r.tensors.items()} for m, r in zip(members, rows)],
        [{j: slots(_joined(p)) for j, p in own.items()} for own in parts],
        [len(m) for m in members], table,
        table[:, :, 1].max(axis=0, initial=0).tolist(), [slots(r) for r in roots],
    )  # fmt: skip


def _place(t: DataType, values: list, tags: dict, members: list[list]) -> tuple:
    """Give values rows of their cases: (case, row) of each, as arrays."""
    try:
        cases = [v.case for v in values]
        which = np.array([tags[t.name, c] for c in cases], np.int64)
    except (AttributeError, KeyError):
        bad = next(v for v in values if (t.name, getattr(v, "case", None)) not in tags)
        raise RunError(f"{bad!r} is no {t}") from None
    row = np.empty(len(values), np.int64)
    for k in np.unique(which):
        at = np.flatnonzero(which == k)
        row[at] = np.arange(len(members[k]), len(members[k]) + len(at))
        members[k] += [values[i] for i in at] if len(at) < len(values) else values
    return which, row


def _joined(placed: list[tuple]) -> tuple:
    """Generations one behind the other."""
    none = np.empty(0, np.int64)
    return tuple(np.concatenate([p[k] for p in placed] or [none]) for k in range(2))


def _bases(layout: Layout, counts: list[int]) -> np.ndarray:
    """The slot of the first row of each case."""
    base, next_slot = [], {}
    for r, n in zip(layout.rows, counts):
        base.append(next_slot.get(r.data.name, 0))
        next_slot[r.data.name] = base[-1] + n
    return np.array(base, np.int64)


def _stacked(members: list[Value], j: int, t: TensorType, r: Rows) -> np.ndarray:
    """A field of tensor type for all rows of a case."""
    if not members:
        return np.zeros((0, *t.shape), t.dtype.numpy)
    try:
        found = np.array([v.fields[j] for v in members], t.dtype.numpy)
    except (TypeError, ValueError):
        found = None
    if found is None or found.shape != (len(members), *t.shape):
        name = r.data.case(r.name).fields[j][0]
        raise RunError(f"{r.data}.{r.name}.{name} is not {t} in every value")
    return found
