"""Replace a loop nest by one instruction that computes the same.

    for l in 16: for r in 4: c[j + l] += i32(a[k + r]) * i32(b[j, l, r])
->  for l in vector(16): c[j + l] = call("dot_u8i8", i32, c[j + l], a as i32 at k, b as i32 at j)

An `Intrinsic` is declared by its semantics, a small kernel over buffers of the instruction's own
shapes. A nest is one of it if it has the same loops and the same expressions, and accesses memory
in the same steps, from wherever each buffer's part begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorwright.ir import loop as ir
from tensorwright.ir.dtype import i8, i32, u8
from tensorwright.ir.expr import Buffer, Expr, Symbol, call, cast, const, fma, sym, walk
from tensorwright.ir.loop import For, Kernel, Seq, Stmt, Store, View, loops, seq
from tensorwright.schedule.legal import ScheduleError
from tensorwright.schedule.nest import affine, flat_index
from tensorwright.schedule.primitives import find, replace_loop
from tensorwright.target.target import Target

Parts = dict[Buffer, tuple[Buffer, Expr]]  # of the semantics -> (buffer, first element)


@dataclass(frozen=True, eq=False)
class Intrinsic:
    """semantics: what it computes; emit: the statement that computes it on the given parts of
    buffers; features: what a target needs for that to be one instruction."""

    name: str
    semantics: Kernel
    emit: Callable[[Parts], Stmt]
    features: tuple[str, ...] = ()

    def is_native(self, target: Target) -> bool:
        return set(self.features) <= set(target.features)


def tensorize(root: Stmt, v: Symbol, intrinsic: Intrinsic) -> Stmt:
    """Replace the nest from loop `v` on by the intrinsic. Legal if it computes the same."""
    found = match(intrinsic, find(root, v))
    new = intrinsic.emit(found)
    return replace_loop(root, v, lambda _: new)


def match(intrinsic: Intrinsic, s: For) -> Parts:
    """The part of a buffer that stands for each one of the semantics."""
    m = _Match(intrinsic.name)
    m.stmt(intrinsic.semantics.body, s)
    return m.parts


class _Match:
    def __init__(self, name: str):
        self.name = name
        self.parts: Parts = {}
        self.loops: list[tuple[For, For]] = []

    def refuse(self, why: str) -> None:
        raise ScheduleError(f"the nest is not {self.name}: {why}")

    def stmt(self, p: Stmt, s: Stmt) -> None:
        if type(p) is not type(s):
            self.refuse(f"{type(s).__name__} where it has {type(p).__name__}")
        match p, s:
            case For(), For():
                if p.extent is not s.extent:
                    self.refuse(f"loop {s.var} runs {s.extent} times, not {p.extent}")
                self.loops.append((p, s))
                self.stmt(p.body, s.body)
                self.loops.pop()
            case Seq(), Seq():
                if len(p.body) != len(s.body):
                    self.refuse(f"{len(s.body)} statements, not {len(p.body)}")
                for a, b in zip(p.body, s.body):
                    self.stmt(a, b)
            case Store(), Store():
                self.access(p.buffer, p.indices, s.buffer, s.indices)
                self.expr(p.value, s.value)
            case _:
                self.refuse(f"{type(p).__name__} is not matched")

    def expr(self, p: Expr, e: Expr) -> None:
        if p.op == e.op == "load":
            self.access(p.value, p.args, e.value, e.args)
            return
        if p.op != e.op or p.dtype is not e.dtype or len(p.args) != len(e.args):
            self.refuse(f"it computes {p.op} of {p.dtype} where {e} stands")
        if p.value != e.value:
            self.refuse(f"{e} is not {p}")
        for a, b in zip(p.args, e.args):
            self.expr(a, b)

    def access(self, p: Buffer, at: tuple[Expr, ...], b: Buffer, place: tuple[Expr, ...]) -> None:
        """Both accesses move alike with every loop; `b` is where `p` was before."""
        if p.dtype is not b.dtype:
            self.refuse(f"{b.name} holds {b.dtype}, not {p.dtype}")
        mine, theirs = flat_index(p, at), flat_index(b, place)
        start = theirs
        for outer, inner in self.loops:
            step, other = affine(mine, sym(outer.var)), affine(theirs, sym(inner.var))
            if step is not other:
                self.refuse(f"{b.name} moves by {other} with {inner.var}, not by {step}")
            start = start - sym(inner.var) * step + inner.begin * step
        if {sym(inner.var) for _, inner in self.loops} & set(walk(start)):
            self.refuse(f"where {b.name} begins depends on its loops")
        known = self.parts.setdefault(p, (b, start))
        if known[0] is not b or known[1] is not start:
            self.refuse(f"{b.name} is accessed at {start}, not at one place")


# ---- intrinsics --------------------------------------------------------------------------------


def dot_u8i8(lanes: int = 16) -> Intrinsic:
    """c[l] += sum over 4 bytes of a[r] * b[l, r]: VPDPBUSD."""
    a, b, c = Buffer("a", u8, (4,)), Buffer("b", i8, (lanes, 4)), Buffer("c", i32, (lanes,))

    def step(l: Expr, r: Expr) -> Stmt:
        return Store(c, (l,), fma(cast(a[r], i32), cast(b[l, r], i32), c[l]))

    def emit(parts: Parts) -> Stmt:
        words = {p: Buffer(p.name, i32, n, "local") for p, n in ((a, (1,)), (b, (lanes,)),
                                                                 (c, (lanes,)))}  # fmt: skip
        views = [View(words[p], *parts[p]) for p in (a, b, c)]

        def lane(l: Expr) -> Stmt:
            args = (words[c][l], words[a][const(0)], words[b][l])
            return Store(words[c], (l,), call("dot_u8i8", i32, args))

        return seq(*views, ir.loop("l", lanes, lane, "vector"))

    nest = loops("lr", (lanes, 4), step)
    return Intrinsic("dot_u8i8", Kernel("dot_u8i8", (a, b, c), 1, nest), emit, ("avx512vnni",))
