"""The measurement of spaces: what it computes, and a run of one small kernel from end to end."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import schedules
from benchmarks.schedules import Kernel, Sample, Space, mean_lines, ranks, spearman
from tensorwright.schedule.space import Choices
from tensorwright.target.host import find


def kernel(costs, times, family: str = "matmul", name: str = "a") -> Kernel:
    return Kernel(family, name, [Sample({}, c, t) for c, t in zip(costs, times)])


def test_ranks_share_the_mean():
    assert ranks([3.0, 1.0, 2.0, 2.0]).tolist() == [3.0, 0.0, 1.5, 1.5]


@pytest.mark.parametrize("a, b, rho", [
    ([1, 2, 3, 4], [10, 20, 30, 400], 1.0), ([1, 2, 3], [3, 2, 1], -1.0),
    ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),
])  # fmt: skip
def test_spearman(a, b, rho):
    assert spearman(a, b) == pytest.approx(rho)


def test_no_order_has_no_correlation():
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_what_a_kernel_says():
    k = kernel([1, 2, 3], [2.0, 1.0, 4.0])
    assert (k.rank, k.ratio, k.rho) == (2, 2.0, pytest.approx(0.5))
    assert "2.00 (!)" in schedules.line(k)


def test_families_are_summed_up():
    rows = mean_lines(
        [kernel([1, 2], [1, 2]), kernel([1, 2], [4, 1]), kernel([1, 2], [1, 2], "rows")]
    )
    assert rows == [["matmul", "2", "4", "0.00", "2.00"], ["rows", "1", "2", "1.00", "1.00"]]


def test_every_size_is_a_model():
    assert all(schedules.model(f, sizes[-1])[1] for f, sizes in schedules.SIZES.items()
               if f not in ("columns", "attention"))  # fmt: skip


def test_one_kernel_from_end_to_end(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(schedules.SIZES, "rows", (("softmax", 8, 64),))
    path, page = tmp_path / "all.json", tmp_path / "s.md"
    page.write_text("Kept.\n\n<!-- benchmarks.schedules -->\n<!-- end -->\n")
    earlier = [
        kernel([1, 2], [1.0, 2.0], "maps", "gelu"),
        kernel([1], [1.0], "rows", "softmaxx8x64"),
    ]
    path.write_text(json.dumps({"kernels": [asdict(k) for k in earlier]}))
    arguments = ["--families", "rows", "--samples", "3", "--rounds", "1", "--json", str(path),
                 "--join", "--markdown", str(page)]  # fmt: skip
    k, other = schedules.main(arguments)
    assert other.name == "gelu" and other.samples == earlier[0].samples
    assert 1 < len(k.samples) <= 4
    assert all(0 < s.seconds < 1 for s in k.samples)
    assert len({str(s.choices) for s in k.samples}) == len(k.samples)
    assert {r["name"] for r in json.loads(path.read_text())["kernels"]} == {"gelu", "softmaxx8x64"}
    text = page.read_text()
    assert text.startswith("Kept.\n") and "| rows   | softmaxx8x64 |" in text
    assert "| maps   | gelu         |" in text and "Rows of 2 runs. " in text
    assert (tmp_path / "s.svg").read_text().count("<circle") == len(k.samples) + 2


def test_a_wrong_schedule_stops_the_run(monkeypatch):
    monkeypatch.setitem(schedules.SIZES, "rows", (("softmax", 8, 64),))
    space = Space("rows", ("softmax", 8, 64), find("host"))
    make = space.programs
    made = []

    def wrong(choices):
        copies = make(choices)
        made.append(copies)
        return copies if len(made) == 1 else [lambda *a: copies[0](*a) + 1]

    monkeypatch.setattr(space, "programs", wrong)
    with pytest.raises(SystemExit, match="is wrong by"):
        schedules.sampled(space, Kernel("rows", "softmax"), 3, 0)


def test_the_median_of_the_programs_of_a_schedule_counts(monkeypatch):
    taken = {"a": 3.0, "b": 1.0, "c": 2.0}
    monkeypatch.setattr(schedules, "once", lambda program, arrays, calls: taken[program])
    k = Kernel("rows", "softmax", [Sample({}, 1.0)])
    schedules.time_all([list(taken)], k, [], 2)
    assert k.samples[0].seconds == 2.0


def test_choices_that_do_not_go_together_are_none():
    space = Space("rows", ("softmax", 8, 64), find("host"))
    assert schedules.chosen(space, Choices({"tile": 3})) is None
    assert schedules.chosen(space, Choices()).cost > 0
    assert np.isfinite(schedules.chosen(space, Choices()).cost)
