"""Text -> Kernel: the loop nests that `print_kernel.py` writes."""

from __future__ import annotations

import ast
from dataclasses import replace

from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import Buffer, Expr, Symbol, as_expr, binary, load
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
    Pack,
    Prefetch,
    Seq,
    Stmt,
    Store,
    View,
    While,
    loop_symbol,
    seq,
)
from tensorwright.ir.parse_expr import ExprParser, Source, name_of
from tensorwright.ir.print_kernel import ALLOCATORS, let_symbol, shape_symbols

_SCOPE_OF = {word: scope for scope, word in ALLOCATORS.items()}
_AUGMENTED = {ast.Add: "add", ast.Mult: "mul", ast.Sub: "sub"}


class KernelParser:
    """One kernel definition."""

    def __init__(self, source: Source, symbols: dict[str, Symbol]):
        self.source = source
        self.exprs = ExprParser(source, dict(symbols))
        self.shapes = dict(symbols)  # symbols of the module, which a Let may bind
        self.inputs: list[Buffer] = []
        self.outputs: list[Buffer] = []

    def kernel(self, f: ast.FunctionDef, options: dict[str, ast.AST]) -> tuple[str, Kernel]:
        """The kernel and its key in the module."""
        params, outputs = [], 0
        for a in f.args.args:
            b, is_out, is_free = self.param(a)
            if self.exprs.buffers.setdefault(a.arg, b) is not b:
                raise self.source.error(f"'{a.arg}' is declared twice", a)
            if is_free:
                continue
            if outputs and not is_out:
                raise self.source.error("outputs come last", a)
            params.append(b)
            outputs += is_out
        body = self.block(f.body)
        trace = self.comments(f)
        key = self.exprs.literal(options["name"]) if "name" in options else f.name
        packs = self.exprs.literal(options["packs"]) if "packs" in options else ()
        packs = tuple(Pack(*p) for p in packs)
        streams = self.exprs.literal(options["streams"]) if "streams" in options else ()
        if self.inputs or self.outputs:
            params, outputs = [*self.inputs, *self.outputs], len(self.outputs)
        work = tuple(map(self.exprs.index, options["work"].elts)) if "work" in options else None
        sources, schedule = trace["source"], trace["schedule"]
        k = Kernel(key, tuple(params), outputs, body, (), sources, schedule, packs, streams, work)
        names = options.get("symbols")
        usual = [] if self.inputs or self.outputs else shape_symbols(k)
        symbols = usual if names is None else [self.symbol(n) for n in names.elts]
        turn = self.symbol(options["turn"]) if "turn" in options else None
        return key, replace(k, symbols=tuple(symbols), turn=turn)

    def symbol(self, node: ast.AST) -> Symbol:
        found = self.exprs.symbols.get(name_of(node))
        if found is None:
            raise self.source.error(f"'{ast.unparse(node)}' is no symbol", node)
        return found

    def comments(self, f: ast.FunctionDef) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {"source": [], "schedule": []}
        for raw in self.source.lines[f.lineno : f.body[0].lineno - 1]:
            kind, colon, text = raw.decode().strip().partition(": ")
            if colon and kind in ("# source", "# schedule"):
                found[kind[2:]].append(text)
        return {k: tuple(v) for k, v in found.items()}

    def param(self, a: ast.arg) -> tuple[Buffer, bool, bool]:
        node, wrappers = a.annotation, []
        if node is None:
            raise self.source.error(f"'{a.arg}' needs a type", a)
        known = ("out", "free", *ALLOCATORS)
        while isinstance(node, ast.Subscript) and name_of(node.value) in known:
            wrappers.append(node.value.id)
            node = node.slice
        scope = next((w for w in wrappers if w in ALLOCATORS), "param")
        return self.new_buffer(a.arg, node, scope), "out" in wrappers, "free" in wrappers

    def new_buffer(self, name: str, node: ast.AST, scope: str) -> Buffer:
        align = 0
        if isinstance(node, ast.Call) and name_of(node.func) == "aligned" and len(node.args) == 2:
            align = self.exprs.literal(node.args[1])
            node = node.args[0]
        t = self.exprs.type(node)
        return Buffer(name, t.dtype, t.shape, scope, align)

    # ---- statements ----------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> Stmt:
        stmts = [self.statement(s) for s in body if not isinstance(s, ast.Pass)]
        return seq(*stmts) if stmts else Seq(())

    def statement(self, s: ast.stmt) -> Stmt:
        match s:
            case ast.For(target=ast.Name(), iter=ast.Call(), orelse=[]):
                return self.loop(s)
            case ast.While(orelse=[]):
                return While(self.exprs.typed(s.test, boolean), self.block(s.body))
            case ast.If():
                return self.branch(s)
            case ast.Assign(targets=[ast.Name(id=name)]):
                return self.binding(name, s.value, None)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Subscript() as t):
                return self.program_input(name, t, s.value)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Call() as facts):
                return self.binding(name, s.value, facts)
            case ast.Assign(targets=[ast.Subscript() as target]):
                b, indices = self.target(target)
                return Store(b, indices, self.exprs.typed(s.value, b.dtype))
            case ast.AugAssign(target=ast.Subscript() as target):
                return self.update(s, target)
            case ast.Expr(value=ast.Call() as call):
                return self.effect(call)
        raise self.source.error("no statement of a kernel", s)

    def loop(self, s: ast.For) -> For:
        kind, args = name_of(s.iter.func), s.iter.args
        if kind not in KINDS or len(args) not in (1, 2):
            raise self.source.error(f"a loop runs over one of {', '.join(KINDS)}", s.iter)
        begin = as_expr(0) if len(args) == 1 else self.exprs.index(args[0])
        extent = self.exprs.index(args[-1]) - begin
        v = self.exprs.facts(s.iter, s.target.id, loop_symbol("", begin, extent))
        outer = self.exprs.symbols
        self.exprs.symbols = {**outer, s.target.id: v}
        body = self.block(s.body)
        self.exprs.symbols = outer
        return For(v, begin, extent, body, kind)

    def branch(self, s: ast.If) -> Stmt:
        then = self.block(s.body)
        orelse = self.block(s.orelse) if s.orelse else None
        return If(self.exprs.typed(s.test, boolean), then, orelse)

    def binding(self, name: str, value: ast.AST, facts: ast.Call | None) -> Stmt:
        """A Let, an Alloc or a View. Names stay bound after their block ends, where the printer
        never mentions them again."""
        function = name_of(value.func) if isinstance(value, ast.Call) else ""
        if function in _SCOPE_OF and value.args:
            offset = self.exprs.index(value.args[1]) if len(value.args) > 1 else None
            b = self.new_buffer(name, value.args[0], _SCOPE_OF[function])
            self.exprs.buffers[name] = b
            if b.scope == "output":
                self.outputs.append(b)
            return Alloc(b, offset)
        if function == "view" and len(value.args) in (3, 4):
            base, start, type_, *scope = value.args
            found, at = self.exprs.buffer(base), self.exprs.index(start)
            kind = self.exprs.literal(scope[0]) if scope else "param"
            b = self.exprs.buffers[name] = self.new_buffer(name, type_, kind)
            return View(b, found, at)
        e = self.exprs.index(value)
        if name in self.shapes:
            return Let(self.shapes[name], e)
        usual = let_symbol("", e)
        v = Symbol(name, usual.min, usual.max)
        if facts is not None:
            v = self.exprs.facts(facts, name, usual)
        self.exprs.symbols = {**self.exprs.symbols, name: v}
        return Let(v, e)

    def program_input(self, name: str, type_: ast.AST, value: ast.AST) -> Alloc:
        if name_of(getattr(value, "func", value)) != "program_input" or len(value.args) != 1:
            raise self.source.error("program_input(position) is expected", value)
        b = self.exprs.buffers[name] = self.new_buffer(name, type_, "input")
        self.inputs.append(b)
        return Alloc(b, self.exprs.index(value.args[0]))

    def target(self, node: ast.Subscript) -> tuple[Buffer, tuple[Expr, ...]]:
        b = self.exprs.buffer(node.value)
        return b, self.exprs.indices(node.slice, b, node)

    def update(self, s: ast.AugAssign, target: ast.Subscript) -> Store:
        op = _AUGMENTED.get(type(s.op))
        if op is None:
            raise self.source.error("an update is one of += -= *=", s)
        b, indices = self.target(target)
        value = self.exprs.typed(s.value, b.dtype)
        return Store(b, indices, binary(op, load(b, indices), value))

    def effect(self, node: ast.Call) -> Stmt:
        name, args = name_of(node.func), node.args
        if name == "assert_" and len(args) >= 2:
            cond = self.exprs.typed(args[0], boolean)
            message = self.exprs.literal(args[1])
            return Assert(cond, message, tuple(map(self.exprs.index, args[2:])))
        if name == "copy" and len(args) == 2:
            return Copy(*map(self.exprs.buffer, args))
        if name == "prefetch" and len(args) in (2, 5):
            place, offset, *beyond = args
            passed = [self.exprs.typed(a, boolean) for a in beyond[:1]]
            beyond = (*passed, *map(self.exprs.index, beyond[1:]))
            return Prefetch(self.exprs.expr(place), self.exprs.index(offset), beyond or None)
        if name == "announce" and len(args) == 2:
            return Announce(self.exprs.buffer(args[0]), self.exprs.literal(args[1]))
        if name == "new" and len(args) == 4:
            target, size = self.exprs.buffer(args[0]), self.exprs.index(args[1])
            return New(target, size, *map(self.exprs.literal, args[2:]))
        if name in ("retain", "release") and len(args) == 1:
            return Count(self.exprs.buffer(args[0]), 1 if name == "retain" else -1)
        if name in ("call_kernel", "call_extern") and len(args) >= 2:
            callee, buffers, *scalars = args
            found = tuple(map(self.exprs.buffer, buffers.elts))
            numbers = tuple(map(self.exprs.index, scalars))
            return Call(self.exprs.literal(callee), found, numbers, name == "call_extern")
        raise self.source.error("no statement of a kernel", node)
