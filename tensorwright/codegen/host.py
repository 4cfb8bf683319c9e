"""The host program -> LLVM IR: the same emitter as for kernels, plus where host buffers live.

An entry, `tw_main(ptr ctx, ptr inputs, ptr outputs) -> i32`, takes arrays of `{ptr data, ptr
shape}`; outputs without memory are allocated here and handed over. Called graphs become functions
with the signature of kernels. Every frame pushed in a loop's body is popped at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from tensorwright.base.errors import InternalError
from tensorwright.codegen.legalize import Legalizer
from tensorwright.codegen.llvm import Function, ModuleText
from tensorwright.codegen.support_objects import ANNOUNCED, STACK_LIMIT, STRIDE
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, as_expr, is_const
from tensorwright.ir.loop import Kernel, Stmt
from tensorwright.ir.type import product

WEIGHTS_OFFSET = 56  # of the table of constants in a context
TOO_DEEP = "the recursion of {} is deeper than the stack of the thread that runs it allows"


class HostFunction(Function):
    def __init__(self, module: ModuleText, name: str, kernel_ids: dict[str, int]):
        super().__init__(module, name, Legalizer())
        self.kernel_ids = kernel_ids
        self.parallel_depth = 1  # the host itself runs on one thread
        self.boxes: dict[Buffer, str] = {}

    def stmt(self, s: Stmt) -> None:
        if isinstance(s, ir.Copy):
            self.copy(s)
        elif isinstance(s, ir.Announce):
            self.announce(s)
        elif isinstance(s, ir.Resize):
            self.resize(s)
        elif isinstance(s, ir.New):
            self.new_object(s)
        elif isinstance(s, ir.Count):
            self.count(s)
        else:
            super().stmt(s)
        if isinstance(s, ir.Call) and s.callee in self.kernel_ids:
            self.emit("call void @tw_profile_mark(ptr %ctx, i32 -1)")

    def announce(self, s: ir.Announce) -> None:
        for at, value in (
            (ANNOUNCED, f"ptr {self.pointers[s.buffer]}"),
            (STRIDE, f"i64 {s.stride}"),
        ):
            p = self.op(f"getelementptr inbounds i8, ptr %ctx, i64 {at}")
            self.emit(f"store {value}, ptr {p}, align 8")

    def resize(self, s: ir.Resize) -> None:
        slot = self.boxes[s.buffer]
        old = self.op(f"load ptr, ptr {slot}")
        self.emit(f"call void @tw_free(ptr {old})")
        self.emit(f"store ptr null, ptr {slot}")
        new = self.allocate(self.byte_size(s.shape, s.buffer.dtype))
        self.emit(f"store ptr {new}, ptr {slot}")

    def new_object(self, s: ir.New) -> None:
        """Objects without contents are static: one for each tag."""
        self.module.tags = max(self.module.tags, 1)
        if is_const(s.size, 0):
            self.module.tags = max(self.module.tags, s.tag + 1)
            p = self.op(f"getelementptr inbounds i8, ptr @tw_nothing, i64 {16 * s.tag}")
        else:
            units = self.scalar(self.legal(s.size // 64))
            head = s.tag | s.refs << 16
            p = self.op(f"call ptr @tw_new(ptr %ctx, i64 {units}, i64 {head})")
            self.end_if(self.op(f"icmp eq ptr {p}, null"))
        word = self.op(f"ptrtoint ptr {p} to i64")
        self.emit(f"store i64 {word}, ptr {self.pointers[s.target]}")

    def count(self, s: ir.Count) -> None:
        self.module.tags = max(self.module.tags, 1)
        p = self.op(f"load ptr, ptr {self.pointers[s.target]}")
        if s.by < 0:
            self.emit(f"call void @tw_drop(ptr %ctx, ptr {p})")
            return
        n = self.op(f"load i64, ptr {p}")
        self.emit(f"store i64 {self.op(f'add i64 {n}, 1')}, ptr {p}")

    def alloc_reference(self, b: Buffer, offset) -> None:
        self.pointers[b] = self.stack_slot("i64", 8)

    def view(self, base: Buffer, start) -> str:
        if base.scope == "reference":
            p = self.op(f"load ptr, ptr {self.pointers[base]}")
            return self.address_bytes(p, start)
        if base.scope != "boxed":
            return super().view(base, start)
        return self.op(f"load ptr, ptr {self.boxes[base]}")

    def alloc_boxed(self, b: Buffer, offset) -> None:
        slot = self.boxes[b] = self.stack_slot("ptr", 8)
        self.entry.append(f"  store ptr null, ptr {slot}")

    def alloc_guarded(self, b: Buffer, offset) -> None:
        """Memory of its own; the one before it, in a loop, goes back."""
        slot = self.boxes.get(b)
        if slot is None:
            self.alloc_boxed(b, offset)
            slot = self.boxes[b]
        self.emit(f"call void @tw_free(ptr {self.op(f'load ptr, ptr {slot}')})")
        self.emit(f"store ptr null, ptr {slot}")
        self.pointers[b] = self.allocate(self.byte_size(b.shape, b.dtype))
        self.emit(f"store ptr {self.pointers[b]}, ptr {slot}")

    def alloc_local(self, b: Buffer, offset) -> None:
        super().alloc(ir.Alloc(b))

    def leave(self) -> None:
        """Give back frames."""
        for _ in range(self.frames):
            self.emit("call void @tw_frame_pop(ptr %ctx)")
        self.frames = 0

    def give_back(self) -> None:
        for slot in self.boxes.values():
            self.emit(f"call void @tw_free(ptr {self.op(f'load ptr, ptr {slot}')})")

    def call_function(self, s: ir.Call) -> None:
        if s.callee in self.kernel_ids:
            self.emit(f"call void @tw_profile_mark(ptr %ctx, i32 {self.kernel_ids[s.callee]})")
        super().call_function(s)
        code = self.op("load i32, ptr %ctx")
        self.end_if(self.op(f"icmp ne i32 {code}, 0"))

    def copy(self, s: ir.Copy) -> None:
        size = as_expr(product(s.target.shape)) * s.target.dtype.bytes
        n = self.scalar(self.legal(size))
        self.module.declare("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        self.emit(
            f"call void @llvm.memcpy.p0.p0.i64(ptr {self.pointers[s.target]}, "
            f"ptr {self.pointers[s.source]}, i64 {n}, i1 false)"
        )

    def alloc(self, s: ir.Alloc) -> None:
        b = s.buffer
        place = getattr(self, f"alloc_{b.scope}", None)
        if place is None:
            raise InternalError(f"host function {self.name} cannot allocate {b} ({b.scope})")
        place(b, s.offset)

    def alloc_arena(self, b: Buffer, offset) -> None:
        self.pointers[b] = self.address_bytes(self.frame, offset)

    def alloc_frame(self, b: Buffer, offset) -> None:
        self.frame = self.push(b)

    def alloc_dynamic(self, b: Buffer, offset) -> None:
        self.pointers[b] = self.push(b)

    def allocate(self, size: str) -> str:
        """New memory from the heap; without it the program ends."""
        new = self.op(f"call ptr @tw_alloc(i64 {size})")
        self.out_of_memory_unless(self.op(f"icmp ne ptr {new}, null"), size)
        return new

    def field(self, table: str, position: int, which: int) -> str:
        """Address of a tensor's data (0) or shape (1) pointer in a table."""
        return self.op(f"getelementptr inbounds ptr, ptr {table}, i64 {2 * position + which}")

    def alloc_input(self, b: Buffer, offset) -> None:
        self.pointers[b] = self.op(f"load ptr, ptr {self.field('%inputs', offset.value, 0)}")

    def alloc_input_shape(self, b: Buffer, offset) -> None:
        self.pointers[b] = self.op(f"load ptr, ptr {self.field('%inputs', offset.value, 1)}")
        self.readonly.add(b)

    def alloc_const(self, b: Buffer, offset) -> None:
        slot = self.op(f"getelementptr inbounds i8, ptr %ctx, i64 {WEIGHTS_OFFSET}")
        table = self.op(f"load ptr, ptr {slot}")
        entry = self.op(f"getelementptr inbounds ptr, ptr {table}, i64 {offset.value}")
        self.pointers[b] = self.op(f"load ptr, ptr {entry}")

    def alloc_output(self, b: Buffer, offset) -> None:
        """The caller's memory, or new memory that becomes the caller's; its shape is reported.
        Where the program computes the shape, the caller says for which one its memory is."""
        where = self.field("%outputs", offset.value, 0)
        given = self.op(f"load ptr, ptr {where}")
        shape = self.op(f"load ptr, ptr {self.field('%outputs', offset.value, 1)}")
        needed = self.op(f"icmp eq ptr {given}, null")
        for axis, d in enumerate(map(as_expr, b.shape)):
            p = self.op(f"getelementptr inbounds i64, ptr {shape}, i64 {axis}")
            size = self.scalar(self.legal(d))
            if not is_const(d):
                other = self.op(f"icmp ne i64 {self.op(f'load i64, ptr {p}')}, {size}")
                needed = self.op(f"or i1 {needed}, {other}")
            self.emit(f"store i64 {size}, ptr {p}")
        nbytes = self.byte_size(b.shape, b.dtype)
        before = self.block
        make, done = self.label("make"), self.label("made")
        self.emit(f"br i1 {needed}, label %{make}, label %{done}")
        self.open(make)
        new = self.allocate(nbytes)
        self.emit(f"store ptr {new}, ptr {where}")
        made = self.block
        self.emit(f"br label %{done}")
        self.open(done)
        self.pointers[b] = self.op(f"phi ptr [ {given}, %{before} ], [ {new}, %{made} ]")

    def guard_stack(self) -> None:
        """End the program where the stack does."""
        self.module.declare("declare ptr @llvm.frameaddress.p0(i32)")
        here = self.op("call ptr @llvm.frameaddress.p0(i32 0)")
        slot = self.op(f"getelementptr inbounds i8, ptr %ctx, i64 {STACK_LIMIT}")
        limit = self.op(f"load ptr, ptr {slot}")
        bad, good = self.label("fail"), self.label("ok")
        self.emit(f"br i1 {self.op(f'icmp ult ptr {here}, {limit}')}, label %{bad}, label %{good}")
        self.open(bad)
        code = self.module.error_code(TOO_DEEP.format(self.name.removeprefix("graph_")))
        self.emit(f"call void @tw_fail(ptr %ctx, i32 {code}, i64 0, i64 0, i64 0)")
        self.end()
        self.open(good)

    def finish_entry(self) -> None:
        self.emit("br label %exit")
        self.open("exit")
        self.leave()
        self.emit("br label %failed")
        self.open("failed")  # a failing program leaves its frames to who resets the context
        self.give_back()
        code = self.op("load i32, ptr %ctx")
        self.emit(f"ret i32 {code}")
        self.module.functions.append(
            f"define i32 @{self.name}(ptr %ctx, ptr %inputs, ptr %outputs) {{\n"
            f"{self.body_text()}\n}}\n"
        )


def recursive(functions: Sequence[Kernel]) -> set[str]:
    """The host functions that may be running more than once at a time."""
    calls = {f.name: {s.callee for s in ir.statements(f.body) if isinstance(s, ir.Call)}
             for f in functions}  # fmt: skip
    found = set()
    for name in calls:
        seen, todo = set(), [name]
        while todo:
            for callee in calls.get(todo.pop(), ()):
                if callee not in seen:
                    seen.add(callee)
                    todo.append(callee)
        if name in seen:
            found.add(name)
    return found


def emit_entry(
    k: Kernel, module: ModuleText, kernel_ids: dict[str, int], deep: bool = False
) -> None:
    """Add an entry to the module. deep: what it calls may recurse."""
    f = HostFunction(module, k.name, kernel_ids)
    if deep:
        module.declare("declare void @tw_stack_limit(ptr)")
        f.emit("call void @tw_stack_limit(ptr %ctx)")
    f.stmt(k.body)
    f.finish_entry()


def emit_function(
    k: Kernel, module: ModuleText, kernel_ids: dict[str, int], deep: bool = False
) -> None:
    """Add a called graph's host function to the module. deep: it may recurse."""
    f = HostFunction(module, k.name, kernel_ids)
    arguments = f.arguments(k)
    if deep:
        f.guard_stack()
    f.stmt(k.body)
    f.leave()
    f.finish(f"define void @{k.name}({arguments})")
