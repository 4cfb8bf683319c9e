"""Rows of several runs in one table."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import pytest

from benchmarks import dynamic, runs
from benchmarks.dynamic import Ratio
from benchmarks.results import Result
from benchmarks.runs import Rows, joined, sources
from benchmarks.sequence import Job, Run


def row(model: str, threads: int = 1, peer: str = "ort", **more) -> Result:
    return Result(model, model, threads, peer, **more)


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    runs.options(parser)
    return parser.parse_args(given)


def rows_of(*given: str) -> Rows:
    return Rows(arguments(*given), "2 rounds", rows=Result)


def test_new_rows_take_the_place_of_old_ones():
    earlier = [row("a"), row("a", 2), row("a", 2, "mnn"), row("b")]
    found = joined(earlier, [row("a", 2, "tvm"), row("c")])
    assert [(r.model, r.threads, r.peer) for r in found] == [
        ("a", 1, "ort"), ("a", 2, "tvm"), ("b", 1, "ort"), ("c", 1, "ort"),
    ]  # fmt: skip


def test_a_run_adds_to_the_file(tmp_path):
    path = str(tmp_path / "all.json")
    first = rows_of("--json", path, "--join")
    first.add("rows", [row("a"), row("b")])
    second = rows_of("--json", path, "--join")
    second.add("rows", [row("b", version="2")])
    assert [(r.model, r.version) for r in rows_of("--join", path).found["rows"]] == [
        ("a", ""), ("b", "2"),
    ]  # fmt: skip
    assert [r.model for r in second.ordered("rows", ["b", "a"])] == ["b", "a"]
    assert [r.model for r in second.ordered("rows", ["b"])] == ["b", "a"]
    third = rows_of("--json", path)
    third.add("rows", [row("c")])
    assert [r.model for r in rows_of("--join", path).found["rows"]] == ["c"]


def test_of_several_files_the_last_wins(tmp_path):
    for name, version in (("a", "1"), ("b", "2")):
        records = [asdict(row("net", version=version))]
        (tmp_path / name).write_text(json.dumps(records))  # a list, as older files are
    found = rows_of("--join", str(tmp_path / "b"), str(tmp_path / "a")).found["rows"]
    assert [r.version for r in found] == ["1"] and found[0].run.startswith("until 2")


def test_what_cannot_be_joined(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no .*none\.json"):
        rows_of("--join", str(tmp_path / "none.json"))
    with pytest.raises(SystemExit, match="needs names of files"):
        rows_of("--join")
    assert rows_of("--json", str(tmp_path / "none.json"), "--join").found == {"rows": []}


def test_a_table_says_of_what_runs_it_is():
    first = [row("a", run="monday", load=0.5), row("b", run="monday", load=1.25)]
    assert sources([]) == "" and sources(first) == "One run: monday, load up to 1.2."
    found = [*first, row("c", run="tuesday")]
    assert sources(found) == "Rows of 2 runs. c: tuesday. All others: monday, load up to 1.2."


def test_rows_of_two_kinds(tmp_path, capsys):
    ratio = Ratio("bert_any", {"s": 16}, 1, 0.002, 0.001)
    run = Run(Job("bert_any", "tensorwright", 1, 3), 1.0, 2.0, 3.0)
    (path := tmp_path / "all.json").write_text(
        json.dumps({"ratios": [asdict(ratio)], "runs": [asdict(run)]})
    )
    ratios, found = dynamic.main(["--threads", "", "--join", str(path)])
    assert found[0].job == run.job and ratios[0].key == ratio.key
    text = capsys.readouterr().out
    assert " 2.00 / 3.00 |" in text and text.count("One run: until ") == 2
