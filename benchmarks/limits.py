"""The least time that a machine needs: operations over its FMA peak, or the bytes that must move
over the bandwidth of the cache or memory that holds them. Both are measured on the machine.

Winograd and Strassen do fewer operations than are counted and may pass 100 % of the limit.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

# The smallest level that holds so many bytes, with room for what else is there.
LEVELS = (("L2", 1 << 19), ("L3", 1 << 24))


@dataclass(frozen=True)
class Limit:
    """Milliseconds that the machine needs at least, and what binds."""

    ms: float
    binds: str


def measured_machine(threads: int):
    """The host's peak and bandwidths (`tools.machine.Machine`) with a number of threads."""
    from tensorwright.target.host import host
    from tensorwright.tools.machine import measured

    return measured(host(), threads)


def limit(flops: float, moved: float, machine) -> Limit:
    """Of `flops` operations on `moved` bytes."""
    level = next((name for name, size in LEVELS if moved < size), "memory")
    arithmetic = flops / machine.gflops / 1e6
    memory = moved / machine.gbytes[level] / 1e6
    return Limit(arithmetic, "FMA") if arithmetic > memory else Limit(memory, level)


def described(machine) -> str:
    """A sentence: the limits themselves."""
    levels = ", ".join(f"{name} {rate:.0f}" for name, rate in machine.gbytes.items())
    return f"Measured limits: {machine.gflops:.0f} GFLOP/s; GB/s: {levels}."


def machine_line() -> str:
    """Processor, cores visible, memory: the line that every number depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(part.split(":", 1) for part in lines if ":" in part)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    wide = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if f in flags]
    cores = sum(line.startswith("processor") for line in lines)
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines())
    memory = int(total.split()[1]) >> 20
    name = fields.get("model name", platform.processor())
    model = f"family {fields.get('cpu family')} model {fields.get('model')}"
    return f"{name} ({model}), {cores} cores, {memory} GiB, {' '.join(wide)}"
