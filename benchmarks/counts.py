"""Which instructions an emulated 64-bit Arm executes in a compiled program, and how often.

    results, functions = counted(module, arrays, folder)
    hot_loops(functions)[0].share               # of multiply-adds in the hottest innermost loop

The program runs in QEMU's user mode emulator with a plugin (`counts.c`, compiled here) that counts
what is executed at each address; GNU objdump tells what lies there. Counts are exact and the same
in every run, whatever else the machine does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import aarch64
from tensorwright.ir.module import Module
from tensorwright.target.target import Target

SOURCE = Path(__file__).with_suffix(".c")
GCC, OBJDUMP = shutil.which("gcc"), shutil.which("aarch64-linux-gnu-objdump")
IS_MISSING = aarch64.IS_MISSING or not (GCC and OBJDUMP)
NEEDED = f"{aarch64.NEEDED}, and gcc"
FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
JUMP = re.compile(r"(?:^|, )([0-9a-f]+) <")
BRANCHES = re.compile(r"b(\..*)?|cbn?z|tbn?z")
MULTIPLY_ADDS = ("fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub")


@dataclass(frozen=True)
class Instruction:
    """`times`: how often it was executed."""

    address: int
    name: str
    operands: str
    times: int

    @property
    def is_multiply_add(self) -> bool:
        return self.name in MULTIPLY_ADDS


@dataclass(frozen=True)
class Code:
    """Some instructions in a row: a function or a loop."""

    body: tuple[Instruction, ...]

    @property
    def executed(self) -> int:
        return sum(i.times for i in self.body)

    @property
    def multiply_adds(self) -> int:
        return sum(i.times for i in self.body if i.is_multiply_add)

    @property
    def share(self) -> float:
        """Of multiply-adds among the instructions that were executed."""
        return self.multiply_adds / max(self.executed, 1)

    @property
    def is_by_element(self) -> bool:
        """Whether vectors are multiplied by one element of another: a product on register tiles."""
        return any(i.is_multiply_add and "[" in i.operands for i in self.body)

    @property
    def spills(self) -> int:
        """Instructions that access the stack."""
        return sum("[sp" in i.operands for i in self.body)

    def loops(self) -> list[Code]:
        """The innermost loops of a function: what lies between a branch back and its target, and
        holds no other such branch. Hottest first."""
        place = {i.address: k for k, i in enumerate(self.body)}
        ranges = set()
        for k, i in enumerate(self.body):
            to = JUMP.search(i.operands) if BRANCHES.fullmatch(i.name) else None
            first = place.get(int(to[1], 16)) if to else None
            if first is not None and first <= k:
                ranges.add((first, k))
        inner = [r for r in ranges
                 if not any(o != r and r[0] <= o[0] and o[1] <= r[1] for o in ranges)]  # fmt: skip
        found = [Code(self.body[a : b + 1]) for a, b in inner]
        return sorted(found, key=lambda c: -c.executed)


def plugin(folder: Path) -> Path:
    """The plugin as a shared library."""
    out = folder / "counts.so"
    command = [GCC, "-O2", "-shared", "-fPIC", "-Wall", "-o", out, SOURCE]
    subprocess.run(command, check=True, capture_output=True)
    return out


def counted(m: Module, arrays: list[np.ndarray], folder: Path, target: str | Target = "aarch64"):
    """(results of one run, the functions by name that were executed in it)"""
    out = folder / "counts.txt"
    flags = ["-plugin", f"{plugin(folder)},out={out}"]
    results = aarch64.run(m, arrays, folder, target=target, flags=flags)
    times: Counter[int] = Counter()
    for line in out.read_text().splitlines():
        address, count = line.split()
        times[int(address, 16)] += int(count)
    return results, disassembled(folder / "program", times)


def hot_loops(functions: dict[str, Code]) -> list[Code]:
    """The innermost loops with multiply-adds of all functions, hottest first."""
    found = [loop for c in functions.values() for loop in c.loops() if loop.multiply_adds]
    return sorted(found, key=lambda c: -c.executed)


def joined(parts: Iterable[Code]) -> Code:
    return Code(tuple(i for c in parts for i in c.body))


def disassembled(program: Path, times: Counter[int]) -> dict[str, Code]:
    """The functions of an executable, of which some code was executed."""
    command = [OBJDUMP, "-d", "--no-show-raw-insn", program]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[Instruction]] = {}
    own: list[Instruction] = []
    for line in text.splitlines():
        if head := FUNCTION.match(line):
            own = found.setdefault(head[1], [])
        elif row := LINE.match(line):
            address = int(row[1], 16)
            own.append(Instruction(address, row[2], row[3], times[address]))
    codes = {name: Code(tuple(body)) for name, body in found.items()}
    return {name: c for name, c in codes.items() if c.executed}
