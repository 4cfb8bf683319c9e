"""Files and functions stay small, lines short, names meaningful."""

from __future__ import annotations

import ast
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "tensorwright"
FILE_LIMIT, TABLE_LIMIT, FUNCTION_LIMIT, LINE_LIMIT = 500, 1500, 60, 100
TABLES = (  # pure tables may be longer
    "frontend/onnx_ops.py", "frontend/torch_ops.py", "codegen/math_tables.py",
)  # fmt: skip
BANNED = ("utils", "common", "helpers", "misc")
FILES = sorted(ROOT.rglob("*.py"))


def code_lines(path: Path) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    text = path.read_text()
    skipped = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    with path.open("rb") as f:
        used = {
            line
            for t in tokenize.tokenize(f.readline)
            if t.type not in (*layout, tokenize.ENCODING, tokenize.ENDMARKER)
            for line in range(t.start[0], t.end[0] + 1)
        }
    return len(used - skipped)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file(path):
    name = str(path.relative_to(ROOT))
    limit = TABLE_LIMIT if name in TABLES else FILE_LIMIT
    assert code_lines(path) <= limit, f"{name} has {code_lines(path)} lines of code"
    assert path.stem not in BANNED, f"{name}: say what is in it"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert len(line) <= LINE_LIMIT, f"{name}:{number} has {len(line)} characters"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LIMIT, f"{path}:{node.lineno}: {node.name} has {length} lines"
        if isinstance(node, ast.ImportFrom):
            star = any(a.name == "*" for a in node.names)
            assert not star, f"{path}:{node.lineno}: star import"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_docstring(path):
    tree = ast.parse(path.read_text())
    if path.name == "__init__.py" and path.parent not in (ROOT, ROOT / "nn"):  # tw and tw.nn
        assert not tree.body, f"{path} holds logic"
    elif tree.body:
        assert ast.get_docstring(tree), f"{path} does not say what it is"
