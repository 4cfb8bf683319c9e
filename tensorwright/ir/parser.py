"""Text -> Module, by Python's own parser: the form that `printer.py` writes.

    parse(text, BY_NAME, constants={'fc1.weight': w})

The operator table is an argument, so this floor knows no operator. Types are inferred again and
compared with what the text says. Comments behind bindings are their places in the user's model.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.build import build, location
from tensorwright.ir.expr import Symbol, as_dim
from tensorwright.ir.graph import Graph, Node, bound_symbols, constant, param
from tensorwright.ir.graph import graph as make_graph
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.ir.names import is_unnamed
from tensorwright.ir.op import OpDef
from tensorwright.ir.parse_expr import DTYPE_NAMES, ExprParser, ParseError, Source, name_of
from tensorwright.ir.parse_kernel import KernelParser
from tensorwright.ir.type import TYPES, Case, DataType, TupleType, Type


def parse(
    text: str,
    ops: Mapping[str, OpDef],
    constants: Mapping[str, np.ndarray] | None = None,
    name: str = "<text>",
) -> Module:
    """The module that `text` describes. `constants` are the arrays that it mentions by name."""
    source = Source(text, name)
    try:
        tree = ast.parse(text)
    except SyntaxError as e:
        at = (e.lineno or 1, max((e.offset or 1) - 1, 0))
        raise source.error(e.msg, at) from None
    return _Parser(source, ops, constants or {}).module(tree)


class _Parser:
    def __init__(self, source: Source, ops: Mapping[str, OpDef], constants: Mapping):
        self.source, self.ops, self.constants = source, ops, constants
        self.symbols: dict[str, Symbol] = {}
        self.exprs = ExprParser(source, self.symbols)
        self.arrays: dict[str, np.ndarray] = {}

    def module(self, tree: ast.Module) -> Module:
        graphs: dict[str, Graph] = {}
        kernels: dict[str, Kernel] = {}
        entry, entries = "main", ()
        for s in tree.body:
            if isinstance(s, ast.ClassDef):
                self.data_type(s)
        for s in tree.body:
            match s:
                case ast.Assign(targets=[ast.Name(id="entry")], value=ast.Constant(value=str(v))):
                    entry = v
                case ast.Assign(targets=[ast.Name(id="entries")], value=ast.Tuple() as v):
                    entries = self.exprs.literal(v)
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=f)) if (
                    name_of(f) == "sym"
                ):
                    self.symbols[name] = self.exprs.facts(s.value, name, Symbol(name))
                case ast.FunctionDef(decorator_list=[decorator]):
                    self.definition(s, decorator, graphs, kernels)
                case ast.ClassDef():
                    self.cases(s)
                case _:
                    raise self.source.error("a symbol, @data, @graph or @kernel is expected", s)
        return Module(graphs, kernels, entry, entries)

    # ---- data types ----------------------------------------------------------------------------

    def data_type(self, c: ast.ClassDef) -> None:
        """Declare the name; its cases may mention types that are declared later."""
        kind, options = ("", {}) if len(c.decorator_list) != 1 else self.decorator(
            c.decorator_list[0], ("data",))  # fmt: skip
        if kind != "data":
            raise self.source.error("@data is expected", c)
        if c.name in self.exprs.data:
            raise self.source.error(f"'{c.name}' is declared twice", c)
        name = self.exprs.literal(options["name"]) if "name" in options else c.name
        self.exprs.data[c.name] = DataType(name)

    def cases(self, c: ast.ClassDef) -> None:
        found = []
        for s in c.body:
            match s:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=f, args=[])) if (
                    name_of(f) == "case"
                ):
                    fields = tuple((k.arg, self.exprs.type(k.value)) for k in s.value.keywords)
                    found.append(Case(name, fields))
                case _:
                    raise self.source.error("a case is expected: Name = case(field=type, ...)", s)
        self.exprs.data[c.name].define(found)

    def definition(self, f: ast.FunctionDef, decorator: ast.AST, graphs, kernels) -> None:
        kind, options = self.decorator(decorator)
        if kind == "kernel":
            key, kernel = KernelParser(self.source, self.symbols).kernel(f, options)
            table, value = kernels, kernel
        else:
            value = self.graph(f, options)
            key, table = value.name, graphs
        if key in table:
            raise self.source.error(f"'{key}' is defined twice", f)
        table[key] = value

    def decorator(
        self, node: ast.AST, kinds: tuple[str, ...] = ("graph", "kernel")
    ) -> tuple[str, dict[str, ast.AST]]:
        call = node if isinstance(node, ast.Call) else None
        kind = name_of(call.func if call else node)
        if kind not in kinds:
            raise self.source.error(f"@{' or @'.join(kinds)} is expected", node)
        return kind, {k.arg: k.value for k in call.keywords} if call else {}

    # ---- graphs --------------------------------------------------------------------------------

    def graph(self, f: ast.FunctionDef, options: dict[str, ast.AST]) -> Graph:
        read = {k: self.exprs.literal(v) for k, v in options.items()}
        renamed = read.get("params", {})
        values: dict[str, Node] = {}
        bodies: dict[str, Graph] = {}
        for a in f.args.args:
            if a.annotation is None:
                raise self.source.error(f"'{a.arg}' needs a type", a)
            if a.arg in values:
                raise self.source.error(f"'{a.arg}' is declared twice", a)
            type_ = self.exprs.type(a.annotation)
            values[a.arg] = param(renamed.get(a.arg, a.arg), type_)
        params = tuple(values.values())
        for s in f.body[:-1]:
            if type(s) is ast.AnnAssign and type(s.target) is ast.Name:
                name = s.target.id
                if name in values or name in bodies:
                    raise self.source.error(f"'{name}' is bound twice", s.target)
                values[name] = self.binding(s, name, values, bodies)
            elif isinstance(s, ast.FunctionDef):
                _, inner = self.decorator(s.decorator_list[0])
                bodies[s.name] = self.graph(s, inner)
            else:
                raise self.source.error("a binding `name: type = op(...)` is expected", s)
        results = self.results(f.body[-1], values)
        self.check_results(f, results)
        g = make_graph(read.get("name", f.name), params, results, read.get("results", ()),
                       read.get("state", ()))  # fmt: skip
        binders = set(g.binders)  # a size that the body only uses is bound around it
        return replace(g, binders=tuple(v for v in values.values() if v in binders))

    def results(self, s: ast.stmt, values: dict[str, Node]) -> tuple[Node, ...]:
        if not isinstance(s, ast.Return) or s.value is None:
            raise self.source.error("a graph ends with `return`", s)
        names = s.value.elts if isinstance(s.value, ast.Tuple) else [s.value]
        return tuple(self.operand(n, values) for n in names)

    def check_results(self, f: ast.FunctionDef, results: tuple[Node, ...]) -> None:
        if f.returns is None:
            return
        stated = self.exprs.type(f.returns)
        single = not isinstance(f.body[-1].value, ast.Tuple)
        found = results[0].type if single else TupleType(tuple(r.type for r in results))
        if stated != found:
            raise self.source.error(f"{f.name} returns {found}", f.returns)

    def operand(self, node: ast.AST, values: dict[str, Node]) -> Node:
        found = values.get(node.id) if type(node) is ast.Name else None
        if found is None:
            defined = ", ".join(list(values)[-12:]) or "nothing"
            raise self.source.error(
                f"'{ast.unparse(node)}' is not defined", node, f"defined so far: {defined}"
            )
        return found

    def binding(self, s: ast.AnnAssign, name: str, values, bodies) -> Node:
        stated = self.exprs.type(s.annotation)
        if type(s.value) is not ast.Call:
            raise self.source.error("an operator is expected", s.value or s)
        function = name_of(s.value.func)
        loc = self.source.comment(s)
        if function == "const" or function in DTYPE_NAMES:
            return self.constant(s, name, function, stated, loc)
        op, more = self.ops.get(function), {}
        if isinstance(s.value.func, ast.Attribute):
            data = self.exprs.data.get(name_of(s.value.func.value))
            op, more = self.ops["construct"], {"data": data, "case": s.value.func.attr}
        if op is None or more.get("data", op) is None:
            raise self.source.error(
                f"no operator is named '{ast.unparse(s.value.func)}'", s.value.func
            )
        args = tuple(
            None if type(a) is ast.Constant and a.value is None else self.operand(a, values)
            for a in s.value.args
        )
        attrs = {k.arg: self.attr(k.value, bodies) for k in s.value.keywords} | more
        attrs.pop("gives", None)
        node = self.build(op, args, attrs, s.value)
        if node.type != stated:
            raise self.source.error(f"this operator gives {node.type}", s.annotation)
        name = "" if is_unnamed(name) else name
        node = replace(node, name=name, loc=tuple(loc.split(", ")) if loc else ())
        for symbol in bound_symbols(node):
            symbol.origin = node
        return node

    def build(self, op: OpDef, args: tuple, attrs: dict, at: ast.Call) -> Node:
        try:
            with location():
                return build(op, args, attrs)
        except CompileError as e:
            raise self.source.error(e.message, at, *e.notes, help=e.help) from None
        except TypeError as e:
            raise self.source.error(str(e), at) from None

    def constant(self, s: ast.AnnAssign, name: str, function: str, stated: Type, loc) -> Node:
        if len(s.value.args) != 1:
            raise self.source.error("one argument is expected", s.value)
        if function == "const":
            key = self.exprs.literal(s.value.args[0])
            if key not in self.constants:
                raise self.source.error(f"there is no constant {key!r}", s.value.args[0])
            node = constant(self.constants[key], key)
        else:
            numbers = self.numbers(s.value.args[0])
            node = constant(np.array(numbers, DTYPE_NAMES[function].numpy))
            node = replace(node, name="" if is_made_up(name) else name)
        if node.type != stated:
            raise self.source.error(f"the constant is {node.type}", s.annotation)
        return replace(node, loc=tuple(loc.split(", "))) if loc else node

    def numbers(self, node: ast.AST):
        """Numbers and nested lists of them; `inf` is one."""
        if isinstance(node, ast.List):
            return [self.numbers(n) for n in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.numbers(node.operand)
        if name_of(node) in ("inf", "nan"):
            return float(node.id)
        return self.exprs.literal(node)

    # ---- attributes ----------------------------------------------------------------------------

    def attr(self, node: ast.AST, bodies: dict[str, Graph]):
        if type(node) is ast.Constant:
            return node.value
        if isinstance(node, (ast.Tuple, ast.List)):
            parts = tuple(self.attr(n, bodies) for n in node.elts)
            if parts and all(isinstance(p, TYPES) for p in parts):
                return TupleType(parts)
            return parts
        if isinstance(node, ast.Name):
            if node.id in self.exprs.data:
                return self.exprs.data[node.id]
            if node.id in bodies:
                return bodies[node.id]
            if node.id in DTYPE_NAMES:
                return DTYPE_NAMES[node.id]
            if node.id in ("inf", "nan"):
                return float(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self.attr(node.operand, bodies)
            if isinstance(inner, (int, float)):
                return -inner
        if self.exprs.is_type(node):
            return self.exprs.type(node)
        return as_dim(self.exprs.index_or_truth(node))


def is_made_up(name: str) -> bool:
    """Whether a constant's name is one that the printer makes up."""
    return name == "c" or (name.startswith("c_") and name[2:].isdigit())


__all__ = ["ParseError", "parse"]
