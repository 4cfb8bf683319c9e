"""Module -> text: the Python-syntax form that people read, `parser.py` reads back and Python runs.

    n = sym(min=1)

    @graph
    def main(x: f32[n, 64]) -> f32[n, 32]:
        w: f32[64, 32] = const('fc1.weight')
        y: f32[n, 32] = matmul(x, w)  # mlp.py:12 Linear
        return y

Large constants are named only; their arrays travel beside the text (`Module.constants()`).
`print(parse(print(m))) == print(m)`.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.base.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.expr import Expr, Symbol, symbols_of, text_of
from tensorwright.ir.graph import CONST, Graph, Node, attr_expressions, subgraphs
from tensorwright.ir.loop import Kernel
from tensorwright.ir.module import Module
from tensorwright.ir.names import Renaming, Scope, identifier, is_unnamed
from tensorwright.ir.print_kernel import KernelPrinter, facts_text, kernel_symbols
from tensorwright.ir.type import (
    TYPES,
    DataType,
    FunctionType,
    TensorType,
    TupleType,
    Type,
    leaves,
)  # fmt: skip

INLINE = 16  # constants of at most this many elements are printed with their contents


def to_text(m: Module | Graph | Kernel) -> str:
    """The program as text."""
    if isinstance(m, Graph):
        m = Module({m.name: m}, entry=m.name)
    elif isinstance(m, Kernel):
        m = Module({}, {m.name: m})
    return _Printer(m).module()


def excerpt(m: Module | Graph | Kernel, at: object, message: str, around: int = 6) -> str:
    """The lines about a node or statement, with the message under it."""
    if isinstance(m, Graph):
        m = Module({m.name: m}, entry=m.name)
    elif isinstance(m, Kernel):
        m = Module({}, {m.name: m})
    printer = _Printer(m)
    printer.module()
    lines = printer.lines
    line = printer.where.get(at)
    if line is None:
        return f"{message}\n" + "\n".join(lines[: 2 * around])
    indent = " " * (len(lines[line]) - len(lines[line].lstrip()))
    marked = [f"{indent}^^^ {message}"]
    return "\n".join(lines[max(line - around, 0) : line + 1] + marked
                     + lines[line + 1 : line + 1 + around])  # fmt: skip


def comment(loc: tuple[str, ...]) -> str:
    """The place in the user's model as a comment."""
    return f"  # {', '.join(' '.join(part.split()) for part in loc)}" if loc else ""


class _Printer:
    def __init__(self, m: Module):
        self.m = m
        self.lines: list[str] = []
        self.where: dict[object, int] = {}  # node, statement, graph or kernel -> its line
        self.constant_names = _constant_names(m)
        self.renaming = Renaming()
        self.type_texts: dict[Type, str] = {}
        ops = frozenset(n.op.name for g in m.all_graphs() for n in g.nodes())
        self.scope = Scope(words=ops)
        self.data = m.data_types()
        self.data_names = {k: self.scope.take(identifier(k, "T")) for k in self.data}
        self.graph_names = {k: self.scope.take(identifier(k, "g")) for k in m.graphs}
        self.kernel_names = {k: self.scope.take(identifier(k, "k")) for k in m.kernels}

    def module(self) -> str:
        if self.m.entry != "main" and self.m.graphs:
            self.lines.append(f"entry = {self.m.entry!r}")
        if self.m.entries:
            self.lines.append(f"entries = {self.m.entries!r}")
        self.symbols()
        for key, t in self.data.items():
            self.separate()
            self.data_type(self.data_names[key], key, t)
        for key, g in self.m.graphs.items():
            self.separate()
            self.graph(g, self.graph_names[key], key, "")
        for key, k in self.m.kernels.items():
            self.separate()
            printer = KernelPrinter(k, key, self.kernel_names[key], self.scope, self.renaming)
            start = len(self.lines)
            self.lines += printer.lines()
            self.where[k] = start + 1
            self.where.update((s, start + at) for s, at in printer.where.items())
        return "\n".join(self.lines) + "\n"

    def separate(self) -> None:
        if self.lines:
            self.lines.append("")

    # ---- symbols -------------------------------------------------------------------------------

    def symbols(self) -> None:
        """Declare every shape symbol, in order of first use, after those in its facts."""
        seen: set[Symbol] = set()
        for s in self.used_symbols():
            stack = [s]
            while stack:
                top = stack.pop()
                needs = [] if top.upper is None else sorted_symbols(top.upper)
                missing = [u for u in needs if u not in seen and u is not top]
                if top in seen:
                    continue
                if missing:
                    stack += [top, *missing]
                    continue
                seen.add(top)
                new = self.renaming.symbol(top, self.scope)
                self.lines.append(f"{new.name} = sym({facts_text(new)})")

    def used_symbols(self) -> list[Symbol]:
        found: dict[Symbol, None] = {}
        for t in self.data.values():
            for c in t.cases:
                for f in c.types:
                    found.update(dict.fromkeys(_type_symbols(f)))
        types: set[Type] = set()
        for g in self.m.all_graphs():
            for n in g.nodes():
                if n.type not in types:
                    types.add(n.type)
                    found.update(dict.fromkeys(_type_symbols(n.type)))
                for v in n.attrs.values():
                    if isinstance(v, (Expr, tuple)):
                        for e in attr_expressions(v):
                            found.update(dict.fromkeys(sorted_symbols(e)))
                    elif isinstance(v, TYPES):
                        found.update(dict.fromkeys(_type_symbols(v)))
        for k in self.m.kernels.values():
            found.update(dict.fromkeys(kernel_symbols(k)))
        return list(found)

    # ---- data types ----------------------------------------------------------------------------

    def data_type(self, name: str, key: str, t: DataType) -> None:
        option = f"(name={key!r})" if name != key else ""
        self.lines += [f"@data{option}", f"class {name}:"]
        for c in t.cases:
            fields = ", ".join(f"{k}={self.field(f)}" for k, f in c.fields)
            self.lines.append(f"    {c.name} = case({fields})")

    def field(self, t: Type) -> str:
        """A field's type; data types are quoted, since they may be declared later."""
        if isinstance(t, DataType):
            return repr(self.data_names[t.name])
        if isinstance(t, FunctionType):
            return f"function({_tuple([self.field(p) for p in t.params])}, {self.field(t.result)})"
        if isinstance(t, TupleType):
            return _tuple([self.field(i) for i in t.items])
        return self.type(t)

    # ---- graphs --------------------------------------------------------------------------------

    def graph(self, g: Graph, name: str, key: str, indent: str) -> None:
        scope = Scope(self.scope)
        names: dict[Node, str] = {}
        for p in g.params:
            names[p] = scope.take(identifier(p.name, "x"))
        params = ", ".join(f"{names[p]}: {self.type(p.type)}" for p in g.params)
        types = [self.type(t) for t in g.result_types]
        result = types[0] if len(types) == 1 else _tuple(types)
        self.lines.append(indent + self.decorator(g, names, name, key))
        self.where[g] = len(self.lines)
        self.lines.append(f"{indent}def {name}({params}) -> {result}:")
        inner = indent + "    "
        bodies: dict[Graph, str] = {}
        unnamed = 0
        for n in g.nodes():
            if n in names:
                continue
            for body in subgraphs(n):
                if body not in bodies:
                    bodies[body] = scope.take(identifier(body.name, "body"))
                    self.graph(body, bodies[body], body.name, inner)
            if n.op is CONST:
                names[n] = scope.take(identifier(n.name or "c", "c"))
            elif is_unnamed(n.name):
                names[n] = scope.take(f"v{unnamed}")
                unnamed += 1
            else:
                names[n] = scope.take(identifier(n.name, "v"))
            value = self.value(n, names, bodies)
            self.where[n] = len(self.lines)
            self.lines.append(f"{inner}{names[n]}: {self.type(n.type)} = {value}{comment(n.loc)}")
        results = [names[r] for r in g.results]
        self.lines.append(f"{inner}return {results[0] if len(results) == 1 else _tuple(results)}")

    def decorator(self, g: Graph, names: dict[Node, str], name: str, key: str) -> str:
        options = []
        if name != key:
            options.append(f"name={key!r}")
        renamed = {names[p]: p.name for p in g.params if names[p] != p.name}
        if renamed:
            options.append(f"params={renamed!r}")
        if g.result_names:
            options.append(f"results={g.result_names!r}")
        if g.state:
            options.append(f"state={g.state!r}")
        return f"@graph({', '.join(options)})" if options else "@graph"

    def value(self, n: Node, names: dict[Node, str], bodies: dict[Graph, str]) -> str:
        if n.op is CONST:
            return self.constant(n)
        parts = ["None" if a is None else names[a] for a in n.args]
        defaults, attrs, function = n.op.defaults, n.attrs, n.op.name
        if function == "construct":
            function, attrs = f"{self.data_names[n.type.name]}.{attrs['case']}", {}
        for k, v in attrs.items():
            if k in defaults and same_attr(v, defaults[k]):
                continue
            parts.append(f"{k}={self.attr(v, bodies)}")
        if n.attrs.get("symbols") and n.op.name != "bind_size":
            parts.append(f"gives={self.type(n.type)}")  # lets plain Python bind the symbols
        return f"{function}({', '.join(parts)})"

    def constant(self, n: Node) -> str:
        array = n.attrs["value"]
        if array.size <= INLINE and (array.size or array.ndim == 1):
            text = _literal(array)
            if text is not None:
                return f"{n.type.dtype}({text})"
        return f"const({self.constant_names[n]!r})"

    def attr(self, v, bodies: dict[Graph, str]) -> str:
        if isinstance(v, Expr):
            return self.dim(v)
        if isinstance(v, float):
            return repr(v)  # `inf` and `nan` are words of the text form
        if isinstance(v, DType):
            return v.name
        if isinstance(v, (tuple, list)):
            return _tuple([self.attr(x, bodies) for x in v])
        if isinstance(v, Graph):
            return bodies[v]
        if isinstance(v, TYPES):
            return self.type(v)
        if v is None or isinstance(v, (bool, int, str)):
            return repr(v)
        raise InternalError(f"an attribute of type {type(v).__name__} cannot be printed")

    # ---- types ---------------------------------------------------------------------------------

    def type(self, t: Type) -> str:
        found = self.type_texts.get(t)
        if found is None:
            found = self.type_texts[t] = self._type(t)
        return found

    def _type(self, t: Type) -> str:
        if isinstance(t, DataType):
            return self.data_names[t.name]
        if isinstance(t, TupleType):
            return _tuple([self.type(i) for i in t.items])
        if isinstance(t, FunctionType):
            return f"function({_tuple([self.type(p) for p in t.params])}, {self.type(t.result)})"
        return f"{t.dtype}[{', '.join(map(self.dim, t.shape)) or '()'}]"

    def dim(self, d: int | Expr) -> str:
        return text_of(self.renaming.expr(d)) if isinstance(d, Expr) else str(d)


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _constant_names(m: Module) -> dict[Node, str]:
    names = iter(m.constants())
    seen: dict[Node, str] = {}
    for g in m.all_graphs():
        for n in g.nodes():
            if n.op is CONST and n not in seen:
                seen[n] = next(names)
    return seen


def _literal(array: np.ndarray) -> str | None:
    """Contents as Python source that gives exactly this array back, or None."""
    if array.dtype.kind in "biu" or array.dtype in (np.float32, np.float64):
        values = array.tolist()
    else:
        values = array.astype(np.float64).tolist()
    if array.dtype.kind not in "biu" and np.isnan(array.astype(np.float64)).any():
        return None  # NaNs have payloads
    if array.dtype == np.float32:
        return _short(array)
    return repr(values)


def _short(array: np.ndarray) -> str:
    """f32 values by their shortest digits."""
    if array.ndim == 0:
        return str(array[()])
    return f"[{', '.join(map(_short, array))}]"


def same_attr(a, b) -> bool:
    """Whether two attribute values are the same, telling 1 from True and 1.0, and 0.0 from -0.0."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same_attr, a, b))
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return a == b


def sorted_symbols(e: Expr) -> list[Symbol]:
    """The symbols of one expression in a deterministic order."""
    if e.op == "sym":
        return [e.value]
    return sorted(symbols_of(e), key=lambda s: s.name)


def _type_symbols(t: Type) -> list[Symbol]:
    return [
        s
        for leaf in leaves(t)
        if isinstance(leaf, TensorType)
        for d in leaf.shape
        if isinstance(d, Expr)
        for s in sorted_symbols(d)
    ]
