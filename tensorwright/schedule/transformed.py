"""A contraction between two transforms, all over the same tiles, as one operator defines it.

    for t, c: v[:, t, c] = f(x around tile t)      for p, t, o: m[p, t, o] = sum v * u
    for t, o: y[inside of tile t, o] = g(m[:, t, o])

With groups of channels, products have them as a dimension of their own: m[p, t, g, o]. Between the
first two nests there may be one that makes u of a parameter (`ops/strassen.py`).

The outer nests compute several elements an iteration, through local scalars. Behind them may follow
maps of y, which are computed where y is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorwright.ir import loop as ir
from tensorwright.ir.expr import Buffer, Expr, as_expr, const, sym, transform
from tensorwright.ir.loop import Alloc, For, Seq, Stmt, Store, loop_symbol
from tensorwright.schedule.nest import Stage, inverse, read_stage


@dataclass(frozen=True, eq=False)
class Transformed:
    """The three nests; `v` and `m` are what passes between them, `out` what the last one makes;
    `whole` is the statement that holds them, `rest` what else the kernel does. weights: the nest
    that makes those of the products, if they are not a parameter. half: where the caller makes
    them, the columns of the first half (`loop.Pack`)."""

    inputs: For
    products: Stage | For
    results: For
    v: Buffer
    m: Buffer
    out: Buffer
    whole: Stmt
    rest: tuple[Stmt, ...]
    weights: For | None = None
    half: int = 0

    def as_stage(self) -> Stage:
        """A map that stores every element of `out` in order, to ask what can follow it."""
        symbols = [loop_symbol("i", const(0), as_expr(d)) for d in self.out.shape]
        body: Stmt = Store(self.out, tuple(map(sym, symbols)), const(0, self.out.dtype))
        loops = []
        for s, d in reversed(list(zip(symbols, self.out.shape))):
            body = For(s, const(0), as_expr(d), body)
            loops.insert(0, body)
        return Stage(body, tuple(loops), self.out, ir.Store(self.out, tuple(map(sym, symbols)),
                                                            const(0, self.out.dtype)))  # fmt: skip


def read_transformed(body: Stmt) -> Transformed | None:
    """The nests of an unscheduled kernel that begins with them; None if it does not."""
    parts = body.body if isinstance(body, Seq) else (body,)
    whole = next((s for s in parts if not isinstance(s, Alloc)), None)
    if not (isinstance(whole, For) and ir.is_unit(whole) and isinstance(whole.body, Seq)):
        return None
    nests = [s for s in whole.body.body if not isinstance(s, Alloc)]
    if len(nests) not in (3, 4) or not all(isinstance(s, For) for s in nests):
        return None
    weights = nests.pop(1) if len(nests) == 4 else None
    inputs, middle, results = nests
    products = read_stage(middle)
    stored = [escaping(s) for s in nests]
    if products is None or not products.is_contraction or any(len(s) != 1 for s in stored):
        return None
    (v,), (m,), (out,) = stored
    reads = [{e.value for e in ir.loads(s)} for s in nests]
    if (
        v not in reads[1]
        or v in reads[2]
        or m not in reads[2]
        or len(products.spatial) not in (3, 4)
    ):
        return None
    if weights is not None and not escaping(weights) <= reads[1]:
        return None
    rest = tuple(s for s in parts if s is not whole)
    return Transformed(inputs, products, results, v, m, out, whole, rest, weights)


def escaping(s: Stmt) -> set[Buffer]:
    """What a nest stores to that is not its own."""
    own = {x.buffer for x in ir.statements(s) if isinstance(x, Alloc)}
    return ir.stored_buffers(s) - own


def with_epilogue(t: Transformed, consumer: Stage) -> Transformed:
    """The last nest storing a map of what it makes."""
    source = t.as_stage()
    places = inverse(source, consumer)
    results = store_through(t.results, t.out, consumer, places, source.variables)
    rest = tuple(s for s in t.rest if s is not consumer.root
                 and not (isinstance(s, Alloc) and s.buffer is t.out))  # fmt: skip
    return replace(t, results=results, rest=rest)


def store_through(results: For, out: Buffer, consumer: Stage, places: dict[Expr, Expr],
                  variables: tuple[Expr, ...]) -> For:  # fmt: skip
    """`results` storing a map of `out` instead: `places` gives the map's variables in terms of
    `variables`, which stand for the subscripts of `out`."""

    def visit(s: Stmt) -> Stmt | None:
        if not (isinstance(s, Store) and s.buffer is out):
            return None
        at = dict(zip(variables, s.indices))
        memo: dict = {}
        here = {v: transform(e, at.get, memo) for v, e in places.items()}
        inner: dict = {}

        def leaf(e: Expr) -> Expr | None:
            return s.value if e.op == "load" and e.value is out else here.get(e)

        f = consumer.final
        return replace(f, indices=tuple(transform(i, leaf, inner) for i in f.indices),
                       value=transform(f.value, leaf, inner))  # fmt: skip

    return ir.rewrite(results, visit)
