"""Operators of detection: averages over regions, and suppression of overlapping boxes.

    nms_indices(boxes, scores, ...)  ->  (i64[cap, 3], i64[1])      candidates kept, and how many

What finds an amount of things known only at run time fills a buffer of the greatest possible size
and counts; `non_max_suppression` binds that count to a symbol and cuts the buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tensorwright.ir.dtype import FLOATS, INTEGERS, DType, i64, index
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    Symbol,
    all_of,
    any_of,
    as_dim,
    as_expr,
    binary,
    bounds,
    cast,
    compare,
    const,
    select,
    sym,
    unary,
    var,
)  # fmt: skip
from tensorwright.ir.expr import maximum as max_expr
from tensorwright.ir.expr import minimum as min_expr
from tensorwright.ir.graph import Node
from tensorwright.ir.loop import Alloc, If, Let, Stmt, While, loop, loops, seq, store
from tensorwright.ir.type import Dim, TensorType, TupleType, dim_text, product, shape_of
from tensorwright.ops.control import items
from tensorwright.ops.define import (
    accumulator,
    check_dtype,
    compute,
    define,
    names,
    require,
    same_dtype,
)  # fmt: skip
from tensorwright.ops.index import bind_size
from tensorwright.ops.movement import slice
from tensorwright.ops.sorting import goes_first, local_i64, merge_runs

# ---- roi_align ---------------------------------------------------------------------------------


def _infer_roi_align(
    x: TensorType, rois: TensorType, batch: TensorType, *, output=(1, 1), scale=1.0, sampling=0,
    mode="avg", half_pixel=True,
) -> TensorType:  # fmt: skip
    op = "roi_align"
    d = same_dtype(op, x, rois)
    check_dtype(op, x, FLOATS)
    require(x.rank == 4, f"{op}: x is {x}; it must be [batch, channels, height, width]")
    require(rois.rank == 2 and rois.shape[1] == 4, f"{op}: rois are {rois}; they must be [n, 4]")
    require(batch.dtype in INTEGERS and batch.shape == rois.shape[:1],
            f"{op}: batch is {batch}, not one integer for each of the "
            f"{dim_text(rois.shape[0])} regions")  # fmt: skip
    require(mode in ("avg", "max"), f"{op}: mode {mode!r} is not avg or max")
    return TensorType(d, (rois.shape[0], x.shape[1], *shape_of(output)))


def _corner(position: Expr, d: Dim, wide: DType):
    """(low index, high index, weight of high) for sampling at a position that is not negative."""
    last = cast(as_expr(d) - 1, wide)
    low = unary("floor", binary("min", position, last))
    high = binary("min", low + const(1, wide), last)
    weight = binary("min", position, last) - low
    return cast(low, index), cast(high, index), weight


def _lower_roi_align(
    out: Buffer, x: Buffer, rois: Buffer, batch: Buffer, *, output, scale, sampling, mode,
    half_pixel,
) -> Stmt:  # fmt: skip
    wide, channels = accumulator(x.dtype), x.shape[1]
    number = lambda v: const(v, wide)

    def cell(r: Expr, ph: Expr, pw: Expr) -> Stmt:  # where samples lie is the same for all channels
        image = max_expr(min_expr(cast(batch[r], index), as_expr(x.shape[0]) - 1), 0)
        total = Buffer("total", wide, (channels,), "temp")
        axes, lets = [], []
        for k, (part, parts, d) in enumerate(zip((ph, pw), output, x.shape[2:])):
            edge = lambda n: (cast(rois[r, n], wide) * number(scale)
                              - number(0.5 if half_pixel else 0.0))  # fmt: skip
            begin, end = edge(1 - k), edge(3 - k)
            length = end - begin if half_pixel else binary("max", end - begin, number(1))
            size = length / number(parts)
            samples = Symbol(f"samples{k}", min=0)
            count = const(sampling) if sampling > 0 else cast(unary("ceil", size), index)
            lets.append(Let(samples, count))
            axes.append((begin + cast(part, wide) * size, size, sym(samples), d))

        def visit(iy: Expr, ix: Expr) -> Stmt:
            at, outside = [], []
            for (begin, size, samples, d), k in zip(axes, (iy, ix)):
                place = begin + (cast(k, wide) + number(0.5)) * size / cast(samples, wide)
                beyond = compare("gt", place, cast(as_expr(d), wide))
                outside += [compare("lt", place, number(-1)), beyond]
                at.append(_corner(binary("max", place, number(0)), d, wide))
            merge = "add" if mode == "avg" else "max"
            add = lambda c, value: store(total, c, binary(merge, total[c], value))
            known, corners = _corners(x, image, at, wide)

            def inside(c: Expr) -> Stmt:
                values = corners(c)
                if mode == "avg":
                    return add(c, values[0] + values[1] + values[2] + values[3])
                one, two = (binary("max", *pair) for pair in (values[:2], values[2:]))
                return add(c, binary("max", one, two))

            around = loop("c", channels, lambda c: add(c, number(0)))
            return If(any_of(outside), around, seq(*known, loop("c", channels, inside)))

        rows, columns = axes[0][2], axes[1][2]
        count = cast(max_expr(rows * columns, 1), wide)
        empty = compare("le", rows * columns, const(0))
        first = number(0) if mode == "avg" else select(empty, number(0), number(-math.inf))
        result = lambda c: cast(total[c] / count if mode == "avg" else total[c], out.dtype)
        return seq(
            *lets, Alloc(total), loop("c", channels, lambda c: store(total, c, first)),
            loops(("iy", "ix"), (rows, columns), visit),
            loop("c", channels, lambda c: store(out, (r, c, ph, pw), result(c))),
        )  # fmt: skip

    rois_and_cells = (out.shape[0], *out.shape[2:])
    return loops(names(3), rois_and_cells, cell)


def _corners(x: Buffer, image: Expr, at, wide: DType) -> tuple[list[Stmt], Callable]:
    """The four weighted neighbours of a position as a function of the channel, after statements
    that work out what is the same for all of them."""
    (y0, y1, wy), (x0, x1, wx) = at
    one = const(1, wide)
    known, corners = [], []
    for n, (row, column, weight) in enumerate((
        (y0, x0, (one - wy) * (one - wx)), (y0, x1, (one - wy) * wx), (y1, x0, wy * (one - wx)),
        (y1, x1, wy * wx)
    )):  # fmt: skip
        place = Symbol(f"row{n}", min=0), Symbol(f"column{n}", min=0)
        share = Buffer(f"share{n}", wide, (), "local")
        known += [Let(place[0], row), Let(place[1], column), Alloc(share), store(share, (), weight)]
        corners.append((share, *map(sym, place)))
    return known, lambda c: [share[()] * cast(x[image, c, row, column], wide)
                             for share, row, column in corners]  # fmt: skip


def _reference_roi_align(
    x, rois, batch, output=(1, 1), scale=1.0, sampling=0, mode="avg", half_pixel=True
):  # fmt: skip
    (_, channels, height, width), (ph, pw) = x.shape, output
    y = np.zeros((len(rois), channels, ph, pw))
    wide = x.astype(np.float64)
    for r, box in enumerate(rois.astype(np.float64)):
        x0, y0, x1, y1 = box * scale - (0.5 if half_pixel else 0.0)
        w, h = (x1 - x0, y1 - y0) if half_pixel else (max(x1 - x0, 1), max(y1 - y0, 1))
        ny = sampling or math.ceil(np.nan_to_num(h / ph))
        nx = sampling or math.ceil(np.nan_to_num(w / pw))
        image = wide[min(max(int(batch[r]), 0), len(x) - 1)]
        for i, j in np.ndindex(ph, pw):
            values = []
            for a, b in np.ndindex(max(ny, 0), max(nx, 0)):
                at = (y0 + i * h / ph + (a + 0.5) * h / ph / ny,
                      x0 + j * w / pw + (b + 0.5) * w / pw / nx)  # fmt: skip
                values.append(_reference_sample(image, *at, height, width))
            if values:
                y[r, :, i, j] = (np.mean([sum(v) for v in values], axis=0) if mode == "avg"
                                 else np.max(values, axis=(0, 1)))  # fmt: skip
    return y.astype(x.dtype)


def _reference_sample(image, row, column, height, width):
    """The four weighted neighbours of a position, each for all channels."""
    if math.isnan(row + column):
        return [np.full(len(image), math.nan)] * 4
    if row < -1 or row > height or column < -1 or column > width:
        return [np.zeros(len(image))] * 4
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    r, c = int(row), int(column)
    dr, dc = row - r, column - c
    r1, c1 = min(r + 1, height - 1), min(c + 1, width - 1)
    return [image[:, r, c] * (1 - dr) * (1 - dc), image[:, r, c1] * (1 - dr) * dc,
            image[:, r1, c] * dr * (1 - dc), image[:, r1, c1] * dr * dc]  # fmt: skip


roi_align = define(
    "roi_align", "x, rois, batch", infer=_infer_roi_align, reference=_reference_roi_align,
    lower=_lower_roi_align, dtypes=FLOATS,
    samples=(
        "f32[2,2,6,7] f32[3,4]@0:6 i64[3]@0:1 output=(2,3) sampling=2",
        "f32[1,1,8,8] f32[2,4]@0:8 i64[2]@0:0 output=(2,2) half_pixel=False scale=0.5",
        "f32[1,2,8,8] f32[n,4]@0:9 i64[n]@0:0 output=(3,3) mode=max sampling=1 n=1,3",
    ),
    doc="Each region of x sampled on a grid and averaged (or its largest sample) in cells.",
)  # fmt: skip


# ---- non-maximum suppression -------------------------------------------------------------------


def _infer_nms(boxes, scores, limit, overlap, threshold, *, centre=False) -> TupleType:
    op = "nms_indices"
    d = same_dtype(op, boxes, scores)
    check_dtype(op, boxes, FLOATS)
    require(boxes.rank == 3 and boxes.shape[2] == 4,
            f"{op}: boxes are {boxes}; they must be [batch, count, 4]")  # fmt: skip
    require(
        scores.rank == 3
        and scores.shape[0] == boxes.shape[0]
        and scores.shape[2] == boxes.shape[1],
        f"{op}: scores are {scores}; they must be [batch, classes, {dim_text(boxes.shape[1])}]",
    )
    require(limit.dtype in INTEGERS and limit.rank == 0, f"{op}: the limit is {limit}")
    for name, t in (("overlap", overlap), ("threshold", threshold)):
        require(t.dtype is d and t.rank == 0, f"{op}: the {name} is {t}, not one {d}")
    cap = product(scores.shape)
    return TupleType((TensorType(i64, (cap, 3)), TensorType(i64, (1,))))


def _edges(boxes: Buffer, b: Expr, n: Expr, centre: bool):
    """((low, high) of rows, (low, high) of columns) of a box."""
    v = [boxes[b, n, k] for k in range(4)]
    if centre:  # x, y, width, height
        half = const(0.5, boxes.dtype)
        return ((v[1] - v[3] * half, v[1] + v[3] * half), (v[0] - v[2] * half, v[0] + v[2] * half))
    return tuple((binary("min", v[k], v[k + 2]), binary("max", v[k], v[k + 2])) for k in (0, 1))


def _measures(boxes: Buffer, b: Expr, n: Expr, centre: bool) -> list[Expr]:
    """Low and high rows and columns of a box, and its area."""
    rows, columns = _edges(boxes, b, n, centre)
    return [*rows, *columns, (rows[1] - rows[0]) * (columns[1] - columns[0])]


def _overlaps(one: list[Expr], two: list[Expr], limit: Expr) -> Expr:
    """Whether the intersection of two boxes, by their measures, over their union exceeds the
    limit."""
    zero = const(0, one[0].dtype)
    shared = [binary("min", one[k + 1], two[k + 1]) - binary("max", one[k], two[k]) for k in (0, 2)]
    both = shared[0] * shared[1]
    union = one[4] + two[4] - both
    positive = [compare("gt", v, zero) for v in (*shared, one[4], two[4], union)]
    return all_of((*positive, compare("gt", both / union, limit)))


def _lower_nms(out, boxes: Buffer, scores: Buffer, limit, overlap, threshold, *, centre) -> Stmt:
    found, count = out
    n = scores.shape[2]
    total = cast(count[0], index)

    def one_class(b: Expr, c: Expr) -> Stmt:
        order, spare = Buffer("order", i64, (n,), "temp"), Buffer("spare", i64, (n,), "temp")
        begin, wanted = Symbol("begin", min=0), Symbol("wanted", min=0)
        other = local_i64("other")
        # of the boxes that are kept, and one row more: a search stops in front of it
        kept = Buffer("kept", boxes.dtype, (as_dim(as_expr(n) + 1), 5), "temp")
        box = Buffer("box", boxes.dtype, (5,), "local")
        score = lambda p: scores[b, c, cast(p, index)]
        wins = goes_first(True)
        at, room = cast(other[()], index), total - sym(begin)

        def choose(k: Expr) -> Stmt:
            append = seq(store(order, at, cast(k, i64)), store(other, (), other[()] + 1))
            return If(compare("gt", score(k), threshold[()]), append)

        def visit(k: Expr) -> Stmt:
            measures = _measures(boxes, b, cast(order[k], index), centre)
            read = seq(*(store(box, m, value) for m, value in enumerate(measures)))
            mine = [box[m] for m in range(5)]
            clash = _overlaps(mine, [kept[at, m] for m in range(5)], overlap[()])
            search = While(all_of((at < room, unary("not", clash))),
                           store(other, (), other[()] + 1))  # fmt: skip
            keep = seq(
                *(store(kept, (room, const(m)), value) for m, value in enumerate(mine)),
                store(found, (total, const(0)), cast(b, i64)),
                store(found, (total, const(1)), cast(c, i64)),
                store(found, (total, const(2)), order[k]),
                store(count, 0, count[0] + 1),
            )  # fmt: skip
            test = seq(Alloc(box), read, store(other, (), const(0, i64)), search,
                       If(at >= room, keep))  # fmt: skip
            return If(compare("lt", cast(room, i64), cast(limit[()], i64)), test)

        return seq(
            Alloc(order), Alloc(spare), Alloc(other), Alloc(kept),
            store(other, (), const(0, i64)), loop("k", n, choose), Let(wanted, at),
            merge_runs(order, spare, sym(wanted), lambda p, q: (None, wins(score(p), score(q)))),
            Let(begin, total), loop("k", sym(wanted), visit),
        )  # fmt: skip

    clear = compute(found, lambda *i: const(0, i64))
    return seq(clear, store(count, 0, const(0, i64)),
               loops(("b", "c"), scores.shape[:2], one_class))  # fmt: skip


def _reference_nms(boxes, scores, limit, overlap, threshold, centre=False):
    found = []
    for b, c in np.ndindex(*scores.shape[:2]):
        kept: list[int] = []
        for n in np.argsort(-scores[b, c], kind="stable"):
            if len(kept) >= limit or not scores[b, c, n] > threshold:
                continue
            if not any(_reference_overlap(boxes[b, n], boxes[b, m], centre) > overlap
                       for m in kept):  # fmt: skip
                kept.append(n)
        found += [(b, c, n) for n in kept]
    out = np.zeros((scores.size, 3), np.int64)
    out[: len(found)] = np.array(found, np.int64).reshape(-1, 3)
    return out, np.array([len(found)])


def _reference_overlap(p, q, centre):
    edges = []
    for v in (p, q):
        if centre:
            edges.append([v[1] - v[3] / 2, v[0] - v[2] / 2, v[1] + v[3] / 2, v[0] + v[2] / 2])
        else:
            edges.append([min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])])
    a, b = edges
    h, w = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    area = lambda e: (e[2] - e[0]) * (e[3] - e[1])
    union = area(a) + area(b) - h * w
    if min(h, w, area(a), area(b), union) <= 0:
        return -np.inf  # boxes apart suppress nothing, whatever the limit
    return h * w / union


nms_indices = define(
    "nms_indices", "boxes, scores, limit, overlap, threshold", infer=_infer_nms,
    reference=_reference_nms, lower=_lower_nms, dtypes=FLOATS,
    samples=("f32[2,9,4]@0:1 f32[2,3,9]@0:1 i64[]@2:4 f32[]@0.1:0.3 f32[]@0.1:0.4",
             "f32[1,n,4]@0.2:1 f32[1,2,n]@0:1 i64[]@9:9 f32[]@0.3:0.5 f32[]@-1:-1 centre=True "
             "n=0,1,12"),
    doc="(batch, class, box) of the boxes that no better one of their class overlaps; how many.",
)  # fmt: skip


def non_max_suppression(boxes, scores, limit, overlap, threshold, centre: bool = False) -> Node:
    """i64[kept, 3]: `nms_indices` with its count as a dimension."""
    found, count = items(nms_indices(boxes, scores, limit, overlap, threshold, centre=centre))
    kept = var("kept", max=bounds(as_expr(found.shape[0]))[1])
    bind_size(count, symbols=(kept,))
    return slice(found, starts=(0, 0), stops=(kept, 3))
