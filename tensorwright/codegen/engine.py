"""LLVM IR text -> object code, through llvmlite.

Every function is compiled for a `Target`'s CPU and features with the small position-independent
model, so that one object serves both the running process and a file.
"""

from __future__ import annotations

import functools

import llvmlite.binding as llvm

from tensorwright.base.errors import InternalError
from tensorwright.target.target import Target


@functools.lru_cache(maxsize=8)
def machine(target: Target) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.llvm_features, opt=2, reloc="pic", codemodel="small"
    )


def optimized(text: str, target: Target) -> llvm.ModuleRef:
    """The parsed module after register promotion and clean-up."""
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()  # LLVM ends the process over what this finds
    except RuntimeError as e:
        raise InternalError(f"LLVM does not accept the generated code: {e}") from None
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, llvm.create_pass_builder(machine(target), llvm.PipelineTuningOptions(2)))
    return module


def compile_object(text: str, target: Target) -> bytes:
    """A relocatable object of the module."""
    return machine(target).emit_object(optimized(text, target))


def assembly(text: str, target: Target) -> str:
    """The machine code as assembly text, for people."""
    return machine(target).emit_assembly(optimized(text, target))
