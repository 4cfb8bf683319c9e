"""Random graphs of operators, well enough conditioned that implementations can be compared.

Operators with one or two plain operands come from the table; those that need attributes have a
builder here. Whatever a type rule refuses is not used. Functions that jump are applied to integers
only, where all implementations see the same operand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import DType, bf16, f16, f32, f64, i32, i64
from tensorwright.ir.expr import Expr, Symbol, as_dim, sym
from tensorwright.ir.graph import Graph, Node, constant, graph, param
from tensorwright.ir.type import TensorType, tensor
from tensorwright.ops import table
from tensorwright.ops.linalg import linear, matmul
from tensorwright.ops.movement import concat, flip, pad, reshape, slice, transpose
from tensorwright.ops.norm import layer_norm, softmax
from tensorwright.ops.reduce import reduce_max, reduce_min, reduce_sum

SIZES = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33)
JUMPS = frozenset((
    "floor", "ceil", "trunc", "round", "sign", "floor_div", "mod", "trunc_div", "rem", "equal",
    "not_equal", "less", "less_equal", "greater", "greater_equal", "tan", "digamma", "lgamma",
    "is_nan", "is_inf", "is_finite", "logical_not", "pow", "shrink", "thresholded_relu", "argsort",
    "window_argument",
))  # fmt: skip
# Outside of [-3, 3], or close to a pole, these turn rounding errors into anything.
STEEP = frozenset(("exp", "exp2", "sinh", "cosh", "expm1", "reciprocal", "rsqrt", "div", "log",
                   "log2", "log1p", "atanh", "asin", "acos", "acosh", "sqrt", "pow"))  # fmt: skip
DTYPES = (f32, f32, f32, f32, f64, f16, bf16, i32, i64)


def plain_rows() -> tuple[list, list]:
    """Rows of the table that work on one or on two operands of one type, without attributes."""
    one, two = [], []
    for op in table.OPS:
        if op.name in JUMPS | STEEP or op.name.startswith("random") or op.name == "nonzero":
            continue
        if op.reference is None or op.is_variadic or not 1 <= len(op.params) <= 2:
            continue
        for kind, count in ((one, 1), (two, 2)):
            if len(op.params) == count and _accepts(op, count):
                kind.append(op)
    return one, two


def _accepts(op, count: int) -> bool:
    try:
        made = op(*(param(f"x{k}", tensor(f32, 3, 4)) for k in range(count)))
    except (CompileError, TypeError, ValueError):
        return False
    return isinstance(made.type, TensorType) and made.shape == (3, 4)


ONE, TWO = plain_rows()


class Maker:
    """Grows a graph; `choose(sequence)` makes every decision."""

    def __init__(self, choose: Callable, seed: int):
        self.choose = choose
        self.random = np.random.default_rng(seed)
        self.symbol = Symbol("n", min=1)
        self.params: list[Node] = []
        self.pool: list[Node] = []

    def graph(self, steps: int) -> Graph:
        for k in range(2):
            self.params.append(param(f"x{k}", TensorType(self.choose(DTYPES), self.shape())))
        self.pool += self.params
        made = []
        for _ in range(steps):
            node = self.step()
            if node is not None and self.is_small(node):
                self.pool.append(node)
                made.append(node)
        results = made[-1:] + [n for n in made[:-1] if self.choose((True, False, False))]
        return graph("main", self.params, results or self.params[:1])

    def is_small(self, node: Node) -> bool:
        sizes = [d if isinstance(d, int) else 40 for d in node.shape]
        return node.rank <= 4 and np.prod(sizes, initial=1) <= 1 << 14

    def shape(self) -> tuple:
        rank = self.choose((1, 2, 2, 3))
        dims = [self.choose(SIZES) for _ in range(rank)]
        if self.choose((True, False)):
            dims[0] = sym(self.symbol)
        return tuple(dims)

    def step(self) -> Node | None:
        kinds = (
            self.unary,
            self.unary,
            self.binary,
            self.binary,
            self.scaled,
            self.cast,
            self.reduction,
            self.movement,
            self.movement,
            self.product,
            self.normal,
            self.joined,
        )
        x = self.choose(self.pool)
        try:
            return self.choose(kinds if x.rank else kinds[:6])(x)
        except (CompileError, TypeError):
            return None

    def unary(self, x: Node) -> Node:
        return self.choose(ONE)(x)

    def binary(self, x: Node) -> Node:
        return self.choose(TWO)(x, self.choose([y for y in self.pool if y.dtype is x.dtype]))

    def scaled(self, x: Node) -> Node:
        """With a constant, which keeps values in the range where functions are tame."""
        shape = self.choose(((), x.shape[-1:]))
        if any(isinstance(d, Expr) for d in shape):
            shape = ()
        return self.choose((table.BY_NAME["mul"], table.BY_NAME["add"]))(
            x, self.constant(x.dtype, shape)
        )

    def constant(self, d: DType, shape: tuple) -> Node:
        values = (
            self.random.uniform(-1, 1, shape) if d.is_float else self.random.integers(-3, 4, shape)
        )
        return constant(np.asarray(values).astype(d.numpy))

    def reduction(self, x: Node) -> Node:
        axes = self.choose([(k,) for k in range(x.rank)] + [tuple(range(x.rank))])
        op = self.choose((reduce_sum, reduce_max, reduce_min, table.BY_NAME["reduce_mean"]))
        return op(x, axes=axes, keepdims=self.choose((True, False)))

    def movement(self, x: Node) -> Node:
        match self.choose(("transpose", "flat", "split", "slice", "pad", "flip")):
            case "transpose":
                return transpose(x, perm=tuple(self.random.permutation(x.rank).tolist()))
            case "flat":
                return reshape(x, shape=(as_dim(x.type.size),))
            case "split":
                return reshape(x, shape=(*x.shape[:-1], x.shape[-1] // 2, 2))
            case "slice":
                starts = tuple(self.choose((0, 0, 1)) for _ in x.shape)
                steps = tuple(self.choose((1, 1, 2)) for _ in x.shape)
                return slice(x, starts=starts, stops=x.shape, steps=steps)
            case "pad":
                low = tuple(self.choose((0, 1, 2)) for _ in x.shape)
                return pad(x, low=low, high=tuple(self.choose((0, 1)) for _ in x.shape))
        return flip(x, axes=(self.choose(range(x.rank)),))

    def product(self, x: Node) -> Node:
        if not x.rank:
            return None
        columns = self.choose(SIZES)
        depth = x.shape[-1]
        if isinstance(depth, Expr):
            return matmul(x, transpose(x, perm=(1, 0))) if x.rank == 2 else matmul(x, x)
        if self.choose((True, False)):
            w = self.constant(x.dtype, (columns, depth))
            return linear(x, w, self.constant(x.dtype, (columns,)))
        return matmul(x, self.constant(x.dtype, (depth, columns)))

    def normal(self, x: Node) -> Node:
        if self.choose((True, False)):
            return softmax(x, axis=self.choose(range(-1, x.rank)))
        return layer_norm(x, axes=(x.rank - 1,), epsilon=0.1)

    def joined(self, x: Node) -> Node:
        same = [y for y in self.pool if y.dtype is x.dtype and y.rank == x.rank]
        return concat(x, self.choose(same), axis=self.choose(range(x.rank)))

    def cast(self, x: Node) -> Node:
        """Between floats; integers to floats."""
        return table.BY_NAME["cast"](x, dtype=self.choose((f32, f32, f64, f16, bf16)))
