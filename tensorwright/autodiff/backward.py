"""Reverse accumulation: a graph that computes gradients beside the results of another.

    y = mul(x, x); loss = reduce_sum(y)   ->   the same, and dx = add(mul(g, x), mul(g, x))

The joint graph is an ordinary graph: what forward and backward share is one node, and every later
pass treats both halves alike. An operator differentiates by its `gradient` column; a composite
without one is replaced by its expansion, in the forward half as well. A rule answers in the shape
of the broadcast operands; the sum over what was broadcast is added here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tensorwright.autodiff.control import RULES, save_states, saves_states
from tensorwright.base.errors import CompileError
from tensorwright.ir.build import location
from tensorwright.ir.graph import CONST, Graph, Node, graph, param, rebuild
from tensorwright.ir.type import TensorType, TupleType
from tensorwright.ops.elementwise import add
from tensorwright.ops.index import full
from tensorwright.ops.movement import broadcast_to
from tensorwright.ops.reduce import reduce_sum

Wrt = Iterable[str | int | Node]
# The cotangent of a tensor is a node, of a tuple a list of cotangents; None is zero.
Cotangent = Node | list | None


def gradient(g: Graph, wrt: Wrt | None = None, cotangents: bool | None = None) -> Graph:
    """`g` with the gradients by the parameters `wrt` (names, positions or nodes; None: all of
    float type) as further results, named `d_<parameter>`.

    With `cotangents` the joint graph takes one more parameter `d_<result>` for each float result;
    without, `g` has one float result of one element, whose cotangent is 1. None means: whichever
    fits."""
    targets = _targets(g, wrt)
    g = expand_for_gradient(g, targets)
    seeds, extra = _seeds(g, _takes_cotangents(g, cotangents))
    found = _reverse(g, targets, seeds)
    grads = [_gradient_of(p, found) for p in targets]
    names = g.result_names or tuple(r.name or f"y{k}" for k, r in enumerate(g.results))
    return graph(f"{g.name}_gradient", (*g.params, *extra), (*g.results, *grads),
                 (*names, *(f"d_{p.name}" for p in targets)))  # fmt: skip


def _targets(g: Graph, wrt: Wrt | None) -> list[Node]:
    if wrt is None:
        return [p for p in g.params if is_differentiable(p)]
    by_name = {p.name: p for p in g.params}
    found = []
    for w in wrt:
        p = g.params[w] if isinstance(w, int) else by_name.get(w) if isinstance(w, str) else w
        if p not in g.params:
            raise CompileError(f"gradient: {g.name} has no parameter {w!r}",
                               notes=(f"it has {', '.join(by_name)}",))  # fmt: skip
        if not is_differentiable(p):
            raise CompileError(f"gradient: {p.name} is {p.type}, which has no gradient",
                               help="differentiate with respect to float tensors")  # fmt: skip
        found.append(p)
    return found


def is_differentiable(node: Node) -> bool:
    return isinstance(node.type, TensorType) and node.dtype.is_float


def dependents(g: Graph, sources: Iterable[Node]) -> set[Node]:
    """The nodes through which a gradient flows from results back to `sources`."""
    found = set(sources)
    for node in g.nodes():
        carries = isinstance(node.type, TupleType) or node.dtype.is_float
        if carries and any(a in found for a in node.args):
            found.add(node)
    return found


def expand_for_gradient(g: Graph, targets: Sequence[Node]) -> Graph:
    """`g` with the composites on the way that have no gradient of their own expanded, and scans
    keeping the states that their gradient needs."""
    while True:
        active = dependents(g, targets)
        if not any(_must_expand(n) for n in active):
            return g

        def make(node: Node, args: tuple, active: set[Node] = active) -> Node:
            if node in active and _must_expand(node):
                with location(*node.loc):
                    made = save_states if node.op.name == "scan_" else _expansion
                    return made(node, args)
            same = all(a is b for a, b in zip(args, node.args))
            return node if same else replace(node, args=args)

        g = rebuild(g, make)


def _must_expand(node: Node) -> bool:
    if node.op.name == "scan_":
        return not saves_states(node)
    return node.op.gradient is None and node.op.expand is not None


def _expansion(node: Node, args: Sequence[Node]) -> Node:
    return node.op.expand(*args, **node.attrs)


def _takes_cotangents(g: Graph, wanted: bool | None) -> bool:
    floats = [r for r in g.results if is_differentiable(r)]
    if not floats:
        raise CompileError(f"gradient: {g.name} has no float result")
    single = len(floats) == 1 and floats[0].type.size == 1
    if wanted is False and not single:
        raise CompileError(
            f"gradient: {g.name} must have one float result of one element, it has "
            f"{', '.join(str(r.type) for r in floats)}",
            help="reduce the loss to a scalar, or ask for cotangents",
        )
    return not single if wanted is None else wanted


def _seeds(g: Graph, as_params: bool) -> tuple[list[tuple[Node, Node]], list[Node]]:
    """(result, its cotangent) pairs, and the new parameters among the cotangents."""
    pairs, extra = [], []
    for k, r in enumerate(g.results):
        if not is_differentiable(r):
            continue
        if as_params:
            names = g.result_names
            label = names[k] if names else r.name or f"y{k}"
            extra.append(param(f"d_{label}", r.type))
            pairs.append((r, extra[-1]))
        else:
            pairs.append((r, full(shape=r.shape, value=1, dtype=r.dtype)))
    return pairs, extra


def _reverse(g: Graph, targets: Sequence[Node], seeds) -> dict[Node, Cotangent]:
    """The cotangent of every node that the targets feed, users before what they use."""
    active = dependents(g, targets)
    found: dict[Node, Cotangent] = {}
    for node, seed in seeds:
        found[node] = _sum(found.get(node), seed)
    for node in reversed(g.nodes()):
        got = found.get(node)
        if node in active and node.args and not is_zero(got):
            with location(*node.loc):
                _pull(node, got, found, active)
    return found


def is_zero(cotangent: Cotangent) -> bool:
    if isinstance(cotangent, list):
        return all(is_zero(c) for c in cotangent)
    return cotangent is None


def _pull(node: Node, got: Cotangent, found: dict, active: set[Node]) -> None:
    """Add what one node passes on to the cotangents of its operands."""
    if node.op.name == "item":
        source, k = node.args[0], node.attrs["index"]
        slots = found.setdefault(source, [None] * len(source.type.items))
        slots[k] = _sum(slots[k], got)
        return
    if node.op.name == "make_tuple":
        parts: Sequence[Cotangent] = got
    else:
        parts = _apply_rule(node, got)
    for a, part in zip(node.args, parts):
        if a in active and a.op is not CONST and not is_zero(part):
            fitted = unbroadcast(part, a.type) if isinstance(part, Node) else part
            found[a] = _sum(found.get(a), fitted)


def _apply_rule(node: Node, got: Cotangent) -> Sequence[Cotangent]:
    rule = node.op.gradient
    if rule is None and node.op.name in RULES:
        parts = got if isinstance(got, list) else [got]
        return RULES[node.op.name](node, parts, gradient)
    if rule is None:
        raise CompileError(
            f"gradient: {node.op.name} has no gradient",
            help="cut it off from the parameters, or do not differentiate by them",
        )
    if isinstance(node.type, TupleType):
        got = tuple(_filled(c, t) for c, t in zip(got, node.type.items))
    return rule(got, node, *node.args, **node.attrs)


def _filled(c: Cotangent, t) -> Node | None:
    """A cotangent as a rule expects it: zeros where nothing came back."""
    if c is None and isinstance(t, TensorType) and t.dtype.is_float:
        return full(shape=t.shape, value=0, dtype=t.dtype)
    return c


def _sum(a: Cotangent, b: Cotangent) -> Cotangent:
    if isinstance(a, list) and isinstance(b, list):
        return [_sum(x, y) for x, y in zip(a, b)]
    return b if a is None else a if b is None else add(a, b)


def unbroadcast(c: Node, t: TensorType) -> Node:
    """A cotangent of a broadcast shape as one of the operand's: sums over what was repeated."""
    if c.shape == t.shape:
        return c
    extra = c.rank - t.rank
    if extra > 0:
        c = reduce_sum(c, axes=tuple(range(extra)))
    grown = tuple(k for k, (n, d) in enumerate(zip(c.shape, t.shape)) if d == 1 and n != 1)
    if grown and extra >= 0:
        c = reduce_sum(c, axes=grown, keepdims=True)
    return c if c.shape == t.shape else broadcast_to(c, shape=t.shape)


def _gradient_of(p: Node, found: dict[Node, Cotangent]) -> Node:
    got = found.get(p)
    return full(shape=p.shape, value=0, dtype=p.dtype) if got is None else got


__all__ = ["dependents", "expand_for_gradient", "gradient", "is_differentiable", "unbroadcast"]
