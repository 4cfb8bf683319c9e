"""Sizes of torch programs: torch's SymInts (sympy expressions) as index expressions.

    Sym(4*s77 + Max(1, s27))   ->   4*n + max(1, m)

Every torch symbol stands for one of our expressions (`Sizes.known`). A symbol of the inputs becomes
a `Symbol` with torch's range; an unbacked one (`u0`) is whatever the node that computed it bound.
torch itself is never imported here: sympy classes are told apart by their names.
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.base.errors import FrontendError
from tensorwright.ir.dtype import boolean, dtype, f64, i64
from tensorwright.ir.expr import (
    Expr,
    Symbol,
    all_of,
    any_of,
    as_dim,
    as_expr,
    compare,
    const,
    floordiv,
    maximum,
    minimum,
    mod,
    mul,
    select,
    sym,
    unary,
)  # fmt: skip
from tensorwright.ir.graph import Node, constant
from tensorwright.ir.type import Dim, TensorType
from tensorwright.ops import elementwise as ew
from tensorwright.ops import index as ix
from tensorwright.ops import movement as mv

# torch bounds an unlimited size by one of these.
UNBOUNDED = 1 << 60

RELATIONS = {
    "Equality": "eq", "Unequality": "ne", "StrictLessThan": "lt", "LessThan": "le",
    "StrictGreaterThan": "gt", "GreaterThan": "ge",
}  # fmt: skip


class Sizes:
    """Translates the sizes of one program. `ranges`: sympy symbol -> torch ValueRanges; `names`:
    sympy symbol -> the name that the user gave the dimension."""

    def __init__(self, ranges=None, names=None) -> None:
        self.ranges = dict(ranges or {})
        self.names = dict(names or {})
        self.known: dict[object, Expr] = {}
        self.floats: dict[object, Node] = {}
        self.places: dict[Node, Node] = {}  # of masks: where they hold
        self.draws = 0  # random operators imported so far

    def dim(self, value) -> Dim:
        """An int, or a SymInt (anything with `.node.expr`), as a dimension."""
        if isinstance(value, int):
            return int(value)
        return as_dim(self.expr(sympy_of(value)))

    def shape(self, dims) -> tuple[Dim, ...]:
        return tuple(self.dim(d) for d in dims)

    def declare_shapes(self, names, fakes) -> None:
        """Make the symbols in the shapes of the parameters ours: those that are a dimension by
        themselves, then those that only an expression tells (8*s), unless an int is passed for
        them. names: of the parameters, after which a dimension is named that the user did not."""
        for name, fake in zip(names, fakes):
            for axis, d in enumerate(getattr(fake, "shape", ())):
                if symbol_of(d) is not None:
                    self.names.setdefault(symbol_of(d), f"{name}_dim{axis}")
        dims = [d for fake in fakes for d in getattr(fake, "shape", ()) if not isinstance(d, int)]
        passed = {sympy_of(f) for f in fakes if type(f).__name__ == "SymInt"}
        for e in sorted(map(sympy_of, dims), key=lambda e: not e.is_Symbol):
            for s in sorted(e.free_symbols, key=str):
                if e.is_Symbol or s not in passed:
                    self.declare(s)

    def declare(self, symbol) -> None:
        """Make the symbol of a parameter's dimension one of ours."""
        if symbol in self.known:
            return
        low, high = self._range(symbol)
        taken = {e.value.name for e in self.known.values() if e.op == "sym"}
        name, k = self.names.get(symbol, str(symbol)), 2
        while name in taken:
            name, k = f"{self.names.get(symbol, str(symbol))}_{k}", k + 1
        self.known[symbol] = sym(Symbol(name, low, high))

    def fresh(self, symbol) -> Expr:
        """A new symbol for an unbacked one, for a node to bind."""
        low, high = self._range(symbol)
        self.known[symbol] = sym(Symbol(str(symbol), low, high))
        return self.known[symbol]

    def _range(self, symbol) -> tuple[int | None, int | None]:
        found = self.ranges.get(symbol)
        if found is None:
            return 0, None
        low, high = (_int_or_none(found.lower), _int_or_none(found.upper))
        return low, high

    def adopt(self, fake_dims, dims) -> None:
        """Learn unbacked symbols from the shape that a node got: u0 is that dimension."""
        for fake, ours in zip(fake_dims, dims):
            e = None if isinstance(fake, int) else sympy_of(fake)
            if e is not None and e.is_Symbol and e not in self.known:
                self.known[e] = as_expr(ours)

    def expr(self, e) -> Expr:
        """The index expression of a sympy integer expression."""
        if e.is_Integer:
            return const(int(e))
        if e.is_Symbol:
            if e not in self.known:
                raise FrontendError(
                    f"the size {e} is not known where it is used",
                    help="it comes from data; mark what it must satisfy with torch._check",
                )
            return self.known[e]
        rule = INTEGER.get(type(e).__name__)
        if rule is None:
            raise FrontendError(f"sizes of the form {e} ({type(e).__name__}) are not supported")
        return rule(self, *e.args)

    def truth(self, e) -> Expr:
        """The condition of a sympy relation between sizes."""
        kind = type(e).__name__
        if kind in ("BooleanTrue", "BooleanFalse"):
            return const(kind == "BooleanTrue", boolean)
        if kind in RELATIONS:
            return compare(RELATIONS[kind], self.expr(e.args[0]), self.expr(e.args[1]))
        if kind == "Not":
            return unary("not", self.truth(e.args[0]))
        if kind in ("And", "Or"):
            joined = all_of if kind == "And" else any_of
            return joined([self.truth(a) for a in e.args])
        raise FrontendError(f"conditions of the form {e} ({kind}) are not supported")

    def scalar(self, value, dtype_=None) -> Node:
        """A tensor of rank 0 with the value of a SymInt, SymFloat or SymBool."""
        e = sympy_of(value)
        node = self._truth_tensor(e) if _is_condition(e) else self._number(e)
        return node if dtype_ in (None, node.dtype) else ew.cast(node, dtype=dtype_)

    def _truth_tensor(self, e) -> Node:
        kind = type(e).__name__
        if kind in ("BooleanTrue", "BooleanFalse"):
            return constant(dtype("bool").numpy.type(kind == "BooleanTrue"))
        if kind in RELATIONS:
            op = {"eq": ew.equal, "ne": ew.not_equal, "lt": ew.less, "le": ew.less_equal,
                  "gt": ew.greater, "ge": ew.greater_equal}[RELATIONS[kind]]  # fmt: skip
            x, y = (self._number(a) for a in e.args)
            if x.dtype is not y.dtype:
                x, y = (ew.cast(v, dtype=f64) for v in (x, y))
            return op(x, y)
        if kind == "Not":
            return ew.logical_not(self._truth_tensor(e.args[0]))
        if kind in ("And", "Or"):
            op = ew.logical_and if kind == "And" else ew.logical_or
            return _folded(op, [self._truth_tensor(a) for a in e.args])
        raise FrontendError(f"conditions of the form {e} ({kind}) are not supported")

    def _number(self, e) -> Node:
        """i64[()] where the expression is an integer, else f64[()]."""
        if e.is_Float or (e.is_number and not e.is_Integer):
            return constant(f64.numpy.type(float(e)))
        if e in self.floats:
            return self.floats[e]
        if e.is_integer or (type(e).__name__ in INTEGER and not _holds_floats(e, self.floats)):
            return size_scalar(self.expr(e))
        rule = FLOATING.get(type(e).__name__)
        if rule is None:
            raise FrontendError(f"numbers of the form {e} ({type(e).__name__}) are not supported")
        args = [self._number(a) for a in e.args]
        return rule(*(a if a.dtype is f64 else ew.cast(a, dtype=f64) for a in args))


def size_scalar(e: Dim) -> Node:
    """i64[()] with the value of an index expression."""
    if isinstance(e, int):
        return constant(i64.numpy.type(e))
    return mv.reshape(ix.size(dims=(e,)), shape=())


def scalar_type(dtype_) -> TensorType:
    return TensorType(dtype(dtype_), ())


def sympy_of(value):
    """The sympy expression of a SymInt, SymFloat or SymBool."""
    node = getattr(value, "node", None)
    if node is None:
        raise FrontendError(f"{value!r} is not a symbolic number")
    return node.expr


def symbol_of(value):
    """The sympy symbol that a SymInt is, None if it is a longer expression or a number."""
    if isinstance(value, (int, float, bool)):
        return None
    e = sympy_of(value)
    return e if e.is_Symbol else None


def _int_or_none(bound) -> int | None:
    try:
        value = int(bound)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return value if abs(value) < UNBOUNDED else None


def _is_condition(e) -> bool:
    return bool(getattr(e, "is_Boolean", False) or getattr(e, "is_Relational", False))


def _holds_floats(e, floats) -> bool:
    return bool(e.atoms() & floats.keys())


def _folded(op: Callable, items: list):
    result = items[0]
    for x in items[1:]:
        result = op(result, x)
    return result


def _n_ary(op: Callable) -> Callable:
    return lambda s, *args: _folded(op, [s.expr(a) for a in args])


def _power(s: Sizes, base, exponent) -> Expr:
    if not exponent.is_Integer or int(exponent) < 0:
        raise FrontendError(f"a size with the factor {base}**({exponent}) is not supported")
    return _folded(mul, [const(1)] + [s.expr(base)] * int(exponent))


def _product(s: Sizes, *args) -> Expr:
    """A product; a rational factor p/q of an exact division becomes * p // q."""
    top, bottom = const(1), 1
    for a in args:
        if a.is_Rational and not a.is_Integer:
            top, bottom = top * int(a.p), bottom * int(a.q)
        else:
            top = top * s.expr(a)
    return top if bottom == 1 else floordiv(top, bottom)


def _rounded(up: bool) -> Callable:
    """floor or ceil of a true division of integers, or of an integer."""

    def rule(s: Sizes, e) -> Expr:
        if type(e).__name__ == "IntTrueDiv":
            a, b = (s.expr(x) for x in e.args)
            return -floordiv(-a, b) if up else floordiv(a, b)
        return s.expr(e)

    return rule


def _shift(left: bool) -> Callable:
    def rule(s: Sizes, a, b) -> Expr:
        power = const(1 << int(b))
        return s.expr(a) * power if left else floordiv(s.expr(a), power)

    return rule


def _select(s: Sizes, c, a, b) -> Expr:
    return select(s.truth(c), s.expr(a), s.expr(b))


def _piecewise(s: Sizes, *branches) -> Expr:
    result = s.expr(branches[-1].args[0])
    for branch in reversed(branches[:-1]):
        result = select(s.truth(branch.args[1]), s.expr(branch.args[0]), result)
    return result


def _divided(s: Sizes, a, b) -> Expr:
    return floordiv(s.expr(a), s.expr(b))


INTEGER: dict[str, Callable] = {
    "Add": lambda s, *args: _folded(lambda a, b: a + b, [s.expr(a) for a in args]),
    "Mul": _product,
    "Pow": _power, "PowByNatural": _power,
    "FloorDiv": _divided, "CleanDiv": _divided,
    "CeilDiv": lambda s, a, b: -floordiv(-s.expr(a), s.expr(b)),
    "Mod": lambda s, a, b: mod(s.expr(a), s.expr(b)),
    "PythonMod": lambda s, a, b: mod(s.expr(a), s.expr(b)),
    "ModularIndexing": lambda s, a, b, c: mod(floordiv(s.expr(a), s.expr(b)), s.expr(c)),
    "Max": _n_ary(maximum), "Min": _n_ary(minimum),
    "Where": _select, "Piecewise": _piecewise,
    "LShift": _shift(True), "RShift": _shift(False),
    "FloorToInt": _rounded(False), "CeilToInt": _rounded(True),
    "floor": _rounded(False), "ceiling": _rounded(True),
    "TruncToInt": _rounded(False), "Identity": lambda s, e: s.expr(e),
}  # fmt: skip

FLOATING: dict[str, Callable] = {
    "Add": lambda *xs: _folded(ew.add, list(xs)),
    "Mul": lambda *xs: _folded(ew.mul, list(xs)),
    "Pow": lambda x, y: ew.pow(x, y),
    "FloatPow": lambda x, y: ew.pow(x, y),
    "IntTrueDiv": lambda x, y: ew.div(x, y),
    "FloatTrueDiv": lambda x, y: ew.div(x, y),
    "ToFloat": lambda x: x,
    "Identity": lambda x: x,
    "OpaqueUnaryFn_sqrt": lambda x: ew.sqrt(x),
    "OpaqueUnaryFn_exp": lambda x: ew.exp(x),
    "OpaqueUnaryFn_log": lambda x: ew.log(x),
    "OpaqueUnaryFn_log2": lambda x: ew.log2(x),
    "OpaqueUnaryFn_sin": lambda x: ew.sin(x),
    "OpaqueUnaryFn_cos": lambda x: ew.cos(x),
    "OpaqueUnaryFn_tanh": lambda x: ew.tanh(x),
    "Max": lambda *xs: _folded(ew.maximum, list(xs)),
    "Min": lambda *xs: _folded(ew.minimum, list(xs)),
}
