"""Schedule primitives that move work between loop nests.

    jam(i, i2)          for i: a;  for i2: b   ->  for i: {a; b}
    distribute(i, cuts) for i: {a; b; c}       ->  for i: a;  for i: {b; c}    (locals expanded)
    privatize(i, t)     t = alloc[n, m]; for i: .. t[i, j] ..  ->  for i: t = alloc[m]; .. t[j] ..
    carry(r)            for r: t[i] += e       ->  a = t[i]; for r: a += e;  t[i] = a
    in_place(a, b)      b[i] = f(a[i])         ->  a[i] = f(a[i])              (a not read later)
    in_runs             parallel i: s = alloc[m]  ->  s = alloc[16, m]; each of 16 runs uses s[run]
    divide_once         for i: a[i] / d        ->  r = 1 / d; for i: a[i] * r  (rounds once more)

Together they tile a chain of stages over common rows: jam the row loops, make the intermediates
private to a row, split the row loop, and distribute it over the stages again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_dim,
    as_expr,
    bounds,
    const,
    is_const,
    maximum,
    minimum,
    sym,
    transform,
    walk,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, For, Let, Seq, Stmt, Store, loop_symbol, seq
from tensorwright.schedule import legal
from tensorwright.schedule.nest import nest_of
from tensorwright.schedule.primitives import find, fresh_copy, index_local, replace_loop


def jam(root: Stmt, variables: Sequence[Symbol]) -> tuple[Stmt, Symbol]:
    """Neighbouring loops of one range -> one loop with all their bodies. Legal if an iteration of
    the result depends on no other one."""
    loops = [find(root, v) for v in variables]
    first = loops[0]
    legal.check_same_range(loops)
    v = loop_symbol(first.var.name, first.begin, first.extent)
    bodies = [ir.substitute(s.body, {sym(s.var): sym(v)}) for s in loops]
    one = For(v, first.begin, first.extent, seq(*bodies), first.kind)
    legal.check_parallel(one)
    around = next((s for s in ir.statements(root) if isinstance(s, Seq) and first in s.body), None)
    legal.check_neighbours(around, loops)

    def visit(s: Stmt) -> Stmt | None:
        if s is not around:
            return None
        start, end = (s.body.index(x) for x in (first, loops[-1]))
        allocs = [x for x in s.body[start:end] if isinstance(x, Alloc)]
        return seq(*s.body[:start], *allocs, one, *s.body[end + 1 :])

    return _replace(root, visit), v


def _replace(root: Stmt, visit) -> Stmt:
    """`root` with the statements that `visit` knows (as they stand in it) replaced."""
    found = visit(root)
    if found is not None:
        return found
    return ir.with_children(root, tuple(_replace(c, visit) for c in ir.children(root)))


def distribute(
    root: Stmt, v: Symbol, cuts: Sequence[Stmt], most: Expr | None = None
) -> tuple[Stmt, list[Symbol]]:
    """Give each group of statements in the body of a loop a loop of its own; a group begins at each
    of `cuts`, and binds the numbers that it reads. Local buffers that more than one group uses get
    a dimension over `v`: as large as its extent or, if that is no constant, `most`, which it does
    not exceed. Legal if what groups share is such a buffer, or iterations are independent. Returns
    the loops' variables."""
    s = find(root, v)
    parts = s.body.body if isinstance(s.body, Seq) else (s.body,)
    lets = [part for part in parts if isinstance(part, Let)]
    groups: list[list[Stmt]] = [[]]
    for part in parts:
        if part in cuts and groups[-1]:
            groups.append([])
        if not isinstance(part, Alloc | Let):
            groups[-1].append(part)
    for group in groups:
        read = set(ir.free_symbols(seq(*group)))
        group[:0] = [x for x in lets if x.var in read]
    allocs = [part for part in parts if isinstance(part, Alloc)]
    legal.check_distribute(s, groups, {a.buffer for a in allocs})
    touched = [{b for part in g for b in ir.buffers(part)} for g in groups]
    shared = [a for a in allocs if sum(a.buffer in t for t in touched) > 1]
    if shared and most is None:
        legal.check_constant(s)
    wider = {a.buffer: repeated(a.buffer, s.extent if most is None else most) for a in shared}
    loops = []
    for g, t in zip(groups, touched):
        own = [a for a in allocs if a not in shared and a.buffer in t]
        body = index_local(seq(*own, *g), wider, sym(v) - s.begin)
        loops.append(fresh_copy(replace(s, body=body), s.begin, s.extent))
    new = seq(*(Alloc(b) for b in wider.values()), *loops)
    return replace_loop(root, v, lambda _: new), [f.var for f in loops]


def carry(root: Stmt, v: Symbol) -> Stmt:
    """Keep the element that a loop adds to in a private scalar while it runs: for r: t[i] += e
    -> acc = t[i]; for r: acc += e; t[i] = acc. Legal if it touches no other one."""
    s = find(root, v)
    legal.check_carried(s)
    step = nest_of(s)[-1].body
    acc, sums = Buffer("acc", step.buffer.dtype, (), "local"), step.buffer[step.indices]
    leaf = {sums: acc[()]}.get
    inner = ir.rewrite(s, lambda x: Store(acc, (), transform(x.value, leaf)) if x is step else None)
    new = seq(Alloc(acc), Store(acc, (), sums), inner, Store(step.buffer, step.indices, acc[()]))
    return replace_loop(root, v, lambda _: new)


def repeated(b: Buffer, count: Expr) -> Buffer:
    """A local buffer `count` times; at the bound of that if it has a constant size otherwise."""
    fixed = all(is_const(as_expr(d)) for d in b.shape)
    many = as_dim(count) if not fixed else bounds(count)[1]
    return Buffer(b.name, b.dtype, (many, *b.shape), b.scope, b.align)


def privatize(root: Stmt, v: Symbol, b: Buffer, shape: Sequence) -> tuple[Stmt, Buffer]:
    """A temporary of the whole kernel -> a local buffer of one iteration of `v`, without its first
    dimensions, which tell iterations apart. shape: of the others, each at least as large as it is;
    one that is not constant needs `in_runs` in the end."""
    s, rank = find(root, v), b.rank - len(shape)
    legal.check_private(root, s, b, rank)
    small = Buffer(b.name, b.dtype, shape, "local", 64)
    body = rename_accesses(s.body, b, small, lambda i: i[rank:])
    inner = seq(Alloc(small), body)
    return drop_alloc(replace_loop(root, v, lambda s: replace(s, body=inner)), b), small


def in_place(root: Stmt, old: Buffer, new: Buffer) -> Stmt:
    """Store a map of `old` over `old` itself instead of in `new`. Legal if the map reads `old` only
    where it stores, and nothing reads `old` afterwards."""
    legal.check_in_place(root, old, new)
    return ir.replace_buffers(drop_alloc(root, new), {new: old})


def in_runs(root: Stmt, most: int, stack: int) -> Stmt:
    """Give local buffers whose size is known at run time, or is more than `stack` bytes, memory of
    the whole kernel. The iterations of the parallel loop around them run in `most` runs of
    neighbours, each with a part of it; in as many as there are iterations if these are fewer.

        parallel t in n: local s[k]; f(t, s)
    ->  temp s[most, k]; parallel r in most: for t in n*r//most .. n*(r+1)//most: f(t, s[r])
    """
    own = [x for x in ir.statements(root) if isinstance(x, For) and _off_stack(x, stack)]
    for s in own:
        count = minimum(most, maximum(s.extent, 1)) if s.kind == "parallel" else const(1)
        run, body, wide = loop_symbol("run", const(0), count), s.body, []
        for b in _off_stack(s, stack):
            wide.append(Buffer(b.name, b.dtype, (as_dim(count), *b.shape), "temp", b.align))
            body = rename_accesses(drop_alloc(body, b), b, wide[-1], lambda i, r=run: (sym(r), *i))
        first, end = (s.extent * (sym(run) + n) // count for n in (0, 1))
        inner = replace(s, begin=s.begin + first, extent=end - first, body=body, kind="serial")
        new = seq(*map(Alloc, wide), For(run, const(0), count, inner, s.kind))
        root = replace_loop(root, s.var, lambda _, new=new: new)
    return root


def _off_stack(s: For, stack: int) -> list[Buffer]:
    """The local buffers of an iteration whose size is no constant or more than `stack` bytes."""
    parts = s.body.body if isinstance(s.body, Seq) else (s.body,)
    found = [x.buffer for x in parts if isinstance(x, Alloc) and x.buffer.scope == "local"]
    sizes = {b: [as_expr(d) for d in b.shape] for b in found}
    late = lambda sizes: not all(map(is_const, sizes))
    return [b for b, d in sizes.items()
            if late(d) or prod(n.value for n in d) * b.dtype.bytes > stack]  # fmt: skip


def divide_once(root: Stmt) -> Stmt:
    """for j: y[j] = x[j] / d  ->  r = 1 / d; for j: y[j] = x[j] * r. Rounds once more, and 1 / d
    must be a normal number where x / d is: for the caller to know."""

    def visit(s: Stmt) -> Stmt | None:
        if not (isinstance(s, For) and isinstance(s.body, Store) and ir.update(s.body) is None):
            return None
        j, target = sym(s.var), s.body.buffer
        divisors = {e.args[1] for e in walk(s.body.value) if e.op == "div"}
        fixed = [d for d in divisors if not {j} & set(walk(d))
                 and all(x.value is not target for x in walk(d) if x.op == "load")]  # fmt: skip
        made = {d: Buffer("reciprocal", d.dtype, (), "local") for d in fixed}

        def leaf(e: Expr) -> Expr | None:
            if e.op == "div" and e.args[1] in made:
                return transform(e.args[0], leaf) * made[e.args[1]][()]
            return None

        if not made:
            return None
        body = replace(s.body, value=transform(s.body.value, leaf))
        before = [x for d, b in made.items()
                  for x in (Alloc(b), Store(b, (), const(1, d.dtype) / d))]  # fmt: skip
        return seq(*before, replace(s, body=body))

    return ir.rewrite(root, visit)


def drop_alloc(root: Stmt, b: Buffer) -> Stmt:
    """`root` without the allocation of a buffer."""

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq):
            kept = [x for x in s.body if not (isinstance(x, Alloc) and x.buffer is b)]
            return seq(*kept) if len(kept) != len(s.body) else None
        return None

    return ir.rewrite(root, visit)


def rename_accesses(root: Stmt, old: Buffer, new: Buffer, index) -> Stmt:
    """Every load and store of `old` at i -> of `new` at `index(i)`."""
    return ir.map_accesses(root, lambda b, at: (new, tuple(index(at))) if b is old else None)
