"""Rows of values of sum types in host functions: walks over objects, generation after generation.

    census(t)      counts the rows of each case; only references of one generation are kept
    plant(t)       the same walk again, in memory of the known sizes: references, slots, steps
    read_rows(at)  fields of some rows, one behind the other

The sizes of values are not known before they have been walked over, hence two walks. Neither
recurses: chains may be deep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tensorwright.ir.dtype import i16, i64, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    any_of,
    as_expr,
    cast,
    compare,
    const,
    load,
    maximum,
    minimum,
    sym,
)  # fmt: skip
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import (
    Alloc,
    Assert,
    Copy,
    If,
    Let,
    Resize,
    Stmt,
    View,
    While,
    loop,
    seq,
    store,
)  # fmt: skip
from tensorwright.ir.type import DataType, TensorType, product
from tensorwright.ops.forest import Layout as Forest
from tensorwright.ops.forest import layout_of
from tensorwright.passes.host_objects import Layout, reference
from tensorwright.runtime.layout import TAG

MORE = "a list does not have {0} values, the number of examples"
ROOM = 64  # references of a generation that there is room for at first


def scalar(name: str) -> Buffer:
    return Buffer(name, i64, (), "local")


def number(b: Buffer, *at) -> Expr:
    """An element of an integer buffer as an index."""
    return cast(load(b, tuple(at)), index)


def put(b: Buffer, at, value) -> Stmt:
    """b[at] = value, an index."""
    return store(b, at, cast(as_expr(value), i64))


def part_of(of: Buffer, at, type_: TensorType) -> tuple[Stmt, Buffer]:
    """A view of an object's contents, and the statement that makes it."""
    b = Buffer("part", type_.dtype, type_.shape)
    return View(b, of, as_expr(at)), b


def word_of(of: Buffer, at: int, use: Callable[[Expr], Stmt]) -> Stmt:
    """`use(a word of an object)`."""
    view, b = part_of(of, at, TensorType(i64, ()))
    return seq(view, use(load(b, ())))


class Walk:
    """What both walks have: the cases, how many rows of each there are, and where a generation
    begins."""

    def __init__(self, node: Node, values: Sequence[Buffer]) -> None:
        a = node.attrs
        self.node, self.values, self.types, self.chunk = node, values, a["types"], a["chunk"]
        self.forest: Forest = layout_of(self.types)
        self.rows, self.growing = self.forest.rows, self.forest.growing()
        self.still = [k for k in range(len(self.rows)) if k not in self.growing]
        self.layouts = [Layout(r.data.case(r.name), {}) for r in self.rows]
        vector = lambda name: Buffer(name, i64, (len(self.rows),), "local")
        self.count, self.begin = vector("counts"), vector("begins")
        self.now, self.child = reference("now"), reference("child")

    def start(self) -> list[Stmt]:
        zero = [put(b, k, 0) for b in (self.count, self.begin) for k in range(len(self.rows))]
        made = (self.count, self.begin, self.now, self.child)
        return [*map(Alloc, made), *zero]

    def case(self, data: DataType, use: Callable[[Expr], Stmt]) -> Stmt:
        """`use(number of the case)` of the value of a type that `child` holds."""
        view, tag = part_of(self.child, TAG, TensorType(i16, ()))
        k = Symbol("case", 0, len(self.rows) - 1)
        first = self.forest.first(data)
        return seq(view, Let(k, cast(load(tag, ()), index) + first), use(sym(k)))

    def roots(self, n: int, use: Callable[[DataType], Stmt]) -> Stmt:
        """`use(type)` with each root of operand n in `child`."""
        data, value = self.types[n], self.values[n]
        if not self.node.attrs["lists"][n]:
            return seq(store(self.child, (), load(value, ())), use(data))
        at, go = reference("cell"), scalar("go")
        first, rest = Layout(self.node.args[n].type.cases[1], {}).refs.values()
        view, tag = part_of(at, TAG, TensorType(i16, ()))
        test = seq(view, put(go, (), load(tag, ())))
        step = seq(
            word_of(at, first, lambda w: store(self.child, (), w)), use(data),
            word_of(at, rest, lambda w: store(at, (), w)), test,
        )  # fmt: skip
        return seq(Alloc(at), Alloc(go), store(at, (), load(value, ())), test,
                   While(compare("ne", load(go, ()), const(0, i64)), step))  # fmt: skip

    def parts(self, k: int, use: Callable[[int, DataType], Stmt]) -> Stmt:
        """`use(position, type)` with each part of what `now` holds in `child`."""
        refs = self.layouts[k].refs
        return seq(*(
            word_of(self.now, refs[j], lambda w, j=j, t=t: seq(store(self.child, (), w), use(j, t)))
            for j, t in self.rows[k].parts.items()))  # fmt: skip

    def most(self, cases: Sequence[int]) -> Expr:
        """How many steps it takes to get from `begin` to `count` in all of some cases."""
        found = const(0)
        for k in cases:
            left = number(self.count, k) - number(self.begin, k)
            found = maximum(found, (left + (self.chunk - 1)) // self.chunk)
        return found

    def next_generation(self) -> list[Stmt]:
        return [store(self.begin, (as_expr(k),), load(self.count, (as_expr(k),)))
                for k in self.growing]  # fmt: skip


class Census(Walk):
    """Only the references of one generation are kept, with the numbers of their cases."""

    def __init__(self, node: Node, values: Sequence[Buffer], out: Buffer) -> None:
        super().__init__(node, values)
        self.out = out
        self.queues = [Buffer(f"{name}_generation", i64, (ROOM, 2), "boxed", 64)
                       for name in ("this", "next")]  # fmt: skip
        self.caps, self.lengths = ([scalar(f"{name}{k}") for k in range(2)]
                                   for name in ("room", "length"))  # fmt: skip
        self.steps, self.found = scalar("steps"), scalar("found")

    def body(self) -> list[Stmt]:
        widest = max((len(self.rows[k].parts) for k in self.growing), default=0)
        body = [*self.start(), *map(Alloc, (*self.queues, *self.caps, *self.lengths)),
                Alloc(self.steps), Alloc(self.found), put(self.steps, (), 0)]  # fmt: skip
        for q in range(2):
            body += [put(self.lengths[q], (), 0), self.resize(q, const(ROOM))]
        for n in range(len(self.values)):
            body += [put(self.found, (), 0), self.roots(n, self.root)]
            body.append(store(self.out, (as_expr(len(self.rows) + 1 + n),), load(self.found, ())))
        generation = [
            put(self.steps, (), number(self.steps) + self.most(self.growing)),
            *self.next_generation(), self.grow(1, number(self.lengths[0]) * widest),
            self.each(), self.grow(0, number(self.lengths[1])), self.swap(),
        ]  # fmt: skip
        body.append(While(compare("gt", load(self.lengths[0], ()), const(0, i64)),
                          seq(*generation)))  # fmt: skip
        for k in range(len(self.rows)):
            body.append(store(self.out, (as_expr(k),), load(self.count, (as_expr(k),))))
        total = number(self.steps) + self.most(self.still)
        return [*body, put(self.out, as_expr(len(self.rows)), total)]

    def resize(self, q: int, room: Expr) -> Stmt:
        return seq(Resize(self.queues[q], (room, const(2))), put(self.caps[q], (), room))

    def grow(self, q: int, wanted: Expr) -> Stmt:
        """What a queue holds is lost where it grows."""
        room = Symbol("wanted")
        return seq(Let(room, wanted), If(compare("gt", sym(room), number(self.caps[q])),
                                         self.resize(q, sym(room) * 2)))  # fmt: skip

    def root(self, data: DataType) -> Stmt:
        """A root is not known to be one of few: the queue keeps what it holds."""
        return seq(
            put(self.found, (), number(self.found) + 1),
            If(compare("eq", load(self.lengths[0], ()), load(self.caps[0], ())), self.double()),
            self.push(0, data),
        )  # fmt: skip

    def double(self) -> Stmt:
        """The first queue with more room; the second is empty."""
        return seq(self.grow(1, number(self.lengths[0])), self.move(0, 1),
                   self.resize(0, number(self.caps[0]) * 2), self.move(1, 0))  # fmt: skip

    def move(self, source: int, to: int) -> Stmt:
        """As many references as there are in the first queue."""
        n = Symbol("moved")
        views = [Buffer(f"moved{q}", i64, (sym(n), 2), "arena") for q in (source, to)]
        return seq(Let(n, number(self.lengths[0])), View(views[0], self.queues[source], const(0)),
                   View(views[1], self.queues[to], const(0)), Copy(views[1], views[0]))  # fmt: skip

    def push(self, q: int, data: DataType) -> Stmt:
        """Count what `child` holds; keep it if it has parts."""
        mine = [k for k in self.growing if self.rows[k].data == data]

        def use(k: Expr) -> Stmt:
            counted = put(self.count, k, number(self.count, k) + 1)
            if not mine:
                return counted
            room, n = Symbol("room"), number(self.lengths[q])
            view = Buffer("queue", i64, (sym(room), 2), "arena")
            kept = seq(
                Let(room, number(self.caps[q])), View(view, self.queues[q], const(0)),
                store(view, (n, const(0)), load(self.child, ())), put(view, (n, const(1)), k),
                put(self.lengths[q], (), n + 1),
            )  # fmt: skip
            return seq(counted, If(any_of(compare("eq", k, const(m)) for m in mine), kept))

        return self.case(data, use)

    def each(self) -> Stmt:
        """All parts of one generation."""
        room, k = Symbol("room"), Symbol("case", 0, len(self.rows) - 1)
        view = Buffer("queue", i64, (sym(room), 2), "arena")

        def one(i: Expr) -> Stmt:
            arms = [If(compare("eq", sym(k), const(g)),
                       self.parts(g, lambda j, t: self.push(1, t)))
                    for g in self.growing]  # fmt: skip
            return seq(store(self.now, (), load(view, (i, const(0)))),
                       Let(k, number(view, i, const(1))), *arms)  # fmt: skip

        return seq(put(self.lengths[1], (), 0), Let(room, number(self.caps[0])),
                   View(view, self.queues[0], const(0)),
                   loop("i", number(self.lengths[0]), one))  # fmt: skip

    def swap(self) -> Stmt:
        return seq(store(self.lengths[0], (), load(self.lengths[1], ())), self.move(1, 0))


class Planting(Walk):
    """The references of each case are themselves the queue."""

    def __init__(self, node: Node, values: Sequence[Buffer], outs: Sequence[Buffer]) -> None:
        super().__init__(node, values)
        outs, n = list(outs), len(self.rows)
        self.places, outs = outs[:n], outs[n:]
        self.slots = [{j: outs.pop(0) for j in r.parts} for r in self.rows]
        self.table, outs = outs[0], outs[1:]
        self.out_roots, outs = outs[: len(values)], outs[len(values) :]
        edges = node.attrs.get("edges", ())
        self.origins = dict(zip(self.forest.owned(edges), outs))
        self.passed = {(k, j): on for k, j, on in edges}
        self.end = Buffer("ends", i64, (n,), "local")
        self.at, self.i = scalar("at"), scalar("i")

    def base(self, k: int) -> Expr:
        """The slot of a case's first row."""
        first = self.forest.first(self.rows[k].data)
        return sum((as_expr(b.shape[0]) for b in self.places[first:k]), as_expr(0))

    def body(self) -> list[Stmt]:
        steps = as_expr(self.table.shape[0])
        body = [*self.start(), *map(Alloc, (self.end, self.at, self.i))]
        for n, out in enumerate(self.out_roots):
            size = as_expr(out.shape[0])
            body += [put(self.i, (), 0), self.roots(n, lambda t, out=out: self.root(t, out)),
                     Assert(compare("eq", number(self.i), size), MORE, (size,))]  # fmt: skip
        body.append(put(self.at, (), steps))
        left = sum((number(self.count, k) - number(self.begin, k) for k in self.growing),
                   as_expr(0))  # fmt: skip
        n = Symbol("most")
        generation = [
            *(store(self.end, (as_expr(k),), load(self.count, (as_expr(k),)))
              for k in self.growing),
            Let(n, self.most(self.growing)), put(self.at, (), number(self.at) - sym(n)),
            self.fill(number(self.at), sym(n), self.growing), *map(self.each, self.growing),
            *(store(self.begin, (as_expr(k),), load(self.end, (as_expr(k),)))
              for k in self.growing),
        ]  # fmt: skip
        if self.growing:
            body.append(While(compare("gt", left, const(0)), seq(*generation)))
        m = Symbol("most")
        return [*body, Let(m, self.most(self.still)), self.fill(const(0), sym(m), self.still)]

    def root(self, data: DataType, out: Buffer) -> Stmt:
        size = as_expr(out.shape[0])
        return seq(Assert(compare("lt", number(self.i), size), MORE, (size,)),
                   self.push(data, out, number(self.i), const(0)),
                   put(self.i, (), number(self.i) + 1))  # fmt: skip

    def push(self, data: DataType, slots: Buffer, at: Expr, origin: Expr) -> Stmt:
        """Give what `child` holds a row, and write down its slot and its origin."""
        mine = [k for k, r in enumerate(self.rows) if r.data == data]

        def use(k: Expr) -> Stmt:
            arms = None
            for m in reversed(mine):
                row = Symbol("row")
                arm = seq(
                    Let(row, number(self.count, m)),
                    store(self.places[m], (sym(row),), load(self.child, ())),
                    put(self.count, m, sym(row) + 1), put(slots, (at,), self.base(m) + sym(row)),
                    *self.note_origin(m, sym(row), origin),
                )  # fmt: skip
                arms = arm if arms is None else If(compare("eq", k, const(m)), arm, arms)
            return arms

        return self.case(data, use)

    def note_origin(self, m: int, row: Expr, origin: Expr) -> list[Stmt]:
        return [put(self.origins[m], (row,), origin)] if m in self.origins else []

    def each(self, k: int) -> Stmt:
        """All parts of a case's rows of one generation."""
        begin = number(self.begin, k)

        def one(i: Expr) -> Stmt:
            row, slots = Symbol("parent"), self.slots[k]
            use = lambda j, t: self.push(t, slots[j], sym(row), self.origin(k, j, sym(row)))
            return seq(Let(row, begin + i), store(self.now, (), load(self.places[k], (sym(row),))),
                       self.parts(k, use))  # fmt: skip

        return loop("i", number(self.end, k) - begin, one)

    def origin(self, k: int, j: int, row: Expr) -> Expr:
        """The origin of field j of a row of case k, 0 if it has none."""
        on = self.passed.get((k, j))
        return const(0) if on is None else number(self.origins[k], row) if on else row

    def fill(self, first: Expr, count: Expr, cases: Sequence[int]) -> Stmt:
        """Steps of the table, from `begin` to `count` of some cases."""

        def one(q: Expr) -> Stmt:
            found = []
            for k in range(len(self.rows)):
                start, size = const(0), const(0)
                if k in cases:
                    end = number(self.count, k)
                    start = minimum(number(self.begin, k) + q * self.chunk, end)
                    size = minimum(end - start, self.chunk)
                found += [put(self.table, (first + q, as_expr(k), const(c)), v)
                          for c, v in enumerate((start, size))]  # fmt: skip
            return seq(*found)

        return loop("q", count, one)


class Forests:
    """The part of `Host` that walks over values; the rest of it is in `host.py`."""

    def emit_census(self, node: Node) -> Buffer:
        out = self.allocate(node, node.type, node.name or "census")
        self.body += Census(node, [self.buffer(a) for a in node.args], out).body()
        return out

    def emit_plant(self, node: Node) -> tuple[Buffer, ...]:
        outs = self.allocate_results(node, node.name or "forest")
        self.body += Planting(node, [self.buffer(a) for a in node.args], outs).body()
        return outs

    def emit_read_rows(self, node: Node) -> Buffer:
        a = node.attrs
        row = layout_of(a["types"]).rows[a["case"]]
        at = Layout(row.data.case(row.name), {}).tensors[a["position"]]
        t = row.tensors[a["position"]]
        out = self.allocate(node, node.type, node.name or "rows")
        places, one = self.buffer(node.args[0]), reference("one")
        count = as_expr(out.shape[0])

        def read(i: Expr) -> Stmt:
            view, source = part_of(one, at, t)
            to = Buffer("to", t.dtype, t.shape, "arena")
            start = i * as_expr(product(t.shape))
            return seq(store(one, (), load(places, (i,))), view, View(to, out, start),
                       Copy(to, source))  # fmt: skip

        self.body += [Alloc(one), loop("i", count, read)]
        return out

    def emit_room(self, node: Node) -> Buffer:
        return self.allocate(node, node.type, node.name or "room")
