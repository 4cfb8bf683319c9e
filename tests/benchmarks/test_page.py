"""Tables in their places of a page, and the tables of every command that has some there."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from benchmarks.page import (
    Section,
    Table,
    aligned,
    filled,
    measured_on,
    options,
    publish,
    thread_option,
)

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks_dynamic.md"
PAGE = """# Title

<!-- a: first -->
| old |
<!-- end -->

Prose.

<!-- a: second -->
<!-- end -->
"""


def test_only_the_place_changes():
    page = filled(PAGE, "a: first", "new")
    assert page == PAGE.replace("\n| old |\n", "\n\nnew\n\n")
    assert filled(page, "a: first", "new") == page


@pytest.mark.parametrize("page, message", [
    ("# Title\n", "should have one line '<!-- a: first -->' and has 0"),
    (PAGE + PAGE, "and has 2"),
    ("<!-- a: first -->\nProse.\n", "no line '<!-- end -->'"),
    ("<!-- a: first -->\n<!-- a: second -->\n<!-- end -->\n", "no line '<!-- end -->'"),
])  # fmt: skip
def test_a_page_without_the_place(page, message):
    with pytest.raises(LookupError, match=re.escape(message)):
        filled(page, "a: first", "new")


def test_columns_are_aligned():
    table = Table("a", 1, ["model", "ms"], [["x|y", "1.25"], ["net", "30"]], "Note.")
    assert table.text().split("\n") == [
        "| model |   ms |", "|-------|-----:|", "| x\\|y  | 1.25 |", "| net   |   30 |", "",
        "Note.",
    ]  # fmt: skip


def test_publish(tmp_path, capsys):
    (page := tmp_path / "page.md").write_text(PAGE)
    publish([Table("a: second", 0, ["n"], [["12"]])], page)
    assert "|  12 |" in capsys.readouterr().out
    assert page.read_text() == filled(PAGE, "a: second", "|   n |\n|----:|\n|  12 |")


def test_no_row_of_the_page_is_lost(tmp_path, capsys):
    (page := tmp_path / "page.md").write_text(PAGE)
    rows = [["a|b", "1"], ["net", "2"], ["net", "3"]]
    publish([Table("a: first", 1, ["model", "ms"], rows)], page, drop=True)
    before = page.read_text()
    for fewer in (rows[:2], rows[1:]):
        with pytest.raises(SystemExit, match=r"rows that these are not: (net|a).*--drop"):
            publish([Table("a: first", 1, ["model", "ms"], fewer)], page)
        assert page.read_text() == before
    publish([Table("a: first", 1, ["other", "s"], [*rows, ["more", "4"]])], page)
    assert "| more  |" in page.read_text()
    publish([Table("a: first", 1, ["model", "ms"], rows[:1])], page, drop=True)
    assert "net" not in page.read_text()


def test_a_section_has_paragraphs():
    section = Section("a: first", ["## One", "", aligned(["n"], [["1"]], words=0)])
    assert section.text() == "## One\n\n|   n |\n|----:|\n|   1 |"


def test_places_are_looked_up_before_anything_is_measured(tmp_path, capsys):
    (page := tmp_path / "page.md").write_text(PAGE)
    parser = argparse.ArgumentParser()
    options(parser, "a: first", "a: third")
    thread_option(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--markdown", str(page), "--drop"])
    assert "<!-- a: third -->" in capsys.readouterr().err
    assert parser.parse_args(["--threads", "1,4"]).threads == [1, 4]


def test_the_line_below_a_table():
    line = measured_on(["ort", "torch", "limit"])
    assert re.search(r"cores, .*; load .* \d+\.\d; Python 3.*onnxruntime \d.*, torch \d", line)
    assert "load" not in measured_on((), timed=False)


# ---- the commands, at tiny sizes ---------------------------------------------------------------


@pytest.fixture
def page(tmp_path) -> Path:
    (path := tmp_path / "page.md").write_text(DOCS.read_text())
    return path


def rows_of(page: Path, place: str) -> list[list[str]]:
    """The header of the table in a place, and its rows."""
    text = page.read_text().partition(f"<!-- {place} -->")[2].partition("<!-- end -->")[0]
    assert "\nMeasured on " in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split(" | ")] for line in (lines[0], *lines[2:])]


def unchanged_but(page: Path, *places: str) -> bool:
    old, new = DOCS.read_text(), page.read_text()
    for place in places:
        old, new = filled(old, place, ""), filled(new, place, "")
    return old == new


def test_memory(page):
    from benchmarks import memory

    memory.main(["--small", "--models", "llama_decode_any", "--markdown", str(page), "--drop"])
    header, row = rows_of(page, memory.PLACE)
    assert unchanged_but(page, memory.PLACE)
    assert header[2:4] == ["planned", "pooled"] and row[1] == "past=16"
    assert all(re.fullmatch(r"\d+ KiB", c) for c in (*row[2:4], *row[5:])) and row[4].endswith("%")


def test_batching(page):
    from benchmarks import batching

    arguments = ["--hidden", "8", "--batch", "1,4", "--rounds", "2", "--peak", "100"]
    found = batching.main([*arguments, "--threads", "1,2", "--markdown", str(page), "--drop"])
    header, *rows = rows_of(page, batching.PLACE)
    assert [r[:2] for r in rows] == [["1", "1"], ["1", "2"], ["4", "1"], ["4", "2"]]
    assert header[5] == batching.TOGETHER and re.fullmatch(r"\d+ \(\d+\)", rows[0][5])
    assert all(r.apart < 1e-5 and 0 < r.share < 1 for r in found)


def test_nuts(page):
    from benchmarks import nuts

    nuts.main(["--draws", "2", "--lanes", "1", "--threads", "1", "--markdown", str(page), "--drop"])
    header, *rows = rows_of(page, nuts.PLACE)
    assert header[2:4] == ["NumPy", "1 lane"] and [r[0] for r in rows] == list(nuts.TARGETS)
    assert all(int(r[3]) > 0 for r in rows)


def test_control(page):
    from benchmarks import control

    only = ["--only", "decision", "--markdown", str(page), "--drop"]
    found = control.main(["--threads", "1,2", *only])
    header, *rows = rows_of(page, control.MODELS)
    assert unchanged_but(page, control.MODELS)
    assert [r[1] for r in rows] == ["1", "2"] and header[4] == "torch.compile"
    assert all(r[4] == "-" and r[6].endswith("x") for r in rows)
    assert all(r.microseconds.keys() == {"tensorwright", "eager"} for r in found)


def test_control_itself(page, monkeypatch):
    from benchmarks import control

    monkeypatch.setattr(control, "STEPS", 2000)
    control.main(["--only", "overheads", "--markdown", str(page), "--drop"])
    _, *rows = rows_of(page, control.OVERHEADS)
    assert len(rows) == 5 and all(0 < float(ns) < 10_000 for _, ns in rows)


def test_llm(page):
    from benchmarks import llm

    sizes = {"layers": 1, "width": 64, "inner": 128, "heads": 4, "shared": 2, "vocab": 256,
             "prompt": 8, "steps": 2, "rounds": 1}  # fmt: skip
    arguments = [x for name, n in sizes.items() for x in (f"--{name}", str(n))]
    arguments += ["--peers", "torch", "--threads", "1", "--precision", "model"]
    llm.main([*arguments, "--markdown", str(page), "--drop"])
    _, *rows = rows_of(page, llm.PLACE)
    assert [r[1] for r in rows] == ["limit", "Tensorwright", "PyTorch eager"]
    assert all(r[0] == "f32" and r[2] == "1" and float(r[4]) > 0 for r in rows)
    assert [r[3] for r in rows if r[1] == "limit"] == [""]


def test_dynamic(page):
    from benchmarks import dynamic

    arguments = ["--small", "--models", "bert_any", "--shapes", "3", "--peers", "ort",
                 "--seconds", "0.01", "--threads", "1,2"]  # fmt: skip
    ratios, runs = dynamic.main([*arguments, "--markdown", str(page), "--drop"])
    assert unchanged_but(page, dynamic.STATIC, dynamic.SEQUENCE)
    assert len(ratios) == 2 and all(r.ratio > 0 for r in ratios)
    assert not any(r.failure for r in runs)
    header, row = rows_of(page, dynamic.STATIC)
    assert row[1] == "s=16" and header[2:8:3] == ["ms, 1 thread", "ms, 2 threads"]
    header, *rows = rows_of(page, dynamic.SEQUENCE)
    assert header[2:4] == ["Tensorwright", "ONNX Runtime"] and [r[1] for r in rows] == ["1", "2"]
    assert all(r[4] == "Tensorwright 0" and r[5].count("x") == 2 for r in rows)
