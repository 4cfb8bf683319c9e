"""The text form at the last levels: lowered modules and host programs with planned memory.

They print, parse, verify and run: in the interpreter, and as plain Python.
"""

from __future__ import annotations

import numpy as np

from tensorwright.driver.pipeline import run_pipeline
from tensorwright.ir.compare import difference
from tensorwright.ir.expr import var
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.interp import run_module, run_program
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ir.type import tensor
from tensorwright.ir.verify import verify
from tensorwright.memory.plan import plan_memory
from tensorwright.ops import prelude
from tensorwright.passes.host import lower_entry
from tensorwright.target.host import find
from tests.ops.rows import all_rows

OPS = {op.name: op for op in all_rows()}


def model() -> Module:
    w = constant(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32), "w")
    x = param("x", tensor("f32", var("n", min=1, max=64), 64))
    y = OPS["softmax"](OPS["relu"](OPS["matmul"](x, w)), axis=1)
    return Module({"main": graph("main", [x], [y])})


def load(text: str) -> dict:
    names = {name: getattr(prelude, name) for name in prelude.__all__}
    exec(compile(text, "<dump>", "exec", dont_inherit=True), names)
    return names


def test_lowered_module_and_host_program(monkeypatch):
    m = model()
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    (expected,) = run_module(m, [x])
    lowered = run_pipeline(m, find("host"))
    check(lowered)
    np.testing.assert_allclose(run_module(lowered, [x])[0], expected, 1e-4, 1e-6)
    constants: dict = {}
    entry = plan_memory(lower_entry(lowered, constants))
    host = Module({}, {**lowered.kernels, "tw_main": entry})
    parsed = check(host)
    arrays = [n.attrs["value"] for n in constants]
    for p in (host, parsed):
        (y,) = run_program(p.kernels["tw_main"], [x], arrays, p.kernels)
        np.testing.assert_allclose(y, expected, 1e-4, 1e-6)
    monkeypatch.setattr(prelude, "constants", {str(k): a for k, a in enumerate(arrays)})
    (y,) = load(to_text(host))["tw_main"](x)
    np.testing.assert_allclose(y, expected, 1e-4, 1e-6)


def check(m: Module) -> Module:
    """The round trip of the text form."""
    verify(m)
    text = to_text(m)
    parsed = parse(text, OPS, m.constants())
    assert to_text(parsed) == text
    assert not difference(parsed, m)
    verify(parsed)
    return parsed
