"""Simplify what computes sizes and positions: values known from shapes, checks that are proved.

    n = bind_size(size(dims=(2*m,)), symbols=(n,)); y: f32[n] = ...   ->   y: f32[2*m] = ...
    add(size(dims=(n,)), 1)                                        ->   size(dims=(n + 1,))
    less_equal(iota(shape=(n,)), size(dims=(n,)))                  ->   full(shape=(n,), value=True)

A symbol gives way to an expression only if all that was to be checked of it follows from what is
known of the expression.
"""

from __future__ import annotations

from dataclasses import replace

from tensorwright.base import trace
from tensorwright.ir.dtype import boolean, i64, index
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    as_dim,
    bounds,
    compare,
    const,
    is_const,
    substitute,
    sym,
    symbols_of,
)  # fmt: skip
from tensorwright.ir.graph import Graph, Node, bound_symbols, rebuild, with_args
from tensorwright.ir.match import P, Rest, rewrite, rule
from tensorwright.ir.module import Module, map_graphs
from tensorwright.ir.simplify import multiple_of
from tensorwright.ir.type import TensorType, TupleType, Type
from tensorwright.ops.elementwise import cast
from tensorwright.ops.movement import reshape
from tensorwright.ops.positions import full, size
from tensorwright.passes.elements import element, positions, scalar_value
from tensorwright.passes.known_reads import READS

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
               "logical_and", "logical_or", "logical_not")  # fmt: skip
ARITHMETIC = ("add", "sub", "mul", "floor_div", "trunc_div", "mod", "minimum", "maximum", "neg",
              "cast", "reshape", "slice", "concat", "gather", "select", "broadcast_to")  # fmt: skip


def simplify_shapes(m: Module) -> Module:
    """`m` with sizes as expressions wherever they are known before running."""
    return map_graphs(m, simplify_graph)


def simplify_graph(g: Graph) -> Graph:
    while True:
        new = bind_known(rewrite(g, RULES))
        if new is g:
            return g
        g = new


# ---- sizes and truths computed by nodes --------------------------------------------------------


def known_size(node: Node) -> Node | None:
    """An integer scalar or vector whose elements are index expressions, as a `size`."""
    if node.dtype.is_float or node.dtype is boolean or node.rank > 1 or not node.type.is_static:
        return None
    count = node.shape[0] if node.rank else 1
    if not 0 < count <= 8:
        return None
    values = [scalar_value(node, k) for k in range(count)]
    if None in values or all(map(is_const, values)):
        return None
    made = size(dims=tuple(map(as_dim, values)))
    made = made if node.rank else reshape(made, shape=())
    made = made if node.dtype is i64 else cast(made, dtype=node.dtype)
    return None if _is_size(node) else made


def _is_size(node: Node) -> bool:
    """Whether the node already is what `known_size` makes."""
    if node.op.name == "cast":
        return node.args[0].dtype is i64 and _is_size(node.args[0])
    if node.op.name == "reshape" and node.rank == 0:
        node = node.args[0]
    return node.op is size


def known_truth(node: Node) -> Node | None:
    """A comparison that comes out the same everywhere."""
    if node.args[0].dtype.is_float:
        return None
    e = element(node, positions(node.shape))
    if e is None or not is_const(e):
        return None
    return full(shape=node.shape, value=bool(e.value), dtype=boolean)


RULES = (
    *(rule("known-truth", getattr(P, op)(Rest("xs")), known_truth) for op in COMPARISONS),
    *(rule("known-size", getattr(P, op)(Rest("xs")), known_size) for op in ARITHMETIC),
    *READS,
)


# ---- symbols bound to what is known ------------------------------------------------------------


def bind_known(g: Graph) -> Graph:
    """`g` without the symbols that are bound to known values, or to what another is bound to."""
    values: dict[Expr, Expr] = {}
    first: dict[tuple[Node, int], Symbol] = {}
    for node in g.binders:
        checks = node.attrs.get("checks", ())
        if node.op.name != "bind_size" or not all(is_const(holds, True) for holds, *_ in checks):
            continue
        found = {sym(s): _known(node, k, s, first) for k, s in enumerate(bound_symbols(node))}
        if None not in found.values():
            values |= {s: substitute(e, values) for s, e in found.items()}
            for s in found:
                trace.decision("size", s.value.name, "proved", f"always {values[s]}")
    return substitute_symbols(g, values) if values else g


def _known(binder: Node, k: int, s: Symbol, first: dict) -> Expr | None:
    """What the symbol may be replaced by."""
    other = first.setdefault((binder.args[0], k), s)
    value = sym(other) if other is not s else scalar_value(binder.args[0], k)
    if value is None or s in symbols_of(value) or not holds_for(s, value):
        return None
    return value


def holds_for(s: Symbol, e: Expr) -> bool:
    """Whether everything that is promised of a symbol is known of an expression."""
    low, high = bounds(e)
    if s.min is not None and (low is None or low < s.min):
        return False
    if s.max is not None and (high is None or high > s.max):
        return False
    if s.values is not None or multiple_of(e) % s.multiple_of:
        return False
    return s.upper is None or compare("le", e, s.upper) is const(True, boolean)


def substitute_symbols(g: Graph, values: dict[Expr, Expr]) -> Graph:
    """`g` with expressions for symbols in all types and attributes; their binders are gone."""
    gone = {e.value for e in values}
    memo: dict = {}

    def visit(node: Node, args: tuple) -> Node:
        own = bound_symbols(node)
        if own and set(own) <= gone and node.op.name == "bind_size":
            return args[0]
        attrs = {k: in_attr(v, values, memo) for k, v in node.attrs.items()}
        type_ = in_type(node.type, values, memo)
        if type_ == node.type and all(attrs[k] is v for k, v in node.attrs.items()):
            return with_args(node, args)
        trace.fired("known-symbol", node)
        return replace(node, args=args, attrs=attrs, type=type_)

    params = tuple(replace(p, type=in_type(p.type, values, memo)) for p in g.params)
    if all(p.type == q.type for p, q in zip(params, g.params)):
        return rebuild(g, visit)
    return _with_params(g, params, visit)


def _with_params(g: Graph, params: tuple[Node, ...], visit) -> Graph:
    """A body whose parameters mention symbols of the graph around it."""
    new: dict[Node, Node] = dict(zip(g.params, params))
    for node in g.nodes():
        if node not in new:
            new[node] = visit(node, tuple(None if a is None else new[a] for a in node.args))
    return replace(g, params=params, results=tuple(new[r] for r in g.results),
                   binders=tuple(new[b] for b in g.binders if bound_symbols(new[b])))  # fmt: skip


def in_type(t: Type, values, memo) -> Type:
    if isinstance(t, TupleType):
        return TupleType(tuple(in_type(i, values, memo) for i in t.items))
    if isinstance(t, TensorType):
        return TensorType(t.dtype, tuple(in_attr(d, values, memo) for d in t.shape))
    return t


def in_attr(value, values: dict[Expr, Expr], memo):
    if isinstance(value, Expr):
        new = substitute(value, values, memo)
        return as_dim(new) if new.dtype in (index, boolean) and new is not value else value
    if isinstance(value, tuple):
        new = tuple(in_attr(v, values, memo) for v in value)
        return value if all(a is b for a, b in zip(new, value)) else new
    if isinstance(value, TensorType):
        return in_type(value, values, memo)
    return substitute_symbols(value, values) if isinstance(value, Graph) else value
