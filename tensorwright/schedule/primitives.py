"""The schedule primitives: small rewrites of loop nests that keep their meaning.

Each takes and returns a `Stmt`; a loop is named by its variable (`Symbol`), which is unique. Each
states its legality condition and raises `ScheduleError` through `legal.py` where it does not hold.

    split(i, 8)      for i in n          ->  for io in n // 8: for ii in 8       (i = io * 8 + ii)
    reorder(i, j)    for i: for j        ->  for j: for i
    fission(i)       for i: {a; b}       ->  for i: a;  for i: b                 (locals expanded)
    partition(i, k)  for i in n          ->  for i in [0, k); for i2 in [k, n)
    join(a, b)       for a in p; for b in q -> for t in p + q: if t < p: ... else: ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    as_expr,
    ceildiv,
    compare,
    const,
    is_const,
    make,
    maximum,
    minimum,
    replace_symbols,
    select,
    substitute,
    sym,
    transform,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, For, If, Seq, Stmt, Store, loop_symbol, seq
from tensorwright.schedule import legal


def find(root: Stmt, v: Symbol) -> For:
    """The loop over `v`."""
    for s in ir.statements(root):
        if isinstance(s, For) and s.var is v:
            return s
    raise legal.ScheduleError(f"there is no loop over {v}")


def replace_loop(root: Stmt, v: Symbol, f: Callable[[For], Stmt]) -> Stmt:
    """`root` with the loop over `v` rewritten; what does not surround it stays the same object."""
    new = _with_loop(root, v, f)
    if new is None:
        raise legal.ScheduleError(f"there is no loop over {v}")
    return new


def _with_loop(s: Stmt, v: Symbol, f: Callable[[For], Stmt]) -> Stmt | None:
    if isinstance(s, For) and s.var is v:
        return f(s)
    below = ir.children(s)
    for k, part in enumerate(below):
        new = _with_loop(part, v, f)
        if new is not None:
            return ir.with_children(s, (*below[:k], new, *below[k + 1 :]))
    return None


def set_kind(root: Stmt, v: Symbol, kind: str) -> Stmt:
    """Run the loop as `parallel`, `vector`, `unroll` ... Legal if its iterations are independent,
    up to reductions for vector and unroll."""
    s = find(root, v)
    if kind == "parallel":
        legal.check_parallel(s)
    if kind in ("vector", "unroll"):
        legal.check_constant(s)
    return replace_loop(root, v, lambda s: replace(s, kind=kind))


def split(
    root: Stmt,
    v: Symbol,
    factor: int,
    guard: Callable[[Stmt, Expr], Stmt] | None = None,
    last: str = "guarded",
) -> tuple[Stmt, Symbol, Symbol]:
    """v -> (outer, inner) with v = outer * factor + inner. Where `factor` does not divide the
    extent the last inner loop is `guarded`: its whole body, or what `guard(body, condition)` says;
    or `repeated`: it runs the last iteration again, which must be harmless; or `short`."""
    s = find(root, v)
    exact = is_const(s.extent % factor, 0)
    outer = loop_symbol(f"{v.name}o", const(0), ceildiv(s.extent, factor))
    short = not exact and last == "short"
    many = minimum(factor, s.extent - sym(outer) * factor) if short else const(factor)
    inner = loop_symbol(f"{v.name}i", const(0), many)
    offset = sym(outer) * factor + sym(inner)
    body = s.body
    if not exact and last == "repeated":
        offset = minimum(offset, s.extent - 1)
    elif not exact and last == "guarded":
        condition = compare("lt", offset, s.extent)
        body = If(condition, body) if guard is None else guard(body, condition)
    body = ir.substitute(body, {sym(v): s.begin + offset})
    nest = For(outer, const(0), ceildiv(s.extent, factor),
               For(inner, const(0), many, body), s.kind)  # fmt: skip
    return replace_loop(root, v, lambda _: nest), outer, inner


def guard_carried(body: Stmt, condition: Expr) -> Stmt:
    """A guard for `split`: what reads or stores elsewhere only where the condition holds. What the
    body's own buffers carry is stored in all lanes, so that it stays in registers: what a masked
    store leaves in memory would have to be there before it is read again."""
    own = {x.buffer for x in ir.statements(body) if isinstance(x, Alloc)}

    def visit(s: Stmt) -> Stmt | None:
        if not isinstance(s, Store):
            return None
        if s.buffer not in own:
            return If(condition, s)
        if all(e.value in own for e in ir.walk(s.value) if e.op == "load"):
            return None
        return replace(s, value=select(condition, s.value, s.buffer[s.indices]))

    return ir.rewrite(body, visit)


def gather_tail(root: Stmt, v: Symbol, rows: int) -> tuple[Stmt, Symbol, list[Symbol]]:
    """A loop of fewer than `rows` iterations -> one step (or none) that runs them as the next of 1,
    2, 4, 8, ... `rows`, of which those past the end repeat the last, which must be harmless.
    Returns the loop over the step, and those over its iterations."""
    s = find(root, v)
    low = const(0)
    step = loop_symbol(f"{v.name}t", low, ceildiv(s.extent, rows))
    heights = [1 << k for k in range(rows.bit_length()) if 1 << k < rows]
    inner = [loop_symbol(v.name, low, const(n)) for n in (*heights, rows)]
    place = s.begin + minimum(sym(inner[-1]), s.extent - 1)
    both = For(inner[-1], low, const(rows), renew(ir.substitute(s.body, {sym(v): place})))
    for n, i in reversed(list(zip(heights, inner))):
        place = s.begin + (sym(i) if n == 1 else minimum(sym(i), s.extent - 1))
        few = For(i, low, const(n), renew(ir.substitute(s.body, {sym(v): place})))
        both = If(compare("le", s.extent, const(n)), few, both)
    nest = For(step, low, ceildiv(s.extent, rows), both, s.kind)
    return replace_loop(root, v, lambda _: nest), step, inner


def fuse(root: Stmt, a: Symbol, b: Symbol) -> tuple[Stmt, Symbol]:
    """Two perfectly nested loops -> one over the product of their extents."""
    outer, inner = find(root, a), find(root, b)
    legal.check_perfect(outer, inner)
    both = loop_symbol(f"{a.name}{b.name}", const(0), outer.extent * inner.extent)
    f, n = sym(both), maximum(inner.extent, 1)  # known not to be 0, so that it can be divided by
    # before it is known that the body runs
    body = ir.substitute(inner.body, {sym(a): outer.begin + f // n,
                                      sym(b): inner.begin + f % n})  # fmt: skip
    kind = "parallel" if outer.kind == inner.kind == "parallel" else "serial"
    one = For(both, const(0), outer.extent * inner.extent, body, kind)
    return replace_loop(root, a, lambda _: one), both


def reorder(root: Stmt, order: Sequence[Symbol]) -> Stmt:
    """Permute a perfect nest of loops into `order`, outermost first. Legal for spatial loops, for
    the loops of one reduction among themselves, and for both around what sums up in memory."""
    wanted = set(order)
    top = next(s for s in ir.statements(root) if isinstance(s, For) and s.var in wanted)
    chain, s = [], top
    while isinstance(s, For) and s.var in wanted:
        chain.append(s)
        s = s.body
    legal.check_reorder(chain, order)
    by_var = {c.var: c for c in chain}
    for v in reversed(order):
        s = replace(by_var[v], body=s)
    return replace_loop(root, top.var, lambda _: s)


def fission(root: Stmt, v: Symbol, steps: bool = True) -> Stmt:
    """for v: {a; b} -> for v: a; for v: b, each over a copy of v; local buffers that carry values
    from one part to another get a dimension over v. A part that is itself a loop which does not
    depend on v is interchanged with it, so that v ends up innermost; its body is taken apart too,
    if it is to be in `steps`."""
    s = find(root, v)
    legal.check_constant(s)
    parts = s.body.body if isinstance(s.body, Seq) else (s.body,)
    allocs = [p for p in parts if isinstance(p, Alloc)]
    wider = {a.buffer: _expanded(a.buffer, s.extent.value) for a in allocs}
    result: list[Stmt] = [Alloc(wider[a.buffer]) for a in allocs]
    for part in parts:
        if not isinstance(part, Alloc):
            result.append(_distribute(s, part, wider, steps))
    return replace_loop(root, v, lambda _: seq(*result))


def _expanded(b: Buffer, extent: int) -> Buffer:
    return Buffer(b.name, b.dtype, (extent, *b.shape), b.scope, b.align)


def _distribute(s: For, part: Stmt, wider: dict[Buffer, Buffer], steps: bool) -> Stmt:
    """The loop `s` around one part of its body."""
    if isinstance(part, For) and part.kind != "vector" and not _mentions(part, s.var):
        return replace(part, body=_distribute(s, part.body, wider, steps))
    if steps and isinstance(part, Seq) and not any(isinstance(p, Alloc) for p in part.body):
        return seq(*(_distribute(s, p, wider, steps) for p in part.body))
    v = loop_symbol(s.var.name, s.begin, s.extent)
    body = index_local(part, wider, sym(v) - s.begin)
    return For(v, s.begin, s.extent, ir.substitute(body, {sym(s.var): sym(v)}), s.kind)


def _mentions(s: For, v: Symbol) -> bool:
    return any(p.op == "sym" and p.value is v for e in (s.begin, s.extent) for p in ir.walk(e))


def index_local(root: Stmt, wider: dict[Buffer, Buffer], position: Expr) -> Stmt:
    """Accesses of expanded buffers get `position` as their first subscript."""
    return ir.map_accesses(root, lambda b, at: (wider[b], (position, *at)) if b in wider else None)


def partition(root: Stmt, v: Symbol, at) -> tuple[Stmt, Symbol, Symbol]:
    """Cut the range of a loop in two: [begin, begin + at) and the rest, each with its own copy of
    the body. The order of the iterations is kept."""
    root, (first, second) = cut(root, v, [at])
    return root, first, second


def cut(root: Stmt, v: Symbol, points: Sequence) -> tuple[Stmt, list[Symbol]]:
    """The same at several places, ascending: one more copy than there are."""
    s = find(root, v)
    ends = [const(0), *map(as_expr, points), s.extent]
    copies = [fresh_copy(s, s.begin + a, b - a) for a, b in pairwise(ends)]
    return replace_loop(root, v, lambda _: seq(*copies)), [c.var for c in copies]


def cover(root: Stmt, v: Symbol, lanes: int) -> tuple[Stmt, Symbol, Symbol]:
    """A loop of a constant number of iterations in two of which the extents are multiples of
    `lanes`: the second runs the last ones, some of them again. Legal if iterations do not read what
    they store."""
    s = find(root, v)
    legal.check_repeatable(s)
    whole = s.extent // lanes * lanes
    first, second = (
        fresh_copy(s, s.begin, whole),
        fresh_copy(s, s.begin + s.extent - lanes, const(lanes)),
    )
    return replace_loop(root, v, lambda _: seq(first, second)), first.var, second.var


def fresh_copy(s: For, begin: Expr, extent: Expr) -> For:
    """A copy of the loop over another range, all its loops and buffers renewed."""
    v = loop_symbol(s.var.name, begin, extent)
    body = renew(ir.substitute(s.body, {sym(s.var): sym(v)}))
    return For(v, begin, extent, body, s.kind)


def renew(root: Stmt) -> Stmt:
    """A copy with fresh loop variables and allocated buffers, so that both copies can be named."""
    root = _renewed(root, {}, {})
    buffers = [s.buffer for s in ir.statements(root) if isinstance(s, Alloc)]
    return ir.replace_buffers(
        root, {b: Buffer(b.name, b.dtype, b.shape, b.scope, b.align) for b in buffers}
    )


def _renewed(s: Stmt, values: dict[Symbol, Expr], memo: dict) -> Stmt:
    """A copy with fresh loop variables. memo: of `values`, as no expression is met before the loops
    around it."""
    if not isinstance(s, For):
        s = ir.map_own_expressions(s, lambda e: replace_symbols(e, values, memo))
        return ir.with_children(s, tuple([_renewed(c, values, memo) for c in ir.children(s)]))
    begin, extent = (replace_symbols(e, values, memo) for e in (s.begin, s.extent))
    v = loop_symbol(s.var.name, begin, extent)
    values[s.var] = sym(v)
    return For(v, begin, extent, _renewed(s.body, values, memo), s.kind)


def join(root: Stmt, a: Symbol, b: Symbol) -> tuple[Stmt, Symbol]:
    """Two adjacent loops -> one that runs the first's iterations, then the second's. Parallel if
    both are, which holds for the parts of one parallel loop."""
    first, second = find(root, a), find(root, b)
    legal.check_kinds(first, second)
    total = first.extent + second.extent
    t = loop_symbol(a.name, const(0), total)
    body = If(
        compare("lt", sym(t), first.extent),
        ir.substitute(first.body, {sym(a): first.begin + sym(t)}),
        ir.substitute(second.body, {sym(b): second.begin + sym(t) - first.extent}),
    )
    both = For(t, const(0), total, body, first.kind)

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq) and first in s.body and second in s.body:
            return seq(*(both if p is first else p for p in s.body if p is not second))
        return None

    return ir.rewrite(root, visit), t


def decide(root: Stmt) -> Stmt:
    """Without the branches that are never taken."""

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, If) and is_const(s.cond):
            return s.then if s.cond.value else s.orelse or Seq(())
        return None

    return ir.rewrite(root, visit)


def cache_write(root: Stmt, s: Store, name: str = "acc") -> Stmt:
    """Accumulate in a private scalar instead of the output: out = init; for r: out = op(out, e)
    -> acc = init; for r: acc = op(acc, e); out = acc. `s` is the initial store."""
    acc = Buffer(name, s.buffer.dtype, (), "local")

    def leaf(e: Expr) -> Expr | None:
        return acc[()] if e.op == "load" and e.value is s.buffer and e.args == s.indices else None

    def private(part: Stmt) -> Stmt | None:
        if isinstance(part, Store) and part.buffer is s.buffer and part.indices == s.indices:
            return Store(acc, (), transform(part.value, leaf))
        return None

    def visit(part: Stmt) -> Stmt | None:
        if isinstance(part, Seq) and s in part.body:
            inner = ir.rewrite(part, private)
            return seq(Alloc(acc), *inner.body, Store(s.buffer, s.indices, acc[()]))
        return None

    return ir.rewrite(root, visit)


def fuse_epilogue(root: Stmt, producer, consumer, inverse: dict[Expr, Expr]) -> Stmt:
    """Compute a map stage where the element it reads is produced: out = acc; y = f(out) ->
    y = f(acc). `inverse` gives the map's variables in terms of the producer's (see `form.inverse`);
    the intermediate is not stored any more."""

    def final(s: Stmt) -> Stmt | None:
        if isinstance(s, Store) and s.buffer is producer.out:
            value = s.value

            def leaf(e: Expr) -> Expr | None:
                return value if e.op == "load" and e.value is producer.out else inverse.get(e)

            f, memo = consumer.final, {}
            indices = tuple(transform(i, leaf, memo) for i in f.indices)
            return Store(f.buffer, indices, transform(f.value, leaf, memo))
        return None

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq):
            kept = [
                x for x in s.body if x is not consumer.root and not _defines_alloc(x, producer.out)
            ]
            return seq(*kept) if len(kept) != len(s.body) else None
        return None

    return ir.rewrite(ir.rewrite(root, visit), final)


def _defines_alloc(s: Stmt, b: Buffer) -> bool:
    return isinstance(s, Alloc) and s.buffer is b


def stage_result(root: Stmt, b: Buffer) -> Stmt:
    """Put an accumulator's final value into a buffer of its own before it is used:
    out = f(acc) -> result = acc; out = f(result). With the tile's loops distributed, the epilogue
    then needs no unrolling for `acc` to stay in registers."""

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq) and s.body and isinstance(s.body[-1], (Store, If)):
            last = s.body[-1]
            inner = last.then if isinstance(last, If) else last
            if isinstance(inner, Store) and inner.buffer is b:
                accs = [e for e in ir.walk(inner.value) if e.op == "load" and not e.args
                        and e.value.scope == "local"]  # fmt: skip
                results = {e: Buffer("result", e.dtype, (), "local")[()] for e in accs}
                moved = [Store(r.value, (), e) for e, r in results.items()]
                new = replace(inner, value=transform(inner.value, results.get))
                allocs = [Alloc(r.value) for r in results.values()]
                end = replace(last, then=new) if isinstance(last, If) else new
                return seq(*allocs, *s.body[:-1], *moved, end)
        return None

    return ir.rewrite(root, visit)


def roll(root: Stmt, b: Buffer) -> Stmt:
    """Run unrolled loops around the stores to `b` one iteration at a time, in a function of their
    own: LLVM moves the constants of an epilogue out of all loops, where they take the registers of
    the accumulators."""
    if isinstance(root, For) and root.kind == "unroll" and ir.stored_buffers(root) == {b}:
        inner = ir.rewrite(root.body, lambda s: replace(s, kind="serial")
                           if isinstance(s, For) and s.kind == "unroll" else None)  # fmt: skip
        return replace(root, kind="outline", body=inner)
    return ir.with_children(root, tuple(roll(c, b) for c in ir.children(root)))


def relayout(
    root: Stmt, old: Buffer, new: Buffer, index: Callable[[tuple[Expr, ...]], tuple[Expr, ...]]
) -> Stmt:
    """Read a buffer in another layout: old[i] -> new[index(i)]. The caller provides `new`."""
    return ir.map_loads(root, lambda b, at: new[index(at)] if b is old else None)


def rfactor(
    root: Stmt, v: Symbol, lanes: int, outermost: Symbol | None = None
) -> tuple[Stmt, Symbol | None]:
    """Vectorize a reduction loop: `for r in n: acc = op(acc, e)` accumulates into `lanes` partial
    results, which are combined at the end, behind the `outermost` loop of the reduction (v itself,
    if not given); a last partial step is masked. Reassociates the reduction. Returns the loop over
    whole vectors (None if there is none)."""
    s, nest = find(root, v), find(root, outermost or v)
    step = s.body
    legal.check_reduction(nest)
    op, _ = ir.update(step)
    if op == "fma":
        op = "add"
    part = Buffer(f"{step.buffer.name}v", step.buffer.dtype, (lanes,), "local", 64)
    neutral = neutral_element(op, part.dtype)

    def lane_loop(body: Callable[[Expr], Stmt]) -> For:
        return ir.loop("l", lanes, body, "vector")

    def accumulate(l: Expr, at: Expr, wanted: Expr | None = None) -> Stmt:
        value = transform(step.value, lambda x: part[l] if _is_acc(x, step) else None)
        if wanted is not None:  # all lanes are stored, so that they stay in registers
            value = select(wanted, value, part[l])
        return ir.substitute(Store(part, (l,), value), {sym(v): at})

    whole = s.extent // lanes
    out: list[Stmt] = []
    outer = loop_symbol(f"{v.name}o", const(0), whole)
    if not is_const(whole, 0):
        inner = lane_loop(lambda l: accumulate(l, s.begin + sym(outer) * lanes + l))
        out.append(For(outer, const(0), whole, inner))
    rest = s.extent - whole * lanes
    if not is_const(s.extent % lanes, 0):
        start = whole * lanes
        tail = lane_loop(lambda l: accumulate(l, s.begin + start + l, compare("lt", l, rest)))
        out.append(tail if is_const(rest) else If(compare("lt", const(0), rest), tail))
    made = seq(
        Alloc(part),
        lane_loop(lambda l: Store(part, (l,), neutral)),
        replace_loop(nest, v, lambda _: seq(*out)),
        lane_loop(lambda l: Store(step.buffer, step.indices, make(
            op, part.dtype, (step.buffer[step.indices], part[l])))),
    )  # fmt: skip
    has_whole = not is_const(whole, 0)
    return replace_loop(root, nest.var, lambda _: made), outer if has_whole else None


def _is_acc(e: Expr, step: Store) -> bool:
    return e.op == "load" and e.value is step.buffer and e.args == step.indices


def neutral_element(op: str, t) -> Expr:
    """The value that leaves the other operand of a reduction unchanged."""
    if op == "add":
        return const(-0.0 if t.is_float else 0, t)
    if op == "mul":
        return const(1, t)
    if op == "min":
        return const(float("inf") if t.is_float else t.max, t)
    if op == "max":
        return const(float("-inf") if t.is_float else t.min, t)
    return const({"and": True if t.kind == "bool" else -1, "or": 0, "xor": 0}[op], t)


def vectorize(root: Stmt, v: Symbol, lanes: int) -> tuple[Stmt, Symbol | None]:
    """Run a map loop on vectors: whole ones, then a masked one for what is left. Returns the loop
    over whole vectors (None if there is none)."""
    s = find(root, v)

    def lane_loop(at: Expr, guard: Expr | None) -> For:
        def body(l: Expr) -> Stmt:
            inner = renew(ir.substitute(s.body, {sym(v): at + l}))
            return inner if guard is None else If(compare("lt", l, guard), inner)

        return ir.loop(v.name, lanes, body, "vector")

    whole = s.extent // lanes
    rest = s.extent - whole * lanes
    out: list[Stmt] = []
    outer = loop_symbol(f"{v.name}o", const(0), whole)
    if not is_const(whole, 0):
        inner = lane_loop(s.begin + sym(outer) * lanes, None)
        out.append(For(outer, const(0), whole, inner, s.kind))
    if not is_const(s.extent % lanes, 0):
        tail = lane_loop(s.begin + whole * lanes, rest)
        out.append(tail if is_const(rest) else If(compare("lt", const(0), rest), tail))
    return replace_loop(root, v, lambda _: seq(*out)), None if is_const(whole, 0) else outer


def inline(root: Stmt, producer: Store, variables: Sequence[Expr]) -> Stmt:
    """Replace loads of a map stage's buffer by its definition and drop the stage. Legal if the
    stage stores every element once from values that do not change afterwards."""
    places = [k for k, i in enumerate(producer.indices) if i.op == "sym"]

    def load(b: Buffer, at: tuple[Expr, ...]) -> Expr | None:
        if b is not producer.buffer:
            return None
        return substitute(producer.value, {v: at[k] for v, k in zip(variables, places)})

    def visit(s: Stmt) -> Stmt | None:
        if isinstance(s, Seq):
            kept = [p for p in s.body if not _defines(p, producer.buffer)]
            return seq(*kept) if len(kept) != len(s.body) else None
        return None

    return ir.map_loads(ir.rewrite(root, visit), load)


def _defines(s: Stmt, b: Buffer) -> bool:
    """Whether `s` is the allocation of `b`, or the nest that fills it."""
    if isinstance(s, Alloc):
        return s.buffer is b
    return isinstance(s, (For, Store)) and ir.stored_buffers(s) == {b}
