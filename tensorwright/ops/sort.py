"""Order: `argsort`, `top_k` and what is made of them.

    order = argsort(x, axis=1); y = gather_elements(x, order, axis=1)      # sort

Sorting is a stable merge sort of keys, or of positions (`sorting.py`). NaN counts as greater than
every number. In descending order equal elements keep their order too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import NUMERIC, boolean, i32, i64, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    all_of,
    any_of,
    as_dim,
    as_expr,
    binary,
    bounds,
    cast,
    compare,
    const,
    is_const,
    unary,
    var,
)  # fmt: skip
from tensorwright.ir.expr import select as choose
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import Alloc, If, Stmt, While, loop, loops, seq, store
from tensorwright.ir.type import Dim, TensorType, TupleType, dim_text, product
from tensorwright.ops.control import item
from tensorwright.ops.cumulative import along_axis, cumsum
from tensorwright.ops.define import (
    check_dtype,
    define,
    names,
    normalize_axis,
    require,
    scalar_like,
)  # fmt: skip
from tensorwright.ops.elementwise import cast as cast_to
from tensorwright.ops.elementwise import (
    equal,
    is_nan,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    not_equal,
    sub,
)  # fmt: skip
from tensorwright.ops.index import (
    bind_size,
    full,
    gather,
    gather_elements,
    iota,
    scatter_axis,
    scatter_elements,
)  # fmt: skip
from tensorwright.ops.movement import reshape, transpose
from tensorwright.ops.positions import nonzero_indices, zeros_like
from tensorwright.ops.reduce import reduce_any
from tensorwright.ops.sorting import (
    Heap,
    goes_first,
    have_keys,
    key,
    local_i64,
    merge_runs,
    position_of,
)  # fmt: skip

SORTABLE = (*NUMERIC, boolean)


# ---- argsort, sort -----------------------------------------------------------------------------


def _infer_argsort(x: TensorType, *, axis=-1, descending=False, stable=True) -> TensorType:
    check_dtype("argsort", x, SORTABLE)
    normalize_axis("argsort", axis, x.rank)
    return TensorType(i64, x.shape)


def _reference_argsort(x, axis=-1, descending=False, stable=True):
    if not descending:
        return np.argsort(_comparable(x), axis=axis, kind="stable").astype(np.int64)
    n = x.shape[axis]
    order = np.argsort(np.flip(_comparable(x), axis), axis=axis, kind="stable")
    return np.flip(n - 1 - order, axis).astype(np.int64)


def _comparable(x):
    return x if x.dtype.kind in "iufb" else x.astype(np.float32)


def _lower_argsort(out: Buffer, x: Buffer, *, axis, descending, stable) -> Stmt:
    axis = normalize_axis("argsort", axis, x.rank)
    n = x.shape[axis]

    def row(at: Callable) -> Stmt:
        order, body, place = sorted_row(x, n, at, descending)
        return seq(body, loop("r", n, lambda r: store(out, at(r), place(order[r]))))

    return along_axis(out, axis, row)


def sorted_row(
    x: Buffer, n: Dim, at: Callable, descending: bool
) -> tuple[Buffer, Stmt, Callable[[Expr], Expr]]:
    """A row of x sorted: a buffer (i64[n]), what fills it, and the position that an element of it
    stands for."""
    order, spare = Buffer("order", i64, (n,), "temp"), Buffer("spare", i64, (n,), "temp")
    if have_keys(x.dtype, n):
        made, place = lambda k: key(x[at(k)], cast(k, i64), descending), position_of
        before = lambda a, b: compare("lt", a, b)
    else:
        made, place = lambda k: cast(k, i64), lambda p: p
        element, wins = lambda p: x[at(cast(p, index))], goes_first(descending)
        before = lambda a, b: wins(element(a), element(b))
    fill = loop("k", n, lambda k: store(order, k, made(k)))
    merged = merge_runs(order, spare, n, lambda a, b: (None, before(a, b)))
    return order, seq(Alloc(order), Alloc(spare), fill, merged), place


SORT_SAMPLES = (
    "f32[3,7]", "f32[3,7] descending=True", "f32[5,3] axis=0", "f32[n] n=0,1,2,9",
    "i32[20]@0:3", "i32[20]@0:3 descending=True", "f16[9]", "f32[16]@special", "bool[9]",
    "f32[16]@special descending=True", "u8[2,9,2] axis=1",
)  # fmt: skip

argsort = define(
    "argsort", "x", infer=_infer_argsort, reference=_reference_argsort, lower=_lower_argsort,
    dtypes=SORTABLE, samples=SORT_SAMPLES,
    doc="The positions along an axis in the order of their elements.",
)  # fmt: skip


def _infer_sort(x: TensorType, *, axis=-1, descending=False, stable=True) -> TensorType:
    check_dtype("sort", x, SORTABLE)
    normalize_axis("sort", axis, x.rank)
    return x


def _expand_sort(x, *, axis, descending, stable):
    order = argsort(x, axis=axis, descending=descending, stable=stable)
    return gather_elements(x, order, axis=axis)


def _reference_sort(x, axis=-1, descending=False, stable=True):
    return np.take_along_axis(x, _reference_argsort(x, axis, descending), axis)


def _gradient_sort(g, y, x, *, axis, descending, stable):
    order = argsort(x, axis=axis, descending=descending, stable=stable)
    return (scatter_elements(zeros_like(x), order, g, axis=axis, mode="add"),)


sort = define(
    "sort", "x", infer=_infer_sort, reference=_reference_sort, expand=_expand_sort,
    gradient=_gradient_sort, dtypes=SORTABLE, samples=SORT_SAMPLES,
    doc="The elements along an axis in order.",
)  # fmt: skip


# ---- top_k -------------------------------------------------------------------------------------


def _infer_top_k(x: TensorType, *, k: Dim = 1, axis=-1, largest=True, sorted=True) -> TupleType:
    check_dtype("top_k", x, NUMERIC)
    axis = normalize_axis("top_k", axis, x.rank)
    both = isinstance(k, int) and isinstance(x.shape[axis], int)
    require(
        not both or 0 <= k <= x.shape[axis],
        f"top_k: k is {dim_text(k)}, dimension {axis} of x is {dim_text(x.shape[axis])}",
    )
    shape = (*x.shape[:axis], as_dim(k), *x.shape[axis + 1 :])
    return TupleType((TensorType(x.dtype, shape), TensorType(i64, shape)))


def _reference_top_k(x, k=1, axis=-1, largest=True, sorted=True):
    order = np.take(_reference_argsort(x, axis, largest), np.arange(k), axis)
    return np.take_along_axis(x, order, axis), order


INSERTED = 32  # up to this k, what is found moves up a list; above, it sinks into a heap
CARRIED = 8  # up to this k, what is found along an axis with others inside is carried in vectors
BLOCK = 16  # elements that are compared with the last of the list at once


def _lower_top_k(out, x: Buffer, *, k, axis, largest, sorted) -> Stmt:
    axis = normalize_axis("top_k", axis, x.rank)
    row = _row_of(x, axis, k)
    others = [a for a in range(x.rank) if a != axis]

    def nest(*i: Expr) -> Stmt:
        at = lambda r: (*i[:axis], as_expr(r), *i[axis:])
        return row(out, x, x.shape[axis], as_expr(k), at, largest)

    return loops(names(len(others)), [x.shape[a] for a in others], nest)


def _row_of(x: Buffer, axis: int, k: Dim) -> Callable[..., Stmt]:
    """How the best of a row are found: where they are few, they alone are kept in order."""
    n, has_keys = x.shape[axis], have_keys(x.dtype, x.shape[axis])
    if not isinstance(k, int):
        return _sort_row
    if k <= INSERTED or (not has_keys and k <= 8 * INSERTED):
        return _carry_row if 0 < k <= CARRIED and axis < x.rank - 1 else _select_row
    return _heap_row if has_keys and (not isinstance(n, int) or 2 * k <= n) else _sort_row


def _sort_row(out, x: Buffer, n, k: Expr, at: Callable, largest: bool) -> Stmt:
    values, indices = out
    order, body, place = sorted_row(x, n, at, largest)
    spot = local_i64("spot")
    copy = lambda r: seq(
        store(spot, (), place(order[r])),
        store(values, at(r), x[at(cast(spot[()], index))]), store(indices, at(r), spot[()]),
    )  # fmt: skip
    return seq(Alloc(spot), body, loop("r", k, copy))


def _select_row(out, x: Buffer, n, k: Expr, at: Callable, largest: bool) -> Stmt:
    """Keep the best k so far in order; an element that beats the last one moves up into place."""
    values, indices = out
    if is_const(k, 0):
        return seq()
    place, wins = local_i64("place"), goes_first(largest)
    here = cast(place[()], index)

    def insert(r: Expr, last: Expr) -> Stmt:
        up = seq(
            store(values, at(here), values[at(here - 1)]),
            store(indices, at(here), indices[at(here - 1)]),
            store(place, (), place[()] - 1),
        )
        # the guard of the first test keeps the second from reading before the row
        climbs = all_of((here > 0, wins(x[at(r)], values[at(here - 1)])))
        return seq(
            store(place, (), cast(last, i64)), While(climbs, up),
            store(values, at(here), x[at(r)]), store(indices, at(here), cast(r, i64)),
        )  # fmt: skip

    beats = lambda r: wins(x[at(r)], values[at(k - 1)])
    rest = _look_through(k, n, beats, lambda r: insert(r, k - 1))
    return seq(Alloc(place), loop("r", k, lambda r: insert(r, r)), rest)


def _look_through(k: Expr, n: Dim, beats: Callable, take: Callable) -> Stmt:
    """Take what beats the last of the best so far, of the elements from the k-th on. Only blocks in
    which some element does are looked through."""
    found = Buffer("found", i32, (), "local")
    visit = lambda r: If(beats(r), take(r))

    def block(b: Expr) -> Stmt:
        r = lambda l: k + b * BLOCK + l
        look = lambda l: store(found, (), binary("max", found[()], cast(beats(r(l)), i32)))
        through = loop("l", BLOCK, lambda l: visit(r(l)))
        return seq(
            store(found, (), const(0, i32)), loop("l", BLOCK, look),
            If(compare("gt", found[()], const(0, i32)), through),
        )  # fmt: skip

    blocks = (as_expr(n) - k) // BLOCK
    first = k + blocks * BLOCK
    return seq(
        Alloc(found), loop("b", blocks, block),
        loop("r", as_expr(n) - first, lambda r: visit(first + r)),
    )  # fmt: skip


def _heap_row(out, x: Buffer, n, k: Expr, at: Callable, largest: bool) -> Stmt:
    """Keep the keys of the best k so far in a heap, the worst of them first, whose place an element
    takes that beats it."""
    values, indices = out
    heap, spot = Heap(k), local_i64("spot")
    worst, wins = Buffer("worst", x.dtype, (), "local"), goes_first(largest)
    one = lambda r: key(x[at(r)], cast(r, i64), largest)
    place = lambda p: store(spot, (), position_of(heap.keys[p]))
    found = x[at(cast(spot[()], index))]
    look = seq(place(const(1)), store(worst, (), found))
    take = lambda r: seq(heap.replace_first(one(r)), look)
    copy = lambda r: seq(place(r + 1), store(values, at(r), found), store(indices, at(r), spot[()]))
    return seq(
        heap.allocs, Alloc(worst), Alloc(spot), heap.build(one), look,
        _look_through(k, n, lambda r: wins(x[at(r)], worst[()]), take),
        heap.sort(), loop("r", k, copy),
    )  # fmt: skip


def _carry_row(out, x: Buffer, n, k: Expr, at: Callable, largest: bool) -> Stmt:
    """The same without branches: what an element beats moves one place down, the last of the list
    out of it, for all lines that lie next to each other at once."""
    values, indices = out
    most = bounds(as_expr(n))[1]
    kind, wins = i32 if most is not None and most <= i32.max else i64, goes_first(largest)
    own = lambda name, t: Buffer(name, t, (), "local")
    kept = [(own(f"kept{p}", x.dtype), own(f"kept{p}_at", kind)) for p in range(k.value)]
    element = own("element", x.dtype)
    put = lambda to, values: seq(*(store(b, (), v) for b, v in zip(to, values)))
    get = lambda pair: [b[()] for b in pair]

    def visit(r: Expr, filling: bool) -> Stmt:
        def beaten(p: int) -> Expr:
            free = compare("le", r, const(p)) if filling else const(False, boolean)
            return any_of((free, wins(element[()], kept[p][0][()])))

        def place(p: int) -> Stmt:
            comes = [element[()], cast(r, kind)]
            if p > 0:
                comes = [choose(beaten(p - 1), a, b) for a, b in zip(get(kept[p - 1]), comes)]
            now = [choose(beaten(p), a, b) for a, b in zip(comes, get(kept[p]))]
            return put(kept[p][::-1], now[::-1])  # the value last: it decides

        return seq(store(element, (), x[at(r)]), *map(place, reversed(range(k.value))))

    def finish(p: int) -> Stmt:
        value, place = get(kept[p])
        return seq(store(values, at(p), value), store(indices, at(p), cast(place, i64)))

    return seq(
        Alloc(element), *(Alloc(b) for one in kept for b in one),
        *(put(here, (const(0, x.dtype), const(0, kind))) for here in kept),
        loop("r", k, lambda r: visit(r, True)),
        loop("r", as_expr(n) - k, lambda r: visit(r + k, False)),
        *map(finish, range(k.value)),
    )  # fmt: skip


def _gradient_top_k(g, y, x, *, k, axis, largest, sorted):
    order = item(y, index=1)
    return (scatter_elements(zeros_like(x), order, g[0], axis=axis, mode="add"),)


top_k = define(
    "top_k", "x", infer=_infer_top_k, reference=_reference_top_k, lower=_lower_top_k,
    gradient=_gradient_top_k, dtypes=NUMERIC,
    samples=("f32[3,7] k=3", "f32[3,7] k=2 largest=False", "f32[5,3] k=5 axis=0",
             "f32[n] k=1 n=1,9", "f32[n] k=n//2 n=1,9", "i32[20]@0:3 k=6", "f32[16]@special k=9",
             "f64[300] k=280", "f32[4] k=0", "f16[9] k=4", "f32[200] k=40",
             "f32[2,99,3] k=33 axis=1", "i32[90]@0:3 k=40", "f32[96]@special k=40 largest=False",
             "f32[50] k=49"),
    doc="The k greatest (or smallest) elements along an axis in order, and their positions.",
)  # fmt: skip


# ---- unique ------------------------------------------------------------------------------------


def _infer_row_order(x: TensorType) -> TensorType:
    require(x.rank == 2, f"row_order: x has rank {x.rank}, it must be a matrix")
    check_dtype("row_order", x, SORTABLE)
    return TensorType(i64, x.shape[:1])


def _lower_row_order(out: Buffer, x: Buffer) -> Stmt:
    n, m = x.shape
    order, spare = Buffer("order", i64, (n,), "temp"), Buffer("spare", i64, (n,), "temp")
    column = local_i64("column")
    wins = goes_first(False)

    def first(a: Expr, b: Expr):
        at = cast(column[()], index)
        left, right = x[cast(a, index), at], x[cast(b, index), at]
        tied = unary("not", any_of((wins(left, right), wins(right, left))))
        search = While(all_of((at < as_expr(m) - 1, tied)), store(column, (), column[()] + 1))
        return seq(store(column, (), const(0, i64)), search), wins(left, right)

    positions = lambda to: loop("k", n, lambda k: store(to, k, cast(k, i64)))
    sorting = seq(
        Alloc(order), Alloc(spare), Alloc(column), positions(order),
        merge_runs(order, spare, n, first), loop("r", n, lambda r: store(out, r, order[r])),
    )  # fmt: skip
    return If(as_expr(m) > 0, sorting, positions(out))


row_order = define(
    "row_order", "x", infer=_infer_row_order, lower=_lower_row_order, dtypes=SORTABLE,
    reference=lambda x: np.lexsort(_comparable(x).T[::-1]).astype(np.int64) if x.shape[1]
    else np.arange(len(x)),
    samples=("i32[9,2]@0:2", "f32[n,3]@0:1 n=0,1,5", "f32[4,0]", "f32[6,1]"),
    doc="The positions of the rows of a matrix in lexicographic order.",
)  # fmt: skip


def unique(x: Node, axis: int | None = None, sorted: bool = True) -> tuple[Node, ...]:
    """(distinct elements or slices, position of the first of each, for each element the one it
    equals, how many equal each), in ascending order or that of first appearance."""
    axis = None if axis is None else normalize_axis("unique", axis, x.rank)
    if axis is None:
        rows = reshape(x, shape=(product(x.shape), 1))
    else:
        perm = (axis, *(a for a in range(x.rank) if a != axis))
        lead = x.shape[axis]
        rest = product(d for a, d in enumerate(x.shape) if a != axis)
        rows = reshape(transpose(x, perm=perm), shape=(lead, rest))
    n = rows.shape[0]
    order = row_order(rows)
    starts = _group_starts(gather(rows, order, axis=0))
    group = sub(cumsum(cast_to(starts, dtype=i64), axis=0), scalar_like(order, 1))
    count = var("unique", max=n if isinstance(n, int) else None)
    total = scatter_axis(full(shape=(1,), value=0, dtype=i64), zeros_like(group),
                         cast_to(starts, dtype=i64), axis=0, mode="add")  # fmt: skip
    bind_size(total, symbols=(count,))
    first = gather(order, nonzero_indices(starts, count=count, flat=True), axis=0)
    inverse = scatter_elements(zeros_like(order), order, group, axis=0)
    if not sorted:
        appearance = argsort(first, axis=0)
        first = gather(first, appearance, axis=0)
        rank = scatter_elements(zeros_like(appearance), appearance,
                                iota(shape=(count,), axis=0, dtype=i64), axis=0)  # fmt: skip
        inverse = gather(rank, inverse, axis=0)
    ones = full(shape=(n,), value=1, dtype=i64)
    counts = scatter_axis(full(shape=(count,), value=0, dtype=i64), inverse, ones, axis=0)
    source = reshape(x, shape=(n,)) if axis is None else x
    return gather(source, first, axis=axis or 0), first, inverse, counts


def _group_starts(rows: Node) -> Node:
    """Whether each row of a sorted matrix differs from the one before it."""
    n = rows.shape[0]
    place = iota(shape=(n,), axis=0, dtype=i64)
    before = gather(rows, maximum(sub(place, 1), 0), axis=0)
    differs = not_equal(rows, before)
    if rows.dtype.is_float:
        differs = logical_and(differs, logical_not(logical_and(is_nan(rows), is_nan(before))))
    return logical_or(reduce_any(differs, axes=(1,)), equal(place, 0))
