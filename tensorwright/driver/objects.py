"""Object code by content: compile what is new, in parallel, and keep it on disk.

The key of an object is the SHA-256 of its LLVM text, the target and the LLVM version. Entries are
files written atomically, so any number of processes may share a folder; the oldest go when it is
over its limit. A folder that cannot be written is used read-only.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import platformdirs

from tensorwright.base import config
from tensorwright.codegen.engine import compile_object
from tensorwright.ir.module import digest
from tensorwright.target.target import Target

LIMIT = 512 << 20  # bytes kept on disk
_CHECK = 64  # hex digits of the body's digest at the end of a file


def cache_folder() -> Path | None:
    """TW_CACHE, else the user's cache folder; None if TW_CACHE is `off`."""
    chosen = config.get("cache")
    if chosen == "off":
        return None
    return Path(chosen or platformdirs.user_cache_dir("tensorwright", appauthor=False))


class ObjectCache:
    """folder: None keeps nothing on disk."""

    def __init__(self, folder: str | os.PathLike | None, limit: int = LIMIT):
        self.folder = None if folder is None else Path(folder)
        self.limit = limit
        self.hits = self.misses = 0

    def objects(
        self,
        texts: dict[str, str],
        target: Target,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[bytes]:
        """The object of every LLVM text, in order."""
        done: list[bytes] = []
        missed = self.misses
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
        if self.misses > missed:
            self.trim()
        return done

    def path(self, key: str) -> Path:
        return self.folder / "objects" / key[:2] / f"{key}.o"

    def read(self, key: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            data = self.path(key).read_bytes()
            with contextlib.suppress(OSError):
                os.utime(self.path(key))  # the time of last use decides what goes first
        except OSError:
            return None
        return checked(data)

    def write(self, key: str, body: bytes) -> None:
        if self.folder is None:
            return
        path, temporary = self.path(key), None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as f:
                temporary = f.name
                f.write(body + digest(body).encode())
            os.replace(temporary, path)
            temporary = None
        except OSError:  # a full or read-only disk costs the cache, never the compilation
            return
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file of the cache, the least recently used first."""
        found = []
        for path in [] if self.folder is None else self.folder.glob("objects/*/*"):
            with contextlib.suppress(OSError):
                found.append((path, path.stat()))
        yield from sorted(found, key=lambda e: e[1].st_mtime)

    def trim(self, limit: int | None = None) -> int:
        """Remove the least recently used until the rest fits; the number removed."""
        found = list(self.entries())
        excess = sum(s.st_size for _, s in found) - (self.limit if limit is None else limit)
        removed = 0
        for path, stat in found:
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
                excess -= stat.st_size
        return removed


def checked(data: bytes) -> bytes | None:
    """The object in a cache file, None if it is damaged."""
    body, check = data[:-_CHECK], data[-_CHECK:]
    return body if digest(body).encode() == check else None
