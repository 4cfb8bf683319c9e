"""Object code by content: compile what is new, in parallel, and keep it on disk.

The key of an object is the SHA-256 of its LLVM text, the target and the LLVM version. Entries are files
written atomically, so any number of processes may share a folder; the oldest go when it is over its
limit. A folder that cannot be written is used read-only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm

from tensorwright.codegen.engine import compile_object
from tensorwright.ir.module import digest
from tensorwright.target.target import Target

LIMIT = 512 << 20  # bytes kept on disk


class ObjectCache:
    """folder: None keeps nothing on disk."""

    def __init__(self, folder: str | os.PathLike | None, limit: int = LIMIT):
        self.folder = None if folder is None else Path(folder)
        self.limit = limit
        self.hits = self.misses = 0

    def objects(
        self, texts: dict[str, str], target: Target, progress: Callable[[int, int], None] | None = None
    ) -> list[bytes]:
        """The object of every LLVM text, in order."""
        done: list[bytes] = []
        for k, text in enumerate(texts.values()):
            key = digest(text, repr(target), str(llvm.llvm_version_info))
            found = self.read(key)
            if found is None:
                found = compile_object(text, target)
                self.misses += 1
                self.write(key, found)
            else:
                self.hits += 1
            done.append(found)
            if progress is not None:
                progress(k + 1, len(texts))
        return done

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.o"

    def read(self, key: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        body, check = data[:-64], data[-64:]
        return body if digest(body).encode() == check else None

    def write(self, key: str, body: bytes) -> None:
        if self.folder is None:
            return
        path = self.path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
                f.write(body + digest(body).encode())
            os.replace(f.name, path)
        except OSError:  # a full or read-only disk costs the cache, never the compilation
            self.folder = self.folder if os.access(self.folder, os.R_OK) else None
