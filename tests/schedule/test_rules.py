"""Which rule takes which group of operators (convolutions pad first); `schedule` never fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tensorwright.base import trace
from tensorwright.base.config import options
from tensorwright.driver.compile import compile
from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import f32
from tensorwright.ir.expr import Buffer, Symbol, const, sym
from tensorwright.ir.graph import graph, param
from tensorwright.ir.loop import Kernel, Store, loops
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import exp
from tensorwright.schedule import rules
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.rules import schedule
from tensorwright.target.host import find
from tensorwright.tools.program import program_explain
from tensorwright.tools.summary import summarize
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


@pytest.fixture
def refusing(monkeypatch):
    """A rule that fails on a kernel whose form was read, which is told and no error."""

    def refuse(*_):
        raise ScheduleError("loop i is not what was hoped for")

    monkeypatch.setattr(rules, "schedule_map", refuse)
    monkeypatch.setattr(rules, "refused", rules.refused.__wrapped__)


def test_a_refused_schedule_is_a_decision(refusing):
    x, y = Buffer("x", f32, (4,)), Buffer("y", f32, (4,))
    k = Kernel("negated", (x, y), 1, loops("i", (4,), lambda i: Store(y, (i,), -x[(i,)])))
    with trace.recording() as t:
        made = schedule(replace(k, sources=("net.py:3 neg",)), find("host"))
    assert made.schedule == ("as defined: loop i is not what was hoped for",)
    assert rules.refusal(made) == "loop i is not what was hoped for" and not rules.refusal(k)
    assert [(d.subject, d.verdict, d.reason) for d in t.decisions] == [
        ("negated, net.py:3 neg", "as defined", "loop i is not what was hoped for")]  # fmt: skip


def test_a_refused_schedule_is_told(refusing):
    """By what `tw compile`, `tw explain`, `tw profile` and the report show of a program."""
    x = param("x", tensor("f32", 4))
    y = replace(exp(x), loc=('net.onnx node "/act/Exp" (Exp)',))
    with options(cache="off"):
        program = compile(Module({"main": graph("main", [x], [y])}))
    assert program(np.zeros(4, np.float32)).tolist() == [1, 1, 1, 1]
    told = dict(summarize(program).rows())["slow"]
    assert told == ("exp of /act/Exp (Exp) is right but runs on plain loops: loop i is not what "
                    "was hoped for; please report it with the model")  # fmt: skip
    assert told in str(program_explain(program))


def test_a_refused_schedule_fails_other_tests(refusing, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="negated"):
        rules.refused(Kernel("negated", (), 0, ir.seq()), ScheduleError("no"))


def test_empty_loops_go():
    x, y = Buffer("x", f32, (3, 0)), Buffer("y", f32, (3,))

    def row(i):
        step = ir.loop("r", 0, lambda r: Store(y, (i,), y[(i,)] + x[i, r]))
        return ir.seq(Store(y, (i,), const(0.0, f32)), step)

    made = schedule(Kernel("sums", (x, y), 1, loops("i", (3,), row)), find("host"))
    extents = [s.extent for s in ir.statements(made.body) if isinstance(s, ir.For)]
    assert const(0) not in extents
