"""The text of one LLVM function under construction: lines, names, scopes.

Lines go into the present block; a place can be reserved and filled later (phi nodes, preheaders).
What is bound or remembered in a scope is forgotten at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from itertools import chain

from tensorwright.ir.expr import Buffer, Expr, Symbol

_LONGEST = 200  # of the names that values and labels get


class Block:
    def __init__(self, module, legalize, fma: bool = True):
        self.module, self.legalize, self.use_fma = module, legalize, fma
        self.lines: list = []  # strings, and lists that are filled later
        self.entry: list[str] = []
        self.context: dict[int, str] = {}  # what was read there from the context, by offset
        self.block = "entry"
        self.counter = 0
        self.names: set[str] = set()
        self.pointers: dict[Buffer, str] = {}
        self.symbols: dict[Symbol, str] = {}
        self.level_of: dict[Symbol, int] = {}
        self.readonly: set[Buffer] = set()
        self.streamed: frozenset[Buffer] = frozenset()  # stored past the caches where they can be
        self.has_streamed = False
        self.cache: list[dict] = [{}]
        # one per open loop: where index arithmetic of that level goes, and how many caches it sees
        self.levels: list[tuple[list, int]] = [(self.lines, 1)]
        self.lane: Symbol | None = None
        self.lanes = 0
        self.lane_begin = ""
        self.mask: str | None = None
        self.safe: dict[Expr, frozenset[Symbol] | None] = {}
        self.strides: dict = {}  # of sums, by the variable of the lanes
        self.flats: dict = {}
        self.bases: dict = {}  # of what is flat, without constants
        self.steps: dict[Buffer, list[int] | None] = {}  # elements from one index to the next
        self.inside: dict[Expr, bool] = {}
        self.loaded: dict[Expr, Mapping[Expr, None]] = {}
        self.outer_masks: list[str | None] = []  # enclosing the present one
        self.transient: list[tuple[dict, object]] = []

    def emit(self, line: str) -> None:
        self.lines.append("  " + line)

    def reserve(self) -> list[str]:
        """A place for lines that are known later."""
        place: list[str] = []
        self.lines.append(place)
        return place

    def open(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def ident(self, name: str) -> str:
        """A unique LLVM identifier made from a name (LLVM cuts very long ones)."""
        name = name[:_LONGEST]
        clean = (
            "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name) or "v"
        )
        if clean[0].isdigit():
            clean = "_" + clean
        if clean in self.names or clean in ("ctx", "env", "lo", "hi", "frame", "entry", "exit"):
            self.counter += 1
            clean = f"{clean}.{self.counter}"
        self.names.add(clean)
        return clean

    def fresh(self, name: str = "") -> str:
        if name:
            return "%" + self.ident(name)
        self.counter += 1
        return f"%.{self.counter}"  # no identifier starts with a dot

    def label(self, name: str) -> str:
        self.counter += 1
        return f"{name}.{self.counter}"

    def body_text(self) -> str:
        return "\n".join(["entry:", *self.entry, *flattened(self.lines)])

    def stack_slot(self, type_: str, align: int) -> str:
        p = self.fresh("slot")
        self.entry.append(f"  {p} = alloca {type_}, align {align}")
        return p

    def from_context(self, type_: str, at: int) -> str:
        """What lies there when the function begins."""
        if at not in self.context:
            p, v = self.fresh(), self.fresh()
            self.entry.append(f"  {p} = getelementptr inbounds i8, ptr %ctx, i64 {at}")
            self.entry.append(f"  {v} = load {type_}, ptr {p}, align 8")
            self.context[at] = v
        return self.context[at]

    @contextmanager
    def scope(self):
        """What is emitted or bound inside is not reused outside."""
        self.cache.append({})
        saved = self.symbols, self.level_of, self.pointers
        self.symbols, self.level_of = dict(self.symbols), dict(self.level_of)
        self.pointers = dict(self.pointers)
        yield
        self.symbols, self.level_of, self.pointers = saved
        self.cache.pop()

    @contextmanager
    def preheader(self):
        """Index arithmetic that does not depend on the loop about to be opened goes here."""
        saved = self.levels[-1]
        self.levels[-1] = (self.reserve(), len(self.cache))
        yield
        self.levels[-1] = saved

    @contextmanager
    def at_level(self, depth: int):
        """What is emitted inside goes into the preheader at that level of loops."""
        place, visible = self.levels[depth]
        saved = self.lines, self.cache, self.levels, self.lane
        self.lines, self.cache, self.levels = place, self.cache[:visible], self.levels[: depth + 1]
        self.lane = None
        yield
        self.lines, self.cache, self.levels, self.lane = saved

    @contextmanager
    def loop_level(self):
        """The inside of a loop: one level deeper."""
        with self.scope():
            self.levels.append((self.lines, len(self.cache)))
            yield
            self.levels.pop()

    def bind(self, symbol: Symbol, value: str) -> None:
        self.symbols[symbol] = value
        self.level_of[symbol] = len(self.levels) - 1

    def remembered(self, key) -> str | None:
        for scope in reversed(self.cache):
            if key in scope:
                return scope[key]
        return None

    def remember(self, key, e: Expr, value: str) -> None:
        """Reuse `value` for `e` in this scope: for good, or only within the present statement if it
        depends on memory that statements change."""
        self.cache[-1][key] = value
        if not self.is_pure(e):
            self.transient.append((self.cache[-1], key))

    def forget(self) -> None:
        """A statement ends: what it read from memory may change."""
        for scope, key in self.transient:
            scope.pop(key, None)
        self.transient.clear()


def flattened(part) -> Iterable[str]:
    """The strings of nested lists, in order."""
    return chain.from_iterable(map(flattened, part)) if isinstance(part, list) else (part,)
