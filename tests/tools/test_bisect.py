"""Planted bugs: a pass that computes something else, one that raises, wrong native code."""

from dataclasses import replace

import numpy as np
import pytest

from tensorwright.base.errors import CompileError
from tensorwright.driver import pipeline
from tensorwright.driver.compile import import_model
from tensorwright.driver.textfile import read_arrays, read_text
from tensorwright.ir.graph import rebuild, with_args
from tensorwright.ir.interp import run_module
from tensorwright.ir.module import map_graphs
from tensorwright.ops.elementwise import maximum, minimum
from tensorwright.target.host import host
from tensorwright.tools import bisect as tool
from tensorwright.tools.bisect import bisect, write_culprit
from tests.tools.modules import DIGITS, mlp

X = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)


def planted(monkeypatch, name, change):
    """Replace a pass by itself followed by `change`."""
    table = tuple(
        (n, (lambda m, t, run=run: change(run(m, t))) if n == name else run)
        for n, run in pipeline.PIPELINE
    )
    monkeypatch.setattr(pipeline, "PIPELINE", table)


def max_to_min(m):
    def visit(node, args):
        node = with_args(node, args)
        return minimum(*args) if node.op is maximum else node

    return map_graphs(m, lambda g: rebuild(g, visit))


def test_nothing_is_wrong():
    assert bisect(mlp(), host(), [X]) is None


def test_a_wrong_pass_is_named_and_reduced(monkeypatch, tmp_path):
    planted(monkeypatch, "expand", max_to_min)
    m = mlp()
    if any(n.op.name == "relu" and n.op.lower is not None for n in m.main.nodes()):
        pytest.skip("relu is not expanded")
    found = bisect(m, host(), [X])
    assert found.stage == "expand" and found.part.operators == ["relu"]
    path = tmp_path / "culprit.py"
    write_culprit(found, path)
    small, arrays = read_text(path), read_arrays(path)
    inputs = [arrays[f"input:{p.name}"] for p in small.main.params]
    assert np.allclose(run_module(small, inputs)[0], arrays["expected"])
    again = bisect(small, host(), inputs)
    assert again.stage == "expand" and again.part.operators == ["relu"]


def test_a_pass_that_raises_is_named(monkeypatch):
    def refuse(m):
        if any("softmax" in k for g in m.all_graphs() for k in (n.op.name for n in g.nodes())):
            raise CompileError("no softmax today")
        return m

    first = pipeline.PIPELINE[0][0]
    planted(monkeypatch, first, refuse)
    found = bisect(mlp(), host(), [X])
    assert found.stage == first and "no softmax" in found.worst.note
    assert found.part.operators == ["softmax"]


def test_wrong_native_code_is_found(monkeypatch):
    right = tool._Search.native

    def wrong(self, lowered, inputs):
        results = right(self, lowered, inputs)
        has_matmul = any("dot_general" in k for k in lowered.kernels)
        return [r + 1 for r in results] if has_matmul else results

    monkeypatch.setattr(tool._Search, "native", wrong)
    found = bisect(mlp(), host(), [X])
    assert found.stage == "native" and found.part.operators[-1] in ("matmul", "dot_general")


def test_the_import_is_judged_by_another_engine():
    m = import_model(str(DIGITS))[0]
    x = np.ones((1, 1, 8, 8), np.float32)
    truth = run_module(m, [x])
    assert bisect(m, host(), [x], truth) is None
    found = bisect(m, host(), [x], [truth[0] + 1])
    assert found.stage == "import" and found.part is None


def test_slices_do_not_repeat():
    m = mlp()
    double = replace(m.main, results=(*m.main.results,))
    assert bisect(replace(m, graphs={"main": double}), host(), [X]) is None
