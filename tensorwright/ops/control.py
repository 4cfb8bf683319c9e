"""Control flow and tuples. The host compiler handles these rows by name; none has a loop nest.

    y = if_(c, x, then=<graph (x)>, orelse=<graph (x)>)
    n = while_(n, x, cond=<graph (n, x)>, body=<graph (n, x)>, carried=1)
    h, ys = scan_(h, xs, w, body=<graph (h, x, w)>, carried=1, scanned=1)

A body sees its own parameters only. A dimension that differs between branches, or that a loop
changes, is a fresh symbol of the result, listed in `symbols` in order of appearance. A loop changes
a dimension of its state if the body's parameter has a symbol of its own there. `conditional`,
`loop_while` and `scan` find out how many symbols are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tensorwright.base.errors import CompileError
from tensorwright.ir.dtype import boolean
from tensorwright.ir.expr import Expr, Symbol, symbols_of, var
from tensorwright.ir.graph import Graph, Node, bound_symbols
from tensorwright.ir.type import (
    Dim,
    TensorType,
    TupleType,
    Type,
    dim_text,
    shape_of,
    type_symbols,
)  # fmt: skip
from tensorwright.ops.define import define, require

# ---- tuples ------------------------------------------------------------------------------------


def _infer_item(t: TupleType, *, index: int) -> Type:
    require(isinstance(t, TupleType), f"item: {t} is not a tuple")
    require(0 <= index < len(t.items), f"item: {t} has no item {index}")
    return t.items[index]


item = define("item", "t", infer=_infer_item, reference=lambda t, index: t[index],
              doc="One element of a tuple.")  # fmt: skip
make_tuple = define("make_tuple", "*xs", infer=lambda *xs: TupleType(xs),
                    reference=lambda *xs: xs, doc="A tuple of the operands.")  # fmt: skip


def items(t: Node) -> tuple[Node, ...]:
    """The elements of a tuple node; (t,) for a tensor."""
    if not isinstance(t.type, TupleType):
        return (t,)
    return tuple(item(t, index=k) for k in range(len(t.type.items)))


# ---- types of bodies and results ---------------------------------------------------------------


def hidden_symbols(body: Graph) -> set[Symbol]:
    """Symbols that only the body knows, because it binds them."""
    return {s for b in body.binders for s in bound_symbols(b)}


def _single(types: Sequence[Type]) -> Type:
    return types[0] if len(types) == 1 else TupleType(tuple(types))


def _check_params(op: str, what: str, body: Graph, given: Sequence[Type]) -> None:
    """The parameters of a body are what is passed to it; a dimension may be a symbol of its own."""
    require(
        len(body.params) == len(given),
        f"{op}: {what} takes {len(body.params)} operands, {len(given)} are given",
    )
    outside = type_symbols(*given)
    for k, (p, t) in enumerate(zip(body.params, given)):
        require(
            _accepts(p.type, t, outside),
            f"{op}: parameter {k + 1} of {what} is {p.type}, operand {k + 1} is {t}",
        )


def _accepts(parameter: Type, given: Type, outside: set[Symbol]) -> bool:
    if isinstance(parameter, TensorType) and isinstance(given, TensorType):
        return (
            parameter.dtype is given.dtype
            and parameter.rank == given.rank
            and all(a == b or _is_own(a, outside) for a, b in zip(parameter.shape, given.shape))
        )
    return parameter == given


def _is_own(d: Dim, outside: set[Symbol]) -> bool:
    return isinstance(d, Expr) and d.op == "sym" and d.value not in outside


def _joined(op: str, what: str, variants: Sequence[Type], hidden: set, fresh: Iterator) -> Type:
    """One type for a value that has one of the types: dimensions that may differ become fresh."""
    first = variants[0]
    if isinstance(first, TupleType):
        require(
            all(isinstance(v, TupleType) and len(v.items) == len(first.items) for v in variants),
            f"{op}: {what} is {variants[0]} or {variants[1]}",
        )
        return TupleType(tuple(_joined(op, what, parts, hidden, fresh)
                               for parts in zip(*(v.items for v in variants))))  # fmt: skip
    if not isinstance(first, TensorType):
        require(all(v == first for v in variants),
                f"{op}: {what} is {' or '.join(map(repr, dict.fromkeys(variants)))}")  # fmt: skip
        return first
    for v in variants[1:]:
        require(isinstance(v, TensorType) and v.dtype is first.dtype and v.rank == first.rank,
                f"{op}: {what} is {first} or {v}", "make dtype and rank agree")  # fmt: skip
    shape = []
    for dims in zip(*(v.shape for v in variants)):
        same = all(d == dims[0] for d in dims) and not _symbols(dims[0]) & hidden
        shape.append(dims[0] if same else _next(op, what, dims, fresh))
    return TensorType(first.dtype, shape_of(shape))


def _symbols(d: Dim) -> set[Symbol]:
    return symbols_of(d) if isinstance(d, Expr) else set()


def _next(op: str, what: str, dims, fresh: Iterator) -> Expr:
    found = next(fresh, None)
    if found is None:
        raise CompileError(
            f"{op}: a dimension of {what} is {' or '.join(map(dim_text, dims))}, known only at "
            "run time", help="list a fresh symbol for it in `symbols`")  # fmt: skip
    return found


# ---- if ----------------------------------------------------------------------------------------


def _check_condition(op: str, t: Type) -> None:
    require(isinstance(t, TensorType) and t.dtype is boolean and t.rank == 0,
            f"{op}: the condition is {t}, it must be one bool")  # fmt: skip


def _type_of_if(captures, then: Graph, orelse: Graph, fresh: Iterator) -> Type:
    for what, body in (("the then branch", then), ("the else branch", orelse)):
        _check_params("if_", what, body, captures)
    a, b = then.result_types, orelse.result_types
    require(len(a) == len(b), f"if_: the branches give {len(a)} and {len(b)} results")
    hidden = hidden_symbols(then) | hidden_symbols(orelse)
    hidden |= type_symbols(*(p.type for g in (then, orelse) for p in g.params)) - type_symbols(
        *captures)  # fmt: skip
    return _single([_joined("if_", f"result {k + 1}", pair, hidden, fresh)
                    for k, pair in enumerate(zip(a, b))])  # fmt: skip


def _infer_if(cond: Type, *captures: Type, then: Graph, orelse: Graph, symbols=()) -> Type:
    _check_condition("if_", cond)
    return _type_of_if(captures, then, orelse, iter(symbols))


def _reference_if(cond, *captures, then: Callable, orelse: Callable, symbols=()):
    return (then if cond else orelse)(*captures)


if_ = define(
    "if_", "cond, *captures", infer=_infer_if, reference=_reference_if,
    doc="The results of the branch that a bool chooses.",
)  # fmt: skip


# ---- while -------------------------------------------------------------------------------------


def _loop_types(op, states, body: Graph, results, fresh: Iterator) -> list[Type]:
    """The types of the state after a loop."""
    outside = type_symbols(*states)
    hidden = hidden_symbols(body)
    found: list[Type] = []
    for k, (before, p, after) in enumerate(zip(states, body.params, results)):
        what = f"state {k + 1}"
        if not isinstance(before, TensorType):
            require(before == after, f"{op}: {what} is {before} before and {after} after a step")
            found.append(before)
            continue
        require(before.dtype is after.dtype and before.rank == after.rank,
                f"{op}: {what} is {before} before and {after} after a step")  # fmt: skip
        shape = []
        for first, own, then in zip(before.shape, p.type.shape, after.shape):
            changes = own != then or bool(_symbols(then) & hidden)
            require(
                not changes or _is_own(own, outside),
                f"{op}: a dimension of {what} is {dim_text(own)} before and {dim_text(then)} "
                "after a step",
                "give the parameter of the body a symbol of its own there",
            )
            shape.append(_next(op, what, (first, then), fresh) if changes else first)
        found.append(TensorType(before.dtype, tuple(shape)))
    return found


def _type_of_while(operands, cond: Graph, body: Graph, carried: int, fresh) -> Type:
    require(0 < carried <= len(operands), f"while_: {carried} states of {len(operands)} operands")
    _check_params("while_", "the body", body, operands)
    _check_params("while_", "the condition", cond, operands)
    require(len(cond.results) == 1, "while_: the condition has more than one result")
    _check_condition("while_", cond.results[0].type)
    results = body.result_types
    require(len(results) == carried, f"while_: the body gives {len(results)} of {carried} states")
    return _single(_loop_types("while_", operands[:carried], body, results, fresh))


def _infer_while(*operands: Type, cond: Graph, body: Graph, carried: int, symbols=()) -> Type:
    return _type_of_while(operands, cond, body, carried, iter(symbols))


def _reference_while(*operands, cond: Callable, body: Callable, carried: int, symbols=()):
    state, rest = operands[:carried], operands[carried:]
    while cond(*state, *rest):
        found = body(*state, *rest)
        state = found if isinstance(found, tuple) else (found,)
    return state if carried > 1 else state[0]


while_ = define(
    "while_", "*operands", infer=_infer_while, reference=_reference_while,
    doc="The state after running the body for as long as the condition holds.",
)  # fmt: skip


# ---- scan --------------------------------------------------------------------------------------


def _scan_length(xs: Sequence[TensorType], length: Dim | None) -> Dim:
    for k, x in enumerate(xs):
        require(x.rank > 0, f"scan_: scanned operand {k + 1} is a scalar")
        wanted = xs[0].shape[0] if length is None else length
        require(x.shape[0] == wanted,
                f"scan_: scanned operand {k + 1} has {dim_text(x.shape[0])} steps, not "
                f"{dim_text(wanted)}")  # fmt: skip
    require(length is not None or len(xs) > 0, "scan_: the number of steps is not known",
            "give `length`")  # fmt: skip
    return xs[0].shape[0] if length is None else length


def _type_of_scan(operands, body: Graph, carried: int, scanned: int, length, fresh) -> Type:
    require(
        carried + scanned <= len(operands),
        f"scan_: {carried} states and {scanned} scanned operands of {len(operands)}",
    )
    states, xs = operands[:carried], operands[carried : carried + scanned]
    steps = _scan_length(xs, length)
    slices = [TensorType(x.dtype, x.shape[1:]) for x in xs]
    given = (*states, *slices, *operands[carried + scanned :])
    _check_params("scan_", "the body", body, given)
    results = body.result_types
    require(len(results) >= carried, f"scan_: the body gives {len(results)} of {carried} states")
    after = _loop_types("scan_", states, body, results[:carried], fresh)
    local = hidden_symbols(body) | (type_symbols(*(p.type for p in body.params))
                                    - type_symbols(*given))  # fmt: skip
    stacked = []
    for k, t in enumerate(results[carried:]):
        require(isinstance(t, TensorType), f"scan_: collected result {k + 1} is {t}")
        require(
            not type_symbols(t) & local,
            f"scan_: collected result {k + 1} is {t}, whose size differs between steps",
        )
        stacked.append(TensorType(t.dtype, (steps, *t.shape)))
    return _single([*after, *stacked])


def _infer_scan(
    *operands: Type, body: Graph, carried: int = 0, scanned: int = 0, length: Dim | None = None,
    reverse: bool = False, symbols=(),
) -> Type:  # fmt: skip
    return _type_of_scan(operands, body, carried, scanned, length, iter(symbols))


def _reference_scan(
    *operands, body: Callable, carried=0, scanned=0, length=None, reverse=False, symbols=()
):  # fmt: skip
    state, xs = operands[:carried], operands[carried : carried + scanned]
    steps = len(xs[0]) if length is None else length
    collected = []
    for k in range(steps)[:: -1 if reverse else 1]:
        found = body(*state, *(x[k] for x in xs), *operands[carried + scanned :])
        found = found if isinstance(found, tuple) else (found,)
        state = found[:carried]
        collected.append(found[carried:])
    columns = zip(*(collected[::-1] if reverse else collected))
    results = (*state, *(np.stack(c) for c in columns))
    return results if len(results) > 1 else results[0]


scan_ = define(
    "scan_", "*operands", infer=_infer_scan, reference=_reference_scan,
    doc="The final state and the collected results of running the body over leading slices.",
)  # fmt: skip


# ---- call --------------------------------------------------------------------------------------


def _infer_call(*operands: Type, callee: str, type: Type, hot=()) -> Type:
    return type


call = define(
    "call", "*operands", infer=_infer_call,
    reference=lambda *operands, callee, type, hot=(): callee(*operands),
    doc="The result of another graph of the module, or of the first of the graphs `hot`, which "
        "compute the same, whose parameters have the sizes of the operands.",
)  # fmt: skip


# ---- builders that make the symbols ------------------------------------------------------------


def _with_symbols(type_of: Callable, build: Callable) -> Node:
    """`build(symbols)` with as many fresh symbols as the type rule asks for."""
    made: list[Expr] = []

    def supply() -> Iterator[Expr]:
        while True:
            made.append(var("d"))
            yield made[-1]

    type_of(supply())
    return build(tuple(made))


def conditional(cond: Node, captures, then: Graph, orelse: Graph) -> Node:
    """if_ with the fresh symbols that its result needs."""
    types = [c.type for c in captures]
    return _with_symbols(
        lambda fresh: _type_of_if(types, then, orelse, fresh),
        lambda s: if_(cond, *captures, then=then, orelse=orelse, symbols=s),
    )


def loop_while(operands, cond: Graph, body: Graph, carried: int) -> Node:
    """while_ with the fresh symbols that its result needs."""
    types = [o.type for o in operands]
    return _with_symbols(
        lambda fresh: _type_of_while(types, cond, body, carried, fresh),
        lambda s: while_(*operands, cond=cond, body=body, carried=carried, symbols=s),
    )


def scan(operands, body: Graph, carried: int = 0, scanned: int = 0, length=None, reverse=False):
    """scan_ with the fresh symbols that its result needs."""
    types = [o.type for o in operands]
    return _with_symbols(
        lambda fresh: _type_of_scan(types, body, carried, scanned, length, fresh),
        lambda s: scan_(
            *operands,
            body=body,
            carried=carried,
            scanned=scanned,
            length=length,
            reverse=reverse,
            symbols=s,
        ),
    )
