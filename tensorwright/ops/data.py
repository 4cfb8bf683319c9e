"""Values of sum types and of functions: built, taken apart, called. The host compiler handles these
rows by name; none has a loop nest.

    t = construct(l, r, data=Tree, case='Node')                      t = Tree.Node(l, r)  in text
    y = match(t, w, Leaf=<graph (x, w)>, Node=<graph (l, r, w)>)     orelse=<graph (w)> for the rest
    f = closure(b, body=<graph (x, b)>, params=(f32[8],))            y = apply(f, x)

An arm takes the fields of its case and then the captures. Where the declaration has a symbol for a
dimension, the arm's parameter has one of its own, which is bound by the value at hand. As with
branches, a dimension of the result that arms do not share is a fresh symbol listed in `symbols`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tensorwright.base.value import Value
from tensorwright.ir.expr import Expr
from tensorwright.ir.graph import Graph, Node
from tensorwright.ir.type import (
    Case,
    DataType,
    FunctionType,
    TensorType,
    TupleType,
    Type,
    dim_text,
    type_symbols,
)  # fmt: skip
from tensorwright.ops.control import (
    _check_params,
    _joined,
    _single,
    _with_symbols,
    hidden_symbols,
)  # fmt: skip
from tensorwright.ops.define import define, require

# ---- constructors ------------------------------------------------------------------------------


def check_data(t: DataType) -> None:
    """CompileError unless the declaration makes sense."""
    names = [c.name for c in t.cases]
    require(t.name.isidentifier() and t.name[0].isupper(), f"a data type is named {t.name!r}",
            "start its name with a capital letter")  # fmt: skip
    require(bool(names), f"{t} has no cases")
    require(len(set(names)) == len(names), f"{t}: two cases have one name")
    for c in t.cases:
        require(c.name.isidentifier() and c.name[0].isupper(), f"{t}: a case is named {c.name!r}",
                "start its name with a capital letter")  # fmt: skip
        for name, f in c.fields:
            require(not isinstance(f, TupleType), f"{t}.{c.name}: the field {name} is a tuple",
                    "make its parts fields of their own")  # fmt: skip
            for d in f.shape if isinstance(f, TensorType) else ():
                require(isinstance(d, int) or d.op == "sym",
                        f"{t}.{c.name}: the field {name} has the size {dim_text(d)}",
                        "a size of a field is a number or a name")  # fmt: skip


def case_of(op: str, t: Type, name: str) -> Case:
    require(isinstance(t, DataType), f"{op}: {t} is no data type")
    found = t.case(name)
    require(found is not None, f"{op}: {t} has no case {name!r}",
            "it has " + ", ".join(c.name for c in t.cases))  # fmt: skip
    return found


def _infer_construct(*fields: Type, data: DataType, case: str) -> Type:
    c = case_of("construct", data, case)
    check_data(data)
    what = f"{data}.{case}"
    require(len(fields) == len(c.fields), f"{what} takes {len(c.fields)} fields, not {len(fields)}")
    sizes: dict[Expr, object] = {}
    for (name, wanted), t in zip(c.fields, fields):
        fits = type(t) is type(wanted)
        if fits and isinstance(t, TensorType):
            fits = t.dtype is wanted.dtype and t.rank == wanted.rank and all(
                sizes.setdefault(w, d) == d if isinstance(w, Expr) else w == d
                for w, d in zip(wanted.shape, t.shape))  # fmt: skip
        elif fits:
            fits = t == wanted
        require(fits, f"{what}: the field {name} is {wanted}, {t} is given")
    return data


construct = define(
    "construct", "*fields", infer=_infer_construct,
    reference=lambda *fields, data, case: Value(case, fields),
    doc="A value of a sum type.",
)  # fmt: skip


# ---- match -------------------------------------------------------------------------------------


def arms_of(node: Node) -> list[tuple[Case | None, Graph]]:
    """(case, arm) of a match; case None: the arm for the rest."""
    t = node.args[0].type
    return [(t.case(k), g) for k, g in node.attrs.items() if isinstance(g, Graph)]


def _check_arm(data: DataType, case: Case, arm: Graph, captures: Sequence[Type]) -> None:
    what, count = f"the arm {case.name}", len(case.fields)
    given = (*case.types, *captures)
    _check_params("match", what, arm, given)
    outside = type_symbols(*captures)
    sizes: dict[Expr, object] = {}
    for p, (name, wanted) in zip(arm.params[:count], case.fields):
        if not isinstance(wanted, TensorType):
            continue
        for own, declared in zip(p.type.shape, wanted.shape):
            good = sizes.setdefault(own, declared) == declared and (
                own == declared if isinstance(declared, int) else
                isinstance(own, Expr) and own.op == "sym" and own.value not in outside)  # fmt: skip
            require(good, f"match: {what} takes the field {name} as {p.type}, it is {wanted}",
                    "give its parameter symbols of its own")  # fmt: skip


def _type_of_match(t: Type, captures, arms: dict[str, Graph], fresh: Iterator) -> Type:
    require(isinstance(t, DataType), f"match: {t} is no data type")
    check_data(t)
    names = [c.name for c in t.cases]
    unknown = [k for k in arms if k not in names and k != "orelse"]
    require(not unknown, f"match: {t} has no case {', '.join(unknown)}")
    missing = [n for n in names if n not in arms]
    require(not missing or "orelse" in arms, f"match: {t} may be {', '.join(missing)}",
            "add an arm for it, or `orelse`")  # fmt: skip
    hidden = set()
    for name, arm in arms.items():
        if name == "orelse":
            _check_params("match", "the arm for the rest", arm, captures)
        else:
            _check_arm(t, t.case(name), arm, captures)
        hidden |= hidden_symbols(arm)
        hidden |= type_symbols(*(p.type for p in arm.params)) - type_symbols(*captures)
    found = [arm.result_types for arm in arms.values()]
    require(len({len(f) for f in found}) == 1, "match: the arms give different numbers of results")
    return _single([_joined("match", f"result {k + 1}", row, hidden, fresh)
                    for k, row in enumerate(zip(*found))])  # fmt: skip


def _infer_match(t: Type, *captures: Type, symbols=(), **arms: Graph) -> Type:
    return _type_of_match(t, captures, arms, iter(symbols))


def _reference_match(t, *captures, symbols=(), **arms: Callable):
    arm = arms.get(t.case)
    return arms["orelse"](*captures) if arm is None else arm(*t.fields, *captures)


match = define(
    "match", "t, *captures", infer=_infer_match, reference=_reference_match,
    doc="The results of the arm of a value's case, on its fields.",
)  # fmt: skip


def match_on(t: Node, captures, arms: dict[str, Graph]) -> Node:
    """match with the fresh symbols that its result needs; arms in the order of the cases."""
    if isinstance(t.type, DataType):
        rank = {c.name: k for k, c in enumerate(t.type.cases)}
        arms = dict(sorted(arms.items(), key=lambda kv: rank.get(kv[0], len(rank))))
    types = [c.type for c in captures]
    return _with_symbols(
        lambda fresh: _type_of_match(t.type, types, arms, fresh),
        lambda s: match(t, *captures, symbols=s, **arms),
    )


# ---- functions as values -----------------------------------------------------------------------


def _infer_closure(*captures: Type, body: Graph, params: TupleType | tuple) -> Type:
    wanted = params.items if isinstance(params, TupleType) else tuple(params)
    _check_params("closure", "the body", body, (*wanted, *captures))
    outside = type_symbols(*wanted)
    result = _single(body.result_types)
    require(not type_symbols(result) - outside, f"closure: the size of its result {result} is not "
            "that of a parameter")  # fmt: skip
    return FunctionType(wanted, result)


closure = define(
    "closure", "*captures", infer=_infer_closure,
    reference=lambda *captures, body, params: lambda *args: body(*args, *captures),
    doc="A function as a value: a body and what it captures.",
)  # fmt: skip


def _infer_apply(f: Type, *args: Type) -> Type:
    require(isinstance(f, FunctionType), f"apply: {f} is no function")
    require(len(args) == len(f.params), f"apply: {f} takes {len(f.params)} operands")
    for k, (wanted, t) in enumerate(zip(f.params, args)):
        require(wanted == t, f"apply: operand {k + 1} is {t}, the function takes {wanted}")
    return f.result


apply = define("apply", "f, *args", infer=_infer_apply, reference=lambda f, *args: f(*args),
               doc="The results of a function value.")  # fmt: skip
