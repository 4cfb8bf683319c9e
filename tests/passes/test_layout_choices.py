"""The layout of a graph is a choice that is written, read and replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import CompileError
from tensorwright.ir.graph import constant, graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.table import BY_NAME as OP
from tensorwright.schedule.records import Record, Schedules
from tensorwright.schedule.space import ChoiceError

X = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)


def weight(*shape: int):
    return constant((np.random.default_rng(1).normal(size=shape) / 8).astype(np.float32))


def model() -> Module:
    """Two convolutions with a map between them."""
    x = param("x", tensor("f32", *X.shape))
    y = OP["tanh"](OP["conv_general"](x, weight(16, 3, 3, 3)))
    y = OP["tanh"](OP["add"](y, OP["transpose"](y, perm=(0, 1, 3, 2))))
    return Module({"main": graph("main", [x], [OP["conv_general"](y, weight(8, 16, 3, 3))])})


def layout_of(found: Schedules) -> Record:
    (row,) = (r for r in found.records if r.kernel.startswith("layout:"))
    return row


def test_the_default_prints_and_replays(tmp_path: Path):
    first = tw.compile(model(), threads=1)
    found = first.schedules()
    row = layout_of(found)
    assert row.choices == {"part0": "turned"}
    assert "part0 = turned" in str(found)
    found.write(tmp_path / "s.json")
    again = tw.compile(model(), threads=1, schedules=tmp_path / "s.json")
    assert again.schedules() == found
    for p, name in ((first, "a"), (again, "b")):
        p.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_other_layout_is_taken():
    first = tw.compile(model(), threads=1)
    row = layout_of(first.schedules())
    given = Schedules((Record(row.kernel, row.target, row.name, {"part0": "plain"}),))
    other = tw.compile(model(), threads=1, schedules=given)
    assert layout_of(other.schedules()).choices == {"part0": "plain"}
    assert transposes(other) > transposes(first)
    np.testing.assert_allclose(other(X), first(X), 1e-5, 1e-6)


def transposes(program) -> int:
    return sum("transposed" in s for k in program.explain().kernels for s in k.schedule)


def test_what_does_not_fit_is_an_error():
    row = layout_of(tw.compile(model(), threads=1).schedules())
    for choices, told in (({"part0": "diagonal"}, "part0 = diagonal is not in the space"),
                          ({"part7": "plain"}, "part7 = plain is not a choice")):  # fmt: skip
        given = Schedules((Record(row.kernel, row.target, row.name, choices),))
        with pytest.raises(ChoiceError, match=told):
            tw.compile(model(), schedules=given)
    strange = Schedules((Record("layout:" + "0" * 64, row.target, "main", {"part0": "plain"}),))
    with pytest.raises(CompileError, match="none of the 1 schedules is for"):
        tw.compile(model(), schedules=strange)
