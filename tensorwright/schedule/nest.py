"""Reading loop nests: what a stage of a kernel computes and how it touches memory.

A stage is one perfect nest of spatial loops around either a single store ("map") or an accumulation
("reduction"): `acc = init; for r: acc = op(acc, e); out = f(acc)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, as_expr, bounds, const, is_const, sym, walk
from tensorwright.ir.loop import Alloc, For, Seq, Stmt, Store
from tensorwright.ir.simplify import linear

# functions that take many instructions, most of which wait for the one before
EXPENSIVE = frozenset((
    "div", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan",
    "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
    "erfc", "sigmoid", "lgamma", "digamma", "pow", "mod", "rem", "floordiv", "truncdiv",
))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stage:
    """`root` is the nest. For a reduction: `acc` is where it accumulates (`out` itself or a local),
    `reduce` its loops, `step` the update; `final` stores the result where `acc` is a local."""

    root: Stmt
    spatial: tuple[For, ...]
    out: Buffer
    final: Store
    init: Store | None = None
    reduce: tuple[For, ...] = ()
    step: Store | None = None

    @property
    def is_map(self) -> bool:
        return self.step is None

    @property
    def acc(self) -> Buffer:
        return self.step.buffer

    @property
    def variables(self) -> tuple[Expr, ...]:
        return tuple(sym(f.var) for f in self.spatial)

    @property
    def is_contraction(self) -> bool:
        return self.step is not None and self.step.value.op == "fma"


def stages(body: Stmt) -> list[Stage] | None:
    """The stages of an unscheduled kernel in order, None if some nest is of another form."""
    found = []
    for s in body.body if isinstance(body, Seq) else (body,):
        if isinstance(s, Alloc):
            continue
        stage = read_stage(s)
        if stage is None:
            return None
        found.append(stage)
    return found


def read_stage(s: Stmt) -> Stage | None:
    """`s` as a stage, None if it is not one."""
    stage = read_nest(s)
    return stage if stage is not None and _is_identity(stage.final, stage.spatial) else None


def read_nest(s: Stmt) -> Stage | None:
    """`s` as a stage that may store its result anywhere (a part of a larger one, say)."""
    root, spatial = s, []
    while isinstance(s, For):
        spatial.append(s)
        s = s.body
    if isinstance(s, Store):
        return Stage(root, tuple(spatial), s.buffer, s)
    parts = s.body if isinstance(s, Seq) else ()
    stores = [p for p in parts if isinstance(p, Store)]
    loops = [p for p in parts if isinstance(p, For)]
    if len(loops) != 1 or not stores or len(stores) > 2:
        return None
    reduce, step = [], loops[0]
    while isinstance(step, For):
        reduce.append(step)
        step = step.body
    if not isinstance(step, Store) or ir.update(step) is None:
        return None
    init, final = stores[0], stores[-1]
    if len(stores) == 1:
        final = init
    if init.buffer is not step.buffer:
        return None
    return Stage(root, tuple(spatial), final.buffer, final, init, tuple(reduce), step)


def nest_of(s: Stmt) -> list[For]:
    """The loops of a perfect nest, outermost first."""
    found = []
    while isinstance(s, For):
        found.append(s)
        s = s.body
    return found


def _is_identity(s: Store, spatial: Sequence[For]) -> bool:
    """Whether each element is stored once, its subscripts being the loop variables in order (units
    may be constants)."""
    variables = [sym(f.var) for f in spatial]
    used = [i for i in s.indices if i.op == "sym"]
    wanted = [v for v, f in zip(variables, spatial) if v in used or not is_const(f.extent, 1)]
    return used == wanted and all(i in variables or i.op == "const" for i in s.indices)


def flat_index(b: Buffer, indices) -> Expr:
    """Row-major element offset."""
    total = const(0)
    for i, d in zip(indices, b.shape):
        total = total * as_expr(d) + i
    return total


def stride_of(e: Expr, v: Expr) -> Expr | None:
    """d(flat index)/dv of a load if it is affine in the variable `v`, else None."""
    return affine(flat_index(e.value, e.args), v)


def affine(flat: Expr, v: Expr) -> Expr | None:
    """The coefficient of `v` in an index expression, None where it is not affine in `v`."""
    terms, _ = linear(flat)
    total = const(0)
    for atom, c in terms.items():
        if atom is v:
            total = total + c
        elif v in set(walk(atom)):
            factors = _factors(atom)
            if factors.count(v) != 1 or any(v in set(walk(f)) for f in factors if f is not v):
                return None
            rest = const(c)
            for f in factors:
                if f is not v:
                    rest = rest * f
            total = total + rest
    return total


def _factors(atom: Expr) -> list[Expr]:
    if atom.op == "mul":
        return [*_factors(atom.args[0]), *_factors(atom.args[1])]
    return [atom]


def is_near(step: Expr | None) -> bool:
    """Whether a step between addresses is known to lead to the same element or to the next one."""
    return step is not None and (is_const(step, 0) or is_const(step, 1))


def accesses(root: Stmt) -> list[Expr]:
    """Flat indices of every load and store."""
    found = [flat_index(e.value, e.args) for e in ir.loads(root)]
    return found + [flat_index(s.buffer, s.indices) for s in ir.statements(root)
                    if isinstance(s, Store)]  # fmt: skip


def runs_along(f: For) -> bool:
    """Whether every access of a loop stays where it is or goes to the next element."""
    return all(is_near(affine(flat, sym(f.var))) for flat in accesses(f))


def loads_of(e: Expr) -> list[Expr]:
    """Distinct loads inside an expression."""
    return [p for p in walk(e) if p.op == "load"]


def extent_of(f: For | None) -> int:
    """The extent, or a guess for a symbolic one (its upper bound up to 128); 1 without a loop."""
    if f is None:
        return 1
    if is_const(f.extent):
        return f.extent.value
    high = bounds(f.extent)[1]
    return min(high, 128) if high is not None else 128


def operand_bytes(e: Expr | None) -> int:
    """Bytes of the buffers that an operand reads; symbolic sizes count as 64."""
    if e is None:
        return 0
    buffers = {x.value for x in loads_of(e)}
    sizes = [[d if isinstance(d, int) else 64 for d in b.shape] for b in buffers]
    return sum(prod(s) * b.dtype.bytes for s, b in zip(sizes, buffers))


def is_step(f: For) -> bool:
    """A loop around nothing but what is written out, that adds up."""
    inside = [s for s in ir.statements(f.body) if isinstance(s, For | ir.Store)]
    stores = [s for s in inside if isinstance(s, ir.Store)]
    flat = all(s.kind in ("unroll", "vector") for s in inside if isinstance(s, For))
    return f.kind == "serial" and flat and all(map(is_update, stores))


def is_update(s: Store) -> bool:
    """Whether a store adds to what it overwrites; pairs multiplied by one instruction as well."""
    value = s.value
    several = value.op == "call" and value.value.startswith("dot_")
    return ir.update(s) is not None or (several and value.args[0] is s.buffer[s.indices])


def depends(e: Expr, v: Expr) -> bool:
    return v in set(walk(e))


def inverse(producer: Stage, consumer: Stage) -> dict[Expr, Expr] | None:
    """The consumer's variables as functions of the producer's, if it reads each element of the
    producer's output exactly once: every subscript is a mixed-radix number of distinct
    variables."""
    reads = {e for e in ir.loads(consumer.root) if e.value is producer.out}
    if len(reads) != 1:
        return None
    (read,) = reads
    extents = {sym(f.var): f.extent for f in consumer.spatial}
    solved: dict[Expr, Expr] = {v: const(0) for v, n in extents.items() if is_const(n, 1)}
    variables = dict(zip(_axes(producer), producer.variables))
    for axis, i in enumerate(read.args):
        own = variables.get(axis, const(0))
        terms, constant = linear(i)
        if constant or any(t not in extents for t in terms):
            return None
        expected = const(1)
        last = None
        for t, c in sorted(terms.items(), key=lambda item: item[1]):
            if (t in solved and not is_const(extents[t], 1)) or not is_const(expected, c):
                return None
            solved[t] = (own // c) if c > 1 else own
            expected = const(c) * extents[t]
            last = t
            solved[t] = solved[t] % extents[t]
        if last is not None:
            c = terms[last]
            solved[last] = own // c if c > 1 else own
        size = as_expr(producer.out.shape[axis])
        if size is not expected:
            return None
    return solved if set(solved) == set(extents) else None


def _axes(s: Stage) -> list[int]:
    """The output axis of each spatial loop."""
    return [axis for v in s.variables for axis, i in enumerate(s.final.indices) if i is v]
