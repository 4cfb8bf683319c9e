"""Loop-level programs: kernels and host functions as trees of statements over buffers.

    for i in parallel(n): for j in vector(64): y[i, j] = max(x[i, j], 0.0)

Statements are immutable and compared by identity. A `Seq` is executed in order; `Let` and `Alloc`
bind for the rest of their `Seq`. Loop kinds: serial, parallel (iterations are independent and may
run on any thread), vector (all lanes at once; stores to one element must be reductions), unroll,
outline (serial, in a function of its own, so that what it keeps in registers does not displace what
the code around it keeps there), and block/thread for targets with a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import is_

from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    bounds,
    is_const,
    replace_symbols,
    sym,
    symbols_in,
    walk,
)  # fmt: skip
from tensorwright.ir.reads import loads_in
from tensorwright.ir.reads import map_loads as map_loads_in
from tensorwright.ir.sums import put

KINDS = ("serial", "parallel", "vector", "unroll", "outline", "block", "thread")


class Stmt:
    """Base class of statements."""

    __slots__ = ()


@dataclass(frozen=True, eq=False, slots=True)
class Seq(Stmt):
    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False, slots=True)
class For(Stmt):
    """`var` runs over [begin, begin + extent)."""

    var: Symbol
    begin: Expr
    extent: Expr
    body: Stmt
    kind: str = "serial"


@dataclass(frozen=True, eq=False, slots=True)
class While(Stmt):
    cond: Expr
    body: Stmt


@dataclass(frozen=True, eq=False, slots=True)
class If(Stmt):
    cond: Expr
    then: Stmt
    orelse: Stmt | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Let(Stmt):
    """Bind an index symbol to the present value of an expression."""

    var: Symbol
    value: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Store(Stmt):
    """buffer[indices] = value. `buffer[i] = buffer[i] op e` is a reduction update."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Alloc(Stmt):
    """A buffer that lives for the rest of the enclosing Seq; its contents start undefined.

    offset: for scope "arena", where the memory planner placed it in its function's frame."""

    buffer: Buffer
    offset: Expr | None = None


@dataclass(frozen=True, eq=False, slots=True)
class View(Stmt):
    """`buffer` is another name (and shape) for the memory of `base`, from element `start`."""

    buffer: Buffer
    base: Buffer
    start: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Resize(Stmt):
    """Give a "boxed" buffer memory for `shape`; what it held is lost. Views made before dangle."""

    buffer: Buffer
    shape: tuple[Expr, ...]


@dataclass(frozen=True, eq=False, slots=True)
class New(Stmt):
    """target[()] = a new object of `size` bytes: a count of 1, the tag of its case, `refs`
    references, then its other contents, all undefined so far (`runtime/layout.py`)."""

    target: Buffer
    size: Expr
    tag: int
    refs: int


@dataclass(frozen=True, eq=False, slots=True)
class Count(Stmt):
    """Hold the object of a reference once more (`by` 1) or once less (-1). An object that nobody
    holds is freed, and lets go of what it refers to. A reference of 0 may be let go of."""

    target: Buffer
    by: int


@dataclass(frozen=True, eq=False, slots=True)
class Copy(Stmt):
    """target[...] = source[...], two buffers with the same number of elements of one type."""

    target: Buffer
    source: Buffer


@dataclass(frozen=True, eq=False, slots=True)
class Prefetch(Stmt):
    """Ask for the cache line `offset` elements behind a load, so that it may be in the L2 cache
    when it is read. beyond: (condition, thread, bytes): where the condition holds, instead of that
    load as many bytes from where the thread will begin to read what the program has announced."""

    place: Expr
    offset: Expr
    beyond: tuple[Expr, Expr, Expr] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Announce(Stmt):
    """Tell the kernels called from here on what will be read after them: `buffer`, by the first
    thread from its beginning, by each other one from `stride` bytes further."""

    buffer: Buffer
    stride: int


@dataclass(frozen=True, eq=False, slots=True)
class Call(Stmt):
    """Call a kernel or host function of the module, or an extern by its C name.

    buffers: pointers in the callee's order (inputs, then outputs); scalars: its index symbols."""

    callee: str
    buffers: tuple[Buffer, ...]
    scalars: tuple[Expr, ...] = ()
    extern: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Assert(Stmt):
    """Fail the whole program with `message` ({0}, {1}, {2} are the index `args`) unless `cond`."""

    cond: Expr
    message: str
    args: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class Pack:
    """The layout in which a kernel wants one of its parameters: dimension `axis` cut into panels of
    `width` (padded with zeros), the dimensions `lead`, the panel number, the dimensions `rest`, and
    the place within the panel, in this order. `words`: the dimension of `rest` along which
    neighbours of 16 bits are joined to one of 32 (an odd one to zeros); -1: none. `half`: of a
    matrix, the columns of the first half, where the sums of its quarters are what is laid out
    (`ir/quarters.py`), of three dimensions; 0: the parameter itself."""

    param: int
    axis: int
    width: int
    lead: tuple[int, ...]
    rest: tuple[int, ...]
    words: int = -1
    half: int = 0


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop-level function. `params`: its buffers, inputs first; the last `outputs` of them are
    written. `symbols`: index arguments, in order. `work`: arithmetic operations and bytes of one
    call at least, for reports. `sources`: the model's nodes it computes. `schedule`: the trace of
    the rules that shaped it. `packs`: layouts of parameters that the caller must provide.
    `streams`: numbers of parameters whose whole vectors are stored past the caches. `turn`: the one
    of the symbols that counts the calls, where a loop calls the kernel with the same weights."""

    name: str
    params: tuple[Buffer, ...]
    outputs: int
    body: Stmt
    symbols: tuple[Symbol, ...] = ()
    sources: tuple[str, ...] = ()
    schedule: tuple[str, ...] = field(default=(), compare=False)
    packs: tuple[Pack, ...] = ()
    streams: tuple[int, ...] = ()
    work: tuple[Expr, Expr] | None = field(default=None, compare=False)
    turn: Symbol | None = None

    @property
    def inputs(self) -> tuple[Buffer, ...]:
        return self.params[: len(self.params) - self.outputs]

    @property
    def results(self) -> tuple[Buffer, ...]:
        return self.params[len(self.params) - self.outputs :]

    def with_body(self, body: Stmt, *trace: str) -> Kernel:
        """The kernel with another body; `trace` is added to its schedule."""
        return replace(self, body=body, schedule=self.schedule + trace)


def seq(*stmts: Stmt | None) -> Stmt:
    """The statements in order, flattened; empty Seqs and None are dropped."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, Seq):
            flat.extend(s.body)
        elif s is not None:
            flat.append(s)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def loop(name: str, extent, body: Callable[[Expr], Stmt], kind: str = "serial", begin=0) -> For:
    """A For over a fresh variable; `body` gets the variable as an expression."""
    v = loop_symbol(name, as_expr(begin), as_expr(extent))
    return For(v, as_expr(begin), as_expr(extent), body(sym(v)), kind)


def loop_symbol(name: str, begin: Expr, extent: Expr) -> Symbol:
    """A fresh symbol that knows it lies in [begin, begin + extent)."""
    last = begin + extent - 1
    low, high = bounds(begin)[0], bounds(last)[1]
    if low is not None and high is not None:
        high = max(high, low)
    return Symbol(name, low, high, 1, last)


def loops(names: Iterable[str], extents: Iterable, body: Callable[..., Stmt]) -> Stmt:
    """A perfect nest of serial loops, outermost first."""
    return _nest(list(zip(names, extents)), body, ())


def _nest(levels: list[tuple], body: Callable[..., Stmt], indices: tuple[Expr, ...]) -> Stmt:
    if len(indices) == len(levels):
        return body(*indices)
    name, extent = levels[len(indices)]
    return loop(name, extent, lambda v: _nest(levels, body, (*indices, v)))


def store(buffer: Buffer, indices, value: Expr) -> Store:
    """buffer[indices] = value, with its types checked."""
    indices = tuple(as_expr(i) for i in (indices if isinstance(indices, tuple) else (indices,)))
    if len(indices) != len(buffer.shape):
        raise TypeError(f"{len(indices)} subscripts for {buffer}")
    value = as_expr(value, buffer.dtype)
    if value.dtype is not buffer.dtype:
        raise TypeError(f"storing {value.dtype} into {buffer}")
    return Store(buffer, indices, value)


def update(s: Store) -> tuple[str, Expr] | None:
    """(op, e) if `s` is the reduction update buffer[i] = op(buffer[i], e), else None; a fused
    multiply-add counts as ("add", its product as a `mul`-shaped fma)."""
    v = s.value

    def is_target(e: Expr) -> bool:
        return e.op == "load" and e.value is s.buffer and e.args == s.indices

    if v.op in ("add", "mul", "min", "max", "and", "or", "xor") and is_target(v.args[0]):
        return v.op, v.args[1]
    if v.op == "fma" and is_target(v.args[2]):
        return "fma", v
    return None


def children(s: Stmt) -> tuple[Stmt, ...]:
    kind = type(s)
    if kind is Store:
        return ()
    if kind is Seq:
        return s.body
    if kind is For or kind is While:
        return (s.body,)
    if kind is If:
        return (s.then,) if s.orelse is None else (s.then, s.orelse)
    return ()


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand in `s` itself."""
    kind = type(s)
    if kind is Store:
        return (*s.indices, s.value)
    if kind is For:
        return (s.begin, s.extent)
    if kind is Seq:
        return ()
    match s:
        case While(cond=cond) | If(cond=cond):
            return (cond,)
        case Let(value=value):
            return (value,)
        case Prefetch(place=place, offset=offset, beyond=beyond):
            return (place, offset, *(beyond or ()))
        case Alloc(buffer=buffer, offset=offset):
            own = () if offset is None else (offset,)
            return own + tuple(d for d in buffer.shape if isinstance(d, Expr))
        case View(buffer=buffer, start=start):
            return (start, *(d for d in buffer.shape if isinstance(d, Expr)))
        case Resize(shape=shape):
            return shape
        case New(size=size):
            return (size,)
        case Call(scalars=scalars):
            return scalars
        case Assert(cond=cond, args=args):
            return (cond, *args)
    return ()


def statements(root: Stmt) -> Iterator[Stmt]:
    """Every statement below and including `root`, in order."""
    stack = [root]
    while stack:
        s = stack.pop()
        yield s
        stack += children(s)[::-1]


def loads(root: Stmt) -> Iterator[Expr]:
    """Every distinct load of each statement."""
    for s in statements(root):
        yield from loads_in(*expressions(s))


def stored_buffers(root: Stmt) -> set[Buffer]:
    return {s.buffer for s in statements(root) if isinstance(s, Store)}


def buffers(root: Stmt) -> set[Buffer]:
    """Every buffer that statements below and including `root` load from or store to."""
    found = {e.value for e in loads(root)} | stored_buffers(root)
    for s in statements(root):
        match s:
            case View(buffer=a, base=b) | Copy(target=a, source=b):
                found |= {a, b}
            case New(target=b) | Count(target=b):
                found.add(b)
            case Call(buffers=more):
                found.update(more)
    return found


def with_children(s: Stmt, new: tuple[Stmt, ...]) -> Stmt:
    """`s` with other child statements; the same object if none changed."""
    old = children(s)
    if len(old) == len(new) and all(map(is_, old, new)):
        return s
    match s:
        case Seq():
            return seq(*new)
        case For():
            return For(s.var, s.begin, s.extent, new[0], s.kind)
        case While():
            return replace(s, body=new[0])
        case If():
            return replace(s, then=new[0], orelse=new[1] if len(new) > 1 else None)
    return s


def rewrite(root: Stmt, f: Callable[[Stmt], Stmt | None]) -> Stmt:
    """`root` with every statement, children first, offered to `f`; None keeps it."""
    below = children(root)
    new = with_children(root, tuple([rewrite(c, f) for c in below])) if below else root
    result = f(new)
    return new if result is None else result


def map_expressions(root: Stmt, f: Callable[[Expr], Expr]) -> Stmt:
    """`root` with `f` applied to every expression in it; what does not change stays the same
    object."""
    return rewrite(root, lambda s: map_own_expressions(s, f))


def map_own_expressions(s: Stmt, f: Callable[[Expr], Expr]) -> Stmt:
    """`s` with `f` applied to the expressions that stand in it, not in the statements below."""

    def several(old: tuple[Expr, ...]) -> tuple[Expr, ...]:
        new = tuple([f(e) for e in old])
        return old if all(map(is_, old, new)) else new

    kind = type(s)
    if kind is Store:
        indices, value = several(s.indices), f(s.value)
        if indices is s.indices and value is s.value:
            return s
        return Store(s.buffer, indices, value)
    if kind is For:
        begin, extent = f(s.begin), f(s.extent)
        if begin is s.begin and extent is s.extent:
            return s
        return For(s.var, begin, extent, s.body, s.kind)
    if kind is Seq:
        return s
    match s:
        case While() | If():
            cond = f(s.cond)
            return s if cond is s.cond else replace(s, cond=cond)
        case Let():
            value = f(s.value)
            return s if value is s.value else replace(s, value=value)
        case Prefetch():
            own = (s.place, s.offset, *(s.beyond or ()))
            place, offset, *beyond = new = several(own)
            return s if new is own else Prefetch(place, offset, tuple(beyond) or None)
        case Alloc(offset=Expr()):
            return replace(s, offset=f(s.offset))
        case View():
            return replace(s, start=f(s.start))
        case Resize():
            return replace(s, shape=tuple(map(f, s.shape)))
        case New():
            return replace(s, size=f(s.size))
        case Call():
            return replace(s, scalars=tuple(map(f, s.scalars)))
        case Assert():
            return replace(s, cond=f(s.cond), args=tuple(map(f, s.args)))
    return s


def substitute(root: Stmt, values: dict[Expr, Expr]) -> Stmt:
    """`root` with symbols (as expressions) replaced, sharing work between its expressions."""
    symbols = {e.value: new for e, new in values.items()}
    memo: dict = {}
    if len(symbols) == 1:
        ((v, value),), parts = symbols.items(), {}
        return map_expressions(root, lambda e: put(e, v, value, memo, parts))
    return map_expressions(root, lambda e: replace_symbols(e, symbols, memo))


def map_loads(root: Stmt, made: Callable[[Buffer, tuple[Expr, ...]], Expr | None]) -> Stmt:
    """`root` with each load b[i] replaced by made(b, i), the loads in i first; None keeps it."""
    memo: dict = {}
    return map_expressions(root, lambda e: map_loads_in(e, made, memo))


def map_accesses(root: Stmt, made: Callable[[Buffer, tuple[Expr, ...]], tuple | None]) -> Stmt:
    """`root` loading and storing c[j] in place of each b[i], with (c, j) = made(b, i), the loads in
    i first; None keeps it."""
    memo: dict = {}

    def load(b: Buffer, at: tuple[Expr, ...]) -> Expr | None:
        place = made(b, at)
        return None if place is None else place[0][place[1]]

    def visit(s: Stmt) -> Stmt:
        s = map_own_expressions(s, lambda e: map_loads_in(e, load, memo))
        place = made(s.buffer, s.indices) if type(s) is Store else None
        return s if place is None else Store(*place, s.value)

    return rewrite(root, visit)


def replace_buffers(root: Stmt, new: dict[Buffer, Buffer]) -> Stmt:
    """`root` reading and writing other buffers of the same rank."""
    if not new:
        return root

    def visit(s: Stmt) -> Stmt | None:
        match s:
            case Store() | Alloc() | Resize() if s.buffer in new:
                return replace(s, buffer=new[s.buffer])
            case New() | Count():
                return replace(s, target=new.get(s.target, s.target))
            case Call():
                return replace(s, buffers=tuple(new.get(b, b) for b in s.buffers))
            case Copy():
                return replace(s, target=new.get(s.target, s.target),
                               source=new.get(s.source, s.source))  # fmt: skip
            case View():
                return replace(s, buffer=new.get(s.buffer, s.buffer),
                               base=new.get(s.base, s.base))  # fmt: skip
        return None

    return rewrite(map_loads(root, lambda b, at: new[b][at] if b in new else None), visit)


def free_symbols(root: Stmt) -> list[Symbol]:
    """Symbols read but not bound inside `root`, in order of first use."""
    bound: set[Symbol] = set()
    found: dict[Symbol, None] = {}
    for s in statements(root):
        if isinstance(s, (For, Let)):
            bound.add(s.var)
        for e in expressions(s):
            if not found.keys() >= symbols_in(e):
                found.update((x.value, None) for x in walk(e) if x.op == "sym")
    return [v for v in found if v not in bound]


def is_unit(s: For) -> bool:
    """Whether the loop runs exactly once."""
    return is_const(s.extent, 1)
