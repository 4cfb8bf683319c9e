"""Whole programs by key: a model that was compiled before is loaded, and no pass runs.

    known = KnownPrograms.of("model.onnx", target, shapes)
    program = known.load(threads, again)  # None if it is not known
    known.keep(program)                   # for the next time

The key is the bytes of the model's file, its name, the target and its cores, the schedules asked
for, the shapes, the options and versions that decide about code, and the compiler's own sources.
Files of weights beside the model are not looked at: models that have some are compiled again,
kernel by kernel (see kernels.py). What is kept is the `.tw` file, checksums included; one that is
damaged counts as unknown. The least recently used go when the folder is over its limit. Files of
many weights are written behind the caller's back: who loads the same program waits for that, and so
does the end of the process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from tensorwright.base import config
from tensorwright.base.errors import ArtifactError
from tensorwright.driver.kernels import is_watched, salt
from tensorwright.driver.objects import ObjectCache, cache_folder
from tensorwright.frontend.onnx_raw import take_out
from tensorwright.ir.module import digest
from tensorwright.runtime import archive
from tensorwright.runtime.checksum import checksum
from tensorwright.runtime.program import Program
from tensorwright.target.target import Target

WHOLE = (".",)  # every folder decides
# How ONNX writes that weights lie in another file: {key: "location", value: ...}
EXTERNAL = b"\n\x08location\x12"
OPTIONS = ("seed",)  # that decide, too
ASIDE = 16 << 20  # bytes of weights that take long enough to write to do it in a thread
WATCHING = ("verify", "guard", "poison")  # options that want a compilation
LAZY = ("module", "lowered", "built")  # what tools look at and running does not need


class KnownProgram(Program):
    """A program that was found; what led to it is compiled again once somebody looks at it."""

    def __getattr__(self, name: str):
        if name not in LAZY:
            return super().__getattr__(name)
        made = vars(self)["remake"]()
        vars(self).update((n, getattr(made, n)) for n in LAZY)
        return vars(self)[name]


class KnownPrograms:
    """One model's place among the known programs: its file, a checksum of that, the key."""

    def __init__(self, cache: ObjectCache, path: Path, content: str, key: str):
        self.cache, self.path, self.content, self.key = cache, path, content, key

    @staticmethod
    def of(model, target: Target, shapes=None) -> KnownPrograms | None:
        """None for what is not kept: anything but ONNX files, compilations that somebody watches,
        no folder or no room in it."""
        folder, off = cache_folder(), config.get("cache_programs") <= 0
        if off or folder is None or is_watched() or any(map(config.get, WATCHING)):
            return None
        path, sizes, versions = model_path(model), written(shapes), salt(target, WHOLE)
        found = None if None in (path, sizes, versions) else content(path)
        if found is None:
            return None
        cache = program_cache(folder)
        options = (sizes, repr(target.schedules), *(str(config.get(n)) for n in OPTIONS))
        key = digest(found, path.stem, *options, versions, np.__version__, onnx_version())
        return KnownPrograms(cache, path, found, key)

    def load(self, threads: int, compile_again: Callable[[], Program]) -> KnownProgram | None:
        """threads: 0 for all. compile_again: what makes the program anew, if its insides are
        asked for."""
        path = self.cache.path(self.key)
        wait_for(path)
        try:
            manifest, objects, weights = archive.read(path)
            with contextlib.suppress(OSError):
                os.utime(path)  # the time of last use decides what goes first
        except ArtifactError:
            return None
        program = KnownProgram(replace(manifest, threads=threads), objects, weights)
        program.remake = compile_again
        return program

    def keep(self, program: Program) -> None:
        """Write a program down, unless it would take more than half of the room."""
        path = self.cache.path(self.key)
        if program.weight_bytes > self.cache.limit // 2:
            return
        if program.weight_bytes < ASIDE:
            self.write(program, path)
            return
        wait_for(path)
        writer = threading.Thread(target=self.write, args=(program, path), name="tensorwright-keep")
        _writers[path] = writer
        writer.start()

    def write(self, program: Program, path: Path) -> None:
        # A full or read-only disk costs the cache, never the compilation.
        with contextlib.suppress(ArtifactError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            program.save(path, sync=False)
            self.cache.trim()


_writers: dict[Path, threading.Thread] = {}  # of files that may not be there yet


def wait_for(path: Path) -> None:
    """Until nobody in this process writes a file."""
    writer = _writers.pop(path, None)
    if writer is not None:
        writer.join()


def settle() -> None:
    """Wait until all files are written."""
    for path in list(_writers):
        wait_for(path)


def program_cache(folder: Path) -> ObjectCache:
    return ObjectCache(folder, max(config.get("cache_programs"), 0) << 20, "programs", ".tw")


def model_path(model) -> Path | None:
    """The ONNX file that a model is."""
    if not isinstance(model, (str, os.PathLike)):
        return None
    path = Path(model)
    return path if path.suffix == ".onnx" else None


def content(path: Path) -> str | None:
    """A checksum of a model's file; None if more than this file belongs to it."""
    try:
        with (
            path.open("rb") as f,
            mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            rest, taken = take_out(view)
            for tensor in taken.values():
                tensor.release()
            return None if EXTERNAL in rest else checksum(view)
    except (OSError, ValueError):  # for the front end to tell
        return None


def written(shapes) -> str | None:
    """Shapes as text; None if there is more than texts and numbers in them."""
    if isinstance(shapes, dict):
        shapes = list(shapes.items())
    if isinstance(shapes, (list, tuple)):
        parts = [written(s) for s in shapes]
        return None if None in parts else f"[{', '.join(parts)}]"
    return repr(shapes) if shapes is None or isinstance(shapes, (str, int)) else None


def onnx_version() -> str:
    try:
        return metadata.version("onnx")
    except metadata.PackageNotFoundError:
        return ""
