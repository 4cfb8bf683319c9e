"""Vectors of a matrix's columns, as many at a time as 16 bytes hold: rows are loaded (stored) in
parts of so many elements and transposed in registers, where a gather (scatter) would access each
element by itself.

    for l in vector(16): for i in unroll(4): y[i, l] = x[l, i]
->  16 loads of <4 x T>, shuffled to 4 vectors of 16, 4 stores
    for l in vector(16): for i in unroll(4): y[l, i] = x[i, l]
->  4 loads, 4 vectors of 16 shuffled to 16 of <4 x T>, 16 stores
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tensorwright.codegen.operations import llvm_storage
from tensorwright.codegen.values import Values
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import Buffer, Expr, const, is_const, sym, transform, walk
from tensorwright.ir.simplify import terms_of
from tensorwright.ir.sums import put

PART_BYTES = 16  # shuffled together: a part of a vector that shuffles do not leave
FEWEST = 4  # elements of such a part


def copy_at(s: ir.For, place: Expr, parts: dict) -> ir.Stmt:
    """The body of a loop for one iteration; `parts` is what all of them share."""
    memo: dict = {}
    return ir.map_expressions(s.body, lambda e: put(e, s.var, place, memo, parts))


def certain(e: Expr) -> set[Expr]:
    """The loads in an expression that are done whatever it chooses."""
    if e.op == "load":
        return {e}
    below = e.args[:1] if e.op == "select" else e.args
    return set().union(*map(certain, below))


class Columns(Values):
    """Adds to `Values` what knows that neighbouring columns are wanted."""

    def unrolled(self, s: ir.For) -> None:
        """The copies of an unrolled loop's body."""
        columns = self.wanted_columns(s)
        step = self.step_of_lanes(s)
        if step == s.extent.value and step <= FEWEST and self.mask is None:
            self.store_rows(s)
            return
        if step and self.part(s.body.buffer, s):
            self.store_columns(s, columns)
            return
        parts: dict = {}
        for k in range(s.extent.value):
            self.load_parts(s, columns, k)
            self.stmt(copy_at(s, s.begin + k, parts))

    def load_parts(self, s: ir.For, columns: list[Expr], k: int) -> None:
        """What the copies from the k-th on (or the last ones) read of columns."""
        for e in columns:
            count = self.part(e.value, s)
            if k % count == 0:
                first = min(k, s.extent.value - count)
                self.load_columns([self.at(e, s, first + c) for c in range(count)])

    def part(self, b: Buffer, s: ir.For) -> int:
        """How many elements of `b`, one for each copy of the body, are shuffled together; 0 for
        those that are not."""
        if self.lane is None or b.dtype.bytes > PART_BYTES // FEWEST:
            return 0
        count = PART_BYTES // b.dtype.bytes
        while count >= FEWEST and (count > s.extent.value or self.lanes % count):
            count //= 2
        return count if count >= FEWEST else 0

    def at(self, e: Expr, s: ir.For, k: int) -> Expr:
        """`e` in the k-th copy of the body."""
        here = s.begin + k
        return transform(e, lambda x: here if x is sym(s.var) else None)

    def wanted_columns(self, s: ir.For) -> list[Expr]:
        """The loads in the body of which a step of the loop is the next element, and a step of the
        lane some other distance."""
        if self.lane is None or not is_const(s.begin) or not isinstance(s.body, ir.Store):
            return []
        value, found = self.legal(s.body.value), []
        for e in self.loads_of(value):
            flat = self.flat(e.value, e.args)
            strided = self.lane_stride(flat)
            known = self.is_inside(e) or (self.mask is None and e in certain(value))
            if self.part(e.value, s) and e.value in self.readonly and known and (
                    strided is not None and strided[0] not in (0, 1)
                    and terms_of(flat)[0].get(sym(s.var)) == 1):  # fmt: skip
                found.append(e)
        return found

    def load_columns(self, loads: list[Expr]) -> None:
        """Remember the vectors of neighbouring columns, as many as a part has elements."""
        b, n, count = loads[0].value, self.lanes, len(loads)
        element, groups = llvm_storage(b.dtype), n // count
        rows = [self.row_part(b, loads[0], l, f"<{count} x {element}>") for l in range(n)]
        # register j: the parts of rows j, j + count, j + 2 count, ..
        wide = f"<{n} x {element}>"
        registers = [
            self.joined([rows[count * g + j] for g in range(groups)], count, element)
            for j in range(count)
        ]
        columns = self.transposed_parts(registers, wide)
        for e, v in zip(loads, columns):
            if b.dtype is boolean:
                v = self.op(f"trunc {wide} {v} to <{n} x i1>")
            self.remember(self.vector_key(e, self.mask), e, v)

    def transposed_parts(self, v: list[str], wide: str) -> list[str]:
        """As many vectors as a part has elements, with each square block of theirs transposed:
        halves of them are interleaved until each vector was with every other."""
        n, count = self.lanes, len(v)

        def interleaved(a: str, b: str, begin: int) -> str:
            pairs = [(begin + k, n + begin + k) for k in range(count // 2)]
            order = [k + count * g for g in range(n // count) for pair in pairs for k in pair]
            return self.shuffled(a, b, wide, order)

        for _ in range(count.bit_length() - 1):
            halves = zip(v[: count // 2], v[count // 2 :])
            v = [interleaved(a, b, begin) for a, b in halves for begin in (0, count // 2)]
        return v

    def row_part(self, b: Buffer, e: Expr, lane: int, part: str) -> str:
        flat = self.flat(b, e.args)
        place = transform(flat, lambda x: const(lane) if x is sym(self.lane) else None)
        p = self.address(b, self.legal(place))
        if self.lane_begin != "0":
            stride, _ = self.lane_stride(flat)
            offset = self.op(f"mul nsw i64 {self.lane_begin}, {stride}")
            element = llvm_storage(b.dtype)
            p = self.op(f"getelementptr inbounds {element}, ptr {p}, i64 {offset}")
        return self.op(f"load {part}, ptr {p}, align {b.dtype.bytes}")

    def step_of_lanes(self, s: ir.For) -> int:
        """How far from each other lanes store, where the copies of the body store one element after
        another for each of them; 0 for what is not stored so."""
        own, store = sym(s.var), s.body
        if not isinstance(store, ir.Store) or self.lane_begin != "0":
            return 0
        if self.lane is None or s.extent.value < 2 or ir.update(store) is not None:
            return 0
        value, flat = self.legal(store.value), self.flat(store.buffer, store.indices)
        strided, step = self.lane_stride(flat), terms_of(flat)[0].get(own)
        near = strided is None or strided[0] in (0, 1)
        alone = all(own is t or own not in walk(t) for t in terms_of(flat)[0])
        reads = any(e.value is store.buffer for e in self.loads_of(value))
        fits = self.varies(flat) and not near and step == 1 and alone and not reads
        return strided[0] if fits else 0

    def store_rows(self, s: ir.For) -> None:
        """The unrolled stores of a few columns, which all lanes together store without a gap, in
        whole vectors."""
        b, n, count = s.body.buffer, self.lanes, s.extent.value
        values = [self.stored(s, k) for k in range(count)]
        element, flat = llvm_storage(b.dtype), self.flat(b, s.body.indices)
        first = self.legal(transform(flat, {sym(self.lane): const(0), sym(s.var): s.begin}.get))
        for part in range(count):
            places = range(part * n, part * n + n)
            row = values[0]
            for k in range(1, count):  # what is not in its place yet is anything
                order = [n + p // count if p % count == k else p // count if k == 1 else p % n
                         for p in places]  # fmt: skip
                row = self.shuffled(row, values[k], f"<{n} x {element}>", order)
            p = self.address(b, first + part * n)
            self.emit(f"store <{n} x {element}> {row}, ptr {p}, align {b.dtype.bytes}")

    def stored(self, s: ir.For, k: int) -> str:
        """What the k-th copy of the body stores, as it lies in memory."""
        v = self.widen(self.legal(self.at(s.body.value, s, k)))
        if s.body.buffer.dtype is boolean:
            return self.op(f"zext <{self.lanes} x i1> {v} to <{self.lanes} x i8>")
        return v

    def store_columns(self, s: ir.For, columns: list[Expr]) -> None:
        """The unrolled stores, as many columns at a time as a part holds; the last of them again
        where that does not divide their number."""
        b, n, extent = s.body.buffer, self.lanes, s.extent.value
        element, values, count = llvm_storage(b.dtype), [], self.part(b, s)
        for k in range(extent):
            self.load_parts(s, columns, k)
            values.append(self.stored(s, k))
        wide, flat = f"<{n} x {element}>", self.flat(b, s.body.indices)
        for k in (*range(0, extent - count, count), extent - count):
            parts = self.transposed_parts(values[k : k + count], wide)
            for lane in range(n):
                first = count * (lane // count)
                order = range(first, first + count)
                row = self.shuffled(parts[lane % count], parts[lane % count], wide, order)
                here = {sym(self.lane): const(lane), sym(s.var): s.begin + k}
                p = self.address(b, self.legal(transform(flat, here.get)))
                with self.if_lane(lane):
                    self.emit(f"store <{count} x {element}> {row}, ptr {p}, align {b.dtype.bytes}")

    @contextlib.contextmanager
    def if_lane(self, lane: int) -> Iterator[None]:
        """What is done only if the mask, if there is one, has a lane."""
        if self.mask is None:
            yield
            return
        taken, done = self.label("lane"), self.label("done")
        bit = self.op(f"extractelement <{self.lanes} x i1> {self.mask}, i32 {lane}")
        self.emit(f"br i1 {bit}, label %{taken}, label %{done}")
        self.open(taken)
        yield
        self.emit(f"br label %{done}")
        self.open(done)

    def joined(self, parts: list[str], width: int, element: str) -> str:
        """One vector of several of `width` elements, pair by pair."""
        while len(parts) > 1:
            wide, order = f"<{width} x {element}>", list(range(2 * width))
            parts = [self.shuffled(a, b, wide, order) for a, b in zip(parts[::2], parts[1::2])]
            width *= 2
        return parts[0]

    def shuffled(self, a: str, b: str, wide: str, order: Sequence[int]) -> str:
        steps = ", ".join(f"i32 {k}" for k in order)
        return self.op(f"shufflevector {wide} {a}, {wide} {b}, <{len(order)} x i32> <{steps}>")
