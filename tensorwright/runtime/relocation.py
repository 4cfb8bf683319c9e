"""What each relocation type of x86-64 and AArch64 writes, as tables of vectorised rules.

Names follow the ABI documents: S is the symbol's address, A the addend, P the place written,
G the address of the symbol's slot in the global offset table. `apply` handles all records of
one type at once, so the cost does not grow with the number of objects:

    R_X86_64_PC32 at P   ->   the 32 bits at P become S + A - P, checked to fit
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tensorwright.base.errors import InternalError
from tensorwright.runtime.elf import AARCH64, X86_64


@dataclass(frozen=True, slots=True)
class Patches:
    """Records of one type: parallel int64 arrays; `at` is P as an offset into `memory`."""

    memory: np.ndarray
    at: np.ndarray
    s: np.ndarray
    a: np.ndarray
    p: np.ndarray
    g: np.ndarray


Value = Callable[[Patches], np.ndarray]


@dataclass(frozen=True, slots=True)
class Rule:
    """One relocation type; `needs` says which table the symbol must have an entry in."""

    name: str
    write: Value  # returns which records did not fit
    needs: str = ""  # "" | "got" | "call"


def apply(rule: Rule, patches: Patches, names: Callable[[int], str]) -> None:
    """Write all records of one type; `names(i)` tells record i's symbol for the error."""
    bad = rule.write(patches)
    if bad.any():
        raise InternalError(
            f"relocation {rule.name} against '{names(int(bad.argmax()))}' overflows"
        )


def _store(x: Patches, value: np.ndarray, width: int) -> None:
    raw = np.ascontiguousarray(value, "<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    x.memory[x.at[:, None] + np.arange(width)] = raw


def _data(
    width: int, value: Callable[[Patches], np.ndarray], low: int = 0, high: int = 0
) -> Callable:
    """A rule that stores a whole little-endian number within [low, high)."""

    def write(x: Patches) -> np.ndarray:
        v = value(x)
        _store(x, v, width)
        return (v < low) | (v >= high) if high else np.zeros(len(v), bool)

    return write


def _instruction(
    value: Callable[[Patches], np.ndarray],
    bits: int,
    shift: int,
    scale: int = 0,
    checked: bool = True,
) -> Callable:
    """A rule that puts `value >> scale` into `bits` bits of an instruction word."""
    mask = (1 << bits) - 1

    def write(x: Patches) -> np.ndarray:
        v = value(x)
        field = v >> scale
        word = _word(x) & ~(mask << shift) | (field & mask) << shift
        _store(x, word, 4)
        bad = (v & ((1 << scale) - 1)) != 0
        half = 1 << (bits - 1)
        return bad | (field < -half) | (field >= half) if checked else bad

    return write


def _page_relative(
    value: Callable[[Patches], np.ndarray], scale: int, checked: bool = True
) -> Callable:
    """A rule for ADR and ADRP, whose 21 bits are split: the low two sit at bit 29."""

    def write(x: Patches) -> np.ndarray:
        v = value(x) >> scale
        word = _word(x) & ~(3 << 29 | 0x7FFFF << 5)
        _store(x, word | (v & 3) << 29 | (v >> 2 & 0x7FFFF) << 5, 4)
        return (v < -(1 << 20)) | (v >= 1 << 20) if checked else np.zeros(len(v), bool)

    return write


def _word(x: Patches) -> np.ndarray:
    return x.memory[x.at[:, None] + np.arange(4)].view("<u4")[:, 0].astype(np.int64)


def _absolute(x: Patches) -> np.ndarray:
    return x.s + x.a


def _relative(x: Patches) -> np.ndarray:
    return x.s + x.a - x.p


def _got_relative(x: Patches) -> np.ndarray:
    return x.g + x.a - x.p


def _low12(x: Patches) -> np.ndarray:
    return (x.s + x.a) & 0xFFF


def _pages(x: Patches) -> np.ndarray:
    return ((x.s + x.a) & ~0xFFF) - (x.p & ~0xFFF)


def _got_pages(x: Patches) -> np.ndarray:
    return ((x.g + x.a) & ~0xFFF) - (x.p & ~0xFFF)


def _got_low12(x: Patches) -> np.ndarray:
    return (x.g + x.a) & 0xFFF


_I32, _U32 = (-(1 << 31), 1 << 31), (0, 1 << 32)
_ANY32, _ANY16 = (-(1 << 31), 1 << 32), (-(1 << 15), 1 << 16)

_X86 = {
    1: Rule("R_X86_64_64", _data(8, _absolute)),
    2: Rule("R_X86_64_PC32", _data(4, _relative, *_I32)),
    4: Rule("R_X86_64_PLT32", _data(4, _relative, *_I32), "call"),
    9: Rule("R_X86_64_GOTPCREL", _data(4, _got_relative, *_I32), "got"),
    10: Rule("R_X86_64_32", _data(4, _absolute, *_U32)),
    11: Rule("R_X86_64_32S", _data(4, _absolute, *_I32)),
    24: Rule("R_X86_64_PC64", _data(8, _relative)),
    41: Rule("R_X86_64_GOTPCRELX", _data(4, _got_relative, *_I32), "got"),
    42: Rule("R_X86_64_REX_GOTPCRELX", _data(4, _got_relative, *_I32), "got"),
}

_ARM = {
    257: Rule("R_AARCH64_ABS64", _data(8, _absolute)),
    258: Rule("R_AARCH64_ABS32", _data(4, _absolute, *_ANY32)),
    259: Rule("R_AARCH64_ABS16", _data(2, _absolute, *_ANY16)),
    260: Rule("R_AARCH64_PREL64", _data(8, _relative)),
    261: Rule("R_AARCH64_PREL32", _data(4, _relative, *_ANY32)),
    262: Rule("R_AARCH64_PREL16", _data(2, _relative, *_ANY16)),
    273: Rule("R_AARCH64_LD_PREL_LO19", _instruction(_relative, 19, 5, 2)),
    274: Rule("R_AARCH64_ADR_PREL_LO21", _page_relative(_relative, 0)),
    275: Rule("R_AARCH64_ADR_PREL_PG_HI21", _page_relative(_pages, 12)),
    276: Rule("R_AARCH64_ADR_PREL_PG_HI21_NC", _page_relative(_pages, 12, checked=False)),
    277: Rule("R_AARCH64_ADD_ABS_LO12_NC", _instruction(_low12, 12, 10, 0, False)),
    278: Rule("R_AARCH64_LDST8_ABS_LO12_NC", _instruction(_low12, 12, 10, 0, False)),
    279: Rule("R_AARCH64_TSTBR14", _instruction(_relative, 14, 5, 2)),
    280: Rule("R_AARCH64_CONDBR19", _instruction(_relative, 19, 5, 2)),
    282: Rule("R_AARCH64_JUMP26", _instruction(_relative, 26, 0, 2), "call"),
    283: Rule("R_AARCH64_CALL26", _instruction(_relative, 26, 0, 2), "call"),
    284: Rule("R_AARCH64_LDST16_ABS_LO12_NC", _instruction(_low12, 12, 10, 1, False)),
    285: Rule("R_AARCH64_LDST32_ABS_LO12_NC", _instruction(_low12, 12, 10, 2, False)),
    286: Rule("R_AARCH64_LDST64_ABS_LO12_NC", _instruction(_low12, 12, 10, 3, False)),
    299: Rule("R_AARCH64_LDST128_ABS_LO12_NC", _instruction(_low12, 12, 10, 4, False)),
    311: Rule("R_AARCH64_ADR_GOT_PAGE", _page_relative(_got_pages, 12), "got"),
    312: Rule("R_AARCH64_LD64_GOT_LO12_NC", _instruction(_got_low12, 12, 10, 3, False), "got"),
    314: Rule("R_AARCH64_PLT32", _data(4, _relative, *_I32), "call"),
    315: Rule("R_AARCH64_GOTPCREL32", _data(4, _got_relative, *_I32), "got"),
}

RULES = {X86_64: _X86, AARCH64: _ARM}
NONE = {0, 256}  # R_*_NONE

# A jump through the eight bytes that follow it: `jmp *0(%rip)`, and `ldr x16, .+8; br x16`.
STUBS = {
    X86_64: bytes.fromhex("ff25 0000 0000"),
    AARCH64: bytes.fromhex("5000 0058 0002 1fd6"),
}
STUB_SIZE = 16
