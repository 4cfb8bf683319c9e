"""What must hold of a kernel.

Buffers and symbols are declared before they are used; subscripts, values and conditions have the
right types; a subscript that is certainly executed is not certainly outside its buffer; loop kinds
are known; iterations of a parallel loop do not write to the same place.
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorwright.ir.dtype import boolean, index
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_expr, bounds, symbols_of, walk
from tensorwright.ir.facts import prove
from tensorwright.ir.loop import (
    KINDS,
    Alloc,
    Announce,
    Assert,
    Call,
    Copy,
    Count,
    For,
    If,
    Kernel,
    Let,
    New,
    Prefetch,
    Seq,
    Stmt,
    Store,
    View,
    While,
    expressions,
)
from tensorwright.ir.print_kernel import free_buffers, program_buffers

_PARALLEL = ("parallel", "block", "thread")


class Offence(Exception):
    """A broken invariant, at a node, statement, graph, kernel or module."""

    def __init__(self, at: object, message: str):
        super().__init__(message)
        self.at, self.message = at, message


def check_kernel(k: Kernel, kernels: Mapping[str, Kernel] | None = None) -> None:
    if not 0 <= k.outputs <= len(k.params):
        raise Offence(k, f"{k.outputs} outputs of {len(k.params)} parameters")
    if k.turn is not None and k.turn not in k.symbols:
        raise Offence(k, f"{k.turn} counts its calls, but is not given to it")
    if len(set(k.params)) != len(k.params):
        raise Offence(k, "a parameter occurs twice")
    constants = [b for b in free_buffers(k) if b.scope == "const"]
    checker = _Checker(kernels)
    checker.symbols.update(k.symbols)
    own = program_buffers(k)
    checker.buffers.update(dict.fromkeys([b for b in (*k.params, *constants) if b not in own]))
    for b in k.params:
        if b not in own:
            checker.shape(k, b)
    checker.block(k.body)


class _Checker:
    def __init__(self, kernels: Mapping[str, Kernel] | None):
        self.kernels = kernels
        self.symbols: set[Symbol] = set()
        self.buffers: dict[Buffer, For | None] = {}  # -> the parallel loop around its declaration
        self.certain = True  # whether the present statement is executed for sure
        self.parallel: list[tuple[For, set[Symbol], set[Buffer]]] = []
        self.chosen: frozenset[For] = frozenset()  # parallel loops that a condition picks from

    def shape(self, at: object, b: Buffer) -> None:
        for d in b.shape:
            self.known(at, d)

    def known(self, at: object, e: Expr | int) -> None:
        if not isinstance(e, Expr):
            return
        for s in symbols_of(e):
            if s not in self.symbols:
                raise Offence(at, f"the symbol {s.name} is not bound here")

    def block(self, s: Stmt) -> None:
        symbols, buffers = set(self.symbols), dict(self.buffers)
        for child in s.body if isinstance(s, Seq) else (s,):
            self.statement(child)
        self.symbols, self.buffers = symbols, buffers

    def guarded(self, s: Stmt, certain: bool = False) -> None:
        before = self.certain
        self.certain = before and certain
        self.block(s)
        self.certain = before

    def branch(self, s: Stmt, cond: Expr) -> None:
        """An arm of an If: a condition on a parallel loop's variable may leave one iteration."""
        before, used = self.chosen, symbols_of(cond)
        self.chosen = before | {loop for loop, varying, _ in self.parallel if used & varying}
        self.guarded(s)
        self.chosen = before

    def statement(self, s: Stmt) -> None:
        for e in expressions(s):
            if not (isinstance(s, Alloc) and s.buffer.scope == "input"):
                self.known(s, e)
            self.loads(s, e)
        match s:
            case Seq():
                self.block(s)
            case For():
                self.loop(s)
            case While(cond=cond):
                self.typed(s, cond, boolean)
                self.guarded(s.body)
            case If(cond=cond):
                self.typed(s, cond, boolean)
                self.branch(s.then, cond)
                if s.orelse is not None:
                    self.branch(s.orelse, cond)
            case Let():
                self.let(s)
            case Store():
                self.store(s)
            case Alloc():
                self.declare(s, s.buffer)
                if s.buffer.scope != "input":
                    self.shape(s, s.buffer)
            case Copy():
                self.use(s, s.target)
                self.use(s, s.source)
                if s.target.dtype is not s.source.dtype:
                    raise Offence(s, f"copying {s.source} to {s.target}")
            case New() | Count():
                self.use(s, s.target)
                if s.target.scope != "reference":
                    raise Offence(s, f"{s.target} is no reference")
                if isinstance(s, New):
                    self.typed(s, s.size, index)
            case View():
                self.use(s, s.base)
                self.typed(s, s.start, index)
                self.shape(s, s.buffer)
                self.declare(s, s.buffer)
                if not self.private(s.base) and not self.varies(s.start):
                    self.shared_view(s)
            case Prefetch():
                if s.place.op != "load":
                    raise Offence(s, f"{s.place} is no place in memory")
                for e, dtype in zip((s.offset, *(s.beyond or ())), (index, boolean, index, index)):
                    self.typed(s, e, dtype)
            case Announce():
                self.use(s, s.buffer)
            case Call():
                self.call(s)
            case Assert():
                self.typed(s, s.cond, boolean)
            case _:
                raise Offence(s, f"{type(s).__name__} is no statement")

    def typed(self, s: Stmt, e: Expr, d) -> None:
        if e.dtype is not d:
            raise Offence(s, f"{e} is {e.dtype}, expected {d}")

    def bind(self, s: Stmt, v: Symbol) -> None:
        if v in self.symbols:
            raise Offence(s, f"the symbol {v.name} is bound already")
        self.symbols.add(v)

    def declare(self, s: Stmt, b: Buffer) -> None:
        if b in self.buffers:
            raise Offence(s, f"the buffer {b.name} is declared already")
        self.buffers[b] = None
        for _, _, own in self.parallel:
            own.add(b)

    def use(self, s: Stmt, b: Buffer) -> None:
        if b not in self.buffers:
            raise Offence(s, f"the buffer {b.name} is not declared here")

    # ---- loops ---------------------------------------------------------------------------------

    def loop(self, s: For) -> None:
        if s.kind not in KINDS:
            raise Offence(s, f"no loop kind {s.kind!r}")
        self.typed(s, s.begin, index)
        self.typed(s, s.extent, index)
        before = set(self.symbols)
        self.bind(s, s.var)
        self.depend(s.var, s.begin)
        is_parallel = s.kind in _PARALLEL and bounds(s.extent)[1] != 1
        if is_parallel:
            self.parallel.append((s, {s.var}, set()))
        low = bounds(s.extent)[0]
        self.guarded(s.body, low is not None and low >= 1)
        if is_parallel:
            self.parallel.pop()
        self.symbols = before

    def let(self, s: Let) -> None:
        self.typed(s, s.value, index)
        self.bind(s, s.var)
        self.depend(s.var, s.value)

    def depend(self, v: Symbol, e: Expr) -> None:
        """`v` varies with those parallel loops that `e` varies with."""
        used = symbols_of(e)
        loads = {x.value for x in walk(e) if x.op == "load"}
        for _, varying, own in self.parallel:
            if used & varying or loads & own:
                varying.add(v)

    def varies(self, *indices: Expr) -> bool:
        """Whether the place differs (as far as is known) in every iteration of each loop."""
        used = symbols_of(*indices)
        loads = {x.value for x in walk(*indices) if x.op == "load"}
        return all(used & varying or loads for _, varying, _ in self.parallel)

    def private(self, b: Buffer) -> bool:
        return all(b in own for _, _, own in self.parallel)

    def shared_view(self, s: View) -> None:
        for _, _, own in self.parallel:
            own.discard(s.buffer)

    # ---- accesses ------------------------------------------------------------------------------

    def store(self, s: Store) -> None:
        b = s.buffer
        self.use(s, b)
        if len(s.indices) != b.rank:
            raise Offence(s, f"{len(s.indices)} subscripts for {b}")
        self.typed(s, s.value, b.dtype)
        for i in s.indices:
            self.typed(s, i, index)
        if self.certain:
            self.inside(s, b, s.indices)
        for loop, varying, own in self.parallel:
            used = symbols_of(*s.indices)
            indirect = any(e.op == "load" for e in walk(*s.indices))
            shared = b not in own and loop not in self.chosen
            if shared and not (used & varying) and not indirect:
                raise Offence(s, f"iterations of the loop over {loop.var.name} store to one place")

    def loads(self, s: Stmt, root: Expr) -> None:
        """Loads of one expression; those in the arms of a select may never happen."""
        certain = _certain(root) if self.certain else set()
        for e in walk(root):
            if e.op != "load":
                continue
            self.use(s, e.value)
            if len(e.args) != e.value.rank:
                raise Offence(s, f"{len(e.args)} subscripts for {e.value}")
            for i in e.args:
                self.typed(s, i, index)
            if e in certain:
                self.inside(s, e.value, e.args)

    def inside(self, s: Stmt, b: Buffer, indices: tuple[Expr, ...]) -> None:
        for i, d in zip(indices, b.shape):
            high = bounds(i)[1]
            if high is not None and high < 0:
                raise Offence(s, f"the subscript {i} of {b.name} is negative")
            if prove(as_expr(d) <= i):
                raise Offence(s, f"the subscript {i} is outside {b}")

    def call(self, s: Call) -> None:
        for b in s.buffers:
            self.use(s, b)
        for e in s.scalars:
            self.typed(s, e, index)
        if s.extern or self.kernels is None:
            return
        k = self.kernels.get(s.callee)
        if k is None:
            raise Offence(s, f"{s.callee!r} is not in the module")
        if (len(k.params), len(k.symbols)) != (len(s.buffers), len(s.scalars)):
            raise Offence(s, f"{s.callee} takes {len(k.params)} buffers, {len(k.symbols)} indices")
        for mine, its in zip(s.buffers, k.params):
            if mine.dtype is not its.dtype:
                raise Offence(s, f"{mine} is passed for {its}")


def _certain(root: Expr) -> set[Expr]:
    """Sub-expressions that are evaluated whenever `root` is."""
    found: set[Expr] = set()
    stack = [root]
    while stack:
        e = stack.pop()
        if e in found:
            continue
        found.add(e)
        lazy = e.op == "select" or (e.op in ("and", "or") and e.dtype is boolean)
        stack.extend(e.args[:1] if lazy else e.args)
    return found
