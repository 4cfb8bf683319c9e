"""A module as files: its text form, and beside it the arrays that the text only names.

write_text(m, "mlp.tw.py")    mlp.tw.py: the program    mlp.tw.npz: its constants
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tensorwright.base.errors import ArtifactError, FrontendError
from tensorwright.ir.module import Module
from tensorwright.ir.parser import parse
from tensorwright.ir.printer import to_text
from tensorwright.ops.table import BY_NAME

SUFFIXES = (".py", ".txt")


def arrays_path(path: Path) -> Path:
    return path.with_suffix(".npz")


def write_text(
    m: Module, path: Path, comment: str = "", extra: Mapping[str, np.ndarray] = {}
) -> None:
    """Write a module; `comment` goes to the first lines, `extra` arrays beside the constants."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    arrays = {**m.constants(), **extra}
    try:
        path.write_text("\n".join([*lines, to_text(m)]))
        with arrays_path(path).open("wb") as f:
            np.savez(f, **arrays)
    except OSError as e:
        raise ArtifactError(f"cannot write {path}: {e.strerror}") from None


def read_text(path: Path) -> Module:
    """The module in a file of the text form."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise FrontendError(f"cannot read {path}: {e}") from None
    return parse(text, BY_NAME, read_arrays(path), path.name)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays beside a text file; none if there is no such file."""
    beside = arrays_path(path)
    if not beside.exists():
        return {}
    with np.load(beside) as found:
        return {name: found[name] for name in found.files}
