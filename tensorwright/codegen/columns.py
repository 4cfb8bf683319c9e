"""Vectors of a matrix's columns, four at a time: rows are loaded (stored) in quarters of a vector
and transposed in registers, where a gather (scatter) would access each element by itself.

    for l in vector(16): for i in unroll(4): y[i, l] = x[l, i]
->  16 loads of <4 x T>, shuffled to 4 vectors of 16, 4 stores
    for l in vector(16): for i in unroll(4): y[l, i] = x[i, l]
->  4 loads, 4 vectors of 16 shuffled to 16 of <4 x T>, 16 stores
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.codegen.operations import llvm_storage
from tensorwright.codegen.values import Values
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, const, is_const, sym, transform, walk
from tensorwright.ir.simplify import linear
from tensorwright.ir.sums import put

QUAD = 4  # elements that are shuffled together: a part of a vector that shuffles do not leave


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
        if self.are_columns_stored(s):
            self.store_columns(s, columns)
            return
        parts: dict = {}
        for k in range(s.extent.value):
            if k % QUAD == 0:
                self.load_quad(s, columns, k)
            self.stmt(copy_at(s, s.begin + k, parts))

    def load_quad(self, s: ir.For, columns: list[Expr], k: int) -> None:
        """What the copies from the k-th on (or the last ones) read of columns."""
        first = min(k, s.extent.value - QUAD)
        for e in columns:
            self.load_columns([self.at(e, s, first + c) for c in range(QUAD)])

    def at(self, e: Expr, s: ir.For, k: int) -> Expr:
        """`e` in the k-th copy of the body."""
        here = s.begin + k
        return transform(e, lambda x: here if x is sym(s.var) else None)

    def wanted_columns(self, s: ir.For) -> list[Expr]:
        """The loads in the body of which a step of the loop is the next element, and a step of the
        lane some other distance."""
        fits = self.lane is not None and self.lanes % QUAD == 0 and is_const(s.begin)
        if not fits or s.extent.value < QUAD or not isinstance(s.body, ir.Store):
            return []
        value, found = self.legal(s.body.value), []
        for e in self.loads_of(value):
            flat = self.flat(e.value, e.args)
            strided = self.lane_stride(flat)
            known = self.is_inside(e) or (self.mask is None and e in certain(value))
            if e.value.dtype.bytes == 4 and e.value in self.readonly and known and (
                    strided is not None and strided[0] not in (0, 1)
                    and linear(flat)[0].get(sym(s.var)) == 1):  # fmt: skip
                found.append(e)
        return found

    def load_columns(self, loads: list[Expr]) -> None:
        """Remember the vectors of `QUAD` neighbouring columns."""
        b, n = loads[0].value, self.lanes
        element, groups = llvm_storage(b.dtype), self.lanes // QUAD
        rows = [self.row_part(b, loads[0], l, element) for l in range(n)]
        # register j: the parts of rows j, j + 4, j + 8, ..
        wide = f"<{n} x {element}>"
        registers = [
            self.joined([rows[QUAD * g + j] for g in range(groups)], element) for j in range(QUAD)
        ]
        columns = self.transposed_quads(registers, wide)
        for e, v in zip(loads, columns):
            self.remember(self.vector_key(e, self.mask), e, v)

    def transposed_quads(self, v: list[str], wide: str) -> list[str]:
        """Four vectors with each 4 x 4 block of theirs transposed."""
        n, groups = self.lanes, self.lanes // QUAD
        low, high = [0, n, 1, n + 1], [2, n + 2, 3, n + 3]
        first, second = [0, 1, n, n + 1], [2, 3, n + 2, n + 3]

        def shuffle(a: str, b: str, order: list[int]) -> str:
            return self.shuffled(a, b, wide, [k + QUAD * g for g in range(groups) for k in order])

        pairs = [shuffle(v[r], v[r + 1], o) for o in (low, high) for r in (0, 2)]
        return [shuffle(pairs[p], pairs[p + 1], o) for p in (0, 2) for o in (first, second)]

    def row_part(self, b: Buffer, e: Expr, lane: int, element: str) -> str:
        flat = self.flat(b, e.args)
        place = transform(flat, lambda x: const(lane) if x is sym(self.lane) else None)
        p = self.address(b, self.legal(place))
        if self.lane_begin != "0":
            stride, _ = self.lane_stride(flat)
            offset = self.op(f"mul nsw i64 {self.lane_begin}, {stride}")
            p = self.op(f"getelementptr inbounds {element}, ptr {p}, i64 {offset}")
        return self.op(f"load <{QUAD} x {element}>, ptr {p}, align {b.dtype.bytes}")

    def are_columns_stored(self, s: ir.For) -> bool:
        """Whether the copies of the body store one element after another for each lane, and lanes
        are apart."""
        own, store = sym(s.var), s.body
        if not isinstance(store, ir.Store) or self.mask is not None or self.lane_begin != "0":
            return False
        if self.lane is None or self.lanes % QUAD or s.extent.value < QUAD:
            return False
        if store.buffer.dtype.bytes != 4 or ir.update(store) is not None:
            return False
        value, flat = self.legal(store.value), self.flat(store.buffer, store.indices)
        strided, step = self.lane_stride(flat), linear(flat)[0].get(own)
        near = strided is not None and strided[0] in (0, 1)
        alone = all(own is t or own not in walk(t) for t in linear(flat)[0])
        reads = any(e.value is store.buffer for e in self.loads_of(value))
        return self.varies(flat) and not near and step == 1 and alone and not reads

    def store_columns(self, s: ir.For, columns: list[Expr]) -> None:
        """The unrolled stores, `QUAD` columns at a time; the last of them again where `QUAD` does
        not divide their number."""
        b, n, extent = s.body.buffer, self.lanes, s.extent.value
        element, values = llvm_storage(b.dtype), []
        for k in range(extent):
            if k % QUAD == 0:
                self.load_quad(s, columns, k)
            values.append(self.widen(self.legal(self.at(s.body.value, s, k))))
        wide, flat = f"<{n} x {element}>", self.flat(b, s.body.indices)
        for k in (*range(0, extent - QUAD, QUAD), extent - QUAD):
            quads = self.transposed_quads(values[k : k + QUAD], wide)
            for lane in range(n):
                first = QUAD * (lane // QUAD)
                order = range(first, first + QUAD)
                row = self.shuffled(quads[lane % QUAD], quads[lane % QUAD], wide, order)
                here = {sym(self.lane): const(lane), sym(s.var): s.begin + k}
                p = self.address(b, self.legal(transform(flat, here.get)))
                self.emit(f"store <{QUAD} x {element}> {row}, ptr {p}, align {b.dtype.bytes}")

    def joined(self, parts: list[str], element: str) -> str:
        """One vector of several, pair by pair."""
        width = QUAD
        while len(parts) > 1:
            wide, order = f"<{width} x {element}>", list(range(2 * width))
            parts = [self.shuffled(a, b, wide, order) for a, b in zip(parts[::2], parts[1::2])]
            width *= 2
        return parts[0]

    def shuffled(self, a: str, b: str, wide: str, order: Sequence[int]) -> str:
        steps = ", ".join(f"i32 {k}" for k in order)
        return self.op(f"shufflevector {wide} {a}, {wide} {b}, <{len(order)} x i32> <{steps}>")
