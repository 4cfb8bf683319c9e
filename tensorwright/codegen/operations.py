"""One operation on SSA names that exist already -> LLVM instructions, scalar or `<lanes x T>`.

    add of f32 on 16 lanes   ->   %.3 = fadd <16 x float> %.1, %.2

The semantics are those at the top of `ir/expr.py`: divisions by zero, shifts past the width, NaN in
minima and casts are taken care of here.
"""

from __future__ import annotations

import math
import struct

from tensorwright.base.errors import InternalError
from tensorwright.codegen.block import Block
from tensorwright.ir.dtype import DType, boolean, index
from tensorwright.ir.expr import COMPARISONS, Expr, bounds

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


class Operations(Block):
    def type(self, t: DType, lanes: int) -> str:
        return f"<{lanes} x {t.llvm}>" if lanes else t.llvm

    def splat(self, value: str, type_: str) -> str:
        if not value.startswith("%"):
            return f"splat ({type_} {value})"
        one, all_ = self.fresh(), self.fresh()
        wide = f"<{self.lanes} x {type_}>"
        self.emit(f"{one} = insertelement {wide} poison, {type_} {value}, i64 0")
        pick = f"<{self.lanes} x i32> zeroinitializer"
        self.emit(f"{all_} = shufflevector {wide} {one}, {wide} poison, {pick}")
        return all_

    def splat_const(self, e: Expr) -> str:
        return f"splat ({e.dtype.llvm} {literal(e.value, e.dtype)})"

    def op(self, text: str) -> str:
        v = self.fresh()
        self.emit(f"{v} = {text}")
        return v

    def intrinsic(
        self, name: str, result: str, operands: list[tuple[str, str]], mangled=None
    ) -> str:
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
        if e.op == "call":
            return v[0] if e.value == "opaque" else self.instruction(e, v, lanes)
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
        full = f"llvm.{e.op}imum.{suffix(type_)}"
        self.module.declare(f"declare {type_} @{full}({type_}, {type_})")
        # nsz: zeros compare equal, and telling them apart costs more than the rest
        return self.op(f"call nsz {type_} @{full}({type_} {v[0]}, {type_} {v[1]})")

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
        if a.is_float and lanes:
            return self.saturated(v, a, b, lanes)
        if a.is_float:
            name = "fptosi.sat" if b.is_signed else "fptoui.sat"
            return self.intrinsic(name, tb, [(ta, v)], f"{suffix(tb)}.{suffix(ta)}")
        if b.is_float:
            return self.op(f"{'sitofp' if a.is_signed else 'uitofp'} {ta} {v} to {tb}")
        if a.bits == b.bits:
            return v
        word = "trunc" if b.bits < a.bits else "sext" if a.is_signed else "zext"
        return self.op(f"{word} {ta} {v} to {tb}")

    def saturated(self, v: str, a: DType, b: DType, lanes: int) -> str:
        """Floats to the nearest integers towards zero that there are, NaN to 0. LLVM's own
        instruction for this is done element by element on x86."""
        ta, tb, flags = self.type(a, lanes), self.type(b, lanes), f"<{lanes} x i1>"
        low = f"splat ({a.llvm} {literal(b.min, a)})"
        beyond = f"splat ({a.llvm} {literal(2.0 ** (b.bits - b.is_signed), a)})"  # exact in floats
        far = self.op(f"fcmp oge {ta} {v}, {beyond}")
        inside = self.op(f"fcmp oge {ta} {v}, {low}")
        inside = self.op(f"select {flags} {far}, {flags} zeroinitializer, {flags} {inside}")
        known = self.op(f"select {flags} {inside}, {ta} {v}, {ta} zeroinitializer")
        wide = tb if b.bits >= 32 else f"<{lanes} x i32>"
        signed = b.is_signed or b.bits < 32
        whole = self.op(f"{'fptosi' if signed else 'fptoui'} {ta} {known} to {wide}")
        if wide != tb:
            whole = self.op(f"trunc {wide} {whole} to {tb}")
        if b.is_signed:
            below = self.op(f"fcmp olt {ta} {v}, {low}")
            whole = self.op(f"select {flags} {below}, {tb} splat ({b.llvm} {b.min}), {tb} {whole}")
        return self.op(f"select {flags} {far}, {tb} splat ({b.llvm} {b.max}), {tb} {whole}")

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

    def reduce_lanes(self, op: str, v: str, t: DType) -> str:
        wide = self.type(t, self.lanes)
        if t.is_float:
            if op in ("min", "max"):
                return self.reduce_ordered(op, v, t, wide)
            full = f"llvm.vector.reduce.f{op}.{suffix(wide)}"
            start = "-0.0" if op == "add" else "1.0"
            self.module.declare(f"declare {t.llvm} @{full}({t.llvm}, {wide})")
            return self.op(f"call reassoc {t.llvm} @{full}({t.llvm} {start}, {wide} {v})")
        name = f"{'s' if t.is_signed else 'u'}{op}" if op in ("min", "max") else op
        if t is boolean:
            name = {"min": "and", "max": "or", **BOOL_OPS}.get(op, op)
        return self.intrinsic_reduce(name, t, wide, v)

    def reduce_ordered(self, op: str, v: str, t: DType, wide: str) -> str:
        """The least or greatest of float lanes: as if none were NaN, and NaN if one is, so that the
        chain of comparisons does not ask at each step."""
        full, flags = f"llvm.vector.reduce.f{op}.{suffix(wide)}", f"<{self.lanes} x i1>"
        self.module.declare(f"declare {t.llvm} @{full}({wide})")
        most = self.op(f"call nnan nsz {t.llvm} @{full}({wide} {v})")
        nans = self.op(f"fcmp uno {wide} {v}, {v}")
        some = self.intrinsic_reduce("or", boolean, flags, nans)
        nan = literal(math.nan, t)
        return self.op(f"select i1 {some}, {t.llvm} {nan}, {t.llvm} {most}")

    def intrinsic_reduce(self, name: str, t: DType, wide: str, v: str) -> str:
        full = f"llvm.vector.reduce.{name}.{suffix(wide)}"
        self.module.declare(f"declare {t.llvm} @{full}({wide})")
        return self.op(f"call {t.llvm} @{full}({wide} {v})")


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
