"""Kernels -> text: loop nests in Python syntax.

    @kernel
    def relu(x: f32[n, 64], y: out[f32[n, 64]]):
        for i in parallel(n):
            for j in vector(64):
                y[i, j] = max(x[i, j], 0.0)

Facts of loop variables and Lets are printed only where they say more than the loop does.
"""

from __future__ import annotations

from dataclasses import astuple

from tensorwright.base.errors import InternalError
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_expr, bounds, symbols_of, to_text, walk
from tensorwright.ir.loop import (
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
    free_symbols,
    loop_symbol,
    statements,
    update,
)  # fmt: skip
from tensorwright.ir.names import Renaming, Scope

_AUGMENTED = {"add": "+=", "mul": "*="}

# What allocates in the text form, by the scope of the buffer.
ALLOCATORS = {
    "input": "program_input", "input_shape": "program_shape", "output": "program_output",
    **{s: s for s in ("const", "arena", "frame", "dynamic", "temp", "local", "param",
                         "reference")},
}  # fmt: skip


def facts_text(s: Symbol, usual: Symbol | None = None) -> str:
    """The facts of a symbol as keyword arguments, those of `usual` left out."""
    usual = usual or Symbol("")
    parts = []
    for fact in ("min", "max", "multiple_of", "values", "upper", "hot"):
        value = getattr(s, fact)
        if value is not getattr(usual, fact) and value != getattr(usual, fact):
            text = to_text(value) if isinstance(value, Expr) else repr(value)
            parts.append(f"{fact}={text}")
    return ", ".join(parts)


def let_symbol(name: str, value: Expr) -> Symbol:
    """The symbol of a Let that is known by nothing but its value."""
    return Symbol(name, *bounds(value))


def shape_symbols(k: Kernel) -> list[Symbol]:
    """Symbols in the parameters' shapes in order of first use: the usual `Kernel.symbols`."""
    found: dict[Symbol, None] = {}
    for b in k.params:
        for d in b.shape:
            if isinstance(d, Expr):
                ordered = sorted(symbols_of(d), key=lambda s: s.name)
                found.update(dict.fromkeys(ordered))
    return list(found)


def program_buffers(k: Kernel) -> set[Buffer]:
    """Parameters that the body declares itself, by their position: those of a program's entry."""
    return {s.buffer for s in statements(k.body) if isinstance(s, Alloc)} & set(k.params)


def kernel_symbols(k: Kernel) -> list[Symbol]:
    """The symbols that a kernel takes from its module."""
    work = sorted(symbols_of(*map(as_expr, k.work or ())), key=lambda s: s.name)
    return list(dict.fromkeys([*shape_symbols(k), *k.symbols, *work, *free_symbols(k.body)]))


def free_buffers(k: Kernel) -> list[Buffer]:
    """Buffers used but declared nowhere in the kernel: constants of the module."""
    declared = set(k.params)
    used: dict[Buffer, None] = {}
    for s in statements(k.body):
        if isinstance(s, (Alloc, View)):
            declared.add(s.buffer)
        if isinstance(s, View):
            used[s.base] = None
        elif isinstance(s, Store):
            used[s.buffer] = None
        elif isinstance(s, Copy):
            used.update({s.target: None, s.source: None})
        elif isinstance(s, (New, Count)):
            used[s.target] = None
        elif isinstance(s, Call):
            used.update(dict.fromkeys(s.buffers))
        for e in walk(*expressions(s)):
            if e.op == "load":
                used[e.value] = None
    return [b for b in used if b not in declared]


def flatten(s: Stmt) -> list[Stmt]:
    """The statements of a body in order, without Seqs in Seqs."""
    if not isinstance(s, Seq):
        return [s]
    return [inner for child in s.body for inner in flatten(child)]


class KernelPrinter:
    """The text of one kernel inside a module's scope."""

    def __init__(self, k: Kernel, key: str, name: str, scope: Scope, renaming: Renaming):
        self.k, self.key, self.name = k, key, name
        self.scope, self.renaming = Scope(scope), Renaming(renaming)
        self.out: list[str] = []
        self.where: dict[Stmt, int] = {}  # statement -> its line

    def lines(self) -> list[str]:
        k = self.k
        constants = free_buffers(k)
        results = set(k.results)
        own = program_buffers(k)
        params = []
        for b in [b for b in (*k.params, *constants) if b not in own]:
            new = self.renaming.buffer(b, self.scope)
            text = buffer_type(new)
            if new.scope != "param":
                text = f"{new.scope}[{text}]"
            wrapper = "free" if b in constants else "out" if b in results else ""
            params.append(f"{new.name}: {f'{wrapper}[{text}]' if wrapper else text}")
        options = [] if self.name == self.key else [f"name={self.key!r}"]
        if k.packs:
            options.append(f"packs={tuple(astuple(p)[: 7 if p.half else 6] for p in k.packs)!r}")
        if k.streams:
            options.append(f"streams={k.streams!r}")
        if k.work is not None:
            options.append(f"work=({', '.join(map(self.text, k.work))})")
        if not own and list(k.symbols) != shape_symbols(k):
            names = [self.renaming.symbols[s].name for s in k.symbols]
            options.append(f"symbols=({', '.join(names)}{',' if len(names) == 1 else ''})")
        if k.turn is not None:
            options.append(f"turn={self.renaming.symbols[k.turn].name}")
        self.out.append(f"@kernel({', '.join(options)})" if options else "@kernel")
        self.out.append(f"def {self.name}({', '.join(params)}):")
        self.out += [f"    # source: {' '.join(s.split())}" for s in k.sources]
        self.out += [f"    # schedule: {' '.join(s.split())}" for s in k.schedule]
        self.block(k.body, 1)
        return self.out

    def block(self, s: Stmt, depth: int) -> None:
        """The statements of a body; names declared in it are free again after it."""
        body = flatten(s)
        mark = self.scope.mark()
        if not body:
            self.line(depth, "pass")
        for child in body:
            self.statement(child, depth)
        self.scope.release(mark)

    def line(self, depth: int, text: str) -> None:
        self.out.append("    " * depth + text)

    def text(self, e: Expr | int, precedence: int = 0) -> str:
        return to_text(self.renaming.expr(e), precedence) if isinstance(e, Expr) else str(e)

    def statement(self, s: Stmt, depth: int) -> None:
        self.where[s] = len(self.out)
        match s:
            case For():
                mark = self.scope.mark()
                self.line(depth, self.for_header(s))
                self.block(s.body, depth + 1)
                self.scope.release(mark)
            case While():
                self.line(depth, f"while {self.text(s.cond)}:")
                self.block(s.body, depth + 1)
            case If():
                self.line(depth, f"if {self.text(s.cond)}:")
                self.block(s.then, depth + 1)
                if s.orelse is not None:
                    self.line(depth, "else:")
                    self.block(s.orelse, depth + 1)
            case _:
                self.line(depth, self.simple(s))

    def for_header(self, s: For) -> str:
        begin, extent = self.renaming.expr(s.begin), self.renaming.expr(s.extent)
        stop = as_expr(begin + extent)
        range_ = to_text(stop) if begin is as_expr(0) else f"{to_text(begin)}, {to_text(stop)}"
        v = self.renaming.symbol(s.var, self.scope)
        facts = facts_text(v, loop_symbol("", begin, extent))
        return f"for {v.name} in {s.kind}({range_}{', ' if facts else ''}{facts}):"

    def simple(self, s: Stmt) -> str:
        match s:
            case Let():
                value = self.renaming.expr(s.value)
                if s.var in self.renaming.symbols:  # declared above, for shapes of inputs
                    return f"{self.renaming.symbols[s.var].name} = {to_text(value)}"
                v = self.renaming.symbol(s.var, self.scope)
                facts = facts_text(v, let_symbol("", value))
                return f"{v.name}{f': sym({facts})' if facts else ''} = {to_text(value)}"
            case Store():
                return self.store(s)
            case Alloc():
                b = self.renaming.buffer(s.buffer, self.scope)
                allocator = ALLOCATORS[b.scope]
                if b.scope == "input":  # its type may name symbols that are bound later
                    return f"{b.name}: {buffer_type(b)} = {allocator}({self.text(s.offset)})"
                offset = "" if s.offset is None else f", {self.text(s.offset)}"
                return f"{b.name} = {allocator}({buffer_type(b)}{offset})"
            case View():
                base, start = self.buffer(s.base), self.text(s.start)
                b = self.renaming.buffer(s.buffer, self.scope)
                scope = "" if b.scope == "param" else f", {b.scope!r}"
                return f"{b.name} = view({base}, {start}, {buffer_type(b)}{scope})"
            case Prefetch():
                what = (s.place, s.offset, *(s.beyond or ()))
                return f"prefetch({', '.join(map(self.text, what))})"
            case Announce():
                return f"announce({self.buffer(s.buffer)}, {s.stride})"
            case Copy():
                return f"copy({self.buffer(s.target)}, {self.buffer(s.source)})"
            case New():
                return f"new({self.buffer(s.target)}, {self.text(s.size)}, {s.tag}, {s.refs})"
            case Count():
                return f"{'retain' if s.by > 0 else 'release'}({self.buffer(s.target)})"
            case Call():
                buffers = ", ".join(map(self.buffer, s.buffers))
                comma = "," if len(s.buffers) == 1 else ""
                scalars = "".join(f", {self.text(e)}" for e in s.scalars)
                kind = "call_extern" if s.extern else "call_kernel"
                return f"{kind}({s.callee!r}, ({buffers}{comma}){scalars})"
            case Assert():
                args = "".join(f", {self.text(e)}" for e in s.args)
                return f"assert_({self.text(s.cond)}, {s.message!r}{args})"
        raise InternalError(f"no text form of {type(s).__name__}")

    def buffer(self, b: Buffer) -> str:
        return self.renaming.buffers.get(b, b).name

    def store(self, s: Store) -> str:
        where = ", ".join(map(self.text, s.indices)) or "()"
        found = update(s)
        if found is not None and found[0] in _AUGMENTED:
            operator, value = _AUGMENTED[found[0]], found[1]
        else:
            operator, value = "=", s.value
        return f"{self.buffer(s.buffer)}[{where}] {operator} {self.text(value)}"


def buffer_type(b: Buffer) -> str:
    """`f32[8, 32]`, with its alignment where that is more than the element's."""
    dims = ", ".join(to_text(d) for d in b.shape) or "()"
    text = f"{b.dtype}[{dims}]"
    return text if b.align == b.dtype.bytes else f"aligned({text}, {b.align})"
