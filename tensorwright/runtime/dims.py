"""Arithmetic of symbolic dimensions as a manifest writes them.

    evaluate("4*n + 1", {"n": 3})  ->  13

The texts are what `ir.expr.text_of` prints: integers, names, + - * // % and min, max.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping

_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {"min": min, "max": max}


def evaluate(dim: int | str, values: Mapping[str, int]) -> int | None:
    """The value of a dimension; None where a name has no value or the text is none of these."""
    if isinstance(dim, int):
        return dim
    try:
        return _value(_parse(dim), values)
    except KeyError:
        return None


def names(dim: int | str) -> tuple[str, ...]:
    """The symbols in a dimension, in order of appearance."""
    if isinstance(dim, int):
        return ()
    found = [n.id for n in ast.walk(_parse(dim)) if isinstance(n, ast.Name)]
    return tuple(dict.fromkeys(n for n in found if n not in _FUNCTIONS))


def bind(pairs: Iterable[tuple[int | str, int]]) -> dict[str, int]:
    """The symbols that stand alone in a dimension, from (dimension, its size)."""
    return {d: size for d, size in pairs if isinstance(d, str) and names(d) == (d,)}


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return ast.Name(text)  # a model's own name for a dimension, such as "past + 1 "


def _value(node: ast.expr, values: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b = _value(left, values), _value(right, values)
            divides = isinstance(op, (ast.FloorDiv, ast.Mod))
            return 0 if divides and b == 0 else _OPERATORS[type(op)](a, b)
        case ast.Call(func=ast.Name(id=name), args=args) if name in _FUNCTIONS:
            return _FUNCTIONS[name](_value(a, values) for a in args)
    raise KeyError(ast.unparse(node))
