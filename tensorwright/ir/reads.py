"""What expressions read from memory.

loads_in(x[y[i]] + x[i])   ->   [y[i], x[y[i]], x[i]]
"""

from __future__ import annotations

from collections.abc import Callable

from tensorwright.ir.expr import Buffer, Expr, fact, rebuild


def reads(e: Expr) -> bool:
    """Whether there are loads in an expression. Cached in the node."""
    return fact(e, "_reads", _reads) if e._reads is None else e._reads


def _reads(e: Expr) -> bool:
    return e.op == "load" or any([a._reads for a in e.args])


def loads_in(*roots: Expr) -> list[Expr]:
    """Every distinct load in `roots`, those in its subscripts before it. What loads nothing, as
    most subscripts, is not looked at."""
    done: dict[Expr, None] = {}
    stack = [e for e in reversed(roots) if reads(e)]
    while stack:
        e = stack[-1]
        if e not in done:
            missing = [a for a in e.args if a not in done and reads(a)]
            if missing:
                missing.reverse()
                stack += missing
                continue
            done[e] = None
        stack.pop()
    return [e for e in done if e.op == "load"]


def map_loads(e: Expr, made: Callable[[Buffer, tuple[Expr, ...]], Expr | None], memo: dict) -> Expr:
    """`e` with each load b[i] replaced by made(b, i), the loads in i first; None keeps it."""
    if not reads(e):
        return e
    found = memo.get(e)
    if found is not None:
        return found
    args = tuple([map_loads(a, made, memo) for a in e.args]) if e.args else ()
    new = made(e.value, args) if e.op == "load" else None
    if new is None:
        new = rebuild(e, args) if args else e
    memo[e] = new
    return new
