"""Put relocatable objects into memory, ready to call, in pure Python.

All sections of all objects share one anonymous mapping `[code | rodata + GOT | data]`, so every
reference among them is short; what is not defined here is taken from the C library, reached
through jump stubs and table slots. Pages are written first and then protected (R-X, R--, RW-):
nothing is ever writable and executable, and nothing is run.

    image = load_objects([obj]);  image.symbol("tw_main")  ->  its address
"""

import ctypes
import functools
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base import config
from tensorwright.base.errors import InternalError
from tensorwright.runtime import elf, guard
from tensorwright.runtime.elf import ObjectFile, Section, Symbol
from tensorwright.runtime.relocation import (
    NONE,
    RULES,
    STUB_SIZE,
    STUBS,
    Patches,
    apply,
)

PAGE = max(mmap.PAGESIZE, 4096)
_SEGMENTS = ("code", "rodata", "data")
_PROTECTION = {"code": 5, "rodata": 1, "data": 3}


class NativeImage:
    """A mapping with relocated code; the code may be called until `close`."""

    def __init__(self, address: int, size: int, symbols: dict[str, int]) -> None:
        self.address, self.size, self.symbols = address, size, symbols
        self._pinned = False

    def symbol(self, name: str) -> int:
        """The address of a symbol that the objects define."""
        if name not in self.symbols:
            raise InternalError(f"compiled code has no symbol '{name}'")
        return self.symbols[name]

    def function(self, name: str, result: type | None, *arguments: type) -> Callable:
        """A symbol as a ctypes function; calls release the interpreter lock."""
        return ctypes.CFUNCTYPE(result, *arguments)(self.symbol(name))

    def pin(self) -> None:
        """Keep the mapping until the process ends: threads may be running in it."""
        self._pinned = True

    def close(self) -> None:
        """Unmap, unless pinned; calling into the image afterwards is a crash."""
        if self.address and not self._pinned:
            _libc().munmap(self.address, self.size)
            self.address = 0

    def __del__(self) -> None:
        if _libc is not None:  # it is None while the interpreter ends, which unmaps everything
            self.close()


@dataclass(slots=True)
class Plan:
    """Where everything goes, as offsets from the start of the image."""

    machine: int
    objects: list[ObjectFile]
    places: list[dict[int, int]]  # per object: section index -> offset
    stubs: dict[str, int] = field(default_factory=dict)
    slots: dict[str | tuple[int, int], int] = field(default_factory=dict)
    bounds: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 0


def load_objects(objects: Iterable[bytes]) -> NativeImage:
    """Link objects against each other and the C library, and map them for execution."""
    try:
        return _load([elf.parse(data) for data in objects])
    except (IndexError, KeyError, ValueError, OverflowError, ctypes.ArgumentError) as error:
        raise InternalError(f"damaged object file: {error}") from error


def _load(objects: list[ObjectFile]) -> NativeImage:
    plan = plan_image(objects)
    libc = _libc()
    address = libc.mmap(None, plan.size, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise InternalError(f"cannot map {plan.size} bytes for compiled code")
    image = NativeImage(address, plan.size, {})
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * plan.size).from_address(address))
    image.symbols = fill_image(plan, memory, address, process_symbol)
    for segment, (start, end) in plan.bounds.items():
        # On AArch64 the kernel cleans the caches of a page when it becomes executable.
        if end > start and libc.mprotect(address + start, end - start, _PROTECTION[segment]):
            raise InternalError(f"cannot protect the {segment} pages of compiled code")
    return image


def plan_image(objects: list[ObjectFile]) -> Plan:
    """Choose an offset for every section, jump stub and table slot."""
    machines = {o.machine for o in objects}
    if len(machines) != 1:
        raise InternalError(f"objects for {len(machines)} machines in one image")
    plan = Plan(machines.pop(), objects, [{} for _ in objects])
    _find_needs(plan)
    end = 0
    for segment in _SEGMENTS:
        start = end = _align(end, PAGE)
        if segment == "code":
            end = _enumerate(plan.stubs, end, STUB_SIZE)
        if segment == "rodata":
            end = _enumerate(plan.slots, end, 8)
        for places, obj in zip(plan.places, objects):
            for section in obj.sections:
                if section.segment == segment:
                    places[section.index] = end = _align(end, section.align)
                    end += section.size
        if segment == "data":
            end = _place_common(plan, end) + 8  # so that every record lies 8 bytes off the end
        plan.bounds[segment] = (start, _align(end, PAGE))
    plan.size = _align(end, PAGE)
    return plan


def _align(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _enumerate(table: dict, start: int, size: int) -> int:
    for i, key in enumerate(table):
        table[key] = start + i * size
    return start + len(table) * size


def _place_common(plan: Plan, end: int) -> int:
    # Tentative C definitions: the symbol's value is its alignment; keyed as section -1 - index.
    for places, obj in zip(plan.places, plan.objects):
        for i, symbol in enumerate(obj.symbols):
            if symbol.section == elf.COMMON:
                places[-1 - i] = end = _align(end, max(symbol.value, 1))
                end += symbol.size
    return end


def _find_needs(plan: Plan) -> None:
    """Note which symbols want a table slot or, being defined elsewhere, a jump stub."""
    rules = RULES[plan.machine]
    defined = {s.name for o in plan.objects for s in o.symbols if s.binding and s.section}
    for number, obj in enumerate(plan.objects):
        for _, records in obj.relocations:
            for pair in sorted(set(records["info"].tolist())):
                kind, index = pair & 0xFFFFFFFF, pair >> 32
                if kind in NONE:
                    continue
                if kind not in rules:
                    raise InternalError(f"unknown {elf.MACHINES[plan.machine]} relocation {kind}")
                symbol = obj.symbols[index]
                if rules[kind].needs == "got":
                    plan.slots[_key(symbol, number, index)] = 0
                elif rules[kind].needs == "call" and _is_outside(symbol, defined):
                    plan.stubs[symbol.name] = 0


def _is_outside(symbol: Symbol, defined: set[str]) -> bool:
    return symbol.section == elf.UNDEFINED and symbol.name not in defined


def _key(symbol: Symbol, number: int, index: int) -> str | tuple[int, int]:
    return (number, index) if symbol.binding == elf.LOCAL else symbol.name


def fill_image(
    plan: Plan, memory: np.ndarray, base: int, external: Callable[[str], int | None]
) -> dict[str, int]:
    """Copy and relocate into `memory`, which will be seen at address `base`."""
    for places, obj in zip(plan.places, plan.objects):
        for section in obj.sections:
            if section.data is not None:
                _copy(memory, places[section.index], section)
    symbols = _define(plan, base)
    values = [_values(plan, number, symbols, base, external) for number in range(len(plan.objects))]
    _write_tables(plan, memory, values, external)
    _relocate(plan, memory, values, base)
    return symbols


def _copy(memory: np.ndarray, at: int, section: Section) -> None:
    memory[at : at + section.size] = np.frombuffer(section.data, np.uint8)


def _define(plan: Plan, base: int) -> dict[str, int]:
    """Addresses of all global symbols; the first definition of a weak one wins."""
    out: dict[str, int] = {}
    strong: set[str] = set()
    for number, obj in enumerate(plan.objects):
        for index, symbol in enumerate(obj.symbols):
            if symbol.binding == elf.LOCAL or not symbol.section:
                continue
            if symbol.binding == elf.GLOBAL and symbol.section != elf.COMMON:
                if symbol.name in strong:
                    raise InternalError(f"symbol '{symbol.name}' is defined twice")
                strong.add(symbol.name)
            elif symbol.name in out:
                continue
            out[symbol.name] = _address(plan, number, index, base)
    return out


def _address(plan: Plan, number: int, index: int, base: int) -> int:
    symbol = plan.objects[number].symbols[index]
    if symbol.section == elf.ABSOLUTE:
        return symbol.value
    if symbol.section == elf.COMMON:
        return base + plan.places[number][-1 - index]
    place = plan.places[number].get(symbol.section)
    return 0 if place is None else base + place + symbol.value


def _values(
    plan: Plan, number: int, symbols: dict[str, int], base: int, external: Callable
) -> np.ndarray:
    """The address of each symbol of one object, by index."""
    out = []
    for index, symbol in enumerate(plan.objects[number].symbols):
        if symbol.binding == elf.LOCAL:
            out.append(_address(plan, number, index, base))
        elif symbol.name in symbols:
            out.append(symbols[symbol.name])
        else:
            out.append(_resolve(symbol, external))
    return np.array(out, np.int64)


def _resolve(symbol: Symbol, external: Callable) -> int:
    address = external(symbol.name)
    if address is None and symbol.binding != elf.WEAK:
        raise InternalError(
            f"unresolved symbol '{symbol.name}'",
            notes=("neither the compiled objects nor the C library define it",),
        )
    return address or 0


def _write_tables(
    plan: Plan, memory: np.ndarray, values: list[np.ndarray], external: Callable
) -> None:
    """Fill the jump stubs and the table slots with the addresses they lead to."""
    for name, at in plan.stubs.items():
        code = STUBS[plan.machine] + (external(name) or 0).to_bytes(8, "little")
        memory[at : at + len(code)] = np.frombuffer(code, np.uint8)
    if plan.slots:
        for number, obj in enumerate(plan.objects):
            for index, symbol in enumerate(obj.symbols):
                at = plan.slots.get(_key(symbol, number, index))
                if at is not None:
                    memory[at : at + 8] = values[number][index : index + 1].view(np.uint8)


def _relocate(plan: Plan, memory: np.ndarray, values: list[np.ndarray], base: int) -> None:
    """Gather the records of all objects, then apply them one type at a time."""
    gathered, names = _gather(plan, values, base)
    if not gathered:
        return
    kind, at, s, a, g, stub = (np.concatenate(column) for column in zip(*gathered))
    if len(at) and (at.min() < 0 or at.max() > plan.size - 8):
        raise InternalError("damaged object file: a relocation lies outside its section")
    for number in sorted(set(kind.tolist())):
        if number in NONE:
            continue
        rule, chosen = RULES[plan.machine][number], np.flatnonzero(kind == number)
        target = s[chosen]
        if rule.needs == "call":
            target = np.where(stub[chosen] != 0, stub[chosen], target)
        place = at[chosen]
        patches = Patches(memory, place, target, a[chosen], base + place, g[chosen])
        apply(rule, patches, lambda i, chosen=chosen: names(int(chosen[i])))


def _gather(
    plan: Plan, values: list[np.ndarray], base: int
) -> tuple[list[tuple[np.ndarray, ...]], Callable[[int], str]]:
    """All records as columns (type, place, S, A, G, stub), and the symbol name of each."""
    gathered: list[tuple[np.ndarray, ...]] = []
    owners: list[tuple[ObjectFile, np.ndarray]] = []
    for number, obj in enumerate(plan.objects):
        if not obj.relocations:
            continue
        slots, stubs = _table_addresses(plan, number, base)
        for section, records in obj.relocations:
            info = records["info"].astype(np.int64)
            index = info >> 32
            at = records["offset"].astype(np.int64) + plan.places[number][section]
            gathered.append(
                (info & 0xFFFFFFFF, at, values[number][index], records["addend"],
                 slots[index], stubs[index])
            )  # fmt: skip
            owners.append((obj, index))

    def name(record: int) -> str:
        for obj, index in owners:
            if record < len(index):
                return obj.symbols[int(index[record])].name or "(local)"
            record -= len(index)
        raise IndexError(record)

    return gathered, name


def _table_addresses(plan: Plan, number: int, base: int) -> tuple[np.ndarray, np.ndarray]:
    """For each symbol of an object, its table slot and its jump stub, 0 where it has none."""
    symbols = plan.objects[number].symbols
    slots, stubs = np.zeros(len(symbols), np.int64), np.zeros(len(symbols), np.int64)
    for index, symbol in enumerate(symbols):
        at = plan.slots.get(_key(symbol, number, index))
        if at is not None:
            slots[index] = base + at
        if symbol.section == elf.UNDEFINED and symbol.name in plan.stubs:
            stubs[index] = base + plan.stubs[symbol.name]
    return slots, stubs


def process_symbol(name: str) -> int | None:
    """A function of the C library, the math library or the compiler's support library."""
    if config.get("guard") and guard.symbol(name) is not None:
        return guard.symbol(name)
    for library in ("", "libm.so.6", "libgcc_s.so.1"):
        handle = _library(library)
        if handle is not None and hasattr(handle, name):
            return ctypes.cast(getattr(handle, name), ctypes.c_void_p).value
    return None


@functools.cache
def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name or None)
    except OSError:
        return None


@functools.cache
def _libc() -> ctypes.CDLL:
    # A handle of its own: argument types set here must not leak to other users of ctypes.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
