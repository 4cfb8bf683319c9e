"""Nested tuples, lists and dicts of tensors, flattened and rebuilt.

flatten({"h": h, "c": (c,)})  ->  [c, h], spec;   rebuild(spec, [c, h])  ->  the same dict
"""

from __future__ import annotations

from collections.abc import Iterator

LEAF = "leaf"


def flatten(tree) -> tuple[list, object]:
    """(leaves, spec) with dicts in key order; None counts as structure."""
    leaves: list = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree, leaves: list):
    if isinstance(tree, dict):
        keys = tuple(sorted(tree, key=str))
        return ("dict", keys, tuple(_flatten(tree[k], leaves) for k in keys))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return (type(tree), None, tuple(_flatten(v, leaves) for v in tree))
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return (kind, None, tuple(_flatten(v, leaves) for v in tree))
    if tree is None:
        return ("none", None, ())
    leaves.append(tree)
    return LEAF


def rebuild(spec, leaves):
    """The tree of that spec over other leaves."""
    return _rebuild(spec, iter(leaves))


def _rebuild(spec, leaves: Iterator):
    if spec == LEAF:
        return next(leaves)
    kind, keys, parts = spec
    if kind == "dict":
        return {k: _rebuild(p, leaves) for k, p in zip(keys, parts)}
    if kind == "none":
        return None
    values = [_rebuild(p, leaves) for p in parts]
    if kind in ("tuple", "list"):
        return tuple(values) if kind == "tuple" else values
    return kind(*values)


def count(spec) -> int:
    """How many leaves a tree of that spec has."""
    return 1 if spec == LEAF else sum(map(count, spec[2]))


def describe(spec) -> str:
    """`(*, {h: *})`, for messages."""
    if spec == LEAF:
        return "*"
    kind, keys, parts = spec
    inner = [describe(p) for p in parts]
    if kind == "dict":
        return "{" + ", ".join(f"{k}: {p}" for k, p in zip(keys, inner)) + "}"
    if kind == "none":
        return "None"
    return ("[%s]" if kind == "list" else "(%s)") % ", ".join(inner)
