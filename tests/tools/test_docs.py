"""Every snippet of README.md and docs is run: Python blocks of a page one after another, and the
`tw` lines of shell blocks. A text block right behind a Python block is what that one prints, `...`
in it stands for anything. A block of another language (text, console) is only shown."""

import contextlib
import io
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from tensorwright.tools.cli import run
from tests.tools.modules import DIGITS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
PRINTS = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.S | re.M)
LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)(#[^)]*)?\)")
MADE_LATER = ("benchmarks.md", "conformance.md")  # written by commands, not kept by hand
QUICK = {"bench": ["--seconds", "0.1"]}


def blocks(path: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(path.read_text()) if found == language]


def pages_with(language: str) -> list[Path]:
    return [p for p in PAGES if blocks(p, language)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A place with the files that the pages speak of."""
    shutil.copy(DIGITS, tmp_path / "model.onnx")
    (tmp_path / "examples" / "digits").mkdir(parents=True)
    shutil.copy(DIGITS, tmp_path / "examples" / "digits" / "digits.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda p: p.name)
def test_python(page, folder):
    found = PRINTS.findall(page.read_text())
    if any("torch" in code for code, _ in found):
        pytest.importorskip("torch")
    names: dict = {"__name__": page.stem}
    for code, shown in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page.name, "exec"), names)
        if shown:
            pattern = re.escape(shown.strip()).replace(re.escape("..."), ".*")
            assert re.fullmatch(pattern, printed.getvalue().strip(), re.S), printed.getvalue()


@pytest.mark.parametrize("page", pages_with("sh"), ids=lambda p: p.name)
def test_shell(page, folder):
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] != "tw":
                assert not words or words[0] in ("make", "pip", "git", "cd", "pytest"), line
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                code = run([*words[1:], *QUICK.get(words[1], [])])
            assert code == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links(page):
    for target, _ in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")) or Path(target).name in MADE_LATER:
            continue
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/floors/*.md")), ids=lambda p: p.stem)
def test_files_of_a_floor_exist(page):
    named = re.search(r"<!-- files: (.*?) -->", page.read_text())[1].split()
    for name in named:
        assert (ROOT / "tensorwright" / page.stem / name).exists(), name


def test_api_page_is_up_to_date():
    """`python docs/make_api.py` writes it."""
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["api"]()
    assert (ROOT / "docs" / "api.md").read_text() == made


def test_every_folder_has_a_floor_page():
    folders = {p.name for p in (ROOT / "tensorwright").iterdir() if any(p.glob("*.py"))}
    pages = {p.stem for p in ROOT.glob("docs/floors/*.md")}
    assert pages <= folders and {"base", "ir", "passes", "tools"} <= pages
