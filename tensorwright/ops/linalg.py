"""Contractions: `dot_general` and what is written with it.

    y = dot_general(x, w, batch=((0,), (0,)), contract=((2,), (1,)))  # f32[b, m, k] f32[b, k, n]
    for i, j, k: y[i, j, k] = 0; for r0: y[i, j, k] = fma(x[i, j, r0], w[i, r0, k], y[i, j, k])

Result dimensions: batch, then the free ones of x, then those of w. Floats narrower than f32
accumulate in f32; integers multiply and accumulate in the result type.
"""

from __future__ import annotations

import math

import numpy as np

from tensorwright.ir.dtype import FLOATS, FLOATS8, NUMERIC, SUBBYTE, DType, i64, index
from tensorwright.ir.dtype import dtype as dtype_of
from tensorwright.ir.expr import (
    Buffer,
    Expr,
    as_expr,
    cast,
    compare,
    const,
    fma,
    ne,
    unary,
)  # fmt: skip
from tensorwright.ir.loop import Alloc, If, Stmt, loop, loops, seq, store
from tensorwright.ir.type import Dim, TensorType, dim_text
from tensorwright.ops.define import (
    accumulate,
    accumulator,
    broadcast_shapes,
    broadcasts_to,
    check_dtype,
    define,
    names,
    normalize_axis,
    require,
    same_dtype,
)  # fmt: skip
from tensorwright.ops.elementwise import add, mul
from tensorwright.ops.movement import broadcast_to, reshape, transpose
from tensorwright.ops.widen import to_dtype

NO_AXES = ((), ())
FACTORS = (*NUMERIC, *FLOATS8, *SUBBYTE)


def product_type(op: str, x: TensorType, w: TensorType, dtype) -> DType:
    """The element type of a contraction: `dtype`, or that of the operands, which then agree.
    Integers of different types may meet where `dtype` says what to compute in."""
    check_dtype(op, x, FACTORS)
    check_dtype(op, w, FACTORS)
    if dtype is None or not (x.dtype.is_integer and w.dtype.is_integer):
        same_dtype(op, x, w)
    result = x.dtype if dtype is None else dtype_of(dtype)
    require(result.is_float == x.dtype.is_float, f"{op}: {x.dtype} operands cannot give {result}",
            "cast the operands or the result")  # fmt: skip
    return result


def free_axes(rank: int, *used) -> tuple[int, ...]:
    """The axes not in any of `used`."""
    taken = {a for axes in used for a in axes}
    return tuple(a for a in range(rank) if a not in taken)


def _axes(x_rank: int, w_rank: int, batch, contract):
    pairs = []
    for left, right in (batch, contract):
        pairs.append((tuple(normalize_axis("dot_general", a, x_rank) for a in left),
                      tuple(normalize_axis("dot_general", a, w_rank) for a in right)))  # fmt: skip
    (xb, wb), (xc, wc) = pairs
    require(len(xb) == len(wb) and len(xc) == len(wc),
            f"dot_general: axes are not in pairs: batch={batch} contract={contract}")  # fmt: skip
    for used, which in ((xb + xc, "x"), (wb + wc, "w")):
        require(len(set(used)) == len(used), f"dot_general: axes {used} of {which} repeat")
    return xb, wb, xc, wc


def _infer_dot(x, w, *, batch=NO_AXES, contract=NO_AXES, dtype=None) -> TensorType:
    result = product_type("dot_general", x, w, dtype)
    xb, wb, xc, wc = _axes(x.rank, w.rank, batch, contract)
    for kind, left, right in (("batch", xb, wb), ("contracted", xc, wc)):
        for a, b in zip(left, right):
            check_equal("dot_general", kind, x.shape[a], w.shape[b], a, b)
    xf, wf = free_axes(x.rank, xb, xc), free_axes(w.rank, wb, wc)
    dims = [x.shape[a] for a in (*xb, *xf)] + [w.shape[a] for a in wf]
    return TensorType(result, tuple(dims))


def check_equal(op: str, kind: str, a: Dim, b: Dim, x_axis: int, w_axis: int, help="") -> None:
    """CompileError unless the two dimensions are known to be equal."""
    both = isinstance(a, int) and isinstance(b, int)
    require(
        a == b,
        f"{op}: {kind} dimensions differ: x.shape[{x_axis}] is {dim_text(a)}, "
        f"w.shape[{w_axis}] is {dim_text(b)}",
        help or ("" if both else "give dimensions that are always equal one name"),
    )


def _reference_dot(x, w, batch=NO_AXES, contract=NO_AXES, dtype=None):
    xb, wb, xc, wc = _axes(x.ndim, w.ndim, batch, contract)
    xf, wf = free_axes(x.ndim, xb, xc), free_axes(w.ndim, wb, wc)
    result = x.dtype if dtype is None else dtype_of(dtype).numpy
    wide = np.int64 if dtype_of(result).is_integer else np.float64

    def matrices(v, *groups):
        sizes = [math.prod(v.shape[a] for a in axes) for axes in groups]
        return v.astype(wide).transpose([a for axes in groups for a in axes]).reshape(sizes)

    left, right = matrices(x, xb, xf, xc), matrices(w, wb, wc, wf)
    shape = [x.shape[a] for a in (*xb, *xf)] + [w.shape[a] for a in wf]
    return np.matmul(left, right).reshape(shape).astype(result)


def _lower_dot(out: Buffer, x: Buffer, w: Buffer, *, batch, contract, dtype) -> Stmt:
    xb, wb, xc, wc = _axes(x.rank, w.rank, batch, contract)
    xf, wf = free_axes(x.rank, xb, xc), free_axes(w.rank, wb, wc)
    split = len(xb) + len(xf)

    def at(rank: int, *parts) -> tuple[Expr, ...]:
        found = {a: i for axes, values in parts for a, i in zip(axes, values)}
        return tuple(found[a] for a in range(rank))

    def nest(*i: Expr) -> Stmt:
        shared, left, right = i[: len(xb)], i[len(xb) : split], i[split:]

        def step(acc: Expr, *r: Expr) -> Expr:
            a = x[at(x.rank, (xb, shared), (xf, left), (xc, r))]
            b = w[at(w.rank, (wb, shared), (wf, right), (wc, r))]
            return fma(cast(a, acc.dtype), cast(b, acc.dtype), acc)

        return accumulate(out, i, 0, [x.shape[a] for a in xc], step)

    return loops(names(out.rank), out.shape, nest)


def _gradient_dot(g, y, x, w, *, batch, contract, dtype):
    xb, wb, xc, wc = _axes(x.rank, w.rank, batch, contract)
    xf, wf = free_axes(x.rank, xb, xc), free_axes(w.rank, wb, wc)
    nb, nx = len(xb), len(xf)
    g_batch = tuple(range(nb))
    g_left, g_right = tuple(range(nb, nb + nx)), tuple(range(nb + nx, g.rank))
    wide = g.dtype

    def product(other, g_axes, o_batch, o_axes, o_rest, own_batch, own_free, own_contract, like):
        d = dot_general(g, to_dtype(other, wide), batch=(g_batch, o_batch),
                        contract=(g_axes, o_axes))  # fmt: skip
        # d: batch, free axes of the operand, then what was contracted, in the order of o_rest
        order = (*own_batch, *own_free, *(own_contract[o_rest.index(a)] for a in sorted(o_rest)))
        back = tuple(order.index(a) for a in range(like.rank))
        d = d if back == tuple(range(like.rank)) else transpose(d, perm=back)
        return to_dtype(d, like.dtype)

    return (product(w, g_right, wb, wf, wc, xb, xf, xc, x),
            product(x, g_left, xb, xf, xc, wb, wf, wc, w))  # fmt: skip


dot_general = define(
    "dot_general", "x, w", infer=_infer_dot, reference=_reference_dot, lower=_lower_dot,
    gradient=_gradient_dot, dtypes=FACTORS,
    samples=(
        "f32[3,4] f32[4,5] contract=((1,),(0,))",
        "f32[n,7] f32[2,7] contract=((1,),(1,)) n=1,5",
        "f32[2,3,4] f32[2,4,5] batch=((0,),(0,)) contract=((2,),(1,))",
        "f32[4,2,3] f32[5,3,4] batch=((1,),(1,)) contract=((0,2),(2,1))"
        .replace("f32[5,3,4]", "f32[5,2,3,4]").replace("(2,1)", "(3,2)"),
        "f32[2,0] f32[0,3] contract=((1,),(0,))", "f32[3] f32[4]",
        "f16[3,9] f16[9,2] contract=((1,),(0,))", "bf16[3,9] bf16[9,2] contract=((1,),(0,))",
        "f16[3,9] f16[9,2] contract=((1,),(0,)) dtype=f32",
        "u8[3,9] i8[9,2] contract=((1,),(0,)) dtype=i32", "i64[2,3] i64[3,2] contract=((1,),(0,))",
        "f64[3,4] f64[4,5] contract=((1,),(0,))",
    ),
    doc="The contraction of two tensors over pairs of axes.",
)  # fmt: skip


# ---- matrix products ---------------------------------------------------------------------------


def _infer_matmul(x: TensorType, w: TensorType, *, dtype=None) -> TensorType:
    result = product_type("matmul", x, w, dtype)
    require(x.rank > 0 and w.rank > 0, "matmul: a scalar has no rows or columns", "use mul")
    k = max(w.rank - 2, 0)
    turned = w.rank == 2 and w.shape[1] == x.shape[-1]
    check_equal(
        "matmul", "inner", x.shape[-1], w.shape[k], x.rank - 1, k,
        f"w.shape[1] is {dim_text(w.shape[1])}; if w is stored as [out, in], transpose it"
        if turned else "",
    )  # fmt: skip
    batch = broadcast_shapes("matmul", x.shape[:-2], w.shape[:-2])
    rows = x.shape[-2:-1] if x.rank > 1 else ()
    columns = w.shape[-1:] if w.rank > 1 else ()
    return TensorType(result, (*batch, *rows, *columns))


def _reference_matmul(x, w, dtype=None):
    result = x.dtype if dtype is None else dtype_of(dtype).numpy
    wide = np.int64 if dtype_of(result).is_integer else np.float64
    return np.asarray(np.matmul(x.astype(wide), w.astype(wide))).astype(result)


def _expand_matmul(x, w, *, dtype):
    batch = broadcast_shapes("matmul", x.shape[:-2], w.shape[:-2])
    if w.rank <= 2:
        return dot_general(x, w, contract=((x.rank - 1,), (0,)), dtype=dtype)
    vector = x.rank == 1
    if vector:
        x = reshape(x, shape=(1, *x.shape))
    x, w = (v if v.shape[:-2] == batch else broadcast_to(v, shape=(*batch, *v.shape[-2:]))
            for v in (x, w))  # fmt: skip
    n = len(batch)
    shared = tuple(range(n))
    y = dot_general(x, w, batch=(shared, shared), contract=((n + 1,), (n,)), dtype=dtype)
    return reshape(y, shape=(*batch, y.shape[-1])) if vector else y


matmul = define(
    "matmul", "x, w", infer=_infer_matmul, reference=_reference_matmul, expand=_expand_matmul,
    dtypes=FACTORS, onnx="MatMul", torch=("mm.default", "bmm.default", "matmul.default"),
    samples=(
        "f32[3,4] f32[4,5]", "f32[n,7] f32[7,2] n=1,5", "f32[2,0,4] f32[4,5]", "f32[4] f32[4]",
        "f32[4] f32[2,4,3]", "f32[2,3,4] f32[4]", "f32[2,1,3,4] f32[5,4,2]", "f16[3,9] f16[9,2]",
        "u8[3,9] i8[9,2] dtype=i32",
    ),
    doc="The matrix product by NumPy's rules: leading dimensions broadcast.",
)  # fmt: skip


def _infer_linear(x, w, bias) -> TensorType:
    d = same_dtype("linear", x, w, bias)
    require(w.rank == 2, f"linear: w has rank {w.rank}, it is [out, in]")
    check_equal("linear", "inner", x.shape[-1], w.shape[1], x.rank - 1, 1)
    shape = (*x.shape[:-1], w.shape[0])
    if bias is not None:
        require(broadcasts_to(bias.shape, shape),
                f"linear: bias {bias} does not fit {w.shape[0]} outputs")  # fmt: skip
    return TensorType(d, shape)


def _reference_linear(x, w, bias=None):
    y = np.matmul(x.astype(np.float64), w.astype(np.float64).T)
    return (y if bias is None else y + bias.astype(np.float64)).astype(x.dtype)


def _expand_linear(x, w, bias):
    y = dot_general(x, w, contract=((x.rank - 1,), (1,)))
    return y if bias is None else add(y, bias)


linear = define(
    "linear", "x, w, bias?", infer=_infer_linear, reference=_reference_linear,
    expand=_expand_linear, dtypes=FLOATS, torch="linear.default",
    samples=("f32[3,4] f32[5,4] f32[5]", "f32[n,2,4] f32[5,4] n=1,3", "f32[4] f32[5,4] f32[5]",
             "f16[3,4] f16[5,4] f16[5]"),
    doc="x times the transpose of w[out, in], plus bias.",
)  # fmt: skip


def _infer_gemm(a, b, c, *, alpha=1.0, beta=1.0, trans_a=False, trans_b=False) -> TensorType:
    d = same_dtype("gemm", a, b, c)
    for t, which in ((a, "a"), (b, "b")):
        require(t.rank == 2, f"gemm: {which} has rank {t.rank}, it must be a matrix")
    m, k = a.shape[::-1] if trans_a else a.shape
    k2, n = b.shape[::-1] if trans_b else b.shape
    require(k == k2, f"gemm: inner dimensions differ: {dim_text(k)} of a, {dim_text(k2)} of b",
            "check trans_a and trans_b")  # fmt: skip
    if c is not None:
        require(broadcasts_to(c.shape, (m, n)),
                f"gemm: c {c} does not broadcast to [{dim_text(m)}, {dim_text(n)}]")  # fmt: skip
    return TensorType(d, (m, n))


def _reference_gemm(a, b, c=None, alpha=1.0, beta=1.0, trans_a=False, trans_b=False):
    wide = np.float64 if a.dtype.kind not in "iu" else np.int64
    a, b, own = a.astype(wide), b.astype(wide), a.dtype
    y = alpha * ((a.T if trans_a else a) @ (b.T if trans_b else b))
    return (y if c is None else y + beta * c.astype(wide)).astype(own)


def _expand_gemm(a, b, c, *, alpha, beta, trans_a, trans_b):
    y = dot_general(a, b, contract=((0 if trans_a else 1,), (1 if trans_b else 0,)))
    if alpha != 1.0:
        y = mul(y, alpha)
    if c is None or beta == 0.0:
        return y
    return add(y, c if beta == 1.0 else mul(c, beta))


gemm = define(
    "gemm", "a, b, c?", infer=_infer_gemm, reference=_reference_gemm, expand=_expand_gemm,
    dtypes=NUMERIC,
    samples=("f32[3,4] f32[4,5] f32[5]",
             "f32[4,n] f32[5,4] f32[n,1] trans_a=True trans_b=True n=1,3",
             "f32[3,4] f32[4,5] alpha=0.5", "f32[3,4] f32[4,5] f32[3,5] alpha=0.5 beta=0.25",
             "i32[2,3] i32[3,2] i32[2]"),
    doc="alpha * a' b' + beta * c.",
)  # fmt: skip


# ---- determinant -------------------------------------------------------------------------------


def _infer_det(x: TensorType) -> TensorType:
    check_dtype("det", x, FLOATS)
    require(x.rank >= 2 and x.shape[-1] == x.shape[-2],
            f"det: x {x} is not made of square matrices")  # fmt: skip
    return TensorType(x.dtype, x.shape[:-2])


def _lower_det(out: Buffer, x: Buffer) -> Stmt:
    """Gaussian elimination with the largest pivot of each column, on a copy in `wide`."""
    n, wide = x.shape[-1], accumulator(x.dtype)

    def nest(*i: Expr) -> Stmt:
        a = Buffer("a", wide, (n, n), "temp")
        total, held = Buffer("total", wide, (), "local"), Buffer("held", wide, (), "local")
        best = Buffer("best", i64, (), "local")
        row = cast(best[()], index)

        def column(c: Expr) -> Stmt:
            below = as_expr(n) - c - 1
            size = lambda r: unary("abs", a[r, c])
            take = lambda r: store(best, (), cast(r + c + 1, i64))
            pick = loop(
                "r", below, lambda r: If(compare("gt", size(r + c + 1), size(row)), take(r))
            )
            swap = lambda j: seq(store(held, (), a[c, j]), store(a, (c, j), a[row, j]),
                                 store(a, (row, j), held[()]))  # fmt: skip
            swaps = If(ne(row, c), seq(loop("j", n, swap), store(total, (), -total[()])))
            eliminate = loop("r", below, lambda r: seq(
                store(held, (), a[r + c + 1, c] / a[c, c]),
                loop("j", below, lambda j: store(a, (r + c + 1, j + c + 1), a[r + c + 1, j + c + 1]
                                                 - held[()] * a[c, j + c + 1])),
            ))  # fmt: skip
            return seq(
                store(best, (), cast(c, i64)), pick, swaps,
                store(total, (), total[()] * a[c, c]),
                If(compare("ne", a[c, c], const(0, wide)), eliminate),
            )  # fmt: skip

        copy = loops(("r", "j"), (n, n), lambda r, j: store(a, (r, j), cast(x[(*i, r, j)], wide)))
        return seq(
            Alloc(a), Alloc(total), Alloc(best), Alloc(held), copy,
            store(total, (), const(1, wide)), loop("c", n, column),
            store(out, i, cast(total[()], out.dtype)),
        )  # fmt: skip

    return loops(names(out.rank), out.shape, nest)


det = define(
    "det", "x", infer=_infer_det, lower=_lower_det, dtypes=FLOATS, onnx="Det",
    reference=lambda x: np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype),
    samples=("f32[3,3]", "f32[2,4,4]", "f32[n,n] n=1,2,5", "f32[2,2]@0:0", "f64[0,3,3]"),
    doc="The determinant of square matrices.",
)  # fmt: skip
