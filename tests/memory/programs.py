"""Random host functions, and an execution of a plan that knows nothing of how it was made.

`run_plan` keeps one byte array for the frame. A call fills its output with a number of its own, and
whoever names a buffer finds the number that was last put there, or the plan has let two buffers
share memory while both were needed.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import boolean, f32, u8
from tensorwright.ir.expr import Buffer, Expr, as_expr, const, is_const, load, substitute, sym
from tensorwright.ir.loop import Alloc, Call, Copy, For, If, Kernel, Seq, Stmt, View, While
from tensorwright.ir.type import product


def shapes(symbols: list[Expr]):
    """Sizes from nothing to a few lines, some times a symbol."""
    static = st.integers(0, 70).map(lambda n: (n,))
    if not symbols:
        return static
    symbolic = st.tuples(st.sampled_from(symbols), st.integers(1, 5))
    return static | symbolic


@st.composite
def host_functions(draw, symbols: tuple[Expr, ...] = ()) -> Kernel:
    """A host function of calls, copies, views, loops and branches over arena buffers."""
    x = Buffer("x", f32, (64,), "input")
    flag = Buffer("flag", boolean, (), "input")
    count = [0]

    def block(seen: list[Buffer], depth: int) -> Seq:
        parts: list[Stmt] = []
        seen = list(seen)
        for _ in range(draw(st.integers(1, 5))):
            parts += statements(seen, depth)
        return Seq(tuple(parts))

    def statements(seen: list[Buffer], depth: int) -> list[Stmt]:
        kind = draw(
            st.sampled_from(["call"] * 4 + ["copy", "view", "again"] + ["nest"] * (depth < 2))
        )
        if kind == "nest":
            return [nest(seen, depth)]
        source = draw(st.sampled_from(seen))
        if kind == "view" and source is not x:
            count[0] += 1
            view = Buffer(f"v{count[0]}", source.dtype, source.shape, "arena")
            seen.append(view)
            return [View(view, source, const(0))]
        if kind == "again" and source is not x:  # a loop's state is written more than once
            return [Call("f", (draw(st.sampled_from(seen)), source))]
        count[0] += 1
        shape = source.shape if kind == "copy" else draw(shapes(list(symbols)))
        out = Buffer(f"b{count[0]}", f32, shape, "arena", 64)
        others = draw(st.lists(st.sampled_from(seen), max_size=2))
        seen.append(out)
        if kind == "copy":
            return [Alloc(out), Copy(out, source)]
        return [Alloc(out), Call("f", (source, *others, out))]

    def nest(seen: list[Buffer], depth: int) -> Stmt:
        inner = block(seen, depth + 1)
        match draw(st.sampled_from(["for", "while", "if"])):
            case "for":
                return For(ir.loop_symbol("t", const(0), const(3)), const(0), const(3), inner)
            case "while":
                return While(load(flag, ()), inner)
        return If(load(flag, ()), inner, block(seen, depth + 1))

    prologue = (Alloc(x, const(0)), Alloc(flag, const(1)))
    body = Seq((*prologue, *block([x], 0).body))
    return Kernel("tw_main", (x, flag), 0, body)


def used_twice(first: int, second: int) -> Kernel:
    """Two buffers that are live together, at given offsets."""
    a, b = Buffer("a", u8, (64,), "arena", 64), Buffer("b", u8, (64,), "arena", 64)
    frame = Buffer("frame", u8, (1024,), "frame", 64)
    calls = (Call("f", (a,)), Call("f", (b,)), Call("f", (a, b)))
    body = Seq((Alloc(frame), Alloc(a, const(first)), Alloc(b, const(second)), *calls))
    return Kernel("tw_main", (), 0, body)


class Clash(AssertionError):
    """A buffer does not hold what was put there."""


class PlanRun:
    """The frame's bytes, what every buffer should hold, and where it is."""

    def __init__(self, k: Kernel, values: dict[Expr, Expr], first: bool):
        self.values, self.memory = values, {}
        self.taken = first  # the arm of the next branch; they take turns
        self.where: dict[Buffer, tuple[int, int]] = {}
        self.holds: dict[tuple, int] = {}
        self.owner: dict[Buffer, Buffer] = {}
        self.tokens = 0
        self.run(k.body)

    def number(self, e) -> int:
        e = substitute(as_expr(e), self.values)
        assert is_const(e), e
        return e.value

    def run(self, s: Stmt) -> None:
        match s:
            case Seq(body=body):
                for part in body:
                    self.run(part)
            case For(body=body) | While(body=body):
                for _ in range(3):
                    self.run(body)
            case If(then=then, orelse=orelse):
                arm = then if self.taken else orelse
                self.taken = not self.taken
                if arm is not None:
                    self.run(arm)
            case Alloc(buffer=b, offset=offset) if b.scope == "arena":
                size = self.number(product(b.shape)) * b.dtype.bytes
                self.where[b] = (self.number(offset), size)
                self.holds.pop(b, None)
                self.owner[b] = b
            case View(buffer=b, base=base):
                self.owner[b] = self.owner[base]
            case Call(buffers=buffers):
                self.compute(buffers[:-1], buffers[-1])
            case Copy(target=t, source=b):
                self.compute((b,), t)

    def compute(self, sources, target: Buffer) -> None:
        for b in sources:
            self.check(b)
        self.tokens += 1
        owner = self.owner.get(target)
        if owner is None:
            return
        start, size = self.where[owner]
        self.memory.update(dict.fromkeys(range(start, start + size), self.tokens))
        self.holds[owner] = self.tokens
        for b in (*sources, target):  # all operands are whole while the call runs
            self.check(b)

    def check(self, b: Buffer) -> None:
        owner = self.owner.get(b)
        if owner is None or owner not in self.holds:
            return
        start, size = self.where[owner]
        if any(self.memory[k] != self.holds[owner] for k in range(start, start + size)):
            raise Clash(f"{owner} at {start} was overwritten")


def run_plan(k: Kernel, values: dict | None = None) -> None:
    """Execute the calls of a planned function; raises Clash."""
    for first in (True, False):
        PlanRun(k, {sym(s): const(v) for s, v in (values or {}).items()}, first)
