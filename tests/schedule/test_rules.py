"""Which rule takes which group of operators (convolutions pad first); `schedule` never fails."""

from __future__ import annotations

import pytest

from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Symbol, const, sym
from tensorwright.ir.graph import graph
from tensorwright.ir.loop import Kernel, Store, loops
from tensorwright.ir.module import Module
from tensorwright.schedule import rules
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.rules import schedule
from tensorwright.target.host import find
from tests.schedule import test_native as groups

FORMS = {
    "relu_of_sum": "map", "softmax_of_rows": "rows", "normalized": "rows",
    "largest_of_columns": "columns", "dense": "contraction", "convolution": "map contraction",
    "bytes_to_floats": "map", "halves": "rows",
}  # fmt: skip


@pytest.mark.parametrize("size", [33, sym(Symbol("n", min=1))], ids=["static", "symbolic"])
@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, size):
    x, y = getattr(groups, name)(size)
    lowered = run_pipeline(Module({"main": graph("main", [x], [y])}), find("host"), verify=True)
    traces = [k.schedule[0].split(":")[0] for k in lowered.kernels.values()]
    assert " ".join(traces) == FORMS[name]


def test_a_refused_schedule_is_a_decision(monkeypatch):
    def refuse(*_):
        raise ScheduleError("loop i is not what was hoped for")

    monkeypatch.setattr(rules, "schedule_by_form", refuse)
    x, y = Buffer("x", f32, (4,)), Buffer("y", f32, (4,))
    k = Kernel("negated", (x, y), 1, loops("i", (4,), lambda i: Store(y, (i,), -x[(i,)])))
    made = schedule(k, find("host"))
    assert made.schedule == ("as defined: loop i is not what was hoped for",)


def test_empty_loops_go():
    x, y = Buffer("x", f32, (3, 0)), Buffer("y", f32, (3,))

    def row(i):
        step = ir.loop("r", 0, lambda r: Store(y, (i,), y[(i,)] + x[i, r]))
        return ir.seq(Store(y, (i,), const(0.0, f32)), step)

    made = schedule(Kernel("sums", (x, y), 1, loops("i", (3,), row)), find("host"))
    extents = [s.extent for s in ir.statements(made.body) if isinstance(s, ir.For)]
    assert const(0) not in extents
