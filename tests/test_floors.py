"""Lower floors never import upper ones, and files of one folder do not import in circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "tensorwright"
# `passes` stands above `schedule`, which it asks for what a group of nodes would become.
FLOOR = {
    "base": 0, "ir": 1, "runtime": 1, "ops": 2, "target": 2, "frontend": 3, "memory": 3,
    "autodiff": 3, "schedule": 3, "quant": 3, "passes": 4, "codegen": 4, "accel": 4, "nn": 4,
    "tune": 5, "batching": 5, "driver": 6, "tools": 7,
}  # fmt: skip
# Heavy packages, and the files that may import them when their module is loaded (none) or not.
HEAVY = ("torch", "onnx", "onnxruntime", "tensorflow", "jax", "transformers", "sklearn")
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names)


def ours(module: str) -> Path | None:
    """The file of a module of this package."""
    path = ROOT.parent / Path(*module.split(".")).with_suffix(".py")
    return path if path.is_relative_to(ROOT) and path.exists() else None


def folder(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    here = folder(path)
    assert here in FLOOR, f"{here}/ has no floor"
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] != "tensorwright" or len(parts) < 2:
            continue
        there = parts[1]
        if there not in FLOOR:
            continue
        fine = there == here or FLOOR[there] < FLOOR[here]
        assert fine, f"{path}:{line}: {here} may not import {there}"


@pytest.mark.parametrize("path", [p for p in FILES if folder(p) == "runtime"], ids=lambda p: p.name)
def test_runtime_is_self_contained(path):
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] == "tensorwright":
            fine = len(parts) == 1 or parts[1] in ("runtime", "base")
            assert fine, f"{path}:{line}: the runtime may not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_imports_are_local(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            heavy = name.split(".")[0] in HEAVY
            assert not heavy, f"{path}:{node.lineno}: {name} is imported when the file is"


def test_no_circles_in_a_folder():
    edges = {p: set() for p in FILES}
    for p in FILES:
        for _, module in imports(p):
            found = ours(module)
            if found is not None and found != p and found in edges:
                edges[p].add(found)
    circles = [sorted(str(p.relative_to(ROOT)) for p in c) for c in components(edges) if len(c) > 1]
    assert not circles, f"import circles: {circles}"


def components(edges: dict[Path, set[Path]]) -> list[list[Path]]:
    """Strongly connected components: those reachable from each other."""

    def reachable(start: Path) -> set[Path]:
        seen, stack = set(), [start]
        while stack:
            for q in edges[stack.pop()]:
                if q not in seen:
                    seen.add(q)
                    stack.append(q)
        return seen

    reach = {p: reachable(p) for p in edges}
    found, done = [], set()
    for p in edges:
        if p not in done:
            group = [q for q in edges if q == p or (q in reach[p] and p in reach[q])]
            done.update(group)
            found.append(group)
    return found
