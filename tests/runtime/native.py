"""Hand-written LLVM IR to native objects, for tests that need compiled code of their own."""

import functools
import re

import llvmlite.binding as llvm

from tensorwright.codegen.support import support_ir
from tensorwright.runtime.artifact import Manifest, Program, TargetInfo, TensorInfo

HOST = llvm.get_default_triple()
AARCH64 = "aarch64-unknown-linux-gnu"

DECLARATIONS = """
declare void @tw_parallel(ptr, ptr, ptr, i64)
declare ptr @tw_frame_push(ptr, i64)
declare void @tw_frame_pop(ptr)
declare ptr @tw_alloc(i64)
declare void @tw_free(ptr)
declare void @tw_fail(ptr, i32, i64, i64, i64)
declare void @tw_profile_mark(ptr, i32)
"""


@functools.cache
def assemble(ir: str, triple: str = HOST) -> bytes:
    """IR text to one relocatable object."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        opt=2, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{ir}')
    module.verify()
    return machine.emit_object(module)


def support(triple: str = HOST) -> bytes:
    return assemble(support_ir(triple), triple)


def manifest(inputs: str, outputs: str, name: str = "test", **more: object) -> Manifest:
    """`manifest("x: f32[n, 2]", "y: f32[n]")`."""
    return Manifest(name, TargetInfo(HOST), tensors(inputs), tensors(outputs), **more)


def tensors(text: str) -> tuple[TensorInfo, ...]:
    found = re.findall(r"(\w+): (\w+)\[([^\]]*)\]", text)
    return tuple(TensorInfo(name, dtype, _dims(dims)) for name, dtype, dims in found)


def _dims(text: str) -> tuple[int | str, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(int(p) if p.isdigit() else p for p in parts)


def program(ir: str, inputs: str, outputs: str, weights=(), threads=2, **more) -> Program:
    """A program whose `tw_main` is in `ir`."""
    objects = [assemble(DECLARATIONS + ir), support()]
    return Program(manifest(inputs, outputs, **more), objects, weights, threads)


# y = x + 1 over f32[n], in parallel; y is allocated by the program.
INCREMENT = """
define internal void @body(ptr %ctx, ptr %env, i64 %begin, i64 %end) {
  %x = load ptr, ptr %env
  %ys = getelementptr ptr, ptr %env, i64 1
  %y = load ptr, ptr %ys
  %go = icmp ult i64 %begin, %end
  br i1 %go, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %0 ], [ %i1, %loop ]
  %xp = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %xp
  %r = fadd float %v, 1.0
  %yp = getelementptr float, ptr %y, i64 %i
  store float %r, ptr %yp
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}
define i32 @tw_main(ptr %ctx, ptr %in, ptr %out) {
  %env = alloca [2 x ptr]
  %x = load ptr, ptr %in
  %dimsp = getelementptr ptr, ptr %in, i64 1
  %dims = load ptr, ptr %dimsp
  %n = load i64, ptr %dims
  %bytes = shl i64 %n, 2
  %y = call ptr @tw_alloc(i64 %bytes)
  store ptr %y, ptr %out
  %odimsp = getelementptr ptr, ptr %out, i64 1
  %odims = load ptr, ptr %odimsp
  store i64 %n, ptr %odims
  store ptr %x, ptr %env
  %e1 = getelementptr ptr, ptr %env, i64 1
  store ptr %y, ptr %e1
  call void @tw_parallel(ptr %ctx, ptr @body, ptr %env, i64 %n)
  ret i32 0
}
"""
