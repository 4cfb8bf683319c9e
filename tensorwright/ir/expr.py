"""Scalar expressions, shared by shapes, loop bounds, subscripts and loop bodies.

An `Expr` is immutable and interned: structurally equal expressions are the same object, so `==`
and `hash` are identity. Index expressions (dtype `index`) are brought to one canonical form when
they are built (`simplify.py`); everything else is kept as written, apart from constant folding.

Semantics that every reader of an Expr relies on:
- Arguments are evaluated in no particular order, any number of times; a Load has no side effect.
  `select(c, a, b)` evaluates only the arm it takes where the other could trap or leave a buffer;
  `and`/`or` on bool evaluate both sides unless the right one loads, which the left then guards.
- `index` never overflows. `iN` and `uN` wrap around modulo 2**N.
- `floordiv` rounds to minus infinity and `mod` takes the sign of the divisor (Python's `//`, `%`).
  `truncdiv` rounds to zero and `rem` takes the sign of the dividend (C's `/`, `%`). An integer
  division by zero gives 0, a remainder by zero gives 0; MIN / -1 wraps to MIN. On floats `mod` is
  the floored and `rem` the truncated remainder.
- `shl`/`shr` by at least the width give 0 (`shr` of a negative value gives -1); `shr` is
  arithmetic on signed and logical on unsigned types.
- Float arithmetic is IEEE 754 in the type named, rounding to nearest even, one rounding an
  operation; `fma` rounds once, and an implementation without the instruction may round twice.
  f16, bf16 and narrower types are computed in f32 and rounded after every operation unless the
  target computes them natively.
- `min`, `max` of floats return NaN if either side is NaN; -0.0 and 0.0 compare equal.
- Comparisons with NaN are false, except `ne`. `round` is half to even.
- `cast` to a float rounds to nearest even; overflow gives an infinity, or the largest finite value
  in types without one where ONNX asks for saturation. Float to integer truncates and saturates,
  NaN gives 0. Integer to narrower integer wraps. Anything to bool is `x != 0`.
- `pow` of integers with a negative exponent is 0 unless the base is 1 or -1.
"""

from __future__ import annotations

import itertools
import math
import struct
import weakref
from collections.abc import Callable, Iterable
from hashlib import sha256
from operator import attrgetter, is_

from tensorwright.ir.dtype import DType, boolean, dtype, index

ARITHMETIC = ("add", "sub", "mul", "div", "floordiv", "mod", "truncdiv", "rem", "pow", "min", "max",
              "atan2")  # fmt: skip
BITWISE = ("and", "or", "xor", "shl", "shr")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
UNARY = (
    "neg", "abs", "sign", "floor", "ceil", "trunc", "round", "sqrt", "rsqrt", "reciprocal", "exp",
    "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "sigmoid", "lgamma", "digamma", "not",
    "popcount",
)  # fmt: skip
PREDICATES = ("isnan", "isinf", "isfinite")


class Expr:
    """One interned node: `op`, `dtype`, `args` (expressions) and `value` (what `op` needs besides).

    value: the number of a `const`, the `Symbol` of a `sym`, the `Buffer` of a `load`, the function
    name of a `call`, else None.
    """

    __slots__ = (
        "__weakref__", "_bounds", "_key", "_linear", "_reads", "_symbols", "_text", "args", "dtype",
        "op", "value",
    )  # fmt: skip

    op: str
    dtype: DType
    args: tuple[Expr, ...]
    value: object

    def __add__(self, other):
        return add(self, other)

    def __radd__(self, other):
        return add(other, self)

    def __sub__(self, other):
        return sub(self, other)

    def __rsub__(self, other):
        return sub(other, self)

    def __mul__(self, other):
        return mul(self, other)

    def __rmul__(self, other):
        return mul(other, self)

    def __truediv__(self, other):
        return binary("div", self, other)

    def __rtruediv__(self, other):
        return binary("div", other, self)

    def __floordiv__(self, other):
        return floordiv(self, other)

    def __rfloordiv__(self, other):
        return floordiv(other, self)

    def __mod__(self, other):
        return mod(self, other)

    def __rmod__(self, other):
        return mod(other, self)

    def __neg__(self):
        return mul(self, -1) if self.dtype is index else unary("neg", self)

    def __lt__(self, other):
        return compare("lt", self, other)

    def __le__(self, other):
        return compare("le", self, other)

    def __gt__(self, other):
        return compare("gt", self, other)

    def __ge__(self, other):
        return compare("ge", self, other)

    def __and__(self, other):
        return binary("and", self, other)

    def __or__(self, other):
        return binary("or", self, other)

    def __bool__(self):
        raise TypeError(
            f"the truth of {self} is not known while compiling; use select() or ir.facts.prove()"
        )

    def __repr__(self) -> str:
        return to_text(self)

    def __reduce__(self):
        return (make, (self.op, self.dtype, self.args, self.value))


_SERIAL = itertools.count()


class Symbol:
    """A named integer variable of a shape or a loop, with what is known of it.

    min, max: inclusive bounds or None; multiple_of: a known divisor; upper: an index expression
    that it is known not to exceed (a loop variable's extent - 1); hot: sizes (128) and divisors
    ("%16") that come often. Two symbols are the same only
    if they are the same object.
    """

    __slots__ = (
        "__weakref__", "hot", "max", "min", "multiple_of", "name", "origin", "serial", "upper",
        "values", "why",
    )  # fmt: skip

    def __init__(self, name, min=0, max=None, multiple_of=1, upper=None, values=None, hot=()):
        self.serial = next(_SERIAL)  # orders symbols of one name
        self.name, self.min, self.max = name, min, max
        self.multiple_of, self.upper = multiple_of, upper
        self.values = values  # the only values it takes, ascending, or None
        self.hot = hot
        self.origin = None  # the graph node that binds it, if one does
        self.why = "", ""  # which node of the model min and max are from, for messages

    def __repr__(self) -> str:
        return self.name


class Buffer:
    """A dense row-major array that kernels load from and store to.

    scope says where its memory comes from. In kernels: "param" (an argument), "temp" (memory for
    one call), "local" (private to one iteration: registers or stack). In host functions: "input",
    "input_shape" and "output" of the program (by position), "const" (by position among the module's
    constants), "arena" (placed in the function's frame by the planner), "frame" (that frame),
    "dynamic" (allocated when its size becomes known), "boxed" (on the heap, its size changes: read
    and written through views made after each `Resize`), "reference" (a word that refers to an
    object on the heap: a view of it, from a byte on, is of the object's contents). align: known
    alignment of its first byte.
    """

    __slots__ = ("__weakref__", "align", "dtype", "name", "scope", "shape")

    def __init__(self, name: str, dtype_, shape: Iterable, scope: str = "param", align: int = 0):
        self.name, self.dtype, self.scope = name, dtype(dtype_), scope
        self.shape = tuple(shape)
        self.align = align or self.dtype.bytes

    def __getitem__(self, indices) -> Expr:
        indices = indices if isinstance(indices, tuple) else (indices,)
        return load(self, indices)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


class _Entry(weakref.ref):
    """Where the table of expressions keeps one of them, for as long as somebody else does."""

    __slots__ = ("key",)


_INTERNED: dict[tuple, _Entry] = {}


def _drop(entry: _Entry) -> None:
    """An expression is gone; another one may have taken its place already."""
    if _INTERNED.get(entry.key) is entry:
        del _INTERNED[entry.key]


def make(op: str, dtype_: DType, args: tuple[Expr, ...] = (), value=None) -> Expr:
    """The one Expr with these fields, without simplification. Use the constructors below."""
    # keys name arguments without holding them: a symbol may lead back to what it stands in
    ids = tuple(map(id, args)) if args else ()
    key = (op, dtype_.name, ids, None if value is None else _value_key(value))
    entry = _INTERNED.get(key)
    if entry is not None:
        found = entry()
        if found is not None:
            return found
    e = Expr.__new__(Expr)
    e.op, e.dtype, e.args, e.value = op, dtype_, args, value
    e._bounds = e._key = e._linear = e._reads = e._symbols = e._text = None
    entry = _Entry(e, _drop)
    entry.key = key
    _INTERNED[key] = entry
    return e


def _value_key(value):
    kind = type(value)
    if kind is Symbol or kind is Buffer:
        return (kind, id(value))
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, (bool, int, str, type(None))):
        return (kind, value)
    return (kind, id(value))


_SMALL: dict[int, Expr] = {}  # index constants met so far, if they are small


def const(value, dtype_: DType = index) -> Expr:
    """A constant of the given type; the number is brought into the type (ints wrap)."""
    if dtype_ is index:
        value = int(value)
        found = _SMALL.get(value)
        if found is None:
            found = make("const", index, (), value)
            if -1024 <= value <= 65536:
                _SMALL[value] = found
        return found
    if dtype_.kind == "bool":
        value = bool(value)
    elif dtype_.is_float:
        value = float(value)
        if dtype_.bits < 64 and math.isfinite(value):
            value = float(dtype_.numpy.type(value))
    else:
        value = int(value)
        if dtype_.is_integer and not dtype_.min <= value <= dtype_.max:
            value &= (1 << dtype_.bits) - 1
            if dtype_.kind == "int" and value > dtype_.max:
                value -= 1 << dtype_.bits
    return make("const", dtype_, (), value)


def sym(symbol: Symbol) -> Expr:
    """The index expression that reads a symbol."""
    return make("sym", index, (), symbol)


def var(name: str, extent=None, **facts) -> Expr:
    """A fresh loop variable running over [0, extent), or a shape symbol with the given facts."""
    if extent is None:
        return sym(Symbol(name, **facts))
    high = bounds(as_expr(extent))[1]
    return sym(Symbol(name, 0, None if high is None else max(high - 1, 0), 1, as_expr(extent) - 1))


def as_expr(value, like: DType = index) -> Expr:
    """`value` itself if it is an Expr, else a constant of type `like`."""
    return value if isinstance(value, Expr) else const(value, like)


def as_dim(value) -> int | Expr:
    """A shape dimension: a plain int where the expression is constant."""
    if isinstance(value, Expr):
        return value.value if value.op == "const" else value
    return int(value)


def is_const(e, value=None) -> bool:
    """Whether `e` is a constant (equal to `value`, if one is given)."""
    if not isinstance(e, Expr):
        return value is None or e == value
    return e.op == "const" and (value is None or e.value == value)


def _pair(a, b) -> tuple[Expr, Expr]:
    if not isinstance(a, Expr):
        a = const(a, b.dtype if isinstance(b, Expr) else index)
    if not isinstance(b, Expr):
        b = const(b, a.dtype)
    if a.dtype is not b.dtype:
        raise TypeError(f"operands have different types: {a.dtype} and {b.dtype} in {a}, {b}")
    return a, b


def binary(op: str, a, b) -> Expr:
    """`op` of two operands of one type, simplified if they are indices."""
    a, b = _pair(a, b)
    if a.dtype is index:
        return INDEX_RULES[op](a, b)
    return make(op, a.dtype, (a, b))


def add(a, b) -> Expr:
    return binary("add", a, b)


def sub(a, b) -> Expr:
    return binary("sub", a, b)


def mul(a, b) -> Expr:
    return binary("mul", a, b)


def floordiv(a, b) -> Expr:
    return binary("floordiv", a, b)


def mod(a, b) -> Expr:
    return binary("mod", a, b)


def minimum(a, b) -> Expr:
    return binary("min", a, b)


def maximum(a, b) -> Expr:
    return binary("max", a, b)


def ceildiv(a, b) -> Expr:
    """The smallest integer not below a / b, for b > 0."""
    a, b = _pair(a, b)
    return floordiv(a + b - 1, b)


def compare(op: str, a, b) -> Expr:
    """A bool: a `op` b."""
    a, b = _pair(a, b)
    if a.dtype is index:
        return INDEX_RULES[op](a, b)
    return make(op, boolean, (a, b))


def eq(a, b) -> Expr:
    return compare("eq", a, b)


def ne(a, b) -> Expr:
    return compare("ne", a, b)


def unary(op: str, a: Expr) -> Expr:
    """`op` of one operand; predicates give bool, everything else the operand's type."""
    if op == "not" and a.op == "const" and a.dtype is boolean:
        return const(not a.value, boolean)
    return make(op, boolean if op in PREDICATES else a.dtype, (a,))


def all_of(conditions: Iterable[Expr]) -> Expr:
    """The conjunction of bool expressions; an empty one is true."""
    result = const(True, boolean)
    for c in conditions:
        if is_const(c, False) or is_const(result, True):
            result = c if not is_const(result, False) else result
        elif not is_const(c, True):
            result = make("and", boolean, (result, c))
    return result


def any_of(conditions: Iterable[Expr]) -> Expr:
    """The disjunction of bool expressions; an empty one is false."""
    result = const(False, boolean)
    for c in conditions:
        if is_const(c, True) or is_const(result, False):
            result = c if not is_const(result, True) else result
        elif not is_const(c, False):
            result = make("or", boolean, (result, c))
    return result


def select(cond: Expr, a, b) -> Expr:
    """a where cond holds, else b."""
    a, b = _pair(a, b)
    if is_const(cond):
        return a if cond.value else b
    return a if a is b else make("select", a.dtype, (cond, a, b))


def cast(e, to) -> Expr:
    """`e` converted to dtype `to`."""
    to = dtype(to)
    if not isinstance(e, Expr):
        return const(e, to)
    if e.dtype is to:
        return e
    if e.op == "const" and not (e.dtype.is_float and not to.is_float) and to.bits >= 16:
        return const(e.value, to)
    if to is index and e.op == "cast" and e.args[0].dtype is index and e.dtype.bits == 64:
        return e.args[0]
    return make("cast", to, (e,))


def bitcast(e: Expr, to) -> Expr:
    """The bits of `e` read as dtype `to` of the same width."""
    to = dtype(to)
    if to.bits != e.dtype.bits:
        raise TypeError(f"bitcast from {e.dtype} to {to}: widths differ")
    return e if e.dtype is to else make("bitcast", to, (e,))


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """a * b + c, rounded once where the target can."""
    return make("fma", c.dtype, (a, b, c))


def load(buffer: Buffer, indices: Iterable) -> Expr:
    """The element of `buffer` at `indices` (one index expression a dimension)."""
    indices = tuple(as_expr(i) for i in indices)
    if len(indices) != len(buffer.shape):
        raise TypeError(f"{len(indices)} subscripts for {buffer}")
    for i in indices:
        if i.dtype is not index:
            raise TypeError(f"subscript {i} of {buffer} has type {i.dtype}; cast it to index")
    return make("load", buffer.dtype, indices, buffer)


def call(name: str, dtype_: DType, args: Iterable[Expr]) -> Expr:
    """A pure scalar function known to the code generator, by name."""
    return make("call", dtype_, tuple(args), name)


def join(low: Expr, high: Expr) -> Expr:
    """The bits of two values of 16 bits as one u32."""
    if low.dtype.bits != 16 or high.dtype.bits != 16:
        raise TypeError(f"join of {low.dtype} and {high.dtype}: they do not have 16 bits")
    return call("join", dtype("u32"), (low, high))


def opaque(e: Expr) -> Expr:
    """The value of an index expression of which nothing is assumed, for checking what is."""
    return e if e.op == "const" else call("opaque", e.dtype, (e,))


# Filled by simplify.py, which sits above this file: op -> function(a, b) on index expressions.
INDEX_RULES: dict[str, Callable[[Expr, Expr], Expr]] = {}


def bounds(e: Expr) -> tuple[int | None, int | None]:
    """Inclusive (low, high) of an index expression, None where unbounded. Cached in the node."""
    if e._bounds is None:
        e._bounds = _bounds(e)
    return e._bounds


def _bounds(e: Expr) -> tuple[int | None, int | None]:
    match e.op:
        case "const":
            return (int(e.value), int(e.value))
        case "sym":
            return (e.value.min, e.value.max)
        case "add":
            return _bounds_add(*map(bounds, e.args))
        case "mul":
            return _bounds_mul(*map(bounds, e.args))
        case "min" | "max":
            return _bounds_minmax(e.op, *map(bounds, e.args))
        case "floordiv":
            return _bounds_floordiv(*map(bounds, e.args))
        case "mod":
            low, high = bounds(e.args[1])
            return (0, high - 1) if low is not None and low > 0 and high is not None else (
                (0, None) if low is not None and low > 0 else (None, None))  # fmt: skip
        case "select":
            (la, ha), (lb, hb) = map(bounds, e.args[1:])
            return (None if None in (la, lb) else min(la, lb),
                    None if None in (ha, hb) else max(ha, hb))  # fmt: skip
        case "cast" if e.args[0].dtype.is_integer and e.args[0].dtype.bits < 64:
            return (e.args[0].dtype.min, e.args[0].dtype.max)
        case "cast" if e.args[0].dtype is boolean:
            return (0, 1)
    return (None, None)


def _bounds_add(a, b):
    return tuple(None if None in pair else sum(pair) for pair in zip(a, b))


def _bounds_mul(a, b):
    if a[0] is not None and a[0] == a[1]:
        a, b = b, a
    if b[0] is not None and b[0] == b[1]:  # by a constant: each side scales
        ends = [None if x is None else x * b[0] for x in a]
        return tuple(ends) if b[0] >= 0 else (ends[1], ends[0])
    if None not in a and None not in b:
        products = [x * y for x in a for y in b]
        return (min(products), max(products))
    if a[0] is not None and b[0] is not None and a[0] >= 0 and b[0] >= 0:
        return (a[0] * b[0], None)
    return (None, None)


def _bounds_minmax(op, a, b):
    lows, highs = (a[0], b[0]), (a[1], b[1])
    known_low = [x for x in lows if x is not None]
    known_high = [x for x in highs if x is not None]
    if op == "min":
        return (None if None in lows else min(lows), min(known_high, default=None))
    return (max(known_low, default=None), None if None in highs else max(highs))


def _bounds_floordiv(a, b):
    if b[0] is None or b[0] <= 0:
        return (None, None)
    ends = [(x, d) for x in a if x is not None for d in b if d is not None]
    quotients = [x // d for x, d in ends]
    if b[1] is None:  # an unbounded divisor pulls towards 0, or -1
        quotients += [-1 if x < 0 else 0 for x in a if x is not None]
    if not quotients:
        return (None, None)
    return (None if a[0] is None else min(quotients), None if a[1] is None else max(quotients))


def walk(*roots: Expr) -> Iterable[Expr]:
    """Every distinct sub-expression of `roots`, arguments before users; iterative."""
    done: dict[Expr, None] = {}
    stack = list(reversed(roots))
    while stack:
        e = stack[-1]
        if e not in done:
            missing = [a for a in e.args if a not in done] if e.args else None
            if missing:
                missing.reverse()
                stack += missing
                continue
            done[e] = None
        stack.pop()
    return done


def rebuild(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """`e` with other arguments, through the simplifying constructors."""
    if all(map(is_, e.args, args)):
        return e
    op = e.op
    if op in INDEX_RULES and args[0].dtype is index:
        return INDEX_RULES[op](*args)
    if op == "select":
        return select(*args)
    if op == "cast":
        return cast(args[0], e.dtype)
    if op == "and" and e.dtype is boolean:
        return all_of(args)
    if op == "or" and e.dtype is boolean:
        return any_of(args)
    if op == "not":
        return unary("not", args[0])
    return make(op, e.dtype, args, e.value)


def transform(e: Expr, leaf: Callable[[Expr], Expr | None], memo: dict | None = None) -> Expr:
    """`e` with each node first offered to `leaf`: a result replaces it, None descends into it."""
    memo = {} if memo is None else memo
    found = memo.get(e)
    if found is not None:
        return found
    new = leaf(e)
    if new is None:
        new = rebuild(e, tuple([transform(a, leaf, memo) for a in e.args])) if e.args else e
    memo[e] = new
    return new


def substitute(e: Expr, values: dict[Expr, Expr], memo: dict | None = None) -> Expr:
    """`e` with every sub-expression that is a key of `values` replaced."""
    return transform(e, values.get, memo) if values else e


def symbols_in(e: Expr) -> frozenset[Symbol]:
    """The symbols that occur in an expression. Cached in the node."""
    return fact(e, "_symbols", _own_symbols) if e._symbols is None else e._symbols


def fact(e: Expr, slot: str, own: Callable[[Expr], object]):
    """What is to be known of an expression, own(e) once its arguments know theirs, kept in a slot
    of every node. Deep expressions must not meet Python's limit on recursion."""
    known, stack = attrgetter(slot), [e]
    while stack:
        part = stack[-1]
        if known(part) is None:
            missing = [a for a in part.args if known(a) is None]
            if missing:
                stack += missing
                continue
            setattr(part, slot, own(part))
        stack.pop()
    return known(e)


_NO_SYMBOLS: frozenset[Symbol] = frozenset()


def _own_symbols(e: Expr) -> frozenset[Symbol]:
    """`symbols_in` of a node whose arguments know theirs; equal sets are mostly one object."""
    if e.op == "sym":
        return frozenset((e.value,))
    found = _NO_SYMBOLS
    for a in e.args:
        more = a._symbols
        if not found:
            found = more
        elif more is not found and not more <= found:
            found = found | more
    return found


def replace_symbols(e: Expr, values: dict[Symbol, Expr], memo: dict) -> Expr:
    """`e` with symbols replaced; what contains none of them is not looked at. memo: the results
    for these values, which calls may share."""
    if values.keys().isdisjoint(symbols_in(e)):
        return e
    found = memo.get(e)
    if found is None:
        cond = replace_symbols(e.args[0], values, memo) if e.op == "select" else None
        if e.op == "sym":
            found = values[e.value]
        elif cond is not None and cond.op == "const":  # the other arm does not matter
            found = replace_symbols(e.args[1 if cond.value else 2], values, memo)
        else:
            found = rebuild(e, tuple([replace_symbols(a, values, memo) for a in e.args]))
        memo[e] = found
    return found


def symbols_of(*roots: Expr) -> set[Symbol]:
    """The symbols that occur in the expressions."""
    return set().union(*map(symbols_in, roots))


_INFIX = {
    "add": ("+", 5), "sub": ("-", 5), "mul": ("*", 6), "div": ("/", 6), "floordiv": ("//", 6),
    "mod": ("%", 6), "eq": ("==", 3), "ne": ("!=", 3), "lt": ("<", 3), "le": ("<=", 3),
    "gt": (">", 3), "ge": (">=", 3),
}  # fmt: skip


_LOOSEST, _TIGHTEST = 0, 9  # of what goes into parentheses beside any operator, and beside none
LONG = 1000  # characters of a text by which expressions are ordered


def to_text(e, precedence: int = _LOOSEST) -> str:
    """Python source of an expression, as the text form prints it."""
    if not isinstance(e, Expr):
        return str(e)
    text = text_of(e) if e.dtype is index else _made_text(e, to_text)
    return f"({text})" if _level(e) < precedence else text


def text_of(e: Expr) -> str:
    """`to_text(e)`, computed once a node. So are the parts of an index expression: sizes that are
    computed share most of what they consist of."""
    if e._text is None:
        known = order_of(e)
        e._text = known if len(known) <= LONG else _made_text(e, to_text)
    return e._text


def order_of(e: Expr) -> str:
    """By what expressions are ordered: their text; its beginning and a digest, if it is long. What
    is computed from parts that have parts in common may have a text that no memory holds. Cached
    in the node."""
    if e._key is None:
        text = _made_text(e, _order_in)
        rest = f"#{sha256(text.encode()).hexdigest()}" if len(text) > LONG else ""
        e._key = text[:LONG] + rest
    return e._key


def _order_in(e: Expr, precedence: int = _LOOSEST) -> str:
    """The same as a part of something else."""
    return f"({order_of(e)})" if _level(e) < precedence else order_of(e)


def _level(e: Expr) -> int:
    """How tight an expression's operator binds what is beside it."""
    if e.op == "select":
        return _LOOSEST
    if e.op in ("and", "or") and e.dtype is boolean:
        return 2 if e.op == "and" else 1
    return _INFIX[e.op][1] if e.op in _INFIX else _TIGHTEST


def _made_text(e: Expr, part: Callable[..., str]) -> str:
    """The text of an expression from those of its arguments: part(argument, precedence)."""
    if e.op == "const":
        return const_text(e)
    if e.op == "sym":
        return e.value.name
    if e.op == "load":
        return f"{e.value.name}[{', '.join(map(part, e.args)) or '()'}]"
    if e.op == "select":
        cond, a, b = part(e.args[0], 1), part(e.args[1], 1), part(e.args[2])
        return f"{a} if {cond} else {b}"
    level = _level(e)
    if level == _TIGHTEST:
        return _call_text(e, list(map(part, e.args)))
    symbol, (a, b) = _INFIX[e.op][0] if e.op in _INFIX else e.op, e.args
    if e.op == "add" and b.dtype is index:
        symbol, b = _minus(b)
    left = level + 1 if e.op in COMPARISONS else level  # Python would read a chain
    return f"{part(a, left)} {symbol} {part(b, level + 1)}"


def _minus(b: Expr) -> tuple[str, Expr]:
    """How to add an index term: a negative constant factor prints as a subtraction."""
    if b.op == "const" and b.value < 0:
        return "-", const(-b.value)
    if b.op == "mul" and b.args[1].op == "const" and b.args[1].value < 0:
        factor = -b.args[1].value
        return "-", b.args[0] if factor == 1 else make("mul", index, (b.args[0], const(factor)))
    return "+", b


def _call_text(e: Expr, args: list[str]) -> str:
    if e.op in ("cast", "bitcast"):
        return f"{e.op}({args[0]}, {e.dtype})"
    if e.op == "call":
        return f"call({e.value!r}, {', '.join([e.dtype.name, *args])})"
    name = {"not": "not_", "and": "bit_and", "or": "bit_or", "pow": "power"}.get(e.op, e.op)
    return f"{name}({', '.join(args)})"


def const_text(e: Expr) -> str:
    """A constant as the parser reads it back: bare for index, f32 and bool, else typed."""
    v = e.value
    if e.dtype.is_float and not math.isfinite(v):
        body = "nan" if math.isnan(v) else ("inf" if v > 0 else "-inf")
    elif e.dtype.name == "f32":
        body = str(e.dtype.numpy.type(v))  # the shortest digits that give this f32
    else:
        body = repr(v)
    if e.dtype.name in ("index", "f32", "bool"):
        return body
    return f"{e.dtype}({body})"
