"""What of an installation works, and the command that repairs what does not.

Every check answers ok, advice (works, could be better) or problem, with what was found and a fix.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tensorwright import __version__
from tensorwright.base import config
from tensorwright.base.errors import CompileError, TensorwrightError
from tensorwright.driver.compile import compile
from tensorwright.driver.objects import LIMIT, ObjectCache, cache_folder
from tensorwright.ir.dtype import f32
from tensorwright.ir.graph import graph, param
from tensorwright.ir.module import Module
from tensorwright.ir.type import tensor
from tensorwright.ops.elementwise import add
from tensorwright.runtime import cpu
from tensorwright.target.host import host
from tensorwright.tools.machine import processor

OK, ADVICE, PROBLEM = "ok", "advice", "problem"
CORE = ("numpy", "llvmlite", "onnx", "ml_dtypes", "rich", "rich-click", "platformdirs")
EXTRAS = {
    "torch": "compile torch modules",
    "onnxruntime": "compare and bench with ONNX Runtime",
    "openvino": "bench with OpenVINO",
}
NAMES = {"ml_dtypes": "ml-dtypes"}


@dataclass(frozen=True)
class Check:
    """One line of the examination."""

    group: str
    name: str
    state: str
    found: str
    fix: str = ""


def examine() -> list[Check]:
    """All checks; none of them raises."""
    found: list[Check] = []
    for check in (versions, machine, threads, cache, options, end_to_end):
        try:
            found += check()
        except Exception as e:  # a doctor that falls ill helps nobody
            found.append(Check("doctor", check.__name__, PROBLEM, f"{type(e).__name__}: {e}"))
    return found


def versions() -> Iterator[Check]:
    yield Check("versions", "tensorwright", OK, __version__)
    python = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Check("versions", "Python", OK if good else PROBLEM, f"{python}, {sys.executable}",
                "" if good else "install Python 3.11 or newer")  # fmt: skip
    for package in CORE:
        version = installed(package)
        fix = "" if version else f"pip install {NAMES.get(package, package)}"
        yield Check("versions", package, OK if version else PROBLEM, version or "missing", fix)
    for package, purpose in EXTRAS.items():
        version = installed(package)
        fix = "" if version else f"pip install {package}   (to {purpose})"
        yield Check("versions", package, OK if version else ADVICE, version or "not there", fix)


def installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine() -> Iterator[Check]:
    yield Check("machine", "system", OK, f"{platform.system()} {platform.release()}")
    yield Check("machine", "processor", OK, f"{processor()}, {cpu.machine()}")
    try:
        t = host()
    except CompileError as e:
        yield Check("machine", "target", PROBLEM, e.message, e.help)
        return
    features = ", ".join(t.required)
    yield Check("machine", "target", OK, f"{t.name}, vectors of {t.vector_bits} bit ({features})")


def threads() -> Iterator[Check]:
    count = cpu.default_threads()
    mask, quota = len(os.sched_getaffinity(0)), cpu.quota()
    limit = "no quota" if quota == float("inf") else f"a quota of {quota:g}"
    found = f"{count} (of {os.cpu_count()} CPUs, {mask} in the affinity mask, {limit})"
    yield Check("machine", "threads", OK, found)
    load = os.getloadavg()[0]
    if load > count:
        yield Check("machine", "load", ADVICE, f"{load:.1f}: others use this machine",
                    "times that you measure now are not to be trusted")  # fmt: skip


def cache() -> Iterator[Check]:
    folder = cache_folder()
    if folder is None:
        yield Check("cache", "kernels", ADVICE, "TW_CACHE is off", "unset TW_CACHE")
        return
    usable = folder
    while not usable.exists():
        usable = usable.parent
    if not os.access(usable, os.W_OK):
        yield Check("cache", "kernels", ADVICE, f"{folder} cannot be written",
                    f"chmod u+w {usable}   or set TW_CACHE to a folder that can")  # fmt: skip
        return
    entries = list(ObjectCache(folder).entries())
    used = sum(s.st_size for _, s in entries)
    found = f"{folder}: {len(entries)} kernels, {used >> 20} of {LIMIT >> 20} MiB"
    yield Check("cache", "kernels", OK, found)


def options() -> Iterator[Check]:
    known = {o.variable for o in config.OPTIONS}
    found = config.environment()
    for name, value in sorted(found.items()):
        if name in known:
            yield Check("options", name, OK, repr(value))
        else:
            yield Check("options", name, ADVICE, f"{value!r}: there is no such option",
                        f"unset {name}")  # fmt: skip


def end_to_end() -> Iterator[Check]:
    """Compile and run a small program in this process."""
    x = param("x", tensor(f32, 4))
    given = np.arange(4, dtype=np.float32)
    try:
        result = compile(Module({"main": graph("main", [x], [add(x, x)])}))(given)
    except (TensorwrightError, OSError, RuntimeError) as e:
        yield Check("test", "compile and run", PROBLEM, str(e).splitlines()[0], hint(e))
        return
    good = np.array_equal(result, given + given)
    yield Check("test", "compile and run", OK if good else PROBLEM,
                "a small program compiles and gives the right result" if good else str(result),
                "" if good else "please report it")  # fmt: skip


def hint(e: Exception) -> str:
    if isinstance(e, TensorwrightError):
        return e.help
    if isinstance(e, OSError):
        return "executable memory is refused: allow it for this process (seccomp, SELinux, noexec)"
    return "pip install --force-reinstall llvmlite"
