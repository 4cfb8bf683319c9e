"""LLVM IR text -> object code, through llvmlite.

Every function is compiled for a `Target`'s CPU and features with the small position-independent
model, so that one object serves both the running process and a file.

Threads may compile at the same time: each text is parsed into a context of its own and each thread
has its own machine, which is all that LLVM asks for. llvmlite guards every call by one lock, so the
three calls that take long (`unlocked`) go around it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import llvmlite.binding as llvm
from llvmlite.binding import ffi

from tensorwright.base.errors import InternalError
from tensorwright.target.target import Target

_local = threading.local()
_starting = threading.Lock()


def unlocked(name: str) -> Callable:
    """A function of LLVM that other threads may call at the same time."""
    locked = getattr(ffi.lib, name)
    return getattr(locked, "_cfn", locked)


_parse = unlocked("LLVMPY_ParseAssembly")
_run = unlocked("LLVMPY_RunNewModulePassManager")
_emit = unlocked("LLVMPY_TargetMachineEmitToMemory")


def machine(target: Target) -> llvm.TargetMachine:
    """This thread's machine for a target; the last one is kept."""
    kept = getattr(_local, "machine", None)
    if kept is None or kept[0] != target:
        with _starting:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
        made = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.llvm_features, opt=2, reloc="pic", codemodel="small"
        )
        kept = _local.machine = (target, made)
    return kept[1]


def parsed(text: str) -> llvm.ModuleRef:
    """The text as a module in a context of its own, closed with it."""
    context = llvm.create_context()
    with ffi.OutputString() as error:
        module = llvm.ModuleRef(_parse(context, ctypes.c_char_p(text.encode()), error), context)
        if error:
            message = str(error)
            module.close()
            raise InternalError(f"LLVM does not accept the generated code: {message}")
    return module


def optimized(text: str, target: Target) -> llvm.ModuleRef:
    """The parsed module after register promotion and clean-up."""
    module = parsed(text)
    try:
        module.verify()  # LLVM ends the process over what this finds
    except RuntimeError as e:
        raise InternalError(f"LLVM does not accept the generated code: {e}") from None
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    builder = llvm.create_pass_builder(machine(target), llvm.PipelineTuningOptions(2))
    _run(passes, module, builder)
    builder.close()
    passes.close()
    return module


def emitted(text: str, target: Target, as_object: bool) -> bytes:
    """Object code or assembly text."""
    module = optimized(text, target)
    with ffi.OutputString() as error:
        memory = _emit(machine(target), module, int(as_object), error)
        if not memory:
            raise InternalError(f"LLVM emits no code: {error}")
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(memory), ffi.lib.LLVMPY_GetBufferSize(memory)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)
        module.close()


def compile_object(text: str, target: Target) -> bytes:
    """A relocatable object of the module."""
    return emitted(text, target, True)


def assembly(text: str, target: Target) -> str:
    """The machine code as assembly text, for people."""
    return emitted(text, target, False).decode()
