"""Scalar and vector values: Expr -> SSA names, inside one LLVM function.

Interned expressions make value numbering free: an expression already emitted in an enclosing scope
is reused, unless it loads from a buffer that the kernel also stores to. Index arithmetic is emitted
as far out as its symbols allow (the preheader of the loops it does not depend on). Inside a vector
loop, `lane` is the loop's symbol; what depends on it is a `<lanes x T>` value, everything else
stays scalar and is splat where it meets a vector.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from itertools import chain

from tensorwright.base.errors import InternalError
from tensorwright.ir.dtype import DType, boolean, index
from tensorwright.ir.expr import (
    COMPARISONS, Buffer, Expr, Symbol, as_expr, bounds, compare, const, is_const, make, walk,
)  # fmt: skip
from tensorwright.ir.simplify import from_linear, linear

INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
BOOL_OPS = {"add": "or", "mul": "and"}
FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
FLOAT_UNARY = {"neg": "fneg", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
               "round": "roundeven", "sqrt": "sqrt", "abs": "fabs"}  # fmt: skip
FCMP = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
LETTER = {"double": "f64", "float": "f32"}
HALVES = {"f16": "half", "bf16": "bfloat"}


def llvm_storage(t: DType) -> str:
    """The type of an element in memory."""
    return "i8" if t is boolean else t.llvm


def suffix(type_: str) -> str:
    """The mangled name of a type in an intrinsic's name."""
    if type_.startswith("<"):
        lanes, element = type_[1:-1].split(" x ")
        return f"v{lanes}{suffix(element)}"
    return LETTER.get(type_, "p0" if type_ == "ptr" else type_)


class Values:
    def __init__(self, module, legalize, fma: bool = True):
        self.module, self.legalize, self.use_fma = module, legalize, fma
        self.lines: list = []  # strings, and lists that are filled later
        self.entry: list[str] = []
        self.block = "entry"
        self.counter = 0
        self.names: set[str] = set()
        self.pointers: dict[Buffer, str] = {}
        self.symbols: dict[Symbol, str] = {}
        self.level_of: dict[Symbol, int] = {}
        self.readonly: set[Buffer] = set()
        self.cache: list[dict] = [{}]
        # one per open loop: where index arithmetic of that level goes, and how many caches it sees
        self.levels: list[tuple[list, int]] = [(self.lines, 1)]
        self.lane: Symbol | None = None
        self.lanes = 0
        self.lane_begin = ""
        self.mask: str | None = None
        self.varying: dict[Expr, bool] = {}
        self.flats: dict = {}
        self.inside: dict[Expr, bool] = {}
        self.loaded: dict[Expr, frozenset[Expr]] = {}
        self.outer_masks: list[str | None] = []  # enclosing the present one
        self.transient: list[tuple[dict, object]] = []

    # ---- text ----------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        self.lines.append("  " + line)

    def reserve(self) -> list[str]:
        """A place for lines that are known later."""
        place: list[str] = []
        self.lines.append(place)
        return place

    def open(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def ident(self, name: str) -> str:
        """A unique LLVM identifier made from a name."""
        clean = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name) or "v"
        if clean[0].isdigit():
            clean = "_" + clean
        if clean in self.names or clean in ("ctx", "env", "lo", "hi", "frame", "entry", "exit"):
            self.counter += 1
            clean = f"{clean}.{self.counter}"
        self.names.add(clean)
        return clean

    def fresh(self, name: str = "") -> str:
        if name:
            return "%" + self.ident(name)
        self.counter += 1
        return f"%.{self.counter}"  # no identifier starts with a dot

    def label(self, name: str) -> str:
        self.counter += 1
        return f"{name}.{self.counter}"

    def body_text(self) -> str:
        def flatten(part):
            return chain.from_iterable(map(flatten, part)) if isinstance(part, list) else (part,)

        return "\n".join(["entry:", *self.entry, *flatten(self.lines)])

    def stack_slot(self, type_: str, align: int) -> str:
        p = self.fresh("slot")
        self.entry.append(f"  {p} = alloca {type_}, align {align}")
        return p

    # ---- scopes --------------------------------------------------------------------------------

    @contextmanager
    def scope(self):
        """What is emitted or bound inside is not reused outside."""
        self.cache.append({})
        saved = self.symbols, self.level_of, self.pointers
        self.symbols, self.level_of = dict(self.symbols), dict(self.level_of)
        self.pointers = dict(self.pointers)
        yield
        self.symbols, self.level_of, self.pointers = saved
        self.cache.pop()

    @contextmanager
    def preheader(self):
        """Index arithmetic that does not depend on the loop about to be opened goes here."""
        saved = self.levels[-1]
        self.levels[-1] = (self.reserve(), len(self.cache))
        yield
        self.levels[-1] = saved

    @contextmanager
    def loop_level(self):
        """The inside of a loop: one level deeper."""
        with self.scope():
            self.levels.append((self.lines, len(self.cache)))
            yield
            self.levels.pop()

    def bind(self, symbol: Symbol, value: str) -> None:
        self.symbols[symbol] = value
        self.level_of[symbol] = len(self.levels) - 1

    def remembered(self, key) -> str | None:
        for scope in reversed(self.cache):
            if key in scope:
                return scope[key]
        return None

    def remember(self, key, e: Expr, value: str) -> None:
        """Reuse `value` for `e` in this scope: for good, or only within the present statement if it
        depends on memory that statements change."""
        self.cache[-1][key] = value
        if not self.is_pure(e):
            self.transient.append((self.cache[-1], key))

    def forget(self) -> None:
        """A statement ends: what it read from memory may change."""
        for scope, key in self.transient:
            scope.pop(key, None)
        self.transient.clear()

    # ---- classification ------------------------------------------------------------------------

    def legal(self, e: Expr) -> Expr:
        return self.legalize(e)

    def varies(self, e: Expr) -> bool:
        """Whether the value differs between the lanes of the present vector loop."""
        if self.lane is None:
            return False
        known = self.varying
        if e not in known:
            for part in walk(e):
                if part not in known:
                    known[part] = (part.op == "sym" and part.value is self.lane) or any(
                        known[a] for a in part.args
                    )
        return known[e]

    def is_pure(self, e: Expr) -> bool:
        """Whether the value stays the same wherever it is computed again."""
        return all(x.value in self.readonly for x in self.loads_of(e))

    def loads_of(self, e: Expr) -> frozenset[Expr]:
        """The loads inside an expression."""
        known = self.loaded
        if e not in known:
            for part in walk(e):
                if part not in known:
                    own = frozenset((part,)) if part.op == "load" else frozenset()
                    below = [known[a] for a in part.args if known[a]]
                    known[part] = own.union(*below) if below else own
        return known[e]

    def enter_lanes(self, symbol: Symbol, lanes: int, begin: str) -> None:
        self.lane, self.lanes, self.varying, self.lane_begin = symbol, lanes, {}, begin
        steps = ", ".join(f"i64 {k}" for k in range(lanes))
        self.symbols[symbol] = begin
        if begin == "0":
            self.lane_vector = f"<{steps}>"
        else:
            v = self.fresh()
            splat = self.splat(begin, "i64")
            self.emit(f"{v} = add nsw <{lanes} x i64> {splat}, <{steps}>")
            self.lane_vector = v

    def leave_lanes(self) -> None:
        self.lane, self.lanes, self.varying = None, 0, {}

    # ---- addresses -----------------------------------------------------------------------------

    def flat(self, b: Buffer, indices) -> Expr:
        """The row-major element offset of a subscript."""
        key = (b, indices)
        if key not in self.flats:
            total = const(0)
            for i, d in zip(indices, b.shape):
                total = total * as_expr(d) + i
            self.flats[key] = self.legal(total)
        return self.flats[key]

    def address(self, b: Buffer, flat: Expr) -> str:
        """Pointer to an element; constant parts of the offset stay literal for the addressing."""
        terms, offset = linear(flat)
        base = from_linear(terms)
        t = llvm_storage(b.dtype)
        p = self.pointers[b]
        if terms:
            key = ("address", b, base)
            found = self.remembered(key)
            if found is None:
                found = self.fresh()
                self.emit(f"{found} = getelementptr inbounds {t}, ptr {p}, i64 {self.scalar(base)}")
                self.cache[-1][key] = found
            p = found
        if offset == 0:
            return p
        q = self.fresh()
        self.emit(f"{q} = getelementptr inbounds {t}, ptr {p}, i64 {offset}")
        return q

    def address_bytes(self, base: str, offset: Expr) -> str:
        p = self.fresh()
        self.emit(f"{p} = getelementptr inbounds i8, ptr {base}, i64 {self.scalar(self.legal(offset))}")
        return p

    def lane_stride(self, flat: Expr) -> tuple[int, Expr] | None:
        """(stride, flat without the lane) if `flat` is affine in the lane with a constant factor."""
        terms, offset = linear(flat)
        stride, rest = 0, {}
        for atom, c in terms.items():
            if atom.op == "sym" and atom.value is self.lane:
                stride = c
            elif self.varies(atom):
                return None
            else:
                rest[atom] = c
        return stride, from_linear(rest, offset)

    # ---- scalars -------------------------------------------------------------------------------

    def scalar(self, e: Expr) -> str:
        """The SSA name (or literal) of a value that is the same in all lanes."""
        if e.op == "const":
            return literal(e.value, e.dtype)
        if e.op == "sym":
            return self.symbols[e.value]
        found = self.remembered(e)
        if found is not None:
            return found
        if e.dtype is index and self.can_hoist(e):
            return self.hoisted(e)
        value = self.emit_value(e, 0)
        self.remember(e, e, value)
        return value

    def can_hoist(self, e: Expr) -> bool:
        if len(self.levels) < 2:
            return False
        parts = list(walk(e))
        safe = ("const", "sym", "add", "sub", "mul", "min", "max")
        if any(
            p.op not in safe and not (p.op in ("floordiv", "mod") and p.args[1].op == "const")
            for p in parts
        ):
            return False
        depth = max((self.level_of.get(p.value, 99) for p in parts if p.op == "sym"), default=0)
        return depth < len(self.levels) - 1

    def hoisted(self, e: Expr) -> str:
        """Emit into the preheader of the outermost loop that `e` does not depend on."""
        depth = max((self.level_of[p.value] for p in walk(e) if p.op == "sym"), default=0)
        place, visible = self.levels[depth]
        saved = self.lines, self.cache, self.levels, self.lane
        self.lines, self.cache, self.levels = place, self.cache[:visible], self.levels[: depth + 1]
        self.lane = None
        value = self.cache[-1][e] = self.emit_value(e, 0)
        self.lines, self.cache, self.levels, self.lane = saved
        return value

    # ---- vectors -------------------------------------------------------------------------------

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
        return ("vector", e, mask if self.loads_of(e) else None)

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
        key = ("splat", e)
        found = self.remembered(key)
        if found is None:
            found = self.splat(self.scalar(e), e.dtype.llvm)
            self.remember(key, e, found)
        return found

    def splat_const(self, e: Expr) -> str:
        return f"splat ({e.dtype.llvm} {literal(e.value, e.dtype)})"

    def splat(self, value: str, type_: str) -> str:
        if not value.startswith("%"):
            return f"splat ({type_} {value})"
        one, all_ = self.fresh(), self.fresh()
        wide = f"<{self.lanes} x {type_}>"
        self.emit(f"{one} = insertelement {wide} poison, {type_} {value}, i64 0")
        self.emit(
            f"{all_} = shufflevector {wide} {one}, {wide} poison, <{self.lanes} x i32> zeroinitializer"
        )
        return all_

    def type(self, t: DType, lanes: int) -> str:
        return f"<{lanes} x {t.llvm}>" if lanes else t.llvm

    # ---- operations ----------------------------------------------------------------------------

    def emit_value(self, e: Expr, lanes: int) -> str:
        if e.op == "load":
            flat = self.flat(e.value, e.args)
            return self.load_vector(e, flat) if lanes else self.load_scalar(e.value, flat)
        if e.op == "select":
            return self.select(e, lanes)
        get = self.widen if lanes else self.scalar
        operands = [get(a) for a in e.args]
        return self.operation(e, operands, lanes)

    def op(self, text: str) -> str:
        v = self.fresh()
        self.emit(f"{v} = {text}")
        return v

    def intrinsic(self, name: str, result: str, operands: list[tuple[str, str]], mangled=None) -> str:
        full = f"llvm.{name}.{suffix(result) if mangled is None else mangled}".rstrip(".")
        types = ", ".join(t for t, _ in operands)
        self.module.declare(f"declare {result} @{full}({types})")
        args = ", ".join(f"{t} {v}" for t, v in operands)
        return self.op(f"call {result} @{full}({args})")

    def operation(self, e: Expr, v: list[str], lanes: int) -> str:
        t = e.dtype
        type_ = self.type(t, lanes)
        source = e.args[0].dtype
        if e.op in COMPARISONS:
            return self.comparison(e.op, source, v, lanes)
        if e.op == "cast":
            return self.cast(v[0], source, t, lanes)
        if e.op == "bitcast" and self.type(source, lanes) == type_:
            return v[0]
        if e.op == "bitcast":
            return self.op(f"bitcast {self.type(source, lanes)} {v[0]} to {type_}")
        if e.op == "fma":
            return self.fma(v, t, lanes)
        if e.op == "call" and e.value == "opaque":
            return v[0]
        if e.op in ("min", "max"):
            return self.minmax(e, v, type_)
        if e.op == "isnan":
            return self.op(f"fcmp uno {self.type(source, lanes)} {v[0]}, {v[0]}")
        if e.op == "not":
            ones = self.ones(t, lanes)
            return self.op(f"xor {type_} {v[0]}, {ones}")
        if t.is_float:
            return self.float_operation(e, v, type_)
        return self.integer_operation(e, v, type_, lanes)

    def ones(self, t: DType, lanes: int) -> str:
        one = "true" if t is boolean else "-1"
        return f"splat ({t.llvm} {one})" if lanes else one

    def float_operation(self, e: Expr, v: list[str], type_: str) -> str:
        if e.op == "neg":
            return self.op(f"fneg {type_} {v[0]}")
        if e.op in FLOAT_OPS:
            return self.op(f"{FLOAT_OPS[e.op]} {type_} {v[0]}, {v[1]}")
        if e.op in FLOAT_UNARY:
            return self.intrinsic(FLOAT_UNARY[e.op], type_, [(type_, v[0])])
        raise InternalError(f"no code for {e.op} of {e.dtype}")

    def integer_operation(self, e: Expr, v: list[str], type_: str, lanes: int) -> str:
        op, t = e.op, e.dtype
        if t is boolean:
            op = BOOL_OPS.get(op, op)
        if op in INT_OPS:
            flags = " nsw" if t is index and op in ("add", "mul", "sub") else ""
            return self.op(f"{INT_OPS[op]}{flags} {type_} {v[0]}, {v[1]}")
        if op == "neg":
            zero = "zeroinitializer" if lanes else "0"
            return self.op(f"sub {type_} {zero}, {v[0]}")
        if op == "abs":
            return v[0] if not t.is_signed else self.intrinsic(
                "abs", type_, [(type_, v[0]), ("i1", "false")])  # fmt: skip
        if op == "popcount":
            return self.intrinsic("ctpop", type_, [(type_, v[0])])
        if op in ("shl", "shr"):
            return self.shift(e, v, type_, lanes)
        if op in ("floordiv", "mod", "truncdiv", "rem"):
            return self.division(e, v, type_, lanes)
        raise InternalError(f"no code for {op} of {t}")

    def shift(self, e: Expr, v: list[str], type_: str, lanes: int) -> str:
        t = e.dtype
        name = "shl" if e.op == "shl" else "ashr" if t.is_signed else "lshr"
        if e.args[1].op == "const" and 0 <= e.args[1].value < t.bits:
            return self.op(f"{name} {type_} {v[0]}, {v[1]}")
        top = self.imm(t.bits - 1, t, lanes)
        inside = self.op(f"icmp ule {type_} {v[1]}, {top}")
        amount = self.op(f"select {self.flag(lanes)} {inside}, {type_} {v[1]}, {type_} {top}")
        shifted = self.op(f"{name} {type_} {v[0]}, {amount}")
        if name == "ashr":
            return shifted
        zero = self.imm(0, t, lanes)
        return self.op(f"select {self.flag(lanes)} {inside}, {type_} {shifted}, {type_} {zero}")

    def imm(self, value, t: DType, lanes: int) -> str:
        return f"splat ({t.llvm} {value})" if lanes else str(value)

    def flag(self, lanes: int) -> str:
        return f"<{lanes} x i1>" if lanes else "i1"

    def division(self, e: Expr, v: list[str], type_: str, lanes: int) -> str:
        op, t, (a, b) = e.op, e.dtype, e.args
        signed = t.is_signed
        if t is index:
            (low_a, _), (low_b, _) = bounds(a), bounds(b)
            nonnegative = low_a is not None and low_a >= 0 and low_b is not None and low_b > 0
            if nonnegative:
                return self.op(f"{'udiv' if 'div' in op else 'urem'} {type_} {v[0]}, {v[1]}")
        divisor, zero = v[1], None
        if b.op != "const" or b.value in (0, -1):
            divisor, zero = self.safe_divisor(v, t, type_, lanes)
        name = ("s" if signed else "u") + ("div" if "div" in op else "rem")
        q = self.op(f"{name} {type_} {v[0]}, {divisor}")
        if signed and op in ("floordiv", "mod"):
            q = self.floor_correction(op, q, v[0], divisor, t, type_, lanes)
        if zero is not None:
            nothing = self.imm(0, t, lanes)
            q = self.op(f"select {self.flag(lanes)} {zero}, {type_} {nothing}, {type_} {q}")
        if signed and zero is not None:
            q = self.divide_by_minus_one(op, q, v, t, type_, lanes)
        return q

    def safe_divisor(self, v, t, type_, lanes) -> tuple[str, str]:
        """(divisor with 0 and, if signed, -1 replaced by 1; whether it was 0)."""
        flag = self.flag(lanes)
        zero = self.op(f"icmp eq {type_} {v[1]}, {self.imm(0, t, lanes)}")
        bad = zero
        if t.is_signed:
            minus = self.op(f"icmp eq {type_} {v[1]}, {self.imm(-1, t, lanes)}")
            bad = self.op(f"or {flag} {zero}, {minus}")
        one = self.imm(1, t, lanes)
        return self.op(f"select {flag} {bad}, {type_} {one}, {type_} {v[1]}"), zero

    def divide_by_minus_one(self, op, q, v, t, type_, lanes) -> str:
        """MIN / -1 wraps, anything % -1 is 0."""
        minus = self.op(f"icmp eq {type_} {v[1]}, {self.imm(-1, t, lanes)}")
        zero = self.imm(0, t, lanes)
        value = self.op(f"sub {type_} {zero}, {v[0]}") if "div" in op else zero
        return self.op(f"select {self.flag(lanes)} {minus}, {type_} {value}, {type_} {q}")

    def floor_correction(self, op, q, a, b, t, type_, lanes) -> str:
        """From the truncated to the floored quotient or remainder."""
        flag, zero = self.flag(lanes), self.imm(0, t, lanes)
        r = q if op == "mod" else self.op(f"srem {type_} {a}, {b}")
        signs = self.op(f"xor {type_} {r}, {b}")
        opposite = self.op(f"icmp slt {type_} {signs}, {zero}")
        inexact = self.op(f"icmp ne {type_} {r}, {zero}")
        fix = self.op(f"and {flag} {opposite}, {inexact}")
        amount = b if op == "mod" else self.imm(-1, t, lanes)
        other = self.op(f"add {type_} {q}, {amount}")
        return self.op(f"select {flag} {fix}, {type_} {other}, {type_} {q}")

    def comparison(self, op: str, t: DType, v: list[str], lanes: int) -> str:
        type_ = self.type(t, lanes)
        if t.is_float:
            return self.op(f"fcmp {FCMP[op]} {type_} {v[0]}, {v[1]}")
        if op in ("eq", "ne"):
            return self.op(f"icmp {op} {type_} {v[0]}, {v[1]}")
        sign = "s" if t.is_signed else "u"
        return self.op(f"icmp {sign}{op} {type_} {v[0]}, {v[1]}")

    def minmax(self, e: Expr, v: list[str], type_: str) -> str:
        t = e.dtype
        if not t.is_float:
            if t is boolean:
                return self.op(f"{'and' if e.op == 'min' else 'or'} {type_} {v[0]}, {v[1]}")
            return self.intrinsic(f"{'s' if t.is_signed else 'u'}{e.op}", type_,
                                  [(type_, v[0]), (type_, v[1])])  # fmt: skip
        a, b = e.args
        if is_number(a) or is_number(b):  # one instruction: a NaN stays where it is
            c, x = (v[0], v[1]) if is_number(a) else (v[1], v[0])
            flag = type_.replace(t.llvm, "i1")
            hit = self.op(f"fcmp {'ogt' if e.op == 'max' else 'olt'} {type_} {c}, {x}")
            return self.op(f"select {flag} {hit}, {type_} {c}, {type_} {x}")
        return self.intrinsic(f"{e.op}imum", type_, [(type_, v[0]), (type_, v[1])])

    def fma(self, v: list[str], t: DType, lanes: int) -> str:
        type_ = self.type(t, lanes)
        if t.is_float and self.use_fma:
            return self.intrinsic("fma", type_, [(type_, x) for x in v])
        f = "f" if t.is_float else ""
        product = self.op(f"{f}mul {type_} {v[0]}, {v[1]}")
        return self.op(f"{f}add {type_} {product}, {v[2]}")

    def cast(self, v: str, a: DType, b: DType, lanes: int) -> str:
        ta, tb = self.type(a, lanes), self.type(b, lanes)
        if b is boolean:
            zero = "zeroinitializer" if lanes else ("0.0" if a.is_float else "0")
            cmp = "fcmp une" if a.is_float else "icmp ne"
            return self.op(f"{cmp} {ta} {v}, {zero}")
        if a is boolean:
            return self.op(f"{'uitofp' if b.is_float else 'zext'} {ta} {v} to {tb}")
        if a.is_float and b.is_float:
            return self.float_cast(v, a, b, lanes)
        if a.is_float:
            name = "fptosi.sat" if b.is_signed else "fptoui.sat"
            return self.intrinsic(name, tb, [(ta, v)], f"{suffix(tb)}.{suffix(ta)}")
        if b.is_float:
            return self.op(f"{'sitofp' if a.is_signed else 'uitofp'} {ta} {v} to {tb}")
        if a.bits == b.bits:
            return v
        word = "trunc" if b.bits < a.bits else "sext" if a.is_signed else "zext"
        return self.op(f"{word} {ta} {v} to {tb}")

    def float_cast(self, v: str, a: DType, b: DType, lanes: int) -> str:
        """Between two widths. 16-bit floats are i16 everywhere but here, where LLVM would otherwise
        call library functions for what it does not know of them."""
        if 32 not in (a.bits, b.bits) or a.bits == b.bits or min(a.bits, b.bits) < 16:
            raise InternalError(f"cast {a} to {b} was not taken apart")
        ta, tb = self.type(a, lanes), self.type(b, lanes)
        if a.bits == 16:
            narrow = ta.replace("i16", HALVES[a.name])
            v = self.op(f"bitcast {ta} {v} to {narrow}")
            return self.op(f"fpext {narrow} {v} to {tb}")
        if b.bits == 16:
            narrow = tb.replace("i16", HALVES[b.name])
            v = self.op(f"fptrunc {ta} {v} to {narrow}")
            return self.op(f"bitcast {narrow} {v} to {tb}")
        return self.op(f"{'fpext' if b.bits > a.bits else 'fptrunc'} {ta} {v} to {tb}")

    # ---- select, loads, stores -----------------------------------------------------------------

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
            pairs = [(i, as_expr(d)) for i, d in zip(load.args, load.value.shape)]
            found = self.inside[load] = all(
                is_const(compare("le", const(0), i), True) and is_const(compare("lt", i, d), True)
                for i, d in pairs
            )
        return found

    def masked_select(self, e: Expr, mask: str) -> str:
        for x in self.loads_of(e.args[1]) & self.loads_of(e.args[2]):
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
            if self.mask is None:
                v = self.op(f"load {wide}, ptr {p}, align {b.dtype.bytes}")
            else:
                v = self.intrinsic_masked("load", wide, b.dtype.bytes, p)
        else:
            v = self.intrinsic_masked("gather", wide, b.dtype.bytes, self.lane_pointers(b, flat))
        return self.op(f"trunc {wide} {v} to <{n} x i1>") if b.dtype is boolean else v

    def lane_address(self, b: Buffer, rest: Expr) -> str:
        """Pointer of lane 0: the offset without the lane, plus where the lanes begin."""
        p = self.address(b, rest)
        if self.lane_begin == "0":
            return p
        return self.op(f"getelementptr inbounds {llvm_storage(b.dtype)}, ptr {p}, i64 {self.lane_begin}")

    def lane_pointers(self, b: Buffer, flat: Expr) -> str:
        offsets = self.vector(flat)
        t = llvm_storage(b.dtype)
        return self.op(f"getelementptr {t}, ptr {self.pointers[b]}, <{self.lanes} x i64> {offsets}")

    def mask_value(self) -> str:
        return self.mask or "splat (i1 true)"

    def intrinsic_masked(self, kind: str, wide: str, align: int, p: str) -> str:
        n = self.lanes
        pointer = "ptr" if kind == "load" else f"<{n} x ptr>"
        mangled = f"{suffix(wide)}.{'p0' if kind == 'load' else f'v{n}p0'}"
        name = f"llvm.masked.{kind}.{mangled}"
        self.module.declare(f"declare {wide} @{name}({pointer}, <{n} x i1>, {wide})")
        return self.op(
            f"call {wide} @{name}({pointer} align {align} {p}, <{n} x i1> {self.mask_value()}, "
            f"{wide} zeroinitializer)"
        )

    def store_scalar(self, b: Buffer, flat: Expr, value: Expr) -> None:
        self.store_value(b, flat, self.scalar(value))

    def store_value(self, b: Buffer, flat: Expr, v: str) -> None:
        if b.dtype is boolean:
            v = self.op(f"zext i1 {v} to i8")
        p = self.address(b, flat)
        self.emit(f"store {llvm_storage(b.dtype)} {v}, ptr {p}, align {b.dtype.bytes}")

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
                self.emit(f"store {wide} {v}, ptr {p}, align {align}")
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

    # ---- reductions ----------------------------------------------------------------------------

    def reduce_lanes(self, op: str, v: str, t: DType) -> str:
        wide = self.type(t, self.lanes)
        if t.is_float:
            name = {"add": "fadd", "mul": "fmul", "min": "fminimum", "max": "fmaximum"}[op]
            if op in ("add", "mul"):
                start = "-0.0" if op == "add" else "1.0"
                self.module.declare(
                    f"declare {t.llvm} @llvm.vector.reduce.{name}.{suffix(wide)}({t.llvm}, {wide})"
                )
                return self.op(
                    f"call reassoc {t.llvm} @llvm.vector.reduce.{name}.{suffix(wide)}"
                    f"({t.llvm} {start}, {wide} {v})"
                )
        else:
            sign = "s" if t.is_signed else "u"
            name = f"{sign}{op}" if op in ("min", "max") else op
            if t is boolean:
                name = {"min": "and", "max": "or", **BOOL_OPS}.get(op, op)
        return self.intrinsic_reduce(name, t, wide, v)

    def intrinsic_reduce(self, name: str, t: DType, wide: str, v: str) -> str:
        full = f"llvm.vector.reduce.{name}.{suffix(wide)}"
        self.module.declare(f"declare {t.llvm} @{full}({wide})")
        return self.op(f"call {t.llvm} @{full}({wide} {v})")

    def named(self, value: str, t: DType) -> Expr:
        """An SSA value of the present statement as an expression."""
        e = make("load", t, (), Buffer("value", t, (), "local"))
        self.remember(e, e, value)
        return e


def is_number(e: Expr) -> bool:
    """Whether `e` is a constant other than NaN."""
    return e.op == "const" and e.value == e.value


def literal(value, t: DType) -> str:
    """An LLVM constant of the type."""
    if t is boolean:
        return "true" if value else "false"
    if not t.is_float:
        return str(int(value))
    if t.llvm == "i16":
        return str(t.numpy.type(value).view("uint16").item())
    if t.llvm == "i8":
        return str(t.numpy.type(value).view("uint8").item())
    return f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
