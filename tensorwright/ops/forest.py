"""Values of sum types as rows, generation after generation. The host compiler handles these rows of
the table by name; none has a loop nest.

    Node(Leaf(a), Node(Leaf(b), Leaf(c))), Leaf(d)
->  Leaf: d, a, b, c    Node: left = [1, 2], right = [5, 3]    steps: 1 Node, 1 Node

A row is a value's place among those of its case, its slot the same behind the rows of the cases
before its own. The parts of what is in one generation are the next one, so the rows of a generation
lie together. What is shared between values gets a row for each place.

A list of parts belongs to one value: `Word(x, Cons(a, Cons(b, Nil)))`. Where it begins is its
origin: an edge (case, field, passed on) says that what is there has its holder as its origin, or
that of its holder. All cases of the types at such edges have a vector with the rows of their
origins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base.value import Value
from tensorwright.ir.dtype import DType, i64
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.type import DataType, Dim, Shape, TensorType, TupleType, Type, shape_of
from tensorwright.ops.define import define, require

Edge = tuple[int, int, bool]  # a case, a field of it, whether its holder's own origin is passed on

# ---- layout ------------------------------------------------------------------------------------


@dataclass
class Rows:
    """A case of a data type: its fields of tensor type and its parts, by position."""

    data: DataType
    name: str
    tensors: dict[int, TensorType]
    parts: dict[int, DataType]


@dataclass
class Layout:
    """The cases of the types that values consist of; slots of a type count through its cases."""

    rows: list[Rows] = field(default_factory=list)

    def of(self, data: DataType) -> list[Rows]:
        return [r for r in self.rows if r.data == data]

    def first(self, data: DataType) -> int:
        """The number of a type's first case; the others follow it."""
        return next(k for k, r in enumerate(self.rows) if r.data == data)

    def rows_of(self, data: DataType, case: str) -> int:
        """The number of a case."""
        return self.first(data) + data.tag(case)

    def growing(self) -> list[int]:
        """The numbers of the cases that have parts."""
        return [k for k, r in enumerate(self.rows) if r.parts]

    def owned(self, edges: Sequence[Edge]) -> list[int]:
        """The numbers of the cases whose rows have origins."""
        types = [self.rows[k].parts[j] for k, j, _ in edges]
        return [k for k, r in enumerate(self.rows) if r.data in types]


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


def check_roots(values: Sequence[Type], types: Sequence[DataType], lists: Sequence[bool]) -> Layout:
    """The layout of `types`, which operands are, or are lists of."""
    require(len(values) == len(types) == len(lists), "rows: a value without its type is given")
    for v, t, many in zip(values, types, lists):
        require(isinstance(v, DataType) and isinstance(t, DataType), f"rows: {v} is no data type")
        given = v.cases[1].types[0] if many else v
        require(given == t, f"rows: {given} is given where {t} is told of")
    return layout_of(types)


# ---- the walk, in plain Python -----------------------------------------------------------------


@dataclass
class Forest:
    """members[k]: the values of case k; parts[k][j]: the slots of their parts; table: i64[steps,
    cases, 2], first row and number of rows; roots: the slots of the values; origins[k]: the rows
    of the origins of case k, 0 where there is none."""

    members: list[list[Value]]
    parts: list[dict[int, np.ndarray]]
    table: np.ndarray
    roots: list[np.ndarray]
    origins: list[np.ndarray]


def grow(values: Sequence, types: Sequence[DataType], lists: Sequence[bool], chunk: int,
         edges: Sequence[Edge] = ()) -> Forest:  # fmt: skip
    """The rows of values, or of lists of values."""
    layout = layout_of(types)
    rows, growing = layout.rows, layout.growing()
    members: list[list[Value]] = [[] for _ in rows]
    parts: list[dict[int, list]] = [{j: [] for j in r.parts} for r in rows]
    origins: list[list[int]] = [[] for _ in rows]
    passed = {(k, j): on for k, j, on in edges}

    def push(v: Value, t: DataType, origin: int = 0) -> tuple[int, int]:
        k = layout.first(t) + t.tag(v.case)
        members[k].append(v)
        origins[k].append(origin)
        return k, len(members[k]) - 1

    def origin_of(k: int, j: int, row: int) -> int:
        on = passed.get((k, j))
        return 0 if on is None else origins[k][row] if on else row

    found = [[push(v, t) for v in (elements(x) if many else [x])]
             for x, t, many in zip(values, types, lists)]  # fmt: skip
    begin, steps = [0] * len(rows), []
    while any(len(members[k]) > begin[k] for k in growing):
        end = [len(m) for m in members]
        most = max(-(-(end[k] - begin[k]) // chunk) for k in growing)
        for q in range(most):
            spans = [(0, 0)] * len(rows)
            for k in growing:
                first = min(begin[k] + q * chunk, end[k])
                spans[k] = (first, min(end[k] - first, chunk))
            steps.append((len(steps) - q, q, spans))
        for k in growing:
            for row in range(begin[k], end[k]):
                for j, t in rows[k].parts.items():
                    v = members[k][row].fields[j]
                    parts[k][j].append(push(v, t, origin_of(k, j, row)))
        begin = end
    counts = [len(m) for m in members]
    base = [sum(counts[layout.first(r.data) : k]) for k, r in enumerate(rows)]
    slots = lambda placed: np.array([base[k] + row for k, row in placed], np.int64)
    later = [spans for _, _, spans in sorted(steps, key=lambda s: (-s[0], s[1]))]
    table = np.array([*still(counts, growing, chunk), *later], np.int64)
    return Forest(members, [{j: slots(p) for j, p in own.items()} for own in parts],
                  table.reshape(-1, len(rows), 2), [slots(r) for r in found],
                  [np.array(o, np.int64) for o in origins])  # fmt: skip


def still(counts: Sequence[int], growing: Sequence[int], chunk: int) -> list[list]:
    """The steps of the cases without parts: they come first, whatever generation they are in."""
    rest = [k for k in range(len(counts)) if k not in growing]
    found = []
    for q in range(max((-(-counts[k] // chunk) for k in rest), default=0)):
        spans = [(0, 0)] * len(counts)
        for k in rest:
            first = min(q * chunk, counts[k])
            spans[k] = (first, min(counts[k] - first, chunk))
        found.append(spans)
    return found


def elements(x: Value) -> list[Value]:
    """What a list holds: its second case is an element and the rest of it."""
    found = []
    while x.fields:
        found.append(x.fields[0])
        x = x.fields[1]
    return found


# ---- the rows of the table ---------------------------------------------------------------------


def _infer_census(*values: Type, types: tuple, lists: tuple, chunk: int) -> TensorType:
    rows = check_roots(values, types, lists).rows
    for r in rows:
        require(all(isinstance(d, int) for t in r.tensors.values() for d in t.shape),
                f"batch: {r.data}.{r.name} has a field whose size is each value's own",
                "give it one size, or make it a list")  # fmt: skip
    require(chunk > 0, f"census: {chunk} rows at a time")
    return TensorType(i64, (len(rows) + 1 + len(values),))


def _reference_census(*values, types, lists, chunk):
    f = grow(values, types, lists, chunk)
    return np.array([*map(len, f.members), len(f.table), *map(len, f.roots)], np.int64)


census = define(
    "census", "*values", infer=_infer_census, reference=_reference_census,
    doc="How many rows each case has, how many steps they take, and how many values there are.",
)  # fmt: skip


def _infer_plant(*values: Type, types: tuple, lists: tuple, chunk: int, rows: tuple, steps: Dim,
                 roots: tuple, edges: tuple = ()) -> TupleType:  # fmt: skip
    layout = check_roots(values, types, lists)
    require(len(rows) == len(layout.rows) and len(roots) == len(values), "plant: a size is missing")
    vector = lambda n: TensorType(i64, shape_of((n,)))
    parts = [vector(n) for n, r in zip(rows, layout.rows) for _ in r.parts]
    table = TensorType(i64, shape_of((steps, len(rows), 2)))
    origins = [vector(rows[k]) for k in layout.owned(edges)]
    return TupleType((*map(vector, rows), *parts, table, *map(vector, roots), *origins))


def _reference_plant(*values, types, lists, chunk, rows, steps, roots, edges=()):
    f = grow(values, types, lists, chunk, edges)
    places = [np.arange(len(m)) for m in f.members]
    origins = [f.origins[k] for k in layout_of(types).owned(edges)]
    return (*places, *(p for own in f.parts for p in own.values()), f.table, *f.roots, *origins)


plant = define(
    "plant", "*values", infer=_infer_plant, reference=_reference_plant,
    doc="Where the values of each case are, the slots of their parts, the steps, the roots, and "
        "the rows of origins.",
)  # fmt: skip


def _infer_read_rows(at: TensorType, *values: Type, types: tuple, lists: tuple, case: int,
                     position: int) -> TensorType:  # fmt: skip
    t = check_roots(values, types, lists).rows[case].tensors[position]
    return TensorType(t.dtype, (*at.shape, *t.shape))


def _reference_read_rows(at, *values, types, lists, case, position):
    members = grow(values, types, lists, 1).members[case]
    t = layout_of(types).rows[case].tensors[position]
    found = [np.asarray(members[k].fields[position]) for k in at]
    return np.array(found, t.dtype.numpy).reshape(-1, *t.shape)


read_rows = define(
    "read_rows", "at, *values", infer=_infer_read_rows, reference=_reference_read_rows,
    doc="A field of tensor type of the values of a case; `at` is some of what plant gives for it.",
)  # fmt: skip


def _infer_room(*, shape: Shape, dtype: DType) -> TensorType:
    return TensorType(dtype_of(dtype), shape_of(shape))


room = define(
    "room", infer=_infer_room,
    reference=lambda shape, dtype: np.zeros(shape, dtype_of(dtype).numpy),
    doc="Memory whose contents nobody reads before they are written.",
)  # fmt: skip
