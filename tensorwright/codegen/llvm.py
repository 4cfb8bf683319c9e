"""Kernel -> LLVM IR text.

One function per kernel, `void @name(ptr ctx, ptr buffers..., i64 symbols...)`, plus one function
per parallel loop, which `tw_parallel` calls on ranges of iterations. Vector loops become explicit
`<lanes x T>` operations; unrolled loops are written out, so that a small local buffer is only ever
addressed by constants and LLVM's `sroa` turns it into registers.

    for j in vector(16): y[i, j] = max(x[i, j], 0.0)   ->   load, fcmp/select and store of <16 x
    float>
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager, nullcontext

from tensorwright.base.errors import InternalError
from tensorwright.codegen.columns import Columns
from tensorwright.codegen.legalize import Legalizer, wider
from tensorwright.codegen.support_objects import ANNOUNCED, STRIDE, inline_text
from tensorwright.codegen.values import LINE, llvm_storage
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import DType, boolean, f64, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    cast,
    const,
    is_const,
    make,
    sym,
    symbols_of,
    walk,
)  # fmt: skip
from tensorwright.ir.facts import evaluate
from tensorwright.ir.loop import Kernel, Stmt
from tensorwright.ir.type import product
from tensorwright.target.target import Target

REDUCE = {
    "add": ("fadd", "add"), "mul": ("fmul", "mul"), "min": ("fminimum", "smin", "umin"),
    "max": ("fmaximum", "smax", "umax"), "and": (None, "and"), "or": (None, "or"),
    "xor": (None, "xor"),
}  # fmt: skip
L2 = 2  # as LLVM counts how near a cache is
MOST_BYTES = 1 << 47  # of a buffer: what an address space has
PROLOGUE = """\
declare void @tw_parallel(ptr, ptr, ptr, i64)
declare ptr @tw_frame_push(ptr, i64)
declare void @tw_frame_pop(ptr)
declare ptr @tw_alloc(i64)
declare void @tw_free(ptr)
declare void @tw_fail(ptr, i32, i64, i64, i64)
declare void @tw_profile_mark(ptr, i32)
"""


class ModuleText:
    """What functions of one LLVM module share: declarations, error codes, kernel ids."""

    def __init__(self, errors: list[str] | None = None, extern: Iterable[str] = ()):
        self.declarations: dict[str, None] = {}
        self.functions: list[str] = []
        self.errors = [] if errors is None else errors
        self.codes: dict[str, int] = {}  # of the messages that this module uses
        self.tags = 0  # of objects without contents that are made here; 0 without any objects
        self.extern = set(extern)

    def declare(self, line: str) -> None:
        self.declarations[line] = None

    def error_code(self, message: str) -> int:
        if message not in self.codes:
            if message not in self.errors:
                self.errors.append(message)
            self.codes[message] = self.errors.index(message) + 1
        return self.codes[message]

    def text(self, triple: str = "") -> str:
        head = f'target triple = "{triple}"\n' if triple else ""
        objects = [inline_text(self.tags)] if self.tags else []
        body = "\n".join([*objects, *self.functions])
        tail = ["!0 = !{i32 1}", ""] if "!nontemporal !0" in body else []
        known = [line for line in PROLOGUE.splitlines() if _name(line) in body]
        defined = {_name(line) for line in body.splitlines() if line.startswith("define ")}
        declared = [d for d in self.declarations if _name(d) not in defined]
        return head + "\n".join([*known, *declared, "", body, *tail, ""])


def _name(declaration: str) -> str:
    return "@" + declaration.split("@")[1].split("(")[0]


class Function(Columns):
    """Emits one LLVM function: statements here, expressions in `Values` and `Columns`."""

    def __init__(self, module: ModuleText, name: str, legalize: Legalizer, fma: bool = True):
        super().__init__(module, legalize, fma)
        self.name = name
        self.parallel_depth = 0
        self.frames = 0  # frame_push calls of the present scope
        self.is_task = False
        self.frame = ""  # of a host function
        self.tasks = 0
        self.fence = ""  # that orders stores past the caches
        self.can_fail = False

    # ---- statements ----------------------------------------------------------------------------

    def stmt(self, s: Stmt) -> None:
        self.forget()
        match s:
            case ir.Seq(body=body):
                for part in body:
                    self.stmt(part)
            case ir.For():
                self.loop(s)
            case ir.Store():
                self.store(s)
            case ir.Alloc():
                self.alloc(s)
            case ir.View(buffer=b, base=base, start=start):
                self.pointers[b] = self.view(base, start)
            case ir.Let(var=v, value=value):
                self.bind(v, self.scalar(self.legal(value)))
            case ir.Prefetch():
                self.prefetch(s)
            case ir.If():
                self.branch(s)
            case ir.While():
                self.while_loop(s)
            case ir.Assert():
                self.check(s)
            case ir.Call():
                self.call_function(s)
            case _:
                raise InternalError(f"no code for statement {type(s).__name__}")

    def loop(self, s: ir.For) -> None:
        match s.kind:
            case "unroll":
                if not is_const(s.extent):
                    raise InternalError(f"unrolled loop over {s.extent} in {self.name}")
                self.unrolled(s)
            case "vector":
                self.vector_loop(s)
            case "parallel" if not self.parallel_depth and self.lane is None:
                self.outlined_loop(s, "tw_parallel")
            case "outline":
                self.outlined_loop(s, "")
            case _:
                self.serial_loop(s)

    def serial_loop(self, s: ir.For) -> None:
        begin = self.scalar(self.legal(s.begin))
        end = self.scalar(self.legal(s.begin + s.extent))
        if is_const(s.extent, 1):
            with self.scope():
                self.bind(s.var, begin)
                self.stmt(s.body)
            return
        head, body, done = self.label("loop"), self.label("body"), self.label("done")
        with self.preheader():
            before = self.block
            self.emit(f"br label %{head}")
            self.open(head)
            v = self.fresh(s.var.name)
            phi = self.reserve()
            more = self.fresh()
            self.emit(f"{more} = icmp slt i64 {v}, {end}")
            self.emit(f"br i1 {more}, label %{body}, label %{done}")
            self.open(body)
            with self.loop_level():
                self.bind(s.var, self.opaque(v) if has_loops(s.body) else v)
                self.nested(s.body)
            following = self.fresh()
            self.emit(f"{following} = add nsw i64 {v}, 1")
            phi.append(f"  {v} = phi i64 [ {begin}, %{before} ], [ {following}, %{self.block} ]")
            self.emit(f"br label %{head}")
            self.open(done)

    def opaque(self, v: str) -> str:
        """The same integer, of which LLVM does not see where it comes from. So it looks for cheap
        induction variables in innermost loops alone: those of outer loops gain next to nothing, and
        searching among their many uses takes up to half of the time that a kernel compiles."""
        self.module.declare("declare i64 @llvm.expect.i64(i64, i64)")
        return self.op(f"call i64 @llvm.expect.i64(i64 {v}, i64 {v})")

    def nested(self, s: Stmt) -> None:
        """The body of a loop or a branch: frames pushed inside are popped at its end."""
        outer, self.frames = self.frames, 0
        self.stmt(s)
        for _ in range(self.frames):
            self.emit("call void @tw_frame_pop(ptr %ctx)")
        self.frames = outer

    def vector_loop(self, s: ir.For) -> None:
        if not is_const(s.extent) or self.lane is not None:
            raise InternalError(f"vector loop over {s.extent} in {self.name} is not a single loop")
        if s.extent.value == 1:
            self.stmt(ir.substitute(s.body, {sym(s.var): s.begin}))
            return
        begin = self.scalar(self.legal(s.begin))
        # the same lanes again, in another copy of the loop, may use what these computed
        with nullcontext() if begin == "0" else self.scope():
            self.enter_lanes(s.var, s.extent.value, begin)
            self.stmt(s.body)
            self.leave_lanes()

    def outlined_loop(self, s: ir.For, run: str) -> None:
        """Outline the body into `name.taskN(ctx, env, begin, end)`, and have `run` call it on parts
        of the range, or call it here."""
        begin = self.scalar(self.legal(s.begin))
        extent = self.scalar(self.legal(s.extent))
        task = Function(self.module, f"{self.name}.task{self.tasks}", self.legalize, self.use_fma)
        self.tasks += 1
        task.parallel_depth, task.is_task, task.readonly = 1, True, self.readonly
        task.streamed, task.fence = self.streamed, self.fence
        captured_buffers = [b for b in used_buffers(s.body) if b in self.pointers]
        strides = symbols_of(*(as_expr(d) for b in captured_buffers for d in b.shape))
        used = dict.fromkeys((*ir.free_symbols(s), *sorted(strides, key=lambda v: v.serial)))
        captured_symbols = [v for v in used if v in self.symbols]
        slots = len(captured_buffers) + len(captured_symbols) + 1
        env = self.stack_slot(f"[{slots} x i64]", 8)
        for k, b in enumerate(captured_buffers):
            self.put(env, k, "ptr", self.pointers[b])
            task.pointers[b] = task.get("%env", k, "ptr", self.pointers[b])
        for k, v in enumerate(captured_symbols, len(captured_buffers)):
            self.put(env, k, "i64", self.symbols[v])
            task.bind(v, task.get("%env", k, "i64", v.name))
        self.put(env, slots - 1, "i64", begin)
        first = task.get("%env", slots - 1, "i64", "first")
        task.emit_range(s, first)
        task.order_streamed()
        task.finish(f"define internal void @{task.name}(ptr %ctx, ptr %env, i64 %lo, i64 %hi)")
        if run:
            self.emit(f"call void @{run}(ptr %ctx, ptr @{task.name}, ptr {env}, i64 {extent})")
        else:
            self.emit(f"call void @{task.name}(ptr %ctx, ptr {env}, i64 0, i64 {extent})")

    def emit_range(self, s: ir.For, first: str) -> None:
        """The task's loop over its part of the iterations, [lo, hi) + first."""
        low, high = self.fresh(), self.fresh()
        self.emit(f"{low} = add nsw i64 %lo, {first}")
        self.emit(f"{high} = add nsw i64 %hi, {first}")
        lo, hi = Symbol("lo", 0), Symbol("hi", 0)
        self.bind(lo, low)
        self.bind(hi, high)
        self.serial_loop(ir.For(s.var, sym(lo), sym(hi) - sym(lo), s.body))

    def put(self, env: str, k: int, type_: str, value: str) -> None:
        p = self.fresh()
        self.emit(f"{p} = getelementptr inbounds i64, ptr {env}, i64 {k}")
        self.emit(f"store {type_} {value}, ptr {p}, align 8")

    def get(self, env: str, k: int, type_: str, name: str) -> str:
        p, v = self.fresh(), self.fresh(name.strip("%"))
        self.emit(f"{p} = getelementptr inbounds i64, ptr {env}, i64 {k}")
        self.emit(f"{v} = load {type_}, ptr {p}, align 8")
        return v

    def view(self, base: Buffer, start: Expr) -> str:
        return self.address(base, start)

    def while_loop(self, s: ir.While) -> None:
        head, body, done = self.label("while"), self.label("body"), self.label("done")
        with self.preheader():
            self.emit(f"br label %{head}")
            self.open(head)
            with self.loop_level():
                cond = self.scalar(self.legal(s.cond))
                self.emit(f"br i1 {cond}, label %{body}, label %{done}")
                self.open(body)
                self.nested(s.body)
                self.emit(f"br label %{head}")
            self.open(done)

    def branch(self, s: ir.If) -> None:
        cond = self.legal(s.cond)
        if is_const(cond):
            if cond.value or s.orelse is not None:
                self.stmt(s.then if cond.value else s.orelse)
            return
        if self.lane is not None and self.varies(cond):
            lane = self.only_lane(cond) if s.orelse is None and self.mask is None else None
            if lane is None:
                self.masked_branch(s, cond)
            else:
                self.in_lane(lane, s.then)
            return
        value = self.scalar(cond)
        then, orelse, done = self.label("then"), self.label("else"), self.label("endif")
        self.emit(f"br i1 {value}, label %{then}, label %{orelse if s.orelse else done}")
        for label, arm in ((then, s.then), (orelse, s.orelse)):
            if arm is not None:
                self.open(label)
                with self.scope():
                    self.nested(arm)
                self.emit(f"br label %{done}")
        self.open(done)

    def only_lane(self, cond: Expr) -> int | None:
        """The value of the lane variable in the one lane in which a condition holds, if that is
        known here. (LLVM 22 stores four bytes for a single masked lane of two or one, where the
        mask is a constant and the value truncated.)"""
        if symbols_of(cond) != {self.lane} or self.loads_of(cond) or not self.lane_begin.isdigit():
            return None
        first = int(self.lane_begin)
        taken = [k for k in range(first, first + self.lanes) if evaluate(cond, {self.lane: k})]
        return taken[0] if len(taken) == 1 else None

    def in_lane(self, k: int, s: Stmt) -> None:
        """A statement for one lane of the present vector loop."""
        saved = self.lane, self.lanes
        body = ir.substitute(s, {sym(self.lane): const(k)})
        self.leave_lanes()
        with self.scope():
            self.stmt(body)
        self.lane, self.lanes = saved

    def streaming(self, s: Stmt, buffers: list[Buffer], fence: str) -> None:
        """A statement whose whole vectors go past the caches to these buffers, if each of them
        begins with a cache line; a second copy of it serves those that do not."""
        places = [self.op(f"ptrtoint ptr {self.pointers[b]} to i64") for b in buffers]
        bits = places[0]
        for other in places[1:]:
            bits = self.op(f"or i64 {bits}, {other}")
        rest = self.op(f"and i64 {bits}, {LINE - 1}")
        aligned, apart, done = self.label("aligned"), self.label("apart"), self.label("done")
        is_aligned = self.op(f"icmp eq i64 {rest}, 0")
        self.emit(f"br i1 {is_aligned}, label %{aligned}, label %{apart}")
        for label, streamed in ((aligned, frozenset(buffers)), (apart, frozenset())):
            self.open(label)
            self.streamed, self.fence = streamed, fence
            with self.scope():
                self.nested(s)
            self.order_streamed()
            self.emit(f"br label %{done}")
        self.open(done)

    def order_streamed(self) -> None:
        """Whoever sees what is stored from here on sees what went past the caches."""
        if self.has_streamed:
            self.module.declare(f"declare void @{self.fence}()")
            self.emit(f"call void @{self.fence}()")
        self.has_streamed = False

    def masked_branch(self, s: ir.If, cond: Expr) -> None:
        mask = self.vector(cond)
        for arm, inverted in ((s.then, False), (s.orelse, True)):
            if arm is not None:
                own = self.invert(mask) if inverted else mask
                with self.scope(), self.masked(own):
                    self.stmt(arm)

    def check(self, s: ir.Assert) -> None:
        cond = self.scalar(self.legal(s.cond))
        if cond in ("true", "1"):
            return
        bad, good = self.label("fail"), self.label("ok")
        self.emit(f"br i1 {cond}, label %{good}, label %{bad}")
        self.open(bad)
        code = self.module.error_code(s.message)
        with self.scope():  # what is worked out for the message is not known behind it
            args = [self.scalar(self.legal(a)) for a in s.args] + ["0"] * (3 - len(s.args))
        listed = ", ".join(f"i64 {a}" for a in args)
        self.emit(f"call void @tw_fail(ptr %ctx, i32 {code}, {listed})")
        self.end()
        self.open(good)

    def call_function(self, s: ir.Call) -> None:
        context = [] if s.extern else ["ptr %ctx"]
        args = [*context, *(f"ptr {self.pointers[b]}" for b in s.buffers)]
        args += [f"i64 {self.scalar(self.legal(a))}" for a in s.scalars]
        types = ", ".join(a.split()[0] for a in args)
        self.module.declare(f"declare void @{s.callee}({types})")
        self.emit(f"call void @{s.callee}({', '.join(args)})")

    def prefetch(self, s: ir.Prefetch) -> None:
        b = s.place.value
        key = "prefetch", s.place, s.beyond
        p = self.remembered(key)
        if p is None:
            flat = self.flat(b, s.place.args)
            parts = [flat, *map(self.legal, s.beyond or ())]
            movable = all(map(self.can_hoist, parts))
            with self.hoisted(*parts) if movable else nullcontext():
                p = self.address(b, flat)
                if s.beyond is not None:
                    p = self.beyond(p, *parts[1:])
                self.cache[-1][key] = p
        offset = self.scalar(self.legal(s.offset))
        p = self.op(f"getelementptr {llvm_storage(b.dtype)}, ptr {p}, i64 {offset}")
        self.module.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.emit(f"call void @llvm.prefetch.p0(ptr {p}, i32 0, i32 {L2}, i32 1)")

    def beyond(self, p: str, passed: Expr, thread: Expr, offset: Expr) -> str:
        """The address `p`, or, where `passed`, one in what the program has announced."""
        base, stride = self.from_context("ptr", ANNOUNCED), self.from_context("i64", STRIDE)
        begin = self.op(f"mul i64 {self.scalar(thread)}, {stride}")
        first = self.op(f"getelementptr i8, ptr {base}, i64 {begin}")
        there = self.op(f"getelementptr i8, ptr {first}, i64 {self.scalar(offset)}")
        return self.op(f"select i1 {self.scalar(passed)}, ptr {there}, ptr {p}")

    def alloc(self, s: ir.Alloc) -> None:
        b = s.buffer
        size = as_expr(product(b.shape))
        if b.scope == "local":
            if not is_const(size):
                raise InternalError(f"local buffer {b} of {self.name} has no constant size")
            storage = f"[{max(size.value, 1)} x {llvm_storage(b.dtype)}]"
            self.pointers[b] = self.stack_slot(storage, 64)
        elif b.scope == "temp":
            self.pointers[b] = self.push(b)
        else:
            raise InternalError(f"cannot allocate {b} of scope {b.scope} in {self.name}")

    def push(self, b: Buffer) -> str:
        """A frame for a buffer; without memory for it the function ends."""
        size = self.byte_size(b.shape, b.dtype)
        p = self.op(f"call ptr @tw_frame_push(ptr %ctx, i64 {size})")
        self.end_if(self.op(f"icmp eq ptr {p}, null"))
        self.frames += 1
        return p

    def byte_size(self, shape: tuple, dtype: DType) -> str:
        """Bytes of a buffer. A size that no memory has may not fit an integer, so that sizes are
        estimated in floating point first."""
        size = as_expr(product(shape)) * dtype.bytes
        if is_const(size):
            return str(size.value if size.value < MOST_BYTES else (1 << 63) - 1)  # is refused
        exact = self.scalar(self.legal(size))
        rough = self.scalar(self.legal(estimate(size)))
        self.module.declare("declare i64 @llvm.fptosi.sat.i64.f64(double)")
        told = self.op(f"call i64 @llvm.fptosi.sat.i64.f64(double {rough})")
        small = self.op(f"icmp ult i64 {told}, {MOST_BYTES}")
        positive = self.op(f"icmp ult i64 {exact}, {MOST_BYTES}")
        self.out_of_memory_unless(self.op(f"and i1 {small}, {positive}"), told)
        return exact

    def out_of_memory_unless(self, fits: str, size: str) -> None:
        bad, good = self.label("fail"), self.label("ok")
        self.emit(f"br i1 {fits}, label %{good}, label %{bad}")
        self.open(bad)
        self.emit(f"call void @tw_fail(ptr %ctx, i32 -1, i64 {size}, i64 0, i64 0)")
        self.end()
        self.open(good)

    def end_if(self, bad: str) -> None:
        """Leave the function, which has failed, if a condition holds."""
        good = self.label("ok")
        self.emit(f"br i1 {bad}, label %failed, label %{good}")
        self.can_fail = True
        self.open(good)

    def end(self) -> None:
        self.emit("br label %failed")
        self.can_fail = True

    def store(self, s: ir.Store) -> None:
        reduced = ir.update(s)
        flat = self.flat(s.buffer, s.indices)
        if self.lane is not None and not self.varies(flat):
            if reduced is None and not self.varies(self.legal(s.value)):
                self.store_scalar(s.buffer, flat, self.legal(s.value))
            elif reduced is None:
                raise InternalError(f"lanes of {self.name} store different values to one element")
            else:
                self.horizontal(s, *reduced)
            return
        value = self.legal(s.value)
        if self.lane is None:
            self.store_scalar(s.buffer, flat, value)
        else:
            self.store_vector(s.buffer, flat, value)

    def horizontal(self, s: ir.Store, op: str, e: Expr) -> None:
        """A reduction update whose element does not depend on the lane: reduce the lanes first."""
        target = s.buffer[s.indices]
        t = s.buffer.dtype
        if op == "fma":
            op, e = "add", e.args[0] * e.args[1]
        wide = wider(t) or t
        lanes = self.widen(self.legal(cast(e, wide)))
        if self.mask is not None:
            neutral = cast(NEUTRAL[op](t), wide)
            lanes = self.choose(self.mask, lanes, self.splat_const(neutral), wide)
        total = self.named(self.reduce_lanes(op, lanes, wide), wide)
        with self.uniform():
            combined = cast(make(op, wide, (cast(target, wide), total)), t)
            flat = self.flat(s.buffer, s.indices)
            self.store_value(s.buffer, flat, self.scalar(self.legal(combined)))

    @contextmanager
    def uniform(self):
        """Emit scalars for a moment inside a vector loop."""
        saved = self.mask, self.outer_masks
        self.mask, self.outer_masks = None, []
        yield
        self.mask, self.outer_masks = saved

    def give_back(self) -> None:
        """What is owed whether the function worked or failed."""

    def arguments(self, k: Kernel) -> str:
        """The function's arguments, bound: context, buffers, index symbols."""
        args = ["ptr %ctx"]
        for b in k.params:
            self.pointers[b] = f"%{self.ident(b.name)}"
            args.append(f"ptr {self.pointers[b]}")
        for v in k.symbols:
            self.bind(v, f"%{self.ident(v.name)}")
            args.append(f"i64 {self.symbols[v]}")
        return ", ".join(args)

    def finish(self, header: str) -> None:
        """Close the function and hand its text to the module."""
        self.emit("br label %exit")
        self.open("exit")
        for _ in range(self.frames):
            self.emit("call void @tw_frame_pop(ptr %ctx)")
        self.give_back()
        self.emit("ret void")
        if self.can_fail:
            self.open("failed")
            self.give_back()
            self.emit("ret void")
        self.module.functions.append(f"{header} {{\n{self.body_text()}\n}}\n")


def estimate(size: Expr) -> Expr:
    """A size in floating point, where nothing overflows."""
    found: dict[Expr, Expr] = {}
    for e in walk(size):
        args = tuple(found[a] for a in e.args)
        if e.op == "const" and e.dtype is index:
            found[e] = const(float(e.value), f64)
        elif e.dtype is index and e.op in ("add", "mul", "min", "max"):
            found[e] = make(e.op, f64, args)
        elif e.dtype is index and e.op == "floordiv":
            found[e] = make("div", f64, args)
        elif e.dtype is index and e.op == "select":
            found[e] = make("select", f64, (e.args[0], *args[1:]))
        else:
            found[e] = cast(e, f64) if e.dtype is index else e
    return found[size]


NEUTRAL = {
    "add": lambda t: const(-0.0 if t.is_float else 0, t),
    "mul": lambda t: const(1, t),
    "min": lambda t: const(float("inf") if t.is_float else t.max, t),
    "max": lambda t: const(float("-inf") if t.is_float else t.min, t),
    "and": lambda t: const(True if t is boolean else -1, t),
    "or": lambda t: const(0, t),
    "xor": lambda t: const(0, t),
}


def has_loops(s: Stmt) -> bool:
    """Whether a statement's code has loops."""
    return any(
        isinstance(x, ir.While)
        or (isinstance(x, ir.For) and x.kind not in ("unroll", "vector") and not ir.is_unit(x))
        for x in ir.statements(s)
    )


def used_buffers(s: Stmt) -> list[Buffer]:
    """Buffers that a statement touches, in a stable order."""
    found: dict[Buffer, None] = {}
    for e in ir.loads(s):
        found[e.value] = None
    for part in ir.statements(s):
        match part:
            case ir.Store(buffer=b):
                found[b] = None
            case ir.View(base=b):
                found[b] = None
            case ir.Call(buffers=buffers):
                found.update(dict.fromkeys(buffers))
    return list(found)


def emit_kernel(k: Kernel, module: ModuleText, target: Target, linkage: str = "") -> None:
    """Add the kernel's function (and its tasks) to `module`."""
    f = Function(module, k.name, Legalizer(target), target.fma)
    written = ir.stored_buffers(k.body)
    f.readonly = {b for b in k.params if b not in written}
    arguments = f.arguments(k)
    if k.streams and target.store_fence:
        f.streaming(k.body, [k.params[n] for n in k.streams], target.store_fence)
    else:
        f.stmt(k.body)
    f.finish(f"define {linkage} void @{k.name}({arguments})")
