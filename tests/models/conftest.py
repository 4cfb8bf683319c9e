"""Whole models: what is slow runs only when asked for (`pytest -m full`)."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "examples"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: full-size models, minutes of compiling and running")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "full" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="full-size: run with -m full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)
