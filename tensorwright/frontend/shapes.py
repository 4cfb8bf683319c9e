"""What the user says of the dimensions of a model's inputs, in the shape language.

    shapes={"x": "n[1..64], 3, h{224,320,448}, w=h"}      shapes="x: n,3,224,224; y: n"

A dimension is an int, a name, a name with facts (`n[1..64]` bounds, `s[8..4096%8]` also a divisor,
`h{224,320,448}` the only values; `n*{128,256,%16}` sizes and divisors to be specialized for),
`w=h` or `2*n + 1` (an expression of other names), `?` (unknown),
`_` (as the model declares it). Equal names are one symbol. Sequences of ints, names, None and
torch.export.Dim objects, and {axis: dimension} for some of the axes, are understood as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence

from tensorwright.base.errors import FrontendError
from tensorwright.frontend.demands import Bounds, Demands
from tensorwright.ir.expr import Expr, Symbol, as_dim, as_expr, sym
from tensorwright.ir.facts import solve
from tensorwright.ir.type import Dim, Shape

HELP = (
    "a dimension is an int, n, n[1..64], s[8..4096%8], h{224,320}, w=h, 2*n, ? or _ (as declared); "
    "n[1..512]*{128,%16} adds what is to be fastest"
)
_NAMED = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*)\s*"
    r"(?:\[\s*(?P<low>\d*)\s*(?P<dots>\.\.)?\s*(?P<high>\d*)\s*(?:%\s*(?P<step>\d+))?\s*\]"
    r"|\{(?P<values>[\d,\s]+)\})?\s*"
    r"(?:\*\s*\{(?P<hot>[\d,%\s]+)\})?"
)


class Shapes:
    """The wishes for one model, and its symbols by name."""

    def __init__(
        self, spec: str | Mapping | None = None, names: Sequence[str] = (),
        demands: Demands | None = None, least: int = 1, empty: Collection[str] = (),
    ):  # fmt: skip
        """demands: what the model itself demands of its sizes; least: the lower bound of a size of
        which nothing is said; empty: names of sizes whose lower bound is 0 then."""
        self.demands, self.least, self.empty = demands or Demands(), least, empty
        self.symbols: dict[str, Expr] = {}
        self.stated: dict[str, dict] = {}
        self.plain: set[str] = set()  # the model's own names that stand alone in a dimension
        self.renamed: dict[str, Dim] = {}  # the model's own dimension names -> the user's
        self.given = {k: _parts(k, v) for k, v in _per_input(spec, names).items()}
        unknown = [n for n in self.given if n not in names]
        if unknown:
            raise FrontendError(
                f"shapes names {', '.join(map(repr, unknown))}, which is no input of the model",
                help=f"inputs: {', '.join(names)}",
            )
        for parts in self.given.values():  # facts first: a name may be used before they are given
            for part in parts.values() if isinstance(parts, dict) else parts:
                self._declare(part)

    def learn(self, name: str, declared: Sequence | None) -> None:
        """Note which of the model's dimension names the user renames in input `name`; call it for
        every input before the first `shape_of`."""
        self.plain |= {d for d in declared or () if isinstance(d, str) and d.isidentifier()}
        for axis, part in self._wishes(name, declared).items():
            own = declared[axis] if declared is not None else None
            if isinstance(own, str) and not _keeps(part):
                dim = self._dim(part, own, f"{name}_{axis}")
                if self.renamed.setdefault(own, dim) != dim:
                    raise FrontendError(
                        f"shapes gives the dimension {own!r} of the model two values: "
                        f"{self.renamed[own]} and {dim}"
                    )

    def shape_of(self, name: str, declared: Sequence | None) -> Shape:
        """The shape of input `name`, whose dimensions the model declares as ints, names or None
        (or None for an unknown rank)."""
        wishes = self._wishes(name, declared)
        if declared is None:
            if name not in self.given or isinstance(self.given[name], dict):
                raise FrontendError(
                    f"the model does not declare the rank of input {name!r}",
                    help=f'give it: shapes={{"{name}": "n, 3, 224, 224"}}',
                )
            declared = [None] * len(wishes)
        return tuple(
            self._dim(wishes.get(axis, "_"), own, f"{name}_{axis}")
            for axis, own in enumerate(declared)
        )

    def symbol(self, name: str, **facts) -> Expr:
        """The symbol of that name; made, with these facts, on first use."""
        if name not in self.symbols:
            facts = {"min": 0 if name in self.empty else self.least, **facts}
            found = self.demands.bounds.get(name)
            self.symbols[name] = sym(Symbol(name, **(demanded(name, facts, found))))
            if found is not None:
                self.symbols[name].value.why = found.why_low, found.why_high
        return self.symbols[name]

    def _wishes(self, name: str, declared: Sequence | None) -> dict:
        parts = self.given.get(name, {})
        if isinstance(parts, dict):
            rank = None if declared is None else len(declared)
            for axis in parts:
                if not isinstance(axis, int) or (rank is not None and not -rank <= axis < rank):
                    raise FrontendError(f"shapes: input {name!r} has no axis {axis!r}")
            return {a % rank if rank else a: p for a, p in parts.items()}
        if declared is not None and len(parts) != len(declared):
            raise FrontendError(
                f"shapes gives {len(parts)} dimensions for input {name!r}, which has "
                f"{len(declared)}"
            )
        return dict(enumerate(parts))

    def _declare(self, part) -> None:
        """Make the symbol of a part that states facts."""
        if isinstance(part, str) and (m := _NAMED.fullmatch(part)) and len(part) > len(m["name"]):
            name, facts = m["name"], _facts(part, m)
        elif _is_torch_dim(part):
            name = part.__name__
            facts = {"min": getattr(part, "min", None) or 1, "max": _finite(part)}
        else:
            return
        if self.stated.setdefault(name, facts) != facts:
            raise FrontendError(f"shapes states different facts of dimension {name!r}: {part}")
        self.symbol(name, **facts)

    def _dim(self, part, own, fresh: str) -> Dim:
        """The dimension that `part` asks for where the model declares `own`."""
        if _keeps(part):
            if isinstance(own, str):
                return self._own(own)
            return self.symbol(fresh) if own is None else as_dim(own)
        if isinstance(part, Expr):
            return as_dim(part)
        if isinstance(part, int) and not isinstance(part, bool):
            if part < 0:
                raise FrontendError(f"shapes: a dimension cannot be {part}", help=HELP)
            return part
        if _is_torch_dim(part):
            return self.symbol(part.__name__)
        if not isinstance(part, str):
            raise FrontendError(f"shapes: {part!r} is not a dimension", help=HELP)
        if part == "?":
            return self.symbol(fresh)
        if m := _NAMED.fullmatch(part):
            return self.symbol(m["name"])
        head, equals, tail = part.partition("=")
        if not equals and part.strip().isidentifier():
            return self.symbol(part)
        dim = self._expression(tail if equals else part, part)
        if equals and self.symbols.setdefault(head.strip(), as_expr(dim)) != as_expr(dim):
            raise FrontendError(f"shapes gives {head.strip()!r} two values: {part}")
        return dim

    def _own(self, text: str) -> Dim:
        """A dimension as the model names it. Exporters also write `past + 1` or `16*h`: taken at
        their word if the sizes of the inputs tell the names in it."""
        if text in self.renamed:
            return self.renamed[text]
        names = set(re.findall(r"[A-Za-z_]\w*", text))
        if not text.isidentifier() and names and (names <= self.plain or len(names) == 1):
            try:
                dim = self._expression(text, text)
            except FrontendError:  # then it is just a name
                return self.symbol(text)
            if names <= self.plain or not solve([dim]).unsolved:
                return dim
        return self.symbol(text)

    def _expression(self, text: str, part: str) -> Dim:
        """`2*n + 1` over the symbols."""

        def value(e):
            match e:
                case ast.Expression(body=b):
                    return value(b)
                case ast.Constant(value=int(v)) if not isinstance(v, bool):
                    return v
                case ast.Name(id=name):
                    known = self.renamed.get(name)
                    return self.symbol(name) if known is None else as_expr(known)
                case ast.BinOp(left=a, op=ast.Add(), right=b):
                    return value(a) + value(b)
                case ast.BinOp(left=a, op=ast.Sub(), right=b):
                    return value(a) - value(b)
                case ast.BinOp(left=a, op=ast.Mult(), right=b):
                    return value(a) * value(b)
                case ast.BinOp(left=a, op=ast.FloorDiv(), right=b):
                    return as_expr(value(a)) // as_expr(value(b))
            raise FrontendError(f"shapes: {part!r} is not a dimension", help=HELP)

        try:
            return as_dim(value(ast.parse(text.strip(), mode="eval")))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise FrontendError(f"shapes: {part!r} is not a dimension", help=HELP) from None


def demanded(name: str, facts: dict, found: Bounds | None) -> dict:
    """The user's facts cut by what the model demands; FrontendError where the user says more."""
    if found is None:
        return facts
    low, high = facts["min"], facts.get("max")
    values = [v for v in facts.get("values") or () if (found.low or 0) <= v]
    if found.high is not None and high is not None and high > found.high:
        raise FrontendError(
            f"dimension {name!r} is at most {found.high} in this model, shapes says {high}",
            help=f"{found.why_high} needs it",
        )
    low = max(low, found.low or 0)
    if high is not None and high < low:
        raise FrontendError(
            f"dimension {name!r} is at least {low} in this model, shapes says {high}",
            help=f"{found.why_low} needs it",
        )
    new = {**facts, "min": low, "max": found.high if high is None else high}
    return new | ({"values": tuple(values), "min": values[0]} if values else {})


def _keeps(part) -> bool:
    return part is None or part == "_"


def _is_torch_dim(part) -> bool:
    return not isinstance(part, (str, int, Expr)) and isinstance(
        getattr(part, "__name__", None), str
    )


def _finite(dim) -> int | None:
    high = getattr(dim, "max", None)
    return high if isinstance(high, int) and high < 1 << 40 else None


def _facts(part: str, m: re.Match) -> dict:
    if m["values"] is not None:
        values = sorted({int(v) for v in m["values"].split(",") if v.strip()})
        if not values:
            raise FrontendError(f"shapes: {part!r} lists no value", help=HELP)
        return {"min": values[0], "max": values[-1], "values": tuple(values), **_hot(part, m)}
    high = int(m["high"]) if m["high"] else (int(m["low"]) if m["low"] and not m["dots"] else None)
    step = int(m["step"] or 1)
    if step < 1 or (high is not None and high < int(m["low"] or 0)):
        raise FrontendError(f"shapes: no size satisfies {part!r}", help=HELP)
    low = {"min": int(m["low"])} if m["low"] else {}
    return {**low, "max": high, "multiple_of": step, **_hot(part, m)}


def _hot(part: str, m: re.Match) -> dict:
    """The sizes and divisors behind `*`."""
    if m["hot"] is None:
        return {}
    found = [h.strip() for h in m["hot"].split(",") if h.strip()]
    if not found or any(not re.fullmatch(r"\d+|%[1-9]\d*", h) for h in found):
        raise FrontendError(f"shapes: {part!r} lists no hot sizes", help=HELP)
    return {"hot": tuple(h if h[0] == "%" else int(h) for h in found)}


def _per_input(spec, names: Sequence[str]) -> dict:
    """`spec` as a dict by input; the whole-string form taken apart."""
    if spec is None:
        return {}
    if isinstance(spec, Mapping):
        return dict(spec)
    if not isinstance(spec, str):
        raise FrontendError(f"shapes is a string or a dict, not {type(spec).__name__}")
    if ":" not in spec:
        if len(names) != 1:
            raise FrontendError(
                "shapes names no input, and the model has several",
                help=f'write "{next(iter(names), "x")}: {spec}; ..."',
            )
        return {names[0]: spec}
    found = {}
    for clause in filter(str.strip, spec.split(";")):
        name, colon, text = clause.rpartition(":")
        if not colon or name.strip() in found:
            raise FrontendError(f"shapes: {clause.strip()!r} is not `input: dimensions`", help=HELP)
        found[name.strip()] = text
    return found


def _parts(name: str, spec):
    """The dimensions of one input, still unread: a list, or {axis: dimension}."""
    if isinstance(spec, str):
        text = (
            spec.strip().removeprefix("[").removesuffix("]")
            if spec.count("[") == spec.count("]") and re.fullmatch(r"\[[^\[\]]*\]", spec.strip())
            else spec.strip()
        )
        parts = re.split(r",(?![^\[{]*[\]}])", text) if text else []
        return [_part(p) for p in parts]
    if isinstance(spec, Mapping):
        return {k: _part(v) for k, v in spec.items()}
    if isinstance(spec, Sequence):
        return [_part(p) for p in spec]
    raise FrontendError(f"shapes: {spec!r} is no shape of input {name!r}", help=HELP)


def _part(p):
    if not isinstance(p, str):
        return p
    p = p.strip()
    if p.isdigit():
        return int(p)
    if not p:
        raise FrontendError("shapes: a dimension is empty", help=HELP)
    return p
