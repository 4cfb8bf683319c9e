"""What is known of a kernel before it is scheduled: its packs and the object it becomes.

    known = KnownKernels(cache, target)
    k = known.schedule(kernel, target)      # as scheduled; its body is made when it is looked at
    known.records.get(k)                    # what compiling it gave the last time

The key is the kernel's text without its name, the choices recorded for it, the target and its
cores, the versions of LLVM and of the compiler's own sources: nothing else may decide what a kernel
becomes. Options
that change or report decisions switch this off.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from tensorwright.base import config, trace
from tensorwright.driver.objects import ObjectCache
from tensorwright.ir.loop import Kernel, Pack
from tensorwright.ir.module import digest
from tensorwright.schedule.records import identity, recorded
from tensorwright.schedule.rules import schedule
from tensorwright.target.target import Target

DECIDING = ("base", "ir", "ops", "target", "schedule", "codegen", "driver")  # about a kernel
LAZY = ("params", "body")  # what scheduling makes that a record does not hold


@dataclass(frozen=True)
class Record:
    """packs, streams, trace: of the scheduled kernel. symbol: the function in the object of key
    `object`. codes: the messages that it fails with and the numbers that its code has for them."""

    packs: tuple[Pack, ...]
    streams: tuple[int, ...]
    trace: tuple[str, ...]
    symbol: str
    object: str
    codes: dict[str, int]

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Record:
        row = json.loads(data)
        packs = tuple(
            Pack(**{k: tuple(v) if isinstance(v, list) else v for k, v in p.items()})
            for p in row["packs"]
        )
        lists = {name: tuple(row[name]) for name in ("streams", "trace")}
        return Record(**{**row, "packs": packs, **lists})


class ScheduledLater(Kernel):
    """A scheduled kernel of which the body and its parameters are made when they are asked for."""

    @staticmethod
    def of(k: Kernel, record: Record, target: Target) -> ScheduledLater:
        made = object.__new__(ScheduledLater)
        own = {f.name: getattr(k, f.name) for f in fields(Kernel) if f.name not in LAZY}
        vars(made).update(own, packs=record.packs, streams=record.streams,
                          schedule=record.trace, _source=(k, target))  # fmt: skip
        return made

    def __getattr__(self, name: str):
        if name not in LAZY:
            raise AttributeError(name)
        made = schedule(*vars(self)["_source"])
        vars(self).update({n: getattr(made, n) for n in LAZY})
        return vars(self)[name]


class KnownKernels:
    """Schedules kernels, those that the cache knows later or never."""

    def __init__(self, cache: ObjectCache, target: Target):
        self.cache = cache
        self.salt = None if cache.folder is None or is_watched() else salt(target)
        self.keys: dict[Kernel, str] = {}
        self.records: dict[Kernel, Record] = {}
        self.objects: dict[Kernel, bytes] = {}

    def schedule(self, k: Kernel, target: Target) -> Kernel:
        if self.salt is None:
            return schedule(k, target)
        key = digest(identity(k), repr(recorded(k, target)), self.salt)
        record = self.read(key)
        code = None if record is None else self.cache.object(record.object)
        if code is None:
            made = schedule(k, target)
            self.keys[made] = key
            return made
        made = ScheduledLater.of(k, record, target)
        self.keys[made], self.records[made], self.objects[made] = key, record, code
        return made

    def read(self, key: str) -> Record | None:
        data = self.cache.read(key)
        try:
            return None if data is None else Record.from_bytes(data)
        except (ValueError, TypeError, KeyError):
            return None

    def learn(self, k: Kernel, symbol: str, object_: str, codes: dict[str, int]) -> None:
        """Keep what a kernel became, for the next time."""
        key = self.keys.get(k)
        if key is not None:
            record = Record(k.packs, k.streams, k.schedule, symbol, object_, codes)
            self.cache.write(key, record.to_bytes())


def is_watched() -> bool:
    """Whether somebody wants to see decisions being made, or to change them."""
    return (
        trace.current() is not None
        or config.get("fuel") >= 0
        or any(config.get(o) for o in ("log", "override", "dump"))
    )


def salt(target: Target, floors: tuple[str, ...] = DECIDING) -> str | None:
    """What decides about code beside the kernel; None if the sources are not to be found."""
    sources = sources_digest(floors)
    if sources is None:
        return None
    machine = (repr(target), str(target.cores))
    return digest(sources, *machine, str(llvm.llvm_version_info), llvmlite.__version__)


@functools.cache
def sources_digest(floors: tuple[str, ...] = DECIDING) -> str | None:
    """Of the compiler's own files: a changed compiler never takes what an older one made."""
    root = Path(__file__).resolve().parent.parent
    files = sorted(f for floor in floors for f in (root / floor).rglob("*.py"))
    try:
        return digest(*(x for f in files for x in (f.name, f.read_bytes()))) if files else None
    except OSError:
        return None
