"""Kernels as plain Python functions over NumPy arrays, with exactly the semantics of `ir/expr.py`.

    for i in range(n): y_1[i] = f0(x_0[i], c0)        # f0 = max on f32, c0 = np.float32(0)

Loop kinds make no difference here. Expressions that a statement uses several times are computed
once, before it, where evaluating them early cannot leave a buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tensorwright.base.errors import InternalError, RunError
from tensorwright.ir import scalar
from tensorwright.ir.dtype import DType, boolean, f32, f64, index
from tensorwright.ir.expr import Buffer, Expr, Symbol, bounds, walk
from tensorwright.ir.heap import HEAP
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
)
from tensorwright.ir.print_kernel import program_buffers

_MAX_NEST = 15  # Python allows 20 nested blocks in a function; deeper ones become functions
_MAX_TEXT_DEPTH = 30  # and 200 nested parentheses
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=",
}  # fmt: skip
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

# What `expr.call` may name, by name.
FUNCTIONS: dict[str, Callable] = {
    "opaque": lambda x: x, "join": scalar.join, "dot_bf16": scalar.dot_bf16,
    "round_bf16": scalar.round_bf16, "dot_u8i8": scalar.dot_u8i8,
}  # fmt: skip


@dataclass
class Program:
    """What the entry of a program and its functions take by position."""

    inputs: list[np.ndarray]
    constants: list[np.ndarray]
    outputs: dict[int, np.ndarray] = field(default_factory=dict)

    def output(self, shape: tuple[int, ...], d: DType, position: int) -> np.ndarray:
        self.outputs[position] = scalar.undefined(shape, d)
        return self.outputs[position]


def compile_kernel(
    kernel: Kernel, linked: Callable[[Call], Callable], program: Program | None = None
) -> Callable:
    """A Python function of the kernel's buffers and then its symbols. `linked` finds callees; the
    entry of a program takes its buffers from `program` instead."""
    writer = _Writer(kernel, linked, program)
    text = writer.write()
    namespace = dict(writer.globals)
    exec(compile(text, f"<kernel {kernel.name}>", "exec"), namespace)
    run = namespace["kernel"]
    run.source = text
    return run


def nonnegative(i: int) -> int:
    """A subscript that was not proved to be in range from below."""
    if i < 0:
        raise InternalError(f"subscript {i} is negative")
    return i


def view(base: np.ndarray, start: int, shape: tuple[int, ...], d: np.dtype) -> np.ndarray:
    """A window of `base` under another shape (and type of the same storage)."""
    flat = base.reshape(-1)
    if d != flat.dtype:
        flat, start = flat.view(np.uint8), start * flat.dtype.itemsize
        size = math.prod(shape) * d.itemsize
        return flat[start : start + size].view(d).reshape(shape)
    return flat[start : start + math.prod(shape)].reshape(shape)


def fail(message: str, *args: int) -> None:
    raise RunError(message.format(*args))


class _Writer:
    """One kernel's source being written: names of symbols and buffers, hoisted values, globals."""

    def __init__(self, kernel: Kernel, linked: Callable, program: Program | None):
        self.kernel, self.linked = kernel, linked
        self.lines: list[str] = []
        self.names: dict[object, str] = {}
        self.taken: set[str] = set()
        self.globals: dict[str, object] = {
            "np": np, "nonnegative": nonnegative, "view": view, "fail": fail,
            "undefined": scalar.undefined, "program": program, "heap": HEAP,
        }  # fmt: skip
        self.constants: dict[tuple, str] = {}
        self.frame = ""
        self.hoisted: dict[Expr, str] = {}
        self.count = 0

    def name(self, thing: Symbol | Buffer) -> str:
        found = self.names.get(thing)
        if found is None:
            base = "".join(c if c.isalnum() and c.isascii() else "_" for c in thing.name)
            found = f"v{len(self.names)}_{base}"
            self.names[thing] = found
        return found

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def bind_global(self, prefix: str, key: tuple, value: object) -> str:
        found = self.constants.get(key)
        if found is None:
            found = self.constants[key] = self.fresh(prefix)
            self.globals[found] = value
        return found

    def write(self) -> str:
        k = self.kernel
        own = program_buffers(k)
        params = [self.name(x) for x in (*k.params, *k.symbols) if x not in own]
        self.line(0, f"def kernel({', '.join(params)}):")
        self.statement(k.body, 1, 0)
        self.line(1, "return")
        return "\n".join(self.lines) + "\n"

    def line(self, depth: int, text: str) -> None:
        self.lines.append(" " * depth + text)

    # ---- statements ----------------------------------------------------------------------------

    def block(self, s: Stmt, depth: int, nest: int) -> None:
        """The body of a compound statement."""
        if nest < _MAX_NEST:
            self.statement(s, depth, nest)
            return
        f = self.fresh("body")
        self.line(depth, f"def {f}():")
        self.statement(s, depth + 1, 0)
        self.line(depth + 1, "return")
        self.line(depth, f"{f}()")

    def statement(self, s: Stmt, depth: int, nest: int) -> None:
        match s:
            case Seq(body=body):
                for child in body:
                    self.statement(child, depth, nest)
                if not body:
                    self.line(depth, "pass")
            case For():
                begin, extent = self.values(depth, s.begin, s.extent)
                stop = extent if begin == "0" else f"{begin}, {begin} + {extent}"
                self.line(depth, f"for {self.name(s.var)} in range({stop}):")
                self.block(s.body, depth + 1, nest + 1)
            case While():
                self.line(depth, "while True:")
                (cond,) = self.values(depth + 1, s.cond)
                self.line(depth + 1, f"if not ({cond}): break")
                self.block(s.body, depth + 1, nest + 1)
            case If():
                (cond,) = self.values(depth, s.cond)
                self.line(depth, f"if {cond}:")
                self.statement(s.then, depth + 1, nest)
                if s.orelse is not None:
                    self.line(depth, "else:")
                    self.statement(s.orelse, depth + 1, nest)
            case _:
                self.simple(s, depth)

    def simple(self, s: Stmt, depth: int) -> None:
        match s:
            case Let():
                (value,) = self.values(depth, s.value)
                self.line(depth, f"{self.name(s.var)} = {value}")
            case Store():
                *indices, value = self.values(depth, *s.indices, s.value)
                where = self.subscript(s.indices, indices)
                self.line(depth, f"{self.name(s.buffer)}[{where}] = {value}")
            case Prefetch() | Announce():
                self.line(depth, "pass")
            case Alloc():
                self.line(depth, f"{self.name(s.buffer)} = {self.allocation(s, depth)}")
            case New():
                (size,) = self.values(depth, s.size)
                self.line(depth, f"heap.new({self.name(s.target)}, {size}, {s.tag}, {s.refs})")
            case Count():
                self.line(depth, f"heap.count({self.name(s.target)}, {s.by})")
            case Copy():
                target, source = self.name(s.target), self.name(s.source)
                self.line(depth, f"{target}.reshape(-1)[:] = {source}.reshape(-1)")
            case View():
                (start,) = self.values(depth, s.start)
                d, shape = self.dtype(s.buffer.dtype), self.shape(depth, s.buffer)
                base = self.name(s.base)
                target = self.name(s.buffer)
                if s.base.scope == "reference":
                    self.line(depth, f"{target} = heap.view({base}, {start}, {shape}, {d}.numpy)")
                    return
                self.line(depth, f"{target} = view({base}, {start}, {shape}, {d}.numpy)")
            case Call():
                f = self.bind_global("callee", ("callee", s.callee, s.extern), self.linked(s))
                args = [*map(self.name, s.buffers), *self.values(depth, *s.scalars)]
                self.line(depth, f"{f}({', '.join(args)})")
            case Assert():
                cond, *args = self.values(depth, s.cond, *s.args)
                message = ", ".join([repr(s.message), *args])
                self.line(depth, f"if not ({cond}): fail({message})")
            case _:
                raise InternalError(f"no statement {type(s).__name__} in a kernel")

    def allocation(self, s: Alloc, depth: int) -> str:
        """Where a buffer comes from; planned ones are parts of the frame, as in compiled code."""
        b, offset = s.buffer, ""
        if s.offset is not None:
            (offset,) = self.values(depth, s.offset)
        match b.scope:
            case "input":
                return f"program.inputs[{offset}]"
            case "input_shape":
                return f"np.array(program.inputs[{offset}].shape, np.int64)"
            case "const":
                return f"program.constants[{offset}]"
        d, shape = self.dtype(b.dtype), self.shape(depth, b)
        if b.scope == "output":
            return f"program.output({shape}, {d}, {offset})"
        if b.scope == "arena" and offset and self.frame:
            return f"view({self.frame}, {offset}, {shape}, {d}.numpy)"
        if b.scope == "frame":
            self.frame = self.name(b)
        return f"undefined({shape}, {d})"

    def shape(self, depth: int, b: Buffer) -> str:
        dims = [d if isinstance(d, Expr) else str(d) for d in b.shape]
        texts = self.values(depth, *(d for d in dims if isinstance(d, Expr)))
        found = iter(texts)
        parts = [next(found) if isinstance(d, Expr) else d for d in dims]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    # ---- expressions ---------------------------------------------------------------------------

    def values(self, depth: int, *roots: Expr) -> list[str]:
        """Source of the expressions, after lines that compute what they share."""
        self.hoisted = {}
        for e in _to_hoist(roots):
            text = self.text(e)
            temporary = self.fresh("t")
            self.line(depth, f"{temporary} = {text}")
            self.hoisted[e] = temporary
        return [self.text(e) for e in roots]

    def text(self, e: Expr) -> str:
        found = self.hoisted.get(e)
        if found is not None:
            return found
        match e.op:
            case "const":
                return self.constant(e)
            case "sym":
                return self.name(e.value)
            case "load":
                where = self.subscript(e.args, [self.text(a) for a in e.args])
                return f"{self.name(e.value)}[{where}]"
            case "select":
                c, a, b = map(self.text, e.args)
                return f"({a} if {c} else {b})"
            case "and" | "or" if e.dtype is boolean:
                a, b = map(self.text, e.args)
                return f"({a} {e.op} {b})"
            case "not" if e.dtype is boolean:
                return f"(not {self.text(e.args[0])})"
        return self.operation(e, [self.text(a) for a in e.args])

    def subscript(self, indices, texts: list[str]) -> str:
        def checked(e: Expr, text: str) -> str:
            low = bounds(e)[0]
            return text if low is not None and low >= 0 else f"nonnegative({text})"

        return ", ".join(map(checked, indices, texts)) or "()"

    def constant(self, e: Expr) -> str:
        if e.dtype is index or e.dtype is boolean:
            return repr(e.value) if e.value >= 0 else f"({e.value})"
        value = e.dtype.numpy.type(e.value)
        return self.bind_global("c", ("const", e.dtype.name, value.tobytes()), value)

    def dtype(self, d: DType) -> str:
        return self.bind_global("d", ("dtype", d.name), d)

    def operation(self, e: Expr, args: list[str]) -> str:
        d = e.args[0].dtype if e.args else e.dtype
        native = d in (index, f32, f64) or e.op in _COMPARISONS
        if e.op in _INFIX and native:
            return f"({args[0]} {_INFIX[e.op]} {args[1]})"
        if e.op == "cast":
            return self.cast(d, e.dtype, args[0])
        if e.op == "bitcast":
            f = self.bind_global(
                "bits", ("bitcast", d.name, e.dtype.name),
                lambda v, d=d, to=e.dtype: scalar.bitcast(v, d, to),
            )  # fmt: skip
        elif e.op == "call":
            f = self.bind_global("call", ("call", e.value), _named_function(e.value))
        elif d is index and e.op in ("floordiv", "mod") and (bounds(e.args[1])[0] or 0) > 0:
            return f"({args[0]} {'//' if e.op == 'floordiv' else '%'} {args[1]})"
        elif d is index and e.op in ("min", "max"):
            return f"{e.op}({', '.join(args)})"
        else:
            f = self.bind_global(f"{e.op}_", (e.op, d.name), scalar.function(e.op, d))
        return f"{f}({', '.join(args)})"

    def cast(self, source: DType, to: DType, arg: str) -> str:
        if to is index and source.kind in ("int", "uint", "bool"):
            return f"int({arg})"
        if to in (f32, f64):
            return f"{self.bind_global('kind', ('type', to.name), to.numpy.type)}({arg})"
        convert = self.bind_global(
            "cast", ("cast", source.name, to.name), lambda v, s=source, to=to: scalar.cast(v, s, to)
        )
        return f"{convert}({arg})"


def _named_function(name: str) -> Callable:
    if name not in FUNCTIONS:
        raise InternalError(f"no scalar function is named {name!r}")
    return FUNCTIONS[name]


def _to_hoist(roots: tuple[Expr, ...]) -> list[Expr]:
    """Shared or very deep operations of the roots that may be computed before the statement:
    those that are evaluated in any case, or load nothing."""
    uses: dict[Expr, int] = {}
    depth: dict[Expr, int] = {}
    loading: set[Expr] = set()
    ordered = list(walk(*roots))
    if len(ordered) < 4:
        return []
    always = _unconditional(roots)
    chosen = []
    for e in ordered:
        for a in e.args:
            uses[a] = uses.get(a, 0) + 1
        if e.op == "load" or any(a in loading for a in e.args):
            loading.add(e)
    for e in ordered:
        depth[e] = 1 + max((depth[a] for a in e.args), default=0)
        if not e.args or not (uses.get(e, 0) > 1 or depth[e] > _MAX_TEXT_DEPTH):
            continue
        if e in always or e not in loading:
            chosen.append(e)
            depth[e] = 1
    return chosen


def _unconditional(roots: tuple[Expr, ...]) -> set[Expr]:
    found: set[Expr] = set()
    stack = list(roots)
    while stack:
        e = stack.pop()
        if e not in found:
            found.add(e)
            guarded = e.op == "select" or (e.op in ("and", "or") and e.dtype is boolean)
            stack.extend(e.args[:1] if guarded else e.args)
    return found
