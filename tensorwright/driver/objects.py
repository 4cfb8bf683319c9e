"""Files by key, shared by processes and compilations: object code, and what is known of kernels.

The key of an object is the SHA-256 of its LLVM text, the target and the LLVM version. Entries are
files written atomically, so any number of processes may share a folder; the oldest go when it is
over its limit. A folder that cannot be written is used read-only.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import platformdirs

from tensorwright.base import config
from tensorwright.ir.module import digest
from tensorwright.target.target import Target

LIMIT = 512 << 20  # bytes kept on disk
FOLDERS = 256  # into which files are spread by the first two digits of their keys
SAMPLE = 8
_CHECK = 64  # hex digits of the body's digest at the end of a file


def cache_folder() -> Path | None:
    """TW_CACHE, else the user's cache folder; None if TW_CACHE is `off`."""
    chosen = config.get("cache")
    if chosen == "off":
        return None
    return Path(chosen or platformdirs.user_cache_dir("tensorwright", appauthor=False))


class ObjectCache:
    """folder: None keeps nothing on disk. kind, suffix: of its files in the folder."""

    def __init__(
        self, folder: str | os.PathLike | None, limit: int = LIMIT, kind: str = "objects",
        suffix: str = ".o",
    ):  # fmt: skip
        self.folder = None if folder is None else Path(folder)
        self.limit, self.kind, self.suffix = limit, kind, suffix
        self.hits = self.misses = 0
        self.touched: dict[Path, None] = {}  # folders written to since `settle`

    def object(self, key: str) -> bytes | None:
        """The object kept under a key; counted as a hit or a miss."""
        found = self.read(key)
        self.hits += found is not None
        self.misses += found is None
        return found

    def path(self, key: str) -> Path:
        return self.folder / self.kind / key[:2] / f"{key}{self.suffix}"

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
        path = self.path(key)
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as f:
                temporary = f.name
                f.write(body + digest(body).encode())
            os.replace(temporary, path)
            self.touched[path.parent] = None
        except OSError:  # a full or read-only disk costs the cache, never the compilation
            discard(temporary)
        except BaseException:  # an interruption leaves no half of a file behind
            discard(temporary)
            raise

    def settle(self) -> None:
        """Keep to the limit after something was written. Keys are spread evenly over the folders,
        so a few of them tell whether to look at all files; if those are too many, half go."""
        sample = list(self.touched)[:SAMPLE]
        self.touched.clear()
        if not sample or FOLDERS * sum(map(size_of, sample)) // len(sample) < 0.8 * self.limit:
            return
        if sum(s.st_size for _, s in self.entries()) > self.limit:
            self.trim(self.limit // 2)

    def entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file of the cache, the least recently used first."""
        found = []
        for path in [] if self.folder is None else self.folder.glob(f"{self.kind}/*/*"):
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


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                total += entry.stat().st_size
    return total


def discard(path: str | None) -> None:
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def object_key(text: str, target: Target) -> str:
    return digest(text, repr(target), str(llvm.llvm_version_info))
