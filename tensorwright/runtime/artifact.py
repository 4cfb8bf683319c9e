"""Load compiled programs from files; the runtime's front door.

    program = load("mlp.tw");  y = program(x)

Needs NumPy and nothing of the compiler. An artifact holds native code: load only files whose
origin is trusted, as with any executable.
"""

import os

from tensorwright.runtime import archive
from tensorwright.runtime.archive import write as save
from tensorwright.runtime.manifest import (
    KernelInfo,
    Manifest,
    SymbolInfo,
    TargetInfo,
    TensorInfo,
)
from tensorwright.runtime.program import Program

__all__ = [
    "KernelInfo", "Manifest", "Program", "SymbolInfo", "TargetInfo", "TensorInfo", "load", "save",
]  # fmt: skip


def load(
    path: str | os.PathLike, threads: int | None = None, verify: bool = True, mapped: bool = False
) -> Program:
    """The program in a `.tw` file.

    verify: False skips the checksums of the members.
    mapped: leave all weights in the file's mapping, which loads at once and shares memory with
        other processes that map it; large weights are copied to 2 MiB pages otherwise, from
        which they are read faster.
    """
    manifest, objects, weights = archive.read(path, verify)
    return Program(manifest, objects, weights, threads, mapped)
