"""`compile`, and what a compiled program offers besides being called.

    program = tw.compile("model.onnx")
    program.text(after="fuse")     program.explain()     program.compare("onnxruntime", x)

The runtime's Program knows nothing of the compiler. The floors above it add these methods; a
program loaded from a file has none of what they need and says so.
"""

from __future__ import annotations

from pathlib import Path

from tensorwright.driver.compile import compile
from tensorwright.runtime.program import Program
from tensorwright.schedule.records import Schedules
from tensorwright.tools.compare import Comparison, compare
from tensorwright.tools.explain import Explanation, explain, schedules_of
from tensorwright.tools.report import write_report
from tensorwright.tools.show import text_after
from tensorwright.tools.signature import module_of


def program_text(program: Program, after: str = "schedule", kernel: str = "") -> str:
    """The program after a stage: import, a pass, host, llvm or asm; or one kernel of it."""
    return text_after(module_of(program), after, program.target, kernel)


def program_explain(program: Program) -> Explanation:
    """What the compiler decided, and why."""
    return explain(program, module_of(program))


def program_schedules(program: Program) -> Schedules:
    """The choices with which every kernel was scheduled: print them, write them, compile with them
    again (`tw.compile(..., schedules=...)`)."""
    return schedules_of(module_of(program), program.target)


def program_compare(program: Program, against: str = "reference", *inputs, **options) -> Comparison:
    """See `tw.compare`."""
    return compare(program, against, *inputs, **options)


def program_report(program: Program, path="report.html", *inputs, **named) -> Path:
    """Write one HTML page about the program; see `tensorwright.tools.report`."""
    given = {**dict(zip((i.name for i in program.inputs), inputs)), **named}
    return write_report(program, path, given)


Program.text = program_text
Program.explain = program_explain
Program.schedules = program_schedules
Program.compare = program_compare
Program.report = program_report

__all__ = ["compile"]
