"""What the compiler decided about a program, and why.

    print(program.explain())

The pipeline is run again on the imported model with a recording, so that every pass's own reasons
are told, not a reconstruction of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tensorwright.base import trace
from tensorwright.driver.pipeline import run_pipeline, stages
from tensorwright.ir.expr import as_expr, text_of
from tensorwright.ir.graph import Graph
from tensorwright.ir.loop import Call, Kernel, statements
from tensorwright.ir.module import Module
from tensorwright.passes.layout import KIND as LAYOUT
from tensorwright.passes.layout import assign_layouts
from tensorwright.passes.schedule_kernels import schedule_kernels
from tensorwright.passes.simplify import clean
from tensorwright.passes.strassen import choose_products
from tensorwright.passes.winograd import choose_algorithms
from tensorwright.runtime.program import Program
from tensorwright.schedule.records import Record, Schedules, recorded, recorded_for_graphs
from tensorwright.schedule.rules import schedule
from tensorwright.schedule.space import Choices
from tensorwright.target.target import Target
from tensorwright.tools.dimensions import Dimensions, dimensions
from tensorwright.tools.memory import placed
from tensorwright.tools.summary import short_source, summarize


@dataclass(frozen=True)
class KernelNote:
    """A kernel: how often the program calls it, what of the model it computes, how it runs."""

    name: str
    calls: int
    sources: tuple[str, ...]
    schedule: tuple[str, ...]
    flops: str
    bytes: str


@dataclass(frozen=True)
class Explanation:
    """Print it, or look at its parts."""

    summary: tuple[tuple[str, str], ...]
    kernels: tuple[KernelNote, ...]
    decisions: tuple[tuple[str, str, str, str], ...]  # kind, subject, verdict, reason
    rules: tuple[tuple[str, str, int], ...]  # pass, rule, how often
    passes: tuple[tuple[str, float, bool], ...]  # name, seconds, changed
    memory: str
    dimensions: Dimensions

    def __str__(self) -> str:
        width = max((len(n) for n, _ in self.summary), default=0)
        lines = [f"{name:{width}}  {value}" for name, value in self.summary]
        if self.dimensions.found:
            lines += ["", "sizes", *(f"  {line}" for line in self.dimensions.lines())]
        lines += ["", "kernels, in order of their first call"]
        for k in self.kernels:
            lines.append(f"  {k.name}  x{k.calls}  {k.flops} flops, {k.bytes} bytes")
            lines += [f"      from  {s}" for s in k.sources]
            lines += [f"      does  {s}" for s in k.schedule]
        if self.decisions:
            lines += ["", "decisions"]
            lines += [f"  {k}: {s}: {v}{': ' + r if r else ''}" for k, s, v, r in self.decisions]
        if self.rules:
            lines += ["", "rules that fired"]
            lines += [f"  {p}: {r} x{n}" for p, r, n in self.rules]
        lines += ["", "passes"]
        for name, seconds, changed in self.passes:
            lines.append(f"  {name:10} {1e3 * seconds:8.1f} ms{'' if changed else '  no change'}")
        return "\n".join([*lines, "", f"memory: {self.memory}"])


def explain(program: Program, module: Module) -> Explanation:
    """The explanation of a program that was compiled from `module`."""
    with trace.recording() as t:
        final = module
        for _, after in stages(module, program.target):
            final = after
    called = call_counts(program.built.host)
    return Explanation(
        summary=tuple(summarize(program).rows()),
        kernels=tuple(note(final.kernels[n], c) for n, c in called.items() if n in final.kernels),
        decisions=tuple((d.kind, _name(d.subject), d.verdict, d.reason) for d in t.decisions),
        rules=tuple((p, r, n) for (p, r), n in t.counts().most_common()),
        passes=tuple((x.name, x.seconds, x.changed) for x in t.root.inner),
        memory=memory_note(program),
        dimensions=dimensions(module, final, program.built.host[0]),
    )


def schedules_of(module: Module, target: Target) -> Schedules:
    """How the graphs of a program are laid out, by which algorithms convolutions compute and how
    every kernel is scheduled, in the order in which that is decided."""
    found: dict[str, Record] = {}

    def chosen(record: Record) -> None:
        found.setdefault(record.kernel, record)

    def scheduled(k: Kernel, target: Target) -> Kernel:
        choices = Choices(recorded(k, target))
        made = schedule(k, target, choices)
        chosen(Record.of(k, made, target, choices))
        return made

    def laid_out(m: Module, target: Target) -> Module:
        asked: list[tuple[Graph, Choices]] = []

        def choices_of(g: Graph) -> Choices:
            asked.append((g, recorded_for_graphs(LAYOUT, target)(g)))
            return asked[-1][1]

        made = clean(assign_layouts(m, choices_of))
        for g, choices in asked:
            if choices.values():
                chosen(Record.of_graph(LAYOUT, g, target, choices))
        return made

    instead = {
        "layout": laid_out,
        "winograd": lambda m, t: choose_algorithms(m, t, chosen),
        "strassen": lambda m, t: choose_products(m, t, chosen),
        "schedule": lambda m, t: schedule_kernels(m, t, scheduled),
    }
    run_pipeline(module, target, instead=instead)
    return Schedules(tuple(found.values()))


def _name(subject) -> str:
    """A node by its name and place, anything else as it prints."""
    name, loc = getattr(subject, "name", ""), getattr(subject, "loc", ())
    return f"{name or subject}{f', {short_source(loc[0])}' if loc else ''}"


def call_counts(host: tuple[Kernel, ...]) -> Counter[str]:
    """Kernel -> number of calls in the text of the host program, in order of the first."""
    return Counter(s.callee for h in host for s in statements(h.body) if isinstance(s, Call))


def note(k: Kernel, calls: int) -> KernelNote:
    flops, moved = ("?", "?") if k.work is None else (text_of(as_expr(w)) for w in k.work)
    return KernelNote(k.name, calls, k.sources, k.schedule, flops, moved)


def memory_note(program: Program) -> str:
    """What the plan saves."""
    buffers = placed(program.built.host[0])
    total = as_expr(0)
    for b in buffers:
        total = total + b.size
    if not buffers:
        return "no buffers between kernels"
    frame = summarize(program).arena
    return f"{len(buffers)} buffers, {text_of(total)} bytes, in {frame} bytes"
