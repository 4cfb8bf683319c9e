"""What the machine code of a scheduled kernel does in its hottest loop; needs no such machine.

loops = inner_loops(assembly(kernel, target));  loops[0].count("vfmadd")
"""

from __future__ import annotations

import re

from tensorwright.codegen.engine import machine, optimized
from tensorwright.codegen.llvm import ModuleText, emit_kernel
from tensorwright.ir.loop import Kernel
from tensorwright.target.target import Target

LABEL = re.compile(r"^(\.L\w+):")
JUMP = re.compile(r"^\tj\w+\t(\.L\w+)")
FMA = ("vfmadd", "vfnmadd")


def assembly(k: Kernel, target: Target) -> str:
    module = ModuleText()
    emit_kernel(k, module, target)
    return machine(target).emit_assembly(optimized(module.text(target.triple), target))


def inner_loops(text: str) -> list[list[str]]:
    """The innermost loops with fused multiply-adds, as lists of instructions."""
    found, lines, begins = [], [], {}
    for line in text.splitlines():
        label, jump = LABEL.match(line), JUMP.match(line)
        if label:
            begins[label[1]] = len(lines)
        elif line.startswith("\t") and not line.startswith("\t."):
            lines.append(line.strip())
        if jump and jump[1] in begins:
            body = lines[begins[jump[1]] :]
            begins = {}  # what lies around this loop is not innermost
            if any(x.startswith(FMA) for x in body):
                found.append(body)
    return found
