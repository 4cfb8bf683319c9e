"""Schedule a kernel for a target: one rule per form.

`schedule(kernel, target)` is total: what has no form that a rule knows runs as its definition says, its
outermost independent loops in parallel.
"""

from __future__ import annotations

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import as_expr, const, is_const
from tensorwright.ir.loop import For, Kernel, Seq, seq
from tensorwright.schedule import primitives as p
from tensorwright.schedule.contraction import schedule_contraction
from tensorwright.schedule.form import read_form
from tensorwright.schedule.legal import why_not_parallel
from tensorwright.schedule.maps import is_small, schedule_map
from tensorwright.schedule.rows import schedule_columns, schedule_rows
from tensorwright.target.target import Target


def schedule(k: Kernel, target: Target) -> Kernel:
    """The kernel in the shape that the rule for its form gives it."""
    form = read_form(k)
    made = None
    if form is not None:
        if form.kind == "map":
            made = schedule_map(form.kernel, form.stages[0].spatial, target)
        elif form.kind == "contraction":
            made = schedule_contraction(form.kernel, form.stages, target)
        elif form.kind == "rows":
            made = schedule_rows(form, target)
        elif form.kind == "columns":
            made = schedule_columns(form.kernel, form.stages[0], target)
    return made if made is not None else schedule_plain(k)


def schedule_plain(k: Kernel) -> Kernel:
    """Run outermost loops in parallel where their iterations are independent and many."""
    parts = k.body.body if isinstance(k.body, Seq) else (k.body,)
    out = []
    for s in parts:
        if isinstance(s, For) and not is_small(_work(s)) and not why_not_parallel(s):
            s = p.set_kind(s, s.var, "parallel")
        out.append(s)
    return k.with_body(seq(*out), "as defined")


def _work(s: ir.Stmt):
    """Iterations of a nest, an unknown extent counting as many."""
    if isinstance(s, For):
        extent = s.extent if is_const(s.extent) else const(1 << 20)
        return as_expr(extent) * _work(s.body)
    if isinstance(s, Seq):
        return max((_work(x) for x in s.body), key=lambda n: n.value, default=const(1))
    return const(1)
