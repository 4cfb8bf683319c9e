"""The program after any pass, as text.

    tw.show("model.onnx", after="fuse")      print(program.text(after="lower"))

Stages: `import` (the model as it was understood), the passes of the pipeline in order, `host` (the
host program with its memory plan), `llvm` and `asm`.
"""

from __future__ import annotations

import difflib

from tensorwright.base.errors import CompileError
from tensorwright.codegen.engine import assembly
from tensorwright.driver.pipeline import PIPELINE, stages
from tensorwright.ir.module import Module
from tensorwright.ir.printer import to_text
from tensorwright.memory.plan import plan_memory
from tensorwright.passes.host import lower_entry
from tensorwright.target.host import find
from tensorwright.target.target import Target
from tensorwright.tools.signature import import_any

PASSES = tuple(name for name, _ in PIPELINE)
STAGES = ("import", *PASSES, "host", "llvm", "asm")


def show(model, after: str = PASSES[-1], *, target="host", shapes=None) -> None:
    """Print the program of a model (whatever `compile` takes) after a stage."""
    module = import_any(model, None, shapes)
    print(text_after(module, after, find(target)))


def check_stage(name: str) -> None:
    if name not in STAGES:
        near = difflib.get_close_matches(name, STAGES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise CompileError(f"there is no stage '{name}'", help=f"{hint}stages: {', '.join(STAGES)}")


def module_after(m: Module, name: str, target: Target) -> Module:
    """`m` after the pass of that name."""
    if name == "import":
        return m
    for passed, after in stages(m, target):
        if passed == name:
            return after
    raise CompileError(f"there is no pass '{name}'", help=f"passes: {', '.join(PASSES)}")


def text_after(m: Module, stage: str, target: Target, kernel: str = "") -> str:
    """The text of a stage; of one kernel or graph only, if it is named."""
    check_stage(stage)
    if stage in ("llvm", "asm"):
        return native_text(m, stage, target, kernel)
    after = module_after(m, PASSES[-1] if stage == "host" else stage, target)
    if stage == "host":
        return to_text(plan_memory(lower_entry(after, {})))
    return to_text(select(after, kernel) if kernel else after)


def select(m: Module, name: str) -> Module:
    """The module with one function."""
    if name in m.kernels:
        return Module({}, {name: m.kernels[name]}, name)
    if name in m.graphs:
        return Module({name: m.graphs[name]}, {}, name)
    raise unknown_function(name, [*m.graphs, *m.kernels])


def unknown_function(name: str, known: list[str]) -> CompileError:
    near = difflib.get_close_matches(name, known, 3, 0.3) or known[:8]
    return CompileError(f"there is no kernel or graph '{name}'", help=f"such as {', '.join(near)}")


def native_text(m: Module, stage: str, target: Target, kernel: str = "") -> str:
    """LLVM or assembly text of all kernels and the host program, or of one kernel."""
    texts = native_texts(module_after(m, PASSES[-1], target), target)
    if kernel and kernel not in texts:
        raise unknown_function(kernel, list(texts))
    chosen = {kernel: texts[kernel]} if kernel else texts
    parts = []
    for name, text in chosen.items():
        body = text if stage == "llvm" else assembly(text, target)
        parts.append(f"{';' if stage == 'llvm' else '#'} ---- {name} ----\n{body}")
    return "\n".join(parts)


def native_texts(lowered: Module, target: Target) -> dict[str, str]:
    """LLVM text by kernel name."""
    from tensorwright.codegen.llvm import ModuleText, emit_kernel

    texts = {}
    for name, k in lowered.kernels.items():
        module = ModuleText([])
        emit_kernel(k, module, target)
        texts[name] = module.text(target.triple)
    return texts


def diff_text(m: Module, stage: str, target: Target) -> str:
    """What a pass changed, as a unified diff."""
    if stage not in PASSES:
        raise CompileError(f"'{stage}' is no pass", help=f"passes: {', '.join(PASSES)}")
    before_name = ("import", *PASSES)[PASSES.index(stage)]
    before = to_text(module_after(m, before_name, target)).splitlines()
    after = to_text(module_after(m, stage, target)).splitlines()
    lines = difflib.unified_diff(
        before, after, f"after {before_name}", f"after {stage}", lineterm=""
    )
    return "\n".join(lines) or f"{stage} changed nothing"
