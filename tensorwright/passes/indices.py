"""Check indices that are known only at run time, where that costs next to nothing.

    gather(table: f32[30522, 768], ids)   ->   the same, and on the side
        bind_size(reduce_max(ids), symbols=(index[..30521],))      "index is 40000, its largest ..."

A gather clamps what it is given, so a wrong index would be a wrong answer. Looking at every index
first costs a pass over them: little beside reading rows of `ROW` elements or more, too much beside
single elements, which stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.ir.expr import as_expr, bounds, is_const, var
from tensorwright.ir.graph import CONST, Graph, Node
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.type import product
from tensorwright.ops.index import gather
from tensorwright.ops.movement import reshape
from tensorwright.ops.positions import bind_size
from tensorwright.ops.reduce import reduce_max, reduce_min
from tensorwright.passes.intervals import interval

ROW = 16  # elements that one index must name for its check to be cheap


def check_indices(m: Module) -> Module:
    """`m` with indices of rows bound to symbols that may not leave the table."""
    return map_graphs(m, check_graph)


def check_graph(g: Graph) -> Graph:
    found: dict[tuple, Node] = {}
    for node in g.nodes():
        if node.op is gather:
            for key, check in checks(node):
                found.setdefault(key, check)
    return replace(g, binders=(*g.binders, *found.values())) if found else g


def checks(node: Node) -> list[tuple[tuple, Node]]:
    """The checks that the indices of a gather need, by what they check."""
    x, indices = node.args
    axis = node.attrs["axis"] % x.rank
    extent = as_expr(x.shape[axis])
    row = product([d for k, d in enumerate(x.shape) if k != axis])
    low = bounds(as_expr(row))[0]
    if indices.op is CONST or not is_const(extent) or low is None or low < ROW:
        return []
    n, known, made = extent.value, interval(indices), []
    flat = reshape(indices, shape=(product(indices.shape),))
    for needed, reduce, bound in (
        (known.high >= n, reduce_max, {"min": None, "max": n - 1}),
        (known.low < -n, reduce_min, {"min": -n}),
    ):
        if needed:
            worst = reduce(flat, axes=(0,))
            check = bind_size(worst, symbols=(var("index", **bound),))
            made.append(((indices, reduce, n), replace(check, loc=node.loc)))
    return made
