"""What this machine's processor offers: instruction sets by name, and CPUs we may use.

Feature names are the kernel's (`/proc/cpuinfo`), so that a manifest, an error message and what a
person sees in a terminal agree. CPUs are counted as the scheduler will give them to us: affinity
mask, distinct cores, and the quotas of both versions of control groups.
"""

import ctypes
import functools
import os
import platform
from pathlib import Path

_ARCH_REQ_XCOMP_PERM, _XFEATURE_TILEDATA = 0x1023, 18
_SYS_ARCH_PRCTL = 158

# Where LLVM and the kernel call an instruction set by different names.
_FROM_LLVM = {
    "sse3": "pni", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "bmi": "bmi1", "lzcnt": "abm",
    "pclmul": "pclmulqdq", "rdrnd": "rdrand", "sha": "sha_ni", "avxvnni": "avx_vnni",
    "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16", "avx512vnni": "avx512_vnni",
    "avx512vbmi2": "avx512_vbmi2", "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq", "avx512vp2intersect": "avx512_vp2intersect",
    "amx-tile": "amx_tile", "amx-int8": "amx_int8", "amx-bf16": "amx_bf16", "amx-fp16": "amx_fp16",
    "neon": "asimd", "fp-armv8": "fp", "fullfp16": "asimdhp", "dotprod": "asimddp",
    "lse": "atomics", "crc": "crc32", "rdm": "asimdrdm", "fp16fml": "asimdfhm",
}  # fmt: skip


@functools.cache
def machine() -> str:
    """The architecture as target triples spell it: x86_64, aarch64."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


@functools.cache
def features(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """The instruction sets of this machine, such as `avx512f` or `asimddp`."""
    for line in _read(Path(path)).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def kernel_name(llvm_feature: str) -> str:
    """The kernel's name for what LLVM calls `avx512bf16` (avx512_bf16) or `neon` (asimd)."""
    return _FROM_LLVM.get(llvm_feature, llvm_feature)


def missing(required: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `required` which this machine lacks."""
    return tuple(name for name in required if name not in features())


@functools.cache
def default_threads(root: str = "/") -> int:
    """How many threads are worth starting: one per usable core, within the quota."""
    cpus = os.sched_getaffinity(0)
    cores = {_core(Path(root), cpu) for cpu in cpus}
    return max(1, int(min(len(cores), quota(root))))


def usable_cpus(root: str = "/") -> int:
    """How many CPUs this process may keep busy at once."""
    return max(1, int(min(len(os.sched_getaffinity(0)), quota(root))))


def quota(root: str = "/") -> float:
    """The CPU time per time that control groups allow, in CPUs; infinite where none is set."""
    base = Path(root)
    limits = [float("inf")]
    for line in _read(base / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        group = path.strip("/")
        if not controllers:
            limits += [_quota2(g) for g in _upwards(base / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                limits += [_quota1(g) for g in _upwards(base / "sys/fs/cgroup" / mount, group)]
    return min(limits)


@functools.cache
def enable_tiles() -> bool:
    """Ask the kernel for AMX tile registers, which every process must do once before use."""
    result = ctypes.CDLL(None).syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_TILEDATA)
    return result == 0


def _core(root: Path, cpu: int) -> str:
    siblings = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    return _read(siblings).strip() or str(cpu)


def _upwards(mount: Path, group: str) -> list[Path]:
    # Inside a container the path may be the host's, while the mount shows our group as its root.
    parts = group.split("/") if group else []
    return [mount.joinpath(*parts[:n]) for n in range(len(parts), -1, -1)]


def _quota2(group: Path) -> float:
    share, _, period = _read(group / "cpu.max").strip().partition(" ")
    return _ratio(share, period)


def _quota1(group: Path) -> float:
    share = _read(group / "cpu.cfs_quota_us").strip()
    return _ratio(share, _read(group / "cpu.cfs_period_us").strip())


def _ratio(share: str, period: str) -> float:
    if not share.isdigit() or not period.isdigit() or int(period) == 0:
        return float("inf")  # "max", -1 or no such file
    return int(share) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
