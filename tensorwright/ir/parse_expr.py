"""Python `ast` -> types and scalar expressions, with errors that show the place.

    sample.ir:7:26: error: 'v1' is not defined
        y: f32[n, 32] = relu(v1)  # mlp.py:13
                             ^^
        note: defined so far: x, w, b, h

A bare integer is an index, a bare float f32, True and False bool; beside an operand of another
type a literal takes that type.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import ClassVar

from tensorwright.base.errors import FrontendError
from tensorwright.ir.dtype import DTYPES, DType, boolean, dtype, f32, index
from tensorwright.ir.expr import (
    ARITHMETIC,
    BITWISE,
    COMPARISONS,
    PREDICATES,
    UNARY,
    Buffer,
    Expr,
    Symbol,
    all_of,
    any_of,
    as_dim,
    binary,
    bitcast,
    call,
    cast,
    compare,
    const,
    fma,
    load,
    select,
    sym,
    unary,
)
from tensorwright.ir.type import DataType, FunctionType, TensorType, TupleType, Type

DTYPE_NAMES = {d.name: d for d in DTYPES}
_BINARY_NAMES = {**{op: op for op in (*ARITHMETIC, *BITWISE)}, "power": "pow",
                 "bit_and": "and", "bit_or": "or"}  # fmt: skip
_UNARY_NAMES = {**{op: op for op in (*UNARY, *PREDICATES)}, "not_": "not"}
_OPERATORS = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
}  # fmt: skip
_COMPARE = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}  # fmt: skip
_NUMBERS = {"inf": float("inf"), "nan": float("nan")}


class ParseError(FrontendError):
    """The text is not a program; `excerpt` shows the line with a caret under the place."""

    def __init__(self, message, notes=(), help="", location="", excerpt=""):
        super().__init__(message, notes, help, location)
        self.excerpt = excerpt

    def __str__(self) -> str:
        lines = [f"{self.location}: error: {self.message}"]
        if self.excerpt:
            lines.append(self.excerpt)
        lines += [f"    note: {note}" for note in self.notes]
        if self.help:
            lines.append(f"    help: {self.help}")
        return "\n".join(lines)

    def __reduce__(self):
        return (
            type(self),
            (self.message, self.notes, self.help, self.location, self.excerpt),
        )


class Source:
    """The text being parsed: its lines, for excerpts, comments and caching by spelling."""

    def __init__(self, text: str, name: str):
        self.name = name
        self.lines = text.encode().split(b"\n")

    def error(self, message: str, at, *notes: str, help: str = "") -> ParseError:
        """The error at an ast node (or a (line, column) pair)."""
        if isinstance(at, tuple):
            (line, column), end = at, at[1] + 1
        else:
            line, column = at.lineno, at.col_offset
            end = at.end_col_offset if at.end_lineno == line else column + 1
        raw = self.lines[line - 1] if line <= len(self.lines) else b""
        shown, before = raw.decode(), raw[:column].decode(errors="replace")
        width = max(len(raw[column:end].decode(errors="replace")), 1)
        stripped = shown.lstrip()
        skip = len(shown) - len(stripped)
        excerpt = f"    {stripped}\n    {' ' * (len(before) - skip)}{'^' * width}"
        where = f"{self.name}:{line}:{len(before) + 1}"
        return ParseError(message, notes, help, where, excerpt)

    def spelling(self, node: ast.AST) -> bytes | None:
        """The source of a one-line node."""
        if node.lineno != node.end_lineno:
            return None
        return self.lines[node.lineno - 1][node.col_offset : node.end_col_offset]

    def comment(self, node: ast.AST) -> str:
        """The comment behind a statement."""
        rest = self.lines[node.end_lineno - 1][node.end_col_offset :]
        mark = rest.find(b"# ")
        return rest[mark + 2 :].decode().strip() if mark >= 0 else ""


class ExprParser:
    """Expressions over the names in `symbols` and `buffers`."""

    def __init__(self, source: Source, symbols: dict[str, Symbol]):
        self.source = source
        self.symbols = symbols
        self.buffers: dict[str, Buffer] = {}
        self.types: dict[bytes, Type] = {}
        self.data: dict[str, DataType] = {}  # declared so far, by the names that the text uses

    # ---- types ---------------------------------------------------------------------------------

    def type(self, node: ast.AST) -> Type:
        """A type annotation; the same spelling gives the same object."""
        key = self.source.spelling(node)
        found = self.types.get(key)
        if found is None:
            found = self._type(node)
            if key is not None:
                self.types[key] = found
        return found

    def _type(self, node: ast.AST) -> Type:
        if isinstance(node, ast.Tuple):
            return TupleType(tuple(map(self.type, node.elts)))
        name = node.value if isinstance(node, ast.Constant) else _name(node)
        if name in self.data:
            return self.data[name]
        if isinstance(node, ast.Call) and _name(node.func) == "function" and len(node.args) == 2:
            params = self.type(node.args[0])
            return FunctionType(params.items, self.type(node.args[1]))
        if not isinstance(node, ast.Subscript) or _name(node.value) not in DTYPE_NAMES:
            raise self.source.error("a type such as f32[n, 64] is expected", node)
        return TensorType(DTYPE_NAMES[node.value.id], self.dims(node.slice))

    def dims(self, node: ast.AST) -> tuple:
        parts = node.elts if isinstance(node, ast.Tuple) else [node]
        return tuple(map(self.dim, parts))

    def dim(self, node: ast.AST) -> int | Expr:
        if type(node) is ast.Constant and type(node.value) is int:
            return node.value
        return as_dim(self.index(node))

    def is_type(self, node: ast.AST) -> bool:
        if _name(node) in self.data or _name(getattr(node, "func", node)) == "function":
            return True
        return isinstance(node, ast.Subscript) and _name(node.value) in DTYPE_NAMES

    # ---- expressions ---------------------------------------------------------------------------

    def index(self, node: ast.AST) -> Expr:
        e = self.index_or_truth(node)
        if e.dtype is not index:
            raise self.source.error(f"an index is expected, this is {e.dtype}", node)
        return e

    def index_or_truth(self, node: ast.AST) -> Expr:
        e = self.expr(node)
        if e.dtype is not index and e.dtype is not boolean:
            raise self.source.error(f"an index is expected, this is {e.dtype}", node)
        return e

    def typed(self, node: ast.AST, d: DType) -> Expr:
        """An expression that must have type `d`; a bare number takes it."""
        if _is_literal(node):
            return const(self.number(node), d)
        e = self.expr(node)
        if e.dtype is not d:
            raise self.source.error(f"{d} is expected, this is {e.dtype}", node)
        return e

    def expr(self, node: ast.AST) -> Expr:
        parse = self._BY_NODE.get(type(node))
        if parse is None:
            raise self.source.error(f"{type(node).__name__} is not part of the text form", node)
        try:
            return parse(self, node)
        except (TypeError, KeyError) as e:
            raise self.source.error(str(e), node) from None

    def _constant(self, node: ast.Constant) -> Expr:
        v = node.value
        if isinstance(v, bool):
            return const(v, boolean)
        if isinstance(v, (int, float)):
            return const(v, index if isinstance(v, int) else f32)
        raise self.source.error(f"{v!r} is no number", node)

    def number(self, node: ast.AST) -> bool | int | float:
        """A literal number, before it is brought into any type."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.number(node.operand)
        if _name(node) in _NUMBERS:
            return _NUMBERS[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            return node.value
        raise self.source.error("a number is expected", node)

    def _name(self, node: ast.Name) -> Expr:
        s = self.symbols.get(node.id)
        if s is not None:
            return sym(s)
        if node.id in _NUMBERS:
            return const(_NUMBERS[node.id], f32)
        defined = ", ".join(self.symbols) or "nothing"
        raise self.source.error(f"'{node.id}' is not defined", node, f"defined so far: {defined}")

    def _unary(self, node: ast.UnaryOp) -> Expr:
        a = self.expr(node.operand)
        if not isinstance(node.op, ast.USub):
            raise self.source.error("of the unary operators only - is allowed", node)
        if a.op == "const":
            return const(-a.value, a.dtype)
        return -a

    def _binop(self, node: ast.BinOp) -> Expr:
        op = _OPERATORS.get(type(node.op))
        if op is None:
            raise self.source.error(f"no operator {type(node.op).__name__}", node)
        return binary(op, *self.pair(node.left, node.right))

    def _boolop(self, node: ast.BoolOp) -> Expr:
        parts = [self.typed(v, boolean) for v in node.values]
        return all_of(parts) if isinstance(node.op, ast.And) else any_of(parts)

    def _compare(self, node: ast.Compare) -> Expr:
        op = _COMPARE.get(type(node.ops[0])) if len(node.ops) == 1 else None
        if op is None:
            raise self.source.error("one comparison at a time: use `and`", node)
        return compare(op, *self.pair(node.left, node.comparators[0]))

    def _subscript(self, node: ast.Subscript) -> Expr:
        b = self.buffer(node.value)
        return load(b, self.indices(node.slice, b, node))

    def buffer(self, node: ast.AST) -> Buffer:
        b = self.buffers.get(_name(node))
        if b is None:
            text = ast.unparse(node)
            defined = ", ".join(self.buffers) or "none"
            raise self.source.error(f"'{text}' is no buffer", node, f"buffers: {defined}")
        return b

    def indices(self, node: ast.AST, b: Buffer, whole: ast.AST) -> tuple[Expr, ...]:
        parts = node.elts if isinstance(node, ast.Tuple) else [node]
        if len(parts) != b.rank:
            raise self.source.error(f"{len(parts)} subscripts for {b}", whole)
        return tuple(map(self.index, parts))

    def pair(self, left: ast.AST, right: ast.AST) -> tuple[Expr, Expr]:
        """Two operands of one type; a bare number takes the type of the other."""
        a, b = self.expr(left), self.expr(right)
        if a.dtype is not b.dtype:
            if _is_literal(right):
                b = const(self.number(right), a.dtype)
            elif _is_literal(left):
                a = const(self.number(left), b.dtype)
        return a, b

    def _call(self, node: ast.Call) -> Expr:
        name, args = _name(node.func), node.args
        if node.keywords:
            raise self.source.error("no keywords here", node.keywords[0].value)
        if name in DTYPE_NAMES and len(args) == 1:
            return const(self.number(args[0]), DTYPE_NAMES[name])
        if name in ("min", "max") or name in _BINARY_NAMES:
            self.count(node, 2)
            return binary(_BINARY_NAMES[name], *self.pair(*args))
        if name in COMPARISONS:
            self.count(node, 2)
            return compare(name, *self.pair(*args))
        if name in _UNARY_NAMES:
            self.count(node, 1)
            return unary(_UNARY_NAMES[name], self.expr(args[0]))
        special = self._BY_NAME.get(name)
        if special is None:
            raise self.source.error(f"no scalar function {ast.unparse(node.func)}", node.func)
        return special(self, node)

    def count(self, node: ast.Call, wanted: int) -> None:
        if len(node.args) != wanted:
            found = len(node.args)
            raise self.source.error(f"{wanted} operands are expected, not {found}", node)

    def _select(self, node: ast.Call) -> Expr:
        self.count(node, 3)
        cond = self.typed(node.args[0], boolean)
        return select(cond, *self.pair(*node.args[1:]))

    def _conditional(self, node: ast.IfExp) -> Expr:
        cond = self.typed(node.test, boolean)
        return select(cond, *self.pair(node.body, node.orelse))

    def _cast(self, node: ast.Call) -> Expr:
        self.count(node, 2)
        convert = cast if node.func.id == "cast" else bitcast
        return convert(self.expr(node.args[0]), self.dtype(node.args[1]))

    def _fma(self, node: ast.Call) -> Expr:
        self.count(node, 3)
        return fma(*map(self.expr, node.args))

    def _call_function(self, node: ast.Call) -> Expr:
        name, type_, *args = node.args
        if not isinstance(name, ast.Constant):
            raise self.source.error("the name of a function is expected", name)
        return call(name.value, self.dtype(type_), map(self.expr, args))

    def dtype(self, node: ast.AST) -> DType:
        if _name(node) not in DTYPE_NAMES:
            raise self.source.error("an element type is expected", node)
        return dtype(node.id)

    _BY_NODE: ClassVar[dict[type, Callable]] = {
        ast.Constant: _constant, ast.Name: _name, ast.UnaryOp: _unary, ast.BinOp: _binop,
        ast.IfExp: _conditional, ast.BoolOp: _boolop, ast.Compare: _compare,
        ast.Subscript: _subscript, ast.Call: _call,
    }  # fmt: skip
    _BY_NAME: ClassVar[dict[str, Callable]] = {
        "select": _select, "cast": _cast, "bitcast": _cast, "fma": _fma, "call": _call_function,
    }  # fmt: skip

    # ---- symbols -------------------------------------------------------------------------------

    def facts(self, node: ast.Call, name: str, usual: Symbol) -> Symbol:
        """A fresh symbol with the facts given as keywords, else those of `usual`."""
        known = ("min", "max", "multiple_of", "values", "upper", "hot")
        facts = {f: getattr(usual, f) for f in known}
        for k in node.keywords:
            if k.arg not in facts:
                raise self.source.error(f"a symbol has no fact '{k.arg}'", k.value)
            if k.arg == "upper":
                none = isinstance(k.value, ast.Constant) and k.value.value is None
                facts["upper"] = None if none else self.index(k.value)
            else:
                facts[k.arg] = self.literal(k.value)
        return Symbol(name, **facts)

    def literal(self, node: ast.AST):
        """A Python literal."""
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise self.source.error("a literal is expected", node) from None


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_literal(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) or _name(node) in _NUMBERS


name_of = _name
