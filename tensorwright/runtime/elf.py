"""Read ELF64 relocatable objects, as LLVM emits them for x86-64 and AArch64.

`parse(data)` gives the sections that occupy memory, the symbols and the relocations against
those sections; nothing is interpreted yet. Anything a loader without start-up code and without
thread-local storage could not honour is refused here, by name.
"""

import struct
from dataclasses import dataclass

import numpy as np

from tensorwright.base.errors import InternalError

X86_64, AARCH64 = 62, 183
MACHINES = {X86_64: "x86_64", AARCH64: "aarch64"}

RELOCATION = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

_SYMTAB, _RELA, _NOBITS, _REL = 2, 4, 8, 9
_ARRAYS = {14: ".init_array", 15: ".fini_array", 16: ".preinit_array"}
_WRITE, _ALLOC, _EXEC, _TLS = 1, 2, 4, 0x400
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2
LOCAL, GLOBAL, WEAK = 0, 1, 2
_TYPE_TLS, _TYPE_IFUNC = 6, 10


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of memory an object asks for; `data` is None where it is all zeros."""

    index: int
    segment: str  # "code" | "rodata" | "data"
    size: int
    align: int
    data: memoryview | None


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    binding: int
    section: int
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    machine: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[tuple[int, np.ndarray], ...]  # (section index, records)


def parse(data: bytes) -> ObjectFile:
    """Read one object; a damaged one is an InternalError, never a crash."""
    try:
        return _parse(memoryview(data))
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise InternalError(f"damaged object file: {error}") from error


def _parse(view: memoryview) -> ObjectFile:
    ident, kind, machine, *_, entry_size, count, _ = fields = _HEADER.unpack_from(view)
    if ident[:6] != b"\x7fELF\x02\x01" or kind != 1:
        raise InternalError("not a little-endian ELF64 relocatable object")
    if machine not in MACHINES:
        raise InternalError(f"object for an unknown machine (ELF number {machine})")
    if entry_size != _SECTION.size:
        raise InternalError(f"section headers of {entry_size} bytes")
    start = fields[6]
    table = list(_SECTION.iter_unpack(_cut(view, start, count * entry_size)))
    sections: list[Section] = []
    symbols: tuple[Symbol, ...] = ()
    relocations = []
    for index, (_, kind, flags, _, offset, size, link, info, align, _) in enumerate(table):
        if kind == _SYMTAB:
            strings = bytes(_cut(view, table[link][4], table[link][5]))
            symbols = _symbols(_cut(view, offset, size), strings)
        elif kind == _REL:
            raise InternalError("REL relocations (without addends)")
        elif kind == _RELA:
            if table[info][2] & _ALLOC:
                records = np.frombuffer(_cut(view, offset, size), RELOCATION)
                relocations.append((info, records))
        elif flags & _ALLOC:
            if flags & _TLS or kind in _ARRAYS:
                what = _ARRAYS.get(kind, "thread-local storage")
                raise InternalError(f"object needs {what}, which the loader does not offer")
            content = None if kind == _NOBITS else _cut(view, offset, size)
            sections.append(Section(index, _segment(flags), size, max(align, 1), content))
    return ObjectFile(machine, tuple(sections), symbols, tuple(relocations))


def _segment(flags: int) -> str:
    if flags & _EXEC:
        return "code"
    return "data" if flags & _WRITE else "rodata"


def _cut(view: memoryview, offset: int, size: int) -> memoryview:
    if offset + size > len(view):
        raise InternalError("damaged object file: a part lies beyond its end")
    return view[offset : offset + size]


def _symbols(view: memoryview, strings: bytes) -> tuple[Symbol, ...]:
    out = []
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(view):
        text = strings[name : strings.index(b"\0", name)].decode() if name else ""
        if info & 15 in (_TYPE_TLS, _TYPE_IFUNC):
            raise InternalError(f"symbol '{text}' is thread-local or an ifunc")
        out.append(Symbol(text, info >> 4, section, value, size))
    return tuple(out)
