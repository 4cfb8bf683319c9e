"""Products of groups of rows with a matrix each: the experts of a mixture.

    _grouped_mm(x, w, offs)   ->   scan_ over w and offs: rows [begin, end) of x times w[k]

Rows are sorted by expert; `offs` says where each group ends. A step of the scan takes as many rows
as its group has (a size that only the data knows), so no row meets another expert's matrix.
"""

from __future__ import annotations

from tensorwright.frontend.torch_ops import Rows, lift, to, with_axis
from tensorwright.ir.dtype import i64
from tensorwright.ir.expr import var
from tensorwright.ir.graph import Node, graph, param
from tensorwright.ir.type import TensorType
from tensorwright.ops import control as ct
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import linalg as la
from tensorwright.ops import movement as mv

EXPERTS = Rows()


def grouped_product(x: Node, w: Node, ends: Node) -> Node:
    """x: [s, k] in groups of rows, w: [e, k, n], ends: i64[e] -> [s, n]; rows past the last group
    are 0."""
    out = ix.full(shape=(x.shape[0], w.shape[2]), value=0, dtype=x.dtype)
    begin = lift(0, i64)
    row = (param("w", TensorType(w.dtype, w.shape[1:])), param("end", TensorType(i64, ())))
    state = (param("out", out.type), param("begin", begin.type))
    rows = param("x", x.type)
    (matrix, end), (done, start) = row, state
    count = ew.maximum(ew.sub(end, start), lift(0, i64))
    own = var("group", min=0)
    bound = ix.bind_size(count, symbols=(own,))
    at = mv.concat(with_axis(start, 0), lift_zero(), axis=0)
    group = ix.dynamic_slice(rows, at, sizes=(own, x.shape[1]))
    done = ix.dynamic_update_slice(done, la.matmul(group, matrix), at)
    body = graph("expert", (*state, *row, rows), (done, end))
    del bound  # shapes find it through the symbol
    return ct.items(ct.scan([out, begin, w, ends, x], body, carried=2, scanned=2))[0]


def lift_zero() -> Node:
    return ix.full(shape=(1,), value=0, dtype=i64)


@EXPERTS.row("transformers.grouped_mm_fallback.default")
def _grouped_fallback(c, x, w, ends):
    return grouped_product(x, w, to(ends, i64))


@EXPERTS.row("_grouped_mm.default")
def _grouped_mm(c, x, w, ends=None, bias=None, out_dtype=None):
    if x.rank != 2 or w.rank != 3 or ends is None:
        raise c.fail("only rows in groups times a matrix a group are supported")
    y = to(grouped_product(x, w, to(ends, i64)), c.dtype)
    return y if bias is None else ew.add(y, bias)
