"""Schedules are written, read and replayed; what does not fit is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tensorwright as tw
from tensorwright.base.errors import ArtifactError, CompileError
from tensorwright.ir.printer import to_text
from tensorwright.schedule.records import Record, Schedules, identity
from tensorwright.schedule.space import ChoiceError
from tests.schedule.test_space import product, softmax

TARGET = "x86-64-avx2"


@tw.function
def layer(x: tw.f32[9, 40], w: tw.f32[40, 33]):
    return tw.numpy.maximum(tw.numpy.matmul(x, w), 0)


def operands() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=d).astype(np.float32) for d in ((9, 40), (40, 33))]


def program(schedules=None):
    return tw.compile(layer, target=TARGET, schedules=schedules)


def edited(found: Schedules, **choices) -> Schedules:
    """The records with other choices for the product."""
    return Schedules(tuple(
        Record(r.kernel, r.target, r.name, choices if "tile" in r.choices else r.choices, r.does)
        for r in found.records
    ))  # fmt: skip


def test_names_do_not_matter_and_structure_does():
    assert identity(product()) == identity(product())
    assert identity(product()) != identity(softmax())


def test_written_and_read(tmp_path: Path):
    found = program().schedules()
    found.write(tmp_path / "s.json")
    assert Schedules.read(tmp_path / "s.json") == found
    rows = json.loads((tmp_path / "s.json").read_text())["schedules"]
    (row,) = (r for r in rows if "tile" in r["choices"])
    assert row["target"] == TARGET
    assert f"tile = {tuple(row['choices']['tile'])}" in str(found)


def test_replayed_programs_are_equal(tmp_path: Path):
    first = program()
    first.schedules().write(tmp_path / "s.json")
    again = program(tmp_path / "s.json")
    assert text(again) == text(first)
    assert again.schedules() == first.schedules()


def text(p) -> str:
    return "\n".join(to_text(k) for k in p.lowered.kernels.values())


def test_other_choices_make_other_loops_with_the_same_results():
    first, arrays = program(), operands()
    given = edited(first.schedules(), tile=(2, 3, 8))
    other = program(given)
    assert text(other) != text(first)
    assert "contraction: 2 x 3 x 8 register tile" in str(other.explain())
    np.testing.assert_allclose(other(*arrays), first(*arrays), 1e-5, 1e-5)
    (row,) = (r for r in other.schedules().records if "tile" in r.choices)
    assert row.choices["tile"] == (2, 3, 8)


def test_what_does_not_fit_is_an_error():
    found = program().schedules()
    with pytest.raises(ChoiceError, match=r"tile = \(40, 1, 8\) is not in the space"):
        program(edited(found, tile=(40, 1, 8)))
    with pytest.raises(ChoiceError, match="tiles = 4 is not a choice of this kernel"):
        program(edited(found, tiles=4))
    with pytest.raises(CompileError, match=f"for {TARGET}, not for x86-64-sse4.2"):
        tw.compile(layer, target="x86-64-sse4.2", schedules=found)
    strange = Schedules((Record("0" * 64, TARGET, "other", {}),))
    with pytest.raises(CompileError, match="none of the 1 schedules is for a kernel"):
        program(strange)
    both = program(Schedules((*found.records, *strange.records)))
    told = [d for d in both.explain().decisions if d[0] == "schedules"]
    assert [(d[1], d[2]) for d in told] == [("record 000000000000", "not used")]


NEWER = '{"format": "tensorwright schedules", "version": 2}'
FILES = {"{}": "no schedules", "[": "Expecting value", NEWER: "its version is 2, not 1"}


@pytest.mark.parametrize("content", FILES)
def test_files_that_hold_no_schedules(content: str, tmp_path: Path):
    with pytest.raises(ArtifactError, match="No such file"):
        program(tmp_path / "s.json")
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(ArtifactError, match=FILES[content]):
        program(tmp_path / "s.json")
