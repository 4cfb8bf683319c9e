"""Scalar and vector values: Expr -> SSA names, inside one LLVM function.

Interned expressions make value numbering free: an expression already emitted in an enclosing scope
is reused, unless it loads from a buffer that the kernel also stores to. Index arithmetic is emitted
as far out as its symbols allow (the preheader of the loops it does not depend on). Inside a vector
loop, `lane` is the loop's symbol; what depends on it is a `<lanes x T>` value, everything else
stays scalar and is splat where it meets a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache, reduce
from operator import mul, or_

from tensorwright.base.errors import InternalError
from tensorwright.codegen.instructions import INSTRUCTIONS, Instruction
from tensorwright.codegen.operations import Operations, literal, llvm_storage, suffix
from tensorwright.ir.dtype import DType, boolean, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    bounds,
    compare,
    const,
    is_const,
    make,
    sym,
    symbols_in,
    transform,
)
from tensorwright.ir.simplify import from_linear, terms_of
from tensorwright.ir.sums import offset_of, shifted, weighted

LINE = 64  # bytes of a cache line
NEAR = 4  # vectors that are read and shuffled instead of fetching elements one by one
Loads = Mapping[Expr, None]  # an ordered set: what is emitted may not depend on addresses
NO_LOADS: Loads = {}


def is_safe_divisor(e: Expr) -> bool:
    """Whether dividing by `e` cannot fail wherever it is done."""
    return e.op == "const" or (bounds(e)[0] or 0) > 0


@cache
def lane_numbers(lanes: int) -> str:
    """The vector 0, 1, 2, .."""
    return f"<{', '.join(f'i64 {k}' for k in range(lanes))}>"


def row_major(shape: tuple, indices: tuple[Expr, ...]) -> Expr:
    """The place of an element in memory, in elements."""
    steps = steps_of(shape)
    if steps is not None:
        return weighted(indices, steps)
    total = const(0)
    for i, d in zip(indices, shape):
        total = total * as_expr(d) + i
    return total


def steps_of(shape: tuple) -> list[int] | None:
    """Elements from one index to the next, in each dimension; None if a size is not known."""
    if not all([type(d) is int for d in shape]):
        return None
    steps = [1] if shape else []
    for d in reversed(shape[1:]):
        steps.append(steps[-1] * d)
    return steps[::-1]


class Values(Operations):
    def legal(self, e: Expr) -> Expr:
        return self.legalize(e)

    def varies(self, e: Expr) -> bool:
        """Whether the value differs between the lanes of the present vector loop."""
        return self.lane is not None and self.lane in symbols_in(e)

    def is_pure(self, e: Expr) -> bool:
        """Whether the value stays the same wherever it is computed again."""
        return all([x.value in self.readonly for x in self.loads_of(e)])

    def loads_of(self, e: Expr) -> Loads:
        """The loads inside an expression, in an order that each process finds them in."""
        found = self.loaded.get(e)
        if found is None:
            own = {e: None} if e.op == "load" else NO_LOADS
            below = [x for x in map(self.loads_of, e.args) if x]
            if len(below) == 1 and not own:
                found = below[0]
            else:
                found = reduce(or_, below, own)
            self.loaded[e] = found
        return found

    def enter_lanes(self, symbol: Symbol, lanes: int, begin: str) -> None:
        self.lane, self.lanes, self.lane_begin = symbol, lanes, begin
        self.symbols[symbol] = begin
        self.lane_vector = lane_numbers(lanes)
        if begin != "0":
            v = self.fresh()
            splat = self.splat(begin, "i64")
            self.emit(f"{v} = add nsw <{lanes} x i64> {splat}, {self.lane_vector}")
            self.lane_vector = v

    def leave_lanes(self) -> None:
        self.lane, self.lanes = None, 0

    def flat(self, b: Buffer, indices) -> Expr:
        """The row-major element offset of a subscript."""
        key = (b, indices)
        found = self.flats.get(key)
        if found is None:
            found = self.flats[key] = self.new_flat(b, indices)
        return found

    def new_flat(self, b: Buffer, indices: tuple[Expr, ...]) -> Expr:
        """The same. Copies of a loop's body differ in constants, which leave the rest of the sum as
        it is."""
        if b not in self.steps:
            self.steps[b] = steps_of(b.shape)
        steps = self.steps[b]
        if steps is None or not indices:
            return self.legal(row_major(b.shape, indices))
        rests, constants = zip(*[offset_of(i) for i in indices])
        base = self.bases.get((b, rests))
        if base is None:
            terms = [const(0) if r is None else r for r in rests]
            base = self.bases[b, rests] = self.legal(weighted(terms, steps))
        return shifted(base, sum(map(mul, constants, steps)))

    def address(self, b: Buffer, flat: Expr) -> str:
        """Pointer to an element; constant parts of the offset stay literal for the addressing."""
        base, offset = offset_of(flat)
        p = self.pointers[b]
        if base is not None:
            key = ("address", b, base)
            found = self.remembered(key)
            if found is None:
                found, t = self.fresh(), llvm_storage(b.dtype)
                self.emit(f"{found} = getelementptr inbounds {t}, ptr {p}, i64 {self.scalar(base)}")
                self.remember(key, base, found)
            p = found
        if offset == 0:
            return p
        return self.op(f"getelementptr inbounds {llvm_storage(b.dtype)}, ptr {p}, i64 {offset}")

    def address_bytes(self, base: str, offset: Expr) -> str:
        p = self.fresh()
        self.emit(
            f"{p} = getelementptr inbounds i8, ptr {base}, i64 {self.scalar(self.legal(offset))}"
        )
        return p

    def lane_stride(self, flat: Expr) -> tuple[int, Expr] | None:
        """(stride, flat without the lane) if `flat` is affine in the lane with a constant
        factor."""
        sum_, offset = offset_of(flat)
        if sum_ is None:
            return 0, flat
        key = (sum_, self.lane)
        if key not in self.strides:
            self.strides[key] = self.sum_stride(sum_)
        found = self.strides[key]
        return None if found is None else (found[0], found[1] + offset)

    def sum_stride(self, e: Expr) -> tuple[int, Expr] | None:
        """`lane_stride` of a sum without a constant."""
        terms, offset = terms_of(e)
        stride, rest = 0, {}
        for atom, c in terms.items():
            if atom.op == "sym" and atom.value is self.lane:
                stride = c
            elif self.varies(atom):
                return None
            else:
                rest[atom] = c
        return stride, from_linear(rest, offset)

    def scalar(self, e: Expr) -> str:
        """The SSA name (or literal) of a value that is the same in all lanes."""
        if e.op == "const":
            return literal(e.value, e.dtype)
        if e.op == "sym":
            if e.value not in self.symbols:
                raise InternalError(f"the size {e.value.name} is used where it is not known yet")
            return self.symbols[e.value]
        found = self.remembered(e)
        if found is not None:
            return found
        if e.dtype is index and self.can_hoist(e):
            with self.hoisted(e):
                value = self.cache[-1][e] = self.emit_value(e, 0)
            return value
        value = self.emit_value(e, 0)
        self.remember(e, e, value)
        return value

    def can_hoist(self, e: Expr) -> bool:
        if len(self.levels) < 2:
            return False
        found = self.safe_symbols(e)
        if found is None:
            return False
        return max((self.level_of.get(s, 99) for s in found), default=0) < len(self.levels) - 1

    def safe_symbols(self, e: Expr) -> frozenset[Symbol] | None:
        """The symbols in an expression that can be computed anywhere (no operation on sizes traps,
        and none but a load depends on where it is), None if it cannot."""
        if e not in self.safe:
            below = [self.safe_symbols(a) for a in e.args]
            traps = e.op in ("floordiv", "mod") and not is_safe_divisor(e.args[1])
            safe = e.dtype in (index, boolean) and e.op != "load" and not traps
            own = (e.value,) if e.op == "sym" else ()
            self.safe[e] = frozenset(own).union(*below) if safe and None not in below else None
        return self.safe[e]

    def hoisted(self, *es: Expr):
        """Emit into the preheader of the outermost loop that no expression depends on."""
        symbols = frozenset().union(*map(self.safe_symbols, es))
        return self.at_level(max((self.level_of[s] for s in symbols), default=0))

    def vector(self, e: Expr) -> str:
        """The `<lanes x T>` value of an expression that varies."""
        if e.op == "sym":
            return self.lane_vector
        found = self.known_vector(e)
        if found is None:
            found = self.emit_value(e, self.lanes)
            self.remember(self.vector_key(e, self.mask), e, found)
        return found

    def vector_key(self, e: Expr, mask: str | None) -> tuple:
        return (self.lanes, e, mask if self.loads_of(e) else None)

    def known_vector(self, e: Expr) -> str | None:
        """The vector if it was computed under the present mask or one around it."""
        for mask in (self.mask, *reversed(self.outer_masks)):
            found = self.remembered(self.vector_key(e, mask))
            if found is not None or not self.loads_of(e):
                return found
        return None

    def is_available(self, load: Expr) -> bool:
        """Whether a load was done already where its value can be reused."""
        known = self.known_vector(load) if self.varies(load) else self.remembered(load)
        return known is not None

    def widen(self, e: Expr) -> str:
        """The value as a vector: itself, or a splat."""
        if self.lanes == 0:
            return self.scalar(e)
        if self.varies(e):
            return self.vector(e)
        if e.op == "const":
            return self.splat_const(e)
        key = (self.lanes, e)
        found = self.remembered(key)
        if found is None:
            found = self.splat(self.scalar(e), e.dtype.llvm)
            self.remember(key, e, found)
        return found

    def emit_value(self, e: Expr, lanes: int) -> str:
        if e.op == "load":
            flat = self.flat(e.value, e.args)
            return self.load_vector(e, flat) if lanes else self.load_scalar(e.value, flat)
        if e.op == "select":
            return self.select(e, lanes)
        if e.op == "call" and e.value == "join" and self.are_neighbours(*e.args):
            return self.load_joined(e, lanes)
        get = self.widen if lanes else self.scalar
        operands = [get(a) for a in e.args]
        return self.operation(e, operands, lanes)

    def instruction(self, e: Expr, v: list[str], lanes: int) -> str:
        """A function that the target has an instruction for (else it was expanded before), if it
        comes in so many lanes."""
        known = INSTRUCTIONS[e.value]
        if lanes not in known.name and known.resizes:
            widest = max(known.name)
            return (self.in_parts if lanes > widest else self.part_of_wider)(e, v, lanes)
        if lanes not in known.name:
            expanded = self.legal(known.expand(*e.args))
            return self.widen(expanded) if lanes else self.scalar(expanded)
        before, behind = known.around(lanes)
        operands = [self.as_parts(a, x, known, lanes) for a, x in zip(e.args, v)]
        operands = [*before, *operands, *behind]
        result = self.type(e.dtype, lanes)
        types = ", ".join(t for t, _ in operands)
        self.module.declare(f"declare {result} @{known.name[lanes]}({types})")
        args = ", ".join(f"{t} {x}" for t, x in operands)
        return self.op(f"call {result} @{known.name[lanes]}({args})")

    def part_of_wider(self, e: Expr, v: list[str], lanes: int) -> str:
        """The instruction in the fewest lanes that it comes in, of which the first are used."""
        wide = min(n for n in INSTRUCTIONS[e.value].name if n > lanes)
        operands = []
        for a, x in zip(e.args, v):
            if lanes:
                operands.append(self.lanes_of(x, a.dtype, lanes, 0, wide))
            else:
                into, one = self.type(a.dtype, wide), self.type(a.dtype, 0)
                operands.append(self.op(f"insertelement {into} poison, {one} {x}, i32 0"))
        found = self.instruction(e, operands, wide)
        if lanes:
            return self.lanes_of(found, e.dtype, wide, 0, lanes)
        return self.op(f"extractelement {self.type(e.dtype, wide)} {found}, i32 0")

    def in_parts(self, e: Expr, v: list[str], lanes: int) -> str:
        """The instruction in the most lanes that it comes in, several times."""
        most, parts = max(INSTRUCTIONS[e.value].name), []
        for first in range(0, lanes, most):
            operands = [self.lanes_of(x, a.dtype, lanes, first, most) for a, x in zip(e.args, v)]
            part = self.instruction(e, operands, most)
            parts.append(self.lanes_of(part, e.dtype, most, -first, lanes))
        whole, joined = self.type(e.dtype, lanes), parts[0]
        for k, part in enumerate(parts[1:], 1):
            order = ", ".join(f"i32 {n + lanes * (n >= k * most)}" for n in range(lanes))
            joined = self.op(
                f"shufflevector {whole} {joined}, {whole} {part}, <{lanes} x i32> <{order}>"
            )
        return joined

    def lanes_of(self, value: str, t: DType, lanes: int, first: int, count: int) -> str:
        """So many lanes of a vector from the first on; those it does not have are undefined."""
        places = range(first, first + count)
        order = ", ".join(f"i32 {n}" if 0 <= n < lanes else "i32 poison" for n in places)
        type_ = self.type(t, lanes)
        return self.op(f"shufflevector {type_} {value}, {type_} poison, <{count} x i32> <{order}>")

    def as_parts(self, e: Expr, value: str, known: Instruction, lanes: int) -> tuple[str, str]:
        """(type, value) of an operand, its words taken apart."""
        type_ = self.type(e.dtype, lanes)
        part, count = known.words
        if count == 1 or e.dtype.is_float:
            return type_, value
        parts = f"<{lanes * count} x {part}>"
        return parts, self.op(f"bitcast {type_} {value} to {parts}")

    def select(self, e: Expr, lanes: int) -> str:
        cond, a, b = e.args
        if lanes and self.varies(cond):
            return self.masked_select(e, self.vector(cond))
        if self.must_guard(a) or self.must_guard(b):
            return self.branching_select(e, lanes)
        get = self.widen if lanes else self.scalar
        type_ = self.type(e.dtype, lanes)
        c = self.scalar(cond)
        return self.op(f"select i1 {c}, {type_} {get(a)}, {type_} {get(b)}")

    def must_guard(self, e: Expr) -> bool:
        """Whether evaluating `e` where the program would not could read outside a buffer."""
        return any(not (self.is_inside(x) or self.is_available(x)) for x in self.loads_of(e))

    def is_inside(self, load: Expr) -> bool:
        """Whether the subscripts are known to be within the buffer."""
        found = self.inside.get(load)
        if found is None:
            found = self.inside[load] = all(
                is_const(compare("le", const(0), i), True)
                and is_const(compare("lt", i, as_expr(d)), True)
                for i, d in zip(load.args, load.value.shape)
            )
        return found

    def masked_select(self, e: Expr, mask: str) -> str:
        other = self.loads_of(e.args[2])
        for x in self.loads_of(e.args[1]):
            if x in other:
                self.widen(x)  # every lane needs it
        arms = []
        for arm, inverted in ((e.args[1], False), (e.args[2], True)):
            if self.must_guard(arm):
                with self.masked(self.invert(mask) if inverted else mask):
                    arms.append(self.widen(arm))
            else:
                arms.append(self.widen(arm))
        return self.choose(mask, arms[0], arms[1], e.dtype)

    @contextmanager
    def masked(self, mask: str):
        """Restrict loads and stores to the lanes of `mask` as well."""
        outer = self.mask
        self.outer_masks.append(outer)
        self.mask = mask if outer is None else self.both(outer, mask)
        yield
        self.mask = outer
        self.outer_masks.pop()

    def choose(self, mask: str, a: str, b: str, t: DType) -> str:
        type_ = self.type(t, self.lanes)
        return self.op(f"select <{self.lanes} x i1> {mask}, {type_} {a}, {type_} {b}")

    def invert(self, mask: str) -> str:
        return self.op(f"xor <{self.lanes} x i1> {mask}, splat (i1 true)")

    def both(self, a: str, b: str) -> str:
        return self.op(f"and <{self.lanes} x i1> {a}, {b}")

    def branching_select(self, e: Expr, lanes: int) -> str:
        """Evaluate one arm only; the condition is the same for all lanes."""
        cond, a, b = e.args
        get = self.widen if lanes else self.scalar
        c = self.scalar(cond)
        labels = self.label("yes"), self.label("no")
        done = self.label("chosen")
        self.emit(f"br i1 {c}, label %{labels[0]}, label %{labels[1]}")
        incoming = []
        for label, arm in zip(labels, (a, b)):
            self.open(label)
            with self.scope():
                v = get(arm)
            incoming.append(f"[ {v}, %{self.block} ]")
            self.emit(f"br label %{done}")
        self.open(done)
        return self.op(f"phi {self.type(e.dtype, lanes)} {', '.join(incoming)}")

    def load_scalar(self, b: Buffer, flat: Expr) -> str:
        p = self.address(b, flat)
        v = self.op(f"load {llvm_storage(b.dtype)}, ptr {p}, align {b.dtype.bytes}")
        return self.op(f"trunc i8 {v} to i1") if b.dtype is boolean else v

    def load_vector(self, e: Expr, flat: Expr) -> str:
        b, n = e.value, self.lanes
        storage = llvm_storage(b.dtype)
        wide = f"<{n} x {storage}>"
        strided = self.lane_stride(flat)
        if strided is not None and strided[0] == 1:
            p = self.lane_address(b, strided[1])
            if self.mask is None or self.is_inside(e):  # a masked load would keep `b` in memory
                v = self.op(f"load {wide}, ptr {p}, align {b.dtype.bytes}")
            else:
                v = self.intrinsic_masked("load", wide, b.dtype.bytes, p)
        elif (near := self.near_lanes(e, flat)) is not None:
            v = self.shuffled_load(b, wide, *self.in_vector(*near))
        else:
            v = self.intrinsic_masked("gather", wide, b.dtype.bytes, self.lane_pointers(b, flat))
        return self.op(f"trunc {wide} {v} to <{n} x i1>") if b.dtype is boolean else v

    def are_neighbours(self, low: Expr, high: Expr) -> bool:
        """Whether two loads read one element and the next."""
        if not (low.op == high.op == "load" and low.value is high.value):
            return False
        return is_const(self.flat(high.value, high.args) - self.flat(low.value, low.args), 1)

    def load_joined(self, e: Expr, lanes: int) -> str:
        """Two neighbours of 16 bits as one load."""
        b, flat = e.args[0].value, self.flat(e.args[0].value, e.args[0].args)
        if not lanes:
            return self.op(f"load i32, ptr {self.address(b, flat)}, align {b.dtype.bytes}")
        wide = f"<{lanes} x i32>"
        strided = self.lane_stride(flat)
        near = self.near_pairs(e, flat) if strided is None else None
        if near is not None:
            return self.shuffled_load(b, wide, *near, word=2)
        if strided is None or strided[0] != 2 or self.lane_begin != "0":
            pointers = self.lane_pointers(b, flat)
            return self.intrinsic_masked("gather", wide, b.dtype.bytes, pointers)
        p = self.address(b, strided[1])
        if self.mask is not None:
            return self.intrinsic_masked("load", wide, b.dtype.bytes, p)
        return self.op(f"load {wide}, ptr {p}, align {b.dtype.bytes}")

    def near_lanes(self, e: Expr, flat: Expr) -> tuple[Expr, list[int]] | None:
        """(first element, offset of each lane from it) if all lanes read from as many elements in a
        row as a few vectors hold, in a pattern that is known; all of these may be loaded."""
        if self.mask is not None and not self.is_inside(e):
            return None
        places = [transform(flat, {sym(self.lane): const(k)}.get) for k in range(self.lanes)]
        offsets = [at - places[0] for at in places]
        if self.lane_begin != "0" or not all(map(is_const, offsets)):
            return None
        low = min(o.value for o in offsets)
        steps = [o.value - low for o in offsets]
        return (places[0] + low, steps) if max(steps) < NEAR * self.lanes else None

    def in_vector(self, first: Expr, steps: list[int]) -> tuple[Expr, list[int]]:
        """The same from the beginning of a whole vector of the buffer on, if they are known to lie
        in one: what is loaded from there comes from one line."""
        begin = self.legal(first % self.lanes)
        if not is_const(begin) or begin.value + max(steps) >= self.lanes:
            return first, steps
        return first - begin, [step + begin.value for step in steps]

    def near_pairs(self, e: Expr, flat: Expr) -> tuple[Expr, list[int]] | None:
        """The same for neighbours that are joined: (first element, offsets in words)."""
        if self.mask is not None and not self.is_inside(e.args[1]):
            return None
        near = self.near_lanes(e.args[0], flat)
        if near is None or any(step % 2 for step in near[1]):
            return None
        return near[0], [step // 2 for step in near[1]]

    def shuffled_load(
        self, b: Buffer, wide: str, first: Expr, steps: list[int], word: int = 1
    ) -> str:
        """Loads of the elements that some lane reads (of words of so many), put in order."""
        n, count = self.lanes, max(steps) + 1
        if count > n:
            return self.shuffled_loads(b, wide, first, steps, word)
        order = ", ".join(f"i32 {k}" for k in steps)
        p = self.address(b, self.legal(first))
        if count == n:
            v = self.op(f"load {wide}, ptr {p}, align {b.dtype.bytes}")
        else:
            few = range(min(steps), count)
            wanted = ", ".join(f"i1 {'true' if k in few else 'false'}" for k in range(n))
            v = self.masked_access("load", wide, b.dtype.bytes, p, f"<{wanted}>")
        return self.op(f"shufflevector {wide} {v}, {wide} poison, <{n} x i32> <{order}>")

    def shuffled_loads(self, b: Buffer, wide: str, first: Expr, steps: list[int], word: int) -> str:
        """Vectors that cover the elements, the last one ending where they end, and what the lanes
        read of each."""
        n, last, v = self.lanes, max(steps) + 1 - self.lanes, ""
        for begin in (*range(0, last, n), last):
            p = self.address(b, self.legal(first + begin * word))
            part = self.op(f"load {wide}, ptr {p}, align {b.dtype.bytes}")
            known = v or part
            order = ", ".join(
                f"i32 {n + s - begin if begin <= s < begin + n else k}"
                if v else f"i32 {s if s < n else 0}" for k, s in enumerate(steps))  # fmt: skip
            v = self.op(f"shufflevector {wide} {known}, {wide} {part}, <{n} x i32> <{order}>")
        return v

    def lane_address(self, b: Buffer, rest: Expr) -> str:
        """Pointer of lane 0: the offset without the lane, plus where the lanes begin."""
        p = self.address(b, rest)
        if self.lane_begin == "0":
            return p
        return self.op(
            f"getelementptr inbounds {llvm_storage(b.dtype)}, ptr {p}, i64 {self.lane_begin}"
        )

    def lane_pointers(self, b: Buffer, flat: Expr) -> str:
        offsets = self.vector(flat)
        t = llvm_storage(b.dtype)
        return self.op(f"getelementptr {t}, ptr {self.pointers[b]}, <{self.lanes} x i64> {offsets}")

    def mask_value(self) -> str:
        return self.mask or "splat (i1 true)"

    def intrinsic_masked(self, kind: str, wide: str, align: int, p: str) -> str:
        return self.masked_access(kind, wide, align, p, self.mask_value())

    def masked_access(self, kind: str, wide: str, align: int, p: str, mask: str) -> str:
        n = self.lanes
        pointer = "ptr" if kind == "load" else f"<{n} x ptr>"
        mangled = f"{suffix(wide)}.{'p0' if kind == 'load' else f'v{n}p0'}"
        name = f"llvm.masked.{kind}.{mangled}"
        self.module.declare(f"declare {wide} @{name}({pointer}, <{n} x i1>, {wide})")
        return self.op(
            f"call {wide} @{name}({pointer} align {align} {p}, <{n} x i1> {mask}, "
            f"{wide} zeroinitializer)"
        )

    def store_scalar(self, b: Buffer, flat: Expr, value: Expr) -> None:
        self.store_value(b, flat, self.scalar(value))

    def store_value(self, b: Buffer, flat: Expr, v: str) -> None:
        if b.dtype is boolean:
            v = self.op(f"zext i1 {v} to i8")
        p = self.address(b, flat)
        self.emit(f"store {llvm_storage(b.dtype)} {v}, ptr {p}, align {b.dtype.bytes}")

    def goes_past(self, b: Buffer, first: Expr) -> str:
        """How a whole vector from element `first` on is stored past the caches; empty if `b` is not
        stored so, or the vector may lie across the end of a line."""
        size = min(self.lanes * b.dtype.bytes, LINE)
        whole = LINE % size == 0 == self.lanes * b.dtype.bytes % size
        if b not in self.streamed or self.lane_begin != "0" or not whole:
            return ""
        if not is_const(self.legal(first % self.lanes), 0):
            return ""
        self.has_streamed = True
        return f"align {size}, !nontemporal !0"

    def store_vector(self, b: Buffer, flat: Expr, value: Expr) -> None:
        n, storage = self.lanes, llvm_storage(b.dtype)
        wide, align = f"<{n} x {storage}>", b.dtype.bytes
        v = self.widen(value)
        if b.dtype is boolean:
            v = self.op(f"zext <{n} x i1> {v} to {wide}")
        strided = self.lane_stride(flat)
        if strided is not None and strided[0] == 1:
            p = self.lane_address(b, strided[1])
            if self.mask is None:
                past = self.goes_past(b, strided[1])
                self.emit(f"store {wide} {v}, ptr {p}, " + (past or f"align {align}"))
                return
            kind, pointer, mangled = "store", "ptr", f"{suffix(wide)}.p0"
        else:
            p = self.lane_pointers(b, flat)
            kind, pointer, mangled = "scatter", f"<{n} x ptr>", f"{suffix(wide)}.v{n}p0"
        name = f"llvm.masked.{kind}.{mangled}"
        self.module.declare(f"declare void @{name}({wide}, {pointer}, <{n} x i1>)")
        self.emit(
            f"call void @{name}({wide} {v}, {pointer} align {align} {p}, "
            f"<{n} x i1> {self.mask_value()})"
        )

    def named(self, value: str, t: DType) -> Expr:
        """An SSA value of the present statement as an expression."""
        e = make("load", t, (), Buffer("value", t, (), "local"))
        self.remember(e, e, value)
        return e
