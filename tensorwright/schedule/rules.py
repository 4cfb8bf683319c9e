"""Schedule a kernel for a target: one rule per form.

`schedule(kernel, target)` is total: what has no form that a rule knows runs as its definition says,
its outermost independent loops in parallel. A form promises that its rule can schedule the kernel.
Where the rule cannot, the form was read wrongly: the kernel runs as defined then as well, the trace
and the reports of the program say so, and tests fail.
"""

from __future__ import annotations

from tensorwright.base import trace
from tensorwright.ir import loop as ir
from tensorwright.ir.expr import is_const
from tensorwright.ir.loop import For, Kernel, Seq, seq
from tensorwright.schedule.attention import schedule_attention
from tensorwright.schedule.contraction import schedule_contraction
from tensorwright.schedule.form import read_form
from tensorwright.schedule.groups import groups_apart
from tensorwright.schedule.lanes import schedule_lanes
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.maps import fill, schedule_map
from tensorwright.schedule.nest import read_nest
from tensorwright.schedule.plain import schedule_plain
from tensorwright.schedule.records import recorded
from tensorwright.schedule.rows import schedule_columns, schedule_rows
from tensorwright.schedule.space import ChoiceError, Choices
from tensorwright.schedule.steps import schedule_steps
from tensorwright.schedule.stores import store_rows
from tensorwright.schedule.streams import stream_results
from tensorwright.schedule.strips import schedule_chain
from tensorwright.schedule.turns import read_in_turns, seen_in_turns
from tensorwright.schedule.windows import schedule_windows
from tensorwright.schedule.winograd import schedule_winograd
from tensorwright.target.target import Target

REFUSED = "as defined: "  # in a kernel's trace, before the reason


def schedule(k: Kernel, target: Target, choices: Choices | None = None) -> Kernel:
    """The kernel in the shape that the rule for its form gives it. choices: decisions that are not
    to be made by cost, by default those that the target has a record of. Raises ChoiceError for one
    that does not fit."""
    choices = Choices(recorded(k, target)) if choices is None else choices
    try:
        made = schedule_as(k.with_body(without_empty_loops(k.body)), target, choices)
        choices.check_used()
    except ChoiceError as e:
        raise e.located((f"kernel {k.name}", *k.sources[:1])) from None
    return made


def schedule_as(k: Kernel, target: Target, choices: Choices) -> Kernel:
    """The same with these choices, those that no rule asks for left over."""
    reason = ""
    try:
        made = schedule_by_form(k, target, choices)
    except ScheduleError as e:
        made, reason = None, refused(k, e)
    if made is None:
        choices.forget()
        made = schedule_plain(k, target, choices, REFUSED + reason if reason else "as defined")
        if reason and choices.left_over():
            raise ChoiceError(f"the given choices do not apply: {reason}")
    return made


def refused(k: Kernel, e: ScheduleError) -> str:
    """Why the rule for a kernel's form cannot schedule it, recorded."""
    trace.decision("schedule", ", ".join([k.name, *k.sources[:1]]), "as defined", e.message)
    return e.message


def refusal(k: Kernel) -> str:
    """Why a scheduled kernel runs as defined although it has a form; "" where that is not so."""
    return next((s.removeprefix(REFUSED) for s in k.schedule if s.startswith(REFUSED)), "")


def schedule_by_form(k: Kernel, target: Target, choices: Choices) -> Kernel | None:
    """What the rule for the kernel's form makes of it; None if it has no form."""
    form = read_form(k)
    if form is None:
        made = schedule_steps(k, target, choices)
        return schedule_lanes(k, target, choices) if made is None else made
    if form.kind == "map":
        made = schedule_map(form.kernel, form.stages[0].spatial, target, choices)
        return stream_results(made, target, choices)
    if form.kind == "contraction":
        target = seen_in_turns(k, target)
        apart, stages = groups_apart(form.kernel, form.stages, target)
        made = finished(schedule_contraction(apart, stages, target, choices), target)
        return read_in_turns(made, target, choices)
    if form.kind == "winograd":
        return finished(schedule_winograd(form, target, choices), target)
    if form.kind == "chain":
        return finished(schedule_chain(form, target, choices), target)
    if form.kind == "attention":
        return schedule_attention(form, target, choices)
    if form.kind == "rows":
        return stream_results(schedule_rows(form, target, choices), target, choices)
    if form.kind == "windows":
        return schedule_windows(form, target, choices)
    return schedule_columns(form.kernel, form.stages[0], target, choices)


def finished(k: Kernel, target: Target) -> Kernel:
    """What remains to be done behind a contraction on tiles: the border of a padded result, and
    stores of what is turned."""
    parts = k.body.body if isinstance(k.body, Seq) else (k.body,)
    body = seq(*(fill(k, s, target) if is_border(s) else s for s in parts))
    return k.with_body(store_rows(body))


def is_border(s: ir.Stmt) -> bool:
    """A nest that stores a constant and that no rule has touched."""
    nest = read_nest(s) if isinstance(s, For) else None
    plain = nest is not None and nest.is_map and nest.final.value.op == "const"
    return plain and all(f.kind == "serial" for f in nest.spatial)


def without_empty_loops(body: ir.Stmt) -> ir.Stmt:
    """`body` without the loops that run not once, so that rules divide by no extent of 0."""
    return ir.rewrite(
        body, lambda s: Seq(()) if isinstance(s, For) and is_const(s.extent, 0) else None
    )
