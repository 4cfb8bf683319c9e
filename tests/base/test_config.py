"""Options: the environment, what overrides it, and the limits on the table."""

import ast
from pathlib import Path

import pytest

from tensorwright.base import config
from tensorwright.base.errors import CompileError

ROOT = Path(config.__file__).parent.parent


def test_order_of_sources(monkeypatch):
    assert config.get("fuel") == -1
    monkeypatch.setenv("TW_FUEL", "7")
    assert config.get("fuel") == 7
    with config.options(fuel=3):
        assert config.get("fuel") == 3
        with config.options(verify=1):
            assert (config.get("fuel"), config.get("verify")) == (3, 1)
    assert config.get("fuel") == 7


def test_kinds(monkeypatch):
    monkeypatch.setenv("TW_LOG", "fuse, tune")
    monkeypatch.setenv("TW_TIME", "0")
    monkeypatch.setenv("NO_COLOR", "1")
    assert config.get("log") == ("fuse", "tune")
    assert config.get("time") is False
    assert config.get("no_color") is True


def test_bad_value(monkeypatch):
    monkeypatch.setenv("TW_THREADS", "many")
    with pytest.raises(CompileError, match="TW_THREADS is 'many'"):
        config.get("threads")


def test_unknown_option():
    with pytest.raises(TypeError, match="no option is named speed"), config.options(speed=1):
        pass


def test_the_table():
    assert len(config.OPTIONS) <= 16
    assert len({o.variable for o in config.OPTIONS}) == len(config.OPTIONS)
    assert all(o.doc for o in config.OPTIONS)


def test_only_reader_of_the_environment():
    for path in ROOT.rglob("*.py"):
        if path == Path(config.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asks = isinstance(node, ast.Attribute) and node.attr in ("get", "getenv", "items")
            asks = asks or (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load))
            reads = asks and ("environ" in ast.unparse(node.value) or node_name(node) == "getenv")
            assert not reads, f"{path}:{node.lineno} reads the environment"


def node_name(node: ast.AST) -> str:
    return getattr(node, "attr", "")
