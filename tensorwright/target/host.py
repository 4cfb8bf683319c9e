"""Which of our targets the running machine is.

Asks the operating system for CPU flags and cores once; everything else reads `Target` fields.
"""

from __future__ import annotations

import functools
import platform

from tensorwright.base.errors import CompileError
from tensorwright.runtime.cpu import default_threads
from tensorwright.target.arm import ARM_TARGETS
from tensorwright.target.target import Target
from tensorwright.target.x86 import X86_TARGETS

TARGETS: tuple[Target, ...] = (*X86_TARGETS, *ARM_TARGETS)


@functools.lru_cache(maxsize=1)
def flags() -> frozenset[str]:
    """CPU feature names as /proc/cpuinfo gives them (empty where there is no such file)."""
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


@functools.lru_cache(maxsize=1)
def host() -> Target:
    """The best target that this machine can run, with the cores that this process may use."""
    arch = {"x86_64": "x86-64", "AMD64": "x86-64", "arm64": "aarch64"}.get(
        platform.machine(), platform.machine()
    )
    for t in TARGETS:
        if t.name.startswith(arch) and {*t.required, *t.signs} <= flags():
            return t.with_cores(default_threads())
    raise CompileError(f"no target for this machine ({platform.machine()})",
                       help="name one with target=...; see `tw targets`")  # fmt: skip


def find(name: str | Target) -> Target:
    """The target of that name; "host" is this machine."""
    if isinstance(name, Target):
        return name
    if name == "host":
        return host()
    for t in TARGETS:
        if t.name == name:
            return t
    known = ", ".join(t.name for t in TARGETS)
    raise CompileError(f"there is no target '{name}'", help=f"known targets: host, {known}")
